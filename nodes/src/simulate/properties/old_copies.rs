//! Old copies: nobody lets a store speak that it has met in a later start, or in another run of the same start, or that it has
//! heard tell of more promises.
//!
//! Source: PROTOCOL.md, rule 12. What an old copy has forgotten to have promised is the matter of `promises`: a vote that
//! changes is found there, whoever let its sender in.

use std::collections::BTreeMap;

use rabia_bank_messages::ids::StoreId;
use rabia_bank_storage::PeerMemory;

use super::{Check, check};

/// What each store, as the first of a pair, knows of another.
#[derive(Debug, Default)]
pub(in crate::simulate) struct OldCopies {
    /// In which run it has met the other last.
    met: BTreeMap<(StoreId, StoreId), PeerMemory>,
    /// How many promises its node has heard of since it started.
    heard: BTreeMap<(StoreId, StoreId), u64>,
}

impl OldCopies {
    /// A node hears of a peer's promises.
    pub(in crate::simulate) fn hears(&mut self, node: StoreId, peer: StoreId, promises: u64) {
        let heard = self.heard.entry((node, peer)).or_default();
        *heard = promises.max(*heard);
    }

    /// A node lets a peer speak, whose store says that it has kept so many promises.
    pub(in crate::simulate) fn accepted(&mut self, node: StoreId, peer: PeerMemory, promised: u64) -> Check {
        let before = self.met.insert((node, peer.store), peer);
        let older =
            before.is_some_and(|old| peer.starts < old.starts || (peer.starts == old.starts && peer.run != old.run));
        check(!older, "old copies", || format!("store {node} met {before:?}, and now lets in {peer:?}"))?;
        let heard = self.heard.get(&(node, peer.store)).copied().unwrap_or(0);
        check(promised >= heard, "old copies", || {
            format!("store {node} has heard of {heard} promises, and lets in {peer:?} with {promised}")
        })
    }

    /// A node starts with this store. What it has heard of and not written down, it has not acted on.
    pub(in crate::simulate) fn started(&mut self, store: StoreId) {
        self.heard.retain(|(node, _), _| *node != store);
    }

    /// Another disk has this store: it may have forgotten whom it met.
    pub(in crate::simulate) fn moved(&mut self, store: StoreId) {
        self.met.retain(|(node, _), _| *node != store);
    }
}
