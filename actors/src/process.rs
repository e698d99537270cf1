//! What this process has used of its machine.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rabia_bank_messages::bank::Process;

/// How many bytes one unit of memory is, as the system reports it.
const MEMORY_UNIT: u64 = if cfg!(target_vendor = "apple") { 1 } else { 1_024 };
/// How many bytes one unit of what was written to disks is, as the system reports it.
const BLOCK: u64 = 512;

/// What this process has used so far; zeros where the system does not tell.
pub fn used() -> Process {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Process::default() };
    let ms = |time: TimeVal| time.tv_sec() as u64 * 1_000 + time.tv_usec() as u64 / 1_000;
    Process {
        cpu_ms: ms(usage.user_time()) + ms(usage.system_time()),
        peak_memory_bytes: usage.max_rss() as u64 * MEMORY_UNIT,
        written_bytes: usage.block_writes() as u64 * BLOCK,
    }
}
