//! A monitor that raises alerts from a subscription: a large transaction, and many small transfers from one account in a short
//! time (money that is moved in pieces below a threshold).
//!
//! `cargo run -p rabia-bank-examples --bin monitor -- [--connect URL,URL…] [--from ID] [--large 100000] [--small 10000]
//! [--count 5] [--within 60]`
//!
//! It prints one line an alert, and goes on over node failures without missing a transaction. Times are log time, so the same
//! history gives the same alerts, whenever it is looked at.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::time::Duration;

use clap::Parser;
use rabia_bank::bank::{Transaction, TransactionType};
use rabia_bank::client::{ClientOptions, Feed, NodeUrl, Subscription, find_token};

/// Raises alerts from the live feed of a cluster.
#[derive(Parser)]
struct Args {
    /// Nodes to speak to, tried in turn.
    #[arg(long, value_delimiter = ',', default_value = "ws://127.0.0.1:7101,ws://127.0.0.1:7102,ws://127.0.0.1:7103")]
    connect: Vec<NodeUrl>,
    /// Begin with this transaction; without it, with the next one.
    #[arg(long)]
    from: Option<u64>,
    /// A transaction of at least so much is large.
    #[arg(long, default_value_t = 100_000)]
    large: u64,
    /// A transfer below so much is small.
    #[arg(long, default_value_t = 10_000)]
    small: u64,
    /// So many small ones from one account …
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// … within so many seconds are an alert.
    #[arg(long, default_value_t = 60)]
    within: u64,
}

/// What the rules need to remember.
struct Monitor {
    rules: Args,
    /// The times of the newest small transfers, by the account that they came from.
    small: HashMap<Box<str>, VecDeque<u64>>,
}

impl Monitor {
    fn alerts(&mut self, transaction: &Transaction) -> Vec<String> {
        let Transaction { transaction_id: id, amount, timestamp, .. } = transaction;
        let mut alerts = Vec::new();
        if *amount >= self.rules.large {
            let kind = transaction.transaction_type.name();
            alerts.push(format!("large: #{id}, a {kind} of {amount}"));
        }
        let is_small = transaction.transaction_type == TransactionType::Transfer && *amount < self.rules.small;
        if let Some(account) = transaction.from_account.as_ref().filter(|_| is_small) {
            let times = self.small.entry(account.clone()).or_default();
            times.push_back(*timestamp);
            while times.front().is_some_and(|first| timestamp - first > self.rules.within * 1_000) {
                times.pop_front();
            }
            if times.len() >= usize::from(self.rules.count) {
                let (count, within) = (times.len(), self.rules.within);
                alerts
                    .push(format!("many small: {count} transfers from {account} within {within} s, the last is #{id}"));
                // The next alert needs as many again.
                times.clear();
            }
        }
        alerts
    }
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn Error>> {
    let rules = Args::parse();
    // A monitor waits for its cluster as long as it takes.
    let token = find_token("rabia-bank-data/client.token".as_ref())?;
    let options = ClientOptions { token, timeout: Duration::MAX, ..ClientOptions::new(rules.connect.clone()) };
    let mut feed = Subscription::new(options, Feed { from: rules.from, ..Feed::default() });
    let mut monitor = Monitor { rules, small: HashMap::new() };
    while let Some(news) = feed.next().await {
        for alert in monitor.alerts(&news?) {
            println!("{alert}");
        }
    }
    Ok(())
}
