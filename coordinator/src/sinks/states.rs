//! Which sinks fail, and why: for `ls`, `explain` and the log. In memory alone; a start begins with a clean slate.

use crate::error::Problem;
use spotsweep_engine::SweepId;
use spotsweep_proto::spec::sinks::Sink;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Longest reason that is kept, in characters.
const REASON_CHARS: usize = 500;

/// The sinks that fail. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SinkStates(Arc<Mutex<BTreeMap<(SweepId, usize), String>>>);

impl SinkStates {
    /// It takes what it is given.
    pub(super) fn works(&self, key: (SweepId, usize)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// It does not, and that was so often in a row.
    pub(super) fn fails(&self, key: (SweepId, usize), sink: &Sink, failures: u32, problem: &Problem) {
        let reason: String = problem.message.chars().take(REASON_CHARS).collect();
        let times = if failures == 1 { String::new() } else { format!(", {failures} times in a row") };
        let words = format!("the sink {sink} fails{times}, and is tried again: {reason}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, words);
    }

    /// What is wrong with the sinks of a sweep, in words.
    #[must_use]
    pub fn problems(&self, sweep: SweepId) -> Vec<String> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.range((sweep, 0)..=(sweep, usize::MAX)).map(|(_, words)| words.clone()).collect()
    }
}
