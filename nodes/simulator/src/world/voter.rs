//! The voter, the log and the links of simulated nodes.

use std::time::Duration;

use rabia_bank_actors::consensus::agreement::{Effect, Event, Ticket};
use rabia_bank_actors::consensus::handshake::{Met, memory_of};
use rabia_bank_actors::parts::log::Begun;
use rabia_bank_actors::snapshotter::desk::Answer;
use rabia_bank_messages::batch::Payload;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, Slot, StoreId};
use rabia_bank_messages::peer::{Evidence, Hello, HelloRefused, PeerMessage, RefusalReason};
use rabia_bank_messages::promise::Commit;
use rabia_bank_storage::Entries;

use super::super::properties::{Check, Violation, check};
use super::{DIAL, File, Item, Loss, MAILBOX, Machine, Mail, World, store_violation};

/// Bytes of decided slots in one answer: small, so that catching up takes several.
const ENTRIES_BYTES: usize = 16 * 1024;

impl World {
    // ----- the voter -----

    pub(super) fn event(&mut self, index: usize, event: Event) -> Check {
        let slot = self.hears(index, &event);
        self.handle(index, event)?;
        let id = self.machines[index].id;
        slot.map_or(Ok(()), |slot| self.weak_mvc.acted(id, slot))
    }

    pub(super) fn handle(&mut self, index: usize, event: Event) -> Check {
        let machine = &mut self.machines[index];
        let (id, Some(node)) = (machine.id, &mut machine.node) else { return Ok(()) };
        let mut effects = Vec::new();
        node.core.handle(self.now - node.started, event, &mut effects);
        self.weak_mvc.heard(id, |batch| node.core.holds(batch));
        self.perform(index, effects)
    }

    /// The properties take note of what is about to happen to a node. Answers the slot, if it is about one.
    fn hears(&mut self, index: usize, event: &Event) -> Option<Slot> {
        let machine = &self.machines[index];
        let node = machine.node.as_ref()?;
        self.weak_mvc.begins(event);
        let Event::Received(from, message) = event else { return None };
        self.read_rounds.hears(machine.id, *from, message);
        let (store, frontier) = (self.machines[from.index()].store, node.core.frontier());
        if let PeerMessage::Promised { count, .. } = message {
            self.old_copies.hears(machine.store, store, *count);
        }
        let slot = match message {
            PeerMessage::Proposal { slot, .. } | PeerMessage::State { slot, .. } | PeerMessage::Vote { slot, .. } => {
                *slot
            }
            _ => return None,
        };
        if self.stores.counts(*from, store, slot, frontier) && !node.core.has_other_log(*from) {
            self.weak_mvc.hears(machine.id, *from, frontier, message, |batch| node.core.holds(batch));
        }
        Some(slot)
    }

    pub(super) fn perform(&mut self, index: usize, effects: Vec<Effect>) -> Check {
        let mut notices = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(to, message) => {
                    self.said(index, &message)?;
                    self.send(index, to.index(), message)?;
                }
                Effect::Broadcast(message) => {
                    self.said(index, &message)?;
                    for to in (0..self.machines.len()).filter(|to| *to != index) {
                        self.send(index, to, message.clone())?;
                    }
                }
                Effect::Save(ticket, commit) => {
                    self.weak_mvc.binds(self.machines[index].id, &commit.records)?;
                    if commit.reserved.is_some() || !commit.records.is_empty() {
                        self.old_copies.binds(self.machines[index].store, ticket);
                    }
                    self.save(index, ticket, commit);
                }
                Effect::Deliver(slot, batch) => {
                    self.stores.decided(slot, batch.as_ref().map(|(_, payload)| payload))?;
                    self.mail(index, MAILBOX, Mail::Apply(slot, batch));
                }
                Effect::Pool(notice) => notices.push(notice),
                Effect::ReadAt { read, slot } => self.mail(index, MAILBOX, Mail::ReadAt(read, slot)),
                Effect::SendEntries { to, from } => {
                    let decided = self.machines[index].node.as_ref().map_or(0, |node| node.core.frontier());
                    let took = self.micros(50, 2_000);
                    self.mail(index, took, Mail::Entries { to: to.index(), from, decided });
                }
                Effect::SendStored { to, id } => {
                    let took = self.micros(50, 2_000);
                    self.mail(index, took, Mail::Stored { to: to.index(), id });
                }
                Effect::SendHash { to, slot } => {
                    let took = self.micros(50, 2_000);
                    self.mail(index, took, Mail::Hash { to: Some(to.index()), slot });
                }
                Effect::LookUp(slot) => {
                    let took = self.micros(50, 2_000);
                    self.mail(index, took, Mail::Hash { to: None, slot });
                }
                Effect::GetSnapshot { from, log_from } => self.compacted(index, from.index(), log_from)?,
                // There is one log, whatever happens to it. Only who says nonsense may say that it has another.
                Effect::Doubt(begins) => {
                    let what = || format!("node {} is in doubt about its log or its state", self.machines[index].id);
                    check(!begins || self.has_babblers(), "one log", what)?;
                    self.report.count(if begins { "doubts about a log" } else { "doubts about a log that ended" });
                }
                Effect::Split { what, certain } => {
                    check(self.has_babblers(), "one log", || what)?;
                    if certain {
                        self.mail(index, MAILBOX, Mail::Stop);
                    }
                }
                Effect::MeetAgain(peer) => self.meet_again(index, peer.index()),
                Effect::Refuse(peer, _) => {
                    self.report.count("links refused");
                    self.meet_again(index, peer.index());
                }
                Effect::Warn(..) => self.report.count("payloads refused"),
            }
        }
        if !notices.is_empty() {
            self.mail(index, MAILBOX, Mail::Notices(notices));
        }
        Ok(())
    }

    /// This does not happen in an idle cluster. An old copy that nobody listens to may do what it wants.
    pub(super) fn disturbs(&mut self, index: usize, what: &'static str) {
        if self.machines[index].lost.is_none() {
            self.quiet.disturbed(self.now, what);
        }
    }

    fn said(&mut self, index: usize, message: &PeerMessage) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        let (id, window) = (machine.id, self.genesis.window);
        let (store, frontier) = (machine.store, node.core.frontier());
        self.stores.says(id, store, frontier, message)?;
        self.promises.says((id, store, node.run), frontier, window, message)?;
        self.weak_mvc.says(id, message)?;
        self.read_rounds.says(id, message)?;
        let (slot, what) = match message {
            PeerMessage::Proposal { slot, value, .. } => (*slot, format!("proposes {value:?}")),
            PeerMessage::State { slot, phase, state } => (*slot, format!("phase {phase}: state {state:?}")),
            PeerMessage::Vote { slot, phase, vote } => (*slot, format!("phase {phase}: vote {vote:?}")),
            PeerMessage::Decide { slot, value } => (*slot, format!("tells the decision {value:?}")),
            _ => return Ok(()),
        };
        if !matches!(message, PeerMessage::Decide { .. }) {
            self.disturbs(index, "a slot is spoken in");
        }
        self.trace.note(self.now, Some(slot), || format!("node {id} {what}"));
        Ok(())
    }

    // ----- the log -----

    fn save(&mut self, index: usize, ticket: Ticket, commit: Commit) {
        let Some(node) = &mut self.machines[index].node else { return };
        if node.log.persist(ticket, commit) {
            self.mail(index, MAILBOX, Mail::Write);
        }
    }

    /// Decided slots up to this one may go.
    pub(super) fn compact(&mut self, index: usize, upto: Slot) {
        let Some(node) = &mut self.machines[index].node else { return };
        if node.log.compact(upto) {
            self.mail(index, MAILBOX, Mail::Write);
        }
    }

    /// A write has begun.
    pub(super) fn start_write(&mut self, index: usize) {
        let slow = self.machines[index].slow_until > self.now;
        let took = if slow { self.micros(5_000, 120_000) } else { self.micros(200, 900) };
        let Some(node) = &mut self.machines[index].node else { return };
        let Some(Begun { commit, reported }) = node.log.begin(|upto| node.store.next_compaction(upto)) else { return };
        node.writing = Some(commit);
        if let Some(ticket) = reported {
            self.mail(index, MAILBOX, Mail::Events(vec![Event::Saved(ticket)]));
        }
        self.mail(index, took, Mail::Written);
    }

    pub(super) fn written(&mut self, index: usize) -> Check {
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let Some(commit) = node.writing.take() else { return Ok(()) };
        if machine.failing.take_if(|file| *file == File::Log).is_some() {
            machine.log.fail_after(0);
        }
        if let Err(error) = node.store.commit(&commit) {
            if !machine.log.is_dead() {
                return Err(store_violation(machine.id, &error));
            }
            return self.crash(index, "its disk failed");
        }
        let ended = node.log.written(|upto| node.store.next_compaction(upto));
        self.promises.committed(machine.store, &commit);
        self.disturbs(index, "a log is written");
        if let Some(ticket) = ended.persisted {
            self.old_copies.written(self.machines[index].store, ticket);
            self.event(index, Event::Saved(ticket))?;
            self.attach_met(index, ticket)?;
        }
        if ended.due {
            self.mail(index, MAILBOX, Mail::Write);
        }
        Ok(())
    }

    // ----- links -----

    pub(super) fn send(&mut self, from: usize, to: usize, message: PeerMessage) -> Check {
        let link = self.network.link(from, to);
        let attached = self.machines[from].node.as_ref().is_some_and(|node| node.attached[to] == link);
        if !attached || !self.network.works(from, to) || !self.babble_beside(from, to, &message) {
            return Ok(());
        }
        let lost = self.network.is_cut(from, to) || self.percent(self.weather.loss);
        if lost {
            self.report.count("messages lost");
            return Ok(());
        }
        let twice = self.percent(self.weather.duplication);
        if twice {
            self.report.count("messages duplicated");
        }
        for _ in 0..=usize::from(twice) {
            let mut delay = self.micros(40, 160);
            if self.percent(self.weather.delay) {
                self.report.count("messages delayed");
                delay += self.micros(100, 60_000);
            }
            let message = self.carry(message.clone());
            self.at(delay, Item::Message { to, from, link, message, nonsense: false });
        }
        Ok(())
    }

    /// What arrives of a message: a payload may be damaged on its way.
    fn carry(&mut self, mut message: PeerMessage) -> PeerMessage {
        if self.weather.damage == 0 {
            return message;
        }
        let damage = self.percent(self.weather.damage);
        let payload = match &mut message {
            PeerMessage::Proposal { payload: Some(payload), .. } | PeerMessage::Batch { payload, .. } => payload,
            _ => return message,
        };
        if damage {
            self.report.count("payloads damaged on their way");
            let mut bytes = payload.bytes().to_vec();
            let place = self.random.usize(..bytes.len());
            bytes[place] ^= 1 << self.random.u32(..8);
            *payload = Payload::new(bytes);
        }
        message
    }

    pub(super) fn arrive(&mut self, to: usize, from: usize, link: u64, message: PeerMessage, nonsense: bool) -> Check {
        if self.network.link(from, to) != link {
            return Ok(());
        }
        let Some(node) = &self.machines[to].node else { return Ok(()) };
        if node.attached[from] != link {
            // Who answers a call may speak before the caller listens.
            self.at(Duration::from_millis(1), Item::Message { to, from, link, message, nonsense });
            return Ok(());
        }
        if !self.takes(to, from, &message)? {
            return Ok(());
        }
        match message {
            PeerMessage::GetSnapshot { slot, at } => {
                let took = self.micros(50, 3_000);
                self.mail(to, took, Mail::Offer { to: from, slot, at });
                Ok(())
            }
            PeerMessage::SnapshotRows { slot, at, part, rows, next } => {
                self.rows(to, from, Answer { slot, at, part, rows, next });
                Ok(())
            }
            message if nonsense => self.hear_nonsense(to, from, message),
            message => self.event(to, Event::Received(self.machines[from].id, message)),
        }
    }

    /// Whether a node acts on a message that is not its core's business.
    fn takes(&mut self, index: usize, from: usize, message: &PeerMessage) -> Result<bool, Violation> {
        let others = matches!(
            message,
            PeerMessage::Compacted { .. } | PeerMessage::GetSnapshot { .. } | PeerMessage::SnapshotRows { .. }
        );
        let from = self.machines[from].id;
        let Some(node) = self.machines[index].node.as_mut().filter(|_| others) else { return Ok(true) };
        let mut effects = Vec::new();
        let takes = node.core.takes(from, message, &mut effects);
        self.perform(index, effects)?;
        Ok(takes)
    }

    pub(super) fn dial(&mut self, a: usize, b: usize) -> Check {
        let again = DIAL + self.micros(0, 20_000);
        self.at(again, Item::Dial { a, b });
        let down = |index: usize| self.machines[index].node.is_none() || self.machines[index].paused > self.now;
        let cut = self.network.is_cut(a, b) || self.network.is_cut(b, a);
        if self.network.works(a, b) || cut || down(a) || down(b) {
            return Ok(());
        }
        let Some((to_a, to_b)) = self.introduce(b, a).zip(self.introduce(a, b)) else { return Ok(()) };
        match (self.greet(a, &to_a)?, self.greet(b, &to_b)?) {
            (Ok(at_a), Ok(at_b)) => {
                // Each finds in what the other remembers of it whether it is an old copy.
                for (told, hello) in [(a, &to_a), (b, &to_b)] {
                    if self.is_old_copy(told, hello)? {
                        return Ok(());
                    }
                }
                self.network.turn(a, b);
                self.meet(a, to_a, at_a)?;
                self.meet(b, to_b, at_b)
            }
            refused => {
                self.report.count("handshakes refused");
                for (told, by, refused) in [(b, a, refused.0), (a, b, refused.1)] {
                    if let Some(evidence) = refused.err().and_then(|refused| refused.evidence) {
                        self.is_shown(told, by, evidence)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether a node learns from a peer's hello that its store is an old copy. Then it stops.
    fn is_old_copy(&mut self, index: usize, hello: &Hello) -> Result<bool, Violation> {
        let Some(node) = &self.machines[index].node else { return Ok(false) };
        let shown = hello.remembers.is_some_and(|memory| node.core.lineage().is_old_copy_by(&memory));
        if shown {
            self.stop_as_old_copy(index)?;
        }
        Ok(shown)
    }

    fn stop_as_old_copy(&mut self, index: usize) -> Check {
        check(self.machines[index].lost == Some(Loss::OldCopy), "old copies", || {
            format!("node {} takes its store for an old copy, and it is none", self.machines[index].id)
        })?;
        self.report.count("old copies stopped");
        self.crash(index, "its store is an old copy")
    }

    /// Whoever is refused looks in its own store whether that is for a good reason.
    fn is_shown(&mut self, index: usize, by: usize, evidence: Evidence) -> Check {
        let by = self.machines[by].id;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        match evidence {
            Evidence::OldCopy(memory) if node.core.lineage().is_old_copy_by(&memory) => self.stop_as_old_copy(index),
            Evidence::OldCopy(memory) => {
                node.core.is_told(by, Some(memory));
                Ok(())
            }
            Evidence::Replaced(slot) if node.core.replaced_by().is_some_and(|by| by.slot == slot) => self.retire(index),
            Evidence::Replaced(_) => Ok(()),
        }
    }

    fn introduce(&self, index: usize, to: usize) -> Option<Hello> {
        let node = self.machines[index].node.as_ref()?;
        let to = self.machines[to].id;
        Some(node.handshake.introduce(to, node.core.stores().current(to), &node.core))
    }

    /// What a node makes of what a peer says of itself. Only an old copy may be refused, or be what refuses, and a store
    /// that is not its member's yet, or not any more.
    fn greet(&self, index: usize, hello: &Hello) -> Result<Result<Met, HelloRefused>, Violation> {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else {
            let refused = HelloRefused { reason: RefusalReason::Node, message: String::new(), evidence: None };
            return Ok(Err(refused));
        };
        let frontier = node.core.frontier();
        let checked = node.handshake.check(hello, &node.core);
        let Err(refused) = checked else { return Ok(checked) };
        let old_copy = [index, hello.node.index()].iter().any(|one| self.machines[*one].lost == Some(Loss::OldCopy));
        let known = self.stores.newest(hello.node, frontier);
        let other = match refused.reason {
            RefusalReason::NotYet => self.stores.replaced_in(hello.store).is_none_or(|slot| slot > frontier),
            RefusalReason::Replaced => known != hello.store && self.is_over(hello.node, hello.store),
            _ => false,
        };
        check(old_copy || other, "handshake", || {
            format!("node {} refuses node {}: {}", machine.id, hello.node, refused.message)
        })?;
        Ok(Err(refused))
    }

    /// Whether a quorum of the members has all slots durably in which this former store of a node speaks.
    fn is_over(&self, node: NodeId, store: StoreId) -> bool {
        let Some(last) = self.stores.last_slot(node, store) else { return false };
        let has = |machine: &&Machine| self.promises.durable(machine.newest) >= last;
        self.machines.iter().filter(has).count() >= self.genesis.quorums().quorum()
    }

    /// The handshake, from one side: `index` hears what a peer says of itself, and does not refuse it.
    fn meet(&mut self, index: usize, hello: Hello, met: Met) -> Check {
        let (peer_id, peer) = (hello.node, hello.node.index());
        let link = self.network.link(index, peer);
        let machine = &mut self.machines[index];
        let Some(node) = &mut machine.node else { return Ok(()) };
        node.heard[peer] = Some((hello.decided, hello.log_hash));
        check(met != Met::Disputing, "old copies", || format!("node {peer_id} disputes what it has said"))?;
        if met == Met::Stranger {
            self.report.count("stores met before the log told of them");
            return self.attach(index, peer, link);
        }
        self.old_copies.accepted(machine.store, &hello)?;
        if node.core.stores().current(peer_id) == hello.store {
            node.core.is_told(peer_id, hello.remembers);
        }
        let mut effects = Vec::new();
        let ticket = node.core.remember_peer(peer_id, memory_of(&hello), &mut effects);
        node.meeting.extend(ticket.map(|ticket| (ticket, peer, link)));
        self.perform(index, effects)?;
        if ticket.is_none() { self.attach(index, peer, link) } else { Ok(()) }
    }

    pub(super) fn attach_met(&mut self, index: usize, ticket: Ticket) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let met: Vec<_> = node.meeting.extract_if(.., |(needed, ..)| *needed <= ticket).collect();
        met.into_iter().try_for_each(|(_, peer, link)| self.attach(index, peer, link))
    }

    fn attach(&mut self, index: usize, peer: usize, link: u64) -> Check {
        if self.network.link(index, peer) != link {
            return Ok(());
        }
        let (peer_id, store) = (self.machines[peer].id, self.machines[peer].store);
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        node.attached[peer] = link;
        if node.core.is_unmet(peer_id, store) {
            // It was a stranger when they met, a moment ago.
            self.meet_again(index, peer);
            return Ok(());
        }
        let said = node.heard[peer];
        node.core.note_dialled(peer_id, index < peer);
        self.event(index, Event::LinkUp(peer_id, store))?;
        let said = said.map(|(slot, hash)| Event::Received(peer_id, PeerMessage::LogHash { slot, hash }));
        said.map_or(Ok(()), |said| self.event(index, said))
    }

    fn meet_again(&mut self, index: usize, peer: usize) {
        let link = self.network.link(index, peer);
        self.report.count("stores met again");
        self.at(MAILBOX, Item::HangUp { a: index, b: peer, link });
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) -> Check {
        if !self.network.works(a, b) {
            return Ok(());
        }
        let link = self.network.link(a, b);
        self.network.turn(a, b);
        for (side, peer) in [(a, b), (b, a)] {
            if self.machines[side].node.as_ref().is_some_and(|node| node.attached[peer] == link) {
                self.event(side, Event::LinkDown(self.machines[peer].id))?;
            }
        }
        Ok(())
    }

    pub(super) fn send_entries(&mut self, index: usize, to: usize, from: Slot, decided: Slot) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        let entries = node.store.reader().entries(from, ENTRIES_BYTES).map_err(|e| store_violation(machine.id, &e))?;
        match entries {
            Entries::Found(entries) => {
                let before = node.store.reader().hash(from.saturating_sub(1));
                let before = before.map_err(|e| store_violation(machine.id, &e))?.unwrap_or(Digest::ZERO);
                self.send(index, to, PeerMessage::Entries { before, entries, decided })
            }
            Entries::Compacted { upto } => self.send(index, to, PeerMessage::Compacted { log_from: upto + 1 }),
        }
    }

    pub(super) fn find_hash(&mut self, index: usize, to: Option<usize>, slot: Slot) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        let hash = node.store.reader().hash(slot).map_err(|e| store_violation(machine.id, &e))?;
        match (to, hash) {
            (None, hash) => self.event(index, Event::LookedUp { slot, hash }),
            (Some(to), Some(hash)) => self.send(index, to, PeerMessage::LogHash { slot, hash }),
            (Some(_), None) => Ok(()),
        }
    }

    pub(super) fn send_stored(&mut self, index: usize, to: usize, id: BatchId) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        match node.store.reader().payload(&id).map_err(|e| store_violation(machine.id, &e))? {
            Some(payload) => self.send(index, to, PeerMessage::Batch { id, payload }),
            None => Ok(()),
        }
    }
}
