//! Runs the example against a node in this process.
#![allow(clippy::unwrap_used)] // a test says what failed by failing

use std::process::Output;
use std::time::Duration;

use rabia_bank::client::TOKEN_VARIABLE;
use rabia_bank::create::{NewCluster, create};
use rabia_bank::server::{Listeners, run_on};
use rabia_bank::tokens::client_token;
use tokio::net::TcpListener;
use tokio::process::Command;

#[test]
fn the_first_transfer_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewCluster { base_port: 20_000, ..NewCluster::new(dir.path().join("data"), 1) };
    let mut config = create(&new).unwrap().remove(0);
    let output: Output = actix_rt::System::new().block_on(async {
        let clients = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        config.client_listen = clients.local_addr().unwrap();
        config.peer_listen = peers.local_addr().unwrap();
        let url = format!("ws://{}", config.client_listen);
        let node = actix_rt::spawn(run_on(config, Listeners::tcp(clients, peers), std::future::pending()));
        let mut example = Command::new(env!("CARGO_BIN_EXE_first_transfer"));
        example.env(TOKEN_VARIABLE, std::fs::read_to_string(client_token(&dir.path().join("data"))).unwrap());
        let output = tokio::time::timeout(Duration::from_secs(30), example.arg(url).kill_on_drop(true).output()).await;
        assert!(!node.is_finished(), "the node stopped: {:?}", node.await);
        output.expect("the example ends").unwrap()
    });
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{wrong}");
    for line in ["paid 2500 as transaction 3", "refused: ", "the shop has 2500"] {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
}
