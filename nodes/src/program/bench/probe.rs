//! What the machine does without a bank: commits of the store's library, and a WebSocket that sends back what comes.
//!
//! Disks and processors of different machines, and of one machine on different days, differ more than programs do; a
//! ratio to what was measured a moment before says more than a number.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use super::Trouble;

/// Commits that are measured.
const COMMITS: usize = 500;
/// How long the echo is measured.
const ECHO_TIME: Duration = Duration::from_secs(2);
/// A message of the echo: about as long as a question for a balance.
const ECHO_BYTES: usize = 100;
/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// What the machine does without a bank: bare commits and echoes.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub(super) struct Probe {
    /// A durable commit of one small value, one after the other.
    pub commit_p50_ms: f64,
    /// Messages that went to an echo on a thread of its own and came back, one in flight on each connection.
    pub echo_per_second: f64,
    /// How long each of them took.
    pub echo_p50_ms: f64,
}

/// Measures commits in `folder`, and an echo on so many connections.
pub(super) async fn measure(folder: &Path, connections: usize) -> Result<Probe, Trouble> {
    let commits = rabia_bank_storage::probe(folder, COMMITS);
    let mut commits = commits.map_err(|error| Trouble(format!("the disk was not measured: {error}")))?;
    commits.sort_unstable();
    let commit_p50_ms = commits[commits.len() / 2].as_secs_f64() * 1_000.0;
    let echo = echo(connections).await.map_err(|error| Trouble(format!("the echo was not measured: {error}")))?;
    Ok(Probe {
        commit_p50_ms,
        echo_per_second: echo.len() as f64 / ECHO_TIME.as_secs_f64(),
        echo_p50_ms: echo.value_at_quantile(0.5) as f64 / 1_000.0,
    })
}

async fn echo(connections: usize) -> Result<Histogram<u64>, tungstenite::Error> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::Builder::new().name("echo".into()).spawn(move || {
        let runtime = super::runtime()?;
        runtime.block_on(async {
            tokio::select! {
                served = serve(TcpListener::from_std(listener)?) => served,
                _ = stopped => Ok(()),
            }
        })
    })?;
    let mut sockets = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        sockets.push(tokio_tungstenite::client_async(format!("ws://{address}/"), stream).await?.0);
    }
    let end = Instant::now() + ECHO_TIME;
    let mut clients = JoinSet::new();
    for mut socket in sockets {
        clients.spawn_local(async move {
            let mut took = Vec::new();
            let message = Bytes::from_static(&[7; ECHO_BYTES]);
            while Instant::now() < end {
                let sent = Instant::now();
                socket.send(Message::Binary(message.clone())).await?;
                match socket.next().await {
                    Some(answer) => drop(answer?),
                    None => return Err(tungstenite::Error::ConnectionClosed),
                }
                took.push(sent.elapsed());
            }
            Ok(took)
        });
    }
    let mut times =
        Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|error| std::io::Error::other(error.to_string()))?;
    while let Some(took) = clients.join_next().await {
        for took in took.map_err(std::io::Error::other)?? {
            times.saturating_record(took.as_micros() as u64);
        }
    }
    drop(stop);
    let served = server.join().map_err(|_| std::io::Error::other("the echo has panicked"))?;
    served.map(|()| times).map_err(Into::into)
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut socket = tokio_tungstenite::accept_async(stream).await?;
            while let Some(message) = socket.next().await {
                let message = message?;
                if message.is_binary() {
                    socket.send(message).await?;
                }
            }
            Ok::<(), tungstenite::Error>(())
        });
    }
}
