//! The one loop: receive what waits, stamp it, hand it to the journal, step the engine, and perform the actions once
//! the commit has returned. While one group commits, the next is collected.
//!
//! Owns the order of things: nothing leaves before what caused it is durable. It must not decide anything (the
//! engine does) or know gRPC.

mod clock;
mod handle;
mod run;
mod sessions;
#[cfg(test)]
mod tests;
mod watched;
mod writer;

pub use clock::machine_time_us;
pub use handle::{Attached, AttachedSender, Gist, Handle, StoreState, WatchItem};
pub use run::{Driver, DriverOptions, Start};
pub use sessions::{SessionLink, SweepCard, ToSession};

use crate::store::StoreError;
use spotsweep_engine::{
    Engine, Refusal, Reply, SessionId, TrialRef,
    event::{Command, GangNews, Hello, ReportBatch, Target},
    import::{ImportStep, ImportToken},
};
use spotsweep_proto::{gang::Generation, ids::Epoch, notice::Notice, spec::SweepSpec};
use tokio::sync::oneshot;

/// What comes in.
pub(crate) enum Input {
    Submit { token: u128, spec: Box<SweepSpec>, reply: Answer },
    Control { target: Target, command: Command, reply: Answer },
    Import { token: ImportToken, step: ImportStep, reply: Answer },
    Join { hello: Box<Hello>, link: SessionLink },
    Ready { session: SessionId, device: u16, credits: u32 },
    Reports { session: SessionId, batch: ReportBatch },
    Noticed { session: SessionId, notice: Notice },
    Gang { session: SessionId, word: RankWord },
    Left { session: SessionId },
    Disconnected { session: SessionId },
    Query(Question),
    Shutdown,
}

/// What a rank of a gang says of its make-up.
#[derive(Debug, Clone, PartialEq)]
pub struct RankWord {
    /// The trial.
    pub trial: TrialRef,
    /// The lease.
    pub epoch: Epoch,
    /// The make-up that is meant.
    pub generation: Generation,
    /// Finished steps of this rank.
    pub step: u64,
    /// What happened to it.
    pub news: GangNews,
}

/// Where the engine's answer goes. Dropped unanswered when the journal stalls or the driver ends.
pub(crate) type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// Looks at the engine, and gives what sends the answer off once all that the engine has seen is durable. It is
/// told the number of the commit that makes it so.
pub(crate) type Question = Box<dyn FnOnce(&Engine, u64) -> Release + Send>;

/// Sends an answer off.
pub(crate) type Release = Box<dyn FnOnce() + Send>;

/// Why the driver ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The journal cannot be written any more.
    #[error("the journal cannot be written")]
    Journal(#[source] StoreError),
    /// The thread that writes it is gone.
    #[error("the thread that writes the journal ended")]
    WriterGone,
}
