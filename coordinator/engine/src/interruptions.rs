//! How often leases are lost without notice: what the interval of checkpoints follows from. No decisions.

use crate::action::AttemptEnd;
use serde::{Deserialize, Serialize};

/// What one loss in so many seconds counts for before anything was observed. Public traces of spot markets show 2 to
/// 8 losses a day a node; this is the 8, since a checkpoint too many costs less than one too few.
const PRIOR_S: f64 = 86_400.0 / 8.0;

/// What was observed of all workers together.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Interruptions {
    /// Attempts that ended without notice.
    count: u64,
    /// Seconds of all attempts that ended, however they did.
    leased_s: f64,
}

impl Interruptions {
    /// An attempt of so many seconds ended.
    pub(crate) fn note(&mut self, end: &AttemptEnd, leased_s: f64) {
        self.leased_s += leased_s.max(0.0);
        self.count += u64::from(is_without_notice(end));
    }

    /// Mean time between losses of one lease, in seconds: the mean under a gamma prior of one loss in [`PRIOR_S`].
    pub(crate) fn mean_s(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let count = self.count as f64;
        (PRIOR_S + self.leased_s) / (1.0 + count)
    }
}

fn is_without_notice(end: &AttemptEnd) -> bool {
    match end {
        AttemptEnd::WorkerGone | AttemptEnd::Disconnected | AttemptEnd::Expired => true,
        AttemptEnd::Finished
        | AttemptEnd::Failed { .. }
        | AttemptEnd::Released
        | AttemptEnd::Revoked { .. }
        | AttemptEnd::Noticed { .. }
        | AttemptEnd::Unreadable { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_starts_at_the_prior_and_follows_what_is_observed() {
        let mut seen = Interruptions::default();
        assert_eq!(seen.mean_s(), PRIOR_S);
        seen.note(&AttemptEnd::Finished, 5400.0);
        assert_eq!(seen.mean_s(), PRIOR_S + 5400.0);
        for _ in 0..1000 {
            seen.note(&AttemptEnd::Disconnected, 60.0);
        }
        assert!((60.0..80.0).contains(&seen.mean_s()), "{}", seen.mean_s());
    }
}
