//! The sessions of a node: one a connection of a client, each the part that the session actors drive.

use std::time::Duration;

use rabia_bank_actors::parts::bank::words::{Ask as Question, Follow};
use rabia_bank_actors::parts::clients::{Answered, Client as Handle, Done, Waiter};
use rabia_bank_actors::parts::door::{Door, Look, Shown};
use rabia_bank_actors::parts::session::{Limits, Number, Out, Reply, Session};
use rabia_bank_messages::bank::Refusal;
use rabia_bank_messages::batch::{Action, RequestHeader};
use rabia_bank_messages::client::SessionName;
use rabia_bank_messages::ids::{Millis, SessionKey};
use rabia_bank_messages::principal::NO_TOKEN;

use super::super::clients::{Ask, AskOf};
use super::super::properties::{Check, Violation, check};
use super::super::staff::Badge;
use super::super::workload::Workload;
use super::{CLIENTS, Item, World};

/// Few requests may wait, so that clients meet the limit, and not for long.
const LIMITS: Limits = Limits { in_flight: 5, timeout: Duration::from_secs(1) };
/// Marks what is said without a session, or in another one than the connection's: the end of a session, a look at a feed, and what a
/// client says again that was answered long ago.
const DIRECT: u64 = 1 << 63;

/// What was said on a connection before its client left may come so much later, where a node stands still. Times are virtual.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// A connection, and the session that is spoken in on it. What is asked is known by the client's own mark.
pub(super) struct Connection<W: Workload> {
    client: Handle<W::Machine>,
    session: Session<u64, W::Machine>,
    door: Door,
    /// Since when its client is gone, as far as the node has looked.
    gone: Option<Duration>,
    /// The node has ended it: what still comes on it is not heard.
    is_shut: bool,
}

impl<W: Workload> World<W> {
    /// A client says something on a connection.
    pub(super) fn request(
        &mut self,
        index: usize,
        Waiter { client, tag }: Waiter<W::Machine>,
        badge: &Badge,
        ask: AskOf<W>,
    ) -> Check {
        let now = self.now;
        if let Ask::Owner(admin) = ask {
            let token = u64::from(self.machines[index].id.get());
            let header = RequestHeader { session: 0, key: SessionKey([0; 16]), number: 0, acknowledged: 0, token };
            let waiter = Waiter { client, tag: tag | DIRECT };
            return self.submit(index, waiter, &header, &Action::Admin(Box::new(admin)));
        }
        if !self.greet(index, &client, badge)? {
            return Ok(());
        }
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let Some(Connection { session, door, .. }) = node.sessions.get_mut(&client.id()) else { return Ok(()) };
        let mut outs = Vec::new();
        match ask {
            Ask::Log(header, action) if tag == 0 || matches!(action, Action::Close) => {
                return self.submit_directly(index, client, tag, header, &action);
            }
            Ask::Theft(header, action) => return self.submit_directly(index, client, tag, header, &action),
            Ask::Follow(feed, next) => {
                let waiter = Waiter { client, tag: tag | DIRECT };
                return self.bank(index, |bank, _, out| bank.follow(Follow { waiter, feed, next }, out));
            }
            Ask::Log(header, Action::Command(command)) => {
                session.go_on(SessionName { number: header.session, key: header.key });
                let number = Number::Given { number: header.number, acknowledged: header.acknowledged };
                if session.is_first(header.number)
                    && let Err(refusal) = door.check_command::<W::Machine>(&node.applied, &command)
                {
                    session.saw(header.number);
                    return self.refused_at_door(index, &client, tag, &command, refusal);
                }
                session.command(now, tag, number, command, &mut outs);
            }
            Ask::Log(header, Action::Admin(admin)) => {
                session.go_on(SessionName { number: header.session, key: header.key });
                let number = Number::Given { number: header.number, acknowledged: header.acknowledged };
                session.admin(now, tag, number, *admin, &mut outs);
            }
            Ask::Log(header, _) => session.open(now, header.key, Some(tag), &mut outs),
            Ask::First(command) => {
                if session.is_first(1)
                    && let Err(refusal) = door.check_command::<W::Machine>(&node.applied, &command)
                {
                    session.saw(1);
                    return self.refused_at_door(index, &client, tag, &command, refusal);
                }
                let number = Number::Given { number: 1, acknowledged: 0 };
                session.command(now, tag, number, command, &mut outs);
            }
            Ask::Read(query, read) => session.query(now, tag, query, read, &mut outs),
            Ask::Owner(_) => {}
        }
        self.perform_session(index, &client, outs)
    }

    /// What a node takes for the time, as far as it trusts its clock.
    fn trusted_time(&self, index: usize) -> Millis {
        let leap = self.machines[index].node.as_ref().map_or(0, |node| node.leap);
        self.wall(index).saturating_sub(leap)
    }

    /// A node meets a client on its connection, for the first time or again. False if it is turned away.
    fn greet(&mut self, index: usize, client: &Handle<W::Machine>, badge: &Badge) -> Result<bool, Violation> {
        let time = self.trusted_time(index);
        let Some(node) = &mut self.machines[index].node else { return Ok(false) };
        if let Some(connection) = node.sessions.get(&client.id()) {
            return Ok(!connection.is_shut);
        }
        let mut door = Door::default();
        let number = match badge {
            Badge::Host => Some(NO_TOKEN),
            Badge::Token(token) | Badge::Forged(token) => door.let_in(&node.applied, Shown::Token(token), time),
        };
        check(number.is_none() || !matches!(badge, Badge::Forged(_)), "forged tokens", || {
            format!("{badge:?} was taken for token {number:?}")
        })?;
        // The key of a session is the connection's own, and that of this run.
        let mut key = [0xFF; 16];
        key[..8].copy_from_slice(&client.id().to_be_bytes());
        key[8..12].copy_from_slice(&(node.run as u32).to_be_bytes());
        let mut session = Session::new(LIMITS, move || Some(SessionKey(key)));
        if let Some(number) = number {
            client.show(number);
            session.show(number);
        }
        let is_shut = number.is_none();
        node.sessions.insert(client.id(), Connection { client: client.clone(), session, door, gone: None, is_shut });
        if is_shut {
            self.report.count("clients turned away");
            self.end_connection(client);
        }
        Ok(!is_shut)
    }

    /// A client hears that its connection has ended, if the news gets there.
    fn end_connection(&mut self, client: &Handle<W::Machine>) {
        if !self.percent(self.rates.loss) {
            let delay = self.micros(50, 3_000);
            self.at(delay, Item::Ended(client.id()));
        }
    }

    /// Something is said in the session that it names, with the token of the connection.
    fn submit_directly(
        &mut self,
        index: usize,
        client: Handle<W::Machine>,
        tag: u64,
        header: RequestHeader,
        action: &Action<W::Command>,
    ) -> Check {
        let header = RequestHeader { token: client.token(), ..header };
        self.submit(index, Waiter { client, tag: tag | DIRECT }, &header, action)
    }

    /// A command is refused before it goes into the log: it would be there, too, by what is applied here.
    fn refused_at_door(
        &mut self,
        index: usize,
        client: &Handle<W::Machine>,
        tag: u64,
        command: &W::Command,
        refusal: Refusal,
    ) -> Check {
        let Some(node) = &self.machines[index].node else { return Ok(()) };
        let (token, applied) = (client.token(), node.applied.get());
        check(self.model.refuses(token, applied, command), "the door refuses what the log does", || {
            format!("{command:?} with token {token} was refused at the door after slot {applied}: {refusal:?}")
        })?;
        self.report.count("commands refused at the door");
        self.reply(client, Answered { tag, slot: None, index: None, replayed: false, result: Err(refusal) });
        Ok(())
    }

    /// The bank, or the proposer, has answers for a client.
    pub(super) fn answered(
        &mut self,
        index: usize,
        client: &Handle<W::Machine>,
        answers: Vec<Answered<W::Machine>>,
    ) -> Check {
        let (now, mut outs) = (self.now, Vec::new());
        for mut answered in answers {
            if answered.tag & DIRECT != 0 {
                answered.tag &= !DIRECT;
                self.reply(client, answered);
                continue;
            }
            let Some(node) = &mut self.machines[index].node else { return Ok(()) };
            // The connection may have ended meanwhile.
            let Some(Connection { session, is_shut: false, .. }) = node.sessions.get_mut(&client.id()) else {
                continue;
            };
            session.answered(now, answered, &mut outs);
        }
        self.perform_session(index, client, outs)
    }

    fn perform_session(&mut self, index: usize, client: &Handle<W::Machine>, outs: Vec<Out<u64, W::Machine>>) -> Check {
        let opened = |result| Answered { tag: 0, slot: None, index: None, replayed: false, result };
        for out in outs {
            let waiter = |tag| Waiter { client: client.clone(), tag };
            match out {
                Out::Submit { tag, header, action } => self.submit(index, waiter(tag), &header, &action)?,
                Out::Ask { tag, query, read, deadline } => {
                    let (waiter, deadline) = (waiter(tag), self.zero + deadline);
                    self.bank(index, |bank, _, out| bank.ask(Question { waiter, query, read, deadline }, out))?;
                }
                Out::Answer { asker, reply, .. } => {
                    let Reply { slot, index, replayed, result } = reply;
                    let result = result.map(Done::Success);
                    self.reply(client, Answered { tag: asker, slot, index, replayed, result });
                }
                Out::Opened { asker: Some(tag), session: SessionName { number: session, .. }, new } => {
                    self.reply(client, Answered { tag, ..opened(Ok(Done::Opened { session, new })) });
                }
                // It comes with the next answer, which may be lost.
                Out::Opened { asker: None, session, .. } => {
                    self.clients[client.id() as usize % CLIENTS].announced(client.id(), session);
                }
                Out::NotOpened { asker: Some(tag), refusal } => {
                    self.reply(client, Answered { tag, ..opened(Err(refusal)) });
                }
                Out::NotOpened { asker: None, .. } => {}
                out => return check(false, "answers", || format!("nobody has asked for {out:?}")),
            }
        }
        Ok(())
    }

    /// Requests run out of time, and sessions go with their connections, and with their tokens.
    pub(super) fn check_sessions(&mut self, index: usize) -> Check {
        let (now, time) = (self.now, self.trusted_time(index));
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let applied = node.bank.standpoint().applied;
        let (mut due, mut shut) = (Vec::new(), Vec::new());
        node.sessions.retain(|_, Connection { client, gone, .. }| {
            if client.is_gone() && gone.is_none() {
                *gone = Some(now);
            }
            gone.is_none_or(|since| now < since + FORGOTTEN)
        });
        for connection in node.sessions.values_mut().filter(|connection| !connection.is_shut) {
            let Connection { client, session, door, is_shut, .. } = connection;
            if door.look(&node.applied, time) == Look::Shut {
                *is_shut = true;
                if !client.is_gone() {
                    client.leave();
                    shut.push(client.clone());
                }
                continue;
            }
            let in_force = door.token().is_none_or(|token| self.model.is_put(token, applied));
            check(in_force, "connections end with their tokens", || {
                format!("token {:?} is not in force after slot {applied}, and its connection goes on", door.token())
            })?;
            let mut outs = Vec::new();
            session.check(now, applied, &mut outs);
            if !outs.is_empty() {
                due.push((client.clone(), outs));
            }
        }
        for client in shut {
            self.report.count("connections ended for their tokens");
            self.end_connection(&client);
        }
        due.into_iter().try_for_each(|(client, outs)| self.perform_session(index, &client, outs))
    }
}
