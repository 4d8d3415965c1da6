//! A trainer as a child process: started, spoken to, and ended with all that it started. Knows nothing of jobs.

use super::{
    carrier::Carrier,
    memory::{OomWatch, says_out_of_memory},
    pipe::{Messages, PipeError},
    stderr::{StderrTail, failure_text},
};
use crate::{attempt_log::AttemptLog, program::kin};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use spotsweep_proto::{
    last_lines::with_last_lines,
    line::{FailureKind, FromTrainer, ToTrainer},
};
use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// A trainer that does not read its stdin for this long while the agent writes to it is stuck.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// A trainer that closed its stdout is given this long to exit before it is killed.
const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// What a trainer's libraries read when they are loaded, unless it is set already.
const LIBRARY_SETTINGS: [(&str, &str); 2] = [
    // Waiting threads that spin take the processor from other trainers (GNU libgomp manual, OMP_WAIT_POLICY).
    ("OMP_WAIT_POLICY", "passive"),
    // Without it cuBLAS may give other bits from run to run (cuBLAS manual, "Results Reproducibility").
    ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
];

/// A running trainer. It leads a process group of its own; dropping it kills the group.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    messages: Messages<ChildStdout>,
    stderr: Option<StderrTail>,
    memory: OomWatch,
    /// Until it is killed.
    group: Option<Pid>,
}

impl Process {
    pub(crate) fn start(program: &Path, environment: &[(String, String)]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that Ctrl-C reaches the agent alone, which then ends the trainer in order.
            .process_group(0)
            .kill_on_drop(true)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        for (name, value) in LIBRARY_SETTINGS {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        let memory = OomWatch::start();
        let mut child = kin::spawn(&mut command)?;
        let missing = || io::Error::other("the trainer has no pipe");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let messages = Messages::new(child.stdout.take().ok_or_else(missing)?);
        let stderr = Some(StderrTail::new(child.stderr.take().ok_or_else(missing)?));
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Self { child, stdin, messages, stderr, memory, group })
    }

    /// From now on, what it says on stderr is about this attempt.
    pub(crate) fn log_to(&self, log: AttemptLog) {
        if let Some(stderr) = &self.stderr {
            stderr.log_to(log);
        }
    }

    async fn write(&mut self, message: &ToTrainer) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let written = timeout(WRITE_LIMIT, async {
            self.stdin.write_all(&line).await?;
            self.stdin.flush().await
        });
        written.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read")))
    }

    async fn ended(mut self, at_once: bool) -> Death {
        if !at_once {
            let _status = timeout(EXIT_LIMIT, self.child.wait()).await;
        }
        let status = match self.child.try_wait() {
            Ok(Some(status)) => Some(status),
            Ok(None) | Err(_) => None,
        };
        let by_itself = status.is_some();
        // Its number stays taken while a process that it started lives on in the group, and is free for others
        // for no more than this moment otherwise.
        self.kill_group();
        let status = match status {
            Some(status) => Some(status),
            None => self.child.wait().await.ok(),
        };
        let words = match self.stderr.take() {
            Some(stderr) => stderr.finish().await,
            None => String::new(),
        };
        Death::new("the trainer", status, by_itself, words, self.memory.killed())
    }

    /// Kills the trainer and what it started.
    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            // An error means that nobody is left in the group.
            let _gone = killpg(group, Signal::SIGKILL);
            kin::forget(Some(group));
        }
    }
}

impl Carrier for Process {
    async fn say(&mut self, message: &ToTrainer) -> io::Result<()> {
        self.write(message).await
    }

    async fn next(&mut self) -> Result<Option<FromTrainer>, PipeError> {
        self.messages.next().await
    }

    async fn end(self, at_once: bool) -> Death {
        self.ended(at_once).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// How a trainer ended, or a program.
#[derive(Debug)]
pub(crate) struct Death {
    who: &'static str,
    status: Option<ExitStatus>,
    by_itself: bool,
    words: String,
    kernel_killed: bool,
}

impl Death {
    /// `by_itself`: the agent did not kill it. `words` are its last lines; `kernel_killed` whether the kernel killed anybody
    /// for want of memory meanwhile.
    pub(crate) fn new(
        who: &'static str,
        status: Option<ExitStatus>,
        by_itself: bool,
        words: String,
        kernel_killed: bool,
    ) -> Self {
        Self { who, status, by_itself, words, kernel_killed }
    }

    /// Whether somebody told it to go, as systems do that shut down: that is an interruption and no failure.
    pub(crate) fn is_interruption(&self) -> bool {
        let asked = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|signal| signal as i32);
        self.by_itself && self.status.and_then(|status| status.signal()).is_some_and(|s| asked.contains(&s))
    }

    /// Which kind of failure it is when nothing else is known.
    pub(crate) fn kind(&self) -> FailureKind {
        let killed =
            self.by_itself && self.status.and_then(|status| status.signal()) == Some(Signal::SIGKILL as i32);
        if (killed && self.kernel_killed) || (self.by_itself && says_out_of_memory(&self.words)) {
            FailureKind::OutOfMemory
        } else {
            FailureKind::Crashed
        }
    }

    /// For people: how it ended.
    pub(crate) fn describe(&self) -> String {
        let Some(status) = self.status.filter(|_| self.by_itself) else {
            return format!("{} was killed", self.who);
        };
        match (status.code(), status.signal()) {
            (Some(code), _) => format!("{} exited with status {code}", self.who),
            (None, Some(number)) => {
                let name = Signal::try_from(number).map_or_else(|_| String::new(), |s| format!(" ({s})"));
                let why = match self.kind() {
                    FailureKind::OutOfMemory => "; memory ran out",
                    _ => "",
                };
                format!("{} was killed by signal {number}{name}{why}", self.who)
            }
            (None, None) => format!("{} ended: {status}", self.who),
        }
    }

    /// A text for a failure report: what went wrong, how the trainer ended, its last words.
    pub(crate) fn text(&self, before: &str) -> String {
        let happened = if before.is_empty() { self.describe() } else { before.to_owned() };
        failure_text(&with_last_lines(&happened, &self.words))
    }
}
