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
//! A batch of another kind carries no requests, but says that a member has a new store from some slots on (PROTOCOL.md,
//! "Replacing a lost store"):
//!
//! ```text
//! version: u8 = 2 | stamp: u64 big-endian, ms | node: u8 | store: 16 bytes
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
//! everywhere. Whether a payload passes follows from its bytes alone, so all nodes agree.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::bank::Command;
use crate::batched::Reader;
use crate::ids::{BatchId, Digest, Millis, NodeId, StoreId};
use crate::request;

pub use crate::batched::{BadCommand, Batched};
pub use crate::request::{Action, EncodedRequest, Request, RequestHeader};

/// The version of the format of a payload with requests. (Version 1 named no token. No log of a released program holds it.)
const VERSION: u8 = 3;
/// The version of the format of a payload that replaces a store.
const REPLACING: u8 = 2;
/// Version, stamp, node, store.
const REPLACING_LENGTH: usize = 1 + 8 + 1 + 16;
/// Version, stamp, count: what comes before the first request.
const PREFIX: usize = 1 + 8 + 4;

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

    /// When its origin made it.
    ///
    /// # Errors
    /// If the payload is too short or of another version.
    pub fn stamp(&self) -> Result<Millis, BadPayload> {
        match self.0.split_first_chunk::<9>() {
            Some(([REPLACING, stamp @ ..], _)) => Ok(u64::from_be_bytes(*stamp)),
            _ => self.prefix().map(|(stamp, _)| stamp),
        }
    }

    /// How many requests it carries.
    ///
    /// # Errors
    /// If the payload is too short or of another version.
    pub fn count(&self) -> Result<u32, BadPayload> {
        match self.replacement()? {
            Some(_) => Ok(0),
            None => self.prefix().map(|(_, count)| count),
        }
    }

    fn prefix(&self) -> Result<(Millis, u32), BadPayload> {
        let Some((prefix, _)) = self.0.split_first_chunk::<PREFIX>() else {
            return Err(BadPayload(format!("only {} bytes", self.0.len())));
        };
        let [version, rest @ ..] = *prefix;
        if version != VERSION {
            return Err(BadPayload(format!("version {version}, this program knows {VERSION}")));
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = rest;
        Ok((u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l])))
    }

    /// Limits that hold for every payload, of whatever kind.
    fn check_limits(&self) -> Result<(), BadPayload> {
        if self.len() > MAX_BATCH_BYTES {
            return Err(BadPayload(format!("{} bytes, {MAX_BATCH_BYTES} are the most", self.len())));
        }
        self.stamp().and_then(check_stamp)?;
        let count = self.count()?;
        if count > MAX_BATCH_REQUESTS {
            return Err(BadPayload(format!("{count} requests, {MAX_BATCH_REQUESTS} are the most")));
        }
        Ok(())
    }

    /// Whether it can be applied where commands are of the type `C`: looks at all of it. Passes exactly where
    /// [`Payload::contents`] succeeds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check<C: Batched>(&self) -> Result<(), BadPayload> {
        self.check_limits()?;
        if self.replacement()?.is_some() {
            return Ok(());
        }
        let mut reader = Reader(&self.0[PREFIX..]);
        for number in 1..=self.count()? {
            reader.skip_request::<C>().map_err(|what| bad_request(number, what))?;
        }
        nothing_behind(reader.0)
    }

    /// All that it says.
    ///
    /// # Errors
    /// What is wrong with it: then it can't be applied.
    pub fn contents<C: Batched>(&self) -> Result<Contents<'_, C>, BadPayload> {
        self.check_limits()?;
        match self.replacement()? {
            Some((node, store)) => Ok(Contents::Replacement(node, store)),
            None => Ok(Contents::Requests(self.requests()?.collect::<Result<_, _>>()?)),
        }
    }

    /// The requests, in order. The iterator ends after the first error.
    ///
    /// # Errors
    /// If the payload is too short or of another version, or replaces a store.
    pub fn requests<C: Batched>(&self) -> Result<impl Iterator<Item = Result<Request<'_, C>, BadPayload>>, BadPayload> {
        let (_, count) = self.prefix()?;
        let mut reader = Reader(&self.0[PREFIX..]);
        let (mut next, mut ended) = (1, false);
        Ok(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            if next > count {
                ended = true;
                return nothing_behind(reader.0).err().map(Err);
            }
            let request = reader.request().map_err(|what| bad_request(next, what));
            next += 1;
            ended = request.is_err();
            Some(request)
        }))
    }
}

/// A payload that can be applied, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contents<'a, C = Command> {
    /// These requests, in their order.
    Requests(Vec<Request<'a, C>>),
    /// This member gets this store.
    Replacement(NodeId, StoreId),
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
}

impl BatchBuilder {
    /// Adds a request behind those that are there.
    pub fn push<C: Batched>(&mut self, header: &RequestHeader, action: &Action<C>) {
        self.begin();
        request::write(&mut self.bytes, header, action);
        self.count += 1;
    }

    /// Adds a request that is encoded already.
    pub fn push_encoded(&mut self, request: &EncodedRequest) {
        self.begin();
        self.bytes.extend_from_slice(request.bytes());
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
        self.count = 0;
        let id = BatchId { origin, incarnation, sequence, digest: Digest::of(&bytes) };
        (id, Payload(bytes.into()))
    }
}
