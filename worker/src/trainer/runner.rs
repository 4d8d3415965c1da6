//! The life of one device's trainer process: started, given one job after the other, started again when it is
//! gone. What happens during a job is [`super::course`]'s.

mod preparing;
mod programs;
mod unbegun;

use super::{
    FoundDevice, TrainerError, TrainerEvent,
    ahead::Ahead,
    carrier::Carrier as _,
    child::Process,
    course::{Course, End},
    process::{GangSettings, ProcessSettings, RunnerCommand},
    rank::Gang,
    stderr::failure_text,
};
use crate::{
    attempt::{Attempt, Failure, LeaseKey, ReportBody, TrialRef},
    backoff::Backoff,
    checkpoints::CheckpointStore,
    gang::{GangNews, GangPlace},
    interval::Interval,
    program::Guard,
    scratch::Scratch,
};
use preparing::{Prepared, opened, prepare};
use spotsweep_proto::{
    catalogue::OwnCatalogue,
    ids::DeviceName,
    limits::DEVICES_PER_WORKER,
    line::{FailureKind, FromTrainer, PROTOCOL_VERSION, ToTrainer},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use unbegun::{stopped, stopped_before_ranked, unbegun};

/// A trainer must be ready this soon: loading libtorch and CUDA from a cold disk takes tens of seconds.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Wait before a trainer is started again; grows while it keeps failing.
const RESTART_BASE: Duration = Duration::from_millis(50);
/// Longest wait before a trainer is started again.
const RESTART_LIMIT: Duration = Duration::from_secs(30);

/// What a trainer says when it is ready.
pub(crate) struct ReadyTrainer {
    pub(crate) trainer: String,
    pub(crate) libtorch: String,
    pub(crate) devices: Vec<FoundDevice>,
    pub(crate) catalogue: OwnCatalogue,
}

/// Starts a trainer and waits until it is ready.
pub(crate) async fn start(
    program: &Path,
    settings: &ProcessSettings,
) -> Result<(Process, ReadyTrainer), TrainerError> {
    let name = program.display().to_string();
    let not_ready = |reason: String| TrainerError::NotReady { program: name.clone(), reason };
    let mut process = Process::start(program, &settings.environment).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => TrainerError::Missing {
            path: name.clone(),
            hint: "build it with `make build`, or name another one with --trainer".to_owned(),
        },
        _ => not_ready(error.to_string()),
    })?;
    match timeout(READY_LIMIT, process.next()).await {
        Ok(Ok(Some(FromTrainer::Ready { protocol, trainer, libtorch, devices, catalogue }))) => {
            if protocol != PROTOCOL_VERSION {
                return Err(not_ready(format!(
                    "it speaks version {protocol} of the line protocol, this agent {PROTOCOL_VERSION}"
                )));
            }
            let catalogue = catalogue.map(|told| OwnCatalogue::read(told.to_string().as_bytes())).transpose();
            let catalogue = catalogue.map_err(|error| not_ready(error.to_string()))?.unwrap_or_default();
            let found = |device: spotsweep_proto::line::TrainerDevice| FoundDevice {
                name: device.name,
                model: device.model,
                memory_bytes: device.memory_bytes,
            };
            let devices = devices.into_iter().take(DEVICES_PER_WORKER).map(found).collect();
            Ok((process, ReadyTrainer { trainer, libtorch, devices, catalogue }))
        }
        Ok(Ok(Some(_))) => Err(not_ready("its first line is not `ready`".to_owned())),
        Ok(Ok(None)) => Err(not_ready(process.end(false).await.text(""))),
        Ok(Err(error)) => Err(not_ready(process.end(true).await.text(&error.to_string()))),
        Err(_) => {
            let late = format!("it said nothing within {} s", READY_LIMIT.as_secs());
            Err(not_ready(process.end(true).await.text(&late)))
        }
    }
}

pub(crate) struct Runner {
    settings: Arc<ProcessSettings>,
    /// `None` never once the devices are found.
    scratch: Option<Arc<Scratch>>,
    ahead: Arc<Ahead>,
    device: DeviceName,
    process: Option<Process>,
    commands: mpsc::UnboundedReceiver<RunnerCommand>,
    events: mpsc::Sender<TrainerEvent>,
    restarts: Backoff,
    store: Option<(Arc<str>, Arc<CheckpointStore>)>,
    data_store: Option<(Arc<str>, Arc<CheckpointStore>)>,
    jobs: u64,
    /// Over programs of users, once there was one.
    guard: Option<Guard>,
    /// The trial for which a port was found taken last, and how often.
    collisions: Option<(TrialRef, u32)>,
}

impl Runner {
    pub(crate) fn new(
        settings: Arc<ProcessSettings>,
        scratch: Option<Arc<Scratch>>,
        ahead: Arc<Ahead>,
        device: DeviceName,
        process: Option<Process>,
        commands: mpsc::UnboundedReceiver<RunnerCommand>,
        events: mpsc::Sender<TrainerEvent>,
    ) -> Self {
        let restarts = Backoff::new(RESTART_BASE, RESTART_LIMIT);
        Self {
            settings,
            scratch,
            ahead,
            device,
            process,
            commands,
            events,
            restarts,
            store: None,
            data_store: None,
            jobs: 0,
            guard: None,
            collisions: None,
        }
    }

    /// Runs until the agent lets go of it.
    pub(crate) async fn run(mut self) {
        if self.process.is_none() && self.settings.program.is_some() {
            self.tell(TrainerEvent::Available(false)).await;
        }
        while let Some(attempt) = self.idle().await {
            let (lease, first_step) = (attempt.lease, attempt.first_step());
            let folder = self.job_folder();
            let program = attempt.sweep.program.is_some();
            let end = match &folder {
                Ok(folder) if program => self.carry_out_program(&attempt, folder).await,
                Ok(folder) => self.carry_out(*attempt, folder).await,
                Err(error) => End::Healthy(failed(first_step, FailureKind::Storage, &error.to_string())),
            };
            if let Ok(folder) = folder {
                // Not waited for: the next job has a folder of its own. One that stays is removed with the agent's own.
                drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)));
            }
            let ending = match end {
                // Programs say nothing of the trainer.
                End::Healthy(ending) | End::Broken { ending, started: _ } if program => ending,
                End::Healthy(ending) => {
                    self.restarts.reset();
                    ending
                }
                End::Broken { ending, started } => {
                    if started {
                        self.restarts.reset();
                    }
                    // The session must know before it hears of the end, so that it starts nothing here.
                    self.tell(TrainerEvent::Available(false)).await;
                    ending
                }
                End::Closed => break,
            };
            self.tell(match ending {
                Some(body) => TrainerEvent::Report(lease, body),
                None => TrainerEvent::Dropped(lease),
            })
            .await;
        }
        if let Some(process) = self.process.take() {
            process.end(true).await;
        }
    }

    async fn tell(&self, event: TrainerEvent) {
        // An error means that the agent has let go, which the next command tells as well.
        let _sent = self.events.send(event).await;
    }

    fn job_folder(&mut self) -> std::io::Result<PathBuf> {
        self.jobs += 1;
        let scratch = self.scratch.as_ref().ok_or_else(|| std::io::Error::other("no scratch folder"))?;
        let folder = scratch.path().join(format!("{}-{}", self.device, self.jobs));
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Waits for the next attempt and keeps a trainer ready; `None` when the agent lets go.
    async fn idle(&mut self) -> Option<Box<Attempt>> {
        loop {
            let Self { process, commands, restarts, settings, device, .. } = self;
            let command = if let Some(idle) = process {
                tokio::select! {
                    command = commands.recv() => command,
                    said = idle.next() => {
                        let what = match said {
                            Ok(Some(_)) => "it spoke without having a job".to_owned(),
                            Ok(None) => String::new(),
                            Err(error) => error.to_string(),
                        };
                        if let Some(process) = self.process.take() {
                            let death = process.end(!what.is_empty()).await;
                            tracing::warn!(device = %self.device, reason = %death.text(&what), "the idle trainer is gone");
                        }
                        self.tell(TrainerEvent::Available(false)).await;
                        continue;
                    }
                }
            } else if settings.program.is_none() {
                commands.recv().await
            } else {
                let wait = restarts.next();
                tokio::select! {
                    command = commands.recv() => command,
                    started = async { sleep(wait).await; start_for(settings, device).await } => {
                        match started {
                            Ok(started) => {
                                self.process = Some(started);
                                self.tell(TrainerEvent::Available(true)).await;
                            }
                            Err(error) => {
                                let failures = self.restarts.failures();
                                tracing::error!(device = %self.device, %error, failures, "the trainer does not start");
                            }
                        }
                        continue;
                    }
                }
            };
            match command? {
                RunnerCommand::Start(attempt) => return Some(attempt),
                // It ended before the command came.
                RunnerCommand::Stop(..) | RunnerCommand::Regang(..) | RunnerCommand::Answer(..) => {}
            }
        }
    }

    async fn carry_out(&mut self, attempt: Attempt, folder: &Path) -> End {
        let (lease, first_step) = (attempt.lease, attempt.first_step());
        if self.process.is_none() {
            // It was given just when the trainer went.
            match start_for(&self.settings, &self.device).await {
                Ok(process) => {
                    self.process = Some(process);
                    self.tell(TrainerEvent::Available(true)).await;
                }
                Err(error) => {
                    let ending = failed(first_step, FailureKind::Crashed, &error.to_string());
                    return End::Broken { ending, started: false };
                }
            }
        }
        let store = opened(&mut self.store, &attempt.store_url);
        let data_store = opened(&mut self.data_store, &attempt.data_url);
        let mut place = attempt.gang.clone();
        let prepared = tokio::select! {
            prepared = prepare(&attempt, store, data_store, self.scratch.as_deref(), &self.ahead, &self.settings, folder) => prepared,
            how = stopped(&mut self.commands, lease, &mut place) => return unbegun(how, first_step),
        };
        let Prepared { mut job, store, data_hint, view, supply } = match prepared {
            Ok(prepared) => prepared,
            Err(Failure { kind, message }) => {
                return End::Healthy(failed(first_step, kind, &message));
            }
        };
        if let Some(end) = self.wait_for_rank(lease, first_step, &mut place).await {
            return end;
        }
        let Some(mut process) = self.process.take() else { return End::Closed };
        let gang = self.gang(place.as_ref()).await;
        job.gang = gang.as_ref().map(Gang::roster);
        let trial = attempt.trial();
        tracing::info!(%trial, epoch = %lease.epoch, attempt = attempt.number, step = first_step, device = %self.device, "a job begins");
        process.log_to(attempt.log.clone());
        let said = process.say(&ToTrainer::Run(job)).await;
        let interval =
            Interval::new(attempt.sweep.checkpoint, attempt.interruption_mean_s, tokio::time::Instant::now());
        let course = Course::new(lease, first_step, folder, store, trial, data_hint, &self.settings)
            .checkpointed_at(interval)
            .in_gang(gang, supply);
        if let Err(error) = said {
            let death = process.end(false).await;
            return course.died(death, &format!("the trainer does not take jobs: {error}"));
        }
        let (end, process) = course.run(process, &mut self.commands, &self.events).await;
        self.process = process;
        if let (Some(view), End::Healthy(Some(ReportBody::Failed { kind: FailureKind::Data, .. }))) =
            (&view, &end)
        {
            view.distrust();
        }
        end
    }

    /// Where the attempt is to get a rank, says that all is ready for it, and waits; `Some`: it ends before it has begun.
    async fn wait_for_rank(
        &mut self,
        lease: LeaseKey,
        first_step: u64,
        place: &mut Option<GangPlace>,
    ) -> Option<End> {
        if place.as_ref().is_none_or(|place| place.rank.is_some()) {
            return None;
        }
        self.tell(TrainerEvent::Gang(lease, GangNews::ready(first_step))).await;
        let stopped = stopped_before_ranked(&mut self.commands, lease, place).await;
        stopped.map(|how| unbegun(how, first_step))
    }

    /// How the job's rank tells of make-ups, the first of which is `place`.
    async fn gang(&self, place: Option<&GangPlace>) -> Option<Gang> {
        let place = place?.clone();
        let GangSettings { address, timeout } = &self.settings.gang;
        Some(Gang::new(place, address.find().await, *timeout))
    }
}

/// Starts a trainer that has the device.
async fn start_for(settings: &ProcessSettings, device: &DeviceName) -> Result<Process, TrainerError> {
    let Some(program) = &settings.program else { return Err(TrainerError::None) };
    let (process, ready) = start(program, settings).await?;
    if ready.devices.iter().any(|found| found.name == *device) {
        return Ok(process);
    }
    let names: Vec<&str> = ready.devices.iter().map(|found| found.name.as_str()).collect();
    Err(TrainerError::NoDevice { wanted: device.to_string(), found: names.join(", ") })
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that `End` wants")]
fn failed(step: u64, kind: FailureKind, message: &str) -> Option<ReportBody> {
    Some(ReportBody::Failed { step, kind, message: failure_text(message), seconds: 0.0 })
}
