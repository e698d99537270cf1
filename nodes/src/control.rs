//! The control socket of a node: `control.sock` in its folder, for whoever may write there.
//!
//! One line asks, and the answer is a line `ok` and what was asked for, or a line that says what is wrong. The questions:
//!
//! - `backup`: the file of a backup ([`backup`]).
//! - `replace NODE STORE`: put into the log that this member has this store now ([`replace`](crate::replace)), and answer in
//!   which slot that was decided. It may take half a minute, and ends in vain where there is no quorum.
//! - `put-token PRINCIPAL ID HASH EXPIRES`: put a token for an administrator, for who owns this folder. The answer is its number.
//! - `accept-clock`: this node's clock is right ([`clocks`](rabia_bank_actors::consensus::clocks)). The answer is how far it shows
//!   beyond what was confirmed, in milliseconds; 0 where nothing was wrong with it.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_messages::ids::{Millis, NodeId, Slot, StoreId};
use rabia_bank_messages::principal::PutToken;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::backup::{self, BackupError};

/// The name of the socket, in a node's folder.
pub const CONTROL_SOCKET: &str = "control.sock";
/// A reader that takes nothing for this long is given up.
const SLOW: Duration = Duration::from_secs(60);
/// The longest path of a socket in bytes, on the system that takes the shortest.
const MAX_SOCKET_PATH: usize = 100;
/// Questions that are answered at a time; others wait for their turn.
const AT_ONCE: usize = 8;
/// The wait after the system could not accept a connection.
const PAUSE: Duration = Duration::from_secs(1);
/// A question is no longer than this.
const MAX_QUESTION: usize = 256;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No node listens on the control socket.
    #[error("nobody answers at {} ({source}); is the node running?", path.display())]
    Unreachable {
        /// The path of the socket.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The answer does not come.
    #[error("the node does not answer: {0}")]
    Io(#[from] std::io::Error),
    /// The node says why it does not do it.
    #[error("the node says: {0}")]
    Refused(String),
}

/// Listens. None, with a warning, where the system can't: the node runs without.
pub fn listen(node_dir: &Path) -> Option<Control> {
    let path = node_dir.join(CONTROL_SOCKET);
    // Of a run that was killed. The store is open by now, so no other run uses it.
    let _ = std::fs::remove_file(&path);
    match by_short_path(node_dir, |short| UnixListener::bind(short)) {
        Ok(listener) => {
            restrict(&path);
            Some(Control { listener, path })
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "no control socket: this node can't be asked for a backup, nor to replace a store");
            None
        }
    }
}

/// Does something with the control socket of a folder. The system takes socket paths of some hundred bytes at most, so a longer
/// one is reached through a link with a short name.
fn by_short_path<T>(node_dir: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = node_dir.join(CONTROL_SOCKET);
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return act(&path);
    }
    let links = tempfile::Builder::new().prefix("rb-").tempdir()?;
    let link = links.path().join("node");
    std::os::unix::fs::symlink(std::path::absolute(node_dir)?, &link)?;
    let short = link.join(CONTROL_SOCKET);
    if short.as_os_str().len() > MAX_SOCKET_PATH {
        let text = format!(
            "the path is too long for a socket, and so is that of the folder for temporary files ({}): set TMPDIR",
            links.path().display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    act(&short)
}

fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        warn!(path = %path.display(), %error, "the control socket is open to all who can reach its folder");
    }
}

/// The socket that is listened on. It goes when this is dropped.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Who comes first: a new run, or the end of this one. Both remove it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Control {
    /// Serves for ever, a few questions at a time: one who asks for a backup and reads slowly keeps nobody else waiting.
    pub async fn serve(&self, node: &NodeHandle) {
        let mut answering = JoinSet::new();
        loop {
            if answering.len() >= AT_ONCE {
                answering.join_next().await;
            }
            while answering.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let node = node.clone();
                    answering.spawn_local(async move {
                        if let Err(error) = answer(stream, &node).await {
                            warn!(%error, "a question on the control socket was not answered");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "the control socket does not work");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

enum Question {
    Backup,
    AcceptClock,
    Replace(NodeId, StoreId),
    PutToken(PutToken),
}

impl Question {
    fn read(line: &[u8]) -> Option<Question> {
        let words: Vec<&str> = str::from_utf8(line).ok()?.strip_suffix('\n')?.split(' ').collect();
        match words[..] {
            ["backup"] => Some(Question::Backup),
            ["accept-clock"] => Some(Question::AcceptClock),
            ["replace", node, store] => {
                Some(Question::Replace(node.parse().ok().and_then(NodeId::new)?, store.parse().ok()?))
            }
            ["put-token", principal, token_id, token_hash, expires_at] => Some(Question::PutToken(PutToken {
                principal: principal.parse().ok()?,
                token_id: token_id.parse().ok()?,
                token_hash: token_hash.parse().ok()?,
                expires_at: expires_at.parse().ok()?,
            })),
            _ => None,
        }
    }
}

/// What a question brought: two lines; or why it was refused, on one.
fn told(answer: Result<impl Display, impl Display>) -> String {
    match answer {
        Ok(brought) => format!("ok\n{brought}\n"),
        Err(why) => refused(why),
    }
}

fn refused(why: impl Display) -> String {
    format!("{}\n", why.to_string().replace('\n', " "))
}

async fn answer(stream: UnixStream, node: &NodeHandle) -> Result<(), BackupError> {
    let mut stream = tokio::io::BufReader::new(stream);
    let mut question = Vec::new();
    let mut limited = tokio::io::AsyncReadExt::take(&mut stream, MAX_QUESTION as u64);
    let asked = tokio::time::timeout(SLOW, limited.read_until(b'\n', &mut question)).await;
    asked.map_err(|_| BackupError::Refused("nothing was asked".into()))??;
    let mut stream = stream.into_inner();
    match Question::read(&question) {
        Some(Question::Backup) => {}
        Some(Question::AcceptClock) => {
            return Ok(stream.write_all(told(node.accept_clock().await).as_bytes()).await?);
        }
        Some(Question::Replace(of, store)) => {
            return Ok(stream.write_all(told(node.replace(of, store).await).as_bytes()).await?);
        }
        Some(Question::PutToken(put)) => {
            return Ok(stream.write_all(told(node.put_token_as_owner(put).await).as_bytes()).await?);
        }
        // Somebody looked whether there is somebody.
        None if question.is_empty() => return Ok(()),
        None => {
            stream
                .write_all(
                    b"this is no question that is answered here; ask: backup, accept-clock, put-token, or: replace NODE STORE\n",
                )
                .await?;
            return Ok(());
        }
    }
    let view = match node.snapshot().await {
        Ok(view) => view,
        Err(why) => {
            stream.write_all(refused(why).as_bytes()).await?;
            return Ok(());
        }
    };
    let slot = view.slot();
    if slot == 0 {
        stream.write_all(b"there is nothing to back up yet: no slot of the log is decided\n").await?;
        return Ok(());
    }
    let stream = stream.into_std()?;
    let written = tokio::task::spawn_blocking(move || -> Result<(), BackupError> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(SLOW))?;
        (&stream).write_all(b"ok\n")?;
        backup::write(&view, &stream)
    });
    written.await.map_err(|error| BackupError::Refused(error.to_string()))??;
    info!(slot, "a backup was taken");
    Ok(())
}

/// Asks a running node for a backup; what is read is the file.
///
/// # Errors
/// If the node does not run, or refuses.
pub fn ask_backup(node_dir: &Path) -> Result<impl std::io::Read + use<>, ControlError> {
    ask(node_dir, "backup")
}

/// Asks a running node to put into the log that a member has this store now. Answers in which slot it was decided.
///
/// # Errors
/// If the node does not run, or refuses, or can't say that it is decided.
pub fn ask_replace(node_dir: &Path, node: NodeId, store: StoreId) -> Result<Slot, ControlError> {
    let mut slot = String::new();
    ask(node_dir, &format!("replace {node} {store}"))?.read_line(&mut slot)?;
    slot.trim_end().parse().map_err(|_| ControlError::Refused(format!("something that is no slot: {slot}")))
}

/// Tells a running node that its clock is right. Answers how far it shows beyond what was confirmed, in milliseconds; 0 where
/// nothing was wrong with it.
///
/// # Errors
/// If the node does not run, or refuses.
pub fn ask_accept_clock(node_dir: &Path) -> Result<Millis, ControlError> {
    let mut beyond = String::new();
    ask(node_dir, "accept-clock")?.read_line(&mut beyond)?;
    beyond.trim_end().parse().map_err(|_| ControlError::Refused(format!("something that is no time: {beyond}")))
}

/// Tells a running node to put this token for an administrator into the log. Answers the token's number.
///
/// # Errors
/// If the node does not run, or refuses, or can't say that it is decided.
pub fn ask_put_token(node_dir: &Path, put: &PutToken) -> Result<u64, ControlError> {
    let PutToken { principal, token_id, token_hash, expires_at } = put;
    let mut number = String::new();
    let question = format!("put-token {principal} {token_id} {token_hash} {expires_at}");
    ask(node_dir, &question)?.read_line(&mut number)?;
    number.trim_end().parse().map_err(|_| ControlError::Refused(format!("something that is no number: {number}")))
}

/// Whether a node runs in this folder.
pub fn is_answered(node_dir: &Path) -> bool {
    by_short_path(node_dir, |path| BlockingStream::connect(path)).is_ok()
}

fn ask(node_dir: &Path, question: &str) -> Result<BufReader<BlockingStream>, ControlError> {
    let path = node_dir.join(CONTROL_SOCKET);
    let stream = by_short_path(node_dir, |path| BlockingStream::connect(path))
        .map_err(|source| ControlError::Unreachable { path: path.clone(), source })?;
    (&stream).write_all(format!("{question}\n").as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    match answer.trim_end() {
        "ok" => Ok(stream),
        "" => Err(ControlError::Refused("nothing: it has stopped".into())),
        why => Err(ControlError::Refused(why.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_folder_may_have_a_path_of_any_length() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["short", &"long".repeat(50)] {
            let folder = temp.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            assert!(!is_answered(&folder));
            let control = listen(&folder).unwrap();
            assert!(folder.join(CONTROL_SOCKET).exists());
            assert!(is_answered(&folder));
            drop(control);
            assert!(!folder.join(CONTROL_SOCKET).exists());
        }
    }
}
