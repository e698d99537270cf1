//! What changes the books.

use std::fmt;

use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::amount::Amount;
use super::record::AccountId;

/// Commands in one bulk at most: what it costs to apply one keeps all others waiting.
pub const MAX_BULK: usize = 10_000;

/// One change of the books. Checks run in the order given; the first that fails is the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Opens an account: `invalid_account_id`, `invalid_amount`, `account_exists`, `balance_overflow`.
    CreateAccount {
        /// Its name: see [`is_valid_account_id`](super::is_valid_account_id).
        account_id: AccountId,
        /// Its first balance; may be 0. Above 0 it is an opening transaction.
        initial_balance: Amount,
    },
    /// Brings money in: `invalid_account_id`, `invalid_amount`, `account_not_found`, `balance_overflow`.
    Deposit {
        /// The account that gets it.
        account_id: AccountId,
        /// Minor units, 1 to the limit per transaction.
        amount: Amount,
    },
    /// Takes money out: `invalid_account_id`, `invalid_amount`, `account_not_found`, `insufficient_funds`.
    Withdraw {
        /// The account that gives it.
        account_id: AccountId,
        /// Minor units, 1 to the limit per transaction.
        amount: Amount,
    },
    /// Moves money: `invalid_account_id` (source, then destination), `invalid_amount`, `same_account`, `account_not_found`
    /// (source, then destination), `insufficient_funds`, `balance_overflow`.
    Transfer {
        /// The account that gives it.
        from_account: AccountId,
        /// The account that gets it; must be another one.
        to_account: AccountId,
        /// Minor units, 1 to the limit per transaction.
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
    /// A single operation.
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
