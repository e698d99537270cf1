//! What the files of the log and of the books have in common: redb databases whose rows carry check values.

pub(crate) mod database;
pub(crate) mod paced;
pub(crate) mod path;
pub(crate) mod rows;
pub(crate) mod shared;
pub(crate) mod staged;
