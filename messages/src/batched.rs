//! How a command stands in a batch: in one encoding, so that two commands are equal exactly if their bytes are.
//!
//! [`Batched`] is what a command must be able to do. A type with serde's two traits can do it already; the commands of the bank,
//! of which a node reads a hundred thousand a second, read themselves by hand.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::msgpack;

/// Why bytes are no command. A text, so that it can be shown; it never quotes the bytes.
pub type BadCommand = &'static str;

/// A command that can be put into a batch.
///
/// The encoding is MessagePack's [compact form](crate::msgpack), unless a type overrides all three methods that read and write. Then it
/// has to keep to this: what [`write`](Batched::write) gives is the only encoding that [`read`](Batched::read) takes, and
/// [`skip`](Batched::skip) fails exactly where that does. Retries are told from new commands by these bytes, and batches are
/// kept in logs: a change of the type must read what was written before.
pub trait Batched: Serialize + DeserializeOwned + 'static {
    /// Adds the command to `bytes`.
    fn write(&self, bytes: &mut Vec<u8>) {
        msgpack::write(bytes, self);
    }

    /// Takes the command that `rest` begins with.
    ///
    /// # Errors
    /// If it begins with none, or with one in another encoding than the one that [`write`](Batched::write) gives.
    fn read(rest: &mut &[u8]) -> Result<Self, BadCommand> {
        let before = *rest;
        let command: Self = msgpack::take(rest).map_err(|_| "no command of this kind")?;
        let mut written = Vec::new();
        command.write(&mut written);
        let read = &before[..before.len() - rest.len()];
        if read == written { Ok(command) } else { Err("not the encoding of the command") }
    }

    /// Reads over the command that `rest` begins with, and answers its [`level`](Batched::level). Nodes do that with all batches of
    /// their peers.
    ///
    /// # Errors
    /// Where [`read`](Batched::read) fails.
    fn skip(rest: &mut &[u8]) -> Result<u32, BadCommand> {
        Self::read(rest).map(|command| command.level())
    }

    /// The lowest [level](crate::level) that has this command, with all that it says.
    fn level(&self) -> u32 {
        1
    }

    /// For how many simple commands it counts where batches are filled fairly: 1 at least.
    fn weight(&self) -> u32 {
        1
    }
}

/// The bytes that are still to be read. Of every number, length and text it takes the shortest form alone.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether the bytes go on with these; if so, they are read.
    pub(crate) fn take(&mut self, expected: &[u8]) -> bool {
        self.0.strip_prefix(expected).map(|rest| self.0 = rest).is_some()
    }

    pub(crate) fn expect(&mut self, expected: &[u8], otherwise: BadCommand) -> Result<(), BadCommand> {
        if self.take(expected) { Ok(()) } else { Err(otherwise) }
    }

    fn byte(&mut self) -> Result<u8, BadCommand> {
        let (byte, rest) = self.0.split_first().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn bytes<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], BadCommand> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, BadCommand> {
        match self.byte()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err("neither true nor false"),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, BadCommand> {
        let (number, least) = match self.byte()? {
            small @ ..0x80 => (u64::from(small), 0),
            0xcc => (u64::from(self.byte()?), 0x80),
            0xcd => (u64::from(u16::from_be_bytes(self.bytes()?)), 1 << 8),
            0xce => (u64::from(u32::from_be_bytes(self.bytes()?)), 1 << 16),
            0xcf => (u64::from_be_bytes(self.bytes()?), 1 << 32),
            _ => return Err("no number"),
        };
        if number < least { Err(NOT_SHORTEST) } else { Ok(number) }
    }

    /// A number that may be below 0.
    pub(crate) fn signed(&mut self) -> Result<i64, BadCommand> {
        let Some(first @ (0xe0.. | 0xd0..=0xd3)) = self.0.first().copied() else {
            return i64::try_from(self.number()?).map_err(|_| "a number that is too large");
        };
        self.byte()?;
        let (number, below) = match first {
            0xd0 => (i64::from(i8::from_be_bytes(self.bytes()?)), -32),
            0xd1 => (i64::from(i16::from_be_bytes(self.bytes()?)), i64::from(i8::MIN)),
            0xd2 => (i64::from(i32::from_be_bytes(self.bytes()?)), i64::from(i16::MIN)),
            0xd3 => (i64::from_be_bytes(self.bytes()?), i64::from(i32::MIN)),
            small => (i64::from(small as i8), 0),
        };
        if number < below { Ok(number) } else { Err(NOT_SHORTEST) }
    }

    /// The length of a map of at most 15.
    pub(crate) fn map_length(&mut self) -> Result<u8, BadCommand> {
        match self.byte()? {
            small @ 0x80..=0x8f => Ok(small & 0x0f),
            _ => Err("no short map"),
        }
    }

    /// The length of an array.
    pub(crate) fn length(&mut self) -> Result<u32, BadCommand> {
        let (length, least) = match self.byte()? {
            small @ 0x90..=0x9f => (u32::from(small & 0x0f), 0),
            0xdc => (u32::from(u16::from_be_bytes(self.bytes()?)), 16),
            0xdd => (u32::from_be_bytes(self.bytes()?), 1 << 16),
            _ => return Err("no array"),
        };
        if length < least { Err(NOT_SHORTEST) } else { Ok(length) }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, BadCommand> {
        let (length, least) = match self.byte()? {
            small @ 0xa0..=0xbf => (u32::from(small & 0x1f), 0),
            0xd9 => (u32::from(self.byte()?), 32),
            0xda => (u32::from(u16::from_be_bytes(self.bytes()?)), 1 << 8),
            0xdb => (u32::from_be_bytes(self.bytes()?), 1 << 16),
            _ => return Err("no text"),
        };
        if length < least {
            return Err(NOT_SHORTEST);
        }
        let (text, rest) = self.0.split_at_checked(length as usize).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        str::from_utf8(text).map_err(|_| "a text that is not UTF-8")
    }
}

const ENDS_EARLY: BadCommand = "it ends too early";
const NOT_SHORTEST: BadCommand = "a number or length that is not in its shortest form";
