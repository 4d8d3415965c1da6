//! How fast checkpoints went to the object store, and how long another will surely take. Pure.

use std::{collections::VecDeque, time::Duration};

/// Uploads that are remembered, the newest: a network is not what it was an hour ago.
const REMEMBERED: usize = 8;
/// An upload surely takes at most this times what the slowest of the remembered would have: when a machine is about
/// to go, its neighbours upload too.
const SURE_FACTOR: f64 = 2.0;
/// An upload says something about one that is at most this many times as large: of a small one, most is latency.
const COMPARABLE: u64 = 4;

/// Uploads of the recent past.
#[derive(Debug, Default)]
pub(crate) struct UploadSpeed {
    seen: VecDeque<(u64, Duration)>,
}

impl UploadSpeed {
    /// An upload of so many bytes took so long.
    pub(crate) fn observe(&mut self, bytes: u64, took: Duration) {
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((bytes.max(1), took));
    }

    /// So long an upload of `bytes` surely takes; `None` if none of its size was seen.
    pub(crate) fn surely(&self, bytes: u64) -> Option<Duration> {
        let comparable = self.seen.iter().filter(|(seen, _)| seen.saturating_mul(COMPARABLE) >= bytes);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let each = comparable.map(|(seen, took)| took.mul_f64((bytes as f64 / *seen as f64).max(1.0)));
        each.max().map(|slowest| slowest.mul_f64(SURE_FACTOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_comparable_upload_counts_twice() {
        let mut speed = UploadSpeed::default();
        assert_eq!(speed.surely(1000), None);
        speed.observe(1000, Duration::from_secs(1));
        speed.observe(1000, Duration::from_secs(3));
        assert_eq!(speed.surely(1000), Some(Duration::from_secs(6)));
        assert_eq!(speed.surely(2000), Some(Duration::from_secs(12)));
        assert_eq!(speed.surely(10), Some(Duration::from_secs(6)), "never less than what was seen");
        assert_eq!(speed.surely(4001), None, "nothing of that size was seen");
        for _ in 0..REMEMBERED {
            speed.observe(1000, Duration::from_secs(2));
        }
        assert_eq!(speed.surely(1000), Some(Duration::from_secs(4)), "the past is forgotten");
    }
}
