//! What comes out of the bank, message by message.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation, Query, ReadLevel};
use rabia_bank_messages::batch::{Action, BatchBuilder, RequestHeader};
use rabia_bank_messages::ids::{ClusterId, SessionKey, TokenId};
use rabia_bank_messages::principal::{Admin, PutPrincipal, PutToken, Role, Scopes, SpendLimits};

use super::words::{Ask, ReadAt, Saved};
use super::*;
use crate::consensus::turns::Owner;
use crate::ledger::Ledger;

const KEY: SessionKey = SessionKey([5; 16]);
const MS: Duration = Duration::from_millis(1);

fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap()
}

/// An empty bank that takes a snapshot after so many slots, and what it has said.
struct World {
    bank: Bank,
    now: Instant,
    said: Vec<Out>,
    requests: u64,
}

impl World {
    fn new(slots: u64) -> World {
        let genesis = Genesis::new(ClusterId([1; 16]), NodeId::all(3).map(|node| StoreId([node.get(); 16])).collect());
        let ledger = Ledger::new(genesis.transaction_limit, genesis.sessions);
        let rebuilt = Rebuilt { ledger, decisions: Vec::new(), hash: Digest::ZERO, replayed_bytes: 0 };
        let policy = SnapshotPolicy { bytes: u64::MAX, slots };
        let state = BankState { rebuilt, saved: 0, policy, portions: Portions::default() };
        let bank = Bank::new(node(1), genesis, state, AppliedSlot::default());
        World { bank, now: Instant::now(), said: Vec::new(), requests: 0 }
    }

    fn admitted(slots: u64) -> World {
        let mut world = World::new(slots);
        world.bank.admitted(&mut world.said);
        world
    }

    fn apply(&mut self, batch: Option<(BatchId, Payload)>) -> Slot {
        let slot = self.bank.standpoint().applied + 1;
        self.bank.apply(self.now, slot, batch, &mut self.said);
        slot
    }

    fn batch(&mut self, actions: &[Action]) -> (BatchId, Payload) {
        let mut builder = BatchBuilder::default();
        for action in actions {
            let number = if let Action::Command(_) = action { 1 } else { 0 };
            self.requests += number;
            let header =
                RequestHeader { session: number, key: KEY, number: number * self.requests, acknowledged: 0, token: 0 };
            builder.push(&header, action);
        }
        let sequence = self.bank.standpoint().applied + 1;
        builder.finish(node(1), 1, sequence, 1_000)
    }

    fn ask(&mut self, client: &Client, query: Query, read: ReadLevel) {
        let (waiter, deadline) = (Waiter { client: client.clone(), tag: 7 }, self.now + 1_000 * MS);
        self.bank.ask(Ask { waiter, query, read, deadline }, &mut self.said);
    }

    fn balance(&mut self, client: &Client, read: ReadLevel) {
        self.ask(client, Query::GetBalance { account_id: "alice".into() }, read);
    }

    /// All that was said since the last time.
    fn said(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.said)
    }

    /// Who was answered since the last time, and of which slot.
    fn answered(&mut self) -> Vec<(ClientId, Option<Slot>)> {
        let mut answered = Vec::new();
        for out in self.said() {
            if let Out::Answers { to, answers, .. } = out {
                answered.extend(answers.iter().map(|answer| (to.id(), answer.slot)));
            }
        }
        answered
    }
}

fn client(id: ClientId) -> Client {
    Client::simulated(id, Owner::at(IpAddr::from([127, 0, 0, 1])))
}

#[test]
fn a_linearizable_read_waits_for_its_round_and_then_for_the_slot() {
    let mut world = World::admitted(u64::MAX);
    world.balance(&client(1), ReadLevel::Linearizable);
    assert!(matches!(world.said()[..], [Out::Read(1)]));
    world.balance(&client(2), ReadLevel::Linearizable);
    assert!(matches!(world.said()[..], [Out::Read(2)]));
    world.bank.read_at(ReadAt { read: 1, slot: 2 }, &mut world.said);
    world.apply(None);
    assert_eq!(world.answered(), []);
    world.apply(None);
    assert_eq!(world.answered(), [(1, Some(2))]);
    world.bank.read_at(ReadAt { read: 2, slot: 1 }, &mut world.said);
    assert_eq!(world.answered(), [(2, Some(2))]);
}

#[test]
fn nothing_on_the_disk_is_read_before_a_quorum_was_met() {
    let mut world = World::new(u64::MAX);
    world.balance(&client(1), ReadLevel::Local);
    world.balance(&client(2), ReadLevel::AtLeast(0));
    world.balance(&client(3), ReadLevel::Linearizable);
    assert!(matches!(world.said()[..], [Out::Read(1)]), "the round asks the others");
    world.bank.admitted(&mut world.said);
    assert_eq!(world.answered(), [(1, Some(0)), (2, Some(0))]);
}

#[test]
fn in_doubt_nobody_hears_anything_but_the_status() {
    let mut world = World::admitted(u64::MAX);
    let batch = world.batch(&[Action::Open]);
    world.bank.expect(batch.0, vec![Waiter { client: client(1), tag: 1 }]);
    world.bank.doubt(true, &mut world.said);
    world.apply(Some(batch));
    world.balance(&client(2), ReadLevel::Local);
    assert_eq!(world.answered(), []);
    world.ask(&client(3), Query::GetStatus {}, ReadLevel::Linearizable);
    assert!(matches!(world.said()[..], [Out::Work { pause: Duration::ZERO }]));
    world.bank.work(world.now, &mut world.said);
    assert!(matches!(&world.said()[..], [Out::Status { to, .. }] if to.client.id() == 3));
    world.bank.doubt(false, &mut world.said);
    assert_eq!(world.answered(), [(1, Some(1)), (2, Some(1))]);
}

#[test]
fn what_a_client_wanted_goes_with_it() {
    let mut world = World::admitted(u64::MAX);
    let (stays, goes) = (client(1), client(2));
    let batch = world.batch(&[Action::Open]);
    let other = world.batch(&[Action::Close]);
    for (id, client) in [(batch.0, &goes), (other.0, &stays)] {
        world.bank.expect(id, vec![Waiter { client: client.clone(), tag: 1 }]);
    }
    for client in [&goes, &stays] {
        world.ask(client, Query::GetStatistics { large_amount: None, asset: None }, ReadLevel::Local);
        world.balance(client, ReadLevel::AtLeast(2));
    }
    goes.leave();
    world.bank.sweep(world.now, &mut world.said);
    world.said();
    world.apply(Some(batch));
    assert_eq!(world.answered(), []);
    world.bank.work(world.now, &mut world.said);
    assert_eq!(world.answered(), [(1, Some(1))], "the statistics");
    world.bank.abandon(&other.0, &mut world.said);
    assert_eq!(world.answered(), [(1, None)]);
    world.apply(None);
    assert_eq!(world.answered(), [(1, Some(2))], "the balance");
}

#[test]
fn a_question_is_forgotten_after_its_deadline() {
    let mut world = World::admitted(u64::MAX);
    for read in [ReadLevel::Linearizable, ReadLevel::AtLeast(1)] {
        world.balance(&client(1), read);
    }
    world.ask(&client(1), Query::GetStatistics { large_amount: None, asset: None }, ReadLevel::Local);
    let late = world.now + 1_001 * MS;
    world.bank.sweep(late, &mut world.said);
    world.bank.work(late, &mut world.said);
    world.bank.read_at(ReadAt { read: 1, slot: 0 }, &mut world.said);
    world.apply(None);
    assert_eq!(world.answered(), []);
}

/// A bank with some blocks of history, about to apply the slot at which its snapshot is due.
fn before_a_snapshot() -> World {
    let mut world = World::admitted(7);
    let account_id: Box<str> = "alice".into();
    let opening = Operation::create_account(account_id.clone(), Amount::new(0));
    let deposits = || vec![Operation::Deposit { account_id: account_id.clone(), amount: Amount::new(1) }; 600];
    let bulk = |commands| Action::Command(Command::Bulk(Bulk { commands, atomic: false }));
    let actions = [vec![Action::Open], vec![Action::Command(Command::One(opening))]];
    for actions in actions.into_iter().chain((0..4).map(|_| vec![bulk(deposits())])) {
        let batch = world.batch(&actions);
        world.apply(Some(batch));
    }
    assert_eq!(world.bank.standpoint().newest.0, 2_401, "the opening, and the deposits");
    assert!(!world.said().iter().any(|out| matches!(out, Out::Collect { .. } | Out::Save(_))));
    world
}

/// How long to wait until the next part of a snapshot; none if it is complete.
fn pause(said: &[Out]) -> Option<Duration> {
    said.iter().rev().find_map(|out| match out {
        Out::Collect { pause } => Some(Some(*pause)),
        Out::Save(_) => Some(None),
        _ => None,
    })?
}

#[test]
fn a_snapshot_is_collected_bit_by_bit_and_faster_where_pauses_become_long() {
    let mut world = before_a_snapshot();
    world.apply(None);
    assert_eq!(pause(&world.said()), Some(Duration::ZERO), "a part was collected");
    world.bank.collect(world.now, &mut world.said);
    assert_eq!(pause(&world.said()), Some(MS));
    // The pause became longer: one part follows the other for half of that time.
    world.now += 8 * MS;
    world.bank.collect(world.now, &mut world.said);
    assert_eq!(pause(&world.said()), Some(Duration::ZERO));
    world.bank.collect(world.now + 3 * MS, &mut world.said);
    assert_eq!(pause(&world.said()), Some(Duration::ZERO));
    world.bank.collect(world.now + 4 * MS, &mut world.said);
    assert_eq!(pause(&world.said()), Some(MS));
    while let Some(pause) = {
        world.now += 8 * MS;
        world.bank.collect(world.now, &mut world.said);
        pause(&world.said)
    } {
        assert!(pause <= MS);
        world.said();
    }
    let Some(Out::Save(snapshot)) = world.said().pop() else { panic!("it was not saved") };
    assert_eq!((snapshot.changes.slot, snapshot.changes.transactions), (7, 2_401));
}

#[test]
fn whoever_waits_for_a_snapshot_is_told_of_one_with_all_that_it_asked_for() {
    let mut world = before_a_snapshot();
    let wanted = world.bank.take_snapshot(world.now, &mut world.said);
    assert_eq!(wanted, 6);
    world.apply(None);
    assert_eq!(world.bank.take_snapshot(world.now, &mut world.said), 7);
    let save = |world: &mut World| loop {
        world.now += 8 * MS;
        world.bank.collect(world.now, &mut world.said);
        if let Some(Out::Save(snapshot)) = world.said().pop() {
            return snapshot.changes.slot;
        }
    };
    assert_eq!(save(&mut world), 6);
    world.bank.saved(world.now, Saved { slot: 6, transactions: 2_401 }, &mut world.said);
    assert!(matches!(world.said[0], Out::Durable(6)));
    let next = pause(&world.said).map_or_else(|| 7, |_| save(&mut world));
    assert_eq!(next, 7, "another one follows");
    world.said();
    world.bank.saved(world.now, Saved { slot: 7, transactions: 2_401 }, &mut world.said);
    assert!(matches!(world.said()[..], [Out::Durable(7)]));
    assert_eq!(world.bank.take_snapshot(world.now, &mut world.said), 7);
    assert!(matches!(world.said()[..], [Out::Durable(7)]), "it is there");
}

impl World {
    /// Applies a batch of these requests, each with its session and token, of which the first has an asker.
    fn apply_for(&mut self, client: &Client, requests: &[(u64, u64, Action)]) {
        let mut builder = BatchBuilder::default();
        for (session, token, action) in requests {
            self.requests += u64::from(*session > 0);
            let number = if *session > 0 { self.requests } else { 0 };
            let key = SessionKey([*token as u8; 16]);
            let header = RequestHeader { session: *session, key, number, acknowledged: 0, token: *token };
            builder.push(&header, action);
        }
        let sequence = self.bank.standpoint().applied + 1;
        let (id, payload) = builder.finish(node(1), 1, sequence, 1_000);
        let mut waiters = vec![Waiter { client: client.clone(), tag: 1 }];
        waiters.resize_with(requests.len(), || Waiter { client: self::client(99), tag: 2 });
        self.bank.expect(id, waiters);
        self.apply(Some((id, payload)));
    }

    /// What this client was answered since the last time.
    fn told(&mut self, client: &Client) -> Vec<Result<Done, ErrorCode>> {
        let mut told = Vec::new();
        for out in self.said() {
            if let Out::Answers { to, answers, .. } = out
                && to.id() == client.id()
            {
                told.extend(answers.into_iter().map(|answer| answer.result.map_err(|refusal| refusal.code)));
            }
        }
        told
    }
}

fn put(name: &str, roles: &[Role]) -> Action {
    let (principal, roles) = (name.parse().unwrap(), roles.iter().copied().collect());
    let (scopes, limits) = (Scopes::default(), SpendLimits::default());
    Action::Admin(Box::new(Admin::PutPrincipal(PutPrincipal { principal, roles, scopes, limits, namespace: None })))
}

/// The host speaks in session 1, and another administrator, with token 8, in session 4.
fn with_two_administrators() -> World {
    let mut world = World::admitted(u64::MAX);
    let (principal, token_id) = ("boss".parse().unwrap(), TokenId([1; 8]));
    let token = Admin::PutToken(PutToken { principal, token_id, token_hash: Digest::ZERO, expires_at: 60_000 });
    let requests = [
        (0, 0, Action::Open),
        (1, 0, put("boss", &[Role::Admin])),
        (1, 0, Action::Admin(Box::new(token))),
        (0, 8, Action::Open),
    ];
    world.apply_for(&client(1), &requests);
    world.said();
    world
}

#[test]
fn what_was_carried_out_is_not_refused_though_its_asker_is_gone_by_the_end_of_the_slot() {
    let mut world = with_two_administrators();
    let host = client(1);
    let create = Operation::create_account("alice", Amount::new(0));
    let remove = Admin::RemovePrincipal { principal: "host".parse().unwrap() };
    let requests = [(1, 0, Action::Command(Command::One(create))), (4, 8, Action::Admin(Box::new(remove)))];
    world.apply_for(&host, &requests);
    assert!(matches!(world.told(&host)[..], [Ok(Done::Unseen)]), "it was carried out");
    world.balance(&host, ReadLevel::Local);
    assert!(matches!(world.told(&host)[..], [Err(ErrorCode::NotAuthorised)]), "it asks for nothing more");
}

#[test]
fn a_question_that_takes_long_is_not_answered_to_whoever_may_not_ask_it_any_more() {
    let mut world = with_two_administrators();
    let host = client(1);
    for allowed in [true, false] {
        world.ask(&host, Query::GetStatistics { large_amount: None, asset: None }, ReadLevel::Local);
        if !allowed {
            world.apply_for(&client(2), &[(4, 8, put("host", &[Role::Operator]))]);
        }
        world.bank.work(world.now, &mut world.said);
        let told = world.told(&host);
        assert!(
            matches!(&told[..], [Ok(Done::Success(_))] if allowed)
                || matches!(&told[..], [Err(ErrorCode::NotAuthorised)] if !allowed),
            "{told:?}"
        );
    }
}
