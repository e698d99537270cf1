//! The program `rabia-bank`: one module for each subcommand, and the command line that they share.
//!
//! What an exit code means is the same for all of them: [`EXIT_CODES`].

pub mod audit;
pub mod backup;
pub mod bench;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod create;
mod damage;
mod exit;
pub mod node;
mod principals;
mod process;
pub mod replace;
pub mod simulate;
mod terminal;
mod time;
mod tls;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::NodeError;
use crate::audit::AuditError;
use crate::backup::BackupError;
use crate::client::{BadUrl, ClientOptions, NodeUrl, TOKEN_VARIABLE, Token, find_token};
use crate::config::DEFAULT_CLIENT_PORT;
use crate::control::ControlError;
use crate::create::ClusterDirError;
use crate::replace::ReplaceError;
use crate::tokens::client_token;

pub use self::exit::{EXIT_CODES, Exit};

/// A bank that keeps its books on several nodes at once, so that any minority of them may fail.
#[derive(Parser, Debug)]
#[command(name = "rabia-bank", version, max_term_width = 120, after_help = format!("{EXAMPLES}{EXIT_CODES}"))]
pub struct Cli {
    /// What to log, to stderr: a level (error, warn, info, debug, trace), or as in RUST_LOG. Default: info for nodes,
    /// warn for everything else.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// The subcommand, with its arguments.
    #[command(subcommand)]
    pub task: Task,
}

const EXAMPLES: &str = "\
Five minutes:
  rabia-bank cluster                            three nodes on this machine, data in ./rabia-bank-data
  rabia-bank client create-account alice 1000   in another terminal
  rabia-bank client create-account bob
  rabia-bank client transfer alice bob 300
  rabia-bank client history
  rabia-bank client status
  rabia-bank bench --duration 5

`rabia-bank COMMAND --help` tells more. Amounts are whole numbers of minor units (cents).

";

/// What the program can do.
#[derive(Subcommand, Debug)]
pub enum Task {
    /// Run a whole cluster on this machine, one process a node; create it first if there is none.
    Cluster(cluster::Args),
    /// Create the folders of a new cluster without running it.
    Create(create::Args),
    /// Run one node of a cluster until it is told to stop.
    Node(node::Args),
    /// Speak to a cluster: open accounts, move money, look things up.
    Client(client::Args),
    /// Say who may do what: put, list and remove principals.
    Principal(principals::PrincipalArgs),
    /// Make, list and revoke tokens.
    Token(principals::TokenArgs),
    /// Verify, export or sum up the books of a node that is not running.
    Audit(audit::Args),
    /// Write the books of a running node into a file.
    Backup(backup::BackupArgs),
    /// Make a new cluster of a backup.
    Restore(backup::RestoreArgs),
    /// Give a node whose data is lost or damaged a new store, while the others serve.
    Replace(replace::Args),
    /// Say that a clock is right that a node does not believe.
    Clock(clock::Args),
    /// Measure a cluster under load, and check its books afterwards.
    Bench(bench::Args),
    /// Run clusters in a simulated bad world, and check that nothing breaks.
    Simulate(simulate::Args),
}

/// The nodes to speak to, for every subcommand that is a client.
#[derive(clap::Args, Debug, Clone)]
pub struct Connect {
    /// Nodes to speak to, tried in turn [default: those of a cluster as `cluster` makes it, ws://127.0.0.1:7101 to 7103; wss if the
    /// one in ./rabia-bank-data speaks TLS]
    #[arg(long, global = true, value_name = "URL,URL…", env = "RABIA_BANK_CONNECT", value_delimiter = ',')]
    connect: Vec<NodeUrl>,
    #[command(flatten)]
    trust: tls::Trust,
}

impl Connect {
    /// The nodes, and how a client behaves towards them where nothing else is said.
    fn options(&self) -> Result<ClientOptions, ProgramError> {
        let urls = match self.connect.is_empty() {
            false => self.connect.clone(),
            true => {
                let scheme = if tls::own_certificate().is_some() { "wss" } else { "ws" };
                let urls: Result<_, _> =
                    (0..3).map(|node| format!("{scheme}://127.0.0.1:{}", DEFAULT_CLIENT_PORT + node).parse()).collect();
                urls.map_err(|error: BadUrl| ProgramError::Usage(error.to_string()))?
            }
        };
        let tls = self.trust.tls(&urls)?;
        Ok(ClientOptions { tls, ..ClientOptions::new(urls) })
    }
}

/// The token to show, for every subcommand that is a client.
#[derive(clap::Args, Debug, Clone)]
pub struct ClientToken {
    /// The file with the token to show. Where not given: the variable RABIA_BANK_TOKEN, or else client.token in the folder of a
    /// cluster that was made here.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ClientToken {
    /// The token, if there is one.
    fn find(&self, trust: &tls::Trust) -> Result<Option<Token>, ProgramError> {
        self.find_or(&client_token(&default_data_dir()), trust)
    }

    /// The same, where it is in this file if nobody says otherwise. Without one only a certificate may do.
    fn find_or(&self, usual: &Path, trust: &tls::Trust) -> Result<Option<Token>, ProgramError> {
        let found = self.look(usual)?;
        if found.is_none() && !trust.shows_certificate() {
            let usual = usual.display();
            terminal::note(&format!(
                "no token was found, and nodes serve nobody without one: name it with --token-file or in {TOKEN_VARIABLE} (looked for in {usual})"
            ));
        }
        Ok(found)
    }

    fn look(&self, usual: &Path) -> Result<Option<Token>, ProgramError> {
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| ProgramError::Usage(format!("can't read a token from {path}: {error}"))
        };
        match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(at(file))?;
                Ok(Some(Token::from(text.trim())))
            }
            None => find_token(usual).map_err(at(usual)),
        }
    }
}

/// Why a task could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The folder of the cluster.
    #[error(transparent)]
    ClusterDir(#[from] ClusterDirError),
    /// A node refused to start, or has failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The books are wrong, or can't be audited.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A backup can't be written, or can't be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A node can't be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A store can't be replaced.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// The command line, or a file that it names, can't be used.
    #[error("{0}")]
    Usage(String),
    /// What was asked for is not there.
    #[error("{0}")]
    Refused(String),
    /// It ended so, for this reason.
    #[error("{why}")]
    Ended {
        /// The exit code, which says how it ended.
        exit: Exit,
        /// The reason, for people.
        why: String,
    },
    /// Anything else, with what to do.
    #[error("{0}")]
    Other(String),
    /// The output, or the system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Where a cluster's data lies if nobody says otherwise.
fn default_data_dir() -> PathBuf {
    PathBuf::from("rabia-bank-data")
}

/// Carries out what the command line says, and reports what went wrong.
pub fn run(cli: Cli) -> ExitCode {
    process::prepare();
    let default = if matches!(cli.task, Task::Node(_)) { "info" } else { "warn" };
    let filter = cli.log.as_deref().unwrap_or(default);
    match EnvFilter::try_new(filter) {
        Ok(filter) => terminal::start_logging(filter),
        Err(error) => {
            terminal::error(&format!("--log {filter}: {error}"));
            return Exit::Usage.into();
        }
    }
    let ended = match cli.task {
        Task::Cluster(args) => cluster::run(args),
        Task::Create(args) => create::run(args),
        Task::Node(args) => node::run(&args),
        Task::Client(args) => client::run(args),
        Task::Principal(args) => principals::run_principal(args),
        Task::Token(args) => principals::run_token(args),
        Task::Audit(args) => audit::run(args),
        Task::Backup(args) => backup::run_backup(args),
        Task::Restore(args) => backup::run_restore(args),
        Task::Replace(args) => replace::run(args),
        Task::Clock(args) => clock::run(args),
        Task::Bench(args) => bench::run(args),
        Task::Simulate(args) => simulate::run(&args),
    };
    match ended {
        Ok(exit) => exit.into(),
        // Who reads our output has seen enough.
        Err(ProgramError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            terminal::error(&error.to_string());
            Exit::of(&error).into()
        }
    }
}

/// A runtime for a task that only waits for sockets and children: one thread does.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_line_is_understood() {
        for line in [
            "rabia-bank cluster",
            "rabia-bank cluster --nodes 5 --data-dir /tmp/x --base-port 8001 --no-restart",
            "rabia-bank create --nodes 3 --data-dir /tmp/x",
            "rabia-bank create --level 1",
            "rabia-bank client --token-file x raise-level 2",
            "rabia-bank node --config node.toml",
            "rabia-bank client create-account alice 1000",
            "rabia-bank client create-account alice",
            "rabia-bank client deposit alice -5",
            "rabia-bank client withdraw alice 1.5",
            "rabia-bank client --connect ws://127.0.0.1:1,127.0.0.1:2 --json --read local transfer alice bob 3",
            "rabia-bank client bulk --atomic file.json",
            "rabia-bank client --read 901 account alice",
            "rabia-bank client accounts --limit 10 --after alice",
            "rabia-bank client balance alice",
            "rabia-bank client history alice --type transfer --before 9",
            "rabia-bank client transaction 7",
            "rabia-bank client statistics --large 5",
            "rabia-bank client watch",
            "rabia-bank client status --json --connect 127.0.0.1:1",
            "rabia-bank audit verify --data-dir /tmp/x --json",
            "rabia-bank audit export --data-dir /tmp/x --account alice --from 2026-11-23 --to 1795404304978 --format json",
            "rabia-bank audit digest --data-dir /tmp/x",
            "rabia-bank backup --data-dir /tmp/x/node-1 --to /tmp/y",
            "rabia-bank restore /tmp/y --data-dir /tmp/z --nodes 5",
            "rabia-bank replace --config /tmp/x/node-2/node.toml",
            "rabia-bank replace --config /tmp/x/node-2/node.toml --through /tmp/x/node-1 --force",
            "rabia-bank replace --through /tmp/x/node-1 --node 2 --store 000102030405060708090a0b0c0d0e0f",
            "rabia-bank clock accept --data-dir /tmp/x/node-1",
            "rabia-bank principal put shop --role teller --role reader --read shop: --debit shop:till --credit shop: --per-day 100000",
            "rabia-bank principal list --json",
            "rabia-bank principal remove shop",
            "rabia-bank token create shop --days 30 --to shop.token",
            "rabia-bank token create admin --through rabia-bank-data/node-1",
            "rabia-bank token list",
            "rabia-bank token revoke 0123456789abcdef",
            "rabia-bank client --token-file x balance alice",
            "rabia-bank simulate",
            "rabia-bank simulate --seed 5 --nodes 4 --ops 100 --trace",
            "rabia-bank simulate --seeds 300 --jobs 2 --json",
            "rabia-bank client status --stages",
            "rabia-bank bench --rate 100 --reads 50 --read local --hot 10 --hot-share 90 --probe . --plot latency.svg",
            "rabia-bank bench --suite --runs 3 --duration 2",
            "rabia-bank bench --nodes 5 --dir /tmp",
            "rabia-bank bench --connect 127.0.0.1:1 --yes",
            "rabia-bank client history --from 2026-11-23 --to 2026-11-24T08:00:00Z",
            "rabia-bank bench --accounts 10 --clients 2 --bulk 5 --in-flight 3 --duration 1 --json --pin",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_usage_is_an_error() {
        for line in [
            "rabia-bank",
            "rabia-bank cluster --nodes 8",
            "rabia-bank cluster --nodes 0",
            "rabia-bank create --base-port 0",
            "rabia-bank node",
            "rabia-bank client --connect http://host:1 status",
            "rabia-bank client deposit alice much",
            "rabia-bank client deposit alice",
            "rabia-bank client --read sometimes status",
            "rabia-bank client history --type gift",
            "rabia-bank client --timeout -1 status",
            "rabia-bank bench --clients 0",
            "rabia-bank bench --rate 100 --in-flight 2",
            "rabia-bank bench --reads 101",
            "rabia-bank bench --runs 3",
            "rabia-bank bench --suite --clients 3",
            "rabia-bank bench --yes",
            "rabia-bank bench --connect 127.0.0.1:1 --nodes 3",
            "rabia-bank client history --from yesterday",
            "rabia-bank client history --to 0",
            "rabia-bank simulate --nodes 2",
            "rabia-bank simulate --jobs 0",
            "rabia-bank simulate --seeds 2 --trace",
            "rabia-bank replace",
            "rabia-bank replace --through /tmp/x/node-1",
            "rabia-bank replace --through /tmp/x/node-1 --node 2",
            "rabia-bank replace --config /tmp/x/node-2/node.toml --node 2 --store 000102030405060708090a0b0c0d0e0f",
            "rabia-bank audit verify",
            "rabia-bank audit export --data-dir /tmp/x --from yesterday",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
