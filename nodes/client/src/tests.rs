//! The client against scripted nodes: each test plays the node by hand.

use rabia_bank_messages::bank::{Amount, ErrorCode, Operation};
use rabia_bank_messages::client::{ClientMessage, Feed, Hello};
use rabia_bank_messages::msgpack;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;

const CLUSTER: &str = "00112233445566778899aabbccddeeff";

/// A node that says what the test tells it to.
struct FakeNode {
    listener: TcpListener,
}

impl FakeNode {
    async fn new() -> FakeNode {
        FakeNode { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn url(&self) -> NodeUrl {
        self.listener.local_addr().unwrap().to_string().parse().unwrap()
    }

    /// The next connection, after the WebSocket's handshake.
    async fn accept(&self) -> FakeConnection {
        let (stream, _) = self.listener.accept().await.unwrap();
        FakeConnection { socket: tokio_tungstenite::accept_async(stream).await.unwrap() }
    }

    /// The next connection, after it was welcomed in the session that it asks for, or in session 7.
    async fn accept_session(&self) -> (FakeConnection, Hello) {
        let mut connection = self.accept().await;
        let ClientMessage::Hello(hello) = connection.hear().await else { panic!("expected a hello") };
        let session = hello.session.map(|session| session.number).or(hello.open.map(|_| 7));
        connection.welcome(CLUSTER, session).await;
        (connection, hello)
    }
}

struct FakeConnection {
    socket: WebSocketStream<TcpStream>,
}

impl FakeConnection {
    async fn hear(&mut self) -> ClientMessage {
        use futures_util::StreamExt;
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => return Encoding::Json.decode_client(text.as_bytes()).unwrap(),
                Message::Ping(_) => {}
                other => panic!("expected a text frame, got {other:?}"),
            }
        }
    }

    /// Whether the client ends the connection before it says anything more.
    async fn is_left(&mut self) -> bool {
        use futures_util::StreamExt;
        loop {
            match self.socket.next().await {
                None | Some(Err(_) | Ok(Message::Close(_))) => return true,
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(_)) => return false,
            }
        }
    }

    /// The number and the acknowledgement of the next command.
    async fn hear_command(&mut self) -> (u64, u64) {
        match self.hear().await {
            ClientMessage::Command { request, acknowledged, .. } => (request, acknowledged),
            other => panic!("expected a command, got {other:?}"),
        }
    }

    async fn say(&mut self, message: Value) {
        use futures_util::SinkExt;
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The same as a binary frame.
    async fn say_packed(&mut self, message: Value) {
        use futures_util::SinkExt;
        self.socket.send(Message::binary(msgpack::encode_named(&message))).await.unwrap();
    }

    async fn welcome(&mut self, cluster: &str, session: Option<u64>) {
        let mut welcome = json!({"node": 1, "cluster": cluster, "applied_slot": 3});
        if let Some(session) = session {
            welcome["session"] = json!(session);
        }
        self.say(json!({"welcome": welcome})).await;
    }

    /// The feed that is subscribed to, after the node has said that it begins here.
    async fn hear_subscription(&mut self, from: u64) -> Feed {
        match self.hear().await {
            ClientMessage::Subscribe { request, feed, .. } => {
                self.say(json!({"request": request, "slot": 9, "ok": {"from": from}})).await;
                feed
            }
            other => panic!("expected a subscription, got {other:?}"),
        }
    }

    async fn say_transaction(&mut self, id: u64) {
        let transaction = json!({"transaction_id": id, "type": "deposit", "to_account": "alice", "amount": 1,
            "to_balance": id, "timestamp": 5, "slot": id, "hash": "0".repeat(64)});
        self.say(json!({"subscription": 1, "transaction": transaction})).await;
    }

    async fn say_ok(&mut self, request: u64) {
        self.say(json!({"request": request, "slot": 9, "index": 3, "ok": {"balance": 5}, "replayed": false})).await;
    }

    async fn say_error(&mut self, request: u64, code: &str, outcome: &str) {
        let error = json!({"code": code, "message": "as the test says", "outcome": outcome});
        self.say(json!({"request": request, "error": error})).await;
    }
}

fn options(nodes: &[&FakeNode]) -> ClientOptions {
    ClientOptions { encoding: Encoding::Json, ..ClientOptions::new(nodes.iter().map(|node| node.url()).collect()) }
}

fn deposit() -> Command {
    Command::One(Operation::Deposit { account_id: "alice".into(), amount: Amount::new(5) })
}

fn balance() -> Query {
    Query::GetBalance { account_id: "alice".into() }
}

#[tokio::test]
async fn a_command_is_applied_and_acknowledged_with_the_next() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_some() && hello.session.is_none());
        assert_eq!(connection.hear_command().await, (1, 0));
        connection.say_ok(1).await;
        assert_eq!(connection.hear_command().await, (2, 1));
        connection.say_error(2, "insufficient_funds", "refused").await;
        assert_eq!(connection.hear().await, ClientMessage::Goodbye);
    };
    let calls = async {
        let applied = client.command(deposit()).await.unwrap();
        let success = Success::Balance { balance: 5 };
        assert_eq!(applied, Applied { slot: Some(9), index: Some(3), replayed: false, success });
        let Err(CallError::Refused(refusal)) = client.command(deposit()).await else { panic!("expected a refusal") };
        assert_eq!(refusal.code, ErrorCode::InsufficientFunds);
        client.close().await;
    };
    tokio::join!(script, calls);
}

#[tokio::test]
async fn an_unanswered_command_is_repeated_at_the_next_node_in_the_same_session_with_the_same_number() {
    let (first, second) = (FakeNode::new().await, FakeNode::new().await);
    let client = Client::connect(options(&[&first, &second]));
    let script = async {
        let (mut connection, hello) = first.accept_session().await;
        assert_eq!(connection.hear_command().await, (1, 0));
        drop(connection);
        let (mut connection, again) = second.accept_session().await;
        assert_eq!(again.session.map(|session| (session.number, session.key)), hello.open.map(|open| (7, open.key)));
        assert_eq!(connection.hear_command().await, (1, 0));
        connection.say(json!({"request": 1, "slot": 9, "ok": {"balance": 5}, "replayed": true})).await;
        connection
    };
    let (applied, _connection) = tokio::join!(client.command(deposit()), script);
    assert!(applied.unwrap().replayed);
}

#[tokio::test]
async fn a_repeated_opening_carries_the_same_key() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let mut connection = node.accept().await;
        let ClientMessage::Hello(hello) = connection.hear().await else { panic!("expected a hello") };
        drop(connection);
        let (mut connection, again) = node.accept_session().await;
        assert_eq!(hello, again);
        let (number, _) = connection.hear_command().await;
        connection.say_ok(number).await;
        connection
    };
    let (applied, _connection) = tokio::join!(client.command(deposit()), script);
    applied.unwrap();
}

#[tokio::test]
async fn an_expired_session_leaves_a_repeated_command_unknown() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        connection.hear_command().await;
        drop(connection);
        let (mut connection, _) = node.accept_session().await;
        let (number, _) = connection.hear_command().await;
        connection.say_error(number, "session_expired", "refused").await;
        connection
    };
    let (outcome, _connection) = tokio::join!(client.command(deposit()), script);
    assert!(matches!(outcome, Err(CallError::Unknown(_))), "{outcome:?}");
}

#[tokio::test]
async fn only_attempts_that_found_no_session_go_on_in_a_new_one() {
    for outcome in ["unknown", "refused"] {
        let node = FakeNode::new().await;
        let client = Client::connect(options(&[&node]));
        let script = async {
            let (mut connection, hello) = node.accept_session().await;
            for number in 1..=3 {
                assert_eq!(connection.hear_command().await, (number, 0));
            }
            // A session that has expired answers no command any more; the client waits for what it still has to say.
            connection.say_ok(2).await;
            connection.say_error(3, "session_expired", outcome).await;
            connection.say_error(1, "session_expired", outcome).await;
            assert!(connection.is_left().await);
            let (mut connection, again) = node.accept_session().await;
            assert!(again.session.is_none());
            assert_ne!(again.open.unwrap().key, hello.open.unwrap().key);
            for number in [1, 3] {
                assert_eq!(connection.hear_command().await, (number, 0));
                connection.say_ok(number).await;
            }
            connection
        };
        let calls = futures_util::future::join_all((0..3).map(|_| client.command(deposit())));
        let (outcomes, _connection) = tokio::join!(calls, script);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
}

#[tokio::test]
async fn what_has_no_answer_in_an_expired_session_is_unknown_and_what_was_not_said_goes_on() {
    let (node, other) = (FakeNode::new().await, FakeNode::new().await);
    let client = Client::connect(options(&[&node, &other]));
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        for _ in 0..2 {
            connection.hear_command().await;
        }
        connection.say_error(2, "session_expired", "unknown").await;
        // The node is lost before it has told of the other one.
        drop(connection);
        let (mut connection, hello) = other.accept_session().await;
        assert!(hello.open.is_some());
        let (number, _) = connection.hear_command().await;
        assert_eq!(number, 2);
        connection.say_ok(number).await;
        connection
    };
    let calls = futures_util::future::join(client.command(deposit()), client.command(deposit()));
    let ((first, second), _connection) = tokio::join!(calls, script);
    assert!(matches!(first, Err(CallError::Unknown(_))), "{first:?}");
    second.unwrap();
}

#[tokio::test]
async fn a_session_that_the_node_does_not_know_is_replaced_and_what_was_said_in_it_unknown() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        connection.hear_command().await;
        drop(connection);
        let mut connection = node.accept().await;
        assert!(matches!(connection.hear().await, ClientMessage::Hello(Hello { session: Some(_), .. })));
        connection.welcome(CLUSTER, None).await;
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_some());
        let (number, _) = connection.hear_command().await;
        assert_eq!(number, 2);
        connection.say_ok(number).await;
        connection
    };
    let calls = async {
        let outcome = client.command(deposit()).await;
        assert!(matches!(outcome, Err(CallError::Unknown(_))), "{outcome:?}");
        client.command(deposit()).await.unwrap();
    };
    tokio::join!(script, calls);
}

#[tokio::test]
async fn a_busy_node_is_asked_again_with_the_same_number() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        for _ in 0..3 {
            assert_eq!(connection.hear_command().await.0, 1);
            connection.say_error(1, "busy", "refused").await;
        }
        assert_eq!(connection.hear_command().await.0, 1);
        connection.say_ok(1).await;
        connection
    };
    let (applied, _connection) = tokio::join!(client.command(deposit()), script);
    applied.unwrap();
}

/// Answers every command with this error until the test ends.
async fn always_refuse(node: &FakeNode, code: &str, outcome: &str) {
    let (mut connection, _) = node.accept_session().await;
    loop {
        let (number, _) = connection.hear_command().await;
        connection.say_error(number, code, outcome).await;
    }
}

#[tokio::test]
async fn when_time_is_up_the_outcome_is_what_the_attempts_allow_to_say() {
    for (outcome, expect_refused) in [("refused", true), ("unknown", false)] {
        let node = FakeNode::new().await;
        let client = Client::connect(ClientOptions { timeout: Duration::from_millis(200), ..options(&[&node]) });
        let result = tokio::select! {
            result = client.command(deposit()) => result,
            () = always_refuse(&node, "no_quorum", outcome) => panic!("the script does not end"),
        };
        match result {
            Err(CallError::Refused(refusal)) if expect_refused => assert_eq!(refusal.code, ErrorCode::NoQuorum),
            Err(CallError::Unknown(unknown)) if !expect_refused => assert!(unknown.last.is_some()),
            other => panic!("{outcome}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_busy_answer_to_a_repeated_command_does_not_make_it_refused() {
    let node = FakeNode::new().await;
    let client = Client::connect(ClientOptions { timeout: Duration::from_millis(300), ..options(&[&node]) });
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        connection.hear_command().await;
        drop(connection);
        always_refuse(&node, "busy", "refused").await;
    };
    let result = tokio::select! {
        result = client.command(deposit()) => result,
        () = script => panic!("the script does not end"),
    };
    assert!(matches!(result, Err(CallError::Unknown(_))), "{result:?}");
}

#[tokio::test]
async fn what_was_never_sent_is_not_reached() {
    let gone = FakeNode::new().await;
    let options = ClientOptions { timeout: Duration::from_millis(100), ..options(&[&gone]) };
    drop(gone);
    let client = Client::connect(options);
    let outcome = client.command(deposit()).await;
    assert!(matches!(outcome, Err(CallError::NotReached(_))), "{outcome:?}");
}

#[tokio::test]
async fn queries_need_no_session_and_the_first_command_opens_one() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_none());
        let ClientMessage::Query { request: 1, read: ReadLevel::Local, .. } = connection.hear().await else {
            panic!("expected query 1");
        };
        connection.say_ok(1).await;
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_some());
        assert_eq!(connection.hear_command().await, (2, 1));
        connection.say_ok(2).await;
        connection
    };
    let calls = async {
        client.query(balance(), ReadLevel::Local).await.unwrap();
        client.command(deposit()).await.unwrap();
    };
    tokio::join!(script, calls);
}

#[tokio::test]
async fn a_node_that_says_nothing_is_left() {
    let (silent, other) = (FakeNode::new().await, FakeNode::new().await);
    let client = Client::connect(options(&[&silent, &other]));
    let script = async {
        // Its socket is open, and nobody reads it.
        let (stuck, _) = silent.accept_session().await;
        let (mut connection, _) = other.accept_session().await;
        let (number, _) = connection.hear_command().await;
        connection.say_ok(number).await;
        (stuck, connection)
    };
    let (applied, _connections) = tokio::join!(client.command(deposit()), script);
    applied.unwrap();
}

#[tokio::test]
async fn a_node_of_another_cluster_is_not_spoken_to() {
    let (first, other) = (FakeNode::new().await, FakeNode::new().await);
    let client = Client::connect(options(&[&first, &other]));
    let script = async {
        let (mut connection, _) = first.accept_session().await;
        connection.hear_command().await;
        drop(connection);
        let mut stranger = other.accept().await;
        stranger.hear().await;
        stranger.welcome("ffffffffffffffffffffffffffffffff", Some(7)).await;
        let (mut connection, _) = first.accept_session().await;
        let (number, _) = connection.hear_command().await;
        connection.say_ok(number).await;
        connection
    };
    let (applied, _connection) = tokio::join!(client.command(deposit()), script);
    applied.unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_without_a_node() {
    let node = FakeNode::new().await;
    let client = Client::connect(ClientOptions { max_message_bytes: 60, ..options(&[&node]) });
    let (outcome, _connection) = tokio::join!(client.command(deposit()), node.accept_session());
    assert!(matches!(&outcome, Err(CallError::Refused(r)) if r.code == ErrorCode::TooLarge), "{outcome:?}");
}

#[tokio::test]
async fn many_calls_share_a_connection_and_answers_come_in_any_order() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        let mut numbers = Vec::new();
        for _ in 0..100 {
            numbers.push(connection.hear_command().await.0);
        }
        for number in numbers.into_iter().rev() {
            connection.say_ok(number).await;
        }
        connection
    };
    let calls = futures_util::future::join_all((0..100).map(|_| client.command(deposit())));
    let (outcomes, _connection) = tokio::join!(calls, script);
    assert!(outcomes.iter().all(Result::is_ok));
}

async fn next_id(subscription: &mut Subscription) -> u64 {
    subscription.next().await.unwrap().unwrap().transaction_id
}

#[tokio::test]
async fn a_feed_goes_on_at_the_next_node_behind_what_was_seen_or_reached() {
    let (first, second) = (FakeNode::new().await, FakeNode::new().await);
    let feed = Feed { account_id: Some("alice".into()), ..Feed::default() };
    let mut subscription = Subscription::new(options(&[&first, &second]), feed.clone());
    let script = async {
        let (mut connection, hello) = first.accept_session().await;
        assert!(hello.session.is_none() && hello.open.is_none(), "a feed needs no session");
        assert_eq!(connection.hear_subscription(4).await, feed);
        connection.say_transaction(6).await;
        drop(connection);
        let (mut connection, _) = second.accept_session().await;
        assert_eq!(connection.hear_subscription(7).await.from, Some(7));
        connection.say(json!({"subscription": 1, "reached": 4_107})).await;
        drop(connection);
        let (mut connection, _) = first.accept_session().await;
        assert_eq!(connection.hear_subscription(4_108).await.from, Some(4_108));
        connection.say_transaction(5_000).await;
        connection
    };
    let seen = async { [next_id(&mut subscription).await, next_id(&mut subscription).await] };
    let (seen, _connection) = tokio::join!(seen, script);
    assert_eq!(seen, [6, 5_000]);
}

#[tokio::test]
async fn a_node_that_leaves_a_transaction_out_or_says_one_twice_is_left() {
    let node = FakeNode::new().await;
    let mut subscription = Subscription::new(options(&[&node]), Feed::default());
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        assert_eq!(connection.hear_subscription(10).await.from, None);
        connection.say_transaction(10).await;
        connection.say_transaction(12).await;
        assert!(connection.is_left().await, "12 came where 11 was to come");
        let (mut connection, _) = node.accept_session().await;
        assert_eq!(connection.hear_subscription(11).await.from, Some(11));
        connection.say_transaction(10).await;
        assert!(connection.is_left().await, "10 came twice");
        let (mut connection, _) = node.accept_session().await;
        assert_eq!(connection.hear_subscription(10).await.from, Some(11));
        assert!(connection.is_left().await, "the node would begin before");
        let (mut connection, _) = node.accept_session().await;
        assert_eq!(connection.hear_subscription(11).await.from, Some(11));
        connection.say_transaction(11).await;
        connection
    };
    let seen = async { [next_id(&mut subscription).await, next_id(&mut subscription).await] };
    let (seen, _connection) = tokio::join!(seen, script);
    assert_eq!(seen, [10, 11]);
}

#[tokio::test]
async fn a_feed_that_was_quiet_for_long_survives_the_loss_of_its_node() {
    let (first, second) = (FakeNode::new().await, FakeNode::new().await);
    let options = ClientOptions { timeout: Duration::from_millis(500), ..options(&[&first, &second]) };
    let mut subscription = Subscription::new(options, Feed::default());
    let script = async {
        let (mut connection, _) = first.accept_session().await;
        connection.hear_subscription(3).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        drop(connection);
        let (mut connection, _) = second.accept_session().await;
        connection.hear_subscription(3).await;
        connection.say_transaction(3).await;
        connection
    };
    let (id, connection) = tokio::join!(next_id(&mut subscription), script);
    assert_eq!(id, 3);
    // Without any node it ends after its time, with an error.
    drop((connection, first, second));
    let ended = subscription.next().await;
    assert!(matches!(ended, Some(Err(CallError::NotReached(_)))), "{ended:?}");
    assert!(subscription.next().await.is_none());
}

#[tokio::test]
async fn a_call_may_wait_for_ever() {
    let node = FakeNode::new().await;
    let client = Client::connect(ClientOptions { timeout: Duration::MAX, ..options(&[&node]) });
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        connection.hear_command().await;
        connection.say_ok(1).await;
        connection
    };
    let (applied, _connection) = tokio::join!(client.command(deposit()), script);
    applied.unwrap();
}

#[test]
fn urls_are_completed_and_checked() {
    for text in ["ws://127.0.0.1:7101", "127.0.0.1:7101", "ws://127.0.0.1:7101/", "ws://127.0.0.1:7101/v1/client"] {
        let url: NodeUrl = text.parse().unwrap();
        assert_eq!(url.uri.to_string(), "ws://127.0.0.1:7101/v1/client");
        assert_eq!(url.to_string(), "ws://127.0.0.1:7101");
    }
    assert_eq!(NodeUrl::list("a:1, b:2").unwrap().len(), 2);
    for text in ["", "ws://", "ws://host", "wss://host:1", "http://host:1", "ws://host:99999", "a:1,,b:2", "ws://:7101"]
    {
        assert!(NodeUrl::list(text).is_err(), "{text}");
    }
}

/// Answers a command, and every repetition of it, alike. Counts how often it was asked.
async fn answer_alike(node: &FakeNode, answer: impl Fn(u64) -> Value, asked: &std::cell::Cell<u32>) {
    let (mut connection, _) = node.accept_session().await;
    loop {
        let (number, _) = connection.hear_command().await;
        asked.set(asked.get() + 1);
        connection.say(answer(number)).await;
    }
}

#[tokio::test]
async fn a_code_of_a_later_version_is_what_its_outcome_says() {
    for (outcome, most_attempts) in [("refused", 1), ("unknown", 6)] {
        let node = FakeNode::new().await;
        let client = Client::connect(ClientOptions { timeout: Duration::from_secs(2), ..options(&[&node]) });
        let asked = std::cell::Cell::new(0);
        let error = json!({"code": "hold_expired", "message": "too late", "outcome": outcome, "hold": 77});
        let answer = |number| json!({"request": number, "slot": 9, "index": 0, "error": error, "replayed": false});
        let result = tokio::select! {
            result = client.command(deposit()) => result,
            () = answer_alike(&node, answer, &asked) => panic!("the script does not end"),
        };
        assert!((1..=most_attempts).contains(&asked.get()), "{outcome}: asked {} times in 2 s", asked.get());
        let refusal = match (outcome, result) {
            ("refused", Err(CallError::Refused(refusal))) => refusal,
            ("unknown", Err(CallError::Unknown(unknown))) => unknown.last.unwrap().refusal.unwrap(),
            (_, other) => panic!("{outcome}: {other:?}"),
        };
        assert_eq!(refusal.code, ErrorCode::Other("hold_expired".into()));
        assert_eq!(refusal.other.get("hold"), Some(&json!(77)));
        assert!(outcome == "refused" || asked.get() > 1, "what is unknown is asked again");
    }
}

#[tokio::test]
async fn an_answer_that_cant_be_read_is_unknown_and_not_asked_for_again() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let error = |outcome: &str| json!({"code": "busy", "message": "", "outcome": outcome});
    let answers = [
        json!({"request": 1, "deferred": {"until": 5}}),
        json!({"request": 2, "error": error("perhaps")}),
        json!({"request": 3, "error": error("refused"), "ok": {}}),
        json!({"request": 4, "slot": "nine", "ok": {"balance": 5}}),
        json!({"request": 5, "ok": {"balance": "much"}}),
    ];
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        for (number, answer) in (1..).zip(&answers) {
            assert_eq!(connection.hear_command().await, (number, number - 1));
            // What is not meant for this client is not its business.
            connection.say(json!({"notice": {"text": "closed on Sunday"}})).await;
            if number % 2 == 0 {
                connection.say_packed(answer.clone()).await
            } else {
                connection.say(answer.clone()).await
            }
        }
        // The connection goes on, and nothing was said twice.
        assert_eq!(connection.hear_command().await, (6, 5));
        connection.say_ok(6).await;
        connection
    };
    let calls = async {
        for (number, answer) in (1..).zip(&answers) {
            let Err(CallError::Unknown(unknown)) = client.command(deposit()).await else { panic!("{answer}") };
            let last = unknown.last.unwrap();
            let said: Value = match number % 2 {
                0 => msgpack::decode(last.frame()).unwrap(),
                _ => serde_json::from_slice(last.frame()).unwrap(),
            };
            assert_eq!(said, *answer);
        }
        client.command(deposit()).await.unwrap();
    };
    let ((), _connection) = tokio::join!(calls, script);
}

#[tokio::test]
async fn a_node_that_speaks_no_language_is_asked_three_times() {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let asked = std::cell::Cell::new(0);
    let script = async {
        loop {
            let (mut connection, _) = node.accept_session().await;
            connection.hear_command().await;
            asked.set(asked.get() + 1);
            connection.say(json!(["what?"])).await;
        }
    };
    let result = tokio::select! {
        result = client.command(deposit()) => result,
        () = script => panic!("the script does not end"),
    };
    assert!(matches!(result, Err(CallError::Unknown(_))), "{result:?}");
    assert_eq!(asked.get(), 3);
}

/// A transaction of a type that this program does not know, with fields that it does not know.
fn hold(id: u64) -> Value {
    json!({"transaction_id": id, "type": "hold", "from_account": "alice", "amount": 5, "from_balance": 7,
        "timestamp": 5, "slot": id, "hash": "0".repeat(64), "reference": "auth-9", "expires_at": 1_005})
}

#[tokio::test]
async fn records_of_a_later_version_come_out_as_they_came() {
    use futures_util::StreamExt;
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        for packed in [false, true] {
            let ClientMessage::Query { request, .. } = connection.hear().await else { panic!("expected a query") };
            let answer = json!({"request": request, "slot": 9, "ok": {"transactions": [hold(2), hold(1)]}});
            if packed { connection.say_packed(answer).await } else { connection.say(answer).await }
        }
        connection
    };
    let calls = async {
        for _ in 0..2 {
            let history = client.history(Default::default(), ReadLevel::Local);
            let found: Vec<_> = history.map(|transaction| json!(transaction.unwrap())).collect().await;
            assert_eq!(found, [hold(2), hold(1)]);
        }
    };
    let ((), _connection) = tokio::join!(calls, script);
}

#[tokio::test]
async fn a_feed_tells_what_it_does_not_know_and_ends_where_it_understands_nothing() {
    let node = FakeNode::new().await;
    let mut subscription = Subscription::new(options(&[&node]), Feed::default());
    let connections = std::cell::Cell::new(0);
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        connection.hear_subscription(1).await;
        connection.say(json!({"notice": {}})).await;
        connection.say(json!({"subscription": 1, "transaction": hold(1)})).await;
        connection.say_packed(json!({"subscription": 1, "transaction": hold(2)})).await;
        loop {
            connections.set(connections.get() + 1);
            connection.say(json!({"subscription": 1, "changes": []})).await;
            assert!(connection.is_left().await);
            (connection, _) = node.accept_session().await;
            assert_eq!(connection.hear_subscription(3).await.from, Some(3));
        }
    };
    let seen = async {
        let first = json!(subscription.next().await.unwrap().unwrap());
        let second = json!(subscription.next().await.unwrap().unwrap());
        (first, second, subscription.next().await, subscription.next().await)
    };
    let (first, second, end, nothing) = tokio::select! {
        seen = seen => seen,
        () = script => panic!("the script does not end"),
    };
    assert_eq!([first, second], [hold(1), hold(2)]);
    assert!(matches!(end, Some(Err(CallError::Unknown(_)))), "{end:?}");
    assert!(nothing.is_none());
    assert_eq!(connections.get(), 3);
}
