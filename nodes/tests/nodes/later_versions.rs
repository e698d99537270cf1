//! The program as a client of nodes of a later version, which a script plays: what they say that is new to it comes out as it
//! came, means what the wire page says that it means, and is never asked for again and again.

use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};

use crate::support::program;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, accept};

/// A node that answers as a script says, in JSON, on any number of connections.
struct LaterNode {
    url: String,
    /// Requests that it was asked.
    asked: Arc<Mutex<Vec<Value>>>,
}

type Script = dyn Fn(&Value) -> Vec<Value> + Send + Sync;

impl LaterNode {
    fn start(script: impl Fn(&Value) -> Vec<Value> + Send + Sync + 'static) -> LaterNode {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (asked, script): (Arc<Mutex<Vec<Value>>>, Arc<Script>) = (Arc::default(), Arc::new(script));
        let node = LaterNode { url, asked: asked.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, script) = (asked.clone(), script.clone());
                // The client may end the connection at any time.
                std::thread::spawn(move || _ = serve(stream.unwrap(), &asked, &*script));
            }
        });
        node
    }

    fn client(&self, line: &str) -> Output {
        program(["client", "--connect", &self.url]).args(line.split(' ')).output().unwrap()
    }

    /// How many requests have this field.
    fn count(&self, field: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|message| message.get(field).is_some()).count()
    }
}

fn serve(stream: TcpStream, asked: &Mutex<Vec<Value>>, script: &Script) -> Option<()> {
    let mut socket = accept(stream).ok()?;
    loop {
        let Message::Text(text) = socket.read().ok()? else { continue };
        let message: Value = serde_json::from_str(&text).ok()?;
        if let Some(hello) = message.get("hello") {
            let mut welcome = json!({"node": 1, "cluster": "0".repeat(32), "applied_slot": 3, "level": 2, "nodes": []});
            if hello.get("open").is_some() {
                welcome["session"] = json!(7);
            }
            socket.send(Message::text(json!({"welcome": welcome}).to_string())).ok()?;
        } else if message.get("goodbye").is_none() {
            asked.lock().unwrap().push(message.clone());
            socket.send(Message::text(r#"{"notice":{"text":"closed on Sunday"}}"#)).ok()?;
            for mut answer in script(&message) {
                if answer.get("subscription").is_none() {
                    answer["request"] = message["request"].clone();
                }
                socket.send(Message::text(answer.to_string())).ok()?;
            }
        }
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A transaction of a type, and with fields, that this program does not know.
fn hold() -> Value {
    json!({"transaction_id": 1, "type": "hold", "from_account": "alice", "amount": 5, "from_balance": 7,
        "timestamp": 1_760_000_000_000_u64, "slot": 3, "hash": "ab".repeat(32), "reference": "auth-9", "held": -5})
}

#[test]
fn records_with_new_types_and_fields_come_out_as_they_came() {
    let page = json!({"slot": 3, "ok": {"transactions": [hold()]}, "trace": "x"});
    let answer = page.clone();
    let node = LaterNode::start(move |_| vec![answer.clone()]);
    let people = node.client("history alice");
    assert!(people.status.success(), "{people:?}");
    for part in ["#1 ", "hold", "alice (now 7)", "reference=\"auth-9\"", "held=-5"] {
        assert!(stdout(&people).contains(part), "{part} in {}", stdout(&people));
    }
    let programs = node.client("--json history alice");
    let mut printed: Value = serde_json::from_str(&stdout(&programs)).unwrap();
    printed.as_object_mut().unwrap().remove("request");
    assert_eq!(printed, page);
    assert_eq!(node.count("query"), 2);
}

#[test]
fn a_feed_prints_what_is_new_and_ends_where_it_can_read_nothing_more() {
    let node = LaterNode::start(|message| {
        let from = message["subscribe"]["from"].as_u64().unwrap();
        let mut answers = vec![json!({"slot": 3, "ok": {"from": from}})];
        if from == 1 {
            answers.push(json!({"subscription": message["request"], "transaction": hold()}));
        }
        answers.push(json!({"subscription": message["request"], "changes": []}));
        answers
    });
    let watch = node.client("--json watch --from 1");
    assert!(!watch.status.success(), "{watch:?}");
    let printed: Value = serde_json::from_str(stdout(&watch).lines().next().unwrap()).unwrap();
    assert_eq!(printed, hold());
    assert_eq!(node.count("subscribe"), 3);
}

#[test]
fn a_refusal_with_a_new_code_is_a_refusal() {
    let error = |code: &str| json!({"code": code, "message": "too late", "outcome": "refused", "hold": 77});
    let exits = ["insufficient_funds", "hold_expired"].map(|code| {
        let answer = json!({"slot": 3, "index": 0, "error": error(code), "replayed": false});
        let node = LaterNode::start(move |_| vec![answer.clone()]);
        let refused = node.client("deposit alice 5");
        assert!(stderr(&refused).contains(code), "{refused:?}");
        assert!(stderr(&refused).contains("hold=77"), "{refused:?}");
        assert_eq!(node.count("command"), 1, "it was asked again");
        refused.status.code()
    });
    assert_eq!(exits[0], exits[1]);
    assert!(exits[0].is_some_and(|code| code > 0));
}

#[test]
fn an_answer_that_cant_be_read_is_unknown_and_printed_as_it_came() {
    let refused = LaterNode::start(|_| {
        vec![json!({"slot": 3, "error": {"code": "insufficient_funds", "message": "", "outcome": "refused"}})]
    });
    let refused = refused.client("deposit alice 5").status.code();
    for answer in [
        json!({"deferred": {"until": 5}}),
        json!({"error": {"code": "busy", "message": "", "outcome": "perhaps"}}),
        json!({"slot": 3, "ok": {"transaction": {"transaction_id": "first"}}}),
    ] {
        let said = answer.clone();
        let node = LaterNode::start(move |_| vec![said.clone()]);
        let unknown = node.client("--json --timeout 5 deposit alice 5");
        assert!(!unknown.status.success() && unknown.status.code() != refused, "{answer}: {unknown:?}");
        let mut printed: Value = serde_json::from_str(&stdout(&unknown)).unwrap();
        printed.as_object_mut().unwrap().remove("request");
        assert_eq!(printed, answer);
        assert_eq!(node.count("command"), 1, "{answer}: it was asked again");
    }
}

#[test]
fn what_is_unknown_for_a_new_reason_is_not_pressed_for() {
    let error = json!({"code": "postponed", "message": "wait", "outcome": "unknown"});
    let node = LaterNode::start(move |_| vec![json!({"error": error})]);
    let unknown = node.client("--timeout 4 deposit alice 5");
    assert!(!unknown.status.success(), "{unknown:?}");
    assert!(stderr(&unknown).contains("postponed"), "{unknown:?}");
    let asked = node.count("command");
    assert!((2..=8).contains(&asked), "asked {asked} times in 4 s");
}
