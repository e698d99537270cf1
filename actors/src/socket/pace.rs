//! How fast long messages of clients are taken from their sockets.
//!
//! Decoding a bulk of thousands of commands takes this thread some milliseconds. Whoever sends one after the other would leave it no
//! time for anybody else's votes and commands. So a connection pauses after a long message, and with all connections of a node together
//! long messages take half of the thread's time at most: the rest waits in the clients' sockets, where it costs nobody anything.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::budget::LongMessages;

/// A message of so many bytes is long: a bulk of some hundred commands.
const LONG: usize = 16 << 10;
/// The messages of a connection, no faster than that.
pub(crate) struct Paced<S> {
    stream: S,
    long: Arc<LongMessages>,
    /// When a long message was handed out that is dealt with since.
    dealing: Option<Instant>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, long: Arc<LongMessages>) -> Paced<S> {
        Paced { stream, long, dealing: None, pause: None }
    }
}

impl<S: Stream<Item = Result<Frame, E>> + Unpin, E> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if let Some(since) = self.dealing.take() {
            let pause = self.long.pause(since.elapsed());
            self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        }
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        let next = Pin::new(&mut self.stream).poll_next(cx);
        if let Poll::Ready(Some(Ok(frame))) = &next
            && frame.len() >= LONG
        {
            self.dealing = Some(Instant::now());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::StreamExt;

    use super::*;

    fn paced(length: usize, long: &Arc<LongMessages>) -> Paced<impl Stream<Item = Result<Frame, Infallible>> + Unpin> {
        let frames = std::iter::repeat_with(move || Ok(Frame::binary(vec![0; length])));
        Paced::new(futures_util::stream::iter(frames), long.clone())
    }

    /// Two connections send long messages, which take 5 ms each: half of the time is left.
    #[actix_rt::test]
    async fn long_messages_take_half_of_the_time() {
        let long = Arc::default();
        let began = Instant::now();
        let connection = |mut stream: Paced<_>| async move {
            for _ in 0..10 {
                stream.next().await;
                std::thread::sleep(Duration::from_millis(5));
            }
            stream.next().await;
        };
        futures_util::future::join(connection(paced(LONG, &long)), connection(paced(LONG, &long))).await;
        assert!(began.elapsed() >= Duration::from_millis(2 * 2 * 10 * 5 - 20), "{:?}", began.elapsed());
    }

    #[actix_rt::test]
    async fn short_messages_do_not_wait() {
        let long = Arc::new(LongMessages::default());
        long.pause(Duration::from_secs(1_000_000));
        let mut stream = paced(LONG - 1, &long);
        for _ in 0..100 {
            let next = futures_util::future::poll_immediate(stream.next()).await;
            assert!(next.is_some());
        }
    }
}
