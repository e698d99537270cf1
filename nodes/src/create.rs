//! The folder of a cluster: `DIR/node-1`, `DIR/node-2` …, each with a `node.toml`, a store (two files) and
//! the key that is made with it.
//!
//! A cluster is created as a whole or not at all: everything is written into an unfinished folder beside DIR, synced, and
//! renamed to DIR at the end. A creation that is interrupted leaves a `.DIR.unfinished-…` behind, which nothing ever reads
//! and which may be deleted; creating again just works. Renaming fails where DIR has content, so two creations at once
//! can't mix either.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rabia_bank_actors::uptime;
use rabia_bank_messages::bank::DEFAULT_TRANSACTION_LIMIT;
use rabia_bank_messages::escape::escaped;
use rabia_bank_messages::genesis::{BankTerms, DEFAULT_WINDOW, Founding, Genesis, SessionLimits};
use rabia_bank_messages::ids::{ClusterId, MAX_NODES, Millis, NodeId};
use rabia_bank_messages::level;
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{BooksStore, LogStore, Snapshot, StoreError};

use crate::config::{
    BOOKS_FILE, CLOCK_FILE, CONFIG_FILE, ConfigError, DEFAULT_CLIENT_PORT, LOG_FILE, Limits, Member, NodeConfig,
    TlsFiles,
};
use crate::member_key::{KEY_FILE, MemberKey};
use crate::tokens::{self, FirstTokens};
use crate::{private, random};

/// The certificate for clients of a cluster that was created with one, in its folder and in that of each node.
pub const CERTIFICATE_FILE: &str = "tls.pem";
/// Its key, in the folder of each node.
pub const CERTIFICATE_KEY_FILE: &str = "tls.key";
/// Peer ports start this far above the client ports.
pub const PEER_PORT_OFFSET: u16 = 100;
/// The highest first port: the last peer port must exist too.
pub const MAX_BASE_PORT: u16 = u16::MAX - PEER_PORT_OFFSET - MAX_NODES as u16;

/// A cluster to be created, all of it on this machine's loopback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCluster {
    /// The folder; it must be absent or empty.
    pub data_dir: PathBuf,
    /// How many nodes, 1 to 7.
    pub nodes: usize,
    /// Node K listens for clients on `base_port + K − 1`, and for peers [`PEER_PORT_OFFSET`] above.
    pub base_port: u16,
    /// W: slots in agreement at once.
    pub window: u64,
    /// The largest amount of one transaction of the cluster's own asset, in minor units.
    pub transaction_limit: u64,
    /// What the bank is about.
    pub bank: BankTerms,
    /// When sessions expire in the new cluster.
    pub sessions: SessionLimits,
    /// The level that it begins at: 1 to the highest that this program knows.
    pub level: u32,
    /// What all nodes show clients; none: they are served plain.
    pub tls: Option<NewCertificate>,
}

/// A certificate for clients of all nodes of a new cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// PEM. A copy of it lies in the cluster's folder, for clients to trust ([`CERTIFICATE_FILE`]).
    pub certificate: String,
    /// The key of it: PEM.
    pub key: String,
}

impl std::fmt::Debug for NewCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl NewCluster {
    /// So many nodes in this folder, everything else as it is where nobody says otherwise.
    pub fn new(data_dir: impl Into<PathBuf>, nodes: usize) -> NewCluster {
        NewCluster {
            data_dir: data_dir.into(),
            nodes,
            base_port: DEFAULT_CLIENT_PORT,
            window: DEFAULT_WINDOW,
            transaction_limit: DEFAULT_TRANSACTION_LIMIT,
            bank: BankTerms::default(),
            sessions: SessionLimits::default(),
            level: level::highest(),
            tls: None,
        }
    }
}

/// Why a cluster was not created, or its folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterDirError {
    /// The folder holds something already.
    #[error("{} is not empty; choose another --data-dir, or delete it if nothing in it is needed", .0.display())]
    NotEmpty(PathBuf),
    /// The folder holds no cluster.
    #[error("there is no cluster in {}; `rabia-bank create --data-dir {}` makes one", .0.display(), .0.display())]
    NoNodes(PathBuf),
    /// There are other things, and no cluster.
    #[error(
        "{} holds no cluster but other things ({found}), and is left as it is; choose another --data-dir: a cluster is made where \
         nothing is yet", path.display()
    )]
    OtherThings {
        /// The folder that was named for the cluster.
        path: PathBuf,
        /// The name of one of them.
        found: String,
    },
    /// The number of nodes is none that a cluster can have.
    #[error("a cluster has 1 to {MAX_NODES} nodes, not {0}")]
    NodeCount(usize),
    /// The folder holds another cluster.
    #[error("{} holds a cluster of {found}, not of {expected}; choose another folder", path.display())]
    OtherNodeCount {
        /// The folder that was named for the cluster.
        path: PathBuf,
        /// How many nodes it has.
        found: usize,
        /// How many were asked for.
        expected: usize,
    },
    /// There is no such level, as far as this program knows.
    #[error("a cluster begins at level 1 to {highest}, not at {0}", highest = level::highest())]
    Level(u32),
    /// The ports do not fit.
    #[error("the base port must be 1 to {MAX_BASE_PORT}, not {0}")]
    BasePort(u16),
    /// A folder or file can't be made.
    #[error("can't write {}: {source}", path.display())]
    Io {
        /// The file or folder that can't be written.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A store can't be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No node's configuration can be read; this is the problem of the first.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The folder of a node.
pub fn node_dir(data_dir: &Path, node: NodeId) -> PathBuf {
    data_dir.join(format!("node-{node}"))
}

/// The configuration of a node.
pub fn config_path(data_dir: &Path, node: NodeId) -> PathBuf {
    node_dir(data_dir, node).join(CONFIG_FILE)
}

/// Whether there is nothing at `dir`, or an empty folder.
///
/// # Errors
/// If that can't be found out.
pub fn is_vacant(dir: &Path) -> Result<bool, ClusterDirError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(ClusterDirError::Io { path: dir.to_owned(), source }),
    }
}

/// Creates configurations and stores for all nodes, with ids drawn at random.
///
/// # Errors
/// If there is something already, or it can't be written. Nothing is created then.
pub fn create(new: &NewCluster) -> Result<Vec<NodeConfig>, ClusterDirError> {
    let (founding, tokens) = tokens::found(wall(), true);
    create_from(new, None, founding, &tokens)
}

/// The configurations of the cluster in this folder, which is created if there is none.
///
/// # Errors
/// If it can't be created, or there is something else, or another number of nodes, in the folder.
pub fn create_or_open(new: &NewCluster) -> Result<Vec<NodeConfig>, ClusterDirError> {
    if is_vacant(&new.data_dir)? {
        return create(new);
    }
    let configs = open(&new.data_dir)?.into_iter().map(|place| place.config).collect::<Result<Vec<_>, _>>()?;
    if configs.len() != new.nodes {
        return Err(ClusterDirError::OtherNodeCount {
            path: new.data_dir.clone(),
            found: configs.len(),
            expected: new.nodes,
        });
    }
    Ok(configs)
}

/// Creates configurations and stores for all nodes, that go on from these books.
///
/// # Errors
/// As for [`create`].
#[cfg(feature = "cli")]
pub(crate) fn restore(
    new: &NewCluster,
    books: &Snapshot,
    founding: Founding,
    tokens: &FirstTokens,
) -> Result<Vec<NodeConfig>, ClusterDirError> {
    create_from(new, Some(books), founding, tokens)
}

fn create_from(
    new: &NewCluster,
    books: Option<&Snapshot>,
    founding: Founding,
    tokens: &FirstTokens,
) -> Result<Vec<NodeConfig>, ClusterDirError> {
    if !(1..=MAX_NODES).contains(&new.nodes) {
        return Err(ClusterDirError::NodeCount(new.nodes));
    }
    if !(1..=level::highest()).contains(&new.level) {
        return Err(ClusterDirError::Level(new.level));
    }
    if !(1..=MAX_BASE_PORT).contains(&new.base_port) {
        return Err(ClusterDirError::BasePort(new.base_port));
    }
    if !is_vacant(&new.data_dir)? {
        return Err(ClusterDirError::NotEmpty(new.data_dir.clone()));
    }
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ClusterDirError::Io { path, source }
    };
    let parent = match new.data_dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = new.data_dir.file_name().unwrap_or_default().to_string_lossy();
    fs::create_dir_all(parent).map_err(at(parent))?;
    let unfinished = tempfile::Builder::new()
        .prefix(&format!(".{name}.unfinished-"))
        .permissions(private_folder())
        .tempdir_in(parent)
        .map_err(at(parent))?;
    let keys: Vec<MemberKey> = (0..new.nodes).map(|_| MemberKey::draw()).collect();
    let configs = configs(new, &keys, founding);
    tokens.write(unfinished.path()).map_err(at(unfinished.path()))?;
    for (config, key) in configs.iter().zip(&keys) {
        write_node(unfinished.path(), config, key, books)?;
        if let Some(NewCertificate { certificate, key }) = &new.tls {
            let dir = node_dir(unfinished.path(), config.node);
            write_text(&dir.join(CERTIFICATE_FILE), certificate)?;
            write_text(&dir.join(CERTIFICATE_KEY_FILE), key)?;
        }
    }
    if let Some(NewCertificate { certificate, .. }) = &new.tls {
        write_text(&unfinished.path().join(CERTIFICATE_FILE), certificate)?;
    }
    sync_dir(unfinished.path())?;
    fs::rename(unfinished.path(), &new.data_dir).map_err(at(&new.data_dir))?;
    sync_dir(parent)?;
    Ok(configs)
}

fn write_text(path: &Path, text: &str) -> Result<(), ClusterDirError> {
    let written = private::write_new(path, text.as_bytes());
    written.map_err(|source| ClusterDirError::Io { path: path.to_owned(), source })
}

fn private_folder() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(private::FOLDER)
}

/// The configurations of all nodes, which have these keys; each is to lie in its [`node_dir`].
fn configs(new: &NewCluster, keys: &[MemberKey], founding: Founding) -> Vec<NodeConfig> {
    let nodes = NodeId::all(new.nodes);
    let port = |node: NodeId, offset: u16| new.base_port + offset + u16::from(node.get()) - 1;
    let listen = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let members: Vec<Member> = nodes
        .clone()
        .zip(keys)
        .map(|(node, key)| Member {
            node,
            store: key.store(),
            address: listen(port(node, PEER_PORT_OFFSET)).to_string(),
        })
        .collect();
    let stores = members.iter().map(|member| member.store).collect();
    let genesis = Genesis::new(ClusterId(random::bytes()), stores);
    nodes
        .map(|node| NodeConfig {
            cluster: genesis.cluster,
            node,
            data_dir: node_dir(&new.data_dir, node),
            client_listen: listen(port(node, 0)),
            peer_listen: listen(port(node, PEER_PORT_OFFSET)),
            window: new.window,
            owner_history: genesis.owner_history,
            transaction_limit: new.transaction_limit,
            bank: new.bank.clone(),
            sessions: new.sessions,
            level: new.level,
            founding: founding.clone(),
            members: members.clone(),
            allowed_origins: Vec::new(),
            tls: new.tls.as_ref().map(|_| TlsFiles {
                certificate: node_dir(&new.data_dir, node).join(CERTIFICATE_FILE),
                key: node_dir(&new.data_dir, node).join(CERTIFICATE_KEY_FILE),
                client_ca: None,
            }),
            insecure: false,
            limits: Limits::default(),
        })
        .collect()
}

fn write_node(
    unfinished: &Path,
    config: &NodeConfig,
    key: &MemberKey,
    books: Option<&Snapshot>,
) -> Result<(), ClusterDirError> {
    let dir = node_dir(unfinished, config.node);
    private::create_folder(&dir).map_err(|source| ClusterDirError::Io { path: dir.clone(), source })?;
    write_text(&dir.join(CONFIG_FILE), &config.to_toml())?;
    let path = dir.join(KEY_FILE);
    key.write_new(&path).map_err(|source| ClusterDirError::Io { path, source })?;
    let identity = Identity { genesis: config.genesis(), node: config.node };
    LogStore::create(&dir.join(LOG_FILE), &identity, books.map_or(0, |books| books.slot))?;
    BooksStore::create(&dir.join(BOOKS_FILE), &identity, books)?;
    if books.is_some() {
        // Whoever restores books says that they go on now, however old they are.
        let path = dir.join(CLOCK_FILE);
        uptime::write(&path, wall()).map_err(|source| ClusterDirError::Io { path, source })?;
    }
    sync_dir(&dir)
}

/// What this machine's clock shows, in milliseconds since the Unix epoch.
pub(crate) fn wall() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Millis)
}

fn sync_dir(dir: &Path) -> Result<(), ClusterDirError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| ClusterDirError::Io { path: dir.to_owned(), source })
}

/// A node's place in the folder of its cluster.
#[derive(Debug)]
pub struct NodePlace {
    /// The number of the member, from 1.
    pub node: NodeId,
    /// Where its configuration should be.
    pub config_path: PathBuf,
    /// What that says. One node's broken file does not keep the others from running.
    pub config: Result<NodeConfig, ConfigError>,
}

/// The nodes of the cluster in `data_dir`, in order.
///
/// # Errors
/// If there is no configuration that can be read.
pub fn open(data_dir: &Path) -> Result<Vec<NodePlace>, ClusterDirError> {
    let mut places: Vec<NodePlace> = NodeId::all(MAX_NODES)
        .map(|node| {
            let config_path = config_path(data_dir, node);
            NodePlace { node, config: NodeConfig::load(&config_path), config_path }
        })
        .collect();
    let members = places.iter().find_map(|place| place.config.as_ref().ok()).map(|config| config.members.len());
    match members {
        Some(members) => {
            places.truncate(members);
            Ok(places)
        }
        None => match places.into_iter().find(|place| place.config_path.exists()) {
            Some(NodePlace { config: Err(error), .. }) => Err(error.into()),
            _ => Err(no_nodes(data_dir)),
        },
    }
}

/// Says what is there instead of a cluster.
fn no_nodes(data_dir: &Path) -> ClusterDirError {
    let path = data_dir.to_owned();
    let names = fs::read_dir(data_dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
    match names.min() {
        Some(name) => ClusterDirError::OtherThings { path, found: escaped(&name.to_string_lossy()).to_string() },
        None => ClusterDirError::NoNodes(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_cluster(data_dir: PathBuf) -> NewCluster {
        NewCluster { transaction_limit: 1_000, ..NewCluster::new(data_dir, 3) }
    }

    #[test]
    fn folders_and_files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("bank");
        let configs = create(&new_cluster(dir.clone())).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join("admin")), 0o700);
        assert_eq!(mode(&tokens::admin_token(&dir)), 0o600);
        assert_eq!(mode(&tokens::client_token(&dir)), 0o600);
        for config in &configs {
            assert_eq!(mode(&config.data_dir), 0o700);
            for entry in fs::read_dir(&config.data_dir).unwrap() {
                let path = entry.unwrap().path();
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }

    #[test]
    fn every_node_gets_what_it_needs_and_reads_it_back() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("deep").join("bank");
        let configs = create(&new_cluster(dir.clone())).unwrap();
        let places = open(&dir).unwrap();
        assert_eq!(places.len(), 3);
        for (place, config) in places.iter().zip(&configs) {
            assert_eq!(place.config.as_ref().unwrap(), config);
            assert!(config.log_path().is_file() && config.books_path().is_file());
            let key = MemberKey::load(&config.key_path()).unwrap();
            assert_eq!(key.store(), config.members[config.node.index()].store);
            assert_eq!(config.genesis(), configs[0].genesis());
            assert_eq!(config.client_listen.port(), 7100 + u16::from(config.node.get()));
            assert_eq!(config.peer_listen.port(), 7200 + u16::from(config.node.get()));
        }
        let left_over = fs::read_dir(dir.parent().unwrap()).unwrap().count();
        assert_eq!(left_over, 1, "an unfinished folder was left behind");
    }

    #[test]
    fn nothing_is_overwritten() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("bank");
        create(&new_cluster(dir.clone())).unwrap();
        let before = fs::read(config_path(&dir, NodeId::new(1).unwrap())).unwrap();
        assert!(matches!(create(&new_cluster(dir.clone())), Err(ClusterDirError::NotEmpty(_))));
        assert_eq!(fs::read(config_path(&dir, NodeId::new(1).unwrap())).unwrap(), before);
    }

    #[test]
    fn an_empty_folder_and_an_interrupted_creation_are_no_obstacle() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("bank");
        fs::create_dir(&dir).unwrap();
        fs::create_dir_all(temp.path().join(".bank.unfinished-a1b2c3/node-1")).unwrap();
        create(&new_cluster(dir.clone())).unwrap();
        assert_eq!(open(&dir).unwrap().len(), 3);
    }

    #[test]
    fn a_folder_with_other_things_is_named_with_one_of_them() {
        let temp = tempfile::tempdir().unwrap();
        assert!(matches!(open(temp.path()), Err(ClusterDirError::NoNodes(_))));
        fs::write(temp.path().join("letters"), "dear").unwrap();
        let error = open(temp.path()).unwrap_err().to_string();
        assert!(error.contains("letters") && !error.contains("rabia-bank create"), "{error}");
    }

    #[test]
    fn counts_and_ports_that_do_not_fit_are_refused_before_anything_is_made() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("bank");
        for nodes in [0, 8] {
            let new = NewCluster { nodes, ..new_cluster(dir.clone()) };
            assert!(matches!(create(&new), Err(ClusterDirError::NodeCount(_))));
        }
        for base_port in [0, MAX_BASE_PORT + 1] {
            let new = NewCluster { base_port, ..new_cluster(dir.clone()) };
            assert!(matches!(create(&new), Err(ClusterDirError::BasePort(_))));
        }
        assert!(!dir.exists());
        assert!(matches!(open(&dir), Err(ClusterDirError::NoNodes(_))));
    }

    #[test]
    fn one_broken_configuration_does_not_hide_the_others() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("bank");
        create(&new_cluster(dir.clone())).unwrap();
        fs::write(config_path(&dir, NodeId::new(1).unwrap()), "node = 9").unwrap();
        let places = open(&dir).unwrap();
        assert_eq!(places.iter().map(|place| place.config.is_ok()).collect::<Vec<_>>(), [false, true, true]);
    }
}
