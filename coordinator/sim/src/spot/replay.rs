//! The replay: the engine among machines that come and go. An agent is a few events an attempt: it joins, takes one
//! lease, reports what the attempt came to, and takes the next.
//!
//! What a real agent sends in between (metrics, checkpoints that the next one replaces) decides nothing here and is
//! left out. A machine that goes without a notice is not heard of any more; the engine finds out as it does in
//! earnest, when the lease ends.

use super::{
    changes::{Changes, MachineChange},
    figures::Figures,
    fit::{ReplayError, check_fit},
    trace::Trace,
    work::{Plan, Work},
};
use crate::{clock::Queue, content::content, dice::Dice};
use spotsweep_engine::{
    Action, Config, Engine, Event, RequestId, SessionId, SweepId, Time, TrialRef,
    action::Grant,
    event::{CheckpointRef, Device, Hello, Machine as Facts, Report, ReportBatch, ReportBody},
};
use spotsweep_proto::{
    ids::{DeviceName, Epoch, Incarnation, WorkerName},
    line::FailureKind,
    spec::{Every, SweepSpec},
};
use std::collections::BTreeSet;

/// Virtual seconds after which a replay is given up: a year.
pub const HORIZON_S: f64 = 366.0 * 86_400.0;
/// When a replay begins, by the clock that the engine sees.
const BEGIN: Time = Time(1_000_000_000);
/// Heartbeats in the life of a lease. Agents send more; these keep it as alive.
const HEARTBEATS_A_LEASE: f64 = 4.0;

enum What {
    /// It is known what happens next to a machine: so long before, that there is time for a notice.
    Foreseen(MachineChange),
    Change(MachineChange),
    Begin {
        machine: usize,
        turn: u32,
    },
    End {
        machine: usize,
        turn: u32,
        failed: bool,
    },
    /// The coordinator gives up the connection of a machine that went.
    Silent {
        machine: usize,
    },
    Tick,
}

/// A machine and its agent.
#[derive(Default)]
struct Machine {
    /// When it came.
    came_at: Time,
    noticed: bool,
    lease: Option<Lease>,
    /// Number of the next report.
    seq: u64,
    /// Grows when its lease changes.
    turn: u32,
    /// A first step has been made on it.
    warm: bool,
}

struct Lease {
    trial: TrialRef,
    epoch: Epoch,
    /// Steps finished before.
    from: u64,
    work: Work,
    /// When it began to train.
    begun_at: Option<Time>,
}

struct Replay<'a> {
    spec: &'a SweepSpec,
    plan: &'a Plan,
    every: Every,
    engine: Engine,
    actions: Vec<Action>,
    queue: Queue<What>,
    changes: Changes,
    dice: Dice,
    now: Time,
    machines: Vec<Machine>,
    /// Connections of agents that live and are not drained.
    live: BTreeSet<SessionId>,
    /// Machines that are there.
    there: u32,
    /// Machines that have a lease.
    busy: u32,
    figures: Figures,
}

/// Replays a sweep among the machines of a trace, until every trial has ended or the horizon is reached.
///
/// # Errors
/// [`ReplayError`] if no machine could ever take a trial.
pub fn replay(spec: &SweepSpec, trace: &Trace, plan: &Plan) -> Result<Figures, ReplayError> {
    check_fit(spec, plan)?;
    let mut replay = Replay {
        spec,
        plan,
        every: plan.checkpoint.unwrap_or(spec.checkpoint.every),
        engine: Engine::new(Config::default()),
        actions: Vec::new(),
        queue: Queue::new(),
        changes: Changes::new(trace.spread(plan.seed), plan.workers as usize),
        dice: Dice::new(plan.seed),
        now: BEGIN,
        machines: Vec::new(),
        live: BTreeSet::new(),
        there: 0,
        busy: 0,
        figures: Figures { trials: spec.trials(), ..Figures::default() },
    };
    replay.run();
    Ok(replay.figures)
}

fn session_of(machine: usize) -> SessionId {
    SessionId(machine as u64)
}

fn moment(seconds: f64) -> Time {
    BEGIN.after_s(seconds)
}

impl Replay<'_> {
    fn run(&mut self) {
        let spec = Box::new(self.spec.clone());
        self.step(Event::Submit { request: RequestId(0), token: 0, spec });
        self.foresee();
        self.queue.push(self.now, What::Tick);
        let horizon = moment(HORIZON_S);
        while self.figures.completed + self.figures.failed < self.figures.trials
            && let Some((at, what)) = self.queue.pop()
        {
            if at > horizon {
                break;
            }
            self.pass(at);
            self.happen(what);
        }
        let figures = &mut self.figures;
        figures.finished = figures.completed + figures.failed == figures.trials;
        figures.finish_s = self.now.seconds_since(BEGIN);
        figures.goodput =
            if figures.available_s > 0.0 { figures.useful_s / figures.available_s } else { 0.0 };
    }

    /// Time passes, and machines with it.
    fn pass(&mut self, at: Time) {
        let passed_s = at.seconds_since(self.now);
        // A trial that no living machine has is work for every machine that is there, whether the engine knows of its
        // loss yet or not.
        let Figures { trials, completed, failed, .. } = self.figures;
        let with_work = if trials - completed - failed > self.busy { self.there } else { self.busy };
        self.figures.available_s += passed_s * f64::from(with_work);
        self.figures.machine_s += passed_s * f64::from(self.there);
        self.now = at;
    }

    fn foresee(&mut self) {
        let change = self.changes.next();
        let at = moment(change.at_s - self.plan.notice_s).max(self.now);
        self.queue.push(at, What::Foreseen(change));
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Foreseen(change) => {
                if self.machines.len() <= change.machine {
                    self.machines.resize_with(change.machine + 1, Machine::default);
                }
                if !change.up && self.plan.notice_s > 0.0 {
                    self.notice(change.machine, change.at_s);
                }
                self.queue.push(moment(change.at_s), What::Change(change));
                self.foresee();
            }
            What::Change(MachineChange { machine, up: true, .. }) => self.comes(machine),
            What::Change(MachineChange { machine, up: false, .. }) => self.goes(machine),
            What::Begin { machine, turn } if self.machines[machine].turn == turn => self.begin(machine),
            What::End { machine, turn, failed } if self.machines[machine].turn == turn => {
                self.end(machine, failed);
            }
            What::Begin { .. } | What::End { .. } => {}
            What::Silent { machine } => self.step(Event::Disconnected { session: session_of(machine) }),
            What::Tick => {
                let heard = self.live.iter().copied().collect();
                self.step(Event::Tick { heard });
                let wait_s = self.engine.config().lease_s / HEARTBEATS_A_LEASE;
                self.queue.push(self.now.after_s(wait_s), What::Tick);
            }
        }
    }

    /// Hands an event to the engine and does what comes of it.
    fn step(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        self.engine.step(self.now, event, &mut actions);
        self.figures.events += 1;
        for action in actions.drain(..) {
            match action {
                Action::Grant { session, grant, .. } => self.granted(session, &grant),
                Action::Revoke { session, trial, epoch, .. } => self.revoked(session, trial, epoch),
                Action::Reply { .. }
                | Action::Welcome { .. }
                | Action::Renew { .. }
                | Action::Regang { .. }
                | Action::Acknowledge { .. }
                | Action::Record(_)
                | Action::Archive(_)
                | Action::DeleteObjects { .. } => {}
            }
        }
        self.actions = actions;
        if let Some(sweep) = self.engine.sweep(SweepId(0)) {
            self.figures.completed = sweep.counts.completed;
            self.figures.failed = sweep.counts.ended() - sweep.counts.completed;
        }
    }

    #[expect(clippy::expect_used, reason = "these texts are names")]
    fn comes(&mut self, index: usize) {
        self.there += 1;
        self.figures.machines += 1;
        let machine = &mut self.machines[index];
        machine.came_at = self.now;
        if machine.noticed {
            return;
        }
        let session = session_of(index);
        self.live.insert(session);
        let hello = Hello {
            name: WorkerName::new(&format!("machine-{index}")).expect("a name"),
            incarnation: Incarnation(index as u128),
            devices: vec![Device {
                name: DeviceName::new("device").expect("a name"),
                kind: self.plan.device,
                model: String::new(),
                memory_bytes: self.plan.memory_bytes,
            }],
            machine: Facts::default(),
            held: Vec::new(),
            programs_only: false,
            // Every machine has the trainer that the sweep needs.
            knows: self.spec.train.own.items(),
        };
        self.step(Event::Joined { session, hello: Box::new(hello) });
        self.step(Event::Ready { session, device: 0, credits: 1 });
    }

    /// A machine is told that it will go: its agent hands everything over and leaves.
    fn notice(&mut self, index: usize, goes_at_s: f64) {
        self.machines[index].noticed = true;
        let session = session_of(index);
        if !self.live.remove(&session) {
            return;
        }
        self.figures.drained_s += moment(goes_at_s).seconds_since(self.now);
        if let Some(lease) = self.take_lease(index) {
            let trained_s = self.interrupted(&lease);
            let step = lease.from + lease.work.steps_in(trained_s);
            self.account(&lease, step, trained_s);
            let seconds = trained_s;
            self.report(index, &lease, step, Some(ReportBody::Released { step, seconds }));
        }
        self.step(Event::Left { session });
    }

    /// A machine is gone.
    fn goes(&mut self, index: usize) {
        self.there -= 1;
        if !self.live.remove(&session_of(index)) {
            return;
        }
        let silent_at = self.now.after_s(self.engine.config().lease_s);
        self.queue.push(silent_at, What::Silent { machine: index });
        if let Some(lease) = self.take_lease(index) {
            let trained_s = self.interrupted(&lease);
            let step = lease.work.checkpointed(self.every, lease.from, trained_s);
            self.account(&lease, step, trained_s);
            self.report(index, &lease, step, None);
        }
    }

    fn take_lease(&mut self, index: usize) -> Option<Lease> {
        let machine = &mut self.machines[index];
        machine.turn += 1;
        let lease = machine.lease.take()?;
        self.busy -= 1;
        Some(lease)
    }

    /// Counts an interruption, if there was anything to interrupt; the seconds that it trained.
    fn interrupted(&mut self, lease: &Lease) -> f64 {
        self.figures.interruptions += u32::from(lease.begun_at.is_some());
        lease.begun_at.map_or(0.0, |begun_at| self.now.seconds_since(begun_at))
    }

    /// Of the seconds that an attempt trained, those up to `step` count.
    fn account(&mut self, lease: &Lease, step: u64, trained_s: f64) {
        let useful_s = lease.work.seconds_of(step - lease.from);
        let lost_s = (trained_s - useful_s).max(0.0);
        self.figures.useful_s += useful_s;
        self.figures.lost_s += lost_s;
        self.figures.lost_most_s = self.figures.lost_most_s.max(lost_s);
    }

    fn granted(&mut self, session: SessionId, grant: &Grant) {
        #[expect(clippy::cast_possible_truncation, reason = "an index")]
        let index = session.0 as usize;
        let work = self.plan.duration.of_trial(self.spec, grant.trial.number);
        let from = grant.resume.as_ref().map_or(0, |reference| reference.step);
        let machine = &mut self.machines[index];
        machine.turn += 1;
        machine.lease = Some(Lease { trial: grant.trial, epoch: grant.epoch, from, work, begun_at: None });
        let turn = machine.turn;
        let begins_at =
            if machine.warm { self.now } else { machine.came_at.after_s(self.plan.recovery_s).max(self.now) };
        self.busy += 1;
        self.queue.push(begins_at, What::Begin { machine: index, turn });
    }

    fn revoked(&mut self, session: SessionId, trial: TrialRef, epoch: Epoch) {
        #[expect(clippy::cast_possible_truncation, reason = "an index")]
        let index = session.0 as usize;
        let held = self.machines[index].lease.as_ref().map(|lease| (lease.trial, lease.epoch));
        if held == Some((trial, epoch)) {
            self.take_lease(index);
        }
    }

    fn begin(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let Some(lease) = &mut machine.lease else { return };
        lease.begun_at = Some(self.now);
        self.figures.attempts += 1;
        if !machine.warm {
            machine.warm = true;
            self.figures.recovery_s += self.now.seconds_since(machine.came_at).min(self.plan.recovery_s);
        }
        let left_s = lease.work.seconds_of(lease.work.steps.saturating_sub(lease.from));
        let fails_s = self.plan.fail_every_s.map_or(f64::INFINITY, |mean_s| self.dice.exponential(mean_s));
        let failed = fails_s < left_s;
        let (trial, epoch, step, steps) = (lease.trial, lease.epoch, lease.from, lease.work.steps);
        let end = What::End { machine: index, turn: machine.turn, failed };
        self.queue.push(self.now.after_s(left_s.min(fails_s)), end);
        let body = ReportBody::Started { step, total_steps: Some(steps) };
        self.send(index, vec![Report { trial, epoch, body }]);
    }

    /// An attempt has come to its end by itself.
    fn end(&mut self, index: usize, failed: bool) {
        let Some(lease) = self.take_lease(index) else { return };
        let trained_s = lease.begun_at.map_or(0.0, |begun_at| self.now.seconds_since(begun_at));
        let seconds = trained_s;
        if failed {
            self.figures.failures += 1;
            let step = lease.work.checkpointed(self.every, lease.from, trained_s);
            self.account(&lease, step, trained_s);
            let reached = lease.from + lease.work.steps_in(trained_s);
            let (kind, message) = (FailureKind::Crashed, "the trainer failed".to_owned());
            let body = ReportBody::Failed { step: reached, kind, message, seconds };
            self.report(index, &lease, step, Some(body));
        } else {
            let step = lease.work.steps;
            self.account(&lease, step, trained_s);
            let weights_digest = Some(content(5, u64::from(lease.trial.number), step));
            let body = ReportBody::Finished { step, metrics: Vec::new(), weights_digest, seconds };
            self.report(index, &lease, step, Some(body));
        }
        self.step(Event::Ready { session: session_of(index), device: 0, credits: 1 });
    }

    /// Reports the checkpoint of a step, unless the attempt began with it, and what came last.
    fn report(&mut self, index: usize, lease: &Lease, step: u64, last: Option<ReportBody>) {
        let (trial, epoch) = (lease.trial, lease.epoch);
        let number = u64::from(trial.number);
        let mut reports = Vec::new();
        if step > lease.from {
            let whole = step == lease.work.steps;
            let parts = vec![content(6, number, step), content(7, number, step)];
            let manifest = content(8, number, step);
            let body = ReportBody::Checkpoint(CheckpointRef { step, manifest, parts, bytes: 0, last: whole });
            reports.push(Report { trial, epoch, body });
        }
        reports.extend(last.map(|body| Report { trial, epoch, body }));
        if !reports.is_empty() {
            self.send(index, reports);
        }
    }

    fn send(&mut self, index: usize, reports: Vec<Report>) {
        let machine = &mut self.machines[index];
        let first_seq = machine.seq + 1;
        machine.seq += reports.len() as u64;
        let batch = ReportBatch { first_seq, metric_names: Vec::new(), reports };
        self.step(Event::Reports { session: session_of(index), batch });
    }
}
