//! Bytes to messages and back, for clients ([`Encoding`]) and peers ([`encode_message`], [`decode_frame`]).
//!
//! Decoding takes bytes from anywhere: it never panics, takes at most [`MAX_DEPTH`] nested arrays and maps, allocates in
//! proportion to what is there rather than to what is declared, and refuses bytes behind the message.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::{ClientMessage, RequestNumber, ServerMessage};
use crate::msgpack::{self, BadValue, MAX_DEPTH};
use crate::number;
use crate::peer::{Opening, PROTOCOL_VERSION, PeerMessage};

/// The most characters in the text of an error: serde quotes what it did not expect, and that may be the whole message.
const MAX_ERROR_TEXT: usize = 200;

/// How a client's frame is encoded. Answers come in the encoding of the question.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// JSON in text frames.
    Json,
    /// Binary frames: MessagePack with named fields.
    MessagePack,
}

/// A message that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// A sentence for people; its words may change.
    pub message: String,
    /// The request number it has, where that much could be read.
    pub request: Option<u64>,
}

impl Malformed {
    fn new(message: impl std::fmt::Display) -> Malformed {
        let mut message = message.to_string();
        if let Some((end, _)) = message.char_indices().nth(MAX_ERROR_TEXT) {
            message.truncate(end);
        }
        Malformed { message, request: None }
    }
}

/// JSON in which every number that has a fraction or an exponent is written as the whole number that it is, or as one that is
/// refused where a whole one is wanted. A number of JSON is its text, and serde_json would round it to the nearest float:
/// amounts that do not come through [`Encoding::decode_client`] have to come through here.
pub fn exact_numbers(json: &str) -> Cow<'_, str> {
    match number::exact(json.as_bytes()) {
        Cow::Borrowed(_) => Cow::Borrowed(json),
        // Between the numbers stands what stood there, and they are ASCII.
        Cow::Owned(bytes) => String::from_utf8(bytes).map_or(Cow::Borrowed(json), Cow::Owned),
    }
}

impl Encoding {
    /// Decodes what a client said.
    ///
    /// # Errors
    /// If it is anything else than exactly one message.
    pub fn decode_client(self, bytes: &[u8]) -> Result<ClientMessage, Malformed> {
        let bytes = match self {
            Encoding::Json => number::exact(bytes),
            Encoding::MessagePack => bytes.into(),
        };
        self.decode(&bytes).map_err(|e| Malformed { request: self.find_request(&bytes), ..e })
    }

    /// Decodes what a node said.
    ///
    /// # Errors
    /// If it is anything else than exactly one message.
    pub fn decode_server(self, bytes: &[u8]) -> Result<ServerMessage, Malformed> {
        self.decode(bytes)
    }

    /// Encodes a message of a client or a node.
    pub fn encode(self, message: &impl Serialize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        match self {
            Encoding::Json => {
                let encoded = serde_json::to_writer(&mut bytes, message);
                assert!(encoded.is_ok(), "encoding a message as JSON into memory failed: {encoded:?}");
            }
            Encoding::MessagePack => msgpack::write_named(&mut bytes, message),
        }
        bytes
    }

    /// Whether a message that can't be decoded was meant as a hello.
    pub fn is_hello(self, bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Probe {
            hello: Option<serde::de::IgnoredAny>,
        }
        self.decode::<Probe>(bytes).is_ok_and(|probe| probe.hello.is_some())
    }

    fn find_request(self, bytes: &[u8]) -> Option<u64> {
        self.decode::<RequestNumber>(bytes).ok()?.request
    }

    /// Decodes a message, or as many of its fields as `T` has.
    ///
    /// # Errors
    /// If it is anything else than exactly one message with these fields.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, Malformed> {
        match self {
            Encoding::Json => {
                check_json_depth(bytes)?;
                serde_json::from_slice(bytes).map_err(Malformed::new)
            }
            Encoding::MessagePack => msgpack::decode(bytes).map_err(Malformed::new),
        }
    }
}

/// Refuses JSON that nests too deep: serde_json's own limit is 128, and fixed.
fn check_json_depth(bytes: &[u8]) -> Result<(), Malformed> {
    // Most messages have fewer brackets than they may nest, and counting is much quicker than following them.
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= MAX_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(too_deep());
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn too_deep() -> Malformed {
    Malformed::new(format_args!("nested deeper than {MAX_DEPTH}"))
}

/// The longest frame before a link is accepted, in bytes: a hello has some 200.
pub const MAX_OPENING_FRAME: usize = 4 << 10;

/// The largest frame between peers, in bytes. Longer than a batch with the largest request a client may send.
pub const MAX_PEER_FRAME: usize = 16 << 20;

/// Encodes the opening frame of a link.
pub fn encode_opening(opening: &Opening) -> Vec<u8> {
    let mut bytes = vec![PROTOCOL_VERSION];
    msgpack::write(&mut bytes, opening);
    bytes
}

/// Why a peer's frame can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Its first byte is another one than [`PROTOCOL_VERSION`].
    #[error("protocol version {0}, this program speaks {PROTOCOL_VERSION}")]
    Version(u8),
    /// What is wrong with the rest of it.
    #[error("damaged frame: {0}")]
    Damaged(String),
}

/// Decodes the opening frame of a link.
///
/// # Errors
/// If it is of another version or damaged.
pub fn decode_opening(frame: &[u8]) -> Result<Opening, BadFrame> {
    msgpack::decode(check_version(frame)?).map_err(damaged)
}

/// An empty frame, for [`encode_message`].
pub fn start_frame() -> Vec<u8> {
    vec![PROTOCOL_VERSION]
}

/// Adds a message to a frame that [`start_frame`] began.
pub fn encode_message(frame: &mut Vec<u8>, message: &PeerMessage) {
    msgpack::write(frame, message);
}

/// The most messages in a frame: many more than wait for a socket at a time, and few enough that a frame of short ones is not
/// many times as long in memory.
pub const MAX_FRAME_MESSAGES: usize = 65_536;

/// Decodes the messages of a frame.
///
/// # Errors
/// If it is of another version, has more than [`MAX_FRAME_MESSAGES`], or any of them is damaged.
pub fn decode_frame(frame: &[u8]) -> Result<Vec<PeerMessage>, BadFrame> {
    let mut rest = check_version(frame)?;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        if messages.len() == MAX_FRAME_MESSAGES {
            return Err(BadFrame::Damaged(format!("more than {MAX_FRAME_MESSAGES} messages")));
        }
        messages.push(msgpack::take(&mut rest).map_err(damaged)?);
    }
    Ok(messages)
}

fn check_version(frame: &[u8]) -> Result<&[u8], BadFrame> {
    match frame.split_first() {
        Some((&PROTOCOL_VERSION, rest)) => Ok(rest),
        Some((&version, _)) => Err(BadFrame::Version(version)),
        None => Err(BadFrame::Damaged("an empty frame".into())),
    }
}

fn damaged(why: BadValue) -> BadFrame {
    BadFrame::Damaged(why.to_string())
}
