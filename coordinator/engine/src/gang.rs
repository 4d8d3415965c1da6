//! Gangs: the workers that train one trial together. Owns who has which seat. Who gets one is [`growth`]'s, when the make-up
//! changes [`make_up`]'s, what ranks say is [`news`]'s and how seats end [`leaving`]'s; what leases and reports mean stays
//! where it is.
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
//!
//! Gangs of programs never change: what is different about them is [`rigid`]'s.

mod growth;
mod leaving;
mod make_up;
mod news;
mod rigid;

use crate::{
    config::Config,
    refs::{TrialRef, WorkerId},
    state::State,
    time::Time,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    gang::{Generation, Shares},
    spec::Workers,
};

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
    /// Which shards each rank of this make-up carries.
    shares: Shares,
    /// Why all of it is being stopped; only of a rigid one.
    cause: Option<rigid::Cause>,
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
    /// When it was given.
    since: Time,
    /// Time that it takes for one shard of a step, in microseconds, as it said last.
    shard_us: Option<u64>,
}

impl Seat {
    /// One that was just given.
    pub(crate) fn new(worker: WorkerId, device: u16, at: Time) -> Self {
        Self { worker, device, answered: false, holds: false, owes_until: 0, since: at, shard_us: None }
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
            shares: Shares::even(1, 1),
            cause: None,
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
        if self.is_stopping() {
            return None;
        }
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
