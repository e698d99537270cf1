//! Subscriptions of a connection.
//!
//! A subscription asks the bank for transactions a page at a time, and for the next page only when the client has read most of
//! what was sent. So a slow subscriber costs its node nothing; one that reads nothing at all is closed.

use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use rabia_bank_messages::bank::{ErrorCode, ReadLevel, Refusal, Transaction};
use rabia_bank_messages::client::{Feed, ServerMessage};
use rabia_bank_messages::codec::Encoding;

use super::{ClientSession, Kind, Subscription};
use crate::mail::bank::{Follow, Subscribe};
use crate::mail::client_session::Waiter;

/// Subscriptions that a connection may have open.
const MAX_SUBSCRIPTIONS: usize = 64;
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
        self.highest = self.highest.max(request);
        if self.too_many(encoding, request, true, ctx) {
            return;
        }
        let refusal = if self.subscriptions.contains_key(&request) {
            Refusal::refused(ErrorCode::Malformed, format!("there is a subscription {request} on this connection"))
        } else if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            let message = format!("{MAX_SUBSCRIPTIONS} subscriptions are open on this connection");
            Refusal::refused(ErrorCode::Busy, message)
        } else {
            let tag = self.track(request, encoding, Kind::Subscribe(read));
            let deadline = Instant::now() + self.settings.request_timeout;
            let subscription = Subscription { encoding, feed: Arc::new(feed.clone()), next: 0, asked: None };
            self.subscriptions.insert(request, subscription);
            let waiter = Waiter { client: self.client.clone(), tag };
            return self.neighbours.bank.subscribe.do_send(Subscribe { waiter, feed, read, deadline });
        };
        self.waiting.give(self.message_bytes);
        self.refuse(encoding, Some(request), refusal, ctx);
    }

    /// Asks for the next page of a subscription, unless the client has much to read already.
    pub(super) fn follow(&mut self, request: u64) {
        let Some(subscription) = self.subscriptions.get_mut(&request) else { return };
        if self.outlet.unread.bytes() > FEED_AHEAD {
            subscription.asked = None;
            self.resting.get_or_insert_with(Instant::now);
            return;
        }
        self.tags += 1;
        subscription.asked = Some(self.tags);
        let waiter = Waiter { client: self.client.clone(), tag: self.tags };
        self.neighbours.bank.follow.do_send(Follow {
            waiter,
            feed: subscription.feed.clone(),
            next: subscription.next,
        });
    }

    pub(super) fn followed(&mut self, tag: u64, transactions: Vec<Transaction>, next: u64, ctx: &mut Context<Self>) {
        let mut asked = self.subscriptions.iter_mut().filter(|(_, subscription)| subscription.asked == Some(tag));
        // It may have been ended meanwhile.
        let Some((&request, subscription)) = asked.next() else { return };
        let encoding = subscription.encoding;
        subscription.next = next;
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
            let resting =
                |(request, of): (&u64, &Subscription)| (of.next > 0 && of.asked.is_none()).then_some(*request);
            let requests: Vec<u64> = self.subscriptions.iter().filter_map(resting).collect();
            for request in requests {
                self.follow(request);
            }
        } else {
            self.close_if_too_slow(since, now, ctx);
        }
    }
}
