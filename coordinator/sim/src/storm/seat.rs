//! What an agent does with a seat in a gang: prepares, hears of make-ups, trains in step with its peers, leaves. When the
//! peers meet and part is in [`super::gang`].

use super::{
    agent::{Agent, Around, Effect, Lease, Timer, Up},
    ledger::{Breach, STEPS, loss},
    mistake::Mistake,
    training::{CHECKPOINT_STEPS, STORE_RETRY_S, checkpoint},
};
use spotsweep_engine::{
    TrialRef,
    action::GangPlace,
    event::{GangNews, ReportBody},
};
use spotsweep_proto::ids::Epoch;

/// Longest time to fetch and load all that a rank needs.
const PREPARE_S: f64 = 3.0;
/// How long a rank waits for the others of its make-up.
const MEET_S: f64 = 8.0;
/// How long one that was warned waits to be let go by the coordinator before it goes by itself.
const LET_GO_S: f64 = 1.5;

/// A rank tells of its pace after one in so many reports.
const PACE_ONE_IN: u64 = 4;

/// Which gang.
pub(crate) type Key = (TrialRef, Epoch);

/// A worker's part in a gang.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Part {
    /// It occupies the device.
    pub(crate) begun: bool,
    pub(crate) prepared: bool,
    /// Its checkpoint was there when it fetched it.
    fetched: bool,
    /// Newest make-up of which it was told; 0 before the first.
    pub(crate) told: u64,
    /// Its rank there; `None` as well where it was told to leave.
    pub(crate) rank: Option<u32>,
    /// Ranks of that make-up.
    pub(crate) ranks: usize,
    /// The make-up with which it trains.
    pub(crate) joined: Option<u64>,
    /// The make-up of which it said that it is broken.
    broken: Option<u64>,
    /// A program that waits for a lost peer.
    pub(super) waits_in_vain: bool,
}

impl Part {
    /// It waits for the others of this make-up.
    pub(crate) fn awaits(&self, generation: u64) -> bool {
        let told = self.told == generation && self.rank.is_some();
        told && self.prepared && self.joined.is_none() && self.broken != Some(generation)
    }

    /// It was told to leave.
    pub(crate) fn leaves(&self) -> bool {
        self.told > 0 && self.rank.is_none()
    }
}

impl Agent {
    /// Gangs of which it has a lease, ended or not.
    pub(crate) fn gangs(&self) -> Vec<Key> {
        let of_gangs = self.leases.iter().filter(|lease| lease.of_gang);
        of_gangs.map(|lease| (lease.trial, lease.epoch)).collect()
    }

    pub(crate) fn seat(&self, key: Key) -> Option<(&Lease, Part)> {
        let mut held = self.leases.iter().filter(|l| l.ended.is_none() && (l.trial, l.epoch) == key);
        held.find_map(|lease| Some((lease, lease.gang?)))
    }

    fn seat_mut(&mut self, key: Key) -> Option<&mut Lease> {
        self.leases.iter_mut().find(|l| l.ended.is_none() && l.gang.is_some() && (l.trial, l.epoch) == key)
    }

    fn part_mut(&mut self, key: Key) -> Option<&mut Part> {
        self.seat_mut(key).and_then(|lease| lease.gang.as_mut())
    }

    fn say(&self, key: Key, generation: u64, news: GangNews, around: &mut Around<'_>) {
        if !self.is_welcome() {
            return;
        }
        let resumed = |lease: &Lease| lease.resume.as_ref().map_or(0, |reference| reference.step);
        let step = self.seat(key).map_or(0, |(lease, _)| lease.step.unwrap_or_else(|| resumed(lease)));
        around.effects.push(Effect::Send(Up::Gang { trial: key.0, epoch: key.1, generation, step, news }));
    }

    /// Words about make-ups have no numbers: a new connection hears again what holds.
    pub(crate) fn say_again(&self, around: &mut Around<'_>) {
        for key in self.gangs() {
            let Some((_, part)) = self.seat(key).filter(|(_, part)| part.prepared) else { continue };
            if part.told == 0 {
                self.say(key, 0, GangNews::Ready, around);
            } else if part.broken == Some(part.told) {
                self.say(key, part.told, broken(), around);
            } else if part.joined == Some(part.told) {
                self.say(key, part.told, GangNews::Formed, around);
            }
        }
    }

    /// Begins to prepare for the seat that is next.
    pub(crate) fn begin_seat(&mut self, key: Key, around: &mut Around<'_>) {
        let Some(part) = self.part_mut(key) else { return };
        part.begun = true;
        self.training = true;
        self.turn += 1;
        let wait_s = around.dice.between_s(0.1, PREPARE_S);
        self.wait(wait_s, Timer::Prepared { turn: self.turn }, around);
    }

    /// Data, checkpoint and trainer are there. One that joins others takes their state over and can do without the
    /// checkpoint, which may have been overtaken.
    pub(crate) fn prepared(&mut self, around: &mut Around<'_>) -> Result<(), Breach> {
        let begun = |lease: &&Lease| lease.ended.is_none() && lease.gang.is_some_and(|part| part.begun);
        let Some(lease) = self.leases.iter().find(begun) else { return Ok(()) };
        let (key, resume, joins) = ((lease.trial, lease.epoch), lease.resume.clone(), lease.joins);
        let mut fetched = true;
        if let Some(reference) = &resume {
            if !around.store.answers(around.now) {
                self.wait(STORE_RETRY_S, Timer::Prepared { turn: self.turn }, around);
                return Ok(());
            }
            let missing = around.store.missing(reference);
            fetched = missing == 0;
            if !joins && !around.ledger.resumes(key.0, key.1, reference, missing)? {
                return self.fail_to_read(key, around);
            }
        }
        if let Some(part) = self.part_mut(key) {
            (part.prepared, part.fetched) = (true, fetched);
        }
        self.say(key, 0, GangNews::Ready, around);
        Ok(())
    }

    fn fail_to_read(&mut self, key: Key, around: &mut Around<'_>) -> Result<(), Breach> {
        let step = self.seat(key).map_or(0, |(lease, _)| lease.resume.as_ref().map_or(0, |r| r.step));
        let kind = spotsweep_proto::line::FailureKind::Checkpoint;
        let message = "the checkpoint is gone".to_owned();
        self.give_seat_back(key, ReportBody::Failed { step, kind, message, seconds: 0.0 }, around)
    }

    /// The coordinator says what the make-up is.
    pub(crate) fn regang(
        &mut self,
        key: Key,
        place: &GangPlace,
        around: &mut Around<'_>,
    ) -> Result<(), Breach> {
        let generation = place.generation.0;
        let Some(part) = self.part_mut(key).filter(|part| part.told < generation) else { return Ok(()) };
        (part.told, part.rank) = (generation, place.rank);
        part.ranks = place.shares.ranks() as usize;
        let (ranks, joined) = (part.ranks, part.joined);
        if part.rank.is_some() && joined.is_some() && ranks == 1 && self.is_program(key) {
            return self.program_is_alone(around);
        }
        if self.part_mut(key).is_some_and(|part| part.rank.is_some()) {
            self.wait(MEET_S, Timer::Unmet { key, generation }, around);
        }
        Ok(())
    }

    /// Some of the others did not come in time.
    pub(crate) fn unmet(&mut self, key: Key, generation: u64, around: &mut Around<'_>) -> Result<(), Breach> {
        let Some(part) = self.part_mut(key) else { return Ok(()) };
        let waits = part.told == generation && part.rank.is_some() && part.broken != Some(generation);
        if waits && part.joined != Some(generation) {
            part.broken = Some(generation);
            if self.is_program(key) {
                // Nobody said where rank 0 is.
                return self.leave(key, around);
            }
            self.part_from_others(key);
            self.say(key, generation, broken(), around);
        }
        Ok(())
    }

    /// Whether what trains there is a program.
    pub(super) fn is_program(&self, key: Key) -> bool {
        self.seat(key).is_some_and(|(lease, _)| lease.program)
    }

    /// Its program waits for a peer that is gone.
    pub(super) fn note_waiting(&mut self, key: Key) {
        if let Some(part) = self.part_mut(key) {
            part.waits_in_vain = true;
        }
    }

    /// A peer of this make-up is gone. The state is held.
    pub(crate) fn lost_peer(
        &mut self,
        key: Key,
        generation: u64,
        around: &mut Around<'_>,
    ) -> Result<(), Breach> {
        if self.is_program(key) {
            return self.program_lost_peer(key, generation, around);
        }
        let Some(part) = self.part_mut(key).filter(|part| part.joined == Some(generation)) else {
            return Ok(());
        };
        if part.told == generation {
            part.broken = Some(generation);
        }
        let told = part.told;
        self.part_from_others(key);
        if told == generation {
            self.say(key, generation, broken(), around);
        }
        Ok(())
    }

    /// It trains with nobody.
    pub(crate) fn part_from_others(&mut self, key: Key) {
        if let Some(part) = self.part_mut(key) {
            part.joined = None;
            // What it was about to write as the first rank is not its any more.
            self.turn += 1;
        }
    }

    /// From which step it would begin if nobody had any state; false if it cannot.
    pub(crate) fn offers(&self, key: Key) -> (u64, bool) {
        let Some((lease, part)) = self.seat(key) else { return (0, false) };
        (lease.resume.as_ref().map_or(0, |reference| reference.step), part.fetched)
    }

    /// Nobody has any state, and what was to be resumed from is gone.
    pub(crate) fn cannot_begin(&mut self, key: Key, around: &mut Around<'_>) -> Result<(), Breach> {
        self.fail_to_read(key, around)
    }

    /// All ranks are connected and have the state behind this step. One that held the state of the step before reports
    /// what it did not come to: its word counts, and the peer that made the step may be lost with its report.
    pub(crate) fn formed(&mut self, key: Key, generation: u64, step: u64, around: &mut Around<'_>) {
        let Some(lease) = self.seat_mut(key) else { return };
        let (is_program, is_other) = (lease.program, lease.is_other_program());
        let held = lease.step.replace(step);
        if let Some(part) = lease.gang.as_mut() {
            part.joined = Some(generation);
        }
        let is_behind = !is_program && held.is_some_and(|held| held < step);
        if is_behind && around.mistake != Some(Mistake::TakenOverUnreported) {
            self.report_progress(key, step, around);
        }
        self.say(key, generation, GangNews::Formed, around);
        if held.is_none() && !is_other {
            let body = ReportBody::Started { step, total_steps: Some(STEPS) };
            self.report(key.0, key.1, body, around);
        }
    }

    /// Some steps were made with the others.
    pub(crate) fn trained(&mut self, key: Key, step: u64, is_first: bool, around: &mut Around<'_>) {
        let Some(lease) = self.seat_mut(key) else { return };
        lease.step = Some(step);
        if lease.is_other_program() {
            return;
        }
        let program = lease.program;
        self.report_progress(key, step, around);
        if !program
            && around.dice.one_in(PACE_ONE_IN)
            && let Some(generation) = self.seat(key).and_then(|(_, part)| part.joined)
        {
            // From one time to the next it may be a very different one.
            let shard_us = 1 + around.dice.below(100_000);
            self.say(key, generation, GangNews::Pace { shard_us }, around);
        }
        if is_first && step < STEPS && step.is_multiple_of(CHECKPOINT_STEPS) {
            self.upload(key.0, key.1, checkpoint(key.0, step, false), around);
        }
    }

    fn report_progress(&mut self, key: Key, step: u64, around: &mut Around<'_>) {
        let metrics = vec![(0, loss(key.0, step))];
        self.report(key.0, key.1, ReportBody::Progress { step, data_epoch: 0.0, metrics }, around);
    }

    /// It was told to leave and has come to the end of a step.
    pub(crate) fn leave(&mut self, key: Key, around: &mut Around<'_>) -> Result<(), Breach> {
        let Some((lease, _)) = self.seat(key) else { return Ok(()) };
        let step = lease.step.unwrap_or(0);
        self.give_seat_back(key, ReportBody::Released { step, seconds: 1.0 }, around)
    }

    /// The last report about a seat.
    pub(crate) fn give_seat_back(
        &mut self,
        key: Key,
        body: ReportBody,
        around: &mut Around<'_>,
    ) -> Result<(), Breach> {
        self.end(key.0, key.1, body, around);
        self.stop_training();
        self.go_on(around)?;
        self.ready(around);
        Ok(())
    }

    /// A lease is one rank's alone from now on: it stops with a checkpoint.
    pub(crate) fn keep_alone(&mut self, key: Key) {
        if let Some(lease) = self.seat_mut(key) {
            lease.silent = lease.is_other_program();
            lease.gang = None;
        }
    }

    /// The machine will be taken: whoever has a rank is let go between two steps, or goes.
    pub(crate) fn ask_to_be_let_go(&self, around: &mut Around<'_>) {
        for key in self.gangs() {
            if self.seat(key).is_some() {
                self.wait(LET_GO_S, Timer::LetGo { key }, around);
            }
        }
    }

    /// It was not let go in time.
    pub(crate) fn let_go(&mut self, key: Key, around: &mut Around<'_>) -> Result<(), Breach> {
        let Some((lease, _)) = self.seat(key) else { return Ok(()) };
        if lease.step.is_some() {
            self.keep_alone(key);
            self.stop_with_checkpoint(around);
            return Ok(());
        }
        self.leave(key, around)
    }
}

impl Lease {
    /// Whether it is a program that is not the first.
    fn is_other_program(&self) -> bool {
        self.program && self.gang.is_some_and(|part| part.rank != Some(0))
    }
}

fn broken() -> GangNews {
    GangNews::Broken { message: "a peer is gone".to_owned() }
}
