//! The commands: what they check, and how they change accounts and history.
//!
//! An operation first makes all checks of its row in BANK.md, in their order, then changes the bank; so a refused one
//! has nothing to undo. An atomic bulk runs its operations one by one and, where one is refused, takes back what they did,
//! the newest first. The running figures count a request's records only once the request stands.

use rabia_bank_messages::bank::{Amount, Bulk, Command, MAX_BALANCE, MAX_BULK, Operation, is_valid_account_id};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::account::{AccountIndex, Last};
use super::history::{Movement, Side, When};
use super::outcomes::{CommandOutcome, Done, Kind, OperationOutcome, OperationRefusal, shortened};
use super::{Bank, may};
use crate::rights::Rights;

/// An account before a change.
#[derive(Debug)]
pub(super) struct Before {
    account: AccountIndex,
    balance: u64,
    last: Option<Last>,
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
    transactions: u64,
}

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
        for record in self.history.since(mark.transactions) {
            self.totals.count(record);
        }
        let (counted, newest) = (self.totals.all.count, self.history.len());
        assert_eq!(counted, newest, "the figures count {counted} transactions of {newest}");
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
        Mark { accounts: self.accounts.len(), transactions: self.history.len() }
    }

    fn undo(&mut self, mark: Mark) {
        while self.history.len() > mark.transactions
            && let Some(record) = self.history.pop()
        {
            match record.movement {
                Movement::Opening(_) | Movement::Deposit(_) => self.total_balance -= record.amount,
                Movement::Withdrawal(_) => self.total_balance += record.amount,
                Movement::Transfer { .. } | Movement::Admin => {}
            }
        }
        while let Some(Before { account, balance, last }) = self.undo.pop() {
            let state = self.accounts.get_mut(account);
            state.balance = balance;
            state.last = last;
            state.transaction_count -= 1;
            self.accounts.rank(account);
        }
        self.accounts.truncate(mark.accounts);
    }

    fn operate(&mut self, operation: &Operation, at: At<'_>) -> OperationOutcome {
        if !may::operate(operation, at.rights) {
            let names = match operation {
                Operation::CreateAccount { account_id, .. }
                | Operation::Deposit { account_id, .. }
                | Operation::Withdraw { account_id, .. } => [&**account_id; 2],
                Operation::Transfer { from_account, to_account, .. } => [&**from_account, &**to_account],
            };
            return refuse_after(&names, Box::new(OperationRefusal::NotAuthorised));
        }
        match operation {
            Operation::CreateAccount { account_id, initial_balance } => {
                self.create_account(account_id, *initial_balance, at)
            }
            Operation::Deposit { account_id, amount } => self.deposit(account_id, *amount, at),
            Operation::Withdraw { account_id, amount } => self.withdraw(account_id, *amount, at),
            Operation::Transfer { from_account, to_account, amount } => {
                self.transfer(from_account, to_account, *amount, at)
            }
        }
    }

    fn create_account(&mut self, name: &str, initial_balance: Amount, at: At<'_>) -> OperationOutcome {
        check_name(name)?;
        let amount = self.check_amount(initial_balance, 0)?;
        if self.accounts.find(name).is_some() {
            return refuse(OperationRefusal::AccountExists(name.into()));
        }
        check_move(amount, at)?;
        let total_balance = self.check_total(amount)?;
        let account = self.accounts.create(name, at.moment.time);
        if amount == 0 {
            return Ok(Done::Created(account));
        }
        self.total_balance = total_balance;
        let movement = Movement::Opening(self.set_balance(account, amount, at.moment));
        Ok(Done::Opened(self.history.append(movement, amount, at.moment, &self.accounts)))
    }

    fn deposit(&mut self, name: &str, amount: Amount, at: At<'_>) -> OperationOutcome {
        let amount = self.check_amount(amount, 1).or_else(|refusal| refuse_after(&[name], refusal))?;
        let account = self.check_account(name).or_else(|refusal| refuse_after(&[name], refusal))?;
        check_move(amount, at)?;
        self.total_balance = self.check_total(amount)?;
        let balance = self.accounts.get(account).balance + amount;
        let movement = Movement::Deposit(self.set_balance(account, balance, at.moment));
        Ok(Done::Moved(self.history.append(movement, amount, at.moment, &self.accounts)))
    }

    fn withdraw(&mut self, name: &str, amount: Amount, at: At<'_>) -> OperationOutcome {
        let amount = self.check_amount(amount, 1).or_else(|refusal| refuse_after(&[name], refusal))?;
        let account = self.check_account(name).or_else(|refusal| refuse_after(&[name], refusal))?;
        check_spend(amount, at)?;
        let balance = self.check_funds(account, amount)?;
        at.rights.spend(amount);
        self.total_balance -= amount;
        let movement = Movement::Withdrawal(self.set_balance(account, balance, at.moment));
        Ok(Done::Moved(self.history.append(movement, amount, at.moment, &self.accounts)))
    }

    /// BANK.md has a last check here, `balance_overflow`. It can't fail: what one account gains another has lost, so no
    /// balance passes the sum of all, which is within the bound. It is asserted where the balance is set.
    fn transfer(&mut self, from: &str, to: &str, amount: Amount, at: At<'_>) -> OperationOutcome {
        let names = [from, to];
        let amount = self.check_amount(amount, 1).or_else(|refusal| refuse_after(&names, refusal))?;
        if from == to {
            return refuse_after(&names, Box::new(OperationRefusal::SameAccount(shortened(from))));
        }
        let from = self.check_account(from).or_else(|refusal| refuse_after(&names, refusal))?;
        let to = self.check_account(to).or_else(|refusal| refuse_after(&names, refusal))?;
        check_spend(amount, at)?;
        let from_balance = self.check_funds(from, amount)?;
        at.rights.spend(amount);
        let to_balance = self.accounts.get(to).balance + amount;
        let movement = Movement::Transfer {
            from: self.set_balance(from, from_balance, at.moment),
            to: self.set_balance(to, to_balance, at.moment),
        };
        Ok(Done::Moved(self.history.append(movement, amount, at.moment, &self.accounts)))
    }

    /// The amount in minor units, if it is from `least` to the limit.
    fn check_amount(&self, amount: Amount, least: u64) -> Result<u64, Box<OperationRefusal>> {
        let amount = amount.get();
        if (least..=self.transaction_limit).contains(&amount) {
            Ok(amount)
        } else {
            refuse(OperationRefusal::InvalidAmount(least))
        }
    }

    fn check_account(&self, name: &str) -> Result<AccountIndex, Box<OperationRefusal>> {
        match self.accounts.find(name) {
            Some(account) => Ok(account),
            None => refuse(OperationRefusal::AccountNotFound(shortened(name))),
        }
    }

    /// The sum of all balances with `amount` more.
    fn check_total(&self, amount: u64) -> Result<u64, Box<OperationRefusal>> {
        let total = self.total_balance + amount;
        let fits = total <= MAX_BALANCE || is_broken(Rule::OverflowChecked);
        if fits { Ok(total) } else { refuse(OperationRefusal::BalanceOverflow(amount)) }
    }

    /// The balance with `amount` less.
    fn check_funds(&self, account: AccountIndex, amount: u64) -> Result<u64, Box<OperationRefusal>> {
        let state = self.accounts.get(account);
        let account = || state.name.clone();
        state.balance.checked_sub(amount).map_or_else(
            || refuse(OperationRefusal::InsufficientFunds { account: account(), balance: state.balance, amount }),
            Ok,
        )
    }

    /// Gives an account a new balance, by the transaction that comes next.
    fn set_balance(&mut self, account: AccountIndex, balance: u64, moment: When) -> Side {
        let total = self.total_balance;
        assert!(balance <= total && total <= MAX_BALANCE, "balance {balance} in a total of {total} ({MAX_BALANCE})");
        let transaction = self.history.len() + 1;
        let state = self.accounts.get_mut(account);
        self.undo.push(Before { account, balance: state.balance, last: state.last });
        let previous = state.last.map_or(0, |last| last.transaction);
        state.balance = balance;
        state.last = Some(Last { transaction, at: moment.time });
        state.transaction_count += 1;
        self.accounts.rank(account);
        Side { account, balance, previous }
    }
}

/// Whether the principal may move so much by one transaction.
fn check_move(amount: u64, at: At<'_>) -> Result<(), Box<OperationRefusal>> {
    if at.rights.may_move(amount) { Ok(()) } else { refuse(OperationRefusal::LimitExceeded) }
}

/// The same, out of an account, today.
fn check_spend(amount: u64, at: At<'_>) -> Result<(), Box<OperationRefusal>> {
    check_move(amount, at)?;
    if at.rights.may_spend(amount) { Ok(()) } else { refuse(OperationRefusal::LimitExceeded) }
}

fn check_name(name: &str) -> Result<(), Box<OperationRefusal>> {
    if is_valid_account_id(name) { Ok(()) } else { refuse(OperationRefusal::InvalidAccountId(shortened(name))) }
}

/// Refuses, unless a name is none: that comes first. Names are looked at here alone, since what is carried out has found its
/// accounts, whose names were looked at when they were created.
fn refuse_after<T>(names: &[&str], refusal: Box<OperationRefusal>) -> Result<T, Box<OperationRefusal>> {
    names.iter().try_for_each(|name| check_name(name))?;
    Err(refusal)
}

fn refuse<T>(refusal: OperationRefusal) -> Result<T, Box<OperationRefusal>> {
    Err(Box::new(refusal))
}
