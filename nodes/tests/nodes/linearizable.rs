//! Reads and writes over all nodes, under kills and pauses, are linearizable.
//!
//! Every answer names a slot. The operations are linearizable if the slots give an order that explains all of them: (1) a read
//! says what the history says up to its slot, and (2) an operation's slot is not below that of any operation that was
//! answered before it was sent. (A write is at its slot, a read behind it.)
//!
//! The same check is made of local reads, to show that it can see: they must satisfy (1), and break (2).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::books::block_on;
use crate::support::{Cluster, Node, PATIENCE, wait_until};
use futures_util::TryStreamExt;
use rabia_bank::client::{BankCalls, CallError, Client, ClientOptions, NodeUrl, Receipt};
use rabia_bank_messages::bank::{HistoryFilter, ReadLevel, Transaction};

const ACCOUNTS: usize = 3;
const CLIENTS: usize = 9;

/// An operation that was answered.
#[derive(Debug)]
struct Operation {
    sent: Instant,
    answered: Instant,
    slot: u64,
    /// Of a read: account and balance.
    read: Option<(String, i64)>,
}

fn account(number: usize) -> String {
    format!("a{number}")
}

/// Moves money and looks at it until told to stop. Its reads go to another node than its writes.
async fn work(
    seed: u64,
    [writing, reading]: [NodeUrl; 2],
    level: ReadLevel,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Vec<Operation> {
    let mut random = fastrand::Rng::with_seed(seed);
    let timeout = Duration::from_secs(20);
    let client = |url| Client::connect(ClientOptions { timeout, ..crate::support::options(vec![url]) });
    let (writer, reader) = (client(writing), client(reading));
    let mut operations = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (from, step) = (random.usize(..ACCOUNTS), random.usize(1..ACCOUNTS));
        let sent = Instant::now();
        let slot = match writer.transfer(account(from), account((from + step) % ACCOUNTS), 1).await {
            Ok(Receipt { slot, .. }) => slot,
            // Nobody knows: the history says whether it happened, and what reads saw of it.
            Err(CallError::Unknown(_) | CallError::NotReached(_)) => continue,
            Err(CallError::Refused(refusal)) => panic!("{refusal}"),
        };
        operations.push(Operation { sent, answered: Instant::now(), slot, read: None });
        for _ in 0..2 {
            let (account, sent) = (account(random.usize(..ACCOUNTS)), Instant::now());
            match reader.balance(&*account, level).await {
                Ok(Receipt { slot, value, .. }) => {
                    let read = Some((account, value));
                    operations.push(Operation { sent, answered: Instant::now(), slot, read });
                }
                Err(CallError::Refused(refusal)) => panic!("{refusal}"),
                Err(_) => {}
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    operations
}

/// Condition (1): the balance of every account after every slot that changed it.
fn explained(operations: &[Operation], history: &[Transaction]) {
    let mut balances: BTreeMap<(&str, u64), i64> = BTreeMap::new();
    for transaction in history {
        for (name, balance) in
            [(&transaction.from_account, transaction.from_balance), (&transaction.to_account, transaction.to_balance)]
        {
            if let (Some(name), Some(balance)) = (name, balance) {
                balances.insert((name, transaction.slot), balance);
            }
        }
    }
    for operation in operations {
        let Some((name, balance)) = &operation.read else { continue };
        let expected = balances.range((&**name, 0)..=(&**name, operation.slot)).next_back();
        assert_eq!(Some(balance), expected.map(|(_, balance)| balance), "{operation:?}");
    }
}

/// Condition (2): the operations that have a lower slot than one that was answered before they were sent.
fn out_of_order(operations: &[Operation]) -> Vec<&Operation> {
    let mut by_sending: Vec<&Operation> = operations.iter().collect();
    let mut by_answer = by_sending.clone();
    by_sending.sort_by_key(|operation| operation.sent);
    by_answer.sort_by_key(|operation| operation.answered);
    let mut answered = by_answer.iter().peekable();
    let mut highest = 0;
    by_sending.retain(|operation| {
        while let Some(before) = answered.next_if(|before| before.answered < operation.sent) {
            highest = highest.max(before.slot);
        }
        operation.slot < highest
    });
    by_sending
}

/// Runs the clients while nodes are killed and frozen; what they did, and the history.
fn run(cluster: &mut Cluster, level: ReadLevel, rounds: usize) -> (Vec<Operation>, Vec<Transaction>) {
    let urls: Vec<NodeUrl> = cluster.nodes.iter().map(|node| node.url().parse().unwrap()).collect();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers = {
        let (urls, stop, done) = (urls.clone(), stop.clone(), done.clone());
        std::thread::spawn(move || {
            block_on(async {
                let work = (0..CLIENTS).map(|number| {
                    let pair = [urls[number % 3].clone(), urls[(number + 1 + number / 3 % 2) % 3].clone()];
                    work(number as u64, pair, level, stop.clone(), done.clone())
                });
                futures_util::future::join_all(work).await.into_iter().flatten().collect::<Vec<_>>()
            })
        })
    };
    let progress = |more: u64| {
        let before = done.load(Ordering::Relaxed);
        wait_until("clients are served", 2 * PATIENCE, || done.load(Ordering::Relaxed) >= before + more);
    };
    for round in 0..rounds {
        progress(200);
        let node = &mut cluster.nodes[round % 3];
        if round % 2 == 0 {
            node.kill();
            node.start();
        } else {
            node.freeze();
            std::thread::sleep(Duration::from_secs(1));
            node.thaw();
        }
    }
    progress(200);
    stop.store(true, Ordering::Relaxed);
    let operations = workers.join().unwrap();
    let history = block_on(async {
        let client = Client::connect(crate::support::options(urls));
        let newest_first: Vec<Transaction> =
            client.history(HistoryFilter::default(), ReadLevel::Linearizable).try_collect().await.unwrap();
        newest_first.into_iter().rev().collect()
    });
    (operations, history)
}

#[test]
fn mixed_reads_and_writes_are_linearizable_and_local_reads_are_not() {
    let mut cluster = Cluster::start(3);
    let urls: Vec<NodeUrl> = cluster.nodes.iter().map(|node: &Node| node.url().parse().unwrap()).collect();
    block_on(async {
        let client = Client::connect(crate::support::options(urls));
        for number in 0..ACCOUNTS {
            client.create_account(account(number), 1_000_000).await.unwrap();
        }
        client.close().await;
    });
    let (operations, history) = run(&mut cluster, ReadLevel::Linearizable, 6);
    explained(&operations, &history);
    let wrong = out_of_order(&operations);
    assert!(wrong.is_empty(), "{} of {} are out of order: {:?}", wrong.len(), operations.len(), wrong[0]);
    println!("{} operations are linearizable", operations.len());

    let (operations, history) = run(&mut cluster, ReadLevel::Local, 4);
    explained(&operations, &history);
    let stale = out_of_order(&operations);
    assert!(
        !stale.is_empty(),
        "of {} operations with local reads none was stale: the check is blind",
        operations.len()
    );
    assert!(stale.iter().all(|operation| operation.read.is_some()), "a write is out of order: {stale:?}");
    println!("{} of {} operations with local reads were stale, each as of its slot", stale.len(), operations.len());
}
