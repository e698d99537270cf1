//! Another machine than the bank: what is replicated around it works all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use rabia_bank_ledger::BadRow;
use rabia_bank_ledger::machine::{Ask, Begun, Moment, Rows, StateMachine, Whole};
use rabia_bank_ledger::replicated::{Applied, Replicated, RequestOutcome};
use rabia_bank_ledger::snapshot::{Changes, Loading};
use rabia_bank_messages::batch::{Action, BatchBuilder, Batched, Payload, RequestHeader};
use rabia_bank_messages::genesis::{Genesis, SessionLimits};
use rabia_bank_messages::ids::{BatchId, NodeId};
use rabia_bank_messages::msgpack;
use serde::{Deserialize, Serialize};

use crate::support::{KEY, SESSION, header};

/// Keys on a page.
const PAGE: usize = 4;

/// A key-value store.
#[derive(Debug, Default)]
struct Store {
    /// In the order in which the keys came first: so a key stays on its page.
    entries: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
    /// The pages that changed since the last snapshot.
    changed: BTreeSet<u32>,
    /// The pages of the snapshot that is being taken, as they were when it began.
    taken: Vec<(u32, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Change {
    Put {
        key: String,
        value: String,
    },
    /// Only where the value is still the one expected; none: where there is no such key.
    Swap {
        key: String,
        expected: Option<String>,
        value: String,
    },
}

impl Batched for Change {}

/// Whether it was done, and otherwise the value that stands in its way.
type Swapped = Result<(), Option<String>>;

impl Store {
    fn get(&self, key: &str) -> Option<&str> {
        self.places.get(key).map(|place| &*self.entries[*place].1)
    }

    fn put(&mut self, key: &str, value: &str) {
        let place = *self.places.entry(key.into()).or_insert(self.entries.len());
        match self.entries.get_mut(place) {
            Some(entry) => entry.1 = value.into(),
            None => self.entries.push((key.into(), value.into())),
        }
        self.changed.insert((place / PAGE) as u32);
    }
}

impl StateMachine for Store {
    const NAME: &'static str = "a key-value store 1";
    type Command = Change;
    type Outcome = Swapped;
    type Kept = Whole<Swapped>;
    type Query = String;
    type Answer = Option<String>;
    type Task = Infallible;
    type Feed = Infallible;
    type Block = Infallible;
    type Head = u64;

    fn new_cluster(_: &Genesis) -> Store {
        Store::default()
    }

    fn apply(&mut self, command: &Change, _: Moment) -> Swapped {
        match command {
            Change::Put { key, value } => self.put(key, value),
            Change::Swap { key, expected, value } => {
                if self.get(key) != expected.as_deref() {
                    return Err(self.get(key).map(String::from));
                }
                self.put(key, value);
            }
        }
        Ok(())
    }

    fn begin(&self, ask: Ask<'_, Store>) -> Begun<Store> {
        Begun::Done(Ok(match ask {
            Ask::Outcome(Ok(())) => None,
            Ask::Outcome(Err(found)) => found.clone(),
            Ask::Query(key) => self.get(key).map(String::from),
            Ask::Feed { feed, .. } => match *feed {},
        }))
    }

    fn state_hash(&mut self) -> [u8; 32] {
        *blake3::hash(&msgpack::encode(&self.entries)).as_bytes()
    }

    fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    fn freeze(&mut self) -> usize {
        for page in std::mem::take(&mut self.changed) {
            let first = page as usize * PAGE;
            let entries = &self.entries[first..self.entries.len().min(first + PAGE)];
            self.taken.push((page, msgpack::encode(&entries)));
        }
        1
    }

    fn collect(&mut self, _: usize) -> Option<Rows> {
        Some(Rows { pages: std::mem::take(&mut self.taken), ..Rows::default() })
    }

    fn load(_: &u64) -> Store {
        Store::default()
    }

    fn load_page(&mut self, page: u32, row: &[u8]) -> Result<(), BadRow> {
        let bad = |why: String| BadRow::new(format!("page {page}: {why}"));
        let entries: Vec<(String, String)> = msgpack::decode(row).map_err(|why| bad(why.to_string()))?;
        if self.entries.len() != page as usize * PAGE {
            return Err(bad("it does not follow the one before".into()));
        }
        entries.iter().for_each(|(key, value)| self.put(key, value));
        self.changed.clear();
        Ok(())
    }

    fn loaded(&mut self, keys: u64, _: Option<&Infallible>) -> Result<(), BadRow> {
        let found = self.entries.len() as u64;
        if found == keys { Ok(()) } else { Err(BadRow::new(format!("{found} keys, where {keys} should be"))) }
    }
}

/// A replica, and its rows on disk.
struct Replica {
    ledger: Replicated<Store>,
    saved: Option<Changes>,
    pages: BTreeMap<u32, Vec<u8>>,
    sessions: BTreeMap<u64, Vec<u8>>,
}

impl Replica {
    fn new() -> Replica {
        let ledger = Replicated::of(Store::default(), SessionLimits::default());
        Replica { ledger, saved: None, pages: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    fn apply(&mut self, (id, payload): &(BatchId, Payload)) -> Vec<RequestOutcome<Swapped>> {
        match self.ledger.apply(self.ledger.applied() + 1, Some((id, payload))) {
            Applied::Batch(outcomes) => outcomes,
            other => panic!("{other:?}"),
        }
    }

    fn get(&self, key: &str) -> Option<String> {
        let lookup = self.ledger.query(&key.to_owned()).unwrap();
        self.ledger.at_hand(lookup).unwrap().unwrap()
    }

    fn begin_snapshot(&mut self) {
        self.ledger.freeze();
    }

    fn end_snapshot(&mut self) {
        let mut changes = self.ledger.collect(100).unwrap();
        self.pages.extend(std::mem::take(&mut changes.accounts));
        for (key, row) in std::mem::take(&mut changes.sessions) {
            match row {
                Some(row) => self.sessions.insert(key, row),
                None => self.sessions.remove(&key),
            };
        }
        self.saved = Some(changes);
    }

    /// What a node with these rows begins with.
    fn restarted(&self) -> Result<Replicated<Store>, BadRow> {
        let mut loading: Loading<Store> = Loading::new(&self.saved.as_ref().unwrap().state)?;
        assert_eq!(loading.last_block(), None);
        self.pages.iter().try_for_each(|(page, row)| loading.accounts(*page, row))?;
        self.sessions.iter().try_for_each(|(key, row)| loading.session(*key, row))?;
        loading.finish(None)
    }
}

fn batch(sequence: u64, requests: &[(RequestHeader, Action<Change>)]) -> (BatchId, Payload) {
    let mut builder = BatchBuilder::default();
    requests.iter().for_each(|(header, action)| builder.push(header, action));
    builder.finish(NodeId::new(1).unwrap(), 1, sequence, 1_000 + sequence)
}

fn put(number: u64, key: &str, value: &str) -> (RequestHeader, Action<Change>) {
    (header(SESSION, number, 0), Action::Command(Change::Put { key: key.into(), value: value.into() }))
}

fn swap(number: u64, key: &str, expected: Option<&str>, value: &str) -> (RequestHeader, Action<Change>) {
    let (key, expected, value) = (key.into(), expected.map(String::from), value.into());
    (header(SESSION, number, 0), Action::Command(Change::Swap { key, expected, value }))
}

fn command(outcome: &RequestOutcome<Swapped>) -> (bool, Swapped) {
    match outcome {
        RequestOutcome::Command { replayed, outcome, .. } => (*replayed, outcome.clone()),
        other => panic!("{other:?}"),
    }
}

fn opened() -> (BatchId, Payload) {
    batch(1, &[(RequestHeader { session: 0, key: KEY, number: 0, acknowledged: 0, token: 0 }, Action::Open)])
}

#[test]
fn a_key_value_store_is_applied_once_saved_and_loaded_as_the_bank_is() {
    let (mut one, mut other) = (Replica::new(), Replica::new());
    let log = [
        opened(),
        batch(
            2,
            &[put(1, "a", "1"), swap(2, "a", Some("1"), "2"), swap(3, "a", Some("1"), "3"), swap(4, "b", None, "4")],
        ),
        // Said again, with other commands after it.
        batch(3, &[swap(3, "a", Some("1"), "3"), put(5, "a", "5"), swap(2, "a", Some("1"), "2")]),
        batch(4, &(0..10).map(|n| put(6 + n, &format!("key {n}"), "x")).collect::<Vec<_>>()),
    ];
    let outcomes: Vec<_> = log.iter().map(|batch| one.apply(batch)).collect();
    let refused = Err(Some("2".into()));
    assert_eq!(
        outcomes[1].iter().map(command).collect::<Vec<_>>(),
        [(false, Ok(())), (false, Ok(())), (false, refused.clone()), (false, Ok(()))]
    );
    assert_eq!(
        outcomes[2].iter().map(command).collect::<Vec<_>>(),
        [(true, refused), (false, Ok(())), (true, Ok(()))],
        "what is said again is answered as it was"
    );
    assert_eq!([one.get("a"), one.get("b"), one.get("c")], [Some("5".into()), Some("4".into()), None]);

    // The other one takes a snapshot on the way, while it goes on, and starts again from it.
    log[..2].iter().for_each(|batch| _ = other.apply(batch));
    other.begin_snapshot();
    other.apply(&log[2]);
    other.end_snapshot();
    other.apply(&log[3]);
    other.begin_snapshot();
    other.end_snapshot();
    other.ledger = other.restarted().unwrap();
    assert_eq!(other.ledger.digest(), one.ledger.digest());
    let again = batch(5, &[swap(3, "a", Some("1"), "3"), put(16, "z", "0")]);
    assert_eq!(one.apply(&again), other.apply(&again), "replies are loaded, too");
    assert_eq!(other.ledger.digest(), one.ledger.digest());
    assert_eq!(other.ledger.summary().transactions, 0, "it keeps no history");
}

#[test]
fn rows_of_another_state_or_another_machine_are_refused() {
    let mut replica = Replica::new();
    replica.apply(&opened());
    replica.apply(&batch(2, &[put(1, "a", "1"), put(2, "b", "2")]));
    replica.begin_snapshot();
    replica.end_snapshot();
    let state = replica.saved.as_ref().unwrap().state.clone();
    assert!(rabia_bank_ledger::Loading::new(&state).is_err(), "it is no bank");
    let mut bank = crate::support::Bank::new();
    bank.reload();
    let why = Loading::<Store>::new(&bank.rows.state).map(drop).unwrap_err().to_string();
    assert!(why.contains("state"), "{why}");

    for page in [msgpack::encode(&[("a", "1"), ("b", "3")]), msgpack::encode(&[("a", "1")]), vec![0xc1]] {
        let good = replica.pages.insert(0, page).unwrap();
        assert!(replica.restarted().is_err());
        replica.pages.insert(0, good);
    }
    assert!(replica.restarted().is_ok());
}

/// A batch of another machine's commands has no effect, and stops nobody.
#[test]
fn commands_of_another_machine_are_an_unusable_batch() {
    let mut replica = Replica::new();
    let mut bank = crate::support::Bank::new();
    let (id, payload) = bank.payload(&[(header(SESSION, 1, 0), Action::Command(crate::support::bulk(true, vec![])))]);
    assert!(payload.check::<Change>().is_err());
    assert!(matches!(replica.ledger.apply(1, Some((&id, &payload))), Applied::Unusable(_)));
    let (id, payload) = batch(9, &[put(1, "a", "1")]);
    assert!(matches!(bank.apply(Some((&id, &payload))), rabia_bank_ledger::Applied::Unusable(_)));
}
