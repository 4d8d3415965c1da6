//! A trial as a row for programs and as pieces of a table for people.
//!
//! Pure. Must not know where trials come from.

use super::{
    rows::{Field, Row},
    text,
};
use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value};
use spotsweep_wire::v1::{Metric, Trial};

/// The parameters as JSON; what cannot be read is none.
#[must_use]
pub(crate) fn params(trial: &Trial) -> Map<String, Value> {
    serde_json::from_str(&trial.params_json).unwrap_or_default()
}

/// The metric called `name`.
#[must_use]
pub(crate) fn metric(trial: &Trial, name: &str) -> Option<f64> {
    trial.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
}

/// Metrics as fields.
#[must_use]
pub(crate) fn metric_fields(metrics: &[Metric]) -> Vec<(String, Field)> {
    metrics.iter().map(|metric| (metric.name.clone(), Field::Float(metric.value))).collect()
}

/// Everything about a trial. The names are part of the interface for scripts.
#[must_use]
pub(crate) fn row(trial: &Trial) -> Row {
    let params = params(trial).into_iter().map(|(name, value)| (name, Field::Json(value))).collect();
    Row::new()
        .with("sweep", Field::text(&trial.sweep))
        .with("trial", Field::text(&trial.trial))
        .with("number", Field::Count(trial.number.into()))
        .with("state", Field::text(&trial.state))
        .with("params", Field::Group(params))
        .with("metrics", Field::Group(metric_fields(&trial.metrics)))
        .with("steps", Field::Count(trial.steps))
        .with("total_steps", trial.total_steps.map_or(Field::Nothing, Field::Count))
        .with("attempts", Field::Count(trial.attempts.into()))
        .with("failures", Field::Count(trial.failures.into()))
        .with("weights_digest", Field::text(&trial.weights_digest))
        .with("device", Field::text(&trial.device))
        .with("worker", Field::text(&trial.worker))
        .with("seconds", Field::Float(trial.seconds))
        .with("failure", Field::text(&trial.failure))
        .with("best", trial.best.map_or(Field::Nothing, Field::Float))
}

/// Colour of a state of a trial, sweep or worker.
#[must_use]
pub(crate) fn state_style(state: &str) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    match state {
        "completed" | "connected" => colour(AnsiColor::Green),
        "running" => colour(AnsiColor::Cyan),
        "failed" | "diverged" | "gone" => colour(AnsiColor::Red),
        "paused" | "cancelled" | "silent" | "draining" => colour(AnsiColor::Yellow),
        _ => Style::new().dimmed(),
    }
}

/// Steps as `done/all`.
#[must_use]
pub(crate) fn steps(trial: &Trial) -> String {
    match trial.total_steps {
        Some(total) if total != trial.steps => format!("{}/{total}", trial.steps),
        Some(_) | None => trial.steps.to_string(),
    }
}

/// Parameters in one line: `model=cnn learning_rate=0.1`, only those that `shown` picks.
#[must_use]
pub(crate) fn params_line(params: &Map<String, Value>, shown: impl Fn(&str) -> bool) -> String {
    let parts = params.iter().filter(|(name, _)| shown(name));
    parts
        .map(|(name, value)| format!("{}={}", text::harmless(name), text::parameter(value)))
        .collect::<Vec<_>>()
        .join(" ")
}
