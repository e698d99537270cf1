//! What a session keeps of an outcome: the numbers in it, and nothing that a client wrote.
//!
//! A reply is kept for a retry, and a retry brings the command again. So names and amounts are taken from there, and a result
//! takes the same few bytes whatever it says. That is what makes a bound on kept replies one in bytes.

use std::sync::Arc;

use rabia_bank_messages::bank::{Bulk, Command, MAX_BULK, Operation};

use super::Bank;
use super::account::AccountIndex;
use super::outcomes::{CommandOutcome, Done, Kind, OperationOutcome, OperationRefusal, shortened};
use crate::machine::Kept;

/// What one result takes, in bytes.
const RESULT_BYTES: usize = size_of::<KeptResult>();
const _: () = assert!(RESULT_BYTES == 16, "kept results have grown, and with them what sessions may take");

/// What is kept of a [`CommandOutcome`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeptOutcome {
    One(KeptResult),
    Bulk(Arc<[KeptResult]>),
    BulkUndone { index: u32, refusal: KeptRefusal },
    BulkEmpty,
    BulkTooLarge { commands: u64 },
}

/// What is kept of the outcome of one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptResult {
    // The fields of `Done` lie here side by side with the refusal's, which takes fewer bytes than one in the other.
    Created(AccountIndex),
    Opened(u64),
    Moved(u64),
    Refused(KeptRefusal),
}

/// What is kept of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptRefusal {
    InvalidAccountId(Side),
    InvalidAsset,
    InvalidBounds,
    InvalidCode,
    InvalidName,
    /// The least that is allowed.
    InvalidAmount(u64),
    AccountExists,
    AccountNotFound(Side),
    AssetNotFound,
    AssetExists,
    TooManyAssets,
    AssetMismatch,
    SameAccount,
    AccountClosed(Side),
    AccountFrozen(Side),
    AccountNotEmpty,
    /// What was available of the source then.
    InsufficientFunds(i64),
    BalanceLimit(Side),
    BalanceOverflow,
    NotAuthorised,
    LimitExceeded,
}

/// Which account of an operation is spoken of: the destination of a transfer, or else the first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    First,
    Second,
}

impl Kept<Bank> for KeptOutcome {
    fn of(outcome: &CommandOutcome, command: &Command) -> KeptOutcome {
        match &outcome.0 {
            Kind::One(outcome) => KeptOutcome::One(KeptResult::of(outcome, operation(command, 0))),
            Kind::Bulk(outcomes) => {
                let kept = outcomes.iter().enumerate();
                KeptOutcome::Bulk(kept.map(|(index, of)| KeptResult::of(of, operation(command, index))).collect())
            }
            Kind::BulkUndone { index, refusal } => {
                let refusal = KeptRefusal::of(refusal, operation(command, *index as usize));
                KeptOutcome::BulkUndone { index: *index, refusal }
            }
            Kind::BulkEmpty => KeptOutcome::BulkEmpty,
            Kind::BulkTooLarge { commands } => KeptOutcome::BulkTooLarge { commands: *commands },
        }
    }

    fn restore(&self, command: &Command) -> CommandOutcome {
        CommandOutcome(match self {
            KeptOutcome::One(result) => Kind::One(result.restore(operation(command, 0))),
            KeptOutcome::Bulk(results) => {
                let outcomes = results.iter().enumerate();
                Kind::Bulk(outcomes.map(|(index, result)| result.restore(operation(command, index))).collect())
            }
            KeptOutcome::BulkUndone { index, refusal } => {
                let refusal = Box::new(refusal.restore(operation(command, *index as usize)));
                Kind::BulkUndone { index: *index, refusal }
            }
            KeptOutcome::BulkEmpty => Kind::BulkEmpty,
            KeptOutcome::BulkTooLarge { commands } => Kind::BulkTooLarge { commands: *commands },
        })
    }

    fn most_bytes(command: &Command) -> usize {
        match command {
            Command::One(_) => RESULT_BYTES,
            Command::Bulk(bulk) => RESULT_BYTES * bulk.commands.len().clamp(1, MAX_BULK),
        }
    }

    fn speaks_of(&self, bank: &Bank) -> bool {
        let (accounts, transactions) = (bank.accounts.len(), bank.history.len());
        let results = match self {
            KeptOutcome::One(result) => std::slice::from_ref(result),
            KeptOutcome::Bulk(results) => results,
            KeptOutcome::BulkUndone { .. } | KeptOutcome::BulkEmpty | KeptOutcome::BulkTooLarge { .. } => &[],
        };
        results.iter().all(|result| match result {
            KeptResult::Created(account) => (account.number() as usize) < accounts,
            KeptResult::Opened(id) | KeptResult::Moved(id) => (1..=transactions).contains(id),
            KeptResult::Refused(_) => true,
        })
    }

    fn bytes(&self) -> usize {
        match self {
            KeptOutcome::Bulk(results) => RESULT_BYTES * results.len(),
            _ => RESULT_BYTES,
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            KeptOutcome::One(result) => {
                bytes.push(tag::ONE);
                result.encode(bytes);
            }
            KeptOutcome::Bulk(results) => {
                bytes.push(tag::BULK);
                put(bytes, results.len() as u64);
                results.iter().for_each(|result| result.encode(bytes));
            }
            KeptOutcome::BulkUndone { index, refusal } => {
                bytes.push(tag::BULK_UNDONE);
                put(bytes, u64::from(*index));
                KeptResult::Refused(*refusal).encode(bytes);
            }
            KeptOutcome::BulkEmpty => bytes.push(tag::BULK_EMPTY),
            KeptOutcome::BulkTooLarge { commands } => {
                bytes.push(tag::BULK_TOO_LARGE);
                put(bytes, *commands);
            }
        }
    }

    fn decode(mut bytes: &[u8]) -> Option<KeptOutcome> {
        let rest = &mut bytes;
        let outcome = match take_byte(rest)? {
            tag::ONE => KeptOutcome::One(KeptResult::take(rest)?),
            tag::BULK => {
                let count = usize::try_from(take(rest)?).ok()?;
                // A result has a byte at least, so no length makes this take more than there is.
                (count <= rest.len()).then_some(())?;
                KeptOutcome::Bulk((0..count).map(|_| KeptResult::take(rest)).collect::<Option<_>>()?)
            }
            tag::BULK_UNDONE => {
                let index = u32::try_from(take(rest)?).ok()?;
                let KeptResult::Refused(refusal) = KeptResult::take(rest)? else { return None };
                KeptOutcome::BulkUndone { index, refusal }
            }
            tag::BULK_EMPTY => KeptOutcome::BulkEmpty,
            tag::BULK_TOO_LARGE => KeptOutcome::BulkTooLarge { commands: take(rest)? },
            _ => return None,
        };
        rest.is_empty().then_some(outcome)
    }
}

/// The operation that a result speaks of. `None` if the command has none there, which only two commands with one fingerprint
/// could bring about.
fn operation(command: &Command, index: usize) -> Option<&Operation> {
    match command {
        Command::One(operation) => (index == 0).then_some(operation),
        Command::Bulk(Bulk { commands, .. }) => commands.get(index),
    }
}

/// The accounts and the amount that an operation names.
fn named(operation: Option<&Operation>) -> (&str, &str, u64) {
    match operation {
        Some(Operation::CreateAccount(account)) => (&account.account_id, "", account.initial_balance.get()),
        Some(Operation::SetAccount(change)) => (&change.account_id, "", 0),
        Some(Operation::CreateAsset(_)) => ("", "", 0),
        Some(Operation::Deposit { account_id, amount } | Operation::Withdraw { account_id, amount }) => {
            (account_id, "", amount.get())
        }
        Some(Operation::Transfer { from_account, to_account, amount }) => (from_account, to_account, amount.get()),
        None => ("", "", 0),
    }
}

/// The asset that an operation names.
fn asset(operation: Option<&Operation>) -> &str {
    match operation {
        Some(Operation::CreateAccount(account)) => account.asset.as_deref().unwrap_or(""),
        Some(Operation::CreateAsset(asset)) => &asset.asset,
        _ => "",
    }
}

impl KeptResult {
    fn of(outcome: &OperationOutcome, operation: Option<&Operation>) -> KeptResult {
        match outcome {
            Ok(Done::Created(account)) => KeptResult::Created(*account),
            Ok(Done::Opened(transaction)) => KeptResult::Opened(*transaction),
            Ok(Done::Moved(transaction)) => KeptResult::Moved(*transaction),
            Err(refusal) => KeptResult::Refused(KeptRefusal::of(refusal, operation)),
        }
    }

    fn restore(self, operation: Option<&Operation>) -> OperationOutcome {
        match self {
            KeptResult::Created(account) => Ok(Done::Created(account)),
            KeptResult::Opened(transaction) => Ok(Done::Opened(transaction)),
            KeptResult::Moved(transaction) => Ok(Done::Moved(transaction)),
            KeptResult::Refused(refusal) => Err(Box::new(refusal.restore(operation))),
        }
    }
}

impl KeptRefusal {
    fn of(refusal: &OperationRefusal, operation: Option<&Operation>) -> KeptRefusal {
        let (first, ..) = named(operation);
        let side = |name: &str| if *shortened(first) == *name { Side::First } else { Side::Second };
        match refusal {
            OperationRefusal::InvalidAccountId(name) => KeptRefusal::InvalidAccountId(side(name)),
            OperationRefusal::InvalidAmount(least) => KeptRefusal::InvalidAmount(*least),
            OperationRefusal::AccountExists(_) => KeptRefusal::AccountExists,
            OperationRefusal::AccountNotFound(name) => KeptRefusal::AccountNotFound(side(name)),
            OperationRefusal::InvalidAsset(_) => KeptRefusal::InvalidAsset,
            OperationRefusal::InvalidBounds => KeptRefusal::InvalidBounds,
            OperationRefusal::InvalidCode => KeptRefusal::InvalidCode,
            OperationRefusal::InvalidName => KeptRefusal::InvalidName,
            OperationRefusal::AssetNotFound(_) => KeptRefusal::AssetNotFound,
            OperationRefusal::AssetExists(_) => KeptRefusal::AssetExists,
            OperationRefusal::TooManyAssets => KeptRefusal::TooManyAssets,
            OperationRefusal::AssetMismatch => KeptRefusal::AssetMismatch,
            OperationRefusal::SameAccount(_) => KeptRefusal::SameAccount,
            OperationRefusal::AccountClosed(name) => KeptRefusal::AccountClosed(side(name)),
            OperationRefusal::AccountFrozen(name) => KeptRefusal::AccountFrozen(side(name)),
            OperationRefusal::AccountNotEmpty(_) => KeptRefusal::AccountNotEmpty,
            OperationRefusal::InsufficientFunds { available, .. } => KeptRefusal::InsufficientFunds(*available),
            OperationRefusal::BalanceLimit(name) => KeptRefusal::BalanceLimit(side(name)),
            OperationRefusal::BalanceOverflow(_) => KeptRefusal::BalanceOverflow,
            OperationRefusal::NotAuthorised => KeptRefusal::NotAuthorised,
            OperationRefusal::LimitExceeded => KeptRefusal::LimitExceeded,
        }
    }

    fn restore(self, operation: Option<&Operation>) -> OperationRefusal {
        let (first, second, amount) = named(operation);
        let name = |side| shortened(if side == Side::First { first } else { second });
        match self {
            KeptRefusal::InvalidAccountId(side) => OperationRefusal::InvalidAccountId(name(side)),
            KeptRefusal::InvalidAmount(least) => OperationRefusal::InvalidAmount(least),
            KeptRefusal::AccountExists => OperationRefusal::AccountExists(name(Side::First)),
            KeptRefusal::AccountNotFound(side) => OperationRefusal::AccountNotFound(name(side)),
            KeptRefusal::InvalidAsset => OperationRefusal::InvalidAsset(shortened(asset(operation))),
            KeptRefusal::InvalidBounds => OperationRefusal::InvalidBounds,
            KeptRefusal::InvalidCode => OperationRefusal::InvalidCode,
            KeptRefusal::InvalidName => OperationRefusal::InvalidName,
            KeptRefusal::AssetNotFound => OperationRefusal::AssetNotFound(shortened(asset(operation))),
            KeptRefusal::AssetExists => OperationRefusal::AssetExists(shortened(asset(operation))),
            KeptRefusal::TooManyAssets => OperationRefusal::TooManyAssets,
            KeptRefusal::AssetMismatch => OperationRefusal::AssetMismatch,
            KeptRefusal::SameAccount => OperationRefusal::SameAccount(name(Side::First)),
            KeptRefusal::AccountClosed(side) => OperationRefusal::AccountClosed(name(side)),
            KeptRefusal::AccountFrozen(side) => OperationRefusal::AccountFrozen(name(side)),
            KeptRefusal::AccountNotEmpty => OperationRefusal::AccountNotEmpty(name(Side::First)),
            KeptRefusal::InsufficientFunds(available) => {
                OperationRefusal::InsufficientFunds { account: name(Side::First), available, amount }
            }
            KeptRefusal::BalanceLimit(side) => OperationRefusal::BalanceLimit(name(side)),
            KeptRefusal::BalanceOverflow => OperationRefusal::BalanceOverflow(amount),
            KeptRefusal::NotAuthorised => OperationRefusal::NotAuthorised,
            KeptRefusal::LimitExceeded => OperationRefusal::LimitExceeded,
        }
    }
}

// ----- the bytes of it, in rows and digests: the same for the same outcome, and different for any two -----

/// How an outcome begins.
mod tag {
    pub(super) const ONE: u8 = 1;
    pub(super) const BULK: u8 = 2;
    pub(super) const BULK_UNDONE: u8 = 3;
    pub(super) const BULK_EMPTY: u8 = 4;
    pub(super) const BULK_TOO_LARGE: u8 = 5;
}

impl KeptResult {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let (tag, number) = match *self {
            KeptResult::Created(account) => (1, Some(u64::from(account.number()))),
            KeptResult::Opened(transaction) => (2, Some(transaction)),
            KeptResult::Moved(transaction) => (3, Some(transaction)),
            KeptResult::Refused(refusal) => match refusal {
                KeptRefusal::InvalidAccountId(Side::First) => (4, None),
                KeptRefusal::InvalidAccountId(Side::Second) => (5, None),
                KeptRefusal::InvalidAmount(least) => (6, Some(least)),
                KeptRefusal::AccountExists => (7, None),
                KeptRefusal::AccountNotFound(Side::First) => (8, None),
                KeptRefusal::AccountNotFound(Side::Second) => (9, None),
                KeptRefusal::SameAccount => (10, None),
                KeptRefusal::InsufficientFunds(available) => (11, Some(available as u64)), // two's complement
                KeptRefusal::BalanceOverflow => (12, None),
                KeptRefusal::NotAuthorised => (13, None),
                KeptRefusal::LimitExceeded => (14, None),
                KeptRefusal::InvalidAsset => (15, None),
                KeptRefusal::InvalidBounds => (16, None),
                KeptRefusal::InvalidCode => (17, None),
                KeptRefusal::InvalidName => (18, None),
                KeptRefusal::AssetNotFound => (19, None),
                KeptRefusal::AssetExists => (20, None),
                KeptRefusal::TooManyAssets => (21, None),
                KeptRefusal::AssetMismatch => (22, None),
                KeptRefusal::AccountClosed(Side::First) => (23, None),
                KeptRefusal::AccountClosed(Side::Second) => (24, None),
                KeptRefusal::AccountFrozen(Side::First) => (25, None),
                KeptRefusal::AccountFrozen(Side::Second) => (26, None),
                KeptRefusal::AccountNotEmpty => (27, None),
                KeptRefusal::BalanceLimit(Side::First) => (28, None),
                KeptRefusal::BalanceLimit(Side::Second) => (29, None),
            },
        };
        bytes.push(tag);
        if let Some(number) = number {
            put(bytes, number);
        }
    }

    fn take(rest: &mut &[u8]) -> Option<KeptResult> {
        Some(match take_byte(rest)? {
            1 => KeptResult::Created(AccountIndex::new(u32::try_from(take(rest)?).ok()?)),
            2 => KeptResult::Opened(take(rest)?),
            3 => KeptResult::Moved(take(rest)?),
            4 => KeptResult::Refused(KeptRefusal::InvalidAccountId(Side::First)),
            5 => KeptResult::Refused(KeptRefusal::InvalidAccountId(Side::Second)),
            6 => KeptResult::Refused(KeptRefusal::InvalidAmount(take(rest)?)),
            7 => KeptResult::Refused(KeptRefusal::AccountExists),
            8 => KeptResult::Refused(KeptRefusal::AccountNotFound(Side::First)),
            9 => KeptResult::Refused(KeptRefusal::AccountNotFound(Side::Second)),
            10 => KeptResult::Refused(KeptRefusal::SameAccount),
            11 => KeptResult::Refused(KeptRefusal::InsufficientFunds(take(rest)? as i64)),
            12 => KeptResult::Refused(KeptRefusal::BalanceOverflow),
            13 => KeptResult::Refused(KeptRefusal::NotAuthorised),
            14 => KeptResult::Refused(KeptRefusal::LimitExceeded),
            15 => KeptResult::Refused(KeptRefusal::InvalidAsset),
            16 => KeptResult::Refused(KeptRefusal::InvalidBounds),
            17 => KeptResult::Refused(KeptRefusal::InvalidCode),
            18 => KeptResult::Refused(KeptRefusal::InvalidName),
            19 => KeptResult::Refused(KeptRefusal::AssetNotFound),
            20 => KeptResult::Refused(KeptRefusal::AssetExists),
            21 => KeptResult::Refused(KeptRefusal::TooManyAssets),
            22 => KeptResult::Refused(KeptRefusal::AssetMismatch),
            23 => KeptResult::Refused(KeptRefusal::AccountClosed(Side::First)),
            24 => KeptResult::Refused(KeptRefusal::AccountClosed(Side::Second)),
            25 => KeptResult::Refused(KeptRefusal::AccountFrozen(Side::First)),
            26 => KeptResult::Refused(KeptRefusal::AccountFrozen(Side::Second)),
            27 => KeptResult::Refused(KeptRefusal::AccountNotEmpty),
            28 => KeptResult::Refused(KeptRefusal::BalanceLimit(Side::First)),
            29 => KeptResult::Refused(KeptRefusal::BalanceLimit(Side::Second)),
            _ => return None,
        })
    }
}

fn put(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, behind) = rest.split_first()?;
    *rest = behind;
    Some(*byte)
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let (number, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::bank::{Amount, CreateAccount, CreateAsset, SetAccount};

    use super::*;

    fn operations() -> Vec<Operation> {
        let long = || "\u{1d11e}".repeat(60).into();
        let amount = Amount::new(7);
        vec![
            Operation::create_account("a", amount),
            Operation::CreateAccount(Box::new(CreateAccount {
                asset: Some("EUR".into()),
                ..CreateAccount::new("a", amount)
            })),
            Operation::SetAccount(Box::new(SetAccount::new("a"))),
            Operation::CreateAsset(CreateAsset { asset: "EUR".into(), scale: 2, limit: 7 }),
            Operation::Deposit { account_id: long(), amount },
            Operation::Withdraw { account_id: "b".into(), amount },
            Operation::Transfer { from_account: "a".into(), to_account: long(), amount },
            Operation::Transfer { from_account: long(), to_account: "b".into(), amount },
        ]
    }

    /// Everything that may come of an operation.
    fn outcomes(operation: &Operation) -> Vec<OperationOutcome> {
        let (first, second, amount) = named(Some(operation));
        let [first, second, asset] = [first, second, asset(Some(operation))].map(shortened);
        let done = [Done::Created(AccountIndex::new(3)), Done::Opened(u64::MAX), Done::Moved(5)];
        let mut refusals = vec![
            OperationRefusal::InvalidAccountId(first.clone()),
            OperationRefusal::InvalidAmount(0),
            OperationRefusal::InvalidAmount(1),
            OperationRefusal::AccountExists(first.clone()),
            OperationRefusal::AccountNotFound(first.clone()),
            OperationRefusal::SameAccount(first.clone()),
            OperationRefusal::InvalidAsset(asset.clone()),
            OperationRefusal::InvalidBounds,
            OperationRefusal::InvalidCode,
            OperationRefusal::InvalidName,
            OperationRefusal::AssetNotFound(asset.clone()),
            OperationRefusal::AssetExists(asset),
            OperationRefusal::TooManyAssets,
            OperationRefusal::AssetMismatch,
            OperationRefusal::AccountClosed(first.clone()),
            OperationRefusal::AccountFrozen(first.clone()),
            OperationRefusal::AccountNotEmpty(first.clone()),
            OperationRefusal::BalanceLimit(first.clone()),
            OperationRefusal::InsufficientFunds { account: first, available: -6, amount },
            OperationRefusal::BalanceOverflow(amount),
            OperationRefusal::NotAuthorised,
            OperationRefusal::LimitExceeded,
        ];
        if !second.is_empty() {
            refusals.push(OperationRefusal::InvalidAccountId(second.clone()));
            refusals.push(OperationRefusal::AccountClosed(second.clone()));
            refusals.push(OperationRefusal::AccountFrozen(second.clone()));
            refusals.push(OperationRefusal::BalanceLimit(second.clone()));
            refusals.push(OperationRefusal::AccountNotFound(second));
        }
        done.into_iter().map(Ok).chain(refusals.into_iter().map(|refusal| Err(Box::new(refusal)))).collect()
    }

    fn check(outcome: &CommandOutcome, command: &Command) {
        let kept = KeptOutcome::of(outcome, command);
        assert_eq!(kept.restore(command), *outcome, "{command:?}");
        let mut bytes = Vec::new();
        kept.encode(&mut bytes);
        assert_eq!(KeptOutcome::decode(&bytes), Some(kept));
        for length in 0..bytes.len() {
            assert_eq!(KeptOutcome::decode(&bytes[..length]), None, "{length} bytes of {bytes:?}");
        }
        bytes.push(4);
        assert_eq!(KeptOutcome::decode(&bytes), None);
    }

    #[test]
    fn an_outcome_is_restored_of_what_is_kept_and_the_command() {
        for operation in operations() {
            for outcome in outcomes(&operation) {
                check(&CommandOutcome(Kind::One(outcome)), &Command::One(operation.clone()));
            }
        }
        let all: (Vec<Operation>, Vec<OperationOutcome>) = operations()
            .into_iter()
            .flat_map(|operation| outcomes(&operation).into_iter().map(move |outcome| (operation.clone(), outcome)))
            .unzip();
        let bulk = Command::Bulk(Bulk { commands: all.0, atomic: false });
        for (index, outcome) in (0..).zip(&all.1) {
            if let Err(refusal) = outcome {
                check(&CommandOutcome(Kind::BulkUndone { index, refusal: refusal.clone() }), &bulk);
            }
        }
        check(&CommandOutcome(Kind::Bulk(all.1.into())), &bulk);
        check(&CommandOutcome(Kind::BulkEmpty), &bulk);
        check(&CommandOutcome(Kind::BulkTooLarge { commands: 1 << 40 }), &bulk);
    }

    /// Nobody finds two commands with one fingerprint, but that must not be what a node's life hangs on.
    #[test]
    fn a_command_of_another_shape_restores_to_something() {
        let bulk = Command::Bulk(Bulk { commands: operations(), atomic: false });
        let outcomes = outcomes(&operations()[4]);
        let kept = KeptOutcome::of(&CommandOutcome(Kind::Bulk(outcomes.into())), &bulk);
        for command in
            [Command::One(operations()[0].clone()), Command::Bulk(Bulk { commands: Vec::new(), atomic: true })]
        {
            kept.restore(&command);
        }
    }
}
