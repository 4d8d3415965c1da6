//! Metrics: named numbers that a trial reports at a step.

use crate::ids::MetricName;
use serde::{Deserialize, Serialize};

/// Whether more or less of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Less is better (losses).
    Minimize,
    /// More is better (accuracies).
    Maximize,
}

impl Goal {
    /// Whether `a` is strictly better than `b`. NaN is never better.
    #[must_use]
    pub fn better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Minimize => a < b || (b.is_nan() && !a.is_nan()),
            Self::Maximize => a > b || (b.is_nan() && !a.is_nan()),
        }
    }
}

/// What a sweep optimises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// The metric.
    pub name: MetricName,
    /// Which way is better.
    pub goal: Goal,
    /// The value at which the sweep has reached what it wanted: no new trials are started from then on.
    pub target: Option<f64>,
}

/// Metrics reported together. Names are few and repeat in every report, so they are shared.
pub type Metrics = Vec<(MetricName, f64)>;

/// The metrics that the catalogue's models report. Accuracies are shares in [0, 1]; losses are means over samples;
/// `val_…` is there when `validation_fraction` is above 0; `test_…` comes once, with the final weights.
pub const KNOWN_METRICS: [&str; 10] = [
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "learning_rate",
    "samples_per_second",
    "seconds",
    "communication_share",
];

/// Metrics of wall-clock time: they differ from run to run, and comparisons of curves leave them out.
pub const TIMING_METRICS: [&str; 3] = ["samples_per_second", "seconds", "communication_share"];
