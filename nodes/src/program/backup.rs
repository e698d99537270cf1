//! `rabia-bank backup` and `rabia-bank restore`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use indicatif::HumanCount;
use rabia_bank_actors::timekeeper::span;
use rabia_bank_messages::ids::{MAX_NODES, Millis};

use super::tls::new_certificate;
use super::{Exit, ProgramError, default_data_dir, terminal};
use crate::backup::{self, Backup, NewCopy};
use crate::config::{DEFAULT_CLIENT_PORT, MAX_WINDOW};
use crate::control::{ControlError, ask_backup};
use crate::create::{MAX_BASE_PORT, NewCluster, config_path, restore, wall};
use crate::tokens;
use rabia_bank_messages::genesis::{DEFAULT_WINDOW, Founding};

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// The command line of `backup`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The node goes on serving meanwhile. The file holds all accounts and the whole history as this node has applied them, and
nothing of the clients' sessions. It is verified before it gets its name: a file that is there is whole.")]
pub struct BackupArgs {
    /// The folder of a running node, on this machine.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where to put the backup. Nothing may be there.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// The command line of `restore`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Makes the folders of a new cluster, as `rabia-bank create` does, with the accounts and the history of the backup. It goes
on where the backup ends. Sessions and tokens of the old cluster do not act on the new one; its administrator gets a new
token in DIR/admin/token. Time in the log goes on from this machine's
clock where it was ahead. Check it before its first start with
`rabia-bank audit verify --data-dir DIR/node-1`.")]
pub struct RestoreArgs {
    /// A file that `rabia-bank backup` has written.
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// How many nodes the new cluster has.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=MAX_NODES as i64))]
    nodes: u8,
    /// Where to put the folders; must be absent or empty.
    #[arg(long, default_value_os_t = default_data_dir(), value_name = "DIR")]
    data_dir: PathBuf,
    /// Node K listens for clients on this port + K - 1, and for the other nodes 100 above.
    #[arg(long, default_value_t = DEFAULT_CLIENT_PORT, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_BASE_PORT)))]
    base_port: u16,
    /// Slots of the log in agreement at once.
    #[arg(long, default_value_t = DEFAULT_WINDOW, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_WINDOW))]
    window: u64,
    /// Let the tokens of the backup act on the new cluster, too. Otherwise they are removed.
    #[arg(long)]
    keep_tokens: bool,
    /// Make a certificate for clients too, signed by itself, as `rabia-bank create --tls-self-signed` does.
    #[arg(long)]
    tls_self_signed: bool,
}

/// Takes a backup.
///
/// # Errors
/// If the node refuses, or the file can't be written or read back.
pub fn run_backup(args: BackupArgs) -> Result<Exit, ProgramError> {
    let BackupArgs { data_dir, to } = args;
    if to.try_exists().map_err(at(&to))? {
        return Err(ProgramError::Usage(format!("{} is there already, and is left as it is", to.display())));
    }
    let directory = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    let draft = builder.prefix(".backup-").suffix(".unfinished").tempfile_in(directory).map_err(at(directory))?;
    let bar = terminal::spinner("taking the backup");
    let mut file = draft.reopen().map_err(at(&to))?;
    copy(&mut ask_backup(&data_dir)?, &mut file, &to)?;
    file.sync_all().map_err(at(&to))?;
    file.seek(SeekFrom::Start(0)).map_err(at(&to))?;
    let backup =
        backup::read(&file, wall(), NewCopy { founding: &Founding::default(), keep_tokens: true, members: 1 })?;
    bar.finish_and_clear();
    let bytes = file.metadata().map_err(at(&to))?.len();
    draft.persist_noclobber(&to).map_err(|error| error.error).map_err(at(&to))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(directory))?;
    terminal::print(format_args!(
        "{}: {} transactions up to slot {}, chain head {}, {} bytes.",
        to.display(),
        HumanCount(backup.transactions),
        backup.snapshot.slot,
        backup.chain_head,
        HumanCount(bytes)
    ))?;
    Ok(Exit::Done)
}

/// An error with the file that could not be written.
fn at(path: &Path) -> impl FnOnce(io::Error) -> ProgramError + use<> {
    let path = path.display().to_string();
    move |error| ProgramError::Other(format!("can't write {path}: {error}; nothing was left there"))
}

/// Copies what the node sends into the file that is to be `to`. An error says which of the two failed.
fn copy(from: &mut impl Read, file: &mut File, to: &Path) -> Result<(), ProgramError> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => file.write_all(&buffer[..length]).map_err(at(to))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ControlError::Io(error).into()),
        }
    }
}

/// Makes a new cluster of a backup.
///
/// # Errors
/// If the backup is damaged, or the folders can't be made.
pub fn run_restore(args: RestoreArgs) -> Result<Exit, ProgramError> {
    let RestoreArgs { from, nodes, data_dir, base_port, window, keep_tokens, tls_self_signed } = args;
    let tls = new_certificate(tls_self_signed)?;
    let file =
        File::open(&from).map_err(|error| ProgramError::Usage(format!("can't read {}: {error}", from.display())))?;
    let now = wall();
    let bar = terminal::spinner("reading the backup");
    let (founding, first_tokens) = tokens::found(now, false);
    let copy = NewCopy { founding: &founding, keep_tokens, members: nodes.into() };
    let backup = backup::read(BufReader::new(file), now, copy)?;
    bar.finish_and_clear();
    let (transaction_limit, bank) = (backup.transaction_limit, backup.bank.clone());
    let (sessions, level) = (backup.sessions, backup.level);
    let nodes = usize::from(nodes);
    let new = NewCluster { data_dir, nodes, base_port, window, transaction_limit, bank, sessions, level, tls };
    let configs = restore(&new, &backup.snapshot, founding, &first_tokens)?;
    terminal::print(format_args!(
        "Restored {} transactions up to slot {} into a new cluster of {nodes} in {}.",
        HumanCount(backup.transactions),
        backup.snapshot.slot,
        new.data_dir.display()
    ))?;
    if backup.log_time > now {
        terminal::print(format_args!("{}", set_back(&backup, now)))?;
    }
    terminal::print(format_args!(
        "A new token of its administrator is in {}; `rabia-bank token create daily` makes one for the daily business.",
        tokens::admin_token(&new.data_dir).display()
    ))?;
    terminal::print(format_args!("Start its nodes with:"))?;
    for config in &configs {
        let path = config_path(&new.data_dir, config.node);
        terminal::print(format_args!("  rabia-bank node --config {}", path.display()))?;
    }
    terminal::print(format_args!("or all at once with:\n  rabia-bank cluster --data-dir {}", new.data_dir.display()))?;
    Ok(Exit::Done)
}

/// What is to be known where a backup's log time was ahead.
fn set_back(backup: &Backup, now: Millis) -> String {
    let Backup { log_time, newest_timestamp, .. } = backup;
    let mut text = format!(
        "Time in the log of the backup was {} ahead of this machine's clock: a clock was wrong there. The new cluster goes on with \
         this machine's time, {}.",
        span(log_time.saturating_sub(now)),
        terminal::time(now)
    );
    if *newest_timestamp > now {
        text += &format!(
            " The history keeps its timestamps, and no record's is before the one before it: until {} new transactions carry \
             that of the newest one.",
            terminal::time(*newest_timestamp)
        );
    }
    text
}
