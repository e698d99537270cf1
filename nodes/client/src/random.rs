//! Random bytes from the operating system, for the keys of sessions and for jitter.

use std::time::Duration;

/// Sixteen random bytes: unique and not to be guessed.
///
/// # Panics
/// If the operating system has no random numbers to give.
pub(crate) fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes);
    assert!(filled.is_ok(), "the operating system gives no random numbers: {filled:?}");
    bytes
}

/// Between half of `pause` and all of it, so that many who wait do not come back at the same moment.
pub(crate) fn jitter(pause: Duration) -> Duration {
    let [byte, ..] = bytes();
    pause / 2 + pause.mul_f64(f64::from(byte) / 512.0)
}
