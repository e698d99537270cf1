//! What can go wrong with a store, told to the person who has to do something about it.

use std::io;
use std::path::PathBuf;

use rabia_bank_messages::ids::{ClusterId, NodeId, Slot, StoreId};

/// Why a store could not be created, opened, read or written. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store that should be here is not.
    #[error(
        "there is no store at {file}. Look for it: is the disk mounted, is the path right? If it is gone, this member's \
         promises are lost with it: do not bring back an old copy, for a node that forgot what it promised can make the \
         others disagree. They go on without it, and take it back with a new store: `rabia-bank replace --help`"
    )]
    Missing {
        /// Where it should be.
        file: PathBuf,
    },
    /// A store is to be created where something is already.
    #[error("{file} is there already, and is left as it is. A store is created once; to start its node, open it")]
    Exists {
        /// Left as it is.
        file: PathBuf,
    },
    /// Another process, or another part of this one, has the store open.
    #[error("{file} is in use by another process. Stop that one first: a member runs once")]
    InUse {
        /// Held by the other process.
        file: PathBuf,
    },
    /// The file is of a version that this program does not know.
    #[error(
        "{file} has format version {found}, this program knows version {known}. Use the program that wrote it, or \
         restore a backup that it made: `rabia-bank restore --help`"
    )]
    Version {
        /// Of the other version; left as it is.
        file: PathBuf,
        /// As it stands in the file.
        found: u32,
        /// The one that this program writes.
        known: u32,
    },
    /// A store, but not of the cluster in the configuration.
    #[error("{file} belongs to cluster {found}, but this node is configured for cluster {expected}. Check the paths")]
    OtherCluster {
        /// Left as it is.
        file: PathBuf,
        /// As the file says.
        found: ClusterId,
        /// As the configuration says.
        expected: ClusterId,
    },
    /// A store of the cluster, but not of this member.
    #[error("{file} belongs to node {found}, but this is node {expected}. Check the paths")]
    OtherNode {
        /// Left as it is.
        file: PathBuf,
        /// As the file says.
        found: NodeId,
        /// As the configuration says.
        expected: NodeId,
    },
    /// Not the store that this member has in the configuration, or not that of the other file.
    #[error(
        "{file} is of store {found}, but by the configuration, and the files beside it, it should be of store {expected}. \
         Check the paths: was an old file put back?"
    )]
    OtherStore {
        /// Left as it is.
        file: PathBuf,
        /// As the file says.
        found: StoreId,
        /// The store id that it should have.
        expected: StoreId,
    },
    /// Other constants than those of the configuration.
    #[error(
        "{file} was created for other constants of the cluster than the configuration has: {what}. They are fixed when \
         the cluster is created; set the configuration back"
    )]
    OtherGenesis {
        /// Left as it is.
        file: PathBuf,
        /// Which differ, and how.
        what: String,
    },
    /// The identity names a node that the cluster does not have.
    #[error("the store {file} is to be node {node}'s, but the cluster has {members} members")]
    NoMember {
        /// Neither made nor opened.
        file: PathBuf,
        /// As the configuration says.
        node: NodeId,
        /// How many members there are.
        members: usize,
    },
    /// The file is not what was written.
    #[error(
        "{file} is damaged: {what}. The node does not speak from it, for its promises may be among what is lost. Check \
         the disk; the other members go on without it, and take it back with a new store: `rabia-bank replace --help`"
    )]
    Damaged {
        /// Left as it is.
        file: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// The disk, or what this user may use of it, is full.
    #[error("no space left to write {file} ({source}). Make space and start the node again")]
    Full {
        /// What was written last may or may not be in it.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The books do not reach the log.
    #[error(
        "{file} begins after slot {compacted}, but the books beside it stand after slot {books}: the file of the books is \
         missing or an old copy. Look for the right one; without it this member needs a new store: `rabia-bank replace --help`"
    )]
    Gap {
        /// Where the log is.
        file: PathBuf,
        /// The last slot that is not in the log any more.
        compacted: Slot,
        /// The slot of the books.
        books: Slot,
    },
    /// The log and the books are of different pasts.
    #[error(
        "{file} has another log up to slot {slot} than the books beside it: one of the two files is a copy from another time, or \
         of another node's. Look for the right ones; without them this member needs a new store: `rabia-bank replace --help`"
    )]
    OtherLog {
        /// Where the log is.
        file: PathBuf,
        /// The slot of the books.
        slot: Slot,
    },
    /// Reading or writing failed otherwise.
    #[error("{file} can't be read or written: {source}")]
    Io {
        /// The log or the books.
        file: PathBuf,
        /// What the system or the database says.
        source: io::Error,
    },
    /// A commit contradicts what the store holds. Nothing of it was written. A fault of the program.
    #[error("a commit to {file} contradicts what is in it: {what}. This is a fault of the program; the node stops")]
    Contradiction {
        /// As the last commit left it.
        file: PathBuf,
        /// What was found, and what it contradicts.
        what: String,
    },
    /// An earlier commit failed, so that nobody knows what it left.
    #[error("{file} takes no more commits since one failed ({first}). Start the node again")]
    Stopped {
        /// What the failed commit held may or may not be in it.
        file: PathBuf,
        /// What that commit answered.
        first: String,
    },
}
