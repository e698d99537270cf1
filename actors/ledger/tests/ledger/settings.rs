//! What an account holds, its bounds and its status: which refusal comes first, what success carries, what is undone, and what
//! snapshots keep.

use std::iter;

use rabia_bank_ledger::chain_hash;
use rabia_bank_messages::bank::{
    AccountStatus, Amount, Asset, Bound, CreateAccount, ErrorCode, HistoryFilter, MAX_ASSETS, MAX_BALANCE, Operation,
    OtherFields, Query, SetAccount, Success, Transaction, TransactionType,
};
use rabia_bank_messages::genesis::BankTerms;
use rabia_bank_messages::ids::Digest;

use crate::support::*;

const LARGEST: i64 = MAX_BALANCE as i64;

fn status(account: &str, status: AccountStatus) -> Operation {
    set(account, |set| set.status = Some(status))
}

fn bounds(account: &str, min: Bound, max: Bound) -> Operation {
    set(account, |set| (set.min_balance, set.max_balance) = (Some(min), Some(max)))
}

/// An account that may have any balance.
fn unbounded(account: &str, balance: u64) -> Operation {
    create_as(account, balance, |create| create.min_balance = Some(Bound::None))
}

#[track_caller]
fn record(bank: &mut Bank, operation: Operation) -> Transaction {
    match bank.run(operation.clone()) {
        Ok(Success::Transaction { transaction } | Success::Account { transaction: Some(transaction), .. }) => {
            transaction
        }
        other => panic!("{operation:?}: {other:?}"),
    }
}

fn assets(bank: &mut Bank) -> Vec<Asset> {
    match bank.query(&Query::ListAssets {}) {
        Ok(Success::Assets { assets }) => assets,
        other => panic!("{other:?}"),
    }
}

/// Why something is refused, and what mends that.
type Mend<T> = (ErrorCode, fn(&mut T));

/// The operation is refused for each reason, alone, in a bulk, and in an atomic one, until what is wrong with it is mended; then it is
/// done. What is wrong last is still wrong in all that come before, so that this is the order of the checks.
#[track_caller]
fn refused_in_order<T>(bank: &mut Bank, mut wrong: T, mend: &[Mend<T>], make: fn(&T) -> Operation) {
    for (expected, mend) in mend {
        let operation = make(&wrong);
        assert_eq!(bank.refused(operation.clone()), *expected, "{operation:?}");
        let mut answers = results(bank.command(bulk(false, vec![operation.clone()])));
        assert_eq!(code(answers.remove(0)), *expected, "{operation:?} in a bulk");
        let refusal = bank.command(bulk(true, vec![create("of this bulk", 0), operation.clone()])).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidAccountId);
        let refusal = bank.command(bulk(true, vec![create("of-this-bulk", 0), operation.clone()])).unwrap_err();
        assert_eq!((refusal.code, refusal.index), (expected.clone(), Some(1)), "{operation:?} in an atomic bulk");
        mend(&mut wrong);
    }
    bank.done(make(&wrong));
}

// ----- assets -----

#[test]
fn an_asset_is_created_once_and_listed_behind_the_own_one() {
    let own = "EUR:3".parse().unwrap();
    let mut bank = Bank::of(BankTerms { asset: own, allow_overdraft: false }, 5_000);
    let made = record(&mut bank, asset("A.1", 8, 100));
    assert_eq!(made.transaction_type, TransactionType::Asset);
    assert_eq!(made.act.as_deref(), Some(r#"{"asset":"A.1","scale":8,"limit":100}"#));
    assert_eq!((&made.from_account, &made.to_account, &made.asset, made.amount), (&None, &None, &None, 0));
    bank.done(create_of("A.1", "a", 70));
    bank.done(create_of("EUR", "b", 7));
    let row = |code: &str, scale, limit, accounts, total_balance| Asset {
        asset: code.into(),
        scale,
        limit,
        accounts,
        total_balance,
        other: OtherFields::default(),
    };
    let expected = [row("EUR", 3, 5_000, 1, 7), row("A.1", 8, 100, 1, 70)];
    assert_eq!(assets(&mut bank), expected);
    for code in ["A.1", "EUR"] {
        assert_eq!(bank.refused(asset(code, 0, 1)), ErrorCode::AssetExists);
    }
    bank.reload();
    assert_eq!(assets(&mut bank), expected);
    assert_eq!(bank.refused(asset("A.1", 0, 1)), ErrorCode::AssetExists);
}

#[test]
fn an_asset_has_a_code_a_scale_and_a_limit_of_some_range() {
    let mut bank = Bank::new();
    for code in ["", "eur", "EUR ", "E-R", "Ä", "ABCDEFGHIJKLM"] {
        assert_eq!(bank.refused(asset(code, 2, 1)), ErrorCode::InvalidAsset, "{code:?}");
    }
    for (scale, limit) in [(9, 1), (u64::MAX, 1), (2, 0), (2, MAX_BALANCE + 1), (2, u64::MAX)] {
        assert_eq!(bank.refused(asset("XXX", scale, limit)), ErrorCode::InvalidAsset, "and asset_exists");
    }
    for (code, scale, limit) in [("A", 0, 1), (".", 8, MAX_BALANCE), ("ABCDEFGHIJKL", 8, 1), ("0.9", 2, 1)] {
        bank.done(asset(code, scale, limit));
    }
}

#[test]
fn there_are_as_many_assets_as_may_be() {
    let mut bank = Bank::new();
    let more = |numbers: std::ops::Range<usize>| numbers.map(|n| asset(&format!("A{n}"), 2, 10)).collect();
    // The own one counts. A bulk that is undone leaves its room to others.
    let undone = bank.command(bulk(true, more(0..MAX_ASSETS))).unwrap_err();
    assert_eq!((undone.code, undone.index), (ErrorCode::TooManyAssets, Some(MAX_ASSETS as u32 - 1)));
    assert_eq!(assets(&mut bank).len(), 1);
    assert!(results(bank.command(bulk(false, more(0..MAX_ASSETS - 1)))).iter().all(Result::is_ok));
    for reloaded in [false, true] {
        if reloaded {
            bank.reload();
        }
        assert_eq!(bank.refused(asset("A0", 2, 10)), ErrorCode::AssetExists, "and too_many_assets");
        assert_eq!(bank.refused(asset("B", 2, 10)), ErrorCode::TooManyAssets);
        assert_eq!(assets(&mut bank).len(), MAX_ASSETS);
    }
    bank.done(create_of("A998", "a", 10));
}

#[test]
fn money_moves_within_an_asset_and_by_its_limit() {
    let mut bank = Bank::with_limit(100);
    for (code, limit) in [("LOW", 10), ("HIGH", 1_000)] {
        bank.done(asset(code, 0, limit));
    }
    for (code, most) in [("LOW", 10), ("HIGH", 1_000), ("XXX", 100)] {
        let [one, other] = ["one", "other"].map(|name| format!("{code}:{name}"));
        assert_eq!(bank.refused(create_of(code, &one, most + 1)), ErrorCode::InvalidAmount);
        let opening = record(&mut bank, create_of(code, &one, most));
        let expected = Some(code).filter(|code| *code != "XXX");
        assert_eq!(opening.asset.as_deref(), expected, "the own one is not named");
        bank.done(create_of(code, &other, 0));
        for operation in [deposit, withdraw, |to: &str, amount| transfer(to, "LOW:one", amount)] {
            assert_eq!(bank.refused(operation(&one, most + 1)), ErrorCode::InvalidAmount, "{code}");
        }
        for operation in [transfer(&one, &other, most), deposit(&one, most), withdraw(&one, most)] {
            assert_eq!(record(&mut bank, operation).asset.as_deref(), expected);
        }
        assert_eq!(*bank.account(&one).asset, *code);
    }
    assert_eq!(bank.refused(transfer("HIGH:other", "XXX:one", 1_000)), ErrorCode::AssetMismatch);
    assert_eq!(bank.refused(transfer("XXX:one", "HIGH:other", 1)), ErrorCode::AssetMismatch);
    // Where there is no account, or no asset, the limit is that of the own one.
    assert_eq!(bank.refused(transfer("nobody", "HIGH:one", 101)), ErrorCode::InvalidAmount);
    assert_eq!(bank.refused(deposit("nobody", 101)), ErrorCode::InvalidAmount);
    assert_eq!(bank.refused(create_of("NONE", "a", 101)), ErrorCode::InvalidAmount);
    assert_eq!(bank.refused(create_of("NONE", "a", 100)), ErrorCode::AssetNotFound);
}

// ----- the order of checks -----

#[test]
fn create_account_checks_its_settings_in_order() {
    let mut bank = Bank::with_limit(MAX_BALANCE);
    bank.done(create("full", MAX_BALANCE - 10));
    let wrong = CreateAccount {
        asset: Some("eur".into()),
        min_balance: Some(Bound::At(-1)),
        max_balance: Some(Bound::INVALID),
        code: Some("".into()),
        name: Some("\n".into()),
        ..CreateAccount::new("no name", Amount::INVALID)
    };
    refused_in_order(
        &mut bank,
        wrong,
        &[
            (ErrorCode::InvalidAccountId, |new| new.account_id = "full".into()),
            (ErrorCode::InvalidAsset, |new| new.asset = Some("NONE".into())),
            (ErrorCode::InvalidBounds, |new| new.max_balance = Some(Bound::At(3))),
            (ErrorCode::InvalidBounds, |new| new.min_balance = Some(Bound::None)),
            (ErrorCode::InvalidBounds, |new| new.min_balance = Some(Bound::At(LARGEST + 1))),
            (ErrorCode::InvalidBounds, |new| new.min_balance = Some(Bound::At(4))),
            (ErrorCode::InvalidCode, |new| new.code = Some("c".into())),
            (ErrorCode::InvalidName, |new| new.name = Some("n".into())),
            (ErrorCode::InvalidBounds, |new| new.min_balance = Some(Bound::At(2))),
            (ErrorCode::InvalidAmount, |new| new.initial_balance = Amount::new(MAX_BALANCE)),
            (ErrorCode::AccountExists, |new| new.account_id = "new".into()),
            (ErrorCode::AssetNotFound, |new| new.asset = None),
            (ErrorCode::BalanceLimit, |new| new.max_balance = None),
            (ErrorCode::BalanceOverflow, |new| new.initial_balance = Amount::new(10)),
        ],
        |new| Operation::CreateAccount(Box::new(new.clone())),
    );
}

#[test]
fn set_account_checks_in_order() {
    let mut bank = Bank::new();
    bank.done(create("full", 10));
    bank.done(create("closed", 0));
    bank.done(status("closed", AccountStatus::Closed));
    bank.done(create("empty", 0));
    let wrong = SetAccount {
        min_balance: Some(Bound::At(-1)),
        max_balance: Some(Bound::At(LARGEST + 1)),
        status: Some(AccountStatus::Closed),
        code: Some("ä".into()),
        name: Some("x".repeat(101).into()),
        ..SetAccount::new("")
    };
    refused_in_order(
        &mut bank,
        wrong,
        &[
            (ErrorCode::InvalidAccountId, |set| set.account_id = "nobody".into()),
            (ErrorCode::InvalidBounds, |set| set.min_balance = Some(Bound::At(4))),
            (ErrorCode::InvalidBounds, |set| set.max_balance = Some(Bound::At(3))),
            (ErrorCode::InvalidCode, |set| set.code = Some("c".into())),
            (ErrorCode::InvalidName, |set| set.name = Some("n".into())),
            (ErrorCode::AccountNotFound, |set| set.account_id = "closed".into()),
            (ErrorCode::AccountClosed, |set| set.account_id = "full".into()),
            (ErrorCode::InvalidBounds, |set| set.max_balance = Some(Bound::At(4))),
            (ErrorCode::AccountNotEmpty, |set| set.account_id = "empty".into()),
        ],
        |set| Operation::SetAccount(Box::new(set.clone())),
    );
    // A bound alone is held against the other one, which was there.
    bank.done(bounds("full", Bound::At(5), Bound::At(20)));
    assert_eq!(bank.refused(set("full", |set| set.min_balance = Some(Bound::At(21)))), ErrorCode::InvalidBounds);
    assert_eq!(bank.refused(set("full", |set| set.max_balance = Some(Bound::At(4)))), ErrorCode::InvalidBounds);
    bank.done(set("full", |set| set.min_balance = Some(Bound::At(20))));
}

#[test]
fn transfer_checks_assets_statuses_and_bounds_in_order() {
    let mut bank = Bank::with_overdraft(MAX_BALANCE);
    bank.done(asset("EUR", 2, MAX_BALANCE));
    for name in ["closed", "frozen", "no-debits", "no-credits"] {
        bank.done(create(name, 0));
    }
    for (name, to) in [
        ("closed", AccountStatus::Closed),
        ("frozen", AccountStatus::Frozen),
        ("no-debits", AccountStatus::NoDebits),
        ("no-credits", AccountStatus::NoCredits),
    ] {
        bank.done(status(name, to));
    }
    bank.done(create_of("EUR", "euro", 0));
    for (name, balance) in [("empty", 0), ("poor", 7)] {
        bank.done(create(name, balance));
    }
    bank.done(create_as("low", 0, |create| create.max_balance = Some(Bound::At(5))));
    bank.done(unbounded("debt", 0));
    bank.done(unbounded("rich", MAX_BALANCE - 7));
    let wrong = (("no name", "no name"), u64::MAX);
    refused_in_order(
        &mut bank,
        wrong,
        &[
            (ErrorCode::InvalidAccountId, |it| it.0 = ("closed", "closed")),
            (ErrorCode::InvalidAmount, |it| it.1 = 8),
            (ErrorCode::SameAccount, |it| it.0 = ("nobody", "closed")),
            (ErrorCode::AccountNotFound, |it| it.0 = ("closed", "nobody")),
            (ErrorCode::AccountNotFound, |it| it.0 = ("closed", "euro")),
            (ErrorCode::AssetMismatch, |it| it.0 = ("closed", "frozen")),
            (ErrorCode::AccountClosed, |it| it.0 = ("frozen", "closed")),
            (ErrorCode::AccountClosed, |it| it.0 = ("frozen", "empty")),
            (ErrorCode::AccountFrozen, |it| it.0 = ("no-debits", "no-credits")),
            (ErrorCode::AccountFrozen, |it| it.0 = ("empty", "no-credits")),
            (ErrorCode::AccountFrozen, |it| it.0 = ("poor", "frozen")),
            (ErrorCode::AccountFrozen, |it| it.0 = ("poor", "low")),
            (ErrorCode::InsufficientFunds, |it| it.1 = 7),
            (ErrorCode::BalanceLimit, |it| it.0 = ("debt", "low")),
            (ErrorCode::BalanceLimit, |it| *it = (("debt", "rich"), 8)),
            (ErrorCode::BalanceOverflow, |it| it.1 = 7),
        ],
        |((from, to), amount)| transfer(from, to, *amount),
    );
    assert_eq!((bank.balance("rich"), bank.balance("debt")), (LARGEST, -7));
}

#[test]
fn deposit_and_withdraw_check_statuses_and_bounds_in_order() {
    let mut bank = Bank::with_overdraft(MAX_BALANCE);
    for (name, to) in [("closed", AccountStatus::Closed), ("frozen", AccountStatus::Frozen)] {
        bank.done(create(name, 0));
        bank.done(status(name, to));
    }
    bank.done(create_as("low", 0, |create| create.max_balance = Some(Bound::At(5))));
    bank.done(unbounded("rich", MAX_BALANCE - 7));
    bank.done(unbounded("debt", 0));
    refused_in_order(
        &mut bank,
        ("", 0),
        &[
            (ErrorCode::InvalidAccountId, |it| it.0 = "nobody"),
            (ErrorCode::InvalidAmount, |it| it.1 = 8),
            (ErrorCode::AccountNotFound, |it| it.0 = "closed"),
            (ErrorCode::AccountClosed, |it| it.0 = "frozen"),
            (ErrorCode::AccountFrozen, |it| it.0 = "low"),
            (ErrorCode::BalanceLimit, |it| it.0 = "rich"),
            (ErrorCode::BalanceOverflow, |it| it.1 = 7),
        ],
        |(account, amount)| deposit(account, *amount),
    );
    bank.done(transfer("rich", "debt", 7));
    assert_eq!(bank.refused(deposit("debt", 1)), ErrorCode::BalanceOverflow, "of the sum of all balances");
    bank.done(withdraw("debt", 7));
    refused_in_order(
        &mut bank,
        ("", 0),
        &[
            (ErrorCode::InvalidAccountId, |it| it.0 = "nobody"),
            (ErrorCode::InvalidAmount, |it| it.1 = MAX_BALANCE),
            (ErrorCode::AccountNotFound, |it| it.0 = "closed"),
            (ErrorCode::AccountClosed, |it| it.0 = "frozen"),
            (ErrorCode::AccountFrozen, |it| it.0 = "low"),
            (ErrorCode::InsufficientFunds, |it| it.0 = "debt"),
        ],
        |(account, amount)| withdraw(account, *amount),
    );
    assert_eq!(bank.balance("debt"), -LARGEST);
    assert_eq!(bank.refused(withdraw("debt", 1)), ErrorCode::BalanceOverflow);
}

// ----- bounds and statuses -----

#[test]
fn a_status_stops_money_that_goes_its_way() {
    let mut bank = Bank::new();
    bank.done(create("other", 100));
    let frozen = Some(ErrorCode::AccountFrozen);
    for (to, out, into) in [
        (AccountStatus::Open, None, None),
        (AccountStatus::NoDebits, frozen.clone(), None),
        (AccountStatus::NoCredits, None, frozen.clone()),
        (AccountStatus::Frozen, frozen.clone(), frozen),
    ] {
        let name = to.name();
        bank.done(create(name, 100));
        bank.done(status(name, to));
        assert_eq!(bank.account(name).status, to);
        for operation in [withdraw(name, 1), transfer(name, "other", 1)] {
            assert_eq!(bank.run(operation).err().map(|refusal| refusal.code), out, "{name}");
        }
        for operation in [deposit(name, 1), transfer("other", name, 1)] {
            assert_eq!(bank.run(operation).err().map(|refusal| refusal.code), into, "{name}");
        }
        // Whatever it is, it can be opened again.
        bank.done(status(name, AccountStatus::Open));
        bank.done(transfer(name, "other", 1));
    }
}

#[test]
fn closed_is_for_ever_and_empty() {
    let mut bank = Bank::with_overdraft(LIMIT);
    bank.done(unbounded("a", 1));
    assert_eq!(bank.refused(status("a", AccountStatus::Closed)), ErrorCode::AccountNotEmpty);
    bank.done(withdraw("a", 2));
    assert_eq!(bank.refused(status("a", AccountStatus::Closed)), ErrorCode::AccountNotEmpty, "below 0 as well");
    bank.done(deposit("a", 1));
    bank.done(status("a", AccountStatus::Closed));
    bank.done(create("other", 5));
    for reloaded in [false, true] {
        if reloaded {
            bank.reload();
        }
        for to in AccountStatus::ALL {
            assert_eq!(bank.refused(status("a", to)), ErrorCode::AccountClosed);
        }
        for operation in [set("a", |_| {}), deposit("a", 1), withdraw("a", 1), transfer("a", "other", 1)] {
            assert_eq!(bank.refused(operation), ErrorCode::AccountClosed);
        }
        assert_eq!(bank.refused(transfer("other", "a", 1)), ErrorCode::AccountClosed);
        assert_eq!(bank.refused(create("a", 1)), ErrorCode::AccountExists);
        assert_eq!((bank.balance("a"), bank.account("a").status), (0, AccountStatus::Closed));
    }
}

#[test]
fn a_balance_goes_to_its_bounds_and_not_beyond() {
    let mut bank = Bank::with_overdraft(LIMIT);
    bank.done(create_as("a", 0, |create| {
        (create.min_balance, create.max_balance) = (Some(Bound::At(-50)), Some(Bound::At(30)));
    }));
    bank.done(create("other", 1_000));
    assert_eq!(bank.account("a").available, Some(50));
    assert_eq!(bank.refused(withdraw("a", 51)), ErrorCode::InsufficientFunds);
    assert_eq!(bank.refused(transfer("a", "other", 51)), ErrorCode::InsufficientFunds);
    bank.done(transfer("a", "other", 50));
    assert_eq!((bank.balance("a"), bank.account("a").available), (-50, Some(0)));
    assert_eq!(bank.refused(deposit("a", 81)), ErrorCode::BalanceLimit);
    assert_eq!(bank.refused(transfer("other", "a", 81)), ErrorCode::BalanceLimit);
    bank.done(deposit("a", 80));
    assert_eq!((bank.balance("a"), bank.account("a").available), (30, Some(80)));
}

/// Bounds may be set so that a balance is outside: then it only comes nearer.
#[test]
fn a_balance_outside_its_bounds_is_not_taken_further_out() {
    let mut bank = Bank::with_overdraft(LIMIT);
    bank.done(unbounded("low", 0));
    bank.done(withdraw("low", 100));
    bank.done(bounds("low", Bound::At(-40), Bound::At(40)));
    assert_eq!(bank.account("low").available, Some(-60));
    assert_eq!(bank.refused(withdraw("low", 1)), ErrorCode::InsufficientFunds);
    bank.done(deposit("low", 30));
    assert_eq!(bank.refused(withdraw("low", 1)), ErrorCode::InsufficientFunds, "it is still below");
    bank.done(create("high", 100));
    bank.done(bounds("high", Bound::At(0), Bound::At(40)));
    assert_eq!(bank.refused(deposit("high", 1)), ErrorCode::BalanceLimit);
    bank.done(withdraw("high", 30));
    assert_eq!(bank.refused(transfer("low", "high", 1)), ErrorCode::InsufficientFunds);
    assert_eq!(bank.refused(deposit("high", 1)), ErrorCode::BalanceLimit, "it is still above");
    bank.done(transfer("high", "low", 70));
    assert_eq!((bank.balance("low"), bank.balance("high")), (0, 0));
    // A lower bound above 0 is met by money that comes in.
    bank.done(create_as("least", 0, |create| create.min_balance = Some(Bound::At(10))));
    bank.done(deposit("least", 5));
    assert_eq!(
        (bank.account("least").available, bank.refused(withdraw("least", 1))),
        (Some(-5), ErrorCode::InsufficientFunds)
    );
}

#[test]
fn a_debit_account_has_no_balance_above_0() {
    let mut bank = Bank::with_overdraft(LIMIT);
    bank.done(create_as("cash", 0, |create| {
        (create.min_balance, create.max_balance) = (Some(Bound::None), Some(Bound::At(0)));
    }));
    bank.done(create("till", 0));
    bank.done(transfer("cash", "till", 500));
    let cash = bank.account("cash");
    assert_eq!((cash.balance, cash.available), (-500, None), "where nothing bounds it nothing is said");
    assert_eq!(bank.refused(transfer("till", "cash", 501)), ErrorCode::InsufficientFunds);
    bank.done(deposit("till", 1));
    assert_eq!(bank.refused(transfer("till", "cash", 501)), ErrorCode::BalanceLimit);
    bank.done(transfer("till", "cash", 500));
    assert_eq!((bank.balance("cash"), bank.ledger.summary().total_balance), (0, 1));
}

#[test]
fn only_where_overdrafts_are_allowed_may_a_lower_bound_be_below_0() {
    let (mut strict, mut lenient) = (Bank::new(), Bank::with_overdraft(LIMIT));
    for bank in [&mut strict, &mut lenient] {
        bank.done(create("a", 0));
    }
    for bound in [Bound::At(-1), Bound::At(-LARGEST), Bound::None] {
        let create = |name: &str| create_as(name, 0, |create| create.min_balance = Some(bound));
        let set = || set("a", |set| set.min_balance = Some(bound));
        assert_eq!(strict.refused(create("b")), ErrorCode::InvalidBounds, "{bound:?}");
        assert_eq!(strict.refused(set()), ErrorCode::InvalidBounds, "{bound:?}");
        let name = format!("b{}", lenient.ledger.summary().accounts);
        lenient.done(create(&name));
        lenient.done(set());
    }
    strict.reload();
    assert_eq!(strict.refused(set("a", |set| set.min_balance = Some(Bound::None))), ErrorCode::InvalidBounds);
    lenient.reload();
    lenient.done(set("a", |set| set.min_balance = Some(Bound::At(-7))));
    // Everywhere a bound is a balance.
    for bank in [&mut strict, &mut lenient] {
        for bound in [LARGEST + 1, -LARGEST - 1, i64::MAX, i64::MIN].map(Bound::At) {
            assert_eq!(bank.refused(set("a", |set| set.min_balance = Some(bound))), ErrorCode::InvalidBounds);
            assert_eq!(bank.refused(set("a", |set| set.max_balance = Some(bound))), ErrorCode::InvalidBounds);
        }
        bank.done(bounds("a", Bound::At(LARGEST), Bound::At(LARGEST)));
    }
}

#[test]
fn balances_and_sums_stay_within_what_is_exact() {
    let mut bank = Bank::with_overdraft(MAX_BALANCE);
    for name in ["a", "b", "c"] {
        bank.done(unbounded(name, 0));
    }
    bank.done(asset("EUR", 2, MAX_BALANCE));
    bank.done(create_of("EUR", "euro", MAX_BALANCE));
    bank.done(transfer("a", "b", MAX_BALANCE));
    assert_eq!((bank.balance("a"), bank.balance("b")), (-LARGEST, LARGEST));
    for operation in [withdraw("a", 1), deposit("b", 1), transfer("a", "c", 1), transfer("c", "b", 1)] {
        assert_eq!(bank.refused(operation.clone()), ErrorCode::BalanceOverflow, "{operation:?}");
    }
    // The sum of one asset is nothing to another.
    bank.done(deposit("c", MAX_BALANCE));
    assert_eq!(bank.refused(deposit("a", 1)), ErrorCode::BalanceOverflow, "of the sum");
    assert_eq!(bank.refused(create("d", 1)), ErrorCode::BalanceOverflow, "of the sum");
    bank.done(withdraw("b", MAX_BALANCE));
    bank.done(withdraw("c", MAX_BALANCE));
    bank.done(unbounded("e", 0));
    assert_eq!(bank.refused(withdraw("e", 1)), ErrorCode::BalanceOverflow, "of the sum, downwards");
    assert_eq!(bank.ledger.summary().total_balance, -LARGEST);
    bank.reload();
    assert_eq!(
        (bank.balance("a"), bank.balance("euro"), bank.ledger.summary().total_balance),
        (-LARGEST, LARGEST, -LARGEST)
    );
}

// ----- records and answers -----

#[test]
fn records_say_what_was_said_of_an_account_in_one_order() {
    let mut bank = Bank::with_overdraft(LIMIT);
    let opening = record(
        &mut bank,
        create_as("a", 5, |create| {
            create.name = Some(r#"Zoë "Z" \ Doe"#.into());
            create.code = Some("customer".into());
            create.max_balance = Some(Bound::None);
            create.min_balance = Some(Bound::At(-500));
        }),
    );
    let expected = r#"{"min_balance":-500,"max_balance":"none","code":"customer","name":"Zoë \"Z\" \\ Doe"}"#;
    assert_eq!(opening.settings.as_deref(), Some(expected));
    let change = record(
        &mut bank,
        set("a", |set| {
            set.name = Some("".into());
            set.status = Some(AccountStatus::Frozen);
            set.min_balance = Some(Bound::None);
        }),
    );
    assert_eq!(change.settings.as_deref(), Some(r#"{"min_balance":"none","status":"frozen","name":""}"#));
    assert_eq!(change.transaction_type, TransactionType::AccountChange);
    assert_eq!((change.from_account, change.to_account.as_deref()), (None, Some("a")));
    assert_eq!((change.from_balance, change.to_balance, change.amount), (None, Some(5), 0));
    let account = bank.account("a");
    assert_eq!((account.name, account.code.as_deref(), account.version), (None, Some("customer"), 2));
    bank.stamp += 1;
    assert_eq!(record(&mut bank, set("a", |_| {})).settings.as_deref(), Some("{}"));
    let account = bank.account("a");
    assert_eq!((account.transaction_count, account.last_transaction_at), (3, Some(1_001)));
    assert_eq!(record(&mut bank, create("b", 0)).settings, None);
    // What was said is in the chain.
    let mut records = bank.transactions();
    let follow = |records: &[Transaction]| {
        records
            .iter()
            .try_fold(Digest::ZERO, |head, record| chain_hash(head, record).filter(|hash| *hash == record.hash))
    };
    assert_eq!(follow(&records), Some(bank.ledger.chain_head()));
    for settings in [None, Some(r#"{"min_balance":"none","status":"open","name":""}"#)] {
        records[1].settings = settings.map(Into::into);
        assert_eq!(follow(&records), None);
    }
}

#[test]
fn codes_and_names_have_a_form() {
    let mut bank = Bank::new();
    bank.done(create("a", 0));
    let (code, name) = ("c".repeat(32), "é".repeat(50));
    for good in [&*code, "a_B-9.:", "x"] {
        bank.done(set("a", |set| set.code = Some(good.into())));
        assert_eq!(bank.account("a").code.as_deref(), Some(good));
    }
    for bad in [&*"c".repeat(33), "", "two words", "ä"] {
        assert_eq!(bank.refused(set("a", |set| set.code = Some(bad.into()))), ErrorCode::InvalidCode, "{bad:?}");
    }
    for good in [&*name, "Łódź, \"the\" bank", " "] {
        bank.done(set("a", |set| set.name = Some(good.into())));
        assert_eq!(bank.account("a").name.as_deref(), Some(good));
    }
    for bad in [&*"é".repeat(51), "tab\t", "line\n", "\0", "\u{7f}", "\u{85}"] {
        assert_eq!(bank.refused(set("a", |set| set.name = Some(bad.into()))), ErrorCode::InvalidName, "{bad:?}");
    }
    bank.done(create_as("b", 0, |create| create.name = Some("".into())));
    assert_eq!(bank.account("b").name, None);
}

#[test]
fn the_answer_to_a_creation_is_of_that_moment_whatever_is_set_later() {
    let mut bank = Bank::with_overdraft(LIMIT);
    bank.done(asset("EUR", 2, 100));
    let new = create_as("a", 5, |create| {
        create.asset = Some("EUR".into());
        (create.min_balance, create.name) = (Some(Bound::At(-5)), Some("A".into()));
    });
    let first = bank.command(bulk(
        true,
        vec![
            new,
            bounds("a", Bound::None, Bound::At(7)),
            set("a", |set| (set.name, set.code) = (Some("".into()), Some("c".into()))),
            status("a", AccountStatus::Frozen),
        ],
    ));
    let [Ok(Success::Account { account, transaction: Some(opening) }), ..] = &results(first)[..] else { panic!() };
    assert_eq!((account.status, account.version, &*account.asset), (AccountStatus::Open, 1, "EUR"));
    assert_eq!((account.min_balance, account.max_balance, account.available), (Bound::At(-5), Bound::None, Some(10)));
    assert_eq!((account.name.as_deref(), &account.code), (Some("A"), &None));
    assert_eq!(opening.asset.as_deref(), Some("EUR"));
    let now = bank.account("a");
    assert_eq!(
        (now.status, now.version, now.available, now.code.as_deref()),
        (AccountStatus::Frozen, 4, None, Some("c"))
    );
}

#[test]
fn a_page_of_one_class_looks_at_4000_accounts() {
    let mut bank = Bank::new();
    let class = |n: u32| if n.is_multiple_of(1_000) { "rare" } else { "usual" };
    let new = |n: u32| create_as(&format!("{n:05}"), 0, |create| create.code = Some(class(n).into()));
    bank.command(bulk(false, (0..9_000).map(new).collect())).unwrap();
    let mut pages = |code: Option<&str>, limit| {
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let query = Query::ListAccounts { after, limit: Some(limit), code: code.map(Into::into) };
            let Ok(Success::Accounts { accounts, next }) = bank.query(&query) else { panic!("{query:?}") };
            pages.push((accounts.len(), next.clone()));
            after = next;
            if after.is_none() {
                return pages;
            }
        }
    };
    let next = |name: &str| Some(Box::from(name));
    assert_eq!(pages(Some("rare"), 1_000), [(4, next("03999")), (4, next("07999")), (1, None)]);
    assert_eq!(pages(Some("none"), 1), [(0, next("03999")), (0, next("07999")), (0, None)]);
    assert_eq!(pages(Some("rare"), 3), [(3, next("02000")), (3, next("05000")), (3, next("08000")), (0, None)]);
    assert_eq!(pages(None, 1_000).len(), 9);
}

#[test]
fn figures_are_of_one_asset() {
    let mut bank = Bank::with_limit(1_000);
    bank.done(asset("EUR", 2, 50));
    for (code, name, balance) in [("XXX", "a", 500), ("EUR", "b", 40), ("EUR", "c", 30)] {
        bank.done(create_of(code, name, balance));
    }
    bank.done(transfer("b", "c", 5));
    bank.done(status("b", AccountStatus::Frozen));
    let mut of = |asset: Option<&str>| match bank
        .query(&Query::GetStatistics { large_amount: None, asset: asset.map(Into::into) })
    {
        Ok(Success::Statistics { statistics }) => Ok(*statistics),
        Err(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(None), of(Some("XXX")));
    let (own, euro) = (of(None).unwrap(), of(Some("EUR")).unwrap());
    assert_eq!((own.accounts, own.total_balance, own.transactions.count, own.large_amount), (1, 500, 2, 100));
    assert_eq!((euro.accounts, euro.total_balance, euro.transactions.count, euro.large_amount), (2, 70, 4, 5));
    assert_eq!(own.totals, euro.totals);
    assert_eq!(own.totals.iter().map(|(code, sum)| (&**code, *sum)).collect::<Vec<_>>(), [("EUR", 70), ("XXX", 500)]);
    let counted =
        |kind: TransactionType| [&own.by_type, &euro.by_type].map(|all| all.get(&kind.into()).map(|of| of.count));
    assert_eq!(counted(TransactionType::Asset), [Some(1), None], "what has no asset counts for the own one");
    assert_eq!(counted(TransactionType::AccountChange), [None, Some(1)]);
    assert_eq!(counted(TransactionType::Transfer), [Some(0), Some(1)]);
    assert_eq!(euro.large_transactions.iter().map(|one| one.amount).collect::<Vec<_>>(), [5, 30, 40]);
    assert_eq!(of(Some("NONE")), Err(ErrorCode::AssetNotFound));
    assert_eq!(of(Some("none")), Err(ErrorCode::InvalidAsset));
}

// ----- undone, and saved -----

/// All that can be asked of the books.
fn everything(bank: &mut Bank) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut questions = vec![
        Query::ListAssets {},
        Query::ListAccounts { after: None, limit: None, code: None },
        Query::ListAccounts { after: None, limit: None, code: Some("customer".into()) },
        Query::GetTransactionHistory(HistoryFilter::default()),
    ];
    for asset in [None, Some("EUR"), Some("NEW")] {
        questions.push(Query::GetStatistics { large_amount: Some(1), asset: asset.map(Into::into) });
    }
    for account_id in ["a", "euro", "new"] {
        let account_id = Some(account_id.into());
        questions.push(Query::GetTransactionHistory(HistoryFilter { account_id, ..HistoryFilter::default() }));
    }
    let answers: Vec<_> = questions.iter().map(|question| bank.query(question)).collect();
    (answers, bank.ledger.chain_head())
}

#[test]
fn a_refused_atomic_bulk_takes_back_settings_and_assets() {
    let mut bank = Bank::with_overdraft(LIMIT);
    bank.done(asset("EUR", 2, LIMIT));
    bank.done(create_as("a", 100, |create| {
        (create.name, create.code) = (Some("A".into()), Some("customer".into()));
    }));
    bank.done(create_of("EUR", "euro", 100));
    let before = everything(&mut bank);
    bank.stamp += 10_000_000; // another hour
    let undone = vec![
        bounds("a", Bound::None, Bound::At(90)),
        set("a", |set| (set.name, set.code) = (Some("".into()), Some("other".into()))),
        withdraw("a", 200),
        asset("NEW", 3, 70),
        create_of("NEW", "new", 70),
        create_as("cash", 0, |create| {
            (create.asset, create.min_balance) = (Some("NEW".into()), Some(Bound::None));
        }),
        transfer("cash", "new", 50),
        asset("NEWER", 0, 1),
        deposit("a", 100),
        status("a", AccountStatus::Closed),
        status("euro", AccountStatus::Frozen),
        withdraw("new", 1),
        deposit("euro", 1),
    ];
    for place in [1, 4, 7, 9, 11] {
        let mut undone = undone[..place].to_vec();
        undone.push(withdraw("nobody", 1));
        let refusal = bank.command(bulk(true, undone)).unwrap_err();
        assert_eq!((refusal.code, refusal.index), (ErrorCode::AccountNotFound, Some(place as u32)));
        assert_eq!(everything(&mut bank), before, "after the first {place}");
    }
    let refusal = bank.command(bulk(true, undone.clone())).unwrap_err();
    assert_eq!((refusal.code, refusal.index), (ErrorCode::AccountFrozen, Some(12)));
    assert_eq!(everything(&mut bank), before);
    // What takes the places of what was undone has nothing of it.
    bank.done(asset("NEWER", 1, 5));
    bank.done(create_of("NEWER", "new", 5));
    bank.reload();
    let [.., newer] = &assets(&mut bank)[..] else { panic!() };
    assert_eq!((&*newer.asset, newer.scale, newer.limit, newer.accounts, newer.total_balance), ("NEWER", 1, 5, 1, 5));
    let account = bank.account("new");
    assert_eq!((account.min_balance, account.name, account.version), (Bound::At(0), None, 1));
    let codes: Vec<_> = results(bank.command(bulk(false, undone))).into_iter().filter_map(Result::err).collect();
    let codes: Vec<_> = codes.into_iter().map(|refusal| refusal.code).collect();
    use ErrorCode::{AccountExists, AccountFrozen, AssetExists, AssetMismatch};
    // NEWER and its account are there.
    assert_eq!(codes, [AccountExists, AssetMismatch, AssetExists, AccountFrozen]);
    assert_eq!((bank.account("a").status, bank.account("euro").status), (AccountStatus::Closed, AccountStatus::Frozen));
}

/// What is set while a snapshot is made belongs to the next one.
#[test]
fn a_snapshot_has_the_settings_and_assets_of_its_moment() {
    let mut bank = Bank::with_overdraft(LIMIT);
    bank.done(asset("EUR", 2, LIMIT));
    // Several pages of accounts.
    let new = |n: u32| create_as(&format!("a{n:04}"), 5, |create| create.name = Some(format!("{n}").into()));
    bank.command(bulk(false, (0..3_000).map(new).collect())).unwrap();
    bank.done(create_of("EUR", "euro", 5));
    let (digest, before) = (bank.ledger.digest(), everything(&mut bank));
    bank.ledger.freeze();
    let change = |n: u32| {
        set(&format!("a{n:04}"), |set| {
            (set.name, set.min_balance) = (Some("".into()), Some(Bound::At(-5)));
            (set.code, set.status) = (Some("customer".into()), Some(AccountStatus::NoCredits));
        })
    };
    bank.command(bulk(false, (0..3_000).step_by(7).map(change).collect())).unwrap();
    bank.done(asset("NEW", 0, 10));
    bank.done(create_of("NEW", "new", 10));
    bank.done(set("euro", |set| set.max_balance = Some(Bound::At(0))));
    bank.done(withdraw("a0007", 10));
    let later = everything(&mut bank);
    let changes = iter::repeat_with(|| bank.ledger.collect(1)).flatten().next().unwrap();
    bank.rows.save(changes);
    let mut old = Bank::around_rows(&bank);
    assert_eq!(old.ledger.digest(), digest);
    assert_eq!(everything(&mut old), before);
    bank.reload();
    assert_eq!(everything(&mut bank), later);
    let one = bank.account("a0007");
    assert_eq!((one.balance, one.status, one.name, one.available), (-5, AccountStatus::NoCredits, None, Some(0)));
}
