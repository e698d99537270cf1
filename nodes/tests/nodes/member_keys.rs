//! Keys of members, with the real program: which ones a node starts with, and who gets onto a link without the right one. What a
//! hello may say behind the handshake is in `hostile` and `hostile_peer`.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::support::wire::{Anything, PEER_PATH, Wire, connect, hello_of_tls_1_2, open_peer, read_all, secured};
use crate::support::{Cluster, Connection, Node, PATIENCE, SharedCluster, open_socket, wait_until};
use rabia_bank::member_key::MemberKey;
use rabia_bank::peer_tls::PeerTls;
use rabia_bank_messages::codec::Encoding;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::version::TLS13;
use serde_json::json;

static CLUSTER: SharedCluster = SharedCluster::new();

/// The exit code of a node that refuses to start.
const REFUSED: i32 = 3;

fn refuses(node: &mut Node, words: &[&str]) {
    let said = node.log().len();
    node.start();
    let status = node.wait();
    let log = node.log().split_off(said);
    assert_eq!(status.code(), Some(REFUSED), "{status}: {log}");
    for word in words {
        assert!(log.contains(word), "\"{word}\" is missing in: {log}");
    }
}

#[test]
fn a_node_starts_with_its_own_key_alone_and_nobody_elses_eyes_on_it() {
    let mut cluster = Cluster::start(3);
    let [_, second, third] = &mut cluster.nodes[..] else { panic!("three nodes") };
    let own = third.config.key_path();
    let name = own.display().to_string();
    third.stop();
    let kept = cluster.dir.path().join("kept");
    fs::rename(&own, &kept).unwrap();
    refuses(third, &["there is no key at", &name, "rabia-bank replace"]);
    fs::copy(second.config.key_path(), &own).unwrap();
    let (of_second, of_third) = (second.key().store().to_string(), third.config.members[2].store.to_string());
    refuses(third, &[&name, &format!("is the key of store {of_second}"), &of_third, "rabia-bank replace"]);
    fs::write(&own, "-----BEGIN PRIVATE KEY-----").unwrap();
    refuses(third, &[&name, "is no Ed25519 key", "rabia-bank replace"]);
    fs::rename(&kept, &own).unwrap();
    fs::set_permissions(&own, Permissions::from_mode(0o640)).unwrap();
    refuses(third, &[&name, "0640", "chmod 600", "rabia-bank replace --force"]);
    fs::set_permissions(&own, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&third.config.data_dir, Permissions::from_mode(0o770)).unwrap();
    refuses(third, &["others than its owner may write", "chmod 700"]);
    fs::set_permissions(&third.config.data_dir, Permissions::from_mode(0o700)).unwrap();
    third.start();
    cluster.wait_ready();
}

#[test]
fn who_speaks_plain_or_an_older_tls_is_closed_and_the_log_says_so_once() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[0];
    for _ in 0..50 {
        assert!(open_socket(node.peer_address(), PEER_PATH, &[]).is_err());
        let mut stream = connect(node.peer_address()).unwrap();
        stream.write_all(b"GET /v1/peer HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(read_all(&mut stream).is_empty(), "something is said to who speaks plain");
    }
    let lines = |word: &str| node.log().lines().filter(|line| line.contains(word)).count();
    let told = lines("only TLS is spoken there");
    assert!((1..=4).contains(&told), "{told} lines: {}", node.log());
    let mut stream = connect(node.peer_address()).unwrap();
    stream.write_all(&hello_of_tls_1_2()).unwrap();
    // A fatal alert: protocol_version.
    let answer = read_all(&mut stream);
    assert!(answer.starts_with(&[21, 3]) && answer.ends_with(&[0, 2, 2, 70]), "{answer:?}");
    wait_until("it is told", PATIENCE, || lines("has failed in its TLS handshake") == 1);
    assert!(cluster.nodes.iter().all(|node| node.status().unwrap()["connected"].as_array().unwrap().len() == 2));
}

#[test]
fn a_handshake_of_tls_is_4_kib_at_most() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[0];
    // The beginning of a ClientHello of 16 KiB, in records of 1 KiB.
    let record = [&[0x16, 3, 1, 4, 0, 1, 0, 0x3f, 0xf0][..], &[0; 1020]].concat();
    let lasts = |records: usize| {
        let mut stream = connect(node.peer_address()).unwrap();
        let began = Instant::now();
        // It may be closed before all of it is written.
        let _ = (0..records).try_for_each(|_| stream.write_all(&record));
        read_all(&mut stream);
        began.elapsed()
    };
    let (short, long) = (lasts(3), lasts(16));
    assert!(long < short / 2, "{long:?}, and {short:?} for one that is waited for");
}

/// Calls over TLS as the program does, but for its certificate.
fn without_key(config: &ClientConfig, verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    let provider = config.crypto_provider().clone();
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

#[test]
fn nobody_gets_a_websocket_without_a_key() {
    let cluster = CLUSTER.get();
    let node = &cluster.nodes[1];
    let usual = PeerTls::new(&MemberKey::draw()).unwrap().client();
    let request = b"GET /v1/peer HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let answered = |wire: std::io::Result<Wire>| match wire {
        Ok(mut wire) => wire.write_all(request).is_ok() && read_all(&mut wire).starts_with(b"HTTP/1.1"),
        Err(_) => false,
    };
    for raw in [true, false] {
        let config = without_key(&usual, Arc::new(Anything { raw }));
        assert!(!answered(secured(connect(node.peer_address()).unwrap(), Arc::new(config))), "{raw}");
    }
    // The same with a key of its own is let in so far: what it is worth its hello shows.
    let mut wire = secured(connect(node.peer_address()).unwrap(), usual).unwrap();
    wire.write_all(request).unwrap();
    let mut answer = [0; 12];
    wire.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
}

/// Hands a connection on to a node, and keeps what the caller said.
pub fn recording(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, said) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let keep = said.clone();
    std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        let mut called = TcpStream::connect(to).unwrap();
        let (mut back, mut forth) = (called.try_clone().unwrap(), caller.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = caller.read(&mut buffer) {
            keep.lock().unwrap().extend_from_slice(&buffer[..length]);
            if called.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = called.shutdown(std::net::Shutdown::Both);
    });
    (address, said)
}

#[test]
fn a_handshake_that_was_recorded_is_worth_nothing() {
    let cluster = CLUSTER.get();
    let (first, node) = (&cluster.nodes[0], &cluster.nodes[2]);
    let (through, said) = recording(node.peer_address());
    drop(open_peer(through, &first.key(), PEER_PATH, &[]).unwrap());
    let said = said.lock().unwrap().clone();
    assert!(said.len() > 500, "{} bytes", said.len());
    for _ in 0..3 {
        let mut stream = connect(node.peer_address()).unwrap();
        stream.write_all(&said).unwrap();
        let began = Instant::now();
        let answer = read_all(&mut stream);
        assert!(began.elapsed() < PATIENCE / 2, "it is kept open");
        // What it answers is its own hello with other secrets, and an alert.
        assert!(answer.len() < 1_000, "{} bytes", answer.len());
    }
    wait_until("it is told", PATIENCE, || node.log().contains("has failed in its TLS handshake"));
    assert_eq!(node.status().unwrap()["connected"].as_array().unwrap().len(), 2);
}

#[test]
fn a_node_says_nothing_to_who_listens_plain_at_a_members_address() {
    let mut cluster = Cluster::create(3);
    let listener = TcpListener::bind(cluster.nodes[2].peer_address()).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut first = [0; 2];
            let read = stream.read_exact(&mut first);
            hears.lock().unwrap().push(read.map(|()| first));
            // As a program answers that takes all for HTTP.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    cluster.nodes[..2].iter_mut().for_each(Node::start);
    wait_until("it is told", PATIENCE, || {
        cluster.nodes[..2]
            .iter()
            .all(|node| node.log().contains("it does not speak TLS, and nothing else is spoken here"))
    });
    assert!(heard.lock().unwrap().iter().all(|heard| heard.as_ref().is_ok_and(|first| *first == [0x16, 3])));
    let mut connection: Connection = cluster.nodes[0].connect(Encoding::Json);
    let answer = connection.command(json!({"create_account": {"account_id": "a", "initial_balance": 0}}));
    assert!(answer["ok"].is_object(), "the other two are linked: {answer}");
}
