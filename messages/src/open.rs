//! What nodes of later versions may add to what they say: words that this program does not know, and fields. A client keeps
//! them as they came, so that it neither fails at the first of them nor hands out less than it was given.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bank::{Account, ErrorCode, Refusal, Transaction, TransactionType};
use crate::ids::{self, Digest};

/// Fields that this program does not know, as they came. Empty in what it says itself.
///
/// What JSON has no form for, and MessagePack has, is kept as near as it gets: bytes as hexadecimal text, floats that are no
/// numbers as null.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OtherFields(Option<Box<Map<String, Value>>>);

impl OtherFields {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |fields| fields.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of this field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.as_ref()?.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().flat_map(|fields| fields.iter()).map(|(name, value)| (name.as_str(), value))
    }

    fn serialize_into<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))
    }
}

impl FromIterator<(String, Value)> for OtherFields {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(fields: I) -> OtherFields {
        let fields: Map<String, Value> = fields.into_iter().collect();
        OtherFields((!fields.is_empty()).then(|| Box::new(fields)))
    }
}

impl Serialize for OtherFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        self.serialize_into(&mut map)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for OtherFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OtherFields, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = OtherFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OtherFields, A::Error> {
                let mut fields = Map::new();
                while let Some((name, Kept(value))) = map.next_entry()? {
                    fields.insert(name, value);
                }
                Ok(OtherFields((!fields.is_empty()).then(|| Box::new(fields))))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Any value at all.
struct Kept(Value);

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kept, D::Error> {
        deserializer.deserialize_any(Anything).map(Kept)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(hex::encode(value).into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Value, D::Error> {
        value.deserialize_any(Anything)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<Value, D::Error> {
        value.deserialize_any(Anything)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Kept(value)) = array.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, Kept(value))) = map.next_entry()? {
            fields.insert(name, value);
        }
        Ok(fields.into())
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

    /// The word on the wire.
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
        word(deserializer, |name| {
            let known = TransactionType::ALL.into_iter().find(|kind| kind.name() == name);
            known.map_or_else(|| TypeName::Other(name.into()), TypeName::Known)
        })
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
        word(deserializer, |name| {
            let known = ErrorCode::ALL.into_iter().find(|code| code.name() == name);
            known.unwrap_or_else(|| ErrorCode::Other(name.into()))
        })
    }
}

/// Reads a word.
fn word<'de, T, D: Deserializer<'de>>(deserializer: D, make: impl FnOnce(&str) -> T) -> Result<T, D::Error> {
    struct Word<F>(F);
    impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Word<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a word")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            Ok((self.0)(text))
        }
    }
    deserializer.deserialize_str(Word(make))
}

// The records that answers to commands carry are written here by hand: derived code for a record with other fields does not
// know how many there are, and MessagePack then has to be written twice.

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

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Refusal { code, message, outcome, index, other } = self;
        let mut map = serializer.serialize_map(Some(3 + usize::from(index.is_some()) + other.len()))?;
        map.serialize_entry("code", code)?;
        map.serialize_entry("message", message)?;
        map.serialize_entry("outcome", outcome)?;
        if let Some(index) = index {
            map.serialize_entry("index", index)?;
        }
        other.serialize_into(&mut map)?;
        map.end()
    }
}
