//! What a node says, decoded no further than needed: the outcome of a bulk of thousands is known from a few fields.

use rabia_bank_messages::bank::{Refusal, Success};
use rabia_bank_messages::client::{Answer, AnswerResult, Welcome};
use rabia_bank_messages::codec::{Encoding, Malformed};
use rabia_bank_messages::ids::Slot;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio_tungstenite::tungstenite::Bytes;

/// An answer that settles a request, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// The slot that it was applied in or read at.
    pub slot: Option<Slot>,
    /// Of a command: its place in that slot, from 0.
    pub index: Option<u32>,
    /// Whether it is the answer to an earlier attempt.
    pub replayed: bool,
    /// Why it was refused; `None`: it was carried out.
    pub refusal: Option<Refusal>,
    encoding: Encoding,
    frame: Bytes,
}

/// Any message of a node, without what is inside `ok`.
pub(super) enum Incoming {
    Welcome(Welcome),
    Answer {
        request: u64,
        answered: Answered,
    },
    /// The answer to this request is not in words that this program understands.
    Unreadable {
        request: u64,
        why: String,
        answered: Answered,
    },
    Error(Refusal),
    /// A message of a kind that this program does not know: it is not meant for it.
    Unknown,
}

#[derive(Deserialize)]
struct Fields {
    welcome: Option<Welcome>,
    request: Option<u64>,
    slot: Option<Slot>,
    index: Option<u32>,
    ok: Option<IgnoredAny>,
    error: Option<Refusal>,
    #[serde(default)]
    replayed: Option<bool>,
}

/// Which fields of those that tell what a message is are there.
#[derive(Deserialize)]
struct Kind {
    welcome: Option<IgnoredAny>,
    request: Option<IgnoredAny>,
    subscription: Option<IgnoredAny>,
    ok: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// The number of the request that a message answers, whatever else it says.
#[derive(Deserialize)]
struct RequestNumber {
    request: Option<u64>,
}

/// Whether this is a message of a kind that this program does not know.
pub(super) fn is_of_unknown_kind(encoding: Encoding, frame: &[u8]) -> bool {
    let fields = encoding.decode::<Kind>(frame);
    fields.is_ok_and(|Kind { welcome, request, subscription, ok, error }| {
        [welcome, request, subscription, ok, error].iter().all(Option::is_none)
    })
}

impl Incoming {
    pub(super) fn decode(encoding: Encoding, frame: Bytes) -> Result<Incoming, Malformed> {
        let fields = match encoding.decode(&frame) {
            Ok(fields) => fields,
            Err(malformed) => return Incoming::unreadable(encoding, frame, malformed),
        };
        let Fields { welcome, request, slot, index, ok, error, replayed } = fields;
        match (welcome, request, ok, error) {
            (Some(welcome), ..) => Ok(Incoming::Welcome(welcome)),
            (None, None, None, Some(refusal)) => Ok(Incoming::Error(refusal)),
            (None, None, None, None) => Ok(Incoming::Unknown),
            (None, Some(request), ok, refusal) if ok.is_some() != refusal.is_some() => {
                let replayed = replayed.unwrap_or(false);
                let answered = Answered { slot, index, replayed, refusal, encoding, frame };
                Ok(Incoming::Answer { request, answered })
            }
            _ => Incoming::unreadable(encoding, frame, malformed("neither a welcome, nor an answer, nor an error")),
        }
    }

    /// What can be told of a message that can't be read: which request it answers, perhaps.
    fn unreadable(encoding: Encoding, frame: Bytes, malformed: Malformed) -> Result<Incoming, Malformed> {
        match encoding.decode(&frame) {
            Ok(RequestNumber { request: Some(request) }) => {
                let answered = Answered { slot: None, index: None, replayed: false, refusal: None, encoding, frame };
                Ok(Incoming::Unreadable { request, why: malformed.message, answered })
            }
            _ => Err(malformed),
        }
    }
}

impl Answered {
    /// A refusal that needed no node.
    pub(super) fn refused_here(encoding: Encoding, request: u64, refusal: Refusal) -> Answered {
        let result = AnswerResult::Error(refusal.clone());
        let frame =
            encoding.encode(&Answer { request, slot: None, index: None, session: None, result, replayed: None });
        Answered { slot: None, index: None, replayed: false, refusal: Some(refusal), encoding, frame: frame.into() }
    }

    /// The whole frame, in the encoding of the client.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// What the request brought.
    ///
    /// # Errors
    /// If it was refused, or this program does not know the answer.
    pub fn success(&self) -> Result<Success, Malformed> {
        self.ok()
    }

    /// Decodes the fields of `ok`, as many as `T` has: of a large answer often only a few are wanted.
    ///
    /// # Errors
    /// If the request was refused, or a field is missing or of another type.
    pub fn ok<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        #[derive(Deserialize)]
        struct Ok<T> {
            ok: T,
        }
        self.encoding.decode(&self.frame).map(|Ok { ok }| ok)
    }
}

fn malformed(problem: impl std::fmt::Display) -> Malformed {
    Malformed { message: problem.to_string(), request: None }
}
