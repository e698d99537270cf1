//! The proposer of simulated nodes.

use rabia_bank_actors::consensus::agreement::{Event, Notice};
use rabia_bank_actors::consensus::pool::{Asker, PoolEffect};
use rabia_bank_actors::parts::clients::{Answered, Waiter};
use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::batch::{Action, EncodedRequest, RequestHeader};
use rabia_bank_messages::ids::Millis;

use super::super::properties::Check;
use super::{MAILBOX, Mail, World};

impl World {
    pub(super) fn notices(&mut self, index: usize, notices: Vec<Notice>) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut effects) = (self.clocks(index, &node), Vec::new());
        for notice in notices {
            node.pool.notice(now, notice, &mut effects);
        }
        self.machines[index].node = Some(node);
        self.pool_effects(index, effects)?;
        self.mail(index, MAILBOX, Mail::Pump);
        Ok(())
    }

    pub(super) fn pump(&mut self, index: usize) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        let (now, mut effects) = (self.clocks(index, &node), Vec::new());
        node.pool.pump(now, &mut effects);
        self.machines[index].node = Some(node);
        self.pool_effects(index, effects)
    }

    pub(super) fn submit(&mut self, index: usize, waiter: Waiter, header: &RequestHeader, action: &Action) -> Check {
        let Some(mut node) = self.machines[index].node.take() else { return Ok(()) };
        if node.pool.is_silent() || node.pool.waits_for_clock() {
            self.machines[index].node = Some(node);
            let refusal = Refusal::refused(ErrorCode::Busy, "it has a new store, or is unsure of the time");
            let Waiter { client, tag } = waiter;
            let answered = Answered { tag, slot: None, index: None, replayed: false, result: Err(refusal) };
            return self.answered(index, &client, vec![answered]);
        }
        let now = self.clocks(index, &node);
        let (owner, client) = (waiter.client.owner(), waiter.client.id());
        let from = Asker { owner, client, tag: node.waiters.keep(waiter) };
        node.pool.submit(now, from, EncodedRequest::new(header, action));
        self.machines[index].node = Some(node);
        self.mail(index, MAILBOX, Mail::Pump);
        Ok(())
    }

    fn pool_effects(&mut self, index: usize, effects: Vec<PoolEffect>) -> Check {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                PoolEffect::Formed(id, payload, askers) => {
                    self.agreement.formed(id, payload.clone())?;
                    if let Some(node) = &mut self.machines[index].node {
                        let waiters = askers.iter().map(|asker| node.waiters.take(asker.tag)).collect();
                        node.bank.expect(id, waiters);
                    }
                    events.push(Event::Hold(id, payload));
                }
                PoolEffect::Propose { slot, value, with_payload } => {
                    events.push(Event::Propose { slot, value, with_payload });
                }
                PoolEffect::Forget(id) => events.push(Event::Forget(id)),
                PoolEffect::Drop(id) => events.push(Event::Drop(id)),
                PoolEffect::Hold(id, payload) => events.push(Event::Hold(id, payload)),
                PoolEffect::Abandon(id) => self.bank(index, |bank, _, out| bank.abandon(&id, out))?,
                PoolEffect::Send(to, message) => {
                    for peer in (0..self.machines.len()).filter(|peer| *peer != index) {
                        if to.is_none_or(|to| to.index() == peer) {
                            self.send(index, peer, message.clone())?;
                        }
                    }
                }
            }
        }
        if !events.is_empty() {
            self.mail(index, MAILBOX, Mail::Events(events));
        }
        Ok(())
    }

    /// The state that is applied has this log time.
    pub(super) fn applied_time(&mut self, index: usize, log_time: Millis) {
        let Some(mut node) = self.machines[index].node.take() else { return };
        let now = self.clocks(index, &node);
        node.pool.applied_time(now, log_time);
        self.machines[index].node = Some(node);
    }
}
