//! Writes snapshots to disk on a thread of its own, one at a time. Training waits for it only when it ends.

use super::{META_KEY, Snapshot};
use crate::error::TrainError;
use safetensors::{SafeTensorError, serialize_to_file};
use spotsweep_proto::line::CheckpointFiles;
use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

/// Writes into one folder.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    /// How many were begun: part of the files' names, which are never used twice in a job.
    begun: u32,
    /// The one in flight.
    flight: Option<JoinHandle<Result<CheckpointFiles, TrainError>>>,
}

impl Writer {
    /// Writes into `folder`, which exists.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, begun: 0, flight: None }
    }

    /// Whether one is being written, or is written and not yet collected.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.flight.is_some()
    }

    /// Begins to write `snapshot`, behind the one in flight if there is one.
    ///
    /// # Errors
    /// [`TrainError::Storage`] if no thread can be started.
    pub fn begin(&mut self, snapshot: Snapshot) -> Result<(), TrainError> {
        debug_assert!(self.flight.is_none(), "one at a time");
        let name = format!("{:010}-{}", snapshot.meta.step, self.begun);
        let weights = self.folder.join(format!("{name}.weights.safetensors"));
        let state = self.folder.join(format!("{name}.state.safetensors"));
        self.begun += 1;
        let spawned = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || write(&snapshot, weights, state))
            .map_err(|source| TrainError::Storage { path: self.folder.clone(), source })?;
        self.flight = Some(spawned);
        Ok(())
    }

    /// The files of the one in flight, if it is finished by now.
    ///
    /// # Errors
    /// [`TrainError::Storage`] if it could not be written.
    pub fn poll(&mut self) -> Result<Option<CheckpointFiles>, TrainError> {
        if self.flight.as_ref().is_some_and(JoinHandle::is_finished) { self.wait() } else { Ok(None) }
    }

    /// Waits for the one in flight and gives its files; `None` if there is none.
    ///
    /// # Errors
    /// As [`Writer::poll`].
    pub fn wait(&mut self) -> Result<Option<CheckpointFiles>, TrainError> {
        let Some(flight) = self.flight.take() else { return Ok(None) };
        match flight.join() {
            Ok(outcome) => outcome.map(Some),
            Err(_) => Err(TrainError::Storage {
                path: self.folder.clone(),
                source: io::Error::other("the thread that writes checkpoints panicked"),
            }),
        }
    }
}

/// Writes both files and flushes them to the disk.
fn write(snapshot: &Snapshot, weights: PathBuf, state: PathBuf) -> Result<CheckpointFiles, TrainError> {
    let storage = |path: &Path, source| TrainError::Storage { path: path.to_owned(), source };
    let meta = serde_json::to_string(&snapshot.meta).map_err(|e| storage(&state, io::Error::other(e)))?;
    for (path, tensors, metadata) in [
        // What PyTorch's own readers look for.
        (&weights, &snapshot.weights, ("format".to_owned(), "pt".to_owned())),
        (&state, &snapshot.moments, (META_KEY.to_owned(), meta)),
    ] {
        let views = tensors.iter().map(|t| (t.name.as_str(), t));
        serialize_to_file(views, Some(HashMap::from([metadata])), path)
            .map_err(into_io)
            .and_then(|()| File::open(path)?.sync_all())
            .map_err(|source| storage(path, source))?;
    }
    Ok(CheckpointFiles::new(snapshot.meta.step, weights, state))
}

fn into_io(error: SafeTensorError) -> io::Error {
    match error {
        SafeTensorError::IoError(error) => error,
        other => io::Error::other(other),
    }
}
