//! Nodes inside this process, on threads of their own, spoken to with typed messages.

use crate::support::{PATIENCE, free_base_port, open_socket, websocket_on, wire};
use actix::prelude::*;
use futures_util::TryStreamExt;
use rabia_bank::NodeError;
use rabia_bank::client::Client;
use rabia_bank::create::{NewCluster, create_or_open};
use rabia_bank::embed::{BankCalls, Embedded, Happened, LocalNetwork, PeerLinks, Reach, Session, Subscribe};
use rabia_bank::testing::TestCluster;
use rabia_bank_messages::bank::{
    Account, AccountId, Amount, Command, ErrorCode, Operation, Outcome, Query, ReadLevel, Refusal, Success, Transaction,
};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::SessionLimits;
use rabia_bank_messages::ids::SessionKey;
use tokio::sync::mpsc;

fn deposit(amount: u64) -> Command {
    Command::One(Operation::Deposit { account_id: "a".into(), amount: Amount::new(amount) })
}

fn create() -> Command {
    Command::One(Operation::create_account("a", Amount::new(0)))
}

async fn balance(session: &Session) -> i64 {
    let query = Query::GetBalance { account_id: "a".into() };
    match session.query(query, ReadLevel::Linearizable).await.unwrap().success {
        Success::Balance { balance } => balance,
        other => panic!("{other:?}"),
    }
}

/// Passes on what it hears.
struct Ear(mpsc::UnboundedSender<Transaction>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<Happened> for Ear {
    type Result = ();

    fn handle(&mut self, Happened(transactions): Happened, _: &mut Self::Context) {
        transactions.into_iter().for_each(|transaction| self.0.send(transaction).unwrap());
    }
}

#[test]
fn three_nodes_on_threads_of_one_process_serve_their_host() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewCluster { base_port: free_base_port(3), ..NewCluster::new(dir.path().join("data"), 3) };
    let configs = create_or_open(&new).unwrap();
    assert_eq!(create_or_open(&new).unwrap(), configs, "the second time it is there");
    assert!(create_or_open(&NewCluster { nodes: 5, ..new }).is_err());
    let nodes: Vec<Embedded> =
        configs.iter().map(|config| Embedded::start_on_thread(config.clone()).unwrap()).collect();
    let taken = Embedded::start_on_thread(configs[0].clone()).err();
    assert!(matches!(&taken, Some(NodeError::Refused(why)) if why.contains("in use")), "{taken:?}");

    actix::System::new().block_on(async {
        let (ear, mut heard) = mpsc::unbounded_channel();
        let ear = Ear(ear).start();
        let sessions: Vec<Session> =
            futures_util::future::join_all(nodes.iter().map(async |node| node.session().await.unwrap())).await;
        let feed = Feed { account_id: Some("a".into()), ..Feed::default() };
        let subscribe = || Subscribe { feed: feed.clone(), to: ear.clone().recipient() };
        let nobody = sessions[1].address().send(subscribe()).await.unwrap().unwrap_err();
        assert_eq!(nobody.code, ErrorCode::AccountNotFound);
        sessions[0].command(create()).await.unwrap();
        sessions[1].address().send(subscribe()).await.unwrap().unwrap();
        let deposits = (0..300).map(|n| sessions[n % 3].command(deposit(n as u64 + 1)));
        for done in futures_util::future::join_all(deposits).await {
            assert!(!done.unwrap().replayed);
        }
        assert_eq!(balance(&sessions[2]).await, 300 * 301 / 2);
        let mut amounts = Vec::new();
        while amounts.len() < 300 {
            amounts.push(tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap().amount);
        }
        amounts.sort_unstable();
        assert!(amounts.iter().copied().eq(1..=300));

        // A key and a number that the host remembers are one command, wherever it is asked.
        let key = SessionKey([9; 16]);
        let [first, second] = [&nodes[0], &nodes[1]];
        let mut slots = Vec::new();
        for node in [first, second, first] {
            let session = node.session_with(key).await.unwrap();
            let reply = session.command_numbered(7, deposit(1_000)).await.unwrap();
            assert_eq!(reply.replayed, !slots.is_empty());
            slots.push(reply.slot);
            let other = session.command_numbered(7, deposit(1_001)).await.unwrap_err();
            assert_eq!((other.code, other.outcome), (ErrorCode::RequestReused, Outcome::Refused));
        }
        assert_eq!(slots, [slots[0]; 3]);

        nodes[0].stop().await.unwrap();
        let gone: Refusal = sessions[0].command(deposit(1)).await.unwrap_err();
        assert_eq!((gone.code, gone.outcome), (ErrorCode::Stopping, Outcome::Unknown));
        assert!(nodes[0].session().await.is_err() && nodes[0].status().await.is_err());
        nodes[0].ended().await.unwrap();
        sessions[1].command(deposit(5)).await.unwrap();

        let again = Embedded::start_on_thread(configs[0].clone()).unwrap();
        let session = again.session().await.unwrap();
        assert_eq!(balance(&session).await, 300 * 301 / 2 + 1_005);
        let status = again.status().await.unwrap();
        assert_eq!((status.transactions, status.total_balance), (303, 300 * 301 / 2 + 1_005));

        // Without a quorum a command is unknown after its time, and done once there is one again.
        nodes[1].stop().await.unwrap();
        nodes[2].stop().await.unwrap();
        let waited = session.command_numbered(1, deposit(50)).await.unwrap_err();
        assert_eq!((waited.code, waited.outcome), (ErrorCode::NoQuorum, Outcome::Unknown));
        let back = Embedded::start_on_thread(configs[1].clone()).unwrap();
        session.command_numbered(1, deposit(50)).await.unwrap();
        assert_eq!(balance(&session).await, 300 * 301 / 2 + 1_055);
        drop(session);
        again.stop().await.unwrap();
        back.stop().await.unwrap();
    });
}

#[test]
fn a_host_goes_on_after_its_session_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let limits = SessionLimits { open: 100, idle_ms: 1_000 };
    let new =
        NewCluster { base_port: free_base_port(1), sessions: limits, ..NewCluster::new(dir.path().join("data"), 1) };
    let node = Embedded::start_on_thread(create_or_open(&new).unwrap().remove(0)).unwrap();
    actix::System::new().block_on(async {
        let (own, other) = (node.session().await.unwrap(), node.session().await.unwrap());
        let key = SessionKey([8; 16]);
        let named = node.session_with(key).await.unwrap();
        own.command(create()).await.unwrap();
        named.command_numbered(1, deposit(1)).await.unwrap();
        for round in 0..2 {
            tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
            // Time passes in the log with what others do.
            other.command(deposit(1)).await.ok();
            other.command(deposit(1)).await.unwrap();
            let refused = own.command(deposit(10)).await.unwrap_err();
            assert_eq!((refused.code, refused.outcome), (ErrorCode::SessionExpired, Outcome::Refused), "round {round}");
            own.command(deposit(100)).await.unwrap();
            own.command(deposit(100)).await.unwrap();
            // What the host numbers may have been said by others: it is unknown, and stays so.
            for _ in 0..2 {
                for session in [&named, &node.session_with(key).await.unwrap()] {
                    let unknown = session.command_numbered(1, deposit(1)).await.unwrap_err();
                    assert_eq!((unknown.code, unknown.outcome), (ErrorCode::SessionExpired, Outcome::Unknown));
                }
            }
        }
        assert!((403..=405).contains(&balance(&own).await), "{}", balance(&own).await);
        node.stop().await.unwrap();
    });
}

/// What a program does that runs with either: over a connection, or with the node inside.
async fn pay<B: BankCalls>(bank: &B, from: &str, to: &str) -> i64
where
    B::Error: std::fmt::Debug,
{
    bank.create_account(from, 100).await.unwrap();
    bank.create_account(to, 0).await.unwrap();
    let paid = bank.transfer(from, to, 30).await.unwrap();
    assert!(bank.transfer(from, to, 71).await.is_err());
    bank.balance(to, ReadLevel::AtLeast(paid.slot)).await.unwrap().value
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn typed_calls_are_the_same_over_a_connection_and_inside() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewCluster { base_port: free_base_port(1), ..NewCluster::new(dir.path().join("data"), 1) };
    let config = create_or_open(&new).unwrap().remove(0);
    let url = config.client_listen.to_string().parse().unwrap();
    crate::support::register(config.client_listen, &config.data_dir);
    let node = Embedded::start_on_thread(config).unwrap();
    actix::System::new().block_on(async {
        let (inside, outside) = (node.session().await.unwrap(), Client::connect(crate::support::options(vec![url])));
        assert_eq!(is_send(pay(&inside, "a", "b")).await, 30);
        assert_eq!(is_send(pay(&outside, "c", "d")).await, 30);
        let poor = inside.withdraw("a", 71).await.unwrap_err();
        assert_eq!((poor.code, poor.outcome), (ErrorCode::InsufficientFunds, Outcome::Refused));
        let names = |accounts: Vec<Account>| accounts.into_iter().map(|account| account.account_id).collect::<Vec<_>>();
        let here: Vec<Account> = inside.accounts(None, None, ReadLevel::Linearizable).try_collect().await.unwrap();
        let there: Vec<Account> = outside.accounts(None, None, ReadLevel::Linearizable).try_collect().await.unwrap();
        assert_eq!(names(here), ["a", "b", "c", "d"].map(AccountId::from));
        assert_eq!(there.len(), 4);
        assert_eq!(inside.status().await.unwrap().value.accounts, 4);
        outside.close().await;
        node.stop().await.unwrap();
    });
}

#[test]
fn a_bank_without_a_port_goes_on_with_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("bank");
    // On the ports of its configuration nobody listens: they may be somebody else's.
    let config = create_or_open(&NewCluster::new(&folder, 1)).unwrap().remove(0);
    let taken: Vec<_> = [config.client_listen, config.peer_listen].map(std::net::TcpListener::bind).into();
    actix::System::new().block_on(async {
        for balance in [10, 20] {
            let node = Embedded::single(&folder).unwrap();
            let bank = node.session().await.unwrap();
            if balance == 10 {
                bank.create_account("a", 0).await.unwrap();
            }
            bank.deposit("a", 10).await.unwrap();
            assert_eq!(bank.balance("a", ReadLevel::Linearizable).await.unwrap().value, balance);
            node.stop().await.unwrap();
        }
    });
    drop(taken);
}

#[test]
fn a_member_without_a_way_to_the_others_refuses_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = create_or_open(&NewCluster::new(dir.path().join("data"), 3)).unwrap().remove(0);
    let reach = Reach { clients: false, peers: PeerLinks::None, tls: None };
    let refused = Embedded::start_on_thread_with(config.clone(), reach).err();
    assert!(
        matches!(&refused, Some(NodeError::Refused(why)) if why.contains("a way to reach the others")),
        "{refused:?}"
    );
    // It has let go of its files.
    let node = Embedded::start_on_thread_with(config, Reach::within(&LocalNetwork::new())).unwrap();
    actix::System::new().block_on(node.stop()).unwrap();
}

#[test]
fn a_cluster_in_memory_bears_a_node_that_is_away() {
    let mut cluster = TestCluster::start(3).unwrap();
    assert_eq!(cluster.size(), 3);
    actix::System::new().block_on(async {
        let bank = cluster.session(0).await.unwrap();
        bank.create_account("a", 0).await.unwrap();
        let mut feed = bank.subscribe(Feed { account_id: Some("a".into()), ..Feed::default() }).await.unwrap();
        for away in [1, 2, 1] {
            cluster.stop(away).await.unwrap();
            assert!(cluster.node(away).is_none() && cluster.session(away).await.is_err());
            for _ in 0..100 {
                bank.deposit("a", 1).await.unwrap();
            }
            cluster.restart(away).unwrap();
            let back = cluster.session(away).await.unwrap();
            let here = bank.balance("a", ReadLevel::Linearizable).await.unwrap().value;
            assert_eq!(tokio::time::timeout(PATIENCE, settled(&back)).await.unwrap(), here);
        }
        for id in 1..=300 {
            let transaction = tokio::time::timeout(PATIENCE, feed.next()).await.unwrap().unwrap();
            assert_eq!((transaction.transaction_id, transaction.to_balance), (1 + id as u64, Some(id)));
        }
        let nobody = bank.subscribe(Feed { account_id: Some("b".into()), ..Feed::default() }).await.unwrap_err();
        assert_eq!(nobody.code, ErrorCode::AccountNotFound);
        cluster.end().await.unwrap();
        assert_eq!(feed.next().await, None, "it ends with its node");
    });
}

/// The balance by a node that may still be catching up.
async fn settled(bank: &Session) -> i64 {
    loop {
        if let Ok(read) = bank.balance("a", ReadLevel::Linearizable).await {
            return read.value;
        }
    }
}

#[test]
fn a_feed_that_nobody_reads_waits_at_its_node() {
    let cluster = TestCluster::start(1).unwrap();
    actix::System::new().block_on(async {
        let bank = cluster.session(0).await.unwrap();
        bank.create_account("a", 0).await.unwrap();
        let mut feed = bank.subscribe(Feed::default()).await.unwrap();
        let unread = bank.subscribe(Feed::default()).await.unwrap();
        let deposit = || Operation::Deposit { account_id: "a".into(), amount: Amount::new(1) };
        bank.bulk((0..10_000).map(|_| deposit()).collect(), true).await.unwrap();
        for id in 2..=10_001 {
            assert_eq!(feed.next().await.unwrap().transaction_id, id);
        }
        drop((feed, unread));
        bank.deposit("a", 1).await.unwrap();
        cluster.end().await.unwrap();
    });
}

#[test]
fn a_host_brings_its_own_tls() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewCluster { base_port: free_base_port(1), ..NewCluster::new(dir.path().join("data"), 1) };
    let mut config = create_or_open(&new).unwrap().remove(0);
    // Beyond this machine, too: it is no plain one.
    config.client_listen.set_ip([0, 0, 0, 0].into());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain = vec![certificate.der().clone()];
    let tls = builder.unwrap().with_no_client_auth().with_single_cert(chain, private).unwrap();
    let plain = Reach { peers: PeerLinks::None, ..Reach::sockets() };
    let refused = Embedded::start_on_thread_with(config.clone(), plain.clone()).err();
    assert!(matches!(&refused, Some(NodeError::Refused(why)) if why.contains("beyond this machine")), "{refused:?}");
    let reach = Reach { tls: Some(std::sync::Arc::new(tls)), ..plain };
    let node = Embedded::start_on_thread_with(config.clone(), reach).unwrap();
    let here = std::net::SocketAddr::from(([127, 0, 0, 1], config.client_listen.port()));
    let wire = wire::secured(wire::connect(here).unwrap(), wire::trusting_all()).unwrap();
    assert_eq!(wire::certificate(&wire), certificate.der().to_vec());
    let mut socket = websocket_on(wire, here, "/v1/client", &[]).unwrap();
    let hello = r#"{"hello": {"version": 2}}"#;
    socket.send(tokio_tungstenite::tungstenite::Message::text(hello)).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains("not_authorised"));
    assert!(open_socket(here, "/v1/client", &[]).is_err(), "plain is not spoken");
    actix::System::new().block_on(node.stop()).unwrap();
}
