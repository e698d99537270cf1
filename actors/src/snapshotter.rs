//! The snapshotter actor: serves peers that lack decided slots, and compares state digests with theirs.
//!
//! Reading the log happens off the core's thread. One answer a peer is under way at most: a peer that asks again meanwhile
//! is answered once, with what it asked last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::prelude::*;
use rabia_bank_messages::ids::{BatchId, Digest, MAX_NODES, NodeId, Slot};
use rabia_bank_messages::peer::PeerMessage;
use rabia_bank_storage::{LogReader, StoreError};
use tracing::{info, warn};

use crate::node::{Failed, Gauges};
use crate::peer_link::{PeerLink, Say};

/// The most bytes of decided slots in one answer, so that other messages to the peer get between.
const ENTRIES_BYTES: usize = 1 << 20;
/// Digests of so many slots are kept until all nodes have told theirs.
const KEPT_DIGESTS: usize = 64;

/// Send this peer decided slots, from `from` on.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct SendEntries {
    /// Who asked.
    pub to: NodeId,
    /// The first slot it lacks.
    pub from: Slot,
    /// This node knows all decisions up to here.
    pub decided: Slot,
}

/// Send this peer the payload of this batch, if the log has it.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct SendStored {
    /// Who asked.
    pub to: NodeId,
    /// For which batch.
    pub id: BatchId,
}

/// The digest of this node's state after a slot.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct OwnDigest {
    /// The slot.
    pub slot: Slot,
    /// The digest.
    pub digest: Digest,
}

/// The digest of a peer's state after a slot.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct PeerDigest {
    /// Whose.
    pub peer: NodeId,
    /// The slot.
    pub slot: Slot,
    /// The digest.
    pub digest: Digest,
}

/// Serves and compares.
pub struct Snapshotter {
    me: NodeId,
    members: usize,
    reader: LogReader,
    links: Vec<(NodeId, Addr<PeerLink>)>,
    /// Peers that an answer is being read for, and what they asked meanwhile.
    serving: [Option<Option<SendEntries>>; MAX_NODES],
    digests: BTreeMap<Slot, [Option<Digest>; MAX_NODES]>,
    gauges: Arc<Gauges>,
    node: Recipient<Failed>,
}

impl Snapshotter {
    /// The snapshotter of node `me` of a cluster of so many members.
    pub fn new(
        me: NodeId,
        members: usize,
        reader: LogReader,
        links: Vec<(NodeId, Addr<PeerLink>)>,
        gauges: Arc<Gauges>,
        node: Recipient<Failed>,
    ) -> Snapshotter {
        Snapshotter { me, members, reader, links, serving: [None; MAX_NODES], digests: BTreeMap::new(), gauges, node }
    }

    fn say(&self, to: NodeId, message: PeerMessage) {
        if let Some((_, link)) = self.links.iter().find(|(peer, _)| *peer == to) {
            link.do_send(Say(message));
        }
    }

    /// Reads on a thread for blocking work; an error of the store stops the node.
    fn read<T: Send + 'static>(
        &self,
        ctx: &mut Context<Self>,
        read: impl FnOnce(&LogReader) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(&mut Self, Option<T>, &mut Context<Self>) + 'static,
    ) {
        let reader = self.reader.clone();
        let reading = tokio::task::spawn_blocking(move || read(&reader));
        let reading = reading.into_actor(self).map(|result, snapshotter, ctx| {
            let read = match result {
                Ok(Ok(read)) => Some(read),
                Ok(Err(error)) => {
                    snapshotter.node.do_send(Failed(error.to_string()));
                    None
                }
                // The runtime is going down.
                Err(_) => None,
            };
            then(snapshotter, read, ctx);
        });
        ctx.spawn(reading);
    }

    fn serve(&mut self, request: SendEntries, ctx: &mut Context<Self>) {
        let SendEntries { to, from, decided } = request;
        if let Some(next) = &mut self.serving[to.index()] {
            *next = Some(request);
            return;
        }
        self.serving[to.index()] = Some(None);
        self.gauges.catch_ups_served.fetch_add(1, Ordering::Relaxed);
        let read = move |reader: &LogReader| reader.entries(from, ENTRIES_BYTES);
        self.read(ctx, read, move |snapshotter, entries, ctx| {
            let next = snapshotter.serving[to.index()].take().flatten();
            if let Some(entries) = entries {
                snapshotter.say(to, PeerMessage::Entries { entries, decided });
            }
            if let Some(next) = next {
                snapshotter.serve(next, ctx);
            }
        });
    }

    fn note_digest(&mut self, of: NodeId, slot: Slot, digest: Digest) {
        self.digests.entry(slot).or_default()[of.index()] = Some(digest);
        self.compare(slot);
        while self.digests.len() > KEPT_DIGESTS {
            self.digests.pop_first();
        }
    }

    /// A node that differs from a majority stops; without a majority all stop.
    fn compare(&self, slot: Slot) {
        let Some(digests) = self.digests.get(&slot) else { return };
        let Some(own) = digests[self.me.index()] else { return };
        let known: Vec<Digest> = digests.iter().flatten().copied().collect();
        let majority = self.members / 2 + 1;
        let with = |digest: Digest| known.iter().filter(|other| **other == digest).count();
        if with(own) >= majority || with(own) == known.len() {
            return;
        }
        let others = digests.iter().zip(1..).filter_map(|(digest, node)| Some((node, (*digest)?)));
        let list: Vec<String> = others.map(|(node, digest): (u8, Digest)| format!("node {node}: {digest}")).collect();
        let split = known.len() == self.members && known.iter().all(|digest| with(*digest) < majority);
        if split || known.iter().any(|digest| *digest != own && with(*digest) >= majority) {
            let what =
                if split { "no majority has one state" } else { "this node's state differs from the majority's" };
            self.node.do_send(Failed(format!(
                "after slot {slot} {what} ({}). The node stops and keeps its files as they are for study; do not start \
                 it again before it is known why",
                list.join(", ")
            )));
        } else {
            warn!(slot, digests = list.join(", "), "state digests differ; waiting for the other nodes'");
        }
    }
}

impl Actor for Snapshotter {
    type Context = Context<Self>;
}

impl Handler<SendEntries> for Snapshotter {
    type Result = ();

    fn handle(&mut self, request: SendEntries, ctx: &mut Self::Context) {
        if request.decided > request.from + 1_000 && self.serving[request.to.index()].is_none() {
            info!(peer = %request.to, from = request.from, to = request.decided, "a peer is catching up");
        }
        self.serve(request, ctx);
    }
}

impl Handler<SendStored> for Snapshotter {
    type Result = ();

    fn handle(&mut self, SendStored { to, id }: SendStored, ctx: &mut Self::Context) {
        self.read(
            ctx,
            move |reader| reader.payload(&id),
            move |snapshotter, payload, _| {
                if let Some(payload) = payload.flatten() {
                    snapshotter.say(to, PeerMessage::Batch { id, payload });
                }
            },
        );
    }
}

impl Handler<OwnDigest> for Snapshotter {
    type Result = ();

    fn handle(&mut self, OwnDigest { slot, digest }: OwnDigest, _: &mut Self::Context) {
        for (_, link) in &self.links {
            link.do_send(Say(PeerMessage::StateDigest { slot, digest }));
        }
        self.note_digest(self.me, slot, digest);
    }
}

impl Handler<PeerDigest> for Snapshotter {
    type Result = ();

    fn handle(&mut self, PeerDigest { peer, slot, digest }: PeerDigest, _: &mut Self::Context) {
        self.note_digest(peer, slot, digest);
    }
}
