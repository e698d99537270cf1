//! `rabia-bank node`: one node, until a signal ends it.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{Exit, ProgramError, terminal};
use crate::config::NodeConfig;
use crate::{NodeError, server};

/// The command line of `node`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The node stops on SIGTERM and SIGINT, without haste; nothing is lost if it is killed instead.
Exit code 3 says that it refused to start: configuration, store or ports need a person.")]
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
    stop_at_panic(&args.config);
    let config = NodeConfig::load(&args.config).map_err(|error| NodeError::Refused(error.to_string()))?;
    actix::System::new().block_on(async {
        let shutdown = shutdown(args.stop_with_parent)?;
        server::run(config, shutdown).await?;
        Ok(Exit::Done)
    })
}

/// The exit code of a node that needs a person.
const NEEDS_A_PERSON: i32 = 3;

/// A node is fail-stop: a panic on any thread ends the process, also where a build would unwind.
fn stop_at_panic(config: &Path) {
    let dir = config.parent().unwrap_or(Path::new(".")).to_owned();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if terminal::report_damage(panic, &dir) {
            std::process::exit(NEEDS_A_PERSON);
        }
        std::process::abort();
    }));
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
