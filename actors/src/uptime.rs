//! The clock that goes on while the machine sleeps: how long ago it was booted. It confirms how much time passed between two
//! runs of a node ([`clocks`](crate::consensus::clocks)), and while a machine slept under a running one.
//!
//! What was confirmed lies in a small file of the node, `clock` in its folder: one line
//!
//! ```text
//! rabia-bank clock 1 | milliseconds since the Unix epoch | boot id, or - | milliseconds since boot
//! ```
//!
//! with single spaces where the page shows bars. It is no store: without it, or if it is damaged, a node knows only what its
//! log says.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rabia_bank_messages::ids::Millis;
use tracing::warn;

use crate::consensus::clocks::Witness;

/// How the file begins. The number is its version.
const MAGIC: [&str; 3] = ["rabia-bank", "clock", "1"];
/// Stands for the id of a boot that the system does not tell.
const UNKNOWN: &str = "-";
/// A file that is longer is none of ours.
const MAX_FILE: u64 = 256;

/// How long ago the machine was booted, times of sleep included, and which boot it was. None where the system does not tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uptime {
    boot: String,
    since: Duration,
}

impl Uptime {
    /// As of this moment. Only Linux tells.
    pub fn now() -> Option<Uptime> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        // A boot id is one word; it stands in a line of words.
        let is_word = !boot.is_empty() && boot != UNKNOWN && !boot.contains(char::is_whitespace);
        is_word.then_some(Uptime { boot, since: since_boot()? })
    }
}

/// How long ago the machine was booted, times of sleep included. None where the system does not tell.
pub fn since_boot() -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// What the file of an earlier run says about now.
pub fn witness(file: &Path) -> Witness {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Witness::default(),
        Err(error) => {
            warn!(file = %file.display(), %error, "what this node knew of time can't be read; it goes by its log");
            return Witness::default();
        }
    };
    judge(&text, Uptime::now()).unwrap_or_else(|| {
        warn!(file = %file.display(), "what this node knew of time is damaged; it goes by its log");
        Witness::default()
    })
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(file)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

fn judge(text: &str, now: Option<Uptime>) -> Option<Witness> {
    let words: Vec<&str> = text.strip_suffix('\n')?.split(' ').collect();
    let [rabia, clock, version, time, boot, since] = words[..] else { return None };
    let (time, since): (Millis, u64) = (time.parse().ok()?, since.parse().ok()?);
    if [rabia, clock, version] != MAGIC {
        return None;
    }
    // A clock that goes back is that of another boot, whatever its name.
    let passed = now.filter(|now| now.boot == boot).and_then(|now| now.since.checked_sub(Duration::from_millis(since)));
    Some(match passed {
        Some(passed) => Witness { time: time.saturating_add(passed.as_millis() as Millis), continuous: true },
        None => Witness { time, continuous: false },
    })
}

/// Writes down that it is at least this late now.
///
/// # Errors
/// If the file can't be written.
pub fn write(file: &Path, time: Millis) -> io::Result<()> {
    let (boot, since) = match Uptime::now() {
        Some(Uptime { boot, since }) => (boot, since.as_millis()),
        None => (UNKNOWN.to_owned(), 0),
    };
    let [rabia, clock, version] = MAGIC;
    let draft = file.with_extension("draft");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&draft)?.write_all(format!("{rabia} {clock} {version} {time} {boot} {since}\n").as_bytes())?;
    fs::rename(&draft, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(boot: &str, seconds: u64) -> Option<Uptime> {
        Some(Uptime { boot: boot.into(), since: Duration::from_secs(seconds) })
    }

    #[test]
    fn what_passed_is_confirmed_within_one_boot_alone() {
        let line = "rabia-bank clock 1 1000000 b-1 5000\n";
        let known = |time, continuous| Some(Witness { time, continuous });
        assert_eq!(judge(line, up("b-1", 65)), known(1_060_000, true));
        assert_eq!(judge(line, up("b-1", 4)), known(1_000_000, false), "the clock went back");
        assert_eq!(judge(line, up("b-2", 65)), known(1_000_000, false));
        assert_eq!(judge(line, None), known(1_000_000, false));
        assert_eq!(judge("rabia-bank clock 1 1000000 - 0\n", up("b-1", 65)), known(1_000_000, false));
    }

    #[test]
    fn a_file_that_is_damaged_says_nothing() {
        for text in [
            "",
            "\n",
            "rabia-bank clock 1 1000000 b-1 5000",
            "rabia-bank clock 2 1000000 b-1 5000\n",
            "rabia-bank clock 1 1000000 b-1 5000 9\n",
            "rabia-bank clock 1 -1 b-1 5000\n",
            "rabia-bank clock 1 99999999999999999999 b-1 5000\n",
        ] {
            assert_eq!(judge(text, up("b-1", 65)), None, "{text:?}");
        }
        let latest = format!("rabia-bank clock 1 {} b-1 0\n", u64::MAX);
        assert_eq!(judge(&latest, up("b-1", 65)), Some(Witness { time: u64::MAX, continuous: true }));
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        assert_eq!(witness(&file), Witness::default());
        write(&file, 7).unwrap();
        let Witness { time, continuous } = witness(&file);
        assert!((7..60_000).contains(&time), "{time}");
        assert_eq!(continuous, Uptime::now().is_some());
        fs::write(&file, [0xff; 999]).unwrap();
        assert_eq!(witness(&file), Witness::default());
    }
}
