//! Replacing a lost store: a member whose data is gone or damaged comes back as the same member, with a new store.
//!
//! Two steps, which `rabia-bank replace` takes one after the other, and which may lie on two machines:
//!
//! 1. [`prepare`] makes an empty store with a new [key](crate::member_key), and so under a new id, in the folder of the node. What was there is set aside, in a folder
//!    beside it, and never deleted.
//! 2. [`tell`] asks another node, which runs, to put the new store into the log. A node answers that only on its control socket
//!    ([`control`]), so whoever can write to a running node's folder may do this, and nobody else. The new
//!    store says nothing before all nodes know it from the log, and the old one nothing after.
//!
//! Then the node is started as ever, and catches up. Each step can be interrupted at any point, and the whole be done again: a
//! store that was prepared is found and told again, and telling twice is telling once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rabia_bank_messages::ids::{NodeId, Slot, StoreId};
use rabia_bank_messages::promise::Identity;
use rabia_bank_storage::{BooksReader, BooksStore, LogReader, LogStore, StoreError};

use crate::config::{BOOKS_FILE, CONFIG_FILE, LOG_FILE, NodeConfig};
use crate::control::{self, ControlError};
use crate::member_key::{KEY_FILE, KeyError, MemberKey};
use crate::private;

/// Why a store was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// There would be nothing to come back to.
    #[error(
        "a cluster of {0} can't replace a store: nobody else has what the lost one promised and acknowledged. Restore a backup: \
         `rabia-bank restore --help`"
    )]
    TooFew(usize),
    /// The node whose store is to be replaced runs.
    #[error("node {node} is running in {}; stop it first", folder.display())]
    Running {
        /// The number of the member.
        node: NodeId,
        /// The folder that it runs in.
        folder: PathBuf,
    },
    /// There is nothing wrong with the store.
    #[error(
        "the store of node {node} in {} looks whole, and is left as it is: start the node. If it refuses to start because the \
         store is damaged all the same, its key may be in other hands, or the disk is to be changed, say --force: the store is set aside then",
        folder.display()
    )]
    Whole {
        /// The number of the member whose store it is.
        node: NodeId,
        /// The folder that the store lies in.
        folder: PathBuf,
    },
    /// A store can't be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Files can't be moved.
    #[error("can't write {}: {source}", path.display())]
    Io {
        /// The file or folder that can't be moved.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The other node does not do it.
    #[error(transparent)]
    Told(#[from] ControlError),
}

/// A store that waits to be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// The id of the new store.
    pub store: StoreId,
    /// Where the files are now that were there before; none if there were none, or this store was there already.
    pub set_aside: Option<PathBuf>,
    /// Whether it was prepared before.
    pub again: bool,
}

/// Makes a new store in the folder of a node that does not run, unless one is there that was made so. `force` replaces also a
/// store that looks whole.
///
/// # Errors
/// If the node runs, its store looks whole, the cluster can't replace stores, or files can't be moved or made.
pub fn prepare(config: &NodeConfig, force: bool) -> Result<Prepared, ReplaceError> {
    let identity = Identity { genesis: config.genesis(), node: config.node };
    let (node, members) = (config.node, config.members.len());
    if identity.genesis.quorums().faults() == 0 {
        return Err(ReplaceError::TooFew(members));
    }
    let found = look(config, &identity);
    if matches!(found, Err(Broken::Store(StoreError::InUse { .. }))) || control::is_answered(&config.data_dir) {
        return Err(ReplaceError::Running { node, folder: config.data_dir.clone() });
    }
    match found {
        _ if force => {}
        Ok(store) if store == identity.genesis.stores[node.index()] => {
            return Err(ReplaceError::Whole { node, folder: config.data_dir.clone() });
        }
        Ok(store) => return Ok(Prepared { store, set_aside: None, again: true }),
        // It is whole, for the program that wrote it.
        Err(Broken::Store(error @ StoreError::Version { .. })) => return Err(error.into()),
        Err(_) => {}
    }
    private::create_folders(&config.data_dir).map_err(at(&config.data_dir))?;
    let set_aside = set_aside(config)?;
    let (key, path) = (MemberKey::draw(), config.key_path());
    let store = key.store();
    // The log last: without it there is no store, and it is made anew.
    key.write_new(&path).map_err(at(&path))?;
    BooksStore::create_replacing(&config.books_path(), &identity, store)?;
    LogStore::create_replacing(&config.log_path(), &identity, store)?;
    Ok(Prepared { store, set_aside, again: false })
}

/// What is wrong with a store that is no use as it is.
#[derive(Debug)]
enum Broken {
    Store(StoreError),
    /// The key is lost, or of another store.
    Key,
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Broken {
        Broken::Store(error)
    }
}

/// Which store lies in the folder, if it can be opened, and both files and the key are of it: all of the log is verified.
fn look(config: &NodeConfig, identity: &Identity) -> Result<StoreId, Broken> {
    let mut books = None;
    let (_, recovered) = LogReader::open(&config.log_path(), identity, || {
        let reader = books.insert(BooksReader::open(&config.books_path(), identity)?);
        reader.view().map(|view| view.slot())
    })?;
    books.map_or(Ok(()), |reader| reader.check_store(recovered.store))?;
    match MemberKey::load(&config.key_path()) {
        Ok(key) if key.store() == recovered.store => Ok(recovered.store),
        // Permissions can be put right.
        Err(KeyError::Open { .. } | KeyError::OpenFolder { .. }) => Ok(recovered.store),
        Ok(_) | Err(_) => Err(Broken::Key),
    }
}

/// Moves the files of a store into a folder of their own.
fn set_aside(config: &NodeConfig) -> Result<Option<PathBuf>, ReplaceError> {
    let present = |name: &&str| config.data_dir.join(name).symlink_metadata().is_ok();
    let names: Vec<&str> = [LOG_FILE, BOOKS_FILE, KEY_FILE].into_iter().filter(present).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut folder = config.data_dir.join(format!("set-aside-{seconds}"));
    let mut tries = 0;
    while let Err(source) = private::create_folder(&folder) {
        if source.kind() != io::ErrorKind::AlreadyExists {
            return Err(ReplaceError::Io { path: folder, source });
        }
        tries += 1;
        folder = config.data_dir.join(format!("set-aside-{seconds}-{tries}"));
    }
    for name in names {
        let from = config.data_dir.join(name);
        fs::rename(&from, folder.join(name)).map_err(at(&from))?;
    }
    for changed in [&folder, &config.data_dir] {
        File::open(changed).and_then(|changed| changed.sync_all()).map_err(at(changed))?;
    }
    Ok(Some(folder))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ReplaceError + use<> {
    let path = path.to_owned();
    move |source| ReplaceError::Io { path, source }
}

/// Asks the running node in `through` to put into the log that `node` has the store `store` now, and waits until that is decided.
/// Answers in which slot it was.
///
/// # Errors
/// If nobody answers there, or the node says why it can't be done.
pub fn tell(through: &Path, node: NodeId, store: StoreId) -> Result<Slot, ReplaceError> {
    Ok(control::ask_replace(through, node, store)?)
}

/// The folders of other nodes beside this one's, as `rabia-bank create` lays them out, whose nodes run.
pub fn running_neighbours(config: &NodeConfig) -> Vec<PathBuf> {
    let own = config.data_dir.canonicalize().unwrap_or_else(|_| config.data_dir.clone());
    let Some(parent) = own.parent().and_then(|parent| fs::read_dir(parent).ok()) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = parent.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    folders.retain(|folder| *folder != own && folder.join(CONFIG_FILE).is_file() && control::is_answered(folder));
    folders.retain(|folder| {
        NodeConfig::load(&folder.join(CONFIG_FILE)).is_ok_and(|other| other.cluster == config.cluster)
    });
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::{NewCluster, config_path, create};

    fn cluster(nodes: usize) -> (tempfile::TempDir, NodeConfig) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("bank");
        create(&NewCluster::new(&dir, nodes)).unwrap();
        let config = NodeConfig::load(&config_path(&dir, NodeId::new(1).unwrap())).unwrap();
        (temp, config)
    }

    fn identity(config: &NodeConfig) -> Identity {
        Identity { genesis: config.genesis(), node: config.node }
    }

    #[test]
    fn a_store_is_prepared_once_and_nothing_is_deleted() {
        let (_temp, config) = cluster(3);
        assert!(matches!(prepare(&config, false), Err(ReplaceError::Whole { .. })));
        fs::write(config.log_path(), "damaged").unwrap();
        let prepared = prepare(&config, false).unwrap();
        let aside = prepared.set_aside.clone().unwrap();
        assert_eq!(fs::read(aside.join(LOG_FILE)).unwrap(), b"damaged");
        assert!(aside.join(BOOKS_FILE).is_file());
        let key = |folder: &Path| MemberKey::load(&folder.join(KEY_FILE)).unwrap().store();
        assert_eq!(key(&aside), identity(&config).genesis.stores[0], "the key goes with its store");
        assert_eq!(key(&config.data_dir), prepared.store);
        let again = prepare(&config, false).unwrap();
        assert_eq!(again, Prepared { set_aside: None, again: true, ..prepared.clone() });
        // Books of the former store were put beside the new log: a node would not start from them.
        let beside = config.data_dir.join("new-books");
        fs::rename(config.books_path(), &beside).unwrap();
        fs::copy(aside.join(BOOKS_FILE), config.books_path()).unwrap();
        assert!(matches!(look(&config, &identity(&config)), Err(Broken::Store(StoreError::OtherStore { .. }))));
        fs::rename(&beside, config.books_path()).unwrap();
        // Interrupted between the books and the log, it begins anew.
        fs::remove_file(config.log_path()).unwrap();
        let anew = prepare(&config, false).unwrap();
        assert!(anew.store != prepared.store && anew.set_aside.is_some_and(|second| second != aside));
    }

    #[test]
    fn a_whole_store_is_replaced_if_somebody_insists_and_an_empty_folder_without_a_word() {
        let (_temp, config) = cluster(3);
        let (_other, other) = cluster(3);
        // The key is lost, or another one was put there.
        let own = fs::read(config.key_path()).unwrap();
        for key in [None, Some(other.key_path())] {
            fs::remove_file(config.key_path()).unwrap();
            key.map(|key| fs::copy(key, config.key_path()).unwrap());
            assert!(matches!(look(&config, &identity(&config)), Err(Broken::Key)));
            private::write_new(&config.data_dir.join("kept"), &own).unwrap();
            fs::rename(config.data_dir.join("kept"), config.key_path()).unwrap();
        }
        assert!(matches!(prepare(&config, false), Err(ReplaceError::Whole { .. })));
        let forced = prepare(&config, true).unwrap();
        assert!(forced.set_aside.unwrap().join(LOG_FILE).is_file());
        fs::remove_dir_all(&config.data_dir).unwrap();
        let prepared = prepare(&config, false).unwrap();
        assert!(prepared.set_aside.is_none() && prepared.store != forced.store);
    }

    #[test]
    fn too_few_and_running_nodes_are_refused_before_anything_is_moved() {
        for nodes in [1, 2] {
            let (_temp, config) = cluster(nodes);
            let error = prepare(&config, true).unwrap_err().to_string();
            assert!(error.contains("Restore a backup"), "{error}");
        }
        let (_temp, config) = cluster(3);
        let identity = identity(&config);
        let (open, _) = LogStore::open(&config.log_path(), &identity, || Ok(0)).unwrap();
        assert!(matches!(prepare(&config, true), Err(ReplaceError::Running { .. })));
        drop(open);
        assert!(config.log_path().is_file() && config.books_path().is_file());
    }
}
