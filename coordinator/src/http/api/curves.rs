//! Curves: one metric of many trials, or all metrics of one, down-sampled here so that a browser can draw them.

use super::{Answer, Api, Asked, At, ErrorBody, trial_name};
use crate::{
    error::{Code, Problem},
    http::lttb::lttb,
    queries::board::Selection,
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use spotsweep_engine::{SweepId, TrialRef};
use spotsweep_proto::ids::MetricName;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use utoipa::{IntoParams, ToSchema};

/// Most curves of one answer.
const CURVES: usize = 500;
/// Curves of an answer unless asked for otherwise.
const USUAL_CURVES: usize = 50;
/// Most points of one curve.
const POINTS: usize = 5000;
/// Points of a curve unless asked for otherwise.
const USUAL_POINTS: usize = 200;
/// Most points of a trial that are read: what comes after is not drawn.
const POINTS_READ: usize = 1_000_000;
/// Points of all curves that are kept, of trials that have ended: about 64 MiB.
const KEPT_POINTS: usize = 4 << 20;

/// Which curves.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CurvesQuery {
    /// The metric.
    metric: String,
    /// As for the table of trials.
    #[serde(default)]
    filter: String,
    /// As for the table of trials.
    #[serde(default)]
    sort: String,
    /// Numbers of trials, joined by commas: these instead of the first of the table.
    trials: Option<String>,
    /// Most curves, at most 500; 50 if left out.
    limit: Option<usize>,
    /// Most points of a curve, from 2 to 5,000; 200 if left out.
    points: Option<usize>,
}

/// One metric of one trial.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Curve {
    /// The trial.
    number: u32,
    /// The metric.
    metric: String,
    /// Steps, ascending.
    steps: Vec<u64>,
    /// The value at each; all finite.
    values: Vec<f64>,
    /// Points that were reported.
    reported: usize,
    /// Of those, points that were not finite and are not here.
    not_finite: usize,
}

/// Curves of many trials.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Curves {
    /// In the order asked for; trials that reported nothing are left out.
    #[schema(value_type = Vec<Curve>)]
    curves: Vec<Arc<Curve>>,
    /// Trials that the filter lets through.
    total: usize,
    /// How points were chosen.
    method: &'static str,
}

const METHOD: &str = "largest triangle three buckets (Steinarsson 2013)";

/// A curve by its trial, metric and number of points.
type Key = (SweepId, u32, String, usize);

/// Curves of trials that have ended: they never change.
#[derive(Debug, Default)]
pub(super) struct CurveCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    curves: HashMap<Key, Arc<Curve>>,
    points: usize,
}

impl CurveCache {
    fn get(&self, key: &Key) -> Option<Arc<Curve>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).curves.get(key).cloned()
    }

    fn put(&self, key: Key, curve: Arc<Curve>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.points + curve.steps.len() > KEPT_POINTS {
            *kept = Kept::default();
        }
        kept.points += curve.steps.len();
        kept.curves.insert(key, curve);
    }
}

fn down_sampled(number: u32, metric: &str, points: &[(u64, f64)], wanted: usize) -> Curve {
    #[expect(clippy::cast_precision_loss, reason = "steps are below 2^53: STEPS_PER_TRIAL")]
    let finite: Vec<(f64, f64)> = points
        .iter()
        .filter(|(_, value)| value.is_finite())
        .map(|(step, value)| (*step as f64, *value))
        .collect();
    let not_finite = points.len() - finite.len();
    let picked = lttb(&finite, wanted);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a step before")]
    let steps = picked.iter().map(|(step, _)| *step as u64).collect();
    let values = picked.iter().map(|(_, value)| *value).collect();
    Curve { number, metric: metric.to_owned(), steps, values, reported: points.len(), not_finite }
}

fn metric_name(text: &str) -> Result<MetricName, Problem> {
    MetricName::new(text).map_err(|error| Problem::new(Code::BadRequest, error.to_string()))
}

fn points_wanted(asked: Option<usize>) -> Result<usize, Problem> {
    let wanted = asked.unwrap_or(USUAL_POINTS);
    if (2..=POINTS).contains(&wanted) {
        return Ok(wanted);
    }
    Err(Problem::new(Code::BadRequest, format!("a curve has from 2 to {POINTS} points, not {wanted}")))
}

/// The curves of one metric over the trials of a sweep.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}/curves",
    params(("sweep" = String, Path, description = "The sweep"), CurvesQuery),
    responses((status = 200, body = Curves), (status = "default", body = ErrorBody))
)]
pub(super) async fn of_sweep(
    State(api): State<Api>,
    At(sweep): At<String>,
    Asked(asked): Asked<CurvesQuery>,
) -> Answer<Curves> {
    let wanted = points_wanted(asked.points)?;
    let limit = asked.limit.unwrap_or(USUAL_CURVES);
    if limit > CURVES {
        return Err(Problem::new(Code::TooLarge, format!("an answer has at most {CURVES} curves")).into());
    }
    let metric = metric_name(&asked.metric)?;
    let chosen: Option<Vec<u32>> = match &asked.trials {
        None => None,
        Some(list) => {
            let bad = |_| Problem::new(Code::BadRequest, "trials are numbers, joined by commas");
            let numbers: Result<Vec<u32>, Problem> = list
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(|text| text.parse().map_err(bad))
                .collect();
            Some(numbers?)
        }
    };
    let _turn = api.large_read().await?;
    let board = api.boards.of(&sweep).await?;
    let mut rows = Selection::parse(&board, &asked.filter, &asked.sort)?.apply(&board);
    if let Some(chosen) = chosen {
        rows.retain(|row| chosen.contains(&row.number));
    }
    let total = rows.len();
    rows.truncate(limit);
    let id = board.sweep().id;
    let cache = api.curves.clone();
    let read = api.queries.read(move |history| {
        let mut curves = Vec::with_capacity(rows.len());
        for row in rows.iter().filter(|row| row.brief.step > 0) {
            let key = (id, row.number, metric.to_string(), wanted);
            if let Some(curve) = cache.get(&key) {
                curves.push(curve);
                continue;
            }
            let points = history.curve(TrialRef { sweep: id, number: row.number }, &metric, POINTS_READ)?;
            let curve = Arc::new(down_sampled(row.number, metric.as_str(), &points, wanted));
            if row.brief.state.is_final() {
                cache.put(key, curve.clone());
            }
            if curve.reported > 0 {
                curves.push(curve);
            }
        }
        Ok(curves)
    });
    Ok(Json(Curves { curves: read.await?, total, method: METHOD }))
}

/// How fine.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TrialCurvesQuery {
    /// Most points of a curve, from 2 to 5,000; 200 if left out.
    points: Option<usize>,
}

/// All metrics of one trial.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}/trials/{number}/curves",
    params(
        ("sweep" = String, Path, description = "The sweep"),
        ("number" = u32, Path, description = "The trial, from 0"),
        TrialCurvesQuery,
    ),
    responses((status = 200, body = Curves), (status = "default", body = ErrorBody))
)]
pub(super) async fn of_trial(
    State(api): State<Api>,
    At((sweep, number)): At<(String, u32)>,
    Asked(asked): Asked<TrialCurvesQuery>,
) -> Answer<Curves> {
    let wanted = points_wanted(asked.points)?;
    let _turn = api.large_read().await?;
    let (_, trial) = api.queries.find_trial(&trial_name(&sweep, number)).await?;
    let read = api.queries.read(move |history| {
        let mut by_metric: Vec<(MetricName, Vec<(u64, f64)>)> = Vec::new();
        for point in history.points(trial, 0, POINTS_READ)?.into_iter().take(POINTS_READ) {
            for (name, value) in point.metrics {
                match by_metric.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, points)) => points.push((point.step, value)),
                    None => by_metric.push((name, vec![(point.step, value)])),
                }
            }
        }
        let curve = |(name, points): (MetricName, Vec<_>)| {
            Arc::new(down_sampled(number, name.as_str(), &points, wanted))
        };
        Ok(by_metric.into_iter().map(curve).collect::<Vec<_>>())
    });
    Ok(Json(Curves { curves: read.await?, total: 1, method: METHOD }))
}
