//! Who may ask what, and sees what of the answer: by what is applied here, for the token that the client has shown.

use rabia_bank_messages::bank::{ErrorCode, Refusal};

use super::Bank;
use crate::ledger::machine::{Entry, StateMachine};
use crate::ledger::rights::Rights;
use crate::parts::clients::{Client, Done};

impl<S: StateMachine> Bank<S> {
    /// What a client may do.
    ///
    /// # Errors
    /// If its token is not in force.
    pub(super) fn rights(&self, client: &Client<S>) -> Result<Rights<'_>, Refusal> {
        let gone = || Refusal::refused(ErrorCode::NotAuthorised, "the token is not in force");
        self.ledger.rights(client.token()).ok_or_else(gone)
    }

    /// The answer to a command that was carried out or refused, as its client may see it: nothing of what was carried out if its token
    /// is not in force any more.
    pub(super) fn shown(&self, client: &Client<S>, answer: Result<S::Answer, Refusal>) -> Result<Done<S>, Refusal> {
        let mut answer = answer?;
        let Ok(rights) = self.rights(client) else { return Ok(Done::Unseen) };
        S::hide(&mut answer, &rights);
        Ok(Done::Success(answer))
    }

    /// The answer to a query, as its client may see it, who may not be allowed to ask for it any more since it was begun.
    pub(super) fn read_by(
        &self,
        client: &Client<S>,
        query: &S::Query,
        answer: Result<S::Answer, Refusal>,
    ) -> Result<S::Answer, Refusal> {
        let rights = self.rights(client)?;
        S::check_query(query, &rights)?;
        let mut answer = answer?;
        S::check_answer(&answer, &rights)?;
        S::hide(&mut answer, &rights);
        Ok(answer)
    }

    /// Entries of a feed, as a follower may see them: none of them once it may not ask for the feed any more.
    pub(super) fn followed_by(&self, client: &Client<S>, feed: &S::Feed, mut entries: Vec<Entry<S>>) -> Vec<Entry<S>> {
        match self.rights(client) {
            Ok(rights) if S::check_feed(feed, &rights).is_ok() => {
                entries.iter_mut().for_each(|entry| S::hide_in_entry(entry, &rights));
                entries
            }
            _ => Vec::new(),
        }
    }
}
