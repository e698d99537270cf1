//! A backend that holds back what is written to it until it is told to let go.
//!
//! redb repairs a file while it opens it, and writes while it does; whether the file is this member's store, and whole, is
//! known only after that. A file that is refused stays byte for byte as it was: it may be evidence, or somebody else's.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use redb::{BackendError, StorageBackend};

/// What was asked of the backend, in order: a repair relies on what was synced before what.
#[derive(Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Sync,
}

/// What is held back, and how long the storage would be with it.
#[derive(Debug)]
struct Held {
    steps: Vec<Step>,
    length: u64,
}

#[derive(Debug)]
struct Shared<B> {
    inner: B,
    /// None once the backend has let go.
    held: RwLock<Option<Held>>,
}

/// The backend, for redb, and the handle to let go, for the store.
#[derive(Debug)]
pub(crate) struct Staged<B>(Arc<Shared<B>>);

impl<B> Clone for Staged<B> {
    fn clone(&self) -> Self {
        Staged(self.0.clone())
    }
}

impl<B: StorageBackend> Staged<B> {
    /// Holds back all writes to `inner`.
    pub(crate) fn new(inner: B) -> io::Result<Staged<B>> {
        let length = inner.len()?;
        let held = RwLock::new(Some(Held { steps: Vec::new(), length }));
        Ok(Staged(Arc::new(Shared { inner, held })))
    }

    /// Carries out what was held back, in its order, and holds back nothing from now on.
    pub(crate) fn let_go(&self) -> io::Result<()> {
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        for step in held.take().into_iter().flat_map(|held| held.steps) {
            match step {
                Step::Write(offset, data) => self.0.inner.write(offset, &data)?,
                Step::SetLength(length) => self.0.inner.set_len(length)?,
                Step::Sync => self.0.inner.sync_data()?,
            }
        }
        Ok(())
    }

    /// Whether the step was held back.
    fn hold(&self, step: impl FnOnce(&mut Held)) -> bool {
        // Every write goes through here: the shared lock costs a few nanoseconds, the other is for opening.
        if self.0.held.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            return false;
        }
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        held.as_mut().map(step).is_some()
    }
}

impl<B: StorageBackend> StorageBackend for Staged<B> {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.held.read().unwrap_or_else(PoisonError::into_inner) {
            Some(held) => Ok(held.length),
            None => self.0.inner.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.0.held.read().unwrap_or_else(PoisonError::into_inner) {
            Some(held) => held.read(&self.0.inner, offset, out),
            None => self.0.inner.read(offset, out),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let held = self.hold(|held| {
            held.length = length;
            held.steps.push(Step::SetLength(length));
        });
        if held { Ok(()) } else { self.0.inner.set_len(length) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.hold(|held| held.steps.push(Step::Sync)) { Ok(()) } else { self.0.inner.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let held = self.hold(|held| {
            held.length = held.length.max(offset + data.len() as u64);
            held.steps.push(Step::Write(offset, data.to_vec()));
        });
        if held { Ok(()) } else { self.0.inner.write(offset, data) }
    }

    fn close(&self) -> io::Result<()> {
        self.0.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.lock_shared_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.inner.query_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.inner.unlock_range(start, end)
    }
}

impl Held {
    /// What is stored, with the steps held back carried out on it in memory.
    fn read(&self, inner: &impl StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.fill(0);
        let stored = inner.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
        inner.read(offset, &mut out[..stored])?;
        for step in &self.steps {
            match step {
                Step::Write(at, data) => overlay(out, offset, data, *at),
                Step::SetLength(length) => {
                    let kept = length.saturating_sub(offset).min(out.len() as u64) as usize;
                    out[kept..].fill(0);
                }
                Step::Sync => {}
            }
        }
        Ok(())
    }
}

/// Copies the part of `data`, which begins at `at`, that lies within `out`, which begins at `offset`.
fn overlay(out: &mut [u8], offset: u64, data: &[u8], at: u64) {
    let begin = at.max(offset);
    let end = (at + data.len() as u64).min(offset + out.len() as u64);
    if begin < end {
        let (to, from) = ((begin - offset) as usize, (begin - at) as usize);
        let length = (end - begin) as usize;
        out[to..to + length].copy_from_slice(&data[from..from + length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    fn bytes(backend: &impl StorageBackend) -> Vec<u8> {
        let mut out = vec![0; backend.len().unwrap() as usize];
        backend.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_held_back_is_read_and_carried_out_later() {
        let inner = InMemoryBackend::new();
        inner.set_len(8).unwrap();
        inner.write(0, b"abcdefgh").unwrap();
        let staged = Staged::new(inner).unwrap();
        staged.write(2, b"XY").unwrap();
        staged.set_len(4).unwrap();
        staged.set_len(10).unwrap();
        staged.write(7, b"Z").unwrap();
        staged.sync_data().unwrap();
        let changed = b"abXY\0\0\0Z\0\0";
        assert_eq!(bytes(&staged), changed);
        assert_eq!(bytes(&staged.0.inner), b"abcdefgh");
        let mut part = [0; 3];
        staged.read(6, &mut part).unwrap();
        assert_eq!(&part, b"\0Z\0");
        assert!(staged.read(8, &mut part).is_err(), "beyond the end");

        staged.let_go().unwrap();
        assert_eq!(bytes(&staged.0.inner), changed);
        staged.write(0, b"!").unwrap();
        assert_eq!(bytes(&staged.0.inner)[0], b'!');
        assert_eq!(bytes(&staged), bytes(&staged.0.inner));
    }
}
