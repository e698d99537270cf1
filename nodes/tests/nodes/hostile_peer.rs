//! Who speaks on the peers' port, with a member's key, with another or without any, against real nodes with an honest client beside it: no
//! node stops, nothing is booked that the nodes did not agree on, and the client is served.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::support::wire::{PEER_PATH, Wire, answer_peer, open_peer};
use crate::support::{
    Cluster, Connection, Node, PATIENCE, audited, open_socket, resident_memory, wait_for, wait_until,
};
use rabia_bank::member_key::MemberKey;
use rabia_bank_messages::bank::{Amount, Command, Operation};
use rabia_bank_messages::batch::{Action, BatchBuilder, Payload, RequestHeader};
use rabia_bank_messages::codec::{Encoding, decode_frame, decode_opening, encode_message, encode_opening, start_frame};
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Proof, RunId, SessionKey, StoreId};
use rabia_bank_messages::lineage::Run;
use rabia_bank_messages::peer::{
    Entry, Evidence, Hello, HelloRefused, Opening, PeerMessage, RefusalReason, SnapshotCursor, SnapshotPart, Vote,
};
use serde_json::json;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

/// A link on which the test speaks in a member's name.
struct Liar(WebSocket<Wire>);

impl Liar {
    /// Calls a node in the name of the first, with its key. What the node remembers of the member, the test says to have been.
    /// Panics where it is not let in.
    fn call(cluster: &Cluster, to: usize, hello: &Hello) -> Liar {
        let (key, to) = (cluster.nodes[0].key(), &cluster.nodes[to]);
        let mut hello = hello.clone();
        for _ in 0..2 {
            let mut socket = open_peer(to.peer_address(), &key, PEER_PATH, &[]).unwrap();
            socket.send(Message::binary(encode_opening(&Opening::Hello(hello.clone())))).unwrap();
            let Message::Binary(answer) = socket.read().unwrap() else { panic!("no answer to {hello:?}") };
            match decode_opening(&answer).unwrap() {
                Opening::Hello(_) => return Liar(socket),
                Opening::Refused(HelloRefused { evidence: Some(Evidence::OldCopy(memory)), .. }) => {
                    hello.former = vec![Run { run: memory.run, promises: memory.promises }];
                    hello.run.promises = memory.promises.max(hello.run.promises);
                }
                Opening::Refused(refused) => panic!("{refused:?}"),
            }
        }
        panic!("it knows what it is to have been, and is not let in");
    }

    /// The hash of the node's log up to a slot.
    fn hash_at(&mut self, slot: u64) -> Digest {
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        self.say(&[PeerMessage::GetHash { slot }]);
        loop {
            let Message::Binary(frame) = self.0.read().unwrap() else { continue };
            for message in decode_frame(&frame).unwrap() {
                match message {
                    PeerMessage::LogHash { slot: of, hash } if of == slot => return hash,
                    _ => {}
                }
            }
        }
    }

    fn say(&mut self, messages: &[PeerMessage]) {
        let mut frame = start_frame();
        messages.iter().for_each(|message| encode_message(&mut frame, message));
        // The node may have closed the link already.
        let _ = self.0.send(Message::binary(frame));
    }

    /// Whether the node closes the link.
    fn is_closed(&mut self) -> bool {
        self.0.get_ref().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        loop {
            match self.0.read() {
                Ok(Message::Close(_)) => return true,
                Ok(_) => {}
                Err(tokio_tungstenite::tungstenite::Error::Io(error)) => {
                    let silent = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                    return !silent;
                }
                Err(_) => return true,
            }
        }
    }
}

/// What member 1 says of itself to this node: from its own store, in a later run than any.
pub fn hello_of_first(cluster: &Cluster, to: usize) -> Hello {
    let config = &cluster.nodes[0].config;
    let store = config.members[0].store;
    Hello {
        cluster: config.cluster,
        genesis: config.genesis().digest(),
        node: config.node,
        to: cluster.nodes[to].config.node,
        store,
        joined: None,
        run: Run { run: RunId(fastrand::u128(..).to_be_bytes()), promises: 1_000_000 },
        proof: Proof([7; 16]),
        former: Vec::new(),
        remembers: None,
        disputes: None,
        decided: 0,
        log_hash: Digest::ZERO,
    }
}

fn node_id(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

fn batch_of(origin: NodeId, operation: Operation) -> (BatchId, Payload) {
    let mut builder = BatchBuilder::default();
    let key = SessionKey([5; 16]);
    builder.push(&RequestHeader { session: 0, key, number: 0, acknowledged: 0, token: 0 }, &Action::<Command>::Open);
    for session in 1..50 {
        let header = RequestHeader { session, key, number: 1, acknowledged: 0, token: 0 };
        builder.push(&header, &Action::Command(Command::One(operation.clone())));
    }
    builder.finish(origin, 77, fastrand::u64(..), 1)
}

fn damaged(origin: NodeId) -> (BatchId, Payload) {
    let payload = Payload::new(vec![1; 400]);
    (BatchId { origin, incarnation: 77, sequence: 3, digest: Digest::of(payload.bytes()) }, payload)
}

/// An honest client: makes an account, and pays into it.
struct Honest {
    connection: Connection,
    paid: u64,
}

impl Honest {
    fn new(node: &Node) -> Honest {
        let mut connection = node.connect(Encoding::Json);
        let answer = connection.command(json!({"create_account": {"account_id": "honest", "initial_balance": 0}}));
        assert!(answer["ok"].is_object(), "{answer}");
        Honest { connection, paid: 0 }
    }

    /// Is served, within a time that is no bother to anybody.
    fn pays(&mut self, times: u64) {
        for _ in 0..times {
            let answer = self.connection.command(json!({"deposit": {"account_id": "honest", "amount": 1}}));
            assert!(answer["ok"].is_object(), "{answer}");
            self.paid += 1;
        }
        let answer = self.connection.query(json!({"get_balance": {"account_id": "honest"}}));
        assert_eq!(answer["ok"]["balance"], self.paid, "{answer}");
    }
}

fn number(node: &Node, field: &str) -> u64 {
    wait_for(field, PATIENCE, || node.status()).get(field).and_then(serde_json::Value::as_u64).unwrap()
}

/// The cluster without its first member, in whose name the test speaks.
fn without_first() -> (Cluster, Honest) {
    let mut cluster = Cluster::start(3);
    cluster.nodes[0].stop();
    let mut honest = Honest::new(&cluster.nodes[1]);
    honest.pays(5);
    (cluster, honest)
}

/// Waits until both other nodes have applied the same.
fn level(cluster: &Cluster) -> u64 {
    wait_for("both nodes are at one slot", PATIENCE, || {
        let [second, third] = [1, 2].map(|index| number(&cluster.nodes[index], "applied_slot"));
        std::thread::sleep(Duration::from_millis(300));
        (second == third && number(&cluster.nodes[1], "applied_slot") == second).then_some(second)
    })
}

#[test]
fn a_batch_that_can_not_be_applied_harms_nobody_even_when_it_is_decided() {
    let (mut cluster, mut honest) = without_first();
    let (id, payload) = damaged(node_id(1));
    let mut liars = [1, 2].map(|to| Liar::call(&cluster, to, &hello_of_first(&cluster, to)));
    // A link on which nothing is said is closed after a while.
    for _ in 0..5 {
        for liar in &mut liars {
            liar.say(&[PeerMessage::Batch { id, payload: payload.clone() }]);
        }
        honest.pays(10);
    }
    for node in &cluster.nodes[1..] {
        assert_eq!(number(node, "unusable_batches"), 0, "nobody proposed it");
        wait_until("it is said", PATIENCE, || node.log().contains("which can't be applied"));
    }

    // The test forces it: both nodes hear that it was decided.
    let slot = level(&cluster) + 1;
    for liar in &mut liars {
        let before = liar.hash_at(slot - 1);
        let entries = vec![Entry { slot, batch: Some((id, payload.clone())) }];
        liar.say(&[PeerMessage::Entries { before, entries, decided: slot }]);
    }
    for node in &cluster.nodes[1..] {
        wait_until("it was applied as an empty one", PATIENCE, || number(node, "unusable_batches") == 1);
        assert!(node.log().contains("every node applies it as an empty one"), "{}", node.log());
    }
    honest.pays(20);
    level(&cluster);
    let [second, third] = [1, 2].map(|index| cluster.nodes[index].status().unwrap());
    assert_eq!(second["state_digest"], third["state_digest"]);

    // Starts go over it, and the audit names it.
    drop((liars, honest));
    for index in [1, 2] {
        cluster.nodes[index].kill();
    }
    for index in [1, 2] {
        let verified = audited(&cluster.nodes[index]);
        assert_eq!(verified["unusable_batches"], 1, "{verified}");
        assert_eq!(verified["newest_unusable_batches"], json!([{"slot": slot, "batch": id.to_string()}]));
        cluster.nodes[index].start();
    }
    wait_until("the nodes serve", PATIENCE, || cluster.nodes[1..].iter().all(|node| node.status().is_some()));
    let mut connection = cluster.nodes[2].connect(Encoding::Json);
    wait_until("commands are decided", PATIENCE, || {
        connection.command(json!({"deposit": {"account_id": "honest", "amount": 1}}))["ok"].is_object()
    });
}

#[test]
fn a_decision_that_contradicts_the_log_and_numbers_that_can_not_be_close_the_link() {
    let (cluster, mut honest) = without_first();
    let slot = level(&cluster);
    let (id, payload) =
        batch_of(node_id(1), Operation::Deposit { account_id: "honest".into(), amount: Amount::new(7) });
    let at = SnapshotCursor { part: SnapshotPart::Blocks, row: u64::MAX, offset: u64::MAX };
    let entry = |slot| Entry { slot, batch: Some((id, payload.clone())) };
    let nonsense = [
        PeerMessage::Decide { slot, value: Some(id) },
        PeerMessage::Entries { before: Digest::ZERO, entries: vec![entry(u64::MAX)], decided: 1 },
        PeerMessage::CatchUp { from: u64::MAX },
        PeerMessage::CatchUp { from: 0 },
        PeerMessage::Alive { decided: u64::MAX, hash: Digest::ZERO, durable: 0 },
        PeerMessage::Vote { slot: u64::MAX, phase: 1, vote: Vote::Zero },
        PeerMessage::Vote { slot: slot + 1, phase: u32::MAX, vote: Vote::Zero },
        PeerMessage::Decide { slot: u64::MAX, value: None },
        PeerMessage::Promised { count: u64::MAX, proof: Proof([0; 16]) },
        PeerMessage::Clock { wall: u64::MAX, confirmed: None, refuses: false },
        PeerMessage::ReadIndexAnswer { starts: 1, round: 1, slot: u64::MAX },
        PeerMessage::Compacted { log_from: u64::MAX },
        PeerMessage::GetSnapshot { slot: 0, at },
        PeerMessage::StateDigest { slot: u64::MAX, digest: Digest::ZERO },
    ];
    let mut hello = hello_of_first(&cluster, 1);
    for message in nonsense {
        // Each link is of a later run, so that it is let in.
        hello.run.run = RunId(fastrand::u128(..).to_be_bytes());
        let mut liar = Liar::call(&cluster, 1, &hello);
        liar.say(std::slice::from_ref(&message));
        assert!(liar.is_closed(), "{message:?}");
        honest.pays(3);
    }
    let log = cluster.nodes[1].log();
    assert!(log.contains("the link to a peer is refused"), "{log}");

    // Who says that the log is another one than that of a majority is not heard, and disturbs nobody.
    hello.run.run = RunId(fastrand::u128(..).to_be_bytes());
    let mut liar = Liar::call(&cluster, 1, &hello);
    let before = liar.hash_at(slot - 1);
    liar.say(&[PeerMessage::Entries { before, entries: vec![entry(slot)], decided: slot }]);
    honest.pays(3);
    drop(liar);

    // What is possible and never shown does not close it, and leads nowhere.
    hello.run.run = RunId(fastrand::u128(..).to_be_bytes());
    let mut liar = Liar::call(&cluster, 1, &hello);
    let far = (1 << 53) - 1;
    liar.say(&[
        PeerMessage::Alive { decided: far, hash: Digest::ZERO, durable: 0 },
        PeerMessage::Vote { slot: far, phase: 1, vote: Vote::Zero },
    ]);
    for sequence in 0..200 {
        let id = BatchId { sequence, ..id };
        let stamped = Payload::replacing(node_id(2), StoreId(fastrand::u128(..).to_be_bytes()), far);
        let id = BatchId { digest: Digest::of(stamped.bytes()), ..id };
        liar.say(&[PeerMessage::Batch { id, payload: stamped }, PeerMessage::Fetch { id }]);
    }
    honest.pays(50);
    assert!(cluster.nodes[1].status().is_some() && cluster.nodes[2].status().is_some());
}

#[test]
fn a_stranger_can_not_write_to_the_books() {
    let (cluster, mut honest) = without_first();
    let stranger = MemberKey::draw();
    let mint = Operation::create_account("mint", Amount::new(999_000_000));
    let (id, payload) = batch_of(node_id(1), mint);
    let slot = level(&cluster) + 1;
    for to in [1, 2] {
        let hello = Hello { store: stranger.store(), joined: Some(1 << 50), ..hello_of_first(&cluster, to) };
        let mut socket = open_peer(cluster.nodes[to].peer_address(), &stranger, PEER_PATH, &[]).unwrap();
        socket.send(Message::binary(encode_opening(&Opening::Hello(hello)))).unwrap();
        // It may be let in, or not.
        let _ = socket.read();
        let entries = vec![Entry { slot, batch: Some((id, payload.clone())) }];
        Liar(socket).say(&[
            PeerMessage::Batch { id, payload: payload.clone() },
            PeerMessage::Proposal { slot, value: Some(id), payload: Some(payload.clone()) },
            PeerMessage::Vote { slot, phase: 1, vote: Vote::One(id) },
            PeerMessage::Decide { slot, value: Some(id) },
            PeerMessage::Entries { before: Digest::ZERO, entries, decided: slot },
            PeerMessage::Clock { wall: 1, confirmed: Some(1), refuses: true },
        ]);
    }
    honest.pays(50);
    for node in &cluster.nodes[1..] {
        let mut connection = node.connect(Encoding::Json);
        let answer = connection.query(json!({"get_balance": {"account_id": "mint"}}));
        assert_eq!(answer["error"]["code"], "account_not_found", "{answer}");
    }
}

/// Listens where a stopped member did.
fn listen(address: SocketAddr) -> TcpListener {
    wait_for("the port is free", PATIENCE, || TcpListener::bind(address).ok())
}

/// What nodes say of themselves to whoever listens at the address of a stopped member, with whatever key.
fn overheard(address: SocketAddr, callers: usize) -> Vec<Hello> {
    let listener = listen(address);
    let mut heard: Vec<Hello> = Vec::new();
    while heard.len() < callers {
        let (stream, _) = listener.accept().unwrap();
        let Some(mut socket) = answer_peer(stream, &MemberKey::draw()) else { continue };
        if let Ok(Message::Binary(bytes)) = socket.read()
            && let Ok(Opening::Hello(hello)) = decode_opening(&bytes)
            && heard.iter().all(|other| other.node != hello.node)
        {
            heard.push(hello);
        }
    }
    heard
}

#[test]
fn hellos_that_were_overheard_do_not_displace_links_that_work() {
    let mut cluster = Cluster::start(3);
    let mut honest = Honest::new(&cluster.nodes[2]);
    honest.pays(3);
    drop(honest);
    cluster.nodes[2].stop();
    let hellos = overheard(cluster.nodes[2].peer_address(), 2);
    cluster.nodes[2].start();
    cluster.wait_ready();
    let mut connection = cluster.nodes[2].connect(Encoding::Json);
    let (began, stranger) = (Instant::now(), MemberKey::draw());
    let mut tried = 0;
    while began.elapsed() < Duration::from_secs(4) {
        for hello in &hellos {
            let say = |key: &MemberKey| {
                let mut socket = open_peer(cluster.nodes[2].peer_address(), key, PEER_PATH, &[]).unwrap();
                socket.send(Message::binary(encode_opening(&Opening::Hello(hello.clone())))).unwrap();
                socket.read()
            };
            // Whoever heard it has not the key with it; and with the key, it is of the run whose link works.
            let Ok(Message::Binary(bytes)) = say(&stranger) else { panic!("it is not answered") };
            let Ok(Opening::Refused(refused)) = decode_opening(&bytes) else { panic!("it is taken") };
            assert_eq!(refused.reason, RefusalReason::Key);
            let own = cluster.nodes[hello.node.index()].key();
            assert!(!matches!(say(&own), Ok(Message::Binary(_))), "it is not answered");
            tried += 1;
        }
        let answer = connection.command(json!({"deposit": {"account_id": "honest", "amount": 1}}));
        assert!(answer["ok"].is_object(), "{answer}");
    }
    assert!(tried > 20, "{tried} hellos");
    assert!(!cluster.nodes[2].log().contains("a newer link took its place"));
}

#[test]
fn what_whoever_listens_at_a_members_address_says_stops_nobody() {
    let mut cluster = Cluster::start(3);
    let mut honest = Honest::new(&cluster.nodes[0]);
    cluster.nodes[2].stop();
    let listener = listen(cluster.nodes[2].peer_address());
    let refused = Opening::Refused(HelloRefused {
        reason: RefusalReason::Replaced,
        message: "stop at once\n2026-11-28T00:00:00Z ERROR forged line \u{1b}[31m".into(),
        evidence: None,
    });
    let liar = MemberKey::draw();
    // A node that has just started says nothing of calls that fail yet.
    let told = |node: &Node| node.log().contains("refuses this node");
    while !cluster.nodes[..2].iter().all(told) {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = answer_peer(stream, &liar).unwrap();
        let _ = socket.read();
        socket.send(Message::binary(encode_opening(&refused))).unwrap();
        let _ = socket.close(None);
    }
    drop(listener);
    honest.pays(20);
    for node in &mut cluster.nodes[..2] {
        assert!(node.ended().is_none());
        let log = node.log();
        assert!(log.contains("refuses this node") && log.contains("stop at once"), "{log}");
        assert!(!log.contains('\u{1b}'), "{log}");
    }
    // Nor do they refuse to start.
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[2].start();
    cluster.wait_ready();
}

#[test]
fn who_does_not_say_who_it_is_costs_little_and_shuts_nobody_out() {
    let mut cluster = Cluster::start(3);
    let mut honest = Honest::new(&cluster.nodes[1]);
    let before = resident_memory(cluster.nodes[1].pid());
    let address = cluster.nodes[1].peer_address();
    // Some do not even begin a handshake, some have a key and then announce 16 MB, some speak plain.
    let silent: Vec<_> = (0..300).filter_map(|_| TcpStream::connect(address).ok()).collect();
    assert!((0..20).all(|_| open_socket(address, PEER_PATH, &[]).is_err()));
    let stranger = MemberKey::draw();
    for _ in 0..20 {
        let Ok(mut socket) = open_peer(address, &stranger, PEER_PATH, &[]) else { continue };
        // It is closed on the way.
        let _ = socket.send(Message::binary(vec![2; 16 << 20]));
        assert!(
            !matches!(socket.read(), Ok(Message::Binary(bytes)) if decode_opening(&bytes).is_ok_and(|opening| matches!(opening, Opening::Hello(_))))
        );
    }
    honest.pays(20);
    // A member that starts meanwhile is let in.
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.wait_ready();
    honest.pays(5);
    let grown = resident_memory(cluster.nodes[1].pid()).saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes for those who said nothing");
    drop(silent);
}
