//! How many leases a device should hold: one, unless its jobs are so short that asking for each would cost more
//! than doing it.

use spotsweep_proto::limits::CREDITS_PER_DEVICE;
use std::time::Duration;

/// Jobs that take longer than this are asked for one at a time.
const SHORT_JOB_S: f64 = 0.05;
/// Of short jobs, so much work is held.
const AHEAD_S: f64 = 0.1;
/// Weight of the newest duration in the average.
const WEIGHT: f64 = 0.25;
/// The number of leases held grows at most by this factor each time all of them were short, so that one quick
/// job among long ones does not draw hundreds of leases to one device.
const GROWTH: u32 = 4;

/// Observed durations of a device's jobs, and what follows from them.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    average_s: Option<f64>,
    /// Leases to hold, the running one included.
    target: u32,
    /// Short jobs since `target` last changed.
    since_change: u32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { average_s: None, target: 1, since_change: 0 }
    }

    /// Leases to hold, the running one included; from 1 to [`CREDITS_PER_DEVICE`].
    pub(crate) fn target(&self) -> u32 {
        self.target
    }

    /// A job finished after `duration`.
    pub(crate) fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let average = self.average_s.map_or(seconds, |average| average + WEIGHT * (seconds - average));
        self.average_s = Some(average);
        if average >= SHORT_JOB_S {
            self.target = 1;
            self.since_change = 0;
            return;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at least 2 and clamped; saturates by definition of `as`"
        )]
        let wanted = ((AHEAD_S / average).ceil() as u32).min(CREDITS_PER_DEVICE);
        self.since_change += 1;
        if wanted < self.target || self.since_change >= self.target {
            self.target = wanted.min(self.target.saturating_mul(GROWTH));
            self.since_change = 0;
        }
    }

    /// A job turned out long: hold no more than it.
    pub(crate) fn slow_down(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_jobs_are_asked_for_one_at_a_time() {
        let mut pace = Pace::new();
        for _ in 0..100 {
            pace.observe(Duration::from_secs(3));
            assert_eq!(pace.target(), 1);
        }
    }

    #[test]
    fn short_jobs_are_held_for_a_tenth_of_a_second_and_never_beyond_the_limit() {
        let mut pace = Pace::new();
        for _ in 0..200 {
            pace.observe(Duration::from_millis(10));
        }
        assert_eq!(pace.target(), 10);
        for _ in 0..2000 {
            pace.observe(Duration::from_nanos(500));
        }
        assert_eq!(pace.target(), CREDITS_PER_DEVICE);
        pace.observe(Duration::from_secs(60));
        assert_eq!(pace.target(), 1);
    }

    #[test]
    fn one_quick_job_does_not_draw_hundreds_of_leases() {
        let mut pace = Pace::new();
        pace.observe(Duration::from_micros(1));
        assert_eq!(pace.target(), GROWTH);
    }
}
