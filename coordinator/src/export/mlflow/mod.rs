//! MLflow: an experiment a sweep, a run a trial; as a folder that MLflow reads ([`files`]), or to a tracking server
//! ([`rest`]). Owns what both call things.
//!
//! A run is known by its tag [`TRIAL_TAG`]: digest of the specification, time of submission, number. Slashes of names
//! become colons, which no name of this program has: a slash would make folders, and `a` and `a/b` could not both be.

pub(crate) mod artifacts;
mod client;
pub(crate) mod files;
pub(crate) mod rest;

use super::{EPOCH, Subject, final_name, params, point_name};
use serde_json::Value;
use spotsweep_wire::v1::{Point, Trial};

/// The tag that tells which trial a run is.
pub(crate) const TRIAL_TAG: &str = "spotsweep.trial_id";
/// Longest value of a parameter that MLflow takes, in characters.
const PARAM_CHARS: usize = 6000;
/// Longest value of a tag that is given, in characters; MLflow takes 8000, older ones 5000.
const TAG_CHARS: usize = 5000;

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Scheduled,
    Running,
    Finished,
    Failed,
    Killed,
}

impl Status {
    fn of(trial: &Trial) -> Self {
        match trial.state.as_str() {
            "completed" => Self::Finished,
            "failed" | "diverged" => Self::Failed,
            "cancelled" => Self::Killed,
            "running" => Self::Running,
            _ => Self::Scheduled,
        }
    }

    fn has_ended(self) -> bool {
        match self {
            Self::Finished | Self::Failed | Self::Killed => true,
            Self::Scheduled | Self::Running => false,
        }
    }

    /// The word of the REST interface.
    fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }

    /// The number of `RunStatus` in MLflow's `service.proto`, which files hold.
    fn number(self) -> u8 {
        match self {
            Self::Running => 1,
            Self::Scheduled => 2,
            Self::Finished => 3,
            Self::Failed => 4,
            Self::Killed => 5,
        }
    }
}

/// A value at a step.
#[derive(Debug, Clone, PartialEq)]
struct Logged {
    key: String,
    value: f64,
    /// Milliseconds since the Unix epoch.
    timestamp: u64,
    step: u64,
}

/// A name as MLflow takes it.
fn key(name: &str) -> String {
    name.replace('/', ":")
}

/// What identifies a trial wherever it is logged.
fn identity(subject: &Subject, number: u32) -> String {
    format!("{}/{}/{number}", subject.sweep.spec_digest, subject.sweep.submitted_at_us)
}

/// At most `limit` characters of `text`, with a sign where some are missing.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

/// The parameters as MLflow keeps them: text.
fn parameters(trial: &Trial) -> Vec<(String, String)> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    params(trial).into_iter().map(|(name, value)| (key(&name), cut(&text(value), PARAM_CHARS))).collect()
}

/// What else is known of a trial.
fn tags(subject: &Subject, trial: &Trial) -> Vec<(String, String)> {
    let own = [
        ("mlflow.runName", trial.trial.clone()),
        ("mlflow.source.name", format!("spotsweep {}", env!("CARGO_PKG_VERSION"))),
        (TRIAL_TAG, identity(subject, trial.number)),
        ("spotsweep.sweep", trial.sweep.clone()),
        ("spotsweep.number", trial.number.to_string()),
        ("spotsweep.state", trial.state.clone()),
        ("spotsweep.steps", trial.steps.to_string()),
        ("spotsweep.attempts", trial.attempts.to_string()),
        ("spotsweep.failures", trial.failures.to_string()),
        ("spotsweep.seconds", trial.seconds.to_string()),
        ("spotsweep.device", trial.device.clone()),
        ("spotsweep.worker", trial.worker.clone()),
        ("spotsweep.weights_digest", trial.weights_digest.clone()),
        ("spotsweep.failure", trial.failure.clone()),
    ];
    let told = own.into_iter().filter(|(_, value)| !value.is_empty());
    told.map(|(name, value)| (name.to_owned(), cut(&value, TAG_CHARS))).collect()
}

/// What a point holds.
fn logged(point: &Point) -> impl Iterator<Item = Logged> {
    let (timestamp, step) = (point.at_us / 1000, point.step);
    let epoch = Logged { key: EPOCH.to_owned(), value: point.data_epoch, timestamp, step };
    let metrics = point.metrics.iter().map(move |metric| Logged {
        key: key(&point_name(&metric.name)),
        value: metric.value,
        timestamp,
        step,
    });
    std::iter::once(epoch).chain(metrics)
}

/// The final metrics.
fn finals(trial: &Trial, at_us: u64) -> impl Iterator<Item = Logged> {
    trial.metrics.iter().map(move |metric| Logged {
        key: key(&final_name(&metric.name)),
        value: metric.value,
        timestamp: at_us / 1000,
        step: trial.steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;

    #[test]
    fn no_two_names_become_one_and_none_leaves_its_folder() {
        let trial = &testing::trials()[0];
        let keys: Vec<String> = parameters(trial).into_iter().map(|(key, _)| key).collect();
        assert!(keys.contains(&"a:..:..:b".to_owned()), "{keys:?}");
        assert_eq!(key(&final_name("x")), "final:x");
        assert_eq!(point_name("epoch"), "metrics:epoch");
    }

    #[test]
    fn what_mlflow_would_refuse_as_too_long_is_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut(&"x".repeat(1 << 20), TAG_CHARS).chars().count(), TAG_CHARS);
    }
}
