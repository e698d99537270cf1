//! Why something was not done.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::named::named;
use crate::open::{self, OtherFields};

/// Why something was not done. Stable: programs may rely on the names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ErrorCode {
    /// An account id is 1 to 50 characters of `A–Z a–z 0–9 _ - . :`.
    InvalidAccountId,
    /// Not a whole number from 1 (an initial balance: 0) to the cluster's limit per transaction.
    InvalidAmount,
    /// An asset has a code of 1 to 12 characters of `A–Z 0–9 .`, a scale of 0 to 8, and a limit of 1 to 2^53 − 1.
    InvalidAsset,
    /// A bound is `none` or a balance, the lower one is not above the upper one, and the lower one is below 0 only where the cluster
    /// allows overdrafts.
    InvalidBounds,
    /// A code is 1 to 32 characters of `A–Z a–z 0–9 _ - . :`.
    InvalidCode,
    /// A name is up to 100 bytes of UTF-8 without control characters.
    InvalidName,
    /// There is an account of this name.
    AccountExists,
    /// There is no account of this name.
    AccountNotFound,
    /// There is no asset of this code.
    AssetNotFound,
    /// There is an asset of this code.
    AssetExists,
    /// As many assets are there as may be.
    TooManyAssets,
    /// The accounts hold different assets.
    AssetMismatch,
    /// The account is closed, for ever.
    AccountClosed,
    /// The account's status does not let the money through.
    AccountFrozen,
    /// An account is closed only while it has a balance of 0.
    AccountNotEmpty,
    /// There is no transaction of this id.
    TransactionNotFound,
    /// What is available is below the amount.
    InsufficientFunds,
    /// The balance would pass the account's upper bound.
    BalanceLimit,
    /// A balance, or the sum of all of its asset, would exceed 2^53 − 1, or be below the same with a minus sign.
    BalanceOverflow,
    /// Source and destination are one.
    SameAccount,
    /// A bulk without a command.
    BulkEmpty,
    /// A bulk of more than 10,000 commands.
    BulkTooLarge,
    /// This request number was used for another command.
    RequestReused,
    /// The client had acknowledged the answer to this request number, so it is no longer kept.
    RequestAcknowledged,
    /// The session is closed, expired, or was never opened with this key.
    SessionExpired,
    /// As many sessions are open as may be, and all were used within the last hour.
    TooManySessions,
    /// Too much is in flight; nothing was proposed.
    Busy,
    /// No quorum of nodes answered within the deadline.
    NoQuorum,
    /// The slot that a read must see was not applied within the deadline.
    NotYetApplied,
    /// The message can't be understood.
    Malformed,
    /// The message is longer than this node takes.
    TooLarge,
    /// The caller may not ask this, or is not in force any more.
    NotAuthorised,
    /// More than the principal may move, by one transaction or on one day.
    LimitExceeded,
    /// There is no principal of this name.
    PrincipalNotFound,
    /// There is a token of this id.
    TokenExists,
    /// There is no token of this id.
    TokenNotFound,
    /// A token expires after now and within ten years.
    InvalidExpiry,
    /// All principals together would take more than they may.
    TooManyPrincipals,
    /// As many tokens are in force as may be.
    TooManyTokens,
    /// A level to be raised to is above the one in force.
    InvalidLevel,
    /// The programs of some members do not know the level yet.
    MembersTooOld,
    /// There is such a command, and the cluster does not have it: its level is too low.
    NotEnabled,
    /// The client speaks an older version of the protocol.
    ClientTooOld,
    /// The node is shutting down.
    Stopping,
    /// The word of a later version. What it means for the request, the outcome says.
    Other(Box<str>),
}

named!(ErrorCode or Other {
    InvalidAccountId = "invalid_account_id",
    InvalidAmount = "invalid_amount",
    InvalidAsset = "invalid_asset",
    InvalidBounds = "invalid_bounds",
    InvalidCode = "invalid_code",
    InvalidName = "invalid_name",
    AccountExists = "account_exists",
    AccountNotFound = "account_not_found",
    AssetNotFound = "asset_not_found",
    AssetExists = "asset_exists",
    TooManyAssets = "too_many_assets",
    AssetMismatch = "asset_mismatch",
    AccountClosed = "account_closed",
    AccountFrozen = "account_frozen",
    AccountNotEmpty = "account_not_empty",
    TransactionNotFound = "transaction_not_found",
    InsufficientFunds = "insufficient_funds",
    BalanceLimit = "balance_limit",
    BalanceOverflow = "balance_overflow",
    SameAccount = "same_account",
    BulkEmpty = "bulk_empty",
    BulkTooLarge = "bulk_too_large",
    RequestReused = "request_reused",
    RequestAcknowledged = "request_acknowledged",
    SessionExpired = "session_expired",
    TooManySessions = "too_many_sessions",
    Busy = "busy",
    NoQuorum = "no_quorum",
    NotYetApplied = "not_yet_applied",
    Malformed = "malformed",
    TooLarge = "too_large",
    NotAuthorised = "not_authorised",
    LimitExceeded = "limit_exceeded",
    PrincipalNotFound = "principal_not_found",
    TokenExists = "token_exists",
    TokenNotFound = "token_not_found",
    InvalidExpiry = "invalid_expiry",
    TooManyPrincipals = "too_many_principals",
    TooManyTokens = "too_many_tokens",
    InvalidLevel = "invalid_level",
    MembersTooOld = "members_too_old",
    NotEnabled = "not_enabled",
    ClientTooOld = "client_too_old",
    Stopping = "stopping",
});

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
        open::word(deserializer, ErrorCode::named)
    }
}

/// What an error says about the request itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Certainly not executed, by this attempt or an earlier one.
    Refused,
    /// It may have been, or may yet be, executed: ask again with the same request number.
    Unknown,
}

/// An error as a client sees it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// What is wrong, for programs.
    pub code: ErrorCode,
    /// What is wrong, for people. May change from version to version.
    pub message: String,
    /// Whether the request may have been executed.
    pub outcome: Outcome,
    /// In an atomic bulk: the command that failed, from 0.
    #[serde(default)]
    pub index: Option<u32>,
    /// Fields that this program does not know.
    #[serde(flatten, skip_serializing)]
    pub other: OtherFields,
}

impl Refusal {
    /// An error that says: certainly not executed.
    pub fn refused(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), outcome: Outcome::Refused, index: None, other: OtherFields::default() }
    }

    /// An error that says: ask again with the same request number.
    pub fn unknown(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { outcome: Outcome::Unknown, ..Refusal::refused(code, message) }
    }
}

/// By hand, as the records are.
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
