//! What the engine shows of its state to those who answer clients. Views are values: they hold no borrow, and
//! taking one changes nothing.

use crate::{
    action::TrialState,
    event::{CheckpointRef, Device, Machine},
    refs::{SessionId, SweepId, TrialRef, WorkerId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, Incarnation, SweepName, WorkerName},
    line::FailureKind,
    notice::Notice,
    spec::SweepSpec,
};
use std::sync::Arc;

/// State of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SweepState {
    /// Has trials that are not final.
    Running,
    /// Starts nothing until resumed.
    Paused,
    /// Every trial is final.
    Completed,
    /// Cancelled by a person; every trial is final.
    Cancelled,
}

impl SweepState {
    /// Whether it never changes again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Paused => false,
            Self::Completed | Self::Cancelled => true,
        }
    }

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for SweepState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many trials of a sweep are in each state. They always add up to all its trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// [`TrialState::Pending`].
    pub pending: u32,
    /// [`TrialState::Running`].
    pub running: u32,
    /// [`TrialState::Paused`].
    pub paused: u32,
    /// [`TrialState::Completed`].
    pub completed: u32,
    /// [`TrialState::Stopped`].
    pub stopped: u32,
    /// [`TrialState::Failed`].
    pub failed: u32,
    /// [`TrialState::Diverged`].
    pub diverged: u32,
    /// [`TrialState::Cancelled`].
    pub cancelled: u32,
}

impl Counts {
    /// The count of one state.
    #[must_use]
    pub fn get(&self, state: TrialState) -> u32 {
        match state {
            TrialState::Pending => self.pending,
            TrialState::Running => self.running,
            TrialState::Paused => self.paused,
            TrialState::Completed => self.completed,
            TrialState::Stopped => self.stopped,
            TrialState::Failed => self.failed,
            TrialState::Diverged => self.diverged,
            TrialState::Cancelled => self.cancelled,
        }
    }

    pub(crate) fn get_mut(&mut self, state: TrialState) -> &mut u32 {
        match state {
            TrialState::Pending => &mut self.pending,
            TrialState::Running => &mut self.running,
            TrialState::Paused => &mut self.paused,
            TrialState::Completed => &mut self.completed,
            TrialState::Stopped => &mut self.stopped,
            TrialState::Failed => &mut self.failed,
            TrialState::Diverged => &mut self.diverged,
            TrialState::Cancelled => &mut self.cancelled,
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.pending
            + self.running
            + self.paused
            + self.completed
            + self.stopped
            + self.failed
            + self.diverged
            + self.cancelled
    }

    /// Those that never change again.
    #[must_use]
    pub fn ended(&self) -> u32 {
        self.completed + self.stopped + self.failed + self.diverged + self.cancelled
    }
}

/// A value of the objective and where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The value.
    pub value: f64,
    /// Finished steps at that moment.
    pub step: u64,
}

/// A sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepView {
    /// Its number.
    pub id: SweepId,
    /// Its name, which may differ from the one in `spec`.
    pub name: SweepName,
    /// What was submitted.
    pub spec: Arc<SweepSpec>,
    /// Its state.
    pub state: SweepState,
    /// When it came.
    pub submitted_at: Time,
    /// When its last trial became final.
    pub ended_at: Option<Time>,
    /// How many trials it has.
    pub trials: u32,
    /// How many are in which state.
    pub counts: Counts,
    /// Leases now held, started or not.
    pub leases: u32,
    /// The best value so far, and the trial that reported it.
    pub best: Option<(u32, Best)>,
    /// The objective's target was reached: no new trials are started.
    pub target_reached: bool,
    /// Reports about it that were dropped because their epoch was stale.
    pub stale_reports: u64,
    /// Where it comes from, if it was imported; then it is read-only.
    pub imported: Option<ImportView>,
}

/// Where an imported sweep comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportView {
    /// Version of the program that exported it.
    pub program: String,
    /// Version of the export's format.
    pub format: u32,
    /// Of the whole export.
    pub digest: Digest,
    /// When it was imported.
    pub at: Time,
}

/// Where a trial runs or last ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceView {
    /// The worker.
    pub worker: WorkerId,
    /// What people call it.
    pub name: WorkerName,
    /// Its device.
    pub device: DeviceName,
}

/// A checkpoint that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointView {
    /// Where to find it.
    pub reference: CheckpointRef,
    /// The objective at that step, where known.
    pub value: Option<f64>,
    /// Whether no kept checkpoint of the trial has a better value.
    pub best: bool,
}

/// The latest failure of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// Of which kind.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
    /// Where.
    pub worker: WorkerName,
    /// When it was reported.
    pub at: Time,
}

/// A trial.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialView {
    /// Which.
    pub trial: TrialRef,
    /// Its state.
    pub state: TrialState,
    /// Attempts that started.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that were interrupted: no failures.
    pub interruptions: u32,
    /// Epoch of its newest lease; 0 before the first.
    pub epoch: Epoch,
    /// Last step that was reported.
    pub step: u64,
    /// Steps at the end, where known.
    pub total_steps: Option<u64>,
    /// The objective as last reported.
    pub objective: Option<f64>,
    /// The best that it reported.
    pub best: Option<Best>,
    /// Where it runs or last ran.
    pub place: Option<PlaceView>,
    /// Checkpoints that are kept, by ascending step.
    pub checkpoints: Vec<CheckpointView>,
    /// When its back-off ends.
    pub retry_at: Option<Time>,
    /// Seconds of training, all attempts together.
    pub seconds: f64,
    /// Its latest failure.
    pub last_failure: Option<FailureView>,
}

/// The part of a trial that tables show and that is had without allocating: what a look at many trials takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrialBrief {
    /// Its state.
    pub state: TrialState,
    /// Attempts that started.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts that were interrupted: no failures.
    pub interruptions: u32,
    /// Epoch of its newest lease; 0 before the first.
    pub epoch: Epoch,
    /// Last step that was reported.
    pub step: u64,
    /// Steps at the end, where known.
    pub total_steps: Option<u64>,
    /// The best value of the objective that it reported.
    pub best: Option<Best>,
    /// Seconds of training, all attempts together.
    pub seconds: f64,
}

/// A device of a worker and what it has to do.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceView {
    /// The device.
    pub device: Device,
    /// How many more leases it takes.
    pub credits: u32,
    /// Leases that it holds.
    pub leases: u32,
}

/// Whether a worker can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkView {
    /// Its stream is open and it is heard.
    Connected {
        /// The connection.
        session: SessionId,
    },
    /// Its stream is open, but nothing has come over it for so long that it gets no new leases.
    Silent {
        /// The connection.
        session: SessionId,
        /// Last heard.
        since: Time,
    },
    /// Its stream broke, or the coordinator restarted; it may come back.
    Disconnected {
        /// When.
        since: Time,
    },
    /// It said goodbye, or did not come back.
    Gone {
        /// When.
        since: Time,
    },
}

/// A worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Its number.
    pub id: WorkerId,
    /// Its name.
    pub name: WorkerName,
    /// The life of its process.
    pub incarnation: Incarnation,
    /// Its machine.
    pub machine: Machine,
    /// Its devices.
    pub devices: Vec<DeviceView>,
    /// Whether it can be reached.
    pub link: LinkView,
    /// When it first joined.
    pub joined_at: Time,
    /// When its leases end unless it is heard of.
    pub expires_at: Time,
    /// Reports up to here are applied.
    pub applied_seq: u64,
    /// The leases that it holds.
    pub leases: Vec<HeldView>,
    /// Of what it was warned, and when.
    pub notice: Option<(Notice, Time)>,
}

/// A lease that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldView {
    /// The trial.
    pub trial: TrialRef,
    /// On which device: an index into the worker's `devices`.
    pub device: u16,
}

/// Counters of the whole engine since its journal began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Reports applied.
    pub reports: u64,
    /// Reports dropped because their epoch was stale.
    pub stale_reports: u64,
    /// Reports skipped because they had been applied before.
    pub repeated_reports: u64,
    /// Batches that came with a gap before them and were not applied.
    pub gaps: u64,
    /// Leases granted.
    pub leases: u64,
    /// Checkpoints refused because an object of theirs had just been deleted.
    pub refused_checkpoints: u64,
}
