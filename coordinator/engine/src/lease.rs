//! How leases end, other than by a report of the worker that holds them, and what becomes of their trials.
//!
//! A lease is fenced by its epoch: from the moment that it ends here, reports under it are stale, whatever the
//! worker believes. Its expiry is the worker's: one moment for all leases of a worker, moved on whenever the
//! worker is heard of. A lease is alive until it is taken back, so a worker that is heard of after the expiry
//! but before anybody noticed keeps it: nobody else can have it.

use crate::{
    action::{Action, AttemptEnd, Record, RevokeReason, TrialState},
    refs::{SweepId, TrialRef, WorkerId},
    retention::{self, Phase},
    state::{Out, State},
    time::Time,
    trial::{BriefEnd, EndNote, Failure, Lease, Trial},
};
use spotsweep_proto::{ids::Epoch, line::FailureKind};

/// Longest wait between two attempts, in seconds.
pub(crate) const BACKOFF_MOST_S: f64 = 300.0;

/// Wait after the `failures`-th failure: `base_s`, doubled from failure to failure, at most
/// [`BACKOFF_MOST_S`].
pub(crate) fn backoff_s(base_s: f64, failures: u32) -> f64 {
    let doublings = failures.saturating_sub(1).min(64);
    (base_s * f64::from(doublings).exp2()).clamp(0.0, BACKOFF_MOST_S)
}

pub(crate) fn brief(end: &AttemptEnd) -> BriefEnd {
    match end {
        AttemptEnd::Finished => BriefEnd::Finished,
        AttemptEnd::Failed { kind, .. } => BriefEnd::Failed(*kind),
        AttemptEnd::Released => BriefEnd::Released,
        AttemptEnd::WorkerGone => BriefEnd::WorkerGone,
        AttemptEnd::Disconnected => BriefEnd::Disconnected,
        AttemptEnd::Expired => BriefEnd::Expired,
        AttemptEnd::Revoked { reason } => BriefEnd::Revoked(*reason),
        AttemptEnd::Unreadable { step, next_step, .. } => {
            BriefEnd::Unreadable { step: *step, next_step: *next_step }
        }
        AttemptEnd::Noticed { notice, lost_steps } => {
            BriefEnd::Noticed { source: notice.source, kind: notice.kind, lost_steps: *lost_steps }
        }
    }
}

fn is_interruption(end: BriefEnd) -> bool {
    match end {
        BriefEnd::Released
        | BriefEnd::WorkerGone
        | BriefEnd::Disconnected
        | BriefEnd::Expired
        | BriefEnd::Noticed { .. } => true,
        BriefEnd::Finished | BriefEnd::Failed(_) | BriefEnd::Revoked(_) | BriefEnd::Unreadable { .. } => {
            false
        }
    }
}

impl State {
    /// Ends a trial's lease: the worker's books and the trial's, and the attempt's record if it had started.
    /// The trial's state is left to the caller, who must change it in the same step.
    pub(crate) fn end_lease(
        &mut self,
        trial_ref: TrialRef,
        end: AttemptEnd,
        seconds: Option<f64>,
        out: &mut Out<'_>,
    ) -> Option<Lease> {
        self.dismiss(trial_ref, out);
        let sweep = self.sweeps.get_mut(trial_ref.sweep.0 as usize)?;
        let trial = sweep.trials.get_mut(trial_ref.number)?;
        let lease = *trial.lease.take()?;
        sweep.leases -= 1;
        let mut label = None;
        self.withdraw(lease.worker);
        if let Some(worker) = self.workers.get_mut(&lease.worker) {
            worker.leases.remove(&trial_ref);
            if let Some(slot) = worker.devices.get_mut(usize::from(lease.device)) {
                slot.load -= 1;
                label = Some(slot.label);
            }
        }
        self.offer(lease.worker);
        let end = match self.trial(trial_ref) {
            Some(trial) => self.blame_notice(end, trial, &lease),
            None => end,
        };
        if lease.started_at.is_some() {
            self.interruptions.note(&end, lease.seconds_known());
        }
        if lease.started_at.is_some()
            && let Some(trial) = self.trial_mut(trial_ref)
        {
            trial.seconds += seconds.unwrap_or_else(|| lease.seconds_known());
            let end_brief = brief(&end);
            trial.interruptions += u32::from(is_interruption(end_brief));
            let (epoch, step) = (Epoch(trial.epoch), trial.step);
            if trial.history.is_some() || end_brief != BriefEnd::Finished {
                let label = label.or(trial.place.map(|(_, label)| label)).unwrap_or(0);
                let attempt = trial.attempts;
                trial.note_end(EndNote { attempt, end: end_brief, label, step, at: out.at });
            }
            out.record(Record::AttemptEnded { trial: trial_ref, epoch, end, step, at: out.at });
        }
        Some(lease)
    }

    /// Ends a trial's lease and lets the trial wait for another.
    pub(crate) fn take_back(
        &mut self,
        trial_ref: TrialRef,
        end: AttemptEnd,
        seconds: Option<f64>,
        out: &mut Out<'_>,
    ) {
        if self.end_lease(trial_ref, end, seconds, out).is_some() {
            self.let_wait(trial_ref, out);
        }
    }

    /// Tells a worker that it lost a trial's lease, or its seat in the trial's gang, if it can be told.
    pub(crate) fn tell_revoked(
        &self,
        trial_ref: TrialRef,
        worker: WorkerId,
        reason: RevokeReason,
        out: &mut Out<'_>,
    ) {
        if let Some(trial) = self.trial(trial_ref)
            && let Some(session) = self.workers.get(&worker).and_then(|worker| worker.session())
        {
            out.push(Action::Revoke { session, trial: trial_ref, epoch: Epoch(trial.epoch), reason });
        }
    }

    /// The same for the worker that holds the lease.
    pub(crate) fn tell_holder_revoked(&self, trial_ref: TrialRef, reason: RevokeReason, out: &mut Out<'_>) {
        if let Some(lease) = self.trial(trial_ref).and_then(|trial| trial.lease.as_ref()) {
            self.tell_revoked(trial_ref, lease.worker, reason, out);
        }
    }

    /// A trial without a lease waits: for a worker, for its back-off, or to be resumed.
    pub(crate) fn let_wait(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let Some(sweep) = self.sweep_mut(trial_ref.sweep) else { return };
        let Some(trial) = sweep.trials.get(trial_ref.number) else { return };
        if sweep.target_reached && trial.attempts == 0 {
            return self.end_trial(trial_ref, TrialState::Stopped, out);
        }
        let state = sweep.waiting_state(trial.paused);
        sweep.set_state(trial_ref.sweep, trial_ref.number, state, out);
        sweep.make_ready(trial_ref.number);
        self.requeue(trial_ref.sweep);
    }

    /// A trial without a lease becomes final.
    pub(crate) fn end_trial(&mut self, trial_ref: TrialRef, state: TrialState, out: &mut Out<'_>) {
        let delete_at = out.at.after_s(self.config.delete_after_s);
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let goal = sweep.spec.objective.as_ref().map(|objective| objective.goal);
        sweep.make_unready(trial_ref.number);
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        if trial.retry_at != Time(0) {
            self.delayed.remove(&(trial.retry_at, trial_ref));
            trial.retry_at = Time(0);
        }
        let phase = if state == TrialState::Completed { Phase::Completed } else { Phase::Ended };
        for dropped in retention::prune(&mut trial.kept, phase, goal) {
            self.objects.release(&dropped, delete_at);
        }
        sweep.set_state(trial_ref.sweep, trial_ref.number, state, out);
        sweep.end_if_over(trial_ref.sweep, out);
        self.requeue(trial_ref.sweep);
    }

    /// An attempt failed: another follows after a back-off, or the trial is given up. One that failed because it
    /// could not read the newest checkpoint is followed by another at once, which resumes from the one before.
    pub(crate) fn fail(
        &mut self,
        trial_ref: TrialRef,
        kind: FailureKind,
        message: String,
        seconds: f64,
        out: &mut Out<'_>,
    ) {
        let unreadable = match kind {
            FailureKind::Checkpoint => self.drop_unreadable(trial_ref, out),
            FailureKind::Diverged
            | FailureKind::Config
            | FailureKind::Data
            | FailureKind::OutOfMemory
            | FailureKind::Storage
            | FailureKind::Crashed
            | FailureKind::Protocol
            | FailureKind::Internal => None,
        };
        let end = match unreadable {
            Some((step, next_step)) => AttemptEnd::Unreadable { step, next_step, message: message.clone() },
            None => AttemptEnd::Failed { kind, message: message.clone() },
        };
        let Some(lease) = self.end_lease(trial_ref, end, Some(seconds), out) else { return };
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let retry = sweep.spec.retry;
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        // Where it is the worker that cannot read, another one shall try next.
        trial.avoid = Some(lease.worker);
        let label = trial.place.map_or(0, |(_, label)| label);
        let failure = Failure { kind, message, label, at: out.at };
        trial.history.get_or_insert_default().failure = Some(failure);
        if unreadable.is_some() {
            return self.let_wait(trial_ref, out);
        }
        trial.failures += 1;
        if kind == FailureKind::Diverged {
            return self.end_trial(trial_ref, TrialState::Diverged, out);
        }
        if kind.is_final() || trial.failures >= retry.max_failures {
            return self.end_trial(trial_ref, TrialState::Failed, out);
        }
        let wait_s = backoff_s(retry.backoff_s, trial.failures);
        if wait_s > 0.0 {
            trial.retry_at = out.at.after_s(wait_s);
            self.delayed.insert((trial.retry_at, trial_ref));
        }
        self.let_wait(trial_ref, out);
    }

    /// The checkpoint from which the attempt resumed cannot be read: it is kept no longer. Gives its step and that
    /// of the one before, 0 if there is none, where it was the newest. Then what is kept shrinks and the trial's
    /// failures need not bound this; an attempt that got as far as a newer checkpoint has read the one that it
    /// blames, and its failure counts as any other.
    fn drop_unreadable(&mut self, trial_ref: TrialRef, out: &Out<'_>) -> Option<(u64, u64)> {
        let delete_at = out.at.after_s(self.config.delete_after_s);
        let trial = self.trial_mut(trial_ref)?;
        let resumed_from = trial.lease.as_ref()?.resumed_from?;
        let index = trial.kept.iter().position(|kept| kept.reference.manifest == resumed_from)?;
        let dropped = trial.kept.remove(index).reference;
        let was_newest = index == trial.kept.len();
        let next_step = trial.resume_point().map_or(0, |before| before.step);
        self.objects.release(&dropped, delete_at);
        was_newest.then_some((dropped.step, next_step))
    }

    /// Trials whose back-off is over wait for a worker from now on.
    pub(crate) fn end_backoffs(&mut self, at: Time) {
        while let Some(&(due, trial_ref)) = self.delayed.first()
            && due <= at
        {
            self.delayed.pop_first();
            if let Some(trial) = self.trial_mut(trial_ref) {
                trial.retry_at = Time(0);
            }
            if let Some(sweep) = self.sweep_mut(trial_ref.sweep) {
                sweep.make_ready(trial_ref.number);
            }
            self.requeue(trial_ref.sweep);
        }
    }

    /// A worker loses all its leases. It is told, if it can be.
    pub(crate) fn take_all_back(&mut self, id: WorkerId, end: &AttemptEnd, out: &mut Out<'_>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let leases: Vec<TrialRef> = worker.leases.iter().copied().collect();
        for trial_ref in leases {
            self.tell_revoked(trial_ref, id, RevokeReason::Stale, out);
            self.lose_seat(trial_ref, id, end.clone(), None, out);
        }
    }

    /// The sweep has what it wanted: trials that have not started are not needed.
    pub(crate) fn reach_target(&mut self, id: SweepId, out: &mut Out<'_>) {
        let Some(sweep) = self.sweep_mut(id) else { return };
        sweep.target_reached = true;
        sweep.set_rest(id, TrialState::Stopped, out);
        let started = |trial: &Trial| {
            trial.attempts > 0 || trial.lease.as_ref().is_some_and(|lease| lease.started_at.is_some())
        };
        let unstarted: Vec<u32> = sweep
            .open
            .iter()
            .copied()
            .filter(|number| sweep.trials.get(*number).is_some_and(|trial| !started(trial)))
            .collect();
        for number in unstarted {
            let trial_ref = TrialRef { sweep: id, number };
            let reason = RevokeReason::NotNeeded;
            self.tell_holder_revoked(trial_ref, reason, out);
            self.end_lease(trial_ref, AttemptEnd::Revoked { reason }, None, out);
            self.end_trial(trial_ref, TrialState::Stopped, out);
        }
        if let Some(sweep) = self.sweep_mut(id) {
            sweep.end_if_over(id, out);
        }
        self.requeue(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_five_minutes() {
        assert_eq!([1, 2, 3, 4].map(|k| backoff_s(10.0, k)), [10.0, 20.0, 40.0, 80.0]);
        assert_eq!(backoff_s(10.0, 6), 300.0);
        assert_eq!(backoff_s(10.0, u32::MAX), 300.0);
        assert_eq!(backoff_s(0.0, 9), 0.0);
    }
}
