//! Trials: a page of a sweep's table, and one trial whole.

use super::{
    Answer, Api, Asked, At, ErrorBody,
    bodies::{CellBody, finite},
    sweeps::columns,
    trial_name,
};
use crate::{
    error::{Code, Problem},
    grpc::watch::interruption,
    queries::board::{Board, Cell, Field, Row, Selection},
    store::AttemptRow,
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use spotsweep_engine::action::{AttemptEnd, RevokeReason};
use std::{collections::BTreeMap, sync::Arc};
use utoipa::{IntoParams, ToSchema};

/// Most rows of one page.
const ROWS: usize = 10_000;
/// Rows of a page unless asked for otherwise.
const USUAL_ROWS: usize = 100;
/// Most columns of one page.
const COLUMNS: usize = 512;

/// Which rows, in which order, with which columns.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TrialsQuery {
    /// Conditions joined by `;`: `state=running|failed;learning_rate>=0.01;model~cnn`. Operators: `=` and `!=` (one
    /// of several, by `|`), `<`, `<=`, `>`, `>=`, `~` (contains).
    #[serde(default)]
    filter: String,
    /// A column, with `-` in front for descending. Without it the best by the objective come first.
    #[serde(default)]
    sort: String,
    /// Names of columns, joined by commas; all if left out.
    columns: Option<String>,
    /// Rows to pass over.
    #[serde(default)]
    offset: usize,
    /// Most rows, at most 10,000; 100 if left out.
    limit: Option<usize>,
}

/// A page of a table.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrialsPage {
    /// Rows that the filter lets through, on all pages.
    total: usize,
    /// Rows before this page.
    offset: usize,
    /// The columns' names.
    columns: Vec<String>,
    /// One a trial, a cell a column.
    rows: Vec<Vec<CellBody>>,
}

/// The trials of a sweep: filtered, sorted, a page of them.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}/trials",
    params(("sweep" = String, Path, description = "The sweep"), TrialsQuery),
    responses((status = 200, body = TrialsPage), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    At(sweep): At<String>,
    Asked(asked): Asked<TrialsQuery>,
) -> Answer<TrialsPage> {
    let limit = asked.limit.unwrap_or(USUAL_ROWS);
    if limit > ROWS {
        return Err(Problem::new(Code::TooLarge, format!("a page has at most {ROWS} rows")).into());
    }
    let board = api.boards.of(&sweep).await?;
    let made = tokio::task::spawn_blocking(move || page(&board, &asked, limit)).await;
    Ok(Json(made.map_err(|error| Problem::internal(&error))??))
}

fn page(board: &Board, asked: &TrialsQuery, limit: usize) -> Result<TrialsPage, Problem> {
    let selection = Selection::parse(board, &asked.filter, &asked.sort)?;
    let columns: Vec<String> = match &asked.columns {
        Some(names) => {
            names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        }
        None => columns(board),
    };
    if columns.len() > COLUMNS && asked.columns.is_some() {
        return Err(Problem::new(Code::TooLarge, format!("a page has at most {COLUMNS} columns")));
    }
    let fields: Vec<Field> = columns.iter().map(|name| board.field(name)).collect::<Result<_, _>>()?;
    let rows = selection.apply(board);
    let cells = |row: &Arc<Row>| fields.iter().map(|field| field.of(row).into()).collect();
    Ok(TrialsPage {
        total: rows.len(),
        offset: asked.offset,
        rows: rows.iter().skip(asked.offset).take(limit).map(cells).collect(),
        columns,
    })
}

/// A trial, whole.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TrialPage {
    /// Its sweep.
    sweep: String,
    /// Its place there, from 0.
    number: u32,
    /// `pending`, `running`, `paused`, `completed`, `stopped`, `failed`, `diverged` or `cancelled`.
    state: &'static str,
    /// Its hyperparameters.
    params: BTreeMap<String, CellBody>,
    /// Final metrics, or the newest of each while it has none; null where not finite.
    metrics: BTreeMap<String, Option<f64>>,
    /// Finished steps.
    steps: u64,
    /// Steps at the end, where known.
    total_steps: Option<u64>,
    /// Attempts that failed.
    failures: u32,
    /// Attempts that were interrupted: no failures.
    interruptions: u32,
    /// Seconds of training, all attempts together.
    seconds: f64,
    /// BLAKE3 of the final weights, hex.
    weights_digest: Option<String>,
    /// Oldest first.
    attempts: Vec<Attempt>,
    /// Those that are kept, by ascending step.
    checkpoints: Vec<Checkpoint>,
    /// Why it waits, moved, stopped or failed; the first line is the shortest answer.
    explanation: Vec<String>,
}

/// One run of a trial under one lease.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Attempt {
    /// Its sweep.
    pub(super) sweep: String,
    /// Its trial.
    pub(super) number: u32,
    /// The epoch of its lease.
    pub(super) epoch: u64,
    /// Which, from 1.
    pub(super) attempt: u32,
    /// Where.
    pub(super) worker: String,
    /// On what.
    pub(super) device: String,
    /// When it began.
    pub(super) started_at_us: u64,
    /// When it ended; null while it runs.
    pub(super) ended_at_us: Option<u64>,
    /// Steps finished before it.
    pub(super) first_step: u64,
    /// Last step known; null while it runs.
    pub(super) last_step: Option<u64>,
    /// How it ended: `finished`, `failed`, `released`, `worker_gone`, `disconnected`, `expired`, `paused`,
    /// `cancelled`, `moved`, `stale`, `not_needed` or `noticed`; null while it runs.
    pub(super) end: Option<&'static str>,
    /// The same for people; empty where there is nothing to add.
    pub(super) text: String,
    /// Whether it was interrupted: the machine's doing, not the trial's.
    pub(super) interrupted: bool,
    /// Steps that were done and that no stored checkpoint held, where a notice ended it.
    pub(super) lost_steps: Option<u64>,
}

impl Attempt {
    /// `None` if its beginning is not known.
    pub(super) fn of(sweep: &str, number: u32, row: &AttemptRow) -> Option<Self> {
        let (attempt, worker, device, first_step, started_at) = row.started.as_ref()?;
        let end = row.ended.as_ref().map(|(end, ..)| end);
        let (word, interrupted, lost_steps) = match end {
            None => (None, false, None),
            Some(AttemptEnd::Finished) => (Some("finished"), false, None),
            Some(AttemptEnd::Failed { .. }) => (Some("failed"), false, None),
            Some(AttemptEnd::Released) => (Some("released"), true, None),
            Some(AttemptEnd::WorkerGone) => (Some("worker_gone"), true, None),
            Some(AttemptEnd::Disconnected) => (Some("disconnected"), true, None),
            Some(AttemptEnd::Expired) => (Some("expired"), true, None),
            Some(AttemptEnd::Revoked { reason }) => (Some(reason_word(*reason)), false, None),
            Some(AttemptEnd::Noticed { lost_steps, .. }) => (Some("noticed"), true, Some(*lost_steps)),
            Some(AttemptEnd::Unreadable { .. }) => (Some("unreadable"), false, None),
        };
        Some(Self {
            sweep: sweep.to_owned(),
            number,
            epoch: row.epoch.0,
            attempt: *attempt,
            worker: worker.to_string(),
            device: device.to_string(),
            started_at_us: started_at.0,
            ended_at_us: row.ended.as_ref().map(|(.., at)| at.0),
            first_step: *first_step,
            last_step: row.ended.as_ref().map(|(_, step, _)| *step),
            end: word,
            text: row.ended.as_ref().and_then(|(end, step, _)| interruption(end, *step)).unwrap_or_default(),
            interrupted,
            lost_steps,
        })
    }
}

fn reason_word(reason: RevokeReason) -> &'static str {
    match reason {
        RevokeReason::Stale => "stale",
        RevokeReason::Paused => "paused",
        RevokeReason::Cancelled => "cancelled",
        RevokeReason::NotNeeded => "not_needed",
        RevokeReason::Moved => "moved",
    }
}

/// A checkpoint that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checkpoint {
    /// Its step.
    step: u64,
    /// Of weights and state together.
    bytes: u64,
    /// Whether these are the final weights.
    last: bool,
    /// Whether no kept checkpoint of the trial is better.
    best: bool,
    /// The objective at that step, where known.
    value: Option<f64>,
    /// BLAKE3 of its manifest, hex.
    manifest: String,
}

/// One trial: parameters, metrics, attempts, checkpoints, and why it is as it is.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}/trials/{number}",
    params(
        ("sweep" = String, Path, description = "The sweep"),
        ("number" = u32, Path, description = "The trial, from 0"),
    ),
    responses((status = 200, body = TrialPage), (status = "default", body = ErrorBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    At((sweep, number)): At<(String, u32)>,
) -> Answer<TrialPage> {
    let name = trial_name(&sweep, number);
    let (row, view) = api.boards.row(&name).await?;
    let explanation = api.queries.explain(&name).await?;
    let cell = |value| CellBody::from(Cell::from(value));
    let attempts = row.attempts.iter().filter_map(|attempt| Attempt::of(&sweep, number, attempt));
    let checkpoints = view.checkpoints.iter().map(|kept| Checkpoint {
        step: kept.reference.step,
        bytes: kept.reference.bytes,
        last: kept.reference.last,
        best: kept.best,
        value: kept.value.and_then(finite),
        manifest: kept.reference.manifest.to_string(),
    });
    Ok(Json(TrialPage {
        number,
        state: view.state.as_str(),
        params: row.params.0.iter().map(|(name, value)| (name.to_string(), cell(value))).collect(),
        metrics: row.metrics.iter().map(|(name, value)| (name.to_string(), finite(*value))).collect(),
        steps: view.step,
        total_steps: view.total_steps,
        failures: view.failures,
        interruptions: view.interruptions,
        seconds: view.seconds,
        weights_digest: row.weights_digest.map(|digest| digest.to_string()),
        attempts: attempts.collect(),
        checkpoints: checkpoints.collect(),
        explanation,
        sweep,
    }))
}
