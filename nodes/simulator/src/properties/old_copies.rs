//! Old copies: nobody lets a store speak that it has met, or heard of, where the store now says that it never was: in a run that is
//! not among the runs that it tells of, or in which it kept fewer promises. What a node has heard before it made a promise it
//! knows for ever, and so it does whom it has met; what it has heard since, until it crashes.
//!
//! Source: PROTOCOL.md, rule 12. What an old copy has forgotten to have promised is the matter of `promises`: a vote that
//! changes is found there, whoever let its sender in.

use std::collections::BTreeMap;

use rabia_bank_messages::ids::{RunId, StoreId};
use rabia_bank_messages::peer::Hello;

use super::{Check, check};

/// The run in which a store was heard, and how many promises it had kept.
type Place = (RunId, u64);

/// Where each of some stores was heard.
type Heard = Vec<(StoreId, Place)>;

/// What each store, as the first of a pair, knows of another.
#[derive(Debug, Default)]
pub(crate) struct OldCopies {
    /// What its node knows now …
    heard: BTreeMap<(StoreId, StoreId), Place>,
    /// … what it knew when it began to write a promise …
    writing: Vec<(StoreId, u64, Heard)>,
    /// … and what it can't forget.
    durable: BTreeMap<(StoreId, StoreId), Place>,
}

impl OldCopies {
    /// A node hears of a peer's promises.
    pub(crate) fn hears(&mut self, node: StoreId, peer: StoreId, promises: u64) {
        if let Some((_, heard)) = self.heard.get_mut(&(node, peer)) {
            *heard = promises.max(*heard);
        }
    }

    /// A node lets a peer speak that says this of itself.
    pub(crate) fn accepted(&mut self, node: StoreId, hello: &Hello) -> Check {
        let key = (node, hello.store);
        let mut runs = hello.former.iter().chain([&hello.run]);
        let before = self.heard.get(&key).copied();
        let has_been =
            before.is_none_or(|(run, promises)| runs.any(|known| known.run == run && known.promises >= promises));
        check(has_been, "old copies", || format!("store {node} has heard of {before:?}, and lets in {hello:?}"))?;
        self.heard.insert(key, (hello.run.run, hello.run.promises));
        Ok(())
    }

    /// A node begins to write a promise.
    pub(crate) fn binds(&mut self, node: StoreId, ticket: u64) {
        let of_node = self.heard.range((node, StoreId([0; 16]))..=(node, StoreId([255; 16])));
        let heard = of_node.map(|((_, peer), place)| (*peer, *place)).collect();
        self.writing.push((node, ticket, heard));
    }

    /// All that the node wrote up to this ticket is durable.
    pub(crate) fn written(&mut self, node: StoreId, ticket: u64) {
        for (_, _, heard) in self.writing.extract_if(.., |(of, needed, _)| *of == node && *needed <= ticket) {
            self.durable.extend(heard.into_iter().map(|(peer, place)| ((node, peer), place)));
        }
    }

    /// A node starts with this store. What it has heard of since its last promise, it may have forgotten.
    pub(crate) fn started(&mut self, store: StoreId) {
        self.writing.retain(|(node, ..)| *node != store);
        self.heard.retain(|(node, _), _| *node != store);
        let known = self.durable.iter().filter(|((node, _), _)| *node == store);
        self.heard.extend(known.map(|(key, place)| (*key, *place)));
    }

    /// Another disk has this store: it may have forgotten whom it met.
    pub(crate) fn moved(&mut self, store: StoreId) {
        self.heard.retain(|(node, _), _| *node != store);
        self.durable.retain(|(node, _), _| *node != store);
    }
}
