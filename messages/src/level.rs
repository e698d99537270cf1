//! Levels: which commands, formats and rules there are in a cluster.
//!
//! The level is a number in the replicated state. All that applying does follows from the state, the batch and the level, never from the
//! version of a program: so nodes with programs of two versions apply alike, and a cluster gets a newer program one node after the
//! other. When all have it an administrator raises the level (`raise_level`), by the log, and from the next slot on there is what is new.
//!
//! - A program says in the log which levels it knows ([`Payload::can`](crate::batch::Payload::can)), and the level is raised only to one that
//!   every member's program knows.
//! - A batch says of which level its format is. One above the level in force is applied as an empty one by everybody, also by programs that
//!   could read it.
//! - A program that does not know the level in force stops before it applies anything ([`TooNew`]).

/// The highest level that this version knows.
pub const HIGHEST: u32 = 1;

/// The highest number that a level may have. Versions raise it by one.
pub const MAX_LEVEL: u32 = 65_535;

/// The highest level that this program knows.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn highest() -> u32 {
    HIGHEST
}

/// The highest level that this program knows: in tests also one that is made up, see [`ProgramOf`] and [`TEST_LEVEL`].
#[cfg(feature = "sabotage")]
pub fn highest() -> u32 {
    static OF_PROCESS: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let of_process = || std::env::var(TEST_LEVEL).ok().and_then(|level| level.parse().ok()).unwrap_or(HIGHEST);
    OF_THREAD.get().unwrap_or_else(|| *OF_PROCESS.get_or_init(of_process))
}

/// The level that only tests know. It has one command more, `note`.
pub const NOTES: u32 = HIGHEST + 1;

/// The variable of the environment that makes a program for tests one of another level.
#[cfg(feature = "sabotage")]
pub const TEST_LEVEL: &str = "RABIA_BANK_TEST_LEVEL";

#[cfg(feature = "sabotage")]
std::thread_local! {
    static OF_THREAD: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// On this thread runs a program of another level for as long as this lives.
#[cfg(feature = "sabotage")]
#[derive(Debug)]
pub struct ProgramOf(Option<u32>);

#[cfg(feature = "sabotage")]
impl ProgramOf {
    /// A program that knows the levels up to this one.
    #[must_use]
    pub fn level(level: u32) -> ProgramOf {
        ProgramOf(OF_THREAD.replace(Some(level)))
    }
}

#[cfg(feature = "sabotage")]
impl Drop for ProgramOf {
    fn drop(&mut self) {
        OF_THREAD.set(self.0);
    }
}

/// What is of a level that this program does not know. Whatever it is, it was left as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the cluster is at level {level}, and this program ({}) knows levels up to {known}: it applies nothing of that level, \
     and leaves all files as they are. Install a version that knows level {level}, and start it with the same files. The status of a node \
     that runs says its version",
    env!("CARGO_PKG_VERSION")
)]
pub struct TooNew {
    /// The level in force.
    pub level: u32,
    /// The highest one that this program knows.
    pub known: u32,
}

/// Whether this program knows a level.
///
/// # Errors
/// If it does not.
pub fn check(level: u32) -> Result<(), TooNew> {
    let known = highest();
    if level <= known { Ok(()) } else { Err(TooNew { level, known }) }
}
