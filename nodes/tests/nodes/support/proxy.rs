//! A TCP proxy between two nodes that can be a bad network: it delays, holds back, delivers late, and cuts, also in the
//! middle of a message.
//!
//! Each direction of each connection is two threads: one reads what comes and notes when, the other writes it when it is
//! due. What is held back is kept, and delivered when the proxy is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at a time.
const CHUNK: usize = 16 << 10;

/// How the network is.
#[derive(Clone, Copy, Default)]
struct Faults {
    delay: Duration,
    /// Nothing is delivered.
    holding: bool,
    /// Connections before this one are cut after the bytes that are left.
    cut_before: u64,
    /// New connections are closed at once.
    closed: bool,
}

struct Shared {
    target: SocketAddr,
    faults: Mutex<Faults>,
    changed: Condvar,
    connections: AtomicU64,
    delivered: AtomicU64,
}

/// A running proxy. It lives as long as the test.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts a proxy on a free port that passes everything on to `target`.
    pub fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            faults: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for caller in listener.incoming() {
                accepting.connect(caller.unwrap());
            }
        });
        Proxy { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes passed on so far.
    pub fn delivered(&self) -> u64 {
        self.shared.delivered.load(Ordering::Relaxed)
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Everything takes this much longer, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// Keeps back what is sent from now on; connections stay.
    pub fn hold(&self) {
        self.change(|faults| faults.holding = true);
    }

    /// Delivers what was kept back, late, and all that follows.
    pub fn release(&self) {
        self.change(|faults| faults.holding = false);
    }

    /// Cuts all connections in the middle of what they transfer next, and lets new ones in.
    pub fn cut(&self) {
        let connections = self.connections();
        self.change(|faults| faults.cut_before = connections);
    }

    /// Cuts all connections and takes none, until told [`Proxy::reopen`].
    pub fn close(&self) {
        self.change(|faults| faults.closed = true);
        self.cut();
    }

    /// Takes connections again.
    pub fn reopen(&self) {
        self.change(|faults| faults.closed = false);
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn connect(self: &Arc<Shared>, caller: TcpStream) {
        if self.faults.lock().unwrap().closed {
            return;
        }
        // A node that is down refuses, and so does the proxy then.
        let Ok(called) = TcpStream::connect(self.target) else { return };
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        for (from, to) in [(&caller, &called), (&called, &caller)] {
            from.set_nodelay(true).unwrap();
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let (chunks, queue) = channel();
            thread::spawn(move || read(from, &chunks));
            let shared = Arc::clone(self);
            thread::spawn(move || shared.write(to, &queue, number));
        }
    }

    /// Writes each chunk when it is due. Ends with the connection.
    fn write(&self, mut to: TcpStream, queue: &Receiver<(Instant, Vec<u8>)>, number: u64) {
        for (came, chunk) in queue {
            let cut = self.wait_until_due(came, number);
            // Half a chunk is the middle of some message.
            let part = if cut { &chunk[..chunk.len() / 2] } else { &chunk[..] };
            if to.write_all(part).is_err() || cut {
                break;
            }
            self.delivered.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        // The other end may have closed it already.
        let _ = to.shutdown(Shutdown::Both);
    }

    /// True: the connection is to be cut.
    fn wait_until_due(&self, came: Instant, number: u64) -> bool {
        let mut faults = self.faults.lock().unwrap();
        loop {
            let left = (came + faults.delay).saturating_duration_since(Instant::now());
            if number < faults.cut_before {
                return true;
            } else if faults.holding {
                faults = self.changed.wait(faults).unwrap();
            } else if left.is_zero() {
                return false;
            } else {
                faults = self.changed.wait_timeout(faults, left).unwrap().0;
            }
        }
    }
}

fn read(mut from: TcpStream, chunks: &Sender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || chunks.send((Instant::now(), buffer[..length].to_vec())).is_err() {
            break;
        }
    }
}
