//! What the session of a host is told.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::vec;

use actix::prelude::*;
use futures_util::Stream;
use rabia_bank_messages::bank::{ReadLevel, Refusal, Success, Transaction};
use rabia_bank_messages::ids::{NodeId, Slot};
use rabia_bank_messages::principal::Admin;
use tokio::sync::mpsc;

use crate::ledger::Bank;
use crate::ledger::machine::{Entry, StateMachine};

/// What came of a command or a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply<T = Success> {
    /// The slot that it was applied in or read at, where there is one.
    pub slot: Option<Slot>,
    /// Of a command: its place in that slot, from 0. Commands are ordered by slot and index.
    pub index: Option<u32>,
    /// Whether a command had been applied before, by an earlier attempt.
    pub replayed: bool,
    /// What the machine answers; of the bank a [`Success`].
    pub success: T,
}

/// What a host hears: a reply, or why there is none.
pub type Heard<T = Success> = Result<Reply<T>, Refusal>;

/// Carry this command out, once.
#[derive(Message, Debug)]
#[rtype(result = "Heard<S::Answer>")]
pub struct Command<S: StateMachine = Bank> {
    /// What the machine is to apply.
    pub command: S::Command,
    /// Its number in the session, from 1; none: the session numbers it.
    pub number: Option<u64>,
}

impl<S: StateMachine> Command<S> {
    /// A command that the session numbers.
    pub fn new(command: S::Command) -> Command<S> {
        Command { command, number: None }
    }

    /// A command that the host numbers, to be able to ask again. A session whose host numbers its commands acknowledges none:
    /// its replies are kept until it ends.
    pub fn numbered(number: u64, command: S::Command) -> Command<S> {
        Command { command, number: Some(number) }
    }
}

/// Carry this administrator's command out, once.
#[derive(Message, Debug)]
#[rtype(result = "Heard<S::Answer>")]
pub struct Administer<S: StateMachine = Bank> {
    /// What to do.
    pub admin: Admin,
    /// Nothing; makes the message one for sessions with this machine.
    pub machine: PhantomData<fn() -> S>,
}

impl<S: StateMachine> Administer<S> {
    /// This command.
    pub fn new(admin: Admin) -> Administer<S> {
        Administer { admin, machine: PhantomData }
    }
}

/// Carry this administrator's command out, as the owner of this node's folder: it may put a token for an administrator, and nothing else.
#[derive(Message, Debug)]
#[rtype(result = "Heard<S::Answer>")]
pub struct OwnersAct<S: StateMachine = Bank> {
    /// Whose folder.
    pub node: NodeId,
    /// What to do.
    pub admin: Admin,
    /// Nothing; makes the message one for sessions with this machine.
    pub machine: PhantomData<fn() -> S>,
}

impl<S: StateMachine> OwnersAct<S> {
    /// This command of this node's owner.
    pub fn new(node: NodeId, admin: Admin) -> OwnersAct<S> {
        OwnersAct { node, admin, machine: PhantomData }
    }
}

/// Look this up, without a place in the log.
#[derive(Message, Debug)]
#[rtype(result = "Heard<S::Answer>")]
pub struct Query<S: StateMachine = Bank> {
    /// What to look up.
    pub query: S::Query,
    /// How fresh the answer must be.
    pub read: ReadLevel,
}

/// Tell this recipient of transactions as they are applied. The bank answers with [`Success::Subscribed`]. The recipient gets the next
/// page when it has handled the one before, so a slow one costs nothing; the feed ends with the recipient or the session.
#[derive(Message)]
#[rtype(result = "Heard<S::Answer>")]
pub struct Subscribe<S: StateMachine = Bank> {
    /// Of which transactions, and from which on.
    pub feed: S::Feed,
    /// Gets the transactions, a page at a time.
    pub to: Recipient<Happened<Entry<S>>>,
}

/// Hand out the transactions of a feed, as they are applied, as a stream: for a host without actors.
#[derive(Message, Debug)]
#[rtype(result = "Result<Transactions<Entry<S>>, Refusal>")]
pub struct Follow<S: StateMachine = Bank>(pub S::Feed);

/// The transactions of a feed, as they are applied, oldest first. The node reads some pages ahead of whoever takes them, and no
/// more, so a slow one costs nothing. It ends with the session or its node.
#[derive(Debug)]
pub struct Transactions<E = Transaction> {
    pages: mpsc::Receiver<Vec<E>>,
    page: vec::IntoIter<E>,
}

/// Nothing in it is pinned.
impl<E> Unpin for Transactions<E> {}

impl<E> Transactions<E> {
    pub(crate) fn new(pages: mpsc::Receiver<Vec<E>>) -> Transactions<E> {
        Transactions { pages, page: Vec::new().into_iter() }
    }

    /// The next one; none if the session has ended.
    pub async fn next(&mut self) -> Option<E> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<E> Stream for Transactions<E> {
    type Item = E;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<E>> {
        loop {
            if let Some(transaction) = self.page.next() {
                return Poll::Ready(Some(transaction));
            }
            match ready!(self.pages.poll_recv(cx)) {
                Some(page) => self.page = page.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Transactions of a feed, oldest first.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub struct Happened<E: 'static = Transaction>(pub Vec<E>);

/// The host needs this session no longer.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Close {
    /// End the session in the log, too, when all that waits is answered: nobody goes on with it. Otherwise what waits is answered
    /// `stopping`, and its outcome is unknown.
    pub in_log: bool,
}
