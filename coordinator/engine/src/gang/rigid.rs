//! Gangs of programs. A program cannot change with how many others it trains, so such a gang is rigid: all of its ranks
//! begin together, and when one ends before its work is done, all are stopped and the trial waits for another lease.
//!
//! While a gang gathers it is like any other: who is lost is replaced. From its first and only make-up on, the first rank
//! that fails, is lost, gives its seat back or is warned of an interruption is the cause for which all others are told to
//! stop with a checkpoint. The lease ends when the last has answered or is lost, so no attempt begins while one before it
//! may still run on a worker that is heard, and with the weightiest cause: peers of a machine that is taken fail because
//! of that, mostly before anybody has found out that it is gone, and an interruption is no failure.
//!
//! A rank that is done before others gives its seat back and is waited for no more. The last of them is rank 0, which
//! keeps its result until it is told that it is alone.

use super::{Gang, Phase};
use crate::{
    action::{AttemptEnd, RevokeReason},
    refs::{TrialRef, WorkerId},
    state::{Out, State},
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::gang::Shares;

/// Why a rigid gang is being stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cause {
    end: AttemptEnd,
    /// How long that rank trained, where it said so.
    seconds: Option<f64>,
}

/// What is believed first of several ends of one gang.
fn weight(end: &AttemptEnd) -> u8 {
    match end {
        AttemptEnd::Failed { kind, .. } if kind.is_final() => 2,
        AttemptEnd::Failed { .. } => 0,
        AttemptEnd::Finished
        | AttemptEnd::Released
        | AttemptEnd::WorkerGone
        | AttemptEnd::Disconnected
        | AttemptEnd::Expired
        | AttemptEnd::Revoked { .. }
        | AttemptEnd::Noticed { .. }
        | AttemptEnd::Unreadable { .. } => 1,
    }
}

/// Whether a rank may end so because it was told to stop.
fn is_answer(end: &AttemptEnd) -> bool {
    match end {
        AttemptEnd::Finished | AttemptEnd::Released | AttemptEnd::Revoked { .. } => true,
        AttemptEnd::Failed { .. }
        | AttemptEnd::WorkerGone
        | AttemptEnd::Disconnected
        | AttemptEnd::Expired
        | AttemptEnd::Noticed { .. }
        | AttemptEnd::Unreadable { .. } => false,
    }
}

impl Gang {
    /// It has a make-up, or had one.
    pub(crate) fn has_begun(&self) -> bool {
        self.phase != Phase::Gathering
    }

    /// Whether it waits for nothing but its ranks' ends.
    pub(crate) fn is_stopping(&self) -> bool {
        self.cause.is_some()
    }

    fn blame(&mut self, end: AttemptEnd, seconds: Option<f64>) {
        if self.cause.as_ref().is_none_or(|cause| weight(&end) > weight(&cause.end)) {
            self.cause = Some(Cause { end, seconds });
        }
    }
}

impl State {
    /// Whether a trial's gang trains as it is or not at all.
    pub(crate) fn is_rigid(&self, trial_ref: TrialRef) -> bool {
        self.sweep(trial_ref.sweep).is_some_and(|sweep| sweep.spec.program.is_some())
    }

    /// Whether its gang has begun, and can neither grow nor shrink.
    pub(super) fn is_fixed(&self, trial_ref: TrialRef) -> bool {
        self.is_rigid(trial_ref) && self.gangs.get(&trial_ref).is_some_and(Gang::has_begun)
    }

    /// What ranks share: parts of the data, or nothing, with a part for each where they are programs.
    pub(super) fn shards_of(&self, trial_ref: TrialRef) -> u32 {
        let shards = |spec: &spotsweep_proto::spec::SweepSpec| match spec.program {
            Some(_) => spec.resources.workers.max,
            None => spec.train.shards,
        };
        self.sweep(trial_ref.sweep).map_or(1, |sweep| shards(&sweep.spec))
    }

    /// A rank has ended, other than by being done: all others are stopped, and the lease ends with the last of them.
    pub(super) fn rank_ends(
        &mut self,
        trial_ref: TrialRef,
        worker: WorkerId,
        end: AttemptEnd,
        seconds: Option<f64>,
        out: &mut Out<'_>,
    ) {
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return };
        let stopping = gang.is_stopping();
        if !(stopping && is_answer(&end)) {
            gang.blame(end, seconds);
        }
        if gang.seats().all(|seat| seat.worker == worker) {
            return self.end_rigid(trial_ref, out);
        }
        self.vacate(trial_ref, worker);
        if !stopping {
            self.stop_ranks(trial_ref, out);
        }
    }

    fn stop_ranks(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let reason = RevokeReason::Moved;
        if let Some(lease) = self.trial_mut(trial_ref).and_then(|trial| trial.lease.as_mut()) {
            lease.revoked.get_or_insert(reason);
        }
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return };
        gang.enter(Phase::Broken, out.at);
        let left: Vec<WorkerId> = gang.seats().map(|seat| seat.worker).collect();
        for worker in left {
            self.tell_revoked(trial_ref, worker, reason, out);
        }
    }

    fn end_rigid(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let Some(cause) = self.gangs.get_mut(&trial_ref).and_then(|gang| gang.cause.take()) else { return };
        let Cause { end, seconds } = cause;
        match end {
            AttemptEnd::Failed { kind, message } => {
                self.fail(trial_ref, kind, message, seconds.unwrap_or(0.0), out);
            }
            AttemptEnd::Noticed { notice, lost_steps: _ } => {
                let lost_steps = self.trial(trial_ref).map_or(0, |trial| {
                    trial.step.saturating_sub(trial.resume_point().map_or(0, |kept| kept.step))
                });
                self.take_back(trial_ref, AttemptEnd::Noticed { notice, lost_steps }, seconds, out);
            }
            AttemptEnd::Finished
            | AttemptEnd::Released
            | AttemptEnd::WorkerGone
            | AttemptEnd::Disconnected
            | AttemptEnd::Expired
            | AttemptEnd::Revoked { .. }
            | AttemptEnd::Unreadable { .. } => self.take_back(trial_ref, end, seconds, out),
        }
    }

    /// A worker with a rank was warned of an interruption.
    pub(super) fn rank_warned(&mut self, trial_ref: TrialRef, worker: WorkerId, out: &mut Out<'_>) {
        let Some(notice) = self.interruption_of(worker).cloned() else { return };
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return };
        let stopping = gang.is_stopping();
        gang.blame(AttemptEnd::Noticed { notice, lost_steps: 0 }, None);
        if !stopping {
            self.stop_ranks(trial_ref, out);
        }
    }

    /// A rank is done. True if what it says is the trial's result: rank 0's, once all others are done as well.
    pub(crate) fn rank_done(
        &mut self,
        trial_ref: TrialRef,
        worker: WorkerId,
        seconds: f64,
        out: &mut Out<'_>,
    ) -> bool {
        let Some(gang) = self.gangs.get(&trial_ref) else { return true };
        let is_first = gang.ranks.first().is_some_and(|seat| seat.worker == worker);
        if is_first && gang.ranks.len() == 1 && gang.shares.ranks() == 1 {
            return true;
        }
        if gang.is_stopping() || is_first {
            // Rank 0 keeps its result until it is told that it is alone: without the others it has none.
            self.rank_ends(trial_ref, worker, AttemptEnd::Released, Some(seconds), out);
            return false;
        }
        self.vacate(trial_ref, worker);
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return false };
        if let [first] = gang.ranks.as_slice() {
            let first = first.worker;
            gang.generation.0 += 1;
            gang.shares = Shares::even(1, 1);
            self.tell_place(trial_ref, first, out);
        }
        false
    }
}
