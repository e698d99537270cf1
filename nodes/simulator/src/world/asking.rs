//! The clients of a simulated world: what they say to nodes, and what they make of the answers. What nodes make of what they say is in `sessions`.

use std::time::Duration;

use rabia_bank_actors::consensus::turns::ClientId;
use rabia_bank_actors::parts::clients::{Answered, Client as Handle, Done, Waiter};
use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::batch::Action;
use rabia_bank_messages::ids::Slot;

use super::super::clients::{Ask, AskOf, At, Client, InFlight};
use super::super::properties::{Check, check};
use super::super::workload::Workload;
use super::bank::{FOLLOW_PAGE, FOLLOW_SCAN};
use super::{CLIENT_PACE, CLIENTS, Item, World};

/// How long a client waits before it asks again that was turned away.
const WITHOUT_TOKEN: Duration = Duration::from_millis(100);

impl<W: Workload> World<W> {
    pub(super) fn client(&mut self, index: usize) -> Check {
        let pace = CLIENT_PACE + self.micros(0, 5_000);
        self.at(pace, Item::Client(index));
        let (now, after, wall) = (self.now, self.answers.now(), self.true_time());
        let client = &mut self.clients[index];
        if client.is_done() {
            self.staff.served(index);
        }
        let given_up = client.give_up(now);
        let at = At { now, after, wall, model: &self.model, staff: &mut self.staff };
        let mut marks: Vec<u64> = client.begin(at, &mut self.random).into_iter().collect();
        if client.in_flight.values().any(|request| request.patience <= now) {
            client.move_to(self.random.usize(..self.machines.len()), self.staff.badge(index));
        }
        let mut patience = client.patience(&mut self.random);
        if self.staff.lacks(index) {
            patience = patience.max(WITHOUT_TOKEN);
        }
        for (mark, request) in &mut client.in_flight {
            if request.patience <= now {
                request.patience = now + patience;
                request.attempts.said();
                marks.push(*mark);
                self.report.count("requests sent again");
            }
        }
        marks.extend(self.steal(index));
        let (machine, client) = (self.model.machine(), &mut self.clients[index]);
        let stray = if !client.is_done() && self.random.u32(..60) == 0 {
            client.stray(machine, &mut self.random)
        } else {
            None
        };
        // What would have been the first on a connection that it left is not asked any more.
        let asked = |mark: &u64| client.in_flight.get(mark).map(|request| (*mark, request.ask.clone()));
        let asks: Vec<_> = marks.iter().filter_map(asked).collect();
        for _ in 0..given_up {
            self.report.count("feeds that brought nothing in time");
        }
        // Nobody waits for what has no mark.
        for (tag, ask) in asks.into_iter().chain(stray.map(|ask| (0, ask))) {
            self.ask(index, tag, ask);
        }
        Ok(())
    }

    fn ask(&mut self, index: usize, tag: u64, ask: AskOf<W>) {
        let Client { home: node, handle, badge, .. } = &self.clients[index];
        let (node, client, badge) = (*node, handle.clone(), badge.clone());
        if !self.percent(self.rates.loss) {
            let delay = self.micros(50, 3_000);
            self.at(delay, Item::Request { node, waiter: Waiter { client, tag }, badge, ask });
        }
    }

    /// A node answers a client.
    pub(super) fn reply(&mut self, client: &Handle<W::Machine>, answered: Answered<W::Machine>) {
        if self.percent(self.rates.loss) {
            return self.report.count("answers to clients lost");
        }
        let delay = self.micros(50, 3_000);
        self.at(delay, Item::Answer { connection: client.id(), token: client.token(), answered });
    }

    /// A client is told on this connection that its request is worth another try. Some give up then what is certainly not executed.
    fn told_to_try_again(&mut self, connection: ClientId, tag: u64, refusal: &Refusal) {
        self.report.count("requests without an outcome");
        let client = &mut self.clients[connection as usize % CLIENTS];
        let present = client.handle.id() == connection;
        let Some(request) = client.in_flight.get_mut(&tag).filter(|_| present) else { return };
        request.attempts.refused(refusal);
        if let Ask::Log(header, Action::Command(_)) = &request.ask
            && !request.attempts.may_be_executed()
            && self.random.bool()
        {
            self.answers.refused((header.session, header.number));
            client.in_flight.remove(&tag);
            self.report.count("commands that were certainly not executed");
        }
    }

    /// A client gets an answer.
    pub(super) fn answer(&mut self, connection: ClientId, token: u64, answered: Answered<W::Machine>) -> Check {
        if let Err(refusal) = &answered.result {
            if matches!(refusal.code, ErrorCode::NoQuorum | ErrorCode::Busy | ErrorCode::NotYetApplied) {
                self.told_to_try_again(connection, answered.tag, refusal);
                return Ok(());
            }
            if refusal.code == ErrorCode::NotAuthorised && self.not_authorised(connection, token, &answered)? {
                return Ok(());
            }
        }
        let Answered { tag, slot, result, .. } = answered;
        let index = connection as usize % CLIENTS;
        let client = &mut self.clients[index];
        let Some(request) = client.in_flight.remove(&tag) else { return Ok(()) };
        if result.is_ok() && client.handle.id() == connection {
            self.staff.served(index);
        }
        let (slot, success) = match (slot, result) {
            (_, result) if let Ask::Theft(header, _) = &request.ask => return self.stolen(header, &result),
            (Some(slot), Ok(Done::Success(success))) => (slot, Ok(success)),
            (None, Ok(Done::Opened { session, .. })) if matches!(request.ask, Ask::Log(_, Action::Open)) => {
                client.opened(session);
                return Ok(());
            }
            (Some(_), Ok(Done::Closed)) if matches!(request.ask, Ask::Log(_, Action::Close)) => {
                client.closed();
                return Ok(());
            }
            (None, Ok(Done::Followed { entries, next })) => {
                let Ask::Follow(feed, from) = &request.ask else {
                    return check(false, "answers", || format!("{:?} was answered with transactions", request.ask));
                };
                let limits = (FOLLOW_SCAN, FOLLOW_PAGE);
                return self.answers.followed(&self.model, token, (feed, *from), limits, (entries, next));
            }
            (slot, Err(refusal)) => (slot.unwrap_or(0), Err(refusal)),
            (slot, result) => {
                return check(false, "answers", || {
                    format!("{:?} was answered {result:?} of slot {slot:?}", request.ask)
                });
            }
        };
        self.settle(connection, token, request, (slot, success))
    }

    /// A request is settled: by what came of it, or by a refusal.
    fn settle(
        &mut self,
        connection: ClientId,
        token: u64,
        InFlight { ask, after, .. }: InFlight<W>,
        (slot, answer): (Slot, Result<W::Success, Refusal>),
    ) -> Check {
        let client = &mut self.clients[connection as usize % CLIENTS];
        match (ask, answer) {
            (Ask::Read(query, level), answer) => {
                self.answers.read(&self.model, token, (&query, level), after, (slot, answer))
            }
            // As many are open as may be, or an earlier attempt has opened it, and it has expired since.
            (Ask::Log(header, Action::Open), Err(Refusal { code, .. }))
                if matches!(code, ErrorCode::TooManySessions | ErrorCode::SessionExpired) =>
            {
                self.report.count("sessions that were not opened");
                client.not_opened(self.now);
                let right = code == ErrorCode::TooManySessions || self.model.has_ended(header.key);
                check(right, "sessions", || {
                    format!("{header:?} was answered {code:?}, but no session of its key ended")
                })
            }
            // An earlier attempt has closed it, or the session has expired. What came of the request is unknown.
            (Ask::Log(header, action), Err(Refusal { code: ErrorCode::SessionExpired, .. })) => {
                self.report.count("sessions expired under a request");
                let what = || format!("{action:?} of session {} was answered session_expired", header.session);
                check(!self.model.is_open(header.session), "sessions", || format!("{}, but it is open", what()))?;
                client.gone(header.session);
                Ok(())
            }
            // Its session was opened for it, and is gone already.
            (Ask::First(_), Err(Refusal { code: ErrorCode::TooManySessions | ErrorCode::SessionExpired, .. })) => {
                if let Some(header) = client.first_header(connection) {
                    client.gone(header.session);
                }
                client.not_opened(self.now);
                Ok(())
            }
            (Ask::First(command), answer) => {
                let Some(header) = client.first_header(connection) else { return Ok(()) };
                client.commanded(header, Action::Command(command), slot);
                self.answers.command(&self.model, token, (header.session, 1), after, (slot, answer))
            }
            (Ask::Log(header, action @ (Action::Command(_) | Action::Admin(_))), answer) => {
                let is_command = matches!(action, Action::Command(_));
                client.commanded(header, action, slot);
                let name = (header.session, header.number);
                if is_command {
                    self.answers.command(&self.model, token, name, after, (slot, answer))
                } else {
                    self.answers.administered(&self.model, name, after, (slot, answer))
                }
            }
            // Who has seen no answer asks again, and it changes nothing.
            (Ask::Owner(_), _) => Ok(()),
            (ask, answer) => check(false, "answers", || format!("{ask:?} was answered {answer:?}")),
        }
    }
}
