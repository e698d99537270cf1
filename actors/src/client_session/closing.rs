//! What is sent on a connection, and how a connection ends.
//!
//! Where too many answers wait, or nobody reads them for too long, those that did not go out are dropped and a close frame says why.
//! A client that reads on gets it; of one that does not the socket is closed after some seconds, and the connection forgotten.

use std::time::{Duration, Instant};

use actix::prelude::*;
use rabia_bank_messages::client::ServerMessage;
use rabia_bank_messages::codec::Encoding;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::ClientSession;
use crate::budget::Exceeded;

/// How long a client may take to read the close frame and what stands before it, and to answer it.
const CLOSING: Duration = Duration::from_secs(5);
/// The same, where the node has read as much as it can.
const CLOSING_BLIND: Duration = Duration::from_secs(1);
/// Answers of which nothing is read for so long end the connection.
const STALLED: Duration = Duration::from_secs(20);
/// A message whose end does not come within this time ends the connection: 4 MiB come at 140 KB a second.
const UNFINISHED: Duration = Duration::from_secs(30);

impl ClientSession {
    pub(super) fn send(&mut self, encoding: Encoding, message: &ServerMessage, ctx: &mut Context<Self>) {
        let bytes = encoding.encode(message);
        let frame = match encoding {
            Encoding::Json => String::from_utf8(bytes).map(Frame::text),
            Encoding::MessagePack => Ok(Frame::binary(bytes)),
        };
        // What serde_json writes is UTF-8.
        let Ok(frame) = frame else { unreachable!("JSON that is not UTF-8") };
        self.push(frame, ctx);
    }

    pub(super) fn push(&mut self, frame: Frame, ctx: &mut Context<Self>) {
        match self.outlet.push(frame) {
            Ok(()) => {}
            Err(Exceeded::Connection) => self.drop_answers(CloseCode::Policy, "too many answers are not read", ctx),
            Err(_) => {
                self.drop_answers(CloseCode::Again, "too many answers wait on this node, and these are not read", ctx)
            }
        }
    }

    /// Closes the connection, and drops what waits for the client to read.
    fn drop_answers(&mut self, code: CloseCode, reason: &'static str, ctx: &mut Context<Self>) {
        self.outlet.discard();
        self.close(code, reason, ctx);
    }

    /// Sends a close frame behind what waits already, and sees to it that the connection ends.
    pub(super) fn close(&mut self, code: CloseCode, reason: &'static str, ctx: &mut Context<Self>) {
        self.leaving = true;
        self.session.leave();
        self.subscriptions.clear();
        if self.outlet.close(code, reason) {
            debug!(client = self.client.id(), owner = ?self.client.owner(), %code, reason, "a connection is closed");
            self.abort_after(CLOSING, ctx);
        }
    }

    fn abort_after(&self, time: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(time, |session, ctx| session.abort(ctx));
    }

    /// Ends the connection, and with it what is still under way to the client.
    pub(super) fn abort(&mut self, ctx: &mut Context<Self>) {
        self.meter.abort();
        ctx.stop();
    }

    /// The writer has ended, by a close frame or by an error.
    pub(super) fn written(&mut self, closed: bool, ctx: &mut Context<Self>) {
        self.outlet.written = true;
        match self.outlet.failed {
            _ if !closed => ctx.stop(),
            true => self.abort_after(CLOSING_BLIND, ctx),
            false if self.outlet.over => ctx.stop(),
            // The client answers the close frame, or takes too long for it.
            false => {}
        }
    }

    /// Nothing can be read any more.
    pub(super) fn reading_failed(&mut self) {
        self.outlet.failed = true;
    }

    /// The stream's end is the connection's, unless a close frame is still on its way out.
    pub(super) fn reading_ended(&mut self, ctx: &mut Context<Self>) {
        self.outlet.over = true;
        if !self.leaving || (self.outlet.written && !self.outlet.failed) {
            ctx.stop();
        }
    }

    /// Ends a connection that makes no progress, in one direction or the other.
    pub(super) fn check_progress(&mut self, ctx: &mut Context<Self>) {
        if self.outlet.unread.bytes() == 0 {
            self.meter.nothing_waits();
        } else if self.meter.stalled_for() >= STALLED {
            return self.drop_answers(CloseCode::Policy, "the answers are not read", ctx);
        }
        if self.meter.unfinished_for().is_some_and(|time| time >= UNFINISHED) {
            self.close(CloseCode::Policy, "the end of a message does not come", ctx);
        }
    }

    /// No sign of life for too long: there is nobody to say anything to.
    pub(super) fn give_up(&mut self, silent: Duration, ctx: &mut Context<Self>) {
        debug!(client = self.client.id(), ?silent, "no sign of life: the connection is dropped");
        self.abort(ctx);
    }

    /// A subscription could not go on since then.
    pub(super) fn close_if_too_slow(&mut self, since: Instant, now: Instant, ctx: &mut Context<Self>) {
        if now.duration_since(since) >= STALLED {
            self.drop_answers(CloseCode::Policy, "the subscriber is too slow", ctx);
        }
    }
}
