//! The door of a node: who a connection speaks for. Nothing is served before its client has shown a token, and nothing any more when
//! that is not in force.
//!
//! What is looked at here is what this node has applied, and its own clock as far as it is trusted. What counts is looked at again when
//! a request is applied.

use std::time::Duration;

use rabia_bank_messages::bank::{ErrorCode, ReadLevel, Refusal};
use rabia_bank_messages::ids::{Digest, Millis};
use rabia_bank_messages::principal::Role;
use rabia_bank_messages::token::Token;

use crate::applied::AppliedSlot;
use crate::ledger::machine::StateMachine;

/// A node that has been without a quorum for so long may not have heard that a token was revoked.
const HEARS_NOTHING: Duration = Duration::from_secs(60);

/// What a client shows that it speaks for a principal.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// A token.
    Token(&'a Token),
    /// A certificate whose public key has this hash.
    Certificate(&'a Digest),
}

/// What a look at a token brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Nothing has changed.
    Same,
    /// It is in force yet. What its principal may do may have changed.
    Again,
    /// It is not in force any more: the connection is to end.
    Shut,
}

/// What one connection has shown, and when that was looked at.
#[derive(Debug, Default)]
pub struct Door {
    /// The number of the token, or certificate.
    token: Option<u64>,
    /// Which change of the principals the token was looked at after last.
    seen_changes: u64,
    /// When it expires, as far as it was looked at.
    until: Millis,
}

impl Door {
    /// A client shows this. Answers its number, if it is in force at this time.
    pub fn let_in(&mut self, applied: &AppliedSlot, shown: Shown<'_>, now: Millis) -> Option<u64> {
        // Before the principals: a change meanwhile is looked at later.
        self.seen_changes = applied.changes();
        let roster = applied.roster();
        let (number, _) = match shown {
            Shown::Token(token) => roster.recognise(token, now),
            Shown::Certificate(key_hash) => roster.recognise_certificate(key_hash, now),
        }?;
        (self.token, self.until) = (Some(number), roster.expires_at(number));
        self.token
    }

    /// The number of the token that was shown; none before.
    pub fn token(&self) -> Option<u64> {
        self.token
    }

    /// Refuses here what would be refused when it is applied. Only for a command that was certainly not said before: of any other only
    /// the log knows what came of it.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn check_command<S: StateMachine>(&self, applied: &AppliedSlot, command: &S::Command) -> Result<(), Refusal> {
        let Some(token) = self.token else { return Ok(()) };
        match applied.roster().rights(token, 0) {
            Some(rights) => S::check_command(command, &rights),
            None => Err(Refusal::refused(ErrorCode::NotAuthorised, "the token is not in force")),
        }
    }

    /// What needs no quorum is refused where revocations are not heard of, but to those who see everything or look after nodes. The node
    /// has had no quorum for so long.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check_read(&self, applied: &AppliedSlot, read: ReadLevel, alone: Duration) -> Result<(), Refusal> {
        if read == ReadLevel::Linearizable || alone < HEARS_NOTHING {
            return Ok(());
        }
        let roster = applied.roster();
        let rights = self.token.and_then(|token| roster.rights(token, 0));
        if rights.is_some_and(|rights| rights.has(Role::Auditor) || rights.has(Role::Operator)) {
            return Ok(());
        }
        let message = format!(
            "this node has had no quorum for {} s and may not know which tokens are revoked: it answers auditors and operators alone",
            alone.as_secs()
        );
        Err(Refusal::refused(ErrorCode::NoQuorum, message))
    }

    /// Whether the token that was shown is in force yet. It costs next to nothing where no principal has changed.
    pub fn look(&mut self, applied: &AppliedSlot, now: Millis) -> Look {
        let Some(token) = self.token else { return Look::Same };
        let changes = applied.changes();
        if changes == self.seen_changes && now < self.until {
            return Look::Same;
        }
        self.seen_changes = changes;
        let roster = applied.roster();
        self.until = roster.expires_at(token);
        if roster.asker(token, now).is_none() { Look::Shut } else { Look::Again }
    }
}
