//! What clients make of being turned away, and those that try what is another principal's.

use rabia_bank_actors::consensus::turns::ClientId;
use rabia_bank_actors::parts::clients::{Answered, Done};
use rabia_bank_messages::bank::{ErrorCode, Outcome, Refusal};
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::ids::Slot;

use super::super::clients::Ask;
use super::super::properties::{Check, Violation, check};
use super::super::workload::Workload;
use super::{CLIENTS, World};

/// One of so many looks of a client is at the session of another.
const THEFTS: u32 = 500;

impl<W: Workload> World<W> {
    /// A node has ended a connection. Its client comes back on another, to any node, with what it has by then.
    pub(super) fn connection_ended(&mut self, connection: ClientId) {
        let index = connection as usize % CLIENTS;
        if self.clients[index].handle.id() == connection {
            self.lose_connection(index);
        }
    }

    fn lose_connection(&mut self, index: usize) {
        let badge = self.staff.badge(index);
        let client = &mut self.clients[index];
        self.staff.turned_away(index, &client.badge);
        client.turned_away(self.now);
        client.move_to(self.staff.random.usize(..self.machines.len()), badge);
    }

    /// A client tries a session of another principal, as a thief of its key would. The mark of what it says, if it does.
    pub(super) fn steal(&mut self, index: usize) -> Option<u64> {
        let random = &mut self.staff.random;
        if !W::PRINCIPALS || self.clients[index].left == 0 || random.u32(..THEFTS) > 0 {
            return None;
        }
        let other = random.usize(..CLIENTS);
        let (header, action) = self.clients[other].loot()?;
        let number = header.number + random.u64(..4);
        let (header, action) = match random.u32(..8) {
            0 => (RequestHeader { number: 0, acknowledged: 0, ..header }, Action::Open),
            1 => (RequestHeader { number: 0, acknowledged: 0, ..header }, Action::Close),
            2 | 3 => {
                let command = self.model.machine().any_command(random);
                (RequestHeader { number, acknowledged: number - 1, ..header }, Action::Command(command))
            }
            // As it was said: whoever may hear of it gets the answer.
            _ => (header, action),
        };
        if self.staff.name_of(index) == self.staff.name_of(other) {
            return None;
        }
        self.report.count("sessions of others tried");
        let after = self.answers.now();
        Some(self.clients[index].steal(self.now, after, header, action))
    }

    /// A thief gets an answer: never what came of anything in the session, nor a part in it.
    pub(super) fn stolen(&self, header: &RequestHeader, result: &Result<Done<W::Machine>, Refusal>) -> Check {
        let kept_out = match result {
            Err(Refusal { code, .. }) => {
                matches!(code, ErrorCode::NotAuthorised | ErrorCode::SessionExpired | ErrorCode::TooManySessions)
            }
            Ok(_) => false,
        };
        check(kept_out, "replies are their principal's", || {
            format!("a thief of session {} with its key was answered {result:?}", header.session)
        })
    }

    /// A client is told that it is not authorised. Whether that is all there is to say of its request; if not, it is what the machine
    /// answers to the command or the question.
    pub(super) fn not_authorised(
        &mut self,
        connection: ClientId,
        token: u64,
        answered: &Answered<W::Machine>,
    ) -> Result<bool, Violation> {
        let Answered { tag, slot, result: Err(refusal), .. } = answered else { return Ok(false) };
        let index = connection as usize % CLIENTS;
        let client = &mut self.clients[index];
        let present = client.handle.id() == connection;
        let Some(request) = client.in_flight.get(tag) else { return Ok(true) };
        let name = match &request.ask {
            Ask::Read(..) | Ask::Follow(..) | Ask::Owner(_) | Ask::Theft(..) => return Ok(false),
            Ask::Log(_, Action::Open | Action::Close) => None,
            Ask::Log(header, _) => Some(*header),
            Ask::First(_) => client.first_header(connection),
        };
        if let Some(slot) = slot {
            if name.is_some_and(|header| refusal.outcome == Outcome::Refused && self.is_of_machine(&header, *slot)) {
                return Ok(false);
            }
            check(self.model.was_out_of_force(token, slot.saturating_sub(1)), "nobody is kept out", || {
                format!("{name:?} was answered {refusal:?} in slot {slot}, but token {token} was in force")
            })?;
        }
        // Somebody who is heard no more.
        if !present {
            return Ok(true);
        }
        self.settle_unauthorised(index, *tag, name, refusal);
        // A door refuses what a principal has no roles for, and lets it go on.
        if slot.is_some() {
            self.lose_connection(index);
        }
        Ok(true)
    }

    /// Whether the machine itself refused this request in this slot.
    fn is_of_machine(&self, header: &RequestHeader, slot: Slot) -> bool {
        let name = (header.session, header.number);
        let command = self.model.applied.get(&name).map(|applied| applied.position);
        let act = self.model.administered(name).map(|(position, _)| position);
        command.or(act).is_some_and(|(applied, _)| applied == slot)
    }

    /// A request that was kept out: it is given up, or said again with the next token where it may have been executed.
    fn settle_unauthorised(&mut self, index: usize, tag: u64, name: Option<RequestHeader>, refusal: &Refusal) {
        let client = &mut self.clients[index];
        let Some(request) = client.in_flight.get_mut(&tag) else { return };
        if refusal.outcome == Outcome::Unknown && name.is_some() && self.staff.random.bool() {
            request.attempts.connection_lost();
            request.attempts.refused(refusal);
            return self.report.count("requests said again with another token");
        }
        match client.in_flight.remove(&tag).map(|request| request.ask) {
            Some(Ask::Log(_, Action::Open)) => client.not_opened(self.now),
            Some(Ask::Log(_, Action::Close)) => client.closed(),
            _ if refusal.outcome == Outcome::Unknown => {
                self.report.count("requests that nobody is told the outcome of")
            }
            _ => {
                self.report.count("commands that were not authorised and not executed");
                if let Some(header) = name {
                    self.answers.refused((header.session, header.number));
                    client.dropped(&header);
                }
            }
        }
    }
}
