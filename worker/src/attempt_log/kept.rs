//! What one attempt printed and the coordinator does not surely have: the beginning, and the end. Bytes are numbered by how
//! many were printed before them. Pure: time comes in.

use spotsweep_proto::limits::{LOG_HEAD_BYTES, LOG_TAIL_BYTES};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// What was sent so long ago on a connection that still stands has arrived: a dead one is noticed earlier, by its pings.
const SURE_AFTER: Duration = Duration::from_secs(20);

/// The bytes. Memory is no more than [`LOG_HEAD_BYTES`] and [`LOG_TAIL_BYTES`], and none once all has arrived.
#[derive(Debug)]
pub(super) struct Kept {
    /// From 0 on, until all of it has arrived.
    head: Vec<u8>,
    /// So much more belongs to it.
    head_room: usize,
    /// The newest behind the head.
    tail: VecDeque<u8>,
    pushed: u64,
    /// What comes next has this number.
    sent: u64,
    /// Everything before this has arrived, or is left out.
    sure: u64,
    /// How far it was sent when, to become sure later.
    mark: Option<(Instant, u64)>,
}

impl Kept {
    /// Of an attempt that has printed `before` bytes already, which are gone.
    pub(super) fn behind(before: u64) -> Self {
        Self {
            head: Vec::new(),
            head_room: if before == 0 { LOG_HEAD_BYTES } else { 0 },
            tail: VecDeque::new(),
            pushed: before,
            sent: before,
            sure: before,
            mark: None,
        }
    }

    /// Adds what was printed next; of what nobody took in time, the part between beginning and end is left out.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(self.head_room.min(bytes.len()));
        self.head_room -= first.len();
        self.head.extend_from_slice(first);
        let rest_kept = &rest[rest.len().saturating_sub(LOG_TAIL_BYTES)..];
        let over = (self.tail.len() + rest_kept.len()).saturating_sub(LOG_TAIL_BYTES);
        self.tail.drain(..over);
        self.tail.extend(rest_kept);
        self.pushed += bytes.len() as u64;
    }

    /// The next bytes to send, at most `most`, with the number of the first.
    pub(super) fn take(&mut self, most: usize) -> Option<(u64, Vec<u8>)> {
        if !self.waits() || most == 0 {
            return None;
        }
        let sent = usize::try_from(self.sent).unwrap_or(usize::MAX);
        let (from, bytes) = if sent < self.head.len() {
            let until = self.head.len().min(sent.saturating_add(most));
            (self.sent, self.head[sent..until].to_vec())
        } else {
            let first = self.first_of_tail();
            let from = self.sent.max(first);
            let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
            (from, self.tail.iter().skip(skip).take(most).copied().collect())
        };
        self.sent = from + bytes.len() as u64;
        Some((from, bytes))
    }

    fn first_of_tail(&self) -> u64 {
        self.pushed - self.tail.len() as u64
    }

    /// Whether anything is to be sent.
    pub(super) fn waits(&self) -> bool {
        self.sent < self.pushed
    }

    /// How many bytes were printed.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// The connection is another: what may be lost with the last one goes again.
    pub(super) fn rewind(&mut self) {
        self.sent = self.sure;
        self.mark = None;
    }

    /// Time passed: forgets what has surely arrived. Gives whether that is everything.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        match self.mark {
            Some((at, sent)) if now.saturating_duration_since(at) >= SURE_AFTER => {
                self.sure = sent;
                self.mark = None;
                if sent >= LOG_HEAD_BYTES as u64 {
                    self.head = Vec::new();
                }
                let over = sent.saturating_sub(self.first_of_tail());
                self.tail.drain(..usize::try_from(over).unwrap_or(usize::MAX).min(self.tail.len()));
                if self.tail.is_empty() {
                    self.tail = VecDeque::new();
                }
            }
            Some(_) => {}
            None if self.sent > self.sure => self.mark = Some((now, self.sent)),
            None => {}
        }
        self.sure == self.pushed
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(from: u64, bytes: usize) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
        (from..from + bytes as u64).map(|number| (number ^ (number >> 8) ^ (number >> 16)) as u8).collect()
    }

    /// Takes all that there is, in pieces.
    fn taken(kept: &mut Kept, most: usize) -> Vec<(u64, Vec<u8>)> {
        std::iter::from_fn(|| kept.take(most)).collect()
    }

    #[test]
    fn of_much_the_beginning_and_the_end_are_kept_and_nothing_else() {
        let mut kept = Kept::behind(0);
        let many = 10 * (LOG_HEAD_BYTES + LOG_TAIL_BYTES);
        for piece in printed(0, many).chunks(70_000) {
            kept.push(piece);
            assert!(kept.bytes() <= LOG_HEAD_BYTES + LOG_TAIL_BYTES);
        }
        let pieces = taken(&mut kept, 50_000);
        let last = (many - LOG_TAIL_BYTES) as u64;
        for (from, bytes) in &pieces {
            assert_eq!(*bytes, printed(*from, bytes.len()), "at {from}");
            let until = from + bytes.len() as u64;
            assert!(until <= LOG_HEAD_BYTES as u64 || *from >= last, "{from} to {until}");
        }
        assert_eq!(
            pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(),
            LOG_HEAD_BYTES + LOG_TAIL_BYTES
        );
    }

    #[test]
    fn what_may_be_lost_with_a_connection_goes_again_and_what_has_arrived_takes_no_memory() {
        let mut kept = Kept::behind(0);
        let now = Instant::now();
        kept.push(&printed(0, 100_000));
        taken(&mut kept, usize::MAX);
        assert!(!kept.settle(now));
        kept.push(&printed(100_000, 50));
        taken(&mut kept, usize::MAX);
        assert!(!kept.settle(now + SURE_AFTER), "the last 50 were sent later");
        assert_eq!(kept.bytes(), 50);
        kept.rewind();
        assert_eq!(taken(&mut kept, usize::MAX), [(100_000, printed(100_000, 50))]);
        assert!(!kept.settle(now + SURE_AFTER));
        assert!(kept.settle(now + 2 * SURE_AFTER));
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn who_goes_on_where_another_was_numbers_on() {
        let mut kept = Kept::behind(1000);
        kept.push(&printed(1000, 100));
        assert_eq!(taken(&mut kept, 60), [(1000, printed(1000, 60)), (1060, printed(1060, 40))]);
        kept.rewind();
        assert_eq!(taken(&mut kept, usize::MAX), [(1000, printed(1000, 100))]);
    }

    proptest! {
        #[test]
        fn whatever_is_pushed_and_taken_each_byte_has_its_number_and_the_end_comes(
            steps in prop::collection::vec((0_usize..300_000, 1_usize..100_000, any::<bool>()), 1..12),
        ) {
            let (mut kept, mut reached, now) = (Kept::behind(0), 0, Instant::now());
            for (push, most, rewind) in steps {
                kept.push(&printed(kept.pushed(), push));
                if let Some((from, bytes)) = kept.take(most) {
                    prop_assert!(from >= reached, "{from} comes after {reached}");
                    prop_assert_eq!(&bytes, &printed(from, bytes.len()));
                    reached = from + bytes.len() as u64;
                }
                kept.settle(now);
                if rewind {
                    kept.rewind();
                    reached = 0;
                }
                prop_assert!(kept.bytes() <= LOG_HEAD_BYTES + LOG_TAIL_BYTES);
            }
            let rest = taken(&mut kept, 77_777);
            for (from, bytes) in &rest {
                prop_assert_eq!(bytes, &printed(*from, bytes.len()));
                reached = from + bytes.len() as u64;
            }
            prop_assert_eq!(reached, kept.pushed());
        }
    }
}
