//! How a connection gets its session: by a hello, or with its first command.
//!
//! What is said behind a hello counts on its session. So a hello that does not get what it asks for leaves nothing behind it
//! to be executed in another session, nor by somebody whom the node does not know: where the log was asked in vain, or the hello itself
//! was wrong, the connection ends. The next attempt is the next connection's.

use std::time::Duration;

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::client::{CLIENT_VERSION, Hello, ServerMessage, Welcome};
use rabia_bank_messages::codec::Encoding;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Asker, ClientSession};

/// A connection whose session has expired is closed when nothing waits for an answer for so long: what was on its way when the
/// client heard of it is answered yet.
const EXPIRED: Duration = Duration::from_secs(1);

impl ClientSession {
    pub(super) fn hello(&mut self, encoding: Encoding, hello: Hello, first: bool, ctx: &mut Context<Self>) {
        if first && hello.version < CLIENT_VERSION {
            return self.too_old(encoding, hello.version, ctx);
        }
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
            self.refuse(encoding, None, Refusal::refused(ErrorCode::Malformed, message), ctx);
            return self.close_if_not_greeted(ctx);
        }
        let Some(token) = self.recognise(hello.token.as_ref()) else {
            return self.turn_away(encoding, None, ctx);
        };
        if !self.sit_down(encoding, self.owner_of(token), ctx) {
            return;
        }
        self.greeted = true;
        self.client.show(token);
        self.session.show(token);
        if let Some(open) = hello.open {
            let asker = Asker { request: 0, encoding, subscribes: false, _held: None };
            return self.session.open(self.now(), open.key, Some(asker), &mut self.outs);
        }
        if let Some(session) = hello.session {
            self.session.go_on(session);
        }
        self.welcome(encoding, false, ctx);
    }

    /// Where the hello was wrong the connection ends. One that was greeted before goes on.
    pub(super) fn close_if_not_greeted(&mut self, ctx: &mut Context<Self>) {
        if !self.greeted {
            self.close(CloseCode::Policy, "the hello is malformed", ctx);
        }
    }

    pub(super) fn welcome(&mut self, encoding: Encoding, opened: bool, ctx: &mut Context<Self>) {
        let session = self.session.name().map(|session| session.number);
        let welcome = Welcome {
            node: self.settings.node,
            cluster: self.settings.cluster,
            session,
            opened,
            applied_slot: self.neighbours.applied.get(),
            principal: self.principal_name(),
            level: self.neighbours.applied.level(),
            features: Vec::new(),
            nodes: self.settings.nodes.clone(),
        };
        self.send(encoding, &ServerMessage::Welcome { welcome }, ctx);
    }

    /// A hello was turned away, or had no answer in time, and so are the commands that waited for it. The connection ends: its
    /// next command would get another session, and a retry be executed twice.
    pub(super) fn not_opened(&mut self, encoding: Encoding, refusal: Refusal, ctx: &mut Context<Self>) {
        let for_good = matches!(refusal.code, ErrorCode::SessionExpired | ErrorCode::NotAuthorised);
        let code = if for_good { CloseCode::Policy } else { CloseCode::Again };
        self.refuse(encoding, None, refusal, ctx);
        self.close(code, "the session was not opened", ctx);
    }

    /// Ends a connection whose session has ended, if nothing is on its way any more.
    pub(super) fn leave_if_expired(&mut self, ctx: &mut Context<Self>) {
        let over = self.session.ended().is_some_and(|at| self.now() - at >= EXPIRED);
        if over && self.session.is_idle() {
            self.close(CloseCode::Policy, "the session has ended", ctx);
        }
    }
}
