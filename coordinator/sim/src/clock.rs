//! Virtual time: what happens when, and what a machine's own clock shows meanwhile. Knows nothing of what happens.

use spotsweep_engine::Time;
use std::{cmp::Ordering, collections::BinaryHeap};

/// What will happen, by time and then in order of scheduling.
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Entry<T>>,
    scheduled: u64,
}

struct Entry<T> {
    at: Time,
    number: u64,
    what: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (Time, u64) {
        (self.at, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// The earliest is the greatest, because a heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0 }
    }

    pub(crate) fn push(&mut self, at: Time, what: T) {
        self.scheduled += 1;
        self.heap.push(Entry { at, number: self.scheduled, what });
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, T)> {
        self.heap.pop().map(|entry| (entry.at, entry.what))
    }
}

/// The clock of the coordinator's machine: it may jump either way, and the driver keeps what it reads from going
/// backwards.
#[derive(Debug, Default)]
pub(crate) struct MachineClock {
    ahead_us: i64,
    last: Time,
}

impl MachineClock {
    /// What the driver reads at this moment of virtual time.
    pub(crate) fn read(&mut self, now: Time) -> Time {
        self.last = self.last.max(Time(now.0.saturating_add_signed(self.ahead_us)));
        self.last
    }

    /// Somebody sets the clock forward, or back where negative.
    pub(crate) fn jump_s(&mut self, seconds: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "jumps are of minutes")]
        let jump_us = (seconds * 1e6) as i64;
        self.ahead_us = self.ahead_us.saturating_add(jump_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scheduled_for_one_moment_happens_in_order_of_scheduling() {
        let mut queue = Queue::new();
        for (at, what) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b')] {
            queue.push(Time(at), what);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, what)| what).collect();
        assert_eq!(order, "abcd");
    }

    #[test]
    fn a_clock_that_is_set_back_stands_still_until_it_has_caught_up() {
        let mut clock = MachineClock::default();
        assert_eq!(clock.read(Time(10_000_000)), Time(10_000_000));
        clock.jump_s(-5.0);
        assert_eq!(clock.read(Time(12_000_000)), Time(10_000_000));
        assert_eq!(clock.read(Time(16_000_000)), Time(11_000_000));
        clock.jump_s(100.0);
        assert_eq!(clock.read(Time(17_000_000)), Time(112_000_000));
    }
}
