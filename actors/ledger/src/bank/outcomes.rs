//! What came of a command, in a compact form: places in the books instead of copies of them.
//!
//! An outcome must say the same at any later time, for it is replayed. It may therefore point to what never changes (a
//! transaction, the creation of an account), and holds a copy of anything else. Refusals hold names instead of places,
//! because the account that is spoken of may be one that the undoing of an atomic bulk took away again. What sessions keep of
//! it is smaller still: see `kept`.

use std::sync::Arc;

use rabia_bank_messages::bank::{
    ErrorCode, MAX_ACCOUNT_ID, MAX_ASSET_CODE, MAX_ASSETS, MAX_BALANCE, MAX_BULK, MAX_CODE, MAX_NAME, MAX_SCALE,
    Refusal,
};

use super::account::AccountIndex;
use super::may::OPERATION;

/// What came of a command. [`Replicated::render`](crate::replicated::Replicated::render) makes an answer of it, now or later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandOutcome(pub(super) Kind);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Of a single operation.
    One(OperationOutcome),
    /// Of a bulk: one for each of its commands.
    Bulk(Arc<[OperationOutcome]>),
    /// Of an atomic bulk: nothing was done, because this command of it was refused.
    BulkUndone { index: u32, refusal: Box<OperationRefusal> },
    /// The bulk had no command.
    BulkEmpty,
    /// The bulk had this many commands.
    BulkTooLarge { commands: u64 },
}

/// What came of one operation. Boxed, so that the frequent case is small.
pub(super) type OperationOutcome = Result<Done, Box<OperationRefusal>>;

/// An operation that was carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Done {
    /// An account was created with nothing in it, by a program that made no transaction of that: 0.1.0.
    Created(AccountIndex),
    /// An account was created by this opening transaction.
    Opened(u64),
    /// Money moved, or an account or an asset changed, by this transaction.
    Moved(u64),
}

/// Why an operation was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum OperationRefusal {
    InvalidAccountId(Arc<str>),
    InvalidAsset(Arc<str>),
    InvalidBounds,
    InvalidCode,
    InvalidName,
    /// The least that is allowed.
    InvalidAmount(u64),
    AccountExists(Arc<str>),
    AccountNotFound(Arc<str>),
    AssetNotFound(Arc<str>),
    AssetExists(Arc<str>),
    TooManyAssets,
    AssetMismatch,
    SameAccount(Arc<str>),
    AccountClosed(Arc<str>),
    AccountFrozen(Arc<str>),
    AccountNotEmpty(Arc<str>),
    InsufficientFunds {
        account: Arc<str>,
        available: i64,
        amount: u64,
    },
    BalanceLimit(Arc<str>),
    /// The amount that was too much.
    BalanceOverflow(u64),
    /// The principal may not do this.
    NotAuthorised,
    /// The principal may not move so much.
    LimitExceeded,
}

/// A name as a client gave it, cut where no account's name goes on: requests may be long, and answers repeat it.
pub(super) fn shortened(name: &str) -> Arc<str> {
    match name.char_indices().nth(MAX_ACCOUNT_ID) {
        None => name.into(),
        Some((end, _)) => format!("{}…", &name[..end]).into(),
    }
}

impl OperationRefusal {
    fn code(&self) -> ErrorCode {
        match self {
            OperationRefusal::InvalidAccountId(_) => ErrorCode::InvalidAccountId,
            OperationRefusal::InvalidAmount(_) => ErrorCode::InvalidAmount,
            OperationRefusal::AccountExists(_) => ErrorCode::AccountExists,
            OperationRefusal::AccountNotFound(_) => ErrorCode::AccountNotFound,
            OperationRefusal::InvalidAsset(_) => ErrorCode::InvalidAsset,
            OperationRefusal::InvalidBounds => ErrorCode::InvalidBounds,
            OperationRefusal::InvalidCode => ErrorCode::InvalidCode,
            OperationRefusal::InvalidName => ErrorCode::InvalidName,
            OperationRefusal::AssetNotFound(_) => ErrorCode::AssetNotFound,
            OperationRefusal::AssetExists(_) => ErrorCode::AssetExists,
            OperationRefusal::TooManyAssets => ErrorCode::TooManyAssets,
            OperationRefusal::AssetMismatch => ErrorCode::AssetMismatch,
            OperationRefusal::SameAccount(_) => ErrorCode::SameAccount,
            OperationRefusal::AccountClosed(_) => ErrorCode::AccountClosed,
            OperationRefusal::AccountFrozen(_) => ErrorCode::AccountFrozen,
            OperationRefusal::AccountNotEmpty(_) => ErrorCode::AccountNotEmpty,
            OperationRefusal::BalanceLimit(_) => ErrorCode::BalanceLimit,
            OperationRefusal::InsufficientFunds { .. } => ErrorCode::InsufficientFunds,
            OperationRefusal::BalanceOverflow(_) => ErrorCode::BalanceOverflow,
            OperationRefusal::NotAuthorised => ErrorCode::NotAuthorised,
            OperationRefusal::LimitExceeded => ErrorCode::LimitExceeded,
        }
    }

    /// The answer that a client gets, in a cluster with this limit per transaction of its own asset.
    pub(super) fn render(&self, transaction_limit: u64) -> Refusal {
        let message = match self {
            OperationRefusal::InvalidAccountId(name) => {
                format!("an account id is 1 to {MAX_ACCOUNT_ID} characters of A–Z a–z 0–9 _ - . :, not {name:?}")
            }
            OperationRefusal::InvalidAmount(least) => {
                format!(
                    "an amount here is a whole number of minor units from {least} to its asset's limit \
                     (of the cluster's own one {transaction_limit})"
                )
            }
            OperationRefusal::InvalidAsset(code) => format!(
                "an asset has a code of 1 to {MAX_ASSET_CODE} characters of A–Z 0–9 ., a scale of 0 to {MAX_SCALE} and a limit \
                 of 1 to {MAX_BALANCE}; not so {code:?}"
            ),
            OperationRefusal::InvalidBounds => {
                "a bound is none or a balance, the lower one is not above the upper one, and it is below 0 only in a cluster \
                 that was created so"
                    .to_owned()
            }
            OperationRefusal::InvalidCode => {
                format!("a code is 1 to {MAX_CODE} characters of A–Z a–z 0–9 _ - . :")
            }
            OperationRefusal::InvalidName => {
                format!("a name is up to {MAX_NAME} bytes of UTF-8 without control characters")
            }
            OperationRefusal::AssetNotFound(code) => format!("there is no asset {code:?}"),
            OperationRefusal::AssetExists(code) => format!("asset {code:?} exists already"),
            OperationRefusal::TooManyAssets => format!("there are {MAX_ASSETS} assets already"),
            OperationRefusal::AssetMismatch => "the accounts hold different assets".to_owned(),
            OperationRefusal::AccountClosed(name) => format!("account {name:?} is closed"),
            OperationRefusal::AccountFrozen(name) => format!("the status of account {name:?} does not let this through"),
            OperationRefusal::AccountNotEmpty(name) => {
                format!("account {name:?} can be closed only with a balance of 0")
            }
            OperationRefusal::BalanceLimit(name) => format!("account {name:?} would have more than it may"),
            OperationRefusal::AccountExists(name) => format!("account {name:?} exists already"),
            OperationRefusal::AccountNotFound(name) => format!("there is no account {name:?}"),
            OperationRefusal::SameAccount(name) => format!("source and destination are both {name:?}"),
            OperationRefusal::InsufficientFunds { account, available, amount } => {
                format!("account {account:?}: {available} is available, which is below {amount}")
            }
            OperationRefusal::BalanceOverflow(amount) => {
                format!("by {amount}, a balance or the sum of all of its asset would go beyond {MAX_BALANCE}")
            }
            OperationRefusal::NotAuthorised => OPERATION.to_owned(),
            OperationRefusal::LimitExceeded => {
                "it is more than the principal may move by one transaction, or today".to_owned()
            }
        };
        Refusal::refused(self.code(), message)
    }
}

/// The answer to a bulk without a command.
pub(super) fn bulk_empty() -> Refusal {
    Refusal::refused(ErrorCode::BulkEmpty, "a bulk has at least one command")
}

/// The answer to a bulk with too many commands.
pub(super) fn bulk_too_large(commands: u64) -> Refusal {
    let message = format!("a bulk has at most {MAX_BULK} commands, this one has {commands}");
    Refusal::refused(ErrorCode::BulkTooLarge, message)
}
