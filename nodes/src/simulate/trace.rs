//! The story of a run, slot by slot.

use std::collections::BTreeMap;
use std::time::Duration;

use rabia_bank_messages::ids::Slot;

/// What happened, in order.
#[derive(Debug, Default)]
pub(super) struct Trace {
    on: bool,
    lines: Vec<(Option<Slot>, Duration, String)>,
}

impl Trace {
    pub(super) fn new(on: bool) -> Trace {
        Trace { on, lines: Vec::new() }
    }

    /// Notes something, about a slot or about the world.
    pub(super) fn note(&mut self, now: Duration, slot: Option<Slot>, what: impl FnOnce() -> String) {
        if self.on {
            self.lines.push((slot, now, what()));
        }
    }

    /// The lines, those about one slot together, where the slot began; those about the world between them.
    pub(super) fn into_lines(self) -> Vec<String> {
        let mut began: BTreeMap<Slot, usize> = BTreeMap::new();
        for (index, (slot, ..)) in self.lines.iter().enumerate() {
            if let Some(slot) = slot {
                began.entry(*slot).or_insert(index);
            }
        }
        let mut order: Vec<(usize, usize)> = (0..self.lines.len())
            .map(|index| (self.lines[index].0.map_or(index, |slot| began[&slot]), index))
            .collect();
        order.sort_unstable();
        let mut out = Vec::new();
        let mut section = None;
        for (_, index) in order {
            let (slot, at, what) = &self.lines[index];
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
