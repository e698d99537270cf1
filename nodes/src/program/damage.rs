//! Damage that redb meets in the middle of its work.
//!
//! A start verifies the whole log and every row of the state, and every block is checked when it is read. What is left are the pages
//! of redb's own trees in the books, which it does not verify: a damaged one makes it panic. The hook here turns such a panic
//! into what it means, with the name of the file and an exit code. A release build aborts on any other panic, so this is the last
//! place where that can be done.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};

use rabia_bank_messages::escape::escaped;

use super::{Exit, terminal};
use crate::config::{BOOKS_FILE, CONFIG_FILE, LOG_FILE};

/// From now on a panic of redb is reported as damage of a file in `dir` and ends the process with [`Exit::Damaged`]; after any
/// other panic `otherwise` is called.
pub(super) fn report_panics(dir: &Path, otherwise: fn()) {
    let (dir, report) = (dir.to_owned(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if is_of_redb(panic) {
            terminal::error(&message(&dir, rabia_bank_storage::last_file(), panic));
            std::process::exit(Exit::Damaged as i32);
        }
        report(panic);
        otherwise();
    }));
}

/// Whether redb panicked, or the standard library on its behalf.
fn is_of_redb(panic: &PanicHookInfo<'_>) -> bool {
    panic.location().is_some_and(|at| at.file().contains("/redb-"))
        || Backtrace::force_capture().to_string().lines().any(|line| line.contains(": redb::"))
}

fn message(dir: &Path, file: Option<PathBuf>, panic: &PanicHookInfo<'_>) -> String {
    let file = match file {
        Some(file) => file.display().to_string(),
        None => format!("{BOOKS_FILE} or {LOG_FILE} in {}", dir.display()),
    };
    let said = panic.payload_as_str().unwrap_or("no words").lines().next().unwrap_or_default();
    format!(
        "{file} is damaged: a page of it is not what was written ({}). Nothing was served or voted from that page. Keep the file, and \
         check the disk. The other nodes go on without this one, and take it back with a new store:\n  \
         rabia-bank replace --config {}\n(a cluster of one or two bears no loss: restore a backup)",
        escaped(said),
        dir.join(CONFIG_FILE).display()
    )
}
