//! What is different where the ranks of a gang are programs: rank 0 alone reports, nobody goes on without a peer, and each is
//! done by itself.

use super::{
    agent::{Agent, Around, Timer},
    gang::Member,
    ledger::{Breach, STEPS, loss},
    seat::Key,
    training::checkpoint,
    world::World,
};
use crate::content::content;
use spotsweep_engine::event::ReportBody;
use spotsweep_proto::{line::FailureKind, program::ProgramSection};

/// One in so many programs that lost a peer fails at once; the others wait for it in vain.
const FAILS_AT_ONCE_ONE_IN: u64 = 2;
/// How long such a program waits before it fails as well.
const IN_VAIN_S: f64 = 5.0;

/// The program of such a sweep.
pub(super) fn section() -> ProgramSection {
    ProgramSection::of_command(vec!["true".to_owned()])
}

impl World {
    /// All ranks have made the last step: each ends by itself, and rank 0 keeps its result until it hears that it is alone.
    pub(super) fn programs_end(&mut self, key: Key, members: &[Member]) -> Result<(), Breach> {
        for &(index, _) in members.iter().skip(1) {
            self.with_agent(index, |agent, around| {
                let body = ReportBody::Finished {
                    step: STEPS,
                    metrics: Vec::new(),
                    weights_digest: None,
                    seconds: 1.0,
                };
                agent.give_seat_back(key, body, around)
            })?;
        }
        Ok(())
    }
}

impl Agent {
    /// A program lost a peer: it fails, sooner or later.
    pub(super) fn program_lost_peer(
        &mut self,
        key: Key,
        generation: u64,
        around: &mut Around<'_>,
    ) -> Result<(), Breach> {
        let Some((lease, part)) = self.seat(key).filter(|(_, part)| part.joined == Some(generation)) else {
            return Ok(());
        };
        let (step, waits) = (lease.step.unwrap_or(0), part.waits_in_vain);
        if !waits && !around.dice.one_in(FAILS_AT_ONCE_ONE_IN) {
            self.note_waiting(key);
            self.wait(IN_VAIN_S, Timer::LostPeer { key, generation }, around);
            return Ok(());
        }
        let (kind, message) = (FailureKind::Crashed, "a peer is gone".to_owned());
        self.give_seat_back(key, ReportBody::Failed { step, kind, message, seconds: 1.0 }, around)
    }

    /// Rank 0 hears that all others are done.
    pub(super) fn program_is_alone(&mut self, around: &mut Around<'_>) -> Result<(), Breach> {
        self.stopped(around)
    }

    /// A program has stopped as it was told, or is done and alone: rank 0 saves what it has, then its last report comes. True
    /// if the store does not answer.
    pub(super) fn program_stopped(&mut self, around: &mut Around<'_>) -> Result<bool, Breach> {
        let Some(lease) = self.in_training() else { return Ok(false) };
        let (trial, epoch, step) = (lease.trial, lease.epoch, lease.step.unwrap_or(0));
        let done = step >= STEPS && lease.gang.is_some_and(|part| part.ranks == 1);
        let is_new = step > lease.resume.as_ref().map_or(0, |reference| reference.step);
        if !lease.silent && (done || is_new) {
            if !around.store.answers(around.now) {
                return Ok(true);
            }
            let reference = checkpoint(trial, step, done);
            around.store.put(&reference);
            self.report(trial, epoch, ReportBody::Checkpoint(reference), around);
        }
        let body = if done {
            let metrics = vec![(0, loss(trial, step))];
            ReportBody::Finished {
                step,
                metrics,
                weights_digest: Some(content(0, u64::from(trial.number), STEPS)),
                seconds: 1.0,
            }
        } else {
            ReportBody::Released { step, seconds: 1.0 }
        };
        self.end(trial, epoch, body, around);
        Ok(false)
    }
}
