//! What can happen in a storm, the machines to which it happens, and the sweep that they run. No behaviour.

use super::agent::{Timer, Up};
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
}

/// The machine under an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Its processes are stopped until then.
    pub(crate) asleep_until: Time,
    /// Nothing has disturbed it since.
    pub(crate) calm_from: Time,
    /// When it was told that it will be taken.
    pub(crate) noticed_at: Option<Time>,
}

/// The sweep.
pub(crate) fn spec(trials: u32) -> Option<SweepSpec> {
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
            shards: 1,
            exact: true,
        },
        resources: Resources { device: DeviceRequest::Any, memory_bytes: None, workers: Workers::default() },
        checkpoint: CheckpointPolicy { every: Every::Steps(10), keep_last: 1 },
        retry: RetryPolicy { max_failures: u32::MAX, backoff_s: 0.5 },
        priority: 0,
    })
}
