//! What the log says of a node's links: a quorum that is lost or back, and peers that have been gone for long.

use std::time::{Duration, Instant};

use rabia_bank_actors::handle::NodeHandle;
use rabia_bank_messages::genesis::Genesis;
use rabia_bank_messages::ids::NodeId;
use tracing::{info, warn};

/// How often links are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A quorum that is missing for less is not worth a line: links break and come back.
const PATIENCE: Duration = Duration::from_secs(2);
/// A node that starts may take so long to meet the others.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// A peer that has been gone for so long is told; then after twice as long, and so on …
const GONE: Duration = Duration::from_secs(60);
/// … up to once in so long.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Something worth a line.
#[derive(Clone, PartialEq, Eq, Debug)]
enum News {
    /// Fewer than a quorum are here, this node included.
    QuorumLost { here: usize },
    /// A quorum is here again, or for the first time.
    QuorumBack { after: Duration },
    /// A peer has no link.
    Gone { peer: NodeId, since: Duration },
    /// A peer that was told to be gone is here.
    Back { peer: NodeId, after: Duration },
}

/// A peer without a link.
struct Absent {
    since: Instant,
    tell_at: Instant,
    told: bool,
}

/// What is known of the links.
struct Watch {
    quorum: usize,
    began: Instant,
    /// Since when a quorum is missing, and whether that was told.
    missing: Option<(Instant, bool)>,
    had_quorum: bool,
    peers: Vec<(NodeId, Option<Absent>)>,
}

impl Watch {
    fn new(genesis: &Genesis, me: NodeId, now: Instant) -> Watch {
        let peers = genesis.nodes().filter(|node| *node != me).map(|peer| (peer, None)).collect();
        Watch { quorum: genesis.quorums().quorum(), began: now, missing: None, had_quorum: false, peers }
    }

    /// Takes note of which peers have a link.
    fn look(&mut self, now: Instant, is_here: impl Fn(NodeId) -> bool) -> Vec<News> {
        let mut news = Vec::new();
        let here = 1 + self.peers.iter().filter(|(peer, _)| is_here(*peer)).count();
        self.look_at_quorum(now, here, &mut news);
        for (peer, absent) in &mut self.peers {
            look_at_peer(*peer, absent, is_here(*peer), now, &mut news);
        }
        news
    }

    fn look_at_quorum(&mut self, now: Instant, here: usize, news: &mut Vec<News>) {
        if here >= self.quorum {
            if let Some((since, true)) = self.missing.take() {
                news.push(News::QuorumBack { after: now - since });
            }
            self.had_quorum = true;
            return;
        }
        let patience = if self.had_quorum { PATIENCE } else { FIRST_PATIENCE };
        let first = if self.had_quorum { now } else { self.began };
        let (since, told) = self.missing.get_or_insert((first, false));
        if !*told && now - *since >= patience {
            *told = true;
            news.push(News::QuorumLost { here });
        }
    }
}

fn look_at_peer(peer: NodeId, absent: &mut Option<Absent>, is_here: bool, now: Instant, news: &mut Vec<News>) {
    if is_here {
        if let Some(Absent { since, told: true, .. }) = absent.take() {
            news.push(News::Back { peer, after: now - since });
        }
        return;
    }
    let absent = absent.get_or_insert(Absent { since: now, tell_at: now + GONE, told: false });
    if now >= absent.tell_at {
        let since = now - absent.since;
        absent.told = true;
        absent.tell_at = now + since.min(LONGEST);
        news.push(News::Gone { peer, since });
    }
}

/// Watches the links of a node, for ever.
pub(super) async fn links(handle: NodeHandle, genesis: Genesis, me: NodeId) {
    let mut watch = Watch::new(&genesis, me, Instant::now());
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for news in watch.look(Instant::now(), |peer| handle.is_connected(peer)) {
            tell(&news, watch.quorum);
        }
        handle.note_quorum(watch.missing.map(|(since, _)| since));
    }
}

fn tell(news: &News, quorum: usize) {
    let seconds = |time: &Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    match news {
        News::QuorumLost { here } => warn!(
            here,
            needed = quorum,
            "no quorum: too few nodes are here to decide anything; commands and linearizable reads wait until more are"
        ),
        News::QuorumBack { after } => info!(after = seconds(after), "a quorum is here again"),
        News::Gone { peer, since } => {
            warn!(%peer, since = seconds(since), "a peer has been gone for long: does it run, can it be reached?");
        }
        News::Back { peer, after } => info!(%peer, after = seconds(after), "a peer that was gone is here again"),
    }
}

#[cfg(test)]
mod tests {
    use rabia_bank_messages::ids::{ClusterId, StoreId};

    use super::*;

    /// Looks every second from `from` on, and hands out what is told when.
    fn told(watch: &mut Watch, begin: Instant, seconds: std::ops::Range<u64>, here: &[u8]) -> Vec<(u64, News)> {
        let mut all = Vec::new();
        for second in seconds {
            let now = begin + Duration::from_secs(second);
            all.extend(watch.look(now, |peer| here.contains(&peer.get())).into_iter().map(|news| (second, news)));
        }
        all
    }

    fn watch(begin: Instant) -> Watch {
        let genesis = Genesis::new(ClusterId([1; 16]), (1..=3).map(|n| StoreId([n; 16])).collect());
        Watch::new(&genesis, NodeId::new(1).unwrap(), begin)
    }

    #[test]
    fn a_quorum_is_told_once_when_it_is_lost_and_once_when_it_is_back() {
        let begin = Instant::now();
        let mut watch = watch(begin);
        assert_eq!(told(&mut watch, begin, 0..3, &[]), [], "a start takes a moment");
        assert_eq!(told(&mut watch, begin, 3..5, &[2, 3]), []);
        assert_eq!(told(&mut watch, begin, 5..6, &[]), [], "a link that comes back at once");
        assert_eq!(told(&mut watch, begin, 6..10, &[2]), []);
        assert_eq!(told(&mut watch, begin, 10..40, &[]), [(12, News::QuorumLost { here: 1 })]);
        let back = News::QuorumBack { after: Duration::from_secs(30) };
        assert_eq!(told(&mut watch, begin, 40..42, &[3]), [(40, back)]);
    }

    #[test]
    fn a_node_that_never_meets_the_others_says_so() {
        let begin = Instant::now();
        let lost = News::QuorumLost { here: 1 };
        assert_eq!(told(&mut watch(begin), begin, 0..30, &[]), [(10, lost)]);
    }

    #[test]
    fn a_peer_that_stays_away_is_told_ever_more_rarely() {
        let begin = Instant::now();
        let mut watch = watch(begin);
        let lines = told(&mut watch, begin, 0..20_000, &[2]);
        let at: Vec<u64> = lines.iter().map(|(second, _)| *second).collect();
        assert_eq!(at, [60, 120, 240, 480, 960, 1_920, 3_840, 7_440, 11_040, 14_640, 18_240]);
        let peer = NodeId::new(3).unwrap();
        assert_eq!(lines[2].1, News::Gone { peer, since: Duration::from_secs(240) });
        let back = News::Back { peer, after: Duration::from_secs(20_000) };
        assert_eq!(told(&mut watch, begin, 20_000..20_002, &[2, 3]), [(20_000, back)]);
    }
}
