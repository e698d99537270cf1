//! Blocks: how the history leaves memory. [`BLOCK`] transactions in one row, self-contained and verifiable.
//!
//! Block 0 holds transactions 1 to [`BLOCK`], and so on; the last block may be partly filled. A full block never changes,
//! and is the same bytes on every node.
//!
//! Hashes are not stored, but for the one before the block's first transaction and the one of its last. They are computed
//! again when the block is decoded, and a block whose chain does not lead from the one to the other is refused: damage
//! of any byte that matters is found, wherever it happened. Names stand once in a block; what counts up is stored as
//! the difference to the transaction before.
//!
//! Each transaction points to the one before it of its type, and of each of its accounts. So a search for an account
//! or a type reads only the blocks where something of it is, and there is no index that could grow large or be wrong.

use rabia_bank_messages::bank::{OtherFields, SideProofs, Transaction, TransactionType};
use rabia_bank_messages::ids::{Digest, Millis, Secret, Slot};
use rabia_bank_messages::principal::PrincipalNumber;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::chain::{by_type, chain_hash, salts, type_index};
use crate::machine;
use crate::rows::{self, BadRow};

/// Transactions in a full block. More would make a page of one busy account's history cheaper and every other one dearer.
pub const BLOCK: u64 = 512;

/// The block that a transaction is in.
pub(super) fn block_of(id: u64) -> u64 {
    id.saturating_sub(1) / BLOCK
}

/// A part of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    number: u64,
    before: Digest,
    /// What the salts of its records are made of.
    secret: Secret,
    records: Vec<BlockRecord>,
}

/// A transaction and what it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRecord {
    /// As clients see it, with its hash. A block that is only made to be written has no salts.
    pub transaction: Transaction,
    /// The transaction before it of the same type; 0 if it is the first.
    pub previous_of_type: u64,
    /// The source's transaction before it; 0 if it is the first, or there is no source.
    pub previous_of_from: u64,
    /// The destination's transaction before it; 0 if it is the first, or there is no destination.
    pub previous_of_to: u64,
}

#[derive(Serialize, Deserialize)]
struct BlockRow<S> {
    number: u64,
    before: Digest,
    last: Digest,
    /// Each name of an account or an asset that occurs, once.
    names: Vec<S>,
    records: Vec<RecordRow>,
    /// What the salts of its records are made of; none in blocks of 0.1.0, where nobody needs it.
    #[serde(default)]
    secret: Option<Secret>,
}

/// Differences are to the transaction before in the block, and for the first one to 0. Back references are how far
/// back; 0 if there is none.
#[derive(Serialize, Deserialize)]
struct RecordRow {
    kind: u8,
    from: Option<SideRow>,
    to: Option<SideRow>,
    amount: u64,
    time: Millis,
    slot: Slot,
    back_of_type: u64,
    /// None in records of 0.1.0.
    #[serde(default)]
    principal: Option<PrincipalNumber>,
    /// What it says besides: see `by_type`.
    #[serde(default)]
    text: Option<Box<str>>,
    /// The asset, among the names, if it is not the cluster's own.
    #[serde(default)]
    asset: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct SideRow {
    name: u32,
    balance: i64,
    back: u64,
}

impl Block {
    /// A block of these transactions, in order, of which the first follows one with the hash `before`.
    ///
    /// # Panics
    /// If there are none, more than [`BLOCK`], or others than belong to the block.
    pub(super) fn new(number: u64, before: Digest, secret: Secret, records: Vec<BlockRecord>) -> Block {
        assert!((1..=BLOCK).contains(&(records.len() as u64)), "block {number} has {} transactions", records.len());
        for (record, id) in records.iter().zip(number * BLOCK + 1..) {
            let found = record.transaction.transaction_id;
            assert_eq!(found, id, "transaction {found} in the place of {id} in block {number}");
        }
        Block { number, before, secret, records }
    }

    /// Blocks count from 0. Block n begins with transaction n · [`BLOCK`] + 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The hash of the transaction before the first one.
    pub fn before(&self) -> Digest {
        self.before
    }

    /// Its transactions, in order: one at least.
    pub fn records(&self) -> &[BlockRecord] {
        &self.records
    }

    /// The transaction with this id.
    pub(super) fn find(&self, id: u64) -> Option<&BlockRecord> {
        self.records.get(usize::try_from(id.checked_sub(self.number * BLOCK + 1)?).ok()?)
    }

    /// The row of this block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut names = Names::default();
        let (mut time, mut slot) = (0, 0);
        let mut records = Vec::with_capacity(self.records.len());
        for record in &self.records {
            let BlockRecord { transaction, previous_of_type, previous_of_from, previous_of_to } = record;
            let id = transaction.transaction_id;
            records.push(RecordRow {
                kind: type_of(transaction),
                from: names.side(&transaction.from_account, transaction.from_balance, back(id, *previous_of_from)),
                to: names.side(&transaction.to_account, transaction.to_balance, back(id, *previous_of_to)),
                amount: transaction.amount,
                time: transaction.timestamp - time,
                slot: transaction.slot - slot,
                back_of_type: back(id, *previous_of_type),
                principal: transaction.principal,
                text: transaction.settings.clone().or_else(|| transaction.act.clone()),
                asset: transaction.asset.as_deref().map(|asset| names.place(asset)),
            });
            (time, slot) = (transaction.timestamp, transaction.slot);
        }
        let last = self.records.last().map_or(self.before, |record| record.transaction.hash);
        let (number, before, secret) = (self.number, self.before, Some(self.secret));
        rows::encode(&BlockRow { number, before, last, names: names.list, records, secret })
    }

    /// The block of a row, its chain of hashes computed again.
    ///
    /// # Errors
    /// If it is not block `number`, or not what `encode` writes, or its hashes do not lead from the one
    /// that it begins with to the one that it ends with.
    pub fn decode(number: u64, bytes: &[u8]) -> Result<Block, BadRow> {
        let bad = |why: String| BadRow::new(format!("block {number} of the history: {why}"));
        let row: BlockRow<&str> = rows::decode(|| format!("block {number} of the history"), bytes)?;
        let BlockRow { number: found, before, last, names, records: rows, secret } = row;
        let secret = secret.unwrap_or(Secret([0; 32]));
        if found != number {
            return Err(bad(format!("the row is of block {found}")));
        }
        let Some(first) = number.checked_mul(BLOCK).and_then(|before| before.checked_add(1)) else {
            return Err(bad("no transaction has such a number".into()));
        };
        if !(1..=BLOCK).contains(&(rows.len() as u64)) {
            return Err(bad(format!("{} transactions", rows.len())));
        }
        let mut hash = before;
        let (mut time, mut slot) = (0u64, 0u64);
        let mut records = Vec::with_capacity(rows.len());
        for (row, id) in rows.into_iter().zip(first..) {
            let bad = |what: &str| bad(format!("transaction {id}: {what}"));
            time = time.checked_add(row.time).ok_or_else(|| bad("the time"))?;
            slot = slot.checked_add(row.slot).ok_or_else(|| bad("the slot"))?;
            let record =
                row.record(id, time, slot, &names, &secret).ok_or_else(|| bad("no such type, name or transaction"))?;
            hash =
                chain_hash(hash, &record.transaction).ok_or_else(|| bad("no side or name that a transaction has"))?;
            records.push(BlockRecord { transaction: Transaction { hash, ..record.transaction }, ..record });
        }
        if hash != last {
            return Err(bad(format!("its hashes lead to {hash}, but it ends with {last}")));
        }
        Ok(Block { number, before, secret, records })
    }
}

impl machine::Block for Block {
    const ENTRIES: u64 = BLOCK;

    fn decode(number: u64, row: &[u8]) -> Result<Block, BadRow> {
        Block::decode(number, row)
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn before(&self) -> Digest {
        self.before
    }

    fn len(&self) -> u64 {
        self.records.len() as u64
    }

    fn hash_of(&self, id: u64) -> Option<Digest> {
        self.find(id).map(|record| record.transaction.hash)
    }
}

/// The tag of the type of a transaction of this ledger.
fn type_of(transaction: &Transaction) -> u8 {
    match transaction.transaction_type.known() {
        Some(kind) => type_index(kind) as u8,
        None => unreachable!("the ledger made a transaction of a type that it does not know: {transaction:?}"),
    }
}

/// How far back a transaction is; 0 if there is none.
fn back(id: u64, previous: u64) -> u64 {
    if previous > 0 { id - previous } else { 0 }
}

/// The transaction so far back of `id`; 0 if there is none.
fn forth(id: u64, back: u64) -> Option<u64> {
    if back > 0 { id.checked_sub(back).filter(|previous| *previous > 0) } else { Some(0) }
}

/// The names of a block, each once.
#[derive(Default)]
struct Names<'a> {
    list: Vec<&'a str>,
    places: FxHashMap<&'a str, u32>,
}

impl<'a> Names<'a> {
    fn side(&mut self, name: &'a Option<Box<str>>, balance: Option<i64>, back: u64) -> Option<SideRow> {
        let name = self.place(name.as_deref()?);
        Some(SideRow { name, balance: balance.unwrap_or_default(), back })
    }

    fn place(&mut self, name: &'a str) -> u32 {
        let Names { list, places } = self;
        *places.entry(name).or_insert_with(|| {
            list.push(name);
            list.len() as u32 - 1
        })
    }
}

impl RecordRow {
    /// The transaction, but for its hash.
    fn record(&self, id: u64, timestamp: Millis, slot: Slot, names: &[&str], secret: &Secret) -> Option<BlockRecord> {
        let kind = TransactionType::ALL.into_iter().find(|kind| type_index(*kind) == usize::from(self.kind))?;
        let name = |side: &Option<SideRow>| match side {
            Some(side) => names.get(side.name as usize).map(|name| Some(Box::from(*name))),
            None => Some(None),
        };
        let previous = |side: &Option<SideRow>| forth(id, side.as_ref().map_or(0, |side| side.back));
        let [from_salt, to_salt] = match self.principal {
            Some(_) => salts(secret, id).map(Some),
            None => [None; 2],
        };
        let asset = match self.asset {
            Some(place) => Some(Box::from(*names.get(place as usize)?)),
            None => None,
        };
        let [settings, act] = by_type(kind, self.text.clone());
        let transaction = Transaction {
            transaction_id: id,
            transaction_type: kind.into(),
            from_account: name(&self.from)?,
            to_account: name(&self.to)?,
            asset,
            amount: self.amount,
            from_balance: self.from.as_ref().map(|side| side.balance),
            to_balance: self.to.as_ref().map(|side| side.balance),
            settings,
            timestamp,
            slot,
            principal: self.principal,
            proofs: SideProofs::of_salts(
                from_salt.filter(|_| self.from.is_some()),
                to_salt.filter(|_| self.to.is_some()),
            ),
            act,
            hash: Digest::ZERO,
            other: OtherFields::default(),
        };
        Some(BlockRecord {
            transaction,
            previous_of_type: forth(id, self.back_of_type)?,
            previous_of_from: previous(&self.from)?,
            previous_of_to: previous(&self.to)?,
        })
    }
}
