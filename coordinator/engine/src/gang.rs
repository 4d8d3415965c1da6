//! Gangs: the workers that train one trial together. Owns who has which seat and when the make-up changes; who gets a seat
//! is [`growth`]'s, and what leases and reports mean stays where it is.
//!
//! A trial has one lease and one epoch, however many workers train it. Its holder is rank 0, or before there are ranks the
//! first seat; every seat stands in its worker's books as a lease does. A worker with a seat prepares and says so; a
//! make-up counts on workers that did. Each make-up has a generation: what a rank says of an older one is late and means
//! nothing. No rank finishes a step without all others of its generation, so reports of one step are the same from
//! whomever they come, and each counts once.
//!
//! A newcomer takes over the state behind some step, but not what was reported up to there, which may still be on its way.
//! So its reports count only once a rank that was there before has said that the make-up formed: it said so behind its own
//! reports. Until then the newcomer's own word is worth nothing, and if all who were there before are lost, so is the
//! state; the trial goes on from its checkpoint.

mod growth;

use crate::{
    action::{Action, AttemptEnd, GangPlace, RevokeReason},
    config::Config,
    event::GangNews,
    refs::{SessionId, TrialRef, WorkerId},
    state::{Out, State},
    time::Time,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    gang::{Generation, Shares},
    ids::Epoch,
    line::FailureKind,
    spec::Workers,
};

/// Make-ups that break in a row without a step in between, after which the attempt fails: its ranks cannot reach each
/// other, and trying on would never end.
const BREAKS: u32 = 10;

/// Several workers and one trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Gang {
    pub(crate) generation: Generation,
    pub(crate) phase: Phase,
    /// Since when it is in this phase.
    pub(crate) since: Time,
    /// Those of the present make-up that are not lost, by rank.
    pub(crate) ranks: Vec<Seat>,
    /// Those that no make-up counted on yet.
    pub(crate) joining: Vec<Seat>,
    /// Those that were told to leave and hold their device until they have.
    pub(crate) leaving: Vec<Seat>,
    /// Newest step that a rank held when it formed or broke.
    step: u64,
    /// Breaks in a row without a step.
    breaks: u32,
    /// The ranks of this make-up began it together: nobody had the state before.
    fresh: bool,
    /// A rank that had the state before has said that this make-up formed.
    agreed: bool,
}

/// A worker's part in a gang.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seat {
    pub(crate) worker: WorkerId,
    pub(crate) device: u16,
    /// It is ready to join, or, with a rank, has said that the gang is broken.
    pub(crate) answered: bool,
    /// It has the trial's state in memory, and all that led there is reported.
    pub(crate) holds: bool,
    /// Points below this step came from it and did not count; 0 if none did.
    owes_until: u64,
    /// Its step when it said that the gang was broken.
    broke_at: u64,
    /// When it was given.
    since: Time,
}

impl Seat {
    /// One that was just given.
    pub(crate) fn new(worker: WorkerId, device: u16, at: Time) -> Self {
        Self { worker, device, answered: false, holds: false, owes_until: 0, broke_at: 0, since: at }
    }
}

/// How far a make-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// There was none yet: workers prepare.
    Gathering,
    /// Ranks were told, and connect.
    Forming,
    /// They train.
    Formed,
    /// A rank has lost a peer: it is found out who is left.
    Broken,
    /// Too few are left, and hold their state until others are ready.
    Short,
}

impl Gang {
    fn new(at: Time) -> Self {
        Self {
            generation: Generation(0),
            phase: Phase::Gathering,
            since: at,
            ranks: Vec::new(),
            joining: Vec::new(),
            leaving: Vec::new(),
            step: 0,
            breaks: 0,
            fresh: true,
            agreed: false,
        }
    }

    /// Every seat.
    pub(crate) fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.ranks.iter().chain(&self.joining).chain(&self.leaving)
    }

    pub(crate) fn seat(&self, worker: WorkerId) -> Option<&Seat> {
        self.seats().find(|seat| seat.worker == worker)
    }

    pub(crate) fn has(&self, worker: WorkerId) -> bool {
        self.seat(worker).is_some()
    }

    pub(crate) fn seat_mut(&mut self, worker: WorkerId) -> Option<&mut Seat> {
        let Self { ranks, joining, leaving, .. } = self;
        ranks.iter_mut().chain(joining).chain(leaving).find(|seat| seat.worker == worker)
    }

    /// Seats that train or will.
    pub(crate) fn size(&self) -> usize {
        self.ranks.len() + self.joining.len()
    }

    /// When time alone changes something about it.
    pub(crate) fn due(&self, config: &Config) -> Option<Time> {
        match self.phase {
            Phase::Gathering => Some(self.since.after_s(config.gang_gather_s)),
            Phase::Formed => Some(self.since.after_s(config.gang_settle_s)),
            Phase::Broken => Some(self.since.after_s(config.gang_stall_s)),
            Phase::Forming | Phase::Short => None,
        }
    }

    pub(crate) fn is_formed(&self) -> bool {
        self.phase == Phase::Formed
    }

    /// Whether its ranks are those of its make-up.
    fn is_whole(&self) -> bool {
        matches!(self.phase, Phase::Forming | Phase::Formed)
    }

    /// Whether a rank has the state in memory, from which the others take it over.
    fn has_state(&self) -> bool {
        self.ranks.iter().any(|seat| seat.holds)
    }

    fn ready(&self) -> usize {
        self.joining.iter().filter(|seat| seat.answered).count()
    }

    /// Takes a worker's seat away; true if it had a rank.
    fn remove(&mut self, worker: WorkerId) -> Option<(Seat, bool)> {
        for (list, has_rank) in
            [(&mut self.ranks, true), (&mut self.joining, false), (&mut self.leaving, false)]
        {
            if let Some(index) = list.iter().position(|seat| seat.worker == worker) {
                return Some((list.remove(index), has_rank));
            }
        }
        None
    }

    fn enter(&mut self, phase: Phase, at: Time) {
        (self.phase, self.since) = (phase, at);
    }
}

impl State {
    /// How many workers the trials of this sweep want.
    pub(crate) fn workers_of(&self, trial_ref: TrialRef) -> Workers {
        self.sweep(trial_ref.sweep).map_or_else(Workers::default, |sweep| sweep.spec.resources.workers)
    }

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
            GangNews::Formed => {
                if let Some(seat) = gang.ranks.iter_mut().find(|seat| seat.worker == id && current) {
                    seat.holds |= gang.fresh;
                    gang.agreed |= seat.holds && !gang.fresh;
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
                (seat.answered, seat.broke_at) = (true, step);
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

    /// The one decision about a gang's make-up, made after whatever changed: wait, form a new one, or give up.
    pub(crate) fn settle(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
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
            Phase::Gathering => {
                ready == gang.joining.len() || (ready >= min && waited_s >= self.config.gang_gather_s)
            }
            Phase::Forming | Phase::Broken => false,
            Phase::Formed => ready > 0 || self.can_let_go(gang, min),
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
    fn form(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let min = self.workers_of(trial_ref).min as usize;
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        let (joins, waits): (Vec<Seat>, Vec<Seat>) = gang.joining.iter().partition(|seat| seat.answered);
        // Ranks can be one step apart when their gang breaks: the newest state is taken over by the others.
        let newest = gang.ranks.iter().filter(|seat| seat.answered).map(|seat| seat.broke_at).max();
        let held = gang.ranks.iter().map(|seat| {
            let is_newest = !seat.answered || Some(seat.broke_at) == newest;
            Seat { holds: seat.holds && is_newest, ..*seat }
        });
        let held: Vec<Seat> = held.collect();
        if gang.has_state() && !held.iter().any(|seat| seat.holds) {
            // The newest state is a newcomer's, and what led there is not reported: an older one whose past is, is worth more.
            return self.stand_down(trial_ref, AttemptEnd::Released, None, out);
        }
        let ranks = held.into_iter().chain(joins.iter().copied());
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
            let place = self.gang_place(trial_ref, gang, worker);
            out.push(Action::Regang { session, trial: trial_ref, epoch: Epoch(trial.epoch), place });
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "no more ranks than shards")]
    fn gang_place(&self, trial_ref: TrialRef, gang: &Gang, worker: WorkerId) -> GangPlace {
        let shards = self.sweep(trial_ref.sweep).map_or(1, |sweep| sweep.spec.train.shards);
        let rank = gang.ranks.iter().position(|seat| seat.worker == worker).map(|rank| rank as u32);
        GangPlace {
            generation: gang.generation,
            rank,
            shares: Shares::even(shards, gang.ranks.len().max(1) as u32),
        }
    }

    /// The lease is rank 0's, or before there are ranks the first seat's.
    fn choose_holder(&mut self, trial_ref: TrialRef) {
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
    fn vacate(&mut self, trial_ref: TrialRef, worker: WorkerId) -> bool {
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
    fn stand_down(&mut self, trial_ref: TrialRef, end: AttemptEnd, seconds: Option<f64>, out: &mut Out<'_>) {
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

impl Gang {
    /// A rank holds the state behind `step`.
    fn advance(&mut self, step: u64) {
        if step > self.step {
            (self.step, self.breaks) = (step, 0);
        }
    }

    /// A rank failed; whether no step was made since the last that did.
    fn note_failure(&mut self, step: u64) -> bool {
        let stuck = step <= self.step && self.breaks > 0;
        self.advance(step);
        self.breaks += 1;
        stuck
    }
}
