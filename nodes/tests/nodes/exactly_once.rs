//! Clients that do everything that a network may do to them, against nodes that die: each command is applied exactly once.
//!
//! Twenty clients speak the wire format themselves. They leave before the answer is there, ask again at another node, say
//! everything twice, to two nodes at once, and again long after it was settled; their sessions expire. Meanwhile nodes are
//! killed and frozen, also all at once, and take snapshots all the time. Then the history is compared with the clients' own books.
//!
//! The default run is short. The full one, of 100,000 commands:
//! `RABIA_BANK_COMMANDS=100000 cargo test --release --workspace --test nodes exactly_once:: -- --nocapture`
//! (`RABIA_BANK_SEED=N` has the clients draw other numbers).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::books::{Books, Entry, Outcome};
use crate::support::{Cluster, Connection, Node, PATIENCE, from_environment, wait_until};
use rabia_bank::client::NodeUrl;
use rabia_bank::config::NodeConfig;
use rabia_bank_messages::bank::{Amount, ErrorCode, Operation, Transaction};
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

const CLIENTS: usize = 20;
/// As many sessions may be open; each client opens stray ones besides its own.
const MAX_SESSIONS: u64 = 40;
/// A session ends that was idle for so long.
const IDLE: Duration = Duration::from_secs(3);
/// After this time a client gives a command up as unknown.
const GIVE_UP: Duration = Duration::from_secs(30);

fn often(config: &mut NodeConfig) {
    config.limits.snapshot_bytes = 100_000;
    config.limits.snapshot_slots = 300;
}

/// What happened, over all clients.
#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    replayed: AtomicU64,
    connections: AtomicU64,
    twice: AtomicU64,
    late: AtomicU64,
    expired: AtomicU64,
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

struct Caller {
    number: usize,
    nodes: Vec<SocketAddr>,
    random: fastrand::Rng,
    key: String,
    session: Option<u64>,
    connection: Option<Connection>,
    last: u64,
    /// The last settled command, to be said again.
    settled: Option<(u64, Value)>,
    counts: Arc<Counts>,
}

/// How an attempt ended.
enum Attempt {
    Settled(Box<Outcome>),
    /// Ask again.
    Open,
}

impl Caller {
    fn new(number: usize, seed: u64, nodes: Vec<SocketAddr>, counts: Arc<Counts>) -> Caller {
        let mut random = fastrand::Rng::with_seed(seed << 16 | number as u64);
        let key = hex(&mut random);
        Caller { number, nodes, random, key, session: None, connection: None, last: 0, settled: None, counts }
    }

    /// A connection to a node at random, in the session; none if that node is not there.
    fn connect(&mut self) -> Option<Connection> {
        let node = self.nodes[self.random.usize(..self.nodes.len())];
        let encoding = if self.number.is_multiple_of(2) { Encoding::Json } else { Encoding::MessagePack };
        let mut connection = Connection::try_open(node, encoding, &[]).ok()?;
        count(&self.counts.connections);
        connection.set_patience(Duration::from_millis(1_500));
        let session = match self.session {
            Some(number) => json!({"session": {"number": number, "key": self.key}}),
            None => json!({"open": {"key": self.key}}),
        };
        let mut hello = json!({"version": 2});
        hello.as_object_mut().unwrap().extend(session.as_object().unwrap().clone());
        connection.try_send(&json!({"hello": hello})).ok()?;
        let welcome = connection.try_receive().ok()?;
        if welcome["error"]["code"] == "session_expired" {
            // It was opened by an attempt whose answer was lost, and nothing was ever said in it.
            assert!(self.session.is_none(), "{welcome}");
            self.key = hex(&mut self.random);
        }
        let number = welcome["welcome"]["session"].as_u64()?;
        assert!(self.session.is_none_or(|session| session == number), "{welcome}, not {:?}", self.session);
        self.session = Some(number);
        Some(connection)
    }

    /// Has a command carried out, however often it has to be said.
    fn settle(&mut self, command: &Value) -> Outcome {
        self.last += 1;
        let message = json!({"request": self.last, "command": command, "acknowledged": self.last - 1});
        let deadline = Instant::now() + GIVE_UP;
        while Instant::now() < deadline {
            if self.connection.is_none() {
                self.connection = self.connect();
            }
            let Some(connection) = self.connection.take() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            match self.attempt(connection, &message) {
                Attempt::Settled(outcome) => {
                    self.settled = Some((self.last, command.clone()));
                    return *outcome;
                }
                Attempt::Open => {}
            }
        }
        Outcome::Unknown("given up".into())
    }

    /// Says it in one way or another. The connection is kept if it is of further use.
    fn attempt(&mut self, mut connection: Connection, message: &Value) -> Attempt {
        if connection.try_send(message).is_err() {
            return Attempt::Open;
        }
        let chance = self.random.u8(..100);
        if chance < 6 {
            // The answer is lost, and perhaps the question.
            return Attempt::Open;
        }
        let mut answers = 1;
        if chance < 14 {
            answers += usize::from(connection.try_send(message).is_ok());
            count(&self.counts.twice);
        }
        let elsewhere = (chance > 94).then(|| self.connect()).flatten();
        let elsewhere = elsewhere.and_then(|mut other| {
            other.try_send(message).ok()?;
            count(&self.counts.twice);
            Some(read(&mut other, self.last)?["ok"].clone())
        });
        let mut last = None;
        for _ in 0..answers {
            let Some(answer) = read(&mut connection, self.last) else { return Attempt::Open };
            for (one, other) in last.iter().chain(&elsewhere).map(|earlier: &Value| (earlier, &answer["ok"])) {
                if one.is_object() && other.is_object() {
                    assert_eq!(one, other, "two answers to {message}");
                }
            }
            last = Some(answer["ok"].clone());
            let attempt = self.judge(&answer, message);
            if !matches!(attempt, Attempt::Open) {
                self.connection = (self.random.u8(..100) < 97).then_some(connection);
                return attempt;
            }
        }
        Attempt::Open
    }

    fn judge(&mut self, answer: &Value, message: &Value) -> Attempt {
        if answer["ok"].is_object() {
            if answer["replayed"] == true {
                count(&self.counts.replayed);
            }
            let transaction: Transaction = serde_json::from_value(answer["ok"]["transaction"].clone()).unwrap();
            return Attempt::Settled(Box::new(Outcome::Acknowledged(transaction)));
        }
        let code = answer["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer} to {message}"));
        match (code, answer["error"]["outcome"].as_str()) {
            ("busy" | "no_quorum" | "stopping" | "too_many_sessions", _) => Attempt::Open,
            ("session_expired", Some("unknown")) => {
                count(&self.counts.expired);
                (self.session, self.connection, self.key) = (None, None, hex(&mut self.random));
                Attempt::Settled(Box::new(Outcome::Unknown("session expired".into())))
            }
            ("insufficient_funds", Some("refused")) => {
                Attempt::Settled(Box::new(Outcome::Refused(ErrorCode::InsufficientFunds)))
            }
            _ => panic!("{answer} to {message}"),
        }
    }

    /// Says something again that was settled and acknowledged long ago.
    fn say_late(&mut self) {
        let (Some(mut connection), Some((number, command))) = (self.connection.take(), self.settled.clone()) else {
            return;
        };
        let message = json!({"request": number, "command": command, "acknowledged": number - 1});
        if connection.try_send(&message).is_ok()
            && let Some(answer) = read(&mut connection, number)
        {
            let repeated = answer["replayed"] == true || answer["error"].is_object();
            assert!(repeated, "{answer} to {message}, which was settled before");
            count(&self.counts.late);
            self.connection = Some(connection);
        }
    }

    /// Opens a session that nobody uses.
    fn stray(&mut self) {
        let (key, session) = (std::mem::replace(&mut self.key, hex(&mut self.random)), self.session.take());
        self.connect();
        (self.key, self.session) = (key, session);
    }
}

/// The answer to this request; none if the connection has ended or is silent.
fn read(connection: &mut Connection, request: u64) -> Option<Value> {
    loop {
        let answer = connection.try_receive().ok()?;
        if answer["request"] == request {
            return Some(answer);
        }
    }
}

fn hex(random: &mut fastrand::Rng) -> String {
    format!("{:032x}", random.u128(..))
}

/// One client's life: what it asked for and what became of it.
fn live(mut caller: Caller, amounts: impl Fn() -> u64, stop: &AtomicBool) -> Vec<Entry> {
    let mut entries = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let amount = amounts();
        let account = |n: usize| format!("account-{n:02}");
        let (from, to) = (caller.random.usize(..40), caller.random.usize(..39));
        let poor = caller.random.u8(..10) == 0;
        let source = if poor { "poor".to_owned() } else { account(from) };
        let destination = account((from + 1 + to) % 40);
        let command = json!({"transfer": {"from_account": source, "to_account": destination, "amount": amount}});
        let operation = Operation::Transfer {
            from_account: source.into(),
            to_account: destination.into(),
            amount: Amount::new(amount),
        };
        let sent = Instant::now();
        let outcome = caller.settle(&command);
        if matches!(outcome, Outcome::Acknowledged(_)) {
            count(&caller.counts.acknowledged);
        }
        entries.push(Entry { writer: caller.number, operation, sent, answered: Instant::now(), outcome });
        match caller.random.u16(..1_000) {
            0..20 => caller.say_late(),
            20..25 => caller.stray(),
            // Longer than a session may be idle.
            25 if caller.number.is_multiple_of(5) => std::thread::sleep(IDLE + Duration::from_secs(1)),
            _ => {}
        }
    }
    entries
}

#[test]
fn twenty_clients_are_served_exactly_once_whatever_happens() {
    let (commands, seed) = (from_environment("RABIA_BANK_COMMANDS", 6_000), from_environment("RABIA_BANK_SEED", 1));
    let limits = ["--max-sessions", &MAX_SESSIONS.to_string(), "--session-idle", &IDLE.as_secs().to_string()];
    let mut cluster = Cluster::create_as(3, &limits, often).started();
    let urls: Vec<NodeUrl> = cluster.nodes.iter().map(|node| node.url().parse().unwrap()).collect();
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(Node::address).collect();
    let mut books = Books::open(&urls);
    let (stop, counts) = (AtomicBool::new(false), Arc::new(Counts::default()));
    let began = Instant::now();
    let entries: Vec<Entry> = std::thread::scope(|scope| {
        let (books, stop) = (&books, &stop);
        let callers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let caller = Caller::new(number, seed, addresses.clone(), counts.clone());
                scope.spawn(move || live(caller, || books.amount(), stop))
            })
            .collect();
        let faults = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0.. {
                let before = counts.acknowledged.load(Ordering::Relaxed);
                if before >= commands {
                    break;
                }
                disturb(&mut cluster, round);
                wait_until("commands are acknowledged", 2 * PATIENCE, || {
                    counts.acknowledged.load(Ordering::Relaxed) >= before + (commands / 12).min(1_500)
                });
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let entries = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
        faults.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        entries
    });
    let took = began.elapsed();
    entries.into_iter().for_each(|entry| books.note(entry));
    books.check(&urls);
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    books.check(&urls);
    let sessions: Vec<Value> = cluster.wait_equal().iter().map(|status| status["sessions"].clone()).collect();
    assert!(sessions.iter().all(|open| open.as_u64().unwrap() <= MAX_SESSIONS), "{sessions:?}");
    let counts = [
        ("acknowledged", &counts.acknowledged),
        ("answers that were replayed", &counts.replayed),
        ("connections", &counts.connections),
        ("said twice", &counts.twice),
        ("said again long after", &counts.late),
        ("sessions that expired", &counts.expired),
    ];
    println!("{took:?}:");
    for (what, counter) in counts {
        println!("{:>9}  {what}", counter.load(Ordering::Relaxed));
        assert!(counter.load(Ordering::Relaxed) > 0, "{what}: never");
    }
}

/// One fault after the other.
fn disturb(cluster: &mut Cluster, round: usize) {
    let node = round % 3;
    match round % 5 {
        0 | 2 => {
            cluster.nodes[node].kill();
            cluster.nodes[node].start();
        }
        1 => {
            cluster.nodes[node].freeze();
            std::thread::sleep(Duration::from_secs(2));
            cluster.nodes[node].thaw();
        }
        3 => {
            cluster.nodes.iter_mut().for_each(Node::kill);
            cluster.nodes.iter_mut().for_each(Node::start);
        }
        _ => {
            cluster.nodes[node].stop();
            cluster.nodes[node].start();
        }
    }
}

/// A connection to this node in this session.
fn in_session(node: &Node, number: &Value, key: &str) -> Connection {
    let mut connection = node.connect(Encoding::Json);
    let hello = json!({"hello": {"version": 2, "session": {"number": number, "key": key}}});
    assert_eq!(connection.ask(&hello)["welcome"]["session"], *number);
    connection
}

/// Code and outcome of an error.
fn error(answer: &Value) -> [&str; 2] {
    ["code", "outcome"].map(|field| answer["error"][field].as_str().unwrap_or_else(|| panic!("no error: {answer}")))
}

#[test]
fn sessions_are_what_they_were_after_snapshots_and_restarts_of_all_nodes() {
    let very_often = |config: &mut NodeConfig| config.limits.snapshot_slots = 60;
    let mut cluster = Cluster::create_as(3, &["--max-sessions", "5"], very_often).started();
    let [key, ended, wrong] = ["aa", "bb", "cc"].map(|digits| digits.repeat(16));
    let open = |node: &Node, key: &str| {
        let mut connection = node.connect(Encoding::MessagePack);
        let welcome = connection.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
        (connection, welcome["welcome"]["session"].clone())
    };
    let (mut other, closed) = open(&cluster.nodes[1], &ended);
    other.send(&json!({"goodbye": {}}));
    other.receive_close();

    let (mut connection, number) = open(&cluster.nodes[0], &key);
    let deposit = |amount: u64| json!({"deposit": {"account_id": "a", "amount": amount}});
    let withdraw = json!({"withdraw": {"account_id": "a", "amount": 1_000_000}});
    let bulk = json!({"bulk": {"atomic": false, "commands": [deposit(3), withdraw, deposit(4)]}});
    let create = json!({"create_account": {"account_id": "a", "initial_balance": 1}});
    let said: Vec<(u64, Value)> =
        [(1, create), (2, deposit(2)), (3, bulk), (4, withdraw), (9, deposit(5))].into_iter().collect();
    let mut first = Vec::new();
    for (request, command) in &said {
        let acknowledged = 1.min(request - 1);
        first.push(connection.ask(&json!({"request": request, "command": command, "acknowledged": acknowledged})));
    }
    // Enough that all of it is in a snapshot, and the log before it gone.
    let slot = first[4]["slot"].as_u64().unwrap();
    let (mut filler, _) = open(&cluster.nodes[0], &"dd".repeat(16));
    let mut sent = 0;
    wait_until("all nodes have taken a snapshot", PATIENCE, || {
        sent += 1;
        let answer = filler.ask(&json!({"request": sent, "command": deposit(1), "acknowledged": sent - 1}));
        assert!(answer["ok"].is_object(), "{answer}");
        sent % 40 == 0
            && cluster.nodes.iter().all(|node| node.status().unwrap()["snapshot_slot"].as_u64().unwrap() > slot)
    });
    for round in 0..2 {
        for node in &cluster.nodes {
            let mut connection = in_session(node, &number, &key);
            for ((request, command), first) in said.iter().zip(&first).skip(1) {
                let again = connection.ask(&json!({"request": request, "command": command}));
                assert_eq!((&again["ok"], &again["error"]), (&first["ok"], &first["error"]), "request {request}");
                assert_eq!(again["slot"], first["slot"]);
                let reused = connection.ask(&json!({"request": request, "command": deposit(77)}));
                assert_eq!(error(&reused), ["request_reused", "refused"]);
            }
            let late = connection.ask(&json!({"request": 1, "command": said[0].1}));
            assert_eq!(error(&late), ["request_acknowledged", "unknown"]);
            for (number, key) in [(&closed, &ended), (&number, &wrong), (&json!(1u64 << 40), &key)] {
                let stranger = in_session(node, number, key).ask(&json!({"request": 2, "command": deposit(2)}));
                assert_eq!(error(&stranger), ["session_expired", "unknown"]);
            }
        }
        if round == 0 {
            cluster.nodes.iter_mut().for_each(Node::kill);
            cluster.nodes.iter_mut().for_each(Node::start);
            cluster.wait_ready();
        }
    }
    assert_eq!(cluster.nodes[0].status().unwrap()["total_balance"], 1 + 2 + 3 + 4 + 5 + sent);
    // Of five a principal may have four, and the key of one that ended opens none.
    let hello = |node: &Node, key: &str| {
        node.connect(Encoding::Json).ask(&json!({"hello": {"version": 2, "open": {"key": key}}}))
    };
    assert_eq!(hello(&cluster.nodes[2], &"10".repeat(16))["welcome"]["opened"], true);
    assert_eq!(hello(&cluster.nodes[2], &"11".repeat(16))["welcome"]["opened"], true);
    for node in &cluster.nodes {
        // Nobody's session goes for one more, however long ago it was used, if that is less than an hour.
        assert_eq!(error(&hello(node, &"12".repeat(16))), ["too_many_sessions", "refused"]);
        assert_eq!(error(&hello(node, &ended)), ["session_expired", "unknown"]);
        let replayed = in_session(node, &number, &key).ask(&json!({"request": 9, "command": deposit(5)}));
        assert_eq!(replayed["replayed"], true, "{replayed}");
        let mut without = node.connect(Encoding::Json);
        assert_eq!(error(&without.command(deposit(1))), ["too_many_sessions", "refused"]);
    }
    assert_eq!(cluster.wait_equal()[0]["sessions"], 4);
}

/// The session that a command was said in goes, by its time or by a goodbye: a retry is not executed in another one.
#[test]
fn the_key_of_a_session_that_ended_executes_nothing_again() {
    let cluster = Cluster::create_as(3, &["--session-idle", "1"], |_| ()).started();
    let hello = |key: &str| json!({"hello": {"version": 2, "open": {"key": key}}});
    let create = json!({"create_account": {"account_id": "a", "initial_balance": 0}});
    let deposit = json!({"request": 1, "command": {"deposit": {"account_id": "a", "amount": 1}}});
    assert!(cluster.nodes[0].connect(Encoding::Json).command(create)["ok"].is_object());
    let [idle, left] = ["e1", "e2"].map(|digits| digits.repeat(16));
    for (key, leaves) in [(&idle, false), (&left, true)] {
        let mut connection = cluster.nodes[1].connect(Encoding::Json);
        assert_eq!(connection.ask(&hello(key))["welcome"]["opened"], true);
        assert_eq!(connection.ask(&deposit)["replayed"], false);
        if leaves {
            connection.send(&json!({"goodbye": {}}));
            connection.receive_close();
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    for node in &cluster.nodes {
        for key in [&idle, &left] {
            // The command stands right behind the hello, and the connection ends with the error.
            let mut connection = node.connect(Encoding::MessagePack);
            connection.send(&hello(key));
            connection.send(&deposit);
            let answers = [connection.receive(), connection.receive()];
            assert!(answers.iter().all(|answer| error(answer) == ["session_expired", "unknown"]), "{answers:?}");
            let (_, close) = connection.receive_close();
            assert_eq!(close.map(|close| u16::from(close.code)), Some(1008));
        }
    }
    assert_eq!(cluster.wait_equal()[0]["total_balance"], 2);
}

/// A hello and a command wait in the socket of a node that stands still, while the client does both elsewhere and says goodbye.
#[test]
fn a_node_that_wakes_up_executes_nothing_of_a_session_that_ended_meanwhile() {
    let cluster = Cluster::start(3);
    let key = "f1".repeat(16);
    let hello = json!({"hello": {"version": 2, "open": {"key": key}}});
    let create = json!({"request": 1, "command": {"create_account": {"account_id": "a", "initial_balance": 5}}});
    let transfer = json!({"request": 2, "command": {"deposit": {"account_id": "a", "amount": 1}}, "acknowledged": 1});
    let mut waiting = cluster.nodes[0].connect(Encoding::Json);
    cluster.nodes[0].freeze();
    for message in [&hello, &create, &transfer] {
        waiting.send(message);
    }
    let mut elsewhere = cluster.nodes[1].connect(Encoding::Json);
    assert_eq!(elsewhere.ask(&hello)["welcome"]["opened"], true);
    for message in [&create, &transfer] {
        assert!(elsewhere.ask(message)["ok"].is_object());
    }
    elsewhere.send(&json!({"goodbye": {}}));
    elsewhere.receive_close();
    cluster.nodes[0].thaw();
    for _ in 0..3 {
        let answer = waiting.receive();
        // Before it has caught up, a node that stood still may say that it had no quorum.
        assert!(matches!(error(&answer), ["session_expired" | "no_quorum", "unknown"]), "{answer}");
    }
    let (_, close) = waiting.receive_close();
    assert!(matches!(close.map(|close| u16::from(close.code)), Some(1008 | 1013)));
    assert_eq!(cluster.wait_equal()[0]["total_balance"], 6);
}

/// Without a quorum a session is not opened: the connection ends, and no late welcome comes on it.
#[test]
fn a_hello_that_finds_no_quorum_ends_its_connection() {
    let mut cluster = Cluster::start_with(3, |config| config.limits.request_timeout_ms = 1_000);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let hello = json!({"hello": {"version": 2, "open": {"key": "ab".repeat(16)}}});
    let mut connection = cluster.nodes[0].connect(Encoding::Json);
    let began = Instant::now();
    connection.send(&hello);
    connection.send(&json!({"request": 1, "command": {"create_account": {"account_id": "a", "initial_balance": 1}}}));
    let answers = [connection.receive(), connection.receive()];
    for answer in &answers {
        assert_eq!(error(answer), ["no_quorum", "unknown"], "{answer}");
    }
    assert!(answers.iter().any(|answer| answer.get("request").is_none()), "{answers:?}");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let (said, close) = connection.receive_close();
    assert_eq!((said.len(), close.map(|close| u16::from(close.code))), (0, Some(1013)));
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_ready();
    // The same key opens the session now, whether or not the log has opened it meanwhile.
    let mut connection = cluster.nodes[0].connect(Encoding::Json);
    assert!(connection.ask(&hello)["welcome"]["session"].is_u64());
    let create = json!({"request": 1, "command": {"create_account": {"account_id": "a", "initial_balance": 1}}});
    assert_eq!(connection.ask(&create)["replayed"], false);
    assert_eq!(cluster.wait_equal()[0]["total_balance"], 1);
}
