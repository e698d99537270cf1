//! A machine with a history of its own: lines in blocks that leave memory, questions in steps, and a feed. What the bank uses of these
//! seams, another machine can use as well.

use std::collections::VecDeque;
use std::sync::Arc;

use rabia_bank_ledger::BadRow;
use rabia_bank_ledger::lookup::Lookup;
use rabia_bank_ledger::machine::{self, Ask, Begun, Given, History, Moment, Progress, Rows, StateMachine, Whole};
use rabia_bank_ledger::replicated::{Applied, Replicated};
use rabia_bank_ledger::snapshot::Loading;
use rabia_bank_messages::bank::Refusal;
use rabia_bank_messages::batch::{Action, BatchBuilder, Batched, RequestHeader};
use rabia_bank_messages::genesis::{Genesis, SessionLimits};
use rabia_bank_messages::ids::{Digest, NodeId};
use rabia_bank_messages::msgpack;
use serde::{Deserialize, Serialize};

use crate::support::{KEY, SESSION, header};

/// Lines in a full block.
const BLOCK: u64 = 4;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Line(String);

impl Batched for Line {}

#[derive(Debug)]
enum Query {
    Line(u64),
    /// The length of all lines, when it is answered.
    Length,
}

#[derive(Clone, PartialEq, Debug)]
enum Answer {
    Number(u64),
    Line(String),
    Told(Vec<(u64, String)>, u64),
}

#[derive(Debug)]
enum Task {
    Line(u64),
    Length,
    Told { word: String, next: u64, end: u64, limit: usize, found: Vec<(u64, String)> },
}

/// Lines with this word.
#[derive(Clone, Debug)]
struct With(String);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Block {
    number: u64,
    before: Digest,
    lines: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    lines: u64,
    hash: Digest,
    length: u64,
}

#[derive(Debug)]
struct Journal {
    /// Those behind the `forgotten` ones, with their hashes.
    lines: VecDeque<(String, Digest)>,
    forgotten: u64,
    before: Digest,
    /// The length of the first `measured` lines: made for answers alone, step by step.
    length: u64,
    measured: u64,
    saved: u64,
    taking: Option<Taking>,
}

/// A snapshot that is being taken.
#[derive(Debug)]
struct Taking {
    /// The number of the next block to be made.
    next: u64,
    /// The newest line that the snapshot holds.
    end: u64,
    /// The blocks that are made, by number.
    blocks: Vec<(u64, Vec<u8>)>,
}

fn chained(before: Digest, line: &str) -> Digest {
    Digest::of(&[&before.0, line.as_bytes()].concat())
}

impl Journal {
    fn new() -> Journal {
        let before = Digest::ZERO;
        Journal { lines: VecDeque::new(), forgotten: 0, before, length: 0, measured: 0, saved: 0, taking: None }
    }

    fn len(&self) -> u64 {
        self.forgotten + self.lines.len() as u64
    }

    fn hash(&self, id: u64) -> Digest {
        id.checked_sub(self.forgotten + 1).map_or(self.before, |place| self.lines[place as usize].1)
    }

    fn push(&mut self, line: &str) {
        let hash = chained(self.hash(self.len()), line);
        self.lines.push_back((line.into(), hash));
    }

    fn find<'a>(&'a self, id: u64, blocks: &'a Given<Block>) -> Result<&'a str, u64> {
        if let Some(place) = id.checked_sub(self.forgotten + 1) {
            return Ok(&self.lines[place as usize].0);
        }
        let number = (id - 1) / BLOCK;
        let block = blocks.iter().find(|block| block.number == number);
        block.map(|block| &*block.lines[((id - 1) % BLOCK) as usize]).ok_or(number)
    }

    /// Measures so many lines at most.
    fn measure(&mut self, steps: &mut u64) {
        while self.measured < self.len() && *steps > 0 {
            self.length += self.lines[(self.measured - self.forgotten) as usize].0.len() as u64;
            self.measured += 1;
            *steps -= 1;
        }
    }
}

impl StateMachine for Journal {
    const NAME: &'static str = "test journal 1";

    type Command = Line;
    type Outcome = u64;
    type Kept = Whole<u64>;
    type Query = Query;
    type Answer = Answer;
    type Task = Task;
    type Feed = With;
    type Block = Block;
    type Head = Head;

    fn new_cluster(_: &Genesis) -> Journal {
        Journal::new()
    }

    fn apply(&mut self, Line(line): &Line, _: Moment) -> u64 {
        self.push(line);
        self.len()
    }

    fn begin(&self, ask: Ask<'_, Journal>) -> Begun<Journal> {
        Begun::Task(match ask {
            Ask::Outcome(id) => return Begun::Done(Ok(Answer::Number(*id))),
            Ask::Query(Query::Line(id)) => Task::Line(*id),
            Ask::Query(Query::Length) => Task::Length,
            Ask::Feed { feed: With(word), next, scan, limit } => {
                let end = self.len().min(next + scan - 1);
                Task::Told { word: word.clone(), next, end, limit, found: Vec::new() }
            }
        })
    }

    fn state_hash(&mut self) -> [u8; 32] {
        [0; 32]
    }

    fn history(&self) -> History {
        History { entries: self.len(), head: self.hash(self.len()) }
    }

    fn head(&self) -> Head {
        let unmeasured = self.lines.iter().skip((self.measured - self.forgotten) as usize);
        let length = self.length + unmeasured.map(|(line, _)| line.len() as u64).sum::<u64>();
        Head { lines: self.len(), hash: self.hash(self.len()), length }
    }

    fn freeze(&mut self) -> usize {
        self.taking = Some(Taking { next: self.saved / BLOCK, end: self.len(), blocks: Vec::new() });
        (self.len().div_ceil(BLOCK) - self.saved / BLOCK) as usize
    }

    fn collect(&mut self, steps: usize) -> Option<Rows> {
        let Taking { mut next, end, mut blocks } = self.taking.take().unwrap();
        for _ in 0..steps {
            if next * BLOCK < end {
                let (first, last) = (next * BLOCK, end.min((next + 1) * BLOCK));
                let held = (first - self.forgotten) as usize..(last - self.forgotten) as usize;
                let lines = self.lines.range(held).map(|(line, _)| line.clone()).collect();
                let block = Block { number: next, before: self.hash(first), lines };
                blocks.push((next, msgpack::encode(&block)));
                next += 1;
            }
        }
        if next * BLOCK < end {
            self.taking = Some(Taking { next, end, blocks });
            return None;
        }
        self.saved = end;
        Some(Rows { blocks, entries: end, ..Rows::default() })
    }

    fn forget(&mut self, lines: u64) {
        self.measure(&mut u64::MAX.clone());
        while self.forgotten + BLOCK <= lines {
            self.before = self.hash(self.forgotten + BLOCK);
            self.lines.drain(..BLOCK as usize);
            self.forgotten += BLOCK;
        }
    }

    fn load(_: &Head) -> Journal {
        Journal::new()
    }

    fn load_page(&mut self, page: u32, _: &[u8]) -> Result<(), BadRow> {
        Err(BadRow::new(format!("page {page}, where there are none")))
    }

    fn loaded(&mut self, head: Head, last: Option<&Block>) -> Result<(), BadRow> {
        (self.saved, self.forgotten, self.before) = (head.lines, head.lines, head.hash);
        if let Some(block) = last {
            (self.forgotten, self.before) = (block.number * BLOCK, block.before);
            for line in block.lines.iter().take((head.lines - self.forgotten) as usize) {
                self.push(line);
            }
        }
        (self.measured, self.length) = (head.lines, head.length);
        let found = self.history();
        let expected = Journal::history_of(&head);
        if found == expected { Ok(()) } else { Err(BadRow::new(format!("{found:?}, where {expected:?} should be"))) }
    }

    fn history_of(head: &Head) -> History {
        History { entries: head.lines, head: head.hash }
    }
}

impl machine::Task<Journal> for Task {
    fn sees_now(&self) -> bool {
        matches!(self, Task::Length)
    }

    fn needs_preparation(&self) -> bool {
        matches!(self, Task::Length)
    }

    fn prepare(&self, journal: &mut Journal, steps: &mut u64) -> bool {
        if self.needs_preparation() {
            journal.measure(steps);
        }
        !self.needs_preparation() || journal.measured == journal.len()
    }

    fn run(&mut self, journal: &Journal, blocks: &Given<Block>, steps: &mut u64) -> Progress<Answer> {
        match self {
            Task::Length => Progress::Done(Ok(Answer::Number(journal.length))),
            Task::Line(id) => match journal.find(*id, blocks) {
                Ok(line) => Progress::Done(Ok(Answer::Line(line.into()))),
                Err(block) => Progress::Block(block),
            },
            Task::Told { word, next, end, limit, found } => {
                while *next <= *end && found.len() < *limit {
                    let line = match journal.find(*next, blocks) {
                        _ if *steps == 0 => return Progress::Unfinished,
                        Ok(line) => line,
                        Err(block) => return Progress::Block(block),
                    };
                    *steps -= 1;
                    found.extend(line.contains(&**word).then(|| (*next, line.into())));
                    *next += 1;
                }
                Progress::Done(Ok(Answer::Told(std::mem::take(found), *next)))
            }
        }
    }
}

impl machine::Feed<Journal> for With {
    type Entry = (u64, String);

    fn first(&self, journal: &Journal) -> Result<u64, Refusal> {
        Ok(journal.len() + 1)
    }

    fn subscribed(&self, from: u64) -> Answer {
        Answer::Number(from)
    }

    fn entries(&self, answer: Answer) -> Option<(Vec<(u64, String)>, u64)> {
        match answer {
            Answer::Told(lines, next) => Some((lines, next)),
            Answer::Number(_) | Answer::Line(_) => None,
        }
    }
}

impl machine::Block for Block {
    const ENTRIES: u64 = BLOCK;

    fn decode(number: u64, row: &[u8]) -> Result<Block, BadRow> {
        let block: Block = msgpack::decode(row).map_err(|why| BadRow::new(why.to_string()))?;
        if block.number == number { Ok(block) } else { Err(BadRow::new(format!("block {}", block.number))) }
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn before(&self) -> Digest {
        self.before
    }

    fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    fn hash_of(&self, id: u64) -> Option<Digest> {
        let lines = self.lines.get(..=id.checked_sub(self.number * BLOCK + 1)? as usize)?;
        Some(lines.iter().fold(self.before, |before, line| chained(before, line)))
    }
}

/// A journal in which a session is open.
fn opened() -> Replicated<Journal> {
    let mut journal = Replicated::of(Journal::new(), SessionLimits::default());
    let open = RequestHeader { session: 0, key: KEY, number: 0, acknowledged: 0, token: 0 };
    apply(&mut journal, &[(open, Action::Open)]);
    journal
}

fn apply(journal: &mut Replicated<Journal>, requests: &[(RequestHeader, Action<Line>)]) {
    let slot = journal.applied() + 1;
    let mut builder = BatchBuilder::default();
    requests.iter().for_each(|(header, action)| builder.push(header, action));
    let (id, payload) = builder.finish(NodeId::new(1).unwrap(), 1, slot, 1_000 + slot);
    assert!(matches!(journal.apply(slot, Some((&id, &payload))), Applied::Batch(_)));
}

/// Writes the lines with these numbers.
fn write(journal: &mut Replicated<Journal>, numbers: std::ops::RangeInclusive<u64>) {
    let line = |number| {
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        (header(SESSION, number, 0), Action::Command(Line(format!("{parity} {number}"))))
    };
    apply(journal, &numbers.map(line).collect::<Vec<_>>());
}

/// What comes of some steps.
fn go_on(journal: &mut Replicated<Journal>, lookup: &mut Lookup<Journal>, mut steps: u64) -> Progress<Answer> {
    journal.go_on(lookup, &mut steps)
}

fn block(rows: &[(u64, Vec<u8>)], number: u64) -> Block {
    machine::Block::decode(number, &rows.iter().find(|(found, _)| *found == number).unwrap().1).unwrap()
}

#[test]
fn a_history_leaves_memory_in_blocks_and_is_read_back_for_answers_and_feeds() {
    let mut journal = opened();
    write(&mut journal, 1..=10);
    journal.freeze();
    assert!(journal.collect(1).is_none(), "it has three blocks");
    write(&mut journal, 11..=11);
    let changes = journal.collect(2).unwrap();
    assert_eq!((changes.transactions, changes.blocks.len()), (10, 3), "it is of the moment when it began");
    assert_eq!(block(&changes.blocks, 2).lines, ["odd 9", "even 10"]);
    journal.forget(10);

    let mut line = journal.query(&Query::Line(2)).unwrap();
    assert!(matches!(go_on(&mut journal, &mut line, 9), Progress::Block(0)));
    line.give(Arc::new(block(&changes.blocks, 0)));
    assert_eq!(go_on(&mut journal, &mut line, 9).done(), Some(Ok(Answer::Line("even 2".into()))));
    let [old, recent] = [2, 9].map(|id| journal.query(&Query::Line(id)).unwrap());
    assert_eq!(journal.at_hand(old), None);
    assert_eq!(journal.at_hand(recent), Some(Ok(Answer::Line("odd 9".into()))));

    // A feed goes through the blocks, and on in memory, some steps at a time.
    let mut feed = journal.feed(&With("odd".into()), 4, 100, 3);
    assert!(matches!(go_on(&mut journal, &mut feed, 9), Progress::Block(0)));
    feed.give(Arc::new(block(&changes.blocks, 0)));
    assert!(matches!(go_on(&mut journal, &mut feed, 9), Progress::Block(1)));
    feed.give(Arc::new(block(&changes.blocks, 1)));
    assert!(matches!(go_on(&mut journal, &mut feed, 2), Progress::Unfinished));
    let told = [(5, "odd 5".into()), (7, "odd 7".into()), (9, "odd 9".into())];
    assert_eq!(go_on(&mut journal, &mut feed, 9).done(), Some(Ok(Answer::Told(told.into(), 10))));
}

#[test]
fn what_is_prepared_for_an_answer_takes_steps_and_shows_the_state_of_its_moment() {
    let mut journal = opened();
    write(&mut journal, 1..=4);
    let at_hand = journal.query(&Query::Length).unwrap();
    assert_eq!(journal.at_hand(at_hand), None, "it is not prepared");
    let mut length = journal.query(&Query::Length).unwrap();
    assert!(matches!(go_on(&mut journal, &mut length, 3), Progress::Unfinished));
    let asked = length.slot();
    write(&mut journal, 5..=6);
    assert_eq!(go_on(&mut journal, &mut length, 3).done(), Some(Ok(Answer::Number(33))));
    assert_eq!((asked, length.slot()), (2, journal.applied()));
}

#[test]
fn a_journal_goes_on_from_its_rows_and_from_no_others() {
    let mut journal = opened();
    write(&mut journal, 1..=10);
    journal.freeze();
    let changes = journal.collect(100).unwrap();
    let loading = || {
        let mut loading: Loading<Journal> = Loading::new(&changes.state).unwrap();
        let sessions = changes.sessions.iter().filter_map(|(key, row)| Some((*key, row.as_ref()?)));
        sessions.into_iter().for_each(|(key, row)| loading.session(key, row).unwrap());
        loading
    };
    assert_eq!(loading().last_block(), Some(2));
    let last = block(&changes.blocks, 2);
    let mut loaded = loading().finish(Some(&last)).unwrap();
    // It is the whole state: both go on alike, and what is saved next begins with the block that was not full.
    write(&mut loaded, 11..=13);
    write(&mut journal, 11..=13);
    assert_eq!(loaded.digest(), journal.digest());
    loaded.freeze();
    let next = loaded.collect(100).unwrap();
    assert_eq!(next.blocks.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 3]);

    assert!(loading().finish(None).is_err());
    assert!(loading().finish(Some(&block(&changes.blocks, 1))).is_err());
    let other = Block { lines: vec!["odd 9".into(), "even 11".into()], ..last };
    assert!(loading().finish(Some(&other)).is_err());
}
