//! A cluster for the tests of your own program: real nodes with real stores in a temporary folder, linked in memory, without a port.
//!
//! ```
//! use rabia_bank::bank::ReadLevel;
//! use rabia_bank::embed::BankCalls;
//! use rabia_bank::testing::TestCluster;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = TestCluster::start(3)?;
//! let bank = cluster.session(0).await?;
//! bank.create_account("alice", 1_000).await?;
//!
//! // Any one of three may be away: the others go on.
//! cluster.stop(1).await?;
//! bank.create_account("bob", 0).await?;
//! bank.transfer("alice", "bob", 300).await?;
//!
//! // It catches up when it is back.
//! cluster.restart(1)?;
//! let there = cluster.session(1).await?;
//! assert_eq!(there.balance("bob", ReadLevel::Linearizable).await?.value, 300);
//! cluster.end().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Each node has a thread of its own, so a test needs no particular runtime. Nodes sync their disks as always, so a command takes
//! about a millisecond. [`TestCluster::start_with`] takes other settings: sessions that expire soon, a smaller limit per transaction.

use rabia_bank_actors::failure::Stopped;
use tempfile::TempDir;

use crate::NodeError;
use crate::config::NodeConfig;
use crate::create::{NewCluster, create};
use crate::embed::{Embedded, LocalNetwork, Reach, Session};

/// A cluster that lasts as long as this. Its nodes are counted from 0.
pub struct TestCluster {
    network: LocalNetwork,
    members: Vec<NodeConfig>,
    nodes: Vec<Option<Embedded>>,
    /// Goes when the nodes have gone.
    _folder: TempDir,
}

impl TestCluster {
    /// Starts so many nodes, 1 to 7.
    ///
    /// # Errors
    /// If there is no room for their files, or no such number of nodes can be a cluster.
    pub fn start(nodes: usize) -> Result<TestCluster, NodeError> {
        TestCluster::start_with(nodes, |new| new)
    }

    /// Starts so many nodes of a cluster that is created in another way.
    ///
    /// # Errors
    /// If there is no room for their files, or the cluster can't be like that.
    pub fn start_with(nodes: usize, change: impl FnOnce(NewCluster) -> NewCluster) -> Result<TestCluster, NodeError> {
        let refused = |error: &dyn std::fmt::Display| NodeError::Refused(error.to_string());
        let folder = tempfile::tempdir().map_err(|error| refused(&error))?;
        let new = change(NewCluster::new(folder.path().join("cluster"), nodes));
        let members = create(&new).map_err(|error| refused(&error))?;
        let nodes = members.iter().map(|_| None).collect();
        let mut cluster = TestCluster { network: LocalNetwork::new(), members, nodes, _folder: folder };
        for node in 0..cluster.members.len() {
            cluster.restart(node)?;
        }
        Ok(cluster)
    }

    /// How many nodes it has.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// This node, if it runs.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&self, node: usize) -> Option<&Embedded> {
        self.nodes[node].as_ref()
    }

    /// A session at this node.
    ///
    /// # Errors
    /// If it does not run.
    ///
    /// # Panics
    /// If there is no such node.
    pub async fn session(&self, node: usize) -> Result<Session, Stopped> {
        match self.node(node) {
            Some(node) => node.session().await,
            None => Err(Stopped),
        }
    }

    /// Stops a node, as far as it runs, and waits until it has let go of its files. Whoever waits for its answers hears that it has
    /// stopped; the outcome of their commands is unknown.
    ///
    /// # Errors
    /// If it had failed before.
    ///
    /// # Panics
    /// If there is no such node.
    pub async fn stop(&mut self, node: usize) -> Result<(), NodeError> {
        match self.nodes[node].take() {
            Some(node) => node.stop().await,
            None => Ok(()),
        }
    }

    /// Starts a node that was stopped, with the files that it had.
    ///
    /// # Errors
    /// If it refuses to start: also if it runs.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn restart(&mut self, node: usize) -> Result<(), NodeError> {
        let config = self.members[node].clone();
        self.nodes[node] = Some(Embedded::start_on_thread_with(config, Reach::within(&self.network))?);
        Ok(())
    }

    /// Stops all nodes, and removes the folder. Without it they stop behind your back.
    ///
    /// # Errors
    /// If one of them had failed before.
    pub async fn end(mut self) -> Result<(), NodeError> {
        for node in 0..self.size() {
            self.stop(node).await?;
        }
        Ok(())
    }
}
