//! What must hold in every run, one file a property, each with its source. Written without a look into the code that
//! they judge: they see what crosses its borders.

use std::fmt::Display;

pub(super) mod agreement;
pub(super) mod books;
pub(super) mod clients;
pub(super) mod digests;
pub(super) mod log_time;
pub(super) mod old_copies;
pub(super) mod principals;
pub(super) mod promises;
pub(super) mod quiet;
pub(super) mod read_rounds;
pub(super) mod stores;
pub(super) mod weak_mvc;

/// A property that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The name of the property, as the table in SIMULATION.md has it.
    pub property: &'static str,
    /// What contradicts it, with the values.
    pub what: String,
}

/// Nothing wrong, or what.
pub(super) type Check = Result<(), Violation>;

/// A violation unless `holds`.
pub(super) fn check<T: Display>(holds: bool, property: &'static str, what: impl FnOnce() -> T) -> Check {
    if holds { Ok(()) } else { Err(Violation { property, what: what().to_string() }) }
}
