//! The client against scripted nodes: each test plays the node by hand.

use rabia_bank_messages::bank::{Amount, ErrorCode, Operation};
use rabia_bank_messages::client::{ClientMessage, Feed, Hello};
use rabia_bank_messages::msgpack;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;

mod commands;
mod feeds;
mod later_versions;

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

    /// Loses the next connection once a command came: what [`FakeConnection::hear_command`] says of it, and the hello before it.
    async fn lose_command(&self) -> ((u64, u64), Hello) {
        let (mut connection, hello) = self.accept_session().await;
        (connection.hear_command().await, hello)
    }

    /// The next connection, after it got an answer to its first command.
    async fn serve_command(&self) -> FakeConnection {
        let (mut connection, _) = self.accept_session().await;
        connection.serve_command().await;
        connection
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

    /// The number and the acknowledgement of the next command, which is applied.
    async fn serve_command(&mut self) -> (u64, u64) {
        let heard = self.hear_command().await;
        self.say_ok(heard.0).await;
        heard
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

/// A node, and a client that knows no other.
async fn node_and_client() -> (FakeNode, Client) {
    let node = FakeNode::new().await;
    let client = Client::connect(options(&[&node]));
    (node, client)
}

/// Two nodes, and a client that asks the first one first.
async fn two_nodes_and_client() -> (FakeNode, FakeNode, Client) {
    let (first, second) = (FakeNode::new().await, FakeNode::new().await);
    let client = Client::connect(options(&[&first, &second]));
    (first, second, client)
}

/// What comes of a deposit while nodes follow a script. The connections that the script answers stay until then.
async fn deposit_during<C>(client: &Client, script: impl Future<Output = C>) -> Result<Applied, CallError> {
    let (outcome, _connections) = tokio::join!(client.command(deposit()), script);
    outcome
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
