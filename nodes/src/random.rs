//! Random bytes from the operating system, for ids and keys. The cores draw none; only this room does.

/// Random bytes: sixteen are unique and not to be guessed.
///
/// # Panics
/// If the operating system has no random numbers to give. Nothing that this program does is safe then.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes);
    assert!(filled.is_ok(), "the operating system gives no random numbers: {filled:?}");
    bytes
}
