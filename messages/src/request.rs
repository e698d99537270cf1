//! A request of a payload: what it says, and the one encoding that it has.
//!
//! Requests are written in MessagePack's [compact form](crate::msgpack), which always takes the shortest form of a number, a length or a text. The
//! reader takes no other, so two requests are equal exactly if their bytes are. It builds nothing by itself:
//! [`Reader::skip_request`] looks at every byte and costs a tenth of building the request, which is why a node can afford to
//! look at all that peers send.

use serde::{Deserialize, Serialize};

use crate::bank::{Amount, Bulk, Command, Operation};
use crate::ids::SessionKey;
use crate::msgpack;

/// Bytes that are set aside for a request before it is encoded: most need no more.
const USUAL_REQUEST: usize = 128;

/// Who asks: the session, and the number of the request in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestHeader {
    /// The session's number; 0 to open one.
    pub session: u64,
    /// Shows that the session is the client's.
    pub key: SessionKey,
    /// The client's number of this request, from 1; 0 for opening and closing.
    pub number: u64,
    /// The client has the answers to all requests up to this number.
    pub acknowledged: u64,
}

/// What is to be done. It is done once, however often the request arrives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// A session for the key in the header. The same key opens the same session.
    Open,
    /// The end of the session.
    Close,
    /// A change of the books.
    Command(Command),
}

/// A request of a payload, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub header: RequestHeader,
    /// What is to be done.
    pub action: Action,
    /// The action as it is encoded: equal exactly if the actions are.
    pub action_bytes: &'a [u8],
}

/// A request as it stands in a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedRequest(Vec<u8>);

impl EncodedRequest {
    /// As [`BatchBuilder::push`](crate::batch::BatchBuilder::push) would.
    pub fn new(header: &RequestHeader, action: &Action) -> EncodedRequest {
        let mut bytes = Vec::with_capacity(USUAL_REQUEST);
        write(&mut bytes, header, action);
        EncodedRequest(bytes)
    }

    /// In bytes.
    #[allow(clippy::len_without_is_empty)] // a request has a header at least
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Encodes a request onto `bytes`.
pub(crate) fn write(bytes: &mut Vec<u8>, header: &RequestHeader, action: &Action) {
    msgpack::write(bytes, header);
    msgpack::write(bytes, action);
}

/// Why bytes are no request. A text, so that it can be shown; it never quotes the bytes.
pub(crate) type Bad = &'static str;

/// An operation whose texts lie where it was read from.
enum Found<'a> {
    CreateAccount { account_id: &'a str, initial_balance: u64 },
    Deposit { account_id: &'a str, amount: u64 },
    Withdraw { account_id: &'a str, amount: u64 },
    Transfer { from_account: &'a str, to_account: &'a str, amount: u64 },
}

impl From<Found<'_>> for Operation {
    fn from(found: Found<'_>) -> Operation {
        match found {
            Found::CreateAccount { account_id, initial_balance } => Operation::CreateAccount {
                account_id: account_id.into(),
                initial_balance: Amount::new(initial_balance),
            },
            Found::Deposit { account_id, amount } => {
                Operation::Deposit { account_id: account_id.into(), amount: Amount::new(amount) }
            }
            Found::Withdraw { account_id, amount } => {
                Operation::Withdraw { account_id: account_id.into(), amount: Amount::new(amount) }
            }
            Found::Transfer { from_account, to_account, amount } => Operation::Transfer {
                from_account: from_account.into(),
                to_account: to_account.into(),
                amount: Amount::new(amount),
            },
        }
    }
}

/// What an action begins with.
enum Head<'a> {
    Open,
    Close,
    One(Found<'a>),
    /// So many operations follow, and whether it is all or none.
    Bulk(u32),
}

/// Fewer bytes than any operation has, so that a declared length reserves no more than what is there.
const LEAST_OPERATION: usize = 12;

/// The bytes that are still to be read.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Reads a request: header, action, and the bytes of the action.
    pub(crate) fn request(&mut self) -> Result<(RequestHeader, Action, &'a [u8]), Bad> {
        let header = self.header()?;
        let before = self.0;
        let action = match self.head()? {
            Head::Open => Action::Open,
            Head::Close => Action::Close,
            Head::One(found) => Action::Command(Command::One(found.into())),
            Head::Bulk(count) => {
                let room = self.0.len() / LEAST_OPERATION;
                let mut commands = Vec::with_capacity(room.min(count as usize));
                for _ in 0..count {
                    commands.push(self.operation()?.into());
                }
                Action::Command(Command::Bulk(Bulk { commands, atomic: self.flag()? }))
            }
        };
        Ok((header, action, &before[..before.len() - self.0.len()]))
    }

    /// Reads over a request. It fails where [`Reader::request`] does.
    pub(crate) fn skip_request(&mut self) -> Result<(), Bad> {
        self.header()?;
        if let Head::Bulk(count) = self.head()? {
            for _ in 0..count {
                self.operation()?;
            }
            self.flag()?;
        }
        Ok(())
    }

    fn header(&mut self) -> Result<RequestHeader, Bad> {
        self.expect(&[0x94], "a header is an array of four")?;
        let session = self.number()?;
        self.expect(&[0xc4, 16], "a key is 16 bytes")?;
        let (key, rest) = self.0.split_first_chunk::<16>().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(RequestHeader { session, key: SessionKey(*key), number: self.number()?, acknowledged: self.number()? })
    }

    fn head(&mut self) -> Result<Head<'a>, Bad> {
        if self.take(b"\x81\xa7Command") {
            return if self.take(b"\x81\xa4bulk\x92") {
                Ok(Head::Bulk(self.length()?))
            } else {
                Ok(Head::One(self.operation()?))
            };
        }
        if self.take(b"\xa4Open") {
            Ok(Head::Open)
        } else if self.take(b"\xa5Close") {
            Ok(Head::Close)
        } else {
            Err("an action of another kind")
        }
    }

    fn operation(&mut self) -> Result<Found<'a>, Bad> {
        if self.take(b"\x81\xa8transfer\x93") {
            let (from_account, to_account) = (self.text()?, self.text()?);
            Ok(Found::Transfer { from_account, to_account, amount: self.number()? })
        } else if self.take(b"\x81\xa7deposit\x92") {
            Ok(Found::Deposit { account_id: self.text()?, amount: self.number()? })
        } else if self.take(b"\x81\xa8withdraw\x92") {
            Ok(Found::Withdraw { account_id: self.text()?, amount: self.number()? })
        } else if self.take(b"\x81\xaecreate_account\x92") {
            Ok(Found::CreateAccount { account_id: self.text()?, initial_balance: self.number()? })
        } else {
            Err("a command of another kind")
        }
    }

    /// Whether the bytes go on with these; if so, they are read.
    fn take(&mut self, expected: &[u8]) -> bool {
        self.0.strip_prefix(expected).map(|rest| self.0 = rest).is_some()
    }

    fn expect(&mut self, expected: &[u8], otherwise: Bad) -> Result<(), Bad> {
        if self.take(expected) { Ok(()) } else { Err(otherwise) }
    }

    fn byte(&mut self) -> Result<u8, Bad> {
        let (byte, rest) = self.0.split_first().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn bytes<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Bad> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn flag(&mut self) -> Result<bool, Bad> {
        match self.byte()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err("neither true nor false"),
        }
    }

    fn number(&mut self) -> Result<u64, Bad> {
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

    /// The length of an array.
    fn length(&mut self) -> Result<u32, Bad> {
        let (length, least) = match self.byte()? {
            small @ 0x90..=0x9f => (u32::from(small & 0x0f), 0),
            0xdc => (u32::from(u16::from_be_bytes(self.bytes()?)), 16),
            0xdd => (u32::from_be_bytes(self.bytes()?), 1 << 16),
            _ => return Err("no array"),
        };
        if length < least { Err(NOT_SHORTEST) } else { Ok(length) }
    }

    fn text(&mut self) -> Result<&'a str, Bad> {
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

const ENDS_EARLY: Bad = "it ends too early";
const NOT_SHORTEST: Bad = "a number or length that is not in its shortest form";
