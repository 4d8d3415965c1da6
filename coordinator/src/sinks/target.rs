//! Where a sink delivers to: one trial at a time, opened, given its points, closed.
//!
//! Both kinds take a point once, however often it is given: a file knows its last step, and of a server it is asked.

use crate::{
    error::{Code, Problem},
    export::{
        Export as _, Subject, failed,
        mlflow::rest::{Rest, Run},
        tensorboard::live::Live,
    },
};
use spotsweep_proto::spec::sinks::{Sink, SinkFolder};
use spotsweep_wire::v1::{Point, Trial};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Runs of a server that are remembered while their trials go on; beyond that all are asked for anew.
const KNOWN_RUNS: usize = 1024;

/// One of them.
pub(super) enum Target {
    TensorBoard(Box<Folder>),
    Mlflow(Box<Server>),
}

impl Target {
    pub(super) async fn begin(sink: &Sink, folders: &Path, subject: Subject) -> Result<Self, Problem> {
        Ok(match sink {
            Sink::Tensorboard { dir } => {
                let (folders, dir) = (folders.to_owned(), dir.clone());
                on_disk(move || Folder::begin(&folders, &dir, &subject))
                    .await
                    .map(|folder| Self::TensorBoard(Box::new(folder)))?
            }
            Sink::Mlflow { url, experiment, artifacts: _ } => {
                let name = experiment.as_ref().map_or(subject.sweep.sweep.as_str(), |name| name.as_str());
                let rest = Rest::begin_in(url.as_str(), name, &subject).await?;
                Self::Mlflow(Box::new(Server { rest, runs: HashMap::new(), current: None }))
            }
        })
    }

    /// Goes on with a trial; gives the first step that it may not have.
    pub(super) async fn open(&mut self, trial: &Trial) -> Result<u64, Problem> {
        match self {
            Self::TensorBoard(folder) => {
                let path = folder.file_of(trial);
                let (root, begun_us, trial) = (folder.root.clone(), folder.begun_us, trial.clone());
                let live = on_disk(move || {
                    if let Some(parent) = path.parent() {
                        make_below(&root, parent)?;
                    }
                    Live::open(&path, &trial, begun_us)
                });
                let live = folder.current.insert(live.await?);
                Ok(live.next_step())
            }
            Self::Mlflow(server) => {
                let (known, next_step) = match server.runs.remove(&trial.number) {
                    Some((run, next_step)) => (Some(run), next_step),
                    None => (None, 0),
                };
                server.rest.open(trial, known).await?;
                server.current = Some((trial.number, next_step));
                Ok(next_step)
            }
        }
    }

    /// The server where the trial that is open is logged, if it is one.
    pub(super) fn server(&self) -> Option<&Rest> {
        match self {
            Self::TensorBoard(_) => None,
            Self::Mlflow(server) => Some(&server.rest),
        }
    }

    pub(super) async fn points(&mut self, points: Vec<Point>) -> Result<(), Problem> {
        let Some(last) = points.last().map(|point| point.step) else { return Ok(()) };
        match self {
            Self::TensorBoard(folder) => {
                let Some(mut live) = folder.current.take() else { return Ok(()) };
                let live = on_disk(move || live.points(&points).map(|_new| live)).await?;
                folder.current = Some(live);
                Ok(())
            }
            Self::Mlflow(server) => {
                server.rest.points(&points).await?;
                if let Some((_, next_step)) = &mut server.current {
                    *next_step = last + 1;
                }
                Ok(())
            }
        }
    }

    /// The trial has no more points now; with `ended`, never.
    pub(super) async fn close(&mut self, ended: bool) -> Result<(), Problem> {
        match self {
            Self::TensorBoard(folder) => match folder.current.take() {
                Some(live) => on_disk(move || live.close(ended)).await,
                None => Ok(()),
            },
            Self::Mlflow(server) if ended => server.rest.conclude().await,
            Self::Mlflow(server) => {
                let run = server.rest.rest().await?;
                if server.runs.len() >= KNOWN_RUNS {
                    server.runs.clear();
                }
                if let (Some(run), Some((number, next_step))) = (run, server.current.take()) {
                    server.runs.insert(number, (run, next_step));
                }
                Ok(())
            }
        }
    }
}

/// An MLflow tracking server.
pub(super) struct Server {
    rest: Rest,
    /// Runs of trials that go on, with the first step that they do not have.
    runs: HashMap<u32, (Run, u64)>,
    current: Option<(u32, u64)>,
}

/// A folder of TensorBoard.
pub(super) struct Folder {
    /// The operator's folder, without links.
    root: PathBuf,
    /// The sweep's own.
    folder: PathBuf,
    digits: usize,
    begun_us: u64,
    current: Option<Live>,
    /// What tells its files from those of another sweep that had this name.
    identity: String,
}

impl Folder {
    fn begin(folders: &Path, dir: &SinkFolder, subject: &Subject) -> Result<Self, Problem> {
        std::fs::create_dir_all(folders).map_err(|error| failed("make", folders, &error))?;
        let root = folders.canonicalize().map_err(|error| failed("find", folders, &error))?;
        let mut folder = root.clone();
        folder.extend(dir.parts());
        folder.push(&subject.sweep.sweep);
        let digits = subject.sweep.trials.saturating_sub(1).to_string().len();
        let digest: String =
            subject.sweep.spec_digest.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        let begun_us = subject.sweep.submitted_at_us;
        Ok(Self { root, folder, digits, begun_us, current: None, identity: format!("{digest}-{begun_us}") })
    }

    fn file_of(&self, trial: &Trial) -> PathBuf {
        let Self { digits, begun_us, identity, .. } = self;
        let name = format!("events.out.tfevents.{:010}.spotsweep.{identity}", begun_us / 1_000_000);
        self.folder.join(format!("{:0digits$}", trial.number)).join(name)
    }
}

/// Makes a folder, and checks that no link on the way leads out of `root`.
fn make_below(root: &Path, folder: &Path) -> Result<(), Problem> {
    // Looked at from the outermost inwards, so that nothing is made behind a link.
    let mut here = root.to_owned();
    for part in folder.strip_prefix(root).unwrap_or(folder).components() {
        here.push(part);
        match std::fs::create_dir(&here) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let found =
                    std::fs::symlink_metadata(&here).map_err(|error| failed("look at", &here, &error))?;
                if !found.is_dir() {
                    let message = format!("{} is no folder, and links are not followed", here.display());
                    return Err(Problem::new(Code::Storage, message));
                }
            }
            other => other.map_err(|error| failed("make", &here, &error))?,
        }
    }
    Ok(())
}

/// Runs what waits for the disk where it keeps nobody waiting.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::internal(&error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_below_the_root_leads_nowhere() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), root.path().join("runs")).unwrap();
        let problem = make_below(root.path(), &root.path().join("runs/sweep/0")).unwrap_err();
        assert!(problem.message.contains("links are not followed"), "{problem:?}");
        assert!(std::fs::read_dir(elsewhere.path()).unwrap().next().is_none());
        make_below(root.path(), &root.path().join("other/sweep/0")).unwrap();
        make_below(root.path(), &root.path().join("other/sweep/0")).unwrap();
        assert!(root.path().join("other/sweep/0").is_dir());
    }
}
