//! What notices change: who gets no more leases, who gets them last, and which trials move away.
//!
//! After a notice of interruption a worker gets nothing more; it hands over by itself. After a rebalance
//! recommendation it is a worker like any other except that leases go elsewhere first, and that its trials move
//! as soon as that costs less than it saves. Must not know where notices come from.

use crate::{
    action::{AttemptEnd, RevokeReason},
    refs::{SessionId, TrialRef, WorkerId},
    state::{Out, State},
    time::Time,
    trial::{Lease, Trial},
    worker::Worker,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::notice::Notice;

/// What a move costs a trial, in seconds: a checkpoint written, stored and fetched, and a start elsewhere. A trial
/// with less than this to go is not moved.
const MOVE_COST_S: f64 = 30.0;

/// A notice and when it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerNotice {
    pub(crate) notice: Notice,
    pub(crate) at: Time,
}

impl State {
    pub(crate) fn noticed(&mut self, session: SessionId, notice: Notice, out: &Out<'_>) {
        let Some(&id) = self.sessions.get(&session) else { return };
        self.hear(id, out);
        // The first interruption is the reason for all that follows; a recommendation gives way to it.
        let news = match self.notices.get(&id) {
            None => true,
            Some(known) => notice.kind.is_interruption() && !known.notice.kind.is_interruption(),
        };
        if news {
            self.withdraw(id);
            self.notices.insert(id, WorkerNotice { notice, at: out.at });
            self.offer(id);
        }
    }

    /// Whether the worker was warned of anything.
    pub(crate) fn is_noticed(&self, id: WorkerId) -> bool {
        self.notices.contains_key(&id)
    }

    /// The notice after which the worker leaves.
    pub(crate) fn interruption_of(&self, id: WorkerId) -> Option<&Notice> {
        let known = self.notices.get(&id).map(|known| &known.notice);
        known.filter(|notice| notice.kind.is_interruption())
    }

    /// Whether new leases may go to this worker.
    pub(crate) fn takes_leases(&self, id: WorkerId, worker: &Worker) -> bool {
        worker.is_heard() && self.interruption_of(id).is_none()
    }

    /// How an attempt ended, with the notice that was behind it if there was one: the worker had to leave, or the
    /// trial was moved away from it.
    pub(crate) fn blame_notice(&self, end: AttemptEnd, trial: &Trial, lease: &Lease) -> AttemptEnd {
        let notice = match end {
            AttemptEnd::Released if lease.revoked == Some(RevokeReason::Moved) => {
                self.notices.get(&lease.worker).map(|known| &known.notice)
            }
            AttemptEnd::Released
            | AttemptEnd::WorkerGone
            | AttemptEnd::Disconnected
            | AttemptEnd::Expired => self.interruption_of(lease.worker),
            AttemptEnd::Finished
            | AttemptEnd::Failed { .. }
            | AttemptEnd::Revoked { .. }
            | AttemptEnd::Noticed { .. }
            | AttemptEnd::Unreadable { .. } => None,
        };
        match notice {
            Some(notice) => {
                let kept = trial.resume_point().map_or(0, |checkpoint| checkpoint.step);
                let lost_steps = trial.step.saturating_sub(kept);
                AttemptEnd::Noticed { notice: notice.clone(), lost_steps }
            }
            None => end,
        }
    }

    /// Tells workers under a rebalance recommendation to give back the trials for which an idle device stands ready
    /// elsewhere: in order of workers and trials, never more at a time than there are such devices.
    pub(crate) fn move_from_noticed(&mut self, out: &mut Out<'_>) {
        if self.notices.is_empty() || !self.placement.has_idle_unnoticed() {
            return;
        }
        let (mut under_way, mut candidates) = (0, Vec::new());
        for id in self.notices.keys() {
            let Some(worker) = self.workers.get(id) else { continue };
            let stays = self.interruption_of(*id).is_none() && worker.session().is_some();
            for &trial_ref in &worker.leases {
                let Some(trial) = self.trial(trial_ref) else { continue };
                let Some(lease) = &trial.lease else { continue };
                under_way += usize::from(lease.revoked == Some(RevokeReason::Moved));
                if stays && lease.revoked.is_none() && worth_moving(trial, lease) {
                    candidates.push(trial_ref);
                }
            }
        }
        for trial_ref in candidates {
            let Some(demand) = self.demand_of(trial_ref) else { continue };
            if self.placement.idle_unnoticed(demand) > under_way {
                under_way += 1;
                self.move_away(trial_ref, out);
            }
        }
    }

    fn move_away(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let reason = RevokeReason::Moved;
        if let Some(lease) = self.trial_mut(trial_ref).and_then(|trial| trial.lease.as_mut()) {
            lease.revoked = Some(reason);
        }
        self.tell_revoked(trial_ref, reason, out);
    }
}

/// Whether a trial has more to go than [`MOVE_COST_S`], at its own speed so far. Where its length is not known, one
/// that has run for that long counts as one that goes on. Looks at what was reported only, so that no moment
/// between two reports changes the answer.
fn worth_moving(trial: &Trial, lease: &Lease) -> bool {
    if lease.started_at.is_none() {
        return false;
    }
    let here_s = lease.seconds_known();
    if trial.total_steps == 0 || trial.step == 0 {
        return here_s >= MOVE_COST_S;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate; steps are far below 2^53")]
    let (done, left) = (trial.step as f64, trial.total_steps.saturating_sub(trial.step) as f64);
    (trial.seconds + here_s) / done * left >= MOVE_COST_S
}
