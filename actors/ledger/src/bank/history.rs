//! The history: every change of a balance, in order, each record with the hash of the one before it.
//!
//! The newest records are in memory, all of them are in blocks (`block`) once a snapshot has taken them; records that are
//! in durable blocks may leave memory. Each record points to the record before it of its type, and of each of its
//! accounts: a question for an account or a type follows these pointers (`lookup`), and costs by what it finds, not by what
//! happened besides.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rabia_bank_messages::bank::{OtherFields, SideProofs, Transaction, TransactionType, leg_hash};
use rabia_bank_messages::ids::{Digest, Millis, Secret, Slot};
use rabia_bank_messages::principal::PrincipalNumber;
use serde::{Deserialize, Serialize};

use super::account::AccountIndex;
use super::accounts::Accounts;
use super::block::{BLOCK, Block, BlockRecord};
use super::chain::{Leg, Link, TYPES, TYPES_0_1_0, by_type, salts, type_index};
use crate::rows::BadRow;

/// Records that stay in memory though they are in durable blocks, so that recent questions and replays need no disk:
/// about 10 MB.
const KEEP: u64 = 1 << 16;

/// When something is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct When {
    /// The slot that is applied.
    pub(super) slot: Slot,
    /// Log time; for a record never before that of an earlier one.
    pub(super) time: Millis,
    /// Who asked; none in records of before there were principals.
    pub(super) principal: Option<PrincipalNumber>,
}

/// What a transaction did to one account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Side {
    pub(super) account: AccountIndex,
    /// The balance after it.
    pub(super) balance: i64,
    /// The account's transaction before it; 0 if it is the first.
    pub(super) previous: u64,
}

/// Where the money went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Movement {
    Opening(Side),
    Deposit(Side),
    Withdrawal(Side),
    Transfer {
        from: Side,
        to: Side,
    },
    /// None: an administrator changed something else.
    Admin,
    /// None: something was set about an account.
    AccountChange(Side),
    /// None: an asset came into being.
    Asset,
}

impl Movement {
    pub(super) fn transaction_type(&self) -> TransactionType {
        match self {
            Movement::Opening(_) => TransactionType::Opening,
            Movement::Deposit(_) => TransactionType::Deposit,
            Movement::Withdrawal(_) => TransactionType::Withdrawal,
            Movement::Transfer { .. } => TransactionType::Transfer,
            Movement::Admin => TransactionType::Admin,
            Movement::AccountChange(_) => TransactionType::AccountChange,
            Movement::Asset => TransactionType::Asset,
        }
    }

    pub(super) fn from(&self) -> Option<&Side> {
        match self {
            Movement::Opening(_)
            | Movement::Deposit(_)
            | Movement::Admin
            | Movement::AccountChange(_)
            | Movement::Asset => None,
            Movement::Withdrawal(from) | Movement::Transfer { from, .. } => Some(from),
        }
    }

    pub(super) fn to(&self) -> Option<&Side> {
        match self {
            Movement::Opening(to)
            | Movement::Deposit(to)
            | Movement::Transfer { to, .. }
            | Movement::AccountChange(to) => Some(to),
            Movement::Withdrawal(_) | Movement::Admin | Movement::Asset => None,
        }
    }

    /// One of its sides, if it has any.
    pub(super) fn side(&self) -> Option<&Side> {
        self.to().or_else(|| self.from())
    }

    pub(super) fn side_of(&self, account: AccountIndex) -> Option<&Side> {
        self.from().filter(|side| side.account == account).or_else(|| self.to().filter(|side| side.account == account))
    }
}

/// A transaction as it is kept. Its id is its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) movement: Movement,
    /// Minor units, 1 to 2^53 − 1; 0 where no money moved.
    pub(super) amount: u64,
    pub(super) moment: When,
    /// The transaction before it of the same type; 0 if it is the first.
    pub(super) previous_of_type: u64,
    pub(super) hash: Digest,
}

/// Where the history stands, in the row of the state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryRow {
    pub(super) transactions: u64,
    pub(super) head: Digest,
    /// Files of older versions have fewer types.
    pub(super) newest_of_type: Vec<u64>,
    /// Of the newest transaction; 0 if there is none.
    pub(super) slot: Slot,
    pub(super) time: Millis,
}

/// All records, in order.
///
/// Invariants, asserted:
/// - Ids count up from 1 without a gap, slots and timestamps do not go down.
/// - A record points only to records with lower ids.
#[derive(Debug)]
pub(super) struct History {
    /// The newest records: those with ids above `forgotten`, block by block; all but the last are full, none is empty. (One
    /// long queue would have to be copied when it grows, and nobody would be served meanwhile.)
    blocks: VecDeque<Vec<Record>>,
    /// So many of the oldest are in durable blocks only: all those of whole blocks.
    forgotten: u64,
    /// The hash of the newest record of these, and when it was applied.
    before: (Digest, When),
    /// By [`type_index`]; 0 where there is none.
    newest_of_type: [u64; TYPES],
    /// What records say besides, by the ids of those that are in memory: what an administrator did, the asset that came into being, or
    /// what was set about an account.
    texts: BTreeMap<u64, Arc<str>>,
    /// What salts are made of.
    secret: Secret,
}

impl History {
    /// One without records, whose salts are made of this.
    pub(super) fn new(secret: Secret) -> History {
        let before = (Digest::ZERO, When { slot: 0, time: 0, principal: None });
        let (blocks, texts) = (VecDeque::new(), BTreeMap::new());
        History { blocks, forgotten: 0, before, newest_of_type: [0; TYPES], texts, secret }
    }

    /// What salts are made of.
    pub(super) fn secret(&self) -> Secret {
        self.secret
    }

    /// How many records there are: also the id of the newest.
    pub(super) fn len(&self) -> u64 {
        let before_last = self.blocks.len().saturating_sub(1) as u64 * BLOCK;
        self.forgotten + before_last + self.blocks.back().map_or(0, |block| block.len() as u64)
    }

    /// The hash of the newest record, and when it was applied.
    fn newest(&self) -> (Digest, When) {
        let newest = self.blocks.back().and_then(|block| block.last());
        newest.map_or(self.before, |record| (record.hash, record.moment))
    }

    /// The hash of the newest record.
    pub(super) fn head(&self) -> Digest {
        self.newest().0
    }

    /// The timestamp of the newest record; 0 if there is none.
    pub(super) fn newest_time(&self) -> Millis {
        self.newest().1.time
    }

    /// The newest record of a type; 0 if there is none.
    pub(super) fn newest_of(&self, kind: TransactionType) -> u64 {
        self.newest_of_type[type_index(kind)]
    }

    /// The record with this id, if it is in memory.
    pub(super) fn find(&self, id: u64) -> Option<&Record> {
        let place = id.checked_sub(self.forgotten + 1)?;
        self.blocks.get((place / BLOCK) as usize)?.get((place % BLOCK) as usize)
    }

    fn push(&mut self, record: Record) {
        match self.blocks.back_mut() {
            Some(block) if (block.len() as u64) < BLOCK => block.push(record),
            _ => {
                let mut block = Vec::with_capacity(BLOCK as usize);
                block.push(record);
                self.blocks.push_back(block);
            }
        }
    }

    /// Adds a record and returns its id.
    pub(super) fn append(&mut self, movement: Movement, amount: u64, moment: When, accounts: &Accounts) -> u64 {
        let id = self.len() + 1;
        let (previous, before) = self.newest();
        assert!(before.slot <= moment.slot && before.time <= moment.time, "record {id} at {moment:?} after {before:?}");
        for side in [movement.from(), movement.to()].into_iter().flatten() {
            assert!(side.previous < id, "transaction {id} points ahead: {side:?}");
        }
        let [from_salt, to_salt] = salts(&self.secret, id);
        let kind = movement.transaction_type();
        let [settings, act] = by_type(kind, self.text(id));
        let side = |side: Option<&Side>, salt, settings| {
            side.map(|side| {
                let name = &accounts.get(side.account).name;
                Leg::Hashed(leg_hash(salt, name, side.balance, 0, settings))
            })
        };
        let When { time, slot, principal } = moment;
        let (from, to) = (side(movement.from(), from_salt, None), side(movement.to(), to_salt, settings));
        let asset = asset_of(&movement, accounts);
        let link = Link { id, kind, amount, asset, time, slot, principal, from, to, act };
        let Some(hash) = link.hash(previous) else { unreachable!("record {id} is made for nobody: {moment:?}") };
        let previous_of_type = std::mem::replace(&mut self.newest_of_type[type_index(kind)], id);
        self.push(Record { movement, amount, moment, previous_of_type, hash });
        id
    }

    /// Adds a record that says something besides, and returns its id.
    pub(super) fn append_with(
        &mut self,
        movement: Movement,
        amount: u64,
        text: Arc<str>,
        moment: When,
        accounts: &Accounts,
    ) -> u64 {
        self.texts.insert(self.len() + 1, text);
        self.append(movement, amount, moment, accounts)
    }

    /// What this record says besides, if anything.
    fn text(&self, id: u64) -> Option<&str> {
        // Few records do, and none of the newest mostly.
        let (last, _) = self.texts.last_key_value()?;
        if id > *last { None } else { self.texts.get(&id).map(|text| &**text) }
    }

    /// Takes the newest record away: an atomic bulk is undone.
    pub(super) fn pop(&mut self) -> Option<Record> {
        let block = self.blocks.back_mut()?;
        let record = block.pop()?;
        if block.is_empty() {
            self.blocks.pop_back();
        }
        self.texts.remove(&(self.len() + 1));
        self.newest_of_type[type_index(record.movement.transaction_type())] = record.previous_of_type;
        Some(record)
    }

    /// The records with an id above `id`, oldest first. They must be in memory.
    pub(super) fn since(&self, id: u64) -> impl Iterator<Item = &Record> {
        assert!(id >= self.forgotten, "records from {id} on were asked for, {} are forgotten", self.forgotten);
        let (block, record) = ((id - self.forgotten) / BLOCK, (id - self.forgotten) % BLOCK);
        self.blocks.iter().skip(block as usize).flatten().skip(record as usize)
    }

    /// The row of the block with this number, as far as its transactions go up to `end`. They must be in memory.
    pub(super) fn block_row(&self, number: u64, end: u64, accounts: &Accounts) -> Vec<u8> {
        let first = number * BLOCK + 1;
        let before = match self.find(first - 1) {
            Some(record) => record.hash,
            None => {
                assert_eq!(self.forgotten, first - 1, "the beginning of block {number} is forgotten");
                self.before.0
            }
        };
        let ids = first..=end.min(first + BLOCK - 1);
        let records = ids.zip(self.since(first - 1)).map(|(id, record)| self.to_block(id, record, accounts)).collect();
        Block::new(number, before, self.secret, records).encode()
    }

    /// The blocks with the transactions up to `id` are durable: of these, only the newest stay in memory.
    pub(super) fn forget(&mut self, id: u64) {
        let forget = id.min(self.len().saturating_sub(KEEP));
        while self.forgotten + BLOCK <= forget
            && let Some(block) = self.blocks.pop_front()
        {
            self.forgotten += BLOCK;
            self.before = block.last().map_or(self.before, |record| (record.hash, record.moment));
        }
        self.texts = self.texts.split_off(&(self.forgotten + 1));
    }

    /// What a snapshot has of it beside the blocks.
    pub(super) fn to_row(&self) -> HistoryRow {
        let (head, When { slot, time, .. }) = self.newest();
        HistoryRow { transactions: self.len(), head, newest_of_type: self.newest_of_type.to_vec(), slot, time }
    }

    /// The history of a snapshot. `last` is its last block, if that is not full: its transactions come into memory. (On disk it
    /// may be fuller, by blocks of a later snapshot that was never complete.)
    pub(super) fn from_row(
        row: &HistoryRow,
        secret: Secret,
        last: Option<&Block>,
        accounts: &Accounts,
    ) -> Result<History, BadRow> {
        let HistoryRow { transactions, head, ref newest_of_type, slot, time } = *row;
        let mut history = History {
            forgotten: transactions,
            before: (head, When { slot, time, principal: None }),
            ..History::new(secret)
        };
        if !(TYPES_0_1_0..=TYPES).contains(&newest_of_type.len()) {
            return Err(BadRow::new(format!("the newest of {} types, there are {TYPES}", newest_of_type.len())));
        }
        history.newest_of_type[..newest_of_type.len()].copy_from_slice(newest_of_type);
        let Some(block) = last else { return Ok(history) };
        history.forgotten = block.number() * BLOCK;
        for record in block.records() {
            let id = record.transaction.transaction_id;
            if id > transactions {
                break;
            }
            if let Some(text) = record.transaction.settings.as_ref().or(record.transaction.act.as_ref()) {
                history.texts.insert(id, Arc::from(&**text));
            }
            let record = Record::from_block(record, accounts)
                .ok_or_else(|| BadRow::new(format!("transaction {id} names an account that is not there")))?;
            history.push(record);
        }
        // The moment before the block is not known, and not after that of its first transaction.
        history.before = (block.before(), When { slot: 0, time: 0, principal: None });
        if (history.len(), history.head()) != (transactions, head) {
            let (found, at) = (history.head(), history.len());
            return Err(BadRow::new(format!(
                "the history ends with {at} ({found}), the state knows {transactions} ({head})"
            )));
        }
        Ok(history)
    }
}

impl History {
    /// A record of this history as clients see it.
    pub(super) fn to_transaction(&self, id: u64, record: &Record, accounts: &Accounts) -> Transaction {
        let proofs = record.moment.principal.and_then(|_| {
            let salt = |side: Option<&Side>, salt| side.map(|_| salt);
            let [from_salt, to_salt] = salts(&self.secret, id);
            SideProofs::of_salts(salt(record.movement.from(), from_salt), salt(record.movement.to(), to_salt))
        });
        Transaction { proofs, ..self.without_proofs(id, record, accounts) }
    }

    fn without_proofs(&self, id: u64, record: &Record, accounts: &Accounts) -> Transaction {
        let name = |side: &Side| Box::from(&*accounts.get(side.account).name);
        let (from, to) = (record.movement.from(), record.movement.to());
        let When { time, slot, principal } = record.moment;
        let kind = record.movement.transaction_type();
        let [settings, act] = by_type(kind, self.text(id)).map(|text| text.map(Box::from));
        Transaction {
            transaction_id: id,
            transaction_type: kind.into(),
            from_account: from.map(name),
            to_account: to.map(name),
            asset: asset_of(&record.movement, accounts).map(Box::from),
            amount: record.amount,
            from_balance: from.map(|side| side.balance),
            to_balance: to.map(|side| side.balance),
            settings,
            timestamp: time,
            slot,
            principal,
            proofs: None,
            act,
            hash: record.hash,
            other: OtherFields::default(),
        }
    }

    fn to_block(&self, id: u64, record: &Record, accounts: &Accounts) -> BlockRecord {
        BlockRecord {
            transaction: self.without_proofs(id, record, accounts),
            previous_of_type: record.previous_of_type,
            previous_of_from: record.movement.from().map_or(0, |side| side.previous),
            previous_of_to: record.movement.to().map_or(0, |side| side.previous),
        }
    }
}

/// The asset that moved, or that the account holds; none where it is the cluster's own one.
fn asset_of<'a>(movement: &Movement, accounts: &'a Accounts) -> Option<&'a str> {
    let asset = accounts.get(movement.side()?.account).asset;
    accounts.assets.foreign(asset).map(|code| &**code)
}

impl Record {
    /// None if an account is not there, or a side is missing that its type has.
    fn from_block(record: &BlockRecord, accounts: &Accounts) -> Option<Record> {
        let BlockRecord { transaction, previous_of_type, previous_of_from, previous_of_to } = record;
        let side = |name: &Option<Box<str>>, balance: Option<i64>, previous: u64| {
            Some(Side { account: accounts.find(name.as_deref()?)?, balance: balance?, previous })
        };
        let from = || side(&transaction.from_account, transaction.from_balance, *previous_of_from);
        let to = || side(&transaction.to_account, transaction.to_balance, *previous_of_to);
        let movement = match transaction.transaction_type.known()? {
            TransactionType::Opening => Movement::Opening(to()?),
            TransactionType::Deposit => Movement::Deposit(to()?),
            TransactionType::Withdrawal => Movement::Withdrawal(from()?),
            TransactionType::Transfer => Movement::Transfer { from: from()?, to: to()? },
            TransactionType::Admin => Movement::Admin,
            TransactionType::AccountChange => Movement::AccountChange(to()?),
            TransactionType::Asset => Movement::Asset,
        };
        let Transaction { slot, timestamp: time, principal, .. } = *transaction;
        let moment = When { slot, time, principal };
        let (amount, hash) = (transaction.amount, transaction.hash);
        Some(Record { movement, amount, moment, previous_of_type: *previous_of_type, hash })
    }
}
