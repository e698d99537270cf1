//! The chain of hashes over the history. The documentation of the [ledger](super) lists the bytes that are hashed.

use rabia_bank_messages::bank::{Transaction, TransactionType};
use rabia_bank_messages::ids::{Digest, Millis, Slot};

/// The longest input of a hash: two accounts with names of 50 characters.
const MAX_HASHED: usize = 32 + 4 * 8 + 1 + 2 * (1 + 50 + 8);

/// What the hash of a transaction is over, beside the hash before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) id: u64,
    pub(super) kind: TransactionType,
    pub(super) amount: u64,
    pub(super) time: Millis,
    pub(super) slot: Slot,
    /// The source and its balance after the transaction.
    pub(super) from: Option<(&'a str, u64)>,
    /// The destination and its balance after the transaction.
    pub(super) to: Option<(&'a str, u64)>,
}

/// How many types there are.
pub(super) const TYPES: usize = TransactionType::ALL.len();

/// The place of a type in an array of all.
pub(super) fn type_index(kind: TransactionType) -> usize {
    match kind {
        TransactionType::Opening => 0,
        TransactionType::Deposit => 1,
        TransactionType::Withdrawal => 2,
        TransactionType::Transfer => 3,
    }
}

impl Link<'_> {
    /// The hash of this transaction, which follows the one with the hash `previous`.
    pub(super) fn hash(&self, previous: Digest) -> Digest {
        let mut bytes = [0; MAX_HASHED];
        let mut length = 0;
        let mut put = |part: &[u8]| {
            bytes[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        };
        put(&previous.0);
        for number in [self.id, self.amount, self.time, self.slot] {
            put(&number.to_be_bytes());
        }
        put(&[type_index(self.kind) as u8 + 1]);
        for side in [self.from, self.to] {
            let Some((name, balance)) = side else {
                put(&[0]);
                continue;
            };
            assert!(name.len() <= 50, "transaction {}: {name:?} is no name of an account", self.id);
            put(&[name.len() as u8]);
            put(name.as_bytes());
            put(&balance.to_be_bytes());
        }
        Digest::of(&bytes[..length])
    }
}

/// The hash that a transaction must have that follows one with the hash `previous` ([`Digest::ZERO`] for the first one).
/// `None` if it names an account by more than 50 bytes, or an account without its balance, or is of a type that this program
/// does not know: it has no hash that this program could tell.
pub fn chain_hash(previous: Digest, transaction: &Transaction) -> Option<Digest> {
    let link = Link {
        id: transaction.transaction_id,
        kind: transaction.transaction_type.known()?,
        amount: transaction.amount,
        time: transaction.timestamp,
        slot: transaction.slot,
        from: side(transaction.from_account.as_deref(), transaction.from_balance)?,
        to: side(transaction.to_account.as_deref(), transaction.to_balance)?,
    };
    Some(link.hash(previous))
}

/// An account with its balance, or neither. `None` where only one of them is there, or the name is too long.
fn side(name: Option<&str>, balance: Option<u64>) -> Option<Option<(&str, u64)>> {
    match (name, balance) {
        (None, None) => Some(None),
        (Some(name), Some(balance)) if name.len() <= 50 => Some(Some((name, balance))),
        _ => None,
    }
}
