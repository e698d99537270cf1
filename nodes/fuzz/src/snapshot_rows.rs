//! Rows of the books, as they come from a peer or lie on the disk.

use rabia_bank_actors::ledger::{Applied, BLOCK, Block, Changes, Ledger};
use rabia_bank_actors::snapshot::{Restoring, Snapshot};
use rabia_bank_messages::genesis::SessionLimits;
use rabia_bank_messages::ids::{Digest, NodeId};

use super::parts::{self, Part};
use super::peer_frames;

pub const BLOCKS: u8 = 1;
pub const STATE: u8 = 2;
pub const ACCOUNTS: u8 = 3;
pub const SESSIONS: u8 = 4;

/// Rows that are taken make a ledger whose own rows make the same one.
pub fn check(input: &[u8]) {
    let parts = parts::split(input);
    let blocks = parts.iter().filter(|part| part.kind % 5 == BLOCKS);
    let blocks: Vec<_> = blocks.filter_map(|part| Block::decode(u64::from(part.number), &part.body).ok()).collect();
    // Numbers that no part of an input can have.
    for part in &parts {
        let far = u64::MAX - u64::from(part.number);
        assert!(Block::decode(far, &part.body).is_err(), "there is no block {far}");
    }
    let Some(mut ledger) = load(&parts, &blocks) else { return };
    let digest = ledger.digest();
    ledger.freeze();
    let changes = std::iter::repeat_with(|| ledger.collect(64)).flatten().next();
    assert!(changes.is_some_and(|changes| changes.slot == ledger.applied()));
    assert_eq!(ledger.digest(), digest);
}

fn load(parts: &[Part], blocks: &[Block]) -> Option<Ledger> {
    let state = parts.iter().find(|part| part.kind % 5 == STATE)?;
    let mut restoring: Restoring = Restoring::new(&state.body).ok()?;
    let loading = restoring.loading();
    for part in parts {
        match part.kind % 5 {
            ACCOUNTS => loading.accounts(part.number, &part.body).ok()?,
            SESSIONS => loading.session(u64::from(part.number), &part.body).ok()?,
            _ => {}
        }
    }
    let last = loading.last_block();
    let last = blocks.iter().find(|block| Some(block.number()) == last);
    let full = loading.transactions() / BLOCK;
    let head = last.map_or(loading.chain_head(), Block::before);
    restoring.finish(last, full, head).ok().map(|(ledger, _)| ledger)
}

/// The rows of an empty bank, and of one with some accounts and transactions.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![rows(Ledger::new(1_000, SessionLimits::default()))];
    let mut ledger = Ledger::new(1_000_000, SessionLimits::default());
    let Some(node) = NodeId::new(1) else { return seeds };
    let (id, payload) = peer_frames::payload(node);
    let applied = ledger.apply(1, Some((&id, &payload)));
    assert!(matches!(applied, Applied::Batch(_)), "{applied:?}");
    assert!(ledger.newest_transaction() > 0 && ledger.chain_head() != Digest::ZERO);
    seeds.push(rows(ledger));
    seeds
}

/// What a snapshot of the ledger consists of.
fn rows(mut ledger: Ledger) -> Vec<u8> {
    ledger.freeze();
    let changes: Option<Changes> = std::iter::repeat_with(|| ledger.collect(64)).flatten().next();
    let snapshot = |changes| Snapshot { changes, decisions: vec![(1, None)], log_hash: Digest::ZERO };
    let rows = changes.map(|changes| snapshot(changes).into_rows()).unwrap_or_default();
    let part = |kind, number: u64, body: Vec<u8>| Part { kind, number: number as u32, body };
    let mut parts: Vec<_> = rows.blocks.into_iter().map(|(number, body)| part(BLOCKS, number, body)).collect();
    parts.push(part(STATE, 0, rows.state));
    parts.extend(rows.accounts.into_iter().map(|(page, body)| part(ACCOUNTS, u64::from(page), body)));
    let sessions = rows.sessions.into_iter().filter_map(|(number, row)| Some((number, row?)));
    parts.extend(sessions.map(|(number, body)| part(SESSIONS, number, body)));
    parts::join(&parts)
}
