//! How a connection gets its session: by a hello, or with its first command.
//!
//! What is said behind a hello counts on its session. So a hello that does not get what it asks for leaves nothing behind it
//! to be executed in another session: where the log was asked in vain, the connection ends, and where the hello itself was
//! wrong, commands are refused. The next attempt is the next connection's.

use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, Outcome, Refusal};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::{CLIENT_VERSION, Hello, ServerMessage, SessionName, Welcome};
use rabia_bank_messages::codec::Encoding;
use rabia_bank_messages::ids::SessionKey;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{ClientSession, Kind, Session};

/// A connection whose session has expired is closed when nothing waits for an answer for so long: what was on its way when the
/// client heard of it is answered yet.
const EXPIRED: Duration = Duration::from_secs(1);

impl ClientSession {
    pub(super) fn hello(&mut self, encoding: Encoding, hello: Hello, first: bool, ctx: &mut Context<Self>) {
        let wrong = if !first {
            Some("a hello is the first message of a connection".into())
        } else if hello.version != CLIENT_VERSION {
            Some(format!("version {} is not spoken here, {CLIENT_VERSION} is", hello.version))
        } else if hello.session.is_some() && hello.open.is_some() {
            Some("a hello names a session or opens one, not both".into())
        } else {
            None
        };
        if let Some(message) = wrong {
            // In the session of an earlier hello the connection goes on.
            self.hello_refused |= !self.greeted;
            return self.refuse(encoding, None, Refusal::refused(ErrorCode::Malformed, message), ctx);
        }
        self.greeted = true;
        if let Some(open) = hello.open {
            return self.open(open.key, encoding, true);
        }
        if let Some(session) = hello.session {
            self.session = Session::Open(session);
        }
        self.welcome(encoding, false, ctx);
    }

    fn welcome(&mut self, encoding: Encoding, opened: bool, ctx: &mut Context<Self>) {
        let session = match self.session {
            Session::Open(session) => Some(session.number),
            Session::None | Session::Opening(_) => None,
        };
        let welcome = Welcome {
            node: self.settings.node,
            cluster: self.settings.cluster,
            session,
            opened,
            applied_slot: self.neighbours.applied.get(),
        };
        self.send(encoding, &ServerMessage::Welcome { welcome }, ctx);
    }

    pub(super) fn open(&mut self, key: SessionKey, encoding: Encoding, welcome: bool) {
        self.session = Session::Opening(key);
        let tag = self.track(0, encoding, Kind::Open { welcome });
        let header = RequestHeader { session: 0, key, number: 0, acknowledged: 0 };
        self.submit(tag, header, &Action::Open);
    }

    pub(super) fn opened(
        &mut self,
        number: u64,
        new: bool,
        welcome: bool,
        encoding: Encoding,
        ctx: &mut Context<Self>,
    ) {
        let Session::Opening(key) = self.session else { return };
        let session = SessionName { number, key };
        self.session = Session::Open(session);
        if welcome {
            self.welcome(encoding, new, ctx);
        } else {
            self.announce = Some(session);
        }
        for queued in std::mem::take(&mut self.queued) {
            // Those past their deadline were answered.
            if self.in_flight.contains_key(&queued.tag) {
                self.submit_command(session, queued.tag, queued.number, queued.acknowledged, queued.command);
            }
        }
    }

    /// The opening was turned away, or had no answer in time, and so are the commands that waited for it. If the client had
    /// named the key, the connection ends: its next command would get another session, and a retry be executed twice.
    pub(super) fn not_opened(&mut self, refusal: Refusal, welcome: bool, encoding: Encoding, ctx: &mut Context<Self>) {
        self.session = Session::None;
        for queued in std::mem::take(&mut self.queued) {
            let Some(in_flight) = self.in_flight.remove(&queued.tag) else { continue };
            let mut refusal = refusal.clone();
            if in_flight.kind == (Kind::Command { first: false }) {
                refusal.outcome = Outcome::Unknown;
            }
            self.refuse(in_flight.encoding, Some(in_flight.request), refusal, ctx);
        }
        if welcome {
            let code = if refusal.code == ErrorCode::SessionExpired { CloseCode::Policy } else { CloseCode::Again };
            self.refuse(encoding, None, refusal, ctx);
            self.close(code, "the session was not opened", ctx);
        }
    }

    /// Why this connection may not ask for a change, if so.
    pub(super) fn no_session(&self) -> Option<Refusal> {
        if self.hello_refused {
            let message =
                "the hello of this connection was refused, so it has no session: say a right one on a new connection";
            return Some(Refusal::refused(ErrorCode::Malformed, message));
        }
        self.expired.map(|_| {
            let message =
                "the session of this connection has ended: open another, with another key, on a new connection";
            Refusal::unknown(ErrorCode::SessionExpired, message)
        })
    }

    /// Ends a connection whose session has expired, if nothing is on its way any more.
    pub(super) fn leave_if_expired(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let over = self.expired.is_some_and(|at| now.duration_since(at) >= EXPIRED);
        if over && self.in_flight.is_empty() {
            self.close(CloseCode::Policy, "the session has ended", ctx);
        }
    }
}
