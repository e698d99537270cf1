//! The level in force, and which levels the members' programs know: see [`level`].

use rabia_bank_messages::ids::{MAX_NODES, NodeId};
use rabia_bank_messages::level::{self, MAX_LEVEL, TooNew};
use rabia_bank_messages::principal::AdminRefusal;
use serde::{Deserialize, Serialize};

use crate::rows::BadRow;

/// Who never said what its program knows, knows this one.
const FIRST: u32 = 1;

/// The level, and what members have said of their programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Levels {
    level: u32,
    /// What it is raised to behind the slot that is applied.
    raised: Option<u32>,
    /// The highest level that each member knows, node 1 first.
    can: Vec<u32>,
}

/// The same in the row of the state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LevelsRow {
    pub(crate) level: u32,
    pub(crate) can: Vec<u32>,
}

impl Default for LevelsRow {
    /// Of a state that is older than levels are.
    fn default() -> LevelsRow {
        LevelsRow { level: FIRST, can: vec![FIRST] }
    }
}

impl LevelsRow {
    /// The state goes on in a cluster of so many members, of which none has said anything.
    pub(crate) fn begin(&mut self, members: usize) {
        self.can = vec![FIRST; members];
    }
}

impl Levels {
    /// Those of a new cluster, of so many members.
    pub(crate) fn new(level: u32, members: usize) -> Levels {
        Levels { level, raised: None, can: vec![FIRST; members] }
    }

    /// The level in force.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The highest level that a member's program knows, as far as it has said that.
    pub fn can(&self, node: NodeId) -> u32 {
        self.can.get(node.index()).copied().unwrap_or(FIRST)
    }

    /// The same of all, node 1 first.
    pub fn all_can(&self) -> &[u32] {
        &self.can
    }

    /// Whether this program knows the level in force.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self) -> Result<(), TooNew> {
        level::check(self.level)
    }

    /// A member's program knows the levels up to this one.
    pub(crate) fn say(&mut self, node: NodeId, level: u32) {
        if let Some(can) = self.can.get_mut(node.index()) {
            *can = level;
        }
    }

    /// Raises the level, from the next slot on.
    pub(crate) fn raise(&mut self, level: u32) -> Result<u32, AdminRefusal> {
        if level <= self.raised.unwrap_or(self.level) || level > MAX_LEVEL {
            return Err(AdminRefusal::InvalidLevel);
        }
        if self.can.iter().any(|can| *can < level) {
            return Err(AdminRefusal::MembersTooOld);
        }
        self.raised = Some(level);
        Ok(level)
    }

    /// A slot was applied.
    pub(crate) fn slot_ends(&mut self) {
        self.level = self.raised.take().unwrap_or(self.level);
    }

    pub(crate) fn add_to(&self, hasher: &mut blake3::Hasher) {
        for number in std::iter::once(&self.level).chain(&self.can) {
            hasher.update(&number.to_be_bytes());
        }
    }

    pub(crate) fn to_row(&self) -> LevelsRow {
        LevelsRow { level: self.level, can: self.can.clone() }
    }

    pub(crate) fn from_row(row: LevelsRow) -> Result<Levels, BadRow> {
        let LevelsRow { level, can } = row;
        let is_level = |level: &u32| (FIRST..=MAX_LEVEL).contains(level);
        if !(is_level(&level) && can.iter().all(is_level) && (1..=MAX_NODES).contains(&can.len())) {
            return Err(BadRow::new(format!("level {level} of members that know {can:?} can't be")));
        }
        level::check(level)?;
        Ok(Levels { level, raised: None, can })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::new(number).unwrap()
    }

    #[test]
    fn the_level_is_raised_behind_the_slot_to_what_all_members_know() {
        let mut levels = Levels::new(1, 3);
        assert_eq!(levels.raise(2), Err(AdminRefusal::MembersTooOld));
        levels.say(node(1), 3);
        levels.say(node(2), 2);
        assert_eq!(levels.raise(2), Err(AdminRefusal::MembersTooOld), "node 3 said nothing");
        levels.say(node(3), 3);
        // There is no node 4.
        levels.say(node(4), 1);
        for invalid in [0, 1, MAX_LEVEL + 1, u32::MAX] {
            assert_eq!(levels.raise(invalid), Err(AdminRefusal::InvalidLevel), "{invalid}");
        }
        assert_eq!(levels.raise(3), Err(AdminRefusal::MembersTooOld), "node 2 does not know it");
        assert_eq!((levels.raise(2), levels.level()), (Ok(2), 1));
        assert_eq!(levels.raise(2), Err(AdminRefusal::InvalidLevel), "it is raised to that already");
        levels.slot_ends();
        assert_eq!((levels.level(), levels.all_can()), (2, &[3, 2, 3][..]));
        levels.slot_ends();
        assert_eq!(levels.level(), 2);
        assert!(levels.check().is_err(), "this program does not know it");
    }

    #[test]
    fn rows_that_can_not_be_are_found() {
        let row = |level, can: &[u32]| Levels::from_row(LevelsRow { level, can: can.to_vec() });
        assert!(row(1, &[1, 7, 2]).is_ok());
        for (level, can) in [(0, &[1][..]), (1, &[]), (1, &[1; 8]), (1, &[0]), (MAX_LEVEL + 1, &[1])] {
            assert!(matches!(row(level, can), Err(BadRow::Damaged(_))), "{level} {can:?}");
        }
        let too_new = TooNew { level: 2, known: 1 };
        assert_eq!(row(2, &[2, 2, 2]), Err(BadRow::TooNew(too_new)));
    }
}
