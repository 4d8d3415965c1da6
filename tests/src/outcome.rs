//! What a sweep ended with, reduced to what must not depend on what happened to it on the way.

use crate::{Cluster, Trainer, wait};
use serde_json::{Map, Value};
use spotsweep_proto::metric::TIMING_METRICS;

/// Results and curves of a sweep, without wall-clock times, attempts and places.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// By trial number.
    pub trials: Vec<TrialOutcome>,
}

/// One trial's.
#[derive(Debug, PartialEq)]
pub struct TrialOutcome {
    /// Its number; a sweep that is submitted twice has two names.
    pub number: u64,
    /// Its state.
    pub state: String,
    /// Its parameters.
    pub params: Value,
    /// Final metrics.
    pub metrics: Value,
    /// Finished steps.
    pub steps: u64,
    /// Of the final weights.
    pub weights_digest: Value,
    /// Every reported point.
    pub curve: Vec<Value>,
}

/// Lines of JSON.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

fn timeless(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| !TIMING_METRICS.contains(&key.as_str()));
            Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

impl Outcome {
    /// Of a sweep as it stands.
    pub fn of(cluster: &Cluster, sweep: &str) -> Self {
        let mut trials: Vec<_> = json_lines(&cluster.ask(&["results", sweep, "--format", "json"]))
            .iter()
            .map(|row| {
                let trial = row["trial"].as_str().expect("trial").to_owned();
                let curve = json_lines(&cluster.ask(&["metrics", &trial, "--format", "json"]));
                TrialOutcome {
                    state: row["state"].as_str().expect("state").to_owned(),
                    params: row["params"].clone(),
                    metrics: timeless(&row["metrics"]),
                    steps: row["steps"].as_u64().expect("steps"),
                    weights_digest: row["weights_digest"].clone(),
                    curve: curve.iter().map(timeless).collect(),
                    number: row["number"].as_u64().expect("number"),
                }
            })
            .collect();
        trials.sort_by_key(|trial| trial.number);
        Self { trials }
    }

    /// Of a sweep where nothing happens to it, with the toy trainer.
    pub fn undisturbed(sweep_file: &str) -> Self {
        let cluster = Cluster::start(2, Trainer::Stub, &[]);
        let sweep = cluster.submit(sweep_file);
        Self::wait(&cluster, &sweep)
    }

    /// Of a sweep when it has ended.
    pub fn wait(cluster: &Cluster, sweep: &str) -> Self {
        wait::until("the sweep ends", || ended(cluster, sweep).then_some(()));
        Self::of(cluster, sweep)
    }
}

/// Whether no trial of the sweep will change any more.
pub fn ended(cluster: &Cluster, sweep: &str) -> bool {
    let sweeps = json_lines(&cluster.ask(&["ls", "--format", "json"]));
    let row = sweeps.iter().find(|row| row["sweep"] == sweep).unwrap_or_else(|| panic!("no sweep {sweep}"));
    ["completed", "cancelled"].contains(&row["state"].as_str().expect("state"))
}
