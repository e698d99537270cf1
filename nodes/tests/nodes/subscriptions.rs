//! Subscriptions with the real program: what comes over the wire, and what the client library makes of it while nodes die.

use std::time::Duration;

use crate::support::books::{Books, Writing, block_on};
use crate::support::{Cluster, Connection, Node, PATIENCE, SharedCluster, wait_until};
use futures_util::TryStreamExt;
use rabia_bank::client::{BankCalls, CallError, Client, ClientOptions, NodeUrl, Subscription};
use rabia_bank::config::NodeConfig;
use rabia_bank_messages::bank::{Account, Amount, ErrorCode, HistoryFilter, Operation, ReadLevel, Transaction};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};

static SHARED: SharedCluster = SharedCluster::new();

fn urls(nodes: &[Node]) -> Vec<NodeUrl> {
    nodes.iter().map(|node| node.url().parse().unwrap()).collect()
}

fn id(message: &Value) -> u64 {
    message["transaction"]["transaction_id"].as_u64().unwrap_or_else(|| panic!("no transaction: {message}"))
}

#[test]
fn transactions_come_as_they_are_applied_from_where_the_subscriber_says() {
    let cluster = SHARED.get();
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let name = |name: &str| format!("{name}-{encoding:?}");
        let mut writer = Connection::open(cluster.nodes[0].address(), encoding);
        let first = writer.command(json!({"create_account": {"account_id": name("a"), "initial_balance": 50}}));
        let first = id(&first["ok"]);
        writer.command(json!({"create_account": {"account_id": name("b"), "initial_balance": 0}}));
        let mut deposit = |account: &str, amount: u64| {
            let answer = writer.command(json!({"deposit": {"account_id": name(account), "amount": amount}}));
            id(&answer["ok"])
        };

        let mut reader = Connection::open(cluster.nodes[1].address(), encoding);
        // Other tests write meanwhile, so only accounts of this one are looked at.
        let of_a = json!({"request": 7, "subscribe": {"account_id": name("a"), "from": first}});
        assert_eq!(reader.ask(&of_a)["ok"], json!({"from": first}));
        let opening = reader.receive();
        assert_eq!((&opening["subscription"], id(&opening)), (&json!(7), first));
        assert_eq!(opening["transaction"]["type"], "opening");
        deposit("b", 10);
        let second = deposit("a", 11);
        let news = reader.receive();
        assert_eq!((id(&news), &news["transaction"]["amount"]), (second, &json!(11)));

        // A second subscription of the same connection, of large amounts, from now on.
        let of_b = json!({"request": 8, "subscribe": {"account_id": name("b"), "min_amount": 100}});
        let from = reader.ask(&of_b)["ok"]["from"].as_u64().unwrap();
        assert!(from > second, "{from}");
        deposit("b", 99);
        let large = deposit("b", 100);
        let news = reader.receive();
        assert_eq!((&news["subscription"], id(&news)), (&json!(8), large));

        reader.send(&json!({"unsubscribe": 7}));
        // What is asked after it is answered after it took effect.
        assert_eq!(reader.query(json!({"get_balance": {"account_id": name("a")}}))["ok"], json!({"balance": 61}));
        deposit("a", 200);
        let last = deposit("b", 201);
        assert_eq!(id(&reader.receive()), last, "the first subscription has ended");
    }
}

#[test]
fn what_is_no_subscription_is_refused() {
    let cluster = SHARED.get();
    let mut connection = Connection::open(cluster.nodes[2].address(), Encoding::Json);
    let code = |answer: Value| answer["error"]["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let unknown = json!({"request": 1, "subscribe": {"account_id": "nobody-has-this-name"}});
    assert_eq!(code(connection.ask(&unknown)), "account_not_found");
    for (request, message) in [
        (json!(2), json!({"request": 2, "subscribe": {"acount_id": "a"}})),
        (Value::Null, json!({"subscribe": {}})),
        (json!(3), json!({"request": 3, "subscribe": {}, "query": {"get_status": {}}})),
        (Value::Null, json!({"unsubscribe": "all"})),
    ] {
        let answer = connection.ask(&message);
        assert_eq!(answer["request"], request, "{message}: {answer}");
        assert_eq!(code(answer), "malformed", "{message}");
    }
    assert!(connection.ask(&json!({"request": 4, "subscribe": {"min_amount": 1_000_000_000}}))["ok"].is_object());
    let again = connection.ask(&json!({"request": 4, "subscribe": {"min_amount": 1_000_000_000}}));
    assert_eq!(code(again), "malformed");
    for request in 5..68 {
        let answer = connection.ask(&json!({"request": request, "subscribe": {"min_amount": 1_000_000_000}}));
        assert!(answer["ok"].is_object(), "{answer}");
    }
    assert_eq!(code(connection.ask(&json!({"request": 68, "subscribe": {}}))), "busy");
    connection.send(&json!({"unsubscribe": 4}));
    let room = connection.ask(&json!({"request": 69, "subscribe": {"min_amount": 1_000_000_000}}));
    assert!(room["ok"].is_object(), "{room}");
}

/// Snapshots come every few slots, so that old transactions are read from disk after a restart.
fn often(config: &mut NodeConfig) {
    config.limits.snapshot_bytes = 30_000;
    config.limits.snapshot_slots = 150;
}

/// Reads a feed until the transaction with this id has come, or a moment has passed without news of a filtered one.
async fn read_to(mut subscription: Subscription, last: u64) -> Vec<Transaction> {
    let mut seen: Vec<Transaction> = Vec::new();
    while seen.last().is_none_or(|transaction| transaction.transaction_id < last) {
        let news = tokio::time::timeout(PATIENCE, subscription.next()).await;
        let news = news.unwrap_or_else(|_| panic!("no news after {:?} transactions, {last} exist", seen.len()));
        seen.push(news.unwrap().unwrap());
    }
    seen
}

#[test]
fn ten_subscribers_see_every_transaction_once_and_in_order_while_nodes_die() {
    let mut cluster = Cluster::start_with(3, often);
    let all = urls(&cluster.nodes);
    let mut books = Books::open(&all);
    let (told, subscribers) = std::sync::mpsc::channel();
    let (end, ended) = tokio::sync::watch::channel(None::<u64>);
    for number in 0..10 {
        let (told, mut ended) = (told.clone(), ended.clone());
        let mut urls = all.clone();
        urls.rotate_left(number % 3);
        std::thread::spawn(move || {
            block_on(async {
                let encoding = if number % 2 == 0 { Encoding::Json } else { Encoding::MessagePack };
                let options = ClientOptions { encoding, timeout: 3 * PATIENCE, ..crate::support::options(urls) };
                let mut subscription = Subscription::new(options, Feed { from: Some(1), ..Feed::default() });
                let mut seen = Vec::new();
                let mut last = None;
                while last.is_none_or(|last| (seen.len() as u64) < last) {
                    tokio::select! {
                        news = subscription.next() => seen.push(news.unwrap().unwrap()),
                        changed = ended.changed() => {
                            changed.unwrap();
                            last = *ended.borrow_and_update();
                        }
                    }
                }
                told.send(seen).unwrap();
            });
        });
    }
    let writers: Vec<_> = all.iter().map(|url| [vec![url.clone()], all.clone()].concat()).collect();
    let load = books.write(&writers, &Writing::default());
    for round in 0..6 {
        let node = round % 3;
        let before = load.acknowledged();
        wait_until("commands are acknowledged", 3 * PATIENCE, || load.acknowledged() >= before + 300);
        if round % 2 == 0 {
            cluster.nodes[node].kill();
            let before = load.acknowledged();
            wait_until("the others go on", 3 * PATIENCE, || load.acknowledged() >= before + 100);
            cluster.nodes[node].start();
        } else {
            cluster.nodes[node].freeze();
            std::thread::sleep(Duration::from_secs(3));
            cluster.nodes[node].thaw();
        }
        cluster.wait_ready();
    }
    books.stop(load);
    books.check(&all);
    let status = crate::support::books::await_one_state(&all);
    end.send(Some(status.transactions)).unwrap();
    drop(told);
    let history: Vec<Transaction> = block_on(async {
        let client = Client::connect(crate::support::options(all.clone()));
        let newest_first: Vec<Transaction> =
            client.history(HistoryFilter::default(), ReadLevel::Linearizable).try_collect().await.unwrap();
        newest_first.into_iter().rev().collect()
    });
    assert_eq!(history.len() as u64, status.transactions);
    let mut count = 0;
    while let Ok(seen) = subscribers.recv_timeout(2 * PATIENCE) {
        let ids: Vec<u64> = seen.iter().map(|transaction: &Transaction| transaction.transaction_id).collect();
        assert!(seen == history, "a subscriber saw {} of {} transactions: {ids:?}", seen.len(), history.len());
        count += 1;
    }
    assert_eq!(count, 10, "some subscribers did not see everything");
    println!("ten subscribers saw {} transactions each", history.len());
}

fn deposits(account: &str, count: u64) -> Vec<Operation> {
    let deposit = |n: u64| Operation::Deposit { account_id: account.into(), amount: Amount::new(n % 10 + 1) };
    (0..count).map(deposit).collect()
}

#[test]
fn whoever_does_not_read_is_closed_and_nobody_else_notices() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let mut sleeper = Connection::open(node.address(), Encoding::Json);
    assert_eq!(sleeper.ask(&json!({"request": 1, "subscribe": {"from": 1}}))["ok"], json!({"from": 1}));
    let transactions = block_on(async {
        let client = Client::connect(crate::support::options(urls(&cluster.nodes)));
        client.create_account("a", 1).await.unwrap();
        let options = crate::support::options(urls(&cluster.nodes));
        let reader = Subscription::new(options, Feed { from: Some(1), ..Feed::default() });
        let reading = tokio::spawn(read_to(reader, 60_001));
        // More than the sockets on both sides hold.
        for _ in 0..6 {
            client.bulk(deposits("a", 10_000), false).await.unwrap();
        }
        assert_eq!(reading.await.unwrap().len(), 60_001);
        client.status().await.unwrap().value
    });
    assert_eq!((transactions.transactions, transactions.clients), (60_001, 2));
    // It is gone after a while without reading; the node keeps nothing for it meanwhile but what was sent.
    wait_until("the sleeper is closed", 3 * PATIENCE, || node.status().unwrap()["clients"] == 1);
    let mut read = 0;
    let why = loop {
        match sleeper.try_receive() {
            Ok(_) => read += 1,
            Err(error) => break error.to_string(),
        }
    };
    println!("it was sent {read} of 60,001, then: {why}");
    assert!(read < 60_001, "everything fits into the sockets");
}

#[test]
fn calls_are_typed_and_pages_are_streams() {
    let cluster = Cluster::start_with(3, often);
    block_on(async {
        let client = Client::connect(crate::support::options(urls(&cluster.nodes)));
        let create = |n: u32| Operation::create_account(format!("s{n:05}"), Amount::new(1));
        let created = client.bulk((0..2_500).map(create).collect(), true).await.unwrap();
        assert_eq!(created.value.len(), 2_500);
        let accounts: Vec<Account> =
            client.accounts(None, None, ReadLevel::AtLeast(created.slot)).try_collect().await.unwrap();
        let expected: Vec<String> = (0..2_500).map(|n| format!("s{n:05}")).collect();
        assert!(accounts.iter().map(|account| &*account.account_id).eq(&expected));
        let rest: Vec<Account> =
            client.accounts(Some("s02490".into()), None, ReadLevel::Local).try_collect().await.unwrap();
        assert_eq!(rest.len(), 9);

        let account = client.create_account("me", 100).await.unwrap().value;
        assert_eq!((account.balance, account.transaction_count), (100, 1));
        assert_eq!(client.deposit("me", 5).await.unwrap().value.to_balance, Some(105));
        assert_eq!(client.withdraw("me", 50).await.unwrap().value.from_balance, Some(55));
        let moved = client.transfer("me", "s00001", 5).await.unwrap();
        assert_eq!(client.balance("s00001", ReadLevel::AtLeast(moved.slot)).await.unwrap().value, 6);
        assert_eq!(client.account("me", ReadLevel::Linearizable).await.unwrap().value.balance, 50);
        let id = moved.value.transaction_id;
        assert_eq!(client.transaction(id, ReadLevel::Linearizable).await.unwrap().value, moved.value);
        let figures = client.statistics(None, None, ReadLevel::Linearizable).await.unwrap().value;
        assert_eq!((figures.accounts, figures.total_balance), (2_501, 2_555));
        match client.withdraw("me", 51).await {
            Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, ErrorCode::InsufficientFunds),
            other => panic!("{other:?}"),
        }

        let filter = HistoryFilter { limit: Some(7), ..HistoryFilter::default() };
        let history: Vec<Transaction> = client.history(filter, ReadLevel::Linearizable).try_collect().await.unwrap();
        assert!(history.iter().map(|transaction| transaction.transaction_id).eq((1..=2_504).rev()));
        let of_me = HistoryFilter { account_id: Some("me".into()), limit: Some(2), ..HistoryFilter::default() };
        let of_me: Vec<Transaction> = client.history(of_me, ReadLevel::Linearizable).try_collect().await.unwrap();
        assert_eq!(of_me.len(), 4);
        let nobody = HistoryFilter { account_id: Some("nobody".into()), ..HistoryFilter::default() };
        let refused: Result<Vec<Transaction>, CallError> =
            client.history(nobody, ReadLevel::Linearizable).try_collect().await;
        assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");

        let feed = Feed { account_id: Some("me".into()), from: Some(1), ..Feed::default() };
        let seen = read_to(Subscription::new(crate::support::options(urls(&cluster.nodes)), feed), id).await;
        assert!(seen.iter().eq(of_me.iter().rev()));
        let feed = Feed { account_id: Some("nobody".into()), ..Feed::default() };
        let mut refused = Subscription::new(crate::support::options(urls(&cluster.nodes)), feed);
        assert!(matches!(refused.next().await, Some(Err(CallError::Refused(_)))));
        assert!(refused.next().await.is_none());
        client.close().await;
    });
}
