//! The line protocol between an agent and its trainer: one JSON object a line, over the trainer's stdin and
//! stdout. Its stderr is free text, of which the agent keeps the last lines.
//!
//! A trainer starts, says [`FromTrainer::Ready`], and then takes one job at a time. Any program in any language
//! may be a trainer. End of file on its stdin means that the agent is gone: the trainer exits at once. A line
//! longer than [`crate::limits::LINE_BYTES`], or one that is no such object, ends the trainer's life: the agent
//! kills it and the attempt fails with the reason `protocol`.
//!
//! In a gang every rank reports what it learns, in the same words, and the coordinator counts it once; rank 0 alone
//! writes checkpoints and says [`FromTrainer::Done`], while the others hold their state until they are told to stop.

use crate::{
    checkpoint::SoFar,
    digest::Digest,
    gang::{Generation, Roster, StoreOp, StoreValue},
    ids::{DeviceName, Epoch, TrialId},
    spec::CheckpointPolicy,
};
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU64, ops::Range, path::PathBuf};

/// The version that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// What an agent says to its trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToTrainer {
    /// Train this. The trainer is idle when it gets it.
    Run(Box<Job>),
    /// Finish the step, write a checkpoint if `checkpoint`, answer [`FromTrainer::Stopped`], be idle.
    /// Ignored when `epoch` is not that of the running job (the two may cross on the way).
    Stop {
        /// The epoch of the job that is meant.
        epoch: Epoch,
        /// Whether the state is wanted.
        checkpoint: bool,
    },
    /// Write a checkpoint behind the current step and go on. Ignored like `stop` under another epoch.
    Checkpoint {
        /// The epoch of the job that is meant.
        epoch: Epoch,
    },
    /// Exit with status 0. So does end of file.
    Exit,
    /// The gang of the running job has a new make-up. Ranks that are well change over together at the end of a step; one
    /// whose gang is broken changes over at once. Ignored under another epoch, and for an older generation.
    Gang {
        /// The epoch of the job that is meant.
        epoch: Epoch,
        /// This rank's place from now on.
        roster: Roster,
    },
    /// The answer to [`FromTrainer::Store`].
    StoreReply {
        /// The epoch of the job that is meant.
        epoch: Epoch,
        /// The question's number.
        id: u64,
        /// The value; `None` if the generation is over, so that nothing will ever be set.
        value: Option<StoreValue>,
    },
    /// All pieces of these shards of added data lie in the job's data folder, and stay there until the job ends. A rank of a
    /// gang is told so for each make-up, sooner or later, and reads no piece before; a job without a gang has them all when
    /// it begins. Ignored under another epoch.
    Data {
        /// The epoch of the job that is meant.
        epoch: Epoch,
        /// Shards of the trial, by number.
        shards: Range<u32>,
    },
}

/// One attempt's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The trial, for logs and for the checkpoint's identity.
    pub trial: TrialId,
    /// The lease's epoch; every answer about this job repeats it.
    pub epoch: Epoch,
    /// The sweep's `train` section, as [`crate::spec::TrainSection`] in JSON.
    pub train: serde_json::Value,
    /// The trial's parameters, a flat object.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// Where to train: one of the devices named in `ready`.
    pub device: DeviceName,
    /// The folder that holds the data set's files; `None` if the job needs no data. Pieces of added data that a gang's rank
    /// needs may still be on their way: see [`ToTrainer::Data`].
    pub data_dir: Option<PathBuf>,
    /// The file of the TorchScript module that is the job's model, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<PathBuf>,
    /// An empty folder for checkpoint files. The agent deletes what it has stored.
    pub scratch_dir: PathBuf,
    /// When to write checkpoints.
    pub checkpoint: CheckpointPolicy,
    /// Where to go on from; `None` to start from the beginning.
    pub resume: Option<CheckpointFiles>,
    /// The gang with which to train; `None` to train alone. Ranks begin from the newest state that any of them holds
    /// in memory, else from `resume`, which all of them then have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<Roster>,
}

/// The two files of a checkpoint on this machine's disk, complete and flushed to the file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointFiles {
    /// Finished steps.
    pub step: u64,
    /// Named parameters and buffers, as safetensors: what people take away.
    pub weights: PathBuf,
    /// Optimizer and generator state, data cursor, metrics so far, as safetensors: what a resume needs besides.
    pub state: PathBuf,
    /// What the agent knows of a program at this step. Never spoken: a trainer's state has it.
    #[serde(skip)]
    pub so_far: Option<SoFar>,
}

impl CheckpointFiles {
    /// Those of a trainer.
    #[must_use]
    pub fn new(step: u64, weights: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { step, weights: weights.into(), state: state.into(), so_far: None }
    }
}

/// What a trainer says to its agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromTrainer {
    /// First line of a trainer's life.
    Ready {
        /// [`PROTOCOL_VERSION`].
        protocol: u32,
        /// Name and version of the program, for instance `spotsweep-trainer 0.1.0`.
        trainer: String,
        /// Version of libtorch, or empty.
        libtorch: String,
        /// Where this process can train.
        devices: Vec<TrainerDevice>,
        /// Models and data sets that this trainer has besides those of Spotsweep, as
        /// [`crate::catalogue::OwnCatalogue`] reads them; absent where there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        catalogue: Option<serde_json::Value>,
    },
    /// The job is taken and its state (fresh or resumed) is in memory. May be said once more where `total_steps` is known
    /// later.
    Started {
        /// The job's epoch.
        epoch: Epoch,
        /// Finished steps at the start: 0, or the checkpoint's.
        step: u64,
        /// Steps at the end, where that is known in advance.
        total_steps: Option<u64>,
    },
    /// Metrics at a step. Steps grow strictly within a job, and a resumed job repeats the same values at the
    /// same steps. Every value is finite.
    Report {
        /// The job's epoch.
        epoch: Epoch,
        /// Finished steps.
        step: u64,
        /// Passes over the data, as a fraction.
        data_epoch: f64,
        /// The metrics by name.
        metrics: serde_json::Map<String, serde_json::Value>,
    },
    /// A checkpoint lies in the scratch folder. The files' names are never reused within a job. It may be written beside
    /// training and told of behind reports of later steps; checkpoints among themselves come in order of their steps.
    Checkpoint {
        /// The job's epoch.
        epoch: Epoch,
        /// The files.
        files: CheckpointFiles,
        /// Whether these are the weights with which the job ends.
        last: bool,
        /// Seconds for which training stood still for it, where the trainer knows: what a checkpoint costs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        held_up_s: Option<f64>,
    },
    /// The job is finished. Its last checkpoint came before.
    Done {
        /// The job's epoch.
        epoch: Epoch,
        /// Finished steps.
        step: u64,
        /// Final metrics by name, test metrics included.
        metrics: serde_json::Map<String, serde_json::Value>,
        /// See [`weights_digest`]; absent where there are no weights.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weights_digest: Option<Digest>,
    },
    /// The job stopped as told. If a checkpoint was asked for, it came before.
    Stopped {
        /// The job's epoch.
        epoch: Epoch,
        /// Finished steps.
        step: u64,
    },
    /// The job cannot go on; the trainer is idle again and healthy.
    Failed {
        /// The job's epoch.
        epoch: Epoch,
        /// Finished steps.
        step: u64,
        /// Of which kind.
        reason: FailureKind,
        /// For the person who reads it.
        message: String,
    },
    /// The ranks of a generation are connected and agree on the state at `step`; training goes on as soon as each has the
    /// data of its shards. Said again while that is awaited, and now and then by ranks that have measured how fast they are.
    GangFormed {
        /// The job's epoch.
        epoch: Epoch,
        /// The make-up.
        generation: Generation,
        /// Finished steps.
        step: u64,
        /// Mean time that this rank takes for one shard of a step, exchanges left out, in microseconds: by it the coordinator
        /// divides the shards. Absent before it is measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shard_us: Option<NonZeroU64>,
        /// For people: over what ranks exchange, for instance `nccl`, and why not over something faster.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        over: Option<String>,
    },
    /// A peer was lost: the unfinished step is thrown away, the state behind `step` is kept in memory, and the rank
    /// waits for [`ToTrainer::Gang`] or [`ToTrainer::Stop`]; one that came already is used at once. A rank that has not
    /// met its peers yet says this before [`FromTrainer::Started`], and then holds no state.
    GangBroken {
        /// The job's epoch.
        epoch: Epoch,
        /// The make-up that broke.
        generation: Generation,
        /// Finished steps.
        step: u64,
        /// For people: what was waited for.
        message: String,
    },
    /// A question to the rendezvous store of a generation, which lies with the coordinator.
    Store {
        /// The job's epoch.
        epoch: Epoch,
        /// The make-up.
        generation: Generation,
        /// Repeated in the answer.
        id: u64,
        /// The question.
        op: StoreOp,
    },
}

/// A device as its trainer sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerDevice {
    /// `cpu`, `cuda:0`, …
    pub name: DeviceName,
    /// For instance `AMD EPYC` or `NVIDIA H200`.
    pub model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The loss became NaN or infinite. Final: the same bits would do it again.
    Diverged,
    /// The job's configuration makes no sense to the trainer. Final.
    Config,
    /// The data set is missing, cut short or altered on this machine.
    Data,
    /// The checkpoint to resume from could not be read.
    Checkpoint,
    /// Out of memory, on the device or the host.
    OutOfMemory,
    /// Disk full, or another error of the file system or object store.
    Storage,
    /// The trainer exited, was killed by a signal, or hung.
    Crashed,
    /// The trainer broke the line protocol.
    Protocol,
    /// Anything else that the trainer said of itself.
    Internal,
}

impl FailureKind {
    /// Whether another attempt would end the same way, so that none is made.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Diverged | Self::Config => true,
            Self::Data
            | Self::Checkpoint
            | Self::OutOfMemory
            | Self::Storage
            | Self::Crashed
            | Self::Protocol
            | Self::Internal => false,
        }
    }
}

/// BLAKE3 over named parameters and buffers, the same for equal weights whatever wrote them.
///
/// For each tensor, in ascending byte order of names: the name's length (u64 LE) and bytes, the dtype's
/// safetensors name (`F32`) likewise, the rank (u64 LE), each dimension (u64 LE), and the elements in row-major
/// order, little endian.
pub fn weights_digest<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a str, &'a [usize], std::borrow::Cow<'a, [u8]>)>,
) -> Digest {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(b.0));
    let mut hasher = blake3::Hasher::new();
    for (name, dtype, shape, data) in tensors {
        for text in [name, dtype] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&(shape.len() as u64).to_le_bytes());
        for &dimension in shape {
            hasher.update(&(dimension as u64).to_le_bytes());
        }
        hasher.update(&data);
    }
    Digest(*hasher.finalize().as_bytes())
}
