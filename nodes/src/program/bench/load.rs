//! What a run sends: which requests, how many at a time, and when.
//!
//! In a closed loop every client keeps its requests under way and sends the next when one is answered: it measures how much
//! the cluster can do. In an open loop (`--rate`) requests begin at their times whether or not others were answered, and
//! their latency counts from the time at which they should have begun: a cluster that stalls can't hide it by being asked
//! less. Timers go off every millisecond, so that in an open loop up to one of it is the benchmark's own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rabia_bank_messages::bank::{AccountId, Amount, Bulk, Command, MAX_BULK, Operation, Query, ReadLevel};
use tokio::task::JoinSet;

use super::books::{Books, LARGEST_TRANSFER, MAX_ACCOUNTS, Transfer};
use crate::client::{Client, ClientOptions, NodeUrl, Request, Tls, Token};
use crate::program::client::{read_level, seconds};

/// Requests of one client that an open loop lets wait, half of what a node grants. More wait for their turn, which counts
/// as part of their latency.
const OPEN_IN_FLIGHT: usize = 4_096;

/// What the clients send, how many they are, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Load {
    /// Accounts to move money between.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=MAX_ACCOUNTS))]
    pub accounts: u64,
    /// Connections, spread over the nodes.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub clients: u64,
    /// Transfers in one request; 1 sends single transfers.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_BULK as u64))]
    pub bulk: u64,
    /// Requests that each client keeps under way.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub in_flight: u64,
    /// Begin so many requests a second, over all clients, whether or not earlier ones were answered.
    #[arg(long, value_name = "N", conflicts_with = "in_flight", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Of all requests, how many ask for a balance instead, in percent.
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub reads: u8,
    /// How fresh a balance must be: linearizable or local.
    #[arg(long, default_value = "linearizable", value_name = "LEVEL", value_parser = read_level)]
    pub read: ReadLevel,
    /// So many of the accounts are hot; 0: all are alike.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub hot: u64,
    /// How often an end of a transfer is a hot account, in percent.
    #[arg(long, default_value_t = 80, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub hot_share: u8,
    /// How long to measure, in seconds.
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub duration: Duration,
    /// How long to run before measuring, in seconds.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    pub warm_up: Duration,
    /// How long a request may take, retries included, in seconds.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Duration,
    /// Clients stay at their node, also when it is gone.
    #[arg(long)]
    pub pin: bool,
    /// Who the clients are.
    #[arg(skip)]
    pub token: Option<Token>,
    /// Whom they trust.
    #[arg(skip)]
    pub tls: Option<Tls>,
}

impl Load {
    /// How the clients behave.
    pub(super) fn options(&self, urls: Vec<NodeUrl>) -> ClientOptions {
        let in_flight = if self.rate.is_some() { OPEN_IN_FLIGHT } else { self.in_flight as usize };
        let (token, tls) = (self.token.clone(), self.tls.clone());
        ClientOptions { token, tls, timeout: self.timeout, max_in_flight: in_flight, ..ClientOptions::new(urls) }
    }

    /// Starts all clients. They send until `end`, book what comes of it, and say goodbye.
    pub(super) fn start(
        &self,
        urls: &[NodeUrl],
        names: Rc<Vec<AccountId>>,
        books: &Rc<RefCell<Books>>,
        end: Instant,
    ) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let requests = Rc::new(Requests::new(self, names));
        let now = Instant::now();
        for index in 0..self.clients as usize {
            let sender = Rc::new(Sender {
                client: Client::connect(self.options(urls_of(urls, index, self.pin))),
                requests: requests.clone(),
                books: books.clone(),
            });
            match self.rate {
                None => {
                    let in_flight = self.in_flight;
                    clients.spawn_local(async move {
                        let mut loops = JoinSet::new();
                        for _ in 0..in_flight {
                            loops.spawn_local(sender.clone().closed_loop(end));
                        }
                        loops.join_all().await;
                        sender.close().await;
                    });
                }
                Some(rate) => {
                    let step = Duration::from_secs_f64(self.clients as f64 / rate as f64);
                    let first = now + step.mul_f64(index as f64 / self.clients as f64);
                    clients.spawn_local(sender.open_loop(first, step, end));
                }
            }
        }
        clients
    }
}

/// The URLs of a client: its own node first; alone where it is pinned.
fn urls_of(urls: &[NodeUrl], client: usize, pin: bool) -> Vec<NodeUrl> {
    let mut urls = urls.to_vec();
    let count = urls.len();
    urls.rotate_left(client % count);
    if pin {
        urls.truncate(1);
    }
    urls
}

/// What to send next.
struct Requests {
    names: Rc<Vec<AccountId>>,
    bulk: usize,
    reads: u8,
    read: ReadLevel,
    hot: usize,
    hot_share: u8,
}

impl Requests {
    fn new(load: &Load, names: Rc<Vec<AccountId>>) -> Requests {
        let hot = (load.hot as usize).min(names.len());
        Requests { names, bulk: load.bulk as usize, reads: load.reads, read: load.read, hot, hot_share: load.hot_share }
    }

    /// The next request, with the transfers in it. A read has none.
    fn next(&self) -> (Request, Vec<Transfer>) {
        if fastrand::u8(..100) < self.reads {
            let query = Query::GetBalance { account_id: self.names[self.account()].clone() };
            return (Request::Query(query, self.read), Vec::new());
        }
        let transfers: Vec<_> = (0..self.bulk).map(|_| self.transfer()).collect();
        let command = match transfers.as_slice() {
            [one] => Command::One(self.operation(*one)),
            many => {
                let commands = many.iter().map(|transfer| self.operation(*transfer)).collect();
                Command::Bulk(Bulk { commands, atomic: false })
            }
        };
        (Request::Command(command), transfers)
    }

    fn account(&self) -> usize {
        let hot = self.hot > 0 && fastrand::u8(..100) < self.hot_share;
        fastrand::usize(..if hot { self.hot } else { self.names.len() })
    }

    fn transfer(&self) -> Transfer {
        let (from, mut to) = (self.account(), self.account());
        if from == to {
            to = (from + fastrand::usize(1..self.names.len())) % self.names.len();
        }
        Transfer { from, to, amount: fastrand::u64(1..=LARGEST_TRANSFER) }
    }

    fn operation(&self, Transfer { from, to, amount }: Transfer) -> Operation {
        Operation::Transfer {
            from_account: self.names[from].clone(),
            to_account: self.names[to].clone(),
            amount: Amount::new(amount),
        }
    }
}

/// One client of a run.
struct Sender {
    client: Client,
    requests: Rc<Requests>,
    books: Rc<RefCell<Books>>,
}

impl Sender {
    /// Sends one request that should have begun at `begun`.
    async fn send(&self, begun: Instant) {
        let (request, transfers) = self.requests.next();
        let outcome = self.client.ask(request).await;
        self.books.borrow_mut().book(&transfers, begun, &outcome);
    }

    /// Keeps one request under way.
    async fn closed_loop(self: Rc<Self>, end: Instant) {
        loop {
            let now = Instant::now();
            if now >= end {
                return;
            }
            self.send(now).await;
        }
    }

    /// Begins a request at every step.
    async fn open_loop(self: Rc<Self>, first: Instant, step: Duration, end: Instant) {
        let mut under_way = JoinSet::new();
        let mut begin = first;
        while begin < end {
            tokio::time::sleep_until(begin.into()).await;
            let sender = self.clone();
            under_way.spawn_local(async move { sender.send(begin).await });
            while under_way.try_join_next().is_some() {}
            begin += step;
        }
        under_way.join_all().await;
        self.close().await;
    }

    async fn close(self: Rc<Self>) {
        if let Some(sender) = Rc::into_inner(self) {
            sender.client.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(accounts: usize, hot: usize) -> Requests {
        let names = Rc::new((0..accounts).map(|n| n.to_string().into()).collect());
        Requests { names, bulk: 1, reads: 0, read: ReadLevel::Local, hot, hot_share: 80 }
    }

    #[test]
    fn transfers_never_stay_in_one_account() {
        let requests = requests(2, 1);
        for _ in 0..1_000 {
            let Transfer { from, to, amount } = requests.transfer();
            assert!(from < 2 && to < 2 && from != to && (1..=LARGEST_TRANSFER).contains(&amount));
        }
    }

    #[test]
    fn hot_accounts_are_used_more() {
        let requests = requests(1_000, 10);
        let hot = (0..10_000).filter(|_| requests.transfer().from < 10).count();
        assert!((7_500..8_500).contains(&hot), "{hot} of 10,000");
    }

    #[test]
    fn clients_are_spread_over_the_nodes() {
        let urls = NodeUrl::list("a:1,b:2,c:3").unwrap();
        let first = |client| urls_of(&urls, client, false)[0].to_string();
        assert_eq!([first(0), first(1), first(5)], ["ws://a:1", "ws://b:2", "ws://c:3"]);
        assert_eq!(urls_of(&urls, 4, true).len(), 1);
    }
}
