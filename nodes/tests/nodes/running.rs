//! A node and its programs in the hands of people and systems: ports, folders, signals, descriptors, full disks, long paths, what is
//! logged and what is printed.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::principals::{admin, hello, new_token};
use crate::support::wire::{Wire, answer_peer};
use crate::support::{
    Cluster, Connection, Node, PATIENCE, PROGRAM, SharedCluster, client, free_base_port, program, register, signal,
    token_of, wait_for, wait_until,
};
use nix::sys::signal::Signal;
use rabia_bank_messages::client::CLIENT_PATH;
use rabia_bank_messages::codec::{Encoding, encode_opening};
use rabia_bank_messages::peer::{HelloRefused, Opening, RefusalReason};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, WebSocket};

static CLUSTER: SharedCluster = SharedCluster::new();

/// The exit codes of the program.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED_TO_START: i32 = 3;
const REFUSED: i32 = 4;
const NOT_REACHED: i32 = 5;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
}

/// Runs a node that must refuse to start, and hands out what it said.
#[track_caller]
fn refuses(node: &Node) -> String {
    let output = program(["node", "--config"]).arg(&node.config_path).output().unwrap();
    assert_code(&output, REFUSED_TO_START);
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn rewrite(node: &Node, change: impl FnOnce(&mut rabia_bank::config::NodeConfig)) {
    let mut config = node.config.clone();
    change(&mut config);
    fs::write(&node.config_path, config.to_toml()).unwrap();
}

// ----- ports and folders -----

#[test]
fn a_node_whose_port_is_taken_or_whose_address_is_foreign_says_which_and_refuses() {
    let cluster = Cluster::create(3);
    let node = &cluster.nodes[0];
    for (address, key) in [(node.address(), "client_listen"), (node.peer_address(), "peer_listen")] {
        let taken = TcpListener::bind(address).unwrap();
        let said = refuses(node);
        for word in [&address.to_string(), key, "another program has that port"] {
            assert!(said.contains(word), "\"{word}\" is missing in: {said}");
        }
        drop(taken);
    }
    // Of a range that is given to nobody.
    rewrite(node, |config| config.client_listen.set_ip(IpAddr::from([192, 0, 2, 1])));
    let said = refuses(node);
    assert!(said.contains("this machine has no address 192.0.2.1"), "{said}");
    // Nothing is the worse for it.
    rewrite(node, |_| ());
    cluster.started();
}

#[test]
fn a_cluster_with_a_taken_port_says_so_once_and_serves_without_that_node() {
    let temp = tempfile::tempdir().unwrap();
    let base_port = free_base_port(3);
    let _taken = TcpListener::bind(("127.0.0.1", base_port + 1)).unwrap();
    let (out, err) = (temp.path().join("out"), temp.path().join("err"));
    let mut child = program(["cluster", "--base-port", &base_port.to_string(), "--data-dir"])
        .arg(temp.path().join("bank"))
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    wait_until("two of three are ready", PATIENCE, || {
        fs::read_to_string(&out).unwrap().contains("Rabia Bank is ready: 2 of 3 nodes")
    });
    signal(child.id(), Signal::SIGTERM);
    assert!(crate::support::wait_for_end(&mut child, PATIENCE).success());
    let said = fs::read_to_string(&err).unwrap();
    let reason = "node 2 is left alone (exit code 3): can't listen on";
    assert_eq!(said.matches(reason).count(), 1, "{said}");
    assert!(!said.contains("starting it again") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_folder_with_other_things_is_left_alone_and_no_advice_leads_in_a_circle() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("letters"), "dear").unwrap();
    for task in ["cluster", "create"] {
        let output = program([task, "--data-dir"]).arg(temp.path()).output().unwrap();
        assert_code(&output, REFUSED_TO_START);
        let said = text(&output.stderr);
        assert!(said.contains("choose another --data-dir") && !said.contains("rabia-bank create"), "{said}");
    }
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

// ----- what a node says of itself -----

#[test]
fn a_healthy_start_warns_of_nothing() {
    let cluster = Cluster::start(3);
    std::thread::sleep(Duration::from_secs(1));
    for node in &cluster.nodes {
        let log = node.log();
        assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
        assert!(log.contains("connections that this node takes"), "{log}");
    }
}

#[test]
fn a_quorum_that_is_lost_and_back_is_told() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    wait_until("the loss is told", PATIENCE, || cluster.nodes[0].log().contains("no quorum: too few nodes are here"));
    let urls = cluster.urls();
    let output = client(&urls, ["--timeout", "3", "deposit", "a", "1"]);
    assert_code(&output, NOT_REACHED);
    let said = text(&output.stderr);
    assert!(said.contains("no node could serve it") && said.contains("A majority of the nodes must run"), "{said}");
    let output = client(&urls, ["--timeout", "3", "balance", "a"]);
    assert_code(&output, NOT_REACHED);
    assert!(!text(&output.stderr).contains("outcome unknown"), "{}", text(&output.stderr));
    cluster.nodes[1].start();
    wait_until("its end is told", PATIENCE, || cluster.nodes[0].log().contains("a quorum is here again"));
    assert_eq!(cluster.nodes[0].log().matches("no quorum: too few").count(), 1);
}

#[test]
fn signals_that_mean_nothing_are_logged_and_kill_nobody() {
    let mut cluster = Cluster::start(1);
    for (kind, name) in [(Signal::SIGHUP, "SIGHUP"), (Signal::SIGUSR1, "SIGUSR1"), (Signal::SIGUSR2, "SIGUSR2")] {
        signal(cluster.nodes[0].pid(), kind);
        wait_until("the signal is told", PATIENCE, || cluster.nodes[0].log().contains(name));
    }
    assert!(cluster.nodes[0].ended().is_none() && cluster.nodes[0].status().is_some());
    cluster.nodes[0].stop();
}

#[test]
fn a_node_leaves_no_core_and_takes_all_descriptors_that_it_may_have() {
    let mut cluster = Cluster::create(1);
    let command = limited(&cluster.nodes[0], "ulimit -S -n 300");
    cluster.nodes[0].start_as(command);
    wait_until("the node serves", PATIENCE, || cluster.nodes[0].status().is_some());
    let limits = fs::read_to_string(format!("/proc/{}/limits", cluster.nodes[0].pid())).unwrap();
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(of("Max core file size"), ["0", "0"]);
    let files = of("Max open files");
    assert!(files[0] == files[1] && files[0] != "300", "{files:?}");
    let status = cluster.nodes[0].status().unwrap();
    assert_eq!(status["descriptors"].to_string(), files[0]);
    assert!(status["max_clients"].as_u64() > Some(0), "{status}");
}

#[test]
fn too_few_descriptors_are_told() {
    let mut cluster = Cluster::create(1);
    let command = limited(&cluster.nodes[0], "ulimit -n 100");
    cluster.nodes[0].start_as(command);
    assert_eq!(cluster.nodes[0].wait().code(), Some(REFUSED_TO_START));
    assert!(cluster.nodes[0].log().contains("raise the limit (`ulimit -n`)"), "{}", cluster.nodes[0].log());
}

/// A node that is started by a shell with limits of its own.
fn limited(node: &Node, limit: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{limit}; exec \"$0\" \"$@\"")).arg(PROGRAM);
    command.args(["node", "--stop-with-parent", "--config"]).arg(&node.config_path);
    command.env_remove("RUST_LOG");
    command
}

// ----- descriptors and connections -----

/// Idle clients with this token from one address of this machine, until no more are let in. Hands out why the last was turned away.
fn fill(node: &Node, from: [u8; 4], token: &str, at_most: usize) -> (Vec<WebSocket<Wire>>, Option<String>) {
    let mut clients = Vec::new();
    while clients.len() < at_most {
        let mut client =
            open_from(from, node.address()).unwrap_or_else(|error| panic!("after {} clients: {error}", clients.len()));
        client.send(Message::text(hello(token).to_string())).unwrap();
        let answer: Value = serde_json::from_str(client.read().unwrap().to_text().unwrap()).unwrap();
        if answer["welcome"].is_object() {
            clients.push(client);
            continue;
        }
        let Message::Close(Some(close)) = client.read().unwrap() else { panic!("it is not closed after {answer}") };
        assert_eq!(u16::from(close.code), 1013, "{answer}");
        return (clients, answer["error"]["code"].as_str().map(str::to_owned));
    }
    (clients, None)
}

fn open_from(from: [u8; 4], to: SocketAddr) -> Result<WebSocket<Wire>, SocketError> {
    use tokio_tungstenite::tungstenite::handshake::HandshakeError;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tokio_tungstenite::tungstenite::client(format!("ws://{to}{CLIENT_PATH}"), Wire::Plain(stream))
        .map(|(socket, _)| socket)
        .map_err(|error| match error {
            HandshakeError::Failure(error) => error,
            HandshakeError::Interrupted(_) => panic!("no answer to a handshake"),
        })
}

#[test]
fn clients_never_take_the_descriptors_that_peers_stores_and_operators_need() {
    let mut cluster = Cluster::create(3);
    for node in &mut cluster.nodes {
        let command = limited(node, "ulimit -n 256");
        node.start_as(command);
    }
    cluster.wait_ready();
    let most = cluster.nodes[0].status().unwrap()["max_clients"].as_u64().unwrap();
    assert!((50..200).contains(&most), "{most}");
    let tokens = [token_of(cluster.nodes[0].address()).unwrap(), new_token(&cluster, &["other", "--role", "teller"])];
    let mut idle = Vec::new();
    for node in &cluster.nodes {
        for (from, token) in [([127, 0, 0, 1], &tokens[0]), ([127, 0, 0, 2], &tokens[1])] {
            let (clients, turned_away) = fill(node, from, token, 200);
            assert_eq!(turned_away.as_deref(), Some("busy"), "after {} clients of {from:?}", clients.len());
            idle.extend(clients);
        }
    }
    assert!(idle.len() as u64 >= 3 * (most - 8), "{} of {most} clients a node", idle.len());
    // Operators get in, and nobody else.
    let (operators, turned_away) = fill(&cluster.nodes[0], [127, 0, 0, 3], &admin(&cluster), 100);
    assert_eq!((operators.len(), turned_away.as_deref()), (16, Some("busy")));
    // Longer than a link may be silent: all links break, and must come back without a descriptor to spare for clients.
    for victim in [1, 2] {
        cluster.nodes[victim].freeze();
        std::thread::sleep(Duration::from_secs(11));
        cluster.nodes[victim].thaw();
    }
    cluster.nodes[0].kill();
    let command = limited(&cluster.nodes[0], "ulimit -n 256");
    cluster.nodes[0].start_as(command);
    let status = wait_for("all nodes are linked, and say so", 2 * PATIENCE, || {
        let output = cluster.client(["--json", "status"]);
        let states: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let linked = |state: &Value| state["connected"].as_array().is_some_and(|peers| peers.len() == 2);
        (states.len() == 3 && states.iter().all(linked)).then_some(states)
    });
    assert!(status[1]["clients"].as_u64() > Some(most / 2), "{status:?}");
    // A client that is in is served.
    let socket = idle.iter().position(|client| client.get_ref().peer_addr().unwrap() == cluster.nodes[1].address());
    let mut connection =
        Connection::greeted(idle.swap_remove(socket.unwrap()), cluster.nodes[1].address(), Encoding::Json);
    let answer = connection.command(json!({"create_account": {"account_id": "within", "initial_balance": 1}}));
    assert!(answer["ok"].is_object(), "{answer}");
    assert!(cluster.nodes[1].log().contains("a client is turned away"), "{}", cluster.nodes[1].log());
    assert!(!cluster.nodes.iter().any(|node| node.log().contains("Too many open files")));
    // Who leaves makes room.
    drop((idle, operators));
    wait_until("there is room again", PATIENCE, || {
        !fill(&cluster.nodes[1], [127, 0, 0, 3], &tokens[1], 1).0.is_empty()
    });
}

#[test]
fn one_principal_has_no_more_than_its_share_wherever_it_comes_from() {
    let cluster = Cluster::start_with(1, |config| {
        config.limits.max_clients = 40;
        config.limits.max_clients_per_principal = 10;
    });
    let node = &cluster.nodes[0];
    let daily = token_of(node.address()).unwrap();
    let (first, turned_away) = fill(node, [127, 0, 0, 2], &daily, 100);
    assert_eq!((first.len(), turned_away.as_deref()), (10, Some("busy")));
    // From another address it has the same share, and from the same address others have theirs.
    let (second, turned_away) = fill(node, [127, 0, 0, 3], &daily, 100);
    assert_eq!((second.len(), turned_away.as_deref()), (0, Some("busy")));
    let shop = new_token(&cluster, &["shop", "--role", "teller"]);
    let (third, turned_away) = fill(node, [127, 0, 0, 2], &shop, 100);
    assert_eq!((third.len(), turned_away.as_deref()), (10, Some("busy")));
    assert!(node.log().contains("max_clients_per_principal"), "{}", node.log());
    drop(first);
    wait_until("there is room again", PATIENCE, || !fill(node, [127, 0, 0, 3], &daily, 1).0.is_empty());
}

#[test]
fn half_handshakes_shut_nobody_out() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    for address in [node.address(), node.peer_address()] {
        let half: Vec<TcpStream> = (0..1_100).map(|_| TcpStream::connect(address).unwrap()).collect();
        let began = Instant::now();
        let mut honest = node.connect(Encoding::Json);
        assert!(honest.query(json!({"get_status": {}}))["ok"].is_object());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        drop(half);
    }
}

// ----- disks and paths -----

#[test]
fn a_node_in_a_folder_with_a_long_path_can_be_asked_for_a_backup() {
    let temp = tempfile::tempdir().unwrap();
    let data_dir = temp.path().join("long".repeat(40)).join("bank");
    let base_port = free_base_port(1).to_string();
    let output = program(["create", "--nodes", "1", "--base-port", &base_port, "--data-dir"]).arg(&data_dir).output();
    assert_code(&output.unwrap(), 0);
    let config_path = data_dir.join("node-1/node.toml");
    let config = rabia_bank::config::NodeConfig::load(&config_path).unwrap();
    let mut cluster = Cluster { nodes: vec![Node::at(config, config_path, temp.path().join("log"))], dir: temp };
    cluster.nodes[0].start();
    wait_until("the node serves", PATIENCE, || cluster.nodes[0].status().is_some());
    assert_code(&cluster.client(["create-account", "a", "1"]), 0);
    let backup = cluster.dir.path().join("bank.backup");
    let output = program(["backup", "--data-dir"]).arg(data_dir.join("node-1")).arg("--to").arg(&backup).output();
    assert_code(&output.unwrap(), 0);
    assert!(backup.is_file());
    cluster.nodes[0].stop();
}

#[test]
fn a_backup_that_finds_no_room_names_its_file_and_leaves_nothing() {
    let cluster = CLUSTER.get();
    for account in ["room-a", "room-b"] {
        assert_code(&cluster.client(["create-account", account, "1"]), 0);
    }
    let temp = tempfile::tempdir().unwrap();
    let backup = temp.path().join("bank.backup");
    // A limit on the size of files, since not everybody may make a small disk.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", PROGRAM, "backup", "--data-dir"])
        .arg(&cluster.nodes[0].config.data_dir)
        .arg("--to")
        .arg(&backup)
        .output()
        .unwrap();
    assert_code(&output, FAILED);
    let said = text(&output.stderr);
    assert!(said.contains(&format!("can't write {}", backup.display())), "{said}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn a_node_that_dies_again_and_again_says_why_once_and_is_started_ever_more_rarely() {
    let temp = tempfile::tempdir().unwrap();
    let (data_dir, base_port) = (temp.path().join("bank"), free_base_port(1));
    let output = program(["create", "--nodes", "1", "--base-port", &base_port.to_string(), "--data-dir"])
        .arg(&data_dir)
        .output()
        .unwrap();
    assert_code(&output, 0);
    // A limit on the size of files in place of a full disk.
    let err = temp.path().join("err");
    let mut cluster = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 3400; exec \"$0\" \"$@\"", PROGRAM, "cluster", "--data-dir"])
        .arg(&data_dir)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    register(([127, 0, 0, 1], base_port).into(), &data_dir.join("node-1"));
    let url = format!("ws://127.0.0.1:{base_port}");
    let mut load = program(["bench", "--connect", &url, "--yes", "--clients", "2", "--bulk", "1000", "--timeout", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = wait_for("it died three times", PATIENCE, || {
        let said = fs::read_to_string(&err).unwrap();
        (said.matches("for the same reason as before; starting it again in").count() >= 3).then_some(said)
    });
    load.kill().unwrap();
    load.wait().unwrap();
    signal(cluster.id(), Signal::SIGTERM);
    crate::support::wait_for_end(&mut cluster, PATIENCE);
    let reason = format!("died (exit code 1): no space left to write {}", data_dir.join("node-1/log.redb").display());
    assert_eq!(said.matches(&reason).count(), 1, "{said}");
    assert!(said.contains("starting it again in 0.1 s"), "{said}");
}

// ----- what is printed and logged -----

#[test]
fn no_log_at_any_level_has_a_session_key() {
    let mut cluster = Cluster::create(1);
    let mut command = program(["--log", "trace", "node", "--stop-with-parent", "--config"]);
    command.arg(&cluster.nodes[0].config_path);
    cluster.nodes[0].start_as(command);
    wait_until("the node serves", PATIENCE, || cluster.nodes[0].status().is_some());
    let key = "5ec3e7f00d15c0de5ec3e7f00d15c0de";
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut connection = cluster.nodes[0].connect(encoding);
        let welcome = connection.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
        assert!(welcome["welcome"]["session"].is_u64(), "{welcome}");
        connection.command(json!({"create_account": {"account_id": "secret", "initial_balance": 1}}));
        let mut again = cluster.nodes[0].connect(encoding);
        again.ask(&json!({"hello": {"version": 2, "session": {"number": welcome["welcome"]["session"], "key": key}}}));
        again.ask(&json!({"hello": {"version": 2, "open": {"key": format!("{key}!")}}}));
    }
    let log = cluster.nodes[0].log();
    assert!(log.contains("DEBUG") && !log.contains(&key[..8]), "the log has the key");
    // The program for clients draws its own.
    let output = program(["--log", "trace", "client", "--connect", &cluster.urls(), "deposit", "secret", "1"]).output();
    let output = output.unwrap();
    assert_code(&output, 0);
    let log = text(&output.stderr);
    assert!(log.contains("DEBUG") && !log.contains("key\""), "{log}");
}

/// A node that answers every query with this, and every command with a refusal that says it.
fn hostile_node(answer: Value) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let Ok(mut socket) = tokio_tungstenite::tungstenite::accept(stream.unwrap()) else { return };
                while let Ok(Message::Text(text)) = socket.read() {
                    let said: Value = serde_json::from_str(&text).unwrap();
                    let reply = match said.get("request") {
                        Some(request) => {
                            let mut reply = answer.clone();
                            reply["request"] = request.clone();
                            reply
                        }
                        None => json!({"welcome": {
                            "node": 1, "cluster": "00112233445566778899aabbccddeeff", "session": 7, "applied_slot": 1,
                        }}),
                    };
                    if socket.send(Message::text(reply.to_string())).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn what_a_hostile_node_says_does_nothing_to_a_terminal() {
    let attack = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\nerror: forged\r\u{202e}";
    let refusal = json!({"error": {"code": "insufficient_funds", "message": attack, "outcome": "refused"}});
    let account = json!({"account_id": attack, "balance": 1, "created_at": 0, "transaction_count": 0});
    let transaction = json!({
        "transaction_id": 1, "type": "deposit", "to_account": attack, "amount": 1, "to_balance": 1, "timestamp": 0, "slot": 1,
        "hash": "0".repeat(64),
    });
    for (answer, line) in [
        (refusal.clone(), "deposit a 1"),
        (refusal, "balance a"),
        (json!({"slot": 1, "ok": {"account": account}}), "account a"),
        (json!({"slot": 1, "ok": {"accounts": [account], "next": attack}}), "accounts"),
        (json!({"slot": 1, "ok": {"transactions": [transaction]}}), "history"),
    ] {
        let url = format!("ws://{}", hostile_node(answer));
        for json in [false, true] {
            let args = json.then_some("--json").into_iter().chain(["--timeout", "2"]).chain(line.split(' '));
            let output = client(&url, args);
            for stream in [&output.stdout, &output.stderr] {
                let printed = text(stream);
                let harmful = printed.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
                assert_eq!(harmful, None, "{line}: {printed:?}");
                assert!(!printed.lines().any(|line| line.starts_with("error: forged")), "{line}: {printed:?}");
            }
            assert!(!(output.stdout.is_empty() && output.stderr.is_empty()), "{line}");
        }
    }
}

#[test]
fn what_a_peer_says_forges_no_line_of_the_log() {
    let mut cluster = Cluster::create(2);
    let listener = TcpListener::bind(cluster.nodes[1].peer_address()).unwrap();
    let key = cluster.nodes[1].key();
    let message = "you are\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J";
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(mut socket) = answer_peer(stream.unwrap(), &key) else { continue };
            let refused = HelloRefused { reason: RefusalReason::NotYet, message: message.into(), evidence: None };
            // The node may be gone.
            let _ =
                socket.read().and_then(|_| socket.send(Message::binary(encode_opening(&Opening::Refused(refused)))));
            let _ = socket.read();
        }
    });
    cluster.nodes[0].start();
    wait_until("the refusal is told", PATIENCE, || cluster.nodes[0].log().contains("forged"));
    let log = cluster.nodes[0].log();
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
}

#[test]
fn a_slot_that_is_ahead_is_told_as_that() {
    let cluster = CLUSTER.get();
    for json in [false, true] {
        let args = json.then_some("--json").into_iter().chain(["--timeout", "7", "--read", "99999999", "balance", "a"]);
        let output = cluster.client(args);
        assert_code(&output, NOT_REACHED);
        let said = text(if json { &output.stdout } else { &output.stderr });
        assert!(said.contains("not_yet_applied") && !said.contains("majority"), "{said}");
        assert!(json || said.contains("ahead of the cluster"), "{said}");
    }
}

// ----- times, exports, benchmarks -----

#[test]
fn times_mean_the_same_in_the_client_and_in_an_audit() {
    let mut cluster = Cluster::start(1);
    assert_code(&cluster.client(["create-account", "alice", "1"]), 0);
    assert_code(&cluster.client(["create-account", "zero", "0"]), 0);
    for amount in ["1", "2", "3", "4"] {
        std::thread::sleep(Duration::from_millis(5));
        assert_code(&cluster.client(["deposit", "alice", amount]), 0);
    }
    let ids_and_times = |args: &[&str]| -> Vec<(u64, u64)> {
        let output = cluster.client(["--json", "history"].into_iter().chain(args.iter().copied()));
        assert_code(&output, 0);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = answer["ok"]["transactions"].as_array().unwrap().iter().rev();
        all.map(|t| (t["transaction_id"].as_u64().unwrap(), t["timestamp"].as_u64().unwrap())).collect()
    };
    let all = ids_and_times(&[]);
    let (from, to) = (all[1].1.to_string(), all[3].1.to_string());
    let day =
        humantime::format_rfc3339_seconds(std::time::SystemTime::now() + Duration::from_secs(172_800)).to_string();
    let day = &day[..10];
    let ranges: [&[&str]; 4] =
        [&["--from", &from, "--to", &to], &["--from", &to], &["--from", "1970-01-02", "--to", day], &["--from", day]];
    let asked: Vec<Vec<(u64, u64)>> = ranges.iter().map(|range| ids_and_times(range)).collect();
    assert_eq!(asked[0], all[1..3], "from is inclusive, to is not");
    assert_eq!((asked[1].len(), asked[2].len(), asked[3].len()), (3, 6, 0));
    assert_code(&cluster.client(["history", "--to", "yesterday"]), USAGE);
    cluster.nodes[0].stop();
    let export = |args: &[&str]| {
        program(["audit", "export", "--data-dir"]).arg(&cluster.nodes[0].config.data_dir).args(args).output().unwrap()
    };
    for (range, asked) in ranges.iter().zip(asked) {
        let output = export(&[range, &["--format", "json"][..]].concat());
        assert_code(&output, 0);
        let exported: Vec<u64> = text(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["transaction_id"].as_u64().unwrap())
            .collect();
        assert_eq!(exported, asked.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{range:?}");
    }
    // Of an account that was only opened there is that; one that is not there is told.
    let output = export(&["--account", "zero"]);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout).lines().count(), 2);
    let output = export(&["--account", "nobody"]);
    assert_code(&output, REFUSED);
    assert!(output.stdout.is_empty() && text(&output.stderr).contains("account_not_found"), "{output:?}");
}

#[test]
fn a_benchmark_makes_a_cluster_of_its_own_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let bench = |dir: &Path| {
        program(["bench", "--json", "--clients", "2", "--accounts", "20", "--duration", "0.5", "--dir"])
            .arg(dir)
            // Not the nodes of whoever works here.
            .env("RABIA_BANK_CONNECT", "ws://127.0.0.1:1")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = bench(temp.path());
    assert_code(&output, 0);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(result["books_balance"] == true && result["acknowledged"].as_u64() > Some(0), "{result}");
    assert_eq!(result["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "something was left behind");
    let output = bench(&temp.path().join("not-there"));
    assert_code(&output, FAILED);
    assert!(text(&output.stderr).contains("not-there"), "{}", text(&output.stderr));
}
