//! The life of one device's trainer process: started, given one job after the other, started again when it is
//! gone. What happens during a job is [`super::course`]'s.

use super::{
    FoundDevice, HowToStop, TrainerError, TrainerEvent,
    ahead::Ahead,
    carrier::Carrier as _,
    child::Process,
    course::{Course, End},
    process::{GangSettings, ProcessSettings, RunnerCommand},
    rank::Gang,
    retries::{GivenUp, with_retries},
    stderr::failure_text,
    supply::Supply,
};
use crate::{
    attempt::{Attempt, CheckpointRef, Failure, LeaseKey, ReportBody, TrialRef},
    backoff::Backoff,
    checkpoints::{CheckpointStore, StoreError},
    data::{
        Data,
        cache::{CacheError, Shards, View},
    },
    errors::describe,
    gang::{GangNews, GangPlace},
    interval::{self, Interval},
    module,
    program::{
        self, Guard,
        rank::{self, Meeting},
    },
    scratch::Scratch,
};
use spotsweep_proto::{
    catalogue::OwnCatalogue,
    digest::Digest,
    ids::{DeviceName, TrialId},
    limits::DEVICES_PER_WORKER,
    line::{CheckpointFiles, FailureKind, FromTrainer, Job, PROTOCOL_VERSION, ToTrainer},
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

/// A job that can begin.
struct Prepared {
    job: Box<Job>,
    store: Arc<CheckpointStore>,
    /// What to add should the trainer miss the data.
    data_hint: Option<String>,
    /// Added data, kept on this machine as long as the job runs.
    view: Option<View>,
    /// Fetches what the job's rank needs of it.
    supply: Option<Supply>,
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

    /// Carries out an attempt by starting its program.
    async fn carry_out_program(&mut self, attempt: &Attempt, folder: &Path) -> End {
        let (lease, first_step) = (attempt.lease, attempt.first_step());
        let (Some(section), Some(scratch)) = (&attempt.sweep.program, self.scratch.clone()) else {
            return End::Closed;
        };
        if let Err(error) = self.keep_guard(&scratch) {
            let message = format!("the guard over programs does not start: {error}");
            return End::Healthy(failed(first_step, FailureKind::Crashed, &message));
        }
        let store = opened(&mut self.store, &attempt.store_url);
        let mut place = attempt.gang.clone();
        let prepared = tokio::select! {
            prepared = stored_state(attempt, store, &self.ahead, folder) => prepared,
            how = stopped(&mut self.commands, lease, &mut place) => return unbegun(how, first_step),
        };
        let (store, resume) = match prepared {
            Ok(prepared) => prepared,
            Err(Failure { kind, message }) => return End::Healthy(failed(first_step, kind, &message)),
        };
        let settings = Arc::clone(&self.settings);
        let job =
            program::Job { attempt, section, folder, scratch: &scratch, store, resume, settings: &settings };
        let cannot = |Failure { kind, message }| End::Healthy(failed(first_step, kind, &message));
        if let Err(failure) = job.prepare().await {
            return cannot(failure);
        }
        if let Some(end) = self.wait_for_rank(lease, first_step, &mut place).await {
            return end;
        }
        let rank = match place {
            Some(place) => {
                match rank::meet(lease, &place, &settings.gang, &mut self.commands, &self.events).await {
                    Ok(Meeting::Met(rank)) => Some((rank, place)),
                    Ok(Meeting::Stopped(how)) => return unbegun(how, first_step),
                    Ok(Meeting::Missed) => {
                        tracing::warn!(%lease, "nobody says where rank 0 listens: the trial goes back");
                        return End::Healthy(Some(ReportBody::Released { step: first_step, seconds: 0.0 }));
                    }
                    Err(failure) => return cannot(failure),
                }
            }
            None => None,
        };
        let listens = rank.as_ref().is_some_and(|(rank, _)| rank.is_first());
        match job.run(rank, &mut self.commands, &self.events).await {
            Ok(end) if listens => self.forgive_collision(lease, end),
            Ok(end) => end,
            Err(failure) => cannot(failure),
        }
    }

    /// That somebody took rank 0's port between its agent's look and its own start is nobody's failure, a few times.
    fn forgive_collision(&mut self, lease: LeaseKey, end: End) -> End {
        let (End::Healthy(ending) | End::Broken { ending, started: _ }) = &end else { return end };
        let Some(ReportBody::Failed { step, kind: _, message, seconds }) = ending else { return end };
        let before = self.collisions.filter(|(trial, _)| *trial == lease.trial).map_or(0, |(_, count)| count);
        if !rank::says_port_taken(message) || before >= rank::COLLISIONS {
            return end;
        }
        tracing::warn!(%lease, message, "rank 0 found its port taken: the trial goes back");
        self.collisions = Some((lease.trial, before + 1));
        End::Healthy(Some(ReportBody::Released { step: *step, seconds: *seconds }))
    }

    fn keep_guard(&mut self, scratch: &Scratch) -> std::io::Result<()> {
        if let Some(program) = &self.settings.guard
            && !self.guard.as_mut().is_some_and(Guard::watches)
        {
            self.guard = Some(Guard::start(program, scratch.path())?);
        }
        Ok(())
    }

    /// How the job's rank tells of make-ups, the first of which is `place`.
    async fn gang(&self, place: Option<&GangPlace>) -> Option<Gang> {
        let place = place?.clone();
        let GangSettings { address, timeout } = &self.settings.gang;
        Some(Gang::new(place, address.find().await, *timeout))
    }
}

/// The store at `url`; the one that was used last is kept open.
fn opened(
    kept: &mut Option<(Arc<str>, Arc<CheckpointStore>)>,
    url: &Arc<str>,
) -> Result<Arc<CheckpointStore>, StoreError> {
    if let Some((_, store)) = kept.as_ref().filter(|(known, _)| known == url) {
        return Ok(store.clone());
    }
    let store = Arc::new(CheckpointStore::open(url)?);
    *kept = Some((url.clone(), store.clone()));
    Ok(store)
}

/// Makes an added data set lie on this machine; for a rank of a gang only its manifest: which pieces it needs is known when it
/// has its shards, and then fetched by what is given besides.
async fn added(
    manifest: Digest,
    attempt: &Attempt,
    store: Result<Arc<CheckpointStore>, StoreError>,
    settings: &ProcessSettings,
) -> Result<(View, Option<Supply>), CacheError> {
    let data_url = &attempt.data_url;
    if data_url.is_empty() {
        return Err(CacheError::NoStore);
    }
    let store = store.map_err(CacheError::Store)?;
    let cache = settings.data.cache().ok_or(CacheError::NoFolder)?;
    let Some(place) = &attempt.gang else {
        return Ok((cache.acquire(&store, manifest, None).await?, None));
    };
    let none = Shards { carried: Vec::new(), of: place.shares.shards() };
    let view = cache.acquire(&store, manifest, Some(&none)).await?;
    Ok((view, Some(Supply::new(Arc::clone(cache), store, manifest))))
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

/// The end of an attempt that was stopped before its trainer had it. `how` is `None` when the agent lets go.
fn unbegun(how: Option<HowToStop>, first_step: u64) -> End {
    match how {
        Some(HowToStop::Checkpoint | HowToStop::CheckpointBy(_)) => {
            End::Healthy(Some(ReportBody::Released { step: first_step, seconds: 0.0 }))
        }
        Some(HowToStop::Discard) => End::Healthy(None),
        None => End::Closed,
    }
}

/// Waits until the attempt shall stop, or leave its gang; `None` when the agent lets go. Meanwhile `place` becomes the
/// newest that it is told of.
async fn stopped(
    commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
    lease: LeaseKey,
    place: &mut Option<GangPlace>,
) -> Option<HowToStop> {
    loop {
        if let Some(how) = stopped_before_ranked(commands, lease, place).await {
            return how;
        }
    }
}

/// Waits until the attempt gets a rank in its gang, which is `None`, or shall stop: `Some`, as [`stopped`] gives it.
async fn stopped_before_ranked(
    commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
    lease: LeaseKey,
    place: &mut Option<GangPlace>,
) -> Option<Option<HowToStop>> {
    loop {
        let Some(command) = commands.recv().await else { return Some(None) };
        match command {
            RunnerCommand::Stop(meant, how) if meant == lease => return Some(Some(how)),
            RunnerCommand::Regang(meant, newer) if meant == lease => {
                if newer.rank.is_none() {
                    return Some(Some(HowToStop::Checkpoint));
                }
                *place = Some(newer);
                return None;
            }
            // Of an attempt before this one. A start cannot come: one attempt at a time.
            RunnerCommand::Stop(..)
            | RunnerCommand::Regang(..)
            | RunnerCommand::Answer(..)
            | RunnerCommand::Start(_) => {}
        }
    }
}

/// All that a job needs on this machine's disk.
async fn prepare(
    attempt: &Attempt,
    store: Result<Arc<CheckpointStore>, StoreError>,
    data_store: Result<Arc<CheckpointStore>, StoreError>,
    scratch: Option<&Scratch>,
    ahead: &Ahead,
    settings: &ProcessSettings,
    folder: &Path,
) -> Result<Prepared, Failure> {
    let params = serde_json::from_str(&attempt.params_json).map_err(|error| Failure {
        kind: FailureKind::Internal,
        message: format!("the coordinator sent parameters that are no JSON object: {error}"),
    })?;
    let (mut view, mut supply) = (None, None);
    let (data_dir, data_hint) = match settings.data.find(&attempt.sweep.train, &params) {
        Data::None => (None, None),
        Data::Folder(folder) => (Some(folder), None),
        Data::Added(manifest) => {
            let added = added(manifest, attempt, data_store, settings).await;
            let (added, rest) =
                added.map_err(|error| Failure { kind: error.kind(), message: describe(&error) })?;
            let folder = added.folder().to_owned();
            (view, supply) = (Some(added), rest);
            (Some(folder), None)
        }
        Data::Missing(hint) => (None, Some(hint)),
    };
    let trial = attempt.trial();
    let (store, resume) = stored_state(attempt, store, ahead, folder).await?;
    let module = match (module::of_job(&attempt.sweep.train, &params), scratch) {
        (Some(module), Some(scratch)) => Some(module::have(&store, &module, scratch).await?),
        _ => None,
    };
    let job = Job {
        trial,
        epoch: attempt.lease.epoch,
        train: attempt.sweep.train.clone(),
        params,
        device: attempt.device.clone(),
        data_dir,
        module,
        scratch_dir: folder.to_owned(),
        checkpoint: interval::for_trainer(attempt.sweep.checkpoint),
        resume,
        // Told last of all, so that it is the newest make-up.
        gang: None,
    };
    Ok(Prepared { job: Box::new(job), store, data_hint, view, supply })
}

/// The store, and the files of the checkpoint to resume from.
async fn stored_state(
    attempt: &Attempt,
    store: Result<Arc<CheckpointStore>, StoreError>,
    ahead: &Ahead,
    folder: &Path,
) -> Result<(Arc<CheckpointStore>, Option<CheckpointFiles>), Failure> {
    let store = store.map_err(|error| Failure { kind: error.kind(), message: describe(&error) })?;
    let resume = match &attempt.resume {
        Some(checkpoint) => Some(match ahead.take(checkpoint, folder).await {
            Some(files) => files,
            None => fetch(&store, &attempt.trial(), checkpoint, folder).await?,
        }),
        None => None,
    };
    Ok((store, resume))
}

/// Fetches the checkpoint to resume from. An object that is found damaged twice is deleted: whoever trains up to that
/// step again stores equal content under the same name, and must not take the damaged object for it.
async fn fetch(
    store: &CheckpointStore,
    trial: &TrialId,
    checkpoint: &CheckpointRef,
    folder: &Path,
) -> Result<CheckpointFiles, Failure> {
    let what = format!("the checkpoint of step {}", checkpoint.step);
    let fetched = with_retries(&what, || store.fetch(trial, checkpoint, folder)).await;
    match fetched {
        Ok(files) => Ok(files),
        Err(GivenUp { kind, message, error }) => {
            if let Some(damaged) = error.as_ref().and_then(StoreError::damaged_object) {
                store.discard(&damaged).await;
            }
            Err(Failure { kind, message: format!("{what} could not be fetched: {message}") })
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that `End` wants")]
fn failed(step: u64, kind: FailureKind, message: &str) -> Option<ReportBody> {
    Some(ReportBody::Failed { step, kind, message: failure_text(message), seconds: 0.0 })
}
