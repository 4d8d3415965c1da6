//! Time as the engine knows it: a number that comes in on events.

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch. The driver never lets it go backwards within one journal, whatever the
/// machine's clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This much later; saturates.
    #[must_use]
    pub fn after_s(self, seconds: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped; saturates by definition of `as`"
        )]
        let micros = (seconds.max(0.0) * 1e6) as u64;
        Self(self.0.saturating_add(micros))
    }

    /// Seconds from `earlier` to this; 0 if it is not earlier.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "microseconds of a century fit f64 to the microsecond"
        )]
        let micros = self.0.saturating_sub(earlier.0) as f64;
        micros / 1e6
    }
}
