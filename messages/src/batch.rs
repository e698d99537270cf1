//! The payload of a batch: requests that one node grouped, as every node applies them.
//!
//! # Layout
//!
//! ```text
//! version: u8 = 3 | stamp: u64 big-endian, ms | count: u32 big-endian | count × (header | action)
//!
//! header: [session, key: bin 16, number, acknowledged, token]
//! action: "Open" | "Close" | {"Command": {"transfer": [from_account, to_account, amount]}}
//!                          | {"Command": {"bulk": [[{"deposit": [account_id, amount]}, …], atomic]}}
//!                          | {"Admin": {"revoke_token": [token_id]}}
//! ```
//!
//! This is the format of [level] 1. A batch with a request that only a later level has says so, and so does every format that
//! a later level brings:
//!
//! ```text
//! version: u8 = 5 | stamp: u64 big-endian, ms | level: u32 big-endian, from 2 | count: u32 big-endian | count × (header | action)
//! ```
//!
//! Batches of other kinds carry no requests. One says that a member has a new store from some slots on (PROTOCOL.md, "Replacing a lost
//! store"), the other which levels the program of its origin knows:
//!
//! ```text
//! version: u8 = 2 | stamp: u64 big-endian, ms | node: u8 | store: 16 bytes
//! version: u8 = 4 | stamp: u64 big-endian, ms | level: u32 big-endian, the highest
//! ```
//!
//! Header and action are MessagePack in its [compact form](crate::msgpack): structs are arrays of their fields in the order of
//! declaration, so a change of [`RequestHeader`], [`Action`] or the commands of the bank raises the version. (Where something else
//! than the bank is replicated, its command takes the place of the bank's: see [`Batched`].) Batches stay
//! in the log and in the hash of their id: a version, once released, is decoded for as long as logs hold it.
//!
//! # One encoding for one request
//!
//! MessagePack has several encodings for one value. A payload has one: nodes encode what they decoded and never pass on
//! bytes that came from a client, [`BatchBuilder`] is the only writer, and every number, length and text that is not in its
//! shortest form is refused. So [`Request::action_bytes`] can stand for the action where a retry is compared with the first
//! attempt.
//!
//! # What is believed
//!
//! A node holds a payload that a peer sent only after [`Payload::check`], which looks at every byte: a payload that could
//! not be applied never gets a slot by an honest node. One that is decided all the same is applied as an empty batch,
//! everywhere: whether it can be applied follows from its bytes and the [level] in force, so all nodes agree. A payload of a
//! level that is not in force yet is held where the program knows it, for the slot before may raise the level.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bank::Command;
use crate::batched::Reader;
use crate::ids::{BatchId, Digest, Millis, NodeId, StoreId};
use crate::level::{self, MAX_LEVEL};
use crate::request;

pub use crate::batched::{BadCommand, Batched};
pub use crate::request::{Action, EncodedRequest, Request, RequestHeader};

/// The version of the format of a payload with requests. (Version 1 named no token. No log of a released program holds it.)
const VERSION: u8 = 3;
/// The version of the format of a payload that replaces a store.
const REPLACING: u8 = 2;
/// The version of the format of a payload that says what a program knows.
const CAN: u8 = 4;
/// The version of the format of a payload with requests that says of which level it is.
const LEVELLED: u8 = 5;
/// Version, stamp, node, store.
const REPLACING_LENGTH: usize = 1 + 8 + 1 + 16;
/// Version, stamp, level.
const CAN_LENGTH: usize = 1 + 8 + 4;
/// Version, stamp, count: what comes before the first request.
const PREFIX: usize = 1 + 8 + 4;
/// Version, stamp, level, count: the same where the level is said.
const LEVELLED_PREFIX: usize = PREFIX + 4;

/// The most requests in one batch, so that applying one does not stall a node for long.
pub const MAX_BATCH_REQUESTS: u32 = 8_192;
/// The longest payload, in bytes. The longest message that a node can be set up to take from a client has 8 MiB, a command in
/// it may become longer by two thirds (the shortest `deposit` has 12 bytes there and 20 in a batch), and up to
/// [`FULL_BATCH_BYTES`] may have gathered before it. It leaves room in a frame between nodes.
pub const MAX_BATCH_BYTES: usize = 14 << 20;
/// The latest stamp of a batch, in milliseconds: the last number that every client can read exactly, in the year 287396.
pub const MAX_STAMP: Millis = (1 << 53) - 1;
/// A batch that has reached this size takes no further request. One request may be larger on its own, up to the
/// message limit of clients.
pub const FULL_BATCH_BYTES: usize = 256 * 1024;

/// The payload of a batch, shared without copying.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(Bytes);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Why a payload can't be applied. No honest node of this version sends one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged batch: {0}")]
pub struct BadPayload(String);

impl Payload {
    /// Wraps bytes that came from a peer or a disk.
    pub fn new(bytes: impl Into<Bytes>) -> Payload {
        Payload(bytes.into())
    }

    /// As they go to peers and to disk.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Its size in bytes, the prefix included.
    #[allow(clippy::len_without_is_empty)] // a payload has a prefix at least
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is the payload that `id` names.
    pub fn matches(&self, id: &BatchId) -> bool {
        Digest::of(&self.0) == id.digest
    }

    /// The payload of a batch that gives a member a new store. A stamp above [`MAX_STAMP`] becomes that.
    pub fn replacing(node: NodeId, store: StoreId, stamp: Millis) -> Payload {
        let mut bytes = Vec::with_capacity(REPLACING_LENGTH);
        bytes.push(REPLACING);
        bytes.extend_from_slice(&stamp.min(MAX_STAMP).to_be_bytes());
        bytes.push(node.get());
        bytes.extend_from_slice(&store.0);
        Payload(bytes.into())
    }

    /// Which member it gives a new store, and which store. `None` if it carries requests.
    ///
    /// # Errors
    /// If it should, but can't be decoded.
    pub fn replacement(&self) -> Result<Option<(NodeId, StoreId)>, BadPayload> {
        if self.0.first() != Some(&REPLACING) {
            return Ok(None);
        }
        let Ok([_, _, _, _, _, _, _, _, _, node, store @ ..]) = <[u8; REPLACING_LENGTH]>::try_from(&self.0[..]) else {
            return Err(BadPayload(format!("{} bytes that should replace a store", self.0.len())));
        };
        let node = NodeId::new(node).ok_or_else(|| BadPayload(format!("a new store for node {node}")))?;
        self.stamp().and_then(check_stamp)?;
        Ok(Some((node, StoreId(store))))
    }

    /// The payload of a batch that says up to which level its origin's program knows them. A stamp above [`MAX_STAMP`] becomes that.
    pub fn can(level: u32, stamp: Millis) -> Payload {
        let mut bytes = Vec::with_capacity(CAN_LENGTH);
        bytes.push(CAN);
        bytes.extend_from_slice(&stamp.min(MAX_STAMP).to_be_bytes());
        bytes.extend_from_slice(&level.to_be_bytes());
        Payload(bytes.into())
    }

    /// Up to which level its origin's program knows them. `None` if it says nothing of that.
    fn known_level(&self) -> Result<Option<u32>, BadPayload> {
        if self.0.first() != Some(&CAN) {
            return Ok(None);
        }
        let Ok([_, _, _, _, _, _, _, _, _, a, b, c, d]) = <[u8; CAN_LENGTH]>::try_from(&self.0[..]) else {
            return Err(BadPayload(format!("{} bytes that should name a level", self.0.len())));
        };
        let level = u32::from_be_bytes([a, b, c, d]);
        if !(1..=MAX_LEVEL).contains(&level) {
            return Err(BadPayload(format!("a program of level {level}, they are 1 to {MAX_LEVEL}")));
        }
        self.stamp().and_then(check_stamp)?;
        Ok(Some(level))
    }

    /// When its origin made it.
    ///
    /// # Errors
    /// If the payload is too short or of another version.
    pub fn stamp(&self) -> Result<Millis, BadPayload> {
        match self.0.split_first_chunk::<9>() {
            Some(([REPLACING | CAN, stamp @ ..], _)) => Ok(u64::from_be_bytes(*stamp)),
            _ => self.prefix().map(|prefix| prefix.stamp),
        }
    }

    /// How many requests it carries.
    ///
    /// # Errors
    /// If the payload is too short or of another version.
    pub fn count(&self) -> Result<u32, BadPayload> {
        match self.0.first() {
            Some(&(REPLACING | CAN)) => Ok(0),
            _ => self.prefix().map(|prefix| prefix.count),
        }
    }

    fn prefix(&self) -> Result<Prefix, BadPayload> {
        let short = || BadPayload(format!("only {} bytes", self.0.len()));
        let number = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
        let (head, rest) = self.0.split_first_chunk::<9>().ok_or_else(short)?;
        let [version, stamp @ ..] = head;
        let (first, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let stamp = u64::from_be_bytes(*stamp);
        match *version {
            VERSION => Ok(Prefix { level: 1, stamp, count: number(first), requests: PREFIX }),
            LEVELLED => {
                let (count, _) = rest.split_first_chunk::<4>().ok_or_else(short)?;
                let level = number(first);
                if !(2..=MAX_LEVEL).contains(&level) {
                    return Err(BadPayload(format!("a format of level {level}, such are of 2 to {MAX_LEVEL}")));
                }
                Ok(Prefix { level, stamp, count: number(count), requests: LEVELLED_PREFIX })
            }
            version => Err(BadPayload(format!("version {version}, this program knows {VERSION}"))),
        }
    }

    /// Limits that hold for every payload, of whatever kind, where formats up to this level are read.
    fn check_limits(&self, level: u32) -> Result<(), BadPayload> {
        if self.len() > MAX_BATCH_BYTES {
            return Err(BadPayload(format!("{} bytes, {MAX_BATCH_BYTES} are the most", self.len())));
        }
        self.stamp().and_then(check_stamp)?;
        let count = self.count()?;
        if count > MAX_BATCH_REQUESTS {
            return Err(BadPayload(format!("{count} requests, {MAX_BATCH_REQUESTS} are the most")));
        }
        match self.prefix() {
            Ok(prefix) if prefix.level > level => Err(BadPayload(format!(
                "its format is of level {}, where formats up to level {level} count",
                prefix.level
            ))),
            _ => Ok(()),
        }
    }

    /// Whether it can be applied where commands are of the type `C`, at some level that this program knows: looks at all of it. Passes
    /// exactly where [`Payload::contents`] succeeds at the highest one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check<C: Batched>(&self) -> Result<(), BadPayload> {
        self.check_limits(level::highest())?;
        if self.replacement()?.is_some() || self.known_level()?.is_some() {
            return Ok(());
        }
        let prefix = self.prefix()?;
        let mut reader = Reader(&self.0[prefix.requests..]);
        let mut levels = Levels::new(&prefix);
        for number in 1..=prefix.count {
            let level = reader.skip_request::<C>().map_err(|what| bad_request(number, what))?;
            levels.add(number, level)?;
        }
        nothing_behind(reader.0)?;
        levels.finish()
    }

    /// All that it says, where this level is in force.
    ///
    /// # Errors
    /// What is wrong with it: then it can't be applied.
    pub fn contents<C: Batched>(&self, level: u32) -> Result<Contents<'_, C>, BadPayload> {
        self.check_limits(level)?;
        if let Some((node, store)) = self.replacement()? {
            return Ok(Contents::Replacement(node, store));
        }
        match self.known_level()? {
            Some(level) => Ok(Contents::Can(level)),
            None => Ok(Contents::Requests(self.requests()?.collect::<Result<_, _>>()?)),
        }
    }

    /// The requests, in order. The iterator ends after the first error.
    ///
    /// # Errors
    /// If the payload is too short or of another version, or carries none by its kind.
    pub fn requests<C: Batched>(&self) -> Result<impl Iterator<Item = Result<Request<'_, C>, BadPayload>>, BadPayload> {
        let prefix = self.prefix()?;
        let mut reader = Reader(&self.0[prefix.requests..]);
        let mut levels = Levels::new(&prefix);
        let (mut next, mut ended) = (1, false);
        Ok(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            if next > prefix.count {
                ended = true;
                return nothing_behind(reader.0).and_then(|()| levels.finish()).err().map(Err);
            }
            let request = reader.request().map_err(|what| bad_request(next, what));
            let request = request.and_then(|request: Request<'_, C>| {
                levels.add(next, request.action.level())?;
                Ok(request)
            });
            next += 1;
            ended = request.is_err();
            Some(request)
        }))
    }
}

/// What comes before the first request.
struct Prefix {
    /// Of the format.
    level: u32,
    stamp: Millis,
    count: u32,
    /// Where the first request begins.
    requests: usize,
}

/// The levels of a payload's requests. Its format is of the lowest one that has them all: so it has one encoding.
struct Levels {
    format: u32,
    needed: u32,
}

impl Levels {
    fn new(prefix: &Prefix) -> Levels {
        Levels { format: prefix.level, needed: 1 }
    }

    fn add(&mut self, number: u32, level: u32) -> Result<(), BadPayload> {
        self.needed = self.needed.max(level);
        if level <= self.format {
            return Ok(());
        }
        Err(BadPayload(format!("request {number}: it is of level {level}, in a format of level {}", self.format)))
    }

    fn finish(&self) -> Result<(), BadPayload> {
        if self.needed == self.format {
            return Ok(());
        }
        Err(BadPayload(format!("a format of level {}, where level {} has all of it", self.format, self.needed)))
    }
}

/// A payload that can be applied, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contents<'a, C = Command> {
    /// These requests, in their order.
    Requests(Vec<Request<'a, C>>),
    /// This member gets this store.
    Replacement(NodeId, StoreId),
    /// The program of the batch's origin knows the levels up to this one.
    Can(u32),
}

fn check_stamp(stamp: Millis) -> Result<(), BadPayload> {
    if stamp > MAX_STAMP { Err(BadPayload(format!("a stamp of {stamp}, {MAX_STAMP} is the latest"))) } else { Ok(()) }
}

fn bad_request(number: u32, what: &str) -> BadPayload {
    BadPayload(format!("request {number}: {what}"))
}

fn nothing_behind(rest: &[u8]) -> Result<(), BadPayload> {
    if rest.is_empty() { Ok(()) } else { Err(BadPayload(format!("{} bytes after the last request", rest.len()))) }
}

/// Gathers requests into a payload, encoding each as it comes.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    count: u32,
    /// The highest of a request.
    level: u32,
}

impl BatchBuilder {
    /// Adds a request behind those that are there.
    pub fn push<C: Batched>(&mut self, header: &RequestHeader, action: &Action<C>) {
        self.begin();
        request::write(&mut self.bytes, header, action);
        self.level = self.level.max(action.level());
        self.count += 1;
    }

    /// Adds a request that is encoded already.
    pub fn push_encoded(&mut self, request: &EncodedRequest) {
        self.begin();
        self.bytes.extend_from_slice(request.bytes());
        self.level = self.level.max(request.level());
        self.count += 1;
    }

    fn begin(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; PREFIX]);
        }
    }

    /// How many requests were added so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The size of the payload so far, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no request yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether further requests should go to the next batch.
    pub fn is_full(&self) -> bool {
        self.count >= MAX_BATCH_REQUESTS || self.bytes.len() >= FULL_BATCH_BYTES
    }

    /// The payload with its id. The builder is empty afterwards. A stamp above [`MAX_STAMP`] becomes that.
    pub fn finish(&mut self, origin: NodeId, incarnation: u64, sequence: u64, stamp: Millis) -> (BatchId, Payload) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            bytes.extend_from_slice(&[0; PREFIX]);
        }
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&stamp.min(MAX_STAMP).to_be_bytes());
        bytes[9..PREFIX].copy_from_slice(&self.count.to_be_bytes());
        if self.level > 1 {
            bytes[0] = LEVELLED;
            bytes.splice(9..9, self.level.to_be_bytes());
        }
        (self.count, self.level) = (0, 0);
        let id = BatchId { origin, incarnation, sequence, digest: Digest::of(&bytes) };
        (id, Payload(bytes.into()))
    }
}
