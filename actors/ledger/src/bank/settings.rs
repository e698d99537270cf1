//! What is set about an account: bounds of its balance, what it lets happen, its class and its name.

use rabia_bank_messages::bank::{
    AccountStatus, Bound, CreateAccount, MAX_BALANCE, SetAccount, is_valid_balance, is_valid_code, is_valid_name,
};
use rabia_bank_messages::codec::Encoding;
use serde::{Deserialize, Serialize};

use super::outcomes::OperationRefusal;

/// The settings of an account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    /// No command takes the balance below.
    pub(super) min_balance: Bound,
    /// No command takes it above.
    pub(super) max_balance: Bound,
    pub(super) status: AccountStatus,
    pub(super) code: Option<Box<str>>,
    pub(super) name: Option<Box<str>>,
}

/// Those of most accounts.
pub(super) static USUAL: Settings = Settings {
    min_balance: Bound::At(0),
    max_balance: Bound::None,
    status: AccountStatus::Open,
    code: None,
    name: None,
};

/// What a command says of them. Fields in the order in which they are written: they are hashed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_balance: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_balance: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<AccountStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Box<str>>,
}

impl From<&CreateAccount> for Said {
    fn from(account: &CreateAccount) -> Said {
        let CreateAccount { min_balance, max_balance, code, name, .. } = account.clone();
        Said { min_balance, max_balance, status: None, code, name }
    }
}

impl From<&SetAccount> for Said {
    fn from(change: &SetAccount) -> Said {
        let SetAccount { min_balance, max_balance, status, code, name, .. } = change.clone();
        Said { min_balance, max_balance, status, code, name }
    }
}

impl Said {
    /// Whether each of it can be, by itself.
    pub(super) fn check(&self, allow_overdraft: bool) -> Result<(), Box<OperationRefusal>> {
        let overdraws = |bound: Bound| match bound {
            Bound::None => true,
            Bound::At(balance) => balance < 0,
        };
        let bounds = [self.min_balance, self.max_balance].into_iter().flatten().all(is_bound);
        if !bounds || (!allow_overdraft && self.min_balance.is_some_and(overdraws)) {
            return Err(Box::new(OperationRefusal::InvalidBounds));
        }
        if self.code.as_deref().is_some_and(|code| !is_valid_code(code)) {
            return Err(Box::new(OperationRefusal::InvalidCode));
        }
        if self.name.as_deref().is_some_and(|name| !is_valid_name(name)) {
            return Err(Box::new(OperationRefusal::InvalidName));
        }
        Ok(())
    }

    /// The text for the history; none if nothing is said.
    pub(super) fn text(&self) -> Option<String> {
        if *self == Said::default() {
            return None;
        }
        Some(String::from_utf8_lossy(&Encoding::Json.encode(self)).into_owned())
    }

    /// What such a text says. None if it says something else.
    pub(super) fn of_text(text: &str) -> Option<Said> {
        Encoding::Json.decode(text.as_bytes()).ok()
    }

    /// The settings with what is said here.
    pub(super) fn on(self, before: &Settings) -> Settings {
        let Said { min_balance, max_balance, status, code, name } = self;
        let before = before.clone();
        Settings {
            min_balance: min_balance.unwrap_or(before.min_balance),
            max_balance: max_balance.unwrap_or(before.max_balance),
            status: status.unwrap_or(before.status),
            code: code.or(before.code),
            name: name.or(before.name).filter(|name| !name.is_empty()),
        }
    }
}

fn is_bound(bound: Bound) -> bool {
    match bound {
        Bound::None => true,
        Bound::At(balance) => is_valid_balance(balance),
    }
}

impl Settings {
    /// Whether a ledger can have made them.
    pub(super) fn are_valid(&self) -> bool {
        is_bound(self.min_balance)
            && is_bound(self.max_balance)
            && self.are_possible()
            && self.code.as_deref().is_none_or(is_valid_code)
            && self.name.as_deref().is_none_or(|name| !name.is_empty() && is_valid_name(name))
    }

    /// Whether a balance can be within the bounds.
    pub(super) fn are_possible(&self) -> bool {
        match (self.min_balance, self.max_balance) {
            (Bound::At(min), Bound::At(max)) => min <= max,
            _ => true,
        }
    }

    /// What may leave an account with this balance; none if that is not bounded.
    pub(super) fn available(&self, balance: i64) -> Option<i64> {
        match self.min_balance {
            Bound::None => None,
            Bound::At(min) => Some(balance - min),
        }
    }

    /// Whether the balance may rise to this.
    pub(super) fn lets_rise_to(&self, balance: i64) -> bool {
        match self.max_balance {
            Bound::None => true,
            Bound::At(max) => balance <= max,
        }
    }
}

/// Sums of two of these do not overflow.
const _: () = assert!(MAX_BALANCE < (i64::MAX as u64) / 4);
