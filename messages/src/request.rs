//! A request of a payload: what it says, and the one encoding that it has.
//!
//! Header and action are written in MessagePack's [compact form](crate::msgpack), which always takes the shortest form of a number, a
//! length or a text. The reader takes no other, and a command has one encoding too ([`Batched`]), so two requests are equal exactly
//! if their bytes are. Looking at every byte of a command of the bank costs a tenth of building it, which is why a node can
//! afford to look at all that peers send.

use serde::{Deserialize, Serialize};

use crate::bank::Command;
use crate::batched::{BadCommand, Batched, Reader};
use crate::ids::SessionKey;
use crate::msgpack;
use crate::principal::Admin;

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
    /// The number of the token that the client showed: see [`principal`](crate::principal).
    pub token: u64,
}

/// What is to be done. It is done once, however often the request arrives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action<C = Command> {
    /// A session for the key in the header. The same key opens the same session.
    Open,
    /// The end of the session.
    Close,
    /// A change of what is replicated.
    Command(C),
    /// A change of who may do what. Boxed, for it is long and rare.
    Admin(Box<Admin>),
}

impl<C: Batched> Action<C> {
    /// The lowest [level](crate::level) that has it.
    pub fn level(&self) -> u32 {
        match self {
            Action::Open | Action::Close => 1,
            Action::Command(command) => command.level(),
            Action::Admin(admin) => admin.level(),
        }
    }
}

/// A request of a payload, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a, C = Command> {
    /// The session, and the number in it.
    pub header: RequestHeader,
    /// What is to be done.
    pub action: Action<C>,
    /// The action as it is encoded: equal exactly if the actions are.
    pub action_bytes: &'a [u8],
}

/// A request as it stands in a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedRequest {
    bytes: Vec<u8>,
    weight: u32,
    level: u32,
}

impl EncodedRequest {
    /// As [`BatchBuilder::push`](crate::batch::BatchBuilder::push) would.
    pub fn new<C: Batched>(header: &RequestHeader, action: &Action<C>) -> EncodedRequest {
        let mut bytes = Vec::with_capacity(USUAL_REQUEST);
        write(&mut bytes, header, action);
        let weight = match action {
            Action::Command(command) => command.weight(),
            Action::Open | Action::Close | Action::Admin(_) => 1,
        };
        EncodedRequest { bytes, weight, level: action.level() }
    }

    /// Its size in bytes, the header included.
    #[allow(clippy::len_without_is_empty)] // a request has a header at least
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// For how many simple commands it counts: see [`Batched::weight`].
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// See [`Action::level`].
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

const OPEN: &[u8] = b"\xa4Open";
const CLOSE: &[u8] = b"\xa5Close";
const COMMAND: &[u8] = b"\x81\xa7Command";
const ADMIN: &[u8] = b"\x81\xa5Admin";

/// Encodes a request onto `bytes`.
pub(crate) fn write<C: Batched>(bytes: &mut Vec<u8>, header: &RequestHeader, action: &Action<C>) {
    msgpack::write(bytes, header);
    match action {
        Action::Open => bytes.extend_from_slice(OPEN),
        Action::Close => bytes.extend_from_slice(CLOSE),
        Action::Command(command) => {
            bytes.extend_from_slice(COMMAND);
            command.write(bytes);
        }
        Action::Admin(admin) => {
            bytes.extend_from_slice(ADMIN);
            admin.write(bytes);
        }
    }
}

/// What an action begins with.
enum Head {
    Open,
    Close,
    /// The machine's own encoding of it follows.
    Command,
    /// The command of an administrator follows.
    Admin,
}

impl<'a> Reader<'a> {
    /// Takes the next request off the payload.
    pub(crate) fn request<C: Batched>(&mut self) -> Result<Request<'a, C>, BadCommand> {
        let header = self.header()?;
        let before = self.0;
        let action = match self.head()? {
            Head::Open => Action::Open,
            Head::Close => Action::Close,
            Head::Command => Action::Command(C::read(&mut self.0)?),
            Head::Admin => Action::Admin(Box::new(Admin::read(&mut self.0)?)),
        };
        Ok(Request { header, action, action_bytes: &before[..before.len() - self.0.len()] })
    }

    /// Reads over a request, and answers the [level](Action::level) of its action. It fails where [`Reader::request`] does.
    pub(crate) fn skip_request<C: Batched>(&mut self) -> Result<u32, BadCommand> {
        self.header()?;
        match self.head()? {
            Head::Open | Head::Close => Ok(1),
            Head::Command => C::skip(&mut self.0),
            Head::Admin => Admin::skip(&mut self.0),
        }
    }

    fn header(&mut self) -> Result<RequestHeader, BadCommand> {
        self.expect(&[0x95], "a header is an array of five")?;
        let session = self.number()?;
        self.expect(&[0xc4, 16], "a key is 16 bytes")?;
        let key = SessionKey(self.bytes()?);
        let (number, acknowledged, token) = (self.number()?, self.number()?, self.number()?);
        Ok(RequestHeader { session, key, number, acknowledged, token })
    }

    fn head(&mut self) -> Result<Head, BadCommand> {
        if self.take(COMMAND) {
            Ok(Head::Command)
        } else if self.take(OPEN) {
            Ok(Head::Open)
        } else if self.take(CLOSE) {
            Ok(Head::Close)
        } else if self.take(ADMIN) {
            Ok(Head::Admin)
        } else {
            Err("an action of another kind")
        }
    }
}
