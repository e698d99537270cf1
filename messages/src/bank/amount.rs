//! Money: whole minor units, what no sum of them exceeds, and the bounds of a balance.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::number;

/// The largest balance, and the largest sum of all balances of an asset: 2^53 − 1, exact in every client language. None is below
/// the same number with a minus sign.
pub const MAX_BALANCE: u64 = (1 << 53) - 1;

/// Whether a balance, or a sum of balances, is from −(2^53 − 1) to 2^53 − 1.
pub fn is_valid_balance(balance: i64) -> bool {
    balance.unsigned_abs() <= MAX_BALANCE
}

/// The limit per transaction where the cluster's creator named none, in minor units.
pub const DEFAULT_TRANSACTION_LIMIT: u64 = 1_000_000_000;

/// An amount of money as a client sent it, in minor units (cents).
///
/// Any number decodes: one that is negative, fractional or beyond 64 bits becomes [`Amount::INVALID`], so that the
/// ledger refuses it with `invalid_amount` in its place in the order of checks. A whole number that arrives as a
/// float (as JavaScript sends numbers above 2^32) is that whole number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Amount(u64);

impl Amount {
    /// A number that is no amount. Above every limit a cluster may have.
    pub const INVALID: Amount = Amount(u64::MAX);

    /// From a number of minor units. The ledger says whether it is valid.
    pub fn new(minor_units: u64) -> Amount {
        Amount(minor_units)
    }

    /// In minor units; [`u64::MAX`] if it is [`Amount::INVALID`].
    pub fn get(self) -> u64 {
        self.0
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of minor units")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Amount, E> {
                Ok(u64::try_from(number).map_or(Amount::INVALID, Amount))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Amount, E> {
                Ok(number::from_float(number).map_or(Amount::INVALID, Amount))
            }
        }
        deserializer.deserialize_u64(AnyNumber)
    }
}

/// What a balance may not pass, in minor units: a number, or `"none"` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bound {
    /// Only what any balance is bounded by.
    None,
    /// The last balance that is within. The ledger says whether it is valid.
    At(i64),
}

impl Bound {
    /// A number that bounds nothing: it is beyond every balance.
    pub const INVALID: Bound = Bound::At(i64::MIN);

    const NONE: &str = "none";
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Bound::None => serializer.serialize_str(Bound::NONE),
            Bound::At(balance) => serializer.serialize_i64(*balance),
        }
    }
}

/// Any number decodes: one that is no balance becomes [`Bound::INVALID`], so that the ledger refuses it with `invalid_bounds`.
impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrNone;
        impl Visitor<'_> for NumberOrNone {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of minor units, or \"none\"")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Bound, E> {
                Ok(i64::try_from(number).map_or(Bound::INVALID, Bound::At))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Bound, E> {
                Ok(Bound::At(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Bound, E> {
                Ok(number::signed_from_float(number).map_or(Bound::INVALID, Bound::At))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Bound, E> {
                if word == Bound::NONE { Ok(Bound::None) } else { Err(E::unknown_variant(word, &[Bound::NONE])) }
            }
        }
        deserializer.deserialize_any(NumberOrNone)
    }
}
