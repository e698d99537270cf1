//! Links between the nodes of one process, without sockets: pipes in memory, under the same WebSocket as any other link.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rabia_bank_messages::ids::NodeId;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// Bytes that a pipe holds in each direction before its writer waits: as many as a link writes at once.
const PIPE: usize = 64 << 10;

/// What the members of one cluster, all in this process, reach one another by. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct LocalNetwork {
    /// Where calls go, by the member that is called.
    listening: Arc<Mutex<BTreeMap<NodeId, mpsc::UnboundedSender<DuplexStream>>>>,
}

impl LocalNetwork {
    /// A network without nodes.
    pub fn new() -> LocalNetwork {
        LocalNetwork::default()
    }

    /// From now on calls of this member come here. An earlier run of it gets no more.
    pub(super) fn listen(&self, node: NodeId) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (calls, called) = mpsc::unbounded_channel();
        self.listening().insert(node, calls);
        called
    }

    /// Calls a member.
    ///
    /// # Errors
    /// If it is not there.
    pub(super) fn call(&self, node: NodeId) -> Result<DuplexStream, String> {
        let (near, far) = duplex(PIPE);
        let calls = self.listening().get(&node).cloned();
        match calls.map(|calls| calls.send(far)) {
            Some(Ok(())) => Ok(near),
            Some(Err(_)) | None => Err(format!("node {node} does not run in this process")),
        }
    }

    fn listening(&self) -> MutexGuard<'_, BTreeMap<NodeId, mpsc::UnboundedSender<DuplexStream>>> {
        // The map is whole whatever thread has died with it.
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
