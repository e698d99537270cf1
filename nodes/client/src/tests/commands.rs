//! Commands and queries: sessions, retries, what is unknown.

use super::*;

#[tokio::test]
async fn a_command_is_applied_and_acknowledged_with_the_next() {
    let (node, client) = node_and_client().await;
    let script = async {
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_some() && hello.session.is_none());
        assert_eq!(connection.serve_command().await, (1, 0));
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
    let (first, second, client) = two_nodes_and_client().await;
    let script = async {
        let (heard, hello) = first.lose_command().await;
        assert_eq!(heard, (1, 0));
        let (mut connection, again) = second.accept_session().await;
        assert_eq!(again.session.map(|session| (session.number, session.key)), hello.open.map(|open| (7, open.key)));
        assert_eq!(connection.hear_command().await, (1, 0));
        connection.say(json!({"request": 1, "slot": 9, "ok": {"balance": 5}, "replayed": true})).await;
        connection
    };
    assert!(deposit_during(&client, script).await.unwrap().replayed);
}

#[tokio::test]
async fn a_repeated_opening_carries_the_same_key() {
    let (node, client) = node_and_client().await;
    let script = async {
        let mut connection = node.accept().await;
        let ClientMessage::Hello(hello) = connection.hear().await else { panic!("expected a hello") };
        drop(connection);
        let (mut connection, again) = node.accept_session().await;
        assert_eq!(hello, again);
        connection.serve_command().await;
        connection
    };
    deposit_during(&client, script).await.unwrap();
}

#[tokio::test]
async fn an_expired_session_leaves_a_repeated_command_unknown() {
    let (node, client) = node_and_client().await;
    let script = async {
        node.lose_command().await;
        let (mut connection, _) = node.accept_session().await;
        let (number, _) = connection.hear_command().await;
        connection.say_error(number, "session_expired", "refused").await;
        connection
    };
    let outcome = deposit_during(&client, script).await;
    assert!(matches!(outcome, Err(CallError::Unknown(_))), "{outcome:?}");
}

#[tokio::test]
async fn only_attempts_that_found_no_session_go_on_in_a_new_one() {
    for outcome in ["unknown", "refused"] {
        let (node, client) = node_and_client().await;
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
                assert_eq!(connection.serve_command().await, (number, 0));
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
    let (node, other, client) = two_nodes_and_client().await;
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
        assert_eq!(connection.serve_command().await.0, 2);
        connection
    };
    let calls = futures_util::future::join(client.command(deposit()), client.command(deposit()));
    let ((first, second), _connection) = tokio::join!(calls, script);
    assert!(matches!(first, Err(CallError::Unknown(_))), "{first:?}");
    second.unwrap();
}

#[tokio::test]
async fn a_session_that_the_node_does_not_know_is_replaced_and_what_was_said_in_it_unknown() {
    let (node, client) = node_and_client().await;
    let script = async {
        node.lose_command().await;
        let mut connection = node.accept().await;
        assert!(matches!(connection.hear().await, ClientMessage::Hello(Hello { session: Some(_), .. })));
        connection.welcome(CLUSTER, None).await;
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_some());
        assert_eq!(connection.serve_command().await.0, 2);
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
    let (node, client) = node_and_client().await;
    let script = async {
        let (mut connection, _) = node.accept_session().await;
        for _ in 0..3 {
            assert_eq!(connection.hear_command().await.0, 1);
            connection.say_error(1, "busy", "refused").await;
        }
        assert_eq!(connection.serve_command().await.0, 1);
        connection
    };
    deposit_during(&client, script).await.unwrap();
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
        node.lose_command().await;
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
    let (node, client) = node_and_client().await;
    let script = async {
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_none());
        let ClientMessage::Query { request: 1, read: ReadLevel::Local, .. } = connection.hear().await else {
            panic!("expected query 1");
        };
        connection.say_ok(1).await;
        let (mut connection, hello) = node.accept_session().await;
        assert!(hello.open.is_some());
        assert_eq!(connection.serve_command().await, (2, 1));
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
    let (silent, other, client) = two_nodes_and_client().await;
    let script = async {
        // Its socket is open, and nobody reads it.
        let (stuck, _) = silent.accept_session().await;
        (stuck, other.serve_command().await)
    };
    deposit_during(&client, script).await.unwrap();
}

#[tokio::test]
async fn a_node_of_another_cluster_is_not_spoken_to() {
    let (first, other, client) = two_nodes_and_client().await;
    let script = async {
        first.lose_command().await;
        let mut stranger = other.accept().await;
        stranger.hear().await;
        stranger.welcome("ffffffffffffffffffffffffffffffff", Some(7)).await;
        first.serve_command().await
    };
    deposit_during(&client, script).await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_without_a_node() {
    let node = FakeNode::new().await;
    let client = Client::connect(ClientOptions { max_message_bytes: 60, ..options(&[&node]) });
    let outcome = deposit_during(&client, node.accept_session()).await;
    assert!(matches!(&outcome, Err(CallError::Refused(r)) if r.code == ErrorCode::TooLarge), "{outcome:?}");
}

#[tokio::test]
async fn many_calls_share_a_connection_and_answers_come_in_any_order() {
    let (node, client) = node_and_client().await;
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

#[tokio::test]
async fn a_call_may_wait_for_ever() {
    let node = FakeNode::new().await;
    let client = Client::connect(ClientOptions { timeout: Duration::MAX, ..options(&[&node]) });
    deposit_during(&client, node.serve_command()).await.unwrap();
}

#[test]
fn urls_are_completed_and_checked() {
    for text in ["ws://127.0.0.1:7101", "127.0.0.1:7101", "ws://127.0.0.1:7101/", "ws://127.0.0.1:7101/v1/client"] {
        let url: NodeUrl = text.parse().unwrap();
        assert_eq!(url.uri.to_string(), "ws://127.0.0.1:7101/v1/client");
        assert_eq!(url.to_string(), "ws://127.0.0.1:7101");
    }
    let url: NodeUrl = "wss://[::1]:7101".parse().unwrap();
    assert_eq!((url.uri.to_string(), url.host(), url.is_tls()), ("wss://[::1]:7101/v1/client".into(), "[::1]", true));
    assert_eq!(url.at_path("/v1/status").uri.to_string(), "wss://[::1]:7101/v1/status");
    assert_eq!((url.to_string(), url.at_path("/x").is_tls()), ("wss://[::1]:7101".into(), true));
    assert_eq!(NodeUrl::list("a:1, b:2").unwrap().len(), 2);
    for text in ["", "ws://", "ws://host", "wss://host", "http://host:1", "ws://host:99999", "a:1,,b:2", "ws://:7101"] {
        assert!(NodeUrl::list(text).is_err(), "{text}");
    }
}
