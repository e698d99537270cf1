//! What an answer says of a request that may have been said before.
//!
//! A refusal by the bank itself settles any request, because the log applies a request number once. So does one with a code that this
//! program does not know, if its outcome says that nothing was executed. A refusal by the state of one node (busy, no quorum,
//! stopping, the session gone) speaks of that attempt alone: of a request that is not doubtful it says "not executed", of a doubtful
//! one it says nothing.

use rabia_bank_messages::bank::{ErrorCode, Outcome, Refusal};

/// What is known of the attempts of one request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Attempts {
    waiting: bool,
    doubtful: bool,
}

impl Attempts {
    /// It was said, on the present connection.
    pub fn said(&mut self) {
        self.waiting = true;
    }

    /// The connection is gone: what was said on it may have been executed.
    pub fn connection_lost(&mut self) {
        self.doubtful |= std::mem::take(&mut self.waiting);
    }

    /// The bank has answered.
    pub fn answered(&mut self) {
        self.waiting = false;
    }

    /// A refusal came on the present connection.
    pub fn refused(&mut self, refusal: &Refusal) -> Verdict {
        self.waiting = false;
        let verdict = judge(refusal);
        if let Verdict::Again { doubtful, .. } = verdict {
            self.doubtful |= doubtful;
        }
        verdict
    }

    /// Whether an attempt on the present connection has no answer.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Whether an attempt may have been executed that no answer will come to any more.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether any attempt may have been executed.
    pub fn may_be_executed(&self) -> bool {
        self.waiting || self.doubtful
    }
}

/// What a refusal means for the request that it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The request is certainly not executed, by any attempt.
    Settled,
    /// Nobody will ever know what came of it.
    Unknown,
    /// The session is gone. What may have been executed in it is unknown for good; what certainly was not may go on in another one.
    SessionGone,
    /// It is worth asking again, with the same number.
    Again {
        /// This attempt may have been executed, or may yet be.
        doubtful: bool,
        /// The code is one that this program does not know, so it is not pressed for.
        strange: bool,
    },
}

fn judge(refusal: &Refusal) -> Verdict {
    match &refusal.code {
        ErrorCode::SessionExpired => Verdict::SessionGone,
        ErrorCode::RequestAcknowledged => Verdict::Unknown,
        // It would not be better the next time, and what an earlier attempt brought this client is not told any more.
        ErrorCode::NotAuthorised | ErrorCode::LimitExceeded if refusal.outcome == Outcome::Unknown => Verdict::Unknown,
        code if refusal.outcome == Outcome::Refused && !is_passing(code) => Verdict::Settled,
        ErrorCode::Other(_) => Verdict::Again { doubtful: true, strange: true },
        _ => Verdict::Again { doubtful: refusal.outcome == Outcome::Unknown, strange: false },
    }
}

/// Whether a refusal speaks of the state of a node, not of the request, and passes by itself: worth another try.
pub fn is_passing(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Busy
            | ErrorCode::NoQuorum
            | ErrorCode::NotYetApplied
            | ErrorCode::Stopping
            | ErrorCode::TooManySessions
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_certainly_not_executed_while_every_attempt_says_so() {
        let busy = Refusal::refused(ErrorCode::Busy, "");
        let mut attempts = Attempts::default();
        assert!(!attempts.may_be_executed());
        attempts.said();
        assert!(attempts.may_be_executed() && attempts.is_waiting());
        attempts.refused(&busy);
        attempts.connection_lost();
        assert!(!attempts.may_be_executed(), "nothing waited on it");
        attempts.said();
        attempts.connection_lost();
        attempts.said();
        attempts.refused(&busy);
        assert!(attempts.may_be_executed() && attempts.is_doubtful(), "of the first one nobody knows");
    }

    #[test]
    fn only_what_the_bank_says_settles_a_request() {
        let refused = |code| judge(&Refusal::refused(code, ""));
        let unknown = |code| judge(&Refusal::unknown(code, ""));
        let again = |doubtful| Verdict::Again { doubtful, strange: false };
        assert_eq!(refused(ErrorCode::InsufficientFunds), Verdict::Settled);
        assert_eq!(refused(ErrorCode::Other("later".into())), Verdict::Settled);
        assert_eq!(unknown(ErrorCode::Other("later".into())), Verdict::Again { doubtful: true, strange: true });
        for code in [ErrorCode::Busy, ErrorCode::NoQuorum, ErrorCode::Stopping, ErrorCode::TooManySessions] {
            assert_eq!((refused(code.clone()), unknown(code)), (again(false), again(true)));
        }
        assert_eq!(refused(ErrorCode::SessionExpired), Verdict::SessionGone);
        assert_eq!(unknown(ErrorCode::RequestAcknowledged), Verdict::Unknown);
    }
}
