//! Nodes of later versions, and answers that nobody understands.

use super::*;

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
    let (node, client) = node_and_client().await;
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
    let (node, client) = node_and_client().await;
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
    use crate::BankCalls;
    use futures_util::StreamExt;
    let (node, client) = node_and_client().await;
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
