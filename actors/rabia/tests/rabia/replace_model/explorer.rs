//! The search: from every state, everything that can happen.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::peer::Value;
use rabia_bank_rabia::slot::SlotMessage;
use rustc_hash::FxHashMap;

use super::store::{Awaits, NEW, OLD, REPLACED, STORES, Setting, Store, Word, member};

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The cluster's id: it throws the coin.
    pub cluster: u8,
    pub window: u64,
    /// The slot that is looked at. The replacement is decided in the first one.
    pub slot: Slot,
    pub phases: u32,
    pub restarts: u8,
    /// A member may be lost, too, once the new store has taken the old one's place, and the third member knows it.
    pub another_loss: bool,
    /// The stores that propose the batch; the others propose null …
    pub proposers: &'static [usize],
    /// … or any of them either.
    pub free: bool,
    /// The stores that know of the replacement from their configuration; then it is not in the log.
    pub configured: &'static [usize],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// So many states, and all is well.
    Holds(usize),
    /// Both stores of a member speak in one slot, or the wrong one.
    WrongVoice,
    TwoDecisions,
    Stuck,
}

/// A state: the stores, by number, and what has happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    stores: [u32; STORES],
    restarts: u8,
    lost: bool,
    lost_another: bool,
    /// Null, or the batch, was ever decided.
    decided: [bool; 2],
}

/// What happens to a store, after it has heard some of what the others said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Then {
    Nothing,
    Proposes(Value),
    Synced,
    Learns,
    Meets(usize),
    Restarts(usize),
    Lost,
    /// What it said and nobody acted on will never be heard.
    Unheard,
}

/// In the order in which it hears them.
type Heard = Vec<(usize, Word)>;

pub struct Explorer {
    scope: Scope,
    setting: Setting,
    /// Which findings are looked for beside two decisions: all, or none where rules are broken to see where that leads.
    all: bool,
    stores: Vec<Store>,
    numbers: FxHashMap<u128, u32>,
    /// What was found to become of a store.
    known: FxHashMap<(u32, Heard, Then), u32>,
    /// Whether these two may meet.
    meetings: FxHashMap<(u32, u32), bool>,
    reached: FxHashMap<World, u32>,
    order: Vec<(World, u32)>,
}

/// Explores everything. Without `all`, two decisions are all that is looked for.
pub fn explore(scope: Scope, all: bool) -> Finding {
    let setting = Setting::new(scope.cluster, scope.window, scope.slot, scope.phases, scope.configured);
    let mut explorer = Explorer {
        scope,
        setting,
        all,
        stores: Vec::new(),
        numbers: FxHashMap::default(),
        known: FxHashMap::default(),
        meetings: FxHashMap::default(),
        reached: FxHashMap::default(),
        order: Vec::new(),
    };
    explorer.run()
}

impl Explorer {
    fn run(&mut self) -> Finding {
        let start = Instant::now();
        let stores: Vec<u32> = (0..STORES).map(|number| self.number(Store::new(number, &self.setting))).collect();
        let stores = stores.try_into().unwrap();
        let first = World { stores, restarts: 0, lost: false, lost_another: false, decided: [false; 2] };
        self.reach(first, 0);
        let mut next = 0;
        while let Some((world, _)) = self.order.get(next).copied() {
            let finding = match self.wrong(&world) {
                None => {
                    let steps = self.steps_of(&world);
                    let stuck = steps.is_empty() && self.all && !self.all_done(&world);
                    let faults = self.faults_of(&world);
                    steps.into_iter().chain(faults).for_each(|world| self.reach(world, next as u32));
                    stuck.then_some(Finding::Stuck)
                }
                wrong => wrong,
            };
            if let Some(finding) = finding {
                println!("{finding:?} in {:?}, after {} states:", self.scope, self.order.len());
                self.print(next);
                return finding;
            }
            next += 1;
        }
        let (states, stores, seconds) = (self.order.len(), self.stores.len(), start.elapsed().as_secs_f64());
        println!("{:?}: {states} states, {stores} of single stores, in {seconds:.1} s", self.scope);
        Finding::Holds(states)
    }

    fn reach(&mut self, world: World, before: u32) {
        let number = self.order.len() as u32;
        if *self.reached.entry(world).or_insert(number) == number {
            self.order.push((world, before));
        }
    }

    fn print(&self, last: usize) {
        let mut trace = VecDeque::from([last]);
        while let Some(first) = trace.front().copied().filter(|first| *first > 0) {
            trace.push_front(self.order[first].1 as usize);
        }
        let (mut before, slot) = ([u32::MAX; STORES], self.setting.slot);
        for number in trace {
            let (world, _) = self.order[number];
            for place in (0..STORES).filter(|place| world.stores[*place] != before[*place]) {
                let store = &self.stores[world.stores[place] as usize];
                let (name, stands) = (["1", "2", "3 old", "3 new"][place], store.awaits(slot));
                let (up, linked, frontier, said) = (store.is_up(), store.linked, store.frontier(), &store.said);
                println!("  {name}: up {up}, knows {frontier}, linked {linked}, awaits {stands:?}, said {said:?}");
            }
            before = world.stores;
        }
    }

    /// Stores that are alike have one number.
    fn number(&mut self, store: Store) -> u32 {
        let text = format!("{store:?}");
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &text).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        let number = self.stores.len() as u32;
        let known = *self.numbers.entry(half(0) << 64 | half(1)).or_insert(number);
        if known == number {
            self.stores.push(store);
        }
        known
    }

    fn store(&self, world: &World, place: usize) -> &Store {
        &self.stores[world.stores[place] as usize]
    }

    fn up(&self, world: &World) -> Vec<usize> {
        (0..STORES).filter(|place| self.store(world, *place).is_up()).collect()
    }

    // ----- what is checked -----

    fn wrong(&self, world: &World) -> Option<Finding> {
        if world.decided == [true; 2] {
            return Some(Finding::TwoDecisions);
        }
        let silent = if self.setting.slot < REPLACED + self.setting.genesis.window { NEW } else { OLD };
        let speaks = self.store(world, silent).said.iter().any(|word| matches!(word, Word::Says(_)));
        (speaks && self.all).then_some(Finding::WrongVoice)
    }

    /// Nobody waits for what never comes. What an old store learns that others have parted with is of no matter.
    fn all_done(&self, world: &World) -> bool {
        let stores = || (0..STORES).filter(|place| *place != OLD).map(|place| self.store(world, place));
        // Who has no part in the slot waits for those who go on.
        let goes_on = stores().any(|store| store.beyond);
        let done = |store: &Store| !store.is_up() || store.decided.is_some() || store.beyond;
        stores().take(if goes_on { OLD } else { STORES }).all(done)
    }

    // ----- what can happen -----

    fn steps_of(&mut self, world: &World) -> Vec<World> {
        let mut steps = Vec::new();
        for place in self.up(world) {
            let mut causes = self.hearings(world, place);
            let other = if self.store(world, place).linked == OLD { NEW } else { OLD };
            if place < OLD && self.may_meet(world.stores[place], world.stores[other]) {
                causes.push((Vec::new(), Then::Meets(other)));
            }
            for (heard, then) in causes {
                let step = self.after(world, place, heard, then);
                steps.extend((step != *world).then_some(step));
            }
        }
        steps
    }

    /// Sets of messages that may move a store, with what makes them move it. With three members each message that is
    /// awaited moves it; what comes early makes a difference only if it comes from both others.
    fn hearings(&self, world: &World, place: usize) -> Vec<(Heard, Then)> {
        let store = self.store(world, place);
        let awaits = store.awaits(self.setting.slot);
        let then = |sets: Vec<Heard>, then: Then| sets.into_iter().map(move |heard| (heard, then));
        let mut hearings: Vec<(Heard, Then)> = Vec::new();
        if self.may_learn(world, place) {
            // One that restarted may go on at once.
            let phases = if store.restarted { self.setting.phases } else { 0 };
            hearings.extend(then(self.early(world, place, (1..=phases).map(Awaits::States)), Then::Learns));
        }
        match awaits {
            _ if store.beyond => return hearings,
            Awaits::Nothing => {}
            Awaits::ToPropose if store.may_propose(self.setting.slot) => {
                let early = self.early(world, place, [Awaits::States(1), Awaits::Proposals]);
                for value in [None, Some(self.setting.batch.0)] {
                    let may = self.scope.free || value.is_some() == self.scope.proposers.contains(&place);
                    hearings.extend(then(early.clone(), Then::Proposes(value)).filter(|_| may));
                }
            }
            Awaits::Proposals => hearings.extend(self.after_early(world, place, Awaits::States(1), awaits)),
            Awaits::States(_) => hearings.extend(self.after_early(world, place, Awaits::Nothing, awaits)),
            Awaits::Votes(phase) => hearings.extend(self.after_early(world, place, Awaits::States(phase + 1), awaits)),
            Awaits::StateSaved(phase) => {
                hearings.extend(then(self.early(world, place, [Awaits::States(phase)]), Then::Synced));
            }
            Awaits::ToPropose | Awaits::VoteSaved => {}
        }
        if store.writes() > 0 && !matches!(awaits, Awaits::StateSaved(_)) {
            hearings.push((Vec::new(), Then::Synced));
        }
        if awaits != Awaits::Nothing {
            // Votes of any phase may bind a decision, which all are told.
            let votes = (1..=self.setting.phases).flat_map(|phase| self.sets(world, place, Awaits::Votes(phase)));
            hearings.extend(then(votes.collect(), Then::Nothing));
            hearings.extend(then(self.decisions(world, place), Then::Nothing));
        }
        hearings
    }

    /// One of the awaited messages, maybe after what is awaited next.
    fn after_early(
        &self,
        world: &World,
        place: usize,
        next: Awaits,
        awaits: Awaits,
    ) -> impl Iterator<Item = (Heard, Then)> {
        let awaited = self.sets(world, place, awaits).into_iter().filter(|set| set.len() == 1).collect::<Vec<_>>();
        let early = self.early(world, place, [next]).into_iter();
        early.flat_map(move |early| {
            awaited.clone().into_iter().map(move |heard| ([early.clone(), heard].concat(), Then::Nothing))
        })
    }

    /// For each of these kinds: nothing, or a message of each other member.
    fn early(&self, world: &World, place: usize, kinds: impl IntoIterator<Item = Awaits>) -> Vec<Heard> {
        kinds.into_iter().fold(vec![Vec::new()], |before, kind| {
            let sets = self.sets(world, place, kind).into_iter().filter(|set| set.len() != 1).collect::<Vec<_>>();
            before.iter().flat_map(|before| sets.iter().map(|set| [&before[..], set].concat())).collect()
        })
    }

    /// What others decided, and tell or answer.
    fn decisions(&self, world: &World, place: usize) -> Vec<Heard> {
        let mut told: Vec<Heard> = Vec::new();
        for from in self.senders(world, place) {
            let store = self.store(world, from);
            let answer = store.decided.map(Word::Decides);
            let said = store.said.iter().copied().filter(|word| matches!(word, Word::Decides(_)));
            told.extend(said.chain(answer).map(|word| vec![(from, word)]));
        }
        told
    }

    /// The stores that are linked with this one, or were.
    fn senders<'a>(&'a self, world: &'a World, place: usize) -> impl Iterator<Item = usize> + 'a {
        let linked = self.store(world, place).linked;
        let hears = move |from: &usize| match place {
            // A new store hears whoever took it for the peer's.
            NEW => self.store(world, *from).linked == NEW || !self.store(world, *from).runs(),
            _ => *from < OLD || *from == linked,
        };
        (0..STORES).filter(move |from| member(*from) != member(place)).filter(hears)
    }

    /// All sets of what was said of this kind, one message of each sender at most.
    fn sets(&self, world: &World, place: usize, kind: Awaits) -> Vec<Heard> {
        let mut sets: Vec<Heard> = vec![Vec::new()];
        for from in self.senders(world, place) {
            let said = self.store(world, from).said.iter().filter(|word| is_of(word, kind)).collect::<Vec<_>>();
            for set in sets.clone() {
                sets.extend(said.iter().map(|word| [&set[..], &[(from, **word)]].concat()));
            }
        }
        sets
    }

    /// Members that took part know what was decided, or hear it of those who do. A new store has to ask somebody.
    fn may_learn(&self, world: &World, place: usize) -> bool {
        let store = self.store(world, place);
        let known = store.frontier();
        // What lies less than a window below makes a difference in the end, or to whether another member may be lost.
        let matters = known < REPLACED.max(self.setting.slot - self.scope.window) || self.scope.another_loss;
        let lacks = known < self.setting.slot - 1 && (matters || store.decided.is_some());
        lacks && (place != NEW || self.senders(world, place).any(|from| self.store(world, from).frontier() > known))
    }

    fn may_meet(&mut self, store: u32, other: u32) -> bool {
        let (stores, setting) = (&self.stores, &self.setting);
        let meet = || stores[store as usize].may_meet(&stores[other as usize], setting);
        *self.meetings.entry((store, other)).or_insert_with(meet)
    }

    /// The world after this. The same, if that moves nothing.
    fn after(&mut self, world: &World, place: usize, heard: Heard, then: Then) -> World {
        let before = world.stores[place];
        let cause = (before, heard, then);
        let number = match self.known.get(&cause) {
            Some(number) => *number,
            None => {
                let store = self.moved(before, &cause.1, then);
                let number = store.map_or(before, |store| self.number(store));
                self.known.insert(cause, number);
                number
            }
        };
        let mut next = *world;
        next.stores[place] = number;
        if let Some(value) = self.stores[number as usize].decided {
            next.decided[usize::from(value.is_some())] = true;
        }
        next
    }

    /// None if nothing comes of it but that messages count which may as well come later.
    fn moved(&self, number: u32, heard: &Heard, then: Then) -> Option<Store> {
        let before = &self.stores[number as usize];
        let (mut store, setting) = (before.clone(), &self.setting);
        heard.iter().for_each(|(from, word)| store.hears(*from, *word, setting));
        match then {
            Then::Nothing => {}
            Then::Proposes(value) => store.proposes(value, setting),
            Then::Synced => store.synced(setting),
            Then::Learns => store.learns(setting),
            Then::Meets(other) => store.meets(other, setting),
            Then::Restarts(written) => store.restarts(written, setting),
            Then::Lost => store.is_lost(),
            Then::Unheard => store.said.clear(),
        }
        let stands = |store: &Store| (store.said.clone(), store.writes(), store.decided, store.frontier());
        if self.scope.restarts == 0 {
            store.settles(setting);
        }
        let minor = matches!(then, Then::Nothing | Then::Proposes(_) | Then::Learns);
        (!minor || stands(&store) != stands(before)).then_some(store)
    }

    /// The old store is lost for good, at any time; another one later; stores crash and come back.
    fn faults_of(&mut self, world: &World) -> Vec<World> {
        let mut faults = Vec::new();
        for place in self.up(world) {
            let left = (0..OLD).find(|left| *left != place);
            let knows = left.is_some_and(|left| self.store(world, left).frontier() >= REPLACED);
            let takes_over = world.lost && self.store(world, NEW).is_current() && knows;
            let another = self.scope.another_loss && !world.lost_another && place < OLD && takes_over;
            if place == OLD || another {
                let mut next = self.after(world, place, Vec::new(), Then::Lost);
                next.lost |= place == OLD;
                next.lost_another |= place != OLD;
                faults.push(next);
                faults.push(self.after(&next, place, Vec::new(), Then::Unheard));
            }
            if world.restarts < self.scope.restarts {
                for written in 0..=self.store(world, place).writes() {
                    // What it said may be lost with it: it says again what it knows then.
                    for crashed in [*world, self.after(world, place, Vec::new(), Then::Unheard)] {
                        let next = self.after(&crashed, place, Vec::new(), Then::Restarts(written));
                        faults.push(World { restarts: world.restarts + 1, ..next });
                    }
                }
            }
        }
        faults
    }
}

fn is_of(word: &Word, kind: Awaits) -> bool {
    match (word, kind) {
        (Word::Says(SlotMessage::Proposal(_)), Awaits::Proposals) => true,
        (Word::Says(SlotMessage::State(phase, _)), Awaits::States(awaited)) => *phase == awaited,
        (Word::Says(SlotMessage::Vote(phase, _)), Awaits::Votes(awaited)) => *phase == awaited,
        _ => false,
    }
}
