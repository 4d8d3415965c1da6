//! What can happen in a storm, the machines to which it happens, and the sweep that they run. No behaviour.

use super::{
    agent::{Timer, Up},
    seat::Key,
};
use spotsweep_engine::{Action, SessionId, Time};
use spotsweep_proto::{
    ids::{MetricName, SweepName},
    metric::{Goal, Objective},
    notice::NoticeKind,
    spec::{
        CheckpointPolicy, DeviceRequest, Every, Method, Resources, RetryPolicy, SweepSpec, TrainSection,
        Workers, space::Space,
    },
};

/// Something that will happen.
pub(crate) enum What {
    ToCoordinator {
        session: SessionId,
        message: Up,
        /// It has been held up already.
        late: bool,
    },
    ToAgent {
        session: SessionId,
        action: Action,
    },
    /// The coordinator's side notices that a connection broke.
    SeenBroken {
        session: SessionId,
        life: u32,
    },
    Lost {
        agent: usize,
        life: u32,
        session: SessionId,
    },
    Connect {
        agent: usize,
        life: u32,
    },
    Heartbeat {
        agent: usize,
        life: u32,
    },
    Timer {
        agent: usize,
        life: u32,
        timer: Timer,
    },
    Notice {
        agent: usize,
        life: u32,
        kind: NoticeKind,
    },
    /// The machine is taken.
    Taken {
        agent: usize,
        life: u32,
    },
    Reborn {
        agent: usize,
        life: u32,
    },
    Commit {
        life: u32,
    },
    Tick {
        life: u32,
    },
    CoordinatorReturns,
    Disaster,
    /// The ranks of a make-up connect.
    Meet {
        key: Key,
        generation: u64,
    },
    /// The ranks of a make-up come to the end of some steps.
    Beat {
        key: Key,
        generation: u64,
    },
}

/// The machine under an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Its processes are stopped until then.
    pub(crate) asleep_until: Time,
    /// Other machines with agents cannot be reached until then.
    pub(crate) cut_until: Time,
    /// What its last agent said was still on its way when it died.
    pub(crate) words_lost: bool,
    /// Nothing has disturbed it since.
    pub(crate) calm_from: Time,
    /// When it was told that it will be taken.
    pub(crate) noticed_at: Option<Time>,
}

/// Shards of a trial that a gang trains.
const SHARDS: u32 = 8;

/// A sweep whose trials are trained by so many workers each.
pub(crate) fn spec(trials: u32, workers: Workers) -> Option<SweepSpec> {
    let name = MetricName::new("loss").ok()?;
    Some(SweepSpec {
        name: SweepName::new("sim").ok()?,
        description: String::new(),
        method: Method::Random { seed: 1 },
        objective: Some(Objective { name, goal: Goal::Minimize, target: None }),
        space: Space::default(),
        run_cap: Some(trials),
        train: TrainSection {
            model: None,
            data: None,
            length: None,
            seed: 0,
            threads: 1,
            shards: if workers.is_gang() { SHARDS } else { 1 },
            exact: true,
            own: Default::default(),
        },
        resources: Resources { device: DeviceRequest::Any, memory_bytes: None, workers },
        checkpoint: CheckpointPolicy { every: Every::Steps(10), keep_last: 1 },
        retry: RetryPolicy { max_failures: u32::MAX, backoff_s: 0.5 },
        priority: 0,
        program: None,
        sinks: Vec::new(),
    })
}
