//! Which coordinator, or which folder, a command talks to.
//!
//! Owns the options `--coordinator` and `--dir`, what they default to, and the way from them to a [`Source`].

use super::{out, source::Source};
use crate::{
    error::{Code, Problem},
    store::{DATABASE_FILE, FolderLock},
};
use clap::Args;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Where a coordinator listens unless told otherwise.
pub(crate) const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7077";
/// The variable that names the coordinator.
pub(crate) const COORDINATOR_VARIABLE: &str = "SPOTSWEEP_COORDINATOR";
/// Where `run` keeps sweeps unless told otherwise.
pub(crate) const SWEEPS: &str = "sweeps";
/// How often a folder is looked at whose coordinator is just starting or ending.
const LOOKS: u32 = 50;
/// Time between two such looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// For commands that need a coordinator at work.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CoordinatorArgs {
    /// The coordinator [env: SPOTSWEEP_COORDINATOR] [default: http://127.0.0.1:7077]
    #[arg(long, value_name = "URL")]
    pub(crate) coordinator: Option<String>,
}

/// For commands that only read, and those that may find their coordinator by its folder.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReadArgs {
    /// The coordinator.
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorArgs,
    /// Read this folder of a coordinator, at work or not
    #[arg(long, value_name = "DIR", conflicts_with = "coordinator")]
    pub(crate) dir: Option<PathBuf>,
}

impl CoordinatorArgs {
    /// The coordinator that the user names, by option or variable.
    #[must_use]
    pub(crate) fn named(&self) -> Option<String> {
        let variable = || std::env::var(COORDINATOR_VARIABLE).ok().filter(|url| !url.is_empty());
        self.coordinator.clone().or_else(variable)
    }

    /// The coordinator that is named, else the one at the usual address.
    ///
    /// # Errors
    /// If nobody answers there.
    pub(crate) async fn open(&self) -> Result<Source, Problem> {
        Source::connect(self.named().as_deref().unwrap_or(DEFAULT_COORDINATOR)).await
    }
}

impl ReadArgs {
    /// The folder or coordinator that is named. If none is: the coordinator at the usual address, and if there is
    /// none, the folder in which `run` keeps the sweep of `target`, or the only one that it keeps.
    ///
    /// # Errors
    /// If nobody answers, or the folder cannot be read.
    pub(crate) async fn open(&self, target: Option<&str>) -> Result<Source, Problem> {
        Ok(self.find(target).await?.0)
    }

    /// As [`Self::open`]; also gives the options by which the same is found again.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn find(&self, target: Option<&str>) -> Result<(Source, Self), Problem> {
        let at = |url: &str| {
            let coordinator = CoordinatorArgs { coordinator: Some(url.to_owned()) };
            Self { coordinator, dir: None }
        };
        if let Some(dir) = &self.dir {
            return Ok((of_folder(dir).await?, self.clone()));
        }
        if let Some(url) = self.coordinator.named() {
            return Ok((Source::connect(&url).await?, at(&url)));
        }
        let problem = match Source::connect(DEFAULT_COORDINATOR).await {
            Err(problem) if problem.code == Code::Unreachable => problem,
            other => return Ok((other?, at(DEFAULT_COORDINATOR))),
        };
        let kept = kept_in(Path::new(SWEEPS));
        let sweep = target.map(|target| target.split('/').next().unwrap_or_default());
        let chosen = match (sweep, kept.as_slice()) {
            (Some(sweep), _) if kept.iter().any(|dir| dir.ends_with(sweep)) => Path::new(SWEEPS).join(sweep),
            (_, [only]) => only.clone(),
            (_, []) => return Err(problem),
            (_, several) => {
                let dirs: Vec<String> =
                    several.iter().map(|dir| format!("--dir {}", dir.display())).collect();
                return Err(problem.hint(format!("name a sweep or a folder: {}", dirs.join(", "))));
            }
        };
        out::note(&format!("reading {}", chosen.display()));
        let source = of_folder(&chosen).await?;
        Ok((source, Self { coordinator: CoordinatorArgs::default(), dir: Some(chosen) }))
    }
}

/// The folders below `root` that a coordinator has kept, by name.
fn kept_in(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut kept: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|dir| dir.join(DATABASE_FILE).is_file()).collect();
    kept.sort();
    kept
}

/// The coordinator that runs on `dir`; `None` if none does.
///
/// # Errors
/// If it does not answer.
pub(crate) async fn at_work_on(dir: &Path) -> Result<Option<Source>, Problem> {
    for _ in 0..LOOKS {
        let Some(live) = FolderLock::holder(dir) else { return Ok(None) };
        if let Some(url) = live.url {
            match Source::connect(&url).await {
                // It has just gone: look again.
                Err(problem) if problem.code == Code::Unreachable => {}
                other => return other.map(Some),
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(silent(dir))
}

/// The coordinator that runs on `dir`, else what `dir` itself tells.
async fn of_folder(dir: &Path) -> Result<Source, Problem> {
    for _ in 0..LOOKS {
        if let Some(source) = at_work_on(dir).await? {
            return Ok(source);
        }
        match Source::folder(dir) {
            Ok((source, damage)) => {
                damage.iter().for_each(|line| out::warn(line));
                return Ok(source);
            }
            // One has just come: look again.
            Err(problem) if problem.code == Code::InUse => {}
            Err(problem) => return Err(problem),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(silent(dir))
}

fn silent(dir: &Path) -> Problem {
    Problem::new(Code::Unreachable, format!("the coordinator of {} does not answer", dir.display()))
        .hint("it may be starting or hanging; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_coordinators_are_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b", "a", "notes"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        for name in ["a", "b"] {
            std::fs::write(root.path().join(name).join(DATABASE_FILE), "").unwrap();
        }
        assert_eq!(kept_in(root.path()), [root.path().join("a"), root.path().join("b")]);
        assert!(kept_in(&root.path().join("none")).is_empty());
    }

    #[tokio::test]
    async fn a_folder_that_is_none_is_told() {
        let root = tempfile::tempdir().unwrap();
        let problem = of_folder(root.path()).await.err().unwrap();
        assert_eq!(problem.code, Code::NoFolder);
    }
}
