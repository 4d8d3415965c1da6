//! Programs of users as trainers: an attempt of a sweep with a `program` is carried out by starting it. Checkpoints go to
//! the store, reports to the coordinator and orders to the program by the same way as with the agent's own trainer
//! ([`Course`]); here is only what differs: a process a job, its folder, its pipes, its output, and its end.
//!
//! It must not decide who runs what, and knows of the sweep only what the coordinator says.

mod checkpoint;
mod code;
mod guard;
mod home;
pub(crate) mod kin;
mod limits;
mod lines;
mod output;
mod pattern;
mod process;
pub(crate) mod rank;
mod tale;
mod tensorboard;

pub use guard::{GUARD_ARGUMENT, guard_programs};
pub(crate) use guard::{Guard, kill_below};
pub use kin::become_reaper;

use crate::{
    attempt::{Attempt, Failure},
    checkpoints::CheckpointStore,
    gang::{GangNews, GangPlace},
    interval::Interval,
    scratch::Scratch,
    trainer::{Carrier as _, Course, End, Gang, ProcessSettings, RunnerCommand, TrainerEvent},
};
use home::Home;
use process::Program;
use rank::Rank;
use spotsweep_proto::{
    line::CheckpointFiles,
    program::ProgramSection,
    spec::{CheckpointPolicy, Every},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// What a program takes longer than its grace to end: being killed, and packing its last checkpoint.
const END_LIMIT: Duration = Duration::from_secs(60);
/// A program may be silent for its whole life.
const SILENCE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// One attempt that is ready to be carried out.
pub(crate) struct Job<'a> {
    pub(crate) attempt: &'a Attempt,
    pub(crate) section: &'a ProgramSection,
    /// An empty folder.
    pub(crate) folder: &'a Path,
    pub(crate) scratch: &'a Scratch,
    pub(crate) store: Arc<CheckpointStore>,
    /// The checkpoint to resume from.
    pub(crate) resume: Option<CheckpointFiles>,
    pub(crate) settings: &'a ProcessSettings,
}

impl Job<'_> {
    /// Makes everything ready that needs other machines.
    pub(crate) async fn prepare(&self) -> Result<(), Failure> {
        match self.section.code {
            Some(code) => code::unpack(&self.store, code, self.scratch, self.folder.join("work")).await,
            None => Ok(()),
        }
    }

    /// Starts the program.
    fn start(&self, rank: Option<&Rank>) -> Result<Program, Failure> {
        let mut home = Home::make(self.folder, self.attempt, self.section, self.resume.as_ref(), rank)?;
        home.put_python(self.scratch.path(), self.section)?;
        let so_far = self.resume.as_ref().and_then(|files| files.so_far.as_ref());
        Program::start(home, self.attempt, self.section, so_far, rank)
    }

    /// Carries it out to its end, as one of several where it has a rank. `Err`: it could not be started.
    pub(crate) async fn run(
        self,
        rank: Option<(Rank, GangPlace)>,
        commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
        events: &mpsc::Sender<TrainerEvent>,
    ) -> Result<End, Failure> {
        let program = self.start(rank.as_ref().map(|(rank, _)| rank))?;
        let (attempt, lease) = (self.attempt, self.attempt.lease);
        tracing::info!(trial = %attempt.trial(), epoch = %lease.epoch, attempt = attempt.number, step = attempt.first_step(), device = %attempt.device, "a program begins");
        let policy = asked_of_program(attempt.sweep.checkpoint);
        let interval = Interval::new(policy, attempt.interruption_mean_s, Instant::now());
        let grace = Duration::try_from_secs_f64(self.section.limits.grace_s).unwrap_or(SILENCE);
        let trial = attempt.trial();
        let course =
            Course::new(lease, attempt.first_step(), self.folder, self.store, trial, None, self.settings)
                .patient(grace.min(SILENCE) + END_LIMIT, SILENCE)
                .checkpointed_at(interval);
        let course = match rank {
            Some((rank, place)) => {
                let news = GangNews::formed(place.generation, attempt.first_step());
                // An error means that the agent lets go, which the course hears as well.
                let _sent = events.send(TrainerEvent::Gang(lease, news)).await;
                let timeout = self.settings.gang.timeout;
                course.with_gang_of_programs(Gang::new(place, rank.address, timeout))
            }
            None => course,
        };
        let (end, program) = course.run(program, commands, events).await;
        if let Some(program) = program {
            program.end(true).await;
        }
        Ok(end)
    }
}

/// When the agent asks a program for checkpoints. One that knows no policy is asked for each; those that depend on steps
/// follow from its reports.
fn asked_of_program(policy: CheckpointPolicy) -> CheckpointPolicy {
    match policy.every {
        Every::Seconds(every_s) => {
            CheckpointPolicy { every: Every::Auto { min_s: every_s, max_s: every_s }, ..policy }
        }
        Every::Steps(_) | Every::Auto { .. } => policy,
    }
}
