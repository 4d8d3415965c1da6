//! Sweeps: all of them, and one with what its page begins with.

use super::{
    Answer, Api, Asked, At, ErrorBody,
    bodies::{ObjectiveBody, ParameterBody, Sweep, finite},
};
use crate::{
    driver::machine_time_us,
    http::importance::{Level, epsilon_squared},
    queries::board::{Board, Cell, Field},
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The coordinator itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// Version of the program.
    version: &'static str,
    /// When it started.
    started_at_us: u64,
    /// Its clock.
    now_us: u64,
    /// Reports that were dropped because they came under an old epoch.
    stale_reports: u64,
    /// Why its journal cannot be written just now; null if it can.
    stalled: Option<String>,
}

/// The coordinator itself; answers even while its journal cannot be written.
#[utoipa::path(
    get,
    path = "/api/v1/status",
    responses((status = 200, body = Status), (status = "default", body = ErrorBody))
)]
pub(super) async fn status(State(api): State<Api>) -> Answer<Status> {
    let stalled = api.handle.store_state().stalled;
    let stale_reports = match stalled {
        None => api.queries.ask(|engine| engine.totals().stale_reports).await?,
        Some(_) => 0,
    };
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at_us: api.started_at_us,
        now_us: machine_time_us(),
        stale_reports,
        stalled,
    }))
}

/// All sweeps.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sweeps {
    /// Oldest first.
    sweeps: Vec<Sweep>,
}

/// All sweeps, oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps",
    responses((status = 200, body = Sweeps), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(State(api): State<Api>) -> Answer<Sweeps> {
    let sweeps = api.queries.ask(|engine| engine.sweeps().map(|view| Sweep::from(&view)).collect()).await?;
    Ok(Json(Sweeps { sweeps }))
}

/// A sweep and what there is to see of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SweepPage {
    /// The sweep.
    summary: Sweep,
    /// Its hyperparameters, in the order of the file.
    parameters: Vec<ParameterBody>,
    /// Metrics that its trials reported, by name.
    metrics: Vec<String>,
    /// The columns that its table of trials may have.
    columns: Vec<String>,
    /// The best objective of all trials that had ended by then.
    best_so_far: Vec<Best>,
    /// The checked specification.
    spec: serde_json::Value,
}

/// A step of the best-so-far curve: from then on this was the best.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Best {
    /// When the trial ended; null if it runs.
    at_us: Option<u64>,
    /// The trial.
    number: u32,
    /// Its best value of the objective.
    value: f64,
}

/// One sweep: how it stands, its parameters and metrics, and its best so far.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}",
    params(("sweep" = String, Path, description = "The sweep")),
    responses((status = 200, body = SweepPage), (status = "default", body = ErrorBody))
)]
pub(super) async fn show(State(api): State<Api>, At(sweep): At<String>) -> Answer<SweepPage> {
    let board = api.boards.of(&sweep).await?;
    let best_so_far = board.best_so_far().into_iter().filter_map(|point| {
        Some(Best { at_us: point.at_us, number: point.number, value: finite(point.value)? })
    });
    let parameters: Vec<ParameterBody> = board.spec().space.0.iter().map(ParameterBody::from).collect();
    let spec = serde_json::to_value(board.spec()).map_err(|error| crate::Problem::internal(&error))?;
    Ok(Json(SweepPage {
        summary: Sweep::from(board.sweep()),
        columns: columns(&board),
        parameters,
        metrics: board.metrics().map(str::to_owned).collect(),
        best_so_far: best_so_far.collect(),
        spec,
    }))
}

/// All columns of a sweep's table: what every trial has, parameters, metrics. A metric of a parameter's name is
/// `metrics.NAME`.
pub(super) fn columns(board: &Board) -> Vec<String> {
    let parameters: Vec<String> =
        board.spec().space.0.iter().map(|parameter| parameter.name.to_string()).collect();
    let taken =
        |name: &str| parameters.iter().any(|known| known == name) || Field::fixed().any(|f| f == name);
    let metrics = board
        .metrics()
        .map(|name| if taken(name) { format!("metrics.{name}") } else { name.to_owned() })
        .collect::<Vec<_>>();
    let parameters = parameters
        .into_iter()
        .map(|name| if Field::fixed().any(|fixed| fixed == name) { format!("params.{name}") } else { name });
    Field::fixed().map(str::to_owned).chain(parameters).chain(metrics).collect()
}

/// Of which metric.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportanceQuery {
    /// The metric; the objective if left out.
    metric: Option<String>,
}

/// How much each hyperparameter alone explains of a metric.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Importance {
    /// The metric; empty if the sweep has no objective and none was asked for.
    metric: String,
    /// How it was computed.
    method: &'static str,
    /// Trials with a finite value of the metric.
    trials: usize,
    /// The parameters that vary, the most important first.
    parameters: Vec<Share>,
    /// What the metric is to be, where it is the objective.
    objective: Option<ObjectiveBody>,
}

/// The share of one parameter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Share {
    /// The parameter.
    name: String,
    /// In [0, 1]; null where trials are too few or nothing varies.
    share: Option<f64>,
}

/// What the page says of the method, too.
const METHOD: &str = "main effect of a one-way analysis of variance on at most 8 bins, as ε² (Kelley 1935)";

/// How much each hyperparameter alone explains of a metric's variance over the trials.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}/importance",
    params(("sweep" = String, Path, description = "The sweep"), ImportanceQuery),
    responses((status = 200, body = Importance), (status = "default", body = ErrorBody))
)]
pub(super) async fn importance(
    State(api): State<Api>,
    At(sweep): At<String>,
    Asked(asked): Asked<ImportanceQuery>,
) -> Answer<Importance> {
    let _turn = api.large_read().await?;
    let board = api.boards.of(&sweep).await?;
    let computed = tokio::task::spawn_blocking(move || compute(&board, asked.metric)).await;
    Ok(Json(computed.map_err(|error| crate::Problem::internal(&error))??))
}

fn compute(board: &Board, metric: Option<String>) -> Result<Importance, crate::Problem> {
    let objective = Sweep::from(board.sweep()).objective;
    let metric = metric.or_else(|| objective.as_ref().map(|objective| objective.metric.clone()));
    let Some(metric) = metric else {
        return Ok(Importance {
            metric: String::new(),
            method: METHOD,
            trials: 0,
            parameters: Vec::new(),
            objective: None,
        });
    };
    let field = match board.field(&format!("metrics.{metric}")) {
        Ok(field) => field,
        Err(_) => board.field(&metric)?,
    };
    let rows: Vec<_> = board
        .rows()
        .iter()
        .filter_map(|row| Some((row, field.of(row).as_f64().filter(|value| value.is_finite())?)))
        .collect();
    let values: Vec<f64> = rows.iter().map(|(_, value)| *value).collect();
    let mut parameters: Vec<Share> = Vec::new();
    for parameter in board.spec().space.0.iter().filter(|known| known.domain.grid_size() != Some(1)) {
        let levels: Vec<Level> =
            rows.iter().map(|(row, _)| level(row.params.get(parameter.name.as_str()))).collect();
        parameters.push(Share { name: parameter.name.to_string(), share: epsilon_squared(&levels, &values) });
    }
    parameters.sort_by(|a, b| b.share.unwrap_or(-1.0).total_cmp(&a.share.unwrap_or(-1.0)));
    let objective = objective.filter(|objective| objective.metric == metric);
    Ok(Importance { metric, method: METHOD, trials: values.len(), parameters, objective })
}

fn level(value: Option<&spotsweep_proto::value::ParamValue>) -> Level {
    let cell = value.map_or(Cell::Missing, Cell::from);
    match cell.as_f64() {
        Some(number) => Level::Number(number),
        None => Level::Text(cell.text()),
    }
}
