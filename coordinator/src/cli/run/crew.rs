//! The workers of `spotsweep run`: child processes that are started, watched, started again and let go.
//!
//! Each has its log beside the sweep, its own process group (Ctrl-C reaches `run` alone, which lets them leave in
//! order) and a pipe as stdin, whose end tells it that `run` is gone. Must not print.

use crate::{
    cli::error::io_problem,
    error::{Code, Problem},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Time for a worker to write checkpoints and hand its leases back after it was told to leave: a little more than
/// it takes for itself.
const LEAVE: Duration = Duration::from_secs(30);
/// Wait before a worker that ended is started again; doubles with each time in a row.
const BACKOFF: Duration = Duration::from_millis(500);
/// Longest such wait.
const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// A worker that lived as long is forgiven its earlier ends.
const SETTLED: Duration = Duration::from_secs(60);
/// Ends in a row after which a worker is given up.
const ENDS: u32 = 6;
/// How much of the end of a log is quoted, in bytes.
const LOG_BYTES: u64 = 2048;

/// How workers are started.
#[derive(Debug, Clone)]
pub(crate) struct CrewPlan {
    /// `spotsweep-worker`.
    pub(crate) program: PathBuf,
    /// The trainer that they start.
    pub(crate) trainer: PathBuf,
    /// Where the coordinator listens.
    pub(crate) url: String,
    /// `auto`, `cpu`, `cuda:0`, …
    pub(crate) device: String,
    /// Where the loader finds libtorch, if it needs help.
    pub(crate) library_path: Option<(&'static str, OsString)>,
    /// Folder of their logs.
    pub(crate) logs: PathBuf,
    /// Folder of their files on the way.
    pub(crate) scratch: PathBuf,
    /// How many.
    pub(crate) workers: usize,
}

/// Something worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CrewNews {
    /// A worker ended and is started again.
    Restarted {
        /// Which.
        name: String,
        /// How it ended.
        how: String,
    },
    /// A worker is given up.
    GivenUp {
        /// Which.
        name: String,
        /// How it ended last.
        how: String,
        /// The end of its log.
        log: String,
    },
}

/// What the workers shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Work,
    Leave,
    Die,
}

/// The workers.
#[derive(Debug)]
pub(crate) struct Crew {
    wish: watch::Sender<Wish>,
    tasks: JoinSet<()>,
    /// What happens to them; ends when all are gone or given up.
    pub(crate) news: mpsc::Receiver<CrewNews>,
}

impl Crew {
    /// Starts them.
    ///
    /// # Errors
    /// If the folders cannot be made.
    pub(crate) fn start(plan: &CrewPlan) -> Result<Self, Problem> {
        for folder in [&plan.logs, &plan.scratch] {
            std::fs::create_dir_all(folder).map_err(|error| io_problem("create", folder, &error))?;
        }
        let (wish, wishes) = watch::channel(Wish::Work);
        let (sender, news) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        for number in 1..=plan.workers {
            tasks.spawn(keep(plan.clone(), format!("local-{number}"), wishes.clone(), sender.clone()));
        }
        Ok(Self { wish, tasks, news })
    }

    /// Lets all leave in order: they write checkpoints and hand their leases back.
    pub(crate) async fn leave(&mut self) {
        self.wish.send_replace(Wish::Leave);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends all at once.
    pub(crate) async fn kill(&mut self) {
        self.wish.send_replace(Wish::Die);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Keeps one worker at work until it shall not be.
async fn keep(plan: CrewPlan, name: String, mut wishes: watch::Receiver<Wish>, news: mpsc::Sender<CrewNews>) {
    let log = plan.logs.join(format!("{name}.log"));
    let mut ends = 0;
    loop {
        let started = Instant::now();
        let how = match spawn(&plan, &name, &log) {
            Ok(mut child) => match attend(&mut child, &mut wishes).await {
                Attended::Ended(status) => in_words(status),
                Attended::Dismissed => return,
            },
            Err(problem) => problem.message,
        };
        ends = if started.elapsed() >= SETTLED { 1 } else { ends + 1 };
        if ends >= ENDS {
            let log = end_of(&log);
            let _nobody = news.send(CrewNews::GivenUp { name, how, log }).await;
            return;
        }
        let _nobody = news.send(CrewNews::Restarted { name: name.clone(), how }).await;
        let wait = BACKOFF.saturating_mul(1 << (ends - 1)).min(BACKOFF_MOST);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = wishes.wait_for(|wish| *wish != Wish::Work) => return,
        }
    }
}

fn spawn(plan: &CrewPlan, name: &str, log: &Path) -> Result<Child, Problem> {
    let open = OpenOptions::new().create(true).append(true).open(log);
    let stderr = open.map_err(|error| io_problem("write", log, &error))?;
    let stdout = stderr.try_clone().map_err(|error| io_problem("write", log, &error))?;
    let mut command = Command::new(&plan.program);
    command
        .args(["--coordinator", &plan.url, "--name", name, "--device", &plan.device, "--exit-with-parent"])
        .arg("--trainer")
        .arg(&plan.trainer)
        .arg("--dir")
        .arg(plan.scratch.join(name))
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .kill_on_drop(true);
    if let Some((variable, value)) = &plan.library_path {
        command.env(variable, value);
    }
    command.spawn().map_err(|error| io_problem("start", &plan.program, &error))
}

/// How it went with one process.
enum Attended {
    Ended(Option<ExitStatus>),
    Dismissed,
}

async fn attend(child: &mut Child, wishes: &mut watch::Receiver<Wish>) -> Attended {
    // Waiting for a child closes its stdin, which would tell it that we are gone: so the pipe is held here.
    let _pipe = child.stdin.take();
    let wish = tokio::select! {
        status = child.wait() => return Attended::Ended(status.ok()),
        wish = wishes.wait_for(|wish| *wish != Wish::Work) => wish.map_or(Wish::Die, |wish| *wish),
    };
    if wish == Wish::Leave {
        tell(child, Signal::SIGTERM);
        tokio::select! {
            _ = child.wait() => return Attended::Dismissed,
            () = tokio::time::sleep(LEAVE) => {}
            _ = wishes.wait_for(|wish| *wish == Wish::Die) => {}
        }
    }
    // Its trainers see the end of their stdin and end by themselves.
    let _gone = child.kill().await;
    Attended::Dismissed
}

fn tell(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended in this moment.
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

fn in_words(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "ended".to_owned(), |status| format!("ended with {status}"))
}

/// The last lines of a log.
fn end_of(log: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(log) {
        let length = file.metadata().map_or(0, |facts| facts.len());
        // What cannot be read is not quoted.
        let _unread = file
            .seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))
            .and_then(|_| file.take(LOG_BYTES).read_to_end(&mut bytes));
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

/// That no worker is left.
#[must_use]
pub(crate) fn all_given_up(last: &CrewNews, logs: &Path) -> Problem {
    let quoted = match last {
        CrewNews::GivenUp { name, how, log } => format!("; {name} {how}:\n{log}"),
        CrewNews::Restarted { name, how } => format!("; {name} {how}"),
    };
    Problem::new(Code::Internal, format!("no worker stays alive{quoted}")).hint(format!(
        "their logs are in {}; `spotsweep doctor` shows what is missing; the same command goes on where it was",
        logs.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::program;

    fn plan(folder: &Path, script: &str) -> CrewPlan {
        CrewPlan {
            program: program(folder, "worker", script),
            trainer: PathBuf::from("trainer"),
            url: "http://127.0.0.1:1".to_owned(),
            device: "cpu".to_owned(),
            library_path: None,
            logs: folder.join("logs"),
            scratch: folder.join("scratch"),
            workers: 1,
        }
    }

    #[tokio::test]
    async fn a_worker_that_ends_is_started_again_and_one_that_never_stays_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        tokio::time::pause();
        let mut crew = Crew::start(&plan(folder.path(), "echo no libtorch here >&2; exit 8")).unwrap();
        let mut last = None;
        let mut restarts = 0;
        while let Some(news) = crew.news.recv().await {
            restarts += u32::from(matches!(news, CrewNews::Restarted { .. }));
            last = Some(news);
        }
        assert_eq!(restarts, ENDS - 1);
        let last = last.unwrap();
        let problem = all_given_up(&last, &folder.path().join("logs"));
        assert!(
            problem.message.contains("exit status: 8") && problem.message.contains("no libtorch here"),
            "{problem}"
        );
    }

    #[tokio::test]
    async fn a_worker_is_let_go_in_order_and_sees_its_stdin_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/local-1.log");
        let script =
            "trap 'echo leaving; exit 0' TERM; echo \"$@\"; echo ready; while :; do sleep 0.05; done";
        let mut crew = Crew::start(&plan(folder.path(), script)).unwrap();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("ready") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        crew.leave().await;
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(
            text.starts_with(
                "--coordinator http://127.0.0.1:1 --name local-1 --device cpu --exit-with-parent"
            ),
            "{text}"
        );
        assert!(text.ends_with("leaving\n"), "{text}");
    }

    #[tokio::test]
    async fn a_worker_that_will_not_leave_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut crew =
            Crew::start(&plan(folder.path(), "trap '' TERM; while :; do sleep 0.05; done")).unwrap();
        crew.kill().await;
    }
}
