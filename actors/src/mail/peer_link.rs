//! What the link to a peer is told.

use actix::prelude::*;
use rabia_bank_messages::ids::{NodeId, RunId};
use rabia_bank_messages::peer::PeerMessage;

use crate::parts::voter::LinkUp;
use crate::socket::PeerSocket;

/// Say this to the peer.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Say(pub PeerMessage);

/// Use this socket, whose handshake is done, from now on. Answered when it is not used any more, with the reason.
#[derive(Message)]
#[rtype(result = "String")]
pub struct Attach {
    /// Both ends have said hello on it.
    pub socket: PeerSocket,
    /// What the handshake said.
    pub link: LinkUp,
    /// The run in which the peer speaks.
    pub run: RunId,
}

/// Would a link to this run of the peer be used?
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "bool")]
pub struct MayAttach(pub RunId);

/// Why a link is not used.
pub const STANDS: &str = "the link to this run of the peer stands already";

/// Does the link work?
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "bool")]
pub struct IsUp;

/// Whether the peer's store speaks for it by this node's log. Until that is known, and where it does not, only what any store may
/// ask for goes to the peer.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Standing {
    /// False also for as long as that is not known.
    pub in_force: bool,
}

/// Break the link, for this reason.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Break(pub String);

/// Where the link to a peer is told.
#[derive(Clone)]
#[allow(missing_docs)] // each is named after its message
pub struct LinkInbox {
    pub say: Recipient<Say>,
    pub attach: Recipient<Attach>,
    pub may_attach: Recipient<MayAttach>,
    pub is_up: Recipient<IsUp>,
    pub standing: Recipient<Standing>,
    pub cut: Recipient<Break>,
}

/// The links to all peers.
#[derive(Clone)]
pub struct Links(Vec<(NodeId, LinkInbox)>);

impl Links {
    /// These, one a peer.
    pub fn new(links: Vec<(NodeId, LinkInbox)>) -> Links {
        Links(links)
    }

    /// The link to this peer; none if it is no peer of this node.
    pub fn to(&self, peer: NodeId) -> Option<&LinkInbox> {
        self.iter().find(|(id, _)| *id == peer).map(|(_, link)| link)
    }

    /// All peers, with the links to them.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &LinkInbox)> {
        self.0.iter().map(|(peer, link)| (*peer, link))
    }

    /// Says this to a peer, if it is one.
    pub fn say(&self, peer: NodeId, message: PeerMessage) {
        if let Some(link) = self.to(peer) {
            link.say.do_send(Say(message));
        }
    }
}
