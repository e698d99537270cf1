//! A load for tests that need many accounts and transactions, and not an answer to every single one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rabia_bank::client::{Client, ClientOptions, NodeUrl, Request};
use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation};

use super::Node;
use super::books::block_on;

/// What every account begins with.
pub const OPENING: u64 = 1_000_000;
/// Requests take at most this long, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(120);

/// The name of an account.
pub fn account(number: u64) -> Box<str> {
    format!("account-{number:07}").into()
}

/// Bulks of one kind, sent by clients that keep two under way each.
pub struct Bulks {
    pub clients: Vec<NodeUrl>,
    /// Commands in one bulk.
    pub size: u64,
    /// Each client begins a bulk so long after the one before at the earliest.
    pub pace: Duration,
}

impl Bulks {
    /// Sends `count` commands, or goes on until it is told to stop. Counts those that were applied.
    pub fn send(
        &self,
        count: u64,
        stop: &Arc<AtomicBool>,
        applied: &Arc<AtomicU64>,
        command: impl Fn(u64) -> Operation + Send + Clone + 'static,
    ) -> JoinHandle<()> {
        let (clients, size, pace) = (self.clients.clone(), self.size, self.pace);
        let (stop, applied, next) = (stop.clone(), applied.clone(), Arc::new(AtomicU64::new(0)));
        std::thread::spawn(move || {
            let work = clients.into_iter().map(|url| {
                let (stop, applied, next, command) = (&stop, &applied, &next, &command);
                async move {
                    let client = Client::connect(ClientOptions { timeout: LONG, ..crate::support::options(vec![url]) });
                    let bulks = || async {
                        let mut ticks = tokio::time::interval(pace.max(Duration::from_nanos(1)));
                        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                        while !stop.load(Ordering::Relaxed) {
                            let first = next.fetch_add(size, Ordering::Relaxed);
                            if first >= count {
                                break;
                            }
                            ticks.tick().await;
                            let commands: Vec<_> = (first..count.min(first + size)).map(command).collect();
                            let sent = commands.len() as u64;
                            let bulk = Command::Bulk(Bulk { commands, atomic: false });
                            let answered = client.ask(Request::Command(bulk)).await.unwrap();
                            assert!(answered.refusal.is_none(), "{answered:?}");
                            applied.fetch_add(sent, Ordering::Relaxed);
                        }
                    };
                    futures_util::future::join(bulks(), bulks()).await;
                    client.close().await;
                }
            });
            block_on(futures_util::future::join_all(work));
        })
    }

    /// Sends `count` commands, and waits until all are applied.
    pub fn send_all(&self, count: u64, command: impl Fn(u64) -> Operation + Send + Clone + 'static) {
        let applied = Arc::default();
        self.send(count, &Arc::default(), &applied, command).join().unwrap();
        assert_eq!(applied.load(Ordering::Relaxed), count);
    }
}

/// Opens an account.
pub fn opening(number: u64) -> Operation {
    Operation::create_account(account(number), Amount::new(OPENING))
}

/// A transfer between two accounts of so many, at random, that can't be refused in any run of sensible length.
pub fn transfer(accounts: u64) -> impl Fn(u64) -> Operation + Send + Clone {
    move |number| {
        let mut random = fastrand::Rng::with_seed(number);
        let (from, step) = (random.u64(..accounts), random.u64(1..accounts));
        Operation::Transfer {
            from_account: account(from),
            to_account: account((from + step) % accounts),
            amount: Amount::new(random.u64(1..=100)),
        }
    }
}

/// One client for each node, which stays at it.
pub fn clients(nodes: &[Node]) -> Vec<NodeUrl> {
    nodes.iter().map(|node| node.url().parse().unwrap()).collect()
}
