//! What attempts print, on its way to the coordinator: collected from programs and trainers on whatever task reads them, taken
//! by the agent's task in small batches. Best effort: what nobody takes in time is left out, and nothing ever waits for it.
//!
//! It must not hold anything up, and knows of an attempt no more than its lease and its number.

mod kept;

use crate::{
    attempt::{LeaseKey, ReportBody},
    wire,
};
use kept::Kept;
use spotsweep_proto::{
    last_lines::happened,
    limits::{LOG_BATCH_BYTES, LOG_CHUNKS_PER_BATCH},
};
use spotsweep_wire::v1;
use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Between two batches; with [`LOG_BATCH_BYTES`] that is 128 KiB/s at most.
const EVERY: Duration = Duration::from_millis(500);
/// Most bytes of one attempt in a batch before the others have theirs.
const CHUNK: usize = 16 << 10;
/// What the agent has to say of an attempt that prints nothing is not sent before the attempt is so old: of the many short ones
/// of a quick sweep nobody wants a log each.
const REMARKED_AFTER: Duration = Duration::from_secs(1);
/// Most attempts that have ended and whose output may not have arrived; the oldest are given up.
const ENDED: usize = 1024;
/// Most bytes of theirs.
const ENDED_BYTES: usize = 16 << 20;
/// Of so many attempts that are over and sent, the number of bytes is remembered: a worker that left a gang may come back to it.
const REMEMBERED: usize = 64;

/// Where an attempt's output goes. Cheap to clone; used from any task.
#[derive(Debug, Clone)]
pub struct AttemptLog(Arc<Log>);

#[derive(Debug)]
struct Log {
    lease: LeaseKey,
    attempt: u32,
    text: Mutex<Text>,
}

#[derive(Debug)]
struct Text {
    kept: Kept,
    /// What the agent has to say, until something else is there to be said with it.
    remarks: String,
    /// The last line has not ended.
    open_line: bool,
    began: Option<Instant>,
    ended: bool,
    /// The coordinator was told that nothing more comes.
    last_said: bool,
}

impl AttemptLog {
    /// Of one that has printed nothing.
    #[cfg(test)]
    pub(crate) fn new(lease: LeaseKey, attempt: u32) -> Self {
        Self::behind(lease, attempt, 0)
    }

    /// Of one that has printed `before` bytes already.
    fn behind(lease: LeaseKey, attempt: u32, before: u64) -> Self {
        let text = Text {
            kept: Kept::behind(before),
            remarks: String::new(),
            open_line: false,
            began: None,
            ended: false,
            last_said: false,
        };
        Self(Arc::new(Log { lease, attempt, text: Mutex::new(text) }))
    }

    /// Adds what was printed.
    pub(crate) fn push(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.text().push(bytes);
        }
    }

    /// Adds a line of the agent's own.
    pub(crate) fn note(&self, line: &str) {
        let mut text = self.0.text();
        text.remark(line);
        text.say_remarks();
    }
}

impl Log {
    fn text(&self) -> MutexGuard<'_, Text> {
        // Every change is whole before anything could panic.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        if self.last_said {
            return;
        }
        if !self.remarks.is_empty() {
            let remarks = std::mem::take(&mut self.remarks);
            self.kept.push(remarks.as_bytes());
        }
        self.kept.push(bytes);
        self.open_line = bytes.last() != Some(&b'\n');
    }

    /// Adds a line of the agent's own to what is held back.
    fn remark(&mut self, line: &str) {
        let before = if self.open_line { "\n" } else { "" };
        self.open_line = false;
        let _never = writeln!(self.remarks, "{before}[spotsweep: {line}]");
    }

    /// Sends what the agent had to say, even if nothing else comes.
    fn say_remarks(&mut self) {
        let remarks = std::mem::take(&mut self.remarks);
        if !remarks.is_empty() {
            self.push(remarks.as_bytes());
        }
    }

    /// Whether nothing is left to send, nor to be sent again.
    fn is_over(&mut self, now: Instant) -> bool {
        self.kept.settle(now) && self.ended && (self.last_said || self.kept.pushed() == 0)
    }

    fn chunk(&mut self, most: usize) -> Option<(u64, Vec<u8>, bool)> {
        let taken = self.kept.take(most);
        let last = self.ended && self.kept.pushed() > 0 && !self.kept.waits() && !self.last_said;
        self.last_said |= last;
        match taken {
            Some((offset, bytes)) => Some((offset, bytes, last)),
            None => last.then(|| (self.kept.pushed(), Vec::new(), true)),
        }
    }
}

/// The logs of an agent's attempts, those that run and those that may not have arrived.
#[derive(Debug, Default)]
pub(crate) struct AttemptLogs {
    open: Vec<AttemptLog>,
    /// Bytes that were printed by those before.
    over: VecDeque<(LeaseKey, u64)>,
    /// Whose turn it is first.
    turn: usize,
    next: Option<Instant>,
}

impl AttemptLogs {
    /// Where goes what is printed under a lease.
    pub(crate) fn of(&self, lease: LeaseKey, attempt: u32) -> AttemptLog {
        if let Some(log) = self.open.iter().find(|log| log.0.lease == lease) {
            return log.clone();
        }
        let before = self.over.iter().rev().find(|(over, _)| *over == lease).map_or(0, |(_, bytes)| *bytes);
        AttemptLog::behind(lease, attempt, before)
    }

    /// An attempt begins.
    pub(crate) fn begin(&mut self, log: &AttemptLog, step: u64, device: &str, now: Instant) {
        let mut text = log.0.text();
        text.began = Some(now);
        text.remark(&format!("attempt {} begins at step {step} on {device}", log.0.attempt));
        (text.ended, text.last_said) = (false, false);
        drop(text);
        if !self.open.iter().any(|open| Arc::ptr_eq(&open.0, &log.0)) {
            self.open.push(log.clone());
        }
    }

    /// It ends, with this report if anything is to be said of it.
    pub(crate) fn end(&mut self, lease: LeaseKey, body: Option<&ReportBody>) {
        let Some(at) = self.open.iter().rposition(|log| log.0.lease == lease) else { return };
        let log = self.open[at].clone();
        let mut text = log.0.text();
        let (words, matters) = match body {
            Some(ReportBody::Finished { step, .. }) => (format!("finished at step {step}"), false),
            Some(ReportBody::Failed { step, message, .. }) => {
                (format!("failed at step {step}: {}", happened(message)), true)
            }
            Some(ReportBody::Released { step, .. }) => (format!("handed back at step {step}"), false),
            Some(ReportBody::Started { .. } | ReportBody::Progress(_) | ReportBody::Checkpoint(_)) | None => {
                ("stopped".to_owned(), false)
            }
        };
        text.remark(&words);
        if matters || text.kept.pushed() > 0 {
            text.say_remarks();
        }
        text.ended = true;
        let nothing = text.kept.pushed() == 0;
        drop(text);
        if nothing {
            self.open.remove(at);
        }
        self.make_room();
    }

    /// Gives up the oldest of those that have ended, if they are too many.
    fn make_room(&mut self) {
        let ended: Vec<usize> = self
            .open
            .iter()
            .map(|log| log.0.text())
            .filter(|text| text.ended)
            .map(|text| text.kept.bytes())
            .collect();
        let (mut many, mut bytes) = (ended.len(), ended.iter().sum::<usize>());
        self.open.retain(|log| {
            let text = log.0.text();
            let give_up = text.ended && (many > ENDED || bytes > ENDED_BYTES);
            if give_up {
                many -= 1;
                bytes -= text.kept.bytes();
            }
            !give_up
        });
    }

    /// The connection is another.
    pub(crate) fn reconnected(&mut self) {
        for log in &self.open {
            let mut text = log.0.text();
            text.kept.rewind();
            text.last_said = false;
        }
    }

    /// When [`Self::next_batch`] may have something; `None`: not before something happens.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        (!self.open.is_empty()).then(|| self.next.unwrap_or(now))
    }

    /// Whether anything was not sent yet.
    pub(crate) fn waits(&self) -> bool {
        self.open
            .iter()
            .map(|log| log.0.text())
            .any(|text| text.kept.waits() || (text.ended && !text.last_said))
    }

    /// What to send now. Not before the time is up, unless there is no time left.
    pub(crate) fn next_batch(&mut self, now: Instant, hurry: bool) -> Option<v1::LogBatch> {
        if !hurry && self.next.is_some_and(|at| now < at) {
            return None;
        }
        self.next = Some(now + EVERY);
        self.open.retain(|log| {
            let mut text = log.0.text();
            if text.began.is_some_and(|began| now.saturating_duration_since(began) >= REMARKED_AFTER) {
                text.say_remarks();
            }
            let over = text.is_over(now);
            if over {
                if self.over.len() >= REMEMBERED {
                    self.over.pop_front();
                }
                self.over.push_back((log.0.lease, text.kept.pushed()));
            }
            !over
        });
        let mut chunks = Vec::new();
        let mut room = LOG_BATCH_BYTES;
        let many = self.open.len();
        let mut idle = 0;
        while idle < many && room > 0 && chunks.len() < LOG_CHUNKS_PER_BATCH {
            self.turn = (self.turn + 1) % many;
            let log = &self.open[self.turn].0;
            let Some((offset, bytes, last)) = log.text().chunk(CHUNK.min(room)) else {
                idle += 1;
                continue;
            };
            idle = 0;
            room -= bytes.len();
            chunks.push(v1::LogChunk {
                trial: Some(wire::trial_key(log.lease)),
                epoch: log.lease.epoch.0,
                attempt: log.attempt,
                offset,
                text: bytes.into(),
                last,
            });
        }
        (!chunks.is_empty()).then_some(v1::LogBatch { chunks })
    }
}

#[cfg(test)]
mod tests;
