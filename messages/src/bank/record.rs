//! What the books hold: accounts and transactions.
//!
//! What writes them is written by hand: derived code for a record with other fields does not know how many there are, and
//! MessagePack then has to be written twice.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{self, Digest, Millis, Slot};
use crate::named::named;
use crate::open::{self, OtherFields};

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
}

named!(TransactionType {
    Opening = "opening",
    Deposit = "deposit",
    Withdrawal = "withdrawal",
    Transfer = "transfer",
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

/// A change of one balance or two. Never changed, never deleted.
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
    /// Over the record and the hash before it.
    #[serde(with = "ids::text")]
    pub hash: Digest,
    /// Fields that this program does not know.
    #[serde(flatten, skip_serializing)]
    pub other: OtherFields,
}

impl Serialize for Transaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(transparent)]
        struct Text<'a>(#[serde(serialize_with = "ids::text::serialize")] &'a Digest);

        let accounts = [("from_account", &self.from_account), ("to_account", &self.to_account)];
        let balances = [("from_balance", self.from_balance), ("to_balance", self.to_balance)];
        let sides = accounts.iter().filter(|(_, account)| account.is_some()).count()
            + balances.iter().filter(|(_, balance)| balance.is_some()).count();
        let mut map = serializer.serialize_map(Some(6 + sides + self.other.len()))?;
        map.serialize_entry("transaction_id", &self.transaction_id)?;
        map.serialize_entry("type", &self.transaction_type)?;
        for (name, account) in accounts {
            if let Some(account) = account {
                map.serialize_entry(name, account)?;
            }
        }
        map.serialize_entry("amount", &self.amount)?;
        for (name, balance) in balances {
            if let Some(balance) = balance {
                map.serialize_entry(name, &balance)?;
            }
        }
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("slot", &self.slot)?;
        map.serialize_entry("hash", &Text(&self.hash))?;
        self.other.serialize_into(&mut map)?;
        map.end()
    }
}
