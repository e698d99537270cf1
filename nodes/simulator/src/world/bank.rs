//! The proposer and the bank of simulated nodes, and their clients.

use std::net::IpAddr;
use std::sync::Arc;

use rabia_bank_actors::consensus::agreement::{Event, Notice};
use rabia_bank_actors::consensus::pool::{Asker, PoolEffect};
use rabia_bank_actors::consensus::turns::Owner;
use rabia_bank_actors::ledger::{Applied, Lookup, MOST_AT_ONCE, Progress, RequestOutcome};
use rabia_bank_actors::snapshot::read_block;
use rabia_bank_messages::bank::{Command, ErrorCode, Query, ReadLevel};
use rabia_bank_messages::batch::{Action, EncodedRequest, Payload, RequestHeader};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::{BatchId, Slot};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::super::clients::{Ask, Bounds};
use super::super::properties::{Check, Violation, books, check, log_time};
use super::{CLIENT_PACE, ClientReply, Item, MAILBOX, Mail, Node, Waiter, WaitingRead, World, store_violation};
use rabia_bank_model::plain;

/// Nodes compare their states after every slot that is a multiple of this.
const COMPARED: Slot = 8;
/// Transactions that a feed is looked at for at a time.
const FOLLOW_SCAN: u64 = 64;

/// What a client wants to know.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Query(Query),
    /// Transactions of a feed, from this id on, so many at most.
    Feed(Feed, u64, usize),
}

/// An answer that goes on later.
pub(super) struct OpenAnswer {
    waiter: Waiter,
    /// The slot of a command. A query is of the slot that the lookup says.
    slot: Option<Slot>,
    lookup: Box<Lookup>,
    /// The block of the history that it waits for.
    block: Option<u64>,
    /// How many steps it goes on by next: few, so that much is applied meanwhile, then more.
    steps: u64,
}

impl World {
    // ----- the proposer -----

    pub(super) fn notices(&mut self, index: usize, notices: Vec<Notice>) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut effects) = (self.clocks(index, &node), Vec::new());
        for notice in notices {
            node.pool.notice(now, notice, &mut effects);
        }
        self.machines[index].node = Some(node);
        self.pool_effects(index, effects)?;
        self.mail(index, MAILBOX, Mail::Pump);
        Ok(())
    }

    pub(super) fn pump(&mut self, index: usize) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut effects) = (self.clocks(index, &node), Vec::new());
        node.pool.pump(now, &mut effects);
        self.machines[index].node = Some(node);
        self.pool_effects(index, effects)
    }

    fn submit(&mut self, index: usize, waiter: Waiter, header: &RequestHeader, action: &Action) -> Check {
        // The client of a node that is silent, or unsure of the time, hears that it is busy: here it hears nothing, and asks another.
        let takes = |node: &mut Node| !node.pool.is_silent() && !node.pool.waits_for_clock();
        let Some(mut node) = self.machines[index].node.take_if(takes) else { return Ok(()) };
        let now = self.clocks(index, &node);
        let owner = Owner::at(IpAddr::from([127, 0, 0, waiter.client as u8 % 2]));
        node.tickets += 1;
        node.gathering.insert(node.tickets, waiter);
        let from = Asker { owner, client: waiter.client as u64, tag: node.tickets };
        node.pool.submit(now, from, EncodedRequest::new(header, action));
        self.machines[index].node = Some(node);
        self.mail(index, MAILBOX, Mail::Pump);
        Ok(())
    }

    fn pool_effects(&mut self, index: usize, effects: Vec<PoolEffect>) -> Check {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                PoolEffect::Formed(id, payload, askers) => {
                    self.agreement.formed(id, payload.clone())?;
                    if let Some(node) = &mut self.machines[index].node {
                        let waiter = |asker: &Asker| node.gathering.remove(&asker.tag);
                        let waiters: Option<Vec<Waiter>> = askers.iter().map(waiter).collect();
                        let Some(waiters) = waiters else {
                            return check(false, "answers", || format!("{askers:?} were not given, or given twice"));
                        };
                        node.expected.insert(id, waiters);
                    }
                    events.push(Event::Hold(id, payload));
                }
                PoolEffect::Propose { slot, value, with_payload } => {
                    events.push(Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Forget(id) => events.push(Event::Forget(id)),
                PoolEffect::Drop(id) => events.push(Event::Drop(id)),
                PoolEffect::Hold(id, payload) => events.push(Event::Hold(id, payload)),
                // Their clients hear that it is unknown, or nothing: here they hear nothing, and ask again.
                PoolEffect::Abandon(id) => {
                    if let Some(node) = &mut self.machines[index].node {
                        node.expected.remove(&id);
                    }
                }
                PoolEffect::Send(to, message) => {
                    for peer in (0..self.machines.len()).filter(|peer| *peer != index) {
                        if to.is_none_or(|to| to.index() == peer) {
                            self.send(index, peer, message.clone())?;
                        }
                    }
                }
            }
        }
        if !events.is_empty() {
            self.mail(index, MAILBOX, Mail::Events(events));
        }
        Ok(())
    }

    // ----- the bank -----

    pub(super) fn apply(&mut self, index: usize, slot: Slot, batch: Option<(BatchId, Payload)>) -> Check {
        let id = self.machines[index].id;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let first = self.agreement.delivered(id, node.ledger.applied(), slot, batch.as_ref())?;
        let named = batch.as_ref().map(|(id, payload)| (id, payload));
        let applied = node.ledger.apply(slot, named);
        check(self.stores.tell(node.ledger.replacements().list(), slot), "one store a member", || {
            format!("after slot {slot} the ledger of node {id} knows of {:?}", node.ledger.replacements())
        })?;
        if first {
            let clocks = self.machines.iter().map(|machine| machine.highest_clock);
            let payload = named.map(|(_, payload)| payload).filter(|payload| payload.check::<Command>().is_ok());
            log_time::decided(slot, payload, clocks)?;
            self.log_time.has_not_leapt(slot, payload, self.now)?;
            let replies = self.model.apply(slot, named).map_err(|what| Violation { property: "validity", what })?;
            let what = batch.as_ref().map_or("forfeited".into(), |(id, payload)| match payload.replacement() {
                Ok(Some((node, store))) => format!("batch {id}, node {node} has the store {store} now"),
                _ => format!("batch {id}, {} requests", payload.count().unwrap_or(0)),
            });
            self.trace.note(self.now, Some(slot), || format!("node {id} is the first to apply it: {what}"));
            let Some(node) = &mut self.machines[index].node else { return Ok(()) };
            books::same_replies(slot, &mut node.ledger, &node.books.reader, &applied, replies.as_deref())?;
            books::balance(slot, &node.ledger, &self.model)?;
        }
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let digest = node.ledger.digest();
        self.digests.after(id, slot, digest)?;
        if slot.is_multiple_of(COMPARED) {
            self.mail(index, MAILBOX, Mail::Events(vec![Event::OwnDigest { slot, digest }]));
        }
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let waiters = batch.as_ref().and_then(|(id, _)| node.expected.remove(id));
        if let (Some(waiters), Applied::Batch(outcomes)) = (waiters, applied) {
            check(waiters.len() == outcomes.len(), "answers", || {
                format!("the batch of slot {slot} has {} requests, {} were given", outcomes.len(), waiters.len())
            })?;
            for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
                self.answer_request(index, waiter, slot, &outcome);
            }
        }
        self.tell_time(index);
        self.note_slot(index, slot, batch.map(|(id, _)| id));
        self.read_due(index)
    }

    pub(super) fn tell_time(&mut self, index: usize) {
        let Some(mut node) = self.machines[index].node.take() else { return };
        let now = self.clocks(index, &node);
        node.pool.applied_time(now, node.ledger.log_time());
        self.machines[index].node = Some(node);
    }

    fn answer_request(&mut self, index: usize, waiter: Waiter, slot: Slot, outcome: &RequestOutcome) {
        let Some(node) = &self.machines[index].node else { return };
        match outcome {
            RequestOutcome::Opened { session, .. } => self.reply(waiter, slot, ClientReply::Opened(*session)),
            RequestOutcome::Closed => self.reply(waiter, slot, ClientReply::Closed),
            RequestOutcome::Command { slot, outcome, .. } => {
                let lookup = node.ledger.render(outcome);
                self.begin_answer(index, waiter, Some(*slot), lookup);
            }
            RequestOutcome::Rejected(rejection) => {
                self.reply(waiter, slot, ClientReply::Rejected(rejection.refusal().code));
            }
        }
    }

    fn begin_answer(&mut self, index: usize, waiter: Waiter, slot: Option<Slot>, lookup: Lookup) {
        let steps = self.random.u64(1..16);
        self.progress(index, OpenAnswer { waiter, slot, lookup: Box::new(lookup), block: None, steps });
    }

    /// Gives an answer, or goes on with it when the block that it needs was read, or after other work.
    fn progress(&mut self, index: usize, mut open: OpenAnswer) {
        let Some(node) = &mut self.machines[index].node else { return };
        let took = match node.ledger.go_on(&mut open.lookup, &mut open.steps.clone()) {
            Progress::Done(answer) => {
                let slot = open.slot.unwrap_or(open.lookup.slot());
                return self.reply(open.waiter, slot, ClientReply::Outcome(plain(answer)));
            }
            Progress::Block(number) => {
                self.report.count("blocks of the history read");
                open.block = Some(number);
                self.micros(100, 5_000)
            }
            Progress::Unfinished => {
                self.report.count("answers that took several turns");
                open.steps = (open.steps * 4).min(2 * MOST_AT_ONCE);
                self.micros(1, 1_000)
            }
        };
        self.mail(index, took, Mail::GoOn(open));
    }

    pub(super) fn go_on(&mut self, index: usize, mut open: OpenAnswer) -> Check {
        let machine = &self.machines[index];
        let Some(node) = &machine.node else { return Ok(()) };
        if let Some(number) = open.block.take() {
            let block = read_block(&node.books.reader, number);
            open.lookup.give(Arc::new(block.map_err(|error| store_violation(machine.id, &error))?));
        }
        self.progress(index, open);
        Ok(())
    }

    fn read(&mut self, index: usize, WaitingRead { waiter, question, .. }: WaitingRead) {
        let Some(node) = &self.machines[index].node else { return };
        let lookup = match question {
            Question::Query(query) => node.ledger.query(&query),
            Question::Feed(feed, id, limit) => Some(node.ledger.transactions_from(&feed, id, FOLLOW_SCAN, limit)),
        };
        if let Some(lookup) = lookup {
            self.begin_answer(index, waiter, None, lookup);
        }
    }

    /// Answers the reads that waited for a slot that is applied now.
    pub(super) fn read_due(&mut self, index: usize) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let later = node.at_slot.split_off(&(node.ledger.applied() + 1));
        let due = std::mem::replace(&mut node.at_slot, later);
        due.into_values().flatten().for_each(|read| self.read(index, read));
        Ok(())
    }

    fn read_or_wait(&mut self, index: usize, slot: Slot, read: WaitingRead) {
        let Some(node) = &mut self.machines[index].node else { return };
        if slot <= node.ledger.applied() || is_broken(Rule::ReadWaits) {
            return self.read(index, read);
        }
        node.at_slot.entry(slot).or_default().push(read);
    }

    pub(super) fn read_at(&mut self, index: usize, read: u64, slot: Slot) -> Check {
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let later = node.rounds.split_off(&(read + 1));
        let ready = std::mem::replace(&mut node.rounds, later);
        let sees = ready.values().map(|read| read.sees).max().unwrap_or(0);
        check(slot >= sees, "linearizable reads", || {
            format!("reads of node {} wait for slot {slot}, but {sees} was applied before they were asked", index + 1)
        })?;
        ready.into_values().for_each(|read| self.read_or_wait(index, slot, read));
        Ok(())
    }

    pub(super) fn request(&mut self, index: usize, waiter: Waiter, ask: Ask) -> Check {
        let (question, level) = match ask {
            Ask::Log(header, action) => return self.submit(index, waiter, &header, &action),
            Ask::Read(query, level) => (Question::Query(query), level),
            Ask::Follow(feed, id, limit) => (Question::Feed(feed, id, limit), ReadLevel::Local),
        };
        let read = WaitingRead { waiter, question, sees: self.agreement.slots() };
        match level {
            ReadLevel::Linearizable => {
                let Some(node) = &mut self.machines[index].node else { return Ok(()) };
                node.reads += 1;
                let number = node.reads;
                node.rounds.insert(number, read);
                self.mail(index, MAILBOX, Mail::Events(vec![Event::Read(number)]));
            }
            ReadLevel::AtLeast(slot) => self.read_or_wait(index, slot, read),
            ReadLevel::Local => self.read_or_wait(index, 0, read),
        }
        Ok(())
    }

    fn reply(&mut self, waiter: Waiter, slot: Slot, reply: ClientReply) {
        if self.percent(self.weather.loss) {
            return self.report.count("answers to clients lost");
        }
        let delay = self.micros(50, 3_000);
        self.at(delay, Item::Answer { waiter, slot, reply });
    }

    // ----- clients -----

    /// What generators need to know of the world.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { limit: self.genesis.transaction_limit, transactions: self.model.history().len() as u64 }
    }

    pub(super) fn client(&mut self, index: usize) -> Check {
        let pace = CLIENT_PACE + self.micros(0, 5_000);
        self.at(pace, Item::Client(index));
        let (now, after, wall, bounds) = (self.now, self.answers.now(), self.true_time(), self.bounds());
        let client = &mut self.clients[index];
        let mut marks: Vec<u64> = client.begin(now, after, wall, &bounds, &mut self.random).into_iter().collect();
        if client.in_flight.values().any(|request| request.patience <= now) {
            client.home = self.random.usize(..self.machines.len());
        }
        let patience = client.patience(&mut self.random);
        for (mark, request) in &mut client.in_flight {
            if request.patience <= now {
                request.patience = now + patience;
                marks.push(*mark);
                self.report.count("requests sent again");
            }
        }
        let stray = if !client.is_done() && self.random.u32(..60) == 0 {
            client.stray(&bounds, &mut self.random)
        } else {
            None
        };
        let asks: Vec<_> = marks.iter().map(|mark| (Some(*mark), client.in_flight[mark].ask.clone())).collect();
        for (mark, ask) in asks.into_iter().chain(stray.map(|ask| (None, ask))) {
            self.ask(Waiter { client: index, mark }, ask);
        }
        Ok(())
    }

    fn ask(&mut self, waiter: Waiter, ask: Ask) {
        let node = self.clients[waiter.client].home;
        if !self.percent(self.weather.loss) {
            let delay = self.micros(50, 3_000);
            self.at(delay, Item::Request { node, waiter, ask });
        }
    }

    pub(super) fn answer(&mut self, waiter: Waiter, slot: Slot, reply: ClientReply) -> Check {
        let client = &mut self.clients[waiter.client];
        let Some(request) = waiter.mark.and_then(|mark| client.in_flight.remove(&mark)) else { return Ok(()) };
        match (request.ask, reply) {
            (Ask::Read(query, level), ClientReply::Outcome(answer)) => {
                self.answers.read(&self.model, &query, level, request.after, slot, answer)
            }
            (Ask::Log(_, Action::Open), ClientReply::Opened(session)) => {
                client.opened(session);
                Ok(())
            }
            (Ask::Follow(feed, id, limit), ClientReply::Outcome(answer)) => {
                self.answers.followed(&self.model, &feed, (id, FOLLOW_SCAN, limit), slot, answer)
            }
            (Ask::Log(_, Action::Close), ClientReply::Closed) => {
                client.closed();
                Ok(())
            }
            // As many are open as may be, or an earlier attempt has opened it, and it has expired since.
            (
                Ask::Log(header, Action::Open),
                ClientReply::Rejected(code @ (ErrorCode::TooManySessions | ErrorCode::SessionExpired)),
            ) => {
                self.report.count("sessions that were not opened");
                client.not_opened(self.now);
                let right = code == ErrorCode::TooManySessions || self.model.has_ended(header.key);
                check(right, "sessions", || {
                    format!("{header:?} was answered {code:?}, but no session of its key ended")
                })
            }
            // An earlier attempt has closed it, or the session has expired. What came of the request is unknown.
            (Ask::Log(header, action), ClientReply::Rejected(code @ ErrorCode::SessionExpired)) => {
                self.report.count("sessions expired under a request");
                let what = || format!("{action:?} of session {} was answered {code:?}", header.session);
                check(!self.model.is_open(header.session), "sessions", || format!("{}, but it is open", what()))?;
                client.gone(header.session);
                Ok(())
            }
            (Ask::Log(header, action @ Action::Command(_)), ClientReply::Outcome(answer)) => {
                client.commanded(header, action, slot);
                let name = (header.session, header.number);
                self.answers.command(&self.model, name, request.after, Some(slot), answer)
            }
            (ask, reply) => check(false, "answers", || format!("{ask:?} was answered {reply:?}")),
        }
    }
}
