//! What the agent's parts say to each other about leases and work. No IO, no decisions.

use crate::{attempt_log::AttemptLog, gang::GangPlace};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, MetricName, SweepName, TrialId},
    line::FailureKind,
    program::ProgramSection,
    spec::CheckpointPolicy,
};
use std::{fmt, sync::Arc};

/// A sweep by the coordinator's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SweepNumber(pub u32);

/// A trial by number, as leases and reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrialRef {
    /// The sweep.
    pub sweep: SweepNumber,
    /// The place in the sweep, from 0.
    pub number: u32,
}

/// A lease. Two leases of one trial differ in their epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseKey {
    /// The trial.
    pub trial: TrialRef,
    /// The fencing token.
    pub epoch: Epoch,
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} under epoch {}", self.trial.sweep.0, self.trial.number, self.epoch)
    }
}

/// What all trials of a sweep share.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Its name.
    pub name: SweepName,
    /// The `train` section, [`spotsweep_proto::spec::TrainSection`] as JSON.
    pub train: serde_json::Value,
    /// When checkpoints are written.
    pub checkpoint: CheckpointPolicy,
    /// Name of the metric that it is about; empty where it is about none.
    pub metric: String,
    /// The program that trains, where it is not the agent's trainer.
    pub program: Option<Box<ProgramSection>>,
}

/// A lease with all that a trainer needs to carry it out.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The lease.
    pub lease: LeaseKey,
    /// Its sweep.
    pub sweep: Arc<Sweep>,
    /// Which attempt this is, from 1.
    pub number: u32,
    /// The device.
    pub device: DeviceName,
    /// The parameters, a flat JSON object, not parsed yet.
    pub params_json: String,
    /// Where to go on from.
    pub resume: Option<CheckpointRef>,
    /// Mean time between losses of a lease without notice, in seconds.
    pub interruption_mean_s: f64,
    /// The worker's place in the trial's gang; `None` where it trains alone.
    pub gang: Option<GangPlace>,
    /// Where checkpoints go.
    pub store_url: Arc<str>,
    /// Where added data sets are stored; empty where that is nowhere.
    pub data_url: Arc<str>,
    /// Where goes what it prints.
    pub log: AttemptLog,
}

impl Attempt {
    /// The trial as people name it.
    #[must_use]
    pub fn trial(&self) -> TrialId {
        TrialId { sweep: self.sweep.name.clone(), number: self.lease.trial.number }
    }

    /// Steps finished before it starts.
    #[must_use]
    pub fn first_step(&self) -> u64 {
        self.resume.as_ref().map_or(0, |checkpoint| checkpoint.step)
    }
}

/// A checkpoint in the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// Finished steps.
    pub step: u64,
    /// Digest of the manifest, by which it is fetched.
    pub manifest: Digest,
    /// Digests of the objects that the manifest names.
    pub parts: Vec<Digest>,
    /// Bytes of all of them, the manifest included.
    pub bytes: u64,
    /// Whether these are the final weights.
    pub last: bool,
}

/// Metrics at a step. Every value is finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Finished steps.
    pub step: u64,
    /// Passes over the data.
    pub data_epoch: f64,
    /// The metrics.
    pub metrics: Vec<(MetricName, f64)>,
}

/// Why an attempt cannot begin, or go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Of which kind.
    pub(crate) kind: FailureKind,
    /// For people.
    pub(crate) message: String,
}

/// What is reported about an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ReportBody {
    /// The trainer has the job in memory.
    Started {
        /// Steps finished before.
        step: u64,
        /// Steps at the end, where known.
        total_steps: Option<u64>,
    },
    /// Metrics at a step.
    Progress(Progress),
    /// A checkpoint is whole and durable in the object store.
    Checkpoint(CheckpointRef),
    /// The trial is done; its last checkpoint was reported before.
    Finished {
        /// Finished steps.
        step: u64,
        /// Final metrics.
        metrics: Vec<(MetricName, f64)>,
        /// Of the final weights, where there are any.
        weights_digest: Option<Digest>,
        /// Seconds that this attempt trained.
        seconds: f64,
    },
    /// The attempt failed.
    Failed {
        /// Finished steps.
        step: u64,
        /// Of which kind.
        kind: FailureKind,
        /// For people.
        message: String,
        /// Seconds that this attempt trained.
        seconds: f64,
    },
    /// The lease is given back unfinished.
    Released {
        /// Finished steps.
        step: u64,
        /// Seconds that this attempt trained.
        seconds: f64,
    },
}

impl ReportBody {
    /// Whether the lease ends with it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Started { .. } | Self::Progress(_) | Self::Checkpoint(_) => false,
            Self::Finished { .. } | Self::Failed { .. } | Self::Released { .. } => true,
        }
    }

    /// Whether somebody waits for it, so that it is sent at once.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::Started { .. } | Self::Progress(_) => false,
            Self::Checkpoint(_) | Self::Finished { .. } | Self::Failed { .. } | Self::Released { .. } => true,
        }
    }
}
