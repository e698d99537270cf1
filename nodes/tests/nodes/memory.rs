//! What clients make a node remember is bounded, however many they are and whatever they leave undone: answers that nobody reads
//! or acknowledges, messages without an end, pings without a reader.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use crate::support::{Cluster, Connection, Node, PATIENCE, client, program, resident_memory, wait_until};
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const MIB: u64 = 1 << 20;
/// What a node may need besides what waits: the copy of a message that is decoded, of an answer that is made, of a snapshot.
const BESIDES: u64 = 160 * MIB;

/// The beginning of a masked frame whose payload has this length.
fn header(first_byte: u8, length: u64) -> Vec<u8> {
    [&[first_byte, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4]].concat()
}

fn ping() -> Vec<u8> {
    [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[b'p'; 100]].concat()
}

/// Whether the kernel still has the node's side of this connection.
fn is_known_to_the_kernel(node: &Node, connection: &Connection) -> bool {
    let own = connection.socket.get_ref().local_addr().unwrap().port();
    let [of_node, of_client] = [node.address().port(), own].map(|port| format!(":{port:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&of_node) && fields[2].ends_with(&of_client)
    })
}

fn open(connection: &mut Connection) -> Value {
    let key = format!("{:032x}", fastrand::u128(..));
    let welcome = connection.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
    json!({"number": welcome["welcome"]["session"], "key": key})
}

/// One session that acknowledges nothing can't fill the memory or the books of the nodes, nor stop them at a snapshot.
#[test]
fn a_session_full_of_refusals_with_long_names_is_kept_saved_and_backed_up() {
    const BULKS: u64 = 30;
    let mut cluster = Cluster::start_with(3, |config| config.limits.snapshot_bytes = 1 << 20);
    let before = cluster.nodes.iter().map(|node| resident_memory(node.pid())).max().unwrap();
    let name = "\u{1d11e}".repeat(51);
    let refused: Vec<Value> = (1..=10_000)
        .map(|number| match number % 2 {
            0 => json!({"create_account": {"account_id": name, "initial_balance": number}}),
            _ => json!({"transfer": {"from_account": "nobody", "to_account": name, "amount": number}}),
        })
        .collect();
    let bulk = json!({"bulk": {"atomic": false, "commands": refused}});
    let ask = |connection: &mut Connection, request: u64| {
        connection.ask(&json!({"request": request, "command": bulk, "acknowledged": 0}))
    };
    let mut connection = cluster.nodes[0].connect(Encoding::MessagePack);
    let session = open(&mut connection);
    let answers: Vec<Value> = (1..=BULKS).map(|request| ask(&mut connection, request)).collect();
    let kept = answers.iter().take_while(|answer| answer["ok"].is_object()).count();
    assert!((20..BULKS as usize).contains(&kept), "{kept} of the largest bulks were kept");
    for full in &answers[kept..] {
        assert_eq!((&full["error"]["code"], &full["error"]["outcome"]), (&json!("busy"), &json!("unknown")), "{full}");
    }
    let slot = answers[kept - 1]["slot"].as_u64().unwrap();
    let deposit = json!({"create_account": {"account_id": "a", "initial_balance": 1}});
    assert!(cluster.nodes[1].connect(Encoding::Json).command(deposit)["ok"].is_object(), "others go on");
    wait_until("all nodes have taken a snapshot", 2 * PATIENCE, || {
        cluster.nodes.iter().all(|node| node.status().unwrap()["snapshot_slot"].as_u64().unwrap() >= slot / 2)
    });
    for node in &cluster.nodes {
        let memory = resident_memory(node.pid());
        assert!(memory < before + BESIDES, "{} MB became {}", before / MIB, memory / MIB);
    }
    let backup = cluster.dir.path().join("bank.backup");
    let made =
        program(["backup", "--to"]).arg(&backup).arg("--data-dir").arg(&cluster.nodes[2].config.data_dir).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    cluster.wait_equal();
    for (request, first) in (1..).zip(&answers[..kept]).step_by(7) {
        let mut again = cluster.nodes[request as usize % 3].connect(Encoding::MessagePack);
        again.ask(&json!({"hello": {"version": 2, "session": session}}));
        let again = ask(&mut again, request);
        assert_eq!((&again["replayed"], &again["slot"]), (&json!(true), &first["slot"]));
        assert!(again["ok"] == first["ok"], "bulk {request} is answered otherwise");
    }
}

/// Twenty clients that ask for pages and read nothing.
#[test]
fn answers_that_are_not_read_end_their_connection_with_a_reason() {
    const CLIENTS: usize = 20;
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let accounts: Vec<Value> = (0..1_000)
        .map(|n| json!({"create_account": {"account_id": format!("account-{n:040}"), "initial_balance": 1}}))
        .collect();
    let mut good = node.connect(Encoding::MessagePack);
    assert!(good.command(json!({"bulk": {"atomic": true, "commands": accounts}}))["ok"].is_object());
    let before = resident_memory(node.pid());
    let limit = node.config.limits.max_unread_bytes_node as u64 + CLIENTS as u64 * (16 << 10);
    let mut deaf: Vec<Connection> = (0..CLIENTS).map(|_| node.connect(Encoding::Json)).collect();
    for connection in &mut deaf {
        for request in 1..=600 {
            connection
                .send(&json!({"request": request, "query": {"list_accounts": {"limit": 1_000}}, "read": "local"}));
        }
    }
    // One whose message has no end.
    let mut endless = node.connect(Encoding::Json);
    endless.greet();
    endless.socket.get_mut().write_all(&header(0x81, 1_000)).unwrap();
    endless.socket.get_mut().write_all(b"{").unwrap();
    let began = Instant::now();
    let mut most = before;
    wait_until("those that do not read are closed", 3 * PATIENCE, || {
        most = most.max(resident_memory(node.pid()));
        assert!(good.query(json!({"get_balance": {"account_id": format!("account-{:040}", 7)}}))["ok"].is_object());
        // The good one, the one that asks, and the one whose message has no end.
        node.status().unwrap()["clients"].as_u64().unwrap() <= 3
    });
    eprintln!("closed after {:?}", began.elapsed());
    eprintln!("{} MB became {} MB at most", before / MIB, most / MIB);
    assert!(most < before + limit + BESIDES, "{} MB became {}", before / MIB, most / MIB);
    for connection in &deaf {
        wait_until("the kernel forgets it", PATIENCE, || !is_known_to_the_kernel(node, connection));
    }
    let (_, close) = endless.receive_close();
    let close = close.unwrap();
    assert_eq!((u16::from(close.code), &*close.reason), (1008, "the end of a message does not come"));
}

/// Who reads again in time learns why the connection ends.
#[test]
fn a_client_that_reads_too_slowly_gets_a_close_code() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let mut c = node.connect(Encoding::Json);
    let mut deposits: Vec<Value> = vec![json!({"create_account": {"account_id": "a", "initial_balance": 1}})];
    deposits.extend((1..10_000).map(|_| json!({"deposit": {"account_id": "a", "amount": 1}})));
    // More than may wait: each answer has some 2 MB.
    let bulk = json!({"bulk": {"atomic": false, "commands": deposits}});
    for request in 1..=20 {
        if c.try_send(&json!({"request": request, "command": bulk, "acknowledged": request - 1})).is_err() {
            break;
        }
    }
    let (mut last, mut since) = (0, Instant::now());
    wait_until("nothing more is applied", 2 * PATIENCE, || {
        let transactions = node.status().unwrap()["transactions"].as_u64().unwrap();
        if transactions != last {
            (last, since) = (transactions, Instant::now());
        }
        transactions > 50_000 && since.elapsed() > Duration::from_secs(1)
    });
    let (messages, close) = c.receive_close();
    let close = close.unwrap();
    assert!(messages.len() < 20, "all {} answers came", messages.len());
    assert_eq!((u16::from(close.code), &*close.reason), (1008, "too many answers are not read"));
}

/// Messages that have begun and do not end, whole or in pieces, of many connections.
#[test]
fn messages_without_an_end_are_counted_and_closed() {
    const MESSAGE: usize = 1 << 20;
    const CONNECTIONS: usize = 100;
    let cluster = Cluster::start_with(1, |config| {
        config.limits.max_message_bytes = MESSAGE;
        config.limits.max_unfinished_bytes_per_principal = 8 << 20;
        config.limits.max_unfinished_bytes_node = 16 << 20;
    });
    let node = &cluster.nodes[0];
    let mut good = node.connect(Encoding::Json);
    good.command(json!({"create_account": {"account_id": "a", "initial_balance": 0}}));
    let before = resident_memory(node.pid());
    let mut closed = 0;
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        let mut connection = node.connect(Encoding::Json);
        connection.greet();
        let stream = connection.socket.get_mut();
        let piece = vec![b' '; 100_000];
        let mut sent = Ok(());
        if number % 2 == 0 {
            sent = stream.write_all(&header(0x81, MESSAGE as u64)).and_then(|()| stream.write_all(&piece.repeat(9)));
        } else {
            for fragment in 0..9 {
                let first = if fragment == 0 { 0x01 } else { 0x00 };
                let bytes = [header(first, piece.len() as u64), piece.clone(), ping()].concat();
                sent = sent.and_then(|()| stream.write_all(&bytes));
            }
        }
        if sent.is_err() || number >= 60 {
            // It is told why, unless it was still sending.
            loop {
                match connection.socket.read() {
                    Ok(Message::Close(frame)) => {
                        let frame = frame.unwrap();
                        assert_eq!((u16::from(frame.code), &*frame.reason), (1013, "too many unfinished messages"));
                        closed += 1;
                        break;
                    }
                    Ok(Message::Text(text)) => assert!(text.contains("busy"), "{text}"),
                    Ok(Message::Pong(_)) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => break,
                }
            }
        } else {
            open.push(connection);
        }
        assert!(good.command(json!({"deposit": {"account_id": "a", "amount": 1}}))["ok"].is_object());
    }
    assert!(closed > 0, "nobody was told");
    let memory = resident_memory(node.pid());
    assert!(
        memory < before + 8 * MIB + CONNECTIONS as u64 * (8 << 10) + 40 * MIB,
        "{} MB became {}",
        before / MIB,
        memory / MIB
    );
    drop(open);
    wait_until("they are gone", PATIENCE, || node.status().unwrap()["clients"].as_u64().unwrap() <= 2);
    // Then there is room for others.
    let padding = "x".repeat(MESSAGE - 200);
    let answer = good.command(json!({"deposit": {"account_id": padding, "amount": 1}}));
    assert!(answer["error"]["code"].is_string(), "{answer}");
}

#[test]
fn who_pings_and_never_reads_is_closed() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let before = resident_memory(node.pid());
    let mut c = node.connect(Encoding::Json);
    c.greet();
    let stream = c.socket.get_mut();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let pings = ping().repeat(1_000);
    let began = Instant::now();
    let ended = loop {
        match stream.write(&pings) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => break error,
        }
        assert!(began.elapsed() < 2 * PATIENCE, "it pings on and on");
    };
    assert!(matches!(ended.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{ended}");
    let memory = resident_memory(node.pid());
    assert!(memory < before + 40 * MIB, "{} MB became {}", before / MIB, memory / MIB);
    assert!(client(&node.url(), ["status"]).status.success());
}
