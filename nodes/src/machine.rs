#![doc = include_str!("../OWN_STATE_MACHINE.md")]

pub use rabia_bank_actors::ledger::machine::{
    Ask, Begun, Block, Entry, Feed, Figures, Given, History, Kept, MAX_WHOLE, Moment, Progress, Rows, StateMachine,
    Task, Whole,
};
pub use rabia_bank_actors::ledger::{BadRow, StateRow};
pub use rabia_bank_messages::batch::Batched;
pub use rabia_bank_messages::genesis::Genesis;
pub use rabia_bank_messages::msgpack;
