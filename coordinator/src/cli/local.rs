//! What is on this machine: the other programs, libtorch, devices, disk.
//!
//! Must not print. Looks only; nothing is installed or changed.

use super::error::io_problem;
use crate::error::{Code, Problem};
use spotsweep_proto::{
    catalogue::OwnCatalogue,
    limits::LINE_BYTES,
    line::{FromTrainer, TrainerDevice},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{ChildStderr, Command},
};

/// The agent.
pub(crate) const WORKER: &str = "spotsweep-worker";
/// The program that trains.
pub(crate) const TRAINER: &str = "spotsweep-trainer";
/// Names another trainer, here and for agents.
const TRAINER_VARIABLE: &str = "SPOTSWEEP_TRAINER";
/// Where the loader looks for libraries first.
pub(crate) const LIBRARY_VARIABLE: &str = "LD_LIBRARY_PATH";
/// Where `deploy/libtorch/fetch.py` puts libtorch, below the user's cache.
const FETCHED_LIBTORCH: &str = "spotsweep/libtorch-2.11.0-cpu/torch/lib";
/// How long a trainer may take to say that it is ready; loading CUDA from a slow disk takes most of it.
const READY: Duration = Duration::from_secs(60);
/// Most of a trainer's stderr that is kept of a failed start, in bytes.
const STDERR_BYTES: u64 = 4096;

/// The program called `name`: beside this one, else in PATH.
#[must_use]
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates =
        beside.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join(name)));
    candidates.find(|candidate| candidate.is_file())
}

/// The agent.
///
/// # Errors
/// If it is not here.
pub(crate) fn worker() -> Result<PathBuf, Problem> {
    program(WORKER).ok_or_else(|| missing(WORKER))
}

/// The trainer that was named by an option, else as [`trainer`].
///
/// # Errors
/// If it is not here.
pub(crate) fn trainer_or(named: Option<&Path>) -> Result<PathBuf, Problem> {
    match named {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => Err(Problem::new(Code::Missing, format!("there is no trainer {}", path.display()))),
        None => trainer(),
    }
}

/// What the trainer of an option has besides Spotsweep's models. Without the option nothing is started.
///
/// # Errors
/// If it does not start, or tells what cannot be used.
pub(crate) async fn models_of(named: Option<&Path>) -> Result<OwnCatalogue, Problem> {
    match named {
        Some(_) => Ok(probe(&trainer_or(named)?).await?.catalogue),
        None => Ok(OwnCatalogue::default()),
    }
}

/// The trainer: the one that the user names, else the one beside this program, else in PATH.
///
/// # Errors
/// If it is not here.
pub(crate) fn trainer() -> Result<PathBuf, Problem> {
    match std::env::var_os(TRAINER_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) {
        Some(named) if named.is_file() => Ok(named),
        Some(named) => Err(Problem::new(Code::Missing, format!("there is no trainer {}", named.display()))
            .hint(format!("{TRAINER_VARIABLE} names it"))),
        None => program(TRAINER).ok_or_else(|| missing(TRAINER)),
    }
}

fn missing(name: &str) -> Problem {
    Problem::new(Code::Missing, format!("there is no {name} beside this program or in PATH"))
        .hint("`make build` makes all three programs")
}

/// The folder of a fetched libtorch's libraries.
#[must_use]
pub(crate) fn fetched_libtorch() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join(FETCHED_LIBTORCH)).filter(|folder| folder.is_dir())
}

/// A trainer that starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrainerFacts {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its name and version.
    pub(crate) name: String,
    /// Version of libtorch, or empty.
    pub(crate) libtorch: String,
    /// Where it can train.
    pub(crate) devices: Vec<TrainerDevice>,
    /// What [`LIBRARY_VARIABLE`] must be for it to start; `None`: as it is.
    pub(crate) library_path: Option<OsString>,
    /// Models and data sets that it has besides those of Spotsweep.
    pub(crate) catalogue: OwnCatalogue,
}

impl TrainerFacts {
    /// Whether it sees a GPU.
    #[must_use]
    pub(crate) fn has_gpu(&self) -> bool {
        self.devices.iter().any(|device| device.name.as_str().starts_with("cuda"))
    }
}

/// What a worker is told instead of a trainer where programs of the user's own train.
pub(crate) const NO_TRAINER: &str = "none";

/// Starts the trainer, asks what it is, and lets it go. A trainer that finds no libtorch by itself is started once
/// more with the fetched one, unless the user has chosen libraries.
///
/// # Errors
/// If it does not start, with what it said.
pub(crate) async fn probe(path: &Path) -> Result<TrainerFacts, Problem> {
    let first = match ready(path, None).await {
        Ok(facts) => return Ok(facts),
        Err(problem) => problem,
    };
    let chosen = std::env::var_os(LIBRARY_VARIABLE).is_some_and(|value| !value.is_empty());
    match fetched_libtorch() {
        Some(folder) if !chosen => ready(path, Some(folder.into_os_string())).await.map_err(|_| first),
        Some(_) | None => Err(first),
    }
}

async fn ready(path: &Path, library_path: Option<OsString>) -> Result<TrainerFacts, Problem> {
    let mut command = Command::new(path);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some(folder) = &library_path {
        command.env(LIBRARY_VARIABLE, folder);
    }
    let mut child = command.spawn().map_err(|error| io_problem("start", path, &error))?;
    let mut line = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout.take(LINE_BYTES as u64));
        // A trainer that says nothing in time has said nothing.
        let _silent = tokio::time::timeout(READY, stdout.read_until(b'\n', &mut line)).await;
    }
    let said = serde_json::from_slice::<FromTrainer>(&line);
    if let Ok(FromTrainer::Ready { trainer, libtorch, devices, catalogue, .. }) = said {
        // The end of its stdin ends it; should it not, being dropped does.
        drop(child.stdin.take());
        let _left = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
        let catalogue = match catalogue {
            Some(told) => OwnCatalogue::read(told.to_string().as_bytes()).map_err(|error| {
                Problem::new(Code::Missing, format!("{} tells what cannot be used: {error}", path.display()))
            })?,
            None => OwnCatalogue::default(),
        };
        let path = path.to_owned();
        return Ok(TrainerFacts { path, name: trainer, libtorch, devices, library_path, catalogue });
    }
    let _gone = child.start_kill();
    let why = last_line(child.stderr.take()).await;
    let libraries = why.contains("shared librar") || why.contains("symbol");
    let problem = Problem::new(Code::Missing, format!("{} does not start: {why}", path.display()));
    Err(if libraries {
        problem.hint("it needs libtorch 2.11: `make build` fetches it, or set LD_LIBRARY_PATH to the lib folder of yours")
    } else {
        problem.hint("run it by hand to see what it says")
    })
}

async fn last_line(stderr: Option<ChildStderr>) -> String {
    let mut bytes = Vec::new();
    if let Some(stderr) = stderr {
        let mut limited = stderr.take(STDERR_BYTES);
        let _cut = tokio::time::timeout(Duration::from_secs(1), limited.read_to_end(&mut bytes)).await;
    }
    let text = String::from_utf8_lossy(&bytes);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned());
    last.unwrap_or_else(|| "it ended without a word".to_owned())
}

/// Free and total bytes of the disk that holds `path`, or its nearest folder that is there.
#[must_use]
pub(crate) fn disk(path: &Path) -> Option<(u64, u64)> {
    let absolute = std::path::absolute(path).ok()?;
    let there = absolute.ancestors().find(|folder| folder.is_dir())?;
    let facts = nix::sys::statvfs::statvfs(there).ok()?;
    Some((facts.blocks_available() * facts.fragment_size(), facts.blocks() * facts.fragment_size()))
}

/// Cores that this process may use.
#[must_use]
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::program;

    #[tokio::test]
    async fn a_trainer_that_is_ready_tells_its_devices() {
        let folder = tempfile::tempdir().unwrap();
        let line = r#"{"type":"ready","protocol":1,"trainer":"toy 1","libtorch":"","devices":[{"name":"cpu","kind":"cpu","model":"","memory_bytes":0}]}"#;
        let path = program(folder.path(), "trainer", &format!("echo '{line}'; cat > /dev/null"));
        let facts = probe(&path).await.unwrap();
        assert_eq!((facts.name.as_str(), facts.devices.len(), facts.has_gpu()), ("toy 1", 1, false));
    }

    #[tokio::test]
    async fn a_trainer_that_does_not_start_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = program(
            folder.path(),
            "no-libtorch",
            "echo libtorch_cpu.so: cannot open shared object file >&2; echo junk; exit 127",
        );
        let problem = ready(&path, None).await.unwrap_err();
        assert!(problem.message.ends_with("libtorch_cpu.so: cannot open shared object file"), "{problem}");
        let path = program(folder.path(), "silent", "exit 3");
        assert!(ready(&path, None).await.unwrap_err().message.ends_with("it ended without a word"));
    }

    #[test]
    fn the_disk_of_a_folder_that_is_not_there_yet_is_known() {
        let (free, total) = disk(Path::new("no/such/folder/yet")).unwrap();
        assert!(free <= total && total > 0);
    }
}
