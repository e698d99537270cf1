//! What goes wrong, and how often it did.

use fastrand::Rng;

/// A fault, beside those of single messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fault {
    CrashOne,
    CrashSome,
    CrashAll,
    Pause,
    ResetLink,
    Isolate,
    Halves,
    OneWay,
    Swizzle,
    SlowSyncs,
    FailingSync,
    ClockJump,
    ClocksLeap,
    WipedDisk,
    OldCopy,
    ReplacedDisk,
    UnusableBatch,
    HalfOpenLink,
}

/// All but those that some seeds have in any case.
const FAULTS: [Fault; 14] = [
    Fault::CrashOne,
    Fault::CrashSome,
    Fault::CrashAll,
    Fault::Pause,
    Fault::ResetLink,
    Fault::Isolate,
    Fault::Halves,
    Fault::OneWay,
    Fault::Swizzle,
    Fault::SlowSyncs,
    Fault::FailingSync,
    Fault::ClockJump,
    Fault::WipedDisk,
    Fault::OldCopy,
];

impl Fault {
    /// What it is called in summaries.
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::CrashOne => "one node crashed",
            Fault::CrashSome => "several nodes crashed",
            Fault::CrashAll => "all nodes crashed",
            Fault::Pause => "node paused",
            Fault::ResetLink => "link reset",
            Fault::Isolate => "one node cut off",
            Fault::Halves => "partition in halves",
            Fault::OneWay => "partition one way",
            Fault::Swizzle => "swizzled partition",
            Fault::SlowSyncs => "slow syncs",
            Fault::FailingSync => "failing sync",
            Fault::ClockJump => "clock jumped",
            Fault::ClocksLeap => "clocks leapt by hours and days",
            Fault::WipedDisk => "disk wiped",
            Fault::OldCopy => "copy of a disk made",
            Fault::ReplacedDisk => "disk replaced",
            Fault::UnusableBatch => "batch that can't be applied let in",
            Fault::HalfOpenLink => "link gone for one side alone",
        }
    }
}

/// What a run suffers. Each seed leaves some kinds out, so that rare ones are not always drowned by others.
#[derive(Clone, Debug)]
pub(super) struct FaultRates {
    pub(super) kinds: Vec<Fault>,
    /// Percent of messages, each for loss, duplication and long delay.
    pub(super) loss: u32,
    pub(super) duplication: u32,
    pub(super) delay: u32,
    /// Percent of payloads that are damaged on their way.
    pub(super) damage: u32,
}

impl FaultRates {
    /// Two seeds of five have disks replaced, one of seven clocks that leap, one of eleven batches that can't be applied, one of
    /// thirteen links that are gone for one side alone. Random numbers have no part in that, so that the others, in which something was found before there were these faults, are the
    /// runs that they were.
    pub(super) fn new(seed: u64, random: &mut Rng) -> FaultRates {
        let mut kinds: Vec<Fault> = FAULTS.into_iter().filter(|_| random.bool()).collect();
        if [1, 4].contains(&(seed % 5)) {
            kinds.push(Fault::ReplacedDisk);
        }
        if seed % 7 == 3 {
            kinds.push(Fault::ClocksLeap);
        }
        if seed % 11 == 8 {
            kinds.push(Fault::UnusableBatch);
        }
        if seed % 13 == 7 {
            kinds.push(Fault::HalfOpenLink);
        }
        let [loss, duplication, delay] = [(); 3].map(|()| [0, 0, 1, 5, 15][random.usize(..5)]);
        let damage = [0, 0, 0, 3][random.usize(..4)];
        FaultRates { kinds, loss, duplication, delay, damage }
    }

    /// Whether a machine may lose its power, and a node its link, without its peers being told.
    pub(super) fn has_half_open_links(&self) -> bool {
        self.kinds.contains(&Fault::HalfOpenLink)
    }

    /// The rates of a world in which nothing goes wrong.
    pub(super) fn calm() -> FaultRates {
        FaultRates { kinds: Vec::new(), loss: 0, duplication: 0, delay: 0, damage: 0 }
    }
}
