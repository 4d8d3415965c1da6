//! The make-up of a gang: when it is changed, who has which rank in it, and what they are told.

use super::{Gang, Phase, Seat};
use crate::{
    action::{Action, AttemptEnd, GangPlace, RevokeReason},
    refs::{TrialRef, WorkerId},
    state::{Out, State},
};
use spotsweep_proto::{gang::Shares, ids::Epoch};

/// The shards are divided anew if the slowest rank of a step would then be done in less than this part of the time. What
/// ranks measure varies by some percent from one time to the next, and a change costs a few steps' time.
const LOPSIDED: f64 = 0.85;

impl State {
    /// The one decision about a gang's make-up, made after whatever changed: wait, form a new one, or give up.
    pub(crate) fn settle(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        if self.is_fixed(trial_ref) {
            return;
        }
        let min = self.workers_of(trial_ref).min as usize;
        if self.gangs.get(&trial_ref).is_some_and(|gang| gang.phase == Phase::Broken) {
            self.leave_behind(trial_ref, out);
        }
        self.let_go_of_the_slow(trial_ref, out);
        self.fill(trial_ref, out);
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        if gang.size() < min {
            return self.stand_down(trial_ref, AttemptEnd::Released, None, out);
        }
        let ready = gang.ready();
        let waited_s = out.at.seconds_since(gang.since);
        let forms = match gang.phase {
            Phase::Gathering if self.is_rigid(trial_ref) => {
                // One that was warned gives its seat back and is replaced.
                let stays = |seat: &Seat| seat.answered && self.interruption_of(seat.worker).is_none();
                gang.joining.iter().all(stays)
            }
            Phase::Gathering => {
                ready == gang.joining.len() || (ready >= min && waited_s >= self.config.gang_gather_s)
            }
            Phase::Forming | Phase::Broken => false,
            Phase::Formed => {
                ready > 0
                    || self.can_let_go(gang, min)
                    || (waited_s >= self.config.gang_settle_s && gang.is_lopsided())
            }
            Phase::Short => gang.ranks.len() + ready >= min,
        };
        if forms {
            self.form(trial_ref, out);
        }
    }

    /// Workers that prepare for too long make room for others.
    fn let_go_of_the_slow(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let limit_s = self.config.gang_prepare_s;
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        let is_slow = |seat: &&Seat| !seat.answered && out.at.seconds_since(seat.since) >= limit_s;
        let slow: Vec<WorkerId> = gang.joining.iter().filter(is_slow).map(|seat| seat.worker).collect();
        for worker in slow {
            self.tell_revoked(trial_ref, worker, RevokeReason::Stale, out);
            if self.gangs.get(&trial_ref).is_some_and(|gang| gang.seats().any(|seat| seat.worker != worker)) {
                self.vacate(trial_ref, worker);
            } else {
                return self.take_back(trial_ref, AttemptEnd::Released, None, out);
            }
        }
    }

    /// Whether the gang can do without ranks whose workers were warned: enough others are left, one with the state.
    fn can_let_go(&self, gang: &Gang, min: usize) -> bool {
        let stays = |seat: &&Seat| self.interruption_of(seat.worker).is_none();
        let others = gang.ranks.iter().filter(stays).count();
        others < gang.ranks.len() && others >= min.max(1) && gang.ranks.iter().any(|s| s.holds && stays(&s))
    }

    /// A break is over when every rank that can be heard has said so, or was given time to: the others are left behind.
    fn leave_behind(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let min = self.workers_of(trial_ref).min as usize;
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        let patient = out.at.seconds_since(gang.since) < self.config.gang_stall_s;
        let is_heard = |seat: &Seat| self.workers.get(&seat.worker).is_some_and(|worker| worker.is_heard());
        if patient && gang.ranks.iter().any(|seat| !seat.answered && is_heard(seat)) {
            return;
        }
        let silent: Vec<WorkerId> =
            gang.ranks.iter().filter(|seat| !seat.answered).map(|seat| seat.worker).collect();
        if silent.len() == gang.ranks.len() {
            return;
        }
        let had_state = gang.has_state();
        for worker in silent {
            self.tell_revoked(trial_ref, worker, RevokeReason::NotNeeded, out);
            self.vacate(trial_ref, worker);
        }
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return };
        if had_state && !gang.has_state() {
            return self.stand_down(trial_ref, AttemptEnd::Released, None, out);
        }
        gang.enter(Phase::Short, out.at);
        if gang.ranks.len() >= min {
            self.form(trial_ref, out);
        }
    }

    /// Makes a new make-up of the ranks that are left and of those that are ready to join.
    pub(super) fn form(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let min = self.workers_of(trial_ref).min as usize;
        let shards = self.shards_of(trial_ref);
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        let (joins, waits): (Vec<Seat>, Vec<Seat>) = gang.joining.iter().partition(|seat| seat.answered);
        let ranks = gang.ranks.iter().copied().chain(joins.iter().copied());
        let (mut leaves, mut ranks): (Vec<Seat>, Vec<Seat>) =
            ranks.partition(|seat| self.interruption_of(seat.worker).is_some());
        let holds = |seats: &[Seat]| seats.iter().any(|seat| seat.holds);
        if ranks.len() < min.max(1) || (holds(&leaves) && !holds(&ranks)) {
            // They go when they must: better some steps more than none, and nobody else has the state yet.
            ranks.append(&mut leaves);
        }
        // The first rank writes checkpoints and finishes, so it must be one whose word counts.
        ranks.sort_by_key(|seat| !seat.holds);
        let Some(gang) = self.gangs.get_mut(&trial_ref) else { return };
        gang.generation.0 += 1;
        (gang.fresh, gang.agreed) = (!holds(&ranks), false);
        gang.ranks = ranks.into_iter().map(|seat| Seat { answered: false, ..seat }).collect();
        gang.joining = waits;
        gang.leaving.extend(leaves);
        gang.shares = shares_of(shards, &gang.ranks);
        gang.enter(Phase::Forming, out.at);
        self.choose_holder(trial_ref);
        let told: Vec<WorkerId> = self
            .gangs
            .get(&trial_ref)
            .map(|gang| gang.ranks.iter().chain(&gang.leaving).map(|seat| seat.worker).collect())
            .unwrap_or_default();
        for worker in told {
            self.tell_place(trial_ref, worker, out);
        }
    }

    /// Tells a worker its place in a trial's gang, if it has one that it must know of. One in a make-up that is broken
    /// hears of the next: those who are left of it are no make-up.
    pub(crate) fn tell_place(&self, trial_ref: TrialRef, worker: WorkerId, out: &mut Out<'_>) {
        if let Some(trial) = self.trial(trial_ref)
            && let Some(gang) = self.gangs.get(&trial_ref)
            && (gang.is_whole() || gang.leaving.iter().any(|seat| seat.worker == worker))
            && !gang.joining.iter().any(|seat| seat.worker == worker)
            && let Some(session) = self.workers.get(&worker).and_then(|worker| worker.session())
        {
            let place = self.gang_place(gang, worker);
            out.push(Action::Regang { session, trial: trial_ref, epoch: Epoch(trial.epoch), place });
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "no more ranks than shards")]
    pub(super) fn gang_place(&self, gang: &Gang, worker: WorkerId) -> GangPlace {
        let rank = gang.ranks.iter().position(|seat| seat.worker == worker).map(|rank| rank as u32);
        GangPlace { generation: gang.generation, rank, shares: gang.shares.clone() }
    }
}

impl Gang {
    /// Whether another division of the shards would make steps notably shorter, by what all ranks say of their pace. A
    /// make-up that is about to change for another reason waits for that.
    fn is_lopsided(&self) -> bool {
        let known = self.ranks.iter().all(|seat| seat.shard_us.is_some());
        let shard_s = paces(&self.ranks);
        let better = || Shares::by_pace(self.shares.shards(), &shard_s).done_s(&shard_s);
        known && self.joining.is_empty() && better() < LOPSIDED * self.shares.done_s(&shard_s)
    }
}

/// Seconds that each rank takes for a shard; for one that has not said it, the mean of the others.
fn paces(ranks: &[Seat]) -> Vec<f64> {
    let known: Vec<f64> = ranks.iter().filter_map(|seat| seat.shard_us).map(seconds).collect();
    let mean = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    ranks.iter().map(|seat| seat.shard_us.map_or(mean, seconds)).collect()
}

fn seconds(us: u64) -> f64 {
    us as f64 * 1e-6
}

fn shares_of(shards: u32, ranks: &[Seat]) -> Shares {
    Shares::by_pace(shards, &paces(ranks))
}
