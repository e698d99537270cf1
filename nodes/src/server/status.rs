//! The path for the status alone: it is answered also where a node has as many clients as it may have.
//!
//! It speaks the clients' protocol and knows one question. A connection lasts a few seconds at most.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_actors::mail::host_session;
use rabia_bank_actors::socket::ClientSocket;
use rabia_bank_messages::bank::{ErrorCode, Query, ReadLevel, Refusal, Success};
use rabia_bank_messages::client::{Answer, AnswerResult, CLIENT_VERSION, ClientMessage, ServerMessage, Welcome};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::Digest;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::config::NodeConfig;

/// How long a connection may last.
const LASTS: Duration = Duration::from_secs(5);

/// Answers questions for the status.
pub(super) async fn answer(
    mut socket: ClientSocket,
    handle: &NodeHandle,
    config: &NodeConfig,
    certificate: Option<Digest>,
) {
    let mut token = None;
    let answering = async {
        while let Some(Ok(frame)) = socket.next().await {
            let (encoding, decoded) = match &frame {
                Frame::Text(text) => (Encoding::Json, Encoding::Json.decode_client(text.as_bytes())),
                Frame::Binary(bytes) => (Encoding::MessagePack, Encoding::MessagePack.decode_client(bytes)),
                Frame::Close(_) => return,
                Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => continue,
            };
            let reply = match decoded {
                Ok(message) => reply(message, handle, config, certificate, &mut token).await,
                Err(malformed) => refuse(malformed.request, ErrorCode::Malformed, malformed.message),
            };
            let bytes = encoding.encode(&reply);
            let frame = match encoding {
                Encoding::Json => Frame::text(String::from_utf8_lossy(&bytes).as_ref()),
                Encoding::MessagePack => Frame::binary(bytes),
            };
            if socket.send(frame).await.is_err() {
                return;
            }
        }
    };
    // Then it has had its answer, or is too slow for a node that has little left to give.
    let _ = tokio::time::timeout(LASTS, answering).await;
}

/// `certificate` is the hash of the key of the one that the client has shown, `token` the number of the token that was shown, of a principal that may look at the status.
async fn reply(
    message: ClientMessage,
    handle: &NodeHandle,
    config: &NodeConfig,
    certificate: Option<Digest>,
    token: &mut Option<u64>,
) -> ServerMessage {
    match message {
        ClientMessage::Hello(hello) if hello.version < CLIENT_VERSION => {
            refuse(None, ErrorCode::ClientTooOld, format!("version {CLIENT_VERSION} is spoken here"))
        }
        ClientMessage::Hello(hello) => {
            let roster = handle.roster();
            let now = handle.trusted_time();
            let shown = match &hello.token {
                Some(token) => roster.recognise(token, now),
                None => certificate.and_then(|certificate| roster.recognise_certificate(&certificate, now)),
            };
            let Some((number, principal)) = shown else {
                return refuse(None, ErrorCode::NotAuthorised, "say hello with a token that is in force".into());
            };
            *token = Some(number);
            ServerMessage::Welcome {
                welcome: Welcome {
                    node: config.node,
                    cluster: config.cluster,
                    session: None,
                    opened: false,
                    applied_slot: handle.applied_slot(),
                    principal: Some(principal),
                    level: handle.level(),
                    features: Vec::new(),
                    nodes: config.members.iter().map(|member| member.node).collect(),
                },
            }
        }
        ClientMessage::Query { request, query: Query::GetStatus {}, .. } => match query(handle, *token).await {
            Ok((slot, success)) => {
                let result = AnswerResult::Ok(success);
                ServerMessage::Answer(Box::new(Answer {
                    request,
                    slot,
                    index: None,
                    session: None,
                    result,
                    replayed: None,
                }))
            }
            Err(refusal) => refuse_with(Some(request), refusal),
        },
        ClientMessage::Query { request, .. }
        | ClientMessage::Command { request, .. }
        | ClientMessage::Admin { request, .. }
        | ClientMessage::Subscribe { request, .. } => {
            refuse(Some(request), ErrorCode::Malformed, "only get_status is answered on this path".into())
        }
        ClientMessage::Unsubscribe { .. } | ClientMessage::Goodbye => {
            refuse(None, ErrorCode::Malformed, "only get_status is answered on this path".into())
        }
    }
}

async fn query(handle: &NodeHandle, token: Option<u64>) -> Result<(Option<u64>, Success), Refusal> {
    let Some(token) = token else {
        return Err(Refusal::refused(ErrorCode::NotAuthorised, "say hello first, with a token that is in force"));
    };
    let stopping = || Refusal::refused(ErrorCode::Stopping, "the node is stopping");
    // No session is opened in the log for a query.
    let sessions = handle.bank_sessions().ok_or_else(stopping)?;
    let session = sessions.open_as(None, token).await.map_err(|_| stopping())?;
    let answer = session.send(host_session::Query { query: Query::GetStatus {}, read: ReadLevel::Local }).await;
    session.do_send(host_session::Close { in_log: false });
    let reply = answer.unwrap_or_else(|_| Err(stopping()))?;
    Ok((reply.slot, reply.success))
}

fn refuse(request: Option<u64>, code: ErrorCode, message: String) -> ServerMessage {
    refuse_with(request, Refusal::refused(code, message))
}

fn refuse_with(request: Option<u64>, error: Refusal) -> ServerMessage {
    match request {
        None => ServerMessage::Error { error },
        Some(request) => {
            let result = AnswerResult::Error(error);
            ServerMessage::Answer(Box::new(Answer {
                request,
                slot: None,
                index: None,
                session: None,
                result,
                replayed: None,
            }))
        }
    }
}
