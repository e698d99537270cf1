//! Three nodes in one process, started through the library: no global state, listeners and shutdown as arguments.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{register, token_of};
use futures_util::{SinkExt, StreamExt};
use rabia_bank::client::{Client, NodeUrl};
use rabia_bank::config::NodeConfig;
use rabia_bank::create::{NewCluster, create};
use rabia_bank::server::{Listeners, Peers, run_on};
use rabia_bank_messages::bank::{Amount, Command, Operation, Query, ReadLevel, Status, Success};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

fn client_address(listeners: &Listeners) -> SocketAddr {
    listeners.clients.as_ref().unwrap().local_addr().unwrap()
}

fn peer_address(listeners: &Listeners) -> SocketAddr {
    let Peers::Tcp(listener) = &listeners.peers else { panic!("{listeners:?}") };
    listener.local_addr().unwrap()
}

/// Gives every node of a new cluster listeners on free ports.
async fn bind(configs: &mut [NodeConfig]) -> Vec<Listeners> {
    let mut listeners = Vec::new();
    for _ in 0..configs.len() {
        let clients = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listeners.push(Listeners::tcp(clients, peers));
    }
    for config in configs {
        config.client_listen = client_address(&listeners[config.node.index()]);
        config.peer_listen = peer_address(&listeners[config.node.index()]);
        for member in &mut config.members {
            member.address = peer_address(&listeners[member.node.index()]).to_string();
        }
        register(config.client_listen, &config.data_dir);
    }
    listeners
}

fn transfer(from: usize, to: usize) -> Command {
    Command::One(Operation::Transfer {
        from_account: format!("a{from}").into(),
        to_account: format!("a{to}").into(),
        amount: Amount::new(1),
    })
}

async fn status(client: &Client) -> Status {
    match client.query(Query::GetStatus {}, ReadLevel::Local).await.unwrap().success {
        Success::Status { status } => *status,
        other => panic!("not a status: {other:?}"),
    }
}

#[test]
fn three_nodes_in_one_process_keep_the_same_books() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewCluster { base_port: 20_000, ..NewCluster::new(dir.path().join("data"), 3) };
    let mut configs = create(&new).unwrap();
    actix_rt::System::new().block_on(async move {
        let listeners = bind(&mut configs).await;
        let (stop, stopped) = watch::channel(false);
        let mut nodes = Vec::new();
        for (config, listeners) in configs.iter().cloned().zip(listeners) {
            let mut stopped = stopped.clone();
            nodes.push(actix_rt::spawn(run_on(config, listeners, async move {
                // The sender is there until the end of the test.
                let _ = stopped.wait_for(|stop| *stop).await;
            })));
        }
        let clients: Vec<Client> = configs
            .iter()
            .map(|config| {
                let url: NodeUrl = config.client_listen.to_string().parse().unwrap();
                Client::connect(crate::support::options(vec![url]))
            })
            .collect();
        for number in 0..10 {
            let account_id = format!("a{number}");
            let create = Operation::create_account(account_id, Amount::new(1_000));
            clients[number % 3].command(Command::One(create)).await.unwrap();
        }
        let began = Instant::now();
        let work = clients.iter().enumerate().map(|(node, client)| async move {
            for round in 0..200 {
                client.command(transfer((node + round) % 10, (node + round + 1) % 10)).await.unwrap();
            }
        });
        futures_util::future::join_all(work).await;
        println!("600 transfers one by one over three nodes took {:?}", began.elapsed());

        // A linearizable read at any node sees all of it.
        for client in &clients {
            let read = client
                .query(Query::GetStatistics { large_amount: None, asset: None }, ReadLevel::Linearizable)
                .await
                .unwrap();
            let Success::Statistics { statistics } = read.success else { panic!("{read:?}") };
            assert_eq!((statistics.total_balance, statistics.transactions.count), (10_000, 610));
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let all = futures_util::future::join_all(clients.iter().map(status)).await;
            if all.iter().all(|s| s.applied_slot == all[0].applied_slot) {
                assert!(all.iter().all(|s| s.state_digest == all[0].state_digest), "digests differ: {all:#?}");
                println!("{:#?}", all[0]);
                break;
            }
            assert!(Instant::now() < deadline, "the nodes do not reach one slot: {all:#?}");
        }
        for client in clients {
            client.close().await;
        }
        stop.send(true).unwrap();
        for node in nodes {
            node.await.unwrap().unwrap();
        }
    });
}

/// Until the store is let go of by the node that ran on it before.
async fn start_again(config: &NodeConfig, stop: &watch::Sender<bool>) -> actix_rt::task::JoinHandle<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let clients = TcpListener::bind(config.client_listen).await.unwrap();
        let listeners = Listeners::tcp(clients, TcpListener::bind(config.peer_listen).await.unwrap());
        let mut stopped = stop.subscribe();
        let mut node = actix_rt::spawn(run_on(config.clone(), listeners, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        match tokio::time::timeout(Duration::from_millis(100), &mut node).await {
            Err(_) => return actix_rt::spawn(async { node.await.unwrap().unwrap() }),
            Ok(refused) => assert!(Instant::now() < deadline, "the node does not start again: {refused:?}"),
        }
    }
}

#[test]
fn a_node_that_was_stopped_starts_again_in_the_same_process() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewCluster { base_port: 20_000, ..NewCluster::new(dir.path().join("data"), 3) };
    let mut configs = create(&new).unwrap();
    actix_rt::System::new().block_on(async move {
        drop(bind(&mut configs).await);
        let stops: Vec<_> = configs.iter().map(|_| watch::channel(false).0).collect();
        let mut nodes = Vec::new();
        for (config, stop) in configs.iter().zip(&stops) {
            nodes.push(start_again(config, stop).await);
        }
        // The others call this one: its links must end with it, or they would not call again.
        let (third, config) = (nodes.pop().unwrap(), &configs[2]);
        let url: NodeUrl = config.client_listen.to_string().parse().unwrap();
        let create = |name: &str| {
            let account_id = name.to_owned();
            Command::One(Operation::create_account(account_id, Amount::new(1)))
        };
        let client = Client::connect(crate::support::options(vec![url.clone()]));
        client.command(create("before")).await.unwrap();
        client.close().await;
        stops[2].send(true).unwrap();
        third.await.unwrap();
        stops[2].send_replace(false);
        nodes.push(start_again(config, &stops[2]).await);

        let client = Client::connect(crate::support::options(vec![url]));
        client.command(create("after")).await.unwrap();
        let read = client
            .query(Query::GetStatistics { large_amount: None, asset: None }, ReadLevel::Linearizable)
            .await
            .unwrap();
        let Success::Statistics { statistics } = read.success else { panic!("{read:?}") };
        assert_eq!(statistics.transactions.count, 2);
        client.close().await;
        for stop in &stops {
            stop.send(true).unwrap();
        }
        for node in nodes {
            node.await.unwrap();
        }
    });
}

/// How long a node took to stop of whose two clients one reads what it is told at once, and the other as `late` says: after that
/// time, or never.
async fn stop_with_clients(config: NodeConfig, listeners: Listeners, late: Option<Duration>) -> Duration {
    let address = config.client_listen;
    let (stop, mut stopping) = watch::channel(false);
    let node = actix_rt::spawn(run_on(config, listeners, async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    }));
    let connect = || async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) =
            tokio_tungstenite::client_async(format!("ws://{address}/v1/client"), stream).await.unwrap();
        // Its session is there once it is answered.
        let token = token_of(address).unwrap();
        socket.send(Frame::text(format!(r#"{{"hello":{{"version":2,"token":"{token}"}}}}"#))).await.unwrap();
        socket.send(Frame::text(r#"{"request":1,"query":{"get_status":{}}}"#)).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket.next().await.unwrap().unwrap();
        socket
    };
    let (mut prompt, mut other) = (connect().await, connect().await);
    let began = Instant::now();
    stop.send_replace(true);
    let farewell = prompt.next().await.unwrap().unwrap();
    let Frame::Close(Some(close)) = farewell else { panic!("{farewell:?}") };
    assert_eq!(close.code, CloseCode::Away);
    if let Some(late) = late {
        tokio::time::sleep(late).await;
        assert!(!node.is_finished(), "the node has stopped before its client has read that");
        assert!(matches!(other.next().await, Some(Ok(Frame::Close(Some(_))))));
        while other.next().await.is_some() {}
    }
    while prompt.next().await.is_some() {}
    node.await.unwrap().unwrap();
    began.elapsed()
}

#[test]
fn a_node_that_stops_gives_its_clients_time_to_hear_of_it_and_not_for_ever() {
    for (late, least, most) in [(Some(500), 500, 1_900), (None, 2_000, 4_500)] {
        let dir = tempfile::tempdir().unwrap();
        let new = NewCluster { base_port: 20_000, ..NewCluster::new(dir.path().join("data"), 1) };
        let mut configs = create(&new).unwrap();
        let took = actix_rt::System::new().block_on(async move {
            let listeners = bind(&mut configs).await.remove(0);
            stop_with_clients(configs.remove(0), listeners, late.map(Duration::from_millis)).await
        });
        let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
        assert!((least..most).contains(&took), "with {late:?} it took {took:?}");
    }
}
