//! Waiting for something to become true, with a deadline that only a hang ever reaches.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

/// Far more than anything takes on a busy machine: who gets here hangs.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// How often a condition of another process is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `condition` gives something.
///
/// # Panics
/// After [`DEADLINE`], with `what` was waited for.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for: {what}");
        pause(PAUSE);
    }
}

/// Lets time pass where time itself is the matter: between two moments of a schedule of disasters.
pub fn pause(duration: Duration) {
    let (_open, never) = mpsc::channel::<()>();
    let _timeout = never.recv_timeout(duration);
}
