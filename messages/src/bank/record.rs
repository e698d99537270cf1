//! What the books hold: accounts and transactions.
//!
//! What writes them is written by hand: derived code for a record with other fields does not know how many there are, and
//! MessagePack then has to be written twice.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{self, Digest, Millis, Salt, Slot};
use crate::named::named;
use crate::open::{self, OtherFields};
use crate::principal::PrincipalNumber;

/// The most characters in an account id.
pub const MAX_ACCOUNT_ID: usize = 50;

/// The name of an account. What a client sends may be no valid name; only [`is_valid_account_id`] names are created.
pub type AccountId = Box<str>;

/// Whether `id` is 1 to [`MAX_ACCOUNT_ID`] characters of `A–Z a–z 0–9 _ - . :`.
pub fn is_valid_account_id(id: &str) -> bool {
    (1..=MAX_ACCOUNT_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
}

/// An account as it is now.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Account {
    /// Its name, which never changes.
    pub account_id: AccountId,
    /// Minor units, 0 to [`MAX_BALANCE`](super::MAX_BALANCE).
    pub balance: u64,
    /// When it was created, by the clock of the log.
    pub created_at: Millis,
    /// Log time of its last transaction, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transaction_at: Option<Millis>,
    /// How many transactions touched it.
    pub transaction_count: u64,
    /// Fields that this program does not know.
    #[serde(flatten, skip_serializing)]
    pub other: OtherFields,
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Account { account_id, balance, created_at, last_transaction_at, transaction_count, other } = self;
        let fields = 4 + usize::from(last_transaction_at.is_some()) + other.len();
        let mut map = serializer.serialize_map(Some(fields))?;
        map.serialize_entry("account_id", account_id)?;
        map.serialize_entry("balance", balance)?;
        map.serialize_entry("created_at", created_at)?;
        if let Some(at) = last_transaction_at {
            map.serialize_entry("last_transaction_at", at)?;
        }
        map.serialize_entry("transaction_count", transaction_count)?;
        other.serialize_into(&mut map)?;
        map.end()
    }
}

/// What kind of operation moved the money.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionType {
    /// The first balance of an account.
    Opening,
    /// Money came in from outside the bank.
    Deposit,
    /// Money left the bank.
    Withdrawal,
    /// Money moved between two accounts.
    Transfer,
    /// Nothing moved: an administrator changed who may do what.
    Admin,
}

named!(TransactionType {
    Opening = "opening",
    Deposit = "deposit",
    Withdrawal = "withdrawal",
    Transfer = "transfer",
    Admin = "admin",
});

/// The kind of a transaction as a node says it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TypeName {
    /// One that this program knows.
    Known(TransactionType),
    /// The word of a later version.
    Other(Box<str>),
}

impl TypeName {
    /// The kind, if this program knows it.
    pub fn known(&self) -> Option<TransactionType> {
        match self {
            TypeName::Known(kind) => Some(*kind),
            TypeName::Other(_) => None,
        }
    }

    /// The word on the wire, known or not.
    pub fn name(&self) -> &str {
        match self {
            TypeName::Known(kind) => kind.name(),
            TypeName::Other(name) => name,
        }
    }
}

impl From<TransactionType> for TypeName {
    fn from(kind: TransactionType) -> TypeName {
        TypeName::Known(kind)
    }
}

impl PartialEq<TransactionType> for TypeName {
    fn eq(&self, kind: &TransactionType) -> bool {
        self.known() == Some(*kind)
    }
}

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TypeName, D::Error> {
        open::word(deserializer, |name| {
            TransactionType::named(name).map_or_else(|| TypeName::Other(name.into()), TypeName::Known)
        })
    }
}

/// A change of one balance or two, or of who may do what. Never changed, never deleted.
///
/// A side that the reader may not see is missing, and its hash stands there instead.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Transaction {
    /// 1, 2, 3 …, the same on every node.
    pub transaction_id: u64,
    /// Why the money moved.
    #[serde(rename = "type")]
    pub transaction_type: TypeName,
    /// The account that was debited; absent if the money came from outside.
    #[serde(default)]
    pub from_account: Option<AccountId>,
    /// The account that was credited; absent if the money left the bank.
    #[serde(default)]
    pub to_account: Option<AccountId>,
    /// Minor units, above 0. Of a type that this program does not know it may be absent; then it is 0 here.
    #[serde(default)]
    pub amount: u64,
    /// The source's balance after it, in minor units.
    #[serde(default)]
    pub from_balance: Option<u64>,
    /// The destination's balance after it.
    #[serde(default)]
    pub to_balance: Option<u64>,
    /// Log time: never below that of the transaction before.
    pub timestamp: Millis,
    /// The slot of the log that carried its command.
    pub slot: Slot,
    /// Who asked for it; 0 for the owner of a node's folder. Absent in records of before there were principals.
    #[serde(default)]
    pub principal: Option<PrincipalNumber>,
    /// What the hashes of its sides are made of; none where there is nothing of it.
    #[serde(flatten, deserialize_with = "SideProofs::among")]
    pub proofs: Option<Box<SideProofs>>,
    /// Of an administrator's record: what was done, as JSON.
    #[serde(default)]
    pub act: Option<Box<str>>,
    /// Over the record and the hash before it.
    #[serde(with = "ids::text")]
    pub hash: Digest,
    /// Fields that this program does not know.
    #[serde(flatten, skip_serializing)]
    pub other: OtherFields,
}

/// What proves the sides of a transaction: salts of those that are shown, hashes of the others.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct SideProofs {
    /// Goes into the hash of the source's side.
    #[serde(default, deserialize_with = "optional_text::deserialize")]
    pub from_salt: Option<Salt>,
    /// Goes into the hash of the destination's side.
    #[serde(default, deserialize_with = "optional_text::deserialize")]
    pub to_salt: Option<Salt>,
    /// The hash of the source's side, where that is not shown.
    #[serde(default, deserialize_with = "optional_text::deserialize")]
    pub from_hash: Option<Digest>,
    /// The hash of the destination's side, where that is not shown.
    #[serde(default, deserialize_with = "optional_text::deserialize")]
    pub to_hash: Option<Digest>,
}

impl SideProofs {
    /// Those of a transaction that shows all its sides, which these salts are for.
    pub fn of_salts(from_salt: Option<Salt>, to_salt: Option<Salt>) -> Option<Box<SideProofs>> {
        SideProofs { from_salt, to_salt, ..SideProofs::default() }.boxed()
    }

    /// None if there is nothing in it.
    pub fn boxed(self) -> Option<Box<SideProofs>> {
        (self != SideProofs::default()).then(|| Box::new(self))
    }

    /// Those among the fields of a transaction.
    fn among<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<SideProofs>>, D::Error> {
        SideProofs::deserialize(deserializer).map(SideProofs::boxed)
    }
}

/// An id as text, or none.
mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer};

    use crate::ids;

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        #[derive(Deserialize)]
        #[serde(transparent, bound = "T: FromStr, T::Err: Display")]
        struct Text<T>(#[serde(with = "ids::text")] T);
        Ok(Option::<Text<T>>::deserialize(deserializer)?.map(|Text(id)| id))
    }
}

/// The hash of a side of a transaction: of its salt, the account's name, its balance afterwards, and what is held of that.
pub fn leg_hash(salt: Salt, account: &str, balance: u64, held: u64) -> Digest {
    const LONGEST: usize = 16 + 1 + MAX_ACCOUNT_ID + 8 + 8;
    let mut bytes = [0; LONGEST];
    let name = &account.as_bytes()[..account.len().min(MAX_ACCOUNT_ID)];
    let (end, length) = (17 + name.len(), 33 + name.len());
    bytes[..16].copy_from_slice(&salt.0);
    bytes[16] = name.len() as u8;
    bytes[17..end].copy_from_slice(name);
    bytes[end..end + 8].copy_from_slice(&balance.to_be_bytes());
    bytes[end + 8..length].copy_from_slice(&held.to_be_bytes());
    Digest::of(&bytes[..length])
}

impl Transaction {
    /// The salts and hashes of its sides.
    pub fn proofs(&self) -> SideProofs {
        self.proofs.as_deref().cloned().unwrap_or_default()
    }

    /// Puts hashes in the place of the sides of accounts that may not be read. A record of before there were principals has no such
    /// hashes: its sides just go.
    pub fn hide(&mut self, may_read: impl Fn(&str) -> bool) {
        let mut proofs = self.proofs.take().map_or_else(SideProofs::default, |proofs| *proofs);
        let SideProofs { from_salt, to_salt, from_hash, to_hash } = &mut proofs;
        hide_side(&mut self.from_account, &mut self.from_balance, from_salt, from_hash, &may_read);
        hide_side(&mut self.to_account, &mut self.to_balance, to_salt, to_hash, &may_read);
        self.proofs = proofs.boxed();
    }
}

fn hide_side(
    account: &mut Option<AccountId>,
    balance: &mut Option<u64>,
    salt: &mut Option<Salt>,
    hash: &mut Option<Digest>,
    may_read: impl Fn(&str) -> bool,
) {
    if let Some(name) = account.take_if(|name| !may_read(name)) {
        *hash = salt.take().zip(*balance).map(|(salt, balance)| leg_hash(salt, &name, balance, 0));
        *balance = None;
    }
}

impl Serialize for Transaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(transparent)]
        struct Text<'a, T: std::fmt::Display>(#[serde(serialize_with = "ids::text::serialize")] &'a T);

        let accounts = [("from_account", &self.from_account), ("to_account", &self.to_account)];
        let balances = [("from_balance", self.from_balance), ("to_balance", self.to_balance)];
        let sides = accounts.iter().filter(|(_, account)| account.is_some()).count()
            + balances.iter().filter(|(_, balance)| balance.is_some()).count();
        let none = SideProofs::default();
        let SideProofs { from_salt, to_salt, from_hash, to_hash } = self.proofs.as_deref().unwrap_or(&none);
        let salts = [("from_salt", from_salt), ("to_salt", to_salt)];
        let hashes = [("from_hash", from_hash), ("to_hash", to_hash)];
        let is_admin = self.transaction_type == TransactionType::Admin;
        let more = usize::from(!is_admin)
            + usize::from(self.principal.is_some())
            + usize::from(self.act.is_some())
            + salts.iter().filter(|(_, salt)| salt.is_some()).count()
            + hashes.iter().filter(|(_, hash)| hash.is_some()).count();
        let mut map = serializer.serialize_map(Some(5 + sides + more + self.other.len()))?;
        map.serialize_entry("transaction_id", &self.transaction_id)?;
        map.serialize_entry("type", &self.transaction_type)?;
        for (name, account) in accounts {
            if let Some(account) = account {
                map.serialize_entry(name, account)?;
            }
        }
        if !is_admin {
            map.serialize_entry("amount", &self.amount)?;
        }
        for (name, balance) in balances {
            if let Some(balance) = balance {
                map.serialize_entry(name, &balance)?;
            }
        }
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("slot", &self.slot)?;
        if let Some(principal) = self.principal {
            map.serialize_entry("principal", &principal)?;
        }
        for (name, salt) in salts {
            if let Some(salt) = salt {
                map.serialize_entry(name, &Text(salt))?;
            }
        }
        for (name, hash) in hashes {
            if let Some(hash) = hash {
                map.serialize_entry(name, &Text(hash))?;
            }
        }
        if let Some(act) = &self.act {
            map.serialize_entry("act", act)?;
        }
        map.serialize_entry("hash", &Text(&self.hash))?;
        self.other.serialize_into(&mut map)?;
        map.end()
    }
}
