//! How many files and sockets the process may have open, and what of that is for clients.
//!
//! The system gives out the lowest free number, so the number of a new socket says how many are open at least, whoever opened
//! them: other nodes in the process and the program around them count too.

use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, getrlimit};

use rabia_bank_actors::seats::OPERATORS;

use crate::NodeError;

/// Clients that come when only the reserve is left, until they have said who they are: but for operators they are turned away then, or
/// ask for the status.
pub(super) const MAX_LATE: usize = 24;
/// Questions for the status that are answered at once.
pub(super) const MAX_STATUS: usize = 16;
/// Handshakes on the peers' port that are not finished. A link takes milliseconds to come up, and a node has six at most.
pub(super) const MAX_PEER_HANDSHAKES: usize = 32;
/// Links, one a peer in each direction while they meet anew.
const LINKS: usize = 12;
/// Questions on the control socket, and some to spare.
const OTHERS: usize = 16;
/// What is kept free whatever clients do: everything above.
const KEPT_FREE: usize = OPERATORS + MAX_LATE + MAX_STATUS + MAX_PEER_HANDSHAKES + LINKS + OTHERS;
/// What a node has open without a client or a peer: stores, listeners, standard streams, event queues of a few threads.
const OPEN: usize = 32;
/// What no client gets.
pub(super) const RESERVE: usize = KEPT_FREE + OPEN;
/// With fewer than so many for clients a node is of no use.
const LEAST: usize = 16;

/// How many descriptors this process may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    /// How many descriptors the process may have.
    pub(super) limit: usize,
}

impl Descriptors {
    /// Asks the system.
    ///
    /// # Errors
    /// If they do not suffice for a node.
    pub(super) fn look() -> Result<Descriptors, NodeError> {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(i32::MAX as usize);
        if limit < RESERVE + LEAST {
            return Err(NodeError::Refused(format!(
                "this process may have {limit} files and sockets open, and a node needs {} at least: raise the limit (`ulimit -n`)",
                RESERVE + LEAST
            )));
        }
        Ok(Descriptors { limit })
    }

    /// What clients may have.
    pub(super) fn for_clients(self) -> usize {
        self.limit - RESERVE
    }

    /// Whether only the reserve is left, whoever has taken the others.
    pub(super) fn is_late(self, socket: &impl AsRawFd) -> bool {
        usize::try_from(socket.as_raw_fd()).is_ok_and(|number| number >= self.limit - KEPT_FREE)
    }
}
