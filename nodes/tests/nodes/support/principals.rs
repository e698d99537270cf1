//! Principals and tokens of a cluster's tests.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use rabia_bank::tokens::admin_token;
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

use super::{Cluster, Connection, Node, program};

/// `rabia-bank principal` or `token`, with the token in this file.
pub fn administer(urls: &str, token: &Path, args: &[&str]) -> Output {
    let [first, second, rest @ ..] = args else { panic!("{args:?}") };
    let mut command = program([first, second, "--connect", urls, "--json", "--token-file"]);
    command.env_remove("RABIA_BANK_TOKEN").arg(token).args(rest).output().unwrap()
}

/// What it said, line by line; it must have worked.
pub fn done(output: &Output) -> Vec<Value> {
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{wrong}");
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The folder of a node's cluster.
pub fn folder(node: &Node) -> &Path {
    node.config.data_dir.parent().unwrap()
}

/// The administrator's token.
pub fn admin(cluster: &Cluster) -> String {
    fs::read_to_string(admin_token(folder(&cluster.nodes[0]))).unwrap().trim().to_owned()
}

/// The administrator puts a principal, and a token for it.
pub fn new_token(cluster: &Cluster, put: &[&str]) -> String {
    let admin = admin_token(folder(&cluster.nodes[0]));
    let urls = cluster.urls();
    done(&administer(&urls, &admin, &[&["principal", "put"], put].concat()));
    let made = done(&administer(&urls, &admin, &["token", "create", put[0]]));
    made[0]["token"].as_str().unwrap().to_owned()
}

/// The same for one that may do all the daily business.
pub fn new_daily_token(cluster: &Cluster, name: &str) -> String {
    let roles = ["teller", "minter", "manager", "auditor"].into_iter().flat_map(|role| ["--role", role]);
    let scopes = ["--read", "--debit", "--credit"].into_iter().flat_map(|scope| [scope, "*"]);
    let put: Vec<&str> = [name].into_iter().chain(roles).chain(scopes).collect();
    new_token(cluster, &put)
}

/// A hello with this token.
pub fn hello(token: &str) -> Value {
    json!({"hello": {"version": 2, "token": token}})
}

/// A connection with this token, or what the node says instead of a welcome.
pub fn try_connect(address: SocketAddr, encoding: Encoding, token: &str) -> Result<Connection, String> {
    let mut connection = Connection::try_open(address, encoding, &[])?;
    connection.try_send(&hello(token)).map_err(|error| error.to_string())?;
    let welcome = connection.try_receive().map_err(|error| error.to_string())?;
    if welcome["welcome"]["principal"].is_string() { Ok(connection) } else { Err(welcome.to_string()) }
}
