//! Workers: who is there, and who trained what when.

use super::{Answer, Api, Asked, ErrorBody, trials::Attempt};
use crate::{
    driver::machine_time_us,
    error::{Code, Problem},
    queries::board::BOARD_TRIALS,
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use spotsweep_engine::views::SweepView;
use spotsweep_wire::v1;
use utoipa::{IntoParams, ToSchema};

/// Most attempts of one timeline; the newest stay.
const ATTEMPTS: usize = 5000;
/// Most sweeps that one timeline looks at; the newest.
const SWEEPS: usize = 8;

/// All workers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Workers {
    /// Those that are connected, or were lately.
    workers: Vec<Worker>,
}

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Worker {
    /// What people call it.
    name: String,
    /// `connected`, `draining`, `silent` or `gone`.
    state: String,
    /// When it first joined.
    since_us: u64,
    /// When it was last heard, if it is not connected.
    last_heard_us: Option<u64>,
    /// Of what it was warned, for people; empty if of nothing.
    notice: String,
    /// When.
    noticed_us: Option<u64>,
    /// Its machine.
    machine: Machine,
    /// Its devices.
    devices: Vec<Device>,
}

/// Facts about a machine; empty or 0 where unknown.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Machine {
    host: String,
    cpu: String,
    cores: u32,
    memory_bytes: u64,
    libtorch: String,
    instance_type: String,
    zone: String,
    version: String,
}

/// A device and what it has to do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Device {
    /// `cpu`, `cuda:0`, …
    name: String,
    /// The maker's name of it.
    model: String,
    /// Its memory.
    memory_bytes: u64,
    /// Leases that it takes more.
    credits: u32,
    /// Trials whose leases it holds, as SWEEP/NUMBER.
    trials: Vec<String>,
}

impl From<v1::WorkerSummary> for Worker {
    fn from(summary: v1::WorkerSummary) -> Self {
        let machine = summary.machine.unwrap_or_default();
        let device = |summary: v1::DeviceSummary| {
            let device = summary.device.unwrap_or_default();
            Device {
                name: device.name,
                model: device.model,
                memory_bytes: device.memory_bytes,
                credits: summary.credits,
                trials: summary.trials,
            }
        };
        Self {
            name: summary.name,
            state: summary.state,
            since_us: summary.since_us,
            last_heard_us: summary.last_heard_us,
            notice: summary.notice,
            noticed_us: summary.noticed_us,
            machine: Machine {
                host: machine.host,
                cpu: machine.cpu,
                cores: machine.cores,
                memory_bytes: machine.memory_bytes,
                libtorch: machine.libtorch,
                instance_type: machine.instance_type,
                zone: machine.zone,
                version: machine.version,
            },
            devices: summary.devices.into_iter().map(device).collect(),
        }
    }
}

/// All workers that are connected, or were lately.
#[utoipa::path(
    get,
    path = "/api/v1/workers",
    responses((status = 200, body = Workers), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(State(api): State<Api>) -> Answer<Workers> {
    let workers = api.queries.workers().await?;
    Ok(Json(Workers { workers: workers.into_iter().map(Worker::from).collect() }))
}

/// Which attempts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TimelineQuery {
    /// Only attempts of this sweep; else of the newest sweeps.
    sweep: Option<String>,
    /// Only attempts that ran at or after this moment.
    #[serde(default)]
    since_us: u64,
    /// Most attempts, at most 5,000, which is what is left out means.
    limit: Option<usize>,
}

/// Attempts over time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Timeline {
    /// The coordinator's clock: the end, so far, of what runs.
    now_us: u64,
    /// By beginning.
    attempts: Vec<Attempt>,
    /// Whether older attempts, or sweeps too large for it, are left out.
    cut: bool,
}

/// Who trained what when: attempts by worker and device, over sweeps.
#[utoipa::path(
    get,
    path = "/api/v1/timeline",
    params(TimelineQuery),
    responses((status = 200, body = Timeline), (status = "default", body = ErrorBody))
)]
pub(super) async fn timeline(State(api): State<Api>, Asked(asked): Asked<TimelineQuery>) -> Answer<Timeline> {
    let limit = asked.limit.unwrap_or(ATTEMPTS);
    if limit > ATTEMPTS {
        return Err(
            Problem::new(Code::TooLarge, format!("a timeline has at most {ATTEMPTS} attempts")).into()
        );
    }
    let mut cut = false;
    let sweeps: Vec<SweepView> = match &asked.sweep {
        Some(name) => vec![api.queries.find(name).await?.sweep],
        None => {
            let since = asked.since_us;
            let look = move |engine: &spotsweep_engine::Engine| -> Vec<SweepView> {
                engine.sweeps().filter(|view| view.ended_at.is_none_or(|at| at.0 >= since)).collect()
            };
            let mut sweeps = api.queries.ask(look).await?;
            sweeps.reverse();
            cut |= sweeps.len() > SWEEPS || sweeps.iter().any(|sweep| sweep.trials > BOARD_TRIALS);
            sweeps.retain(|sweep| sweep.trials <= BOARD_TRIALS);
            sweeps.truncate(SWEEPS);
            sweeps
        }
    };
    let mut attempts = Vec::new();
    for sweep in sweeps {
        let board = api.boards.of_sweep(sweep).await?;
        let name = board.name().as_str();
        for row in board.rows() {
            let found = row.attempts.iter().filter_map(|attempt| Attempt::of(name, row.number, attempt));
            attempts
                .extend(found.filter(|attempt| attempt.ended_at_us.is_none_or(|at| at >= asked.since_us)));
        }
    }
    attempts.sort_by_key(|attempt| attempt.started_at_us);
    if attempts.len() > limit {
        cut = true;
        attempts.drain(..attempts.len() - limit);
    }
    Ok(Json(Timeline { now_us: machine_time_us(), attempts, cut }))
}
