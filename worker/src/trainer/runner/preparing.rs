//! What an attempt needs on this machine's disk before it begins: its checkpoint, data, and module, fetched and verified.
//!
//! Must not know the trainer's process.

use crate::{
    attempt::{Attempt, CheckpointRef, Failure},
    checkpoints::{CheckpointStore, StoreError},
    data::{
        Data,
        cache::{CacheError, Shards, View},
    },
    errors::describe,
    interval, module,
    scratch::Scratch,
    trainer::{
        ahead::Ahead,
        process::ProcessSettings,
        retries::{GivenUp, with_retries},
        supply::Supply,
    },
};
use spotsweep_proto::{
    digest::Digest,
    ids::TrialId,
    line::{CheckpointFiles, FailureKind, Job},
};
use std::{path::Path, sync::Arc};

/// A job that can begin.
pub(super) struct Prepared {
    pub(super) job: Box<Job>,
    pub(super) store: Arc<CheckpointStore>,
    /// What to add should the trainer miss the data.
    pub(super) data_hint: Option<String>,
    /// Added data, kept on this machine as long as the job runs.
    pub(super) view: Option<View>,
    /// Fetches what the job's rank needs of it.
    pub(super) supply: Option<Supply>,
}

/// The store at `url`; the one that was used last is kept open.
pub(super) fn opened(
    kept: &mut Option<(Arc<str>, Arc<CheckpointStore>)>,
    url: &Arc<str>,
) -> Result<Arc<CheckpointStore>, StoreError> {
    if let Some((_, store)) = kept.as_ref().filter(|(known, _)| known == url) {
        return Ok(store.clone());
    }
    let store = Arc::new(CheckpointStore::open(url)?);
    *kept = Some((url.clone(), store.clone()));
    Ok(store)
}

/// Makes an added data set lie on this machine; for a rank of a gang only its manifest: which pieces it needs is known when it
/// has its shards, and then fetched by what is given besides.
async fn added(
    manifest: Digest,
    attempt: &Attempt,
    store: Result<Arc<CheckpointStore>, StoreError>,
    settings: &ProcessSettings,
) -> Result<(View, Option<Supply>), CacheError> {
    let data_url = &attempt.data_url;
    if data_url.is_empty() {
        return Err(CacheError::NoStore);
    }
    let store = store.map_err(CacheError::Store)?;
    let cache = settings.data.cache().ok_or(CacheError::NoFolder)?;
    let Some(place) = &attempt.gang else {
        return Ok((cache.acquire(&store, manifest, None).await?, None));
    };
    let none = Shards { carried: Vec::new(), of: place.shares.shards() };
    let view = cache.acquire(&store, manifest, Some(&none)).await?;
    Ok((view, Some(Supply::new(Arc::clone(cache), store, manifest))))
}

/// All that a job needs on this machine's disk.
pub(super) async fn prepare(
    attempt: &Attempt,
    store: Result<Arc<CheckpointStore>, StoreError>,
    data_store: Result<Arc<CheckpointStore>, StoreError>,
    scratch: Option<&Scratch>,
    ahead: &Ahead,
    settings: &ProcessSettings,
    folder: &Path,
) -> Result<Prepared, Failure> {
    let params = serde_json::from_str(&attempt.params_json).map_err(|error| Failure {
        kind: FailureKind::Internal,
        message: format!("the coordinator sent parameters that are no JSON object: {error}"),
    })?;
    let (mut view, mut supply) = (None, None);
    let (data_dir, data_hint) = match settings.data.find(&attempt.sweep.train, &params) {
        Data::None => (None, None),
        Data::Folder(folder) => (Some(folder), None),
        Data::Added(manifest) => {
            let added = added(manifest, attempt, data_store, settings).await;
            let (added, rest) =
                added.map_err(|error| Failure { kind: error.kind(), message: describe(&error) })?;
            let folder = added.folder().to_owned();
            (view, supply) = (Some(added), rest);
            (Some(folder), None)
        }
        Data::Missing(hint) => (None, Some(hint)),
    };
    let trial = attempt.trial();
    let (store, resume) = stored_state(attempt, store, ahead, folder).await?;
    let module = match (module::of_job(&attempt.sweep.train, &params), scratch) {
        (Some(module), Some(scratch)) => Some(module::have(&store, &module, scratch).await?),
        _ => None,
    };
    let job = Job {
        trial,
        epoch: attempt.lease.epoch,
        train: attempt.sweep.train.clone(),
        params,
        device: attempt.device.clone(),
        data_dir,
        module,
        scratch_dir: folder.to_owned(),
        checkpoint: interval::for_trainer(attempt.sweep.checkpoint),
        resume,
        // Told last of all, so that it is the newest make-up.
        gang: None,
    };
    Ok(Prepared { job: Box::new(job), store, data_hint, view, supply })
}

/// The store, and the files of the checkpoint to resume from.
pub(super) async fn stored_state(
    attempt: &Attempt,
    store: Result<Arc<CheckpointStore>, StoreError>,
    ahead: &Ahead,
    folder: &Path,
) -> Result<(Arc<CheckpointStore>, Option<CheckpointFiles>), Failure> {
    let store = store.map_err(|error| Failure { kind: error.kind(), message: describe(&error) })?;
    let resume = match &attempt.resume {
        Some(checkpoint) => Some(match ahead.take(checkpoint, folder).await {
            Some(files) => files,
            None => fetch(&store, &attempt.trial(), checkpoint, folder).await?,
        }),
        None => None,
    };
    Ok((store, resume))
}

/// Fetches the checkpoint to resume from. An object that is found damaged twice is deleted: whoever trains up to that
/// step again stores equal content under the same name, and must not take the damaged object for it.
async fn fetch(
    store: &CheckpointStore,
    trial: &TrialId,
    checkpoint: &CheckpointRef,
    folder: &Path,
) -> Result<CheckpointFiles, Failure> {
    let what = format!("the checkpoint of step {}", checkpoint.step);
    let fetched = with_retries(&what, || store.fetch(trial, checkpoint, folder)).await;
    match fetched {
        Ok(files) => Ok(files),
        Err(GivenUp { kind, message, error }) => {
            if let Some(damaged) = error.as_ref().and_then(StoreError::damaged_object) {
                store.discard(&damaged).await;
            }
            Err(Failure { kind, message: format!("{what} could not be fetched: {message}") })
        }
    }
}
