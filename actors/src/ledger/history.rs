//! The history: every change of a balance, in order, each record with the hash of the one before it.
//! The bytes that are hashed are listed in the documentation of the [ledger](super).
//!
//! # Finding records
//!
//! Each record points to the record before it of its type, and of each of its accounts. A question for an account or a
//! type follows these pointers and costs by what it finds, not by what happened besides.

use rabia_bank_messages::bank::TransactionType;
use rabia_bank_messages::ids::{Digest, Millis, Slot};

use super::accounts::{AccountIndex, Accounts};

/// The longest input of a hash: two accounts with names of 50 characters.
const MAX_HASHED: usize = 32 + 4 * 8 + 1 + 2 * (1 + 50 + 8);

/// When something is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    /// The slot that is applied.
    pub(super) slot: Slot,
    /// Log time: never before that of an earlier slot.
    pub(super) time: Millis,
}

/// What a transaction did to one account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Side {
    pub(super) account: AccountIndex,
    /// The balance after it.
    pub(super) balance: u64,
    /// The account's transaction before it; 0 if it is the first.
    pub(super) previous: u64,
}

/// Where the money went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Movement {
    Opening(Side),
    Deposit(Side),
    Withdrawal(Side),
    Transfer { from: Side, to: Side },
}

impl Movement {
    pub(super) fn transaction_type(&self) -> TransactionType {
        match self {
            Movement::Opening(_) => TransactionType::Opening,
            Movement::Deposit(_) => TransactionType::Deposit,
            Movement::Withdrawal(_) => TransactionType::Withdrawal,
            Movement::Transfer { .. } => TransactionType::Transfer,
        }
    }

    pub(super) fn from(&self) -> Option<&Side> {
        match self {
            Movement::Opening(_) | Movement::Deposit(_) => None,
            Movement::Withdrawal(from) | Movement::Transfer { from, .. } => Some(from),
        }
    }

    pub(super) fn to(&self) -> Option<&Side> {
        match self {
            Movement::Opening(to) | Movement::Deposit(to) | Movement::Transfer { to, .. } => Some(to),
            Movement::Withdrawal(_) => None,
        }
    }

    fn side_of(&self, account: AccountIndex) -> Option<&Side> {
        self.from().filter(|side| side.account == account).or_else(|| self.to().filter(|side| side.account == account))
    }
}

/// A transaction as it is kept. Its id is its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) movement: Movement,
    /// Minor units, above 0.
    pub(super) amount: u64,
    pub(super) moment: Moment,
    /// The transaction before it of the same type; 0 if it is the first.
    previous_of_type: u64,
    pub(super) hash: Digest,
}

/// Which records a search is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trail {
    /// All.
    All,
    /// Those of a type.
    Type(TransactionType),
    /// Those that touch an account, of which this is the newest; 0 if it has none.
    Account { account: AccountIndex, newest: u64 },
}

/// All records, in order.
#[derive(Debug, Default)]
pub(super) struct History {
    records: Vec<Record>,
    /// By [`type_index`]; 0 where there is none.
    newest_of_type: [u64; 4],
    scratch: Vec<u8>,
}

/// The place of a type in an array of all four.
pub(super) fn type_index(transaction_type: TransactionType) -> usize {
    match transaction_type {
        TransactionType::Opening => 0,
        TransactionType::Deposit => 1,
        TransactionType::Withdrawal => 2,
        TransactionType::Transfer => 3,
    }
}

impl History {
    /// How many records there are: also the id of the newest.
    pub(super) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// The hash of the newest record.
    pub(super) fn head(&self) -> Digest {
        self.records.last().map_or(Digest::ZERO, |record| record.hash)
    }

    /// The record with this id.
    pub(super) fn find(&self, id: u64) -> Option<&Record> {
        self.records.get(usize::try_from(id.checked_sub(1)?).ok()?)
    }

    /// The record with this id, which must be there.
    pub(super) fn get(&self, id: u64) -> &Record {
        match self.find(id) {
            Some(record) => record,
            None => panic!("transaction {id} of {} is missing", self.len()),
        }
    }

    /// Adds a record and returns its id.
    pub(super) fn append(&mut self, movement: Movement, amount: u64, moment: Moment, accounts: &Accounts) -> u64 {
        let id = self.len() + 1;
        if let Some(newest) = self.records.last() {
            let (before, now) = (newest.moment, moment);
            assert!(before.slot <= now.slot && before.time <= now.time, "transaction {id} at {now:?} after {before:?}");
        }
        for side in [movement.from(), movement.to()].into_iter().flatten() {
            assert!(side.previous < id, "transaction {id} points ahead: {side:?}");
        }
        let hash = self.hash_next(id, &movement, amount, moment, accounts);
        let newest_of_type = &mut self.newest_of_type[type_index(movement.transaction_type())];
        let previous_of_type = std::mem::replace(newest_of_type, id);
        self.records.push(Record { movement, amount, moment, previous_of_type, hash });
        id
    }

    fn hash_next(&mut self, id: u64, movement: &Movement, amount: u64, moment: Moment, accounts: &Accounts) -> Digest {
        let previous = self.head();
        let bytes = &mut self.scratch;
        bytes.clear();
        bytes.extend_from_slice(&previous.0);
        for number in [id, amount, moment.time, moment.slot] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.push(type_index(movement.transaction_type()) as u8 + 1);
        for side in [movement.from(), movement.to()] {
            let Some(side) = side else {
                bytes.push(0);
                continue;
            };
            let name = accounts.get(side.account).name.as_bytes();
            bytes.push(name.len() as u8); // names are ASCII of 50 characters at most
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&side.balance.to_be_bytes());
        }
        assert!(bytes.len() <= MAX_HASHED, "transaction {id} takes {} bytes", bytes.len());
        Digest::of(bytes)
    }

    /// Takes the newest record away: an atomic bulk is undone.
    pub(super) fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop()?;
        self.newest_of_type[type_index(record.movement.transaction_type())] = record.previous_of_type;
        Some(record)
    }

    /// The records with an id above `id`, oldest first.
    pub(super) fn since(&self, id: u64) -> impl Iterator<Item = &Record> {
        self.records.iter().skip(usize::try_from(id).unwrap_or(usize::MAX))
    }

    /// The first id with a timestamp above `time`: the newest id plus one if there is none.
    pub(super) fn first_after(&self, time: Millis) -> u64 {
        self.records.partition_point(|record| record.moment.time <= time) as u64 + 1
    }

    /// The records of a trail with an id below `before`, newest first.
    pub(super) fn search(&self, trail: Trail, before: u64) -> impl Iterator<Item = (u64, &Record)> {
        let present = |id: u64| (id > 0).then(|| (id, self.get(id)));
        let first = present(self.newest_below(trail, before.min(self.len() + 1)));
        std::iter::successors(first, move |(id, record)| present(previous(trail, *id, record)))
    }

    /// The newest record of a trail with an id below `before` (at least 0, at most the newest plus one); 0 if there is
    /// none.
    ///
    /// Two ways lead there: down the trail from its newest record, short if few records of the trail are newer; and
    /// down the whole history from `before`, short if many records belong to the trail. Which is shorter is not known,
    /// so both are taken at once, and cost twice the shorter one.
    fn newest_below(&self, trail: Trail, before: u64) -> u64 {
        let mut on_trail = match trail {
            Trail::All => return before.saturating_sub(1),
            Trail::Type(transaction_type) => self.newest_of_type[type_index(transaction_type)],
            Trail::Account { newest, .. } => newest,
        };
        for id in (1..before).rev() {
            if on_trail < before {
                return on_trail;
            }
            if is_on(trail, self.get(id)) {
                return id;
            }
            on_trail = previous(trail, on_trail, self.get(on_trail));
        }
        0
    }
}

fn is_on(trail: Trail, record: &Record) -> bool {
    match trail {
        Trail::All => true,
        Trail::Type(transaction_type) => record.movement.transaction_type() == transaction_type,
        Trail::Account { account, .. } => record.movement.side_of(account).is_some(),
    }
}

/// The record of the trail before the one with this id, which must be on it; 0 if there is none.
fn previous(trail: Trail, id: u64, record: &Record) -> u64 {
    match trail {
        Trail::All => id - 1,
        Trail::Type(_) => record.previous_of_type,
        Trail::Account { account, .. } => match record.movement.side_of(account) {
            Some(side) => side.previous,
            None => panic!("transaction {id} is on the trail of {account:?}, but does not touch it: {record:?}"),
        },
    }
}
