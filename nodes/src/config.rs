//! A node's configuration: the file `node.toml`.
//!
//! `rabia-bank create` writes one for every node of a new cluster, with a comment on every line that a person may want
//! to change ([`NodeConfig::to_toml`]); [`NodeConfig::load`] reads it back and checks all of it before anything is
//! opened. Unknown keys are refused, because a misspelt limit that silently keeps its default is worse than a node that
//! does not start. The constants of the cluster (members, stores, window, limit per transaction) must be the same in
//! every node's file: nodes compare them when they meet.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rabia_bank_messages::bank::{DEFAULT_TRANSACTION_LIMIT, MAX_BALANCE, OwnAsset};
use rabia_bank_messages::genesis::{
    BankTerms, DEFAULT_MAX_SESSIONS, DEFAULT_OWNER_HISTORY, DEFAULT_SESSION_IDLE_MS, DEFAULT_WINDOW, Founding,
    FoundingToken, Genesis, SessionLimits,
};
use rabia_bank_messages::ids::{ClusterId, Digest, MAX_NODES, Millis, NodeId, Secret, StoreId, TokenId};
use rabia_bank_messages::level::MAX_LEVEL;
use rabia_bank_messages::principal::{ADMIN, DAILY, PrincipalNumber};
use serde::Deserialize;

use crate::member_key::KEY_FILE;

pub use crate::limits::Limits;

/// The name of the configuration in a node's folder.
pub const CONFIG_FILE: &str = "node.toml";
/// The name of the file that holds votes and log, in a node's `data_dir`.
pub const LOG_FILE: &str = "log.redb";
/// The name of the file that holds the books: accounts, sessions and the whole history, as of the last snapshot.
pub const BOOKS_FILE: &str = "books.redb";
/// The name of the file that holds what the node knows of time: see [`uptime`](rabia_bank_actors::uptime).
pub const CLOCK_FILE: &str = "clock";
/// The most slots in agreement at once that a cluster may be given: each costs memory for votes of all members.
pub const MAX_WINDOW: u64 = 1_024;
/// The most sessions that may be open: some 500 MB of memory if all are used.
pub const MAX_SESSIONS: u64 = 1_000_000;
/// The shortest time that a session may be idle, in milliseconds: a client that looks for another node takes seconds.
pub const MIN_SESSION_IDLE_MS: Millis = 1_000;
/// The longest time that a session may be idle, in milliseconds: a year.
pub const MAX_SESSION_IDLE_MS: Millis = 365 * 24 * 60 * 60 * 1_000;
/// The longest message that a client may be allowed to send, in bytes: a batch of one such request still fits in one
/// frame between peers.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// The shortest limit on a client's message, in bytes: below it not every single command fits.
pub const MIN_MESSAGE_BYTES: usize = 1 << 10;

/// The least that may be granted to answers that wait, in bytes: the answer to the largest bulk must fit.
pub const MIN_UNREAD_BYTES: usize = 8 << 20;
/// The port for clients where the file names no address.
pub const DEFAULT_CLIENT_PORT: u16 = 7_101;
/// The port for the other members where the file names no address.
pub const DEFAULT_PEER_PORT: u16 = 7_201;

/// A member of the cluster, as every node's file lists it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The number of the member, from 1.
    pub node: NodeId,
    /// Its first store, fixed when the cluster was created. It stays here when the store is replaced: the log says by which.
    pub store: StoreId,
    /// Where the other members reach it: `host:port`.
    pub address: String,
}

/// The files that a node proves to clients with who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Its certificate, and those between it and an authority: PEM.
    pub certificate: PathBuf,
    /// The key of its certificate: PEM.
    pub key: PathBuf,
    /// Authorities: only clients with a certificate of one of them are let in. PEM; none: all clients are.
    pub client_ca: Option<PathBuf>,
}

/// Everything that a node is told.
///
/// Invariants (checked by [`NodeConfig::load`]): members are numbered 1 to n without gaps and stand in this order, n is
/// 1 to 7, `node` is one of them, their stores and addresses differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// Which member it is.
    pub node: NodeId,
    /// Where its store lies.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub client_listen: SocketAddr,
    /// Where it listens for the other members.
    pub peer_listen: SocketAddr,
    /// W: slots in agreement at once.
    pub window: u64,
    /// K: slots beyond two windows that slot owners are read from.
    pub owner_history: u64,
    /// The largest amount of one transaction of the cluster's own asset, in minor units.
    pub transaction_limit: u64,
    /// What the bank is about.
    pub bank: BankTerms,
    /// When sessions expire: the same at all members.
    pub sessions: SessionLimits,
    /// The level that the cluster begins at. Which one it is at now, is in the log.
    pub level: u32,
    /// What the cluster begins with: the secret that salts of hashes are made of, and hashes of the first tokens.
    pub founding: Founding,
    /// All members, this node included, node 1 first.
    pub members: Vec<Member>,
    /// Web pages (`scheme://host[:port]`) that may connect besides the node's own.
    pub allowed_origins: Vec<String>,
    /// What clients get TLS with; none: they are served plain, on loopback or where `insecure` is said.
    pub tls: Option<TlsFiles>,
    /// Clients may be served without TLS beyond loopback.
    pub insecure: bool,
    /// What it grants its clients.
    pub limits: Limits,
}

/// Why a configuration can't be used. Says which file, which line, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read {}: {source}; `rabia-bank create` makes the folders of a new cluster", path.display())]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML, a key is missing, unknown, or of another type.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Where the text was read from.
        path: PathBuf,
        /// What is wrong, with the line.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{}{}: {problem}", path.display(), line.map(|n| format!(", line {n}")).unwrap_or_default())]
    Invalid {
        /// The file that the value stands in.
        path: PathBuf,
        /// In which line, from 1, where it belongs to one.
        line: Option<usize>,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The file as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    cluster: ClusterId,
    node: NodeId,
    data_dir: Option<PathBuf>,
    client_listen: Option<SocketAddr>,
    peer_listen: Option<SocketAddr>,
    window: Option<u64>,
    owner_history: Option<u64>,
    transaction_limit: Option<u64>,
    asset: Option<AssetText>,
    #[serde(default)]
    allow_overdraft: bool,
    max_sessions: Option<u64>,
    session_idle_ms: Option<Millis>,
    level: Option<u32>,
    #[serde(default)]
    allowed_origins: Vec<String>,
    #[serde(default)]
    insecure: bool,
    tls: Option<TlsTable>,
    #[serde(default)]
    limits: Limits,
    secret: Option<Secret>,
    #[serde(default)]
    first_token: Vec<FirstToken>,
    #[serde(default)]
    member: Vec<Member>,
}

/// Its section for TLS.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// A token that the cluster begins with.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstToken {
    principal: PrincipalNumber,
    id: TokenId,
    hash: Digest,
    expires_at: Millis,
}

/// A value that makes no sense: the key that it stands behind (and at which member, from 0), and what is wrong.
struct Problem {
    key: &'static str,
    member: Option<usize>,
    problem: String,
}

impl Problem {
    fn at(key: &'static str, problem: impl Into<String>) -> Problem {
        Problem { key, member: None, problem: problem.into() }
    }

    fn at_member(index: usize, key: &'static str, problem: impl Into<String>) -> Problem {
        Problem { key, member: Some(index), problem: problem.into() }
    }

    /// The line of the value in `text`, from 1.
    fn line(&self, text: &str) -> Option<usize> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let start = match self.member {
            None => 0,
            Some(index) => lines.iter().enumerate().filter(|(_, line)| **line == "[[member]]").nth(index)?.0,
        };
        let is_key = |line: &&str| line.strip_prefix(self.key).is_some_and(|rest| rest.trim_start().starts_with('='));
        lines[start..].iter().position(is_key).map(|offset| start + offset + 1)
    }
}

impl NodeConfig {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// If it can't be read, is not a node's configuration, or says something that can't work.
    pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        NodeConfig::parse(&text, path)
    }

    /// Checks the text of the file at `path`, which need not be there: errors name it, relative paths start at its folder.
    ///
    /// # Errors
    /// If it is not a node's configuration, or says something that can't work.
    pub fn parse(text: &str, path: &Path) -> Result<NodeConfig, ConfigError> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file: ConfigFile = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let config = NodeConfig::from_file(file, folder);
        match config.check() {
            Ok(()) => Ok(config),
            Err(problem) => {
                Err(ConfigError::Invalid { path: path.to_owned(), line: problem.line(text), problem: problem.problem })
            }
        }
    }

    fn from_file(file: ConfigFile, folder: &Path) -> NodeConfig {
        NodeConfig {
            cluster: file.cluster,
            node: file.node,
            // Joining an absolute path replaces the folder.
            data_dir: file.data_dir.map_or_else(|| folder.to_owned(), |dir| folder.join(dir)),
            client_listen: file.client_listen.unwrap_or_else(|| loopback(DEFAULT_CLIENT_PORT)),
            peer_listen: file.peer_listen.unwrap_or_else(|| loopback(DEFAULT_PEER_PORT)),
            window: file.window.unwrap_or(DEFAULT_WINDOW),
            owner_history: file.owner_history.unwrap_or(DEFAULT_OWNER_HISTORY),
            transaction_limit: file.transaction_limit.unwrap_or(DEFAULT_TRANSACTION_LIMIT),
            bank: BankTerms {
                asset: file.asset.map_or_else(OwnAsset::default, |AssetText(asset)| asset),
                allow_overdraft: file.allow_overdraft,
            },
            sessions: SessionLimits {
                open: file.max_sessions.unwrap_or(DEFAULT_MAX_SESSIONS),
                idle_ms: file.session_idle_ms.unwrap_or(DEFAULT_SESSION_IDLE_MS),
            },
            level: file.level.unwrap_or(1),
            founding: Founding {
                secret: file.secret.unwrap_or(Founding::default().secret),
                tokens: file.first_token.into_iter().map(FirstToken::founding).collect(),
            },
            members: file.member,
            allowed_origins: file.allowed_origins,
            tls: file.tls.map(|tls| TlsFiles {
                certificate: absolute(folder.join(tls.certificate)),
                key: absolute(folder.join(tls.key)),
                client_ca: tls.client_ca.map(|path| absolute(folder.join(path))),
            }),
            insecure: file.insecure,
            limits: file.limits,
        }
    }

    /// The constants of the cluster.
    pub fn genesis(&self) -> Genesis {
        Genesis {
            cluster: self.cluster,
            stores: self.members.iter().map(|member| member.store).collect(),
            window: self.window,
            owner_history: self.owner_history,
            transaction_limit: self.transaction_limit,
            bank: self.bank.clone(),
            sessions: self.sessions,
            level: self.level,
            founding: self.founding.clone(),
        }
    }

    /// The file that holds votes and log.
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.join(LOG_FILE)
    }

    /// The file that holds what the node knows of time. It need not be there.
    pub fn clock_path(&self) -> PathBuf {
        self.data_dir.join(CLOCK_FILE)
    }

    /// The file that holds the books.
    pub fn books_path(&self) -> PathBuf {
        self.data_dir.join(BOOKS_FILE)
    }

    /// The file that holds the member's key.
    pub fn key_path(&self) -> PathBuf {
        self.data_dir.join(KEY_FILE)
    }

    /// The members of the cluster but this one.
    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.node != self.node)
    }

    fn check(&self) -> Result<(), Problem> {
        self.check_members()?;
        if let Some(token) = self.founding.tokens.iter().find(|token| !(ADMIN..=DAILY).contains(&token.principal)) {
            let problem =
                format!("a cluster begins with tokens of principals {ADMIN} and {DAILY}, not {}", token.principal);
            return Err(Problem::at("principal", problem));
        }
        self.check_numbers()?;
        if self.client_listen == self.peer_listen && self.client_listen.port() != 0 {
            return Err(Problem::at("client_listen", "clients and peers need two ports; this is peer_listen too"));
        }
        for origin in &self.allowed_origins {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            if host.is_empty() || host.contains('/') {
                let problem = format!("\"{origin}\" is no origin: write scheme://host or scheme://host:port");
                return Err(Problem::at("allowed_origins", problem));
            }
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), Problem> {
        let count = self.members.len();
        if !(1..=MAX_NODES).contains(&count) {
            let problem = format!("a cluster has 1 to {MAX_NODES} [[member]] sections, this file has {count}");
            return Err(Problem::at("member", problem));
        }
        for (index, member) in self.members.iter().enumerate() {
            if member.node.index() != index {
                let problem = format!("the {count} members stand in order, 1 to {count}: here belongs {}", index + 1);
                return Err(Problem::at_member(index, "node", problem));
            }
            let (host, port) = member.address.rsplit_once(':').unwrap_or_default();
            if host.is_empty() || !port.parse::<u16>().is_ok_and(|port| port != 0) {
                let problem = format!("\"{}\" is no address: write host:port", member.address);
                return Err(Problem::at_member(index, "address", problem));
            }
            for other in &self.members[..index] {
                if other.store == member.store {
                    let problem = format!("members {} and {} have the same store", other.node, member.node);
                    return Err(Problem::at_member(index, "store", problem));
                }
                if other.address == member.address {
                    let problem = format!("members {} and {} have the same address", other.node, member.node);
                    return Err(Problem::at_member(index, "address", problem));
                }
            }
        }
        if self.node.index() >= count {
            let problem =
                format!("node {} is none of the {count} members: its [[member]] section is missing", self.node);
            return Err(Problem::at("node", problem));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), Problem> {
        let limits = &self.limits;
        // The longest message, and its answer, must fit into half of what all have: more is for those that have less.
        let (unread, message) = (MIN_UNREAD_BYTES as u64, 2 * limits.max_message_bytes as u64);
        let within: [(&'static str, u64, std::ops::RangeInclusive<u64>); 28] = [
            ("window", self.window, 1..=MAX_WINDOW),
            ("owner_history", self.owner_history, 1..=MAX_WINDOW),
            ("transaction_limit", self.transaction_limit, 1..=MAX_BALANCE),
            ("max_sessions", self.sessions.open, 1..=MAX_SESSIONS),
            ("session_idle_ms", self.sessions.idle_ms, MIN_SESSION_IDLE_MS..=MAX_SESSION_IDLE_MS),
            ("level", self.level.into(), 1..=u64::from(MAX_LEVEL)),
            ("max_message_bytes", limits.max_message_bytes as u64, MIN_MESSAGE_BYTES as u64..=MAX_MESSAGE_BYTES as u64),
            ("max_in_flight", limits.max_in_flight as u64, 1..=1 << 20),
            ("max_in_flight_per_principal", limits.max_in_flight_per_principal as u64, 1..=1 << 24),
            ("max_in_flight_node", limits.max_in_flight_node as u64, 1..=1 << 24),
            ("max_clients", limits.max_clients as u64, 1..=1 << 20),
            ("max_clients_per_principal", limits.max_clients_per_principal as u64, 1..=1 << 20),
            ("max_handshakes", limits.max_handshakes as u64, 1..=1 << 16),
            ("max_handshakes_per_address", limits.max_handshakes_per_address as u64, 1..=1 << 16),
            ("max_subscriptions_per_principal", limits.max_subscriptions_per_principal as u64, 1..=1 << 20),
            ("max_subscriptions_node", limits.max_subscriptions_node as u64, 2..=1 << 24),
            ("max_scanned_per_principal", limits.max_scanned_per_principal, 4_096..=1 << 40),
            ("max_unread_bytes", limits.max_unread_bytes as u64, unread..=1 << 32),
            ("max_unread_bytes_per_principal", limits.max_unread_bytes_per_principal as u64, unread..=1 << 36),
            ("max_unread_bytes_node", limits.max_unread_bytes_node as u64, 2 * unread..=1 << 40),
            ("max_unfinished_bytes_per_principal", limits.max_unfinished_bytes_per_principal as u64, message..=1 << 36),
            ("max_unfinished_bytes_node", limits.max_unfinished_bytes_node as u64, 2 * message..=1 << 40),
            ("max_waiting_bytes_per_principal", limits.max_waiting_bytes_per_principal as u64, message..=1 << 36),
            ("max_waiting_bytes_node", limits.max_waiting_bytes_node as u64, 2 * message..=1 << 40),
            ("request_timeout_ms", limits.request_timeout_ms, 10..=3_600_000),
            ("handshake_timeout_ms", limits.handshake_timeout_ms, 10..=3_600_000),
            ("snapshot_bytes", limits.snapshot_bytes, 1..=1 << 34),
            ("snapshot_slots", limits.snapshot_slots, 1..=1 << 24),
        ];
        for (key, value, range) in within {
            if !range.contains(&value) {
                let problem = format!("{key} is {value}, but must be {} to {}", range.start(), range.end());
                return Err(Problem::at(key, problem));
            }
        }
        Ok(())
    }

    /// The text of the file, with a comment on what a person may want to change. `data_dir` is left out: it is the
    /// folder of the file, so that the folder can be moved.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "# Rabia Bank: node {node} of {count}. Start it with `rabia-bank node --config FILE`.\n\
             # Relative paths start at the folder of this file. `data_dir` is that folder unless it is set here.\n\
             \n\
             cluster = \"{cluster}\"\n\
             node = {node}\n\
             \n\
             # Where clients connect, and where the other nodes do. Loopback only, unless you change it. Beyond loopback\n\
             # clients need TLS (below), or the words `insecure = true` here: who reads a token on its way has it.\n\
             client_listen = \"{client}\"\n\
             peer_listen = \"{peer}\"\n\
             \n\
             # Web pages that may connect besides the node's own, as \"https://example.org\".\n\
             allowed_origins = [{origins}]\n\
             \n\
             # Constants of the cluster: the same in every node's file, and never changed once it has run.\n\
             # window: slots in agreement at once. owner_history: how long a node stays a slot owner, in slots.\n\
             # transaction_limit: the largest amount of one transaction, in minor units. asset: what accounts hold where nothing\n\
             # else is said, and its decimal places. allow_overdraft: whether accounts may have a lower bound below 0.\n\
             # max_sessions: client sessions that may be open; for one more the one ends that was idle for longest, if for
\
             # an hour. session_idle_ms: so long may one be idle, in milliseconds.\n\
             # level: at which the cluster began; it may have been raised since (`rabia-bank client raise-level`).\n\
             window = {window}\n\
             owner_history = {history}\n\
             transaction_limit = {limit}\n\
             asset = \"{asset}\"\n\
             allow_overdraft = {overdraft}\n\
             max_sessions = {max_sessions}\n\
             session_idle_ms = {session_idle}\n\
             level = {level}\n\
             # What salts of hashes in the books are made of. Nobody else needs to know it.\n\
             secret = \"{secret}\"\n",
            node = self.node,
            count = self.members.len(),
            cluster = self.cluster,
            client = self.client_listen,
            peer = self.peer_listen,
            origins = self.allowed_origins.iter().map(|origin| quoted(origin)).collect::<Vec<_>>().join(", "),
            window = self.window,
            history = self.owner_history,
            limit = self.transaction_limit,
            asset = self.bank.asset,
            overdraft = self.bank.allow_overdraft,
            max_sessions = self.sessions.open,
            session_idle = self.sessions.idle_ms,
            level = self.level,
            secret = self.founding.secret,
        );
        if self.insecure {
            text.push_str("\n# Clients are served without TLS beyond loopback: whoever is on the way reads and changes what they say.\n");
            text.push_str("insecure = true\n");
        }
        self.write_tls(&mut text);
        self.limits.write_toml(&mut text);
        if !self.founding.tokens.is_empty() {
            text.push_str("\n# The tokens that the cluster begins with, as hashes. Those of today are in the log.\n");
        }
        for FoundingToken { principal, id, hash, expires_at } in &self.founding.tokens {
            let _ = writeln!(
                text,
                "[[first_token]]\nprincipal = {principal}\nid = \"{id}\"\nhash = \"{hash}\"\nexpires_at = {expires_at}\n"
            );
        }
        text.push_str("\n# All members, this node included.\n");
        for member in &self.members {
            let address = quoted(&member.address);
            // Writing to a String can't fail.
            let _ = writeln!(
                text,
                "[[member]]\nnode = {}\nstore = \"{}\"\naddress = {address}\n",
                member.node, member.store
            );
        }
        text
    }
}

impl NodeConfig {
    fn write_tls(&self, text: &mut String) {
        text.push_str(
            "\n# TLS for clients: PEM files, read again when they change and on SIGHUP. With client_ca, only clients with a\n\
             # certificate of one of its authorities are let in.\n",
        );
        let Some(TlsFiles { certificate, key, client_ca }) = &self.tls else {
            text.push_str("#[tls]\n#certificate = \"tls.pem\"\n#key = \"tls.key\"\n#client_ca = \"clients.pem\"\n");
            return;
        };
        // Files in the folder move with it.
        let data_dir = absolute(self.data_dir.clone());
        let line = |path: &Path| {
            let within = path.strip_prefix(&data_dir).or_else(|_| path.strip_prefix(&self.data_dir));
            quoted(&within.unwrap_or(path).to_string_lossy())
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "[tls]\ncertificate = {}\nkey = {}", line(certificate), line(key));
        if let Some(client_ca) = client_ca {
            let _ = writeln!(text, "client_ca = {}", line(client_ca));
        }
    }
}

impl FirstToken {
    fn founding(self) -> FoundingToken {
        let FirstToken { principal, id, hash, expires_at } = self;
        FoundingToken { principal, id, hash, expires_at }
    }
}

/// The same path wherever the process goes; as it is, where that can't be told.
/// An asset as it stands in the file: `EUR:2`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct AssetText(OwnAsset);

impl TryFrom<String> for AssetText {
    type Error = String;

    fn try_from(text: String) -> Result<AssetText, String> {
        text.parse().map(AssetText)
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> NodeConfig {
        let member = |number: u8| Member {
            node: NodeId::new(number).unwrap(),
            store: StoreId([number; 16]),
            address: format!("127.0.0.1:{}", 7200 + u16::from(number)),
        };
        NodeConfig {
            cluster: ClusterId([7; 16]),
            node: NodeId::new(2).unwrap(),
            data_dir: PathBuf::new(),
            client_listen: loopback(7102),
            peer_listen: loopback(7202),
            window: 8,
            owner_history: 4,
            transaction_limit: 5_000,
            bank: BankTerms { asset: "EUR:2".parse().unwrap(), allow_overdraft: true },
            sessions: SessionLimits { open: 12, idle_ms: 60_000 },
            level: 3,
            founding: Founding {
                secret: Secret([9; 32]),
                tokens: vec![FoundingToken {
                    principal: DAILY,
                    id: TokenId([1; 8]),
                    hash: Digest([2; 32]),
                    expires_at: 1_760_000_000_000,
                }],
            },
            members: (1..=3).map(member).collect(),
            allowed_origins: vec!["https://example.org".into(), "http://\"odd\":1".into()],
            tls: Some(TlsFiles {
                certificate: "tls.pem".into(),
                key: "/etc/tls/odd \"name\".key".into(),
                client_ca: Some("clients.pem".into()),
            }),
            insecure: true,
            limits: Limits { max_in_flight: 17, ..Limits::default() },
        }
    }

    fn load(text: &str) -> Result<NodeConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CONFIG_FILE);
        std::fs::write(&path, text).unwrap();
        let within = |path: PathBuf| path.strip_prefix(dir.path()).map(Path::to_owned).unwrap_or(path);
        NodeConfig::load(&path).map(|config| NodeConfig {
            tls: config.tls.map(|TlsFiles { certificate, key, client_ca }| TlsFiles {
                certificate: within(certificate),
                key: within(key),
                client_ca: client_ca.map(within),
            }),
            data_dir: config.data_dir.strip_prefix(dir.path()).map(Path::to_owned).unwrap_or(config.data_dir.clone()),
            ..config
        })
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(load(&example().to_toml()).unwrap(), example());
        let written = format!("data_dir = \"sub\"\n{}", example().to_toml());
        assert_eq!(load(&written).unwrap().data_dir, Path::new("sub"));
        let written = format!("data_dir = \"/elsewhere\"\n{}", example().to_toml());
        assert_eq!(load(&written).unwrap().data_dir, Path::new("/elsewhere"));
        // The file is written for the folder of the data: what is named in it is found from there.
        let folder = tempfile::tempdir().unwrap();
        for data_dir in ["sub", ".", "/elsewhere", "a/../b"] {
            let text = format!("data_dir = \"{data_dir}\"\n{}", example().to_toml());
            for certificate in ["tls.pem", "sub/tls.pem", "/elsewhere/tls.pem", "../tls.pem"] {
                let text = text.replace("\"tls.pem\"", &format!("\"{certificate}\""));
                let config = NodeConfig::parse(&text, &folder.path().join(CONFIG_FILE)).unwrap();
                let again = NodeConfig::parse(&config.to_toml(), &config.data_dir.join(CONFIG_FILE)).unwrap();
                assert_eq!(again, config, "{text}");
            }
        }
    }

    #[test]
    fn a_minimal_file_gets_the_defaults() {
        let text = "cluster = \"00112233445566778899aabbccddeeff\"\nnode = 1\n[[member]]\nnode = 1\n\
                    store = \"00112233445566778899aabbccddeeff\"\naddress = \"localhost:7201\"\n";
        let config = load(text).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!((config.client_listen, config.peer_listen), (loopback(7101), loopback(7201)));
        assert_eq!((config.window, config.transaction_limit), (DEFAULT_WINDOW, DEFAULT_TRANSACTION_LIMIT));
        assert_eq!(config.sessions, SessionLimits::default());
        assert!(config.tls.is_none() && !config.insecure);
        let plain = NodeConfig { tls: None, insecure: false, ..example() };
        assert_eq!(load(&plain.to_toml()).unwrap(), plain);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let good = example().to_toml();
        let mistakes = [
            ("window = 8", "window = 0", "window is 0"),
            ("window = 8", "windw = 8", "unknown field `windw`"),
            ("window = 8", "window = \"8\"", "invalid type"),
            ("node = 2", "node = 4", "node 4 is none of the 3 members"),
            ("node = 2", "node = 9", "1 to 7"),
            ("cluster = \"0707", "cluster = \"07", "32 hexadecimal digits"),
            ("client_listen = \"127.0.0.1:7102\"", "client_listen = \"nowhere\"", "socket address"),
            ("client_listen = \"127.0.0.1:7102\"", "client_listen = \"127.0.0.1:7202\"", "two ports"),
            ("transaction_limit = 5000", "transaction_limit = 9007199254740992", "transaction_limit is"),
            ("max_sessions = 12", "max_sessions = 0", "max_sessions is 0"),
            ("session_idle_ms = 60000", "session_idle_ms = 1", "session_idle_ms is 1"),
            ("certificate = ", "certificat = ", "unknown field `certificat`"),
            ("= [\"https://example.org", "= [\"example.org", "no origin"),
            ("max_in_flight = 17", "max_in_flight = 0", "max_in_flight is 0"),
            ("max_message_bytes = 4194304", "max_message_bytes = 99999999", "max_message_bytes is"),
            ("address = \"127.0.0.1:7203\"", "address = \"127.0.0.1\"", "no address"),
            ("address = \"127.0.0.1:7203\"", "address = \"127.0.0.1:7202\"", "the same address"),
            (
                "store = \"03030303030303030303030303030303\"",
                "store = \"02020202020202020202020202020202\"",
                "same store",
            ),
            ("node = 3\nstore", "node = 2\nstore", "here belongs 3"),
        ];
        for (from, to, expected) in mistakes {
            assert!(good.contains(from), "{from}");
            let wrong = good.replacen(from, to, 1);
            let line = wrong.lines().position(|line| line.contains(to.lines().next().unwrap()));
            let message = load(&wrong).unwrap_err().to_string();
            assert!(message.contains(expected), "{to}: {message}");
            // Where the mistake repeats an earlier line, the later one is named.
            let is_repeat = expected.contains("same") || to.starts_with("node = 2");
            let line = line.unwrap() + 1;
            assert!(is_repeat || message.contains(&format!("line {line}")), "{to}: line {line}: {message}");
            assert!(message.contains(CONFIG_FILE), "{message}");
        }
    }

    #[test]
    fn a_missing_file_and_missing_members_say_what_to_do() {
        let missing = NodeConfig::load(Path::new("/nonexistent/node.toml")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/node.toml") && missing.contains("rabia-bank create"), "{missing}");
        let text = format!("cluster = \"{}\"\nnode = 1\n", ClusterId([7; 16]));
        assert!(load(&text).unwrap_err().to_string().contains("0"), "no members");
    }
}
