//! Levels: what members say of their programs, how the level is raised, and that a format above it is an empty batch for everybody.
//!
//! [`NOTES`] is a level that only tests know; a thread has a program that knows it ([`ProgramOf`]), or one that does not.

use proptest::prelude::*;
use rabia_bank_ledger::{Applied, BadRow, Ledger, Loading, RequestOutcome};
use rabia_bank_messages::bank::{DEFAULT_TRANSACTION_LIMIT, TransactionType};
use rabia_bank_messages::batch::{Action, BatchBuilder, Payload, RequestHeader};
use rabia_bank_messages::genesis::{BankTerms, Founding, Genesis, SessionLimits};
use rabia_bank_messages::ids::{BatchId, ClusterId, Digest, NodeId, StoreId};
use rabia_bank_messages::level::{HIGHEST, NOTES, ProgramOf, TooNew};
use rabia_bank_messages::principal::{Admin, AdminRefusal, Administered, Note};
use rabia_bank_messages::sabotage::{Rule, ensure, shows};
use rabia_bank_model::Model;

use crate::model::reply;
use crate::support::*;

/// A batch of node 1, beside those that [`Bank`] makes.
fn batch(sequence: u64, stamp: u64, requests: &[(RequestHeader, Action)]) -> (BatchId, Payload) {
    let mut builder = BatchBuilder::default();
    requests.iter().for_each(|(header, action)| builder.push(header, action));
    builder.finish(NodeId::new(1).unwrap(), 9, sequence, stamp)
}

fn admin(number: u64, admin: Admin) -> (RequestHeader, Action) {
    (header(SESSION, number, 0), Action::Admin(Box::new(admin)))
}

fn note(number: u64) -> (RequestHeader, Action) {
    admin(number, Admin::Note(Note { text: format!("note {number}").into() }))
}

fn raise(number: u64, level: u32) -> (RequestHeader, Action) {
    admin(number, Admin::RaiseLevel { level })
}

/// The member's own node says it.
fn say(bank: &mut Bank, member: u8, level: u32) {
    let payload = Payload::can(level, 1_000);
    let (origin, sequence) = (NodeId::new(member).unwrap(), bank.ledger.applied());
    let id = BatchId { origin, incarnation: 8, sequence, digest: Digest::of(payload.bytes()) };
    assert_eq!(bank.apply(Some((&id, &payload))), Applied::Can);
}

fn administered(bank: &mut Bank, request: (RequestHeader, Action)) -> Administered {
    match bank.request(request.0, request.1) {
        RequestOutcome::Administered { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

/// A bank of three members that know level 2, which is not in force.
fn upgraded() -> Bank {
    let mut bank = Bank::of_members(3);
    (1..=3).for_each(|member| say(&mut bank, member, NOTES));
    bank
}

#[test]
fn a_new_cluster_begins_at_the_highest_level_that_the_program_knows() {
    let level = || Genesis::new(ClusterId([1; 16]), vec![StoreId([1; 16])]).level;
    assert_eq!(level(), HIGHEST);
    let _program = ProgramOf::level(NOTES);
    assert_eq!(level(), NOTES);
    let genesis = Genesis::new(ClusterId([1; 16]), vec![StoreId([1; 16])]);
    assert_eq!(Ledger::new_cluster(&genesis).levels().level(), NOTES);
    assert_ne!(Genesis { level: HIGHEST, ..genesis.clone() }.digest(), genesis.digest(), "members compare it");
}

#[test]
fn the_level_is_raised_by_what_members_said_alone() {
    let mut bank = Bank::of_members(3);
    assert_eq!((bank.ledger.levels().level(), bank.ledger.levels().all_can()), (HIGHEST, &[1, 1, 1][..]));
    let mut digests = vec![bank.ledger.digest()];
    // This program knows level 1 alone: what it knows is not asked.
    for (number, member) in (1..).zip([1, 3]) {
        assert_eq!(administered(&mut bank, raise(number, NOTES)), Err(AdminRefusal::MembersTooOld));
        say(&mut bank, member, NOTES + 1);
        digests.push(bank.ledger.digest());
    }
    assert_eq!(administered(&mut bank, raise(3, NOTES)), Err(AdminRefusal::MembersTooOld), "member 2 said nothing");
    for (number, level) in (4..).zip([0, 1]) {
        assert_eq!(administered(&mut bank, raise(number, level)), Err(AdminRefusal::InvalidLevel));
    }
    say(&mut bank, 2, NOTES);
    bank.reload();
    assert_eq!(administered(&mut bank, raise(6, NOTES + 1)), Err(AdminRefusal::MembersTooOld));
    let transactions = bank.ledger.summary().transactions;
    assert_eq!(administered(&mut bank, raise(7, NOTES)), Ok(NOTES.into()));
    assert_eq!(bank.ledger.levels().level(), NOTES);
    digests.push(bank.ledger.digest());
    digests.sort_unstable_by_key(|digest| digest.0);
    digests.dedup();
    assert_eq!(digests.len(), 4, "all of it shows in the digest");
    // An administrator's act is a record of the chain, like others. A refused one leaves none.
    assert_eq!(bank.ledger.summary().transactions, transactions + 1);
    let record = bank.transactions().pop().unwrap();
    assert_eq!(record.transaction_type, TransactionType::Admin);
    assert_eq!(record.act.as_deref(), Some(r#"{"raise_level":{"level":2}}"#));
}

/// Programs that can read a format, and those that can't, do the same with it at a level that does not have it.
fn a_format_above_the_level(programs: [u32; 2]) -> Result<(), String> {
    let mut states = Vec::new();
    for program in programs {
        let _program = ProgramOf::level(program);
        let mut bank = upgraded();
        bank.done(create("a", 5));
        let (before, time) = (bank.ledger.summary(), bank.ledger.log_time());
        let (id, payload) = batch(1, 9_000_000, &[note(1), (header(SESSION, 2, 0), Action::Command(deposit_one()))]);
        let applied = bank.apply(Some((&id, &payload)));
        let after = bank.ledger.summary();
        ensure(matches!(applied, Applied::Unusable(_)), format!("it was applied: {applied:?}"))?;
        ensure(bank.ledger.log_time() == time, "it moved the time")?;
        ensure(after.unusable_batches == 1 && after.transactions == before.transactions, "it did something")?;
        // Decided again it is a repetition. A batch of the level in force goes on.
        ensure(bank.apply(Some((&id, &payload))) == Applied::Repeated, "it is a new one")?;
        bank.done(deposit("a", 1));
        states.push((bank.ledger.digest(), bank.balance("a")));
    }
    ensure(states[0] == states[1] && states[0].1 == 6, format!("they differ: {states:?}"))
}

fn deposit_one() -> rabia_bank_messages::bank::Command {
    rabia_bank_messages::bank::Command::One(deposit("a", 1))
}

#[test]
fn a_format_above_the_level_is_an_empty_batch_for_everybody() {
    shows(Rule::LevelGate, || a_format_above_the_level([HIGHEST, NOTES]));
}

#[test]
fn what_a_level_brings_is_there_from_the_next_slot_on() {
    let _program = ProgramOf::level(NOTES);
    let mut bank = upgraded();
    // In one batch the second comes too early, and the format is that of the higher.
    let (id, payload) = batch(1, 2_000, &[raise(1, NOTES), note(2)]);
    assert!(matches!(bank.apply(Some((&id, &payload))), Applied::Unusable(_)));
    assert_eq!(bank.ledger.levels().level(), HIGHEST);
    let outcomes = bank.batch(&[raise(1, NOTES), raise(2, NOTES)]);
    let said = |outcome: &RequestOutcome| match outcome {
        RequestOutcome::Administered { outcome, .. } => *outcome,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcomes.iter().map(said).collect::<Vec<_>>(), [Ok(NOTES.into()), Err(AdminRefusal::InvalidLevel)]);
    assert_eq!(administered(&mut bank, note(3)), Ok(NOTES.into()));
    let replayed = bank.request(note(3).0, note(3).1);
    assert!(matches!(replayed, RequestOutcome::Administered { replayed: true, outcome: Ok(_), .. }), "{replayed:?}");
    // What needs it not is of the format that it always had.
    let (_, payload) = bank.payload(&[open(KEY)]);
    assert_eq!(payload.bytes()[0], 3);
    assert!(matches!(bank.apply(None), Applied::Null));
    bank.reload();
    assert_eq!(bank.ledger.levels().level(), NOTES);
    let acts: Vec<_> = bank.transactions().into_iter().filter_map(|record| record.act).collect();
    assert_eq!(
        acts.iter().map(|act| &**act).collect::<Vec<_>>(),
        [r#"{"raise_level":{"level":2}}"#, r#"{"note":{"text":"note 3"}}"#]
    );
}

#[test]
fn a_program_that_does_not_know_the_level_reads_no_state_of_it() {
    let too_new = TooNew { level: NOTES, known: HIGHEST };
    let mut bank = upgraded();
    assert_eq!(administered(&mut bank, raise(1, NOTES)), Ok(NOTES.into()));
    assert_eq!(bank.ledger.levels().check(), Err(too_new), "it is not to apply anything");
    {
        let _program = ProgramOf::level(NOTES);
        bank.reload();
        assert_eq!(bank.ledger.levels().check(), Ok(()));
        bank.done(create("a", 5));
        bank.reload();
    }
    let Err(error) = bank.rows.load() else { panic!("it was loaded") };
    assert_eq!(error, BadRow::TooNew(too_new));
    let said = error.to_string();
    assert!(said.contains("level 2") && said.contains("up to 1") && said.contains("Install"), "{said}");
    let backup = Loading::of_backup(&bank.rows.state).map(|_| ());
    assert_eq!(backup.unwrap_err(), BadRow::TooNew(too_new));
}

#[test]
fn a_restored_cluster_begins_at_the_level_of_its_backup_with_members_that_said_nothing() {
    let _program = ProgramOf::level(NOTES);
    let mut bank = upgraded();
    assert_eq!(administered(&mut bank, raise(1, NOTES)), Ok(NOTES.into()));
    bank.reload();
    let mut loading = Loading::of_backup(&bank.rows.state).unwrap();
    for (page, row) in &bank.rows.accounts {
        loading.accounts(*page, row).unwrap();
    }
    loading.found(&Founding::default(), false, 5).unwrap();
    assert_eq!(loading.level(), NOTES);
    let last = loading.last_block().map(|number| bank.rows.block(number));
    bank.rows.state = loading.into_new_cluster(last.as_ref(), u64::MAX).unwrap();
    bank.rows.sessions.clear();
    let restored = bank.rows.load().unwrap();
    assert_eq!((restored.levels().level(), restored.levels().all_can()), (NOTES, &[1; 5][..]));
}

/// A slot of a made-up log.
#[derive(Clone, Debug)]
enum Made {
    Null,
    Can(u8, u32),
    /// Raises and, where there is no level, notes.
    Requests(Vec<Option<u32>>),
}

fn made() -> impl Strategy<Value = Made> {
    prop_oneof![
        1 => Just(Made::Null),
        4 => (1u8..=3, 1u32..5).prop_map(|(member, level)| Made::Can(member, level)),
        4 => proptest::collection::vec(proptest::option::of(0u32..5), 1..4).prop_map(Made::Requests),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn levels_are_the_models(log in proptest::collection::vec(made(), 1..40), reloads in any::<u64>()) {
        // It knows whatever the level is raised to, and all batches can be read.
        let _program = ProgramOf::level(9);
        let mut bank = Bank::of_members(3);
        let machine = rabia_bank_model::Bank::founded(&BankTerms::default(), DEFAULT_TRANSACTION_LIMIT, Founding::default().secret);
        let mut model = Model::new(machine, SessionLimits::default()).at_level(1, 3);
        let (id, payload) = Bank::opening();
        model.apply(1, Some((&id, &payload))).unwrap();
        let mut number = 0;
        for (round, made) in log.iter().enumerate() {
            if reloads >> (round % 64) & 1 == 1 {
                bank.reload();
            }
            let slot = bank.ledger.applied() + 1;
            let entry = match made {
                Made::Null => None,
                Made::Can(member, level) => {
                    let (payload, origin) = (Payload::can(*level, 1_000 + slot), NodeId::new(*member).unwrap());
                    let digest = Digest::of(payload.bytes());
                    Some((BatchId { origin, incarnation: 8, sequence: slot, digest }, payload))
                }
                Made::Requests(requests) => {
                    let requests: Vec<_> = requests
                        .iter()
                        .map(|level| {
                            number += 1;
                            level.map_or_else(|| note(number), |level| raise(number, level))
                        })
                        .collect();
                    Some(batch(slot, 1_000 + slot, &requests))
                }
            };
            let entry = entry.as_ref().map(|(id, payload)| (id, payload));
            let found = match bank.apply(entry) {
                Applied::Batch(outcomes) => Some(outcomes.iter().map(|outcome| reply(&mut bank, outcome)).collect()),
                _ => None,
            };
            prop_assert_eq!(found, model.apply(slot, entry).unwrap(), "slot {}: {:?}", slot, made);
            prop_assert_eq!(bank.ledger.log_time(), model.time());
        }
    }
}
