//! What changes the books.

use std::fmt;

use serde::de::value::{EnumAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::amount::Amount;
use super::asset::CreateAsset;
use super::record::AccountId;
use super::settings::{CreateAccount, SetAccount};
use crate::named::named;
use crate::principal::{Admin, AdminKind};

/// Commands in one bulk at most: what it costs to apply one keeps all others waiting.
pub const MAX_BULK: usize = 10_000;

/// One change of the books. Checks run in the order given; the first that fails is the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Opens an account: `invalid_account_id`, `invalid_asset`, `invalid_bounds`, `invalid_code`, `invalid_name`, `not_authorised`,
    /// `invalid_amount`, `account_exists`, `asset_not_found`, `limit_exceeded`, `balance_limit`, `balance_overflow`. Always a
    /// transaction, also of amount 0.
    CreateAccount(Box<CreateAccount>),
    /// Brings money in: `invalid_account_id`, `not_authorised`, `invalid_amount`, `account_not_found`, `account_closed`,
    /// `account_frozen`, `limit_exceeded`, `balance_limit`, `balance_overflow`.
    Deposit {
        /// The account that gets it.
        account_id: AccountId,
        /// Minor units, 1 to the limit per transaction.
        amount: Amount,
    },
    /// Takes money out: `invalid_account_id`, `not_authorised`, `invalid_amount`, `account_not_found`, `account_closed`,
    /// `account_frozen`, `limit_exceeded`, `insufficient_funds`, `balance_overflow`.
    Withdraw {
        /// The account that gives it.
        account_id: AccountId,
        /// Minor units, 1 to the limit per transaction.
        amount: Amount,
    },
    /// Moves money: `invalid_account_id`, `not_authorised`, `invalid_amount`, `same_account`, `account_not_found`, `asset_mismatch`,
    /// `account_closed`, `account_frozen`, `limit_exceeded`, `insufficient_funds`, `balance_limit`, `balance_overflow`. Of the two
    /// accounts the source is looked at first.
    Transfer {
        /// The account that gives it.
        from_account: AccountId,
        /// The account that gets it; must be another one.
        to_account: AccountId,
        /// Minor units, 1 to the limit per transaction.
        amount: Amount,
    },
    /// Changes what an account lets happen, and what is said of it: `invalid_account_id`, `invalid_bounds`, `invalid_code`,
    /// `invalid_name`, `not_authorised`, `account_not_found`, `account_closed`, `account_not_empty`.
    SetAccount(Box<SetAccount>),
    /// Brings an asset into being: `invalid_asset`, `not_authorised`, `asset_exists`, `too_many_assets`.
    CreateAsset(CreateAsset),
}

impl Operation {
    /// Opens an account with the usual settings, of the cluster's own asset.
    pub fn create_account(account_id: impl Into<AccountId>, initial_balance: Amount) -> Operation {
        Operation::CreateAccount(Box::new(CreateAccount::new(account_id, initial_balance)))
    }
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
    /// One operation, in a request of its own.
    One(Operation),
    /// Several: `bulk_empty`, `bulk_too_large`, and what the operations answer.
    Bulk(Bulk),
}

/// The name of an operation on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)] // see `Operation`
pub enum OperationKind {
    CreateAccount,
    Deposit,
    Withdraw,
    Transfer,
    SetAccount,
    CreateAsset,
}

named!(OperationKind {
    CreateAccount = "create_account",
    Deposit = "deposit",
    Withdraw = "withdraw",
    Transfer = "transfer",
    SetAccount = "set_account",
    CreateAsset = "create_asset",
});

impl Operation {
    /// Which one it is.
    pub fn kind(&self) -> OperationKind {
        match self {
            Operation::CreateAccount(_) => OperationKind::CreateAccount,
            Operation::Deposit { .. } => OperationKind::Deposit,
            Operation::Withdraw { .. } => OperationKind::Withdraw,
            Operation::Transfer { .. } => OperationKind::Transfer,
            Operation::SetAccount(_) => OperationKind::SetAccount,
            Operation::CreateAsset(_) => OperationKind::CreateAsset,
        }
    }
}

/// The word for several operations, beside the names of each.
const BULK: &str = "bulk";

/// What a command may be, for who sends another one.
const COMMANDS: [&str; OperationKind::ALL.len() + 1] = {
    let mut commands = [BULK; OperationKind::ALL.len() + 1];
    let mut place = 0;
    while place < OperationKind::ALL.len() {
        commands[place] = OperationKind::ALL[place].name();
        place += 1;
    }
    commands
};

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Command::One(operation) => operation.serialize(serializer),
            Command::Bulk(bulk) => {
                let index = OperationKind::ALL.len() as u32;
                serializer.serialize_newtype_variant("Command", index, BULK, bulk)
            }
        }
    }
}

/// On the wire an operation and a bulk stand side by side, `{"transfer": {…}}` or `{"bulk": {…}}`. Written by hand
/// because serde's untagged enums would copy a bulk of 10,000 into a tree first.
impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByName;
        impl<'de> Visitor<'de> for ByName {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Command, A::Error> {
                let (name, fields) = data.variant::<Name>()?;
                command(name, fields)
            }
        }
        deserializer.deserialize_enum("Command", &COMMANDS, ByName)
    }
}

/// A command of the bank or of an administrator: on the wire they stand side by side.
pub(crate) enum AnyCommand {
    Bank(Command),
    Admin(Box<Admin>),
}

impl<'de> Deserialize<'de> for AnyCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByName;
        impl<'de> Visitor<'de> for ByName {
            type Value = AnyCommand;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<AnyCommand, A::Error> {
                let (name, fields) = data.variant::<AnyName>()?;
                match name {
                    AnyName::Bank(name) => command(name, fields).map(AnyCommand::Bank),
                    AnyName::Admin(name) => {
                        let admin = EnumAccessDeserializer::new(Known { name, fields });
                        Admin::deserialize(admin).map(|admin| AnyCommand::Admin(Box::new(admin)))
                    }
                }
            }
        }
        deserializer.deserialize_enum("Command", &COMMANDS, ByName)
    }
}

/// What stands before the fields of any command.
enum AnyName {
    Bank(Name),
    Admin(&'static str),
}

impl<'de> Deserialize<'de> for AnyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AnyName, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = AnyName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a command")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<AnyName, E> {
                match AdminKind::word(name) {
                    Some(name) => Ok(AnyName::Admin(name)),
                    None => Name::named(name).map(AnyName::Bank),
                }
            }
        }
        deserializer.deserialize_identifier(Word)
    }
}

/// The command of this name, with these fields.
fn command<'de, A: VariantAccess<'de>>(name: Name, fields: A) -> Result<Command, A::Error> {
    match name {
        Name::Bulk => fields.newtype_variant().map(Command::Bulk),
        Name::One(kind) => {
            let operation = EnumAccessDeserializer::new(Known { name: kind.name(), fields });
            Operation::deserialize(operation).map(Command::One)
        }
    }
}

/// What stands before the fields of a command.
enum Name {
    One(OperationKind),
    Bulk,
}

impl Name {
    fn named<E: de::Error>(name: &str) -> Result<Name, E> {
        match OperationKind::named(name) {
            Some(kind) => Ok(Name::One(kind)),
            None if name == BULK => Ok(Name::Bulk),
            None => Err(E::unknown_variant(name, &COMMANDS)),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a command")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Name, E> {
                Name::named(name)
            }
        }
        deserializer.deserialize_identifier(Word)
    }
}

/// An operation of which the name has been read.
struct Known<A> {
    name: &'static str,
    fields: A,
}

impl<'de, A: VariantAccess<'de>> EnumAccess<'de> for Known<A> {
    type Error = A::Error;
    type Variant = A;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, A), A::Error> {
        let name: StrDeserializer<'_, A::Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.fields))
    }
}
