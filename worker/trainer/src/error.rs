//! What can go wrong in a job, and how it is told to the agent. It must not print.

use spotsweep_proto::line::FailureKind;
use spotsweep_trainer_shim::TorchError;
use std::{io, path::PathBuf};
use tch::TchError;

/// Why a job cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The loss is no finite number any more.
    #[error("the loss became {loss} at step {step}")]
    Diverged {
        /// The step whose loss it was, counted from 1.
        step: u64,
        /// NaN or an infinity.
        loss: f32,
    },
    /// The job asks for something that does not exist or makes no sense.
    #[error("{0}")]
    Config(String),
    /// A file of the data set is missing, cut short or altered.
    #[error("{}: {problem}", .path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The checkpoint to resume from cannot be used.
    #[error("{}: {problem}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint could not be written.
    #[error("cannot write {}", .path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// libtorch threw.
    #[error("libtorch: {0}")]
    Torch(String),
    /// A peer of the gang is gone or too slow. No failure of the job: it goes on in another make-up.
    #[error("a peer was lost: {0}")]
    Peer(String),
    /// The agent is gone: nobody reads what the trainer says.
    #[error("the agent does not read any more")]
    HostGone(#[source] io::Error),
}

impl From<TchError> for TrainError {
    fn from(error: TchError) -> Self {
        Self::Torch(error.to_string())
    }
}

impl From<TorchError> for TrainError {
    fn from(error: TorchError) -> Self {
        Self::Torch(error.0)
    }
}

/// Texts by which libtorch says that memory ran out: the CPU allocator's and CUDA's.
const OUT_OF_MEMORY: [&str; 4] =
    ["can't allocate memory", "out of memory", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED"];

impl TrainError {
    /// Which kind of failure this is to the agent.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Diverged { .. } => FailureKind::Diverged,
            Self::Config(_) => FailureKind::Config,
            Self::Data { .. } => FailureKind::Data,
            Self::Checkpoint { .. } => FailureKind::Checkpoint,
            Self::Storage { .. } => FailureKind::Storage,
            Self::Torch(text) if OUT_OF_MEMORY.iter().any(|sign| text.contains(sign)) => {
                FailureKind::OutOfMemory
            }
            Self::Torch(_) | Self::Peer(_) | Self::HostGone(_) => FailureKind::Internal,
        }
    }

    /// The error with its causes, on one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        // libtorch appends a C++ backtrace of many lines; its first line says what there is to say.
        text.lines().next().unwrap_or_default().to_owned()
    }
}
