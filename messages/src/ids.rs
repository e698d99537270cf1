//! Who speaks, about what: node, cluster, store, run and batch ids, slots and phases, digests.
//!
//! Ids of sixteen or thirty-two bytes are hexadecimal text wherever a person or a client sees them (JSON,
//! configuration, both encodings of the client protocol) and raw bytes between nodes and on disk.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A position of the replicated log, from 1. Slot 0 means "none yet".
pub type Slot = u64;

/// The last slot that there can be: at 20,000 a second a cluster gets there after 14,000 years. A number above it in a message
/// is a mistake, and with it no sum of slots overflows.
pub const MAX_SLOT: Slot = (1 << 53) - 1;

/// A try inside a slot, from 1.
pub type Phase = u32;

/// A slot that needed so many phases is a bug or an attack: the probability is below 2^-1000.
pub const MAX_PHASES: Phase = 1_000;

/// Milliseconds of log time since the Unix epoch: stamped by a batch's origin, made monotonic by the ledger.
pub type Millis = u64;

/// The most nodes that a cluster may have.
pub const MAX_NODES: usize = 7;

/// A member of the cluster, 1 to [`MAX_NODES`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(transparent)]
pub struct NodeId(u8);

impl NodeId {
    /// The node with this number, if it is within 1 to [`MAX_NODES`].
    pub fn new(number: u8) -> Option<NodeId> {
        (1..=MAX_NODES as u8).contains(&number).then_some(NodeId(number))
    }

    /// The number of the member, 1 to [`MAX_NODES`].
    pub fn get(self) -> u8 {
        self.0
    }

    /// The number, from 0, to index an array of nodes.
    pub fn index(self) -> usize {
        usize::from(self.0) - 1
    }

    /// All nodes of a cluster of `count` members, in order.
    pub fn all(count: usize) -> impl DoubleEndedIterator<Item = NodeId> + Clone {
        (1..=count.min(MAX_NODES) as u8).map(NodeId)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        NodeId::new(number).ok_or_else(|| {
            serde::de::Error::custom(format_args!("a node is a number from 1 to {MAX_NODES}, not {number}"))
        })
    }
}

/// A text that is no id, for its length or its characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits")]
pub struct BadId {
    expected: usize,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut digits = [0; 2 * $bytes];
                hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
                f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| BadId { expected: 2 * $bytes })?;
                Ok($name(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    text::serialize(self, serializer)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    text::deserialize(deserializer)
                } else {
                    let bytes = <serde_bytes::ByteArray<$bytes>>::deserialize(deserializer)?;
                    Ok($name(bytes.into_array()))
                }
            }
        }
    };
}

hex_id!(
    /// Names a cluster: drawn at random when it is created, compared in every handshake.
    ClusterId,
    16
);
hex_id!(
    /// Names the store of one member by the key that is made with it ([`StoreId::of_key`]): fixed when the cluster is created
    /// (PROTOCOL.md, rule 12), or when a store takes the place of a lost one.
    StoreId,
    16
);
hex_id!(
    /// Names one run of one node's process: drawn at random at every start.
    RunId,
    16
);
hex_id!(
    /// The secret of a session: who holds it may speak in the session. Its `Debug` tells nothing of it, since that is what
    /// logs print.
    SessionKey,
    16
);
hex_id!(
    /// Names a token: the part of it that is no secret.
    TokenId,
    8
);
hex_id!(
    /// Blinds the hash of a part of a record: without it nobody can tell which of a few values was hashed.
    Salt,
    16
);
hex_id!(
    /// What the salts of a cluster are made of. Its `Debug` tells nothing of it.
    Secret,
    32
);
hex_id!(
    /// Shows that a store said how many promises it has kept: see [`lineage`](crate::lineage).
    Proof,
    16
);
hex_id!(
    /// A BLAKE3 hash, all 32 bytes of it.
    Digest,
    32
);

/// Shows the beginning of an id, enough to tell two of them apart.
macro_rules! show_beginning {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}…)", stringify!($name), hex::encode(&self.0[..4]))
            }
        }
    )*};
}

show_beginning!(ClusterId, StoreId, RunId, TokenId, Salt, Proof, Digest);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

impl StoreId {
    /// The id of a store whose member has this Ed25519 key: the first 16 bytes of the BLAKE3 of the public key, of its 32 bytes as
    /// RFC 8032 has them.
    pub fn of_key(public: &[u8; 32]) -> StoreId {
        let mut id = [0; 16];
        id.copy_from_slice(&Digest::of(public).0[..16]);
        StoreId(id)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Digest {
    /// The hash that stands before the first record of a chain.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

/// (De)serialises an id as hexadecimal text in every encoding: `#[serde(with = "ids::text")]`.
pub mod text {
    use super::*;

    /// Writes the id as text.
    pub fn serialize<T: fmt::Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    /// Reads the id from text.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: fmt::Display,
        D: Deserializer<'de>,
    {
        struct Text<T>(std::marker::PhantomData<T>);
        impl<T> serde::de::Visitor<'_> for Text<T>
        where
            T: FromStr,
            T::Err: fmt::Display,
        {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id as hexadecimal text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text(std::marker::PhantomData))
    }
}

/// Names a batch of requests: who grouped it, in which run, as which one, and the digest of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BatchId {
    /// The node that grouped the requests.
    pub origin: NodeId,
    /// The run of the origin in which it did: no two runs of a node have the same number. For a node with its first store the
    /// start counter, raised durably before the first batch of a run.
    pub incarnation: u64,
    /// Counts the batches of one incarnation, from 1.
    pub sequence: u64,
    /// The digest of the payload, checked on receipt.
    pub digest: Digest,
}

/// The value that a slot is decided on: a batch, or nothing (the slot is forfeited).
pub type Value = Option<BatchId>;

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.origin, self.incarnation, self.sequence)
    }
}
