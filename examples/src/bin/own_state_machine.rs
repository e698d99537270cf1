//! Something else than a bank on the same nodes: a replicated key-value store, on three nodes in this process.
//!
//! `cargo run -p rabia-bank-examples --bin own_state_machine [FOLDER]` and then, line by line: `put KEY VALUE`, `get KEY`,
//! `swap KEY EXPECTED VALUE`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use rabia_bank::bank::ReadLevel;
use rabia_bank::embed::Embedded;
use rabia_bank::machine::{Ask, BadRow, Batched, Begun, Genesis, Moment, Rows, StateMachine, Whole, msgpack};
use serde::{Deserialize, Serialize};

/// The longest key and the longest value, in bytes: what a conflict answers must fit into
/// [`MAX_WHOLE`](rabia_bank::machine::MAX_WHOLE).
const LONGEST: usize = 1 << 10;
/// Keys on a page of a snapshot.
const PAGE: usize = 16;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    Put {
        key: String,
        value: String,
    },
    /// Only where the key has this value; none: where there is no such key.
    Swap {
        key: String,
        expected: Option<String>,
        value: String,
    },
}

impl Batched for Change {}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    /// Nothing was done: this is the value.
    Conflict(Option<String>),
    TooLong,
    Value(Option<String>),
}

#[derive(Debug, Default)]
pub(crate) struct KeyValues {
    /// In the order in which the keys came, so that each stays on its page.
    entries: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
    /// Pages that changed since the last snapshot.
    changed: BTreeSet<u32>,
    /// The pages of the snapshot that is being taken, as they were when it began.
    taken: Vec<(u32, Vec<u8>)>,
}

impl KeyValues {
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

    fn page(&self, page: u32) -> Vec<u8> {
        let first = page as usize * PAGE;
        let entries = &self.entries[first..self.entries.len().min(first + PAGE)];
        msgpack::encode(&entries)
    }
}

impl StateMachine for KeyValues {
    const NAME: &'static str = "example key-value store 1";
    type Command = Change;
    type Outcome = Answer;
    type Kept = Whole<Answer>;
    type Query = String;
    type Answer = Answer;
    type Task = Infallible;
    type Feed = Infallible;
    type Block = Infallible;
    /// How many keys there are.
    type Head = u64;

    fn new_cluster(_: &Genesis) -> KeyValues {
        KeyValues::default()
    }

    fn apply(&mut self, change: &Change, _: Moment) -> Answer {
        let (Change::Put { key, value } | Change::Swap { key, value, .. }) = change;
        if key.len().max(value.len()) > LONGEST {
            return Answer::TooLong;
        }
        if let Change::Swap { expected, .. } = change
            && self.get(key) != expected.as_deref()
        {
            return Answer::Conflict(self.get(key).map(String::from));
        }
        self.put(key, value);
        Answer::Done
    }

    fn begin(&self, ask: Ask<'_, KeyValues>) -> Begun<KeyValues> {
        Begun::Done(Ok(match ask {
            Ask::Outcome(outcome) => outcome.clone(),
            Ask::Query(key) => Answer::Value(self.get(key).map(String::from)),
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
        let changed = std::mem::take(&mut self.changed);
        self.taken = changed.into_iter().map(|page| (page, self.page(page))).collect();
        1
    }

    fn collect(&mut self, _: usize) -> Option<Rows> {
        Some(Rows { pages: std::mem::take(&mut self.taken), ..Rows::default() })
    }

    fn load(_: &u64) -> KeyValues {
        KeyValues::default()
    }

    fn load_page(&mut self, page: u32, row: &[u8]) -> Result<(), BadRow> {
        let entries: Vec<(String, String)> =
            msgpack::decode(row).map_err(|why| BadRow::new(format!("page {page}: {why}")))?;
        entries.iter().for_each(|(key, value)| self.put(key, value));
        Ok(())
    }

    fn loaded(&mut self, keys: u64, _: Option<&Infallible>) -> Result<(), BadRow> {
        self.changed.clear();
        let found = self.entries.len() as u64;
        if found == keys { Ok(()) } else { Err(BadRow::new(format!("{found} keys, where {keys} should be"))) }
    }
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout)] // a program for people
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "key-values".into());
    let nodes = Embedded::<KeyValues>::machine_cluster(folder, 3)?;
    let session = nodes[0].session().await?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let text = |word: &str| word.to_owned();
        let heard = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["put", key, value] => session.command(Change::Put { key: text(key), value: text(value) }).await,
            ["swap", key, expected, value] => {
                let (key, expected, value) = (text(key), Some(text(expected)), text(value));
                session.command(Change::Swap { key, expected, value }).await
            }
            ["get", key] => session.query(text(key), ReadLevel::Linearizable).await,
            _ => {
                println!("put KEY VALUE, get KEY, or swap KEY EXPECTED VALUE");
                continue;
            }
        };
        println!("{:?}", heard?.success);
    }
    for node in nodes {
        node.stop().await?;
    }
    Ok(())
}
