//! A client's socket with a meter: what was read of a message that is not whole yet, and whether what is written is read.
//!
//! The WebSocket library keeps the beginning of a message until its end is there, and tells nobody how much that is. So bytes
//! are counted where they are read, below it, from one whole message to the next. A read beyond the budget fails; the session
//! looks at the meter to say why.
//!
//! When a connection that has to end is still not read by its client, the system would go on for minutes trying to deliver
//! what was written. [`Meter::abort`] makes it forget the connection at once.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::budget::{Account, Exceeded};
use crate::consensus::turns::Owner;

/// The most bytes of an opening handshake.
pub const MAX_HANDSHAKE: usize = 4 << 10;
/// The most bytes of a client's first message, which is a hello: until then nobody knows whose share they are.
pub const MAX_HELLO: usize = 8 << 10;
/// The most bytes of pings whose pongs could not be written: a few KiB more than what nobody reads anyway.
const MAX_PINGS: usize = 64 << 10;
/// A control frame of a client: two bytes, the mask, and up to 125 more.
const CONTROL_FRAME: usize = 6;

/// What a socket of a client has seen.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    /// What may be read of the handshake; `usize::MAX` behind it.
    handshake: AtomicUsize,
    unfinished: Account,
    /// The client has said who it is.
    greeted: AtomicBool,
    /// When the first byte of it was read, in milliseconds since the start and one more; 0 if there is none.
    begun: AtomicU64,
    /// The [`Exceeded`] and one more; 0 if no limit was reached.
    exceeded: AtomicU8,
    /// Bytes of pings since something could be written.
    pings: AtomicUsize,
    /// When something could be written last, in milliseconds since the start.
    written: AtomicU64,
    abort: AtomicBool,
}

impl Meter {
    /// A meter of a connection whose unfinished messages are counted here.
    pub fn new(unfinished: Account) -> Arc<Meter> {
        Arc::new(Meter {
            started: Instant::now(),
            handshake: AtomicUsize::new(MAX_HANDSHAKE),
            unfinished,
            greeted: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            exceeded: AtomicU8::new(0),
            pings: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            abort: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 // 584 million years
    }

    /// The handshake is done.
    pub fn opened(&self) {
        self.handshake.store(usize::MAX, Ordering::Relaxed);
        self.whole_message();
    }

    /// The client has said who it is: from now on its messages may be long, and are of its owner's share.
    pub fn greeted(&self, owner: Owner) {
        self.unfinished.move_to(owner);
        self.greeted.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub fn is_greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    /// A message is whole. (What was read behind its end is not counted: a few KiB at most.)
    pub fn whole_message(&self) {
        self.unfinished.give(self.unfinished.bytes());
        self.begun.store(0, Ordering::Relaxed);
    }

    /// A ping or pong of so many bytes came. False if there were too many pings whose answers nobody reads.
    pub fn control_frame(&self, length: usize, ping: bool) -> bool {
        let bytes = length + CONTROL_FRAME;
        self.unfinished.give(bytes);
        if self.unfinished.bytes() == 0 {
            self.begun.store(0, Ordering::Relaxed);
        }
        !ping || self.pings.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_PINGS
    }

    /// For how long a message has been coming whose end is not there.
    pub fn unfinished_for(&self) -> Option<Duration> {
        let begun = self.begun.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(self.now().saturating_sub(begun)))
    }

    /// What a read exceeded, if one did.
    pub fn exceeded(&self) -> Option<Exceeded> {
        match self.exceeded.load(Ordering::Relaxed) {
            1 => Some(Exceeded::Connection),
            2 => Some(Exceeded::Owner),
            3 => Some(Exceeded::Node),
            _ => None,
        }
    }

    /// Nothing waits to be written.
    pub fn nothing_waits(&self) {
        self.written.store(self.now(), Ordering::Relaxed);
    }

    /// For how long nothing could be written, where something waits.
    pub fn stalled_for(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.written.load(Ordering::Relaxed)))
    }

    /// When the socket is closed, the connection is forgotten at once, with all that was not delivered.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }

    fn read(&self, bytes: usize) -> io::Result<()> {
        let left = self.handshake.load(Ordering::Relaxed);
        if left != usize::MAX {
            let left = left.checked_sub(bytes);
            self.handshake.store(left.unwrap_or(0), Ordering::Relaxed);
            return left.map(drop).ok_or_else(|| io::Error::other("the handshake is too long"));
        }
        let is_hello = !self.is_greeted();
        let too_long = is_hello && self.unfinished.bytes() + bytes > MAX_HELLO;
        let taken = if too_long { Err(Exceeded::Connection) } else { self.unfinished.take(bytes) };
        if let Err(exceeded) = taken {
            self.exceeded.store(exceeded as u8 + 1, Ordering::Relaxed);
            return Err(io::Error::other("too many bytes of unfinished messages"));
        }
        if self.begun.load(Ordering::Relaxed) == 0 {
            self.begun.store(self.now() + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn wrote(&self) {
        self.pings.store(0, Ordering::Relaxed);
        self.written.store(self.now(), Ordering::Relaxed);
    }
}

/// A client's connection: TCP, or what is secured on it.
pub trait Connection: AsyncRead + AsyncWrite + Debug + Send + Unpin {
    /// The TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// A client's connection with its meter.
#[derive(Debug)]
pub struct Metered {
    stream: Box<dyn Connection>,
    meter: Arc<Meter>,
}

impl Metered {
    /// Reads and writes this connection.
    pub fn new(stream: impl Connection + 'static, meter: Arc<Meter>) -> Metered {
        Metered { stream: Box::new(stream), meter }
    }

    /// Shared with whoever watches over the connection.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        match read {
            Poll::Ready(Ok(())) if bytes > 0 => Poll::Ready(self.meter.read(bytes)),
            read => read,
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.meter.wrote();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if self.meter.abort.load(Ordering::Relaxed) {
            // A socket that takes no option is closed as usual.
            let _ = self.stream.tcp().set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::budget::{Budget, BudgetLimits};

    fn meter() -> Arc<Meter> {
        let limits = BudgetLimits { connection: 10_000, owner: 20_000, node: 40_000, free: 0 };
        Meter::new(Budget::new(limits).open(Owner::at(IpAddr::V4(Ipv4Addr::LOCALHOST))))
    }

    #[test]
    fn a_handshake_has_its_bound_and_messages_have_theirs() {
        let meter = meter();
        assert!(meter.read(MAX_HANDSHAKE).is_ok() && meter.read(1).is_err());
        assert_eq!(meter.exceeded(), None);
        meter.opened();
        for _ in 0..10 {
            assert!(meter.read(MAX_HELLO).is_ok());
            meter.whole_message();
            assert_eq!(meter.unfinished_for(), None);
        }
        assert!(meter.read(MAX_HELLO).is_ok() && meter.unfinished_for().is_some());
        assert!(meter.read(1).is_err(), "a hello is short");
        assert_eq!(meter.exceeded(), Some(Exceeded::Connection));
        meter.greeted(Owner::Principal(1));
        assert!(meter.read(10_000 - MAX_HELLO).is_ok() && meter.read(1).is_err());
    }

    /// Pings between the pieces of a message do not make it whole, and pings alone are no message that is not whole.
    #[test]
    fn pings_are_not_counted_as_messages() {
        let meter = meter();
        meter.opened();
        for _ in 0..1_000 {
            assert!(meter.read(CONTROL_FRAME + 9).is_ok());
            assert!(meter.control_frame(9, false));
            assert_eq!(meter.unfinished_for(), None);
        }
        assert!(meter.read(5_000 + CONTROL_FRAME).is_ok() && meter.control_frame(0, true));
        assert!(meter.unfinished_for().is_some() && meter.read(MAX_HELLO - 4_999).is_err());
        let answered = |meter: &Meter| (0..2 * MAX_PINGS / 100).take_while(|_| meter.control_frame(94, true)).count();
        assert!(answered(&meter) < MAX_PINGS / 100 + 1, "pings without end");
        meter.wrote();
        assert!(meter.control_frame(94, true), "somebody reads");
    }
}
