//! Commands of the bank in batches, read by hand: nothing is built that is not asked for.

use super::amount::Amount;
use super::command::{Bulk, Command, Operation, OperationKind};
use crate::batched::{BadCommand, Batched, Reader};

/// An operation whose texts lie where it was read from.
enum Found<'a> {
    CreateAccount { account_id: &'a str, initial_balance: u64 },
    Deposit { account_id: &'a str, amount: u64 },
    Withdraw { account_id: &'a str, amount: u64 },
    Transfer { from_account: &'a str, to_account: &'a str, amount: u64 },
}

impl From<Found<'_>> for Operation {
    fn from(found: Found<'_>) -> Operation {
        match found {
            Found::CreateAccount { account_id, initial_balance } => Operation::CreateAccount {
                account_id: account_id.into(),
                initial_balance: Amount::new(initial_balance),
            },
            Found::Deposit { account_id, amount } => {
                Operation::Deposit { account_id: account_id.into(), amount: Amount::new(amount) }
            }
            Found::Withdraw { account_id, amount } => {
                Operation::Withdraw { account_id: account_id.into(), amount: Amount::new(amount) }
            }
            Found::Transfer { from_account, to_account, amount } => Operation::Transfer {
                from_account: from_account.into(),
                to_account: to_account.into(),
                amount: Amount::new(amount),
            },
        }
    }
}

/// What a command begins with.
enum Head<'a> {
    One(Found<'a>),
    /// So many operations follow, and whether it is all or none.
    Bulk(u32),
}

/// Fewer bytes than any operation has, so that a declared length reserves no more than what is there.
const LEAST_OPERATION: usize = 12;

impl<'a> Reader<'a> {
    fn command(&mut self) -> Result<Head<'a>, BadCommand> {
        if self.take(b"\x81\xa4bulk\x92") { Ok(Head::Bulk(self.length()?)) } else { Ok(Head::One(self.operation()?)) }
    }

    fn operation(&mut self) -> Result<Found<'a>, BadCommand> {
        // The most frequent one is the last.
        let mut kinds = OperationKind::ALL.into_iter().rev();
        let kind = kinds.find(|kind| self.take(beginning(*kind))).ok_or("a command of another kind")?;
        Ok(match kind {
            OperationKind::CreateAccount => {
                Found::CreateAccount { account_id: self.text()?, initial_balance: self.number()? }
            }
            OperationKind::Deposit => Found::Deposit { account_id: self.text()?, amount: self.number()? },
            OperationKind::Withdraw => Found::Withdraw { account_id: self.text()?, amount: self.number()? },
            OperationKind::Transfer => {
                let (from_account, to_account) = (self.text()?, self.text()?);
                Found::Transfer { from_account, to_account, amount: self.number()? }
            }
        })
    }
}

/// What an operation begins with: a map of one, its name, and an array of its fields.
const fn beginning(kind: OperationKind) -> &'static [u8] {
    match kind {
        OperationKind::CreateAccount => b"\x81\xaecreate_account\x92",
        OperationKind::Deposit => b"\x81\xa7deposit\x92",
        OperationKind::Withdraw => b"\x81\xa8withdraw\x92",
        OperationKind::Transfer => b"\x81\xa8transfer\x93",
    }
}

impl Batched for Command {
    fn read(rest: &mut &[u8]) -> Result<Command, BadCommand> {
        let mut reader = Reader(rest);
        let command = match reader.command()? {
            Head::One(found) => Command::One(found.into()),
            Head::Bulk(count) => {
                let room = reader.0.len() / LEAST_OPERATION;
                let mut commands = Vec::with_capacity(room.min(count as usize));
                for _ in 0..count {
                    commands.push(reader.operation()?.into());
                }
                Command::Bulk(Bulk { commands, atomic: reader.flag()? })
            }
        };
        *rest = reader.0;
        Ok(command)
    }

    fn skip(rest: &mut &[u8]) -> Result<u32, BadCommand> {
        let mut reader = Reader(rest);
        if let Head::Bulk(count) = reader.command()? {
            for _ in 0..count {
                reader.operation()?;
            }
            reader.flag()?;
        }
        *rest = reader.0;
        Ok(1)
    }

    fn weight(&self) -> u32 {
        match self {
            Command::One(_) => 1,
            Command::Bulk(bulk) => u32::try_from(bulk.commands.len()).unwrap_or(u32::MAX).max(1),
        }
    }
}
