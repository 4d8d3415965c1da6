//! A program as a child process that carries out one attempt: started, listened to, told, and ended with all that it
//! started. To the course of the job it speaks as a trainer does.
//!
//! It ends in order: its own process first, by itself or killed; then whatever it left; then what is still in its pipes is
//! read; and only then is its end told, so that nothing of it runs when the device is given to the next.

mod elsewhere;
mod end;

use super::{
    checkpoint::{self, CheckpointError, Packed},
    home::Home,
    kin::{self, Family, Running},
    limits::Limits,
    lines::{self, FromProgram, Piece},
    output::Output,
    pattern::Pattern,
    rank::Rank,
    tale::{Heard, Tale, Told},
    tensorboard::{ByStep, EventFiles},
};
use crate::{
    attempt::{Attempt, Failure},
    trainer::{Carrier, Death, OomWatch, PipeError},
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use spotsweep_proto::{
    checkpoint::SoFar,
    digest::Digest,
    ids::Epoch,
    line::{FailureKind, FromTrainer, ToTrainer},
    program::{MetricsFrom, ProgramLimits, ProgramSection},
    spec::Every,
};
use std::{
    collections::VecDeque,
    fs, io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::unix::pipe,
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// A program that says that it is done has this long to exit before it is killed.
const EXIT_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at what it does on the side: event files, and metrics of a step that may be complete.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A program that says nothing for so long is told to have started.
const STARTED_AFTER: Duration = Duration::from_secs(1);
/// Longest limit of time: a year.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A checkpoint that is packed: its step, whether it is the last, and its files.
type IsPacked = (u64, bool, Result<Packed, CheckpointError>);
/// What a look at event files gives: the files, metrics, warnings, and whether there is more.
type Looked = (EventFiles, ByStep, Vec<String>, bool);

/// A program that runs.
pub(crate) struct Program {
    home: Arc<Home>,
    epoch: Epoch,
    limits: ProgramLimits,
    /// Name of the metric that the sweep is about; empty if it is about none.
    metric: String,
    every: Every,
    /// The step at which the next checkpoint is due, where that depends on steps.
    due: u64,
    child: Child,
    group: Option<Pid>,
    family: Family,
    /// Among those that run, until all of it has ended.
    running: Option<Running>,
    memory: OomWatch,
    from_program: FromProgram,
    to_program: pipe::Sender,
    output: Output,
    watch: Limits,
    events: Option<EventFiles>,
    looking: Option<JoinHandle<Looked>>,
    /// Metrics that may not be complete.
    pending: ByStep,
    added: bool,
    /// Lines of its output that had metrics and no step.
    counted: u64,
    tale: Tale,
    packing: Option<JoinHandle<IsPacked>>,
    packed: u64,
    /// Of the last checkpoint.
    digest: Option<Digest>,
    since: Instant,
    next_look: Instant,
    /// When it is killed, and why where that is a failure.
    kill_at: Option<Instant>,
    told: Option<Told>,
    stopping: bool,
    failed: Option<Failure>,
    exited: Option<ExitStatus>,
    /// It was killed by the agent.
    killed: bool,
    queue: VecDeque<FromTrainer>,
    /// Everything is said.
    over: bool,
}

impl Program {
    /// Starts the program, which goes on behind `so_far` where it resumes. Of several ranks only the first is listened to
    /// beyond how it ends.
    pub(crate) fn start(
        home: Home,
        attempt: &Attempt,
        section: &ProgramSection,
        so_far: Option<&SoFar>,
        rank: Option<&Rank>,
    ) -> Result<Self, Failure> {
        let other_rank = rank.filter(|rank| !rank.is_first()).map(|rank| rank.rank);
        let storage = |what: &str, error: io::Error| Failure {
            kind: FailureKind::Storage,
            message: format!("{what}: {error}"),
        };
        let metrics = if other_rank.is_some() { &MetricsFrom::Reports } else { &section.metrics };
        let pattern = match metrics {
            MetricsFrom::Stdout { pattern } => Some(Pattern::new(pattern).map_err(|error| Failure {
                kind: FailureKind::Config,
                message: format!("the pattern of `metrics` cannot be used: {error}"),
            })?),
            MetricsFrom::Reports | MetricsFrom::Tensorboard { .. } => None,
        };
        let events = match metrics {
            MetricsFrom::Tensorboard { dir } => Some(EventFiles::below(home.work().join(dir))),
            MetricsFrom::Reports | MetricsFrom::Stdout { .. } => None,
        };
        let opened = || {
            // Open in both directions: neither ends as long as the agent lives.
            let mut both = pipe::OpenOptions::new();
            both.read_write(true);
            Ok((both.open_receiver(home.to_agent())?, both.open_sender(home.orders())?))
        };
        let (receiver, to_program) =
            opened().map_err(|error| storage("its named pipes cannot be opened", error))?;
        let memory = OomWatch::start();
        let running = Running::one();
        let (child, pipe) = spawn(&home)?;
        let (path, limit) = (home.output(), section.limits.output_bytes);
        let output = Output::read(pipe, &path, limit, pattern, attempt.log.clone())
            .map_err(|error| storage("its output cannot be read", error))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let family = Family::of(&home.folder);
        let folders = vec![home.work(), home.checkpoints()];
        let main = group.unwrap_or(Pid::from_raw(0));
        let watch = Limits::watch(&section.limits, main, family.clone(), folders);
        let tale = Tale::new(attempt.lease.epoch, attempt.first_step()).of_rank(other_rank);
        let since = Instant::now();
        let time = section.limits.time_s.and_then(|time_s| Duration::try_from_secs_f64(time_s).ok());
        Ok(Self {
            epoch: attempt.lease.epoch,
            limits: section.limits,
            metric: attempt.sweep.metric.clone(),
            every: attempt.sweep.checkpoint.every,
            due: match attempt.sweep.checkpoint.every {
                Every::Steps(steps) => next_multiple(attempt.first_step(), steps),
                Every::Seconds(_) | Every::Auto { .. } => u64::MAX,
            },
            child,
            group,
            family,
            running: Some(running),
            memory,
            from_program: FromProgram::new(receiver),
            to_program,
            output,
            watch,
            events,
            looking: None,
            pending: ByStep::new(),
            added: false,
            counted: attempt.first_step(),
            tale: match so_far {
                Some(so_far) => tale.going_on(&so_far.metrics),
                None => tale,
            },
            packing: None,
            packed: 0,
            digest: so_far.map(|so_far| so_far.weights_digest),
            since,
            next_look: since + LOOK_EVERY,
            kill_at: time.map(|time| since + time.min(LONGEST)),
            told: None,
            stopping: false,
            failed: None,
            exited: None,
            killed: false,
            queue: VecDeque::new(),
            over: false,
            home: Arc::new(home),
        })
    }

    fn heard(&mut self, piece: Piece) {
        let outcome = match piece {
            Piece::TooLong(shown) => Err(format!("a line is too long, and begins with \"{shown}\"")),
            Piece::Line(line) => lines::read(&line).and_then(|line| self.tale.hear(line)),
        };
        match outcome {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Say(message)) => self.say_to_agent(message),
            Ok(Heard::Pack { step, folder, last }) => self.pack(step, folder, last),
            Ok(Heard::End(told)) => {
                self.told = Some(told);
                self.kill_by(Instant::now() + EXIT_LIMIT);
            }
            Err(what) => {
                if let Err(message) = self.tale.garbage(&what) {
                    self.fail(FailureKind::Protocol, message);
                }
            }
        }
    }

    fn say_to_agent(&mut self, message: FromTrainer) {
        if let FromTrainer::Report { step, .. } = &message {
            self.due_at(*step);
        }
        if !matches!(message, FromTrainer::Started { .. }) {
            self.queue.extend(self.tale.start(None));
        }
        self.queue.push_back(message);
    }

    /// Says that a checkpoint is due where that depends on steps.
    fn due_at(&mut self, step: u64) {
        if let Every::Steps(every) = self.every
            && step >= self.due
        {
            self.due = next_multiple(step, every);
            self.ask_for_checkpoint();
        }
    }

    fn pack(&mut self, step: u64, named: std::path::PathBuf, last: bool) {
        self.packed += 1;
        let (home, number) = (self.home.clone(), self.packed);
        // As of now: while it is packed, nothing else is heard, but its output is read.
        let metrics = self.tale.so_far();
        // Nobody waits for one any more.
        let _absent = fs::remove_file(home.due());
        self.packing = Some(tokio::task::spawn_blocking(move || {
            let packed = checkpoint::folder_below(&home.checkpoints(), &home.work(), &named)
                .and_then(|folder| checkpoint::pack(&folder, &home.folder, number, step))
                .map(|packed| packed.after(metrics));
            (step, last, packed)
        }));
    }

    fn is_packed(&mut self, step: u64, last: bool, packed: Result<Packed, CheckpointError>) {
        match packed {
            Ok(Packed { files, digest }) => {
                self.digest = Some(digest);
                self.say_to_agent(FromTrainer::Checkpoint {
                    epoch: self.epoch,
                    files,
                    last,
                    held_up_s: None,
                });
            }
            Err(error) => self.tale.warn(format!("the checkpoint of step {step} is left out: {error}")),
        }
    }

    fn fail(&mut self, kind: FailureKind, message: String) {
        if self.failed.is_none() {
            self.failed = Some(Failure { kind, message });
        }
        self.kill();
    }

    fn kill_by(&mut self, at: Instant) {
        self.kill_at = Some(self.kill_at.map_or(at, |known| known.min(at)));
    }

    fn kill(&mut self) {
        self.killed |= self.exited.is_none();
        if let Some(group) = self.group {
            // An error means that nobody is left in the group.
            let _gone = killpg(group, Signal::SIGKILL);
        }
    }

    /// The time is up.
    fn late(&mut self) {
        self.kill_at = None;
        if self.told.is_none() && !self.stopping {
            let limit = self.limits.time_s.unwrap_or_default();
            self.fail(FailureKind::Config, format!("it ran for longer than limits.time_s allows, {limit} s"));
        }
        self.kill();
    }

    fn tell_warnings(&mut self) {
        for warning in self.tale.take_warnings() {
            let warning = crate::trainer::failure_text(&warning);
            tracing::warn!(folder = %self.home.folder.display(), warning, "a program");
            self.output.note(&format!("warning: {warning}"));
        }
    }

    fn ask_for_checkpoint(&mut self) {
        let path = self.home.due();
        if let Err(error) = fs::write(&path, b"") {
            tracing::debug!(path = %path.display(), %error, "a program is not told that a checkpoint is due");
        }
        self.write(r#"{"type":"checkpoint"}"#);
    }

    /// Writes a line for the program, which need not read: once the pipe is full it gets no more.
    fn write(&self, line: &str) {
        if let Err(error) = self.to_program.try_write(format!("{line}\n").as_bytes()) {
            tracing::debug!(folder = %self.home.folder.display(), %error, "a program does not read what it is told");
        }
    }
}

fn spawn(home: &Home) -> Result<(Child, OwnedFd), Failure> {
    let failed = |error: &io::Error| {
        let executable = home.executable();
        let shown = executable.display();
        // One that the sweep's own code should hold is missing everywhere; others may be there on another machine.
        let own = executable.starts_with(&home.folder);
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied if own => FailureKind::Config,
            io::ErrorKind::OutOfMemory => FailureKind::OutOfMemory,
            _ => FailureKind::Crashed,
        };
        Failure { kind, message: format!("the program {shown} cannot be started: {error}") }
    };
    let (reader, writer) = io::pipe().map_err(|error| failed(&error))?;
    let second = writer.try_clone().map_err(|error| failed(&error))?;
    let mut command = Command::new(home.executable());
    command
        .args(home.arguments.get(1..).unwrap_or_default())
        .current_dir(home.work())
        .envs(home.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(second)
        .process_group(0)
        .kill_on_drop(true);
    let child = kin::spawn(&mut command).map_err(|error| failed(&error))?;
    Ok((child, reader.into()))
}

impl Carrier for Program {
    async fn say(&mut self, message: &ToTrainer) -> io::Result<()> {
        match message {
            ToTrainer::Stop { epoch: _, checkpoint } => {
                if !std::mem::replace(&mut self.stopping, true) {
                    let grace =
                        Duration::try_from_secs_f64(self.limits.grace_s).unwrap_or(LONGEST).min(LONGEST);
                    self.kill_by(Instant::now() + grace);
                    fs::write(self.home.stop(), b"")?;
                    self.write(if *checkpoint {
                        r#"{"type":"stop","checkpoint":true}"#
                    } else {
                        r#"{"type":"stop","checkpoint":false}"#
                    });
                    if let Some(group) = self.group.filter(|_| self.exited.is_none()) {
                        let _gone = killpg(group, Signal::SIGTERM);
                    }
                }
            }
            ToTrainer::Checkpoint { .. } => self.ask_for_checkpoint(),
            // Started with its job; and in no gang.
            ToTrainer::Run(_)
            | ToTrainer::Exit
            | ToTrainer::Gang { .. }
            | ToTrainer::StoreReply { .. }
            | ToTrainer::Data { .. } => {}
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<FromTrainer>, PipeError> {
        loop {
            self.tell_warnings();
            if let Some(message) = self.queue.pop_front() {
                return Ok(Some(message));
            }
            if self.over {
                return Ok(None);
            }
            if let Some(packing) = &mut self.packing {
                let packed = packing.await;
                self.packing = None;
                match packed {
                    Ok((step, last, packed)) => self.is_packed(step, last, packed),
                    Err(error) => self.tale.warn(format!("a checkpoint is left out: {error}")),
                }
                continue;
            }
            if let Some(looking) = self.looking.as_mut().filter(|_| self.exited.is_some()) {
                let looked = looking.await;
                self.looking = None;
                looked.into_iter().for_each(|looked| self.looked(looked));
                continue;
            }
            if let Some(status) = self.exited {
                self.wind_up(status).await;
                continue;
            }
            let look = self.next_look;
            let kill_at = self.kill_at;
            // Whoever writes without end must not keep the others waiting: no order among these.
            tokio::select! {
                piece = self.from_program.next() => match piece {
                    Ok(piece) => self.heard(piece),
                    Err(error) => return Err(PipeError::Read(error)),
                },
                Some(found) = self.output.next() => self.found(found),
                status = self.child.wait() => {
                    let status = status.map_err(PipeError::Read)?;
                    self.exited = Some(status);
                }
                passed = self.watch.passed() => self.fail(passed.kind, passed.message),
                Some(looked) = done(&mut self.looking) => {
                    self.looking = None;
                    looked.into_iter().for_each(|looked| self.looked(looked));
                }
                () = sleep_until(kill_at.unwrap_or(look)), if kill_at.is_some() => self.late(),
                () = sleep_until(look) => self.look(),
            }
        }
    }

    async fn end(mut self, at_once: bool) -> Death {
        if at_once || self.exited.is_none() {
            self.kill();
        }
        let status = match self.exited {
            Some(status) => Some(status),
            None => self.child.wait().await.ok(),
        };
        kin::forget(self.group);
        self.family.end().await;
        self.output.end().await;
        let by_itself = !self.killed;
        let words = self.output.last_lines();
        Death::new("the program", status, by_itself, words, self.memory.killed())
    }
}

fn next_multiple(step: u64, every: u64) -> u64 {
    (step / every.max(1) + 1).saturating_mul(every.max(1))
}

/// The outcome of a task, if there is one.
async fn done<T>(task: &mut Option<JoinHandle<T>>) -> Option<Result<T, tokio::task::JoinError>> {
    match task {
        Some(task) => Some(task.await),
        None => std::future::pending().await,
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
            self.family.kill_left();
        }
        kin::forget(self.group);
    }
}
