//! What the engine remembers of one trial. Owns the record and its invariants, not the decisions.
//!
//! There may be a million of these, so the record is small: what only a leased, failed or interrupted trial
//! needs is boxed, and a trial that never had a lease has no record at all (see [`crate::sweep`]).

use crate::{
    action::{RevokeReason, TrialState},
    event::{CheckpointRef, DeviceKind},
    refs::WorkerId,
    time::Time,
    views::Best,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    digest::Digest,
    line::FailureKind,
    notice::{NoticeKind, NoticeSource},
};

/// How many ends of attempts a trial remembers, the newest.
pub(crate) const REMEMBERED_ENDS: usize = 8;
/// How many values of the objective a lease remembers, the newest, to value checkpoints that arrive late.
const REMEMBERED_VALUES: usize = 16;

/// Index into the engine's list of (worker name, device name).
pub(crate) type Label = u32;

/// A trial that has or had a lease, or that a person paused or cancelled by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// What people see.
    pub(crate) state: TrialState,
    /// Paused by itself, whatever its sweep is.
    pub(crate) paused: bool,
    /// The kind of device whose bits it has: set with its first point or checkpoint, and kept to from then on.
    pub(crate) kind: Option<DeviceKind>,
    /// Epoch of the newest lease.
    pub(crate) epoch: u64,
    /// Attempts that started.
    pub(crate) attempts: u32,
    /// Attempts that failed.
    pub(crate) failures: u32,
    /// Attempts that were interrupted.
    pub(crate) interruptions: u32,
    /// Where it last ran.
    pub(crate) place: Option<(WorkerId, Label)>,
    /// The worker on which it just failed.
    pub(crate) avoid: Option<WorkerId>,
    /// Points below this step are recorded; steps of points grow strictly.
    pub(crate) points_until: u64,
    /// Last step heard of.
    pub(crate) step: u64,
    /// Steps at the end; 0 while unknown.
    pub(crate) total_steps: u64,
    /// Seconds of all attempts that ended.
    pub(crate) seconds: f64,
    /// The objective as last reported; NaN before.
    pub(crate) objective: f64,
    /// The best that was reported; NaN before.
    pub(crate) best: Best,
    /// End of the back-off; 0 if there is none.
    pub(crate) retry_at: Time,
    /// The lease, while there is one.
    pub(crate) lease: Option<Box<Lease>>,
    /// Checkpoints that are kept, by ascending step.
    pub(crate) kept: Vec<Kept>,
    /// Failures and interruptions, if there were any.
    pub(crate) history: Option<Box<History>>,
}

/// A lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Who holds it.
    pub(crate) worker: WorkerId,
    /// On which of its devices.
    pub(crate) device: u16,
    /// When it was granted.
    pub(crate) granted_at: Time,
    /// When the attempt started, if it did.
    pub(crate) started_at: Option<Time>,
    /// When the last report under it came.
    pub(crate) reported_at: Time,
    /// Set once the worker was told to stop; it still may report, until it reports `Released`.
    pub(crate) revoked: Option<RevokeReason>,
    /// Manifest of the checkpoint that it resumes from.
    pub(crate) resumed_from: Option<Digest>,
    /// Newest values of the objective, by ascending step, repeats after a resume among them.
    values: Vec<(u64, f64)>,
}

/// A checkpoint that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Where it is.
    pub(crate) reference: CheckpointRef,
    /// The objective at its step or before; NaN if unknown.
    pub(crate) value: f64,
}

/// What went wrong with a trial.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct History {
    /// The latest failure.
    pub(crate) failure: Option<Failure>,
    /// The newest ends of attempts, oldest first, at most [`REMEMBERED_ENDS`].
    pub(crate) ends: Vec<EndNote>,
}

/// A failure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    pub(crate) label: Label,
    pub(crate) at: Time,
}

/// How an attempt ended, briefly.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct EndNote {
    /// Which attempt, from 1.
    pub(crate) attempt: u32,
    pub(crate) end: BriefEnd,
    pub(crate) label: Label,
    /// Last step known.
    pub(crate) step: u64,
    pub(crate) at: Time,
}

/// [`crate::action::AttemptEnd`] without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BriefEnd {
    Finished,
    Failed(FailureKind),
    Released,
    WorkerGone,
    Disconnected,
    Expired,
    Revoked(RevokeReason),
    Noticed { source: NoticeSource, kind: NoticeKind, lost_steps: u64 },
    Unreadable { step: u64, next_step: u64 },
}

impl Trial {
    /// One that has done nothing yet.
    pub(crate) fn new(state: TrialState) -> Self {
        Self {
            state,
            paused: false,
            kind: None,
            epoch: 0,
            attempts: 0,
            failures: 0,
            interruptions: 0,
            place: None,
            avoid: None,
            points_until: 0,
            step: 0,
            total_steps: 0,
            seconds: 0.0,
            objective: f64::NAN,
            best: Best { value: f64::NAN, step: 0 },
            retry_at: Time(0),
            lease: None,
            kept: Vec::new(),
            history: None,
        }
    }

    /// The checkpoint that the next attempt resumes from: the newest.
    pub(crate) fn resume_point(&self) -> Option<&CheckpointRef> {
        self.kept.last().map(|kept| &kept.reference)
    }

    /// Remembers how an attempt ended.
    pub(crate) fn note_end(&mut self, note: EndNote) {
        let ends = &mut self.history.get_or_insert_default().ends;
        if ends.len() == REMEMBERED_ENDS {
            ends.remove(0);
        }
        ends.push(note);
    }

    /// Gives back memory that a final trial needs no more.
    pub(crate) fn shrink(&mut self) {
        self.kept.shrink_to_fit();
        if let Some(history) = &mut self.history {
            history.ends.shrink_to_fit();
        }
    }
}

impl Lease {
    pub(crate) fn new(worker: WorkerId, device: u16, at: Time, resumed_from: Option<Digest>) -> Self {
        Self {
            worker,
            device,
            granted_at: at,
            started_at: None,
            reported_at: at,
            revoked: None,
            resumed_from,
            values: Vec::new(),
        }
    }

    /// Remembers a value of the objective.
    pub(crate) fn note_value(&mut self, step: u64, value: f64) {
        // Every rank of a gang reports it.
        if self.values.iter().any(|(at, _)| *at == step) {
            return;
        }
        if self.values.len() == REMEMBERED_VALUES {
            self.values.remove(0);
        }
        self.values.push((step, value));
    }

    /// The newest value at `step` or before, among those remembered.
    pub(crate) fn value_at(&self, step: u64) -> Option<f64> {
        self.values.iter().rev().find(|(at, _)| *at <= step).map(|(_, value)| *value)
    }

    /// Seconds that the attempt trained as far as is known, for attempts that end without saying it.
    pub(crate) fn seconds_known(&self) -> f64 {
        self.started_at.map_or(0.0, |started| self.reported_at.seconds_since(started))
    }
}

/// Trials in blocks: pushing never moves those that are there, so no step pays for a million of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct TrialTable(Vec<Vec<Trial>>);

/// Trials in a block.
const BLOCK: usize = 1024;

impl TrialTable {
    #[expect(clippy::cast_possible_truncation, reason = "a sweep's trials are numbered by u32")]
    pub(crate) fn len(&self) -> u32 {
        match self.0.split_last() {
            None => 0,
            Some((last, full)) => (full.len() * BLOCK + last.len()) as u32,
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Trial> {
        self.0.get(number as usize / BLOCK)?.get(number as usize % BLOCK)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Trial> {
        self.0.get_mut(number as usize / BLOCK)?.get_mut(number as usize % BLOCK)
    }

    pub(crate) fn push(&mut self, trial: Trial) {
        match self.0.last_mut() {
            Some(block) if block.len() < BLOCK => block.push(trial),
            Some(_) | None => {
                // The first block grows by itself, so that a small sweep stays small.
                let mut block = if self.0.is_empty() { Vec::new() } else { Vec::with_capacity(BLOCK) };
                block.push(trial);
                self.0.push(block);
            }
        }
    }

    /// Lets go of the trials from `len` on.
    pub(crate) fn truncate(&mut self, len: u32) {
        let len = len as usize;
        self.0.truncate(len.div_ceil(BLOCK));
        if let Some(last) = self.0.get_mut(len / BLOCK) {
            last.truncate(len % BLOCK);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Trial> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_takes_at_most_200_bytes() {
        assert!(size_of::<Trial>() <= 200, "{}", size_of::<Trial>());
    }

    #[test]
    fn the_table_finds_what_was_pushed_across_blocks() {
        let mut table = TrialTable::default();
        for number in 0..3000u32 {
            assert_eq!(table.len(), number);
            let mut trial = Trial::new(TrialState::Pending);
            trial.step = u64::from(number);
            table.push(trial);
        }
        assert!((0..3000).all(|n| table.get(n).is_some_and(|t| t.step == u64::from(n))));
        assert!(table.get(3000).is_none() && table.get_mut(3000).is_none());
        assert_eq!(table.iter().count(), 3000);
        for len in [3000, 2049, 2048, 2047, 1, 0] {
            table.truncate(len);
            assert_eq!((table.len(), table.iter().count()), (len, len as usize));
        }
    }

    #[test]
    fn a_checkpoint_is_valued_by_the_newest_value_at_or_before_its_step() {
        let mut lease = Lease::new(WorkerId(0), 0, Time(0), None);
        assert_eq!(lease.value_at(5), None);
        for step in 0..40 {
            lease.note_value(step * 10, step as f64);
        }
        assert_eq!(lease.value_at(395), Some(39.0));
        assert_eq!(lease.value_at(390), Some(39.0));
        assert_eq!(lease.value_at(389), Some(38.0));
        assert_eq!(lease.value_at(100), None, "forgotten, so unknown rather than wrong");
    }
}
