//! What a node binds itself to, and what its store keeps of it: the words that agreement and storage share.
//!
//! Agreement says what has to be durable, in [`Commit`]s, before it speaks; storage makes them so, and answers at a start what it
//! holds, [`Recovered`]. Neither has to know more of the other (PROTOCOL.md, rules 1, 4, 5 and 12).

mod commit;
mod recovered;
mod said;

pub use commit::Commit;
pub use recovered::{Began, Identity, Recovered};
pub use said::{Record, Said, State, Vote};
