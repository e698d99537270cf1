//! How fast messages of clients are taken from their sockets.
//!
//! All that a node does it does on one thread. A bulk of thousands of commands takes some milliseconds of it to decode, and a
//! thousand connections with a message each as much: so whoever sends without end would leave no time for anybody else's votes and
//! commands. Where a message waits that is not taken yet, in its client's socket, it costs nobody anything. So:
//!
//! - While messages of several owners come, the messages of one have no more of the time than its share: of two, half.
//! - Long messages of all owners together have half of it at most, whoever else is there.
//! - The connections of an owner that is ahead of its share pause, each behind the others.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use rustc_hash::FxHashMap;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::consensus::turns::Owner;

/// A message of so many bytes is long: a bulk of some hundred commands.
const LONG: usize = 16 << 10;
/// No connection pauses for longer, however many there are: it would be taken for dead.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How far an owner may be ahead of its share before its connections pause: two ticks of the timer.
const AHEAD: Duration = Duration::from_millis(2);
/// An owner shares the time that has sent something within this one …
const RECENT: Duration = Duration::from_millis(100);
/// … which is looked for this often.
const LOOK: Duration = Duration::from_millis(10);

/// What the messages of clients have of the thread's time, by owner.
#[derive(Debug)]
pub(crate) struct Pace {
    started: Instant,
    /// How many owners share the time, and when they were counted, in nanoseconds since the start.
    sharing: AtomicUsize,
    counted: AtomicU64,
    owners: Mutex<FxHashMap<Owner, Arc<OfOwner>>>,
}

/// What the messages of an owner have had of it. Nanoseconds since the start.
#[derive(Debug, Default)]
struct OfOwner {
    /// Until when that was its share; 0 if that is over.
    until: AtomicU64,
    /// When its last message was dealt with, and how long a message takes, roughly.
    last: AtomicU64,
    takes: AtomicU64,
}

impl Default for Pace {
    fn default() -> Pace {
        let (sharing, counted) = (AtomicUsize::new(1), AtomicU64::new(0));
        Pace { started: Instant::now(), sharing, counted, owners: Mutex::default() }
    }
}

impl Pace {
    /// A connection of this owner.
    pub(crate) fn open(self: &Arc<Pace>, owner: Owner) -> Arc<Paces> {
        let of = Mutex::new((owner, self.enter(owner)));
        Arc::new(Paces { pace: self.clone(), of })
    }

    fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64 // 584 years
    }

    fn enter(&self, owner: Owner) -> Arc<OfOwner> {
        locked(&self.owners).entry(owner).or_default().clone()
    }

    /// How many owners share the time.
    fn sharing(&self, now: u64) -> u64 {
        if now >= self.counted.load(Ordering::Relaxed) + LOOK.as_nanos() as u64 {
            self.counted.store(now, Ordering::Relaxed);
            let mut owners = locked(&self.owners);
            let recent = |of: &Arc<OfOwner>| now < of.last.load(Ordering::Relaxed) + RECENT.as_nanos() as u64;
            self.sharing.store(owners.values().filter(|of| recent(of)).count().max(1), Ordering::Relaxed);
            owners.retain(|_, of| Arc::strong_count(of) > 1 || recent(of));
        }
        self.sharing.load(Ordering::Relaxed) as u64
    }
}

/// Nothing panics while one of these is held.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a connection in the pace of its owner.
#[derive(Debug)]
pub(crate) struct Paces {
    pace: Arc<Pace>,
    of: Mutex<(Owner, Arc<OfOwner>)>,
}

impl Paces {
    /// The connection belongs to this owner from now on.
    pub(crate) fn move_to(&self, owner: Owner) {
        *locked(&self.of) = (owner, self.pace.enter(owner));
    }

    /// A message that was begun then is dealt with, and so much was counted for it already. Answers how long the connection has to
    /// pause.
    fn took(&self, now: Instant, since: Instant, is_long: bool, counted: u64) -> Option<Duration> {
        let (now, took) = (self.pace.at(now), now.saturating_duration_since(since).as_nanos() as u64);
        let of = locked(&self.of);
        let of = &of.1;
        of.last.store(now, Ordering::Relaxed);
        let before = of.takes.load(Ordering::Relaxed);
        of.takes.store(before - before / 8 + took / 8, Ordering::Relaxed);
        let cost = match (self.pace.sharing(now), is_long) {
            (sharing, true) => 2 * sharing * took,
            (1, false) => 0,
            (sharing, false) => sharing * took,
        };
        let since = of.until.load(Ordering::Relaxed).max(now.saturating_sub(took));
        let until = (since + cost).saturating_sub(counted).min(now + LONGEST_PAUSE.as_nanos() as u64);
        of.until.store(if until > now { until } else { 0 }, Ordering::Relaxed);
        let pause = Duration::from_nanos(until.saturating_sub(now)).min(LONGEST_PAUSE);
        (is_long || pause > AHEAD).then_some(pause)
    }

    /// How long a connection that wants to take a message has to wait for its turn, if it has to, and what is counted for that.
    fn wait(&self, now: Instant) -> Option<(Duration, u64)> {
        let of = locked(&self.of);
        let of = &of.1;
        let until = of.until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let now = self.pace.at(now);
        let pause = Duration::from_nanos(until.saturating_sub(now)).min(LONGEST_PAUSE);
        (pause > AHEAD).then(|| {
            let counted = of.takes.load(Ordering::Relaxed) * self.pace.sharing(now);
            of.until.store(until + counted, Ordering::Relaxed);
            (pause, counted)
        })
    }

    /// Nothing came of what was counted.
    fn give_back(&self, counted: u64) {
        let of = locked(&self.of);
        let until = of.1.until.load(Ordering::Relaxed);
        of.1.until.store(until.saturating_sub(counted), Ordering::Relaxed);
    }
}

/// The messages of a connection, no faster than that.
pub(crate) struct Paced<S> {
    stream: S,
    paces: Arc<Paces>,
    /// When the message was begun that is dealt with, and whether it is long.
    dealing: Option<(Instant, bool)>,
    pause: Option<Pin<Box<Sleep>>>,
    /// What is counted already for the next message, whose turn has come.
    counted: Option<u64>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, paces: Arc<Paces>) -> Paced<S> {
        Paced { stream, paces, dealing: None, pause: None, counted: None }
    }
}

impl<S: Stream<Item = Result<Frame, E>> + Unpin, E> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let now = Instant::now();
        if let Some((since, is_long)) = self.dealing.take() {
            let counted = self.counted.take().unwrap_or(0);
            let pause = self.paces.took(now, since, is_long, counted);
            self.pause = pause.map(|pause| Box::pin(tokio::time::sleep(pause)));
            // Its turn comes with the end of the pause.
            self.counted = self.pause.as_ref().map(|_| 0);
        } else if self.pause.is_none()
            && self.counted.is_none()
            && let Some((pause, counted)) = self.paces.wait(now)
        {
            self.pause = Some(Box::pin(tokio::time::sleep(pause)));
            self.counted = Some(counted);
        }
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        let next = Pin::new(&mut self.stream).poll_next(cx);
        match &next {
            Poll::Ready(Some(Ok(frame))) => self.dealing = Some((now, frame.len() >= LONG)),
            Poll::Ready(_) => {}
            Poll::Pending => {
                if let Some(counted) = self.counted.take() {
                    self.paces.give_back(counted);
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::StreamExt;

    use super::*;

    fn paced(length: usize, paces: Arc<Paces>) -> Paced<impl Stream<Item = Result<Frame, Infallible>> + Unpin> {
        let frames = std::iter::repeat_with(move || Ok(Frame::binary(vec![0; length])));
        Paced::new(futures_util::stream::iter(frames), paces)
    }

    /// Takes so many messages, each of which takes so long.
    async fn take(mut stream: Paced<impl Stream<Item = Result<Frame, Infallible>> + Unpin>, many: u32, each: Duration) {
        for _ in 0..many {
            stream.next().await;
            std::thread::sleep(each);
            // What is ready on this thread besides has its turn.
            tokio::task::yield_now().await;
        }
    }

    /// Two connections send long messages, which take 5 ms each: half of the time is left.
    #[actix_rt::test]
    async fn long_messages_take_half_of_the_time() {
        let pace: Arc<Pace> = Arc::default();
        let (one, two) = (pace.open(Owner::Principal(1)), pace.open(Owner::Principal(1)));
        let began = Instant::now();
        let each = Duration::from_millis(5);
        futures_util::future::join(take(paced(LONG, one), 10, each), take(paced(LONG, two), 10, each)).await;
        // But for the pauses behind the last ones.
        assert!(began.elapsed() >= Duration::from_millis(2 * 2 * 9 * 5 - 20), "{:?}", began.elapsed());
    }

    #[actix_rt::test]
    async fn short_messages_of_one_owner_do_not_wait() {
        let pace: Arc<Pace> = Arc::default();
        let mut stream = paced(LONG - 1, pace.open(Owner::Principal(1)));
        for _ in 0..100 {
            let next = futures_util::future::poll_immediate(stream.next()).await;
            assert!(next.is_some());
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Many connections of one owner take as much of the time as the one of another, which waits for little.
    #[actix_rt::test]
    async fn owners_share_the_time_whatever_connections_they_have() {
        let pace: Arc<Pace> = Arc::default();
        let each = Duration::from_micros(300);
        let many = futures_util::future::join_all((0..50).map(|_| {
            let stream = paced(100, pace.open(Owner::Principal(1)));
            take(stream, u32::MAX, each)
        }));
        let single = async {
            let mut stream = paced(100, pace.open(Owner::Address([127, 0, 0, 1].into())));
            stream.paces.move_to(Owner::Principal(2));
            let mut waited = Vec::new();
            for _ in 0..100 {
                let asked = Instant::now();
                stream.next().await;
                std::thread::sleep(each);
                waited.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            waited.sort_unstable();
            waited[90]
        };
        let waited = tokio::select! {
            waited = single => waited,
            _ = many => panic!("they have no end"),
        };
        assert!(waited < Duration::from_millis(20), "{waited:?}");
        let of = |number| pace.enter(Owner::Principal(number)).last.load(Ordering::Relaxed);
        assert!(of(1) > 0 && of(2) > 0);
    }
}
