//! Old copies: nobody lets a store speak that it has met in a later start, or in another run of the same start.
//!
//! Source: PROTOCOL.md, rule 12. What an old copy has forgotten to have promised is the matter of `promises`: a vote that
//! changes is found there, whoever let its sender in.

use std::collections::BTreeMap;

use rabia_bank_messages::ids::NodeId;
use rabia_bank_storage::PeerMemory;

use super::{Check, check};

/// In which run each node, as the first of a pair, has met the other last.
#[derive(Debug, Default)]
pub(in crate::simulate) struct OldCopies(BTreeMap<(NodeId, NodeId), PeerMemory>);

impl OldCopies {
    /// A node lets a peer speak.
    pub(in crate::simulate) fn accepted(&mut self, node: NodeId, peer: NodeId, met: PeerMemory) -> Check {
        let before = self.0.insert((node, peer), met);
        let older =
            before.is_some_and(|old| met.starts < old.starts || (met.starts == old.starts && met.run != old.run));
        check(!older, "old copies", || format!("node {node} met node {peer} as {before:?}, and now lets in {met:?}"))
    }

    /// A node's disk is an old copy: it may have forgotten whom it met.
    pub(in crate::simulate) fn replaced(&mut self, node: NodeId) {
        self.0.retain(|(who, _), _| *who != node);
    }
}
