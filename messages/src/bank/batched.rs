//! Commands of the bank in batches, written and read by hand: nothing is built that is not asked for, and what a command does not say
//! takes no room.

use super::amount::{Amount, Bound};
use super::asset::CreateAsset;
use super::command::{Bulk, Command, Operation, OperationKind};
use super::settings::{AccountStatus, CreateAccount, SetAccount};
use crate::batched::{BadCommand, Batched, Reader};
use crate::msgpack;

/// An operation whose texts lie where it was read from.
enum Found<'a> {
    CreateAccount { account_id: &'a str, initial_balance: u64, settings: Settings<'a> },
    Deposit { account_id: &'a str, amount: u64 },
    Withdraw { account_id: &'a str, amount: u64 },
    Transfer { from_account: &'a str, to_account: &'a str, amount: u64 },
    SetAccount { account_id: &'a str, settings: Settings<'a> },
    CreateAsset { asset: &'a str, scale: u64, limit: u64 },
}

/// What may be said of an account, and mostly is not.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Settings<'a> {
    asset: Option<&'a str>,
    min_balance: Option<Bound>,
    max_balance: Option<Bound>,
    status: Option<AccountStatus>,
    code: Option<&'a str>,
    name: Option<&'a str>,
}

impl From<Found<'_>> for Operation {
    fn from(found: Found<'_>) -> Operation {
        match found {
            Found::CreateAccount { account_id, initial_balance, settings } => {
                Operation::CreateAccount(Box::new(CreateAccount {
                    account_id: account_id.into(),
                    initial_balance: Amount::new(initial_balance),
                    asset: settings.asset.map(Box::from),
                    min_balance: settings.min_balance,
                    max_balance: settings.max_balance,
                    code: settings.code.map(Box::from),
                    name: settings.name.map(Box::from),
                }))
            }
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
            Found::SetAccount { account_id, settings } => Operation::SetAccount(Box::new(SetAccount {
                account_id: account_id.into(),
                min_balance: settings.min_balance,
                max_balance: settings.max_balance,
                status: settings.status,
                code: settings.code.map(Box::from),
                name: settings.name.map(Box::from),
            })),
            Found::CreateAsset { asset, scale, limit } => {
                Operation::CreateAsset(CreateAsset { asset: asset.into(), scale, limit })
            }
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

const BULK: &[u8] = b"\x81\xa4bulk\x92";
/// `create_account` where more is said of the account than its id and balance.
const CREATE_ACCOUNT_AS: &[u8] = b"\x81\xaecreate_account\x93";

/// The numbers of the settings in a batch. They stand in this order, each once at most.
mod setting {
    pub(super) const ASSET: u64 = 1;
    pub(super) const MIN_BALANCE: u64 = 2;
    pub(super) const MAX_BALANCE: u64 = 3;
    pub(super) const STATUS: u64 = 4;
    pub(super) const CODE: u64 = 5;
    pub(super) const NAME: u64 = 6;
}

impl<'a> Reader<'a> {
    fn command(&mut self) -> Result<Head<'a>, BadCommand> {
        if self.take(BULK) { Ok(Head::Bulk(self.length()?)) } else { Ok(Head::One(self.operation()?)) }
    }

    fn operation(&mut self) -> Result<Found<'a>, BadCommand> {
        // The most frequent one is the first.
        const BY_FREQUENCY: [OperationKind; OperationKind::ALL.len()] = [
            OperationKind::Transfer,
            OperationKind::Deposit,
            OperationKind::Withdraw,
            OperationKind::CreateAccount,
            OperationKind::SetAccount,
            OperationKind::CreateAsset,
        ];
        let kind = BY_FREQUENCY.into_iter().find(|kind| self.take(beginning(*kind)));
        Ok(match kind {
            Some(OperationKind::CreateAccount) => Found::CreateAccount {
                account_id: self.text()?,
                initial_balance: self.number()?,
                settings: Settings::default(),
            },
            Some(OperationKind::Deposit) => Found::Deposit { account_id: self.text()?, amount: self.number()? },
            Some(OperationKind::Withdraw) => Found::Withdraw { account_id: self.text()?, amount: self.number()? },
            Some(OperationKind::Transfer) => {
                let (from_account, to_account) = (self.text()?, self.text()?);
                Found::Transfer { from_account, to_account, amount: self.number()? }
            }
            Some(OperationKind::SetAccount) => {
                let (account_id, settings) = (self.text()?, self.settings()?);
                if settings.asset.is_some() {
                    return Err("an account keeps its asset");
                }
                Found::SetAccount { account_id, settings }
            }
            Some(OperationKind::CreateAsset) => {
                Found::CreateAsset { asset: self.text()?, scale: self.number()?, limit: self.number()? }
            }
            None if self.take(CREATE_ACCOUNT_AS) => {
                let (account_id, initial_balance) = (self.text()?, self.number()?);
                let settings = self.settings()?;
                if settings == Settings::default() || settings.status.is_some() {
                    return Err("not the encoding of a new account");
                }
                Found::CreateAccount { account_id, initial_balance, settings }
            }
            None => return Err("a command of another kind"),
        })
    }

    fn settings(&mut self) -> Result<Settings<'a>, BadCommand> {
        let (mut settings, mut last) = (Settings::default(), 0);
        for _ in 0..self.map_length()? {
            let number = self.number()?;
            if number <= last {
                return Err("settings in another order");
            }
            last = number;
            match number {
                setting::ASSET => settings.asset = Some(self.text()?),
                setting::MIN_BALANCE => settings.min_balance = Some(self.bound()?),
                setting::MAX_BALANCE => settings.max_balance = Some(self.bound()?),
                setting::STATUS => {
                    let status = AccountStatus::named(self.text()?).ok_or("no status of an account")?;
                    settings.status = Some(status);
                }
                setting::CODE => settings.code = Some(self.text()?),
                setting::NAME => settings.name = Some(self.text()?),
                _ => return Err("no setting of an account"),
            }
        }
        Ok(settings)
    }

    fn bound(&mut self) -> Result<Bound, BadCommand> {
        if self.take(b"\xa4none") { Ok(Bound::None) } else { self.signed().map(Bound::At) }
    }
}

impl<'a> Settings<'a> {
    fn of_new(account: &'a CreateAccount) -> Settings<'a> {
        let CreateAccount { asset, min_balance, max_balance, code, name, .. } = account;
        Settings {
            asset: asset.as_deref(),
            min_balance: *min_balance,
            max_balance: *max_balance,
            status: None,
            code: code.as_deref(),
            name: name.as_deref(),
        }
    }

    fn of_change(change: &'a SetAccount) -> Settings<'a> {
        let SetAccount { account_id: _, min_balance, max_balance, status, code, name } = change;
        Settings {
            asset: None,
            min_balance: *min_balance,
            max_balance: *max_balance,
            status: *status,
            code: code.as_deref(),
            name: name.as_deref(),
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let Settings { asset, min_balance, max_balance, status, code, name } = *self;
        let texts = [asset, code, name].into_iter().flatten().count();
        let bounds = [min_balance, max_balance].into_iter().flatten().count();
        bytes.push(0x80 | (texts + bounds + usize::from(status.is_some())) as u8); // six at most
        let text = |bytes: &mut Vec<u8>, number: u64, text: Option<&str>| {
            if let Some(text) = text {
                msgpack::write(bytes, &number);
                msgpack::write(bytes, &text);
            }
        };
        text(bytes, setting::ASSET, asset);
        for (number, bound) in [(setting::MIN_BALANCE, min_balance), (setting::MAX_BALANCE, max_balance)] {
            if let Some(bound) = bound {
                msgpack::write(bytes, &number);
                msgpack::write(bytes, &bound);
            }
        }
        text(bytes, setting::STATUS, status.map(AccountStatus::name));
        text(bytes, setting::CODE, code);
        text(bytes, setting::NAME, name);
    }
}

/// What an operation begins with: a map of one, its name, and an array of its fields.
const fn beginning(kind: OperationKind) -> &'static [u8] {
    match kind {
        OperationKind::CreateAccount => b"\x81\xaecreate_account\x92",
        OperationKind::Deposit => b"\x81\xa7deposit\x92",
        OperationKind::Withdraw => b"\x81\xa8withdraw\x92",
        OperationKind::Transfer => b"\x81\xa8transfer\x93",
        OperationKind::SetAccount => b"\x81\xabset_account\x92",
        OperationKind::CreateAsset => b"\x81\xaccreate_asset\x93",
    }
}

fn write_operation(bytes: &mut Vec<u8>, operation: &Operation) {
    let settings = match operation {
        Operation::CreateAccount(account) => Settings::of_new(account),
        _ => Settings::default(),
    };
    bytes.extend_from_slice(match operation {
        Operation::CreateAccount(_) if settings != Settings::default() => CREATE_ACCOUNT_AS,
        _ => beginning(operation.kind()),
    });
    match operation {
        Operation::CreateAccount(account) => {
            msgpack::write(bytes, &account.account_id);
            msgpack::write(bytes, &account.initial_balance);
            if settings != Settings::default() {
                settings.write(bytes);
            }
        }
        Operation::Deposit { account_id, amount } | Operation::Withdraw { account_id, amount } => {
            msgpack::write(bytes, account_id);
            msgpack::write(bytes, amount);
        }
        Operation::Transfer { from_account, to_account, amount } => {
            msgpack::write(bytes, from_account);
            msgpack::write(bytes, to_account);
            msgpack::write(bytes, amount);
        }
        Operation::SetAccount(change) => {
            msgpack::write(bytes, &change.account_id);
            Settings::of_change(change).write(bytes);
        }
        Operation::CreateAsset(CreateAsset { asset, scale, limit }) => {
            msgpack::write(bytes, asset);
            msgpack::write(bytes, scale);
            msgpack::write(bytes, limit);
        }
    }
}

impl Batched for Command {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Command::One(operation) => write_operation(bytes, operation),
            Command::Bulk(Bulk { commands, atomic }) => {
                bytes.extend_from_slice(BULK);
                rmp::encode::write_array_len(bytes, commands.len() as u32) // a message has fewer
                    .unwrap_or_else(|_| unreachable!("memory takes what is written"));
                commands.iter().for_each(|operation| write_operation(bytes, operation));
                msgpack::write(bytes, atomic);
            }
        }
    }

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
