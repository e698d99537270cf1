//! A backend that syncs while it is written to, bit by bit.
//!
//! A snapshot writes tens of megabytes at once. Synced in one go they would keep the disk busy for a long time, and the log,
//! whose syncs every client waits for, lies on the same disk. redb writes only to pages that nothing committed refers to, so that
//! syncing them early changes nothing about what a crash leaves.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use redb::{BackendError, StorageBackend};

/// So much is written between two syncs: a few milliseconds' work for a disk.
const STEP: u64 = 256 << 10;

/// The backend, for redb.
#[derive(Debug)]
pub(crate) struct Paced<B> {
    inner: B,
    /// Bytes since the last sync.
    unsynced: AtomicU64,
}

impl<B: StorageBackend> Paced<B> {
    pub(crate) fn new(inner: B) -> Paced<B> {
        Paced { inner, unsynced: AtomicU64::new(0) }
    }
}

impl<B: StorageBackend> StorageBackend for Paced<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.inner.sync_data()
    }

    /// Leaves the disk to others for as long as it was busy, after each step.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)?;
        if self.unsynced.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64 >= STEP {
            let began = Instant::now();
            self.sync_data()?;
            std::thread::sleep(began.elapsed());
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
}
