//! What the node is told, and what it tells all the others.

use actix::prelude::*;

use crate::failure::Failure;
use crate::socket::Visitor;

/// Something happened that is not the same on every node: this one stops.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Failed(pub Failure);

/// Begin a session for this client, which has been let in.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Serve(pub Visitor);

/// Stop. The node hears it from whoever holds it, and the other actors from the node. Answered when that is done.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Stop;
