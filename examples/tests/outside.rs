//! Clients that are no Rust: the page in a real browser, the ES module in Node.js, the Python script. And the monitor.
//!
//! They need chromium, node and python3 with the packages websockets and msgpack. A test whose tools are not there says so and
//! passes, unless `RABIA_BANK_ALL_CLIENTS` is set.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test says what failed by failing

mod browser;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use browser::Browser;
use rabia_bank::bank::MAX_BALANCE;
use rabia_bank::client::{BankCalls, Client, ClientOptions, NodeUrl, TOKEN_VARIABLE, Token};
use rabia_bank::create::{CERTIFICATE_FILE, NewCertificate, NewCluster, create_or_open};
use rabia_bank::embed::Embedded;
use rabia_bank::tokens::client_token;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// A port from which three ports are free, and as many 100 above.
fn free_base_port() -> u16 {
    for _ in 0..100 {
        let base = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut ports = (0..3).flat_map(|n| [base.saturating_add(n), base.saturating_add(100 + n)]);
        if base < 60_000 && ports.all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no free ports");
}

/// Whether a test can go on. Where it can't, a person is told why.
fn have(what: &str, there: bool) -> bool {
    if !there {
        assert!(std::env::var_os("RABIA_BANK_ALL_CLIENTS").is_none(), "{what} is not installed");
        println!("skipped: {what} is not installed");
    }
    there
}

fn works(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// Three nodes in this process, on threads of their own.
struct Cluster {
    nodes: Vec<Embedded>,
    urls: Vec<String>,
    token: String,
    folder: tempfile::TempDir,
}

fn cluster() -> Cluster {
    cluster_with(None, &[])
}

/// One that speaks TLS with clients, pages of these origins among them, and the certificate to trust.
fn secured_cluster(origins: &[String]) -> (Cluster, PathBuf) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let tls = NewCertificate { certificate: cert.pem(), key: signing_key.serialize_pem() };
    let cluster = cluster_with(Some(tls), origins);
    let trusted = cluster.folder.path().join("data").join(CERTIFICATE_FILE);
    (cluster, trusted)
}

fn cluster_with(tls: Option<NewCertificate>, origins: &[String]) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    let new = NewCluster {
        tls,
        base_port: free_base_port(),
        transaction_limit: MAX_BALANCE,
        ..NewCluster::new(folder.path().join("data"), 3)
    };
    let mut configs = create_or_open(&new).unwrap();
    configs.iter_mut().for_each(|config| config.allowed_origins.extend_from_slice(origins));
    let urls = configs.iter().map(|config| format!("{scheme}://{}", config.client_listen)).collect();
    let nodes = configs.into_iter().map(|config| Embedded::start_on_thread(config).unwrap()).collect();
    let token = token_in(&folder.path().join("data"));
    Cluster { nodes, urls, token, folder }
}

/// The token for the daily business of the cluster in this folder.
fn token_in(data_dir: &Path) -> String {
    std::fs::read_to_string(client_token(data_dir)).unwrap().trim().to_owned()
}

/// Options of a client with this token.
fn options(urls: Vec<NodeUrl>, token: &str) -> ClientOptions {
    ClientOptions { token: Some(Token::from(token)), ..ClientOptions::new(urls) }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn said(output: &Output) -> String {
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{wrong}");
    said.into_owned()
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_is_written_in_python_from_the_wire_format_alone() {
    let python = std::env::var("RABIA_BANK_PYTHON").unwrap_or_else(|_| "python3".into());
    if !have("python3 with websockets and msgpack", works(&python, &["-c", "import websockets.sync.client, msgpack"])) {
        return;
    }
    let lines = std::fs::read_to_string(here("python/rabia_bank.py")).unwrap().lines().count();
    assert!(lines < 70, "the script has {lines} lines");
    let cluster = cluster();
    // The first URL leads nowhere: the next one is tried.
    let output = Command::new(&python)
        .arg(here("python/rabia_bank.py"))
        .arg("ws://127.0.0.1:9")
        .args(&cluster.urls)
        .env(TOKEN_VARIABLE, &cluster.token)
        .output();
    let expected = "replayed: True same: True\nrefused: insufficient_funds bob has 300\nseen: 300\n";
    assert_eq!(said(&output.unwrap()), expected);
    // Over TLS it trusts what Python's library for it trusts.
    let (cluster, trusted) = secured_cluster(&[]);
    let script = || {
        let mut command = Command::new(&python);
        command.arg(here("python/rabia_bank.py")).args(&cluster.urls).env(TOKEN_VARIABLE, &cluster.token);
        command
    };
    assert_eq!(said(&script().env("SSL_CERT_FILE", trusted).output().unwrap()), expected);
    let stranger =
        "import sys; sys.path.insert(0, sys.argv[1]); import rabia_bank; rabia_bank.Bank(sys.argv[2:]).reach()";
    let output = Command::new(&python).args(["-c", stranger]).arg(here("python")).args(&cluster.urls).output().unwrap();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && wrong.contains("CERTIFICATE_VERIFY_FAILED"), "{wrong}");
}

#[test]
fn the_script_in_python_understands_nodes_of_later_versions() {
    let python = std::env::var("RABIA_BANK_PYTHON").unwrap_or_else(|_| "python3".into());
    if have("python3 with websockets and msgpack", works(&python, &["-c", "import websockets.sync.client, msgpack"])) {
        let output =
            Command::new(python).arg(here("tests/scripted.py")).env("PYTHONPATH", here("python")).output().unwrap();
        assert_eq!(said(&output), "passed\n");
    }
}

#[test]
fn the_module_never_guesses_and_never_rounds() {
    if have("node", works("node", &["-e", "0"])) {
        let output = Command::new("node").arg(here("tests/scripted.mjs")).output().unwrap();
        assert!(said(&output).ends_with(" tests passed\n"), "{output:?}");
    }
}

#[test]
fn the_module_works_in_node_over_nodes_that_stop() {
    let websocket: &[&str] = if works("node", &["-e", "process.exit(globalThis.WebSocket ? 0 : 1)"]) {
        &[]
    } else {
        &["--experimental-websocket", "--no-warnings"]
    };
    if have("node with a WebSocket", works("node", &[websocket, &["-e", "0"]].concat())) {
        for encoding in ["json", "messagepack"] {
            the_module_works(websocket, encoding, &cluster(), None);
        }
        let (cluster, trusted) = secured_cluster(&[]);
        the_module_works(websocket, "json", &cluster, Some(&trusted));
    }
}

fn the_module_works(websocket: &[&str], encoding: &str, cluster: &Cluster, trusted: Option<&Path>) {
    let mut node = Command::new("node");
    node.env(TOKEN_VARIABLE, &cluster.token);
    node.envs(trusted.map(|trusted| ("NODE_EXTRA_CA_CERTS", trusted)));
    node.args(websocket).arg(here("tests/module.mjs")).arg(encoding).args(&cluster.urls);
    let mut running = Running(node.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap_or_else(|| panic!("the script has ended")).unwrap();
    assert_eq!(next(), "checks passed");
    assert_eq!(next(), "moving");
    // The node that it is connected to.
    block_on(cluster.nodes[0].stop()).unwrap();
    assert_eq!(next(), "moved 400 and heard of all");
    assert!(running.0.wait().unwrap().success());
}

#[test]
fn the_page_opens_an_account_moves_money_and_shows_the_live_feed() {
    let Some(chromium) = Browser::find() else {
        have("chromium", false);
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut page = Command::new(env!("CARGO_BIN_EXE_web_page"))
        .args(["--port", "0", "--base-port", &free_base_port().to_string(), "--data-dir"])
        .arg(folder.path().join("data"))
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let mut line = String::new();
    BufReader::new(page.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("open ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    block_on(async {
        let mut browser = Browser::start(&chromium, folder.path()).await;
        browser.open(&url).await;
        browser
            .wait(
                "the page is connected",
                "document.querySelector('#connection').textContent.startsWith('connected to node')",
            )
            .await;
        let submit = |form: &str, values: serde_json::Value| {
            format!(
                "(() => {{ const form = document.querySelector('{form}');
                   for (const [name, value] of Object.entries({values})) form.elements[name].value = value;
                   form.requestSubmit(); }})()"
            )
        };
        let output = |form: &str| format!("document.querySelector('{form} output').textContent");
        for (account, balance) in [("alice", "1000"), ("bob", "0")] {
            browser.evaluate(&submit("#open", json!({"account": account, "balance": balance}))).await;
            browser.wait(account, &format!("{} === '{account} is open'", output("#open"))).await;
        }
        browser.evaluate(&submit("#move", json!({"from": "alice", "to": "bob", "amount": "300"}))).await;
        browser.wait("money moves", &format!("{} === 'done: alice has 700, bob has 300'", output("#move"))).await;
        browser.evaluate(&submit("#move", json!({"from": "bob", "to": "alice", "amount": "301"}))).await;
        browser.wait("a refusal is shown", &format!("{}.startsWith('insufficient_funds')", output("#move"))).await;
        browser.evaluate(&submit("#look", json!({"account": "bob"}))).await;
        browser.wait("the balance is shown", &format!("{} === 'bob has 300'", output("#look"))).await;
        // Somebody else's money shows up, too.
        let urls = browser.evaluate("fetch('./nodes.json').then((urls) => urls.json())").await;
        let urls: Vec<NodeUrl> =
            urls.as_array().unwrap().iter().map(|url| url.as_str().unwrap().parse().unwrap()).collect();
        let client = Client::connect(options(urls, &token_in(&folder.path().join("data"))));
        client.deposit("bob", 12_345).await.unwrap();
        client.close().await;
        let feed = "[...document.querySelectorAll('#feed tr')].map((row) => [...row.cells].map((cell) => cell.textContent).filter((_, i) => i != 1).join(' ').trim())";
        browser.wait("the feed shows it", &format!("({feed})[0] === '4 deposit  bob 12,345'")).await;
        let rows = browser.evaluate(feed).await;
        let expected =
            ["4 deposit  bob 12,345", "3 transfer alice bob 300", "2 opening  bob 0", "1 opening  alice 1,000"];
        assert_eq!(rows, json!(expected));
        let figures =
            "['accounts', 'transactions', 'total'].map((id) => document.getElementById(id).textContent).join()";
        browser.wait("the figures follow", &format!("{figures} === '2,4,13,345'")).await;
        if let Some(path) = std::env::var_os("RABIA_BANK_SCREENSHOT") {
            std::fs::write(path, browser.screenshot().await).unwrap();
        }
        let foreign = "new Promise((resolve) => { const socket = new WebSocket((window.node = new URL('/v1/client', NODE)).href); socket.onopen = () => socket.send('{\"hello\": {\"version\": 1}}'); socket.onmessage = () => resolve('welcome'); socket.onclose = (event) => resolve('closed ' + event.code); })";
        let node = browser.evaluate("fetch('./nodes.json').then((urls) => urls.json()).then((urls) => urls[0])").await;
        assert_eq!(browser.evaluate(&foreign.replace("NODE", &node.to_string())).await, "welcome");
        // Over TLS, to a cluster that lets pages of this origin in.
        let (secured, _) = secured_cluster(&[url.trim_end_matches('/').to_owned()]);
        let deposit = format!(
            "import('./rabia-bank.mjs').then(async ({{ RabiaBank }}) => {{
                 const bank = new RabiaBank({urls}, {{ token: '{token}' }});
                 await bank.createAccount('carol', 5);
                 return String((await bank.deposit('carol', 2)).transaction.to_balance);
             }})",
            urls = json!(secured.urls),
            token = secured.token
        );
        assert_eq!(browser.evaluate(&deposit).await, "7");
        // The same page under another name is another origin, which no node was told of.
        browser.open(&url.replace("127.0.0.1", "localhost")).await;
        assert_eq!(browser.evaluate(&foreign.replace("NODE", &node.to_string())).await, "closed 1008");
    });
}

#[test]
fn the_monitor_raises_alerts() {
    let cluster = cluster();
    block_on(async {
        let urls = cluster.urls.iter().map(|url| url.parse().unwrap()).collect();
        let client = Client::connect(options(urls, &cluster.token));
        client.create_account("mule", 50_000).await.unwrap();
        client.create_account("nest", 0).await.unwrap();
        client.deposit("nest", 100_000).await.unwrap();
        for amount in [9_999, 10_000, 5, 6, 7] {
            client.transfer("mule", "nest", amount).await.unwrap();
        }
        client.transfer("nest", "mule", 200_000).await.unwrap_err();
        client.transfer("nest", "mule", 110_000).await.unwrap();
        client.transfer("mule", "nest", 8).await.unwrap();
        client.close().await;
    });
    let mut monitor = Command::new(env!("CARGO_BIN_EXE_monitor"))
        .args(["--from", "1", "--connect", &cluster.urls.join(",")])
        .env(TOKEN_VARIABLE, &cluster.token)
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .unwrap();
    let lines = BufReader::new(monitor.0.stdout.take().unwrap()).lines();
    let began = Instant::now();
    let alerts: Vec<String> = lines.map(Result::unwrap).take(3).collect();
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(
        alerts,
        [
            "large: #3, a deposit of 100000",
            "large: #9, a transfer of 110000",
            "many small: 5 transfers from mule within 60 s, the last is #10"
        ]
    );
}
