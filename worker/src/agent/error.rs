//! Why an agent ended other than by being told.

use crate::trainer::TrainerError;

/// Why an agent ended other than by being told.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The URL is none.
    #[error("{url:?} is not the URL of a coordinator\nhint: write it like http://127.0.0.1:7077")]
    Url {
        /// What was given.
        url: String,
        /// Why it is none.
        #[source]
        source: tonic::transport::Error,
    },
    /// There is nothing to train with.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// The coordinator does not want this agent.
    #[error("the coordinator rejected this agent: {message} ({code}){}", hint_line(.hint))]
    Rejected {
        /// Its code for the reason.
        code: String,
        /// The reason.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The system has no source of randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// Reports that waited on disk cannot be read.
    #[error(
        "reports that waited on disk for the coordinator cannot be read any more\nhint: its trials go on elsewhere from their checkpoints; look after the disk of --dir"
    )]
    Reports,
    /// The time for leaving was up before everything was handed over.
    #[error(
        "the grace time was up before the coordinator had taken everything over\nhint: its leases will expire by themselves; a longer --grace-s leaves more time"
    )]
    GraceOver,
}

fn hint_line(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") }
}
