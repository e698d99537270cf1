//! What the nodes say of a run: the difference of their states before and after it.

use futures_util::future::join_all;
use rabia_bank_messages::bank::{Query, ReadLevel, Status, Success};
use rabia_bank_messages::stages::{Stage, Stages};
use serde::Serialize;

use super::load::Load;
use crate::client::{Client, ClientOptions, NodeUrl};

/// What one node used while it was measured.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub(super) struct NodeFigures {
    pub node: u8,
    /// Cores that its process kept busy.
    pub cpu_cores: f64,
    /// The most memory that its process ever had, in MiB.
    pub peak_memory_mib: f64,
    /// Syncs of its disk.
    pub syncs: u64,
    /// Bytes that it sent to its disk.
    pub written_bytes: u64,
}

/// How long a stage took, over all nodes.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub(super) struct StageFigures {
    pub stage: &'static str,
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What the nodes say, all of them together. Absent is what no node could say for the whole time.
#[derive(Serialize, Clone, PartialEq, Debug, Default)]
pub(super) struct ClusterFigures {
    /// Slots without a batch, of all that were decided while it measured.
    pub forfeited_share: Option<f64>,
    /// Phases that a slot took, on average.
    pub phases_per_slot: Option<f64>,
    /// Slots that were decided, with a batch or without.
    pub slots: Option<u64>,
    /// By node. A node that was not there all the time is missing.
    pub nodes: Vec<NodeFigures>,
    /// In the order of a request's way.
    pub stages: Vec<StageFigures>,
}

/// The states of the nodes; none of a node that does not answer.
pub(super) struct States(Vec<Option<Box<Status>>>);

/// The states of all nodes that answer.
pub(super) async fn ask(urls: &[NodeUrl], load: &Load) -> States {
    let ask = |url: &NodeUrl| {
        let (token, tls) = (load.token.clone(), load.tls.clone());
        let client = Client::connect(ClientOptions { token, tls, ..ClientOptions::new(vec![url.clone()]) });
        async move {
            let status = client.query(Query::GetStatus {}, ReadLevel::Local).await;
            client.close().await;
            match status.ok()?.success {
                Success::Status { status } => Some(status),
                _ => None,
            }
        }
    };
    States(join_all(urls.iter().map(ask)).await)
}

/// Whether a node that was asked twice, so many seconds apart, was not started in between. It says for how long it has run
/// in whole seconds, and one that was started a moment ago has done less than before.
fn is_same_run(before: &Status, after: &Status, seconds: f64) -> bool {
    let ran_on = after.uptime_s as f64 + 1.0 >= before.uptime_s as f64 + seconds;
    let did_more = |done: fn(&Status) -> u64| done(before) <= done(after);
    ran_on && did_more(|s| s.commits) && did_more(|s| s.process.cpu_ms) && did_more(|s| s.phases.iter().sum())
}

impl States {
    /// What happened between `before` and now, `seconds` later. A node that was started meanwhile is left out.
    pub(super) fn since(&self, before: &States, seconds: f64) -> ClusterFigures {
        let pairs = before.0.iter().zip(&self.0).filter_map(|(before, after)| before.as_ref().zip(after.as_ref()));
        let pairs: Vec<_> = pairs.filter(|(before, after)| is_same_run(before, after, seconds)).collect();
        let Some((first, last)) = pairs.first() else { return ClusterFigures::default() };
        let null = last.null_slots - first.null_slots;
        let slots = last.decided_slots - first.decided_slots + null;
        let phases: [u64; 4] = std::array::from_fn(|i| pairs.iter().map(|(b, a)| a.phases[i] - b.phases[i]).sum());
        let decisions: u64 = phases.iter().sum();
        let weighted: u64 = (1..).zip(phases).map(|(phase, count)| phase * count).sum();
        ClusterFigures {
            forfeited_share: Some(if slots == 0 { 0.0 } else { null as f64 / slots as f64 }),
            phases_per_slot: (decisions > 0).then(|| weighted as f64 / decisions as f64),
            slots: Some(slots),
            nodes: pairs.iter().map(|(before, after)| node_figures(before, after, seconds)).collect(),
            stages: stage_figures(pairs.iter().map(|(before, after)| (&before.stages, &after.stages))),
        }
    }
}

fn node_figures(before: &Status, after: &Status, seconds: f64) -> NodeFigures {
    NodeFigures {
        node: after.node.get(),
        cpu_cores: (after.process.cpu_ms - before.process.cpu_ms) as f64 / 1_000.0 / seconds,
        peak_memory_mib: after.process.peak_memory_bytes as f64 / f64::from(1 << 20),
        syncs: after.commits - before.commits,
        written_bytes: after.process.written_bytes - before.process.written_bytes,
    }
}

fn stage_figures<'a>(pairs: impl Iterator<Item = (&'a Stages, &'a Stages)>) -> Vec<StageFigures> {
    let mut sums = Stages::new();
    for (before, after) in pairs {
        for (stage, durations) in after {
            let since = before.get(stage).map_or_else(|| durations.clone(), |before| durations.since(before));
            sums.entry(*stage).or_default().add(&since);
        }
    }
    let figures = |stage: Stage| {
        let durations = sums.get(&stage)?;
        let ms = |q| durations.quantile_us(q).map(|us| us / 1_000.0);
        Some(StageFigures { stage: stage.name(), count: durations.count(), p50_ms: ms(0.5)?, p99_ms: ms(0.99)? })
    };
    Stage::ALL.into_iter().filter_map(figures).collect()
}
