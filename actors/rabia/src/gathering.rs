//! What gathers for the next batch: requests in turn, first by owner, which is a principal, then by connection.
//!
//! A batch is put together only when it is about to be proposed or sent. So a request of somebody who asks little waits for what is in
//! flight, and not for all that others have sent before it: it is in the next batch that this node forms.
//!
//! While several clients ask, batches are smaller, so that each waits for less of the others' work, and a batch has one large bulk at
//! most, behind the short requests. A client that is alone gets batches as large as they may be.
//!
//! What waits is bounded for the node. Of what is left beside other owners, one owner may have half, and of what is left of
//! that, one client: so there is always room for one that comes new.

use std::collections::VecDeque;
use std::time::Duration;

use rabia_bank_messages::batch::{BatchBuilder, EncodedRequest, FULL_BATCH_BYTES, MAX_BATCH_REQUESTS};
use rustc_hash::FxHashMap;

use crate::turns::{ClientId, Owner, Turns};

/// A batch is this large, in bytes, while several clients ask: some 300 requests, a few milliseconds of work …
const SHARED_BATCH: usize = 32 * 1024;
/// … and long requests are added until it has so many commands, which the last one may exceed …
const SHARED_COMMANDS: u64 = 4_096;
/// … and they do if two of them have within this time.
const RECENT: Duration = Duration::from_secs(1);
/// A request of more bytes is long: a bulk of some hundred commands.
const LONG: usize = 16 * 1024;

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// Whose work it is.
    pub owner: Owner,
    /// The connection or the session that asks for it.
    pub client: ClientId,
    /// Chosen by the client.
    pub tag: u64,
}

/// What may wait on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Requests of all clients together.
    pub requests: usize,
    /// The bytes that these are encoded in.
    pub bytes: usize,
}

/// What waits of somebody.
#[derive(Clone, Copy, Default, Debug)]
struct Load {
    requests: usize,
    bytes: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }
}

#[derive(Debug)]
struct Waiting {
    tag: u64,
    request: EncodedRequest,
}

impl Waiting {
    fn is_long(&self) -> bool {
        self.request.len() > LONG
    }
}

/// The requests of a client, in the order in which they came.
#[derive(Debug)]
struct Line {
    /// Whose they are, for as long as the line lasts: a client may belong to another owner behind it.
    owner: Owner,
    requests: VecDeque<Waiting>,
    load: Load,
}

impl Line {
    fn of(owner: Owner) -> Line {
        Line { owner, requests: VecDeque::new(), load: Load::default() }
    }
}

/// A batch that was put together.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) batch: BatchBuilder,
    /// Who waits for its requests, in their order.
    pub(super) askers: Vec<Asker>,
    /// How many commands they have, those of bulks counted.
    pub(super) commands: u64,
}

/// All requests that wait for a batch.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    lines: FxHashMap<ClientId, Line>,
    owners: FxHashMap<Owner, Load>,
    all: Load,
    long_bytes: usize,
    /// The clients whose next request is short, and those whose next is long.
    short: Turns,
    long: Turns,
    /// The two clients that asked last, and when.
    last: [Option<(ClientId, Duration)>; 2],
}

impl Gathering {
    pub(super) fn is_empty(&self) -> bool {
        self.all.requests == 0
    }

    /// How many requests wait.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.all.requests).unwrap_or(u32::MAX)
    }

    /// Bytes of requests that wait.
    pub(super) fn bytes(&self) -> usize {
        self.all.bytes
    }

    /// Whether another request of this client may wait, if so much may in all.
    pub(super) fn has_room(&self, owner: Owner, client: ClientId, room: Room) -> bool {
        let of_owner = self.owners.get(&owner).copied().unwrap_or_default();
        let of_client = self.lines.get(&client).map(|line| line.load).unwrap_or_default();
        let fits = |room: usize, all: usize, of_owner: usize, of_client: usize| {
            let share = room.saturating_sub(all - of_owner) / 2;
            of_client < share.saturating_sub(of_owner).max(usize::from(of_owner == 0 && share > 0))
        };
        fits(room.requests, self.all.requests, of_owner.requests, of_client.requests)
            && fits(room.bytes, self.all.bytes, of_owner.bytes, of_client.bytes)
    }

    pub(super) fn push(&mut self, now: Duration, from: Asker, request: EncodedRequest) {
        let waiting = Waiting { tag: from.tag, request };
        let bytes = waiting.request.len();
        self.all.add(bytes);
        let is_long = waiting.is_long();
        self.long_bytes += if is_long { bytes } else { 0 };
        let line = self.lines.entry(from.client).or_insert_with(|| Line::of(from.owner));
        let owner = line.owner;
        self.owners.entry(owner).or_default().add(bytes);
        line.load.add(bytes);
        line.requests.push_back(waiting);
        if line.requests.len() == 1 {
            self.wait(owner, from.client, is_long);
        }
        match &mut self.last {
            [Some((client, at)), _] if *client == from.client => *at = now,
            [newest, before] => *before = newest.replace((from.client, now)),
        }
    }

    /// Whether several clients ask.
    fn is_shared(&self, now: Duration) -> bool {
        self.last[1].is_some_and(|(_, at)| now.saturating_sub(at) < RECENT)
    }

    fn full(&self, now: Duration) -> usize {
        if self.is_shared(now) { SHARED_BATCH } else { FULL_BATCH_BYTES }
    }

    /// How large a batch would become now, roughly.
    pub(super) fn next_bytes(&self, now: Duration) -> usize {
        (self.all.bytes - self.long_bytes).min(self.full(now)) + self.long_bytes
    }

    /// Puts a batch together.
    pub(super) fn take(&mut self, now: Duration) -> Gathered {
        let (shared, full) = (self.is_shared(now), self.full(now));
        let mut gathered = Gathered { batch: BatchBuilder::default(), askers: Vec::new(), commands: 0 };
        // Who is alone goes on without a turn for each request.
        let mut alone = None;
        while gathered.batch.len() < full
            && gathered.batch.count() < MAX_BATCH_REQUESTS
            && let Some((owner, client)) = alone.take().or_else(|| self.short.pop())
        {
            match self.take_one(owner, client, &mut gathered) {
                Some(false) if self.short.is_empty() => alone = Some((owner, client)),
                Some(is_long) => self.wait(owner, client, is_long),
                None => {}
            }
        }
        if let Some((owner, client)) = alone {
            self.short.push(owner, client);
        }
        while !gathered.batch.is_full()
            && (gathered.commands < SHARED_COMMANDS || !shared)
            && let Some((owner, client)) = self.long.pop()
        {
            if let Some(is_long) = self.take_one(owner, client, &mut gathered) {
                self.wait(owner, client, is_long);
            }
        }
        gathered
    }

    /// Lets a client wait for the turn of its next request.
    fn wait(&mut self, owner: Owner, client: ClientId, is_long: bool) {
        if is_long { &mut self.long } else { &mut self.short }.push(owner, client);
    }

    /// Takes a client's next request, and says whether the one behind it is long. None: there is none.
    fn take_one(&mut self, owner: Owner, client: ClientId, gathered: &mut Gathered) -> Option<bool> {
        let line = self.lines.get_mut(&client)?;
        let Waiting { tag, request } = line.requests.pop_front()?;
        let bytes = request.len();
        gathered.batch.push_encoded(&request);
        gathered.askers.push(Asker { owner, client, tag });
        gathered.commands += u64::from(request.weight());
        self.all.subtract(bytes);
        self.long_bytes -= if bytes > LONG { bytes } else { 0 };
        line.load.subtract(bytes);
        let next = line.requests.front().map(Waiting::is_long);
        if next.is_none() {
            self.lines.remove(&client);
        }
        if let Some(load) = self.owners.get_mut(&owner) {
            load.subtract(bytes);
            if load.requests == 0 {
                self.owners.remove(&owner);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::bank::{Amount, Bulk, Command, Operation};
    use rabia_bank_messages::batch::{Action, RequestHeader};
    use rabia_bank_messages::ids::SessionKey;

    use super::*;

    const ROOM: Room = Room { requests: 65_536, bytes: 128 << 20 };

    fn owner(last: u8) -> Owner {
        Owner::at([127, 0, 0, last].into())
    }

    fn deposit() -> Operation {
        Operation::Deposit { account_id: "account".into(), amount: Amount::new(1) }
    }

    fn bulk(commands: usize) -> Action {
        Action::Command(Command::Bulk(Bulk { commands: vec![deposit(); commands], atomic: false }))
    }

    fn push(gathering: &mut Gathering, now: u64, of: (u8, ClientId), tag: u64, action: &Action) -> bool {
        let (owner, client) = (owner(of.0), of.1);
        let room = gathering.has_room(owner, client, ROOM);
        if room {
            let header =
                RequestHeader { session: client, key: SessionKey([0; 16]), number: tag, acknowledged: 0, token: 0 };
            gathering.push(
                Duration::from_millis(now),
                Asker { owner, client, tag },
                EncodedRequest::new(&header, action),
            );
        }
        room
    }

    /// Six connections have thousands of requests in flight. One that has a single request is in the next batch, the batch is short,
    /// and the connections have like parts of it.
    #[test]
    fn a_single_request_is_in_the_next_batch() {
        let mut gathering = Gathering::default();
        let single = Action::Command(Command::One(deposit()));
        for tag in 0..4_000 {
            for client in 0..6 {
                assert!(push(&mut gathering, 1, (1, client), tag, &single), "{tag} of {client}");
            }
        }
        gathering.take(Duration::from_millis(2));
        for of in [(1, 100), (2, 101)] {
            assert!(push(&mut gathering, 3, of, 7, &single));
        }
        let Gathered { batch, askers, commands } = gathering.take(Duration::from_millis(4));
        assert!(batch.len() < 2 * SHARED_BATCH && commands == askers.len() as u64);
        let of = |client| askers.iter().filter(|asker| asker.client == client).count();
        assert_eq!((of(100), of(101)), (1, 1));
        let parts: Vec<usize> = (0..6).map(of).collect();
        assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{parts:?}");
        let first = askers.iter().position(|asker| asker.client == 101).unwrap();
        assert!(first <= 1, "the other owner's turn is the second at the latest");
    }

    /// The order of one client's requests stays, whatever their length; of several clients' large bulks one is in a batch.
    #[test]
    fn a_batch_has_one_large_bulk_while_several_ask() {
        let mut gathering = Gathering::default();
        for tag in 0..3 {
            for client in 0..6 {
                assert!(push(&mut gathering, 1, (1, client), tag, &bulk(10_000)));
            }
        }
        let single = Action::Command(Command::One(deposit()));
        assert!(push(&mut gathering, 1, (1, 100), 1, &bulk(10_000)));
        assert!(push(&mut gathering, 1, (1, 100), 2, &single));
        assert!(push(&mut gathering, 1, (1, 200), 1, &single));
        let mut order = Vec::new();
        for batch in 0.. {
            if gathering.is_empty() {
                break;
            }
            let Gathered { askers, commands, .. } = gathering.take(Duration::from_millis(2));
            assert!((1..10_100).contains(&commands), "{commands} commands in batch {batch}");
            order.extend(askers.iter().map(|asker| (asker.client, asker.tag, batch)));
        }
        let batch_of = |client, tag| order.iter().find(|(of, number, _)| (*of, *number) == (client, tag)).unwrap().2;
        assert_eq!(batch_of(200, 1), 0, "{order:?}");
        assert!(batch_of(100, 1) < 7 && batch_of(100, 1) < batch_of(100, 2), "{order:?}");
        assert!((0..6).all(|client| batch_of(client, 0) < batch_of(client, 1)), "{order:?}");
    }

    #[test]
    fn who_is_alone_has_whole_batches() {
        let mut gathering = Gathering::default();
        let single = Action::Command(Command::One(deposit()));
        push(&mut gathering, 1, (1, 9), 0, &single);
        for tag in 0..8_000 {
            assert!(push(&mut gathering, 2_000, (1, 1), tag, &single));
        }
        let Gathered { batch, .. } = gathering.take(Duration::from_millis(2_001));
        assert!(batch.is_full(), "{} bytes", batch.len());
    }

    /// A client that belongs to another owner while its requests wait is counted right.
    #[test]
    fn a_client_may_belong_to_another_owner() {
        let mut gathering = Gathering::default();
        let single = Action::Command(Command::One(deposit()));
        for of in [(1, 9), (2, 9), (2, 9), (2, 7)] {
            assert!(push(&mut gathering, 1, of, 0, &single));
        }
        let Gathered { askers, .. } = gathering.take(Duration::from_millis(2));
        assert_eq!(askers.len(), 4);
        assert!(gathering.is_empty() && gathering.owners.is_empty() && gathering.lines.is_empty());
    }

    /// However much one owner or one client has waiting, there is room for another.
    #[test]
    fn there_is_room_for_one_that_comes_new() {
        let mut gathering = Gathering::default();
        let single = Action::Command(Command::One(deposit()));
        let fill =
            |gathering: &mut Gathering, of| (0..).take_while(|tag| push(gathering, 1, of, *tag, &single)).count();
        let mut taken = Vec::new();
        for client in 0..30 {
            taken.push(fill(&mut gathering, (1, client)));
        }
        assert_eq!(taken[0], ROOM.requests / 4, "a client that is alone");
        let all: usize = taken.iter().sum();
        assert!(all <= ROOM.requests / 2, "{all} of one owner");
        assert!(fill(&mut gathering, (2, 100)) >= ROOM.requests / 16);
        for owner in 3..100 {
            assert!(push(&mut gathering, 1, (owner, 1_000 + u64::from(owner)), 0, &single), "owner {owner}");
        }
    }
}
