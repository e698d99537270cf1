//! What the session of a host is told.

use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::vec;

use actix::prelude::*;
use futures_util::Stream;
use rabia_bank_messages::bank::{self, ReadLevel, Refusal, Success, Transaction};
use rabia_bank_messages::client::Feed;
use rabia_bank_messages::ids::Slot;
use tokio::sync::mpsc;

/// What came of a command or a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The slot that it was applied in or read at, where there is one.
    pub slot: Option<Slot>,
    /// Of a command: its place in that slot, from 0. Commands are ordered by slot and index.
    pub index: Option<u32>,
    /// Whether a command had been applied before, by an earlier attempt.
    pub replayed: bool,
    /// What it brought.
    pub success: Success,
}

/// What a host hears: a reply, or why there is none.
pub type Heard = Result<Reply, Refusal>;

/// Carry this command out, once.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Heard")]
pub struct Command {
    /// What to do.
    pub command: bank::Command,
    /// Its number in the session, from 1; none: the session numbers it.
    pub number: Option<u64>,
}

impl Command {
    /// A command that the session numbers.
    pub fn new(command: bank::Command) -> Command {
        Command { command, number: None }
    }

    /// A command that the host numbers, to be able to ask again. A session whose host numbers its commands acknowledges none:
    /// its replies are kept until it ends.
    pub fn numbered(number: u64, command: bank::Command) -> Command {
        Command { command, number: Some(number) }
    }
}

/// Answer this query.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Heard")]
pub struct Query {
    /// What to look up.
    pub query: bank::Query,
    /// How fresh the answer must be.
    pub read: ReadLevel,
}

/// Tell this recipient of transactions as they are applied. Answered with [`Success::Subscribed`]. The recipient gets the next
/// page when it has handled the one before, so a slow one costs nothing; the feed ends with the recipient or the session.
#[derive(Message)]
#[rtype(result = "Heard")]
pub struct Subscribe {
    /// Of which transactions, and from which on.
    pub feed: Feed,
    /// Whom.
    pub to: Recipient<Happened>,
}

/// Hand out the transactions of a feed, as they are applied, as a stream: for a host without actors.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<Transactions, Refusal>")]
pub struct Follow(pub Feed);

/// The transactions of a feed, as they are applied, oldest first. The node reads some pages ahead of whoever takes them, and no
/// more, so a slow one costs nothing. It ends with the session or its node.
#[derive(Debug)]
pub struct Transactions {
    pages: mpsc::Receiver<Vec<Transaction>>,
    page: vec::IntoIter<Transaction>,
}

impl Transactions {
    pub(crate) fn new(pages: mpsc::Receiver<Vec<Transaction>>) -> Transactions {
        Transactions { pages, page: Vec::new().into_iter() }
    }

    /// The next one; none if the session has ended.
    pub async fn next(&mut self) -> Option<Transaction> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Transactions {
    type Item = Transaction;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Transaction>> {
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
pub struct Happened(pub Vec<Transaction>);

/// End.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub struct Close {
    /// End the session in the log, too, when all that waits is answered: nobody goes on with it. Otherwise what waits is answered
    /// `stopping`, and its outcome is unknown.
    pub in_log: bool,
}
