//! Snapshots: a ledger that is saved and made again of its rows answers as one that never was, also what is read from blocks;
//! rows that are not what was saved are found.

use std::iter;

use fastrand::Rng;
use rabia_bank_ledger::{Applied, BLOCK, Ledger, MOST_AT_ONCE, Progress};
use rabia_bank_messages::bank::{AccountStatus, Bound, Command, HistoryFilter, Operation, Query, TransactionType};
use rabia_bank_messages::batch::{Action, Payload};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::genesis::Replacement;
use rabia_bank_messages::ids::{BatchId, Digest, NodeId, StoreId};

use crate::support::*;

const ACCOUNTS: usize = 150;

/// Assets, of which the first is the cluster's own, and classes of accounts.
const CODES: [&str; 4] = ["XXX", "EUR", "USD", "A.1"];

fn name(index: usize) -> String {
    format!("account-{index:03}")
}

fn operation(random: &mut Rng) -> Operation {
    let [from, to] = [(); 2].map(|()| name(random.usize(..ACCOUNTS).min(random.usize(..ACCOUNTS))));
    let code = CODES[random.usize(..CODES.len())];
    match random.u32(..12) {
        0 => deposit(&to, random.u64(1..500)),
        1 => withdraw(&from, random.u64(1..500)),
        2 => create(&format!("later-{}", random.u32(..500)), random.u64(1..50)),
        3 => create_of(code, &format!("{code}-{}", random.u32(..50)), random.u64(..50)),
        4 => {
            let [one, other] = [(); 2].map(|()| format!("{code}-{}", random.u32(..50)));
            transfer(&one, &other, random.u64(1..20))
        }
        5 if random.u32(..20) == 0 => asset(code, 2, 1_000),
        5 => set(if random.bool() { &from } else { "EUR-7" }, |set| {
            let maybe = |random: &mut Rng, word: &str| random.bool().then(|| word.into());
            let said = ["", "N", "A longer name"][random.usize(..3)];
            (set.code, set.name) = (maybe(random, code), maybe(random, said));
            set.max_balance = random.bool().then(|| Bound::At(random.i64(1_000..3_000)));
            set.status = random.bool().then(|| [AccountStatus::Open, AccountStatus::NoCredits][random.usize(..2)]);
        }),
        _ => transfer(&from, &to, random.u64(1..500)),
    }
}

/// Batches of some operations, some of them in bulks of which a part is undone.
fn batches(seed: u64, count: usize) -> Vec<Vec<Command>> {
    let mut random = Rng::with_seed(seed);
    let openings = (0..ACCOUNTS).map(|index| Command::One(create(&name(index), 1_000))).collect();
    let command = |random: &mut Rng| match random.u32(..10) {
        0 => bulk(random.bool(), (0..random.usize(1..40)).map(|_| operation(random)).collect()),
        _ => Command::One(operation(random)),
    };
    let batch = |_| (0..random.usize(1..30)).map(|_| command(&mut random)).collect();
    iter::once(openings).chain((0..count).map(batch)).collect()
}

fn apply(bank: &mut Bank, number: &mut u64, batch: &[Command]) {
    let requests: Vec<_> = batch
        .iter()
        .map(|command| {
            *number += 1;
            (header(SESSION, *number, number.saturating_sub(40)), Action::Command(command.clone()))
        })
        .collect();
    bank.stamp += 7;
    bank.batch(&requests);
}

/// Questions of every kind, about all ages of the history.
fn questions(random: &mut Rng, newest: u64, times: (u64, u64)) -> Vec<Query> {
    let kinds = [None, Some(TransactionType::Opening), Some(TransactionType::Deposit), Some(TransactionType::Transfer)];
    let maybe = |range: std::ops::RangeInclusive<u64>, random: &mut Rng| random.bool().then(|| random.u64(range));
    let mut questions: Vec<_> = (0..60)
        .map(|_| {
            Query::GetTransactionHistory(HistoryFilter {
                account_id: random.bool().then(|| name(random.usize(..ACCOUNTS)).into()),
                transaction_type: kinds[random.usize(..4)],
                from_time: maybe(times.0..=times.1, random),
                to_time: maybe(times.0..=times.1, random),
                before: maybe(0..=newest + 2, random),
                limit: maybe(1..=200, random).map(|limit| limit as u32),
            })
        })
        .collect();
    questions.extend((0..20).map(|_| Query::GetTransaction { transaction_id: random.u64(0..=newest + 1) }));
    for code in CODES {
        let asset = Some(code.into());
        questions
            .extend([1, 499].map(|amount| Query::GetStatistics { large_amount: Some(amount), asset: asset.clone() }));
        questions.push(Query::ListAccounts { after: None, limit: Some(20), code: asset });
    }
    questions.extend([300, 1_000].map(|amount| Query::GetStatistics { large_amount: Some(amount), asset: None }));
    questions.push(Query::ListAccounts { after: None, limit: Some(200), code: None });
    questions.push(Query::ListAssets {});
    questions
}

#[test]
fn a_ledger_made_of_its_rows_answers_as_one_that_never_was_saved() {
    for seed in 0..6 {
        let mut random = Rng::with_seed(seed);
        let (mut saved, mut plain) = (Bank::new(), Bank::new());
        let (mut number, mut plain_number, mut from_disk) = (0, 0, 0);
        for batch in batches(seed, 120) {
            apply(&mut saved, &mut number, &batch);
            apply(&mut plain, &mut plain_number, &batch);
            if random.u32(..12) > 0 {
                continue;
            }
            saved.reload();
            let newest = plain.ledger.summary().transactions;
            for question in questions(&mut random, newest, (1_000, saved.stamp + 10)) {
                if let Some(mut lookup) = saved.ledger.query(&question) {
                    let progress = saved.ledger.go_on(&mut lookup, &mut MOST_AT_ONCE.clone());
                    from_disk += usize::from(matches!(progress, Progress::Block(_)));
                }
                assert_eq!(saved.query(&question), plain.query(&question), "seed {seed}: {question:?}");
            }
            let from = random.u64(..newest);
            let feed = Feed {
                account_id: random.bool().then(|| format!("a{}", random.u32(..6)).into()),
                min_amount: random.bool().then(|| random.u64(..100)),
                asset: random.bool().then(|| CODES[random.usize(..CODES.len())].into()),
                from: None,
            };
            let limit = random.usize(1..700);
            let pages = [&mut saved, &mut plain].map(|bank| {
                let lookup = bank.ledger.transactions_from(&feed, from, 700, limit);
                bank.finish(lookup)
            });
            assert_eq!(pages[0], pages[1], "seed {seed}: {feed:?} from {from}");
        }
        assert_eq!(saved.ledger.digest(), plain.ledger.digest());
        assert_eq!(saved.ledger.summary(), plain.ledger.summary());
        assert!(plain.ledger.summary().transactions > 3 * BLOCK && from_disk > 100, "{from_disk} answers from disk");
    }
}

/// The ledger goes on while a snapshot is collected; the snapshot shows it as it was when it was frozen.
#[test]
fn a_snapshot_is_of_one_moment() {
    for seed in 0..6 {
        let mut random = Rng::with_seed(seed);
        let (mut bank, mut number) = (Bank::new(), 0);
        let mut taken: Option<(u64, rabia_bank_messages::ids::Digest)> = None;
        let mut snapshots = 0;
        for batch in batches(seed + 100, 200) {
            apply(&mut bank, &mut number, &batch);
            match taken {
                None if random.u32(..4) == 0 => {
                    taken = Some((bank.ledger.applied(), bank.ledger.digest()));
                    bank.ledger.freeze();
                }
                None => {}
                Some((slot, digest)) => {
                    let Some(changes) = bank.ledger.collect(random.usize(..2)) else { continue };
                    assert_eq!(changes.slot, slot);
                    bank.ledger.forget(changes.transactions);
                    bank.rows.save(changes);
                    let mut loaded = bank.rows.load().unwrap();
                    assert_eq!((loaded.applied(), loaded.digest()), (slot, digest), "seed {seed}");
                    taken = None;
                    snapshots += 1;
                }
            }
        }
        assert!(snapshots > 5, "only {snapshots} snapshots");
    }
}

/// Whatever byte of whatever row is altered: the ledger is refused, or the block is.
#[test]
fn altered_rows_are_found() {
    let (mut bank, mut number) = (Bank::new(), 0);
    for batch in batches(7, 60) {
        apply(&mut bank, &mut number, &batch);
    }
    bank.reload();
    let good = bank.rows.clone();
    assert!(good.blocks.len() > 1 && good.accounts.len() > 1 && !good.sessions.is_empty());
    let digest = bank.ledger.digest();
    let whole = |rows: &Rows| {
        let ledger = rows.load().ok();
        let same = |mut ledger: Ledger| ledger.digest() == digest && ledger.summary() == bank.ledger.summary();
        let blocks = rows.blocks.iter().all(|(number, row)| {
            rabia_bank_ledger::Block::decode(*number, row).is_ok_and(|block| block == good.block(*number))
        });
        ledger.is_some_and(same) && blocks
    };
    assert!(whole(&good));
    let mut random = Rng::with_seed(1);
    let mut harmless = Vec::new();
    for _ in 0..400 {
        let mut rows = good.clone();
        let mut pick: Vec<&mut Vec<u8>> = rows.accounts.values_mut().collect();
        pick.extend(rows.sessions.values_mut());
        pick.extend(rows.blocks.values_mut());
        let which = random.usize(..pick.len());
        let row = &mut pick[which];
        let at = random.usize(..row.len());
        row[at] ^= 1 << random.u32(..8);
        if whole(&rows) {
            harmless.push((which, at));
        }
    }
    assert!(harmless.is_empty(), "not noticed (row, byte): {harmless:?}");
    for missing in [
        |rows: &mut Rows| drop(rows.accounts.pop_first()),
        |rows: &mut Rows| drop(rows.accounts.pop_last()),
        |rows: &mut Rows| drop(rows.sessions.pop_first()),
    ] {
        let mut rows = good.clone();
        missing(&mut rows);
        assert!(rows.load().is_err());
    }
}

#[test]
fn replaced_stores_are_part_of_the_state() {
    let mut bank = Bank::new();
    bank.done(create("a", 5));
    let (node, slot) = (NodeId::new(2).unwrap(), bank.ledger.applied());
    let mut digests = vec![bank.ledger.digest()];
    // The same store is given twice, as by somebody who has not seen the first time decided.
    for (sequence, store) in [(901, 0x22), (902, 0x22), (903, 0x23)] {
        let payload = Payload::replacing(node, StoreId([store; 16]), 1_000);
        let id = BatchId { origin: node, incarnation: 1, sequence, digest: Digest::of(payload.bytes()) };
        assert_eq!(bank.apply(Some((&id, &payload))), Applied::Replacement);
        assert!(!digests.contains(&bank.ledger.digest()));
        digests.push(bank.ledger.digest());
    }
    let replacement = |slot, store| Replacement { slot, node, store: StoreId([store; 16]) };
    let expected = [replacement(slot + 1, 0x22), replacement(slot + 3, 0x23)];
    assert_eq!(bank.ledger.replacements().list(), expected);
    bank.reload();
    assert_eq!(bank.ledger.replacements().list(), expected);
}
