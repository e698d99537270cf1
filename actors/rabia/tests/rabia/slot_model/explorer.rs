//! The search: from every state, everything that can happen.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::time::Instant;

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::steps::{At, Cause, Local, Names, Offers, Outcome, Steps, asks_coin, by_place};
use super::words::{IDS, Kind, Messages, NEITHER, Words, ZERO, each};
use super::world::{Node, Packed, World};

/// A rule that is broken on purpose, to see that the search finds what that breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// Rules 1 and 3: who may have spoken and forgotten starts afresh.
    TaintIsForgotten,
    /// Rule 4: a vote is undecided though a majority was seen.
    UndecidedAgainstMajority,
    /// Rule 4: a vote is sent before it is durable.
    VoteBeforeSync,
    /// Rule 5: a state of a later phase is sent before it is durable.
    StateBeforeSync,
    /// Rule 6: what names a batch counts without its payload.
    CountsWithoutPayload,
    /// Rule 6: a record is written without the payload that it binds its node to.
    PayloadNotStored,
    /// Rule 7: a message counts as often as the network repeats it.
    SenderCountsTwice,
    /// Rule 8: a decision is kept for oneself.
    DecisionIsNotTold,
    /// Rule 10: records go with a decision that is not durable.
    RecordsGoEarly,
    /// Rule 10: a record overwrites the one before.
    RecordsAreOverwritten,
    /// Rule 11: a restarted node says its last record only.
    OnlyLastRecordIsSaid,
    /// Rule 11: a restarted node says its records, but not null and Abstain besides.
    NoNullAndAbstain,
    /// Rule 12: restarts find an empty disk.
    EmptyDisk,
}

/// What is explored.
#[derive(Clone, Copy)]
pub struct Scope<const N: usize> {
    /// Which payloads each node has in memory at first.
    pub holds: [Words; N],
    pub phases: u8,
    pub restarts: u8,
    pub deaths: u8,
    pub broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// So many states, and all is well.
    Holds(usize),
    TwoDecisions,
    Stuck,
}

/// What was reached, and from which other.
struct Reached<const N: usize> {
    world: Packed<N>,
    before: u32,
}

const NOTHING: u32 = u32::MAX;

pub struct Explorer<const N: usize> {
    scope: Scope<N>,
    steps: Steps<N>,
    reached: Vec<Reached<N>>,
    /// Finds what was reached.
    index: HashTable<u32>,
}

type Hasher = BuildHasherDefault<FxHasher>;

/// Explores everything.
pub fn explore<const N: usize>(scope: Scope<N>) -> Finding {
    let steps = Steps::new(scope.phases);
    let mut explorer = Explorer { scope, steps, reached: Vec::new(), index: HashTable::new() };
    explorer.run()
}

impl<const N: usize> Explorer<N> {
    /// Where votes contradict each other, a slot takes that of the first node: then nodes are not interchangeable. It
    /// is enough then to look at runs in which they take turns.
    fn nodes_differ(&self) -> bool {
        self.scope.broken == Some(Broken::StateBeforeSync)
    }

    /// What to call this node and the others, in their order.
    fn names(&self, index: usize) -> Names<N> {
        let mut names = by_place();
        if self.nodes_differ() {
            names[..=index].rotate_right(1);
        }
        names
    }

    fn run(&mut self) -> Finding {
        let start = Instant::now();
        self.reach(&World::new(self.scope.holds), NOTHING);
        let mut out = Vec::new();
        let mut next = 0;
        while next < self.reached.len() {
            let world = World::unpack(&self.reached[next].world);
            out.clear();
            let beyond = self.steps_of(&world, &mut out);
            if out.is_empty() && !all_done(&world, beyond) {
                return self.found(Finding::Stuck, next);
            }
            self.faults_of(&world, &mut out);
            for world in &out {
                let new = self.reach(world, next as u32);
                if new && world.decided.count_ones() > 1 {
                    return self.found(Finding::TwoDecisions, self.reached.len() - 1);
                }
            }
            next += 1;
        }
        if self.scope.broken.is_none() {
            self.steps.check();
        }
        let Scope { phases, restarts, deaths, holds, .. } = self.scope;
        let (states, seconds) = (self.reached.len(), start.elapsed().as_secs_f64());
        println!(
            "n {N}, {phases} phases, payloads {holds:?}, {restarts} restarts, {deaths} deaths: \
             {states} states in {seconds:.1} s"
        );
        Finding::Holds(states)
    }

    /// False if it was reached before.
    fn reach(&mut self, world: &World<N>, before: u32) -> bool {
        let world = world.pack(!self.nodes_differ());
        let hash = |world: &Packed<N>| Hasher::default().hash_one(world);
        let reached = &self.reached;
        let same = |other: &u32| reached[*other as usize].world == world;
        if self.index.find(hash(&world), same).is_some() {
            return false;
        }
        let number = u32::try_from(reached.len()).expect("so many states are too many to number");
        self.index.insert_unique(hash(&world), number, |other| hash(&reached[*other as usize].world));
        self.reached.push(Reached { world, before });
        true
    }

    fn found(&self, finding: Finding, last: usize) -> Finding {
        println!("{finding:?} with {:?}, after {} states:", self.scope.broken, self.reached.len());
        let mut trace = vec![last];
        while let Some(before) = trace.last().map(|number| self.reached[*number].before)
            && before != NOTHING
        {
            trace.push(before as usize);
        }
        for number in trace.into_iter().rev() {
            println!("{}", describe(&World::unpack(&self.reached[number].world)));
        }
        finding
    }

    /// What can happen without a fault. Returns who can go beyond the last phase, a bit for each.
    fn steps_of(&mut self, world: &World<N>, out: &mut Vec<World<N>>) -> u8 {
        let mut beyond = 0;
        for index in order(world) {
            if self.nodes_differ() && !out.is_empty() {
                break;
            }
            let node = world.nodes[index];
            match node.local.at {
                At::Dead => continue,
                At::Decided | At::Settled => {}
                At::Silent => {
                    for word in each(ZERO | node.holds) {
                        self.act(world, index, Cause::Proposes(word), out);
                    }
                }
                At::SavingVote | At::SavingState => self.sync(world, index, out),
                At::Proposed | At::Stated | At::Voted => {
                    if self.hear(world, index, out) {
                        beyond |= 1 << index;
                    }
                }
            }
            let elsewhere = world.others(index).filter(|other| other.local.at != At::Dead);
            let missing = elsewhere.fold(0, |held, other| held | other.holds) & !node.holds;
            for payload in each(missing) {
                let mut next = *world;
                next.nodes[index].holds |= payload;
                out.push(next);
            }
            if !node.local.knows() {
                self.learn(world, index, out);
            }
        }
        beyond
    }

    /// Its write is durable.
    fn sync(&mut self, world: &World<N>, index: usize, out: &mut Vec<World<N>>) {
        let mut next = *world;
        write(&mut next.nodes[index], self.scope.broken);
        self.act(&next, index, Cause::Synced, out);
    }

    /// The node acts on every set of messages that moves it. True if one moves it beyond the last phase.
    fn hear(&mut self, world: &World<N>, index: usize, out: &mut Vec<World<N>>) -> bool {
        let node = &world.nodes[index];
        let Some(kind) = node.local.awaits() else { return false };
        // What names a batch counts once its payload is held.
        let counts = match self.scope.broken {
            Some(Broken::CountsWithoutPayload) => ZERO | IDS | NEITHER,
            _ => ZERO | NEITHER | node.holds,
        };
        let mut beyond = false;
        for offers in self.offers(world, index, kind, counts) {
            let mut causes = vec![Cause::Hears(offers, ZERO)];
            if N > 1 && asks_coin(node.local, &offers) {
                causes.extend(each(world.named & node.holds).map(|coin| Cause::Hears(offers, coin)));
            }
            for cause in causes {
                beyond |= self.act(world, index, cause, out);
            }
        }
        beyond
    }

    /// All sets of messages of this kind, one of each sender at most.
    fn offers(&self, world: &World<N>, index: usize, kind: Kind, counts: Words) -> Vec<Offers<N>> {
        let mut sets: Vec<Offers<N>> = vec![[0; N]];
        for (other, sender) in (1..).zip(world.others(index)) {
            for mut set in sets.clone() {
                for word in each(sender.said.said(kind) & counts) {
                    set[other] = word;
                    sets.push(set);
                }
            }
        }
        if self.scope.broken == Some(Broken::SenderCountsTwice) {
            count_twice(&mut sets);
        }
        if self.scope.broken == Some(Broken::UndecidedAgainstMajority) && matches!(kind, Kind::State(_)) {
            // It looks away: everything is said, but it takes it for Abstain.
            let blind = sets.iter().map(|set| set.map(|word| if word == 0 { 0 } else { NEITHER }));
            let blind = blind.collect::<Vec<_>>();
            sets.extend(blind);
        }
        if !self.nodes_differ() {
            sets.iter_mut().for_each(|set| set[1..].sort_unstable());
        }
        sets.sort_unstable();
        sets.dedup();
        sets
    }

    /// True if it goes beyond the last phase.
    fn act(&mut self, world: &World<N>, index: usize, cause: Cause<N>, out: &mut Vec<World<N>>) -> bool {
        match self.steps.step(self.names(index), world.nodes[index].local, cause) {
            Outcome::Still => false,
            Outcome::Beyond => true,
            Outcome::Goes { to, mut says, decides } => {
                if let Some((kind, word)) = to.writes()
                    && self.says_early(kind)
                {
                    says.add(kind, word);
                }
                let mut next = *world;
                next.nodes[index].said.join(&says);
                next.named |= says.named();
                self.go(&mut next, index, to, decides);
                out.push(next);
                false
            }
        }
    }

    /// Whether this is said while it is on its way to the disk.
    fn says_early(&self, kind: Kind) -> bool {
        match self.scope.broken {
            Some(Broken::VoteBeforeSync) => matches!(kind, Kind::Vote(_)),
            Some(Broken::StateBeforeSync) => matches!(kind, Kind::State(_)),
            _ => false,
        }
    }

    fn go(&self, next: &mut World<N>, index: usize, to: Local, decides: Words) {
        let node = &mut next.nodes[index];
        node.local = to;
        if to.at == At::Decided && self.scope.broken == Some(Broken::RecordsGoEarly) {
            node.disk = Messages::default();
        }
        next.decided |= decides;
        next.told |= decides;
    }

    /// What was decided comes to it, as such or as the votes that bind it.
    fn learn(&mut self, world: &World<N>, index: usize, out: &mut Vec<World<N>>) {
        let node = world.nodes[index];
        if self.scope.broken != Some(Broken::DecisionIsNotTold) {
            let decided = world.others(index).filter(|other| other.local.knows());
            for word in each(decided.fold(world.told, |words, other| words | other.local.last)) {
                let mut next = *world;
                self.go(&mut next, index, Local::decided(word), 0);
                out.push(next);
            }
        }
        for phase in 1..=self.scope.phases {
            let kind = Kind::Vote(phase);
            for word in each(ZERO | node.holds) {
                let mut offers: Offers<N> = [0; N];
                let votes = world.others(index).filter(|other| other.said.said(kind) & word != 0).count();
                offers[N - votes..].fill(word);
                if let Outcome::Goes { to, decides, .. } = self.steps.late_votes(&node.disk, kind, offers) {
                    let mut next = *world;
                    self.go(&mut next, index, to, decides);
                    out.push(next);
                }
            }
        }
    }

    /// Crashes at every point, with every outcome of what was on its way to the disk and to the others.
    fn faults_of(&mut self, world: &World<N>, out: &mut Vec<World<N>>) {
        for index in 0..N {
            let at = world.nodes[index].local.at;
            // Said before it is durable: what that breaks comes of a crash in between.
            let of_use = self.scope.broken != Some(Broken::StateBeforeSync) || at == At::SavingState;
            if at == At::Dead || !of_use {
                continue;
            }
            // All or nothing of what it said is lost: who got some of it, acted on it before, or could have.
            let mut lost = *world;
            lost.nodes[index].said = Messages::default();
            if world.others(index).all(|other| !other.local.knows()) {
                lost.told = 0;
            }
            for crashed in [world, &lost] {
                if world.deaths < self.scope.deaths {
                    let mut next = *crashed;
                    next.deaths += 1;
                    let said = next.nodes[index].said;
                    let (holds, disk) = (0, Messages::default());
                    next.nodes[index] = Node { local: Local::DEAD, holds, stored: 0, disk, said };
                    out.push(next);
                }
                if world.restarts < self.scope.restarts {
                    self.restarts_of(crashed, index, out);
                }
            }
        }
    }

    fn restarts_of(&mut self, world: &World<N>, index: usize, out: &mut Vec<World<N>>) {
        let mut crashed = *world;
        crashed.restarts += 1;
        let node = &mut crashed.nodes[index];
        if self.scope.broken == Some(Broken::EmptyDisk) {
            (node.disk, node.stored) = (Messages::default(), 0);
        }
        let local = node.local;
        match local.at {
            // What was written may have come to the disk before the sync was reported.
            At::SavingVote | At::SavingState => {
                let mut written = crashed;
                write(&mut written.nodes[index], self.scope.broken);
                out.push(self.restarted(written, index));
            }
            // Its mark was not above this slot yet.
            At::Silent => {
                let mut fresh = crashed;
                let node = &mut fresh.nodes[index];
                node.holds = node.stored;
                out.push(fresh);
            }
            // A decision that is durable replaces the records. Its payload is durable with it.
            At::Decided if local.last == ZERO || crashed.nodes[index].holds & local.last != 0 => {
                let mut durable = crashed;
                let node = &mut durable.nodes[index];
                node.stored |= local.last & IDS;
                node.holds = node.stored;
                node.disk = Messages::default();
                node.local.at = At::Settled;
                out.push(durable);
            }
            At::Settled => {
                let node = &mut crashed.nodes[index];
                node.holds = node.stored;
                return out.push(crashed);
            }
            At::Decided | At::Proposed | At::Stated | At::Voted | At::Dead => {}
        }
        out.push(self.restarted(crashed, index));
    }

    /// It goes on with what is on its disk.
    fn restarted(&mut self, mut world: World<N>, index: usize) -> World<N> {
        let node = &mut world.nodes[index];
        node.holds = node.stored;
        if self.scope.broken == Some(Broken::TaintIsForgotten) && node.disk.is_empty() {
            node.local = Local::SILENT;
            return world;
        }
        let (local, said) = self.steps.restored(&node.disk);
        node.local = local;
        let said = match self.scope.broken {
            Some(Broken::NoNullAndAbstain) if !node.disk.is_empty() => node.disk,
            Some(Broken::OnlyLastRecordIsSaid) if !node.disk.is_empty() => node.disk.last(),
            _ => said,
        };
        node.said.join(&said);
        world.named |= said.named();
        world
    }
}

/// The nodes, those that are least far first.
fn order<const N: usize>(world: &World<N>) -> [usize; N] {
    let mut order = std::array::from_fn(|index| index);
    order.sort_by_key(|index| {
        let Local { at, phase, .. } = world.nodes[*index].local;
        // The state of a phase is saved before it is said.
        let step = if at == At::SavingState { At::Proposed } else { at };
        (matches!(at, At::Decided | At::Settled | At::Dead), phase, step)
    });
    order
}

/// What the node writes is on its disk.
fn write(node: &mut Node, broken: Option<Broken>) {
    let Some((kind, word)) = node.local.writes() else { panic!("{node:?} writes nothing") };
    if broken == Some(Broken::RecordsAreOverwritten) {
        node.disk = Messages::default();
    }
    node.disk.add(kind, word);
    if broken != Some(Broken::PayloadNotStored) {
        // Who counts nothing without its payload has it.
        assert!(word & IDS & !node.holds == 0 || broken == Some(Broken::CountsWithoutPayload), "{node:?}");
        node.stored |= word & node.holds;
    }
}

/// Nobody waits for what never comes: all know the outcome and have its payload, or go on in a later phase.
fn all_done<const N: usize>(world: &World<N>, beyond: u8) -> bool {
    world.nodes.iter().enumerate().all(|(index, node)| match node.local.at {
        At::Dead => true,
        At::Decided | At::Settled => node.local.last == ZERO || node.holds & node.local.last != 0,
        _ => beyond & 1 << index != 0,
    })
}

/// More sets, in which a message of one sender also stands for one that has said nothing.
fn count_twice<const N: usize>(sets: &mut Vec<Offers<N>>) {
    for set in sets.clone() {
        for place in 1..N {
            for free in (1..N).filter(|free| set[*free] == 0 && set[place] != 0) {
                let mut twice = set;
                twice[free] = set[place];
                sets.push(twice);
            }
        }
    }
}

fn describe<const N: usize>(world: &World<N>) -> String {
    let name = |words: Words| -> String {
        each(words).map(|word| ["0", "a", "b", "?"][word.trailing_zeros() as usize]).collect()
    };
    let nodes = world.nodes.map(|node| {
        let Local { at, phase, last } = node.local;
        let records = node.disk.records();
        let disk: String = records
            .into_iter()
            .map(|(phase, said)| {
                let (kind, word) = Kind::of_record(phase, said);
                format!(" {}{phase}={}", if matches!(kind, Kind::Vote(_)) { "v" } else { "s" }, name(word))
            })
            .collect();
        let heard = |kind| name(node.said.said(kind));
        let said: String = (1..=super::words::MOST_PHASES as u8)
            .map(|phase| format!(" s{phase}={} v{phase}={}", heard(Kind::State(phase)), heard(Kind::Vote(phase))))
            .collect();
        let (holds, stored) = (name(node.holds), name(node.stored));
        format!(
            "\n    {at:?} {phase} {}, holds {holds}, stored {stored}, disk{disk}, says p={}{said}",
            name(last),
            heard(Kind::Proposal)
        )
    });
    format!(
        "  {} restarts, {} deaths, decided {}, told {}{}",
        world.restarts,
        world.deaths,
        name(world.decided),
        name(world.told),
        nodes.concat()
    )
}
