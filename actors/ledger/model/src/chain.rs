//! The chain of hashes, written from what the ledger's documentation says of its bytes.

use rabia_bank_messages::bank::{AccountId, SideProofs, Transaction};
use rabia_bank_messages::ids::{Digest, Salt, Secret};
use rabia_bank_messages::principal::PrincipalNumber;

/// The salts of the sides of a transaction.
pub(crate) fn salts(secret: &Secret, id: u64) -> [Salt; 2] {
    let mut hasher = blake3::Hasher::new_keyed(&secret.0);
    let hash = *hasher.update(&id.to_be_bytes()).finalize().as_bytes();
    [0, 16].map(|from| {
        let mut salt = [0; 16];
        salt.copy_from_slice(&hash[from..from + 16]);
        Salt(salt)
    })
}

/// The hash of a transaction behind the one with the hash `previous`.
pub fn chained(transaction: &Transaction, previous: Digest) -> Digest {
    match transaction.principal {
        Some(principal) => chained_by(transaction, previous, principal),
        None => chained_plain(transaction, previous),
    }
}

fn chained_by(transaction: &Transaction, previous: Digest, principal: PrincipalNumber) -> Digest {
    let kind = match transaction.transaction_type.name() {
        "opening" => 5,
        "deposit" => 6,
        "withdrawal" => 7,
        "transfer" => 8,
        "account_change" => 15,
        "asset" => 16,
        _ => 17,
    };
    let proofs = transaction.proofs();
    let sides = [source(transaction, &proofs), destination(transaction, &proofs)];
    let there = sides.map(|side| side.is_there());
    let mut bytes = previous.0.to_vec();
    bytes.push(kind);
    let parts = u64::from(there[0])
        + 2 * u64::from(there[1])
        + 4 * u64::from(transaction.act.is_some())
        + 128 * u64::from(transaction.asset.is_some());
    bytes.extend(varint(parts));
    let Transaction { transaction_id, amount, timestamp, slot, .. } = *transaction;
    bytes.extend([transaction_id, amount, timestamp, slot, principal.into()].into_iter().flat_map(varint));
    if let Some(asset) = &transaction.asset {
        bytes.push(asset.len() as u8);
        bytes.extend(asset.as_bytes());
    }
    sides.iter().filter_map(Side::hash).for_each(|hash| bytes.extend(hash.0));
    if let Some(act) = &transaction.act {
        bytes.extend(varint(act.len() as u64));
        bytes.extend(act.as_bytes());
    }
    Digest::of(&bytes)
}

/// Seven bits a byte, the lowest first.
fn varint(number: u64) -> Vec<u8> {
    match number {
        0..0x80 => vec![number as u8],
        _ => [vec![(number % 0x80) as u8 + 0x80], varint(number / 0x80)].concat(),
    }
}

/// What is said of one side of a transaction.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    account: Option<&'a AccountId>,
    balance: Option<i64>,
    settings: Option<&'a str>,
    salt: Option<Salt>,
    hidden: Option<Digest>,
}

pub(crate) fn source<'a>(transaction: &'a Transaction, proofs: &SideProofs) -> Side<'a> {
    let Transaction { from_account, from_balance, .. } = transaction;
    let SideProofs { from_salt, from_hash, .. } = *proofs;
    Side { account: from_account.as_ref(), balance: *from_balance, settings: None, salt: from_salt, hidden: from_hash }
}

pub(crate) fn destination<'a>(transaction: &'a Transaction, proofs: &SideProofs) -> Side<'a> {
    let Transaction { to_account, to_balance, settings, .. } = transaction;
    let SideProofs { to_salt, to_hash, .. } = *proofs;
    let settings = settings.as_deref();
    Side { account: to_account.as_ref(), balance: *to_balance, settings, salt: to_salt, hidden: to_hash }
}

impl Side<'_> {
    fn is_there(&self) -> bool {
        self.account.is_some() || self.hidden.is_some()
    }

    /// The hash of what is said, or the one that stands in its place.
    pub(crate) fn hash(&self) -> Option<Digest> {
        let (Some(account), Some(balance), Some(salt)) = (self.account, self.balance, self.salt) else {
            return self.hidden;
        };
        let mut bytes = salt.0.to_vec();
        bytes.push(account.len() as u8);
        bytes.extend(account.as_bytes());
        bytes.extend(balance.to_be_bytes());
        bytes.extend(0u64.to_be_bytes());
        bytes.extend(self.settings.unwrap_or("").as_bytes());
        Some(Digest::of(&bytes))
    }
}

/// The hash of a record of before there were principals.
fn chained_plain(transaction: &Transaction, previous: Digest) -> Digest {
    let mut bytes = previous.0.to_vec();
    let numbers = [transaction.transaction_id, transaction.amount, transaction.timestamp, transaction.slot];
    bytes.extend(numbers.into_iter().flat_map(u64::to_be_bytes));
    bytes.push(match transaction.transaction_type.name() {
        "opening" => 1,
        "deposit" => 2,
        "withdrawal" => 3,
        _ => 4,
    });
    let sides =
        [(&transaction.from_account, transaction.from_balance), (&transaction.to_account, transaction.to_balance)];
    for (name, balance) in sides {
        let name = name.as_deref().unwrap_or("");
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend(balance.into_iter().flat_map(i64::to_be_bytes));
    }
    Digest::of(&bytes)
}
