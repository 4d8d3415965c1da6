//! Seats that are lost or given back, the lease behind them, and the end of a gang.

use super::{Phase, Seat};
use crate::{
    action::{AttemptEnd, RevokeReason},
    refs::{TrialRef, WorkerId},
    state::{Out, State},
};
use spotsweep_proto::line::FailureKind;

impl State {
    /// The lease is rank 0's, or before there are ranks the first seat's.
    pub(super) fn choose_holder(&mut self, trial_ref: TrialRef) {
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        if let Some(first) = gang.ranks.first().or(gang.joining.first()).copied() {
            self.promote(trial_ref, first.worker);
        }
    }

    /// A worker with a seat becomes the holder of the lease.
    pub(crate) fn promote(&mut self, trial_ref: TrialRef, worker: WorkerId) {
        let Some(&seat) = self.gangs.get(&trial_ref).and_then(|gang| gang.seat(worker)) else {
            return;
        };
        if let Some(lease) = self.trial_mut(trial_ref).and_then(|trial| trial.lease.as_mut()) {
            (lease.worker, lease.device) = (seat.worker, seat.device);
        }
    }

    /// A worker holds a trial's lease, or its part of it, no more: it gave it back, or is lost.
    pub(crate) fn lose_seat(
        &mut self,
        trial_ref: TrialRef,
        worker: WorkerId,
        end: AttemptEnd,
        seconds: Option<f64>,
        out: &mut Out<'_>,
    ) {
        let Some(gang) = self.gangs.get(&trial_ref) else {
            return self.take_back(trial_ref, end, seconds, out);
        };
        if self.is_fixed(trial_ref) {
            return self.rank_ends(trial_ref, worker, end, seconds, out);
        }
        if gang.ranks.iter().chain(&gang.joining).all(|seat| seat.worker == worker) {
            return self.take_back(trial_ref, end, seconds, out);
        }
        let had_state = gang.has_state();
        let had_rank = self.vacate(trial_ref, worker);
        let lost_state = had_state && self.gangs.get(&trial_ref).is_some_and(|gang| !gang.has_state());
        if !lost_state {
            self.fill(trial_ref, out);
        }
        let min = self.workers_of(trial_ref).min as usize;
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return };
        // Who is left without the state would begin from the checkpoint of the time when it got its seat: a new lease
        // begins from the newest.
        if lost_state || gang.size() < min {
            return self.stand_down(trial_ref, end, seconds, out);
        }
        if had_rank {
            match gang.phase {
                Phase::Forming | Phase::Formed | Phase::Short => {
                    gang.enter(Phase::Short, out.at);
                    if gang.ranks.len() >= min.max(1) {
                        return self.form(trial_ref, out);
                    }
                }
                // It is found out who is left.
                Phase::Gathering | Phase::Broken => {}
            }
        }
        self.settle(trial_ref, out);
    }

    /// Empties a seat; another worker holds the lease then if this one did. True if it had a rank.
    pub(super) fn vacate(&mut self, trial_ref: TrialRef, worker: WorkerId) -> bool {
        let Some((seat, had_rank)) = self.gangs.get_mut(&trial_ref).and_then(|gang| gang.remove(worker))
        else {
            return false;
        };
        self.unseat(trial_ref, seat);
        let held = self.trial(trial_ref).and_then(|trial| trial.lease.as_ref());
        if held.is_some_and(|lease| lease.worker == worker) {
            self.choose_holder(trial_ref);
        }
        had_rank
    }

    /// There are too few workers. One that holds the state in memory stores it and gives the lease back.
    pub(super) fn stand_down(
        &mut self,
        trial_ref: TrialRef,
        end: AttemptEnd,
        seconds: Option<f64>,
        out: &mut Out<'_>,
    ) {
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        let reachable = |seat: &&Seat| {
            seat.holds && self.workers.get(&seat.worker).is_some_and(|worker| worker.session().is_some())
        };
        let Some(keeper) = gang.ranks.iter().find(reachable).map(|seat| seat.worker) else {
            self.tell_holder_revoked(trial_ref, RevokeReason::NotNeeded, out);
            return self.take_back(trial_ref, end, seconds, out);
        };
        self.promote(trial_ref, keeper);
        self.dismiss(trial_ref, out);
        let reason = RevokeReason::Moved;
        if let Some(lease) = self.trial_mut(trial_ref).and_then(|trial| trial.lease.as_mut()) {
            lease.revoked = Some(reason);
        }
        self.tell_revoked(trial_ref, keeper, reason, out);
    }

    /// Ends a trial's gang, if it has one: the holder of the lease keeps it, all others are sent away.
    pub(crate) fn dismiss(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let Some(gang) = self.gangs.remove(&trial_ref) else { return };
        let holder = self.trial(trial_ref).and_then(|trial| trial.lease.as_ref()).map(|lease| lease.worker);
        for &seat in gang.seats() {
            if Some(seat.worker) == holder {
                self.set_ganged(seat, false);
            } else {
                self.tell_revoked(trial_ref, seat.worker, RevokeReason::NotNeeded, out);
                self.unseat(trial_ref, seat);
            }
        }
    }

    /// An attempt failed on one worker. In a gang the others go on, unless all would fail alike; failures at one and the
    /// same step count against the trial.
    pub(crate) fn rank_failed(
        &mut self,
        trial_ref: TrialRef,
        worker: WorkerId,
        kind: FailureKind,
        message: String,
        seconds: f64,
        out: &mut Out<'_>,
    ) {
        if self.is_rigid(trial_ref) && self.gangs.contains_key(&trial_ref) {
            let end = AttemptEnd::Failed { kind, message };
            return self.rank_ends(trial_ref, worker, end, Some(seconds), out);
        }
        let alone =
            self.gangs.get(&trial_ref).is_none_or(|gang| gang.seats().all(|seat| seat.worker == worker));
        // A checkpoint that the gang has left behind may be gone: who has the state needs none.
        let needs_checkpoint = self.gangs.get(&trial_ref).is_none_or(|gang| !gang.has_state());
        if alone || kind.is_final() || (kind == FailureKind::Checkpoint && needs_checkpoint) {
            self.promote(trial_ref, worker);
            return self.fail(trial_ref, kind, message, seconds, out);
        }
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let most = sweep.spec.retry.max_failures;
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        let stuck = self.gangs.get_mut(&trial_ref).is_some_and(|gang| gang.note_failure(trial.step));
        if stuck && trial.failures + 1 >= most {
            self.promote(trial_ref, worker);
            return self.fail(trial_ref, kind, message, seconds, out);
        }
        trial.failures += u32::from(stuck);
        self.lose_seat(trial_ref, worker, AttemptEnd::Failed { kind, message }, Some(seconds), out);
    }
}
