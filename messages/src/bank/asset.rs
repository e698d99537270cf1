//! Assets: what balances are of. A currency, shares, points.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::amount::MAX_BALANCE;
use crate::number;
use crate::open::OtherFields;

/// The code of an asset, such as `EUR`. What a client sends may be no valid code; only [`is_valid_asset`] codes are created.
pub type AssetCode = Box<str>;

/// The most characters in the code of an asset.
pub const MAX_ASSET_CODE: usize = 12;
/// The most decimal places of an asset.
pub const MAX_SCALE: u8 = 8;
/// The assets of a cluster at most, its own one counted: each has figures of its own.
pub const MAX_ASSETS: usize = 1_000;

/// Whether `code` is 1 to [`MAX_ASSET_CODE`] characters of `A–Z 0–9 .`.
pub fn is_valid_asset(code: &str) -> bool {
    (1..=MAX_ASSET_CODE).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.')
}

/// An asset as it was created, and what there is of it. Its code, scale and limit never change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Asset {
    /// Its name.
    pub asset: AssetCode,
    /// How many decimal places an amount of it has: one unit is 10^scale minor units. 0 to [`MAX_SCALE`].
    pub scale: u8,
    /// The largest amount of one transaction, in minor units.
    pub limit: u64,
    /// How many accounts hold it.
    pub accounts: u64,
    /// The sum of their balances, in minor units.
    #[serde(deserialize_with = "number::signed")]
    pub total_balance: i64,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: OtherFields,
}

/// The asset that accounts have where none is said: fixed when a cluster is created.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct OwnAsset {
    /// Its name.
    pub code: AssetCode,
    /// How many decimal places an amount of it has.
    pub scale: u8,
}

impl Default for OwnAsset {
    /// No currency (ISO 4217), with two decimal places.
    fn default() -> OwnAsset {
        OwnAsset { code: "XXX".into(), scale: 2 }
    }
}

/// What nodes of before there were assets do not say.
pub(super) fn no_currency() -> AssetCode {
    OwnAsset::default().code
}

/// As it is read: `EUR:2`.
impl fmt::Display for OwnAsset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.code, self.scale)
    }
}

impl FromStr for OwnAsset {
    type Err = String;

    fn from_str(text: &str) -> Result<OwnAsset, String> {
        let (code, scale) =
            text.split_once(':').ok_or_else(|| format!("{text:?} is no code and scale, as in EUR:2"))?;
        if !is_valid_asset(code) {
            return Err(format!("the code of an asset is 1 to {MAX_ASSET_CODE} characters of A-Z 0-9 ., not {code:?}"));
        }
        let scale = scale.parse().ok().filter(|scale| *scale <= MAX_SCALE);
        let scale = scale.ok_or_else(|| format!("the scale of an asset is 0 to {MAX_SCALE}, in {text:?}"))?;
        Ok(OwnAsset { code: code.into(), scale })
    }
}

/// `create_asset`: see [`Operation::CreateAsset`](super::Operation::CreateAsset).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAsset {
    /// Its name: see [`is_valid_asset`].
    pub asset: AssetCode,
    /// How many decimal places an amount of it has, 0 to [`MAX_SCALE`].
    #[serde(deserialize_with = "number::whole")]
    pub scale: u64,
    /// The largest amount of one transaction, in minor units: 1 to 2^53 − 1.
    #[serde(deserialize_with = "number::whole")]
    pub limit: u64,
}

impl CreateAsset {
    /// Whether all of it is as it must be.
    pub fn is_valid(&self) -> bool {
        is_valid_asset(&self.asset) && self.scale <= MAX_SCALE.into() && (1..=MAX_BALANCE).contains(&self.limit)
    }
}
