//! A sweep as the program understands it: the outcome of reading and checking a sweep file.
//!
//! Everything here is valid by construction once [`parse`] has returned it; the engine, the journal and the
//! wire adapter take it as it is.

use crate::{
    catalogue::OwnCatalogue,
    digest::Digest,
    ids::{DataName, SweepName},
    metric::Objective,
    program::ProgramSection,
    value::Assignment,
};
use serde::{Deserialize, Serialize};

mod added;
mod against_catalogue;
mod diagnostic;
mod domain;
mod draw;
mod modules;
mod own;
mod parameters;
mod parse;
mod program;
mod row;
mod section;
mod sections;
pub mod sinks;
pub mod space;
mod stored;
mod summary;
mod yaml;

pub use added::data_asked_for;
pub use diagnostic::{Diagnostic, Diagnostics, Place};
pub use own::Own;
pub use parse::{parse, parse_with};
pub use program::code_asked_for;
use sinks::Sink;
use space::Space;
pub use stored::StoredError;
pub use summary::{ParameterSummary, Summary, TrialSummary};

/// One submitted search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepSpec {
    /// What it is called.
    pub name: SweepName,
    /// A line or two for people.
    pub description: String,
    /// How trials are chosen from the space.
    pub method: Method,
    /// What is optimised; a sweep without one has no best trial.
    pub objective: Option<Objective>,
    /// What is searched.
    pub space: Space,
    /// Most trials.
    pub run_cap: Option<u32>,
    /// What each trial trains.
    pub train: TrainSection,
    /// What each trial needs.
    pub resources: Resources,
    /// When checkpoints are written and how many are kept.
    pub checkpoint: CheckpointPolicy,
    /// What happens after a failure.
    pub retry: RetryPolicy,
    /// Sweeps of higher priority go first; equals share fairly.
    pub priority: i32,
    /// The program that trains; without one it is a model of the catalogue, as `train` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramSection>,
    /// Where else its trials and points go while it runs, at most [`crate::limits::SINKS_PER_SWEEP`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<Sink>,
}

/// How trials are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every combination, once, in documented order.
    Grid,
    /// Independent draws; draw `n` depends on the seed and `n` alone.
    Random {
        /// Seed of the draws.
        seed: u64,
    },
}

/// The `train` section: what is the same for all trials, unless a parameter of the same name overrides it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSection {
    /// The model, unless it is a parameter.
    pub model: Option<String>,
    /// The data set.
    pub data: Option<DataName>,
    /// How long to train.
    pub length: Option<crate::train::Length>,
    /// Seed of everything random in training.
    pub seed: u64,
    /// Intra-op threads on a CPU.
    pub threads: u16,
    /// Shards of a trial's data, in 1..=[`crate::gang::SHARDS_PER_TRIAL`]: the most workers that can train it together.
    #[serde(default = "crate::train::one_shard")]
    pub shards: u32,
    /// Whether a trial's bits are the same on any number of workers.
    #[serde(default = "crate::train::exactly")]
    pub exact: bool,
    /// What of the sweep's models and data sets is a trainer's own, as it was described when the sweep was checked.
    #[serde(default, skip_serializing_if = "OwnCatalogue::is_empty")]
    pub own: OwnCatalogue,
}

/// Which devices a sweep accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceRequest {
    /// Whatever the worker offers.
    Any,
    /// CPUs only.
    Cpu,
    /// CUDA devices only.
    Cuda,
}

/// What a trial needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Kind of device.
    pub device: DeviceRequest,
    /// Memory of the device that must be there, in bytes.
    pub memory_bytes: Option<u64>,
    /// How many workers train one trial together.
    #[serde(default)]
    pub workers: Workers,
}

/// Bounds of the number of workers that train one trial together. Each carries one shard at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// With fewer it does not train.
    pub min: u32,
    /// It takes no more.
    pub max: u32,
}

impl Default for Workers {
    fn default() -> Self {
        Self { min: 1, max: 1 }
    }
}

impl Workers {
    /// Whether trials train in gangs.
    #[must_use]
    pub fn is_gang(self) -> bool {
        self.max > 1
    }
}

/// When a running trial writes a checkpoint. The moment never changes the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// After so many steps.
    Steps(u64),
    /// After so many seconds, at the next end of a step.
    Seconds(f64),
    /// At the interval that follows from what a checkpoint costs and how often workers are lost, within bounds. Only
    /// agents choose it: a trainer that is given this may as well write one every `max_s`.
    Auto {
        /// Shortest interval, in seconds.
        min_s: f64,
        /// Longest interval, in seconds; not below `min_s`.
        max_s: f64,
    },
}

/// Checkpoints of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CheckpointPolicy {
    /// When.
    pub every: Every,
    /// How many of the newest are kept for each trial while it runs, besides the best and the final one.
    pub keep_last: u32,
}

/// After a failure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Failures (never interruptions) after which a trial is given up; 1 means no second try.
    pub max_failures: u32,
    /// Wait before the second attempt, in seconds; it doubles from failure to failure, up to 5 minutes.
    pub backoff_s: f64,
}

impl SweepSpec {
    /// How many trials the sweep has.
    #[must_use]
    pub fn trials(&self) -> u32 {
        self.space.trials(self.method, self.run_cap)
    }

    /// The parameters of trial `number`, below [`SweepSpec::trials`].
    #[must_use]
    pub fn assignment(&self, number: u32) -> Assignment {
        self.space.assignment(self.method, number)
    }

    /// Equal for sweeps that run the same, however their files are written: BLAKE3 of the specification in JSON,
    /// whose order of fields is that of the types.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        #[expect(
            clippy::expect_used,
            reason = "no map with keys that are not text, and a hasher takes every write"
        )]
        serde_json::to_writer(&mut hasher, self).expect("a specification is JSON");
        Digest(*hasher.finalize().as_bytes())
    }
}
