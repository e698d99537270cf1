//! The bank in the words of BANK.md: what every account was after each of its records, and the history in a vector. A bulk that fails
//! as a whole is taken back record by record.
//!
//! Source: BANK.md, "Commands", "State", "Checks in order".

use std::collections::BTreeMap;

use rabia_bank_messages::bank::{
    Account, AccountId, AccountStatus, Bound, Command, CreateAccount, CreateAsset, ErrorCode, ItemResult, MAX_BALANCE,
    MAX_BULK, Operation, OtherFields, Query, Refusal, SetAccount, SideProofs, Success, Transaction, TransactionType,
};
use rabia_bank_messages::genesis::BankTerms;
use rabia_bank_messages::ids::{Digest, Millis, Secret, Slot};
use rabia_bank_messages::principal::{PrincipalNumber, PrincipalsInfo, PutPrincipal};

use crate::chain::{chained, salts};
use crate::principals::{Principals, leaves};
use crate::{Answer, At, Plain, views};

/// So many assets are there at most.
const MOST_ASSETS: usize = 1_000;

/// An asset, and since which record there is one; the cluster's own one was always there.
#[derive(Debug)]
pub(crate) struct PlainAsset {
    pub(crate) code: String,
    pub(crate) scale: u8,
    pub(crate) limit: u64,
    pub(crate) since: Option<usize>,
}

/// Accounts and transactions in plain maps and lists. Nothing in them is ever dropped.
#[derive(Debug)]
pub struct Bank {
    allow_overdraft: bool,
    /// The cluster's own one first.
    pub(crate) assets: Vec<PlainAsset>,
    /// What each account was, after the record at which place of the history.
    pub(crate) accounts: BTreeMap<String, Vec<(usize, Account)>>,
    history: Vec<Transaction>,
    /// Where the command at hand stands, and who asks.
    slot: Slot,
    time: Millis,
    asker: PrincipalNumber,
    /// What salts are made of.
    secret: Secret,
}

/// What a record is about.
#[derive(Default)]
struct Parts<'a> {
    from: Option<&'a AccountId>,
    to: Option<&'a AccountId>,
    amount: u64,
    settings: Option<String>,
    act: Option<String>,
}

impl Bank {
    /// An empty bank with the usual terms, in which one transaction moves at most `limit` minor units, and whose salts are no secret.
    pub fn new(limit: u64) -> Bank {
        Bank::founded(&BankTerms::default(), limit, Secret([0; 32]))
    }

    /// One with these terms, whose salts are made of this.
    pub fn founded(terms: &BankTerms, limit: u64, secret: Secret) -> Bank {
        let own = PlainAsset { code: terms.asset.code.to_string(), scale: terms.asset.scale, limit, since: None };
        Bank {
            allow_overdraft: terms.allow_overdraft,
            assets: vec![own],
            accounts: BTreeMap::new(),
            history: Vec::new(),
            slot: 0,
            time: 0,
            asker: 0,
            secret,
        }
    }

    /// The largest amount of one transaction of the cluster's own asset, in minor units.
    pub fn limit(&self) -> u64 {
        self.assets[0].limit
    }

    /// The code of the cluster's own asset.
    pub fn own(&self) -> &str {
        &self.assets[0].code
    }

    /// The codes of all assets, the cluster's own one first.
    pub fn assets(&self) -> impl Iterator<Item = &str> {
        self.assets.iter().map(|asset| &*asset.code)
    }

    /// The sum of all balances of an asset, in minor units.
    pub fn total(&self, asset: &str) -> i128 {
        let all = self.accounts.values().filter_map(|versions| versions.last());
        all.filter(|(_, account)| *account.asset == *asset).map(|(_, account)| i128::from(account.balance)).sum()
    }

    /// All accounts as they are, by name.
    pub fn newest(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values().filter_map(|versions| versions.last()).map(|(_, account)| account)
    }

    /// All transactions, oldest first.
    pub fn history(&self) -> &[Transaction] {
        &self.history
    }

    pub(crate) fn asset(&self, code: &str) -> Option<&PlainAsset> {
        self.assets.iter().find(|asset| asset.code == code)
    }

    fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name)?.last().map(|(_, account)| account)
    }

    fn execute(&mut self, command: &Command, principals: &mut Principals) -> Answer {
        let bulk = match command {
            Command::One(operation) => return self.one(operation, principals).map_err(refusal),
            Command::Bulk(bulk) => bulk,
        };
        match bulk.commands.len() {
            0 => return Err(refusal(ErrorCode::BulkEmpty)),
            1..=MAX_BULK => {}
            _ => return Err(refusal(ErrorCode::BulkTooLarge)),
        }
        let (records, spent) = (self.history.len(), principals.clone());
        let mut results = Vec::new();
        for (index, operation) in (0..).zip(&bulk.commands) {
            results.push(match self.one(operation, principals) {
                Ok(success) => ItemResult::Ok(success),
                Err(code) if bulk.atomic => {
                    self.take_back(records);
                    *principals = spent;
                    return Err(Refusal { index: Some(index), ..refusal(code) });
                }
                Err(code) => ItemResult::Error(refusal(code)),
            });
        }
        Ok(Success::Results { results })
    }

    /// Everything is as it was when there were so many records.
    fn take_back(&mut self, records: usize) {
        self.history.truncate(records);
        self.assets.retain(|asset| asset.since.is_none_or(|place| place < records));
        for versions in self.accounts.values_mut() {
            versions.retain(|(place, _)| *place < records);
        }
        self.accounts.retain(|_, versions| !versions.is_empty());
    }

    fn one(&mut self, operation: &Operation, principals: &mut Principals) -> Result<Success, ErrorCode> {
        self.check(operation, principals)?;
        Ok(self.perform(operation, principals))
    }

    /// Carries out an operation that was checked.
    fn perform(&mut self, operation: &Operation, principals: &mut Principals) -> Success {
        let (kind, from, to, amount) = sides(operation);
        if let (true, Some(account)) = (leaves(operation), from.and_then(|name| self.account(name))) {
            principals.spend(self.asker, self.time, &account.asset, amount);
        }
        let mut parts = Parts { from, to, amount, ..Parts::default() };
        let place = self.history.len();
        match operation {
            Operation::CreateAccount(create) => {
                self.accounts.insert(create.account_id.to_string(), vec![(place, self.created(create))]);
                parts.settings = said(create.min_balance, create.max_balance, None, &create.code, &create.name);
            }
            Operation::SetAccount(set) => {
                let SetAccount { min_balance, max_balance, status, code, name, .. } = set.as_ref();
                parts.settings =
                    Some(said(*min_balance, *max_balance, *status, code, name).unwrap_or_else(|| "{}".into()));
                self.change(&set.account_id, |account| changed(account, set));
            }
            Operation::CreateAsset(CreateAsset { asset, scale, limit }) => {
                parts.act = Some(format!(r#"{{"asset":"{asset}","scale":{scale},"limit":{limit}}}"#));
                let (code, scale) = (asset.to_string(), *scale as u8);
                self.assets.push(PlainAsset { code, scale, limit: *limit, since: Some(place) });
            }
            Operation::Deposit { .. } | Operation::Withdraw { .. } | Operation::Transfer { .. } => {}
        }
        if let Some(from) = from {
            self.change(from, |account| account.balance -= amount as i64);
        }
        // A change of what is said of an account is one record of it already.
        if let Some(to) = to.filter(|_| !matches!(operation, Operation::SetAccount(_))) {
            self.change(to, |account| account.balance += amount as i64);
        }
        let transaction = self.write(kind, parts);
        match (operation, to.and_then(|name| self.account(name))) {
            (Operation::CreateAccount(_), Some(account)) => {
                Success::Account { account: Box::new(account.clone()), transaction: Some(transaction) }
            }
            _ => Success::Transaction { transaction },
        }
    }

    /// A new account, before its opening.
    fn created(&self, create: &CreateAccount) -> Account {
        Account {
            account_id: create.account_id.clone(),
            asset: create.asset.clone().unwrap_or_else(|| self.own().into()),
            balance: 0,
            available: None,
            min_balance: create.min_balance.unwrap_or(Bound::At(0)),
            max_balance: create.max_balance.unwrap_or(Bound::None),
            status: AccountStatus::Open,
            code: create.code.clone(),
            name: create.name.clone().filter(|name| !name.is_empty()),
            created_at: self.time,
            last_transaction_at: None,
            transaction_count: 0,
            version: 0,
            other: OtherFields::default(),
        }
    }

    /// The next record changes an account: it gets another version, or the one that this record began.
    fn change(&mut self, name: &str, change: impl FnOnce(&mut Account)) {
        let (place, time) = (self.history.len(), self.time);
        let versions = self.accounts.entry(name.into()).or_default();
        let Some((_, mut account)) = versions.last().cloned() else { return };
        versions.pop_if(|(begun, _)| *begun == place);
        change(&mut account);
        account.available = available(account.balance, account.min_balance);
        account.last_transaction_at = Some(time);
        account.transaction_count += 1;
        account.version = account.transaction_count;
        versions.push((place, account));
    }

    /// Adds a record about accounts that are as they are after it.
    fn write(&mut self, kind: TransactionType, parts: Parts<'_>) -> Transaction {
        let Parts { from, to, amount, settings, act } = parts;
        let side = |name: Option<&AccountId>| name.and_then(|name| self.account(name));
        let (source, destination) = (side(from), side(to));
        let asset = source.or(destination).map(|account| account.asset.clone());
        let (transaction_id, before) = (self.history.len() as u64 + 1, self.head());
        let [from_salt, to_salt] = salts(&self.secret, transaction_id);
        let mut transaction = Transaction {
            transaction_id,
            transaction_type: kind.into(),
            from_account: from.cloned(),
            to_account: to.cloned(),
            asset: asset.filter(|asset| **asset != *self.own()),
            amount,
            from_balance: source.map(|account| account.balance),
            to_balance: destination.map(|account| account.balance),
            settings: settings.map(Into::into),
            timestamp: self.time,
            slot: self.slot,
            principal: Some(self.asker),
            proofs: SideProofs::of_salts(from.map(|_| from_salt), to.map(|_| to_salt)),
            act: act.map(Into::into),
            hash: before,
            other: OtherFields::default(),
        };
        transaction.hash = chained(&transaction, before);
        self.history.push(transaction.clone());
        transaction
    }

    fn head(&self) -> Digest {
        self.history.last().map_or(Digest::ZERO, |last| last.hash)
    }

    /// The checks of an operation, in the order of BANK.md.
    fn check(&self, operation: &Operation, principals: &Principals) -> Result<(), ErrorCode> {
        let may = || ensure(principals.may(self.asker, operation), ErrorCode::NotAuthorised);
        let in_limits = |asset: &str| {
            let within = principals.within_limits(self.asker, self.time, asset, operation);
            ensure(within, ErrorCode::LimitExceeded)
        };
        match operation {
            Operation::CreateAccount(create) => self.check_creation(create, may, in_limits),
            Operation::SetAccount(set) => self.check_change(set, may),
            Operation::CreateAsset(create) => {
                let CreateAsset { asset, scale, limit } = create;
                let valid = is_asset_code(asset) && *scale <= 8 && (1..=MAX_BALANCE).contains(limit);
                ensure(valid, ErrorCode::InvalidAsset)?;
                may()?;
                ensure(self.asset(asset).is_none(), ErrorCode::AssetExists)?;
                ensure(self.assets.len() < MOST_ASSETS, ErrorCode::TooManyAssets)
            }
            Operation::Deposit { account_id, amount } => {
                well_formed(account_id)?;
                may()?;
                let account = self.account(account_id);
                self.in_limit(account, amount.get(), 1)?;
                let account = account.ok_or(ErrorCode::AccountNotFound)?;
                not_closed(account)?;
                takes_money(account)?;
                in_limits(&account.asset)?;
                has_room(account, amount.get())?;
                let amount = i128::from(amount.get());
                ensure(is_balance(i128::from(account.balance) + amount), ErrorCode::BalanceOverflow)?;
                ensure(is_balance(self.total(&account.asset) + amount), ErrorCode::BalanceOverflow)
            }
            Operation::Withdraw { account_id, amount } => {
                well_formed(account_id)?;
                may()?;
                let account = self.account(account_id);
                self.in_limit(account, amount.get(), 1)?;
                let account = account.ok_or(ErrorCode::AccountNotFound)?;
                not_closed(account)?;
                gives_money(account)?;
                in_limits(&account.asset)?;
                has_funds(account, amount.get())?;
                let amount = i128::from(amount.get());
                ensure(is_balance(i128::from(account.balance) - amount), ErrorCode::BalanceOverflow)?;
                ensure(is_balance(self.total(&account.asset) - amount), ErrorCode::BalanceOverflow)
            }
            Operation::Transfer { from_account, to_account, amount } => {
                well_formed(from_account)?;
                well_formed(to_account)?;
                may()?;
                let from = self.account(from_account);
                self.in_limit(from, amount.get(), 1)?;
                ensure(from_account != to_account, ErrorCode::SameAccount)?;
                let from = from.ok_or(ErrorCode::AccountNotFound)?;
                let to = self.account(to_account).ok_or(ErrorCode::AccountNotFound)?;
                ensure(from.asset == to.asset, ErrorCode::AssetMismatch)?;
                not_closed(from)?;
                not_closed(to)?;
                gives_money(from)?;
                takes_money(to)?;
                in_limits(&from.asset)?;
                has_funds(from, amount.get())?;
                has_room(to, amount.get())?;
                let amount = i128::from(amount.get());
                ensure(is_balance(i128::from(from.balance) - amount), ErrorCode::BalanceOverflow)?;
                ensure(is_balance(i128::from(to.balance) + amount), ErrorCode::BalanceOverflow)
            }
        }
    }

    fn check_creation(
        &self,
        create: &CreateAccount,
        may: impl Fn() -> Result<(), ErrorCode>,
        in_limits: impl Fn(&str) -> Result<(), ErrorCode>,
    ) -> Result<(), ErrorCode> {
        well_formed(&create.account_id)?;
        let code = create.asset.as_deref().unwrap_or(self.own());
        ensure(is_asset_code(code), ErrorCode::InvalidAsset)?;
        self.check_words(create.min_balance, create.max_balance, &create.code, &create.name)?;
        may()?;
        let (min, max) = (create.min_balance.unwrap_or(Bound::At(0)), create.max_balance.unwrap_or(Bound::None));
        ensure(in_order(min, max), ErrorCode::InvalidBounds)?;
        let (asset, amount) = (self.asset(code), create.initial_balance.get());
        ensure(amount <= asset.unwrap_or(&self.assets[0]).limit, ErrorCode::InvalidAmount)?;
        ensure(!self.accounts.contains_key(&*create.account_id), ErrorCode::AccountExists)?;
        ensure(asset.is_some(), ErrorCode::AssetNotFound)?;
        in_limits(code)?;
        let amount = i128::from(amount);
        ensure(amount <= ceiling(max), ErrorCode::BalanceLimit)?;
        ensure(is_balance(amount) && is_balance(self.total(code) + amount), ErrorCode::BalanceOverflow)
    }

    fn check_change(&self, set: &SetAccount, may: impl Fn() -> Result<(), ErrorCode>) -> Result<(), ErrorCode> {
        well_formed(&set.account_id)?;
        self.check_words(set.min_balance, set.max_balance, &set.code, &set.name)?;
        may()?;
        let account = self.account(&set.account_id).ok_or(ErrorCode::AccountNotFound)?;
        not_closed(account)?;
        let (min, max) =
            (set.min_balance.unwrap_or(account.min_balance), set.max_balance.unwrap_or(account.max_balance));
        ensure(in_order(min, max), ErrorCode::InvalidBounds)?;
        let closes = set.status == Some(AccountStatus::Closed);
        ensure(!closes || account.balance == 0, ErrorCode::AccountNotEmpty)
    }

    /// What is said of an account is of the right form.
    fn check_words(
        &self,
        min: Option<Bound>,
        max: Option<Bound>,
        code: &Option<Box<str>>,
        name: &Option<Box<str>>,
    ) -> Result<(), ErrorCode> {
        let is_number = |number: i64| is_balance(number.into());
        let min_fits = match min {
            None => true,
            Some(Bound::None) => self.allow_overdraft,
            Some(Bound::At(least)) => is_number(least) && (least >= 0 || self.allow_overdraft),
        };
        let max_fits = match max {
            None | Some(Bound::None) => true,
            Some(Bound::At(most)) => is_number(most),
        };
        ensure(min_fits && max_fits, ErrorCode::InvalidBounds)?;
        let is_code = |code: &str| code.len() <= 32 && well_formed(code).is_ok();
        ensure(code.as_deref().is_none_or(is_code), ErrorCode::InvalidCode)?;
        let is_name = |name: &str| name.len() <= 100 && !name.contains(char::is_control);
        ensure(name.as_deref().is_none_or(is_name), ErrorCode::InvalidName)
    }

    /// An amount is from `least` to the limit of what the account holds, or of the own asset if there is no such account.
    fn in_limit(&self, account: Option<&Account>, amount: u64, least: u64) -> Result<(), ErrorCode> {
        let asset = account.and_then(|account| self.asset(&account.asset)).unwrap_or(&self.assets[0]);
        ensure((least..=asset.limit).contains(&amount), ErrorCode::InvalidAmount)
    }
}

impl Plain for Bank {
    type Command = Command;
    type Query = Query;
    type Success = Success;

    fn command(&mut self, command: &Command, At { slot, time, asker, principals }: At<'_>) -> Answer {
        (self.slot, self.time, self.asker) = (slot, time, asker);
        self.execute(command, principals)
    }

    fn record(&mut self, act: String, asker: PrincipalNumber, slot: Slot, time: Millis) {
        (self.slot, self.time, self.asker) = (slot, time, asker);
        self.write(TransactionType::Admin, Parts { act: Some(act), ..Parts::default() });
    }

    fn query(&self, query: &Query, slot: Slot) -> Answer {
        self.answer(query, slot)
    }

    fn plain(answer: Answer) -> Answer {
        plain(answer)
    }

    fn is_refused(command: &Command, put: &PutPrincipal) -> bool {
        views::is_refused(put, command)
    }

    fn about_principals(query: &Query) -> Option<fn(PrincipalsInfo) -> Success> {
        matches!(query, Query::ListPrincipals {})
            .then_some(|PrincipalsInfo { principals, tokens }| Success::Principals { principals, tokens })
    }

    fn asked(query: &Query, answer: Answer, put: &PutPrincipal) -> Answer {
        views::asked(put, query, answer)
    }

    fn seen(answer: Success, put: &PutPrincipal) -> Success {
        views::seen(put, answer)
    }
}

/// An answer without the words for people.
pub fn plain(answer: Answer) -> Answer {
    let wordless = |refusal: Refusal| Refusal { message: String::new(), ..refusal };
    let item = |item| match item {
        ItemResult::Error(refusal) => ItemResult::Error(wordless(refusal)),
        ok @ ItemResult::Ok(_) => ok,
    };
    match answer {
        Ok(Success::Results { results }) => Ok(Success::Results { results: results.into_iter().map(item).collect() }),
        Ok(success) => Ok(success),
        Err(refusal) => Err(wordless(refusal)),
    }
}

pub(crate) fn refusal(code: ErrorCode) -> Refusal {
    Refusal::refused(code, String::new())
}

fn ensure(holds: bool, code: ErrorCode) -> Result<(), ErrorCode> {
    if holds { Ok(()) } else { Err(code) }
}

pub(crate) fn well_formed(name: &str) -> Result<(), ErrorCode> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    ensure((1..=50).contains(&name.len()) && name.chars().all(allowed), ErrorCode::InvalidAccountId)
}

pub(crate) fn is_asset_code(code: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '.';
    (1..=12).contains(&code.len()) && code.chars().all(allowed)
}

fn is_balance(number: i128) -> bool {
    number.unsigned_abs() <= MAX_BALANCE.into()
}

/// The highest balance that a bound allows.
pub(crate) fn ceiling(max: Bound) -> i128 {
    match max {
        Bound::None => i128::MAX,
        Bound::At(most) => most.into(),
    }
}

/// The lowest balance that a bound allows.
pub(crate) fn floor(min: Bound) -> i128 {
    match min {
        Bound::None => i128::MIN,
        Bound::At(least) => least.into(),
    }
}

fn in_order(min: Bound, max: Bound) -> bool {
    floor(min) <= ceiling(max)
}

/// What may leave an account, if a bound says so.
pub(crate) fn available(balance: i64, min: Bound) -> Option<i64> {
    match min {
        Bound::None => None,
        Bound::At(least) => Some(balance - least),
    }
}

fn not_closed(account: &Account) -> Result<(), ErrorCode> {
    ensure(account.status != AccountStatus::Closed, ErrorCode::AccountClosed)
}

fn takes_money(account: &Account) -> Result<(), ErrorCode> {
    ensure(!matches!(account.status, AccountStatus::Frozen | AccountStatus::NoCredits), ErrorCode::AccountFrozen)
}

fn gives_money(account: &Account) -> Result<(), ErrorCode> {
    ensure(!matches!(account.status, AccountStatus::Frozen | AccountStatus::NoDebits), ErrorCode::AccountFrozen)
}

fn has_funds(account: &Account, amount: u64) -> Result<(), ErrorCode> {
    let left = i128::from(account.balance) - i128::from(amount);
    ensure(left >= floor(account.min_balance), ErrorCode::InsufficientFunds)
}

fn has_room(account: &Account, amount: u64) -> Result<(), ErrorCode> {
    let full = i128::from(account.balance) + i128::from(amount);
    ensure(full <= ceiling(account.max_balance), ErrorCode::BalanceLimit)
}

/// An account takes on what is said of it.
fn changed(account: &mut Account, set: &SetAccount) {
    let SetAccount { min_balance, max_balance, status, code, name, .. } = set;
    account.min_balance = min_balance.unwrap_or(account.min_balance);
    account.max_balance = max_balance.unwrap_or(account.max_balance);
    account.status = status.unwrap_or(account.status);
    account.code = code.clone().or(account.code.take());
    account.name = name.clone().or(account.name.take()).filter(|name| !name.is_empty());
}

/// What was said of an account, as the history says it; nothing where nothing was.
fn said(
    min: Option<Bound>,
    max: Option<Bound>,
    status: Option<AccountStatus>,
    code: &Option<Box<str>>,
    name: &Option<Box<str>>,
) -> Option<String> {
    let quoted = |text: &str| format!(r#""{}""#, text.replace('\\', r"\\").replace('"', r#"\""#));
    let bound = |bound: Bound| match bound {
        Bound::None => quoted("none"),
        Bound::At(balance) => balance.to_string(),
    };
    let fields = [
        min.map(|min| format!(r#""min_balance":{}"#, bound(min))),
        max.map(|max| format!(r#""max_balance":{}"#, bound(max))),
        status.map(|status| format!(r#""status":"{}""#, status.name())),
        code.as_deref().map(|code| format!(r#""code":{}"#, quoted(code))),
        name.as_deref().map(|name| format!(r#""name":{}"#, quoted(name))),
    ];
    let fields: Vec<String> = fields.into_iter().flatten().collect();
    (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(",")))
}

/// What an operation brings in, takes out or moves, in minor units.
pub fn amount_of(operation: &Operation) -> u64 {
    sides(operation).3
}

/// Why there is a record, from where money moves, where to, and how much.
fn sides(operation: &Operation) -> (TransactionType, Option<&AccountId>, Option<&AccountId>, u64) {
    match operation {
        Operation::CreateAccount(create) => {
            (TransactionType::Opening, None, Some(&create.account_id), create.initial_balance.get())
        }
        Operation::Deposit { account_id, amount } => (TransactionType::Deposit, None, Some(account_id), amount.get()),
        Operation::Withdraw { account_id, amount } => {
            (TransactionType::Withdrawal, Some(account_id), None, amount.get())
        }
        Operation::Transfer { from_account, to_account, amount } => {
            (TransactionType::Transfer, Some(from_account), Some(to_account), amount.get())
        }
        Operation::SetAccount(set) => (TransactionType::AccountChange, None, Some(&set.account_id), 0),
        Operation::CreateAsset(_) => (TransactionType::Asset, None, None, 0),
    }
}

/// Whether a transaction may be what came of an operation, as far as can be seen without the accounts.
pub fn is_result_of(transaction: &Transaction, operation: &Operation) -> bool {
    let (kind, from, to, amount) = sides(operation);
    transaction.transaction_type == kind
        && (transaction.from_account.as_ref(), transaction.to_account.as_ref()) == (from, to)
        && transaction.amount == amount
}
