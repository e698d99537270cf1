//! What clients and nodes say to each other. See the [crate documentation](crate) for the format.

use serde::{Deserialize, Serialize};

use crate::bank::{AccountId, AnyCommand, AssetCode, Command, Query, ReadLevel, Refusal, Success, Transaction};
use crate::ids::{self, ClusterId, NodeId, SessionKey, Slot};
use crate::number;
use crate::principal::{Admin, PrincipalName};
use crate::token::Token;

/// The version of the client protocol.
pub const CLIENT_VERSION: u32 = 2;

/// The path of the WebSocket endpoint.
pub const CLIENT_PATH: &str = "/v1/client";

/// The path of an endpoint for the status alone, which is there also where a node has as many clients as it may have.
pub const STATUS_PATH: &str = "/v1/status";

/// The largest request number: 2^53 − 1, exact in every client language.
pub const MAX_REQUEST: u64 = (1 << 53) - 1;

/// The longest message of a client, in bytes, that a node takes. A bulk of 10,000 transfers between accounts with the
/// longest names is about 2 MiB in JSON.
pub const MAX_CLIENT_MESSAGE: usize = 4 << 20;

/// A session as a client names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionName {
    /// Its number: the position in the log of the request that opened it.
    #[serde(deserialize_with = "number::whole")]
    pub number: u64,
    /// The secret that it was opened with.
    #[serde(with = "ids::text")]
    pub key: SessionKey,
}

/// The key that a session is to be opened with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenSession {
    /// Drawn at random by the client. The same key opens the same session.
    #[serde(with = "ids::text")]
    pub key: SessionKey,
}

/// The first message of a client: with a session to go on with, or one to open, or neither.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that the client speaks: [`CLIENT_VERSION`].
    #[serde(deserialize_with = "number::whole")]
    pub version: u32,
    /// Who the client is. Without it nothing else is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// A session to go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionName>,
    /// A session to open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenSession>,
}

/// Which transactions a subscription is about, and where it begins.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Those that touch this account; `account_not_found` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// Those of at least this amount, in minor units of the asset.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub min_amount: Option<u64>,
    /// Those of this asset; `asset_not_found` if there is none. Where absent, any is meant, or the cluster's own one where there is a
    /// `min_amount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset: Option<AssetCode>,
    /// Those with this id or a higher one; the next to come where absent.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// One message of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// Says who speaks on this connection, and in which session. The first message.
    Hello(Hello),
    /// Asks for a change.
    Command {
        /// The client's number of this request, from 1.
        request: u64,
        /// One operation, or several.
        command: Command,
        /// The client has the answers to all requests up to this number; 0 for none.
        acknowledged: u64,
    },
    /// Asks for a change of who may do what.
    Admin {
        /// The client's number of this request, from 1.
        request: u64,
        /// What to change.
        admin: Box<Admin>,
        /// The client has the answers to all requests up to this number; 0 for none.
        acknowledged: u64,
    },
    /// Asks for something that the bank knows, and changes nothing.
    Query {
        /// The client's number of this request, from 1.
        request: u64,
        /// Read at the slot of the answer.
        query: Query,
        /// How fresh the answer must be.
        read: ReadLevel,
    },
    /// Asks to be told of transactions as they are applied.
    Subscribe {
        /// The client's number of this request, from 1. It names the subscription as long as that is open.
        request: u64,
        /// Of which transactions, and from where on.
        feed: Feed,
        /// What the node must have applied before it looks for the account, and for the next transaction to come.
        read: ReadLevel,
    },
    /// Ends a subscription: no more transactions are told of.
    Unsubscribe {
        /// The number of the request that began it.
        subscription: u64,
    },
    /// Ends the session that this connection speaks in, in the log too.
    Goodbye,
}

impl ClientMessage {
    /// The client's number of this request, if it is one.
    pub fn request(&self) -> Option<u64> {
        match self {
            ClientMessage::Command { request, .. }
            | ClientMessage::Admin { request, .. }
            | ClientMessage::Query { request, .. }
            | ClientMessage::Subscribe { request, .. } => Some(*request),
            ClientMessage::Hello(_) | ClientMessage::Unsubscribe { .. } | ClientMessage::Goodbye => None,
        }
    }
}

/// All fields that a client's message may have; which are there says what it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientFields {
    hello: Option<Hello>,
    #[serde(default, deserialize_with = "number::optional")]
    request: Option<u64>,
    command: Option<AnyCommand>,
    #[serde(default, deserialize_with = "number::optional")]
    acknowledged: Option<u64>,
    query: Option<Query>,
    read: Option<ReadLevel>,
    subscribe: Option<Feed>,
    #[serde(default, deserialize_with = "number::optional")]
    unsubscribe: Option<u64>,
    goodbye: Option<Goodbye>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Goodbye {}

impl Serialize for ClientMessage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct HelloFields<'a> {
            hello: &'a Hello,
        }
        #[derive(Serialize)]
        struct GoodbyeFields {
            goodbye: Goodbye,
        }
        #[derive(Serialize)]
        struct CommandFields<'a, C> {
            request: u64,
            command: &'a C,
            acknowledged: u64,
        }
        #[derive(Serialize)]
        struct QueryFields<'a> {
            request: u64,
            query: &'a Query,
            read: ReadLevel,
        }
        #[derive(Serialize)]
        struct SubscribeFields<'a> {
            request: u64,
            subscribe: &'a Feed,
            read: ReadLevel,
        }
        #[derive(Serialize)]
        struct UnsubscribeFields {
            unsubscribe: u64,
        }
        match self {
            ClientMessage::Hello(hello) => HelloFields { hello }.serialize(serializer),
            ClientMessage::Command { request, command, acknowledged } => {
                CommandFields { request: *request, command, acknowledged: *acknowledged }.serialize(serializer)
            }
            ClientMessage::Admin { request, admin, acknowledged } => {
                CommandFields { request: *request, command: admin, acknowledged: *acknowledged }.serialize(serializer)
            }
            ClientMessage::Query { request, query, read } => {
                QueryFields { request: *request, query, read: *read }.serialize(serializer)
            }
            ClientMessage::Subscribe { request, feed, read } => {
                SubscribeFields { request: *request, subscribe: feed, read: *read }.serialize(serializer)
            }
            ClientMessage::Unsubscribe { subscription } => {
                UnsubscribeFields { unsubscribe: *subscription }.serialize(serializer)
            }
            ClientMessage::Goodbye => GoodbyeFields { goodbye: Goodbye {} }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClientMessage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = ClientFields::deserialize(deserializer)?;
        fields.into_message().map_err(serde::de::Error::custom)
    }
}

impl ClientFields {
    fn into_message(self) -> Result<ClientMessage, &'static str> {
        let kinds = [
            self.hello.is_some(),
            self.command.is_some(),
            self.query.is_some(),
            self.subscribe.is_some(),
            self.unsubscribe.is_some(),
            self.goodbye.is_some(),
        ];
        match kinds.iter().filter(|&&there| there).count() {
            0 => return Err("expected one of hello, command, query, subscribe, unsubscribe, goodbye"),
            1 => {}
            _ => return Err("hello, command, query, subscribe, unsubscribe and goodbye are messages of their own"),
        }
        if let Some(hello) = self.hello {
            if hello.session.is_some() && hello.open.is_some() {
                return Err("a hello goes on with a session or opens one");
            }
            return Ok(ClientMessage::Hello(hello));
        }
        if self.goodbye.is_some() {
            return Ok(ClientMessage::Goodbye);
        }
        if let Some(subscription) = self.unsubscribe {
            return Ok(ClientMessage::Unsubscribe { subscription });
        }
        let request = match self.request {
            None => return Err("a command, query or subscription needs a request number"),
            Some(0) => return Err("request numbers start at 1"),
            Some(number) if number > MAX_REQUEST => return Err("request numbers end at 2^53 - 1"),
            Some(number) => number,
        };
        if let Some(command) = self.command {
            if self.read.is_some() {
                return Err("read belongs to a query");
            }
            let acknowledged = self.acknowledged.unwrap_or(0);
            return Ok(match command {
                AnyCommand::Bank(command) => ClientMessage::Command { request, command, acknowledged },
                AnyCommand::Admin(admin) => ClientMessage::Admin { request, admin, acknowledged },
            });
        }
        let read = self.read.unwrap_or_default();
        match (self.query, self.subscribe) {
            (Some(query), _) => Ok(ClientMessage::Query { request, query, read }),
            (None, Some(feed)) => Ok(ClientMessage::Subscribe { request, feed, read }),
            (None, None) => Err("expected a command, a query or a subscription"),
        }
    }
}

/// The request number of a message that is otherwise malformed, if it can be found.
#[derive(Deserialize)]
pub(crate) struct RequestNumber {
    #[serde(default, deserialize_with = "number::if_any")]
    pub(crate) request: Option<u64>,
}

/// One message of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, try_from = "ServerFields")]
pub enum ServerMessage {
    /// The answer to a hello.
    Welcome {
        /// Which node, and in which session.
        welcome: Welcome,
    },
    /// The answer to a command or a query.
    Answer(Box<Answer>),
    /// A transaction that a subscription is about.
    Transaction {
        /// The subscription: the number of the request that began it.
        subscription: u64,
        /// In the order of their ids, each once.
        transaction: Box<Transaction>,
    },
    /// The node has looked at all transactions up to an id, and sent those that the subscription is about.
    Reached {
        /// The number of the request that began it.
        subscription: u64,
        /// A subscription that is begun anew can go on from the next id.
        reached: u64,
    },
    /// An error that belongs to no request. The connection is closed after it where it says so in the close frame.
    Error {
        /// The reason, with its code and what it means for requests.
        error: Refusal,
    },
}

/// The answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The member at the other end of the connection.
    pub node: NodeId,
    /// The id of its cluster: a client can check that it is the one it expects.
    #[serde(with = "ids::text")]
    pub cluster: ClusterId,
    /// The session that this connection speaks in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Whether the hello opened that session: nothing was ever said in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opened: bool,
    /// The last slot that the node has applied.
    pub applied_slot: Slot,
    /// Which principal the client speaks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalName>,
    /// The level of the cluster, by what the node has applied: which commands, types and formats there are.
    #[serde(default)]
    pub level: u32,
    /// What the cluster can do beyond its level.
    #[serde(default)]
    pub features: Vec<Box<str>>,
    /// The members.
    #[serde(default)]
    pub nodes: Vec<NodeId>,
}

/// The answer to a command or a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The client's number of it.
    pub request: u64,
    /// The slot that the command was applied in, or that the query was read at. Absent where neither happened.
    pub slot: Option<Slot>,
    /// Of commands that were applied or refused in a slot: the place of the request in it, from 0.
    pub index: Option<u32>,
    /// The session that was opened for this connection: in the first answer to a command without a session.
    pub session: Option<SessionName>,
    /// What came of it.
    pub result: AnswerResult,
    /// Of commands with a slot: whether an earlier attempt was given this answer, and this one did nothing.
    pub replayed: Option<bool>,
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnswerResult {
    /// It was carried out.
    Ok(Success),
    /// It was not, or that is unknown.
    Error(Refusal),
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// serde's `flatten` would write the same, into a buffer first.
        #[derive(Serialize)]
        struct Fields<'a> {
            request: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            slot: Option<Slot>,
            #[serde(skip_serializing_if = "Option::is_none")]
            index: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            session: Option<SessionName>,
            #[serde(skip_serializing_if = "Option::is_none")]
            ok: Option<&'a Success>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'a Refusal>,
            #[serde(skip_serializing_if = "Option::is_none")]
            replayed: Option<bool>,
        }
        let Answer { request, slot, index, session, result, replayed } = self;
        let (ok, error) = match result {
            AnswerResult::Ok(success) => (Some(success), None),
            AnswerResult::Error(refusal) => (None, Some(refusal)),
        };
        Fields { request: *request, slot: *slot, index: *index, session: *session, ok, error, replayed: *replayed }
            .serialize(serializer)
    }
}

/// All fields that a node's message may have.
#[derive(Deserialize)]
struct ServerFields {
    welcome: Option<Welcome>,
    request: Option<u64>,
    slot: Option<Slot>,
    index: Option<u32>,
    session: Option<SessionName>,
    ok: Option<Success>,
    error: Option<Refusal>,
    replayed: Option<bool>,
    subscription: Option<u64>,
    transaction: Option<Box<Transaction>>,
    reached: Option<u64>,
}

impl TryFrom<ServerFields> for ServerMessage {
    type Error = &'static str;

    fn try_from(fields: ServerFields) -> Result<ServerMessage, &'static str> {
        let ServerFields { welcome, request, slot, index, session, ok, error, replayed, .. } = fields;
        if let Some(subscription) = fields.subscription {
            return match (fields.transaction, fields.reached) {
                (Some(transaction), None) => Ok(ServerMessage::Transaction { subscription, transaction }),
                (None, Some(reached)) => Ok(ServerMessage::Reached { subscription, reached }),
                _ => Err("expected either transaction or reached"),
            };
        }
        if let Some(welcome) = welcome {
            return Ok(ServerMessage::Welcome { welcome });
        }
        let result = match (ok, error) {
            (Some(success), None) => AnswerResult::Ok(success),
            (None, Some(refusal)) => match request {
                None => return Ok(ServerMessage::Error { error: refusal }),
                Some(_) => AnswerResult::Error(refusal),
            },
            _ => return Err("expected either ok or error"),
        };
        let Some(request) = request else { return Err("an answer without a request number") };
        Ok(ServerMessage::Answer(Box::new(Answer { request, slot, index, session, result, replayed })))
    }
}
