//! Checkpoints of one job on their way to the object store, beside training, in order.

use crate::{
    attempt::CheckpointRef,
    backoff::Backoff,
    checkpoints::{CheckpointStore, StoreError},
};
use spotsweep_proto::{
    ids::TrialId,
    line::{CheckpointFiles, FailureKind},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Checkpoints that wait while one is stored. When training writes them faster than the store takes them, the
/// oldest is left out: a newer one serves a resume better.
const WAITING: usize = 4;
/// Tries to store one checkpoint.
const TRIES: u32 = 5;
/// One try takes no longer than this.
const TRY_LIMIT: Duration = Duration::from_secs(300);
/// Wait before the second try; grows from try to try.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// Longest wait between tries.
const RETRY_LIMIT: Duration = Duration::from_secs(10);

/// A checkpoint that could not be stored.
#[derive(Debug)]
pub(crate) struct NotStored {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    /// Whether it held the final weights.
    pub(crate) last: bool,
}

type Outcome = Result<CheckpointRef, NotStored>;

/// The uploads of one job. Dropping it ends them.
pub(crate) struct Uploads {
    store: Arc<CheckpointStore>,
    trial: TrialId,
    waiting: VecDeque<(CheckpointFiles, bool)>,
    running: Option<JoinHandle<Outcome>>,
}

impl Uploads {
    pub(crate) fn new(store: Arc<CheckpointStore>, trial: TrialId) -> Self {
        Self { store, trial, waiting: VecDeque::new(), running: None }
    }

    /// Stores a checkpoint behind those that wait, then deletes its files.
    pub(crate) fn add(&mut self, files: CheckpointFiles, last: bool) {
        if self.waiting.len() >= WAITING
            && let Some(oldest) = self.waiting.iter().position(|(_, last)| !last)
            && let Some((files, _)) = self.waiting.remove(oldest)
        {
            tracing::warn!(trial = %self.trial, step = files.step, "the object store is too slow: a checkpoint is left out");
            drop(tokio::spawn(delete(files)));
        }
        self.waiting.push_back((files, last));
        self.start_next();
    }

    /// Whether anything is not stored yet.
    pub(crate) fn pending(&self) -> bool {
        self.running.is_some()
    }

    /// The next outcome, in order; waits for ever if nothing is pending. Nothing is lost when the future is
    /// dropped.
    pub(crate) async fn next(&mut self) -> Outcome {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = running.await;
        self.running = None;
        self.start_next();
        outcome.unwrap_or_else(|error| {
            Err(NotStored { kind: FailureKind::Internal, message: error.to_string(), last: true })
        })
    }

    /// Nobody wants them any more.
    pub(crate) fn abandon(&mut self) {
        self.waiting.clear();
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }

    fn start_next(&mut self) {
        if self.running.is_none()
            && let Some((files, last)) = self.waiting.pop_front()
        {
            let store = self.store.clone();
            let trial = self.trial.clone();
            self.running = Some(tokio::spawn(async move {
                let outcome = store_with_retries(&store, &trial, &files, last).await;
                delete(files).await;
                outcome
            }));
        }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn store_with_retries(
    store: &CheckpointStore,
    trial: &TrialId,
    files: &CheckpointFiles,
    last: bool,
) -> Outcome {
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_LIMIT);
    loop {
        let (kind, message) = match timeout(TRY_LIMIT, store.store(trial, files, last)).await {
            Ok(Ok(checkpoint)) => return Ok(checkpoint),
            Ok(Err(error)) => (error.kind(), describe(&error)),
            Err(_) => (FailureKind::Storage, format!("it was not stored within {} s", TRY_LIMIT.as_secs())),
        };
        let wait = backoff.next();
        if backoff.failures() >= TRIES {
            let message = format!("the checkpoint of step {} could not be stored: {message}", files.step);
            return Err(NotStored { kind, message, last });
        }
        tracing::warn!(%trial, step = files.step, %message, "a checkpoint is not stored yet; trying again");
        sleep(wait).await;
    }
}

/// An error with its causes.
pub(crate) fn describe(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

async fn delete(files: CheckpointFiles) {
    for path in [files.weights, files.state] {
        if let Err(error) = tokio::fs::remove_file(&path).await {
            tracing::debug!(path = %path.display(), %error, "a checkpoint file is not deleted");
        }
    }
}
