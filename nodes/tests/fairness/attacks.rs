//! The ways in which one principal can try to take a node's service from others. Each is at work from several threads of the lowest
//! priority, until it is told to stop.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use rabia_bank_messages::codec::Encoding;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error as SocketError;

use crate::support::Connection;
use crate::support::bulks::account;
use crate::support::principals::try_connect;
use crate::{HOT, ask_until_closed, bulk};

/// Threads of an attack.
const THREADS: usize = 6;
/// Connections that one of them holds at most.
const HELD: usize = 150;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attack {
    /// As many connections as there may be, with a hello and without.
    Connections,
    /// Thousands of commands in flight.
    Commands,
    /// Bulks of 10,000 commands.
    Bulks,
    /// Questions that look through the whole history and find nothing.
    Queries,
    /// Long answers that nobody reads.
    Unread,
    /// Messages that do not end.
    Unfinished,
    /// One session after the other.
    Sessions,
    /// Many that follow all of the history.
    Subscriptions,
}

impl Attack {
    pub const ALL: [Attack; 8] = [
        Attack::Connections,
        Attack::Commands,
        Attack::Bulks,
        Attack::Queries,
        Attack::Unread,
        Attack::Unfinished,
        Attack::Sessions,
        Attack::Subscriptions,
    ];

    /// Begins, on these nodes, with this token.
    pub fn begin(self, addresses: &[SocketAddr], token: &str) -> Attackers {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = (0..THREADS).map(|index| {
            let way = Way {
                address: addresses[index % addresses.len()],
                token: token.to_owned(),
                stop: stop.clone(),
                done: done.clone(),
            };
            std::thread::spawn(move || {
                // Of this thread alone.
                rustix::process::setpriority_process(None, 19).unwrap();
                while !way.is_over() {
                    match self {
                        Attack::Connections => way.connections(),
                        Attack::Commands => way.ask(4_000, &|_| deposit()),
                        Attack::Bulks => way.ask(30, &bulk),
                        Attack::Queries => way.ask(50, &|_| fruitless()),
                        Attack::Unread => way.unread(),
                        Attack::Unfinished => way.unfinished(),
                        Attack::Sessions => way.session(),
                        Attack::Subscriptions => way.subscriptions(),
                    }
                }
            })
        });
        Attackers { threads: threads.collect(), stop, done }
    }
}

/// Those who are at it.
pub struct Attackers {
    stop: Arc<AtomicBool>,
    /// What they have done: connections, answers, sessions.
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attackers {
    /// How much was done so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the attack, and says how much was done.
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.done.load(Ordering::Relaxed)
    }
}

fn deposit() -> Value {
    json!({"command": {"deposit": {"account_id": account(9), "amount": 1}}})
}

/// No transaction of this type is there.
fn fruitless() -> Value {
    json!({"read": "local", "query": {"get_transaction_history": {"account_id": account(HOT), "type": "withdrawal"}}})
}

/// One thread of an attack.
struct Way {
    address: SocketAddr,
    token: String,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Way {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn connect(&self) -> Option<Connection> {
        let connection = try_connect(self.address, Encoding::MessagePack, &self.token).ok();
        if connection.is_none() {
            sleep(Duration::from_millis(1));
        }
        connection
    }

    fn connections(&self) {
        let mut held = Vec::new();
        while held.len() < HELD && !self.is_over() {
            held.extend(self.connect().inspect(|_| self.done()));
            held.extend(Connection::try_open(self.address, Encoding::Json, &[]).ok());
        }
        // They go, and others come.
        held.drain(..HELD.min(held.len()) / 2);
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(200) && !self.is_over() {
            drop(self.connect());
        }
    }

    /// Keeps so many requests in flight.
    fn ask(&self, in_flight: u64, request: &impl Fn(u64) -> Value) {
        let Some(mut connection) = self.connect() else { return };
        connection.set_patience(Duration::from_millis(100));
        ask_until_closed(&mut connection, in_flight, request, &self.stop, &self.done);
    }

    fn unread(&self) {
        let mut held = Vec::new();
        while !self.is_over() {
            let Some(mut connection) = self.connect() else { continue };
            for request in 1..=200 {
                let query = json!({"request": request, "query": {"list_accounts": {"limit": 1_000}}, "read": "local"});
                if connection.try_send(&query).is_err() {
                    break;
                }
            }
            self.done();
            held.push(connection);
            if held.len() > HELD {
                held.clear();
            }
        }
    }

    fn unfinished(&self) {
        const MESSAGE: u64 = 4 << 20;
        let (mut held, piece) = (Vec::new(), vec![b' '; 1 << 20]);
        while !self.is_over() {
            let Some(mut connection) = self.connect() else { continue };
            let stream = connection.socket.get_mut();
            stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut header = vec![0x81, 0xff];
            header.extend_from_slice(&MESSAGE.to_be_bytes());
            header.extend_from_slice(&[0; 4]);
            let sent = stream.write_all(&header).and_then(|()| (0..3).try_for_each(|_| stream.write_all(&piece)));
            if sent.is_ok() {
                self.done();
            }
            held.push(connection);
            if held.len() > HELD {
                held.clear();
            }
        }
    }

    fn session(&self) {
        let Ok(mut connection) = Connection::try_open(self.address, Encoding::MessagePack, &[]) else { return };
        let key = format!("{:032x}", fastrand::u128(..));
        let hello = json!({"hello": {"version": 2, "token": self.token, "open": {"key": key}}});
        if connection.try_send(&hello).is_ok()
            && connection.try_receive().is_ok_and(|welcome| welcome["welcome"]["session"].is_u64())
        {
            self.done();
        }
    }

    fn subscriptions(&self) {
        let mut connections = Vec::new();
        for _ in 0..4 {
            let Some(mut connection) = self.connect() else { return };
            connection.set_patience(Duration::from_millis(20));
            for request in 1..=64 {
                if connection.try_send(&json!({"request": request, "subscribe": {"from": 1}})).is_err() {
                    return;
                }
            }
            connections.push(connection);
        }
        while !self.is_over() {
            for connection in &mut connections {
                match connection.try_receive() {
                    Ok(_) => self.done(),
                    Err(SocketError::Io(error))
                        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => return,
                }
            }
        }
    }
}
