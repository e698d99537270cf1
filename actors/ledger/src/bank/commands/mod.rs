//! The commands: what they check, and how they change accounts and history.
//!
//! An operation first makes all checks in the order of BANK.md, then changes the bank; so a refused one has nothing to undo.
//! Whether its texts are well formed comes first of all, and is looked at last where all else is well: what is carried out has found
//! its accounts, whose names were looked at when they were created. An atomic bulk runs its operations one by one and, where one is
//! refused, takes back what they did, the newest first. The running figures count a request's records only once the request stands.

use rabia_bank_messages::bank::{
    Amount, Bulk, Command, MAX_BULK, Operation, is_valid_account_id, is_valid_asset, is_valid_balance,
};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::account::{AccountIndex, Last};
use super::assets::AssetIndex;
use super::history::{Side, When};
use super::outcomes::{CommandOutcome, Kind, OperationOutcome, OperationRefusal, shortened};
use super::settings::{Said, Settings};
use super::{Bank, may};
use crate::rights::Rights;

mod accounts;
mod money;

/// An account before a change.
#[derive(Debug)]
pub(super) struct Before {
    account: AccountIndex,
    balance: i64,
    last: Option<Last>,
    /// What its settings were, if they changed.
    settings: Option<Box<Settings>>,
}

/// Who asks, and when.
#[derive(Clone, Copy)]
struct At<'a> {
    moment: When,
    rights: &'a Rights<'a>,
}

/// A state to go back to.
#[derive(Clone, Copy)]
struct Mark {
    accounts: usize,
    assets: usize,
    transactions: u64,
}

/// Why an operation is refused.
type Refused = Box<OperationRefusal>;

impl Bank {
    /// Carries out a command, or refuses it and changes nothing.
    pub(super) fn execute(&mut self, command: &Command, moment: When, rights: &Rights<'_>) -> CommandOutcome {
        let at = At { moment, rights };
        let mark = self.mark();
        self.undo.clear();
        let outcome = match command {
            Command::One(operation) => Kind::One(self.operate(operation, at)),
            Command::Bulk(bulk) if bulk.commands.is_empty() => Kind::BulkEmpty,
            Command::Bulk(bulk) if bulk.commands.len() > MAX_BULK => {
                Kind::BulkTooLarge { commands: bulk.commands.len() as u64 }
            }
            Command::Bulk(bulk) if bulk.atomic => self.all_or_none(bulk, at, mark),
            Command::Bulk(bulk) => {
                Kind::Bulk(bulk.commands.iter().map(|operation| self.operate(operation, at)).collect())
            }
        };
        self.count_since(mark.transactions);
        CommandOutcome(outcome)
    }

    fn all_or_none(&mut self, bulk: &Bulk, at: At<'_>, mark: Mark) -> Kind {
        let spent = at.rights.spent();
        let mut outcomes = Vec::with_capacity(bulk.commands.len());
        for (index, operation) in (0..).zip(&bulk.commands) {
            match self.operate(operation, at) {
                Ok(done) => outcomes.push(Ok(done)),
                Err(refusal) => {
                    self.undo(mark);
                    at.rights.give_back(spent);
                    return Kind::BulkUndone { index, refusal };
                }
            }
        }
        Kind::Bulk(outcomes.into())
    }

    fn mark(&self) -> Mark {
        Mark { accounts: self.accounts.len(), assets: self.accounts.assets.len(), transactions: self.history.len() }
    }

    fn undo(&mut self, mark: Mark) {
        while self.history.len() > mark.transactions {
            self.history.pop();
        }
        while let Some(Before { account, balance, last, settings }) = self.undo.pop() {
            let state = self.accounts.get_mut(account);
            let (asset, change) = (state.asset, balance - state.balance);
            state.balance = balance;
            state.last = last;
            state.transaction_count -= 1;
            if let Some(settings) = settings {
                state.set(*settings);
            }
            self.accounts.assets.get_mut(asset).total += change;
            self.accounts.rank(account);
        }
        self.accounts.truncate(mark.accounts);
        self.accounts.assets.truncate(mark.assets);
    }

    fn operate(&mut self, operation: &Operation, at: At<'_>) -> OperationOutcome {
        let outcome = if may::operate(operation, at.rights) {
            self.perform(operation, at)
        } else {
            refuse(OperationRefusal::NotAuthorised)
        };
        outcome.or_else(|refusal| self.check_form(operation).and(Err(refusal)))
    }

    fn perform(&mut self, operation: &Operation, at: At<'_>) -> OperationOutcome {
        match operation {
            Operation::CreateAccount(account) => {
                self.check_form(operation)?;
                self.create_account(account, at)
            }
            Operation::SetAccount(change) => {
                self.check_form(operation)?;
                self.set_account(change, at)
            }
            Operation::CreateAsset(asset) => {
                self.check_form(operation)?;
                self.create_asset(asset, at)
            }
            Operation::Deposit { account_id, amount } => self.deposit(account_id, *amount, at),
            Operation::Withdraw { account_id, amount } => self.withdraw(account_id, *amount, at),
            Operation::Transfer { from_account, to_account, amount } => {
                self.transfer(from_account, to_account, *amount, at)
            }
        }
    }

    /// Whether what an operation says is well formed, by itself.
    fn check_form(&self, operation: &Operation) -> Result<(), Refused> {
        match operation {
            Operation::CreateAccount(account) => {
                check_name(&account.account_id)?;
                if let Some(asset) = account.asset.as_deref().filter(|asset| !is_valid_asset(asset)) {
                    return refuse(OperationRefusal::InvalidAsset(shortened(asset)));
                }
                Said::from(&**account).check(self.allow_overdraft)
            }
            Operation::SetAccount(change) => {
                check_name(&change.account_id)?;
                Said::from(&**change).check(self.allow_overdraft)
            }
            Operation::CreateAsset(asset) if asset.is_valid() => Ok(()),
            Operation::CreateAsset(asset) => refuse(OperationRefusal::InvalidAsset(shortened(&asset.asset))),
            Operation::Deposit { account_id, .. } | Operation::Withdraw { account_id, .. } => check_name(account_id),
            Operation::Transfer { from_account, to_account, .. } => {
                check_name(from_account)?;
                check_name(to_account)
            }
        }
    }

    /// The amount in minor units, if it is from `least` to the limit of this asset.
    fn check_amount(&self, amount: Amount, least: u64, asset: AssetIndex) -> Result<u64, Refused> {
        let amount = amount.get();
        if (least..=self.accounts.assets.get(asset).limit).contains(&amount) {
            Ok(amount)
        } else {
            refuse(OperationRefusal::InvalidAmount(least))
        }
    }

    fn check_account(&self, name: &str) -> Result<AccountIndex, Refused> {
        match self.accounts.find(name) {
            Some(account) => Ok(account),
            None => refuse(OperationRefusal::AccountNotFound(shortened(name))),
        }
    }

    /// Whether the sum of all balances of an asset may change by so much.
    fn check_total(&self, asset: AssetIndex, change: i64) -> Result<(), Refused> {
        let fits = is_valid_balance(self.accounts.assets.get(asset).total + change);
        if fits || is_broken(Rule::OverflowChecked) {
            Ok(())
        } else {
            refuse(OperationRefusal::BalanceOverflow(change.unsigned_abs()))
        }
    }

    /// Gives an account a new balance, by the transaction that comes next.
    fn set_balance(&mut self, account: AccountIndex, balance: i64, moment: When) -> Side {
        assert!(is_valid_balance(balance), "a balance of {balance}");
        let transaction = self.history.len() + 1;
        let state = self.accounts.get_mut(account);
        let (asset, change) = (state.asset, balance - state.balance);
        self.undo.push(Before { account, balance: state.balance, last: state.last, settings: None });
        let previous = state.last.map_or(0, |last| last.transaction);
        state.balance = balance;
        state.last = Some(Last { transaction, at: moment.time });
        state.transaction_count += 1;
        self.accounts.assets.get_mut(asset).total += change;
        self.accounts.rank(account);
        Side { account, balance, previous }
    }
}

fn check_name(name: &str) -> Result<(), Refused> {
    if is_valid_account_id(name) { Ok(()) } else { refuse(OperationRefusal::InvalidAccountId(shortened(name))) }
}

fn refuse<T>(refusal: OperationRefusal) -> Result<T, Refused> {
    Err(Box::new(refusal))
}
