//! `rabia-bank node`: one node, until a signal ends it. The node has an arbiter of its own in the actix System of the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix::Arbiter;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

use super::{Exit, ProgramError, damage};
use crate::config::NodeConfig;
use crate::{NodeError, server};

/// The command line of `node`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The node stops on SIGTERM and SIGINT, without haste; nothing is lost if it is killed instead. SIGUSR1 and SIGUSR2 are logged and mean
nothing. SIGHUP reads the certificates for clients again, which happens by itself a moment after they have changed. It raises its limit of open files to the hard one, and leaves no core dump.

Exit code 1 says that it had to stop and may be started again, 3 that configuration, store or ports need a person, 7 that a
file of it is damaged. `rabia-bank --help` has them all.")]
pub struct Args {
    /// The node's configuration, as `rabia-bank create` wrote it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Stop when stdin closes, as it does when the process that started this one has gone.
    #[arg(long)]
    stop_with_parent: bool,
}

/// Runs the node.
///
/// # Errors
/// Why it refused to start, or had to stop.
pub fn run(args: &Args) -> Result<Exit, ProgramError> {
    // A node is fail-stop: a panic on any thread ends the process, also where a build would unwind.
    damage::report_panics(args.config.parent().unwrap_or(Path::new(".")), || std::process::abort());
    let config = NodeConfig::load(&args.config).map_err(|error| NodeError::Refused(error.to_string()))?;
    actix::System::new().block_on(async {
        let shutdown = shutdown(args.stop_with_parent)?;
        let reload = Arc::new(Notify::new());
        actix::spawn(reload_on_hangup(reload.clone())?);
        actix::spawn(outlive(SignalKind::user_defined1(), "SIGUSR1")?);
        actix::spawn(outlive(SignalKind::user_defined2(), "SIGUSR2")?);
        on_an_arbiter(config, reload, shutdown).await?;
        Ok(Exit::Done)
    })
}

/// Runs the node on an arbiter of its own. The System's thread waits for signals.
async fn on_an_arbiter(
    config: NodeConfig,
    reload: Arc<Notify>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), NodeError> {
    let (end, ended) = oneshot::channel();
    let arbiter = Arbiter::new();
    arbiter.spawn_fn(move || {
        actix::spawn(async move {
            // The System waits for it.
            let _ = end.send(server::run(config, reload, shutdown).await);
        });
    });
    let result = ended.await.unwrap_or_else(|_| Err(NodeError::Failed("the node's arbiter has ended".into())));
    arbiter.stop();
    // A panic has ended the process.
    let _ = arbiter.join();
    result
}

/// Resolves when somebody wants the node to stop.
fn shutdown(stop_with_parent: bool) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parent_gone = if stop_with_parent { Some(stdin_closed()?) } else { None };
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
            () = some(parent_gone) => tracing::info!("stopping: stdin has closed"),
        }
    })
}

/// Lets the node read its certificates again at each SIGHUP. (A terminal that closes sends one, too: that does no harm.)
fn reload_on_hangup(reload: Arc<Notify>) -> std::io::Result<impl Future<Output = ()> + 'static> {
    let mut signals = signal(SignalKind::hangup())?;
    Ok(async move {
        while signals.recv().await.is_some() {
            tracing::info!(
                "SIGHUP: the certificates for clients are read again, if there are any; SIGTERM stops the node"
            );
            reload.notify_one();
        }
    })
}

/// Signals that end a process unless it says otherwise, and that mean nothing to a node.
fn outlive(kind: SignalKind, name: &'static str) -> std::io::Result<impl Future<Output = ()> + 'static> {
    let mut signals = signal(kind)?;
    Ok(async move {
        while signals.recv().await.is_some() {
            tracing::info!("{name} means nothing to a node: it goes on; SIGTERM stops it");
        }
    })
}

/// Resolves when stdin closes.
fn stdin_closed() -> std::io::Result<oneshot::Receiver<()>> {
    let (open, closed) = oneshot::channel();
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        // Whatever comes is ignored; the end and an error both mean that nobody is there any more.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(open);
    })?;
    Ok(closed)
}

/// Resolves with the receiver, or never.
async fn some(receiver: Option<oneshot::Receiver<()>>) {
    match receiver {
        Some(receiver) => drop(receiver.await),
        None => std::future::pending().await,
    }
}
