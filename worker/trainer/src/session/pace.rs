//! How fast a rank computes, and when it is worth telling. Pure: times come in.

use std::{num::NonZeroU64, time::Duration};

/// Least number of steps over which the pace is taken.
const STEPS: u32 = 20;
/// Least time over which it is taken: shorter ones tell more of the machine's other work than of the machine.
const MEASURED: Duration = Duration::from_secs(2);
/// A pace is told again when it differs from the last by this part of it.
const TOLD_AGAIN: f64 = 0.2;

/// The pace of one rank in one make-up.
#[derive(Debug, Default)]
pub(super) struct Pace {
    computed: Duration,
    steps: u32,
    told_us: Option<NonZeroU64>,
}

impl Pace {
    /// A step of `shards` shards took `computed`, exchanges left out. Gives microseconds a shard, if that is news.
    pub(super) fn note(&mut self, computed: Duration, shards: usize) -> Option<NonZeroU64> {
        self.computed += computed;
        self.steps += 1;
        if self.steps < STEPS || self.computed < MEASURED {
            return None;
        }
        let shards = self.steps.saturating_mul(u32::try_from(shards).unwrap_or(u32::MAX)).max(1);
        let us = u64::try_from((self.computed / shards).as_micros()).unwrap_or(u64::MAX);
        (self.computed, self.steps) = (Duration::ZERO, 0);
        let now = NonZeroU64::new(us.max(1))?;
        let is_news = self
            .told_us
            .is_none_or(|told| (now.get() as f64 - told.get() as f64).abs() > TOLD_AGAIN * told.get() as f64);
        is_news.then(|| *self.told_us.insert(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_told_once_it_is_measured_and_again_when_it_changes() {
        let mut pace = Pace::default();
        let mut told = Vec::new();
        // 50 ms a shard, then 55, then 100.
        for (shard_ms, steps) in [(50, 200), (55, 200), (100, 200)] {
            let step = |_| pace.note(Duration::from_millis(shard_ms * 4), 4);
            told.push((0..steps).filter_map(step).map(NonZeroU64::get).collect::<Vec<_>>());
        }
        assert_eq!(told, [vec![50_000], vec![], vec![100_000]]);
    }

    #[test]
    fn short_steps_are_measured_over_two_seconds() {
        let mut pace = Pace::default();
        let first = (1..10_000).find(|_| pace.note(Duration::from_millis(1), 1).is_some());
        assert_eq!(first, Some(2000));
    }
}
