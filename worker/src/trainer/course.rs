//! The course of one job, from `run` to its end: listens to the trainer, has checkpoints stored, obeys the agent,
//! and notices a trainer that hangs, dies or babbles.

mod ending;
mod ganged;

use super::{
    HowToStop, TrainerEvent,
    carrier::Carrier,
    process::{ProcessSettings, RunnerCommand},
    rank::Gang,
    supply::Supply,
    uploads::{NotStored, Uploads},
    watch::{Said, Watch},
};
use crate::{
    attempt::{CheckpointRef, Failure, LeaseKey, ReportBody},
    checkpoints::CheckpointStore,
    data::cache::CacheError,
    interval::Interval,
};
use spotsweep_proto::{
    ids::TrialId,
    line::{FailureKind, FromTrainer, ToTrainer},
};
use std::{ops::Range, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// How a job ended: with a final report, or with none because nothing shall be said.
pub(crate) type Ending = Option<ReportBody>;

/// How a job ended, and what is left of its trainer.
#[derive(Debug)]
pub(crate) enum End {
    /// The trainer is idle.
    Healthy(Ending),
    /// The trainer is gone.
    Broken {
        /// How the job ended.
        ending: Ending,
        /// Whether the job was in the trainer's memory: then starting another trainer makes sense at once.
        started: bool,
    },
    /// The agent let go.
    Closed,
}

/// Something that happened.
enum Event {
    Said(FromTrainer),
    /// The trainer closed its output.
    Exited,
    /// It broke the protocol.
    Babbled(String),
    Stored(Result<CheckpointRef, NotStored>),
    Told(Option<RunnerCommand>),
    /// The pieces of these shards lie here, or cannot be had.
    Supplied(Result<Range<u32>, CacheError>),
    /// It said nothing for too long, or does not stop.
    Late,
    /// A checkpoint is worth its cost.
    Due,
}

/// The end of a job that still has checkpoints to store.
struct Closing {
    ending: Ending,
    healthy: bool,
}

pub(crate) struct Course {
    lease: LeaseKey,
    watch: Watch,
    uploads: Uploads,
    /// When to ask for checkpoints; none where the trainer knows by itself.
    interval: Option<Interval>,
    data_hint: Option<String>,
    grace: Duration,
    silence: Duration,
    /// The gang of which the trainer is a rank.
    gang: Option<Gang>,
    /// That is one of programs, which has this name: what the first rank has done counts once the others are done.
    name: Option<String>,
    /// Fetches added data for the rank.
    supply: Option<Supply>,
    /// The rank's data cannot be had: for that the job ends.
    unsupplied: Option<Failure>,
    /// Steps at the end, where known.
    total_steps: Option<u64>,
    /// When the job was in the trainer's memory.
    started: Option<Instant>,
    heard: Instant,
    stop: Option<(HowToStop, Instant)>,
    /// The final weights could not be stored.
    lost: Option<NotStored>,
    closing: Option<Closing>,
}

impl Course {
    pub(crate) fn new(
        lease: LeaseKey,
        first_step: u64,
        folder: &Path,
        store: Arc<CheckpointStore>,
        trial: TrialId,
        data_hint: Option<String>,
        settings: &ProcessSettings,
    ) -> Self {
        Self {
            lease,
            watch: Watch::new(lease.epoch, first_step, folder),
            uploads: Uploads::new(store, trial),
            interval: None,
            data_hint,
            grace: settings.grace,
            silence: settings.silence,
            gang: None,
            name: None,
            supply: None,
            unsupplied: None,
            total_steps: None,
            started: None,
            heard: Instant::now(),
            stop: None,
            lost: None,
            closing: None,
        }
    }

    /// Asks the trainer for checkpoints at this interval.
    pub(crate) fn checkpointed_at(self, interval: Option<Interval>) -> Self {
        Self { interval, ..self }
    }

    /// It has `grace` to stop, and may say nothing for `silence`.
    pub(crate) fn patient(self, grace: Duration, silence: Duration) -> Self {
        Self { grace, silence, ..self }
    }

    /// Follows the job to its end; gives the trainer back if it lives.
    pub(crate) async fn run<C: Carrier>(
        mut self,
        process: C,
        commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
        events: &mpsc::Sender<TrainerEvent>,
    ) -> (End, Option<C>) {
        let mut process = Some(process);
        loop {
            let is_done = |closing: &mut Closing| matches!(closing.ending, Some(ReportBody::Finished { .. }));
            let awaits = self.awaits_others();
            if !self.uploads.pending()
                && let Some(closing) = self.closing.take_if(|closing| !(awaits && is_done(closing)))
            {
                return (self.close(closing), process);
            }
            let event = self.next(process.as_mut(), commands).await;
            let told = match event {
                Event::Said(message) => {
                    self.heard = Instant::now();
                    match self.watch.hear(message) {
                        Ok(said) => self.said(said),
                        Err(breach) => {
                            self.babbled(process.take(), &breach.to_string()).await;
                            None
                        }
                    }
                }
                Event::Babbled(what) => {
                    self.babbled(process.take(), &what).await;
                    None
                }
                Event::Exited => {
                    if let Some(process) = process.take() {
                        let death = process.end(false).await;
                        let ending = self.death(&death, "");
                        self.closing = Some(Closing { ending, healthy: false });
                    }
                    None
                }
                Event::Stored(outcome) => {
                    self.stored(outcome).map(|body| TrainerEvent::Report(self.lease, body))
                }
                Event::Late => {
                    if self.closing.is_some() {
                        self.out_of_time();
                    } else {
                        self.late(process.take()).await;
                    }
                    None
                }
                Event::Due => {
                    self.ask(process.as_mut()).await;
                    None
                }
                Event::Supplied(outcome) => {
                    self.supplied(process.as_mut(), outcome).await;
                    None
                }
                Event::Told(None) => return (End::Closed, process),
                Event::Told(Some(RunnerCommand::Stop(lease, how))) if lease == self.lease => {
                    self.told_to_stop(process.as_mut(), how).await;
                    None
                }
                Event::Told(Some(RunnerCommand::Regang(lease, place))) if lease == self.lease => {
                    self.regang(process.as_mut(), place).await;
                    None
                }
                Event::Told(Some(RunnerCommand::Answer(lease, id, value))) if lease == self.lease => {
                    self.answer(process.as_mut(), id, value).await;
                    None
                }
                // Of an attempt before this one. A start cannot come: one attempt at a time.
                Event::Told(Some(
                    RunnerCommand::Stop(..)
                    | RunnerCommand::Regang(..)
                    | RunnerCommand::Answer(..)
                    | RunnerCommand::Start(_),
                )) => None,
            };
            if let Some(event) = told {
                if events.send(event).await.is_err() {
                    return (End::Closed, process);
                }
                // The agent may have kept this waiting, during which nobody listened to the trainer.
                self.heard = Instant::now();
            }
        }
    }

    async fn next<C: Carrier>(
        &mut self,
        process: Option<&mut C>,
        commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
    ) -> Event {
        let listening = self.closing.is_none();
        let hurried = matches!(self.stop, Some((HowToStop::CheckpointBy(_), _)));
        let deadline = self.stop.map_or(self.heard + self.silence, |(_, deadline)| deadline);
        // No faster than the store takes them.
        let keeps = self.gang.as_ref().is_none_or(Gang::keeps_checkpoints);
        let asking =
            listening && keeps && self.started.is_some() && self.stop.is_none() && !self.uploads.pending();
        let due = self.interval.as_ref().filter(|_| asking).and_then(Interval::due);
        let timed = listening && (self.stop.is_some() || !self.may_be_silent());
        let said = async {
            match process {
                Some(process) if listening => process.next().await,
                _ => std::future::pending().await,
            }
        };
        let supply = self.supply.as_mut().filter(|_| listening);
        let supplied = async {
            match supply {
                Some(supply) => supply.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            said = said => match said {
                Ok(Some(message)) => Event::Said(message),
                Ok(None) => Event::Exited,
                Err(error) => Event::Babbled(error.to_string()),
            },
            command = commands.recv() => Event::Told(command),
            supplied = supplied => Event::Supplied(supplied),
            outcome = self.uploads.next() => Event::Stored(outcome),
            () = sleep_until(deadline), if timed || hurried => Event::Late,
            () = sleep_until(due.unwrap_or(deadline)), if due.is_some() => Event::Due,
        }
    }

    fn may_be_silent(&self) -> bool {
        let waits = self.supply.as_ref().is_some_and(Supply::is_fetching);
        waits
            || self.gang.as_ref().is_some_and(|gang| gang.may_be_silent(self.watch.step(), self.total_steps))
    }

    /// The trainer said something that keeps to the protocol; gives what the agent is to hear now.
    fn said(&mut self, said: Said) -> Option<TrainerEvent> {
        let report = |body| Some(TrainerEvent::Report(self.lease, body));
        match said {
            Said::Gang(news) => return Some(TrainerEvent::Gang(self.lease, self.news(news))),
            Said::Ask(question) => return Some(TrainerEvent::Ask(self.lease, question)),
            Said::Started { step, total_steps } => {
                self.total_steps = total_steps;
                // Said again where a program tells later how many steps there are.
                if self.started.is_none() {
                    self.started = Some(self.heard);
                    self.interval.iter_mut().for_each(|interval| interval.start(self.heard));
                }
                return report(ReportBody::Started { step, total_steps });
            }
            Said::Progress(progress) => return report(ReportBody::Progress(progress)),
            Said::Checkpoint { files, last, held_up } => {
                self.interval.iter_mut().for_each(|interval| interval.write(self.heard, held_up));
                self.uploads.add(files, last);
            }
            Said::Done { step, metrics, weights_digest } => {
                let seconds = self.seconds();
                let done = ReportBody::Finished { step, metrics, weights_digest, seconds };
                let ending = match self.stop {
                    // Without the others, which were stopped too, it may have done anything.
                    Some((how, _)) if self.awaits_others() => self.released(how),
                    Some(_) | None => Some(done),
                };
                self.closing = Some(Closing { ending, healthy: true });
            }
            Said::Stopped { step } => {
                let ending = match self.stop {
                    Some((HowToStop::Checkpoint | HowToStop::CheckpointBy(_), _)) => {
                        Some(ReportBody::Released { step, seconds: self.seconds() })
                    }
                    Some((HowToStop::Discard, _)) => None,
                    None if self.gang.as_ref().is_some_and(Gang::leaves) => {
                        Some(ReportBody::Released { step, seconds: self.seconds() })
                    }
                    None => {
                        Some(self.failure(FailureKind::Protocol, "the trainer stopped without being told to"))
                    }
                };
                self.closing = Some(Closing { ending, healthy: true });
            }
            Said::Failed { step: _, kind, message } => {
                let message = match (&self.data_hint, kind) {
                    (Some(hint), FailureKind::Data) => format!("{message}; {hint}"),
                    _ => message,
                };
                let ending = Some(self.failure(kind, &message));
                self.closing = Some(Closing { ending, healthy: true });
            }
        }
        None
    }

    /// Asks for a checkpoint behind the current step.
    async fn ask<C: Carrier>(&mut self, process: Option<&mut C>) {
        self.interval.iter_mut().for_each(|interval| interval.ask(Instant::now()));
        self.tell(process, &ToTrainer::Checkpoint { epoch: self.lease.epoch }).await;
    }

    async fn tell<C: Carrier>(&self, process: Option<&mut C>, message: &ToTrainer) {
        // One that has ended its job is idle, and is told nothing of it.
        if self.closing.is_none()
            && let Some(process) = process
            && let Err(error) = process.say(message).await
        {
            // It is dead or stuck: the end of its output or the deadline tells.
            tracing::debug!(lease = %self.lease, %error, "the trainer does not listen");
        }
    }

    fn stored(&mut self, outcome: Result<CheckpointRef, NotStored>) -> Option<ReportBody> {
        match outcome {
            Ok(checkpoint) => {
                self.interval.iter_mut().for_each(|interval| interval.store(self.uploads.took()));
                Some(ReportBody::Checkpoint(checkpoint))
            }
            Err(lost) => {
                tracing::error!(lease = %self.lease, message = %lost.message, last = lost.last, "a checkpoint is lost");
                if lost.last {
                    self.lost = Some(lost);
                }
                None
            }
        }
    }

    async fn told_to_stop<C: Carrier>(&mut self, process: Option<&mut C>, how: HowToStop) {
        let before = self.stop;
        let (checkpoint, deadline) = match how {
            HowToStop::Checkpoint => (true, Instant::now() + self.grace),
            HowToStop::CheckpointBy(by) => {
                self.uploads.hurry(by);
                (true, before.map_or(by, |(_, deadline)| deadline.min(by)))
            }
            HowToStop::Discard => {
                self.uploads.abandon();
                (false, Instant::now() + self.grace)
            }
        };
        let released = self.awaits_others().then(|| self.released(how));
        if let Some(closing) = &mut self.closing {
            match how {
                HowToStop::Discard => closing.ending = None,
                HowToStop::CheckpointBy(_) => self.stop = Some((how, deadline)),
                HowToStop::Checkpoint => {}
            }
            if let Some(released) = released
                && matches!(closing.ending, Some(ReportBody::Finished { .. }))
            {
                closing.ending = released;
            }
            return;
        }
        self.stop = Some((how, deadline));
        if checkpoint && before.is_some() {
            // The trainer knows already; only the time is shorter.
            return;
        }
        self.tell(process, &ToTrainer::Stop { epoch: self.lease.epoch, checkpoint }).await;
    }
}
