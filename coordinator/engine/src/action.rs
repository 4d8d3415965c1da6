//! What to do about it: the driver performs these, in order, after the event that caused them is durable.

use crate::{
    event::CheckpointRef,
    refs::{RequestId, SessionId, SweepId, TrialRef, WorkerId},
    time::Time,
    views::SweepState,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    digest::Digest,
    gang::{Generation, Shares},
    ids::{DeviceName, Epoch, SweepName, WorkerName},
    line::FailureKind,
    metric::Metrics,
    notice::Notice,
};

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Answer a client.
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer.
        outcome: Result<Reply, Refusal>,
    },
    /// First message on a worker's stream: it is in.
    Welcome {
        /// The connection.
        session: SessionId,
        /// The worker's number.
        worker: WorkerId,
        /// Reports up to here are applied; it need not send them again.
        applied_seq: u64,
        /// Of the leases that it said it holds, those that still stand. It drops all others.
        keep: Vec<(TrialRef, Epoch)>,
    },
    /// A worker gets a lease.
    Grant {
        /// The connection.
        session: SessionId,
        /// Index into the worker's devices.
        device: u16,
        /// The lease.
        grant: Grant,
    },
    /// A worker's leases run on.
    Renew {
        /// The connection.
        session: SessionId,
        /// Until then.
        expires_at: Time,
    },
    /// A worker loses a lease. It stops the attempt (with a checkpoint and a `Released` report where the reason
    /// says so) and drops what it has not reported.
    Revoke {
        /// The connection.
        session: SessionId,
        /// The trial.
        trial: TrialRef,
        /// The lease's epoch.
        epoch: Epoch,
        /// Why.
        reason: RevokeReason,
    },
    /// The gang of a trial has a new make-up.
    Regang {
        /// The connection.
        session: SessionId,
        /// The trial.
        trial: TrialRef,
        /// The lease's epoch.
        epoch: Epoch,
        /// The worker's place in it.
        place: GangPlace,
    },
    /// Reports up to here are durable and applied.
    Acknowledge {
        /// The connection.
        session: SessionId,
        /// Number of the last.
        seq: u64,
    },
    /// Write into the history that people look at.
    Record(Record),
    /// Write into the history and tell nobody: it belongs to a sweep that nobody may see, or not yet.
    Archive(Record),
    /// Nothing refers to these objects any more, and has not for a while: delete them from the object store.
    DeleteObjects {
        /// Manifests and parts.
        digests: Vec<Digest>,
    },
}

/// A lease as it is handed out.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The trial.
    pub trial: TrialRef,
    /// The fencing token.
    pub epoch: Epoch,
    /// Which attempt this becomes once it starts, from 1.
    pub attempt: u32,
    /// When it ends unless renewed.
    pub expires_at: Time,
    /// Where to go on from.
    pub resume: Option<CheckpointRef>,
    /// The worker's place in the trial's gang; `None` where it trains alone.
    pub gang: Option<GangPlace>,
    /// Mean time between losses of a lease without notice, in seconds: for the interval of checkpoints.
    pub interruption_mean_s: f64,
}

/// A worker's place in one make-up of a gang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GangPlace {
    /// Which make-up.
    pub generation: Generation,
    /// Its rank. `None` in a grant: it prepares, says [`crate::event::GangNews::Ready`] and waits for a make-up that counts
    /// on it. `None` later: it belongs to the gang no more, leaves behind the next step, and reports `Released`.
    pub rank: Option<u32>,
    /// Who carries what.
    pub shares: Shares,
}

/// Why a worker loses a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// Somebody else may have it: it expired, or the report came under an old epoch. Stop, keep nothing.
    Stale,
    /// The trial or sweep is paused: stop with a checkpoint, then report `Released`.
    Paused,
    /// The trial or sweep is cancelled: stop, keep nothing.
    Cancelled,
    /// The sweep needs no more trials (its target is reached) and the lease had not started, or the trial's gang goes on
    /// without this worker. Stop, keep nothing.
    NotNeeded,
    /// The worker's machine is likely to be taken and another worker stands ready: stop with a checkpoint, then
    /// report `Released`.
    Moved,
}

/// Answers to clients.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The sweep is in, under this name.
    Submitted {
        /// Its number.
        sweep: SweepId,
        /// Its name, made unique.
        name: SweepName,
        /// False if the same token had submitted it before.
        new: bool,
    },
    /// The command was carried out, or was already.
    Done {
        /// Trials that it changed.
        trials: u32,
    },
    /// An import has begun.
    Importing {
        /// The sweep's number.
        sweep: SweepId,
    },
}

/// Why the engine does not do what a client asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such sweep.
    #[error("there is no such sweep")]
    NoSweep,
    /// No such trial.
    #[error("the sweep has no trial {number}; it has {trials}, counted from 0")]
    NoTrial {
        /// What was asked for.
        number: u32,
        /// How many there are.
        trials: u32,
    },
    /// It has ended, so nothing can be done to it.
    #[error("it has already ended as {state}")]
    Ended {
        /// As what.
        state: TrialState,
    },
    /// The coordinator holds as many sweeps as it can.
    #[error("the coordinator holds {limit} sweeps, which is its limit")]
    TooManySweeps {
        /// The limit.
        limit: usize,
    },
    /// It was imported, so nothing is done to it any more.
    #[error("it was imported, and an imported sweep is read-only")]
    ReadOnly,
    /// The same export is here already.
    #[error("this export is here already, as {name}")]
    AlreadyImported {
        /// Its name here.
        name: SweepName,
    },
    /// A sweep of that name is here already, or on its way.
    #[error("there is a sweep {name} already{}", if *coming { ", which is being imported just now" } else { "" })]
    NameTaken {
        /// The name.
        name: SweepName,
        /// It is being imported.
        coming: bool,
    },
    /// No import of that token is under way: it broke off, or the coordinator restarted.
    #[error("the import has broken off")]
    NoImport,
    /// What came does not fit what came before; all of it is discarded.
    #[error("the export does not hold together: {what}")]
    BadImport {
        /// What does not fit.
        what: String,
    },
}

/// State of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialState {
    /// Waits for a worker, or for its back-off to pass.
    Pending,
    /// Has a lease.
    Running,
    /// Paused, by itself or with its sweep.
    Paused,
    /// Finished.
    Completed,
    /// Not run to its end because the sweep needed it no more.
    Stopped,
    /// Failed as often as allowed.
    Failed,
    /// Its loss became NaN or infinite.
    Diverged,
    /// Cancelled by a person.
    Cancelled,
}

impl TrialState {
    /// Whether it never changes again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Paused => false,
            Self::Completed | Self::Stopped | Self::Failed | Self::Diverged | Self::Cancelled => true,
        }
    }

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Diverged => "diverged",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for TrialState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the history keeps. Each is applied once, in order; all follow from the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A sweep was submitted.
    Sweep {
        /// Its number.
        sweep: SweepId,
        /// Its name.
        name: SweepName,
        /// When.
        at: Time,
    },
    /// A trial reported metrics that count.
    Point {
        /// The trial.
        trial: TrialRef,
        /// Finished steps; grows strictly within a trial.
        step: u64,
        /// Passes over the data.
        data_epoch: f64,
        /// The metrics.
        metrics: Metrics,
        /// When it arrived.
        at: Time,
    },
    /// An attempt began.
    AttemptStarted {
        /// The trial.
        trial: TrialRef,
        /// Its lease.
        epoch: Epoch,
        /// Which, from 1.
        attempt: u32,
        /// Where.
        worker: WorkerName,
        /// On what.
        device: DeviceName,
        /// Steps finished before.
        step: u64,
        /// When.
        at: Time,
    },
    /// An attempt ended.
    AttemptEnded {
        /// The trial.
        trial: TrialRef,
        /// Its lease.
        epoch: Epoch,
        /// How.
        end: AttemptEnd,
        /// Last step known.
        step: u64,
        /// When.
        at: Time,
    },
    /// A trial changed its state.
    Trial {
        /// The trial.
        trial: TrialRef,
        /// From now on.
        state: TrialState,
        /// Attempts so far.
        attempts: u32,
        /// When.
        at: Time,
    },
    /// A sweep changed its state.
    SweepState {
        /// The sweep.
        sweep: SweepId,
        /// From now on.
        state: SweepState,
        /// When.
        at: Time,
    },
    /// All trials of these numbers changed their state together. None of them has started, and none need have
    /// a record of its own: a sweep of a million trials is paused or cancelled by a few of these.
    Trials {
        /// The sweep.
        sweep: SweepId,
        /// The first.
        from: u32,
        /// One past the last.
        until: u32,
        /// From now on.
        state: TrialState,
        /// When.
        at: Time,
    },
    /// A trial finished; comes before its `Trial` record.
    Result {
        /// The trial.
        trial: TrialRef,
        /// Finished steps.
        steps: u64,
        /// Final metrics.
        metrics: Metrics,
        /// Of the final weights.
        weights_digest: Option<Digest>,
        /// Where it finished.
        device: DeviceName,
        /// Seconds of training, all attempts together.
        seconds: f64,
    },
    /// An import broke off: nothing that the history has of its sweep is needed.
    Discarded {
        /// The sweep's number, which no other gets.
        sweep: SweepId,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AttemptEnd {
    /// The trial is done.
    Finished,
    /// It failed; whether it is tried again is the trial's state.
    Failed {
        /// Of which kind.
        kind: FailureKind,
        /// For people.
        message: String,
    },
    /// The worker gave it back.
    Released,
    /// The worker said goodbye while it held the lease.
    WorkerGone,
    /// The connection broke and did not come back in time.
    Disconnected,
    /// Nothing was heard of the worker until the lease ended.
    Expired,
    /// Paused or cancelled.
    Revoked {
        /// Why.
        reason: RevokeReason,
    },
    /// The worker was warned: it handed the trial over, did not get that far, or the trial was moved away from it.
    Noticed {
        /// Of what, and by whom.
        notice: Notice,
        /// Steps that were done and that no stored checkpoint holds.
        lost_steps: u64,
    },
    /// It could not read the newest checkpoint, which is therefore kept no longer. That is no failure of the trial.
    Unreadable {
        /// Steps that the checkpoint held.
        step: u64,
        /// Where the next attempt resumes: at the checkpoint before, or at 0 without one.
        next_step: u64,
        /// For people.
        message: String,
    },
}
