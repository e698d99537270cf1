//! What can be asked of the bank, and what it answers: commands, queries, records, refusals.
//!
//! A *command* changes state and goes through the replicated log; a *query* reads. A refusal is an answer like any
//! other: it is the same on every node.

mod amount;
mod answer;
mod asset;
mod batched;
mod command;
mod query;
mod record;
mod refusal;
mod settings;
mod statistics;
mod status;

pub use amount::{Amount, Bound, DEFAULT_TRANSACTION_LIMIT, MAX_BALANCE, is_valid_balance};
pub use answer::{ItemResult, Success};
pub use asset::{Asset, AssetCode, CreateAsset, MAX_ASSET_CODE, MAX_ASSETS, MAX_SCALE, OwnAsset, is_valid_asset};
pub(crate) use command::AnyCommand;
pub use command::{Bulk, Command, MAX_BULK, Operation, OperationKind};
pub use query::{DEFAULT_PAGE, HistoryFilter, MAX_PAGE, Query, ReadLevel};
pub use record::{
    Account, AccountId, MAX_ACCOUNT_ID, SideProofs, Transaction, TransactionType, TypeName, is_valid_account_id,
    leg_hash,
};
pub use refusal::{ErrorCode, Outcome, Refusal};
pub use settings::{AccountStatus, CreateAccount, MAX_CODE, MAX_NAME, SetAccount, is_valid_code, is_valid_name};
pub use statistics::{HourVolume, Statistics, Volume};
pub use status::{Process, Status};

pub use crate::open::OtherFields;
