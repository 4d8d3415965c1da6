//! Sweeps written where other programs read them: CSV, JSON Lines, Parquet, TensorBoard, MLflow. One file a format.
//!
//! Trials come in order of number, each followed by its points in order of steps, and nothing is kept of either but what a
//! buffer of fixed size holds. Must not know where they come from: `cli/export.rs` asks.

use crate::error::{Code, Problem};
use spotsweep_wire::v1::{Point, SweepSummary, Trial};
use std::{io, path::Path};

pub(crate) mod csv;
pub(crate) mod folder;
pub(crate) mod json;
pub(crate) mod manifest;
pub(crate) mod mlflow;
pub(crate) mod parquet;
mod spool;
pub(crate) mod tensorboard;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use crate::cli::text::not_finite;
pub(crate) use folder::Staging;

/// What is exported.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The sweep, as it was when the export began.
    pub(crate) sweep: SweepSummary,
    /// The checked specification as JSON.
    pub(crate) spec_json: String,
}

/// A format. After [`Export::trial`] come that trial's points; [`Export::end`] comes last and once.
pub(crate) trait Export {
    /// The next trial.
    ///
    /// # Errors
    /// If it cannot be written.
    async fn trial(&mut self, trial: &Trial) -> Result<(), Problem>;

    /// The next points of the last trial.
    ///
    /// # Errors
    /// As [`Export::trial`].
    async fn points(&mut self, points: &[Point]) -> Result<(), Problem>;

    /// Nothing comes any more: completes what was begun.
    ///
    /// # Errors
    /// As [`Export::trial`].
    async fn end(&mut self) -> Result<(), Problem>;
}

/// An error of the system at `path`.
pub(crate) fn failed(doing: &str, path: &Path, error: &io::Error) -> Problem {
    let message = format!("cannot {doing} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::new(Code::Storage, message)
            .hint("free some space and export again; nothing half is left"),
        _ => Problem::new(Code::Internal, message),
    }
}

/// The name under which TensorBoard and MLflow know a trial's final metric. No metric has a colon in its own name.
pub(crate) fn final_name(metric: &str) -> String {
    format!("final:{metric}")
}

/// The name under which TensorBoard and MLflow know the passes over the data that were done at a step.
pub(crate) const EPOCH: &str = "epoch";

/// The name under which TensorBoard and MLflow know a metric of points.
pub(crate) fn point_name(metric: &str) -> std::borrow::Cow<'_, str> {
    if metric == EPOCH { "metrics:epoch".into() } else { metric.into() }
}

/// The parameters of a trial, in their order; what cannot be read is none.
pub(crate) fn params(trial: &Trial) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(&trial.params_json).unwrap_or_default()
}
