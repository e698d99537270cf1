//! TLS for clients, with the real program: certificates that change while the node serves, that expire, that clients show, and what
//! becomes of who speaks anything else.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::wire::{certificate, connect, hello_of_tls_1_2, read_all, secured, trusting_all};
use crate::support::{Cluster, Node, PATIENCE, open_socket, program, signal, wait_until};
use nix::sys::signal::Signal;
use rabia_bank::config::{NodeConfig, TlsFiles};
use rabia_bank_messages::client::CLIENT_PATH;
use rabia_bank_messages::codec::Encoding;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// The exit code of a node that refuses to start.
const REFUSED: i32 = 3;
/// The exit code of a client that reached nobody.
const NOT_REACHED: i32 = 5;
const DAY: Duration = Duration::from_secs(86_400);

/// A certificate for this machine that expires then, signed by itself, and its key.
fn made(expires: SystemTime) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - 100 * DAY).into();
    params.not_after = expires.into();
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), key)
}

fn files(config: &NodeConfig) -> TlsFiles {
    let in_folder = |name: &str| config.data_dir.join(name);
    TlsFiles { certificate: in_folder("cert.pem"), key: in_folder("key.pem"), client_ca: None }
}

fn put(files: &TlsFiles, (certificate, key): &(Certificate, KeyPair)) {
    fs::write(&files.certificate, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
}

/// A node that shows this certificate, not started.
fn node_with(pair: &(Certificate, KeyPair)) -> Cluster {
    let cluster = Cluster::create_with(1, |config| config.tls = Some(files(config)));
    put(&files(&cluster.nodes[0].config), pair);
    cluster
}

fn client(node: &Node, ca: &Path, args: &[&str]) -> Output {
    program(["client", "--connect", &node.url(), "--timeout", "3", "--ca"]).arg(ca).args(args).output().unwrap()
}

/// The certificate that a new connection is shown.
fn shown(node: &Node) -> Vec<u8> {
    certificate(&secured(connect(node.address()).unwrap(), trusting_all()).unwrap())
}

#[test]
fn certificates_change_under_load_without_a_failed_request() {
    let year = SystemTime::now() + 365 * DAY;
    let pairs: Vec<_> = (0..7).map(|_| made(year)).collect();
    let cluster = node_with(&pairs[0]).started();
    let node = &cluster.nodes[0];
    let files = files(&node.config);
    let mut first = node.connect(Encoding::Json);
    assert!(first.command(json!({"create_account": {"account_id": "a", "initial_balance": 0}}))["ok"].is_object());
    let (stop, paid, came) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let deposit = || json!({"deposit": {"account_id": "a", "amount": 1}});
    std::thread::scope(|scope| {
        let (stop, paid, came) = (&stop, &paid, &came);
        for _ in 0..3 {
            // One connection all the time …
            let mut connection = node.connect(Encoding::Json);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = connection.command(deposit());
                    assert!(answer["ok"].is_object(), "{answer}");
                    paid.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // … and a new one for each request. None is tried again.
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let answer = node.connect(Encoding::MessagePack).command(deposit());
                assert!(answer["ok"].is_object(), "{answer}");
                paid.fetch_add(1, Ordering::Relaxed);
                came.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Whatever fails, the load ends.
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (number, pair) in pairs.iter().enumerate().skip(1) {
                if number == 3 {
                    // A key of another certificate: the former pair goes on to be used.
                    fs::write(&files.key, pairs[5].1.serialize_pem()).unwrap();
                    wait_until("it is told", PATIENCE, || node.log().contains("have changed and can't be used"));
                    assert_eq!(shown(node), pairs[2].0.der().to_vec());
                }
                put(&files, pair);
                if number % 2 == 0 {
                    signal(node.pid(), Signal::SIGHUP);
                }
                wait_until("the new one is shown", PATIENCE, || shown(node) == pair.0.der().to_vec());
            }
            wait_until("there is load", PATIENCE, || came.load(Ordering::Relaxed) > 50);
        }));
        stop.store(true, Ordering::Relaxed);
        changes.unwrap();
    });
    let answer = first.query(json!({"get_balance": {"account_id": "a"}}));
    assert_eq!(answer["ok"]["balance"], paid.load(Ordering::Relaxed));
    // Files that are gone change nothing either.
    fs::remove_file(&files.certificate).unwrap();
    signal(node.pid(), Signal::SIGHUP);
    wait_until("it is told", PATIENCE, || node.log().contains(&format!("can't read {}", files.certificate.display())));
    assert_eq!(shown(node), pairs[6].0.der().to_vec());
}

#[test]
fn an_expired_certificate_is_refused_by_clients_and_warned_of_by_its_node() {
    let expired = SystemTime::now() - DAY;
    let pair = made(expired);
    let cluster = node_with(&pair).started();
    let node = &cluster.nodes[0];
    let files = files(&node.config);
    let output = client(node, &files.certificate, &["status"]);
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(NOT_REACHED), "{said}");
    assert!(said.contains("expired"), "{said}");
    wait_until("it is warned of", PATIENCE, || node.log().contains("the certificate for clients has expired"));
    let expires_at = node.status().unwrap()["certificate_expires_at"].as_u64().unwrap();
    assert_eq!(expires_at / 1_000, expired.duration_since(UNIX_EPOCH).unwrap().as_secs());
    // From thirty days before its end on.
    for (days, words) in [(29, true), (40, false)] {
        let before = node.log().len();
        put(&files, &made(SystemTime::now() + days * DAY));
        wait_until("it is read", PATIENCE, || node.log()[before..].contains("there is another certificate"));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(node.log()[before..].contains("expires soon"), words, "{}", node.log());
        let output = client(node, &files.certificate, &["status"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.contains("the certificate of node 1 expires"), words, "{said}");
    }
    // And nobody trusts it whom nobody told to.
    let other = cluster.dir.path().join("other.pem");
    fs::write(&other, pair.0.pem()).unwrap();
    assert_eq!(client(node, &other, &["balance", "a"]).status.code(), Some(NOT_REACHED));
}

#[test]
fn who_speaks_plain_or_an_older_tls_is_closed() {
    let cluster = node_with(&made(SystemTime::now() + 100 * DAY)).started();
    let node = &cluster.nodes[0];
    assert!(open_socket(node.address(), CLIENT_PATH, &[]).is_err());
    let mut stream = connect(node.address()).unwrap();
    stream.write_all(b"GET /v1/client HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(read_all(&mut stream).is_empty(), "something is said to who speaks plain");
    wait_until("it is told", PATIENCE, || node.log().contains("no TLS came about"));
    let mut stream = connect(node.address()).unwrap();
    stream.write_all(&hello_of_tls_1_2()).unwrap();
    let answer = read_all(&mut stream);
    assert!(answer.starts_with(&[21, 3]) && answer.ends_with(&[0, 2, 2, 70]), "{answer:?}");
    let output =
        program(["client", "--timeout", "1", "--connect", &format!("ws://{}", node.address()), "status"]).output();
    assert_eq!(output.unwrap().status.code(), Some(NOT_REACHED));
    // And a client that wants TLS takes nothing less.
    let plain = Cluster::start(1);
    let url = format!("wss://{}", plain.nodes[0].address());
    let ca = files(&node.config).certificate;
    let output = program(["client", "--timeout", "1", "--connect", &url, "status", "--ca"]).arg(ca).output();
    assert_eq!(output.unwrap().status.code(), Some(NOT_REACHED));
}

/// An authority, and a certificate for clients that it has signed, in this folder.
fn authority(folder: &Path, name: &str) -> (PathBuf, [PathBuf; 2]) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(["a client".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    let paths = ["ca", "client", "key"].map(|what| folder.join(format!("{name}-{what}.pem")));
    for (path, text) in paths.iter().zip([certificate.pem(), signed.pem(), own.serialize_pem()]) {
        fs::write(path, text).unwrap();
    }
    let [ca, client, key] = paths;
    (ca, [client, key])
}

#[test]
fn only_clients_of_the_authorities_are_let_in_where_there_are_some() {
    let temp = tempfile::tempdir().unwrap();
    let (first_ca, first) = authority(temp.path(), "first");
    let (second_ca, second) = authority(temp.path(), "second");
    let pair = made(SystemTime::now() + 100 * DAY);
    let mut cluster = Cluster::create_with(1, |config| {
        let client_ca = Some(config.data_dir.join("clients.pem"));
        config.tls = Some(TlsFiles { client_ca, ..files(config) });
    });
    put(&files(&cluster.nodes[0].config), &pair);
    let clients = cluster.nodes[0].config.data_dir.join("clients.pem");
    fs::copy(&first_ca, &clients).unwrap();
    cluster.nodes[0].start();
    let node = &cluster.nodes[0];
    let certificate = files(&node.config).certificate;
    let code = |shown: Option<&[PathBuf; 2]>| {
        let shown = shown.iter().flat_map(|[client, key]| {
            ["--client-certificate".as_ref(), client.as_os_str(), "--client-key".as_ref(), key.as_os_str()]
        });
        let mut command = program(["client", "--connect", &node.url(), "--timeout", "2", "--ca"]);
        command.arg(&certificate).args(shown.collect::<Vec<_>>()).arg("status").output().unwrap().status.code()
    };
    wait_until("the node serves", PATIENCE, || code(Some(&first)) == Some(0));
    assert_eq!(code(None), Some(NOT_REACHED));
    assert_eq!(code(Some(&second)), Some(NOT_REACHED));
    assert!(node.try_connect(Encoding::Json).is_err());
    // Authorities change as certificates do.
    fs::copy(&second_ca, &clients).unwrap();
    wait_until("the second is let in", PATIENCE, || code(Some(&second)) == Some(0));
    assert_eq!(code(Some(&first)), Some(NOT_REACHED));
}

/// A client's certificate speaks for a principal, like a token, where an administrator has put it.
#[test]
fn a_clients_certificate_is_shown_in_the_place_of_a_token() {
    let temp = tempfile::tempdir().unwrap();
    let (authorities, [certificate, key]) = authority(temp.path(), "clients");
    let cluster = Cluster::create_as(3, &["--tls-self-signed"], |config| {
        fs::copy(&authorities, config.data_dir.join("clients.pem")).unwrap();
        let tls = config.tls.clone().unwrap();
        config.tls = Some(TlsFiles { client_ca: Some(config.data_dir.join("clients.pem")), ..tls });
    });
    let mut cluster = cluster;
    cluster.nodes.iter_mut().for_each(Node::start);
    let folder = cluster.dir.path().join("bank");
    let run = |args: &[&str], token: Option<&Path>| {
        let mut command = program(args);
        command.env_remove("RABIA_BANK_TOKEN").current_dir(temp.path()).args(["--connect", &cluster.urls()]);
        command.arg("--ca").arg(folder.join("tls.pem")).arg("--client-certificate").arg(&certificate);
        command.arg("--client-key").arg(&key);
        if let Some(token) = token {
            command.arg("--token-file").arg(token);
        }
        command.output().unwrap()
    };
    let admin = folder.join("admin/token");
    wait_until("the nodes serve", PATIENCE, || {
        let all = [
            "principal",
            "put",
            "shop",
            "--role",
            "manager",
            "--role",
            "minter",
            "--credit",
            "shop:",
            "--read",
            "shop:",
        ];
        run(&all, Some(&admin)).status.success()
    });
    let balance = ["client", "create-account", "shop:till", "5"];
    // It lets its client speak TLS, and nothing else yet.
    let before = run(&balance, None);
    assert!(String::from_utf8_lossy(&before.stderr).contains("not_authorised"), "{before:?}");
    let put = run(&["token", "create", "shop", "--json", "--certificate", certificate.to_str().unwrap()], Some(&admin));
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    let made = run(&balance, None);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let beyond = run(&["client", "create-account", "other", "5"], None);
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("not_authorised"), "{beyond:?}");
    // It is revoked as a token is.
    let id = serde_json::from_slice::<Value>(&put.stdout).unwrap()["token_id"].as_str().unwrap().to_owned();
    assert!(run(&["token", "revoke", &id], Some(&admin)).status.success());
    wait_until("it is revoked", PATIENCE, || {
        let after = run(&["client", "balance", "shop:till"], None);
        String::from_utf8_lossy(&after.stderr).contains("not_authorised")
    });
}

#[test]
fn a_certificate_for_trying_out_is_made_and_trusted_without_a_word() {
    let cluster = Cluster::create_as(3, &["--tls-self-signed"], |_| ()).started();
    let usual = cluster.dir.path().join("rabia-bank-data");
    std::os::unix::fs::symlink(cluster.dir.path().join("bank"), usual).unwrap();
    let here = |args: &[&str]| program(args).current_dir(cluster.dir.path()).output().unwrap();
    let urls = cluster.urls();
    assert!(urls.starts_with("wss://"), "{urls}");
    let output = here(&["client", "--connect", &urls, "create-account", "alice", "5"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = here(&["client", "--connect", &urls, "status"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Elsewhere it has to be named.
    let elsewhere =
        program(["client", "--connect", &urls, "--timeout", "2", "status"]).current_dir("/").output().unwrap();
    assert_eq!(elsewhere.status.code(), Some(NOT_REACHED), "{}", String::from_utf8_lossy(&elsewhere.stderr));
    let ca = cluster.dir.path().join("bank/tls.pem");
    assert!(client(&cluster.nodes[1], &ca, &["balance", "alice"]).status.success());
}

#[test]
fn beyond_this_machine_clients_get_tls_or_somebody_has_said_otherwise() {
    let open = |config: &mut NodeConfig| config.client_listen.set_ip([0, 0, 0, 0].into());
    let mut cluster = Cluster::create_with(1, open);
    let node = &mut cluster.nodes[0];
    node.start();
    assert_eq!(node.wait().code(), Some(REFUSED));
    assert!(node.log().contains("beyond this machine") && node.log().contains("insecure = true"), "{}", node.log());
    node.config.insecure = true;
    fs::write(&node.config_path, node.config.to_toml()).unwrap();
    for starts in 1..=2 {
        node.start();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], node.address().port()));
        wait_until("it serves", PATIENCE, || crate::support::status_of(address).is_some());
        assert_eq!(node.log().matches("insecure: clients are served without TLS").count(), starts, "{}", node.log());
        node.stop();
    }
    node.config.insecure = false;
    node.config.tls = Some(files(&node.config));
    put(&files(&node.config), &made(SystemTime::now() + 100 * DAY));
    fs::write(&node.config_path, node.config.to_toml()).unwrap();
    node.start();
    wait_until("it serves", PATIENCE, || node.log().matches("serving").count() == 3);
    // A pair that can't be used at the start is refused.
    node.stop();
    fs::write(files(&node.config).key, "no key").unwrap();
    node.start();
    assert_eq!(node.wait().code(), Some(REFUSED));
    assert!(node.log().contains("there is no key in"), "{}", node.log());
}
