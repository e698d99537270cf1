//! `rabia-bank create`.

use std::path::PathBuf;

use rabia_bank_messages::bank::{DEFAULT_TRANSACTION_LIMIT, MAX_BALANCE, OwnAsset};
use rabia_bank_messages::genesis::{
    BankTerms, DEFAULT_MAX_SESSIONS, DEFAULT_SESSION_IDLE_MS, DEFAULT_WINDOW, SessionLimits,
};
use rabia_bank_messages::ids::MAX_NODES;
use rabia_bank_messages::level;

use super::tls::new_certificate;
use super::{Exit, ProgramError, default_data_dir, terminal};
use crate::config::{DEFAULT_CLIENT_PORT, MAX_SESSION_IDLE_MS, MAX_SESSIONS, MAX_WINDOW, MIN_SESSION_IDLE_MS};
use crate::create::{MAX_BASE_PORT, NewCluster, config_path, create};
use crate::tokens::{admin_token, client_token};

/// The command line of `create`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Makes DIR/node-1, DIR/node-2 … with a node.toml and a store each. For a cluster on several machines, move each
folder to its machine, and put the machines' addresses into every node.toml before the first start.")]
pub struct Args {
    /// How many nodes. 3 bear the loss of one, 5 of two, 7 of three.
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
    /// The largest amount of one transaction, in minor units. Fixed for ever.
    #[arg(long, default_value_t = DEFAULT_TRANSACTION_LIMIT, value_name = "AMOUNT",
          value_parser = clap::value_parser!(u64).range(1..=MAX_BALANCE))]
    transaction_limit: u64,
    /// What accounts hold where nothing else is said, and how many decimal places it has, as EUR:2. XXX stands for no currency. Fixed
    /// for ever.
    #[arg(long, default_value_t = OwnAsset::default(), value_name = "ASSET:SCALE")]
    asset: OwnAsset,
    /// Let accounts be overdrawn that are created or set so, with a lower bound below 0. Fixed for ever.
    #[arg(long)]
    allow_overdraft: bool,
    /// Client sessions that may be open; one more, and the one that was idle for longest ends. Fixed for ever.
    #[arg(long, default_value_t = DEFAULT_MAX_SESSIONS, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=MAX_SESSIONS))]
    max_sessions: u64,
    /// How long a client session may be idle before it ends, in seconds. Fixed for ever.
    #[arg(long, default_value_t = DEFAULT_SESSION_IDLE_MS / 1_000, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(MIN_SESSION_IDLE_MS / 1_000..=MAX_SESSION_IDLE_MS / 1_000))]
    session_idle: u64,
    /// At which level it begins: which commands and formats there are. The highest that this program knows where nobody says otherwise.
    #[arg(long, default_value_t = level::highest(), value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(level::highest())))]
    level: u32,
    /// Make a certificate for clients too, signed by itself and good for this machine and a year, for trying TLS out. It lies in DIR
    /// as tls.pem, where `rabia-bank client` finds it if DIR is the usual one; otherwise name it with --ca.
    #[arg(long)]
    tls_self_signed: bool,
}

/// Creates a cluster and says how to start it.
///
/// # Errors
/// If there is something in the folder already, or it can't be written.
pub fn run(args: Args) -> Result<Exit, ProgramError> {
    let Args { nodes, data_dir, base_port, window, transaction_limit, asset, allow_overdraft, .. } = args;
    let Args { max_sessions, session_idle, level, tls_self_signed, .. } = args;
    let tls = new_certificate(tls_self_signed)?;
    let sessions = SessionLimits { open: max_sessions, idle_ms: session_idle * 1_000 };
    let (nodes, bank) = (usize::from(nodes), BankTerms { asset, allow_overdraft });
    let new = NewCluster { data_dir, nodes, base_port, window, transaction_limit, bank, sessions, level, tls };
    let configs = create(&new)?;
    terminal::print(format_args!(
        "Created a cluster of {nodes} in {}. Tokens for its clients: {} for the daily business, {} for its administrator.",
        new.data_dir.display(),
        client_token(&new.data_dir).display(),
        admin_token(&new.data_dir).display()
    ))?;
    terminal::print(format_args!("Start its nodes with:"))?;
    for config in &configs {
        let path = config_path(&new.data_dir, config.node);
        terminal::print(format_args!("  rabia-bank node --config {}", path.display()))?;
    }
    terminal::print(format_args!("or all at once with:\n  rabia-bank cluster --data-dir {}", new.data_dir.display()))?;
    Ok(Exit::Done)
}
