//! Whole numbers as clients send them, for `#[serde(deserialize_with = …)]`.
//!
//! JavaScript has one type of number, and its MessagePack libraries may send 1760000000000 as a float. A float that is
//! a whole number from 0 to 2^53 − 1 is taken for that number; beyond, floats have gaps and might mean another one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The largest number up to which a float names each whole number exactly.
const MAX_EXACT: f64 = ((1u64 << 53) - 1) as f64;

/// The whole number that a float is, if it is one.
pub(crate) fn from_float(number: f64) -> Option<u64> {
    let whole = number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&number);
    whole.then_some(number as u64)
}

/// A number, of the type that the field has.
pub(crate) fn whole<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let Whole(number) = Whole::deserialize(deserializer)?;
    T::try_from(number).map_err(|_| D::Error::custom(format_args!("the number {number} is too large")))
}

/// A number or null.
pub(crate) fn optional<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(Whole(number)) = Option::deserialize(deserializer)? else { return Ok(None) };
    T::try_from(number).map(Some).map_err(|_| D::Error::custom(format_args!("the number {number} is too large")))
}

/// A number, or nothing where there is anything else.
pub(crate) fn if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(IfAny)
}

struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Whole, E> {
                u64::try_from(number).map(Whole).map_err(|_| E::custom(format_args!("the number {number} is below 0")))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
                let whole = from_float(number).map(Whole);
                whole.ok_or_else(|| E::custom(format_args!("{number} is no whole number from 0 to 2^53 - 1")))
            }
        }
        deserializer.deserialize_u64(AnyNumber)
    }
}

/// Takes anything, and keeps it if it is a whole number.
struct IfAny;

impl<'de> Visitor<'de> for IfAny {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<u64>, E> {
        Ok(Some(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<u64>, E> {
        Ok(u64::try_from(number).ok())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Option<u64>, E> {
        Ok(from_float(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Option<u64>, D::Error> {
        IgnoredAny::deserialize(extension).map(|_| None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Option<u64>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<u64>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}
