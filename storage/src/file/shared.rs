//! An open database that a store and its readers share.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use redb::Database;

/// Shared by whoever has the file open.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Inner>);

/// The fields go in this order: who sees the second one gone knows that the file is closed.
#[derive(Debug)]
struct Inner {
    database: Database,
    open: Arc<()>,
}

impl Shared {
    pub(crate) fn new(database: Database) -> Shared {
        Shared(Arc::new(Inner { database, open: Arc::new(()) }))
    }

    pub(crate) fn held(&self) -> Held {
        Held(Arc::downgrade(&self.0.open))
    }
}

impl Deref for Shared {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.0.database
    }
}

/// Tells whether a file is still open in this process, without keeping it open.
#[derive(Clone, Debug)]
pub struct Held(Weak<()>);

impl Held {
    /// Whether a store, or a reader of it, still has the file open. When it is not, another may open it.
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}
