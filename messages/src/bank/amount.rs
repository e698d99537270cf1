//! Money: whole minor units, and what no sum of them exceeds.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::number;

/// The largest balance, and the largest sum of all balances: 2^53 − 1, exact in every client language.
pub const MAX_BALANCE: u64 = (1 << 53) - 1;

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
