//! Waiting longer after every failure, with full jitter.

use std::time::Duration;

/// Exponential back-off: the wait before try `n` is drawn evenly from zero to `base × 2ⁿ`, at most `limit`
/// (full jitter; Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). Many agents that lost
/// one coordinator so come back spread out.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(base: Duration, limit: Duration) -> Self {
        Self { base, limit, failures: 0 }
    }

    /// The wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(fraction())
    }

    /// It worked: the next wait is short again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.limit)
    }
}

/// A number in [0, 1). Without a source of randomness it is 0.5, which costs the jitter and nothing else.
fn fraction() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / 4_294_967_296.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_success() {
        let (base, limit) = (Duration::from_millis(50), Duration::from_secs(5));
        let mut backoff = Backoff::new(base, limit);
        let mut ceilings = Vec::new();
        for _ in 0..10 {
            let ceiling = backoff.ceiling();
            ceilings.push(ceiling.as_millis());
            assert!(backoff.next() <= ceiling);
        }
        assert_eq!(ceilings, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.ceiling(), base);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.ceiling(), limit);
    }
}
