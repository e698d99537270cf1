//! The exit codes of the program, one table for all of its subcommands.

use std::process::ExitCode;

use rabia_bank_actors::failure::StartError;
use rabia_bank_actors::snapshot::BooksError;
use rabia_bank_storage::StoreError;

use super::ProgramError;
use crate::NodeError;
use crate::audit::AuditError;
use crate::backup::BackupError;
use crate::control::ControlError;
use crate::create::ClusterDirError;
use crate::replace::ReplaceError;

/// The table, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes, of every subcommand, with --json too:
  0  done
  1  failed otherwise: a node had to stop and may be started again, a file can't be written, a simulation found a fault
  2  wrong usage: the command line, or a file that it names, can't be used; nothing was sent or changed
  3  refused to start, or to begin: a configuration, a store or a port needs a person first
  4  refused by the bank: certainly not executed
  5  not reached: no node could carry it out in time; certainly not executed
  6  unknown: sent, and it may have been executed or may yet be; look before you repeat it
  7  damage: a file is not what was written, or books are wrong";

/// How a task ended. The numbers are the exit codes of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// Something else went wrong.
    Failed = 1,
    /// The command line, or a file that it names, can't be used.
    Usage = 2,
    /// A person has to change something first.
    RefusedToStart = 3,
    /// The bank refused: certainly not executed.
    Refused = 4,
    /// No node could carry it out: certainly not executed.
    NotReached = 5,
    /// It may have been executed, or may yet be.
    Unknown = 6,
    /// A file is not what was written, or books are wrong.
    Damaged = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of an error.
    pub(super) fn of(error: &ProgramError) -> Exit {
        match error {
            ProgramError::Node(NodeError::Refused(_)) => Exit::RefusedToStart,
            ProgramError::Node(NodeError::Damaged(_)) => Exit::Damaged,
            ProgramError::Node(NodeError::Failed(_)) | ProgramError::Other(_) | ProgramError::Io(_) => Exit::Failed,
            ProgramError::Usage(_) => Exit::Usage,
            ProgramError::Refused(_) => Exit::Refused,
            ProgramError::Ended { exit, .. } => *exit,
            ProgramError::ClusterDir(error) => of_cluster_dir(error),
            ProgramError::Audit(error) => of_audit(error),
            ProgramError::Backup(error) => of_backup(error),
            ProgramError::Control(error) => of_control(error),
            ProgramError::Replace(error) => of_replace(error),
        }
    }

    /// The one with this code, of a child of this program.
    pub(super) fn from_code(code: i32) -> Exit {
        let known = [Exit::RefusedToStart, Exit::Damaged, Exit::Usage];
        known.into_iter().find(|exit| *exit as i32 == code).unwrap_or(Exit::Failed)
    }

    /// Whether a node that ended so will end so again until a person has changed something.
    pub(super) fn needs_a_person(code: i32) -> bool {
        [Exit::Usage, Exit::RefusedToStart, Exit::Damaged].iter().any(|exit| *exit as i32 == code)
    }
}

fn of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::Damaged { .. } => Exit::Damaged,
        StoreError::Full { .. }
        | StoreError::Io { .. }
        | StoreError::Stopped { .. }
        | StoreError::Contradiction { .. } => Exit::Failed,
        _ => Exit::RefusedToStart,
    }
}

fn of_books(error: &BooksError) -> Exit {
    match error {
        BooksError::Store(error) => of_store(error),
        BooksError::Bad(_) => Exit::Damaged,
        BooksError::TooNew(_) => Exit::RefusedToStart,
    }
}

fn of_start(error: &StartError) -> Exit {
    match error {
        StartError::Store(error) => of_store(error),
        StartError::Books(error) => of_books(error),
        _ => Exit::RefusedToStart,
    }
}

fn of_cluster_dir(error: &ClusterDirError) -> Exit {
    match error {
        ClusterDirError::NodeCount(_) | ClusterDirError::BasePort(_) | ClusterDirError::Level(_) => Exit::Usage,
        ClusterDirError::Io { .. } => Exit::Failed,
        ClusterDirError::Store(error) => of_store(error),
        ClusterDirError::NotEmpty(_)
        | ClusterDirError::NoNodes(_)
        | ClusterDirError::OtherThings { .. }
        | ClusterDirError::OtherNodeCount { .. }
        | ClusterDirError::Config(_) => Exit::RefusedToStart,
    }
}

fn of_audit(error: &AuditError) -> Exit {
    match error {
        AuditError::Config(_) => Exit::RefusedToStart,
        AuditError::Books(error) => of_books(error),
        AuditError::Start(error) => of_start(error),
        AuditError::Block { .. } | AuditError::Transaction { .. } | AuditError::Account { .. } | AuditError::Sum(_) => {
            Exit::Damaged
        }
        AuditError::Io(_) => Exit::Failed,
    }
}

fn of_backup(error: &BackupError) -> Exit {
    match error {
        BackupError::Store(error) => of_store(error),
        BackupError::Damaged(_) => Exit::Damaged,
        BackupError::TooNew(_) => Exit::RefusedToStart,
        BackupError::Io(_) | BackupError::Refused(_) => Exit::Failed,
    }
}

fn of_control(error: &ControlError) -> Exit {
    match error {
        ControlError::Unreachable { .. } => Exit::NotReached,
        // The message says what is known.
        ControlError::Io(_) | ControlError::Refused(_) => Exit::Failed,
    }
}

fn of_replace(error: &ReplaceError) -> Exit {
    match error {
        ReplaceError::TooFew(_) | ReplaceError::Running { .. } | ReplaceError::Whole { .. } => Exit::RefusedToStart,
        ReplaceError::Store(error) => of_store(error),
        ReplaceError::Io { .. } => Exit::Failed,
        ReplaceError::Told(error) => of_control(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_table() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::RefusedToStart,
            Exit::Refused,
            Exit::NotReached,
            Exit::Unknown,
            Exit::Damaged,
        ];
        let lines: Vec<&str> = EXIT_CODES.lines().skip(1).collect();
        assert_eq!(lines.len(), all.len());
        for (line, exit) in lines.iter().zip(all) {
            assert!(line.starts_with(&format!("  {}  ", exit as u8)), "{exit:?}: {line}");
        }
    }

    #[test]
    fn damage_has_one_code_wherever_it_is_found() {
        let damaged = || StoreError::Damaged { file: "books.redb".into(), what: "a page".into() };
        for error in [
            ProgramError::Node(NodeError::Damaged("books.redb".into())),
            ProgramError::Audit(AuditError::Books(damaged().into())),
            ProgramError::Audit(AuditError::Start(StartError::Store(damaged()))),
            ProgramError::Audit(AuditError::Sum("they differ".into())),
            ProgramError::Backup(BackupError::Damaged("a row".into())),
            ProgramError::Replace(ReplaceError::Store(damaged())),
        ] {
            assert_eq!(Exit::of(&error), Exit::Damaged, "{error}");
        }
    }
}
