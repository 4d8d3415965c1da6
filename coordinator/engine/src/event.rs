//! What can happen: everything that ever changes the engine's state. Events are what the journal holds.
//!
//! The journal outlives this program's version: variants and fields are appended, never reordered or removed,
//! and [`FORMAT_VERSION`] grows with every change.

use crate::{
    import::{ImportStep, ImportToken},
    refs::{RequestId, SessionId, SweepId, TrialRef},
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    catalogue::own::OwnItem,
    digest::Digest,
    gang::Generation,
    ids::{DeviceName, Epoch, Incarnation, MetricName, WorkerName},
    line::FailureKind,
    notice::Notice,
    spec::SweepSpec,
};

/// Version of the journal's encoding of [`Event`] and of the snapshot's encoding of the state.
///
/// Sweeps stand in it as JSON ([`crate::spec_json`]), so that a sweep file may learn new keys without another version.
pub const FORMAT_VERSION: u32 = 5;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A client submits a sweep. The same token submits once, however often it comes.
    Submit {
        /// Who waits for the answer.
        request: RequestId,
        /// Drawn by the client, so that a repeated call (a lost answer) is the same submission.
        token: u128,
        /// The checked sweep.
        #[serde(with = "crate::spec_json")]
        spec: Box<SweepSpec>,
    },
    /// A client wants a sweep or trial paused, resumed or cancelled.
    Control {
        /// Who waits for the answer.
        request: RequestId,
        /// What is meant.
        target: Target,
        /// What is wanted.
        command: Command,
    },
    /// A worker opened its stream and said hello.
    Joined {
        /// The new connection; an older one of the same incarnation is over.
        session: SessionId,
        /// What it said.
        hello: Box<Hello>,
    },
    /// A worker says how many more leases it takes on a device, besides those it holds. Replaces what it said before.
    Ready {
        /// The connection.
        session: SessionId,
        /// Index into [`Hello::devices`].
        device: u16,
        /// How many; at most [`spotsweep_proto::limits::CREDITS_PER_DEVICE`]. 0 after [`Event::Joined`]: a
        /// reconnected worker says it again.
        credits: u32,
    },
    /// A worker reports. Reports are numbered through the life of its incarnation; one that the engine has
    /// applied already (a repetition after a broken connection) changes nothing.
    Reports {
        /// The connection.
        session: SessionId,
        /// The reports.
        batch: ReportBatch,
    },
    /// A connection ended without a goodbye: the worker may be dead, or may come back in a moment.
    Disconnected {
        /// The connection.
        session: SessionId,
    },
    /// A worker said goodbye: it holds nothing any more and does not come back.
    Left {
        /// The connection.
        session: SessionId,
    },
    /// Time passed. Sent about once a second while anything waits for time to pass.
    Tick {
        /// Connections over which anything came since the last tick: their leases are renewed.
        heard: Vec<SessionId>,
    },
    /// The coordinator started on an existing journal: no connection is open any more.
    Restarted,
    /// A worker was warned that its machine will be taken, or is likely to be.
    Noticed {
        /// The connection.
        session: SessionId,
        /// Of what, and by whom.
        notice: Notice,
    },
    /// A rank of a gang says how its make-up stands.
    Gang {
        /// The connection.
        session: SessionId,
        /// The trial.
        trial: TrialRef,
        /// The lease.
        epoch: Epoch,
        /// The make-up that is meant.
        generation: Generation,
        /// Finished steps of this rank.
        step: u64,
        /// What happened to it.
        news: GangNews,
    },
    /// A finished sweep comes back from an export.
    Import {
        /// Who waits for the answer.
        request: RequestId,
        /// Which import.
        token: ImportToken,
        /// The next of it.
        step: ImportStep,
    },
}

/// What became of a make-up of a gang, as one of its ranks sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GangNews {
    /// All ranks are connected and agree on the state.
    Formed,
    /// A peer was lost; the rank holds its state and waits for the next make-up.
    Broken {
        /// For people, at most [`spotsweep_proto::limits::FAILURE_TEXT_BYTES`].
        message: String,
    },
    /// The worker has all that it needs to join: data, checkpoint, trainer. Said once for a lease that was granted
    /// without a rank, before which no make-up counts on it.
    Ready,
    /// As [`GangNews::Formed`], and how fast the rank computes.
    Pace {
        /// Mean time for one shard of a step, exchanges with others left out, in microseconds; above 0.
        shard_us: u64,
    },
}

/// What a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A whole sweep.
    Sweep(SweepId),
    /// One trial.
    Trial(TrialRef),
}

/// What a client may do to a sweep or trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Running attempts checkpoint and stop; nothing starts until resumed.
    Pause,
    /// Undo a pause.
    Resume,
    /// Stop for good.
    Cancel,
}

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its name, for people.
    pub name: WorkerName,
    /// The life of its process.
    pub incarnation: Incarnation,
    /// Where it can train.
    pub devices: Vec<Device>,
    /// Facts about the machine, for people and for cost comparisons.
    pub machine: Machine,
    /// Leases that it holds from an earlier connection of the same incarnation. A lease counts as held until
    /// its last report (finished, failed, released) is acknowledged. One that the engine granted and that is
    /// not listed never arrived, and goes to somebody else.
    pub held: Vec<HeldLease>,
    /// It carries out programs alone: it has no trainer for the models of the catalogue.
    pub programs_only: bool,
    /// Models and data sets that its trainer has besides those of Spotsweep, by what they mean.
    pub knows: Vec<OwnItem>,
}

/// A device of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// `cpu`, `cuda:0`, …
    pub name: DeviceName,
    /// CPU or CUDA.
    pub kind: DeviceKind,
    /// For instance `NVIDIA H200`.
    pub model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Kinds of device that give different bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A CPU.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Facts about a worker's machine; empty text where unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Host name.
    pub host: String,
    /// CPU model.
    pub cpu: String,
    /// Usable cores.
    pub cores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Version of libtorch.
    pub libtorch: String,
    /// The cloud's name for this kind of machine, for instance `g4dn.xlarge`.
    pub instance_type: String,
    /// The cloud's zone, for instance `us-east-1a`.
    pub zone: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Version of the agent.
    pub version: String,
}

/// A lease that a worker says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLease {
    /// The trial.
    pub trial: TrialRef,
    /// The lease's epoch.
    pub epoch: Epoch,
    /// Index into [`Hello::devices`].
    pub device: u16,
}

/// Reports that travel together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportBatch {
    /// Number of the first report; the others follow without a gap. The first ever is 1.
    pub first_seq: u64,
    /// Names of metrics, referred to by index.
    pub metric_names: Vec<MetricName>,
    /// The reports, in order. If there is a gap between them and what the engine has, none is applied and the
    /// answer acknowledges the last one that is, so that the worker sends again from there.
    pub reports: Vec<Report>,
}

/// One report about one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The trial.
    pub trial: TrialRef,
    /// The epoch of the lease under which the work was done.
    pub epoch: Epoch,
    /// What happened.
    pub body: ReportBody,
}

/// Metrics by index into [`ReportBatch::metric_names`].
pub type IndexedMetrics = Vec<(u16, f64)>;

/// What a worker may report of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ReportBody {
    /// The trainer has the job in memory.
    Started {
        /// Steps finished before: 0, or those of the checkpoint.
        step: u64,
        /// Steps at the end, where known.
        total_steps: Option<u64>,
    },
    /// Metrics at a step.
    Progress {
        /// Finished steps.
        step: u64,
        /// Passes over the data.
        data_epoch: f64,
        /// The metrics.
        metrics: IndexedMetrics,
    },
    /// A checkpoint is whole and durable in the object store.
    Checkpoint(CheckpointRef),
    /// The trial is done.
    Finished {
        /// Finished steps.
        step: u64,
        /// Final metrics.
        metrics: IndexedMetrics,
        /// Of the final weights, where the trainer has weights.
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
        /// For people, at most [`spotsweep_proto::limits::FAILURE_TEXT_BYTES`].
        message: String,
        /// Seconds that this attempt trained.
        seconds: f64,
    },
    /// The worker gives the lease back unfinished: told to, or because it is leaving. Its checkpoint came before.
    Released {
        /// Finished steps.
        step: u64,
        /// Seconds that this attempt trained.
        seconds: f64,
    },
}

/// A checkpoint in the object store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// Finished steps.
    pub step: u64,
    /// Digest of the manifest, by which it is fetched.
    pub manifest: Digest,
    /// Digests of the objects that the manifest names.
    pub parts: Vec<Digest>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Whether these are the final weights.
    pub last: bool,
}
