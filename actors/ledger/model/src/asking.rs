//! What is answered to whom. Who may ask, and sees what, changes with the principals: so what a node answers with a state is what it
//! would be with the principals after some slot from there on.

use rabia_bank_messages::bank::{ErrorCode, Refusal};
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::principal::{PrincipalsInfo, PutPrincipal};

use crate::principals::Principals;
use crate::{Answer, Model, Plain};

/// Where an administrator's command stands, by slot and place there, and what came of it.
pub type ActApplied<'a> = ((Slot, usize), &'a Result<u64, ErrorCode>);

impl<M: Plain> Model<M> {
    /// The answer to a query after a slot, to whoever may see all.
    pub fn query(&self, query: &M::Query, slot: Slot) -> Answer<M::Success> {
        match M::about_principals(query) {
            Some(answer) => Ok(answer(self.roster(slot).info())),
            None => self.machine().query(query, slot),
        }
    }

    /// Principals and tokens after the last slot.
    pub fn principals(&self) -> PrincipalsInfo {
        self.principals.info()
    }

    fn roster(&self, slot: Slot) -> &Principals {
        &self.rosters[self.version(slot)].1
    }

    /// Which of the rosters is that after this slot.
    fn version(&self, slot: Slot) -> usize {
        self.rosters.partition_point(|(since, _)| *since <= slot) - 1
    }

    /// What was put for the principal of a token, after each slot from this one on at which that was something else than before; none
    /// where the token was not in force.
    pub fn shown_by(&self, token: u64, since: Slot) -> impl Iterator<Item = Option<&PutPrincipal>> {
        let first = self.version(since);
        (first..self.rosters.len()).flat_map(move |version| {
            let (from, roster) = &self.rosters[version];
            let to = self.rosters.get(version + 1).map_or(self.slot, |(next, _)| next - 1);
            [(*from).max(since), to.max(since)]
                .map(|slot| roster.shown_by(token, self.times.get(slot as usize).copied().unwrap_or(self.time)))
        })
    }

    /// Whether a token was put and neither revoked nor its principal removed, after a slot. It may have expired.
    pub fn is_put(&self, token: u64, slot: Slot) -> bool {
        self.roster(slot).shown_by(token, 0).is_some()
    }

    /// Whether a token was not in force after some slot from this one on.
    pub fn was_out_of_force(&self, token: u64, since: Slot) -> bool {
        self.shown_by(token, since).any(|put| put.is_none())
    }

    /// Whether a command was refused whole to whoever has this token, by the principals after a slot.
    pub fn refuses(&self, token: u64, slot: Slot, command: &M::Command) -> bool {
        self.roster(slot).shown_by(token, 0).is_none_or(|put| M::is_refused(command, put))
    }

    /// Whether this is an answer to a query, with the state after this slot, to whoever has this token.
    pub fn is_answer(&self, token: u64, query: &M::Query, slot: Slot, answer: &Answer<M::Success>) -> bool {
        let whole = self.query(query, slot);
        let refused = || Err(Refusal::refused(ErrorCode::NotAuthorised, ""));
        self.shown_by(token, slot).any(|put| match put {
            Some(put) => M::asked(query, whole.clone(), put) == *answer,
            None => *answer == refused(),
        })
    }

    /// Whether whoever has this token may be told this of a command that was carried out or refused in this slot.
    pub fn is_told(&self, token: u64, slot: Slot, whole: &Answer<M::Success>, told: &Answer<M::Success>) -> bool {
        match whole {
            Err(_) => whole == told,
            Ok(success) => self.shown_by(token, slot).any(|put| match put {
                Some(put) => *told == Ok(M::seen(success.clone(), put)),
                None => *told == Err(Refusal::unknown(ErrorCode::NotAuthorised, "")),
            }),
        }
    }

    /// Where an administrator's command was applied, by its session and number, and what came of it.
    pub fn administered(&self, name: (u64, u64)) -> Option<ActApplied<'_>> {
        self.administered.get(&name).map(|applied| (applied.position, &applied.outcome))
    }
}
