//! A disk that keeps, for sure, only what was synced.
//!
//! What was written and not synced survives a power failure sector by sector, each as it was at the last sync or as it
//! was written last. It depends only on what was written, not on the order of the writes, so that a seed is a run.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use rabia_bank_storage::StorageBackend;

/// What survives a power failure as a whole, in bytes.
const SECTOR: usize = 512;

/// One node's disk while a run of the node has it open. Clones are the same disk.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    /// What the running program reads back.
    live: Vec<u8>,
    /// Sectors that changed since the last sync, as they were then. Beyond the end then: shorter, or empty.
    before: BTreeMap<usize, Vec<u8>>,
    synced_length: usize,
    /// From this sync on everything fails, if any: counted down.
    syncs_left: Option<u64>,
    /// Syncs succeed and do nothing.
    lies: bool,
    dead: bool,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({} bytes)", self.platter().live.len())
    }
}

impl Disk {
    /// A disk with this content, all of it synced.
    pub(super) fn new(image: Vec<u8>) -> Disk {
        let synced_length = image.len();
        let before = BTreeMap::new();
        let platter = Platter { live: image, before, synced_length, syncs_left: None, lies: false, dead: false };
        Disk(Arc::new(Mutex::new(platter)))
    }

    /// From now on syncs only say that they were done.
    pub(super) fn lie(&self) {
        self.platter().lies = true;
    }

    /// Lets this many more syncs pass; the next one fails, and everything after it.
    pub(super) fn fail_after(&self, syncs: u64) {
        self.platter().syncs_left = Some(syncs);
    }

    /// Whether everything fails now.
    pub(super) fn is_dead(&self) -> bool {
        self.platter().dead
    }

    /// Nothing is written any more.
    pub(super) fn kill(&self) {
        self.platter().dead = true;
    }

    /// What the next run finds after the process was killed: the system still writes what it was given.
    pub(super) fn after_kill(&self) -> Vec<u8> {
        self.platter().live.clone()
    }

    /// What the next run finds after a power failure: what was synced, and any sectors of what was not.
    pub(super) fn after_power_failure(&self, random: &mut Rng) -> Vec<u8> {
        let platter = self.platter();
        let mut image = platter.live.clone();
        // None, half, most, or all: a commit is whole only if all of it is there.
        let kept_of_eight = [0, 4, 7, 8, 8][random.usize(..5)];
        for (sector, before) in &platter.before {
            if random.u32(..8) >= kept_of_eight {
                let (start, end) = bounds(*sector, image.len());
                let known = before.len().min(end.saturating_sub(start));
                image[start..start + known].copy_from_slice(&before[..known]);
                image[start + known..end].fill(0);
            }
        }
        if random.u32(..8) >= kept_of_eight {
            image.truncate(platter.synced_length);
        }
        image
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> Result<MutexGuard<'_, Platter>> {
        let platter = self.platter();
        if platter.dead { Err(Error::from(ErrorKind::Other)) } else { Ok(platter) }
    }
}

impl Platter {
    /// Remembers what stands in these bytes before they change.
    fn note(&mut self, start: usize, end: usize) {
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let (start, end) = bounds(sector, self.live.len());
            self.before.entry(sector).or_insert_with(|| self.live[start..end].to_vec());
        }
    }
}

/// The bytes of a sector on a disk of this length.
fn bounds(sector: usize, length: usize) -> (usize, usize) {
    let start = (sector * SECTOR).min(length);
    (start, (start + SECTOR).min(length))
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.platter().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let platter = self.platter();
        let offset = offset as usize;
        let data = platter.live.get(offset..offset + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut platter = self.change()?;
        let (old, new) = (platter.live.len(), len as usize);
        if new < old {
            platter.note(new, old);
        }
        platter.live.resize(new, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut platter = self.change()?;
        match &mut platter.syncs_left {
            Some(0) => {
                platter.dead = true;
                return Err(Error::from(ErrorKind::Other));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if !platter.lies {
            platter.before.clear();
            platter.synced_length = platter.live.len();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut platter = self.change()?;
        let (start, end) = (offset as usize, offset as usize + data.len());
        platter.note(start, end);
        if platter.live.len() < end {
            platter.live.resize(end, 0);
        }
        platter.live[start..end].copy_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_stays_and_the_rest_may_go() {
        let mut random = Rng::with_seed(1);
        let disk = Disk::new(vec![1; 4 * SECTOR]);
        disk.write(0, &[2; 2 * SECTOR]).unwrap();
        disk.sync_data().unwrap();
        disk.write(SECTOR as u64 + 5, &[3; SECTOR]).unwrap();
        disk.set_len(9 * SECTOR as u64).unwrap();
        disk.kill();
        assert!(disk.write(0, &[9]).is_err() && disk.sync_data().is_err());
        let (mut lost, mut torn, mut kept) = (0, 0, 0);
        for _ in 0..200 {
            let image = disk.after_power_failure(&mut random);
            assert!(image[..SECTOR + 5].iter().all(|byte| *byte == 2));
            assert!(image[2 * SECTOR + 5..4 * SECTOR].iter().all(|byte| *byte == 1));
            match (image[SECTOR + 5], image[2 * SECTOR]) {
                (2, 1) => lost += 1,
                (3, 3) => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 10 && torn > 10 && kept > 10, "lost {lost}, torn {torn}, kept {kept}");
    }

    #[test]
    fn everything_fails_from_the_chosen_sync_on() {
        let disk = Disk::new(Vec::new());
        disk.fail_after(1);
        disk.sync_data().unwrap();
        assert!(disk.sync_data().is_err() && disk.is_dead());
    }
}
