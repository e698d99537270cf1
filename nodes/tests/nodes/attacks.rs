//! What somebody does with a key, a token or a page that is not theirs, on three processes and on three nodes inside a program. The
//! page "Security" lists all attacks, and for each the test that makes it.
//!
//! Beside each attack an honest client goes on, and all nodes have the same books afterwards.

use std::io::Write;
use std::time::{Duration, Instant};

use rabia_bank::member_key::MemberKey;
use rabia_bank::tokens::admin_token;
use rabia_bank_messages::codec::{Encoding, encode_message, encode_opening, start_frame};
use rabia_bank_messages::peer::{Hello, Opening};
use rabia_bank_simulator::nonsense::{Hearer, made_up};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::hostile_peer::hello_of_first;
use crate::member_keys::recording;
use crate::principals::{code, connect};
use crate::support::principals::{folder, hello, new_token};
use crate::support::wire::{PEER_PATH, connect as dial, hello_of_tls_1_2, open_peer, read_all};
use crate::support::{Cluster, Connection, Node, PATIENCE, SharedCluster, open_socket, token_of};

static PROCESSES: SharedCluster = SharedCluster::new();
static INSIDE: SharedCluster = SharedCluster::started_by(|| Cluster::inside(3));

/// Makes a test of each attack on either kind of cluster.
macro_rules! attacks {
    ($($attack:ident),+ $(,)?) => {
        mod processes {
            $(#[test]
            fn $attack() {
                super::beside_an_honest_client(&super::PROCESSES.get(), super::$attack);
            })+
        }

        mod inside_a_program {
            $(#[test]
            fn $attack() {
                super::beside_an_honest_client(&super::INSIDE.get(), super::$attack);
            })+
        }
    };
}

attacks!(
    a_guessed_token_opens_nothing,
    a_stolen_reader_token_moves_nothing,
    a_revoked_token_in_flight_does_nothing_more,
    a_stolen_session_key_is_worth_nothing_without_the_token,
    a_page_of_a_foreign_origin_gets_nothing_even_with_a_token,
    a_scope_ends_at_its_border,
    nobody_gives_themselves_more_rights,
    who_has_no_members_key_gets_no_word_in,
);

/// What it moved is what it has, before and after.
fn beside_an_honest_client(cluster: &Cluster, attack: fn(&Cluster)) {
    let account = name("honest");
    let mut honest = cluster.nodes[2].connect(Encoding::Json);
    honest.command(json!({"create_account": {"account_id": account, "initial_balance": 100}}));
    attack(cluster);
    let paid = honest.command(json!({"withdraw": {"account_id": account, "amount": 1}}));
    assert_eq!(paid["ok"]["transaction"]["from_balance"], 99, "{paid}");
    assert!(cluster.nodes.iter().all(Node::is_alive));
}

/// A name that no other test has.
fn name(kind: &str) -> String {
    format!("{kind}-{:x}", fastrand::u64(..))
}

fn daily(cluster: &Cluster, accounts: &[&str]) -> Connection {
    let mut daily = cluster.nodes[0].connect(Encoding::Json);
    for account in accounts {
        let made = daily.command(json!({"create_account": {"account_id": account, "initial_balance": 1_000}}));
        assert!(made["ok"].is_object(), "{made}");
    }
    daily
}

fn balance(connection: &mut Connection, account: &str) -> Value {
    connection.query(json!({"get_balance": {"account_id": account}}))["ok"]["balance"].clone()
}

fn administrator(cluster: &Cluster) -> Connection {
    let token = std::fs::read_to_string(admin_token(folder(&cluster.nodes[0]))).unwrap();
    connect(&cluster.nodes[1], token.trim())
}

fn a_guessed_token_opens_nothing(cluster: &Cluster) {
    let right = token_of(cluster.nodes[0].address()).unwrap();
    let (id, secret) = right.split_at(19);
    let guesses = [
        format!("{id}{}", secret.chars().rev().collect::<String>()),
        id.to_owned(),
        format!("{id}{}", &secret[..42]),
        format!("{right} "),
        right.to_uppercase(),
        String::new(),
        "x".repeat(8_000),
        // Longer than a hello may be.
        "x".repeat(100_000),
    ];
    for guess in guesses {
        for node in &cluster.nodes {
            let mut connection = node.connect(Encoding::Json);
            let answer = connection.ask(&hello(&guess));
            let (_, close) = connection.receive_close();
            let expected = if guess.len() > 8_192 { ("too_large", 1009) } else { ("not_authorised", 1008) };
            let close = close.map(|close| u16::from(close.code));
            assert_eq!((code(&answer), close), (expected.0, Some(expected.1)), "{answer}");
        }
    }
}

fn a_stolen_reader_token_moves_nothing(cluster: &Cluster) {
    let (own, other) = (name("till"), name("other"));
    let mut daily = daily(cluster, &[&own, &other]);
    let token = new_token(cluster, &[&name("reader"), "--role", "reader", "--read", &own]);
    let mut thief = connect(&cluster.nodes[1], &token);
    assert_eq!(balance(&mut thief, &own), 1_000);
    let refused = [
        json!({"transfer": {"from_account": own, "to_account": other, "amount": 1}}),
        json!({"withdraw": {"account_id": own, "amount": 1}}),
        json!({"deposit": {"account_id": own, "amount": 1}}),
        json!({"create_account": {"account_id": name("new"), "initial_balance": 0}}),
        json!({"bulk": {"atomic": true, "commands": [{"withdraw": {"account_id": own, "amount": 1}}]}}),
    ];
    for command in refused {
        let answer = thief.command(command);
        let of_one = &answer["ok"]["results"][0]["error"]["code"];
        assert!(of_one == "not_authorised" || code(&answer) == "not_authorised", "{answer}");
    }
    for query in [
        json!({"get_balance": {"account_id": other}}),
        json!({"get_transaction_history": {}}),
        json!({"list_accounts": {}}),
        json!({"list_principals": {}}),
        json!({"get_statistics": {}}),
    ] {
        assert_eq!(code(&thief.query(query)), "not_authorised");
    }
    assert_eq!((balance(&mut daily, &own), balance(&mut daily, &other)), (json!(1_000), json!(1_000)));
}

fn a_revoked_token_in_flight_does_nothing_more(cluster: &Cluster) {
    let (from, to) = (name("from"), name("to"));
    let mut daily = daily(cluster, &[&from, &to]);
    let put = [&*name("clerk"), "--role", "teller", "--role", "reader", "--debit", &from, "--credit", &to];
    let token = new_token(cluster, &put);
    let mut clerks: Vec<Connection> = cluster.nodes.iter().map(|node| connect(node, &token)).collect();
    for request in 1..=200 {
        for clerk in &mut clerks {
            let pay = json!({"transfer": {"from_account": from, "to_account": to, "amount": 1}});
            clerk.send(&json!({"request": request, "command": pay}));
        }
    }
    let revoked = administrator(cluster).command(json!({"revoke_token": {"token_id": &token[3..19]}}));
    assert!(revoked["ok"].is_object(), "{revoked}");
    let began = Instant::now();
    for clerk in &mut clerks {
        let (_, close) = clerk.receive_close();
        assert_eq!(
            close.map(|close| (u16::from(close.code), close.reason.to_string())),
            Some((1008, "not_authorised".into()))
        );
    }
    // Behind all that was answered before. `principals` looks at the second that this may take.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Nothing comes behind the record of the revocation.
    let slot = revoked["slot"].as_u64().unwrap();
    let history = daily.query(json!({"get_transaction_history": {"account_id": from, "limit": 1_000}}));
    let slots = history["ok"]["transactions"].as_array().unwrap().iter().map(|paid| paid["slot"].as_u64().unwrap());
    assert!(slots.clone().all(|paid| paid <= slot), "{slot}: {:?}", slots.collect::<Vec<_>>());
}

fn a_stolen_session_key_is_worth_nothing_without_the_token(cluster: &Cluster) {
    let account = name("own");
    let mut owner = daily(cluster, &[]);
    let key = format!("{:032x}", fastrand::u128(..));
    let mut first = cluster.nodes[0].connect(Encoding::Json);
    let welcome = first.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
    let made = first.command(json!({"create_account": {"account_id": account, "initial_balance": 5}}));
    assert!(made["ok"].is_object(), "{made}");
    let token = new_token(cluster, &[&name("thief"), "--role", "manager", "--credit", "*"]);
    let session = json!({"number": welcome["welcome"]["session"], "key": key});
    for attempt in [json!({"session": session}), json!({"open": {"key": key}})] {
        let mut said = hello(&token);
        said["hello"].as_object_mut().unwrap().extend(attempt.as_object().unwrap().clone());
        let mut thief = cluster.nodes[1].connect(Encoding::Json);
        let greeted = thief.ask(&said);
        if greeted.get("error").is_some() {
            assert_eq!(code(&greeted), "not_authorised", "{greeted}");
            continue;
        }
        let stolen = thief.command(json!({"create_account": {"account_id": account, "initial_balance": 5}}));
        assert_eq!(code(&stolen), "not_authorised", "{stolen}");
        assert!(stolen["replayed"] != true && stolen.get("ok").is_none(), "{stolen}");
    }
    assert_eq!(balance(&mut owner, &account), 5);
}

fn a_page_of_a_foreign_origin_gets_nothing_even_with_a_token(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    let token = token_of(node.address()).unwrap();
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        let mut socket = open_socket(node.address(), "/v1/client", &[("origin", origin)]).unwrap();
        // It may be closed before this arrives.
        let _ = socket.send(Message::text(hello(&token).to_string()));
        let Ok(Message::Close(Some(close))) = socket.read() else { panic!("{origin}: no close frame") };
        assert_eq!(u16::from(close.code), 1008, "{origin}");
    }
}

fn a_scope_ends_at_its_border(cluster: &Cluster) {
    let shop = name("shop");
    let [colon, till, longer] = [":", ":till", "s"].map(|end| format!("{shop}{end}"));
    let mut daily = daily(cluster, &[&shop, &colon, &till, &longer]);
    let prefix = format!("{shop}:");
    let roles = ["--role", "reader", "--role", "teller", "--credit", "*"];
    let put = |name: &str, scope: &str| {
        let scoped = [name, "--read", scope, "--debit", scope];
        connect(&cluster.nodes[1], &new_token(cluster, &[&scoped[..], &roles].concat()))
    };
    let (mut of_prefix, mut of_one) = (put(&name("prefix"), &prefix), put(&name("one"), &shop));
    let may = |connection: &mut Connection, account: &str| {
        let reads = connection.query(json!({"get_balance": {"account_id": account}}));
        let to = if account == till { &colon } else { &till };
        let pays = connection.command(json!({"transfer": {"from_account": account, "to_account": to, "amount": 1}}));
        assert_eq!(reads["ok"].is_object(), pays["ok"].is_object(), "{reads} {pays}");
        reads["ok"].is_object()
    };
    let all = [&shop, &colon, &till, &longer];
    assert_eq!(all.map(|account| may(&mut of_prefix, account)), [false, true, true, false]);
    assert_eq!(all.map(|account| may(&mut of_one, account)), [true, false, false, false]);
    assert_eq!(balance(&mut daily, &longer), 1_000);
}

fn nobody_gives_themselves_more_rights(cluster: &Cluster) {
    let clerk = name("clerk");
    let all = ["--role", "teller", "--role", "minter", "--role", "manager", "--role", "auditor", "--role", "operator"];
    let token = new_token(cluster, &[&[&*clerk][..], &all].concat());
    let mut clerk_speaks = connect(&cluster.nodes[0], &token);
    let mut admin = administrator(cluster);
    let more = |principal: &str| json!({"put_principal": {"principal": principal, "roles": ["admin", "minter"], "scopes": {"credit": ["*"]}}});
    let token_for = |principal: &str| json!({"put_token": {"principal": principal, "token_id": "00000000000000aa", "token_hash": "00".repeat(32), "expires_at": 2_000_000_000_000u64}});
    for command in
        [more(&clerk), token_for("admin"), token_for(&clerk), json!({"remove_principal": {"principal": "admin"}})]
    {
        assert_eq!(code(&clerk_speaks.command(command.clone())), "not_authorised", "{command}");
    }
    for command in [more("admin"), json!({"remove_principal": {"principal": "admin"}}), token_for("host")] {
        assert_eq!(code(&admin.command(command.clone())), "not_authorised", "{command}");
    }
    assert_eq!(code(&admin.command(json!({"deposit": {"account_id": "any", "amount": 1}}))), "not_authorised");
}

fn who_has_no_members_key_gets_no_word_in(cluster: &Cluster) {
    let node = &cluster.nodes[1];
    // Plain, and an older TLS: the answer is nothing, and an alert.
    assert!(open_socket(node.peer_address(), PEER_PATH, &[]).is_err());
    let mut stream = dial(node.peer_address()).unwrap();
    stream.write_all(&hello_of_tls_1_2()).unwrap();
    assert!(read_all(&mut stream).ends_with(&[2, 70]), "protocol_version");
    // A handshake that was recorded.
    let member = cluster.nodes[0].key();
    let (through, said) = recording(node.peer_address());
    drop(open_peer(through, &member, PEER_PATH, &[]).unwrap());
    let said = said.lock().unwrap().clone();
    let mut stream = dial(node.peer_address()).unwrap();
    stream.write_all(&said).unwrap();
    assert!(read_all(&mut stream).len() < 1_000);
    // A key of one's own, under a member's name.
    let stranger = MemberKey::draw();
    for store in [member.store(), stranger.store()] {
        let mut socket = open_peer(node.peer_address(), &stranger, PEER_PATH, &[]).unwrap();
        let said = Hello { store, ..hello_of_first(cluster, 1) };
        socket.send(Message::binary(encode_opening(&Opening::Hello(said)))).unwrap();
        let answer = socket.read();
        let opened = answer.ok().and_then(|answer| {
            let Message::Binary(bytes) = answer else { return None };
            rabia_bank_messages::codec::decode_opening(&bytes).ok()
        });
        assert!(!matches!(opened, Some(Opening::Hello(_))), "{opened:?}");
    }
}

/// The key of member 1 on a second machine. Who has it can be taken for a member that has lost its mind, and no more: the two
/// others serve, and no money is made.
fn a_members_key_on_a_second_machine(cluster: &Cluster) {
    let (account, key) = (name("account"), cluster.nodes[0].key());
    let mut honest = cluster.nodes[2].connect(Encoding::Json);
    honest.command(json!({"create_account": {"account_id": account, "initial_balance": 0}}));
    let mut random = fastrand::Rng::with_seed(1);
    let hearer = Hearer { members: 3, decided: 0, next: None };
    let mut deposited = 0;
    for round in 0..30 {
        let to = 1 + round % 2;
        if let Ok(mut socket) = open_peer(cluster.nodes[to].peer_address(), &key, PEER_PATH, &[]) {
            let said = encode_opening(&Opening::Hello(hello_of_first(cluster, to)));
            let mut sent = socket.send(Message::binary(said)).and_then(|()| socket.read().map(drop));
            for _ in 0..50 {
                let mut frame = start_frame();
                encode_message(&mut frame, &made_up(&hearer, &mut random));
                sent = sent.and_then(|()| socket.send(Message::binary(frame)));
            }
        }
        let request = honest.number();
        let deposit = json!({"request": request, "command": {"deposit": {"account_id": account, "amount": 1}}});
        let began = Instant::now();
        let answer = std::iter::repeat_with(|| honest.ask(&deposit))
            .find(|answer| answer["error"]["outcome"] != "unknown" || began.elapsed() > PATIENCE)
            .unwrap();
        deposited += 1;
        assert_eq!(answer["ok"]["transaction"]["to_balance"], deposited, "{answer}");
    }
    assert!(cluster.nodes[1..].iter().all(Node::is_alive));
    let state = cluster.nodes[1].status().unwrap();
    assert_eq!(state["total_balance"], deposited, "{state}");
}

#[test]
fn a_members_key_on_a_second_machine_makes_no_money_and_stops_no_other() {
    a_members_key_on_a_second_machine(&Cluster::start(3));
    a_members_key_on_a_second_machine(&Cluster::inside(3));
}

/// The page names tests that exist, and one at least for each attack.
#[test]
fn the_page_names_a_test_for_each_attack() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(folder.join("SECURITY.md")).unwrap();
    let (_, table) = page.split_once("\n| attack |").unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 30, "{rows:#?}");
    for row in rows {
        let tests: Vec<&str> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test in: {row}");
        for test in tests {
            let (module, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("{test} is no test"));
            let module = module.replace("::", "/");
            let files = ["nodes/X.rs", "nodes/X/mod.rs", "X/main.rs", "X.rs"]
                .map(|file| folder.join("tests").join(file.replace('X', &module)));
            let source = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
            let source = source.unwrap_or_else(|| panic!("{test}: no such file of tests"));
            assert!(source.contains(&format!("fn {name}(")), "{test} is not there");
        }
    }
}
