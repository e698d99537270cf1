//! Who gets in, and what they may do, with the real program: tokens, principals, revocation, lost tokens, restored clusters.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rabia_bank::config::NodeConfig;
use rabia_bank::create::NewCluster;
use rabia_bank::embed::{Admin, BankCalls, Embedded, Reach};
use rabia_bank::tokens::{admin_token, client_token};
use rabia_bank_messages::bank::ErrorCode;
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::principals::{administer, done, folder, hello, new_token};
use crate::support::{Cluster, Connection, Node, PATIENCE, free_base_port, open_socket, program, wait_until};

pub fn connect(node: &Node, token: &str) -> Connection {
    let mut connection = node.connect(Encoding::Json);
    let welcome = connection.ask(&hello(token));
    assert!(welcome["welcome"]["principal"].is_string(), "{welcome}");
    connection
}

pub fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn nothing_is_served_before_a_token() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    for (path, first) in [
        ("/v1/client", json!({"request": 1, "query": {"get_status": {}}})),
        ("/v1/client", json!({"request": 1, "command": {"create_account": {"account_id": "a", "initial_balance": 1}}})),
        ("/v1/client", json!({"request": 1, "command": {"revoke_token": {"token_id": "0123456789abcdef"}}})),
        ("/v1/client", json!({"request": 1, "subscribe": {}})),
        ("/v1/client", json!({"goodbye": {}})),
        ("/v1/client", hello("rb_0123456789abcdefAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")),
        ("/v1/client", json!({"hello": {"version": 2}})),
        ("/v1/status", json!({"request": 1, "query": {"get_status": {}}})),
        ("/v1/status", json!({"hello": {"version": 2}})),
    ] {
        let mut socket = open_socket(node.address(), path, &[]).unwrap();
        socket.send(Message::text(first.to_string())).unwrap();
        let Ok(Message::Text(text)) = socket.read() else { panic!("no answer to {first}") };
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(code(&answer), "not_authorised", "{path} {first}");
        if path == "/v1/client" {
            let Ok(Message::Close(Some(close))) = socket.read() else { panic!("{first}: it is not closed") };
            assert_eq!((u16::from(close.code), &*close.reason), (1008, "not_authorised"));
        }
    }
    // Who says nothing is closed, soon.
    let mut silent = node.connect(Encoding::Json);
    let began = Instant::now();
    let (_, close) = silent.receive_close();
    assert_eq!(close.map(|close| u16::from(close.code)), Some(1008));
    assert!((4..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn a_revoked_token_ends_its_connections_on_all_nodes_within_a_second() {
    let cluster = Cluster::start(3);
    let token =
        new_token(&cluster, &["clerk", "--role", "teller", "--role", "auditor", "--debit", "*", "--credit", "*"]);
    let mut daily = cluster.nodes[0].connect(Encoding::Json);
    for account in ["a", "b"] {
        daily.command(json!({"create_account": {"account_id": account, "initial_balance": 1_000_000}}));
    }
    let mut open: Vec<Connection> = cluster.nodes.iter().map(|node| connect(node, &token)).collect();
    // One is in the middle of things.
    for request in 1..=50 {
        let transfer = json!({"transfer": {"from_account": "a", "to_account": "b", "amount": 1}});
        open[0].send(&json!({"request": request, "command": transfer}));
    }
    let admin = fs::read_to_string(admin_token(folder(&cluster.nodes[0]))).unwrap();
    let mut administrator = connect(&cluster.nodes[1], admin.trim());
    let revoke = json!({"revoke_token": {"token_id": &token[3..19]}});
    let revoked = administrator.command(revoke);
    assert!(revoked["ok"]["number"].is_u64(), "{revoked}");
    let began = Instant::now();
    for connection in &mut open {
        let (_, close) = connection.receive_close();
        let close = close.unwrap();
        assert_eq!((u16::from(close.code), &*close.reason), (1008, "not_authorised"));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // No transaction of it stands behind the revocation.
    let history = daily.query(json!({"get_transaction_history": {"limit": 1_000}}));
    let transactions = history["ok"]["transactions"].as_array().unwrap();
    let revocation =
        transactions.iter().find(|one| one["act"].as_str().is_some_and(|act| act.contains("revoke"))).unwrap();
    let clerks: Vec<u64> = transactions
        .iter()
        .filter(|one| one["principal"] == 4)
        .map(|one| one["transaction_id"].as_u64().unwrap())
        .collect();
    assert!(clerks.iter().all(|id| *id < revocation["transaction_id"].as_u64().unwrap()), "{clerks:?}");
    assert_eq!(code(&cluster.nodes[2].connect(Encoding::Json).ask(&hello(&token))), "not_authorised");
    cluster.wait_equal();
}

#[test]
fn a_node_that_hears_of_no_revocation_soon_answers_auditors_and_operators_alone() {
    let mut cluster = Cluster::start(3);
    let token = new_token(&cluster, &["shop", "--role", "reader", "--read", "a"]);
    let mut daily = cluster.nodes[0].connect(Encoding::Json);
    daily.command(json!({"create_account": {"account_id": "a", "initial_balance": 5}}));
    cluster.wait_equal();
    let mut shop = connect(&cluster.nodes[0], &token);
    let balance = json!({"get_balance": {"account_id": "a"}});
    cluster.nodes[1..].iter_mut().for_each(Node::kill);
    let began = Instant::now();
    assert_eq!(shop.query_at(balance.clone(), json!("local"))["ok"]["balance"], 5);
    wait_until("the reader is refused", PATIENCE + Duration::from_secs(70), || {
        let answer = shop.query_at(balance.clone(), json!("local"));
        std::thread::sleep(Duration::from_millis(200));
        answer["error"]["code"] == "no_quorum"
    });
    assert!(began.elapsed() > Duration::from_secs(58), "{:?}", began.elapsed());
    let request = shop.number();
    assert_eq!(
        code(&shop.ask(&json!({"request": request, "subscribe": {"account_id": "a"}, "read": "local"}))),
        "no_quorum"
    );
    assert_eq!(daily.query_at(balance.clone(), json!("local"))["ok"]["balance"], 5);
    cluster.nodes[1].start();
    wait_until("the reader is answered again", PATIENCE, || {
        shop.query_at(balance.clone(), json!("local"))["ok"]["balance"] == 5
    });
}

#[test]
fn principals_do_and_see_what_they_may() {
    let cluster = Cluster::start(3);
    let token = new_token(
        &cluster,
        &[
            "shop",
            "--role",
            "teller",
            "--role",
            "reader",
            "--read",
            "shop:",
            "--debit",
            "shop:",
            "--credit",
            "*",
            "--per-transaction",
            "500",
            "--per-day",
            "600",
        ],
    );
    let mut daily = cluster.nodes[0].connect(Encoding::Json);
    for account in ["shop", "shop:till", "alice"] {
        daily.command(json!({"create_account": {"account_id": account, "initial_balance": 1_000}}));
    }
    daily.command(json!({"transfer": {"from_account": "alice", "to_account": "shop:till", "amount": 100}}));
    let key = "0123456789abcdef0123456789abcdef";
    let mut shop = cluster.nodes[2].connect(Encoding::Json);
    let welcome = shop.ask(&json!({"hello": {"version": 2, "token": token, "open": {"key": key}}}));
    let session = json!({"number": welcome["welcome"]["session"], "key": key});
    for query in [
        json!({"get_balance": {"account_id": "alice"}}),
        json!({"get_account": {"account_id": "shop"}}),
        json!({"list_accounts": {}}),
        json!({"get_transaction_history": {}}),
        json!({"get_transaction": {"transaction_id": 3}}),
        json!({"get_statistics": {}}),
        json!({"list_principals": {}}),
        json!({"get_status": {}}),
    ] {
        assert_eq!(code(&shop.query(query.clone())), "not_authorised", "{query}");
    }
    for command in [
        json!({"transfer": {"from_account": "shop", "to_account": "shop:till", "amount": 1}}),
        json!({"transfer": {"from_account": "alice", "to_account": "shop:till", "amount": 1}}),
        json!({"deposit": {"account_id": "shop:till", "amount": 1}}),
        json!({"create_account": {"account_id": "shop:new", "initial_balance": 0}}),
        json!({"put_principal": {"principal": "shop", "roles": ["admin"]}}),
    ] {
        assert_eq!(code(&shop.command(command.clone())), "not_authorised", "{command}");
    }
    let pay = |amount: u64| json!({"transfer": {"from_account": "shop:till", "to_account": "alice", "amount": amount}});
    assert_eq!(code(&shop.command(pay(501))), "limit_exceeded");
    // Of what it moves it sees its own side, here, in the history and in a feed.
    let paid = shop.command(pay(500));
    let mine = &paid["ok"]["transaction"];
    assert_eq!((&mine["from_balance"], mine.get("to_account"), mine.get("to_balance")), (&json!(600), None, None));
    assert_eq!(mine["to_hash"].as_str().map(str::len), Some(64), "{mine}");
    assert_eq!(code(&shop.command(pay(101))), "limit_exceeded");
    let history = shop.query(json!({"get_transaction_history": {"account_id": "shop:till"}}));
    assert_eq!(history["ok"]["transactions"][0], *mine);
    let seen = history["ok"]["transactions"].to_string();
    assert!(!seen.contains("alice"), "{seen}");
    let request = shop.number();
    shop.send(&json!({"request": request, "subscribe": {"account_id": "shop:till", "from": 1}}));
    let fed: Vec<Value> = std::iter::repeat_with(|| shop.receive())
        .filter(|message| message.get("transaction").is_some())
        .take(3)
        .collect();
    assert_eq!(fed[2]["transaction"], *mine);
    // A bulk says it for each of its commands.
    let bulk = json!({"bulk": {"atomic": false, "commands": [
        pay(1), {"deposit": {"account_id": "shop:till", "amount": 1}}
    ]}});
    let results = shop.command(bulk);
    assert!(results["ok"]["results"][0]["ok"].is_object(), "{results}");
    assert_eq!(results["ok"]["results"][1]["error"]["code"], "not_authorised");
    // Sessions are their principals' alone.
    let mut other = cluster.nodes[1].connect(Encoding::Json);
    other.greet();
    let mut thief = cluster.nodes[0].connect(Encoding::Json);
    thief.ask(&json!({"hello": {"version": 2, "session": session}}));
    let stolen = thief.ask(&json!({"request": paid["request"], "command": pay(500)}));
    assert_eq!((code(&stolen), &stolen["error"]["outcome"]), ("not_authorised", &json!("unknown")));
    let listed = other.query(json!({"list_principals": {}}));
    let names: Vec<&str> =
        listed["ok"]["principals"].as_array().unwrap().iter().map(|one| one["principal"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "daily", "host", "shop"]);
    assert_eq!(listed["ok"]["tokens"].as_array().unwrap().len(), 3);
    cluster.wait_equal();
}

#[test]
fn a_lost_administrators_token_is_answered_by_the_owner_of_a_folder() {
    let cluster = Cluster::start(3);
    let dir = folder(&cluster.nodes[0]).to_owned();
    let urls = cluster.urls();
    fs::remove_file(admin_token(&dir)).unwrap();
    let new = dir.join("new-token");
    let through = |principal: &str, to: &Path| {
        program(["token", "create", principal, "--through"])
            .arg(dir.join("node-2"))
            .arg("--to")
            .arg(to)
            .output()
            .unwrap()
    };
    let refused = through("daily", &dir.join("other"));
    assert!(!refused.status.success() && !dir.join("other").exists());
    let made = through("admin", &new);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    let tokens = done(&administer(&urls, &new, &["token", "list"]));
    assert_eq!(tokens.len(), 3, "{tokens:?}");
    assert!(!String::from_utf8_lossy(&made.stdout).contains("rb_"), "it is in the file");
    // The history says who did it.
    let mut daily = cluster.nodes[0].connect(Encoding::Json);
    let record = daily.query(json!({"get_transaction": {"transaction_id": 1}}))["ok"]["transaction"].clone();
    assert_eq!((&record["type"], &record["principal"]), (&json!("admin"), &json!(0)));
    assert!(record["act"].as_str().unwrap().starts_with(r#"{"by_owner_of_node":2,"put_token""#), "{record}");
    // Nobody but an administrator administers.
    let daily = administer(&urls, &client_token(&dir), &["token", "create", "daily"]);
    assert_eq!(daily.status.code(), Some(4), "{daily:?}");
}

#[test]
fn a_restored_cluster_knows_no_token_of_the_old_one_unless_told_to() {
    let mut cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let (old_daily, old_admin) = {
        let read = |path| fs::read_to_string(path).unwrap().trim().to_owned();
        (read(client_token(folder(node))), read(admin_token(folder(node))))
    };
    let mut daily = node.connect(Encoding::Json);
    daily.command(json!({"create_account": {"account_id": "a", "initial_balance": 5}}));
    let file = cluster.dir.path().join("backup");
    let taken = program(["backup", "--data-dir"]).arg(&node.config.data_dir).arg("--to").arg(&file).output().unwrap();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let bytes = fs::read(&file).unwrap();
    for secret in [&old_daily, &old_admin] {
        assert!(!bytes.windows(20).any(|part| part == &secret.as_bytes()[19..39]), "a token is in the backup");
    }
    cluster.nodes[0].stop();
    for keep in [false, true] {
        let restored = cluster.dir.path().join(format!("restored-{keep}"));
        let port = free_base_port(1).to_string();
        let mut restore = program(["restore", "--nodes", "1", "--base-port", &port, "--data-dir"]);
        restore.arg(&restored).arg(&file);
        if keep {
            restore.arg("--keep-tokens");
        }
        let output = restore.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let config_path = restored.join("node-1/node.toml");
        let config = NodeConfig::load(&config_path).unwrap();
        let mut node = Node::at(config, config_path, cluster.dir.path().join(format!("log-{keep}")));
        node.start();
        wait_until("the restored node serves", PATIENCE, || node.status().is_some());
        let new_admin = fs::read_to_string(admin_token(&restored)).unwrap().trim().to_owned();
        assert_ne!(new_admin, old_admin);
        connect(&node, &new_admin);
        for old in [&old_daily, &old_admin] {
            let answer = node.connect(Encoding::Json).ask(&hello(old));
            assert_eq!(answer["welcome"].is_object(), keep, "{answer}");
        }
        let mut daily = node.connect(Encoding::Json);
        assert_eq!(daily.query(json!({"get_balance": {"account_id": "a"}}))["ok"]["balance"], 5);
        node.kill();
    }
}

/// Files are 0600, folders 0700: those that were made first, and those that a running node makes.
#[test]
fn files_and_folders_are_for_their_owner_alone() {
    fn look(path: &Path) -> usize {
        let about = fs::symlink_metadata(path).unwrap();
        let mode = about.permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        let inside = if about.is_dir() { fs::read_dir(path).unwrap().collect() } else { Vec::new() };
        1 + inside.into_iter().map(|entry| look(&entry.unwrap().path())).sum::<usize>()
    }
    let mut cluster = Cluster::create_as(1, &["--tls-self-signed"], |_| ());
    let folder = cluster.dir.path().join("bank");
    assert!(look(&folder) > 6);
    cluster.nodes[0].start();
    wait_until("the node serves", PATIENCE, || cluster.nodes[0].status().is_some());
    let file = cluster.dir.path().join("backup");
    let data_dir = &cluster.nodes[0].config.data_dir;
    let back_up = || program(["backup", "--data-dir"]).arg(data_dir).arg("--to").arg(&file).output().unwrap();
    let empty = back_up();
    assert!(String::from_utf8_lossy(&empty.stderr).contains("there is nothing to back up yet"), "{empty:?}");
    let mut daily = cluster.nodes[0].connect(Encoding::Json);
    daily.command(json!({"create_account": {"account_id": "a", "initial_balance": 5}}));
    let taken = back_up();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert!(look(&folder) > 9 && look(&file) == 1);
    cluster.nodes[0].stop();
    let restored = cluster.dir.path().join("restored");
    let port = free_base_port(3).to_string();
    let output = program(["restore", "--tls-self-signed", "--base-port", &port, "--data-dir"])
        .arg(&restored)
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(look(&restored) > 15 && restored.join("tls.pem").is_file());
}

#[test]
fn no_log_has_a_secret_at_any_level() {
    let mut cluster = Cluster::create(1);
    let node = &mut cluster.nodes[0];
    let mut command = program(["--log", "trace", "node", "--stop-with-parent", "--config"]);
    command.arg(&node.config_path);
    node.start_as(command);
    wait_until("the node serves", PATIENCE, || cluster.nodes[0].status().is_some());
    let node = &cluster.nodes[0];
    let token = new_token(&cluster, &["clerk", "--role", "auditor"]);
    let key = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
    let mut connection = node.connect(Encoding::Json);
    connection.ask(&json!({"hello": {"version": 2, "token": token, "open": {"key": key}}}));
    connection.query(json!({"get_balance": {"account_id": "none"}}));
    // Wrong ones, too.
    for wrong in
        ["rb_0123456789abcdefWRONGSECRETWRONGSECRETWRONGSECRETWRONGSECRE", "not even a token, but a SECRETPASSWORD"]
    {
        let answer = node.connect(Encoding::Json).ask(&hello(wrong));
        assert!(!answer.to_string().contains("SECRET"), "{answer}");
    }
    let read = |path| fs::read_to_string(path).unwrap();
    let (daily, admin) = (read(client_token(folder(node))), read(admin_token(folder(node))));
    let secret = node.config.founding.secret.to_string();
    let log = node.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "nothing is logged at trace");
    for secret in [&token[19..], key, "SECRET", daily.trim(), admin.trim(), &secret] {
        let place = log.find(secret);
        assert_eq!(place, None, "{:?}", place.map(|at| &log[at.saturating_sub(200)..at]));
    }
    let status = node.status().unwrap().to_string();
    assert!([&token[19..], &secret].iter().all(|secret| !status.contains(*secret)));
}

#[test]
fn a_host_may_do_everything_and_speaks_for_others_by_their_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewCluster { base_port: free_base_port(1), ..NewCluster::new(dir.path().join("data"), 1) };
    let config = rabia_bank::create::create(&new).unwrap().remove(0);
    let node = Embedded::start_on_thread_with(config, Reach::alone()).unwrap();
    actix::System::new().block_on(async {
        let host = node.session().await.unwrap();
        host.create_account("a", 10).await.unwrap();
        let put =
            serde_json::from_value(json!({"principal": "reader", "roles": ["reader"], "scopes": {"read": ["a"]}}));
        host.administer(Admin::PutPrincipal(put.unwrap())).await.unwrap();
        let token = rabia_bank::tokens::draw();
        let put = rabia_bank::tokens::put(&token, "reader".parse().unwrap(), 4_000_000_000_000);
        // Longer than ten years from now.
        let refused = host.administer(Admin::PutToken(put.clone())).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidExpiry);
        let put = rabia_bank_messages::principal::PutToken { expires_at: 2_000_000_000_000, ..put };
        host.administer(Admin::PutToken(put)).await.unwrap();
        let reader = node.session_as(&token).await.unwrap().unwrap();
        let read = rabia_bank::bank::ReadLevel::Linearizable;
        assert_eq!(reader.balance("a", read).await.unwrap().value, 10);
        assert_eq!(reader.deposit("a", 1).await.unwrap_err().code, ErrorCode::NotAuthorised);
        assert_eq!(reader.balance("b", read).await.unwrap_err().code, ErrorCode::NotAuthorised);
        let id = token.id().unwrap();
        host.administer(Admin::RevokeToken { token_id: id }).await.unwrap();
        assert_eq!(reader.balance("a", read).await.unwrap_err().code, ErrorCode::NotAuthorised);
        assert!(node.session_as(&token).await.unwrap().is_none());
        node.stop().await.unwrap();
    });
}
