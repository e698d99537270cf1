//! The chain of hashes over the history. The documentation of the [bank](super) lists the bytes that are hashed.

use rabia_bank_messages::bank::{MAX_ASSET_CODE, SideProofs, Transaction, TransactionType, leg_hash};
use rabia_bank_messages::ids::{Digest, Millis, Salt, Secret, Slot};
use rabia_bank_messages::principal::PrincipalNumber;

/// The longest input of the hash of a record of before there were principals: two accounts with names of 50 characters.
const MAX_HASHED_PLAIN: usize = 32 + 4 * 8 + 1 + 2 * (1 + 50 + 8);
/// The most bytes that a number takes: seven bits of it in each.
const MAX_VARINT: usize = 10;
/// The longest input of a record's hash, beside an act: two sides, an asset, and how long the act is. It is mostly below 128 bytes,
/// which BLAKE3 takes in two steps.
const MAX_HASHED: usize = 32 + 1 + 7 * MAX_VARINT + 1 + MAX_ASSET_CODE + 2 * 32;

/// There is a source.
const HAS_FROM: u64 = 1;
/// There is a destination.
const HAS_TO: u64 = 2;
/// There is an act.
const HAS_ACT: u64 = 4;
/// There is another asset than the cluster's own.
const HAS_ASSET: u64 = 128;

/// What the hash of a transaction is over, beside the hash before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) id: u64,
    pub(super) kind: TransactionType,
    pub(super) amount: u64,
    /// What moved, if it is not the cluster's own asset.
    pub(super) asset: Option<&'a str>,
    pub(super) time: Millis,
    pub(super) slot: Slot,
    /// Who asked for it. None: it is of before there were principals, and hashed as it was then.
    pub(super) principal: Option<PrincipalNumber>,
    /// The source and its balance after the transaction.
    pub(super) from: Option<Leg<'a>>,
    /// The destination and its balance after the transaction.
    pub(super) to: Option<Leg<'a>>,
    /// What an administrator did, or which asset came into being.
    pub(super) act: Option<&'a str>,
}

/// A side of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leg<'a> {
    /// An account and its balance, of before there were principals.
    Plain(&'a str, i64),
    /// The hash of the side.
    Hashed(Digest),
}

/// How many types there are.
pub(super) const TYPES: usize = TransactionType::ALL.len();
/// How many there were in 0.1.0.
pub(super) const TYPES_0_1_0: usize = 4;

/// The place of a type in an array of all.
pub(super) fn type_index(kind: TransactionType) -> usize {
    match kind {
        TransactionType::Opening => 0,
        TransactionType::Deposit => 1,
        TransactionType::Withdrawal => 2,
        TransactionType::Transfer => 3,
        TransactionType::Admin => 4,
        TransactionType::AccountChange => 5,
        TransactionType::Asset => 6,
    }
}

/// The number of a type in hashes. Those of 1 to 4 are the types of before there were principals.
fn tag(kind: TransactionType) -> u8 {
    match kind {
        TransactionType::Opening => 5,
        TransactionType::Deposit => 6,
        TransactionType::Withdrawal => 7,
        TransactionType::Transfer => 8,
        TransactionType::AccountChange => 15,
        TransactionType::Asset => 16,
        TransactionType::Admin => 17,
    }
}

/// What a record of this type says besides: of its destination's settings, or of an act.
pub(super) fn by_type<T>(kind: TransactionType, text: Option<T>) -> [Option<T>; 2] {
    match kind {
        TransactionType::Opening | TransactionType::AccountChange => [text, None],
        _ => [None, text],
    }
}

/// The salts of the source and the destination of a transaction.
pub(super) fn salts(secret: &Secret, id: u64) -> [Salt; 2] {
    let hash = blake3::keyed_hash(&secret.0, &id.to_be_bytes());
    let (halves, _) = hash.as_bytes().as_chunks::<16>();
    [Salt(halves[0]), Salt(halves[1])]
}

/// Puts bytes behind one another.
struct Bytes<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Bytes<N> {
    fn new() -> Bytes<N> {
        Bytes { bytes: [0; N], length: 0 }
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    /// Seven bits a byte, the lowest first; all but the last have the highest bit set.
    fn put_varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.put(&[number as u8 | 0x80]);
            number >>= 7;
        }
        self.put(&[number as u8]);
    }

    fn written(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Link<'_> {
    /// The hash of this transaction, which follows the one with the hash `previous`. None if a side is not of its form.
    pub(super) fn hash(&self, previous: Digest) -> Option<Digest> {
        match self.principal {
            None => self.hash_plain(previous),
            Some(principal) => self.hash_sides(previous, principal),
        }
    }

    fn hash_plain(&self, previous: Digest) -> Option<Digest> {
        let mut bytes = Bytes::<MAX_HASHED_PLAIN>::new();
        bytes.put(&previous.0);
        for number in [self.id, self.amount, self.time, self.slot] {
            bytes.put(&number.to_be_bytes());
        }
        let kind = type_index(self.kind);
        (kind < TYPES_0_1_0 && self.act.is_none() && self.asset.is_none()).then_some(())?;
        bytes.put(&[kind as u8 + 1]);
        for side in [self.from, self.to] {
            match side {
                None => bytes.put(&[0]),
                Some(Leg::Plain(name, balance)) if name.len() <= 50 => {
                    bytes.put(&[name.len() as u8]);
                    bytes.put(name.as_bytes());
                    bytes.put(&balance.to_be_bytes());
                }
                Some(_) => return None,
            }
        }
        Some(Digest::of(bytes.written()))
    }

    fn hash_sides(&self, previous: Digest, principal: PrincipalNumber) -> Option<Digest> {
        let mut bytes = Bytes::<MAX_HASHED>::new();
        bytes.put(&previous.0);
        let parts = [
            (self.from.is_some(), HAS_FROM),
            (self.to.is_some(), HAS_TO),
            (self.act.is_some(), HAS_ACT),
            (self.asset.is_some(), HAS_ASSET),
        ];
        bytes.put(&[tag(self.kind)]);
        bytes.put_varint(parts.iter().filter(|(is_there, _)| *is_there).map(|(_, bit)| bit).sum());
        for number in [self.id, self.amount, self.time, self.slot, principal.into()] {
            bytes.put_varint(number);
        }
        if let Some(asset) = self.asset {
            (asset.len() <= MAX_ASSET_CODE).then_some(())?;
            bytes.put(&[asset.len() as u8]);
            bytes.put(asset.as_bytes());
        }
        for side in [self.from, self.to].into_iter().flatten() {
            let Leg::Hashed(hash) = side else { return None };
            bytes.put(&hash.0);
        }
        let Some(act) = self.act else { return Some(Digest::of(bytes.written())) };
        bytes.put_varint(act.len() as u64);
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes.written()).update(act.as_bytes());
        Some(Digest(*hasher.finalize().as_bytes()))
    }
}

/// The hash that a transaction must have that follows one with the hash `previous` ([`Digest::ZERO`] for the first one).
/// `None` if it names an account by more than 50 bytes, or an account without its balance and salt, or is of a type that this program
/// does not know: it has no hash that this program could tell.
pub fn chain_hash(previous: Digest, transaction: &Transaction) -> Option<Digest> {
    let Transaction { from_account, from_balance, to_account, to_balance, .. } = transaction;
    let SideProofs { from_salt, to_salt, from_hash, to_hash } = transaction.proofs();
    let plain = transaction.principal.is_none();
    let link = Link {
        id: transaction.transaction_id,
        kind: transaction.transaction_type.known()?,
        amount: transaction.amount,
        asset: transaction.asset.as_deref(),
        time: transaction.timestamp,
        slot: transaction.slot,
        principal: transaction.principal,
        from: leg(plain, from_account.as_deref(), *from_balance, None, from_salt, from_hash)?,
        to: leg(plain, to_account.as_deref(), *to_balance, transaction.settings.as_deref(), to_salt, to_hash)?,
        act: transaction.act.as_deref(),
    };
    link.hash(previous)
}

/// All that a side needs, or nothing.
fn leg<'a>(
    plain: bool,
    name: Option<&'a str>,
    balance: Option<i64>,
    settings: Option<&str>,
    salt: Option<Salt>,
    hash: Option<Digest>,
) -> Option<Option<Leg<'a>>> {
    match (name, balance, salt, hash) {
        (None, None, None, None) if settings.is_none() => Some(None),
        (None, None, None, Some(hash)) if !plain && settings.is_none() => Some(Some(Leg::Hashed(hash))),
        (Some(name), Some(balance), None, None) if plain && name.len() <= 50 && settings.is_none() => {
            Some(Some(Leg::Plain(name, balance)))
        }
        (Some(name), Some(balance), Some(salt), None) if !plain && name.len() <= 50 => {
            Some(Some(Leg::Hashed(leg_hash(salt, name, balance, 0, settings))))
        }
        _ => None,
    }
}
