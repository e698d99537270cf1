//! Rows of the log with right check values: whatever is in them, the log is opened or refused, and what was recovered is
//! what a node can go on with.
//!
//! Used by a test of this crate and by a fuzz target: see `nodes/fuzz`.

use std::sync::OnceLock;

use rabia_bank_messages::batch::BatchBuilder;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::{ClusterId, NodeId, Proof, RunId, StoreId};
use rabia_bank_messages::lineage;
use rabia_bank_messages::peer::{State, Vote};
use rabia_bank_messages::promise::{Commit, Identity, Record, Recovered, Said};
use rabia_bank_storage::{Entries, LogStore, StorageBackend, StoreError};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableTable, TableDefinition};

const TABLES: [&str; 2] = ["log", "meta"];

type Bytes = &'static [u8];

fn table(name: &'static str) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(name)
}

/// The disk of one input: shared, so that it can be opened again.
#[derive(Clone, Debug)]
struct Memory(std::sync::Arc<InMemoryBackend>);

impl StorageBackend for Memory {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

impl Memory {
    fn with(image: &[u8]) -> Memory {
        let memory = Memory(std::sync::Arc::new(InMemoryBackend::new()));
        let written = memory.set_len(image.len() as u64).and_then(|()| memory.write(0, image));
        assert!(written.is_ok(), "{written:?}");
        memory
    }

    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; self.len().unwrap_or(0) as usize];
        let read = self.read(0, &mut image);
        assert!(read.is_ok(), "{read:?}");
        image
    }
}

fn node(number: u8) -> NodeId {
    NodeId::new(number).unwrap_or_else(|| panic!("no node has the number {number}"))
}

fn identity() -> Identity {
    let genesis = Genesis::new(ClusterId([9; 16]), (1..=3).map(|n| StoreId([n; 16])).collect());
    Identity { genesis, node: node(1) }
}

fn open(memory: &Memory) -> Result<(LogStore, Recovered), StoreError> {
    LogStore::open_with(memory.clone(), &identity(), || Ok(0))
}

/// A log with a row of each kind, closed. Made once: inputs alter copies of it.
fn base() -> &'static [u8] {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    BASE.get_or_init(|| {
        let memory = Memory::with(&[]);
        let created = LogStore::create_with(memory.clone(), &identity(), 0);
        assert!(created.is_ok(), "{created:?}");
        let (mut store, recovered) = open(&memory).unwrap_or_else(|error| panic!("{error}"));
        let began = store.begin_run(RunId([5; 16]), &recovered);
        assert!(began.is_ok(), "{began:?}");
        let (id, payload) = BatchBuilder::default().finish(node(2), 1, 1, 7);
        let record = |slot, phase, said| Record { slot, phase, said };
        let (run, proof) = (RunId([7; 16]), Proof([8; 16]));
        let remembered = lineage::Memory { store: StoreId([2; 16]), run, promises: 3, proof };
        let commit = Commit {
            reserved: Some(50),
            records: vec![
                record(3, 1, Said::Vote(Vote::Undecided)),
                record(3, 2, Said::State(State::One(id))),
                record(3, 2, Said::Vote(Vote::One(id))),
                record(5, 1, Said::Vote(Vote::Zero)),
            ],
            payloads: vec![(id, payload)],
            decisions: vec![(1, Some(id)), (2, None), (4, None)],
            peers: vec![(node(2), remembered)],
            promised: Some(4),
            ..Commit::default()
        };
        let committed = store.commit(&commit);
        assert!(committed.is_ok(), "{committed:?}");
        drop(store);
        memory.image()
    })
}

/// A row: `table u8 | length of the key u8 | key | length of the body u16 | body`.
fn rows(mut input: &[u8]) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut take = |length: usize| {
        let (taken, rest) = input.split_at(length.min(input.len()));
        input = rest;
        (taken.len() == length).then(|| taken.to_vec())
    };
    while let Some(head) = take(2) {
        let name = TABLES[usize::from(head[0]) % TABLES.len()];
        let Some(key) = take(usize::from(head[1])) else { break };
        let Some(length) = take(2) else { break };
        let Some(body) = take(usize::from(length[0]) << 8 | usize::from(length[1])) else { break };
        rows.push((name, key, body));
    }
    rows
}

/// As the crate's page says.
fn check_value(name: &str, key: &[u8], body: &[u8]) -> [u8; 4] {
    let length = (key.len() as u32).to_be_bytes();
    crc32fast::hash(&[name.as_bytes(), &[0], &length, key, body].concat()).to_be_bytes()
}

/// Puts the rows into a log and opens it.
fn open_with(input: &[u8]) -> Result<(LogStore, Recovered), StoreError> {
    let memory = Memory::with(base());
    put(&memory, &rows(input)).unwrap_or_else(|error| panic!("redb refuses the rows: {error}"));
    open(&memory)
}

/// Whether a log with these rows is not opened.
#[allow(dead_code)] // only the test asks
pub fn refuses(input: &[u8]) -> bool {
    open_with(input).is_err()
}

/// A log with these rows is opened or refused in order.
pub fn check(input: &[u8]) {
    let (store, recovered) = match open_with(input) {
        Ok(opened) => opened,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for Record { slot, phase, said } in &recovered.records {
        assert!(*slot > recovered.decided && *slot < recovered.reserved && *phase >= 1);
        assert!(!matches!(said, Said::State(_)) || *phase >= 2, "a state of phase 1 is never stored");
        assert_ne!(*said, Said::State(State::Abstain), "who abstains has forgotten, and stores nothing");
    }
    let named = recovered.records.iter().filter_map(|record| match record.said {
        Said::State(State::One(id)) | Said::Vote(Vote::One(id)) => Some(id),
        _ => None,
    });
    for id in named {
        assert!(recovered.payloads.iter().any(|(held, payload)| *held == id && payload.matches(&id)));
    }
    assert!(recovered.sparse.iter().all(|(slot, _)| *slot > recovered.decided + 1));
    let mut next = 1;
    while let Ok(Entries::Found(entries)) = store.reader().entries(next, 1_000) {
        let Some(last) = entries.last() else { break };
        assert!(last.slot >= next && last.slot <= recovered.decided);
        next = last.slot + 1;
    }
}

fn put(memory: &Memory, rows: &[(&'static str, Vec<u8>, Vec<u8>)]) -> Result<(), redb::Error> {
    let database = Database::builder().create_with_backend(memory.clone())?;
    let transaction = database.begin_write()?;
    for (name, key, body) in rows {
        let value = [&check_value(name, key, body)[..], body].concat();
        transaction.open_table(table(name))?.insert(&key[..], &value[..])?;
    }
    transaction.commit()?;
    Ok(())
}

/// The rows of the log that inputs alter, one by one and all together.
pub fn seeds() -> Vec<Vec<u8>> {
    let memory = Memory::with(base());
    let seeds = read(&memory).unwrap_or_else(|error| panic!("{error}"));
    let all = seeds.concat();
    seeds.into_iter().chain([all]).collect()
}

fn read(memory: &Memory) -> Result<Vec<Vec<u8>>, redb::Error> {
    let database = Database::builder().create_with_backend(memory.clone())?;
    let transaction = database.begin_write()?;
    let mut seeds = Vec::new();
    for (number, name) in (0..).zip(TABLES) {
        for row in transaction.open_table(table(name))?.iter()? {
            let (key, value) = row?;
            let (key, body) = (key.value(), &value.value()[4..]);
            let mut seed = vec![number, key.len() as u8];
            seed.extend(key);
            seed.extend((body.len() as u16).to_be_bytes());
            seed.extend(body);
            seeds.push(seed);
        }
    }
    Ok(seeds)
}
