//! When a checkpoint is worth its cost: the interval of `checkpoint: {every: auto}`. Pure.

use spotsweep_proto::spec::{CheckpointPolicy, Every};
use std::time::Duration;
use tokio::time::Instant;

/// Storing a checkpoint goes on beside training and costs it next to nothing, but takes the network: a checkpoint is
/// followed by another no sooner than after so many times what storing it took.
const STORING_SHARE: f64 = 4.0;

/// The interval between checkpoints that loses least time, in seconds: √(2·C·M), where C is what a checkpoint costs and
/// M the mean time between interruptions (Young, "A first order approximation to the optimum checkpoint interval",
/// CACM 17(9), 1974; the first order of Daly, "A higher order estimate of the optimum checkpoint interval", FGCS 22(3),
/// 2006), kept within `min_s` and `max_s`.
fn optimum_s(cost_s: f64, mean_s: f64, min_s: f64, max_s: f64) -> f64 {
    // Not `clamp`, which bounds that cross would make panic.
    (2.0 * cost_s * mean_s).sqrt().max(min_s).min(max_s)
}

/// What the trainer is told: it keeps to the longest interval by itself and writes others when it is asked.
pub(crate) fn for_trainer(policy: CheckpointPolicy) -> CheckpointPolicy {
    let every = match policy.every {
        fixed @ (Every::Steps(_) | Every::Seconds(_)) => fixed,
        Every::Auto { min_s: _, max_s } => Every::Seconds(max_s),
    };
    CheckpointPolicy { every, ..policy }
}

/// The interval of one job.
#[derive(Debug)]
pub(crate) struct Interval {
    min_s: f64,
    max_s: f64,
    /// Mean time between interruptions.
    mean_s: f64,
    /// Since the last checkpoint, or the start.
    since: Instant,
    /// The trainer was asked for one then, and has not handed it over.
    asked: Option<Instant>,
    /// What a checkpoint costs: for so long training stood still for it, as last measured. Where the trainer does not say,
    /// the time from asking to having its files, which is no less.
    cost: Option<Duration>,
    /// Storing it, as last measured.
    stored: Duration,
}

impl Interval {
    /// That of a policy, if it leaves the interval open.
    pub(crate) fn new(policy: CheckpointPolicy, mean_s: f64, now: Instant) -> Option<Self> {
        match policy.every {
            Every::Steps(_) | Every::Seconds(_) => None,
            Every::Auto { min_s, max_s } => {
                let (asked, cost, stored) = (None, None, Duration::ZERO);
                Some(Self { min_s, max_s, mean_s, since: now, asked, cost, stored })
            }
        }
    }

    /// When the next one is due; `None` while one is awaited. The first comes early, to learn what it costs.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.asked.is_some() {
            return None;
        }
        let wait_s = match self.cost {
            None => self.min_s,
            Some(cost) => {
                let busy_s = self.stored.as_secs_f64() * STORING_SHARE;
                optimum_s(cost.as_secs_f64(), self.mean_s, self.min_s, self.max_s).max(busy_s.min(self.max_s))
            }
        };
        self.since.checked_add(Duration::try_from_secs_f64(wait_s).ok()?)
    }

    /// The job began.
    pub(crate) fn start(&mut self, now: Instant) {
        self.since = now;
    }

    /// The trainer was asked for a checkpoint.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// The trainer handed one over, for which training stood still so long, if it says so.
    pub(crate) fn write(&mut self, now: Instant, held_up: Option<Duration>) {
        self.since = now;
        let waited = self.asked.take().map(|asked| now.saturating_duration_since(asked));
        self.cost = held_up.or(waited).or(self.cost);
    }

    /// Storing one took so long.
    pub(crate) fn store(&mut self, took: Duration) {
        self.stored = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_checkpoint_of_2_s_among_losses_every_hour_is_written_every_2_minutes() {
        assert_eq!(optimum_s(2.0, 3600.0, 5.0, 600.0), 120.0);
    }

    proptest! {
        #[test]
        fn the_interval_keeps_its_bounds_and_grows_with_cost_and_with_time_between_losses(
            cost_s in 0.0..1e5, mean_s in 0.0..1e9, more in 1.0..100.0,
            min_s in 0.1..1e4, span_s in 0.0..1e5,
        ) {
            let interval = |cost_s, mean_s| optimum_s(cost_s, mean_s, min_s, min_s + span_s);
            let one = interval(cost_s, mean_s);
            prop_assert!((min_s..=min_s + span_s).contains(&one));
            prop_assert!(interval(cost_s * more, mean_s) >= one);
            prop_assert!(interval(cost_s, mean_s * more) >= one);
        }

        #[test]
        fn no_number_makes_it_leave_its_bounds(cost_s in any::<f64>(), mean_s in any::<f64>()) {
            prop_assert!((5.0..=600.0).contains(&optimum_s(cost_s, mean_s, 5.0, 600.0)));
        }
    }

    #[test]
    fn the_first_comes_early_and_its_cost_and_the_time_of_storing_it_set_the_next() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let policy = CheckpointPolicy { every: Every::Auto { min_s: 5.0, max_s: 600.0 }, keep_last: 1 };
        let mut interval = Interval::new(policy, 3600.0, start).unwrap();
        interval.start(at(10));
        assert_eq!(interval.due(), Some(at(15)));
        interval.ask(at(15));
        assert_eq!(interval.due(), None, "one at a time");
        interval.write(at(17), None);
        assert_eq!(interval.due(), Some(at(17 + 120)));
        interval.store(Duration::from_secs(50));
        assert_eq!(interval.due(), Some(at(17 + 200)), "storing takes a quarter of the time at most");
        interval.store(Duration::from_secs(1));
        assert_eq!(interval.due(), Some(at(17 + 120)));
        interval.write(at(137), Some(Duration::from_millis(500)));
        assert_eq!(interval.due(), Some(at(137 + 60)), "what the trainer says of its cost counts");
        assert_eq!(for_trainer(policy).every, Every::Seconds(600.0));
        let fixed = CheckpointPolicy { every: Every::Steps(3), keep_last: 1 };
        assert!(Interval::new(fixed, 3600.0, start).is_none() && for_trainer(fixed) == fixed);
    }
}
