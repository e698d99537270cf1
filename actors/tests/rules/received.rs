//! A snapshot that a peer sends, and books that are loaded.

use std::path::Path;

use rabia_bank_actors::failure::Failure;
use rabia_bank_actors::ledger::{BLOCK, Bank as Machine, Block, Ledger};
use rabia_bank_actors::parts::bank::words::Standpoint;
use rabia_bank_actors::parts::snapshotter::books_writer::{Answer, BooksWriter, Job, Outcome, SnapshotWanted};
use rabia_bank_actors::parts::snapshotter::offer::rows_at;
use rabia_bank_actors::snapshot::{Snapshot, read_block, restore};
use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation};
use rabia_bank_messages::batch::{Action, BatchBuilder, RequestHeader};
use rabia_bank_messages::genesis::SessionLimits;
use rabia_bank_messages::ids::{Digest, SessionKey};
use rabia_bank_messages::peer::SnapshotPart;
use rabia_bank_messages::sabotage::{Rule, Seen, ensure, shows};
use rabia_bank_storage::{BooksStore, BooksView};

use super::{identity, node};

/// Nothing is applied.
const VACANT: Standpoint = Standpoint { applied: 0, newest: (0, Digest::ZERO) };
const KEY: SessionKey = SessionKey([5; 16]);

/// A bank that applies one batch a slot.
struct Bank {
    ledger: Ledger,
    number: u64,
}

impl Bank {
    fn new() -> Bank {
        let mut bank = Bank { ledger: Ledger::new(1_000_000, SessionLimits::default()), number: 0 };
        let header = RequestHeader { session: 0, key: KEY, number: 0, acknowledged: 0, token: 0 };
        bank.apply(&header, &Action::Open);
        bank
    }

    fn apply(&mut self, header: &RequestHeader, action: &Action) {
        let mut builder = BatchBuilder::default();
        builder.push(header, action);
        let slot = self.ledger.applied() + 1;
        let (id, payload) = builder.finish(node(1), 1, slot, 1_000 + slot);
        self.ledger.apply(slot, Some((&id, &payload)));
    }

    fn command(&mut self, command: Command) {
        self.number += 1;
        let header =
            RequestHeader { session: 1, key: KEY, number: self.number, acknowledged: self.number - 1, token: 0 };
        self.apply(&header, &Action::Command(command));
    }

    fn create(&mut self, accounts: std::ops::Range<u32>, balance: u64) {
        let commands =
            accounts.map(|account| Operation::create_account(format!("account-{account}"), Amount::new(balance)));
        self.command(Command::Bulk(Bulk { commands: commands.collect(), atomic: true }));
    }

    fn deposits(&mut self, account: u32, amounts: impl IntoIterator<Item = u64>) {
        let commands = amounts.into_iter().map(|amount| Operation::Deposit {
            account_id: format!("account-{account}").into(),
            amount: Amount::new(amount),
        });
        self.command(Command::Bulk(Bulk { commands: commands.collect(), atomic: true }));
    }

    fn snapshot(&mut self) -> Snapshot {
        let steps = self.ledger.freeze();
        Snapshot { changes: self.ledger.collect(steps.max(1)).unwrap(), decisions: Vec::new(), log_hash: Digest::ZERO }
    }

    /// Books with all of it.
    fn books(&mut self, path: &Path) -> BooksStore {
        BooksStore::create(path, &identity(), None).unwrap();
        let mut books = BooksStore::open(path, &identity()).unwrap();
        books.save(&self.snapshot().into_rows()).unwrap();
        books
    }
}

/// Asks for what is wanted, and takes it as `change` gives it out, until there is nothing more to ask for. `before` comes
/// before each answer.
fn receive(
    writer: &mut BooksWriter,
    view: &BooksView,
    mut change: impl FnMut(SnapshotPart, u64, Vec<u8>) -> Vec<u8>,
    mut before: impl FnMut(&mut BooksWriter, SnapshotPart),
) -> Outcome {
    let mut outcome = writer.work(Job::Begin { own: VACANT });
    while let Outcome::Ask(wanted) = outcome {
        outcome = answer(writer, view, wanted, &mut change, &mut before);
    }
    outcome
}

fn answer(
    writer: &mut BooksWriter,
    view: &BooksView,
    wanted: SnapshotWanted,
    change: &mut impl FnMut(SnapshotPart, u64, Vec<u8>) -> Vec<u8>,
    before: &mut impl FnMut(&mut BooksWriter, SnapshotPart),
) -> Outcome {
    // One row after the other.
    let (part, rows, next) = rows_at(view, wanted.at, 1 << 20).unwrap();
    before(writer, part);
    let rows = rows.into_iter().map(|(number, row)| (number, change(part, number, row.to_vec()).into())).collect();
    writer.work(Job::Take(Answer { slot: view.slot(), at: wanted.at, part, rows, next }))
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Installed { slot, .. } => format!("installed at {slot}"),
        Outcome::GaveUp(why) => format!("gave up: {why}"),
        Outcome::Failed(why) => format!("failed: {why}"),
        Outcome::Ask(wanted) => format!("asks for {wanted:?}"),
        _ => "something else".into(),
    }
}

/// The books on disk are those of this bank, to the last row.
fn are_of(path: &Path, bank: &mut Bank) -> Seen {
    let books = BooksStore::open(path, &identity()).unwrap();
    let view = books.reader().view().unwrap();
    let (mut ledger, _) = restore::<Machine>(&view).map_err(|error| error.to_string())?.ok_or("no books")?;
    ensure(ledger.digest() == bank.ledger.digest(), "another state")?;
    let (mut head, transactions) = (Digest::ZERO, ledger.summary().transactions);
    for number in 0..transactions.div_ceil(BLOCK) {
        let block: Block = read_block(&books.reader(), number).map_err(|error| error.to_string())?;
        let expected = BLOCK.min(transactions - number * BLOCK);
        ensure(block.before() == head, format!("block {number} does not follow"))?;
        ensure(block.records().len() as u64 == expected, format!("block {number} has {}", block.records().len()))?;
        head = block.records().last().unwrap().transaction.hash;
    }
    Ok(())
}

fn vacant(path: &Path) -> BooksWriter {
    BooksStore::create(path, &identity(), None).unwrap();
    BooksWriter::new(BooksStore::open(path, &identity()).unwrap())
}

fn as_sent(_: SnapshotPart, _: u64, row: Vec<u8>) -> Vec<u8> {
    row
}

#[test]
fn rows_of_two_states_are_no_ledger() {
    shows(Rule::LoadedDigest, || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        // The same accounts, the same sum, the same number of everything: only who has what differs.
        let banks = [(0, 1), (1, 0)].map(|(rich, poor)| {
            let mut bank = Bank::new();
            bank.create(0..2, 10);
            bank.deposits(rich, [7]);
            bank.deposits(poor, [3]);
            bank
        });
        let [mut one, mut other] = banks;
        let books = [one.books(&path("one")), other.books(&path("other"))];
        let [view, other_view] = [&books[0], &books[1]].map(|books| books.reader().view().unwrap());
        let page = other_view.accounts(0, 1 << 20).unwrap().remove(0).1;
        let mixed = |part, _, row| if part == SnapshotPart::Accounts { page.clone() } else { row };
        let received = receive(&mut vacant(&path("received")), &view, mixed, |_, _| ());
        ensure(matches!(received, Outcome::GaveUp(_)), describe(&received))?;

        // And on the own disk.
        let mut rows = all_rows(&view);
        rows.accounts[0].1 = page.clone();
        BooksStore::create(&path("mixed"), &identity(), Some(&rows)).unwrap();
        let mixed = BooksStore::open(&path("mixed"), &identity()).unwrap();
        ensure(restore::<Machine>(&mixed.reader().view().unwrap()).is_err(), "books of two states are loaded")
    });
}

/// All rows of some books.
fn all_rows(view: &BooksView) -> rabia_bank_storage::Snapshot {
    let all = usize::MAX;
    rabia_bank_storage::Snapshot {
        slot: view.slot(),
        state: view.state().unwrap().unwrap(),
        accounts: view.accounts(0, all).unwrap(),
        sessions: view.sessions(0, all).unwrap().into_iter().map(|(number, row)| (number, Some(row))).collect(),
        new_sessions: 0..0,
        blocks: view.blocks(0, all).unwrap(),
    }
}

#[test]
fn a_block_that_is_received_follows_the_one_before() {
    shows(Rule::BlocksFollow, || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let banks = [1, 2].map(|first| {
            let mut bank = Bank::new();
            bank.create(0..1, first);
            bank.deposits(0, (0..3 * BLOCK - 100).map(|amount| amount + first));
            bank
        });
        let [mut one, mut other] = banks;
        let books = one.books(&path("one"));
        let view = books.reader().view().unwrap();
        let others = other.books(&path("other"));
        let foreign = others.reader().block(0).unwrap();
        let received = path("received");
        let mut writer = vacant(&received);
        let change =
            |part, number, row| if (part, number) == (SnapshotPart::Blocks, 0) { foreign.clone() } else { row };
        match receive(&mut writer, &view, change, |_, _| ()) {
            Outcome::GaveUp(_) => {}
            Outcome::Installed { .. } => {
                drop(writer);
                are_of(&received, &mut one)?;
                return Err("a history of two banks looks whole".into());
            }
            outcome => return Err(describe(&outcome)),
        }
        // From somebody else it is taken.
        let whole = path("whole");
        let mut writer = vacant(&whole);
        let outcome = receive(&mut writer, &view, as_sent, |_, _| ());
        ensure(matches!(outcome, Outcome::Installed { .. }), describe(&outcome))?;
        drop(writer);
        are_of(&whole, &mut one)
    });
}

#[test]
fn rows_of_two_snapshots_are_not_mixed() {
    shows(Rule::OneSnapshot, || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut bank = Bank::new();
        bank.create(0..200, 5);
        let mut books = bank.books(&path("sender"));
        let first = books.reader().view().unwrap();
        bank.deposits(3, [4, 5, 6]);
        bank.create(200..300, 5);
        books.save(&bank.snapshot().into_rows()).unwrap();
        let second = books.reader().view().unwrap();

        let received = path("received");
        let mut writer = vacant(&received);
        let mut outcome = writer.work(Job::Begin { own: VACANT });
        let mut accounts_came = false;
        while let Outcome::Ask(wanted) = outcome {
            // The sender takes another snapshot behind the accounts of the first.
            let view = if accounts_came { &second } else { &first };
            accounts_came |= rows_at(view, wanted.at, 1 << 20).unwrap().0 == SnapshotPart::Accounts;
            outcome = answer(&mut writer, view, wanted, &mut as_sent, &mut |_, _| ());
        }
        ensure(accounts_came && matches!(outcome, Outcome::Installed { .. }), describe(&outcome))?;
        drop(writer);
        are_of(&received, &mut bank)
    });
}

#[test]
fn an_own_snapshot_does_not_write_over_blocks_that_were_received() {
    shows(Rule::ReceivedStays, || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let begun = || {
            let mut bank = Bank::new();
            bank.create(0..1, 5);
            bank.deposits(0, 1..100);
            bank
        };
        let (mut sender, mut own) = (begun(), begun());
        sender.deposits(0, 1..2 * BLOCK);
        // It is further, too.
        (0..5).for_each(|_| sender.deposits(0, [1]));
        let books = sender.books(&path("sender"));
        let view = books.reader().view().unwrap();
        let received = path("received");
        let mut writer = BooksWriter::new(own.books(&received));
        // The node goes on by the log meanwhile, and saves what it has: a last block that is not full.
        own.deposits(0, [1]);
        let mut saves = Some(own.snapshot());
        // The state comes first, and again behind the blocks.
        let mut states = 0;
        let outcome = receive(&mut writer, &view, as_sent, |writer, part| {
            states += u32::from(part == SnapshotPart::State);
            if states == 2
                && let Some(snapshot) = saves.take()
            {
                assert!(matches!(writer.work(Job::Save(snapshot)), Outcome::Saved { .. }));
            }
        });
        ensure(saves.is_none() && matches!(outcome, Outcome::Installed { .. }), describe(&outcome))?;
        drop(writer);
        are_of(&received, &mut sender)
    });
}

/// A snapshot comes late: its slots have come one by one meanwhile, and so the node goes on from its own state. A reply that is in the
/// snapshot was not there yet when the node saved last, and was acknowledged since.
#[test]
fn an_own_snapshot_leaves_nothing_of_a_received_one_that_the_node_never_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let begun = || {
        let mut bank = Bank::new();
        bank.create(0..1, 5);
        bank
    };
    let (mut sender, mut own) = (begun(), begun());
    let received = path("received");
    let mut writer = BooksWriter::new(own.books(&received));
    sender.deposits(0, [1]);
    let books = sender.books(&path("sender"));
    let view = books.reader().view().unwrap();
    (0..3).for_each(|_| own.deposits(0, [1]));
    let outcome = receive(&mut writer, &view, as_sent, |_, _| ());
    assert!(matches!(outcome, Outcome::Installed { .. }), "{}", describe(&outcome));
    let outcome = writer.work(Job::Save(own.snapshot()));
    assert!(matches!(outcome, Outcome::Saved { .. }), "{}", describe(&outcome));
    drop(writer);
    assert_eq!(are_of(&received, &mut own), Ok(()));
}

/// A peer stops in the middle of its snapshot, and the next one has an older snapshot, with fewer blocks than are stored by then.
#[test]
fn an_older_snapshot_is_taken_behind_blocks_of_a_later_one() {
    // The older one ends in the middle of a block, and with one.
    for older in [2 * BLOCK + 200, 2 * BLOCK] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut bank = Bank::new();
        bank.create(0..1, 5);
        bank.deposits(0, (1..older).map(|_| 1));
        let mut books = bank.books(&path("sender"));
        let (first, digest) = (books.reader().view().unwrap(), bank.ledger.digest());
        bank.deposits(0, (0..2 * BLOCK).map(|_| 1));
        books.save(&bank.snapshot().into_rows()).unwrap();
        let second = books.reader().view().unwrap();

        let received = path("received");
        let mut writer = vacant(&received);
        let mut outcome = writer.work(Job::Begin { own: VACANT });
        while let Outcome::Ask(wanted) = outcome
            && (wanted.at.part == SnapshotPart::Blocks || wanted.received == 0)
        {
            outcome = answer(&mut writer, &second, wanted, &mut as_sent, &mut |_, _| ());
        }
        let outcome = receive(&mut writer, &first, as_sent, |_, _| ());
        assert!(matches!(outcome, Outcome::Installed { .. }), "{older}: {}", describe(&outcome));
        drop(writer);
        let books = BooksStore::open(&received, &identity()).unwrap();
        let (mut ledger, _) = restore::<Machine>(&books.reader().view().unwrap()).unwrap().unwrap();
        assert_eq!((ledger.digest(), ledger.summary().transactions), (digest, older));
    }
}

/// A peer's snapshot that ends before what is applied here proves nothing of the peer's history: it lacks the newest transaction since
/// it is old.
#[test]
fn a_snapshot_that_is_no_further_than_this_node_is_not_needed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut own = Bank::new();
    own.create(0..1, 5);
    let mut writer = BooksWriter::new(own.books(&path("own")));
    own.deposits(0, [1]);
    let books = own.books(&path("old"));
    let old = books.reader().view().unwrap();
    own.deposits(0, [1]);
    let newest = (own.ledger.newest_transaction(), own.ledger.chain_head());
    for (applied, needed) in [(own.ledger.applied(), false), (old.slot(), false), (old.slot() - 1, true)] {
        let Outcome::Ask(wanted) = writer.work(Job::Begin { own: Standpoint { applied, newest } }) else {
            panic!("nothing is asked for")
        };
        let outcome = answer(&mut writer, &old, wanted, &mut as_sent, &mut |_, _| ());
        assert_eq!(matches!(outcome, Outcome::Overtaken { .. }), !needed, "{applied}: {}", describe(&outcome));
    }
}

/// What a later version writes may be of any form, but that the level comes first.
#[test]
fn a_snapshot_of_a_level_that_this_program_does_not_know_stops_the_node_before_anything_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut bank = Bank::new();
    bank.create(0..1, 5);
    bank.deposits(0, 1..BLOCK + 1);
    let books = bank.books(&path("sender"));
    let view = books.reader().view().unwrap();
    let received = path("received");
    let mut writer = vacant(&received);
    let mut parts = Vec::new();
    let of_later = |part, _, row| match part {
        SnapshotPart::State => vec![0x93, 2, 0x81, 0xa1, b'x', 0xc0, 0xc3],
        SnapshotPart::Blocks => vec![0xff; 20],
        _ => row,
    };
    let outcome = receive(&mut writer, &view, of_later, |_, part| parts.push(part));
    assert_eq!(parts, [SnapshotPart::State]);
    match &outcome {
        Outcome::Failed(Failure::Refused(why)) => assert!(why.contains("level 2") && why.contains("Install"), "{why}"),
        other => panic!("{}", describe(other)),
    }
    drop(writer);
    let books = BooksStore::open(&received, &identity()).unwrap();
    assert!(books.slot() == 0 && books.reader().view().unwrap().blocks(0, 1 << 20).unwrap().is_empty());
}
