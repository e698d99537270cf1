//! The story of a run, slot by slot. It is kept beside the run, so that it can be told also where an assertion ends that.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use rabia_bank_messages::ids::Slot;

/// What happened, in order.
#[derive(Debug)]
pub(super) struct Trace {
    on: bool,
}

type Line = (Option<Slot>, Duration, String);

thread_local! {
    /// The lines of the run on this thread.
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

impl Trace {
    pub(super) fn new(on: bool) -> Trace {
        LINES.take();
        Trace { on }
    }

    /// Notes something, about a slot or about the world.
    pub(super) fn note(&mut self, now: Duration, slot: Option<Slot>, what: impl FnOnce() -> String) {
        if self.on {
            let line = (slot, now, what());
            LINES.with_borrow_mut(|lines| lines.push(line));
        }
    }

    /// The lines of the last run on this thread, those about one slot together, where the slot began; those about the world
    /// between them.
    pub(super) fn take() -> Vec<String> {
        let lines = LINES.take();
        let mut began: BTreeMap<Slot, usize> = BTreeMap::new();
        for (index, (slot, ..)) in lines.iter().enumerate() {
            if let Some(slot) = slot {
                began.entry(*slot).or_insert(index);
            }
        }
        let mut order: Vec<(usize, usize)> =
            (0..lines.len()).map(|index| (lines[index].0.map_or(index, |slot| began[&slot]), index)).collect();
        order.sort_unstable();
        let mut out = Vec::new();
        let mut section = None;
        for (_, index) in order {
            let (slot, at, what) = &lines[index];
            if *slot != section {
                section = *slot;
                out.extend(slot.map(|slot| format!("slot {slot}")));
            }
            let indent = if slot.is_some() { "    " } else { "" };
            out.push(format!("{indent}{:10.3} ms  {what}", at.as_secs_f64() * 1e3));
        }
        out
    }
}
