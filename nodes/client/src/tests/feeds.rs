//! Feeds: where they go on, and what they make of gaps.

use super::*;

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
