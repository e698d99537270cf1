//! Money that comes in, goes out, and moves.

use rabia_bank_messages::bank::{AccountStatus, Amount, is_valid_balance};

use super::super::account::AccountIndex;
use super::super::history::Movement;
use super::super::outcomes::{Done, OperationOutcome, OperationRefusal, shortened};
use super::{At, Bank, Refused, refuse};

impl Bank {
    pub(super) fn deposit(&mut self, name: &str, amount: Amount, at: At<'_>) -> OperationOutcome {
        let amount = self.check_amount_of(name, amount)?;
        let account = self.check_account(name)?;
        self.check_closed(account)?;
        self.check_status(account, AccountStatus::lets_in)?;
        check_move(amount, at)?;
        self.check_room(account, amount)?;
        let balance = self.check_balance(account, amount as i64)?;
        self.check_total(self.accounts.get(account).asset, amount as i64)?;
        let movement = Movement::Deposit(self.set_balance(account, balance, at.moment));
        Ok(Done::Moved(self.history.append(movement, amount, at.moment, &self.accounts)))
    }

    pub(super) fn withdraw(&mut self, name: &str, amount: Amount, at: At<'_>) -> OperationOutcome {
        let amount = self.check_amount_of(name, amount)?;
        let account = self.check_account(name)?;
        self.check_closed(account)?;
        self.check_status(account, AccountStatus::lets_out)?;
        self.check_spend(account, amount, at)?;
        self.check_funds(account, amount)?;
        let balance = self.check_balance(account, -(amount as i64))?;
        self.check_total(self.accounts.get(account).asset, -(amount as i64))?;
        at.rights.spend(self.accounts.get(account).asset.number(), amount);
        let movement = Movement::Withdrawal(self.set_balance(account, balance, at.moment));
        Ok(Done::Moved(self.history.append(movement, amount, at.moment, &self.accounts)))
    }

    pub(super) fn transfer(&mut self, from: &str, to: &str, amount: Amount, at: At<'_>) -> OperationOutcome {
        let amount = self.check_amount_of(from, amount)?;
        if from == to {
            return refuse(OperationRefusal::SameAccount(shortened(from)));
        }
        let from = self.check_account(from)?;
        let to = self.check_account(to)?;
        let asset = self.accounts.get(from).asset;
        if asset != self.accounts.get(to).asset {
            return refuse(OperationRefusal::AssetMismatch);
        }
        self.check_closed(from)?;
        self.check_closed(to)?;
        self.check_status(from, AccountStatus::lets_out)?;
        self.check_status(to, AccountStatus::lets_in)?;
        self.check_spend(from, amount, at)?;
        self.check_funds(from, amount)?;
        self.check_room(to, amount)?;
        let from_balance = self.check_balance(from, -(amount as i64))?;
        let to_balance = self.check_balance(to, amount as i64)?;
        at.rights.spend(asset.number(), amount);
        let movement = Movement::Transfer {
            from: self.set_balance(from, from_balance, at.moment),
            to: self.set_balance(to, to_balance, at.moment),
        };
        Ok(Done::Moved(self.history.append(movement, amount, at.moment, &self.accounts)))
    }

    /// The amount, if one transaction may move so much of what this account holds. Where there is no such account, of the cluster's own
    /// asset.
    fn check_amount_of(&self, name: &str, amount: Amount) -> Result<u64, Refused> {
        let account = self.accounts.find(name);
        let asset = account.map(|account| self.accounts.get(account).asset).unwrap_or_default();
        self.check_amount(amount, 1, asset)
    }

    fn check_closed(&self, account: AccountIndex) -> Result<(), Refused> {
        let state = self.accounts.get(account);
        match state.settings().status {
            AccountStatus::Closed => refuse(OperationRefusal::AccountClosed(state.name.clone())),
            _ => Ok(()),
        }
    }

    /// Whether the account's status lets the money through.
    fn check_status(&self, account: AccountIndex, lets: fn(AccountStatus) -> bool) -> Result<(), Refused> {
        let state = self.accounts.get(account);
        if lets(state.settings().status) { Ok(()) } else { refuse(OperationRefusal::AccountFrozen(state.name.clone())) }
    }

    /// Whether the principal may move so much out of an account, today.
    fn check_spend(&self, account: AccountIndex, amount: u64, at: At<'_>) -> Result<(), Refused> {
        check_move(amount, at)?;
        let asset = self.accounts.get(account).asset;
        if at.rights.may_spend(asset.number(), amount) { Ok(()) } else { refuse(OperationRefusal::LimitExceeded) }
    }

    /// Whether so much is available.
    fn check_funds(&self, account: AccountIndex, amount: u64) -> Result<(), Refused> {
        let state = self.accounts.get(account);
        match state.settings().available(state.balance) {
            Some(available) if available < amount as i64 => {
                refuse(OperationRefusal::InsufficientFunds { account: state.name.clone(), available, amount })
            }
            _ => Ok(()),
        }
    }

    /// Whether the upper bound leaves room for so much.
    fn check_room(&self, account: AccountIndex, amount: u64) -> Result<(), Refused> {
        let state = self.accounts.get(account);
        if state.settings().lets_rise_to(state.balance + amount as i64) {
            Ok(())
        } else {
            refuse(OperationRefusal::BalanceLimit(state.name.clone()))
        }
    }

    /// The balance after a change, if a balance can be so.
    fn check_balance(&self, account: AccountIndex, change: i64) -> Result<i64, Refused> {
        let balance = self.accounts.get(account).balance + change;
        if is_valid_balance(balance) {
            Ok(balance)
        } else {
            refuse(OperationRefusal::BalanceOverflow(change.unsigned_abs()))
        }
    }
}

/// Whether the principal may move so much by one transaction.
pub(super) fn check_move(amount: u64, at: At<'_>) -> Result<(), Refused> {
    if at.rights.may_move(amount) { Ok(()) } else { refuse(OperationRefusal::LimitExceeded) }
}
