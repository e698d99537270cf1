//! The key-value store of the example, on real nodes.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rabia_bank::bank::{Outcome, ReadLevel, Refusal};
use rabia_bank::create::{NewCluster, create};
use rabia_bank::embed::{Embedded, LocalNetwork, Reach, Reply, Session, SessionKey};

#[allow(dead_code)]
#[path = "../src/bin/own_state_machine.rs"]
mod program;

use program::{Answer, Change, KeyValues};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(folder: &Path) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_own_state_machine"));
        let mut child = command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Running { child, input, output }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_was_put_is_there_after_the_program_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Running::start(dir.path());
    assert_eq!(program.ask("put colour red"), "Done");
    assert_eq!(program.ask("swap colour blue green"), r#"Conflict(Some("red"))"#);
    assert_eq!(program.ask("swap colour red green"), "Done");
    drop(program);
    let mut program = Running::start(dir.path());
    assert_eq!(program.ask("get colour"), r#"Value(Some("green"))"#);
    assert_eq!(program.ask("get shape"), "Value(None)");
}

/// Three nodes that take a snapshot every few slots.
struct Cluster {
    network: LocalNetwork,
    members: Vec<rabia_bank::config::NodeConfig>,
    nodes: Vec<Option<Embedded<KeyValues>>>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let mut members = create(&NewCluster::new(folder.path().join("nodes"), 3)).unwrap();
        members.iter_mut().for_each(|member| member.limits.snapshot_slots = 20);
        let mut cluster =
            Cluster { network: LocalNetwork::new(), members, nodes: vec![None, None, None], _folder: folder };
        (0..3).for_each(|node| cluster.start_node(node));
        cluster
    }

    fn start_node(&mut self, node: usize) {
        let (member, reach) = (self.members[node].clone(), Reach::within(&self.network));
        self.nodes[node] = Some(Embedded::start_machine_on_thread(member, reach).unwrap());
    }

    async fn stop_node(&mut self, node: usize) {
        self.nodes[node].take().unwrap().stop().await.unwrap();
    }

    fn node(&self, node: usize) -> &Embedded<KeyValues> {
        self.nodes[node].as_ref().unwrap()
    }

    async fn stop(mut self) {
        for node in 0..3 {
            self.stop_node(node).await;
        }
    }
}

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.into(), value: value.into() }
}

async fn get(session: &Session<KeyValues>, key: &str) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match session.query(key.into(), ReadLevel::Linearizable).await {
            Ok(reply) => return reply.success,
            Err(refusal) => assert!(Instant::now() < deadline, "{refusal}"),
        }
    }
}

/// It lacks more slots than the logs of the others have.
#[tokio::test]
async fn a_node_that_was_away_for_long_gets_a_snapshot_of_the_machine() {
    let mut cluster = Cluster::start();
    let session = cluster.node(0).session().await.unwrap();
    session.command(put("before", "0")).await.unwrap();
    cluster.stop_node(2).await;
    for number in 0..200 {
        session.command(put(&format!("key {}", number % 50), &number.to_string())).await.unwrap();
    }
    cluster.start_node(2);
    let there = cluster.node(2).session().await.unwrap();
    assert_eq!(get(&there, "key 49").await, Answer::Value(Some("199".into())));
    assert_eq!(get(&there, "before").await, Answer::Value(Some("0".into())));
    let statuses = [cluster.node(0).status().await.unwrap(), cluster.node(2).status().await.unwrap()];
    assert!(statuses[0].snapshot_slot > 40 && statuses[1].snapshot_slot > 0, "{statuses:?}");
    assert_eq!(statuses[0].transactions, 0, "it keeps no history");
    drop((session, there));
    cluster.stop().await;
}

#[tokio::test]
async fn a_command_that_is_sent_again_is_answered_as_it_was() {
    let mut cluster = Cluster::start();
    let key = SessionKey([7; 16]);
    let swap = |expected: Option<&str>, value: &str| Change::Swap {
        key: "a".into(),
        expected: expected.map(String::from),
        value: value.into(),
    };
    let session = cluster.node(0).session_with(key).await.unwrap();
    let first = session.command_numbered(1, swap(None, "1")).await.unwrap();
    let refused = session.command_numbered(2, swap(None, "2")).await.unwrap();
    assert_eq!((first.success.clone(), first.replayed), (Answer::Done, false));
    assert_eq!(refused.success, Answer::Conflict(Some("1".into())));
    session.command_numbered(3, put("a", "3")).await.unwrap();
    let long = session.command_numbered(4, put("a", &"x".repeat(2_000))).await.unwrap();
    assert_eq!(long.success, Answer::TooLong);
    for again in [false, true] {
        if again {
            cluster.stop_node(1).await;
            cluster.start_node(1);
        }
        let session = cluster.node(1).session_with(key).await.unwrap();
        let heard = session.command_numbered(1, swap(None, "1")).await.unwrap();
        assert_eq!(heard, Reply { replayed: true, ..first.clone() });
        let heard = session.command_numbered(2, swap(None, "2")).await.unwrap();
        assert_eq!(heard, Reply { replayed: true, ..refused.clone() });
    }
    cluster.stop().await;
}

#[test]
fn a_node_with_another_machine_serves_no_clients_and_takes_no_banks_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("bank");
    let mut config = create(&NewCluster::new(&folder, 1)).unwrap().remove(0);
    let refused = Embedded::<KeyValues>::start_machine_on_thread(config.clone(), Reach::sockets()).err();
    assert!(refused.unwrap().to_string().contains("clients speak the bank's protocol"));
    config.limits.snapshot_slots = 1;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let node = Embedded::start_on_thread_with(config.clone(), Reach::alone()).unwrap();
        let session = node.session().await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut account = 0;
        while node.status().await.unwrap().snapshot_slot == 0 {
            assert!(Instant::now() < deadline, "no snapshot");
            account += 1;
            rabia_bank::embed::BankCalls::create_account(&session, format!("a{account}"), 1).await.unwrap();
        }
        drop(session);
        node.stop().await.unwrap();
    });
    let refused = Embedded::<KeyValues>::start_machine_on_thread(config, Reach::alone()).err();
    assert!(refused.unwrap().to_string().contains("the books are damaged"));
}

/// What a client did, and what it heard.
struct Done {
    change: Option<Change>,
    key: String,
    began: Instant,
    ended: Instant,
    heard: Result<Reply<Answer>, Refusal>,
}

/// A client that works on few keys.
async fn client(session: Session<KeyValues>, seed: u64) -> Vec<Done> {
    let mut done = Vec::new();
    for step in 0..60_u64 {
        let key = format!("k{}", (step * 7 + seed) % 3);
        let value = format!("{seed}.{step}");
        let began = Instant::now();
        let change = match (step + seed) % 4 {
            0 | 1 => None,
            2 => Some(put(&key, &value)),
            _ => {
                let seen = match session.query(key.clone(), ReadLevel::Local).await {
                    Ok(Reply { success: Answer::Value(seen), .. }) => seen,
                    _ => None,
                };
                Some(Change::Swap { key: key.clone(), expected: seen, value })
            }
        };
        let heard = match change.clone() {
            Some(change) => session.command(change).await,
            None => session.query(key.clone(), ReadLevel::Linearizable).await,
        };
        done.push(Done { change, key, began, ended: Instant::now(), heard });
    }
    done
}

/// Each key is a register. The answers say in which order the commands were carried out, and after which slot was read: what was heard must be
/// what a single store says that does the same in that order, and nothing that began later may come before what had ended.
fn check(mut done: Vec<Done>) -> usize {
    done.retain(|done| match &done.heard {
        Ok(_) => true,
        Err(refusal) => {
            assert_eq!(
                refusal.outcome,
                Outcome::Refused,
                "no command may get lost while two nodes of three run: {refusal}"
            );
            false
        }
    });
    // Queries come behind all commands of their slot.
    let place = |done: &Done| {
        let reply = done.heard.as_ref().unwrap();
        (reply.slot.unwrap(), reply.index.unwrap_or(u32::MAX))
    };
    done.sort_by_key(place);
    let mut store: BTreeMap<&str, &str> = BTreeMap::new();
    for Done { change, key, heard, .. } in &done {
        let now = store.get(&**key).copied();
        let value = || now.map(String::from);
        let expected = match change {
            None => Answer::Value(value()),
            Some(Change::Swap { expected, .. }) if expected.as_deref() != now => Answer::Conflict(value()),
            Some(Change::Put { value, .. } | Change::Swap { value, .. }) => {
                store.insert(key, value);
                Answer::Done
            }
        };
        assert_eq!(heard.as_ref().unwrap().success, expected, "{change:?} of {key}");
    }
    for (number, later) in done.iter().enumerate() {
        let earlier = done[..number].iter().filter(|earlier| place(earlier) < place(later));
        for earlier in earlier.filter(|earlier| earlier.key == later.key) {
            assert!(earlier.began <= later.ended, "{:?} began after {:?} had ended", place(earlier), place(later));
        }
    }
    done.len()
}

#[tokio::test]
async fn the_store_is_linearizable_while_nodes_stop_and_start() {
    let mut cluster = Cluster::start();
    let mut sessions = Vec::new();
    for seed in 0..6 {
        sessions.push(client(cluster.node(seed % 2).session().await.unwrap(), seed as u64));
    }
    let clients = futures_util::future::join_all(sessions);
    let trouble = async {
        for _ in 0..2 {
            cluster.stop_node(2).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.start_node(2);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (done, ()) = futures_util::future::join(clients, trouble).await;
    let heard = check(done.into_iter().flatten().collect());
    assert!(heard > 200, "only {heard} answers");
    cluster.stop().await;
}
