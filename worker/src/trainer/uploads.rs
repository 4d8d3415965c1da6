//! Checkpoints of one job on their way to the object store, beside training, in order.

use super::retries::{GivenUp, with_retries};
use crate::{attempt::CheckpointRef, checkpoints::CheckpointStore};
use spotsweep_proto::{
    ids::TrialId,
    line::{CheckpointFiles, FailureKind},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

/// Checkpoints that wait while one is stored. When training writes them faster than the store takes them, the
/// oldest is left out: a newer one serves a resume better.
const WAITING: usize = 4;

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
    running: Option<Running>,
    /// How long the last one took.
    took: Duration,
    /// All must be stored by then.
    by: Option<Instant>,
}

/// An upload under way.
struct Running {
    task: JoinHandle<Outcome>,
    bytes: u64,
    since: Instant,
    last: bool,
}

impl Uploads {
    pub(crate) fn new(store: Arc<CheckpointStore>, trial: TrialId) -> Self {
        Self { store, trial, waiting: VecDeque::new(), running: None, took: Duration::ZERO, by: None }
    }

    /// Stores a checkpoint behind those that wait, then deletes its files.
    pub(crate) fn add(&mut self, files: CheckpointFiles, last: bool) {
        if let Some(by) = self.by
            && !last
            && !self.make_way(&files, by)
        {
            tracing::warn!(trial = %self.trial, step = files.step, "the newest checkpoint surely cannot be stored in time: handing back with the one before");
            drop(tokio::spawn(delete(files)));
            return;
        }
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

    /// From now on only what can be stored by then is: of those that wait, the newest.
    pub(crate) fn hurry(&mut self, by: Instant) {
        self.by = Some(self.by.map_or(by, |known| known.min(by)));
        let newest = self.waiting.len().saturating_sub(1);
        self.leave_out(newest);
    }

    /// Whether a new state surely fits into the time left. If it does, older ones that wait give way to it, and so
    /// does one under way behind which it would be late.
    fn make_way(&mut self, files: &CheckpointFiles, by: Instant) -> bool {
        let left = by.saturating_duration_since(Instant::now());
        // Where no upload of its size was seen, trying is the only way to know.
        let own = self.store.surely(size(files)).unwrap_or_default();
        if own > left {
            return false;
        }
        self.leave_out(self.waiting.len());
        if let Some(running) = self.running.take_if(|running| !running.last) {
            let whole = self.store.surely(running.bytes).unwrap_or_default();
            let rest = whole.saturating_sub(running.since.elapsed());
            if rest + own > left {
                running.task.abort();
            } else {
                self.running = Some(running);
            }
        }
        true
    }

    /// Leaves out the oldest of those that wait, except final weights.
    fn leave_out(&mut self, count: usize) {
        let oldest: Vec<_> = self.waiting.drain(..count).collect();
        for (files, last) in oldest.into_iter().rev() {
            if last {
                self.waiting.push_front((files, last));
            } else {
                drop(tokio::spawn(delete(files)));
            }
        }
    }

    /// How long storing the last one took, tries again among it.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    /// Whether anything is not stored yet.
    pub(crate) fn pending(&self) -> bool {
        self.running.is_some()
    }

    /// The next outcome, in order; waits for ever if nothing is pending. Nothing is lost when the future is
    /// dropped.
    pub(crate) async fn next(&mut self) -> Outcome {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = (&mut running.task).await;
        self.took = running.since.elapsed();
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
            running.task.abort();
        }
    }

    fn start_next(&mut self) {
        if self.running.is_none()
            && let Some((files, last)) = self.waiting.pop_front()
        {
            let store = self.store.clone();
            let trial = self.trial.clone();
            let bytes = size(&files);
            let task = tokio::spawn(async move {
                let outcome = store_with_retries(&store, &trial, &files, last).await;
                delete(files).await;
                outcome
            });
            self.running = Some(Running { task, bytes, since: Instant::now(), last });
        }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

async fn store_with_retries(
    store: &CheckpointStore,
    trial: &TrialId,
    files: &CheckpointFiles,
    last: bool,
) -> Outcome {
    let what = format!("the checkpoint of step {}", files.step);
    let stored = with_retries(&what, || store.store(trial, files, last)).await;
    stored.map_err(|GivenUp { kind, message, error: _ }| NotStored {
        kind,
        message: format!("{what} could not be stored: {message}"),
        last,
    })
}

/// Bytes of both files; 0 where they cannot be looked at, which storing them will say.
fn size(files: &CheckpointFiles) -> u64 {
    let size = |path| std::fs::metadata(path).map_or(0, |data| data.len());
    size(&files.weights) + size(&files.state)
}

async fn delete(files: CheckpointFiles) {
    for path in [files.weights, files.state] {
        if let Err(error) = tokio::fs::remove_file(&path).await {
            tracing::debug!(path = %path.display(), %error, "a checkpoint file is not deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(folder: &std::path::Path, step: u64) -> CheckpointFiles {
        let file = |name: &str| folder.join(format!("{step}-{name}"));
        let files = CheckpointFiles::new(step, file("weights"), file("state"));
        std::fs::write(&files.weights, format!("{step:1000}")).unwrap();
        std::fs::write(&files.state, format!("{step:500}")).unwrap();
        files
    }

    fn uploads(folder: &std::path::Path) -> Uploads {
        let objects = folder.join("objects");
        std::fs::create_dir(&objects).unwrap();
        let url = url::Url::from_directory_path(objects).unwrap();
        Uploads::new(Arc::new(CheckpointStore::open(url.as_str()).unwrap()), "s/0".parse().unwrap())
    }

    async fn stored(uploads: &mut Uploads) -> Vec<u64> {
        let mut steps = Vec::new();
        while uploads.pending() {
            steps.push(uploads.next().await.unwrap().step);
        }
        steps
    }

    #[tokio::test]
    async fn a_state_that_surely_does_not_fit_into_the_time_left_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut uploads = uploads(folder.path());
        uploads.store.observe(1500, Duration::from_secs(100));
        uploads.hurry(Instant::now() + Duration::from_secs(60));
        uploads.add(checkpoint(folder.path(), 7), false);
        assert!(!uploads.pending());
        uploads.add(checkpoint(folder.path(), 8), true);
        assert_eq!(stored(&mut uploads).await, [8], "final weights are always tried");
    }

    #[tokio::test]
    async fn the_newest_state_that_fits_goes_before_older_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut uploads = uploads(folder.path());
        // Surely 40 s each: of two, one fits into 60 s.
        uploads.store.observe(1500, Duration::from_secs(20));
        for step in 1..=3 {
            uploads.add(checkpoint(folder.path(), step), false);
        }
        uploads.hurry(Instant::now() + Duration::from_secs(60));
        assert_eq!(uploads.waiting.len(), 1);
        uploads.add(checkpoint(folder.path(), 4), false);
        assert_eq!(stored(&mut uploads).await, [4]);
    }

    #[tokio::test]
    async fn with_time_enough_what_is_under_way_is_finished_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut uploads = uploads(folder.path());
        uploads.add(checkpoint(folder.path(), 1), false);
        uploads.add(checkpoint(folder.path(), 2), false);
        uploads.hurry(Instant::now() + Duration::from_secs(60));
        uploads.add(checkpoint(folder.path(), 3), false);
        assert_eq!(stored(&mut uploads).await, [1, 3]);
    }
}
