//! What is fixed when a cluster is created and compared in every handshake.

use serde::{Deserialize, Serialize};

use crate::bank::{DEFAULT_TRANSACTION_LIMIT, OwnAsset};
use crate::ids::{ClusterId, Digest, Millis, NodeId, Secret, Slot, StoreId, TokenId};
use crate::level;
use crate::principal::PrincipalNumber;

/// Slots in agreement at once (W of PROTOCOL.md) where the creator named no other number.
pub const DEFAULT_WINDOW: u64 = 16;
/// Slots beyond two windows that slot owners are read from (K of PROTOCOL.md).
pub const DEFAULT_OWNER_HISTORY: u64 = 8;
/// Sessions that may be open where the creator named no other number: some 50 MB of memory if all are used.
pub const DEFAULT_MAX_SESSIONS: u64 = 100_000;
/// How long a session may be idle where the creator named no other time: a day.
pub const DEFAULT_SESSION_IDLE_MS: Millis = 24 * 60 * 60 * 1_000;

/// The constants of a cluster: the same at all members, for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Genesis {
    /// Drawn at random when it was created.
    pub cluster: ClusterId,
    /// The first store of each member, node 1 first. The log says which have been replaced since.
    pub stores: Vec<StoreId>,
    /// W: how many slots are in agreement at once.
    pub window: u64,
    /// K: how many slots beyond two windows slot owners are read from.
    pub owner_history: u64,
    /// The largest amount of one transaction of the cluster's own asset, in minor units.
    pub transaction_limit: u64,
    /// What the bank is about.
    pub bank: BankTerms,
    /// How many sessions may be open, and for how long.
    pub sessions: SessionLimits,
    /// The [level] that the first slot begins at.
    pub level: u32,
    /// What the first slot begins with.
    pub founding: Founding,
}

/// What a bank is about, for ever.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BankTerms {
    /// The asset that accounts have where none is said.
    pub asset: OwnAsset,
    /// Whether accounts may have a lower bound below 0.
    pub allow_overdraft: bool,
}

/// What a new cluster begins with, and nobody but its members knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Founding {
    /// What salts of hashes are made of.
    pub secret: Secret,
    /// The first tokens.
    pub tokens: Vec<FoundingToken>,
}

/// A token of a new cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundingToken {
    /// Who asks with it: one of the principals that every cluster begins with.
    pub principal: PrincipalNumber,
    /// The part of it that is no secret.
    pub id: TokenId,
    /// BLAKE3 of it.
    pub hash: Digest,
    /// From this log time on it is not in force.
    pub expires_at: Millis,
}

impl Default for Founding {
    /// Nobody has a token, and the salts are no secret.
    fn default() -> Founding {
        Founding { secret: Secret([0; 32]), tokens: Vec::new() }
    }
}

/// When sessions expire that no goodbye ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionLimits {
    /// How many may be open. One more, and the one that was idle for longest goes. At least 1.
    pub open: u64,
    /// A session goes when it was idle for longer than so many milliseconds of log time.
    pub idle_ms: Millis,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits { open: DEFAULT_MAX_SESSIONS, idle_ms: DEFAULT_SESSION_IDLE_MS }
    }
}

impl Genesis {
    /// The constants of a new cluster with default settings.
    pub fn new(cluster: ClusterId, stores: Vec<StoreId>) -> Genesis {
        Genesis {
            cluster,
            stores,
            window: DEFAULT_WINDOW,
            owner_history: DEFAULT_OWNER_HISTORY,
            transaction_limit: DEFAULT_TRANSACTION_LIMIT,
            bank: BankTerms::default(),
            sessions: SessionLimits::default(),
            level: level::highest(),
            founding: Founding::default(),
        }
    }

    /// How many members there are (n).
    pub fn members(&self) -> usize {
        self.stores.len()
    }

    /// The members, node 1 first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + Clone + use<> {
        NodeId::all(self.members())
    }

    /// How many messages the steps of the protocol need.
    pub fn quorums(&self) -> Quorums {
        Quorums { members: self.members() as u8 }
    }

    /// The first slot below which owners of `slot` are not read any more: origins count in (slot − 2W − K, slot − W].
    pub fn owner_slots(&self, slot: Slot) -> std::ops::RangeInclusive<Slot> {
        let low = slot.saturating_sub(2 * self.window + self.owner_history) + 1;
        low..=slot.saturating_sub(self.window)
    }

    /// One value over all constants, to compare in a handshake.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.cluster.0);
        for store in &self.stores {
            hasher.update(&store.0);
        }
        let SessionLimits { open, idle_ms } = self.sessions;
        for number in [self.window, self.owner_history, self.transaction_limit, open, idle_ms, self.level.into()] {
            hasher.update(&number.to_be_bytes());
        }
        let BankTerms { asset: OwnAsset { code, scale }, allow_overdraft } = &self.bank;
        hasher.update(&[code.len() as u8]).update(code.as_bytes()).update(&[*scale, u8::from(*allow_overdraft)]);
        hasher.update(&self.founding.secret.0);
        for FoundingToken { principal, id, hash, expires_at } in &self.founding.tokens {
            hasher.update(&principal.to_be_bytes()).update(&id.0).update(&hash.0).update(&expires_at.to_be_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// A member got a new store, by a command in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replacement {
    /// The slot in which it was decided.
    pub slot: Slot,
    /// Whose store it is.
    pub node: NodeId,
    /// The store that it speaks from since then.
    pub store: StoreId,
}

/// All replacements in the log up to a slot, in their order, each store once: part of the bank's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replacements(Vec<Replacement>);

impl Replacements {
    /// Adds the next one. False if its store has come before: nothing is added.
    pub fn add(&mut self, replacement: Replacement) -> bool {
        let new = self.0.iter().all(|other| other.store != replacement.store);
        if new {
            self.0.push(replacement);
        }
        new
    }

    /// All replacements, in the order in which they were decided.
    pub fn list(&self) -> &[Replacement] {
        &self.0
    }
}

/// The thresholds of a cluster of n members.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Quorums {
    members: u8,
}

impl Quorums {
    /// n: how many members there are, 1 to 7.
    pub fn members(self) -> usize {
        usize::from(self.members)
    }

    /// f = ⌊(n − 1) / 2⌋: how many may be down at once.
    pub fn faults(self) -> usize {
        (self.members() - 1) / 2
    }

    /// n − f: how many messages a step waits for.
    pub fn quorum(self) -> usize {
        self.members() - self.faults()
    }

    /// The least number of members that is more than half: ⌊n / 2⌋ + 1.
    pub fn majority(self) -> usize {
        self.members() / 2 + 1
    }
}
