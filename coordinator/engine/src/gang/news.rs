//! What ranks say of their make-up and of training, and whose word counts. What follows from it is decided in
//! [`super::make_up`].

use super::Phase;
use crate::{
    action::{Action, RevokeReason},
    event::GangNews,
    refs::{SessionId, TrialRef, WorkerId},
    state::{Out, State},
};
use spotsweep_proto::{gang::Generation, ids::Epoch, line::FailureKind};

/// Make-ups that break in a row without a step in between, after which the attempt fails: its ranks cannot reach each
/// other, and trying on would never end.
const BREAKS: u32 = 10;

impl State {
    /// A rank says how its make-up stands.
    pub(crate) fn gang_news(
        &mut self,
        session: SessionId,
        (trial_ref, epoch): (TrialRef, Epoch),
        generation: Generation,
        step: u64,
        news: GangNews,
        out: &mut Out<'_>,
    ) {
        let Some(&id) = self.sessions.get(&session) else { return };
        self.hear(id, out);
        let current = self.trial(trial_ref).is_some_and(|trial| Epoch(trial.epoch) == epoch);
        if !current || self.workers.get(&id).is_none_or(|worker| !worker.leases.contains(&trial_ref)) {
            // It would wait for the others for ever.
            let reason = RevokeReason::Stale;
            return out.push(Action::Revoke { session, trial: trial_ref, epoch, reason });
        }
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return };
        let current = gang.generation == generation;
        if let Some(seat) = gang.joining.iter_mut().find(|seat| seat.worker == id) {
            // Whatever it says, it has all that it needs. One that never heard that it was left behind, and got another
            // seat, speaks of the make-up that it knows.
            seat.answered = true;
        }
        match news {
            GangNews::Ready => {}
            GangNews::Formed | GangNews::Pace { .. } => {
                if let Some(seat) = gang.ranks.iter_mut().find(|seat| seat.worker == id && current) {
                    seat.holds |= gang.fresh;
                    gang.agreed |= seat.holds && !gang.fresh;
                    if let GangNews::Pace { shard_us } = news {
                        seat.shard_us = Some(shard_us);
                    }
                    if gang.phase == Phase::Forming {
                        gang.enter(Phase::Formed, out.at);
                        gang.advance(step);
                    }
                }
            }
            GangNews::Broken { message } => {
                let Some(seat) = gang.ranks.iter_mut().find(|seat| seat.worker == id && current) else {
                    return;
                };
                seat.answered = true;
                gang.advance(step);
                match gang.phase {
                    Phase::Forming | Phase::Formed => {
                        gang.enter(Phase::Broken, out.at);
                        gang.breaks += 1;
                    }
                    Phase::Gathering | Phase::Broken | Phase::Short => {}
                }
                if gang.breaks > BREAKS {
                    let message = format!("its workers cannot train together: {message}");
                    return self.fail(trial_ref, FailureKind::Internal, message, 0.0, out);
                }
            }
        }
        self.catch_up(trial_ref);
        self.settle(trial_ref, out);
    }

    /// A rank reports of training: it has the state, even if its word that the gang formed was lost.
    pub(crate) fn note_state(&mut self, trial_ref: TrialRef, worker: WorkerId) {
        let Some(gang) = self.gangs.get_mut(&trial_ref).filter(|gang| gang.fresh) else { return };
        for seat in gang.ranks.iter_mut().filter(|seat| seat.worker == worker) {
            seat.holds = true;
        }
    }

    /// Whether a point of this worker counts. If not, somebody else's word for it is awaited.
    pub(crate) fn point_counts(&mut self, trial_ref: TrialRef, worker: WorkerId, step: u64) -> bool {
        let Some(seat) = self.gangs.get_mut(&trial_ref).and_then(|gang| gang.seat_mut(worker)) else {
            return true;
        };
        if !seat.holds {
            seat.owes_until = seat.owes_until.max(step.saturating_add(1));
        }
        seat.holds
    }

    /// Whether what this worker stores or finishes counts: all that led there is reported.
    pub(crate) fn is_complete(&self, trial_ref: TrialRef, worker: WorkerId) -> bool {
        let Some(gang) = self.gangs.get(&trial_ref) else { return true };
        gang.seat(worker).is_some_and(|seat| seat.holds)
    }

    /// Newcomers for whose state others have given their word hold it, once what they said too early came from others.
    pub(crate) fn catch_up(&mut self, trial_ref: TrialRef) {
        let Some(reported_until) = self.trial(trial_ref).map(|trial| trial.points_until) else { return };
        let Some(gang) = self.gangs.get_mut(&trial_ref).filter(|gang| gang.agreed) else { return };
        for seat in gang.ranks.iter_mut().filter(|seat| !seat.holds && seat.owes_until <= reported_until) {
            (seat.holds, seat.owes_until) = (true, 0);
        }
    }
}
