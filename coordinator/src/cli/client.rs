//! Which coordinator, or which folder, a command talks to.
//!
//! Owns the options `--coordinator` and `--dir` and what they default to. Must not ask the coordinator anything.

use clap::Args;
use std::path::PathBuf;

/// Where a coordinator listens unless told otherwise.
pub(crate) const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7077";
/// The variable that names the coordinator.
pub(crate) const COORDINATOR_VARIABLE: &str = "SPOTSWEEP_COORDINATOR";

/// For commands that need a coordinator at work.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CoordinatorArgs {
    /// The coordinator [env: SPOTSWEEP_COORDINATOR] [default: http://127.0.0.1:7077]
    #[arg(long, value_name = "URL")]
    pub(crate) coordinator: Option<String>,
}

/// For commands that only read.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReadArgs {
    /// The coordinator.
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorArgs,
    /// Read this folder of a coordinator, at work or not
    #[arg(long, value_name = "DIR", conflicts_with = "coordinator")]
    pub(crate) dir: Option<PathBuf>,
}

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The coordinator that the user named.
    Named(String),
    /// The one that is there if there is any.
    Default,
    /// A folder.
    Dir(PathBuf),
}

impl CoordinatorArgs {
    /// The option, else the variable, else the default.
    #[must_use]
    pub(crate) fn place(&self) -> Place {
        let variable = || std::env::var(COORDINATOR_VARIABLE).ok().filter(|url| !url.is_empty());
        match self.coordinator.clone().or_else(variable) {
            Some(url) => Place::Named(url),
            None => Place::Default,
        }
    }
}

impl ReadArgs {
    /// The folder if one is named, else the coordinator.
    #[must_use]
    pub(crate) fn place(&self) -> Place {
        match &self.dir {
            Some(dir) => Place::Dir(dir.clone()),
            None => self.coordinator.place(),
        }
    }
}
