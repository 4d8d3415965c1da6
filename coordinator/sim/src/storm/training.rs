//! What an agent does with its leases: fetches the checkpoint, trains one attempt at a time in virtual time, writes
//! checkpoints, stops when told.

use super::{
    agent::{Agent, Around, Lease, Timer},
    ledger::{Breach, REPORT_STEPS, STEPS, loss},
    mistake::Mistake,
};
use crate::content::content;
use spotsweep_engine::{
    Time, TrialRef,
    event::{CheckpointRef, ReportBody},
};
use spotsweep_proto::{digest::Digest, ids::Epoch, line::FailureKind};

/// Steps between two checkpoints.
pub(crate) const CHECKPOINT_STEPS: u64 = 10;
/// Longest time from a checkpoint's step to the coordinator's having it, of a worker that nothing disturbs.
pub(crate) const HANDOVER_S: f64 = 4.0;
/// Longest time from a notice to a worker's being empty, of a worker that nothing disturbs.
pub(crate) const DRAIN_S: f64 = 4.0;
/// Longest time that an upload takes where the store answers.
const UPLOAD_S: f64 = 2.0;
/// Longest time from the order to stop to the end of the step.
const STOP_S: f64 = 0.3;
/// Wait before a store that did not answer is asked again.
pub(crate) const STORE_RETRY_S: f64 = 1.0;
/// One attempt in so many reports crashes.
const CRASH_ONE_IN: u64 = 150;

impl Agent {
    /// Begins the next lease if nothing is in training.
    pub(crate) fn go_on(&mut self, around: &mut Around<'_>) -> Result<(), Breach> {
        while !self.training {
            let Some(lease) = self.leases.iter_mut().find(|lease| lease.ended.is_none()) else { break };
            if lease.gang.is_some() {
                let key = (lease.trial, lease.epoch);
                self.begin_seat(key, around);
                break;
            }
            let resume = lease.resume.clone();
            let step = resume.as_ref().map_or(0, |reference| reference.step);
            let (trial, epoch) = (lease.trial, lease.epoch);
            if resume.is_some() && !around.store.answers(around.now) {
                self.training = true;
                self.turn += 1;
                self.wait(STORE_RETRY_S, Timer::Begin { turn: self.turn }, around);
                break;
            }
            lease.step = Some(step);
            if let Some(reference) = resume {
                let missing = around.store.missing(&reference);
                if !around.ledger.resumes(trial, epoch, &reference, missing)? {
                    let message = "the checkpoint is gone".to_owned();
                    let kind = FailureKind::Checkpoint;
                    self.end(trial, epoch, ReportBody::Failed { step, kind, message, seconds: 0.0 }, around);
                    self.ready(around);
                    continue;
                }
            }
            self.training = true;
            self.turn += 1;
            self.report(trial, epoch, ReportBody::Started { step, total_steps: Some(STEPS) }, around);
            self.train_on(around);
        }
        Ok(())
    }

    fn train_on(&mut self, around: &mut Around<'_>) {
        let wait_s = around.dice.between_s(0.2, 1.5);
        self.wait(wait_s, Timer::Train { turn: self.turn }, around);
    }

    pub(crate) fn timer(&mut self, timer: Timer, around: &mut Around<'_>) -> Result<(), Breach> {
        match timer {
            Timer::Begin { turn } if turn == self.turn && self.training => {
                self.training = false;
                self.go_on(around)?;
            }
            Timer::Train { turn } if turn == self.turn && self.training => self.train(around)?,
            Timer::Stop { turn } if turn == self.turn && self.training => self.stopped(around)?,
            Timer::Prepared { turn } if turn == self.turn && self.training => self.prepared(around)?,
            Timer::Begin { .. } | Timer::Train { .. } | Timer::Stop { .. } | Timer::Prepared { .. } => {}
            Timer::Unmet { key, generation } => self.unmet(key, generation, around)?,
            Timer::LostPeer { key, generation } => self.lost_peer(key, generation, around)?,
            Timer::LetGo { key } => self.let_go(key, around)?,
            Timer::Upload { trial, epoch, reference } => self.upload(trial, epoch, reference, around),
            Timer::Uploaded { trial, epoch, reference } => {
                if self.holds(trial, epoch) {
                    self.report(trial, epoch, ReportBody::Checkpoint(reference), around);
                }
            }
        }
        Ok(())
    }

    fn holds(&self, trial: TrialRef, epoch: Epoch) -> bool {
        self.leases.iter().any(|lease| lease.ended.is_none() && (lease.trial, lease.epoch) == (trial, epoch))
    }

    /// A few steps are done.
    fn train(&mut self, around: &mut Around<'_>) -> Result<(), Breach> {
        let now = around.now;
        let Some(lease) = self.leases.iter_mut().find(|l| l.ended.is_none() && l.step.is_some()) else {
            return Ok(());
        };
        let (trial, epoch) = (lease.trial, lease.epoch);
        // An attempt that resumes from the final weights (the result was lost on the way) has nothing to train.
        let step = (lease.step.unwrap_or(0) + REPORT_STEPS).min(STEPS);
        lease.step = Some(step);
        let written = step < STEPS && step.is_multiple_of(CHECKPOINT_STEPS);
        if written {
            lease.taken.push((now, step));
        }
        let metrics = vec![(0, loss(trial, step))];
        self.report(trial, epoch, ReportBody::Progress { step, data_epoch: 0.0, metrics }, around);
        if step >= STEPS {
            return self.stopped(around);
        }
        if around.dice.one_in(CRASH_ONE_IN) {
            let (kind, message) = (FailureKind::Crashed, "crashed".to_owned());
            self.end(trial, epoch, ReportBody::Failed { step, kind, message, seconds: 1.0 }, around);
            self.stop_training();
            self.go_on(around)?;
            self.ready(around);
            return Ok(());
        }
        if written {
            self.upload(trial, epoch, checkpoint(trial, step, false), around);
        }
        self.train_on(around);
        Ok(())
    }

    /// Writes a checkpoint while training goes on, as soon as the store answers.
    pub(crate) fn upload(
        &mut self,
        trial: TrialRef,
        epoch: Epoch,
        reference: CheckpointRef,
        around: &mut Around<'_>,
    ) {
        if !self.holds(trial, epoch) {
            return;
        }
        if around.store.answers(around.now) {
            // What is there already is not uploaded again, but the report takes its time.
            around.store.put(&reference);
            let wait_s = around.dice.between_s(0.0, UPLOAD_S);
            self.wait(wait_s, Timer::Uploaded { trial, epoch, reference }, around);
        } else if around.mistake == Some(Mistake::ReportBeforeUpload) {
            self.report(trial, epoch, ReportBody::Checkpoint(reference), around);
        } else {
            self.wait(STORE_RETRY_S, Timer::Upload { trial, epoch, reference }, around);
        }
    }

    /// What is in training ends with the step that it is in.
    pub(crate) fn stop_with_checkpoint(&mut self, around: &mut Around<'_>) {
        if self.in_training().is_some() {
            self.training = true;
            self.turn += 1;
            let wait_s = around.dice.between_s(0.0, STOP_S);
            self.wait(wait_s, Timer::Stop { turn: self.turn }, around);
        }
    }

    /// What was in training has come to its end or stopped: its checkpoint is written, then its last report.
    pub(crate) fn stopped(&mut self, around: &mut Around<'_>) -> Result<(), Breach> {
        let Some(lease) = self.in_training() else { return Ok(()) };
        if lease.program {
            if self.program_stopped(around)? {
                self.turn += 1;
                self.wait(STORE_RETRY_S, Timer::Stop { turn: self.turn }, around);
                return Ok(());
            }
            self.stop_training();
            self.go_on(around)?;
            self.ready(around);
            return Ok(());
        }
        let (trial, epoch, step) = (lease.trial, lease.epoch, lease.step.unwrap_or(0));
        let is_new = step > lease.resume.as_ref().map_or(0, |reference| reference.step);
        let last = step >= STEPS;
        if last || is_new {
            if !around.store.answers(around.now) {
                self.turn += 1;
                self.wait(STORE_RETRY_S, Timer::Stop { turn: self.turn }, around);
                return Ok(());
            }
            let reference = checkpoint(trial, step, last);
            around.store.put(&reference);
            self.report(trial, epoch, ReportBody::Checkpoint(reference), around);
        }
        let body = if last {
            let metrics = vec![(0, loss(trial, step))];
            let weights_digest = Some(content(0, number_of(trial), STEPS));
            ReportBody::Finished { step, metrics, weights_digest, seconds: 1.0 }
        } else {
            ReportBody::Released { step, seconds: 1.0 }
        };
        self.end(trial, epoch, body, around);
        self.stop_training();
        self.go_on(around)?;
        self.ready(around);
        Ok(())
    }

    /// What this agent, undisturbed since `calm_from`, has handed over by now: for each attempt the step from which
    /// the next one must go on at least.
    pub(crate) fn surely_handed_over(&self, calm_from: Time, now: Time) -> Vec<(TrialRef, u64)> {
        let sure = |at: Time| at >= calm_from && at.after_s(HANDOVER_S) <= now;
        let open = self.leases.iter().filter(|lease| lease.ended.is_none() && !lease.of_gang);
        let newest =
            |lease: &Lease| lease.taken.iter().rev().find(|(at, _)| sure(*at)).map(|(_, step)| *step);
        open.filter_map(|lease| Some((lease.trial, newest(lease)?))).collect()
    }

    /// Steps that are in no checkpoint that it could hand over.
    pub(crate) fn unsaved_steps(&self) -> u64 {
        let steps = |lease: &Lease| {
            let from = lease.resume.as_ref().map_or(0, |reference| reference.step);
            lease.step.unwrap_or(from) - from
        };
        self.leases.iter().filter(|lease| !lease.of_gang).map(steps).sum()
    }
}

/// The checkpoint of a trial at a step. Some trials share content, as equal trials do.
pub(crate) fn checkpoint(trial: TrialRef, step: u64, last: bool) -> CheckpointRef {
    let number = number_of(trial);
    let parts: Vec<Digest> = vec![content(1, number % 4, step), content(2, number, step)];
    CheckpointRef { step, manifest: content(3 + u64::from(last), number, step), parts, bytes: 100, last }
}

/// A number of its own for each trial of all sweeps.
fn number_of(trial: TrialRef) -> u64 {
    u64::from(trial.sweep.0) << 24 | u64::from(trial.number)
}
