//! The client protocol of real nodes, over raw WebSockets, in both encodings: every command, query and refusal of the
//! bank, sessions and retries. The tests share one cluster of three processes; each has accounts of its own.

use std::collections::BTreeSet;

use crate::support::{Cluster, Connection, SharedCluster};
use rabia_bank_messages::bank::{DEFAULT_TRANSACTION_LIMIT, MAX_BALANCE};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::Digest;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

static CLUSTER: SharedCluster = SharedCluster::new();

const ENCODINGS: [(Encoding, &str); 2] = [(Encoding::Json, "json"), (Encoding::MessagePack, "msgpack")];

/// A key as a client draws it.
fn new_key() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn create(account_id: &str, initial_balance: u64) -> Value {
    json!({"create_account": {"account_id": account_id, "initial_balance": initial_balance}})
}

fn deposit(account_id: &str, amount: impl Into<Value>) -> Value {
    json!({"deposit": {"account_id": account_id, "amount": amount.into()}})
}

fn withdraw(account_id: &str, amount: impl Into<Value>) -> Value {
    json!({"withdraw": {"account_id": account_id, "amount": amount.into()}})
}

fn transfer(from: &str, to: &str, amount: impl Into<Value>) -> Value {
    json!({"transfer": {"from_account": from, "to_account": to, "amount": amount.into()}})
}

fn bulk(atomic: bool, commands: &[Value]) -> Value {
    json!({"bulk": {"commands": commands, "atomic": atomic}})
}

fn balance(connection: &mut Connection, account_id: &str) -> u64 {
    let answer = connection.query(json!({"get_balance": {"account_id": account_id}}));
    answer["ok"]["balance"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

/// Checks that an object has these fields, no more and no less.
#[track_caller]
fn assert_fields(object: &Value, expected: &[&str]) {
    let there: BTreeSet<&str> = object.as_object().unwrap_or_else(|| panic!("{object}")).keys().map(|k| &**k).collect();
    assert_eq!(there, expected.iter().copied().collect(), "{object}");
}

/// Checks an answer to a command that was decided, and refused by the books.
#[track_caller]
fn assert_refused(answer: &Value, code: &str) {
    assert_fields(answer, &["request", "slot", "index", "error", "replayed"]);
    assert!(answer["index"].is_u64() && answer["replayed"] == false, "{answer}");
    assert_refusal(answer, code);
}

/// Checks an answer to a query that was read, and refused.
#[track_caller]
fn assert_not_found(answer: &Value, code: &str) {
    assert_fields(answer, &["request", "slot", "error"]);
    assert_refusal(answer, code);
}

#[track_caller]
fn assert_refusal(answer: &Value, code: &str) {
    assert!(answer["slot"].as_u64().is_some_and(|slot| slot > 0), "{answer}");
    assert_fields(&answer["error"], &["code", "message", "outcome"]);
    assert_eq!((&answer["error"]["code"], &answer["error"]["outcome"]), (&json!(code), &json!("refused")), "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|message| message.len() > 5), "{answer}");
}

/// Checks an answer to a message that was not understood: nothing was decided or read.
#[track_caller]
fn assert_malformed(answer: &Value, request: Option<u64>) {
    match request {
        Some(request) => {
            assert_fields(answer, &["request", "error"]);
            assert_eq!(answer["request"], request, "{answer}");
        }
        None => assert_fields(answer, &["error"]),
    }
    assert_eq!((&answer["error"]["code"], &answer["error"]["outcome"]), (&json!("malformed"), &json!("refused")));
}

/// Checks an answer to a command that was applied now, and hands out what it carries.
#[track_caller]
fn applied(answer: &Value) -> Value {
    assert_fields(answer, &["request", "slot", "index", "ok", "replayed"]);
    assert!(answer["index"].is_u64() && answer["replayed"] == false, "{answer}");
    assert!(answer["slot"].as_u64().is_some_and(|slot| slot > 0), "{answer}");
    answer["ok"].clone()
}

/// The transaction of an answer, after a check of what all transactions have in common.
#[track_caller]
fn transaction(answer: &Value, kind: &str, amount: u64, sides: &[&str]) -> Value {
    let ok = applied(answer);
    let transaction = &ok["transaction"];
    let always = ["transaction_id", "type", "amount", "timestamp", "slot", "principal", "hash"];
    let salts = sides.iter().filter_map(|side| match *side {
        "from_account" => Some("from_salt"),
        "to_account" => Some("to_salt"),
        _ => None,
    });
    let salts: Vec<&str> = salts.collect();
    assert_fields(transaction, &[&always, sides, &salts].concat());
    assert_eq!((&transaction["type"], &transaction["amount"]), (&json!(kind), &json!(amount)), "{answer}");
    assert_eq!(transaction["slot"], answer["slot"], "{answer}");
    assert!(transaction["transaction_id"].as_u64().is_some_and(|id| id > 0), "{answer}");
    assert_eq!(transaction["hash"].as_str().map(str::len), Some(64), "{answer}");
    transaction.clone()
}

/// A connection that has its session already, so that answers do not name it.
fn with_session(connection: Connection) -> Connection {
    let mut connection = connection;
    let welcome = connection.ask(&json!({"hello": {"version": 2, "open": {"key": new_key()}}}));
    assert!(welcome["welcome"]["session"].is_u64(), "{welcome}");
    connection
}

/// The fields of an account without class and name, of which something can leave.
const ACCOUNT: [&str; 11] = [
    "account_id",
    "asset",
    "balance",
    "available",
    "min_balance",
    "max_balance",
    "status",
    "created_at",
    "last_transaction_at",
    "transaction_count",
    "version",
];

#[test]
fn every_command_is_applied_and_says_what_it_did() {
    let cluster = CLUSTER.get();
    for (node, (encoding, name)) in ENCODINGS.into_iter().enumerate() {
        let mut c = with_session(cluster.nodes[node].connect(encoding));
        let (a, b, empty) = (format!("cmd-{name}:A"), format!("cmd-{name}.b_"), format!("cmd-{name}-empty"));

        let answer = c.command(create(&a, 1_000));
        let ok = applied(&answer);
        assert_fields(&ok, &["account", "transaction"]);
        let opening = transaction(&answer, "opening", 1_000, &["to_account", "to_balance"]);
        assert_eq!((&opening["to_account"], &opening["to_balance"]), (&json!(a), &json!(1_000)));
        let account = &ok["account"];
        assert_fields(account, &ACCOUNT);
        assert_eq!((&account["account_id"], &account["balance"]), (&json!(a), &json!(1_000)));
        assert_eq!(account["created_at"], opening["timestamp"]);
        assert_eq!(account["transaction_count"], 1);

        let answer = c.command(create(&empty, 0));
        let ok = applied(&answer);
        assert_fields(&ok, &["account", "transaction"]);
        assert_fields(&ok["account"], &ACCOUNT);
        transaction(&answer, "opening", 0, &["to_account", "to_balance"]);
        assert_eq!((&ok["account"]["balance"], &ok["account"]["version"]), (&json!(0), &json!(1)));
        applied(&c.command(create(&b, 5)));

        let done = transaction(&c.command(deposit(&a, 500)), "deposit", 500, &["to_account", "to_balance"]);
        assert_eq!((&done["to_account"], &done["to_balance"]), (&json!(a), &json!(1_500)));
        let done = transaction(&c.command(withdraw(&a, 200)), "withdrawal", 200, &["from_account", "from_balance"]);
        assert_eq!((&done["from_account"], &done["from_balance"]), (&json!(a), &json!(1_300)));
        let sides = ["from_account", "to_account", "from_balance", "to_balance"];
        let done = transaction(&c.command(transfer(&a, &b, 300)), "transfer", 300, &sides);
        assert_eq!((&done["from_account"], &done["from_balance"]), (&json!(a), &json!(1_000)));
        assert_eq!((&done["to_account"], &done["to_balance"]), (&json!(b), &json!(305)));
        // A float that is a whole number is one, as JavaScript sends it.
        transaction(&c.command(deposit(&a, 7.0)), "deposit", 7, &["to_account", "to_balance"]);
        // All of it can be taken out.
        transaction(&c.command(withdraw(&b, 305)), "withdrawal", 305, &["from_account", "from_balance"]);
        assert_eq!(balance(&mut c, &b), 0);
    }
}

#[test]
fn every_refusal_has_its_code_and_comes_in_the_order_of_the_table() {
    let cluster = CLUSTER.get();
    for (node, (encoding, name)) in ENCODINGS.into_iter().enumerate() {
        let mut c = with_session(cluster.nodes[node + 1].connect(encoding));
        let (a, b, none) = (format!("ref-{name}-a"), format!("ref-{name}-b"), format!("ref-{name}-none"));
        applied(&c.command(create(&a, 100)));
        applied(&c.command(create(&b, 0)));
        let over = DEFAULT_TRANSACTION_LIMIT + 1;
        let no_amounts = [json!(0), json!(-1), json!(1.5), json!(over), json!(u64::MAX), json!(1e300), json!(-0.5)];

        for id in ["", "with space", "ümlaut", "slash/", "nul\0", &"x".repeat(51)] {
            assert_refused(&c.command(create(id, 1)), "invalid_account_id");
            let first = json!({"create_account": {"account_id": id, "initial_balance": -1}});
            assert_refused(&c.command(first), "invalid_account_id");
            // The id comes before the amount, and the source before the destination.
            for command in [deposit(id, -1), withdraw(id, 1), transfer(id, id, 1), transfer(&a, id, 0)] {
                assert_refused(&c.command(command), "invalid_account_id");
            }
            for query in ["get_account", "get_balance", "get_transaction_history"] {
                assert_not_found(&c.query(json!({query: {"account_id": id}})), "invalid_account_id");
            }
            let subscribe = json!({"request": c.next_request, "subscribe": {"account_id": id}});
            assert_not_found(&c.ask(&subscribe), "invalid_account_id");
            c.next_request += 1;
        }
        for amount in &no_amounts[1..] {
            for id in [&none, &a] {
                let command = json!({"create_account": {"account_id": id, "initial_balance": amount}});
                assert_refused(&c.command(command), "invalid_amount");
            }
        }
        assert_refused(&c.command(create(&a, 0)), "account_exists");
        for amount in &no_amounts {
            for command in [deposit(&none, amount.clone()), withdraw(&none, amount.clone())] {
                assert_refused(&c.command(command), "invalid_amount");
            }
            assert_refused(&c.command(transfer(&none, &none, amount.clone())), "invalid_amount");
        }
        for command in [deposit(&none, 1), withdraw(&none, over - 1)] {
            assert_refused(&c.command(command), "account_not_found");
        }
        assert_refused(&c.command(withdraw(&a, 101)), "insufficient_funds");
        assert_refused(&c.command(transfer(&none, &none, 1)), "same_account");
        let answer = c.command(transfer(&none, "other-none", 1_000));
        assert_refused(&answer, "account_not_found");
        assert!(answer["error"]["message"].as_str().unwrap().contains(&none), "the source is named first: {answer}");
        let answer = c.command(transfer(&a, &none, 1_000));
        assert_refused(&answer, "account_not_found");
        assert!(answer["error"]["message"].as_str().unwrap().contains(&none), "{answer}");
        assert_refused(&c.command(transfer(&a, &b, 101)), "insufficient_funds");
        for atomic in [true, false] {
            assert_refused(&c.command(bulk(atomic, &[])), "bulk_empty");
            assert_refused(&c.command(bulk(atomic, &vec![deposit(&a, 1); 10_001])), "bulk_too_large");
        }
        // Nothing of it changed anything.
        assert_eq!((balance(&mut c, &a), balance(&mut c, &b)), (100, 0));
        for query in [json!({"get_account": {"account_id": none}}), json!({"get_balance": {"account_id": none}})] {
            assert_not_found(&c.query(query), "account_not_found");
        }
        assert_not_found(&c.query(json!({"get_transaction_history": {"account_id": none}})), "account_not_found");
        for id in [0, MAX_BALANCE] {
            assert_not_found(&c.query(json!({"get_transaction": {"transaction_id": id}})), "transaction_not_found");
        }
    }
}

#[test]
fn balances_and_their_sum_never_exceed_what_every_language_counts_exactly() {
    // A bank of its own, for it is filled to the brim.
    let cluster = Cluster::create_as(1, &["--transaction-limit", &MAX_BALANCE.to_string()], |_| ()).started();
    for (encoding, name) in ENCODINGS {
        let mut c = with_session(cluster.nodes[0].connect(encoding));
        let (a, b) = (format!("{name}-a"), format!("{name}-b"));
        applied(&c.command(create(&a, MAX_BALANCE - 10)));
        applied(&c.command(create(&b, 10)));
        assert_refused(&c.command(deposit(&a, 1)), "balance_overflow");
        assert_refused(&c.command(create("one-too-many", 1)), "balance_overflow");
        assert_refused(&c.command(deposit(&b, MAX_BALANCE + 1)), "invalid_amount");
        let sides = ["from_account", "to_account", "from_balance", "to_balance"];
        let all = transaction(&c.command(transfer(&b, &a, 10)), "transfer", 10, &sides);
        assert_eq!(all["to_balance"], MAX_BALANCE);
        assert_eq!(balance(&mut c, &a), MAX_BALANCE);
        applied(&c.command(withdraw(&a, MAX_BALANCE)));
    }
}

#[test]
fn a_bulk_is_applied_in_order_and_atomic_means_all_or_none() {
    let cluster = CLUSTER.get();
    for (node, (encoding, name)) in ENCODINGS.into_iter().enumerate() {
        let mut c = with_session(cluster.nodes[node].connect(encoding));
        let (a, b, none) = (format!("bulk-{name}-a"), format!("bulk-{name}-b"), format!("bulk-{name}-none"));
        let answer = c.command(bulk(true, &[create(&a, 50), create(&b, 0), transfer(&a, &b, 20), withdraw(&b, 5)]));
        let ok = applied(&answer);
        assert_fields(&ok, &["results"]);
        let results = ok["results"].as_array().unwrap();
        assert_eq!(results.len(), 4);
        assert_fields(&results[0], &["ok"]);
        assert_fields(&results[1]["ok"], &["account", "transaction"]);
        assert_eq!(results[2]["ok"]["transaction"]["to_balance"], 20);
        assert_eq!(results[3]["ok"]["transaction"]["from_balance"], 15);
        let first = results[0]["ok"]["transaction"]["transaction_id"].as_u64().unwrap();
        assert_eq!(results[3]["ok"]["transaction"]["transaction_id"], first + 3);

        let commands = [deposit(&a, 1), withdraw(&none, 1), transfer(&b, &a, 16), withdraw(&b, 15)];
        let answer = c.command(bulk(true, &commands));
        assert_fields(&answer["error"], &["code", "message", "outcome", "index"]);
        assert_eq!((&answer["error"]["code"], &answer["error"]["index"]), (&json!("account_not_found"), &json!(1)));
        assert_eq!(answer["error"]["outcome"], "refused");
        assert!(answer["slot"].is_u64(), "{answer}");
        assert_eq!((balance(&mut c, &a), balance(&mut c, &b)), (30, 15));

        let ok = applied(&c.command(bulk(false, &commands)));
        let results = ok["results"].as_array().unwrap();
        let codes: Vec<&Value> = results.iter().map(|result| &result["error"]["code"]).collect();
        assert_eq!(codes, [&Value::Null, &json!("account_not_found"), &json!("insufficient_funds"), &Value::Null]);
        assert_fields(&results[1]["error"], &["code", "message", "outcome"]);
        assert_eq!((balance(&mut c, &a), balance(&mut c, &b)), (31, 0));

        // The largest bulk there may be.
        let ok = applied(&c.command(bulk(true, &vec![deposit(&b, 1); 10_000])));
        assert_eq!(ok["results"].as_array().unwrap().len(), 10_000);
        assert_eq!(balance(&mut c, &b), 10_000);
    }
}

#[test]
fn what_is_misspelt_missing_or_of_another_type_is_malformed() {
    let cluster = CLUSTER.get();
    for (encoding, _) in ENCODINGS {
        let mut c = with_session(cluster.nodes[2].connect(encoding));
        let commands = [
            json!({"deposit": {"account_id": "x", "amount": 1, "memo": "hello"}}),
            json!({"deposit": {"account_id": "x"}}),
            json!({"deposit": {"account_id": "x", "amount": "1"}}),
            json!({"deposit": {"account_id": "x", "amount": null}}),
            json!({"deposit": {"account_id": 5, "amount": 1}}),
            json!({"deposit": {"amount": 1, "account": "x"}}),
            json!({"steal": {"account_id": "x", "amount": 1}}),
            json!({"deposit": {"account_id": "x", "amount": 1}, "withdraw": {"account_id": "x", "amount": 1}}),
            json!({"bulk": {"commands": [deposit("x", 1)]}}),
            json!({"bulk": {"commands": [deposit("x", 1)], "atomic": "yes"}}),
            json!({"bulk": {"commands": [deposit("x", 1)], "atomic": true, "atomc": true}}),
            json!({"bulk": {"commands": [bulk(true, &[deposit("x", 1)])], "atomic": true}}),
            json!({"bulk": {"commands": deposit("x", 1), "atomic": true}}),
            json!({}),
            json!("deposit"),
            json!(7),
        ];
        for command in commands {
            let answer = c.command(command.clone());
            assert_malformed(&answer, Some(c.next_request - 1));
        }
        let queries = [
            json!({"get_balance": {"account_id": "x", "currency": "EUR"}}),
            json!({"get_balance": {}}),
            json!({"get_transaction_history": {"type": "gift"}}),
            json!({"get_transaction_history": {"limit": 0}}),
            json!({"get_transaction_history": {"limit": 1_001}}),
            json!({"get_transaction_history": {"limit": -1}}),
            json!({"get_transaction_history": {"acount_id": "x"}}),
            json!({"list_accounts": {"limit": 0}}),
            json!({"list_accounts": {"limit": 1_001}}),
            json!({"list_accounts": {"after": 7}}),
            json!({"get_transaction": {"transaction_id": "7"}}),
            json!({"get_transaction": {"transaction_id": 1.5}}),
            json!({"get_status": {"of": 1}}),
            json!({"get_everything": {}}),
        ];
        for query in queries {
            let answer = c.query(query.clone());
            assert_eq!(answer["error"]["code"], "malformed", "{query}: {answer}");
            assert_eq!(answer["error"]["outcome"], "refused", "{query}: {answer}");
        }
        for read in [json!("sometimes"), json!({"at_least": -1}), json!({"at_most": 1}), json!(5)] {
            let answer = c.query_at(json!({"get_status": {}}), read);
            assert_malformed(&answer, Some(c.next_request - 1));
        }
        let messages = [
            json!({"request": 0, "command": deposit("x", 1)}),
            json!({"request": -1, "command": deposit("x", 1)}),
            json!({"request": 1.5, "command": deposit("x", 1)}),
            json!({"request": "1", "command": deposit("x", 1)}),
            json!({"command": deposit("x", 1)}),
            json!({"query": {"get_status": {}}}),
            json!({"greeting": {}}),
            json!({}),
            json!([]),
            json!(null),
            json!("hello"),
        ];
        for message in messages {
            let answer = c.ask(&message);
            assert_eq!(answer["error"]["code"], "malformed", "{message}: {answer}");
            assert_eq!(answer["error"]["outcome"], "refused", "{message}: {answer}");
        }
        let both = json!({"request": 9, "command": deposit("x", 1), "query": {"get_status": {}}});
        assert_malformed(&c.ask(&both), Some(9));
        let beyond = json!({"request": MAX_BALANCE + 1, "command": deposit("x", 1)});
        assert_malformed(&c.ask(&beyond), Some(MAX_BALANCE + 1));
        // Also beside the command: it might be what tells one bank or one command from another.
        for more in ["ledger", "atomic", "acknowleged"] {
            let number = c.number();
            let answer = c.ask(&json!({"request": number, "command": deposit("x", 1), more: 7}));
            assert_malformed(&answer, Some(number));
            assert!(answer["error"]["message"].as_str().unwrap().contains(more), "{answer}");
        }
        assert_malformed(&c.ask(&json!({"goodbye": {"now": true}})), None);
        assert_malformed(&c.ask(&json!({"unsubscribe": 7, "trace": "abc"})), None);
    }
}

/// A number in JSON is its text: what a float would round to a whole number is fractional all the same.
#[test]
fn an_amount_is_what_is_written() {
    let cluster = CLUSTER.get();
    let mut c = with_session(cluster.nodes[0].connect(Encoding::Json));
    let id = "exact-amounts";
    applied(&c.command(create(id, 0)));
    let mut ask = |amount: &str| {
        let request = c.number();
        let text =
            format!(r#"{{"request":{request},"command":{{"deposit":{{"account_id":"{id}","amount":{amount}}}}}}}"#);
        c.socket.send(Message::text(text)).unwrap();
        c.receive()
    };
    for amount in ["0.99999999999999999", "1000000000.0000000001", "1.00000000000000000001", "1e-400", "1e400"] {
        assert_refused(&ask(amount), "invalid_amount");
    }
    for (amount, booked) in [("7.0", 7), ("1e3", 1_000), ("0.5e1", 5), ("700E-2", 7)] {
        assert_eq!(applied(&ask(amount))["transaction"]["amount"], booked, "{amount}");
    }
    assert_eq!(ask("7.")["error"]["code"], "malformed");
    assert_eq!(balance(&mut c, id), 1_019);
}

/// What one slot carries has an order that clients can tell, refusals included.
#[test]
fn answers_to_commands_are_ordered_by_slot_and_index() {
    let cluster = CLUSTER.get();
    let mut c = with_session(cluster.nodes[0].connect(Encoding::Json));
    let id = "ordered";
    applied(&c.command(create(id, 10)));
    let requests = 100..400_u64;
    for request in requests.clone() {
        let command = if request % 3 == 0 { deposit(id, 1) } else { withdraw(id, 7) };
        c.send(&json!({"request": request, "command": command}));
    }
    let mut answers: Vec<Value> = requests.clone().map(|_| c.receive()).collect();
    answers.sort_by_key(|answer| (answer["slot"].as_u64().unwrap(), answer["index"].as_u64().unwrap()));
    let places: BTreeSet<_> =
        answers.iter().map(|answer| (answer["slot"].as_u64(), answer["index"].as_u64())).collect();
    assert_eq!(places.len(), answers.len(), "two requests are in one place");
    let slots: BTreeSet<_> = answers.iter().map(|answer| answer["slot"].as_u64()).collect();
    assert!(slots.len() < answers.len(), "no slot had two of them");
    // In this order, and in no other, the books say yes and no as they did.
    let mut balance = 10;
    for answer in &answers {
        let transaction = &answer["ok"]["transaction"];
        match answer["request"].as_u64().unwrap() % 3 {
            0 => balance += 1,
            _ if balance >= 7 => balance -= 7,
            _ => {
                assert_refused(answer, "insufficient_funds");
                let message = format!("{balance} is available, which is below 7");
                assert!(answer["error"]["message"].as_str().unwrap().contains(&message), "{answer}, not {message}");
                continue;
            }
        }
        let after = if transaction["type"] == "deposit" { "to_balance" } else { "from_balance" };
        assert_eq!(transaction[after], balance, "{answer}");
    }
}

#[test]
fn a_slot_that_is_not_there_yet_is_no_lost_quorum() {
    let cluster = CLUSTER.get();
    let mut c = cluster.nodes[0].connect(Encoding::Json);
    let applied_slot = c.query(json!({"get_status": {}}))["slot"].as_u64().unwrap();
    let far = json!({"at_least": applied_slot + 1_000_000});
    c.send(&json!({"request": 900, "query": {"get_statistics": {}}, "read": far}));
    c.send(&json!({"request": 901, "subscribe": {}, "read": far}));
    for request in [900, 901] {
        let answer = c.receive();
        assert_fields(&answer, &["request", "error"]);
        assert_eq!((&answer["request"], &answer["error"]["outcome"]), (&json!(request), &json!("refused")));
        assert_eq!(answer["error"]["code"], "not_yet_applied", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(&(applied_slot + 1_000_000).to_string()), "{message}");
    }
    assert!(c.query(json!({"get_statistics": {}}))["ok"].is_object(), "there is a quorum");
    let output = cluster.client(["--read", "99999999", "--timeout", "7", "accounts"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("slot 99999999 was not applied here"), "{output:?}");
    assert!(!said.contains("quorum") && !said.contains("majority"), "{said}");
}

#[test]
fn every_query_is_answered() {
    let cluster = CLUSTER.get();
    for (node, (encoding, name)) in ENCODINGS.into_iter().enumerate() {
        let mut c = with_session(cluster.nodes[node].connect(encoding));
        let ids: Vec<String> = (0..5).map(|number| format!("query-{name}-{number}")).collect();
        let openings: Vec<Value> = ids.iter().map(|id| applied(&c.command(create(id, 100)))).collect();
        let moved = applied(&c.command(transfer(&ids[0], &ids[1], 30)))["transaction"].clone();
        let taken = applied(&c.command(withdraw(&ids[1], 1)))["transaction"].clone();
        let given = applied(&c.command(deposit(&ids[1], 2)))["transaction"].clone();

        let answer = c.query(json!({"get_account": {"account_id": ids[1]}}));
        assert_fields(&answer, &["request", "slot", "ok"]);
        assert_fields(&answer["ok"], &["account"]);
        let account = &answer["ok"]["account"];
        assert_eq!((&account["balance"], &account["transaction_count"]), (&json!(131), &json!(4)));
        assert_eq!(account["created_at"], openings[1]["account"]["created_at"]);
        assert_eq!(account["last_transaction_at"], given["timestamp"]);
        let answer = c.query(json!({"get_balance": {"account_id": ids[0]}}));
        assert_eq!(answer["ok"], json!({"balance": 70}));

        // Accounts by id, paged.
        let before = format!("query-{name}");
        let page = c.query(json!({"list_accounts": {"after": before, "limit": 2}}));
        assert_fields(&page["ok"], &["accounts", "next"]);
        assert_eq!(page["ok"]["next"], json!(ids[1]));
        let page = c.query(json!({"list_accounts": {"after": page["ok"]["next"], "limit": 3}}));
        let listed: Vec<&Value> = page["ok"]["accounts"].as_array().unwrap().iter().map(|a| &a["account_id"]).collect();
        assert_eq!(listed, ids[2..].iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>());

        // The history of an account, newest first, paged and filtered.
        let history = |c: &mut Connection, filter: Value| -> Vec<Value> {
            let answer = c.query(json!({"get_transaction_history": filter}));
            answer["ok"]["transactions"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
        };
        let opening = openings[1]["transaction"].clone();
        let all = [given.clone(), taken.clone(), moved.clone(), opening.clone()];
        assert_eq!(history(&mut c, json!({"account_id": ids[1]})), all);
        let page = c.query(json!({"get_transaction_history": {"account_id": ids[1], "limit": 3}}));
        assert_fields(&page["ok"], &["transactions", "next"]);
        assert_eq!(page["ok"]["next"], moved["transaction_id"]);
        let rest = history(&mut c, json!({"account_id": ids[1], "before": page["ok"]["next"]}));
        assert_eq!(rest, std::slice::from_ref(&opening));
        for (kind, expected) in
            [("opening", &opening), ("deposit", &given), ("withdrawal", &taken), ("transfer", &moved)]
        {
            assert_eq!(history(&mut c, json!({"account_id": ids[1], "type": kind})), std::slice::from_ref(expected));
        }
        assert_eq!(
            // Others move money as well.
            history(
                &mut c,
                json!({"type": "transfer", "before": moved["transaction_id"].as_u64().unwrap() + 1, "limit": 1})
            ),
            [moved]
        );
        let since = history(&mut c, json!({"account_id": ids[1], "from_time": taken["timestamp"]}));
        assert!(since.contains(&taken) && since.contains(&given), "{since:?}");
        let until = history(&mut c, json!({"account_id": ids[1], "to_time": opening["timestamp"]}));
        assert!(until.contains(&opening), "{until:?}");
        let never = json!({"account_id": ids[1], "from_time": given["timestamp"].as_u64().unwrap() + 1});
        assert_eq!(history(&mut c, never), [] as [Value; 0]);

        let answer = c.query(json!({"get_transaction": {"transaction_id": given["transaction_id"]}}));
        assert_eq!(answer["ok"], json!({"transaction": given}));

        let answer = c.query(json!({"get_statistics": {"large_amount": 100}}));
        let statistics = &answer["ok"]["statistics"];
        let fields =
            ["asset", "accounts", "total_balance", "totals", "transactions", "by_type", "by_hour", "largest_accounts"];
        let more = ["most_active_accounts", "large_amount", "large_transactions"];
        assert_fields(statistics, &[&fields[..], &more[..]].concat());
        assert_eq!(statistics["large_amount"], 100);
        assert_fields(&statistics["by_type"], &["opening", "deposit", "withdrawal", "transfer"]);
        let count = |of: &Value| of["count"].as_u64().unwrap();
        let by_type: u64 = statistics["by_type"].as_object().unwrap().values().map(count).sum();
        let by_hour: u64 = statistics["by_hour"].as_array().unwrap().iter().map(count).sum();
        assert_eq!((by_type, by_hour), (count(&statistics["transactions"]), count(&statistics["transactions"])));
        for large in statistics["large_transactions"].as_array().unwrap() {
            assert!(large["amount"].as_u64().unwrap() >= 100, "{large}");
        }
        let answer = c.query(json!({"get_statistics": {}}));
        assert_eq!(answer["ok"]["statistics"]["large_amount"], DEFAULT_TRANSACTION_LIMIT / 10);

        let status = c.query(json!({"get_status": {}}))["ok"]["status"].clone();
        assert_eq!((&status["node"], &status["members"]), (&json!(node + 1), &json!(3)));
        assert_eq!(status["cluster"], json!(cluster.nodes[0].config.cluster.to_string()));
        assert_eq!(status["connected"].as_array().unwrap().len(), 2);
        let fields = ["applied_slot", "decided_slots", "null_slots", "accounts", "transactions", "total_balance"];
        for field in fields {
            assert!(status[field].is_u64(), "{field} in {status}");
        }
        assert_eq!(status["state_digest"].as_str().map(str::len), Some(64));
    }
}

#[test]
fn reads_are_as_fresh_as_they_are_asked_to_be() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let mut writer = with_session(cluster.nodes[0].connect(encoding));
        let mut readers: Vec<Connection> = cluster.nodes.iter().map(|node| node.connect(encoding)).collect();
        let id = format!("fresh-{name}");
        applied(&writer.command(create(&id, 0)));
        let query = json!({"get_balance": {"account_id": id}});
        for round in 1..=50 {
            let answer = writer.command(deposit(&id, 1));
            let slot = answer["slot"].as_u64().unwrap();
            let reader = &mut readers[round % 3];
            let read = if round % 2 == 0 { json!("linearizable") } else { json!({"at_least": slot}) };
            let seen = reader.query_at(query.clone(), read);
            assert_eq!(seen["ok"]["balance"], round, "{seen}");
            assert!(seen["slot"].as_u64().unwrap() >= slot, "{seen} after {answer}");
            let local = readers[(round + 1) % 3].query_at(query.clone(), json!("local"));
            assert!(local["slot"].is_u64(), "{local}");
            if local["slot"].as_u64().unwrap() >= slot {
                assert_eq!(local["ok"]["balance"], round, "{local}");
            }
        }
        // Where nothing is said, the answer is linearizable.
        let seen = readers[1].ask(&json!({"request": 1_000, "query": query}));
        assert_eq!(seen["ok"]["balance"], 50, "{seen}");
    }
}

#[test]
fn the_first_answer_to_a_command_names_the_session_and_any_node_goes_on_with_it() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("session-{name}");
        let mut c = cluster.nodes[0].connect(encoding);
        let answer = c.query(json!({"get_status": {}}));
        assert!(answer.get("session").is_none(), "a query needs no session: {answer}");
        let first = c.command(create(&id, 10));
        assert_fields(&first, &["request", "slot", "index", "ok", "replayed", "session"]);
        assert_fields(&first["session"], &["number", "key"]);
        let session = first["session"].clone();
        assert_eq!(session["key"].as_str().map(str::len), Some(32));
        let second = c.command(deposit(&id, 1));
        assert!(second.get("session").is_none(), "it is named once: {second}");
        drop(c);

        let mut c = cluster.nodes[1].connect(encoding);
        let welcome = c.ask(&json!({"hello": {"version": 2, "session": session}}));
        assert_fields(&welcome, &["welcome"]);
        assert_fields(
            &welcome["welcome"],
            &["node", "cluster", "session", "applied_slot", "principal", "level", "features", "nodes"],
        );
        assert_eq!((&welcome["welcome"]["node"], &welcome["welcome"]["session"]), (&json!(2), &session["number"]));
        // The same request again: the same answer, with the slot that it was applied in.
        let again = c.ask(&json!({"request": first["request"], "command": create(&id, 10)}));
        assert_fields(&again, &["request", "slot", "index", "ok", "replayed"]);
        assert_eq!(again["replayed"], true);
        for field in ["ok", "slot", "index"] {
            assert_eq!(again[field], first[field]);
        }
        let again = c.ask(&json!({"request": second["request"], "command": deposit(&id, 1)}));
        assert_eq!((&again["ok"], &again["replayed"]), (&second["ok"], &json!(true)));
        assert_eq!(balance(&mut c, &id), 11);

        // A refusal is an answer like any other. What was refused stays so when it is said again.
        let broke = c.ask(&json!({"request": 50, "command": withdraw(&id, 100)}));
        assert_refused(&broke, "insufficient_funds");
        applied(&c.ask(&json!({"request": 51, "command": deposit(&id, 1_000)})));
        let again = c.ask(&json!({"request": 50, "command": withdraw(&id, 100)}));
        let mut expected = broke;
        expected["replayed"] = json!(true);
        assert_eq!(again, expected);

        // The same number with another command.
        let reused = c.ask(&json!({"request": 51, "command": deposit(&id, 1_001)}));
        assert_refused(&reused, "request_reused");
        // The same command in other words: numbers are compared as what they are.
        let float = c.ask(&json!({"request": 51, "command": deposit(&id, 1_000.0)}));
        assert_eq!(float["replayed"], true, "{float}");
        assert_eq!(balance(&mut c, &id), 1_011);
    }
}

#[test]
fn what_was_acknowledged_is_never_executed_again() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("acknowledged-{name}");
        let mut c = with_session(cluster.nodes[1].connect(encoding));
        applied(&c.ask(&json!({"request": 1, "command": create(&id, 0)})));
        applied(&c.ask(&json!({"request": 2, "command": deposit(&id, 1), "acknowledged": 1})));
        applied(&c.ask(&json!({"request": 4, "command": deposit(&id, 2), "acknowledged": 2})));
        for (request, command) in [(1, create(&id, 0)), (2, deposit(&id, 1)), (2, deposit(&id, 500))] {
            let answer = c.ask(&json!({"request": request, "command": command}));
            assert_eq!(answer["error"]["code"], "request_acknowledged", "{answer}");
            assert_eq!(answer["error"]["outcome"], "unknown", "{answer}");
        }
        // A number that was left out is free, however late.
        applied(&c.ask(&json!({"request": 3, "command": deposit(&id, 4)})));
        assert_eq!(balance(&mut c, &id), 7);
    }
}

#[test]
fn a_key_opens_one_session_however_often_it_is_said() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let key = new_key();
        let hello = json!({"hello": {"version": 2, "open": {"key": key}}});
        let numbers: Vec<Value> =
            cluster.nodes.iter().map(|node| node.connect(encoding).ask(&hello)["welcome"]["session"].clone()).collect();
        let again = cluster.nodes[1].connect(encoding).ask(&hello);
        assert_fields(
            &again["welcome"],
            &["node", "cluster", "session", "applied_slot", "principal", "level", "features", "nodes"],
        );
        assert!(numbers[0].is_u64() && numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
        let other =
            cluster.nodes[0].connect(encoding).ask(&json!({"hello": {"version": 2, "open": {"key": new_key()}}}));
        assert_ne!(other["welcome"]["session"], numbers[0]);
        assert_eq!(other["welcome"]["opened"], true);

        // One speaks in it, another replays.
        let mut one = cluster.nodes[0].connect(encoding);
        one.ask(&hello);
        let id = format!("key-{name}");
        let first = one.command(create(&id, 1));
        let mut two = cluster.nodes[2].connect(encoding);
        two.ask(&hello);
        assert_eq!(two.command(create(&id, 1))["replayed"], true);
        applied(&first);
    }
}

#[test]
fn nobody_speaks_in_a_session_without_its_key_or_after_its_end() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("expired-{name}");
        let key = new_key();
        let mut owner = cluster.nodes[0].connect(encoding);
        let number = owner.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}))["welcome"]["session"].clone();
        applied(&owner.command(create(&id, 100)));

        let expired = |name: Value, node: usize| {
            let mut c = cluster.nodes[node].connect(encoding);
            c.ask(&json!({"hello": {"version": 2, "session": name}}));
            let answer = c.ask(&json!({"request": 77, "command": withdraw(&id, 1)}));
            assert_eq!(answer["error"]["code"], "session_expired", "{answer}");
            assert_eq!(answer["error"]["outcome"], "unknown", "it may be a retry: {answer}");
            assert_eq!(answer["request"], 77);
        };
        expired(json!({"number": number, "key": new_key()}), 1);
        expired(json!({"number": MAX_BALANCE, "key": key}), 2);

        owner.send(&json!({"goodbye": {}}));
        let (rest, close) = owner.receive_close();
        assert!(rest.is_empty(), "{rest:?}");
        assert_eq!(close.map(|close| u16::from(close.code)), Some(1_000));
        for node in 0..3 {
            expired(json!({"number": number, "key": key}), node);
        }
        // The key is used up, on every node.
        for node in &cluster.nodes {
            let answer = node.connect(encoding).ask(&json!({"hello": {"version": 2, "open": {"key": key}}}));
            assert_fields(&answer, &["error"]);
            assert_eq!(answer["error"]["code"], "session_expired", "{answer}");
            assert_eq!(answer["error"]["outcome"], "unknown", "{answer}");
        }
        assert_eq!(balance(&mut cluster.nodes[1].connect(encoding), &id), 100);
    }
}

#[test]
fn a_goodbye_ends_the_session_behind_everything_that_was_said_before() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("goodbye-{name}");
        let mut observer = with_session(cluster.nodes[2].connect(encoding));
        applied(&observer.command(create(&id, 0)));
        for named in [false, true] {
            // Not even the session is open when the client says goodbye.
            let mut c = cluster.nodes[0].connect(encoding);
            if named {
                c.send(&json!({"hello": {"version": 2, "open": {"key": new_key()}}}));
            }
            for request in 1..=50 {
                c.send(&json!({"request": request, "command": deposit(&id, 1)}));
            }
            c.send(&json!({"goodbye": {}}));
            // What comes behind it is not heard.
            c.send(&json!({"request": 51, "command": deposit(&id, 1_000)}));
            let (said, close) = c.receive_close();
            assert_eq!(close.map(|close| u16::from(close.code)), Some(1_000));
            assert_eq!(said.len(), 50 + usize::from(named), "{said:?}");
        }
        assert_eq!(balance(&mut observer, &id), 100);
        let key = new_key();
        let open = json!({"hello": {"version": 2, "open": {"key": key}}});
        let mut c = cluster.nodes[2].connect(encoding);
        let number = c.ask(&open)["welcome"]["session"].clone();
        c.send(&json!({"request": 1, "command": deposit(&id, 1)}));
        c.send(&json!({"goodbye": {}}));
        c.receive_close();
        assert!(number.is_u64(), "{number}");
        let again = cluster.nodes[2].connect(encoding).ask(&open);
        assert_eq!(again["error"]["code"], "session_expired", "the session was not closed: {again}");
    }
}

#[test]
fn a_hello_is_the_first_message_and_of_this_version() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("hello-{name}");
        applied(&with_session(cluster.nodes[1].connect(encoding)).command(create(&id, 100)));
        let session = json!({"number": 1, "key": new_key()});
        for (code, wrong) in [
            ("client_too_old", json!({"hello": {"version": 1}})),
            ("malformed", json!({"hello": {"version": 3}})),
            ("malformed", json!({"hello": {}})),
            ("malformed", json!({"hello": {"version": 2, "open": {"key": "short"}}})),
            ("malformed", json!({"hello": {"version": 2, "session": {"number": 1}}})),
            ("malformed", json!({"hello": {"version": 2, "session": session, "open": {"key": new_key()}}})),
            ("not_authorised", json!({"hello": {"version": 2, "token": null}})),
            ("not_authorised", json!({"hello": {"version": 2, "token": "rb_0123456789abcdef"}})),
        ] {
            let mut c = cluster.nodes[0].connect(encoding);
            // What stands behind it must not be executed in another session than it names, nor for somebody else.
            c.send(&wrong);
            c.send(&json!({"request": 1, "command": deposit(&id, 1)}));
            let answer = c.receive();
            assert_fields(&answer, &["error"]);
            assert_eq!(answer["error"]["code"], code, "{wrong}: {answer}");
            let (messages, close) = c.receive_close();
            assert_eq!(close.map(|close| u16::from(close.code)), Some(1008), "{messages:?}");
        }
        let mut c = cluster.nodes[0].connect(encoding);
        let welcome = c.ask(&json!({"hello": {"version": 2, "client": "a later version says more"}}));
        assert_fields(
            &welcome["welcome"],
            &["node", "cluster", "applied_slot", "principal", "level", "features", "nodes"],
        );
        assert_malformed(&c.ask(&json!({"hello": {"version": 2}})), None);
        // It goes on as it was.
        applied_first(&c.command(deposit(&id, 1)));
        assert_eq!(balance(&mut c, &id), 101);
    }
}

/// An answer that names the session of its connection.
#[track_caller]
fn applied_first(answer: &Value) {
    assert_fields(answer, &["request", "slot", "index", "session", "ok", "replayed"]);
}

#[test]
fn a_request_does_not_acknowledge_itself() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("itself-{name}");
        let mut c = with_session(cluster.nodes[2].connect(encoding));
        applied(&c.ask(&json!({"request": 1, "command": create(&id, 0)})));
        for (request, acknowledged) in [(3, 3), (3, 4), (3, MAX_BALANCE), (1, 1)] {
            let command = if request == 1 { create(&id, 0) } else { deposit(&id, 1) };
            let answer = c.ask(&json!({"request": request, "command": command, "acknowledged": acknowledged}));
            assert_malformed(&answer, Some(request));
        }
        applied(&c.ask(&json!({"request": 3, "command": deposit(&id, 1), "acknowledged": 2})));
        assert_eq!(balance(&mut c, &id), 1);
    }
}

#[test]
fn a_connection_ends_when_its_session_has() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("over-{name}");
        let key = new_key();
        let mut other = cluster.nodes[1].connect(encoding);
        let number = other.ask(&json!({"hello": {"version": 2, "open": {"key": key}}}))["welcome"]["session"].clone();
        applied(&other.command(create(&id, 0)));
        let mut c = cluster.nodes[0].connect(encoding);
        c.ask(&json!({"hello": {"version": 2, "session": {"number": number, "key": key}}}));
        other.send(&json!({"goodbye": {}}));
        other.receive_close();
        for request in [5, 6] {
            let answer = c.ask(&json!({"request": request, "command": deposit(&id, 1)}));
            assert_eq!(answer["error"]["code"], "session_expired", "{answer}");
            assert_eq!(answer["error"]["outcome"], "unknown", "{answer}");
        }
        assert_eq!(balance(&mut c, &id), 0);
        let (said, close) = c.receive_close();
        assert_eq!((said.len(), close.map(|close| u16::from(close.code))), (0, Some(1008)));
    }
}

#[test]
fn requests_in_flight_are_answered_each_once_and_in_the_form_of_the_question() {
    let cluster = CLUSTER.get();
    for (encoding, name) in ENCODINGS {
        let id = format!("flight-{name}");
        let mut c = with_session(cluster.nodes[0].connect(encoding));
        applied(&c.command(create(&id, 0)));
        let numbers = 100..600;
        for request in numbers.clone() {
            c.send(&json!({"request": request, "command": deposit(&id, request)}));
        }
        let mut answered = BTreeSet::new();
        for _ in numbers.clone() {
            let answer = c.receive();
            let request = answer["request"].as_u64().unwrap();
            assert_eq!(applied(&answer)["transaction"]["amount"], request);
            assert!(answered.insert(request), "{answer}");
        }
        assert_eq!(balance(&mut c, &id), numbers.sum::<u64>());
        // The other encoding on the same connection.
        let other = if encoding == Encoding::Json { Encoding::MessagePack } else { Encoding::Json };
        c.encoding = other;
        assert_eq!(balance(&mut c, &id), (100..600).sum::<u64>());
    }
}

/// The whole history as a node tells it, oldest first.
fn whole_history(connection: &mut Connection, read: &Value) -> Vec<Value> {
    let mut history: Vec<Value> = Vec::new();
    let mut before = Value::Null;
    loop {
        let query = json!({"get_transaction_history": {"before": before, "limit": 1_000}});
        let answer = connection.query_at(query, read.clone());
        history.extend(answer["ok"]["transactions"].as_array().unwrap().iter().cloned());
        before = answer["ok"]["next"].clone();
        if before.is_null() {
            history.reverse();
            return history;
        }
    }
}

/// The hash of a transaction as clients see it, behind this one.
fn chained(before: Digest, transaction: &Value) -> Digest {
    rabia_bank_model::chained(&serde_json::from_value(transaction.clone()).unwrap(), before)
}

#[test]
fn all_nodes_tell_one_history_whose_hashes_and_balances_anybody_can_check() {
    let cluster = CLUSTER.get();
    let mut c = with_session(cluster.nodes[0].connect(Encoding::Json));
    let ids: Vec<String> = (0..4).map(|number| format!("chain-{number}")).collect();
    for id in &ids {
        applied(&c.command(create(id, 1_000)));
    }
    // More than a page.
    for round in 0..3 {
        let commands: Vec<Value> = (0..500)
            .map(|number| match number % 3 {
                0 => transfer(&ids[number % 4], &ids[(number + round + 1) % 4], 1),
                1 => deposit(&ids[number % 4], 2),
                _ => withdraw(&ids[number % 4], 1),
            })
            .collect();
        applied(&c.command(bulk(false, &commands)));
    }
    let slot = c.command(deposit(&ids[0], 1))["slot"].clone();
    let read = json!({"at_least": slot});
    let histories: Vec<Vec<Value>> = cluster
        .nodes
        .iter()
        .zip([Encoding::Json, Encoding::MessagePack, Encoding::Json])
        .map(|(node, encoding)| whole_history(&mut node.connect(encoding), &read))
        .collect();
    // Others may have written in between: one is a beginning of the other.
    let shortest = histories.iter().min_by_key(|history| history.len()).unwrap();
    assert!(shortest.len() > 1_000, "{}", shortest.len());
    for history in &histories {
        assert_eq!(&history[..shortest.len()], &shortest[..], "the nodes tell different histories");
        check_history(history);
    }
}

/// Ids without a gap, time and slots that never go back, the chain of hashes, and balances that follow from it.
fn check_history(history: &[Value]) {
    let mut head = Digest::ZERO;
    let mut balances = std::collections::BTreeMap::<&str, i64>::new();
    let mut last = (0, 0);
    for (id, transaction) in (1u64..).zip(history) {
        assert_eq!(transaction["transaction_id"], id);
        head = chained(head, transaction);
        assert_eq!(transaction["hash"], head.to_string(), "{transaction}");
        let moment = (transaction["slot"].as_u64().unwrap(), transaction["timestamp"].as_u64().unwrap());
        assert!(moment.0 >= last.0 && moment.1 >= last.1, "{transaction} after {last:?}");
        last = moment;
        let amount = transaction["amount"].as_i64().unwrap();
        for (account, balance, change) in
            [("from_account", "from_balance", -amount), ("to_account", "to_balance", amount)]
        {
            let Some(name) = transaction[account].as_str() else { continue };
            let known = balances.entry(name).or_default();
            *known += change;
            assert!(*known >= 0, "{transaction}");
            assert_eq!(transaction[balance], *known, "{transaction}");
        }
    }
}
