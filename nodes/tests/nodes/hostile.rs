//! Clients and peers that send garbage, too much, too little or nothing. Whoever does gets a clear error or a close code;
//! everybody else goes on, and the node's memory stays bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::wire::{PEER_PATH, Wire, open_peer};
use crate::support::{Cluster, Connection, Node, PATIENCE, SharedCluster, open_socket, resident_memory, wait_until};
use rabia_bank::config::NodeConfig;
use rabia_bank::member_key::MemberKey;
use rabia_bank_messages::client::{CLIENT_PATH, STATUS_PATH};
use rabia_bank_messages::codec::{Encoding, decode_opening, encode_opening};
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{ClusterId, Digest, NodeId, Proof, RunId, StoreId};
use rabia_bank_messages::lineage::{MAX_PROMISES, Run};
use rabia_bank_messages::msgpack::{self, MAX_DEPTH};
use rabia_bank_messages::peer::{Hello, Opening, PROTOCOL_VERSION, RefusalReason};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// Limits that are reached sooner than the usual ones.
static CLUSTER: SharedCluster = SharedCluster::started_by(|| {
    Cluster::start_with(3, |config| {
        config.limits.max_message_bytes = MAX_MESSAGE;
        config.limits.max_in_flight = MAX_IN_FLIGHT;
        config.limits.handshake_timeout_ms = HANDSHAKE.as_millis() as u64;
        config.limits.request_timeout_ms = 2_000;
        config.allowed_origins = vec!["https://bank.example".into()];
    })
});
const MAX_MESSAGE: usize = 1 << 20;
const MAX_IN_FLIGHT: usize = 100;
const HANDSHAKE: Duration = Duration::from_millis(500);

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

/// A well-behaved client of a node, which must get what it asks for whatever others do.
struct Good {
    connection: Connection,
    account: String,
    balance: u64,
    slowest: Duration,
}

impl Good {
    fn new(node: &Node) -> Good {
        let account = format!("good-{:x}", fastrand::u64(..));
        let mut connection = node.connect(Encoding::MessagePack);
        let answer = connection.command(json!({"create_account": {"account_id": account, "initial_balance": 0}}));
        assert!(answer["ok"].is_object(), "{answer}");
        Good { connection, account, balance: 0, slowest: Duration::ZERO }
    }

    /// A write and a read.
    fn go_on(&mut self) {
        let began = Instant::now();
        let answer = self.connection.command(json!({"deposit": {"account_id": self.account, "amount": 1}}));
        self.balance += 1;
        assert_eq!(answer["ok"]["transaction"]["to_balance"], self.balance, "{answer}");
        let answer = self.connection.query(json!({"get_balance": {"account_id": self.account}}));
        assert_eq!(answer["ok"]["balance"], self.balance, "{answer}");
        self.slowest = self.slowest.max(began.elapsed());
    }
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads until the other side closes, in whatever way.
fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            // The other side resets it, or there is no farewell of TLS.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
                ) =>
            {
                return bytes;
            }
            Err(error) => panic!("the connection was not closed: {error}"),
        }
    }
}

fn random_bytes(length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| fastrand::u8(..)).take(length).collect()
}

/// A masked frame as a client sends it.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mut frame = vec![first_byte, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn garbage_in_place_of_a_handshake_is_closed() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[0];
    let mut good = Good::new(node);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let upgrade = format!("Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}");
    let garbage: [Vec<u8>; 8] = [
        // All that a handshake needs, and more than it may have.
        format!("GET {CLIENT_PATH} HTTP/1.1\r\n{upgrade}Cookie: {}\r\n\r\n", "x".repeat(4_200)).into_bytes(),
        random_bytes(5_000),
        vec![0; 100_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"POST /v1/client HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        format!("GET {CLIENT_PATH} HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").into_bytes(),
        format!("GET {CLIENT_PATH} HTTP/1.1\r\n{}", "X: y\r\n".repeat(50_000)).into_bytes(),
    ];
    let secured = || {
        let tls = rabia_bank::peer_tls::PeerTls::new(&MemberKey::draw()).unwrap();
        crate::support::wire::secured(tcp(node.peer_address()), tls.client()).unwrap()
    };
    let ways: [&dyn Fn() -> Wire; 3] =
        [&|| Wire::Plain(tcp(node.address())), &|| Wire::Plain(tcp(node.peer_address())), &secured];
    for way in ways {
        for bytes in &garbage {
            let mut stream = way();
            // It may be closed before all of it is written.
            let _ = stream.write_all(bytes);
            let answer = read_to_end(&mut stream);
            assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
            good.go_on();
        }
    }
}

#[test]
fn a_handshake_that_does_not_end_is_closed_at_its_deadline() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[1];
    let mut good = Good::new(node);
    for address in [node.address(), node.peer_address()] {
        let began = Instant::now();
        let mut idle: Vec<TcpStream> = (0..100).map(|_| tcp(address)).collect();
        // The beginning of a request, and that of a handshake of TLS, of which each side announces 512 bytes.
        let begins = match address == node.address() {
            true => format!("GET {CLIENT_PATH} HTTP/1.1\r\nHost: x\r\nUpgr").into_bytes(),
            false => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        };
        for stream in idle.iter_mut().skip(50) {
            stream.write_all(&begins).unwrap();
        }
        good.go_on();
        assert!(began.elapsed() < HANDSHAKE, "others wait: {:?}", began.elapsed());
        for stream in &mut idle {
            read_to_end(stream);
        }
        let took = began.elapsed();
        assert!(took >= HANDSHAKE && took < HANDSHAKE + Duration::from_secs(5), "{took:?}");
        // A drop at a time does not move the deadline.
        let mut slow = tcp(address);
        let began = Instant::now();
        slow.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut drops = begins.iter().chain(std::iter::repeat(&0));
        wait_until("the slow one is closed", Duration::from_secs(10), || {
            slow.write_all(&[*drops.next().unwrap()]).is_err() || matches!(slow.read(&mut [0]), Ok(0))
        });
        assert!(began.elapsed() >= HANDSHAKE / 2, "{:?}", began.elapsed());
        good.go_on();
    }
}

/// A page learns nothing of a status in its handshake, but it can read a code.
fn assert_is_closed(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) {
    let mut socket = open_socket(address, path, headers).unwrap();
    // What it says meanwhile does nothing.
    let _ = socket.send(Message::text(r#"{"request": 1, "query": {"get_status": {}}}"#));
    let Ok(Message::Close(Some(frame))) = socket.read() else { panic!("{headers:?}: no close frame") };
    assert_eq!(frame.code, CloseCode::Policy, "{headers:?}");
    assert!(frame.reason.contains("allowed_origins"), "{frame}");
}

#[test]
fn paths_and_origins_that_are_not_served_are_turned_away_in_the_handshake() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[0];
    let status_of = |opened: Result<_, SocketError>| match opened {
        Ok(_) => 101,
        Err(SocketError::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    let status = |address, path: &str, headers: &[_]| status_of(open_socket(address, path, headers));
    let address = node.address();
    for path in ["/", "/v1", "/v1/clients", "/v1/statuses", "/v2/client", "/v1/peer", "/v1/client/"] {
        assert_eq!(status(address, path, &[]), 404, "{path}");
    }
    let own = format!("http://{address}");
    let localhost = format!("http://localhost:{}", address.port());
    for origin in [own.as_str(), localhost.as_str(), "https://bank.example"] {
        assert_eq!(status(address, CLIENT_PATH, &[("origin", origin)]), 101, "{origin}");
    }
    let other_port = format!("http://127.0.0.1:{}", address.port() ^ 1);
    for origin in ["https://evil.example", "null", "", "http://bank.example", "http://localhost", &other_port] {
        for path in [CLIENT_PATH, STATUS_PATH] {
            assert_is_closed(address, path, &[("origin", origin)]);
        }
    }
    // A page whose name was made to point here says its own name as the host.
    assert_is_closed(address, CLIENT_PATH, &[("origin", "http://evil.example"), ("host", "evil.example")]);
    assert!(node.log().contains("a web page is turned away"), "{}", node.log());
    let peers = node.peer_address();
    let key = MemberKey::draw();
    assert_eq!(status_of(open_peer(peers, &key, CLIENT_PATH, &[])), 404);
    assert_eq!(status_of(open_peer(peers, &key, PEER_PATH, &[("origin", &own)])), 403);
    Good::new(node).go_on();
}

#[test]
fn what_is_no_message_is_answered_and_the_connection_goes_on() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[2];
    let mut good = Good::new(node);
    let query = json!({"request": 5, "query": {"get_status": {}}});
    for encoding in ENCODINGS {
        let whole = crate::support::encode(encoding, &query).into_data();
        let mut bad: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
        bad.push([&whole[..], &whole[..]].concat());
        bad.push([&whole[..], b"x"].concat());
        if encoding == Encoding::MessagePack {
            bad.extend((0..50).map(|length| random_bytes(length + 1)));
            // Lengths that are not there: 4 GiB of text, of bytes, of an array, of a map.
            bad.extend([0xdb, 0xc6, 0xdd, 0xdf].map(|marker| vec![marker, 0xff, 0xff, 0xff, 0xff, 1]));
            bad.push(msgpack::encode_named(&json!({"request": "no number", "query": {"get_status": {}}})));
        } else {
            bad.extend(["{", "\"", "[1,2", "nul", "{\"request\": 1e999}", "{\"a\": 1, \"a\": 2}"].map(Vec::from));
        }
        let mut c = node.connect(encoding);
        c.greet();
        let count = bad.len();
        for bytes in bad {
            let frame = match encoding {
                Encoding::Json => Message::text(String::from_utf8(bytes).unwrap()),
                Encoding::MessagePack => Message::binary(bytes),
            };
            c.socket.send(frame.clone()).unwrap();
            let answer = c.receive();
            assert_eq!(answer["error"]["code"], "malformed", "{frame:?}: {answer}");
            assert_eq!(answer["error"]["outcome"], "refused", "{frame:?}: {answer}");
            assert!(answer["error"]["message"].as_str().unwrap().len() < 1_000, "{answer}");
        }
        assert!(count > 20);
        assert!(c.ask(&query)["ok"]["status"].is_object());
    }
    good.go_on();
}

#[test]
fn deep_nesting_is_malformed_however_deep() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[0];
    let mut good = Good::new(node);
    for encoding in ENCODINGS {
        let mut c = node.connect(encoding);
        c.greet();
        for depth in [MAX_DEPTH + 1, 130, 500_000] {
            let bytes = match encoding {
                Encoding::Json => [vec![b'['; depth], vec![b']'; depth]].concat(),
                // An array with one element.
                Encoding::MessagePack => [vec![0x91; depth], vec![0]].concat(),
            };
            let frame = match encoding {
                Encoding::Json => Message::text(String::from_utf8(bytes).unwrap()),
                Encoding::MessagePack => Message::binary(bytes),
            };
            c.socket.send(frame).unwrap();
            let answer = c.receive();
            assert_eq!(answer["error"]["code"], "malformed", "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains("nested"), "{answer}");
        }
    }
    good.go_on();
}

#[test]
fn frames_that_are_no_websocket_are_closed_with_a_code() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[1];
    let mut good = Good::new(node);
    let cases: [(&str, Vec<u8>, u16); 6] = [
        ("text that is not UTF-8", frame(0x81, b"{\"request\": \"\xff\xfe\"}"), 1007),
        ("a frame that is not masked", vec![0x81, 2, b'{', b'}'], 1002),
        ("a kind that does not exist", frame(0x83, b"x"), 1002),
        ("reserved bits", frame(0xf1, b"x"), 1002),
        ("the end of a message that did not begin", frame(0x80, b"x"), 1002),
        ("a ping in pieces", frame(0x09, b"x"), 1002),
    ];
    for (what, bytes, code) in cases {
        let mut c = node.connect(Encoding::Json);
        c.socket.get_mut().write_all(&bytes).unwrap();
        let (messages, close) = c.receive_close();
        assert_eq!(close.map(|close| u16::from(close.code)), Some(code), "{what}: {messages:?}");
        good.go_on();
    }
}

#[test]
fn who_goes_in_the_middle_of_a_frame_is_forgotten() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[0];
    let mut good = Good::new(node);
    let clients = || node.status().unwrap()["clients"].as_u64().unwrap();
    for round in 0..20 {
        let mut c = node.connect(Encoding::Json);
        // A frame of 100 bytes that ends after some; a message of which the second frame never comes.
        let begun =
            if round % 2 == 0 { vec![0x81, 0x80 | 100, 0, 0, 0, 0, b'{'] } else { frame(0x01, b"{\"request\"") };
        c.socket.get_mut().write_all(&begun[..begun.len() - round / 4]).unwrap();
        if round % 3 == 0 {
            c.socket.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
            read_to_end(c.socket.get_mut());
        }
        good.go_on();
    }
    // The status is asked on a connection of its own; other tests may have some too.
    wait_until("they are gone", PATIENCE, || clients() < 20);
}

#[test]
fn a_message_above_the_limit_is_too_large_and_the_connection_is_closed() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[2];
    let mut good = Good::new(node);
    for encoding in ENCODINGS {
        for excess in [1, 3 * MAX_MESSAGE] {
            let mut c = node.connect(encoding);
            let padding = "x".repeat(MAX_MESSAGE + excess);
            // It may be closed before all of it is sent.
            let _ = c.try_send(&json!({"request": 1, "command": {"deposit": {"account_id": padding, "amount": 1}}}));
            let (messages, close) = c.receive_close();
            assert_eq!(close.map(|close| u16::from(close.code)), Some(1009), "{messages:?}");
            let [Message::Text(error)] = &messages[..] else { panic!("{messages:?}") };
            let error: Value = serde_json::from_str(error).unwrap();
            assert_eq!((&error["error"]["code"], &error["error"]["outcome"]), (&json!("too_large"), &json!("refused")));
            good.go_on();
        }
        // A message in pieces counts as a whole.
        let mut c = node.connect(encoding);
        let piece = vec![b' '; 100];
        let mut sent = c.socket.get_mut().write_all(&frame(0x01, &piece));
        for _ in 0..MAX_MESSAGE / piece.len() + 2 {
            sent = sent.and_then(|()| c.socket.get_mut().write_all(&frame(0x00, &piece)));
        }
        let (messages, close) = c.receive_close();
        assert_eq!(close.map(|close| u16::from(close.code)), Some(1009), "{sent:?} {messages:?}");
        // Just below it, it is a message like any other.
        let mut c = node.connect(encoding);
        let padding = "x".repeat(MAX_MESSAGE - 200);
        let answer = c.command(json!({"deposit": {"account_id": padding, "amount": 1}}));
        assert_eq!(answer["error"]["code"], "invalid_account_id", "{}", answer["error"]["code"]);
        assert!(answer["error"]["message"].as_str().unwrap().len() < 1_000);
    }
    good.go_on();
}

#[test]
fn beyond_the_limit_of_requests_in_flight_the_answer_is_busy() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[0];
    let mut good = Good::new(node);
    for encoding in ENCODINGS {
        let mut c = node.connect(encoding);
        let key = format!("{:032x}", fastrand::u128(..));
        c.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
        // Reads of a slot that does not come soon.
        let waiting = json!({"get_balance": {"account_id": good.account}});
        for request in 1..=MAX_IN_FLIGHT {
            c.send(&json!({"request": request, "query": waiting, "read": {"at_least": 1u64 << 50}}));
        }
        let answer = c.ask(&json!({"request": 200, "query": waiting, "read": "local"}));
        assert_eq!((&answer["error"]["code"], &answer["error"]["outcome"]), (&json!("busy"), &json!("refused")));
        assert!(answer.get("slot").is_none(), "{answer}");
        // In a session that others may have spoken in too, a command may be a retry.
        let deposit = json!({"deposit": {"account_id": good.account, "amount": 1}});
        let answer = c.ask(&json!({"request": 201, "command": deposit}));
        assert_eq!((&answer["error"]["code"], &answer["error"]["outcome"]), (&json!("busy"), &json!("unknown")));
        good.go_on();
        for _ in 0..MAX_IN_FLIGHT {
            let answer = c.receive();
            assert_eq!(answer["error"]["code"], "not_yet_applied", "{answer}");
            assert!(answer.get("slot").is_none(), "{answer}");
        }
        // Then there is room again, and the command was really not executed.
        let answer = c.ask(&json!({"request": 202, "query": waiting}));
        assert_eq!(answer["ok"]["balance"], good.balance, "{answer}");
    }
}

#[test]
fn a_flood_of_requests_is_answered_one_by_one_while_others_go_on() {
    const FLOOD: u64 = 30_000;
    let cluster = Cluster::start(3);
    let node = &cluster.nodes[0];
    let mut good = Good::new(node);
    let mut flood = Good::new(node);
    let mut reader = flood.connection.socket.get_ref().try_clone().unwrap();
    let account = flood.account.clone();
    let done = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    let (mut applied, mut busy) = (0, 0);
    std::thread::scope(|scope| {
        let (done, answered) = (&done, &answered);
        scope.spawn(move || {
            // A second thread writes frames while this one reads: tungstenite has one object for both.
            let mut frames = Vec::new();
            for request in 2..FLOOD + 2 {
                let message = json!({"request": request, "command": {"deposit": {"account_id": account, "amount": 1}}});
                let bytes = msgpack::encode_named(&message);
                frames.extend(frame(0x82, &bytes));
            }
            reader.write_all(&frames).unwrap();
        });
        let others = scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                good.go_on();
            }
            good
        });
        for _ in 0..FLOOD {
            let answer = flood.connection.receive();
            match answer["error"]["code"].as_str() {
                None => applied += 1,
                Some("busy") => busy += 1,
                Some(_) => panic!("{answer}"),
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
        let good = others.join().unwrap();
        assert!(good.balance > 0 && good.slowest < Duration::from_secs(5), "others waited {:?}", good.slowest);
        eprintln!(
            "{applied} applied, {busy} busy; another client meanwhile: {} rounds, the slowest {:?}",
            good.balance, good.slowest
        );
    });
    let answer = flood.connection.query(json!({"get_balance": {"account_id": flood.account}}));
    assert_eq!(answer["ok"]["balance"], applied, "what was busy was not executed: {applied} + {busy}");
    cluster.wait_equal();
}

#[test]
fn a_client_that_never_reads_is_dropped_before_it_costs_much_memory() {
    // What a node may need beyond what it has: the answers that wait for one client, and as much again on the way.
    const MOST: u64 = 300 << 20;
    let cluster = Cluster::start(3);
    let node = &cluster.nodes[0];
    let mut good = Good::new(node);
    let deposits: Vec<Value> =
        (0..5_000).map(|_| json!({"deposit": {"account_id": good.account, "amount": 1}})).collect();
    let answer = good.connection.command(json!({"bulk": {"commands": deposits, "atomic": true}}));
    assert_eq!(answer["ok"]["results"].as_array().unwrap().len(), 5_000);
    good.balance += 5_000;
    let before = resident_memory(node.pid());
    let mut most = before;
    let history = json!({"get_transaction_history": {"limit": 1_000}});
    for read in [json!("local"), json!("linearizable"), json!({"at_least": 1})] {
        // Each answer has some 250 KB; a node grants 8,192 requests in flight.
        let silent = node.connect(Encoding::Json);
        let mut stream = silent.socket.get_ref().try_clone().unwrap();
        let mut frames = Vec::new();
        for request in 1..=8_000 {
            let message = json!({"request": request, "query": history, "read": read}).to_string();
            frames.extend(frame(0x81, message.as_bytes()));
        }
        let writer = std::thread::spawn(move || stream.write_all(&frames));
        wait_until("the client that does not read is dropped", 2 * PATIENCE, || {
            good.go_on();
            most = most.max(resident_memory(node.pid()));
            node.status().unwrap()["clients"] == 2
        });
        // The node may have closed in the middle of it.
        let _ = writer.join().unwrap();
    }
    eprintln!("{} MB before, {} MB at most; the slowest round {:?}", before >> 20, most >> 20, good.slowest);
    assert!(most < before + MOST, "{before} bytes of memory became {most}");
    assert!(good.slowest < Duration::from_secs(5), "others waited {:?}", good.slowest);
}

#[test]
fn large_requests_that_can_not_be_decided_are_busy_before_they_fill_the_memory() {
    const MESSAGE: usize = 3_900_000;
    const MESSAGES: u64 = 150;
    // 128 MiB of requests that wait for an answer, as much that is proposed and can't be taken back, as much that was
    // given up and is about to be dropped, and what is on its way.
    const MOST: u64 = 500 << 20;
    let mut cluster = Cluster::start_with(3, |config| config.limits.request_timeout_ms = 1_000);
    let mut good = Good::new(&cluster.nodes[0]);
    let mut with_session = cluster.nodes[0].connect(Encoding::MessagePack);
    let key = format!("{:032x}", fastrand::u128(..));
    with_session.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let node = &cluster.nodes[0];
    let before = resident_memory(node.pid());
    let padding = "x".repeat(MESSAGE);
    // Commands of a session; commands that wait for their session; queries.
    for kind in ["in a session", "without a session", "queries"] {
        let mut c = match kind {
            "in a session" => std::mem::replace(&mut with_session, node.connect(Encoding::MessagePack)),
            _ => node.connect(Encoding::MessagePack),
        };
        for request in 1..=MESSAGES {
            c.send(&match kind {
                "queries" => json!({"request": request, "query": {"get_balance": {"account_id": padding}}}),
                _ => json!({"request": request, "command": {"deposit": {"account_id": padding, "amount": 1}}}),
            });
        }
        let codes: Vec<Value> = (0..MESSAGES).map(|_| c.receive()["error"]["code"].clone()).collect();
        let (busy, no_quorum) = (json!("busy"), json!("no_quorum"));
        assert!(codes.contains(&busy), "{kind}: all {MESSAGES} were taken");
        assert!(codes.iter().all(|code| *code == busy || *code == no_quorum), "{kind}: {codes:?}");
        let memory = resident_memory(node.pid());
        assert!(memory < before + MOST, "{kind}: {before} bytes of memory became {memory}");
        eprintln!("{kind}: {} MB before, {} MB now", before >> 20, memory >> 20);
    }
    // The others come back, what was proposed is decided, and all goes on.
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_ready();
    good.connection = cluster.nodes[0].connect(Encoding::MessagePack);
    let deposit = json!({"deposit": {"account_id": good.account, "amount": 1}});
    let again = json!({"request": good.connection.number(), "command": deposit});
    wait_until("a command is applied again", PATIENCE, || {
        let answer = good.connection.ask(&again);
        let code = &answer["error"]["code"];
        assert!(answer["ok"].is_object() || code == "busy" || code == "no_quorum", "{answer}");
        answer["ok"].is_object()
    });
    good.balance += 1;
    good.go_on();
    cluster.wait_equal();
}

/// Says this to a node's port for peers, as somebody who has this key, and reads what it answers.
fn open_as_peer(node: &Node, key: &MemberKey, first: Message) -> Result<Opening, String> {
    let mut socket = open_peer(node.peer_address(), key, PEER_PATH, &[]).unwrap();
    socket.send(first).unwrap();
    match socket.read() {
        Ok(Message::Binary(bytes)) => decode_opening(&bytes).map_err(|error| error.to_string()),
        other => Err(format!("{other:?}")),
    }
}

fn hello_to(config: &NodeConfig, from: u8) -> Hello {
    let node = NodeId::new(from).unwrap();
    Hello {
        cluster: config.cluster,
        genesis: config.genesis().digest(),
        node,
        to: config.node,
        store: config.members[node.index()].store,
        joined: None,
        run: Run { run: RunId([7; 16]), promises: 0 },
        proof: Proof([7; 16]),
        former: Vec::new(),
        remembers: None,
        disputes: None,
        decided: 0,
        log_hash: Digest::ZERO,
    }
}

#[test]
fn who_is_no_peer_is_refused_with_the_reason_and_the_links_stay() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[1];
    let mut good = Good::new(node);
    let config = &node.config;
    let hello = hello_to(config, 1);
    let genesis = Genesis { window: 99, ..config.genesis() };
    let (first, second, nobody) = (cluster.nodes[0].key(), node.key(), MemberKey::draw());
    let cases = [
        (&first, Hello { cluster: ClusterId([9; 16]), ..hello.clone() }, RefusalReason::Cluster),
        (&first, Hello { genesis: genesis.digest(), ..hello.clone() }, RefusalReason::Genesis),
        (&first, Hello { to: NodeId::new(3).unwrap(), ..hello.clone() }, RefusalReason::Node),
        (&second, hello_to(config, 2), RefusalReason::Node),
        (&first, Hello { node: NodeId::new(7).unwrap(), ..hello.clone() }, RefusalReason::Node),
        // A key of its own makes nobody a member, and nobody speaks from a store whose key it has not, a member as little as others.
        (&nobody, Hello { store: nobody.store(), ..hello.clone() }, RefusalReason::NotYet),
        (&nobody, hello.clone(), RefusalReason::Key),
        (&second, hello.clone(), RefusalReason::Key),
        (&first, Hello { store: StoreId([9; 16]), ..hello.clone() }, RefusalReason::Key),
        // A run that is not the real one, whatever number of promises it claims.
        (&first, hello.clone(), RefusalReason::OldCopy),
        (&first, Hello { run: Run { promises: MAX_PROMISES, ..hello.run }, ..hello.clone() }, RefusalReason::OldCopy),
        (&first, Hello { run: Run { promises: u64::MAX, ..hello.run }, ..hello.clone() }, RefusalReason::Number),
    ];
    for (key, hello, expected) in cases {
        let opening = encode_opening(&Opening::Hello(hello.clone()));
        match open_as_peer(node, key, Message::binary(opening)) {
            Ok(Opening::Refused(refused)) => {
                assert_eq!(refused.reason, expected, "{hello:?}: {}", refused.message);
                assert!(refused.message.len() > 10, "{}", refused.message);
            }
            other => panic!("{hello:?} was answered with {other:?}"),
        }
    }
    let mut other_version = encode_opening(&Opening::Hello(hello.clone()));
    other_version[0] += 1;
    let damaged = encode_opening(&Opening::Hello(hello))[..20].to_vec();
    let no_hellos = [
        (Message::binary(other_version), RefusalReason::Version),
        (Message::binary(damaged), RefusalReason::NoHello),
        (Message::binary(vec![PROTOCOL_VERSION]), RefusalReason::NoHello),
        (Message::binary(Vec::new()), RefusalReason::NoHello),
        (Message::binary([vec![PROTOCOL_VERSION], random_bytes(100)].concat()), RefusalReason::NoHello),
        (Message::text("hello"), RefusalReason::NoHello),
    ];
    for (first, expected) in no_hellos {
        match open_as_peer(node, &nobody, first.clone()) {
            Ok(Opening::Refused(refused)) => assert_eq!(refused.reason, expected, "{first:?}: {}", refused.message),
            other => panic!("{first:?} was answered with {other:?}"),
        }
    }
    good.go_on();
    for node in &cluster.nodes {
        assert_eq!(node.status().unwrap()["connected"].as_array().unwrap().len(), 2);
        assert!(!node.log().contains("the link is down"), "a link was lost: {}", node.log());
    }
}
