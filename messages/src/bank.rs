//! What can be asked of the bank, and what it answers: commands, queries, records, refusals.
//!
//! A *command* changes state and goes through the replicated log; a *query* reads. A refusal is an answer like any
//! other: it is the same on every node.

use std::fmt;

use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{self, Digest, Millis, NodeId, Slot};
use crate::number;
pub use crate::open::{OtherFields, TypeName};
use crate::stages::{self, Stages};

/// The largest balance, and the largest sum of all balances: 2^53 − 1, exact in every client language.
pub const MAX_BALANCE: u64 = (1 << 53) - 1;

/// The most commands in one bulk.
pub const MAX_BULK: usize = 10_000;

/// The most characters in an account id.
pub const MAX_ACCOUNT_ID: usize = 50;

/// The most records on one page of a query.
pub const MAX_PAGE: u32 = 1_000;

/// The records on one page where the query names no limit.
pub const DEFAULT_PAGE: u32 = 100;

/// The limit per transaction where the cluster's creator named none, in minor units.
pub const DEFAULT_TRANSACTION_LIMIT: u64 = 1_000_000_000;

/// The name of an account. What a client sends may be no valid name; only [`is_valid_account_id`] names are created.
pub type AccountId = Box<str>;

/// Whether `id` is 1 to [`MAX_ACCOUNT_ID`] characters of `A–Z a–z 0–9 _ - . :`.
pub fn is_valid_account_id(id: &str) -> bool {
    (1..=MAX_ACCOUNT_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
}

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

    /// An amount of minor units.
    pub fn new(minor_units: u64) -> Amount {
        Amount(minor_units)
    }

    /// The minor units.
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

/// One change of the books. Checks run in the order given; the first that fails is the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Opens an account: `invalid_account_id`, `invalid_amount`, `account_exists`, `balance_overflow`.
    CreateAccount {
        /// The new account.
        account_id: AccountId,
        /// Its first balance; may be 0. Above 0 it is an opening transaction.
        initial_balance: Amount,
    },
    /// Brings money in: `invalid_account_id`, `invalid_amount`, `account_not_found`, `balance_overflow`.
    Deposit {
        /// Where it goes.
        account_id: AccountId,
        /// How much.
        amount: Amount,
    },
    /// Takes money out: `invalid_account_id`, `invalid_amount`, `account_not_found`, `insufficient_funds`.
    Withdraw {
        /// Where it comes from.
        account_id: AccountId,
        /// How much.
        amount: Amount,
    },
    /// Moves money: `invalid_account_id` (source, then destination), `invalid_amount`, `same_account`, `account_not_found`
    /// (source, then destination), `insufficient_funds`, `balance_overflow`.
    Transfer {
        /// Where it comes from.
        from_account: AccountId,
        /// Where it goes.
        to_account: AccountId,
        /// How much.
        amount: Amount,
    },
}

/// A client's list of operations, in one request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// 1 to [`MAX_BULK`] operations, applied in this order.
    pub commands: Vec<Operation>,
    /// All or none (the answer then names the index that failed), or each on its own.
    pub atomic: bool,
}

/// What a client asks to have changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// One operation.
    One(Operation),
    /// Several: `bulk_empty`, `bulk_too_large`, and what the operations answer.
    Bulk(Bulk),
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Command::One(operation) => operation.serialize(serializer),
            Command::Bulk(bulk) => serializer.serialize_newtype_variant("Command", 4, "bulk", bulk),
        }
    }
}

const COMMANDS: &[&str] = &["create_account", "deposit", "withdraw", "transfer", "bulk"];

/// On the wire an operation and a bulk stand side by side, `{"transfer": {…}}` or `{"bulk": {…}}`. Written by hand
/// because serde's untagged enums would copy a bulk of 10,000 into a tree first.
impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Name {
            CreateAccount,
            Deposit,
            Withdraw,
            Transfer,
            Bulk,
        }

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct CreateAccount {
            account_id: AccountId,
            initial_balance: Amount,
        }

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct OneAccount {
            account_id: AccountId,
            amount: Amount,
        }

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Transfer {
            from_account: AccountId,
            to_account: AccountId,
            amount: Amount,
        }

        struct ByName;
        impl<'de> Visitor<'de> for ByName {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Command, A::Error> {
                let (name, fields) = data.variant::<Name>()?;
                Ok(match name {
                    Name::CreateAccount => {
                        let CreateAccount { account_id, initial_balance } = fields.newtype_variant()?;
                        Command::One(Operation::CreateAccount { account_id, initial_balance })
                    }
                    Name::Deposit => {
                        let OneAccount { account_id, amount } = fields.newtype_variant()?;
                        Command::One(Operation::Deposit { account_id, amount })
                    }
                    Name::Withdraw => {
                        let OneAccount { account_id, amount } = fields.newtype_variant()?;
                        Command::One(Operation::Withdraw { account_id, amount })
                    }
                    Name::Transfer => {
                        let Transfer { from_account, to_account, amount } = fields.newtype_variant()?;
                        Command::One(Operation::Transfer { from_account, to_account, amount })
                    }
                    Name::Bulk => Command::Bulk(fields.newtype_variant()?),
                })
            }
        }
        deserializer.deserialize_enum("Command", COMMANDS, ByName)
    }
}

/// The kind of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionType {
    /// The first balance of an account.
    Opening,
    /// Money brought in.
    Deposit,
    /// Money taken out.
    Withdrawal,
    /// Money moved between two accounts.
    Transfer,
}

impl TransactionType {
    /// All of them, in a fixed order.
    pub const ALL: [TransactionType; 4] =
        [TransactionType::Opening, TransactionType::Deposit, TransactionType::Withdrawal, TransactionType::Transfer];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            TransactionType::Opening => "opening",
            TransactionType::Deposit => "deposit",
            TransactionType::Withdrawal => "withdrawal",
            TransactionType::Transfer => "transfer",
        }
    }
}

/// What can be asked without changing anything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// The account, or `account_not_found`.
    GetAccount {
        /// Which one.
        account_id: AccountId,
    },
    /// The balance alone, or `account_not_found`.
    GetBalance {
        /// Of which account.
        account_id: AccountId,
    },
    /// Accounts by id, in byte order.
    ListAccounts {
        /// Only ids above this one: the `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<AccountId>,
        /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] where absent.
        #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
        limit: Option<u32>,
    },
    /// Transactions, newest first.
    GetTransactionHistory(HistoryFilter),
    /// One transaction, or `transaction_not_found`.
    GetTransaction {
        /// Which one, from 1.
        #[serde(deserialize_with = "number::whole")]
        transaction_id: u64,
    },
    /// Figures over the whole bank.
    GetStatistics {
        /// Transactions of at least this amount are listed as large; a tenth of the transaction limit where absent.
        #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
        large_amount: Option<u64>,
    },
    /// The state of the node that is asked. Always answered at once, from what it has applied.
    GetStatus {},
}

/// Which transactions a history query wants. Every condition that is there must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryFilter {
    /// Those that touch this account; `account_not_found` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// Those of this type.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub transaction_type: Option<TransactionType>,
    /// Those at or after this time.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub from_time: Option<Millis>,
    /// Those at or before this time.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Millis>,
    /// Those with a lower id: the `next` of the page before.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// 1 to [`MAX_PAGE`]; [`DEFAULT_PAGE`] where absent.
    #[serde(default, deserialize_with = "number::optional", skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How fresh a query's answer must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadLevel {
    /// It sees every command that was acknowledged, anywhere, before the query was sent.
    #[default]
    Linearizable,
    /// What this node has applied.
    Local,
    /// What this node has applied, once that reaches this slot.
    AtLeast(#[serde(deserialize_with = "number::whole")] Slot),
}

/// An account.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Account {
    /// Its name.
    pub account_id: AccountId,
    /// Minor units, 0 to [`MAX_BALANCE`].
    pub balance: u64,
    /// Log time of its creation.
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

/// A change of one balance or two. Never changed, never deleted.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Transaction {
    /// 1, 2, 3 …, the same on every node.
    pub transaction_id: u64,
    /// Its kind.
    #[serde(rename = "type")]
    pub transaction_type: TypeName,
    /// Where the money came from.
    #[serde(default)]
    pub from_account: Option<AccountId>,
    /// Where it went.
    #[serde(default)]
    pub to_account: Option<AccountId>,
    /// Minor units, above 0. Of a type that this program does not know it may be absent; then it is 0 here.
    #[serde(default)]
    pub amount: u64,
    /// The source's balance after it.
    #[serde(default)]
    pub from_balance: Option<u64>,
    /// The destination's balance after it.
    #[serde(default)]
    pub to_balance: Option<u64>,
    /// Log time, monotonic.
    pub timestamp: Millis,
    /// The slot that carried it.
    pub slot: Slot,
    /// Over the record and the hash before it.
    #[serde(with = "ids::text")]
    pub hash: Digest,
    /// Fields that this program does not know.
    #[serde(flatten, skip_serializing)]
    pub other: OtherFields,
}

/// How many transactions, and their amounts added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Volume {
    /// How many.
    pub count: u64,
    /// Minor units; stays at 2^53 − 1 once there.
    pub volume: u64,
}

/// The transactions of one hour of log time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HourVolume {
    /// The hour's first millisecond.
    pub hour: Millis,
    /// Its transactions.
    #[serde(flatten)]
    pub total: Volume,
}

/// Figures over the whole bank.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statistics {
    /// How many accounts.
    pub accounts: u64,
    /// The sum of all balances.
    pub total_balance: u64,
    /// All transactions.
    pub transactions: Volume,
    /// By type, every type present.
    pub by_type: std::collections::BTreeMap<TypeName, Volume>,
    /// By hour, the latest 48 hours that had any, oldest first.
    pub by_hour: Vec<HourVolume>,
    /// The ten with the highest balance.
    pub largest_accounts: Vec<Account>,
    /// The ten with the most transactions.
    pub most_active_accounts: Vec<Account>,
    /// From which amount on a transaction is listed as large.
    pub large_amount: u64,
    /// The ten newest large transactions, newest first.
    pub large_transactions: Vec<Transaction>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: OtherFields,
}

/// The state of a node and what it has applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The node that answers.
    pub node: NodeId,
    /// The cluster it belongs to.
    #[serde(with = "ids::text")]
    pub cluster: ids::ClusterId,
    /// The version of its program.
    pub version: String,
    /// How many members the cluster has.
    pub members: usize,
    /// Peers with a working link.
    pub connected: Vec<NodeId>,
    /// Whether it has met a quorum that lets it speak since its start. Until then it answers no read of what is on its disk.
    #[serde(default = "yes")]
    pub admitted: bool,
    /// Whether another member has another log or another state, so that it answers no client.
    #[serde(default)]
    pub in_doubt: bool,
    /// The last slot applied.
    pub applied_slot: Slot,
    /// Slots that carried a batch.
    pub decided_slots: u64,
    /// Slots that were forfeited.
    pub null_slots: u64,
    /// Batches that were decided a second time, and changed nothing then.
    pub repeated_batches: u64,
    /// Batches that were decided and can't be applied: every node applied them as empty ones. Not 0 means that a node is or was
    /// damaged, or ran another program.
    #[serde(default)]
    pub unusable_batches: u64,
    /// Phases of the slots that this node decided itself: how many took 1, 2, 3, and 4 or more.
    pub phases: [u64; 4],
    /// The slot that the last snapshot on its disk stands after: a start applies what came behind it.
    pub snapshot_slot: Slot,
    /// The furthest slot that it knows of: its own, or a peer's. It catches up where that is above `applied_slot`.
    pub known_slot: Slot,
    /// Bytes that came so far of a snapshot that it is being sent, since its peers' logs do not go back to where it is; 0 if it is
    /// sent none.
    pub receiving_bytes: u64,
    /// Undecided slots that are in agreement now.
    pub open_slots: u64,
    /// How many accounts.
    pub accounts: u64,
    /// How many transactions.
    pub transactions: u64,
    /// The sum of all balances.
    pub total_balance: u64,
    /// How many sessions are open.
    pub sessions: u64,
    /// Connections of clients to this node.
    pub clients: u64,
    /// How many it takes at most: by its limits, or by what its process may have open.
    #[serde(default)]
    pub max_clients: u64,
    /// How many files and sockets its process may have open.
    #[serde(default)]
    pub descriptors: u64,
    /// The hash of the last history record.
    #[serde(with = "ids::text")]
    pub chain_head: Digest,
    /// Covers accounts, sessions and the head of the chain, at `applied_slot`.
    #[serde(with = "ids::text")]
    pub state_digest: Digest,
    /// The time that sessions expire by: the highest stamp of a batch applied, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub log_time: Millis,
    /// This node's clock less the median of all that it knows of, in milliseconds: below 0 it is behind. Where only one other is
    /// known, less that one.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// How far this node's clock shows beyond what monotonic clocks confirm, in milliseconds, if that is more than an hour: it is not
    /// believed then. Else 0.
    #[serde(default)]
    pub clock_leap_ms: Millis,
    /// Durable commits since the start, each one sync of the disk.
    pub commits: u64,
    /// Seconds since the node's start.
    pub uptime_s: u64,
    /// What the process has used so far.
    pub process: Process,
    /// How long each stage of this node's work took, since its start.
    #[serde(deserialize_with = "stages::known")]
    pub stages: Stages,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: OtherFields,
}

/// Nodes that do not say it answer whoever asks.
fn yes() -> bool {
    true
}

/// What a node's process has used since it began, as the system counts it. A process that holds several nodes, or more than
/// nodes, counts all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Processor time of all threads, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory it ever had, in bytes.
    pub peak_memory_bytes: u64,
    /// What it sent to disks, in bytes.
    pub written_bytes: u64,
}

/// Why something was not done. Stable: programs may rely on the names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ErrorCode {
    /// An account id is 1 to 50 characters of `A–Z a–z 0–9 _ - . :`.
    InvalidAccountId,
    /// Not a whole number from 1 (an initial balance: 0) to the cluster's limit per transaction.
    InvalidAmount,
    /// There is an account of this name.
    AccountExists,
    /// There is no account of this name.
    AccountNotFound,
    /// There is no transaction of this id.
    TransactionNotFound,
    /// The balance is below the amount.
    InsufficientFunds,
    /// A balance, or the sum of all, would exceed 2^53 − 1.
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
    /// The caller may not ask this.
    NotAuthorised,
    /// The node is shutting down.
    Stopping,
    /// The word of a later version. What it means for the request, the outcome says.
    Other(Box<str>),
}

impl ErrorCode {
    /// All that this program knows.
    pub const ALL: [ErrorCode; 21] = [
        ErrorCode::InvalidAccountId,
        ErrorCode::InvalidAmount,
        ErrorCode::AccountExists,
        ErrorCode::AccountNotFound,
        ErrorCode::TransactionNotFound,
        ErrorCode::InsufficientFunds,
        ErrorCode::BalanceOverflow,
        ErrorCode::SameAccount,
        ErrorCode::BulkEmpty,
        ErrorCode::BulkTooLarge,
        ErrorCode::RequestReused,
        ErrorCode::RequestAcknowledged,
        ErrorCode::SessionExpired,
        ErrorCode::TooManySessions,
        ErrorCode::Busy,
        ErrorCode::NoQuorum,
        ErrorCode::NotYetApplied,
        ErrorCode::Malformed,
        ErrorCode::TooLarge,
        ErrorCode::NotAuthorised,
        ErrorCode::Stopping,
    ];

    /// The name on the wire.
    pub fn name(&self) -> &str {
        match self {
            ErrorCode::InvalidAccountId => "invalid_account_id",
            ErrorCode::InvalidAmount => "invalid_amount",
            ErrorCode::AccountExists => "account_exists",
            ErrorCode::AccountNotFound => "account_not_found",
            ErrorCode::TransactionNotFound => "transaction_not_found",
            ErrorCode::InsufficientFunds => "insufficient_funds",
            ErrorCode::BalanceOverflow => "balance_overflow",
            ErrorCode::SameAccount => "same_account",
            ErrorCode::BulkEmpty => "bulk_empty",
            ErrorCode::BulkTooLarge => "bulk_too_large",
            ErrorCode::RequestReused => "request_reused",
            ErrorCode::RequestAcknowledged => "request_acknowledged",
            ErrorCode::SessionExpired => "session_expired",
            ErrorCode::TooManySessions => "too_many_sessions",
            ErrorCode::Busy => "busy",
            ErrorCode::NoQuorum => "no_quorum",
            ErrorCode::NotYetApplied => "not_yet_applied",
            ErrorCode::Malformed => "malformed",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::NotAuthorised => "not_authorised",
            ErrorCode::Stopping => "stopping",
            ErrorCode::Other(name) => name,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// The result of one command of a bulk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "ItemFields")]
pub enum ItemResult {
    /// It was applied.
    Ok(Success),
    /// It was refused and changed nothing.
    Error(Refusal),
}

/// Every field that a result may have.
#[derive(Deserialize)]
struct ItemFields {
    ok: Option<Success>,
    error: Option<Refusal>,
}

impl TryFrom<ItemFields> for ItemResult {
    type Error = &'static str;

    fn try_from(fields: ItemFields) -> Result<ItemResult, &'static str> {
        match (fields.ok, fields.error) {
            (Some(success), None) => Ok(ItemResult::Ok(success)),
            (None, Some(refusal)) => Ok(ItemResult::Error(refusal)),
            _ => Err("expected either ok or error"),
        }
    }
}

/// What a command or query that was carried out answers: the fields of `"ok"`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, try_from = "SuccessFields")]
pub enum Success {
    /// Of `create_account` (with the opening transaction, if the balance is above 0) and of `get_account`.
    Account {
        /// The account.
        account: Account,
        /// Its opening.
        #[serde(skip_serializing_if = "Option::is_none")]
        transaction: Option<Transaction>,
    },
    /// Of `deposit`, `withdraw`, `transfer`, `get_transaction`.
    Transaction {
        /// The transaction.
        transaction: Transaction,
    },
    /// Of `bulk`.
    Results {
        /// One per command, in their order.
        results: Vec<ItemResult>,
    },
    /// Of `get_balance`.
    Balance {
        /// Minor units.
        balance: u64,
    },
    /// Of `list_accounts`.
    Accounts {
        /// By id.
        accounts: Vec<Account>,
        /// The `after` of the next page, if there is more.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<AccountId>,
    },
    /// Of `get_transaction_history`.
    Transactions {
        /// Newest first.
        transactions: Vec<Transaction>,
        /// The `before` of the next page, if there is more.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
    },
    /// Of `get_statistics`.
    Statistics {
        /// The figures.
        statistics: Box<Statistics>,
    },
    /// Of `get_status`.
    Status {
        /// The node's state.
        status: Box<Status>,
    },
    /// Of `subscribe`.
    Subscribed {
        /// The first transaction that may come.
        from: u64,
    },
    /// Of a command or query of a later version: it was carried out, and this is all that it says.
    Other(OtherFields),
}

/// `next` is an account id or a transaction id, as the page's records are.
#[derive(Deserialize)]
#[serde(untagged)]
enum Next {
    Account(AccountId),
    Transaction(u64),
}

/// Every field that `"ok"` may have. Which are there says which [`Success`] it is.
#[derive(Deserialize)]
struct SuccessFields {
    account: Option<Account>,
    transaction: Option<Transaction>,
    results: Option<Vec<ItemResult>>,
    balance: Option<u64>,
    accounts: Option<Vec<Account>>,
    transactions: Option<Vec<Transaction>>,
    statistics: Option<Box<Statistics>>,
    status: Option<Box<Status>>,
    from: Option<u64>,
    next: Option<Next>,
    #[serde(flatten)]
    other: OtherFields,
}

impl TryFrom<SuccessFields> for Success {
    type Error = &'static str;

    fn try_from(fields: SuccessFields) -> Result<Success, &'static str> {
        Ok(match fields {
            SuccessFields { account: Some(account), transaction, .. } => Success::Account { account, transaction },
            SuccessFields { transaction: Some(transaction), .. } => Success::Transaction { transaction },
            SuccessFields { results: Some(results), .. } => Success::Results { results },
            SuccessFields { balance: Some(balance), .. } => Success::Balance { balance },
            SuccessFields { accounts: Some(accounts), next, .. } => Success::Accounts {
                accounts,
                next: match next {
                    None => None,
                    Some(Next::Account(id)) => Some(id),
                    Some(Next::Transaction(_)) => return Err("the next page of accounts starts at an account id"),
                },
            },
            SuccessFields { transactions: Some(transactions), next, .. } => Success::Transactions {
                transactions,
                next: match next {
                    None => None,
                    Some(Next::Transaction(id)) => Some(id),
                    Some(Next::Account(_)) => return Err("the next page of a history starts at a transaction id"),
                },
            },
            SuccessFields { statistics: Some(statistics), .. } => Success::Statistics { statistics },
            SuccessFields { status: Some(status), .. } => Success::Status { status },
            SuccessFields { from: Some(from), .. } => Success::Subscribed { from },
            SuccessFields { other, .. } if !other.is_empty() => Success::Other(other),
            _ => return Err("an answer without a field"),
        })
    }
}
