//! Many seeds on several threads. What comes out does not depend on how many there are: the runs come in the order of
//! their seeds, and end with the first that fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::panic::PanicHookInfo;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{Run, panicked};

/// A seed, and its run.
type Ran = (u64, Run);

/// The runs of many seeds, in the order of the seeds, up to the first with a violation.
#[derive(Debug)]
pub struct Jobs {
    next: u64,
    results: Receiver<Ran>,
    /// Runs that were ready before one of a lower seed.
    early: BTreeMap<u64, Run>,
    failed: bool,
}

impl Jobs {
    /// Begins to run these seeds on so many threads.
    ///
    /// # Errors
    /// If no threads can be had.
    pub fn start(
        seeds: Range<u64>,
        threads: usize,
        run: impl Fn(u64) -> Run + Clone + Send + 'static,
    ) -> io::Result<Jobs> {
        let (sender, results) = mpsc::channel();
        let next = seeds.start;
        let seeds = Arc::new(Mutex::new(seeds));
        for _ in 0..threads {
            let (seeds, sender, run) = (seeds.clone(), sender.clone(), run.clone());
            thread::Builder::new().name("simulate".into()).spawn(move || work(&seeds, &sender, run))?;
        }
        Ok(Jobs { next, results, early: BTreeMap::new(), failed: false })
    }
}

impl Iterator for Jobs {
    type Item = Ran;

    fn next(&mut self) -> Option<Ran> {
        if self.failed {
            return None;
        }
        let run = loop {
            if let Some(run) = self.early.remove(&self.next) {
                break run;
            }
            // An error if all threads have ended.
            let (seed, run) = self.results.recv().ok()?;
            self.early.insert(seed, run);
        };
        let seed = self.next;
        self.next += 1;
        self.failed = run.violation.is_some();
        Some((seed, run))
    }
}

thread_local! {
    /// The seed that this thread runs, and where the result goes.
    static RUNNING: RefCell<Option<(u64, Sender<Ran>)>> = const { RefCell::new(None) };
}

/// Takes one seed after the other, until none is left or nobody wants to know.
fn work(seeds: &Mutex<Range<u64>>, results: &Sender<Ran>, run: impl Fn(u64) -> Run) {
    loop {
        let Some(seed) = seeds.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
        RUNNING.set(Some((seed, results.clone())));
        let run = run(seed);
        RUNNING.take();
        if results.send((seed, run)).is_err() {
            return;
        }
    }
}

/// From now on a panic in a run says which seed it was. Where panics abort, the run is the violation that it would be
/// elsewhere, and its thread stands still for the rest of the program, which can then end as it does otherwise.
pub fn name_seeds_of_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match RUNNING.take() {
        Some((seed, results)) => {
            eprintln!("seed {seed}: {panic}");
            if cfg!(panic = "abort") {
                end_run(seed, &results, panic);
            }
        }
        None => before(panic),
    }));
}

fn end_run(seed: u64, results: &Sender<Ran>, panic: &PanicHookInfo<'_>) -> ! {
    // Where nobody waits for it any more, a run of a lower seed has failed.
    let _ = results.send((seed, panicked(panic.payload())));
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Report, Violation};
    use super::*;

    /// Seeds below 20 pass, the lower ones later than the others; from 20 on all fail, 20 last.
    fn run(seed: u64) -> Run {
        thread::sleep(Duration::from_millis(if seed == 20 || seed.is_multiple_of(3) { 20 } else { 0 }));
        let violation = (seed >= 20).then(|| Violation { property: "test", what: format!("seed {seed}") });
        Run { report: Report { slots: seed, ..Report::default() }, violation, trace: Vec::new() }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_runs() {
        let expected: Vec<(u64, Run)> = (5..=20).map(|seed| (seed, run(seed))).collect();
        for threads in [1, 2, 7] {
            let runs: Vec<(u64, Run)> = Jobs::start(5..100, threads, run).unwrap().collect();
            assert_eq!(runs, expected, "{threads} threads");
        }
    }

    #[test]
    fn all_seeds_are_run_where_none_fails() {
        let seeds = Jobs::start(5..20, 3, run).unwrap().map(|(seed, _)| seed);
        assert_eq!(seeds.collect::<Vec<u64>>(), (5..20).collect::<Vec<u64>>());
    }
}
