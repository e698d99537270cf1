//! The proposers of simulated nodes: what their parts say is done here.

use rabia_bank_actors::consensus::agreement::{Event, Notice};
use rabia_bank_actors::consensus::pool::Now;
use rabia_bank_actors::parts::clients::{Answered, Waiter};
use rabia_bank_actors::parts::proposer::{Out, Proposer};
use rabia_bank_actors::parts::timekeeper::LOOK;
use rabia_bank_messages::batch::{Action, EncodedRequest, RequestHeader};
use rabia_bank_messages::ids::Millis;

use super::super::properties::{Check, check};
use super::super::workload::Workload;
use super::{MAILBOX, Mail, World};

impl<W: Workload> World<W> {
    /// The proposer of a node does something, and what follows is done. Nothing happens if the node is down.
    pub(super) fn proposer(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Proposer<Waiter<W::Machine>>, Now, &mut Vec<Out<Waiter<W::Machine>>>),
    ) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut outs) = (self.clocks(index, &node), Vec::new());
        act(&mut node.proposer, now, &mut outs);
        self.machines[index].node = Some(node);
        outs.into_iter().try_for_each(|out| self.carry_out(index, out))
    }

    fn carry_out(&mut self, index: usize, out: Out<Waiter<W::Machine>>) -> Check {
        match out {
            Out::Tell(events) => {
                self.note_formed(index, &events)?;
                self.mail(index, MAILBOX, Mail::Events(events));
            }
            Out::Expect(id, waiters) => {
                check(!self.agreement.is_formed(&id), "validity", || format!("batch {id} was formed twice"))?;
                if let Some(node) = &mut self.machines[index].node {
                    node.bank.expect(id, waiters);
                }
            }
            Out::Abandon(id) => self.bank(index, |bank, _, out| bank.abandon(&id, out))?,
            Out::Refuse(Waiter { client, tag }, refusal) => {
                self.report.count("commands refused, for their node was busy");
                let answered = Answered { tag, slot: None, index: None, replayed: false, result: Err(refusal) };
                self.answered(index, &client, vec![answered])?;
            }
            Out::Say(peer, message) => self.send(index, peer.index(), message)?,
            Out::Pump => self.mail(index, MAILBOX, Mail::Pump),
            Out::Dropped(_) => {}
            Out::Clock(look) => {
                let machine = &mut self.machines[index];
                machine.knew = look.keep.map(|time| (time, self.now)).or(machine.knew);
                if let Some(node) = &mut machine.node {
                    node.leap = look.state.leap;
                }
            }
        }
        Ok(())
    }

    /// A batch is known from when its node first holds it.
    fn note_formed(&mut self, index: usize, events: &[Event]) -> Check {
        let me = self.machines[index].id;
        for event in events {
            if let Event::Hold(id, payload) = event
                && id.origin == me
                && !self.agreement.is_formed(id)
            {
                self.agreement.formed(*id, payload.clone())?;
            }
        }
        Ok(())
    }

    pub(super) fn submit(
        &mut self,
        index: usize,
        waiter: Waiter<W::Machine>,
        header: &RequestHeader,
        action: &Action<W::Command>,
    ) -> Check {
        let request = EncodedRequest::new(header, action);
        let client = (waiter.client.owner(), waiter.client.id());
        self.proposer(index, |proposer, now, out| proposer.submit(now, client, waiter, request, out))
    }

    pub(super) fn notices(&mut self, index: usize, notices: Vec<Notice>) -> Check {
        self.proposer(index, |proposer, now, out| proposer.notices(now, notices, out))
    }

    pub(super) fn pump(&mut self, index: usize) -> Check {
        let mut wakes = None;
        self.proposer(index, |proposer, now, out| {
            wakes = proposer.wakes_at(now).map(|at| at.saturating_sub(now.elapsed));
            proposer.pump(now, out);
        })?;
        if let Some(after) = wakes {
            self.mail(index, after, Mail::Wake);
        }
        Ok(())
    }

    /// A node looks at its clock. The machines never sleep.
    pub(super) fn look_at_clock(&mut self, index: usize) -> Check {
        let since_boot = Some(self.now);
        self.proposer(index, |proposer, now, out| proposer.look(now, since_boot, out))?;
        self.mail(index, LOOK, Mail::Look);
        Ok(())
    }

    /// The state that is applied has this log time.
    pub(super) fn can(&mut self, index: usize, level: u32) -> Check {
        self.proposer(index, |proposer, now, out| proposer.can(now, level, out))
    }

    pub(super) fn applied_time(&mut self, index: usize, log_time: Millis) -> Check {
        self.proposer(index, |proposer, now, _| proposer.applied_time(now, log_time))
    }
}
