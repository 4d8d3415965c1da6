//! What an import consists of. It stands in the journal: fields and variants are appended, never reordered.

use crate::{
    action::{AttemptEnd, TrialState},
    event::IndexedMetrics,
    time::Time,
    views::Best,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, MetricName, SweepName, WorkerName},
    line::FailureKind,
    metric::Metrics,
    spec::SweepSpec,
};

/// Drawn by whoever imports: names an import from before it begins, so that it can be given up even if no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImportToken(pub u128);

/// A step of an import. They come in the order of the variants, trials before attempts before points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ImportStep {
    /// It begins; the sweep's name is taken from now on.
    Begin(Box<ImportHead>),
    /// The next trials, attempts or points.
    Part(ImportPart),
    /// That was all, and its digest agrees.
    End,
    /// Nothing more will come.
    Abandon,
}

/// What is said of a sweep before its trials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportHead {
    /// What it is to be called here.
    pub name: SweepName,
    /// Somebody chose that name, so that the same export may be here already under another.
    pub renamed: bool,
    /// The checked sweep.
    #[serde(with = "crate::spec_json")]
    pub spec: Box<SweepSpec>,
    /// When it was submitted.
    pub submitted_at: Time,
    /// When its last trial became final.
    pub ended_at: Time,
    /// A person cancelled it.
    pub cancelled: bool,
    /// Its objective's target was reached.
    pub target_reached: bool,
    /// Reports that were dropped because their epoch was stale.
    pub stale_reports: u64,
    /// The trial that reported the best value.
    pub best_trial: Option<u32>,
    /// How many attempts come.
    pub attempts: u64,
    /// How many points come.
    pub points: u64,
    /// Version of the program that exported it.
    pub program: String,
    /// Version of the export's format.
    pub format: u32,
    /// Of the whole export.
    pub digest: Digest,
}

/// Some of what an import consists of. How much that is at most is for the caller to decide, who wants other events to get
/// their turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ImportPart {
    /// The next trials, in order of number from 0.
    Trials(Vec<ImportedTrial>),
    /// Attempts, in order of trial and epoch.
    Attempts(Vec<ImportedAttempt>),
    /// Points, in order of trial and step.
    Points {
        /// Names of metrics, referred to by index.
        metric_names: Vec<MetricName>,
        /// The points.
        points: Vec<ImportedPoint>,
    },
}

/// A trial that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedTrial {
    /// How it ended.
    pub state: TrialState,
    /// Epoch of its newest lease; 0 if it had none.
    pub epoch: Epoch,
    /// Attempts that started.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that were interrupted.
    pub interruptions: u32,
    /// Where it last ran.
    pub place: Option<(WorkerName, DeviceName)>,
    /// Last step that was reported.
    pub step: u64,
    /// Steps at the end, where known.
    pub total_steps: Option<u64>,
    /// Seconds of training, all attempts together.
    pub seconds: f64,
    /// The objective as last reported.
    pub objective: Option<f64>,
    /// The best that it reported.
    pub best: Option<Best>,
    /// Its latest failure.
    pub failure: Option<ImportedFailure>,
    /// What it ended with, if it completed.
    pub result: Option<ImportedResult>,
}

/// The latest failure of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedFailure {
    /// Of which kind.
    pub kind: FailureKind,
    /// For people, at most [`spotsweep_proto::limits::FAILURE_TEXT_BYTES`].
    pub message: String,
    /// Where.
    pub worker: WorkerName,
    /// On what, where the trial says nothing else.
    pub device: DeviceName,
    /// When it was reported.
    pub at: Time,
}

/// What a trial ended with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedResult {
    /// Final metrics.
    pub metrics: Metrics,
    /// Of the final weights.
    pub weights_digest: Option<Digest>,
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedAttempt {
    /// Its trial.
    pub number: u32,
    /// Its lease.
    pub epoch: Epoch,
    /// Which, from 1.
    pub attempt: u32,
    /// Where.
    pub worker: WorkerName,
    /// On what.
    pub device: DeviceName,
    /// Steps finished before.
    pub first_step: u64,
    /// When it began.
    pub started_at: Time,
    /// How it ended.
    pub end: AttemptEnd,
    /// Last step known.
    pub last_step: u64,
    /// When it ended.
    pub ended_at: Time,
}

/// What a trial reported at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedPoint {
    /// Its trial.
    pub number: u32,
    /// Finished steps.
    pub step: u64,
    /// Passes over the data.
    pub data_epoch: f64,
    /// When it arrived.
    pub at: Time,
    /// The metrics, by index into the part's names.
    pub metrics: IndexedMetrics,
}
