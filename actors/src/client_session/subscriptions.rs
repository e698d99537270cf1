//! Subscriptions of a connection.
//!
//! A subscription asks the bank for transactions a page at a time, and for the next page only when the client has read most of
//! what was sent. So a slow subscriber costs its node nothing; one that reads nothing at all is closed.

use std::time::Instant;

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, ReadLevel, Refusal, Transaction};
use rabia_bank_messages::client::{Feed, ServerMessage};
use rabia_bank_messages::codec::Encoding;

use super::{Asker, ClientSession, Subscribed};

/// Subscriptions that a connection may have open.
pub const MAX_SUBSCRIPTIONS: usize = 64;
/// While more bytes than these wait for a client to read them, its subscriptions rest.
const FEED_AHEAD: usize = 256 << 10;

impl ClientSession {
    pub(super) fn subscribe(
        &mut self,
        encoding: Encoding,
        request: u64,
        feed: Feed,
        read: ReadLevel,
        ctx: &mut Context<Self>,
    ) {
        self.session.saw(request);
        if let Err(refusal) = self.check_read(read) {
            return self.refuse(encoding, Some(request), refusal, ctx);
        }
        let Some(asker) = self.take_bytes(encoding, request, true, ctx) else { return };
        let refusal = if self.subscriptions.contains_key(&request) {
            Refusal::refused(ErrorCode::Malformed, format!("there is a subscription {request} on this connection"))
        } else if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            let message = format!("{MAX_SUBSCRIPTIONS} subscriptions are open on this connection");
            Refusal::refused(ErrorCode::Busy, message)
        } else {
            match self.accounts.subscriptions.hold(1) {
                Ok(_held) => {
                    self.subscriptions.insert(request, Subscribed { encoding, _held });
                    let asker = Asker { subscribes: true, ..asker };
                    return self.session.subscribe(self.now(), asker, request, feed, read, &mut self.outs);
                }
                Err(exceeded) => {
                    let message = format!("too many subscriptions of {} are open", exceeded.whose());
                    Refusal::refused(ErrorCode::Busy, message)
                }
            }
        };
        self.refuse(encoding, Some(request), refusal, ctx);
    }

    /// Asks for the next page of a subscription, unless the client has much to read already.
    pub(super) fn follow(&mut self, request: u64) {
        if self.outlet.unread.bytes() > FEED_AHEAD {
            self.resting.get_or_insert_with(Instant::now);
        } else {
            self.session.more(request, &mut self.outs);
        }
    }

    pub(super) fn followed(
        &mut self,
        request: u64,
        transactions: Vec<Transaction>,
        next: u64,
        ctx: &mut Context<Self>,
    ) {
        let Some(&Subscribed { encoding, .. }) = self.subscriptions.get(&request) else { return };
        if transactions.is_empty() {
            let reached = ServerMessage::Reached { subscription: request, reached: next - 1 };
            self.send(encoding, &reached, ctx);
        }
        for transaction in transactions {
            let transaction = Box::new(transaction);
            self.send(encoding, &ServerMessage::Transaction { subscription: request, transaction }, ctx);
        }
        self.follow(request);
    }

    /// Lets subscriptions go on that rested, when the client has read enough.
    pub(super) fn wake_subscriptions(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let Some(since) = self.resting else { return };
        if self.outlet.unread.bytes() <= FEED_AHEAD {
            self.resting = None;
            self.session.more_of_all(&mut self.outs);
            self.perform(ctx);
        } else {
            self.close_if_too_slow(since, now, ctx);
        }
    }
}
