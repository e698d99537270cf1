//! Why a request does not get to the machine.

use rabia_bank_messages::bank::{ErrorCode, Outcome, Refusal};
use rabia_bank_messages::level::MAX_LEVEL;
use rabia_bank_messages::principal::{AdminRefusal, MAX_PRINCIPALS_BYTES, MAX_TOKENS};

/// Why the rules of sessions keep a request from the machine. Nothing was executed for it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// There is no session of this number with this key: closed, expired, or never opened.
    SessionExpired {
        /// The number that the request named.
        session: u64,
    },
    /// The key to open a session with is that of one that has ended.
    KeyUsed,
    /// As many sessions are open as may be, and the one that was idle for longest was not idle for long enough to make room.
    TooManySessions {
        /// How many are open.
        open: u64,
    },
    /// As many sessions of this principal are open as it may have beside those of others, and none was idle for long enough.
    TooManyOfPrincipal {
        /// How many are open.
        open: u64,
    },
    /// The client said that it has the answer to this request, so the answer is gone.
    RequestAcknowledged {
        /// The request's number in its session.
        number: u64,
        /// What the client has acknowledged, in any request so far.
        acknowledged: u64,
    },
    /// The number belongs to another command.
    RequestReused {
        /// The number that both commands were sent with.
        number: u64,
    },
    /// The request names a token that is not in force, or speaks in another principal's session.
    NotAuthorised,
    /// There is no room for the reply: too many are kept that were not acknowledged.
    RepliesFull {
        /// What they take, in bytes.
        kept: usize,
        /// Whose they are.
        of: Keeper,
    },
}

/// Whose replies are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeper {
    /// Those of this session.
    Session,
    /// Those of all sessions of its principal.
    Principal,
    /// Those of all sessions.
    All,
}

impl Keeper {
    /// For people.
    fn name(self) -> &'static str {
        match self {
            Keeper::Session => "this session",
            Keeper::Principal => "this principal",
            Keeper::All => "all sessions",
        }
    }
}

impl Rejection {
    /// The answer that a client gets.
    pub fn refusal(&self) -> Refusal {
        let (code, outcome, message) = match self {
            Rejection::SessionExpired { session } => {
                (ErrorCode::SessionExpired, Outcome::Unknown, format!("session {session} is not open with this key"))
            }
            Rejection::RequestAcknowledged { number, acknowledged } => (
                ErrorCode::RequestAcknowledged,
                Outcome::Unknown,
                format!("request {number} is not above {acknowledged}, which was acknowledged: its answer is gone"),
            ),
            Rejection::RequestReused { number } => (
                ErrorCode::RequestReused,
                Outcome::Refused,
                format!("request number {number} was used for another command"),
            ),
            Rejection::KeyUsed => (
                ErrorCode::SessionExpired,
                Outcome::Unknown,
                "the session with this key has ended: open another one, with another key".into(),
            ),
            Rejection::TooManySessions { open } => (
                ErrorCode::TooManySessions,
                Outcome::Refused,
                format!("{open} sessions are open, and all were used lately: try again later"),
            ),
            Rejection::TooManyOfPrincipal { open } => (
                ErrorCode::TooManySessions,
                Outcome::Refused,
                format!("{open} sessions of this principal are open, and all were used lately: try again later"),
            ),
            Rejection::NotAuthorised => (
                ErrorCode::NotAuthorised,
                Outcome::Unknown,
                "the token is not in force, or the session is another principal's".into(),
            ),
            Rejection::RepliesFull { kept, of } => (
                ErrorCode::Busy,
                Outcome::Unknown,
                format!("unacknowledged answers of {} take {kept} bytes: acknowledge some, then ask again", of.name()),
            ),
        };
        Refusal { outcome, ..Refusal::refused(code, message) }
    }
}

/// The answer to an administrator's command that was refused.
pub fn admin_refusal(refusal: AdminRefusal) -> Refusal {
    let (code, message) = match refusal {
        AdminRefusal::NotAuthorised => (
            ErrorCode::NotAuthorised,
            "only administrators may do this; nobody changes their own principal, and the host has no token".to_owned(),
        ),
        AdminRefusal::PrincipalNotFound => {
            (ErrorCode::PrincipalNotFound, "there is no principal of this name".to_owned())
        }
        AdminRefusal::InvalidExpiry => {
            (ErrorCode::InvalidExpiry, "a token expires after now (by log time) and within ten years".to_owned())
        }
        AdminRefusal::TokenExists => (ErrorCode::TokenExists, "there is another token with this id".to_owned()),
        AdminRefusal::TokenNotFound => (ErrorCode::TokenNotFound, "there is no token with this id".to_owned()),
        AdminRefusal::TooManyPrincipals => (
            ErrorCode::TooManyPrincipals,
            format!("all principals together would take more than {MAX_PRINCIPALS_BYTES} bytes"),
        ),
        AdminRefusal::TooManyTokens => (ErrorCode::TooManyTokens, format!("there are {MAX_TOKENS} tokens already")),
        AdminRefusal::InvalidLevel => {
            (ErrorCode::InvalidLevel, format!("a level is raised to one above it, {MAX_LEVEL} at most: see the status"))
        }
        AdminRefusal::MembersTooOld => (
            ErrorCode::MembersTooOld,
            "not every member's program knows this level, by what they said in the log: see members_can of the status"
                .to_owned(),
        ),
    };
    Refusal::refused(code, message)
}
