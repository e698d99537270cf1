//! What nodes of later versions may add to what they say: words that this program does not know, and fields. A client keeps
//! them as they came, so that it neither fails at the first of them nor hands out less than it was given.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields that this program does not know, as they came. Empty in what it says itself.
///
/// What JSON has no form for, and MessagePack has, is kept as near as it gets: bytes as hexadecimal text, floats that are no
/// numbers as null.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OtherFields(Option<Box<Map<String, Value>>>);

impl OtherFields {
    /// Fields, not counting those inside of them.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |fields| fields.len())
    }

    /// True for everything that this program says itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// None if the node did not say it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.as_ref()?.get(name)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().flat_map(|fields| fields.iter()).map(|(name, value)| (name.as_str(), value))
    }

    /// Writes them behind the fields of a record.
    pub(crate) fn serialize_into<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
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

/// Reads a text, and makes a word of the vocabulary of it.
pub(crate) fn word<'de, T, D: Deserializer<'de>>(deserializer: D, make: impl FnOnce(&str) -> T) -> Result<T, D::Error> {
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
