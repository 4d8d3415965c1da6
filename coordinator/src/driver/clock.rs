//! The machine's clock, kept from going backwards.

use spotsweep_engine::Time;
use std::time::SystemTime;

/// Gives times that never go backwards, across restarts too, whatever the machine's clock does.
#[derive(Debug)]
pub(crate) struct Clock {
    last: Time,
}

impl Clock {
    /// Never earlier than `last`.
    pub(crate) fn after(last: Time) -> Self {
        Self { last }
    }

    /// Now, or the last time given if the machine's clock is behind it.
    pub(crate) fn now(&mut self) -> Time {
        self.last = self.last.max(machine_time());
        self.last
    }

    /// The last time given.
    pub(crate) fn last(&self) -> Time {
        self.last
    }
}

/// The machine's clock as it is, in microseconds since 1970. It may jump and go back: for people, and for the driver's own
/// clock, which does not.
#[must_use]
pub fn machine_time_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn machine_time() -> Time {
    Time(machine_time_us())
}
