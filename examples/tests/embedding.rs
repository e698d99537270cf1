//! Runs the examples that have a bank inside, as a user would.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port from which `nodes` ports are free, and as many 100 above.
fn free_base_port(nodes: u16) -> u16 {
    for _ in 0..100 {
        let base = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut ports = (0..nodes).flat_map(|n| [base.saturating_add(n), base.saturating_add(100 + n)]);
        if base < 60_000 && ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no free ports");
}

fn run(program: &str, folder: &Path) -> String {
    let Output { status, stdout, stderr } = Command::new(program).arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{said}{}", String::from_utf8_lossy(&stderr));
    said
}

#[test]
fn the_smallest_program_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let (program, folder) = (env!("CARGO_BIN_EXE_smallest"), dir.path().join("data"));
    assert_eq!(run(program, &folder), "opened the jar\nthe jar has 25\n");
    assert_eq!(run(program, &folder), "the jar has 50\n");
}

#[test]
fn the_game_pays_with_gold_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(env!("CARGO_BIN_EXE_game_economy"), &dir.path().join("data"));
    for line in [
        "ada has 150 gold",
        "hear, hear: ada paid 120 gold to shop",
        "bob gets no sword: insufficient_funds",
        "hear, hear: bob paid 200 gold to ada",
        "ada: [], bob: [\"sword\"]",
        "ada has 230 gold",
    ] {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
}

/// The REST service as a process.
struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start(folder: &Path, base_port: u16) -> Service {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rest_service"))
            .args(["--port", "0", "--base-port", &base_port.to_string(), "--data-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("REST on http://").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Service { child, address }
    }

    /// The status, the headers and the body of the answer.
    fn ask(&self, method: &str, path: &str, key: Option<&str>, body: Option<Value>) -> (u16, String, Value) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
             {key}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn post(&self, path: &str, key: &str, body: Value) -> (u16, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, head, answer) = self.ask("POST", path, Some(key), Some(body.clone()));
            assert_eq!(head.contains("idempotency-replayed: true"), status == 200, "{head}");
            // Nobody knows yet: the same key is asked again, as a user of the service would.
            if status != 503 {
                return (status, answer);
            }
            assert!(Instant::now() < deadline, "still {answer}");
        }
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, answer) = self.ask("GET", path, None, None);
        (status, answer)
    }

    fn end(mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.success(), signal != Signal::SIGKILL, "{status}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_rest_service_executes_once_for_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, port) = (dir.path().join("data"), free_base_port(3));
    let service = Service::start(&folder, port);
    let account = |name: &str, balance: i64| json!({"account_id": name, "initial_balance": balance});
    let (status, alice) = service.post("/accounts", "open-alice", account("alice", 1_000));
    assert_eq!((status, &alice["account"]["balance"]), (201, &json!(1_000)), "{alice}");
    assert_eq!(service.post("/accounts", "open-bob", account("bob", 0)).0, 201);
    assert_eq!(service.post("/accounts", "open-bob-2", account("bob", 0)).0, 409);
    assert_eq!(service.post("/accounts", "open-x", account("x", -1)).1["error"]["code"], "invalid_amount");

    let transfer = |amount: u64| json!({"from_account": "alice", "to_account": "bob", "amount": amount});
    let (status, paid) = service.post("/transfers", "rent", transfer(300));
    assert_eq!((status, &paid["transaction"]["from_balance"]), (201, &json!(700)));
    for _ in 0..6 {
        // Each time at another node.
        assert_eq!(service.post("/transfers", "rent", transfer(300)), (200, paid.clone()));
    }
    let (status, reused) = service.post("/transfers", "rent", transfer(301));
    assert_eq!((status, &reused["error"]["code"]), (409, &json!("request_reused")));
    let (status, poor) = service.post("/transfers", "too-much", transfer(5_000));
    assert_eq!((status, &poor["error"]["code"]), (422, &json!("insufficient_funds")));
    assert_eq!(service.post("/accounts/carol/deposits", "d", json!({"amount": 1})).0, 404);
    assert_eq!(service.post("/accounts/bob/deposits", "pay", json!({"amount": 5})).0, 201);
    assert_eq!(service.post("/accounts/bob/withdrawals", "fee", json!({"amount": 2})).0, 201);
    let (status, _, keyless) = service.ask("POST", "/transfers", None, Some(transfer(1)));
    assert_eq!((status, &keyless["error"]["code"]), (400, &json!("malformed")));
    let (status, _, garbage) = service.ask("POST", "/transfers", Some("g"), Some(json!({"from_account": "alice"})));
    assert_eq!((status, &garbage["error"]["code"]), (400, &json!("malformed")));
    assert_eq!(service.get("/accounts/nobody").0, 404);

    // All three nodes die at once with the process; what was acknowledged is there, and keys are remembered.
    service.end(Signal::SIGKILL);
    let service = Service::start(&folder, port);
    assert_eq!(service.post("/transfers", "rent", transfer(300)), (200, paid));
    assert_eq!(service.post("/transfers", "too-much", transfer(5_000)), (422, poor));
    let (status, bob) = service.get("/accounts/bob");
    assert_eq!((status, &bob["account"]["balance"]), (200, &json!(303)));
    let (_, page) = service.get("/accounts/bob/history?limit=2");
    let types: Vec<&str> =
        page["transactions"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["withdrawal", "deposit"]);
    let (_, states) = service.get("/status");
    assert_eq!(states.as_array().unwrap().len(), 3);
    assert!(states.as_array().unwrap().iter().all(|state| state["total_balance"] == 1_003), "{states}");
    service.end(Signal::SIGTERM);
}
