//! The lines of an export, from JSON to what the engine takes. Pure; says what is wrong with a line, not where it stands.

use crate::{
    export::json::{Best, LastFailure, Number},
    queries::how::How,
};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use spotsweep_engine::{
    Time,
    action::TrialState,
    import::{ImportedAttempt, ImportedFailure, ImportedPoint, ImportedResult, ImportedTrial},
    views,
};
use spotsweep_proto::{
    ids::{DeviceName, Epoch, MetricName, WorkerName},
    limits::{FAILURE_TEXT_BYTES, METRICS_PER_REPORT, METRICS_PER_TRIAL, STEPS_PER_TRIAL},
    line::FailureKind,
    metric::Metrics,
    spec::SweepSpec,
};
use std::{collections::HashMap, fmt};

/// A device for what happened where the export names none.
const SOME_DEVICE: &str = "unknown";

/// Metrics in their order, each as often as it stands there.
struct InOrder(Vec<(String, Number)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl<'de> de::Visitor<'de> for Reads {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metrics by name")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut found = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    found.push(entry);
                    if found.len() > METRICS_PER_TRIAL {
                        return Err(de::Error::custom(format!(
                            "there are more than {METRICS_PER_TRIAL} metrics"
                        )));
                    }
                }
                Ok(InOrder(found))
            }
        }
        deserializer.deserialize_map(Reads)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrialLine {
    number: u32,
    state: TrialState,
    params: Map<String, Value>,
    metrics: InOrder,
    steps: u64,
    total_steps: Option<u64>,
    attempts: u32,
    failures: u32,
    interruptions: u32,
    epoch: u64,
    best: Option<Best>,
    objective: Option<Number>,
    seconds: Number,
    device: String,
    worker: String,
    weights_digest: String,
    failure: String,
    last_failure: Option<LastFailure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptLine {
    trial: u32,
    attempt: u32,
    epoch: u64,
    worker: String,
    device: String,
    first_step: u64,
    started_at_us: u64,
    last_step: Option<u64>,
    ended_at_us: Option<u64>,
    end: Option<How>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PointLine {
    trial: u32,
    step: u64,
    epoch: Number,
    at_us: u64,
    metrics: InOrder,
}

fn said(error: impl fmt::Display) -> String {
    error.to_string()
}

fn json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| {
        // Every text here is one line, so that only the column tells anything.
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        format!("{what}, at column {}", error.column())
    })
}

fn step(step: u64) -> Result<u64, String> {
    if step <= STEPS_PER_TRIAL {
        Ok(step)
    } else {
        Err(format!("step {step} is more than {STEPS_PER_TRIAL}"))
    }
}

fn finite(what: &str, Number(value): Number) -> Result<f64, String> {
    if value.is_finite() { Ok(value) } else { Err(format!("{what} is no finite number")) }
}

fn metrics(InOrder(found): InOrder) -> Result<Metrics, String> {
    let one = |(name, Number(value)): (String, Number)| Ok((MetricName::new(&name).map_err(said)?, value));
    found.into_iter().map(one).collect()
}

/// Reads the line of trial `number`, which must have the parameters that the specification gives it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn trial(line: &[u8], spec: &SweepSpec, number: u32) -> Result<ImportedTrial, String> {
    let line: TrialLine = json(line)?;
    if line.number != number {
        return Err(format!("trial {} stands where trial {number} belongs", line.number));
    }
    if !line.state.is_final() {
        return Err(format!("trial {number} is {}, but its sweep has ended", line.state));
    }
    if line.params != spec.assignment(number).to_json() {
        return Err(format!("trial {number} has other parameters than the specification gives it"));
    }
    let place = match (line.worker.as_str(), line.device.as_str()) {
        ("", "") => None,
        (worker, device) => {
            Some((WorkerName::new(worker).map_err(said)?, DeviceName::new(device).map_err(said)?))
        }
    };
    let failure = match line.last_failure {
        None if line.failure.is_empty() => None,
        None => return Err("it has the message of a failure that is not told of".to_owned()),
        Some(LastFailure { kind, worker, at_us }) => {
            if line.failure.len() > FAILURE_TEXT_BYTES {
                return Err(format!("its failure has more than {FAILURE_TEXT_BYTES} bytes"));
            }
            let kind: FailureKind = serde_json::from_value(Value::from(kind)).map_err(said)?;
            let worker = WorkerName::new(&worker).map_err(said)?;
            let device = DeviceName::new(SOME_DEVICE).map_err(said)?;
            Some(ImportedFailure { kind, message: line.failure, worker, device, at: Time(at_us) })
        }
    };
    let weights_digest = match line.weights_digest.as_str() {
        "" => None,
        digest => Some(digest.parse().map_err(said)?),
    };
    // Of others they follow from the points.
    let result = match line.state {
        TrialState::Completed => Some(ImportedResult { metrics: metrics(line.metrics)?, weights_digest }),
        _ => None,
    };
    let best = match line.best {
        Some(Best { value, step }) => {
            Some(views::Best { value: finite("the best value", value)?, step: self::step(step)? })
        }
        None => None,
    };
    Ok(ImportedTrial {
        state: line.state,
        epoch: Epoch(line.epoch),
        attempts: line.attempts,
        failures: line.failures,
        interruptions: line.interruptions,
        place,
        step: step(line.steps)?,
        total_steps: line.total_steps.map(step).transpose()?,
        seconds: finite("seconds", line.seconds)?,
        objective: line.objective.map(|value| finite("the objective", value)).transpose()?,
        best,
        failure,
        result,
    })
}

/// Reads the line of an attempt.
///
/// # Errors
/// What is wrong with it.
pub(super) fn attempt(line: &[u8]) -> Result<ImportedAttempt, String> {
    let line: AttemptLine = json(line)?;
    let (Some(end), Some(last_step), Some(ended_at_us)) = (line.end, line.last_step, line.ended_at_us) else {
        return Err(format!(
            "attempt {} of trial {} has not ended, but its sweep has",
            line.attempt, line.trial
        ));
    };
    if line.attempt == 0 {
        return Err("attempts are counted from 1".to_owned());
    }
    Ok(ImportedAttempt {
        number: line.trial,
        epoch: Epoch(line.epoch),
        attempt: line.attempt,
        worker: WorkerName::new(&line.worker).map_err(said)?,
        device: DeviceName::new(&line.device).map_err(said)?,
        first_step: step(line.first_step)?,
        started_at: Time(line.started_at_us),
        end: end.into_end()?,
        last_step: step(last_step)?,
        ended_at: Time(ended_at_us),
    })
}

/// Names of metrics, each with the index by which points refer to it.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) names: Vec<MetricName>,
    indexes: HashMap<String, u16>,
}

impl Names {
    fn index(&mut self, name: &str) -> Result<u16, String> {
        if let Some(index) = self.indexes.get(name) {
            return Ok(*index);
        }
        let index = u16::try_from(self.names.len()).map_err(|_| "there are too many metrics".to_owned())?;
        self.names.push(MetricName::new(name).map_err(said)?);
        self.indexes.insert(name.to_owned(), index);
        Ok(index)
    }
}

/// Reads the line of a point.
///
/// # Errors
/// What is wrong with it.
pub(super) fn point(line: &[u8], names: &mut Names) -> Result<ImportedPoint, String> {
    let line: PointLine = json(line)?;
    let InOrder(found) = line.metrics;
    if found.len() > METRICS_PER_REPORT {
        return Err(format!("a report has at most {METRICS_PER_REPORT} metrics"));
    }
    let mut metrics = Vec::with_capacity(found.len());
    for (name, Number(value)) in found {
        metrics.push((names.index(&name)?, value));
    }
    Ok(ImportedPoint {
        number: line.trial,
        step: step(line.step)?,
        data_epoch: finite("the epoch", line.epoch)?,
        at: Time(line.at_us),
        metrics,
    })
}
