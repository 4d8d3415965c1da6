//! Notices that this machine will be taken: where they come from, each source in a file of its own, and one task for
//! each that looks, waits, and outlives a service that is slow, absent or talks nonsense.
//!
//! Owns hearing of them. What follows from a notice is the agent's and, with the coordinator told, the engine's.

mod aws;
mod azure;
mod file;
mod gce;
mod instant;
mod listen;
mod order;
mod slurm;

use crate::{
    backoff::Backoff,
    errors::describe,
    machine::{cloud::Cloud, http::HttpError},
};
use clap::ValueEnum;
use futures::future::BoxFuture;
use spotsweep_proto::notice::Notice;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Notices that wait for the agent: a machine has few.
const WAITING: usize = 16;
/// Wait before a source that failed is looked at again, on top of its usual pause; grows from failure to failure.
const RETRY_BASE: Duration = Duration::from_secs(1);
/// Longest such wait. Shorter than the shortest notice that a cloud promises (30 s).
const RETRY_LIMIT: Duration = Duration::from_secs(15);
/// How long telling a source that all is handed over may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

/// Who is listened to, besides SIGTERM and what [`NoticeSettings`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NoticeChoice {
    /// The cloud that the firmware names, and Slurm inside a job
    Auto,
    /// Nobody
    Off,
    /// Amazon EC2
    Aws,
    /// Google Compute Engine
    Gce,
    /// Azure
    Azure,
    /// Slurm: USR1, inside a job only
    Slurm,
}

/// Where notices may come from.
#[derive(Debug, Clone)]
pub struct NoticeSettings {
    /// Which cloud or scheduler.
    pub choice: NoticeChoice,
    /// A file whose existence is a notice.
    pub file: Option<PathBuf>,
    /// A loopback address on which a POST is a notice.
    pub listen: Option<SocketAddr>,
}

/// Why notices cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// Anybody on the network could end the agent.
    #[error(
        "{address} is not a loopback address\nhint: notices are taken on 127.0.0.1 or [::1] only; from elsewhere, send SIGTERM"
    )]
    NotLoopback {
        /// What was given.
        address: SocketAddr,
    },
    /// The port is taken.
    #[error("notices cannot be listened to on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// USR1 means nothing here.
    #[error(
        "SLURM_JOB_ID is not set, so this is no Slurm job\nhint: leave --notices away, or start the agent by sbatch"
    )]
    NoSlurmJob,
    /// The system takes no signal handler.
    #[error("USR1 cannot be listened to")]
    Signal(#[source] std::io::Error),
}

/// Where notices come from.
trait Source: Send {
    /// What it is, for the log.
    fn name(&self) -> &'static str;

    /// The pause between two looks.
    fn pause(&self) -> Duration;

    /// Looks once, or waits until there is something to see. May be dropped at any moment, and called again.
    fn look(&mut self) -> BoxFuture<'_, Result<Look, SourceError>>;

    /// Everything is handed over: the machine may go.
    fn settle(&mut self) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What a look saw.
#[derive(Debug, PartialEq)]
enum Look {
    /// Nothing is announced.
    Quiet,
    /// This is.
    Notice(Notice),
    /// Nothing ever will be, for this reason.
    Never(&'static str),
}

/// Why a look saw nothing.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("the metadata service does not answer as it should")]
    Http(#[from] HttpError),
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
    #[error("the file cannot be looked for")]
    File(#[source] std::io::Error),
    #[error("the listener is gone")]
    Gone,
}

impl SourceError {
    /// An answer that is not what the provider documents; as much of it as a log line bears.
    fn nonsense(answer: &str) -> Self {
        const SHOWN_CHARS: usize = 80;
        Self::Nonsense(format!("{:?}", answer.chars().take(SHOWN_CHARS).collect::<String>()))
    }
}

/// The tasks that listen for notices.
pub struct Notices {
    receiver: Option<mpsc::Receiver<Notice>>,
    left: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Notices {
    /// Begins to listen. Asks no cloud but the one that is chosen or that the firmware names.
    ///
    /// # Errors
    /// [`NoticeError`]: what was asked for cannot be listened to.
    pub fn start(settings: &NoticeSettings) -> Result<Self, NoticeError> {
        let sources = sources(settings)?;
        let names: Vec<&str> = sources.iter().map(|source| source.name()).collect();
        tracing::info!(sources = names.join(", "), "listening for notices");
        let (sender, receiver) = mpsc::channel(WAITING);
        let (left, leaving) = watch::channel(false);
        let tasks = sources
            .into_iter()
            .map(|source| tokio::spawn(follow(source, sender.clone(), leaving.clone())))
            .collect();
        Ok(Self { receiver: Some(receiver), left, tasks })
    }

    /// What is heard from now on. Once only: later calls give a channel that stays silent.
    pub fn receiver(&mut self) -> mpsc::Receiver<Notice> {
        self.receiver.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Ends listening. With `handed_over`, whoever asked to be told is told that the machine may go.
    pub async fn end(self, handed_over: bool) {
        let Self { left, tasks, .. } = self;
        if handed_over {
            let _nobody_listens = left.send(true);
            for task in tasks {
                // A panic in a source has been logged; there is nothing to settle then.
                let _ended = task.await;
            }
        } else {
            tasks.iter().for_each(JoinHandle::abort);
        }
    }
}

fn sources(settings: &NoticeSettings) -> Result<Vec<Box<dyn Source>>, NoticeError> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    let cloud = match settings.choice {
        NoticeChoice::Auto => Cloud::here().cloned(),
        NoticeChoice::Aws => Some(Cloud::aws()),
        NoticeChoice::Gce => Some(Cloud::gce()),
        NoticeChoice::Azure => Some(Cloud::azure()),
        NoticeChoice::Off | NoticeChoice::Slurm => None,
    };
    match cloud {
        Some(Cloud::Aws(address)) => sources.push(Box::new(aws::Aws::new(&address))),
        Some(Cloud::Gce(address)) => sources.push(Box::new(gce::Gce::new(&address))),
        Some(Cloud::Azure(address)) => sources.push(Box::new(azure::Azure::new(&address))),
        None => {}
    }
    let in_job = std::env::var_os("SLURM_JOB_ID").is_some_and(|id| !id.is_empty());
    match (settings.choice, in_job) {
        (NoticeChoice::Slurm, false) => return Err(NoticeError::NoSlurmJob),
        // Whoever does not want it must not die of it either, which is what USR1 does where nobody listens.
        (choice, true) => {
            let counts = matches!(choice, NoticeChoice::Auto | NoticeChoice::Slurm);
            sources.push(Box::new(slurm::Slurm::new(counts).map_err(NoticeError::Signal)?));
        }
        (_, false) => {}
    }
    if let Some(path) = &settings.file {
        sources.push(Box::new(file::NoticeFile::new(path)));
    }
    if let Some(address) = settings.listen {
        sources.push(Box::new(listen::Listener::bind(address)?));
    }
    Ok(sources)
}

/// Looks at a source until the agent has left; passes on what is news.
async fn follow(mut source: Box<dyn Source>, told: mpsc::Sender<Notice>, mut left: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_LIMIT);
    let mut warned = false;
    let mut last = None;
    loop {
        let look = tokio::select! {
            look = source.look() => look,
            _ = left.wait_for(|left| *left) => break,
        };
        let mut wait = source.pause();
        match look {
            Ok(Look::Quiet) => backoff.reset(),
            Ok(Look::Never(why)) => {
                tracing::info!(source = source.name(), why, "no notices come from here");
                return;
            }
            Ok(Look::Notice(notice)) => {
                backoff.reset();
                if last.replace((notice.source, notice.kind)) != Some((notice.source, notice.kind)) {
                    tracing::warn!(%notice, in_s = notice.in_s, "this machine was warned");
                    // An agent that listens no more has its reason to leave already.
                    let _gone = told.try_send(notice);
                }
            }
            Err(error) => {
                let reason = describe(&error);
                if warned {
                    tracing::debug!(source = source.name(), reason, "no look at notices");
                } else {
                    tracing::warn!(
                        source = source.name(),
                        reason,
                        "notices cannot be heard just now; trying on, and saying this once"
                    );
                    warned = true;
                }
                wait += backoff.next();
            }
        }
        tokio::select! {
            () = sleep(wait) => {}
            _ = left.wait_for(|left| *left) => break,
        }
    }
    match timeout(SETTLE_LIMIT, source.settle()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                source = source.name(),
                reason = describe(&error),
                "not told that all is handed over"
            );
        }
        Err(_) => {
            tracing::warn!(source = source.name(), "it takes too long to be told that all is handed over")
        }
    }
}

#[cfg(test)]
mod tests;
