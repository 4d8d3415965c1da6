//! An agent as a model: takes leases, trains one at a time in virtual time, writes checkpoints, numbers its
//! reports and keeps them until they are acknowledged, reconnects and re-attaches.

use crate::{
    dice::Dice,
    ledger::{Breach, Ledger, REPORT_STEPS, STEPS, ensure, loss},
};
use spotsweep_engine::{
    Action, SessionId, TrialRef,
    action::{Grant, RevokeReason},
    event::{CheckpointRef, Device, DeviceKind, HeldLease, Hello, Machine, Report, ReportBatch, ReportBody},
};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, Incarnation, MetricName, WorkerName},
    line::FailureKind,
};
use std::collections::VecDeque;

/// Leases that an agent holds at most: one in training, one ahead.
const DEPTH: u32 = 2;
/// Steps between two checkpoints.
const CHECKPOINT_STEPS: u64 = 10;
/// One attempt in so many reports crashes.
const CRASH_ONE_IN: u64 = 150;

/// What an agent sends.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Hello(Box<Hello>),
    Ready { credits: u32 },
    Reports(ReportBatch),
    Heartbeat,
}

/// What an agent waits for. All but the first end with its life.
#[derive(Debug, Clone)]
pub(crate) enum Timer {
    Train { turn: u64 },
    Uploaded { trial: TrialRef, epoch: Epoch, reference: CheckpointRef },
}

/// What an agent does.
pub(crate) enum Effect {
    Send(Up),
    Wait(f64, Timer),
}

struct Lease {
    trial: TrialRef,
    epoch: Epoch,
    /// Finished steps, once it trains.
    step: Option<u64>,
    resume: Option<CheckpointRef>,
    /// Number of its last report.
    ended: Option<u64>,
}

pub(crate) struct Agent {
    index: usize,
    pub(crate) life: u32,
    pub(crate) alive: bool,
    pub(crate) link: Option<SessionId>,
    welcomed: bool,
    leases: Vec<Lease>,
    unacknowledged: VecDeque<(u64, Report)>,
    acknowledged: u64,
    next_seq: u64,
    /// Grows when what is in training changes.
    turn: u64,
    training: bool,
}

#[expect(clippy::expect_used, reason = "these texts are names")]
fn names() -> (DeviceName, MetricName) {
    (DeviceName::new("cpu").expect("a name"), MetricName::new("loss").expect("a name"))
}

impl Agent {
    pub(crate) fn new(index: usize, life: u32) -> Self {
        Self {
            index,
            life,
            alive: true,
            link: None,
            welcomed: false,
            leases: Vec::new(),
            unacknowledged: VecDeque::new(),
            acknowledged: 0,
            next_seq: 1,
            turn: 0,
            training: false,
        }
    }

    #[expect(clippy::expect_used, reason = "these texts are names")]
    pub(crate) fn connect(&mut self, session: SessionId, effects: &mut Vec<Effect>) {
        self.link = Some(session);
        self.welcomed = false;
        let name = WorkerName::new(&format!("agent-{}", self.index)).expect("a name");
        let (device, _) = names();
        let held = self.leases.iter();
        let hello = Hello {
            name,
            incarnation: Incarnation(u128::from(self.life) << 64 | self.index as u128),
            devices: vec![Device {
                name: device,
                kind: DeviceKind::Cpu,
                model: String::new(),
                memory_bytes: 1 << 30,
            }],
            machine: Machine::default(),
            held: held.map(|l| HeldLease { trial: l.trial, epoch: l.epoch, device: 0 }).collect(),
        };
        effects.push(Effect::Send(Up::Hello(Box::new(hello))));
    }

    pub(crate) fn disconnected(&mut self) {
        self.link = None;
        self.welcomed = false;
    }

    pub(crate) fn heartbeat(&self, effects: &mut Vec<Effect>) {
        if self.welcomed {
            effects.push(Effect::Send(Up::Heartbeat));
        }
    }

    /// Something came from the coordinator.
    pub(crate) fn receive(
        &mut self,
        action: Action,
        ledger: &mut Ledger,
        dice: &mut Dice,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Breach> {
        match action {
            Action::Welcome { applied_seq, keep, .. } => {
                let known = applied_seq >= self.acknowledged;
                ensure(known, "no acknowledged report is missing", || {
                    format!("agent {}: {} acknowledged, {applied_seq} known", self.index, self.acknowledged)
                })?;
                self.welcomed = true;
                self.acknowledge(applied_seq);
                let training = self.in_training().map(|lease| (lease.trial, lease.epoch));
                self.leases.retain(|lease| keep.contains(&(lease.trial, lease.epoch)));
                if self.in_training().map(|lease| (lease.trial, lease.epoch)) != training {
                    self.stop_training();
                }
                let all: Vec<(u64, Report)> = self.unacknowledged.iter().cloned().collect();
                self.send_reports(all, effects);
                self.go_on(ledger, dice, effects)?;
                self.ready(effects);
            }
            Action::Grant { grant, .. } => self.take(grant, ledger, dice, effects)?,
            Action::Revoke { trial, epoch, reason, .. } => {
                self.revoked(trial, epoch, reason, ledger, effects);
                self.go_on(ledger, dice, effects)?;
                self.ready(effects);
            }
            Action::Acknowledge { seq, .. } => self.acknowledge(seq),
            Action::Renew { .. }
            | Action::Reply { .. }
            | Action::Record(_)
            | Action::DeleteObjects { .. } => {}
        }
        Ok(())
    }

    fn take(
        &mut self,
        grant: Grant,
        ledger: &mut Ledger,
        dice: &mut Dice,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Breach> {
        let Grant { trial, epoch, resume, .. } = grant;
        self.leases.push(Lease { trial, epoch, step: None, resume, ended: None });
        self.go_on(ledger, dice, effects)
    }

    fn acknowledge(&mut self, seq: u64) {
        self.acknowledged = self.acknowledged.max(seq);
        while self.unacknowledged.front().is_some_and(|(number, _)| *number <= seq) {
            self.unacknowledged.pop_front();
        }
        self.leases.retain(|lease| lease.ended.is_none_or(|number| number > seq));
    }

    fn in_training(&self) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.ended.is_none() && lease.step.is_some())
    }

    fn stop_training(&mut self) {
        self.turn += 1;
        self.training = false;
    }

    fn ready(&self, effects: &mut Vec<Effect>) {
        if self.welcomed {
            let open = self.leases.iter().filter(|lease| lease.ended.is_none()).count();
            let credits = DEPTH.saturating_sub(u32::try_from(open).unwrap_or(u32::MAX));
            effects.push(Effect::Send(Up::Ready { credits }));
        }
    }

    fn report(&mut self, trial: TrialRef, epoch: Epoch, body: ReportBody, effects: &mut Vec<Effect>) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let report = Report { trial, epoch, body };
        self.unacknowledged.push_back((seq, report.clone()));
        if self.welcomed {
            self.send_reports(vec![(seq, report)], effects);
        }
        seq
    }

    fn send_reports(&self, reports: Vec<(u64, Report)>, effects: &mut Vec<Effect>) {
        let Some((first_seq, _)) = reports.first() else { return };
        let (_, metric) = names();
        let batch = ReportBatch {
            first_seq: *first_seq,
            metric_names: vec![metric],
            reports: reports.into_iter().map(|(_, report)| report).collect(),
        };
        effects.push(Effect::Send(Up::Reports(batch)));
    }

    /// Begins the next lease if nothing is in training.
    fn go_on(
        &mut self,
        ledger: &mut Ledger,
        dice: &mut Dice,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Breach> {
        if self.training {
            return Ok(());
        }
        let Some(lease) = self.leases.iter_mut().find(|lease| lease.ended.is_none()) else { return Ok(()) };
        let step = lease.resume.as_ref().map_or(0, |reference| reference.step);
        let resume = lease.resume.clone();
        lease.step = Some(step);
        let (trial, epoch) = (lease.trial, lease.epoch);
        if let Some(reference) = resume
            && !ledger.resumes(trial, epoch, &reference)?
        {
            let message = "the checkpoint is gone".to_owned();
            let body = ReportBody::Failed { step, kind: FailureKind::Checkpoint, message, seconds: 0.0 };
            self.end(trial, epoch, body, effects);
            self.ready(effects);
            return self.go_on(ledger, dice, effects);
        }
        self.training = true;
        self.turn += 1;
        self.report(trial, epoch, ReportBody::Started { step, total_steps: Some(STEPS) }, effects);
        effects.push(Effect::Wait(dice.between_s(0.2, 1.5), Timer::Train { turn: self.turn }));
        Ok(())
    }

    pub(crate) fn timer(
        &mut self,
        timer: Timer,
        ledger: &mut Ledger,
        dice: &mut Dice,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Breach> {
        match timer {
            Timer::Train { turn } if turn == self.turn && self.training => {
                self.train(ledger, dice, effects)?;
            }
            Timer::Train { .. } => {}
            Timer::Uploaded { trial, epoch, reference } => {
                let holds = self
                    .leases
                    .iter()
                    .any(|lease| lease.ended.is_none() && (lease.trial, lease.epoch) == (trial, epoch));
                if holds {
                    self.report(trial, epoch, ReportBody::Checkpoint(reference), effects);
                }
            }
        }
        Ok(())
    }

    fn train(
        &mut self,
        ledger: &mut Ledger,
        dice: &mut Dice,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Breach> {
        let Some(lease) = self.leases.iter_mut().find(|l| l.ended.is_none() && l.step.is_some()) else {
            return Ok(());
        };
        let (trial, epoch) = (lease.trial, lease.epoch);
        // An attempt that resumes from the final weights (the result was lost on the way) has nothing to train.
        let step = (lease.step.unwrap_or(0) + REPORT_STEPS).min(STEPS);
        lease.step = Some(step);
        let metrics = vec![(0, loss(trial, step))];
        self.report(
            trial,
            epoch,
            ReportBody::Progress { step, data_epoch: 0.0, metrics: metrics.clone() },
            effects,
        );
        if step >= STEPS {
            self.checkpoint_now(trial, epoch, step, true, ledger, effects);
            let weights_digest = Some(Digest::of(&trial.number.to_le_bytes()));
            let body = ReportBody::Finished { step, metrics, weights_digest, seconds: 1.0 };
            self.end(trial, epoch, body, effects);
        } else if dice.one_in(CRASH_ONE_IN) {
            let kind = FailureKind::Crashed;
            let body = ReportBody::Failed { step, kind, message: "crashed".to_owned(), seconds: 1.0 };
            self.end(trial, epoch, body, effects);
        } else {
            if step.is_multiple_of(CHECKPOINT_STEPS) {
                // What is there already is not uploaded again, but the report takes its time.
                let reference = checkpoint(trial, step, false);
                ledger.store.extend(reference.parts.iter().copied().chain([reference.manifest]));
                let wait_s = dice.between_s(0.0, 2.0);
                effects.push(Effect::Wait(wait_s, Timer::Uploaded { trial, epoch, reference }));
            }
            effects.push(Effect::Wait(dice.between_s(0.2, 1.5), Timer::Train { turn: self.turn }));
            return Ok(());
        }
        self.stop_training();
        self.go_on(ledger, dice, effects)?;
        self.ready(effects);
        Ok(())
    }

    fn checkpoint_now(
        &mut self,
        trial: TrialRef,
        epoch: Epoch,
        step: u64,
        last: bool,
        ledger: &mut Ledger,
        effects: &mut Vec<Effect>,
    ) {
        let reference = checkpoint(trial, step, last);
        ledger.store.extend(reference.parts.iter().copied().chain([reference.manifest]));
        self.report(trial, epoch, ReportBody::Checkpoint(reference), effects);
    }

    fn end(&mut self, trial: TrialRef, epoch: Epoch, body: ReportBody, effects: &mut Vec<Effect>) {
        let seq = self.report(trial, epoch, body, effects);
        let lease = self.leases.iter_mut().find(|l| (l.trial, l.epoch) == (trial, epoch));
        if let Some(lease) = lease {
            lease.ended = Some(seq);
        }
    }

    fn revoked(
        &mut self,
        trial: TrialRef,
        epoch: Epoch,
        reason: RevokeReason,
        ledger: &mut Ledger,
        effects: &mut Vec<Effect>,
    ) {
        let found = self.leases.iter().position(|l| (l.trial, l.epoch) == (trial, epoch));
        let Some(index) = found.filter(|index| self.leases[*index].ended.is_none()) else { return };
        let step = self.leases[index].step;
        if step.is_some() {
            self.stop_training();
        }
        match reason {
            RevokeReason::Paused | RevokeReason::Moved => {
                if let Some(step) = step.filter(|step| *step > 0) {
                    self.checkpoint_now(trial, epoch, step, false, ledger, effects);
                }
                let body = ReportBody::Released { step: step.unwrap_or(0), seconds: 1.0 };
                self.end(trial, epoch, body, effects);
            }
            RevokeReason::Stale | RevokeReason::Cancelled | RevokeReason::NotNeeded => {
                self.leases.remove(index);
            }
        }
    }
}

/// The checkpoint of a trial at a step. Some trials share content, as equal trials do.
fn checkpoint(trial: TrialRef, step: u64, last: bool) -> CheckpointRef {
    let part = |text: String| Digest::of(text.as_bytes());
    CheckpointRef {
        step,
        manifest: part(format!("manifest {trial} {step} {last}")),
        parts: vec![
            part(format!("weights {} {step}", trial.number % 4)),
            part(format!("state {trial} {step}")),
        ],
        bytes: 100,
        last,
    }
}
