//! The sessions of a node: one a connection of a client, each the part that the session actors drive.

use std::time::Duration;

use rabia_bank_actors::parts::bank::words::{Ask as Question, Follow};
use rabia_bank_actors::parts::clients::{Answered, Client as Handle, Done, Waiter};
use rabia_bank_actors::parts::session::{Limits, Number, Out, Reply, Session};
use rabia_bank_messages::batch::Action;
use rabia_bank_messages::client::SessionName;
use rabia_bank_messages::ids::SessionKey;

use super::super::clients::{Ask, AskOf};
use super::super::properties::{Check, check};
use super::super::workload::Workload;
use super::{CLIENTS, World};

/// Few requests may wait, so that clients meet the limit, and not for long.
const LIMITS: Limits = Limits { in_flight: 5, timeout: Duration::from_secs(1) };
/// Marks what is said without a session, or in another one than the connection's: the end of a session, a look at a feed, and what a
/// client says again that was answered long ago.
const DIRECT: u64 = 1 << 63;

/// A connection, and the session that is spoken in on it. What is asked is known by the client's own mark.
pub(super) type Connection<W> = (Handle<<W as Workload>::Machine>, Session<u64, <W as Workload>::Machine>);

impl<W: Workload> World<W> {
    /// A client says something on a connection.
    pub(super) fn request(&mut self, index: usize, Waiter { client, tag }: Waiter<W::Machine>, ask: AskOf<W>) -> Check {
        let now = self.now;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        // The key of a session is the connection's own, and that of this run.
        let mut key = [0xFF; 16];
        key[..8].copy_from_slice(&client.id().to_be_bytes());
        key[8..12].copy_from_slice(&(node.run as u32).to_be_bytes());
        let new = || (client.clone(), Session::new(LIMITS, move || Some(SessionKey(key))));
        let (_, session) = node.sessions.entry(client.id()).or_insert_with(new);
        let mut outs = Vec::new();
        match ask {
            Ask::Log(header, action) if tag == 0 || matches!(action, Action::Close) => {
                return self.submit(index, Waiter { client, tag: tag | DIRECT }, &header, &action);
            }
            Ask::Follow(feed, next) => {
                let waiter = Waiter { client, tag: tag | DIRECT };
                return self.bank(index, |bank, _, out| bank.follow(Follow { waiter, feed, next }, out));
            }
            Ask::Log(header, Action::Command(command)) => {
                session.go_on(SessionName { number: header.session, key: header.key });
                let number = Number::Given { number: header.number, acknowledged: header.acknowledged };
                session.command(now, tag, number, command, &mut outs);
            }
            Ask::Log(header, _) => session.open(now, header.key, Some(tag), &mut outs),
            Ask::First(command) => {
                let number = Number::Given { number: 1, acknowledged: 0 };
                session.command(now, tag, number, command, &mut outs);
            }
            Ask::Read(query, read) => session.query(now, tag, query, read, &mut outs),
        }
        self.perform_session(index, &client, outs)
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
                self.reply(client.id(), answered);
                continue;
            }
            let Some(node) = &mut self.machines[index].node else { return Ok(()) };
            // The connection may have ended meanwhile.
            let Some((_, session)) = node.sessions.get_mut(&client.id()) else { continue };
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
                    self.reply(client.id(), Answered { tag: asker, slot, index, replayed, result });
                }
                Out::Opened { asker: Some(tag), session: SessionName { number: session, .. }, new } => {
                    self.reply(client.id(), Answered { tag, ..opened(Ok(Done::Opened { session, new })) });
                }
                // It comes with the next answer, which may be lost.
                Out::Opened { asker: None, session, .. } => {
                    self.clients[client.id() as usize % CLIENTS].announced(client.id(), session);
                }
                Out::NotOpened { asker: Some(tag), refusal } => {
                    self.reply(client.id(), Answered { tag, ..opened(Err(refusal)) });
                }
                Out::NotOpened { asker: None, .. } => {}
                out => return check(false, "answers", || format!("nobody has asked for {out:?}")),
            }
        }
        Ok(())
    }

    /// Requests run out of time, and sessions go with their connections.
    pub(super) fn check_sessions(&mut self, index: usize) -> Check {
        let now = self.now;
        let Some(node) = &mut self.machines[index].node else { return Ok(()) };
        let applied = node.bank.standpoint().applied;
        node.sessions.retain(|_, (client, _)| !client.is_gone());
        let mut due = Vec::new();
        for (client, session) in node.sessions.values_mut() {
            let mut outs = Vec::new();
            session.check(now, applied, &mut outs);
            if !outs.is_empty() {
                due.push((client.clone(), outs));
            }
        }
        due.into_iter().try_for_each(|(client, outs)| self.perform_session(index, &client, outs))
    }
}
