//! Every row of the table of commands in BANK.md: what success carries, and which refusal comes first.

use rabia_bank_messages::bank::{
    Account, AccountStatus, Amount, Bound, Command, ErrorCode, HistoryFilter, MAX_BALANCE, MAX_BULK, Operation,
    OtherFields, Query, Success, TransactionType,
};

use crate::support::*;

#[test]
fn create_account_with_money_answers_with_the_account_and_its_opening() {
    let mut bank = Bank::new();
    let Ok(Success::Account { account, transaction: Some(opening) }) = bank.run(create("alice", 700)) else { panic!() };
    let expected = Account {
        account_id: "alice".into(),
        asset: "XXX".into(),
        balance: 700,
        available: Some(700),
        min_balance: Bound::At(0),
        max_balance: Bound::None,
        status: AccountStatus::Open,
        code: None,
        name: None,
        created_at: 1_000,
        last_transaction_at: Some(1_000),
        transaction_count: 1,
        version: 1,
        other: OtherFields::default(),
    };
    assert_eq!(*account, expected);
    assert_eq!((opening.transaction_id, opening.transaction_type), (1, TransactionType::Opening.into()));
    assert_eq!((opening.from_account, opening.from_balance), (None, None));
    assert_eq!((opening.to_account.as_deref(), opening.to_balance), (Some("alice"), Some(700)));
    assert_eq!((opening.amount, opening.timestamp, opening.slot), (700, 1_000, 2));
}

#[test]
fn create_account_without_money_has_an_opening_of_nothing() {
    let mut bank = Bank::new();
    let Ok(Success::Account { account, transaction: Some(opening) }) = bank.run(create("alice", 0)) else { panic!() };
    assert_eq!((account.balance, account.last_transaction_at, account.transaction_count), (0, Some(1_000), 1));
    assert_eq!((opening.amount, opening.to_balance, &opening.settings), (0, Some(0), &None));
    assert_eq!(bank.ledger.summary().transactions, 1);
}

#[test]
fn the_answer_to_a_creation_is_of_that_moment() {
    let mut bank = Bank::new();
    let commands = vec![create("a", 5), create("b", 0), deposit("a", 10), transfer("a", "b", 7)];
    let answers = results(bank.command(bulk(true, commands)));
    let balances: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            Ok(Success::Account { account, .. }) => Some((account.balance, account.transaction_count)),
            _ => None,
        })
        .collect();
    assert_eq!(balances, [(5, 1), (0, 1)]);
    assert_eq!((bank.balance("a"), bank.balance("b")), (8, 7));
}

#[test]
fn create_account_checks_in_order() {
    let mut bank = Bank::with_limit(MAX_BALANCE);
    bank.done(create("full", MAX_BALANCE - 1));
    let fifty = "x".repeat(50);
    bank.done(create(&fifty, 1));
    for bad in ["", " ", "a b", "ä", "a/b", &"x".repeat(51)] {
        assert_eq!(bank.refused(create(bad, u64::MAX)), ErrorCode::InvalidAccountId, "{bad:?}, and invalid_amount");
    }
    assert_eq!(bank.refused(create("full", MAX_BALANCE + 1)), ErrorCode::InvalidAmount, "and account_exists");
    assert_eq!(bank.refused(create("full", 1)), ErrorCode::AccountExists, "and balance_overflow");
    assert_eq!(bank.refused(create("new", 1)), ErrorCode::BalanceOverflow);
    bank.done(create("new", 0));
}

#[test]
fn an_initial_balance_is_within_the_limit_per_transaction() {
    let mut bank = Bank::with_limit(100);
    assert_eq!(bank.refused(create("a", 101)), ErrorCode::InvalidAmount);
    bank.done(create("a", 100));
}

#[test]
fn deposit_checks_in_order() {
    let mut bank = Bank::with_limit(MAX_BALANCE);
    for amount in [0, MAX_BALANCE + 1, u64::MAX] {
        assert_eq!(bank.refused(deposit("nobody", amount)), ErrorCode::InvalidAmount, "and account_not_found");
    }
    bank.done(create("full", MAX_BALANCE));
    bank.done(create("empty", 0));
    assert_eq!(bank.refused(deposit("nobody", 1)), ErrorCode::AccountNotFound, "and balance_overflow");
    assert_eq!(bank.refused(deposit("full", 1)), ErrorCode::BalanceOverflow, "of the account");
    assert_eq!(bank.refused(deposit("empty", 1)), ErrorCode::BalanceOverflow, "of the sum of all");
    bank.done(withdraw("full", 1));
    let Ok(Success::Transaction { transaction }) = bank.run(deposit("empty", 1)) else { panic!() };
    assert_eq!((transaction.transaction_type, transaction.to_balance), (TransactionType::Deposit.into(), Some(1)));
    assert_eq!((transaction.from_account, transaction.from_balance), (None, None));
}

#[test]
fn withdraw_checks_in_order() {
    let mut bank = Bank::with_limit(100);
    for amount in [0, 101, u64::MAX] {
        assert_eq!(bank.refused(withdraw("nobody", amount)), ErrorCode::InvalidAmount, "and account_not_found");
    }
    assert_eq!(bank.refused(withdraw("nobody", 100)), ErrorCode::AccountNotFound);
    bank.done(create("alice", 70));
    let Err(refusal) = bank.run(withdraw("alice", 90)) else { panic!() };
    assert_eq!((&refusal.code, refusal.index), (&ErrorCode::InsufficientFunds, None));
    assert!(refusal.message.contains("alice") && refusal.message.contains("70 is available"), "{refusal}");
    let Ok(Success::Transaction { transaction }) = bank.run(withdraw("alice", 70)) else { panic!() };
    assert_eq!((transaction.transaction_type, transaction.from_balance), (TransactionType::Withdrawal.into(), Some(0)));
    assert_eq!((transaction.to_account, transaction.to_balance), (None, None));
    assert_eq!(bank.refused(withdraw("alice", 1)), ErrorCode::InsufficientFunds);
}

#[test]
fn an_account_id_that_is_none_is_refused_before_anything_else() {
    let mut bank = Bank::with_limit(100);
    bank.done(create("a", 10));
    let before = bank.ledger.summary();
    for id in ["", "no such", "ä", &"x".repeat(51)] {
        for operation in [
            create(id, 1),
            create(id, 101),
            deposit(id, 1),
            deposit(id, 0),
            withdraw(id, 1),
            withdraw(id, 101),
            transfer(id, "a", 1),
            transfer("a", id, 101),
            transfer("nobody", id, 1),
            transfer(id, id, 1),
        ] {
            assert_eq!(bank.refused(operation.clone()), ErrorCode::InvalidAccountId, "{operation:?}");
            let items = vec![deposit("a", 1), operation];
            assert!(matches!(bank.command(bulk(true, items)), Err(refusal) if refusal.index == Some(1)));
        }
    }
    let Err(refusal) = bank.run(transfer("one!", "two!", 1)) else { panic!() };
    assert!(refusal.message.contains("one!"), "the source is named first: {refusal}");
    let now = bank.ledger.summary();
    assert_eq!((now.transactions, now.total_balance), (before.transactions, before.total_balance));
}

#[test]
fn transfer_checks_in_order() {
    let mut bank = Bank::with_limit(100);
    for amount in [0, 101, u64::MAX] {
        assert_eq!(bank.refused(transfer("x", "x", amount)), ErrorCode::InvalidAmount, "and same_account");
    }
    assert_eq!(bank.refused(transfer("x", "x", 1)), ErrorCode::SameAccount, "and account_not_found");
    let Err(refusal) = bank.run(transfer("x", "y", 1)) else { panic!() };
    assert_eq!(refusal.code, ErrorCode::AccountNotFound);
    assert!(refusal.message.contains("\"x\""), "the source is named first: {refusal}");
    bank.done(create("x", 10));
    let Err(refusal) = bank.run(transfer("x", "y", 11)) else { panic!() };
    assert_eq!(refusal.code, ErrorCode::AccountNotFound, "and insufficient_funds");
    assert!(refusal.message.contains("\"y\""), "the destination is named: {refusal}");
    bank.done(create("y", 0));
    assert_eq!(bank.refused(transfer("x", "y", 11)), ErrorCode::InsufficientFunds);
    assert_eq!(bank.refused(transfer("x", "x", 11)), ErrorCode::SameAccount, "and insufficient_funds");
    let Ok(Success::Transaction { transaction }) = bank.run(transfer("x", "y", 10)) else { panic!() };
    assert_eq!((transaction.from_balance, transaction.to_balance), (Some(0), Some(10)));
    assert_eq!((bank.balance("x"), bank.balance("y")), (0, 10));
}

#[test]
fn a_transfer_within_a_full_bank_moves_both_sides() {
    let mut bank = Bank::with_limit(MAX_BALANCE);
    bank.done(create("a", MAX_BALANCE));
    bank.done(create("b", 0));
    bank.done(transfer("a", "b", MAX_BALANCE));
    assert_eq!((bank.balance("a"), bank.balance("b")), (0, MAX_BALANCE as i64));
}

#[test]
fn an_amount_that_is_no_number_of_minor_units_is_invalid_at_the_highest_limit() {
    let mut bank = Bank::with_limit(MAX_BALANCE);
    bank.done(create("a", 0));
    let account_id = || "a".into();
    let amount = Amount::INVALID;
    assert_eq!(bank.refused(Operation::Deposit { account_id: account_id(), amount }), ErrorCode::InvalidAmount);
    assert_eq!(bank.refused(Operation::Withdraw { account_id: account_id(), amount }), ErrorCode::InvalidAmount);
}

#[test]
fn a_long_name_is_not_repeated_in_full() {
    let mut bank = Bank::new();
    let Err(refusal) = bank.run(deposit(&"ä".repeat(100_000), 1)) else { panic!() };
    assert_eq!(refusal.code, ErrorCode::InvalidAccountId);
    assert!(refusal.message.len() < 200, "{} bytes", refusal.message.len());
}

#[test]
fn bulk_checks_its_length_first() {
    let mut bank = Bank::new();
    for atomic in [true, false] {
        assert_eq!(code(bank.command(bulk(atomic, vec![]))), ErrorCode::BulkEmpty);
        let Err(refusal) = bank.command(bulk(atomic, vec![create("a", 1); MAX_BULK + 1])) else { panic!() };
        assert_eq!((refusal.code, refusal.index), (ErrorCode::BulkTooLarge, None));
    }
    assert_eq!(bank.ledger.summary().accounts, 0);
    bank.done(create("a", 0));
    assert_eq!(results(bank.command(bulk(true, vec![deposit("a", 1); MAX_BULK]))).len(), MAX_BULK);
    assert_eq!(bank.balance("a"), MAX_BULK as i64);
}

#[test]
fn a_bulk_that_is_not_atomic_applies_each_command_on_its_own_and_in_order() {
    let mut bank = Bank::new();
    let commands = vec![
        withdraw("a", 1),
        create("a", 10),
        withdraw("a", 11),
        withdraw("a", 10),
        withdraw("a", 1),
        create("b", 3),
        transfer("b", "a", 2),
    ];
    let answers = results(bank.command(bulk(false, commands)));
    let codes: Vec<_> = answers.into_iter().map(|answer| answer.err().map(|refusal| refusal.code)).collect();
    let insufficient = || Some(ErrorCode::InsufficientFunds);
    assert_eq!(codes, [Some(ErrorCode::AccountNotFound), None, insufficient(), None, insufficient(), None, None]);
    assert_eq!((bank.balance("a"), bank.balance("b")), (2, 1));
}

#[test]
fn an_atomic_bulk_sees_what_its_own_commands_did() {
    let mut bank = Bank::new();
    let commands =
        vec![create("a", 10), create("b", 0), transfer("a", "b", 10), transfer("b", "a", 4), withdraw("b", 6)];
    assert!(results(bank.command(bulk(true, commands))).iter().all(Result::is_ok));
    assert_eq!((bank.balance("a"), bank.balance("b")), (4, 0));
}

#[test]
fn a_refused_atomic_bulk_leaves_no_trace() {
    let mut bank = Bank::new();
    for setup in [create("a", 100), create("b", 0), deposit("a", 5), transfer("a", "b", 50), withdraw("b", 50)] {
        bank.done(setup);
    }
    let everything = |bank: &mut Bank| {
        let history = Query::GetTransactionHistory(HistoryFilter::default());
        let of = |account: &str| {
            let filter = HistoryFilter { account_id: Some(account.into()), ..HistoryFilter::default() };
            Query::GetTransactionHistory(filter)
        };
        let list = Query::ListAccounts { after: None, limit: None, code: None };
        let statistics = Query::GetStatistics { large_amount: Some(1), asset: None };
        let books = [history, list, statistics, of("a"), of("b")].map(|query| bank.query(&query));
        (books, bank.ledger.chain_head(), bank.ledger.summary().total_balance)
    };
    let before = everything(&mut bank);
    bank.stamp += 10_000_000; // another hour, another last_transaction_at
    let commands = vec![
        create("new", 7),
        create("empty", 0),
        transfer("a", "new", 30),
        transfer("new", "a", 37),
        transfer("a", "empty", 1),
        deposit("b", 9),
        withdraw("b", 2),
        transfer("a", "b", 20),
        withdraw("new", 1),
    ];
    let Err(refusal) = bank.command(bulk(true, commands)) else { panic!() };
    assert_eq!((&refusal.code, refusal.index), (&ErrorCode::InsufficientFunds, Some(8)));
    assert!(refusal.message.contains("\"new\""), "{refusal}");
    assert_eq!(everything(&mut bank), before);
    bank.done(create("new", 1));
    bank.done(deposit("b", 1));
    assert_eq!(bank.balance("new"), 1);
}

#[test]
fn the_first_command_that_fails_is_named() {
    let mut bank = Bank::new();
    let Err(refusal) = bank.command(bulk(true, vec![deposit("nobody", 1), deposit("nobody", 0)])) else { panic!() };
    assert_eq!((refusal.code, refusal.index), (ErrorCode::AccountNotFound, Some(0)));
}

#[test]
fn a_refused_command_changes_no_figure_of_the_books() {
    let mut bank = Bank::new();
    bank.done(create("a", 10));
    let (before, head) = (bank.ledger.summary(), bank.ledger.chain_head());
    bank.refused(withdraw("a", 11));
    let after = bank.ledger.summary();
    assert_eq!((after.accounts, after.transactions, after.total_balance), (1, 1, 10));
    assert_eq!((before.total_balance, head), (after.total_balance, bank.ledger.chain_head()));
}

#[test]
fn time_is_the_stamp_and_never_goes_back() {
    let mut bank = Bank::new();
    bank.done(create("a", 1));
    for (stamp, time) in [(2_000, 2_000), (1_500, 2_000), (2_001, 2_001), (0, 2_001)] {
        bank.stamp = stamp;
        let Ok(Success::Transaction { transaction }) = bank.run(deposit("a", 1)) else { panic!() };
        assert_eq!(transaction.timestamp, time, "stamp {stamp}");
    }
}

#[test]
fn a_command_and_a_bulk_of_one_do_the_same() {
    let (mut one, mut other) = (Bank::new(), Bank::new());
    one.done(create("a", 5));
    assert_eq!(results(other.command(bulk(true, vec![create("a", 5)]))).len(), 1);
    assert_eq!(one.ledger.chain_head(), other.ledger.chain_head());
    assert!(matches!(other.command(Command::One(deposit("a", 1))), Ok(Success::Transaction { .. })));
}
