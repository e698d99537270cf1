//! What a principal may do, as a machine asks it for each command.

use std::cell::RefCell;

use rabia_bank_messages::ids::Millis;
use rabia_bank_messages::principal::{PrincipalNumber, Role};
use rabia_bank_messages::sabotage::{Rule, is_broken};
use serde::{Deserialize, Serialize};

use super::principals::PrincipalState;

/// A day of log time, in milliseconds: limits a day count anew with each.
pub const DAY: Millis = 86_400_000;

/// What the principal may do that asks for a command.
///
/// What it moves out of accounts counts for its limit a day as the machine says so ([`spend`](Rights::spend)); a machine that undoes
/// something gives that back ([`give_back`](Rights::give_back)).
#[derive(Debug)]
pub struct Rights<'a> {
    number: PrincipalNumber,
    of: &'a PrincipalState,
    /// What it has moved out of accounts today.
    spent: RefCell<Spent>,
}

/// Which of several things an amount is of, as the machine counts them.
pub type Kind = u16;

/// What a principal has moved out of accounts on one day: an amount of each kind, in minor units. Empty where it has no limit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spent(Vec<(Kind, u64)>);

impl Spent {
    fn of(&self, kind: Kind) -> u64 {
        self.0.iter().find(|(other, _)| *other == kind).map_or(0, |(_, amount)| *amount)
    }

    fn add(&mut self, kind: Kind, more: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, amount)) => *amount = amount.saturating_add(more),
            None => self.0.push((kind, more)),
        }
    }
}

impl<'a> Rights<'a> {
    pub(crate) fn new(number: PrincipalNumber, of: &'a PrincipalState, spent: Spent) -> Rights<'a> {
        Rights { number, of, spent: RefCell::new(spent) }
    }

    /// Its number.
    pub fn principal(&self) -> PrincipalNumber {
        self.number
    }

    /// Whether it has this role.
    pub fn has(&self, role: Role) -> bool {
        self.of.roles.has(role) || is_broken(Rule::ScopesAtApply)
    }

    /// Whether it may look at this account.
    pub fn may_read(&self, account: &str) -> bool {
        self.reads_all() || (self.is_reader() && self.of.scopes.read.iter().any(|scope| scope.has(account)))
    }

    /// Whether it may look at everything.
    pub fn reads_all(&self) -> bool {
        self.has(Role::Auditor) || (self.is_reader() && self.of.scopes.read.iter().any(|scope| scope.is_all()))
    }

    /// Whether its scopes let it look at anything.
    pub fn is_reader(&self) -> bool {
        self.of.roles.has_any([Role::Reader, Role::Teller, Role::Minter, Role::Manager, Role::Auditor])
    }

    /// Whether it may take money from this account.
    pub fn may_debit(&self, account: &str) -> bool {
        self.of.scopes.debit.iter().any(|scope| scope.has(account)) || is_broken(Rule::ScopesAtApply)
    }

    /// Whether it may bring money to this account.
    pub fn may_credit(&self, account: &str) -> bool {
        self.of.scopes.credit.iter().any(|scope| scope.has(account)) || is_broken(Rule::ScopesAtApply)
    }

    /// Whether it may bring money to every account.
    pub fn credits_all(&self) -> bool {
        self.of.scopes.credit.iter().any(|scope| scope.is_all()) || is_broken(Rule::ScopesAtApply)
    }

    /// Whether one transaction may move so much.
    pub fn may_move(&self, amount: u64) -> bool {
        self.of.limits.per_transaction.is_none_or(|limit| amount <= limit) || is_broken(Rule::LimitsAtApply)
    }

    /// Whether so much more of this kind may leave accounts today.
    pub fn may_spend(&self, kind: Kind, amount: u64) -> bool {
        let Some(limit) = self.of.limits.per_day else { return true };
        let more = self.spent.borrow().of(kind).saturating_add(amount);
        more <= limit || is_broken(Rule::LimitsAtApply)
    }

    /// So much of this kind has left an account.
    pub fn spend(&self, kind: Kind, amount: u64) {
        if self.of.limits.per_day.is_some() {
            self.spent.borrow_mut().add(kind, amount);
        }
    }

    /// What has left accounts today, to go back to.
    pub fn spent(&self) -> Spent {
        self.spent.borrow().clone()
    }

    /// Something was undone: so much has left accounts today.
    pub fn give_back(&self, spent: Spent) {
        self.spent.replace(spent);
    }
}
