//! What a node knows of time: which stamps it gives to batches, and which it backs.
//!
//! Log time is the highest stamp of a decided batch, and never goes back. Sessions end by it and records carry it, so a wrong
//! clock must not drag it along: whatever it passes by mistake it stands still for afterwards. Two rules keep it right.
//!
//! - **A majority.** A node backs no batch that is stamped more than [`MAX_STAMP_AHEAD`] ahead of its own clock. So log time
//!   is never far ahead of the clocks of a majority.
//! - **No leaps.** A majority may be wrong together. So log time may go no more than [`LEAP`] beyond what monotonic clocks
//!   confirm: the last time that was known, and what has passed since by a clock that nobody sets. A node whose clock shows
//!   more goes on stamping by what is confirmed, until its clock is set right, or an operator says that it is right
//!   ([`Clocks::accept`]).
//!
//! # Between starts
//!
//! What passed while a node was off is confirmed by the clock of the machine that counts from its boot, if the machine was
//! not started again meanwhile ([`Witness`]). Where it was, and the wall clock shows more than [`LEAP`] beyond what was known,
//! the node is *unsure*: it takes no commands, and backs nothing beyond [`LEAP`]. It is sure again as soon as
//!
//! - a peer says what monotonic clocks confirm; or else
//! - the clocks of a majority, and all that are heard, agree within [`AGREE`], and show no more than [`PLAUSIBLE`] beyond what
//!   was known ([`PLAUSIBLE_ALONE`] where one node is the majority); or
//! - its clock is set back, or an operator says that it is right.
//!
//! A cluster whose log is empty has nothing to leap from.
//!
//! # Among nodes
//!
//! Nodes tell each other what their clocks show and what is confirmed ([`PeerMessage::Clock`]). A node whose own clock agrees
//! with what a peer says is confirmed believes both: so an operator says it at one node, not at each. And each node knows
//! how far its own clock is off, so that the wrong one says so, and not those that are right.
//!
//! Confirmed time follows log time by `GAIN`: clocks that are set by seconds now and then do not use up the hour in a year.
//!
//! [`PeerMessage::Clock`]: rabia_bank_messages::peer::PeerMessage::Clock

use std::time::Duration;

use rabia_bank_messages::ids::{MAX_NODES, Millis, NodeId};
use rabia_bank_messages::sabotage::{Rule, is_broken};

use super::words::Now;

/// A batch stamped further ahead of the own clock, in milliseconds, is not backed until then.
pub const MAX_STAMP_AHEAD: Millis = 1_000;
/// Log time goes no further than this, in milliseconds, beyond what monotonic clocks confirm.
pub const LEAP: Millis = 3_600_000;
/// Clocks agree that show the same up to this, in milliseconds.
pub const AGREE: Millis = 60_000;
/// Clocks of a majority that agree are believed when nodes come back after this time, in milliseconds: a cluster may be
/// off for a week without a person having to say so.
pub const PLAUSIBLE: Millis = 8 * 86_400_000;
/// A node that is a majority alone has no second clock: it is believed for a night, in milliseconds.
pub const PLAUSIBLE_ALONE: Millis = 86_400_000;
/// How often a node says what its clock shows.
pub const SAY: Duration = Duration::from_secs(5);
/// What a peer's clock showed is believed for this long: it may be set right meanwhile.
const KEPT: Duration = Duration::from_secs(60);
/// How often what is confirmed is looked at.
pub const LOOK: Duration = Duration::from_secs(1);
/// Confirmed time gains on log time one part in so many: an hour a day.
const GAIN: u32 = 24;

/// What is known of time when a node starts, beside its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Witness {
    /// It is at least this late, in milliseconds since the Unix epoch. 0 where nothing is known.
    pub time: Millis,
    /// Whether a monotonic clock says so of this very moment. Else it was so when the node was last running.
    pub continuous: bool,
}

/// What a peer said of its clock, and when.
#[derive(Clone, Copy, Debug)]
struct Heard {
    wall: Millis,
    confirmed: Option<Millis>,
    at: Duration,
}

impl Heard {
    /// By which clock it stamps, and backs.
    fn effective(self) -> Millis {
        match self.confirmed {
            Some(confirmed) if self.wall > confirmed.saturating_add(LEAP) => confirmed,
            _ => self.wall,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    /// Nothing was decided yet.
    Fresh,
    /// It is at least this late, and the wall clock shows far more.
    Unsure { known: Millis },
    /// It was at least `time` at `at`.
    Sure { time: Millis, at: Duration },
}

/// Why confirmed time went further than monotonic clocks did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leapt {
    /// The clocks of a majority agree about how long all were off.
    Majority,
    /// A peer's monotonic clock, or its operator, confirms what the own clock shows.
    Peer(NodeId),
    /// The log did: a majority of the others backed it.
    Log,
    /// An operator said so.
    Operator,
}

/// How the clock of a node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClockState {
    /// The wall clock less that of the others, in milliseconds: of the median, or of the only other one. 0 if nobody was heard.
    pub offset: i64,
    /// How many other clocks that is compared with.
    pub others: usize,
    /// How far the wall clock is beyond what is confirmed, in milliseconds, if that is more than [`LEAP`].
    pub leap: Millis,
    /// No commands are taken: nobody has confirmed how long the node was off.
    pub unsure: bool,
    /// There is nothing to wait for: a majority was heard, or this node is one.
    pub refused: bool,
}

/// The clock of a node, and what it knows of others.
#[derive(Debug)]
pub struct Clocks {
    me: NodeId,
    /// How many nodes are a majority.
    majority: usize,
    trust: Trust,
    log_time: Millis,
    heard: [Option<Heard>; MAX_NODES],
    looked: Duration,
    /// Not yet told: how far confirmed time went, in milliseconds, and why.
    leapt: Option<(Millis, Leapt)>,
}

impl Clocks {
    /// Of a cluster in which nothing was decided.
    pub fn new(me: NodeId, majority: usize) -> Clocks {
        Clocks {
            me,
            majority,
            trust: Trust::Fresh,
            log_time: 0,
            heard: [None; MAX_NODES],
            looked: Duration::ZERO,
            leapt: None,
        }
    }

    /// The node starts with this log time and what else it knows.
    pub fn start(&mut self, now: Now, log_time: Millis, witness: Witness) {
        self.log_time = log_time;
        // A clock that was set back since disproves what is not of this moment.
        let witnessed = if witness.continuous { witness.time } else { witness.time.min(now.wall) };
        let known = log_time.max(witnessed);
        self.trust = if known == 0 {
            Trust::Fresh
        } else if now.wall <= known.saturating_add(LEAP) {
            Trust::Sure { time: known.max(now.wall), at: now.elapsed }
        } else if witness.continuous {
            Trust::Sure { time: known, at: now.elapsed }
        } else {
            Trust::Unsure { known }
        };
        self.resolve(now);
    }

    /// It is at least this late, as far as monotonic clocks go; none while nothing is known.
    pub fn confirmed(&self, now: Now) -> Option<Millis> {
        match self.trust {
            Trust::Sure { time, at } => Some(time.saturating_add(since(now, at))),
            Trust::Fresh | Trust::Unsure { .. } => None,
        }
    }

    /// Stamps up to this one are backed.
    pub fn latest(&self, now: Now) -> Millis {
        let by_wall = now.wall.saturating_add(MAX_STAMP_AHEAD);
        let most = match self.trust {
            Trust::Fresh => return by_wall,
            Trust::Unsure { known } => known,
            Trust::Sure { time, at } => time.saturating_add(since(now, at)),
        };
        if is_broken(Rule::NoLeaps) {
            return by_wall;
        }
        by_wall.min(most.saturating_add(LEAP).max(self.log_time))
    }

    /// Whether no batch may be stamped: see [between starts](self#between-starts).
    pub fn is_unsure(&self) -> bool {
        matches!(self.trust, Trust::Unsure { .. }) && !is_broken(Rule::NoLeaps)
    }

    /// The stamp of a batch that is formed now, where these nodes have a link. By the own clock, unless that is so far ahead
    /// of the others' that they would not make up a majority that backs it: then by the last clock that is needed for one. By
    /// what is confirmed if that clock shows a leap.
    pub fn stamp(&self, now: Now, up: &[bool; MAX_NODES], members: usize) -> Millis {
        let peers = NodeId::all(members).filter(|node| *node != self.me && up[node.index()]);
        let mut clocks: Vec<Millis> =
            peers.map(|node| self.of(now, node).map_or(now.wall, |clock| clock.effective())).collect();
        clocks.sort_unstable_by(|a, b| b.cmp(a));
        let last = self.majority.checked_sub(2).and_then(|last| clocks.get(last));
        let wall = match last {
            Some(last) if last.saturating_add(MAX_STAMP_AHEAD) < now.wall => *last,
            _ => now.wall,
        };
        match self.trust {
            _ if is_broken(Rule::NoLeaps) => wall,
            Trust::Fresh => wall,
            Trust::Unsure { known } => wall.min(known),
            Trust::Sure { time, at } => {
                let confirmed = time.saturating_add(since(now, at));
                if wall > confirmed.saturating_add(LEAP) { confirmed } else { wall }
            }
        }
    }

    /// What a peer's clock shows by now, if it was heard lately.
    fn of(&self, now: Now, peer: NodeId) -> Option<Heard> {
        let heard = self.heard[peer.index()]?;
        let age = now.elapsed.saturating_sub(heard.at);
        let passed = age.as_millis() as Millis;
        (age < KEPT).then(|| Heard {
            wall: heard.wall.saturating_add(passed),
            confirmed: heard.confirmed.map(|confirmed| confirmed.saturating_add(passed)),
            at: now.elapsed,
        })
    }

    fn others(&self, now: Now) -> impl Iterator<Item = (NodeId, Heard)> {
        NodeId::all(MAX_NODES).filter_map(move |node| Some((node, self.of(now, node)?)))
    }

    /// A peer's clock shows this, and monotonic clocks confirm that there.
    pub fn hear(&mut self, now: Now, peer: NodeId, wall: Millis, confirmed: Option<Millis>) {
        self.heard[peer.index()] = Some(Heard { wall, confirmed, at: now.elapsed });
        self.resolve(now);
    }

    /// The state that is applied has this log time.
    pub fn applied(&mut self, now: Now, log_time: Millis) {
        self.log_time = self.log_time.max(log_time);
        match self.trust {
            // The log of a cluster that is old may come bit by bit.
            Trust::Fresh if log_time > 0 => {
                self.trust = Trust::Unsure { known: log_time };
                self.resolve(now);
            }
            Trust::Unsure { known } => self.trust = Trust::Unsure { known: known.max(log_time) },
            Trust::Sure { time, at } if log_time > time.saturating_add(since(now, at)).saturating_add(LEAP) => {
                self.leap(now, log_time, Leapt::Log);
            }
            Trust::Fresh | Trust::Sure { .. } => {}
        }
    }

    /// An operator says that the wall clock is right. Answers how far that goes beyond what was confirmed, in milliseconds.
    pub fn accept(&mut self, now: Now) -> Millis {
        let beyond = self.state(now).leap;
        if self.trust != Trust::Fresh {
            self.leap(now, now.wall, Leapt::Operator);
        }
        beyond
    }

    /// The monotonic clock that goes on while the machine sleeps went so far, in milliseconds, while that of `Now` went otherwise.
    pub fn correct(&mut self, by: i64) {
        if let Trust::Sure { time, .. } = &mut self.trust {
            *time = time.saturating_add_signed(by);
        }
    }

    /// To be called often. What confirmed time gains, and whether the node is sure by now.
    pub fn look(&mut self, now: Now) {
        let passed = now.elapsed.saturating_sub(self.looked);
        if passed < LOOK {
            return;
        }
        self.looked = now.elapsed;
        self.resolve(now);
        if let Trust::Sure { time, at } = &mut self.trust {
            let behind = self.log_time.saturating_sub(time.saturating_add(since(now, *at)));
            *time = time.saturating_add(behind.min((passed / GAIN).as_millis() as Millis));
        }
    }

    /// How far confirmed time went beyond monotonic clocks since this was asked last, in milliseconds, and why.
    pub fn take_leap(&mut self) -> Option<(Millis, Leapt)> {
        self.leapt.take()
    }

    /// How the clock stands.
    pub fn state(&self, now: Now) -> ClockState {
        let mut walls: Vec<Millis> = self.others(now).map(|(_, heard)| heard.wall).collect();
        let others = walls.len();
        // Of two it is not known which is wrong.
        if others > 1 {
            walls.push(now.wall);
        }
        walls.sort_unstable();
        let median = match walls.len() {
            0 => now.wall,
            count if count.is_multiple_of(2) => walls[count / 2 - 1].midpoint(walls[count / 2]),
            count => walls[count / 2],
        };
        let beyond = |known: Millis| Some(now.wall.saturating_sub(known)).filter(|leap| *leap > LEAP).unwrap_or(0);
        let (leap, unsure) = match self.trust {
            Trust::Fresh => (0, false),
            Trust::Unsure { known } => (beyond(known), true),
            Trust::Sure { time, at } => (beyond(time.saturating_add(since(now, at))), false),
        };
        let refused = unsure && others + 1 >= self.majority;
        ClockState { offset: difference(now.wall, median), others, leap, unsure, refused }
    }

    fn leap(&mut self, now: Now, to: Millis, why: Leapt) {
        let known = match self.trust {
            Trust::Fresh => to,
            Trust::Unsure { known } => known,
            Trust::Sure { time, at } => time.saturating_add(since(now, at)),
        };
        self.trust = Trust::Sure { time: to, at: now.elapsed };
        self.leapt = Some((to.saturating_sub(known), why));
    }

    /// Looks whether what the wall clock shows is confirmed meanwhile.
    fn resolve(&mut self, now: Now) {
        let known = match self.trust {
            Trust::Fresh => return,
            Trust::Unsure { known } => known,
            Trust::Sure { time, at } => time.saturating_add(since(now, at)),
        };
        let unsure = matches!(self.trust, Trust::Unsure { .. });
        if now.wall <= known.saturating_add(LEAP) {
            if unsure {
                self.trust = Trust::Sure { time: known.max(now.wall), at: now.elapsed };
            }
            return;
        }
        let confirmed = || self.others(now).filter_map(|(node, heard)| Some((heard.confirmed?, node)));
        // The lowest: what leaps least.
        if let Some((time, peer)) = confirmed().filter(|(time, _)| now.wall.abs_diff(*time) <= LEAP).min() {
            return self.leap(now, known.max(time), Leapt::Peer(peer));
        }
        let lowest = confirmed().map(|(time, _)| time).min();
        match lowest {
            // The own clock is wrong, and what time it is is known all the same.
            Some(time) if unsure => {
                let time = known.max(time.min(now.wall));
                self.trust = Trust::Sure { time, at: now.elapsed };
            }
            None if unsure && self.is_plausible(now, known) => {
                let lowest = self.others(now).map(|(_, heard)| heard.wall).min();
                self.leap(now, lowest.map_or(now.wall, |lowest| lowest.min(now.wall)), Leapt::Majority);
            }
            _ => {}
        }
    }

    /// Whether the clocks of a majority agree that it is so much later than what was known, and nobody's says otherwise.
    fn is_plausible(&self, now: Now, known: Millis) -> bool {
        let most = if self.majority == 1 { PLAUSIBLE_ALONE } else { PLAUSIBLE };
        let mut others = self.others(now);
        now.wall - known <= most
            && self.others(now).count() + 1 >= self.majority
            && others.all(|(_, heard)| heard.wall.abs_diff(now.wall) <= AGREE)
    }
}

/// `a` less `b`, as far as numbers go.
fn difference(a: Millis, b: Millis) -> i64 {
    let apart = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a < b { -apart } else { apart }
}

fn since(now: Now, at: Duration) -> Millis {
    now.elapsed.saturating_sub(at).as_millis() as Millis
}
