//! The reader: a thread of its own that reads blocks of the history for answers.
//!
//! Reading a block costs its decompression and 512 hashes. There is one such thread and it is niced, so that however many answers need
//! blocks, reading them takes what votes and commands leave of the processor.

use std::sync::mpsc;

use rabia_bank_storage::BooksReader;
use tokio::sync::oneshot;
use tracing::debug;

use crate::ledger::machine::Block;
use crate::snapshot::{BooksError, read_block};

/// How much less the thread's share of the processor is than that of others. (19 is the least.)
const NICE: i32 = 10;

type Answer<B> = Result<B, BooksError>;

/// Where blocks are asked for. The thread ends with it.
pub(crate) struct BlockReader<B>(mpsc::Sender<(u64, oneshot::Sender<Answer<B>>)>);

impl<B: Block + 'static> BlockReader<B> {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(books: BooksReader) -> std::io::Result<BlockReader<B>> {
        let (questions, asked) = mpsc::channel::<(u64, oneshot::Sender<Answer<B>>)>();
        std::thread::Builder::new().name("reader".into()).spawn(move || {
            be_nice();
            for (number, answer) in asked {
                // Who asked may be gone: nothing is read for nobody.
                if !answer.is_closed() {
                    let _ = answer.send(read_block(&books, number));
                }
            }
        })?;
        Ok(BlockReader(questions))
    }

    /// Reads a block, behind those that were asked for before. No answer comes if the thread has ended.
    pub(crate) fn read(&self, number: u64) -> oneshot::Receiver<Answer<B>> {
        let (answer, read) = oneshot::channel();
        // The receiver hears it where the thread has ended.
        let _ = self.0.send((number, answer));
        read
    }
}

/// On Linux the priority is the thread's, elsewhere the whole process would have it.
fn be_nice() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::setpriority_process(None, NICE)
    {
        debug!(%error, "the reader has the priority of the others");
    }
}
