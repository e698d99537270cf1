//! Nonsense: what a member says that has a bug, an old version, or bad memory. Each kind of message is made up or altered, field by
//! field, at the ends of what the field can be, and payloads with the digest that names them hold what nobody can apply.
//!
//! Where nonsense ends and lies begin is told in SIMULATION.md.

use bytes::Bytes;
use fastrand::Rng;
use rabia_bank_messages::bank::{Amount, Command, Operation};
use rabia_bank_messages::batch::{Action, BatchBuilder, Payload, RequestHeader};
use rabia_bank_messages::ids::{BatchId, Digest, MAX_PHASES, NodeId, Phase, Proof, SessionKey, Slot, StoreId};
use rabia_bank_messages::peer::{Entry, PeerMessage, SnapshotCursor, SnapshotPart, State, Value, Vote};

/// Phases from here on are not reached: each takes a coin that fails.
const NEVER_REACHED: Phase = 500;
/// Slots so far ahead of what is decided are not reached.
const FAR: Slot = 1 << 40;
/// How many kinds of messages there are.
const KINDS: u32 = 16;

/// What a babbling member knows of the one that it speaks to.
#[derive(Clone, Copy, Debug)]
pub struct Hearer {
    /// How many members there are.
    pub members: usize,
    /// The hearer knows all decisions up to here: it must not be more than it knows.
    pub decided: Slot,
    /// What the slot behind that is decided on, where that is known.
    pub next: Option<Value>,
}

/// Something about nothing: a message of a random kind, altered.
pub fn made_up(hearer: &Hearer, random: &mut Rng) -> PeerMessage {
    let id = unknown(hearer, random);
    let message = match random.u32(..KINDS) {
        0 => PeerMessage::Proposal { slot: 0, value: Some(id), payload: None },
        1 => PeerMessage::State { slot: 0, phase: 1, state: State::One(id) },
        2 => PeerMessage::Vote { slot: 0, phase: 1, vote: Vote::Undecided },
        3 => PeerMessage::Decide { slot: 0, value: None },
        4 => PeerMessage::Batch { id, payload: Payload::new(Bytes::new()) },
        5 => PeerMessage::Fetch { id },
        6 => PeerMessage::Promised { count: 0, proof: Proof([0; 16]) },
        7 => PeerMessage::Clock { wall: 0, confirmed: None, refuses: false },
        8 => PeerMessage::ReadIndex { starts: 1, round: 1 },
        9 => PeerMessage::ReadIndexAnswer { starts: 0, round: 0, slot: 0 },
        10 => PeerMessage::CatchUp { from: 1 },
        11 => PeerMessage::Entries { before: Digest::ZERO, entries: Vec::new(), decided: 0 },
        12 => PeerMessage::Compacted { log_from: 0 },
        13 => {
            let at = SnapshotCursor { part: SnapshotPart::Blocks, row: 0, offset: 0 };
            PeerMessage::GetSnapshot { slot: 0, at }
        }
        14 => {
            let at = SnapshotCursor { part: SnapshotPart::Blocks, row: 0, offset: 0 };
            PeerMessage::SnapshotRows { slot: hearer.decided + 1, at, part: at.part, rows: Vec::new(), next: None }
        }
        _ => PeerMessage::Alive { decided: 0, hash: Digest::ZERO, durable: 0 },
    };
    altered(message, hearer, random)
}

/// A message with something in it that can't be, or that is worth nothing.
pub fn altered(message: PeerMessage, hearer: &Hearer, random: &mut Rng) -> PeerMessage {
    match message {
        PeerMessage::Proposal { slot, .. } => altered_proposal(slot, hearer, random),
        PeerMessage::State { slot, phase, .. } => altered_state(slot, phase, hearer, random),
        PeerMessage::Vote { slot, phase, .. } => altered_vote(slot, phase, hearer, random),
        PeerMessage::Decide { .. } => {
            PeerMessage::Decide { slot: closed_slot(hearer, random), value: any_value(hearer, random) }
        }
        PeerMessage::Batch { id, .. } if random.u32(..3) == 0 => {
            PeerMessage::Batch { id, payload: batch(hearer, random).1 }
        }
        PeerMessage::Batch { .. } => {
            let (id, payload) = batch(hearer, random);
            PeerMessage::Batch { id, payload }
        }
        PeerMessage::Fetch { .. } => PeerMessage::Fetch { id: unknown(hearer, random) },
        PeerMessage::Promised { .. } => {
            let count = [0, 1, 1 << 63, u64::MAX - 1, u64::MAX][random.usize(..5)];
            PeerMessage::Promised { count, proof: Proof([random.u8(..); 16]) }
        }
        PeerMessage::Clock { .. } => {
            let confirmed = random.bool().then(|| end(random));
            PeerMessage::Clock { wall: end(random), confirmed, refuses: random.bool() }
        }
        PeerMessage::ReadIndex { .. } => PeerMessage::ReadIndex { starts: end(random), round: end(random) },
        PeerMessage::ReadIndexAnswer { starts, round, .. } => match random.u32(..3) {
            0 => PeerMessage::ReadIndexAnswer { starts: starts.wrapping_add(1), round, slot: end(random) },
            1 => PeerMessage::ReadIndexAnswer { starts, round: round.wrapping_sub(1), slot: end(random) },
            _ if random.bool() => PeerMessage::ReadIndexAnswer { starts, round, slot: far(hearer, random) },
            _ => PeerMessage::ReadIndexAnswer { starts, round, slot: hearer.decided + random.u64(1..100_000) },
        },
        PeerMessage::GetHash { .. } => PeerMessage::GetHash { slot: end(random) },
        // Another hash of a slot that both have is a lie that only a majority can tell: see `consensus::forks`.
        PeerMessage::LogHash { hash, .. } => PeerMessage::LogHash { slot: far(hearer, random), hash },
        PeerMessage::CatchUp { .. } => PeerMessage::CatchUp { from: closed_slot(hearer, random) },
        PeerMessage::Entries { before, entries, decided } => entries_of(before, entries, decided, hearer, random),
        PeerMessage::Compacted { .. } => PeerMessage::Compacted { log_from: closed_slot(hearer, random) },
        PeerMessage::GetSnapshot { slot, at } => match random.bool() {
            true => PeerMessage::GetSnapshot { slot: closed_slot(hearer, random), at },
            false => PeerMessage::GetSnapshot { slot, at: place(at, random) },
        },
        PeerMessage::SnapshotRows { slot, at, part, rows, next } => {
            let mut answer = SnapshotAnswer { slot, at, part, rows, next };
            answer.alter(hearer, random);
            let SnapshotAnswer { slot, at, part, rows, next } = answer;
            PeerMessage::SnapshotRows { slot, at, part, rows, next }
        }
        PeerMessage::Alive { hash, .. } => PeerMessage::Alive { decided: end(random), hash, durable: end(random) },
        PeerMessage::StateDigest { .. } => {
            PeerMessage::StateDigest { slot: far(hearer, random), digest: Digest([random.u8(..); 32]) }
        }
    }
}

/// A proposal of a slot that is decided, of a batch that nobody has, or with a payload that can't be decoded.
fn altered_proposal(slot: Slot, hearer: &Hearer, random: &mut Rng) -> PeerMessage {
    match random.u32(..3) {
        0 => {
            PeerMessage::Proposal { slot: closed_slot(hearer, random), value: any_value(hearer, random), payload: None }
        }
        1 => PeerMessage::Proposal { slot, value: Some(unknown(hearer, random)), payload: None },
        _ => {
            let payload = undecodable(random);
            let id = BatchId { digest: Digest::of(payload.bytes()), ..unknown(hearer, random) };
            PeerMessage::Proposal { slot, value: Some(id), payload: Some(payload) }
        }
    }
}

/// A state of a slot that is decided, of a phase that can't be, or for a batch that nobody has.
fn altered_state(slot: Slot, phase: Phase, hearer: &Hearer, random: &mut Rng) -> PeerMessage {
    let known = [State::Zero, State::Abstain][random.usize(..2)];
    let one = State::One(unknown(hearer, random));
    let any = if random.bool() { known } else { one };
    match random.u32(..3) {
        0 => PeerMessage::State { slot: closed_slot(hearer, random), phase, state: any },
        1 => PeerMessage::State { slot, phase: no_phase(random), state: any },
        _ => PeerMessage::State { slot, phase, state: one },
    }
}

/// As for states.
fn altered_vote(slot: Slot, phase: Phase, hearer: &Hearer, random: &mut Rng) -> PeerMessage {
    let known = [Vote::Zero, Vote::Undecided][random.usize(..2)];
    let one = Vote::One(unknown(hearer, random));
    let any = if random.bool() { known } else { one };
    match random.u32(..3) {
        0 => PeerMessage::Vote { slot: closed_slot(hearer, random), phase, vote: any },
        1 => PeerMessage::Vote { slot, phase: no_phase(random), vote: any },
        _ => PeerMessage::Vote { slot, phase, vote: one },
    }
}

/// A number at the ends of what it can be.
fn end(random: &mut Rng) -> u64 {
    [0, 1, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX][random.usize(..6)]
}

fn far(hearer: &Hearer, random: &mut Rng) -> Slot {
    [hearer.decided.saturating_add(FAR), 1 << 63, u64::MAX - 1, u64::MAX][random.usize(..4)]
}

/// A slot about which nothing can be said any more, or not yet for very long.
fn closed_slot(hearer: &Hearer, random: &mut Rng) -> Slot {
    match random.u32(..5) {
        0 => 0,
        1 => far(hearer, random),
        2 => random.u64(..=hearer.decided),
        3 => hearer.decided.saturating_sub(random.u64(..3)),
        _ => hearer.decided.min(1),
    }
}

fn no_phase(random: &mut Rng) -> Phase {
    [0, NEVER_REACHED, MAX_PHASES - 1, MAX_PHASES, MAX_PHASES + 1, u32::MAX][random.usize(..6)]
}

fn member(hearer: &Hearer, random: &mut Rng) -> NodeId {
    let number = random.u8(1..=hearer.members as u8);
    NodeId::new(number).unwrap_or_else(|| unreachable!("{number} is no member's number"))
}

/// A batch that nobody has.
fn unknown(hearer: &Hearer, random: &mut Rng) -> BatchId {
    let mut digest = [0; 32];
    random.fill(&mut digest);
    BatchId { origin: member(hearer, random), incarnation: end(random), sequence: end(random), digest: Digest(digest) }
}

fn any_value(hearer: &Hearer, random: &mut Rng) -> Value {
    random.bool().then(|| unknown(hearer, random))
}

/// A batch that can't be applied, of a time that has come, which no other is named like.
pub(super) fn let_in(number: u64, random: &mut Rng) -> (BatchId, Payload) {
    let origin = NodeId::new(1).unwrap_or_else(|| unreachable!());
    loop {
        let payload = undecodable(random);
        if payload.stamp().is_ok_and(|stamp| stamp <= 1) {
            let digest = Digest::of(payload.bytes());
            return (BatchId { origin, incarnation: FAR, sequence: number, digest }, payload);
        }
    }
}

/// A batch with its right digest that nobody may hold.
pub fn batch(hearer: &Hearer, random: &mut Rng) -> (BatchId, Payload) {
    let payload = unusable(random);
    let digest = Digest::of(payload.bytes());
    (BatchId { digest, ..unknown(hearer, random) }, payload)
}

/// A payload that can't be applied, or whose time never comes.
fn unusable(random: &mut Rng) -> Payload {
    match random.u32(..8) {
        0 => {
            let never = u64::MAX - random.u64(..2);
            requests(random, never)
        }
        _ => undecodable(random),
    }
}

/// A payload that can't be applied.
pub fn undecodable(random: &mut Rng) -> Payload {
    let stamp = [0, 1, u64::MAX][random.usize(..3)];
    let whole = requests(random, stamp);
    let mut bytes = whole.bytes().to_vec();
    match random.u32(..7) {
        0 => bytes.clear(),
        1 => bytes.truncate(random.usize(1..bytes.len())),
        2 => bytes[0] = [0, 1, 99, u8::MAX][random.usize(..4)],
        3 => bytes.push(random.u8(..)),
        // The count of requests.
        4 => bytes[9..13].copy_from_slice(&[u32::MAX, 1 << 16, 0][random.usize(..3)].to_be_bytes()),
        // A type that the encoding does not know, in the first request.
        5 => bytes[13] = 0xc1,
        _ => {
            // A new store: a byte too short, for a node that can't be, or at the end of all time.
            let replacing = Payload::replacing(NodeId::new(1).unwrap_or_else(|| unreachable!()), StoreId([9; 16]), 1);
            bytes = replacing.bytes().to_vec();
            match random.u32(..3) {
                0 => bytes.truncate(bytes.len() - 1),
                1 => bytes[9] = [0, 8, u8::MAX][random.usize(..3)],
                _ => bytes[1..9].fill(0xff),
            }
        }
    }
    Payload::new(bytes)
}

/// A payload as a node makes it.
fn requests(random: &mut Rng, stamp: u64) -> Payload {
    let mut batch = BatchBuilder::default();
    let header = RequestHeader {
        session: 1,
        key: SessionKey([7; 16]),
        number: end(random),
        acknowledged: end(random),
        token: 0,
    };
    let account_id = "nonsense".into();
    batch.push(&header, &Action::Command(Command::One(Operation::Deposit { account_id, amount: Amount::new(1) })));
    batch.push(&header, &Action::<Command>::Close);
    let origin = NodeId::new(1).unwrap_or_else(|| unreachable!());
    batch.finish(origin, 1, 1, stamp).1
}

/// Decided slots: of those that the hearer knows, anything; of the next, what it is decided on, with another payload.
fn entries_of(before: Digest, entries: Vec<Entry>, decided: Slot, hearer: &Hearer, random: &mut Rng) -> PeerMessage {
    let mut altered: Vec<Entry> = Vec::new();
    match random.u32(..5) {
        0 => return PeerMessage::Entries { before, entries, decided: end(random) },
        1 => {
            altered.extend((0..random.u64(1..4)).map(|_| Entry {
                slot: closed_slot(hearer, random),
                batch: random.bool().then(|| batch(hearer, random)),
            }))
        }
        2 => {
            let next = hearer.next.flatten().map(|id| (id, unusable(random)));
            altered.extend(next.map(|batch| Entry { slot: hearer.decided + 1, batch: Some(batch) }));
        }
        // Twice the same, and from behind.
        3 => {
            altered.extend(entries.iter().rev().cloned());
            altered.extend(entries);
        }
        _ => {
            let slot = far(hearer, random);
            altered.extend([slot, slot.wrapping_add(1)].map(|slot| Entry { slot, batch: None }));
            altered.retain(|entry| entry.slot == 0 || entry.slot > hearer.decided);
        }
    }
    PeerMessage::Entries { before, entries: altered, decided: if random.bool() { end(random) } else { decided } }
}

fn place(at: SnapshotCursor, random: &mut Rng) -> SnapshotCursor {
    match random.u32(..3) {
        0 => {
            let parts = [SnapshotPart::Blocks, SnapshotPart::State, SnapshotPart::Accounts, SnapshotPart::Sessions];
            SnapshotCursor { part: parts[random.usize(..4)], ..at }
        }
        1 => SnapshotCursor { row: end(random), ..at },
        _ => SnapshotCursor { offset: end(random), ..at },
    }
}

/// Rows of a snapshot.
struct SnapshotAnswer {
    slot: Slot,
    at: SnapshotCursor,
    part: SnapshotPart,
    rows: Vec<(u64, Bytes)>,
    next: Option<SnapshotCursor>,
}

impl SnapshotAnswer {
    fn alter(&mut self, hearer: &Hearer, random: &mut Rng) {
        match random.u32(..8) {
            0 => self.slot = closed_slot(hearer, random),
            1 => self.at = place(self.at, random),
            2 => self.part = place(self.at, random).part,
            3 => self.next = self.next.is_none().then_some(self.at),
            4 => self.next = Some(place(self.next.unwrap_or(self.at), random)),
            5 => self.rows.clear(),
            6 => self.rows.push((end(random), Bytes::from(vec![random.u8(..); random.usize(..100)]))),
            _ => {
                if let Some((number, row)) = self.rows.last_mut() {
                    let mut bytes = row.to_vec();
                    match bytes.len() {
                        0 => *number = end(random),
                        length => bytes[random.usize(..length)] ^= 1 << random.u32(..8),
                    }
                    *row = bytes.into();
                }
            }
        }
    }
}
