//! What the books hold: accounts and transactions.
//!
//! What writes them is written by hand: derived code for a record with other fields does not know how many there are, and
//! MessagePack then has to be written twice.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::amount::Bound;
use super::asset::{AssetCode, no_currency};
use super::settings::AccountStatus;
use crate::ids::{self, Digest, Millis, Salt, Slot};
use crate::named::named;
use crate::number;
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
    /// What it holds.
    #[serde(default = "no_currency")]
    pub asset: AssetCode,
    /// Minor units, from −(2^53 − 1) to [`MAX_BALANCE`](super::MAX_BALANCE).
    #[serde(deserialize_with = "number::signed")]
    pub balance: i64,
    /// What may leave it now: the balance less `min_balance`. Absent where there is no such bound.
    #[serde(default, deserialize_with = "number::optional_signed")]
    pub available: Option<i64>,
    /// No command takes its balance below.
    #[serde(default = "zero")]
    pub min_balance: Bound,
    /// No command takes its balance above.
    #[serde(default = "none")]
    pub max_balance: Bound,
    /// What it lets happen.
    #[serde(default)]
    pub status: AccountStatus,
    /// Its class, if it has one.
    #[serde(default)]
    pub code: Option<Box<str>>,
    /// Whose it is, or what for, if that was said.
    #[serde(default)]
    pub name: Option<Box<str>>,
    /// When it was created, by the clock of the log.
    pub created_at: Millis,
    /// Log time of its last transaction, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transaction_at: Option<Millis>,
    /// How many transactions touched it.
    pub transaction_count: u64,
    /// Rises by one with each transaction that touches it.
    #[serde(default)]
    pub version: u64,
    /// Fields that this program does not know.
    #[serde(flatten, skip_serializing)]
    pub other: OtherFields,
}

fn zero() -> Bound {
    Bound::At(0)
}

fn none() -> Bound {
    Bound::None
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Account { account_id, asset, balance, available, min_balance, max_balance, status, .. } = self;
        let Account { code, name, created_at, last_transaction_at, transaction_count, version, other, .. } = self;
        let there = [available.is_some(), code.is_some(), name.is_some(), last_transaction_at.is_some()];
        let fields = 9 + there.iter().filter(|there| **there).count() + other.len();
        let mut map = serializer.serialize_map(Some(fields))?;
        map.serialize_entry("account_id", account_id)?;
        map.serialize_entry("asset", asset)?;
        map.serialize_entry("balance", balance)?;
        if let Some(available) = available {
            map.serialize_entry("available", available)?;
        }
        map.serialize_entry("min_balance", min_balance)?;
        map.serialize_entry("max_balance", max_balance)?;
        map.serialize_entry("status", status)?;
        for (key, text) in [("code", code), ("name", name)] {
            if let Some(text) = text {
                map.serialize_entry(key, text)?;
            }
        }
        map.serialize_entry("created_at", created_at)?;
        if let Some(at) = last_transaction_at {
            map.serialize_entry("last_transaction_at", at)?;
        }
        map.serialize_entry("transaction_count", transaction_count)?;
        map.serialize_entry("version", version)?;
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
    /// Nothing moved: what an account lets happen changed, or what is said of it.
    AccountChange,
    /// Nothing moved: an asset came into being.
    Asset,
}

named!(TransactionType {
    Opening = "opening",
    Deposit = "deposit",
    Withdrawal = "withdrawal",
    Transfer = "transfer",
    Admin = "admin",
    AccountChange = "account_change",
    Asset = "asset",
});

impl TransactionType {
    /// Whether its transactions have an amount.
    pub fn has_amount(self) -> bool {
        match self {
            TransactionType::Opening
            | TransactionType::Deposit
            | TransactionType::Withdrawal
            | TransactionType::Transfer => true,
            TransactionType::Admin | TransactionType::AccountChange | TransactionType::Asset => false,
        }
    }
}

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
    /// What moved; absent where it is the cluster's own asset, and where nothing moved.
    #[serde(default)]
    pub asset: Option<AssetCode>,
    /// Minor units: above 0, but for an opening. 0 here where the transaction has none.
    #[serde(default)]
    pub amount: u64,
    /// The source's balance after it, in minor units.
    #[serde(default, deserialize_with = "number::optional_signed")]
    pub from_balance: Option<i64>,
    /// The destination's balance after it.
    #[serde(default, deserialize_with = "number::optional_signed")]
    pub to_balance: Option<i64>,
    /// Of an opening and of a change: what was set about the destination, as JSON. Absent where nothing was said.
    #[serde(default)]
    pub settings: Option<Box<str>>,
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
    /// Of a record of an administrator or of an asset: what was done, as JSON.
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

/// The hash of a side of a transaction: of its salt, the account's name, its balance afterwards, what is held of that, and what was
/// set about it.
pub fn leg_hash(salt: Salt, account: &str, balance: i64, held: u64, settings: Option<&str>) -> Digest {
    const LONGEST: usize = 16 + 1 + MAX_ACCOUNT_ID + 8 + 8;
    let mut bytes = [0; LONGEST];
    let name = &account.as_bytes()[..account.len().min(MAX_ACCOUNT_ID)];
    let (end, length) = (17 + name.len(), 33 + name.len());
    bytes[..16].copy_from_slice(&salt.0);
    bytes[16] = name.len() as u8;
    bytes[17..end].copy_from_slice(name);
    bytes[end..end + 8].copy_from_slice(&balance.to_be_bytes());
    bytes[end + 8..length].copy_from_slice(&held.to_be_bytes());
    let Some(settings) = settings else { return Digest::of(&bytes[..length]) };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..length]).update(settings.as_bytes());
    Digest(*hasher.finalize().as_bytes())
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
        hide_side(&mut self.from_account, &mut self.from_balance, &mut None, from_salt, from_hash, &may_read);
        hide_side(&mut self.to_account, &mut self.to_balance, &mut self.settings, to_salt, to_hash, &may_read);
        self.proofs = proofs.boxed();
    }
}

fn hide_side(
    account: &mut Option<AccountId>,
    balance: &mut Option<i64>,
    settings: &mut Option<Box<str>>,
    salt: &mut Option<Salt>,
    hash: &mut Option<Digest>,
    may_read: impl Fn(&str) -> bool,
) {
    if let Some(name) = account.take_if(|name| !may_read(name)) {
        let settings = settings.take();
        let proof = |(salt, balance)| leg_hash(salt, &name, balance, 0, settings.as_deref());
        *hash = salt.take().zip(balance.take()).map(proof);
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
        let has_amount = self.transaction_type.known().is_none_or(TransactionType::has_amount);
        let there =
            [has_amount, self.asset.is_some(), self.settings.is_some(), self.principal.is_some(), self.act.is_some()];
        let more = there.iter().filter(|there| **there).count()
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
        if let Some(asset) = &self.asset {
            map.serialize_entry("asset", asset)?;
        }
        if has_amount {
            map.serialize_entry("amount", &self.amount)?;
        }
        for (name, balance) in balances {
            if let Some(balance) = balance {
                map.serialize_entry(name, &balance)?;
            }
        }
        if let Some(settings) = &self.settings {
            map.serialize_entry("settings", settings)?;
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
