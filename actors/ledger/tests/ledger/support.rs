//! A ledger with everything around it that a test would have to repeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use rabia_bank_ledger::{
    Answer, Applied, BadRow, Block, Changes, CommandOutcome, Ledger, Loading, Lookup, MOST_AT_ONCE, Progress,
    RequestOutcome,
};
use rabia_bank_messages::bank::{
    Account, Amount, Bulk, Command, CreateAccount, CreateAsset, ErrorCode, ItemResult, Operation, Outcome, Query,
    Refusal, SetAccount, Success, Transaction,
};
use rabia_bank_messages::batch::{Action, BatchBuilder, Payload, RequestHeader};
use rabia_bank_messages::genesis::{BankTerms, Founding, Genesis, SessionLimits};
use rabia_bank_messages::ids::{BatchId, ClusterId, NodeId, SessionKey, StoreId};

pub const LIMIT: u64 = 1_000_000_000;
pub const KEY: SessionKey = SessionKey([7; 16]);
/// The session with [`KEY`] of a new bank, for requests that a test numbers itself: the first request of the log.
pub const SESSION: u64 = 1;
/// The session that [`Bank::command`] speaks in.
const OWN: (u64, SessionKey) = (2, SessionKey([6; 16]));

pub fn header(session: u64, number: u64, acknowledged: u64) -> RequestHeader {
    RequestHeader { session, key: KEY, number, acknowledged, token: 0 }
}

pub fn open(key: SessionKey) -> (RequestHeader, Action) {
    (RequestHeader { session: 0, key, number: 0, acknowledged: 0, token: 0 }, Action::Open)
}

pub fn create(account: &str, balance: u64) -> Operation {
    Operation::create_account(account, Amount::new(balance))
}

/// An account of which more is said.
pub fn create_as(account: &str, balance: u64, say: impl FnOnce(&mut CreateAccount)) -> Operation {
    let mut create = CreateAccount::new(account, Amount::new(balance));
    say(&mut create);
    Operation::CreateAccount(Box::new(create))
}

/// An account of this asset.
pub fn create_of(asset: &str, account: &str, balance: u64) -> Operation {
    create_as(account, balance, |create| create.asset = Some(asset.into()))
}

pub fn set(account: &str, say: impl FnOnce(&mut SetAccount)) -> Operation {
    let mut set = SetAccount::new(account);
    say(&mut set);
    Operation::SetAccount(Box::new(set))
}

pub fn asset(code: &str, scale: u64, limit: u64) -> Operation {
    Operation::CreateAsset(CreateAsset { asset: code.into(), scale, limit })
}

pub fn deposit(account: &str, amount: u64) -> Operation {
    Operation::Deposit { account_id: account.into(), amount: Amount::new(amount) }
}

pub fn withdraw(account: &str, amount: u64) -> Operation {
    Operation::Withdraw { account_id: account.into(), amount: Amount::new(amount) }
}

pub fn transfer(from: &str, to: &str, amount: u64) -> Operation {
    Operation::Transfer { from_account: from.into(), to_account: to.into(), amount: Amount::new(amount) }
}

pub fn bulk(atomic: bool, commands: Vec<Operation>) -> Command {
    Command::Bulk(Bulk { commands, atomic })
}

pub struct Bank {
    pub ledger: Ledger,
    /// The stamp of the next batch.
    pub stamp: u64,
    next_batch: u64,
    next_request: u64,
    /// What was saved of it.
    pub rows: Rows,
}

/// The rows of a ledger, as a store keeps them.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Rows {
    pub state: Vec<u8>,
    pub accounts: BTreeMap<u32, Vec<u8>>,
    pub sessions: BTreeMap<u64, Vec<u8>>,
    pub blocks: BTreeMap<u64, Vec<u8>>,
}

impl Rows {
    pub fn save(&mut self, changes: Changes) {
        self.state = changes.state;
        self.accounts.extend(changes.accounts);
        for (number, row) in changes.sessions {
            match row {
                Some(row) => self.sessions.insert(number, row),
                None => self.sessions.remove(&number),
            };
        }
        self.blocks.extend(changes.blocks);
    }

    pub fn block(&self, number: u64) -> Block {
        Block::decode(number, &self.blocks[&number]).unwrap()
    }

    pub fn load(&self) -> Result<Ledger, BadRow> {
        let mut loading = Loading::new(&self.state)?;
        for (page, row) in &self.accounts {
            loading.accounts(*page, row)?;
        }
        for (number, row) in &self.sessions {
            loading.session(*number, row)?;
        }
        let last = loading.last_block().map(|number| Block::decode(number, &self.blocks[&number])).transpose()?;
        loading.finish(last.as_ref())
    }
}

impl Bank {
    /// An empty bank with two open sessions.
    pub fn new() -> Bank {
        Bank::with_limit(LIMIT)
    }

    pub fn with_limit(limit: u64) -> Bank {
        Bank::with(limit, SessionLimits::default())
    }

    pub fn with(limit: u64, sessions: SessionLimits) -> Bank {
        Bank::around(Ledger::new(limit, sessions))
    }

    /// One that begins with these tokens, and two open sessions of the host.
    pub fn founded(founding: Founding) -> Bank {
        Bank::founded_with(founding, SessionLimits::default())
    }

    /// The same with so many sessions.
    pub fn founded_with(founding: Founding, sessions: SessionLimits) -> Bank {
        let genesis = Genesis { founding, sessions, ..Genesis::new(ClusterId([1; 16]), vec![StoreId([1; 16])]) };
        Bank::around(Ledger::new_cluster(&genesis))
    }

    /// One with these terms, and two open sessions of the host.
    pub fn of(bank: BankTerms, transaction_limit: u64) -> Bank {
        let genesis = Genesis { bank, transaction_limit, ..Genesis::new(ClusterId([1; 16]), vec![StoreId([1; 16])]) };
        Bank::around(Ledger::new_cluster(&genesis))
    }

    /// One in which accounts may be overdrawn.
    pub fn with_overdraft(transaction_limit: u64) -> Bank {
        Bank::of(BankTerms { allow_overdraft: true, ..BankTerms::default() }, transaction_limit)
    }

    /// One of a cluster of so many members, at level 1.
    pub fn of_members(members: u8) -> Bank {
        let stores = (1..=members).map(|number| StoreId([number; 16])).collect();
        Bank::around(Ledger::new_cluster(&Genesis { level: 1, ..Genesis::new(ClusterId([1; 16]), stores) }))
    }

    fn around(ledger: Ledger) -> Bank {
        let mut bank = Bank { ledger, stamp: 1_000, next_batch: 1, next_request: 1, rows: Rows::default() };
        let opened = [SESSION, OWN.0].map(|session| RequestOutcome::Opened { session, new: true });
        assert_eq!(bank.batch(&[open(KEY), open(OWN.1)]), opened);
        bank
    }

    /// One that goes on from what was saved of another.
    pub fn around_rows(other: &Bank) -> Bank {
        let Bank { stamp, next_batch, next_request, ref rows, .. } = *other;
        Bank { ledger: rows.load().unwrap(), stamp, next_batch, next_request, rows: rows.clone() }
    }

    /// The first batch of every such bank.
    pub fn opening() -> (BatchId, Payload) {
        let ledger = Ledger::new(LIMIT, SessionLimits::default());
        let mut bank = Bank { ledger, stamp: 1_000, next_batch: 1, next_request: 1, rows: Rows::default() };
        bank.payload(&[open(KEY), open(OWN.1)])
    }

    pub fn payload(&mut self, requests: &[(RequestHeader, Action)]) -> (BatchId, Payload) {
        let mut builder = BatchBuilder::default();
        for (header, action) in requests {
            builder.push(header, action);
        }
        let payload = builder.finish(NodeId::new(1).unwrap(), 1, self.next_batch, self.stamp);
        self.next_batch += 1;
        payload
    }

    pub fn apply(&mut self, batch: Option<(&BatchId, &Payload)>) -> Applied {
        self.ledger.apply(self.ledger.applied() + 1, batch)
    }

    /// Applies a batch in the next slot.
    pub fn batch(&mut self, requests: &[(RequestHeader, Action)]) -> Vec<RequestOutcome> {
        let (id, payload) = self.payload(requests);
        match self.apply(Some((&id, &payload))) {
            Applied::Batch(outcomes) => outcomes,
            other => panic!("a new batch was {other:?}"),
        }
    }

    /// Applies one request in the next slot.
    pub fn request(&mut self, header: RequestHeader, action: Action) -> RequestOutcome {
        self.batch(&[(header, action)]).remove(0)
    }

    /// Applies a command in a session that no test uses otherwise, and acknowledges all before it.
    pub fn command(&mut self, command: Command) -> Result<Success, Refusal> {
        let number = self.next_request;
        self.next_request += 1;
        let header = RequestHeader { session: OWN.0, key: OWN.1, number, acknowledged: number - 1, token: 0 };
        match self.request(header, Action::Command(command)) {
            RequestOutcome::Command { outcome, replayed: false, .. } => self.render(&outcome),
            other => panic!("a new command was {other:?}"),
        }
    }

    pub fn run(&mut self, operation: Operation) -> Result<Success, Refusal> {
        self.command(Command::One(operation))
    }

    /// Applies an operation that must succeed.
    pub fn done(&mut self, operation: Operation) {
        let answer = self.run(operation.clone());
        assert!(answer.is_ok(), "{operation:?}: {answer:?}");
    }

    /// Applies an operation that must be refused.
    #[track_caller]
    pub fn refused(&mut self, operation: Operation) -> ErrorCode {
        code(self.run(operation))
    }

    pub fn query(&mut self, query: &Query) -> Answer {
        let lookup = self.ledger.query(query).expect("a query about the bank");
        self.finish(lookup)
    }

    pub fn render(&mut self, outcome: &CommandOutcome) -> Answer {
        let lookup = self.ledger.render(outcome);
        self.finish(lookup)
    }

    /// Goes on with an answer until it is there, and reads the blocks that it needs.
    pub fn finish(&mut self, mut lookup: Lookup) -> Answer {
        loop {
            match self.ledger.go_on(&mut lookup, &mut MOST_AT_ONCE.clone()) {
                Progress::Done(answer) => return answer,
                Progress::Block(number) => lookup.give(Arc::new(self.rows.block(number))),
                Progress::Unfinished => {}
            }
        }
    }

    /// Saves what changed, and goes on with a ledger that is made of the rows: all full blocks have left its memory.
    pub fn reload(&mut self) {
        self.ledger.freeze();
        let changes = std::iter::repeat_with(|| self.ledger.collect(1)).flatten().next().unwrap();
        self.rows.save(changes);
        let digest = self.ledger.digest();
        self.ledger = self.rows.load().unwrap();
        assert_eq!(self.ledger.digest(), digest);
    }

    pub fn account(&mut self, account: &str) -> Account {
        match self.query(&Query::GetAccount { account_id: account.into() }) {
            Ok(Success::Account { account, transaction: None }) => *account,
            other => panic!("{account}: {other:?}"),
        }
    }

    pub fn balance(&mut self, account: &str) -> i64 {
        match self.query(&Query::GetBalance { account_id: account.into() }) {
            Ok(Success::Balance { balance }) => balance,
            other => panic!("{account}: {other:?}"),
        }
    }

    /// All transactions, oldest first, one by one.
    pub fn transactions(&mut self) -> Vec<Transaction> {
        let count = self.ledger.summary().transactions;
        let one = |transaction_id| match self.query(&Query::GetTransaction { transaction_id }) {
            Ok(Success::Transaction { transaction }) => transaction,
            other => panic!("transaction {transaction_id}: {other:?}"),
        };
        (1..=count).map(one).collect()
    }
}

/// The code of an answer that must be a refusal of something not executed.
#[track_caller]
pub fn code(answer: Result<Success, Refusal>) -> ErrorCode {
    match answer {
        Err(refusal) => {
            assert_eq!(refusal.outcome, Outcome::Refused, "{refusal}");
            refusal.code
        }
        Ok(success) => panic!("expected a refusal, not {success:?}"),
    }
}

/// The results of a bulk.
#[track_caller]
pub fn results(answer: Result<Success, Refusal>) -> Vec<Result<Success, Refusal>> {
    let Ok(Success::Results { results }) = answer else { panic!("expected results, not {answer:?}") };
    let plain = |item| match item {
        ItemResult::Ok(success) => Ok(success),
        ItemResult::Error(refusal) => Err(refusal),
    };
    results.into_iter().map(plain).collect()
}
