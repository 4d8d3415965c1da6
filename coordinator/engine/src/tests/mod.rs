//! Tests that drive [`Engine::step`] as the driver does, and the harness that they share: after every step the
//! invariants of [`crate::check`] are checked.

mod clients;
mod connections;
mod explanations;
mod gangs;
mod imports;
mod leases;
mod notices;
mod placing;
mod random;
mod retained;

use crate::{
    Action, Config, Engine, Event, Refusal, Reply, RequestId, SessionId, SweepId, Time, TrialRef, TrialView,
    action::{AttemptEnd, Grant, Record, RevokeReason, TrialState},
    event::{
        CheckpointRef, Command, Device, DeviceKind, HeldLease, Hello, Machine, Report, ReportBatch,
        ReportBody, Target,
    },
};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, Incarnation, MetricName, SweepName, WorkerName},
    line::FailureKind,
    metric::{Goal, Objective},
    program::ProgramSection,
    spec::{
        CheckpointPolicy, DeviceRequest, Every, Method, Resources, RetryPolicy, SweepSpec, TrainSection,
        Workers, space::Space,
    },
};
use std::collections::{BTreeMap, BTreeSet};

const GIB: u64 = 1 << 30;

/// Leases of a round length.
fn config() -> Config {
    Config { lease_s: 10.0, ..Config::default() }
}

pub(crate) fn spec(trials: u32) -> SweepSpec {
    SweepSpec {
        name: SweepName::new("s").unwrap(),
        description: String::new(),
        method: Method::Random { seed: 1 },
        objective: Some(Objective {
            name: MetricName::new("acc").unwrap(),
            goal: Goal::Maximize,
            target: None,
        }),
        space: Space::default(),
        run_cap: Some(trials),
        train: TrainSection {
            model: None,
            data: None,
            length: None,
            seed: 0,
            threads: 1,
            shards: 1,
            exact: true,
            own: Default::default(),
        },
        resources: Resources { device: DeviceRequest::Any, memory_bytes: None, workers: Workers::default() },
        checkpoint: CheckpointPolicy { every: Every::Steps(10), keep_last: 1 },
        retry: RetryPolicy { max_failures: 3, backoff_s: 10.0 },
        priority: 0,
        program: None,
        sinks: Vec::new(),
    }
}

/// A program that does nothing.
pub(crate) fn program() -> ProgramSection {
    ProgramSection::of_command(vec!["true".to_owned()])
}

pub(crate) fn device(kind: DeviceKind, memory_bytes: u64) -> Device {
    let name = match kind {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Cuda => "cuda:0",
    };
    Device { name: DeviceName::new(name).unwrap(), kind, model: String::new(), memory_bytes }
}

pub(crate) fn hello(name: &str, devices: Vec<Device>) -> Hello {
    let incarnation =
        Incarnation(u128::from_le_bytes(Digest::of(name.as_bytes()).0[..16].try_into().unwrap()));
    let machine = Machine::default();
    Hello {
        name: WorkerName::new(name).unwrap(),
        incarnation,
        devices,
        machine,
        held: Vec::new(),
        programs_only: false,
        knows: Vec::new(),
    }
}

/// A lease as its worker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    trial: TrialRef,
    epoch: Epoch,
}

/// An engine, a clock, and what the workers would know.
struct World {
    engine: Engine,
    now: Time,
    /// Actions of the newest step.
    actions: Vec<Action>,
    /// Number of the next report of a connection's worker.
    next_seq: BTreeMap<SessionId, u64>,
    next_session: u64,
    next_request: u64,
    /// Records of all steps.
    records: Vec<Record>,
}

impl World {
    fn new() -> Self {
        Self {
            engine: Engine::new(config()),
            now: Time(1_000_000_000),
            actions: Vec::new(),
            next_seq: BTreeMap::new(),
            next_session: 0,
            next_request: 0,
            records: Vec::new(),
        }
    }

    fn step(&mut self, event: Event) -> &[Action] {
        self.actions.clear();
        self.engine.step(self.now, event, &mut self.actions);
        if let Err(violation) = self.engine.check() {
            panic!("{violation}");
        }
        for action in &self.actions {
            if let Action::Record(record) = action {
                self.records.push(record.clone());
            }
        }
        &self.actions
    }

    fn pass(&mut self, seconds: f64) {
        self.now = self.now.after_s(seconds);
    }

    /// Time passes, second by second; the given connections are heard all the while.
    fn tick_for(&mut self, seconds: u32, heard: &[SessionId]) {
        for _ in 0..seconds {
            self.pass(1.0);
            self.step(Event::Tick { heard: heard.to_vec() });
        }
    }

    fn submit(&mut self, spec: SweepSpec) -> SweepId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let token = u128::from(self.next_request);
        self.step(Event::Submit { request, token, spec: Box::new(spec) });
        match self.reply() {
            Ok(Reply::Submitted { sweep, .. }) => sweep,
            other => panic!("{other:?}"),
        }
    }

    fn control(&mut self, target: Target, command: Command) -> Result<Reply, Refusal> {
        self.next_request += 1;
        self.step(Event::Control { request: RequestId(self.next_request), target, command });
        self.reply()
    }

    fn reply(&self) -> Result<Reply, Refusal> {
        let mut replies = self.actions.iter().filter_map(|action| match action {
            Action::Reply { outcome, .. } => Some(outcome.clone()),
            _ => None,
        });
        replies.next_back().expect("every request is answered")
    }

    fn session(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }

    /// A worker with these devices joins and takes `credits` leases on each.
    fn join_with(&mut self, name: &str, devices: Vec<Device>, credits: u32) -> SessionId {
        let session = self.session();
        let count = devices.len() as u16;
        self.step(Event::Joined { session, hello: Box::new(hello(name, devices)) });
        self.next_seq.insert(session, 1);
        for device in 0..count {
            self.ready(session, device, credits);
        }
        session
    }

    fn join(&mut self, name: &str, credits: u32) -> SessionId {
        self.join_with(name, vec![device(DeviceKind::Cpu, 8 * GIB)], credits)
    }

    /// The worker comes back over a new connection, holding `held`.
    fn rejoin(&mut self, old: SessionId, name: &str, held: &[Held]) -> SessionId {
        let session = self.session();
        let mut hello = hello(name, vec![device(DeviceKind::Cpu, 8 * GIB)]);
        hello.held = held.iter().map(|h| HeldLease { trial: h.trial, epoch: h.epoch, device: 0 }).collect();
        self.step(Event::Joined { session, hello: Box::new(hello) });
        let seq = self.next_seq.remove(&old).unwrap();
        self.next_seq.insert(session, seq);
        session
    }

    fn ready(&mut self, session: SessionId, device: u16, credits: u32) {
        self.step(Event::Ready { session, device, credits });
    }

    fn granted(&self) -> Vec<(SessionId, u16, Grant)> {
        let grants = self.actions.iter().filter_map(|action| match action {
            Action::Grant { session, device, grant } => Some((*session, *device, grant.clone())),
            _ => None,
        });
        grants.collect()
    }

    /// The only lease granted by the newest step.
    fn lease(&self) -> Held {
        match self.granted().as_slice() {
            [(_, _, grant)] => Held { trial: grant.trial, epoch: grant.epoch },
            other => panic!("one grant expected: {other:?}"),
        }
    }

    fn revoked(&self) -> Vec<(TrialRef, RevokeReason)> {
        let revokes = self.actions.iter().filter_map(|action| match action {
            Action::Revoke { trial, reason, .. } => Some((*trial, *reason)),
            _ => None,
        });
        revokes.collect()
    }

    fn acknowledged(&self) -> Option<u64> {
        self.actions.iter().find_map(|action| match action {
            Action::Acknowledge { seq, .. } => Some(*seq),
            _ => None,
        })
    }

    fn report(&mut self, session: SessionId, lease: Held, body: ReportBody) {
        let first_seq = self.next_seq[&session];
        *self.next_seq.get_mut(&session).unwrap() += 1;
        self.report_as(session, first_seq, lease, body);
    }

    fn report_as(&mut self, session: SessionId, first_seq: u64, lease: Held, body: ReportBody) {
        let batch = ReportBatch {
            first_seq,
            metric_names: vec![MetricName::new("loss").unwrap(), MetricName::new("acc").unwrap()],
            reports: vec![Report { trial: lease.trial, epoch: lease.epoch, body }],
        };
        self.step(Event::Reports { session, batch });
    }

    fn started(&mut self, session: SessionId, lease: Held) {
        self.report(session, lease, ReportBody::Started { step: 0, total_steps: Some(100) });
    }

    fn progress(&mut self, session: SessionId, lease: Held, step: u64, acc: f64) {
        let metrics = vec![(1, acc)];
        self.report(session, lease, ReportBody::Progress { step, data_epoch: 0.5, metrics });
    }

    fn checkpoint(&mut self, session: SessionId, lease: Held, step: u64, last: bool) {
        let manifest = Digest::of(format!("{} {step}", lease.trial).as_bytes());
        let parts = vec![Digest::of(format!("w {} {step}", lease.trial).as_bytes())];
        let reference = CheckpointRef { step, manifest, parts, bytes: 100, last };
        self.report(session, lease, ReportBody::Checkpoint(reference));
    }

    fn finished(&mut self, session: SessionId, lease: Held) {
        let metrics = vec![(1, 0.5)];
        let weights_digest = Some(Digest::of(b"weights"));
        self.report(
            session,
            lease,
            ReportBody::Finished { step: 100, metrics, weights_digest, seconds: 2.0 },
        );
    }

    fn failed(&mut self, session: SessionId, lease: Held, kind: FailureKind) {
        let message = "no luck".to_owned();
        self.report(session, lease, ReportBody::Failed { step: 5, kind, message, seconds: 1.0 });
    }

    fn released(&mut self, session: SessionId, lease: Held, step: u64) {
        self.report(session, lease, ReportBody::Released { step, seconds: 1.0 });
    }

    /// How attempts ended.
    fn ends(&self) -> Vec<AttemptEnd> {
        let ends = self.records.iter().filter_map(|record| match record {
            Record::AttemptEnded { end, .. } => Some(end.clone()),
            _ => None,
        });
        ends.collect()
    }

    fn trial(&self, trial: TrialRef) -> TrialView {
        self.engine.trial(trial).unwrap()
    }

    fn state(&self, trial: TrialRef) -> TrialState {
        self.trial(trial).state
    }
}

fn trial(sweep: SweepId, number: u32) -> TrialRef {
    TrialRef { sweep, number }
}
