//! The checkpoint of the attempt that comes next, fetched while the present one trains, so that the device does not stand
//! idle in between. A help and nothing more: whatever goes wrong here, the attempt fetches for itself.

use crate::{
    attempt::{Attempt, CheckpointRef},
    checkpoints::CheckpointStore,
    scratch::Scratch,
};
use spotsweep_proto::{digest::Digest, line::CheckpointFiles};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::task::JoinHandle;

/// A smaller checkpoint is fetched in less time than it takes to write a step's report, in bytes.
const WORTH_BYTES: u64 = 256 << 10;

/// One checkpoint at most: that of the attempt which is next in the queue.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<Option<Fetching>>);

#[derive(Debug)]
struct Fetching {
    manifest: Digest,
    /// Ends with its files; its folder goes with it.
    task: JoinHandle<Option<(CheckpointFiles, tempfile::TempDir)>>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ahead {
    /// This attempt comes next.
    pub(crate) fn begin(&self, attempt: &Attempt, scratch: &Arc<Scratch>) {
        let Some(checkpoint) = attempt.resume.clone().filter(|resume| resume.bytes >= WORTH_BYTES) else {
            return;
        };
        let mut fetching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if fetching.as_ref().is_some_and(|fetching| fetching.manifest == checkpoint.manifest) {
            return;
        }
        let (manifest, trial, url) = (checkpoint.manifest, attempt.trial(), attempt.store_url.clone());
        let scratch = scratch.clone();
        let task = tokio::spawn(async move {
            let store = CheckpointStore::open(&url).ok()?;
            let folder = tempfile::Builder::new().prefix("ahead-").tempdir_in(scratch.path()).ok()?;
            match store.fetch(&trial, &checkpoint, folder.path()).await {
                Ok(files) => Some((files, folder)),
                Err(error) => {
                    tracing::debug!(%trial, step = checkpoint.step, %error, "a checkpoint is not fetched ahead");
                    None
                }
            }
        });
        *fetching = Some(Fetching { manifest, task });
    }

    /// The files of this checkpoint in `folder`, if it was fetched ahead, or is being.
    pub(crate) async fn take(&self, checkpoint: &CheckpointRef, folder: &Path) -> Option<CheckpointFiles> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut fetching = taken.filter(|fetching| fetching.manifest == checkpoint.manifest)?;
        let (files, _folder) = (&mut fetching.task).await.ok()??;
        let moved = |from: &Path| {
            let to = folder.join(from.file_name()?);
            std::fs::rename(from, &to).ok()?;
            Some(to)
        };
        let (weights, state) = (moved(&files.weights)?, moved(&files.state)?);
        tracing::debug!(step = checkpoint.step, "the checkpoint was fetched ahead");
        Some(CheckpointFiles { weights, state, ..files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attempt::{LeaseKey, Sweep, SweepNumber, TrialRef},
        attempt_log::AttemptLog,
    };
    use spotsweep_proto::{
        ids::{DeviceName, Epoch, SweepName, TrialId},
        spec::{CheckpointPolicy, Every},
    };

    fn attempt(url: &str, resume: CheckpointRef) -> Attempt {
        let sweep = Sweep {
            name: SweepName::new("s").unwrap(),
            train: serde_json::Value::Null,
            checkpoint: CheckpointPolicy { every: Every::Steps(1), keep_last: 1 },
            metric: String::new(),
            program: None,
        };
        let lease = LeaseKey { trial: TrialRef { sweep: SweepNumber(0), number: 3 }, epoch: Epoch(1) };
        Attempt {
            lease,
            sweep: Arc::new(sweep),
            number: 2,
            device: DeviceName::new("cpu").unwrap(),
            params_json: "{}".to_owned(),
            resume: Some(resume),
            interruption_mean_s: 0.0,
            gang: None,
            store_url: url.into(),
            data_url: "".into(),
            log: AttemptLog::new(lease, 2),
        }
    }

    async fn stored(url: &str, trial: &TrialId, folder: &Path, bytes: usize) -> CheckpointRef {
        let (weights, state) = (folder.join("weights"), folder.join("state"));
        std::fs::write(&weights, vec![1; bytes]).unwrap();
        std::fs::write(&state, vec![2; bytes]).unwrap();
        let files = CheckpointFiles::new(7, weights, state);
        CheckpointStore::open(url).unwrap().store(trial, &files, false).await.unwrap()
    }

    #[tokio::test]
    async fn the_next_attempts_checkpoint_is_there_before_it_begins_and_another_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (objects, source, job) = (at("objects"), at("source"), at("job"));
        let scratch = Arc::new(Scratch::new(&folder.path().join("scratch")).unwrap());
        let url = format!("file://{}", objects.display());
        let trial: TrialId = "s/3".parse().unwrap();
        let large = stored(&url, &trial, &source, 300 << 10).await;

        let ahead = Ahead::default();
        ahead.begin(&attempt(&url, large.clone()), &scratch);
        let other = CheckpointRef { manifest: Digest([9; 32]), ..large.clone() };
        assert_eq!(ahead.take(&other, &job).await, None);

        ahead.begin(&attempt(&url, large.clone()), &scratch);
        let files = ahead.take(&large, &job).await.unwrap();
        assert_eq!(std::fs::read(&files.weights).unwrap(), vec![1; 300 << 10]);
        assert!(files.weights.starts_with(&job) && files.state.starts_with(&job));
        assert_eq!(ahead.take(&large, &job).await, None, "it is taken once");

        let missing = CheckpointRef { manifest: Digest([8; 32]), ..large };
        ahead.begin(&attempt(&url, missing.clone()), &scratch);
        assert_eq!(ahead.take(&missing, &job).await, None, "the attempt finds out for itself");
        let left = std::fs::read_dir(scratch.path()).unwrap().flatten();
        assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("ahead-")));
    }
}
