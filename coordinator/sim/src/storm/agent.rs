//! An agent as a model: its connection, the leases it holds, its numbered reports, which it keeps until they are
//! acknowledged. What it does with a lease is in [`super::training`].

use super::{
    ledger::{Breach, Ledger, ensure},
    mistake::Mistake,
    seat::{Key, Part},
    store::Store,
};
use crate::dice::Dice;
use spotsweep_engine::{
    Action, SessionId, Time, TrialRef,
    action::{Grant, RevokeReason},
    event::{
        CheckpointRef, Device, DeviceKind, GangNews, HeldLease, Hello, Machine, Report, ReportBatch,
        ReportBody,
    },
};
use spotsweep_proto::{
    ids::{DeviceName, Epoch, Incarnation, MetricName, WorkerName},
    notice::{Notice, NoticeKind, NoticeSource},
};
use std::collections::VecDeque;

/// Leases that an agent holds at most: one in training, one ahead.
const DEPTH: u32 = 2;

/// What an agent sends.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Hello(Box<Hello>),
    Ready { credits: u32 },
    Reports(ReportBatch),
    Heartbeat,
    Goodbye,
    Noticed(Notice),
    Gang { trial: TrialRef, epoch: Epoch, generation: u64, step: u64, news: GangNews },
}

/// What an agent waits for. All end with its life.
#[derive(Debug, Clone)]
pub(crate) enum Timer {
    /// The store did not answer when an attempt wanted its checkpoint.
    Begin {
        turn: u64,
    },
    /// Some steps are done.
    Train {
        turn: u64,
    },
    /// The attempt has come to its last step, or was told to stop, and writes its checkpoint.
    Stop {
        turn: u64,
    },
    /// The store may answer again.
    Upload {
        trial: TrialRef,
        epoch: Epoch,
        reference: CheckpointRef,
    },
    Uploaded {
        trial: TrialRef,
        epoch: Epoch,
        reference: CheckpointRef,
    },
    /// A seat in a gang is prepared for.
    Prepared {
        turn: u64,
    },
    /// The others of a make-up should be there by now.
    Unmet {
        key: Key,
        generation: u64,
    },
    /// The connection to a peer broke.
    LostPeer {
        key: Key,
        generation: u64,
    },
    /// A warned rank should have been let go by now.
    LetGo {
        key: Key,
    },
}

/// What an agent does.
pub(crate) enum Effect {
    Send(Up),
    Wait(f64, Timer),
    /// It is drained and ends itself.
    Exit,
}

pub(crate) struct Lease {
    pub(crate) trial: TrialRef,
    pub(crate) epoch: Epoch,
    /// Finished steps, once it trains.
    pub(crate) step: Option<u64>,
    pub(crate) resume: Option<CheckpointRef>,
    /// Number of its last report.
    pub(crate) ended: Option<u64>,
    /// Checkpoints of this attempt: when they were taken, and of which step.
    pub(crate) taken: Vec<(Time, u64)>,
    /// Others train the trial with it.
    pub(crate) of_gang: bool,
    /// They did before.
    pub(crate) joins: bool,
    /// They are programs.
    pub(crate) program: bool,
    /// It is a program that was not the first, and is told to stop: it saves nothing.
    pub(crate) silent: bool,
    /// Its part in the gang; `None` where it trains alone, or is the one that stops and keeps the state.
    pub(crate) gang: Option<Part>,
}

/// What an agent needs of the world at a moment.
pub(crate) struct Around<'a> {
    pub(crate) now: Time,
    pub(crate) ledger: &'a Ledger,
    pub(crate) store: &'a mut Store,
    pub(crate) dice: &'a mut Dice,
    pub(crate) effects: Vec<Effect>,
    pub(crate) mistake: Option<Mistake>,
    /// Gangs are of programs.
    pub(crate) programs: bool,
}

pub(crate) struct Agent {
    index: usize,
    pub(crate) life: u32,
    pub(crate) alive: bool,
    pub(crate) link: Option<SessionId>,
    /// How fast its clock runs.
    rate: f64,
    welcomed: bool,
    pub(crate) leases: Vec<Lease>,
    unacknowledged: VecDeque<(u64, Report)>,
    acknowledged: u64,
    next_seq: u64,
    /// Grows when what is in training changes.
    pub(crate) turn: u64,
    pub(crate) training: bool,
    pub(crate) draining: bool,
    /// What it had trained when it was told to go.
    pub(crate) drained: Vec<(TrialRef, u64)>,
}

#[expect(clippy::expect_used, reason = "these texts are names")]
fn names() -> (DeviceName, MetricName) {
    (DeviceName::new("cpu").expect("a name"), MetricName::new("loss").expect("a name"))
}

impl Agent {
    pub(crate) fn new(index: usize, life: u32, rate: f64) -> Self {
        Self {
            index,
            life,
            alive: true,
            link: None,
            rate,
            welcomed: false,
            leases: Vec::new(),
            unacknowledged: VecDeque::new(),
            acknowledged: 0,
            next_seq: 1,
            turn: 0,
            training: false,
            draining: false,
            drained: Vec::new(),
        }
    }

    /// A wait as its clock measures it.
    pub(crate) fn wait(&self, wait_s: f64, timer: Timer, around: &mut Around<'_>) {
        around.effects.push(Effect::Wait(wait_s * self.rate, timer));
    }

    #[expect(clippy::expect_used, reason = "these texts are names")]
    pub(crate) fn connect(&mut self, session: SessionId, around: &mut Around<'_>) {
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
            programs_only: false,
            knows: Vec::new(),
        };
        around.effects.push(Effect::Send(Up::Hello(Box::new(hello))));
    }

    pub(crate) fn disconnected(&mut self) {
        self.link = None;
        self.welcomed = false;
    }

    pub(crate) fn heartbeat(&self, around: &mut Around<'_>) {
        if self.welcomed {
            around.effects.push(Effect::Send(Up::Heartbeat));
        }
    }

    /// Something came from the coordinator.
    pub(crate) fn receive(&mut self, action: Action, around: &mut Around<'_>) -> Result<(), Breach> {
        match action {
            Action::Welcome { applied_seq, keep, .. } => self.welcome(applied_seq, &keep, around)?,
            Action::Grant { grant, .. } => self.take(grant, around)?,
            Action::Revoke { trial, epoch, reason, .. } => {
                self.revoked(trial, epoch, reason, around);
                self.go_on(around)?;
                self.ready(around);
            }
            Action::Acknowledge { seq, .. } => self.acknowledge(seq),
            Action::Regang { trial, epoch, place, .. } => self.regang((trial, epoch), &place, around)?,
            Action::Renew { .. }
            | Action::Reply { .. }
            | Action::Record(_)
            | Action::Archive(_)
            | Action::DeleteObjects { .. } => {}
        }
        self.leave_if_empty(around);
        Ok(())
    }

    fn welcome(
        &mut self,
        applied_seq: u64,
        keep: &[(TrialRef, Epoch)],
        around: &mut Around<'_>,
    ) -> Result<(), Breach> {
        let known = applied_seq >= self.acknowledged;
        ensure(known, "no acknowledged report is missing", || {
            format!("agent {}: {} acknowledged, {applied_seq} known", self.index, self.acknowledged)
        })?;
        self.welcomed = true;
        self.acknowledge(applied_seq);
        let training = self.occupant();
        self.leases.retain(|lease| keep.contains(&(lease.trial, lease.epoch)));
        if self.occupant() != training {
            self.stop_training();
        }
        let all: Vec<(u64, Report)> = self.unacknowledged.iter().cloned().collect();
        Self::send_reports(all, around);
        self.say_again(around);
        self.go_on(around)?;
        self.ready(around);
        Ok(())
    }

    fn take(&mut self, grant: Grant, around: &mut Around<'_>) -> Result<(), Breach> {
        let Grant { trial, epoch, resume, gang, .. } = grant;
        let (of_gang, joins) = (gang.is_some(), gang.is_some_and(|place| place.generation.0 > 0));
        self.leases.push(Lease {
            trial,
            epoch,
            step: None,
            resume,
            ended: None,
            taken: Vec::new(),
            of_gang,
            joins,
            program: of_gang && around.programs,
            silent: false,
            gang: of_gang.then(Part::default),
        });
        if self.draining {
            self.give_untouched_back(around);
            return Ok(());
        }
        self.go_on(around)
    }

    fn acknowledge(&mut self, seq: u64) {
        self.acknowledged = self.acknowledged.max(seq);
        while self.unacknowledged.front().is_some_and(|(number, _)| *number <= seq) {
            self.unacknowledged.pop_front();
        }
        self.leases.retain(|lease| lease.ended.is_none_or(|number| number > seq));
    }

    pub(crate) fn in_training(&self) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.ended.is_none() && lease.step.is_some())
    }

    /// The lease that has the device.
    fn occupant(&self) -> Option<(TrialRef, Epoch)> {
        let mut open = self.leases.iter().filter(|lease| lease.ended.is_none());
        open.find(|lease| lease.occupies()).map(|lease| (lease.trial, lease.epoch))
    }

    pub(crate) fn is_welcome(&self) -> bool {
        self.welcomed
    }

    pub(crate) fn stop_training(&mut self) {
        self.turn += 1;
        self.training = false;
    }

    pub(crate) fn ready(&self, around: &mut Around<'_>) {
        if self.welcomed {
            let open = self.leases.iter().filter(|lease| lease.ended.is_none()).count();
            let most = if self.draining { 0 } else { DEPTH };
            let credits = most.saturating_sub(u32::try_from(open).unwrap_or(u32::MAX));
            around.effects.push(Effect::Send(Up::Ready { credits }));
        }
    }

    pub(crate) fn report(
        &mut self,
        trial: TrialRef,
        epoch: Epoch,
        body: ReportBody,
        around: &mut Around<'_>,
    ) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let report = Report { trial, epoch, body };
        self.unacknowledged.push_back((seq, report.clone()));
        if self.welcomed {
            Self::send_reports(vec![(seq, report)], around);
        }
        seq
    }

    fn send_reports(reports: Vec<(u64, Report)>, around: &mut Around<'_>) {
        let Some((first_seq, _)) = reports.first() else { return };
        let (_, metric) = names();
        let batch = ReportBatch {
            first_seq: *first_seq,
            metric_names: vec![metric],
            reports: reports.into_iter().map(|(_, report)| report).collect(),
        };
        around.effects.push(Effect::Send(Up::Reports(batch)));
    }

    /// The machine will be taken: nothing new, everything back with a checkpoint, and then it goes.
    /// A recommendation to rebalance is only passed on: the coordinator decides what moves.
    pub(crate) fn notice(&mut self, kind: NoticeKind, around: &mut Around<'_>) {
        if self.draining || around.mistake == Some(Mistake::NoticeIgnored) {
            return;
        }
        if self.welcomed {
            let notice = Notice::new(NoticeSource::Aws, kind, None);
            around.effects.push(Effect::Send(Up::Noticed(notice)));
        }
        if kind == NoticeKind::Rebalance {
            return;
        }
        self.draining = true;
        // What a rank of a gang has trained its peers have as well.
        let alone = |lease: &Lease| lease.ended.is_none() && !lease.of_gang;
        let trained = |lease: &Lease| Some((lease.trial, lease.step?)).filter(|_| alone(lease));
        self.drained = self.leases.iter().filter_map(trained).collect();
        self.give_untouched_back(around);
        self.ask_to_be_let_go(around);
        if self.in_training().is_some_and(|lease| lease.gang.is_none()) {
            self.stop_with_checkpoint(around);
        }
        self.ready(around);
        self.leave_if_empty(around);
    }

    /// Gives back what waits and was not begun.
    fn give_untouched_back(&mut self, around: &mut Around<'_>) {
        let untouched = |lease: &&Lease| {
            lease.ended.is_none() && lease.step.is_none() && lease.gang.is_none_or(|part| part.told == 0)
        };
        let leases: Vec<(TrialRef, Epoch, u64)> = self
            .leases
            .iter()
            .filter(untouched)
            .map(|lease| (lease.trial, lease.epoch, lease.resume.as_ref().map_or(0, |r| r.step)))
            .collect();
        for (trial, epoch, step) in leases {
            if self.seat((trial, epoch)).is_some_and(|(_, part)| part.begun) {
                self.stop_training();
            }
            self.end(trial, epoch, ReportBody::Released { step, seconds: 0.0 }, around);
        }
    }

    fn leave_if_empty(&self, around: &mut Around<'_>) {
        if self.draining && self.welcomed && self.leases.is_empty() && self.unacknowledged.is_empty() {
            around.effects.push(Effect::Send(Up::Goodbye));
            around.effects.push(Effect::Exit);
        }
    }

    pub(crate) fn end(&mut self, trial: TrialRef, epoch: Epoch, body: ReportBody, around: &mut Around<'_>) {
        let seq = self.report(trial, epoch, body, around);
        let is_meant = |l: &&mut Lease| l.ended.is_none() && (l.trial, l.epoch) == (trial, epoch);
        let lease = self.leases.iter_mut().find(is_meant);
        if let Some(lease) = lease {
            lease.ended = Some(seq);
        }
    }

    fn revoked(&mut self, trial: TrialRef, epoch: Epoch, reason: RevokeReason, around: &mut Around<'_>) {
        let is_meant = |l: &Lease| l.ended.is_none() && (l.trial, l.epoch) == (trial, epoch);
        let Some(index) = self.leases.iter().position(is_meant) else { return };
        let (step, occupies) = (self.leases[index].step, self.leases[index].occupies());
        match reason {
            RevokeReason::Paused | RevokeReason::Moved if step.is_some() => {
                self.keep_alone((trial, epoch));
                self.stop_with_checkpoint(around);
            }
            RevokeReason::Paused | RevokeReason::Moved => {
                if occupies {
                    self.stop_training();
                }
                let step = self.leases[index].resume.as_ref().map_or(0, |reference| reference.step);
                self.end(trial, epoch, ReportBody::Released { step, seconds: 0.0 }, around);
            }
            RevokeReason::Stale | RevokeReason::Cancelled | RevokeReason::NotNeeded => {
                if occupies {
                    self.stop_training();
                }
                self.leases.remove(index);
            }
        }
    }
}

impl Lease {
    /// It has the device: it trains, or prepares to train with others.
    pub(crate) fn occupies(&self) -> bool {
        self.step.is_some() || self.gang.is_some_and(|part| part.begun)
    }
}
