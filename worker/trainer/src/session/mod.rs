//! The training of one trial: the loop of steps, and what happens between them.
//!
//! Owns the order of things at the end of a step: first what was learnt is settled, then reported, then kept.
//! So a checkpoint never holds a step that diverged, and a resumed trial never repeats a report that a
//! checkpoint lies behind. What a step is made of is in [`steps`], life in a gang in [`ganged`], how a rank gets the data of
//! its shards in [`fed`].

mod fed;
mod ganged;
mod metrics;
mod pace;
mod steps;

use self::{
    metrics::{Found, Part, TrainingClock},
    pace::Pace,
    steps::Rows,
};
use crate::{
    checkpoint::{self, Meta, STATE_FORMAT, Snapshot, writer::Writer},
    contribution::Layout,
    data::{DataSet, feed::Feed, split::split},
    error::TrainError,
    gang::{Gang, exchange::Exchange},
    job::{Command, Host, Progress},
    meter::Meter,
    network::Network,
    registry::Registry,
    schedule::Schedule,
    shards::{self, Shard},
};
use serde_json::{Map, Value};
use spotsweep_proto::{
    digest::Digest,
    line::{CheckpointFiles, FromTrainer, Job},
    spec::Every,
    train::{Length, TrainConfig},
};
use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};
use tch::Device;

/// What a session needs.
pub struct Setting<'a> {
    /// The job.
    pub job: &'a Job,
    /// What this trainer has.
    pub registry: &'a Registry,
    /// Its recipe.
    pub config: TrainConfig,
    /// Where to train.
    pub device: Device,
    /// On what, on that device.
    pub data: Rc<DataSet>,
}

/// Trains to the end, or until told to stop.
///
/// # Errors
/// Every [`TrainError`]; the host was not told yet.
pub fn run(setting: Setting<'_>, host: &mut dyn Host, progress: &Progress) -> Result<(), TrainError> {
    let mut session = Session::new(setting, host, progress)?;
    loop {
        let end = match session.stretch() {
            Ok(end) => Some(end),
            Err(TrainError::Peer(message)) => session.broken(message)?,
            Err(error) => return Err(error),
        };
        match end {
            Some(End::Finished) => return Ok(()),
            Some(End::Stopped { checkpoint }) => return session.stop(checkpoint),
            // In the next make-up.
            None => {}
        }
    }
}

/// How the loop of steps ended.
enum End {
    Finished,
    Stopped { checkpoint: bool },
}

struct Session<'a> {
    job: &'a Job,
    registry: &'a Registry,
    config: TrainConfig,
    recipe: Digest,
    device: Device,
    data: Rc<DataSet>,
    /// What comes into `data` while a gang trains.
    feed: Feed,
    host: &'a mut dyn Host,
    progress: &'a Progress,
    network: Network,
    /// All shards of the trial, by number.
    shards: Vec<Shard>,
    rows: Rows,
    exchange: Exchange,
    /// `None` for a trial that trains alone.
    gang: Option<Gang>,
    /// Whether all ranks change over to the next make-up now.
    agreed: bool,
    /// Whether network, step, meter and latest metrics are the trial's.
    has_state: bool,
    /// Whether the coordinator takes its word that all up to its step is reported: it had the state of a make-up of before,
    /// even if a transfer that broke off has spoilt it since.
    has_vouched: bool,
    /// Whether the network may not be fresh.
    is_touched: bool,
    has_started: bool,
    schedule: Schedule,
    /// Finished steps.
    step: u64,
    meter: Meter,
    /// Metrics of the last report by name, timings left out.
    latest: BTreeMap<String, f64>,
    writer: Writer,
    kept: Kept,
    clock: TrainingClock,
    pace: Pace,
}

/// The newest checkpoint that was begun, or the start.
struct Kept {
    step: u64,
    at: Instant,
    /// For so long training stood still for it.
    held_up: Duration,
}

impl<'a> Session<'a> {
    fn new(setting: Setting<'a>, host: &'a mut dyn Host, progress: &'a Progress) -> Result<Self, TrainError> {
        let Setting { job, registry, config, device, data } = setting;
        let facts = data.facts();
        let parts = split(facts.train_samples, config.validation_fraction, config.seed);
        let shards = shards::divide(&config, &parts, facts.train_samples, facts.test_samples, device)?;
        if job.gang.is_none() {
            data.complete()?;
        }
        let steps_per_epoch = shards.first().map_or(1, |shard| shard.order.steps_per_epoch());
        let schedule = Schedule {
            peak: config.learning_rate,
            warmup_steps: config.warmup_steps,
            shape: config.schedule,
            steps_per_epoch,
            total_steps: match config.length {
                Length::Epochs(epochs) => u64::from(epochs) * steps_per_epoch,
                Length::Steps(steps) => steps,
            },
        };
        let network = Network::new(&config, (registry, job.module.as_deref()), data.shape, device)?;
        let now = Instant::now();
        Ok(Self {
            job,
            registry,
            recipe: checkpoint::identity(&config, data.content()),
            rows: Rows::new(Layout::new(&network.params, config.shards)),
            exchange: Exchange::alone(config.shards),
            config,
            device,
            data,
            feed: Feed::default(),
            host,
            progress,
            network,
            shards,
            gang: job.gang.clone().map(Gang::new),
            agreed: false,
            has_state: false,
            has_vouched: false,
            is_touched: false,
            has_started: false,
            schedule,
            step: 0,
            meter: Meter::default(),
            latest: BTreeMap::new(),
            writer: Writer::new(job.scratch_dir.clone()),
            kept: Kept { step: 0, at: now, held_up: Duration::ZERO },
            clock: TrainingClock::new(now),
            pace: Pace::default(),
        })
    }

    /// Trains as long as the make-up of the gang holds; without one, to the end.
    fn stretch(&mut self) -> Result<End, TrainError> {
        loop {
            if let Some(end) = self.enter()? {
                return Ok(end);
            }
            match self.train()? {
                End::Finished => {}
                stopped @ End::Stopped { .. } => return Ok(stopped),
            }
            if let Some(end) = self.finish()? {
                return Ok(end);
            }
        }
    }

    fn train(&mut self) -> Result<End, TrainError> {
        while self.step < self.schedule.total_steps {
            let (begun, exchanged) = (Instant::now(), self.exchange.spent());
            self.one_step()?;
            self.note_pace(begun.elapsed().saturating_sub(self.exchange.spent().saturating_sub(exchanged)))?;
            if self.owes_report() {
                self.report()?;
            }
            if self.agreed
                && self.gang.as_mut().is_some_and(Gang::change)
                && let Some(end) = self.enter()?
            {
                return Ok(end);
            }
            if let Some(files) = self.writer.poll()? {
                self.say_kept(files, false)?;
            }
            self.read_ahead()?;
            match self.host.poll() {
                Some(Command::Stop { checkpoint }) => return Ok(End::Stopped { checkpoint }),
                Some(Command::Checkpoint) => {
                    self.hand_over(false)?;
                    self.keep()?;
                }
                Some(Command::Gang(roster)) => self.offer(roster)?,
                Some(Command::Data(shards)) => self.feed.note(shards, &self.data),
                Some(Command::Answer { id, value }) => self.answered(id, value.is_some()),
                None if self.is_checkpoint_due() => self.keep()?,
                None => {}
            }
        }
        Ok(End::Finished)
    }

    /// A step is done, for which this rank computed so long.
    fn note_pace(&mut self, computed: Duration) -> Result<(), TrainError> {
        if self.exchange.ranks() < 2 {
            return Ok(());
        }
        let shard_us = self.pace.note(computed, self.exchange.shards().len());
        let (Some(gang), Some(_)) = (&self.gang, shard_us) else { return Ok(()) };
        let (epoch, generation, step) = (self.job.epoch, gang.roster.generation, self.step);
        self.say(FromTrainer::GangFormed { epoch, generation, step, over: None, shard_us })
    }

    /// Whether the last finished step is one to be reported, and is not yet.
    fn owes_report(&self) -> bool {
        self.is_report_due() && self.meter.has_steps()
    }

    fn is_report_due(&self) -> bool {
        let every = self.config.report_every_steps;
        self.ends_epoch() || (every > 0 && self.step.is_multiple_of(every))
    }

    fn ends_epoch(&self) -> bool {
        self.step.is_multiple_of(self.schedule.steps_per_epoch) || self.step == self.schedule.total_steps
    }

    /// Training metrics since the last report and, at the end of an epoch and of the trial, validation metrics.
    fn report(&mut self) -> Result<(), TrainError> {
        self.meter.settle(self.network.model.as_ref())?;
        let mut found = Found::default();
        found.add(Part::Train, self.meter.tally());
        found.0.push(("learning_rate", self.schedule.rate(self.step - 1)));
        let exchanged = self.exchange.take_spent();
        self.clock.lap(self.gang.as_ref().map(|_| exchanged), &mut found);
        if self.ends_epoch() {
            let tally = self.evaluate(Part::Validation)?;
            found.add(Part::Validation, tally);
        }
        // A peer that is lost up to here leaves the report owed.
        self.latest.extend(found.lasting());
        self.meter.reset();
        let metrics = found.into_json(self.step)?;
        let (epoch, step, data_epoch) = (self.job.epoch, self.step, self.data_epoch());
        self.say(FromTrainer::Report { epoch, step, data_epoch, metrics })?;
        let _ = self.exchange.take_spent();
        self.clock.since = Instant::now();
        Ok(())
    }

    fn data_epoch(&self) -> f64 {
        self.step as f64 / self.schedule.steps_per_epoch as f64
    }

    fn is_checkpoint_due(&self) -> bool {
        // The last one is written by `finish`, with other words; those of a gang by rank 0.
        if self.writer.is_busy() || self.step == self.schedule.total_steps || self.exchange.rank() != 0 {
            return false;
        }
        match self.job.checkpoint.every {
            Every::Steps(steps) => self.step - self.kept.step >= steps.max(1),
            Every::Seconds(seconds) | Every::Auto { min_s: _, max_s: seconds } => {
                self.kept.at.elapsed() >= Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
        }
    }

    /// All of the state that is no tensor. The meter is settled.
    fn meta(&self) -> Meta {
        Meta {
            format: STATE_FORMAT,
            trial: self.job.trial.clone(),
            recipe: self.recipe,
            step: self.step,
            tally: self.meter.tally(),
            latest: self.latest.clone(),
        }
    }

    /// Begins a checkpoint of this moment. None is in flight.
    fn keep(&mut self) -> Result<(), TrainError> {
        let begun = Instant::now();
        self.meter.settle(self.network.model.as_ref())?;
        self.writer.begin(Snapshot::take(self.meta(), &self.network)?)?;
        self.kept = Kept { step: self.step, at: Instant::now(), held_up: begun.elapsed() };
        Ok(())
    }

    /// Waits for the checkpoint in flight, if there is one, and hands it over.
    fn hand_over(&mut self, last: bool) -> Result<(), TrainError> {
        match self.writer.wait()? {
            Some(files) => self.say_kept(files, last),
            None => Ok(()),
        }
    }

    fn say_kept(&mut self, files: CheckpointFiles, last: bool) -> Result<(), TrainError> {
        let held_up_s = Some(self.kept.held_up.as_secs_f64());
        self.say(FromTrainer::Checkpoint { epoch: self.job.epoch, files, last, held_up_s })
    }

    fn stop(&mut self, checkpoint: bool) -> Result<(), TrainError> {
        self.meter.settle(self.network.model.as_ref())?;
        self.hand_over(false)?;
        // A rank that never met its peers has nothing to keep.
        if checkpoint && self.has_state {
            self.keep()?;
            self.hand_over(false)?;
        }
        self.say(FromTrainer::Stopped { epoch: self.job.epoch, step: self.step })
    }

    /// Evaluates the final weights, keeps them and says so. In a gang rank 0 does the latter two, and the others hold
    /// the state until a stop (`Some`) or a new make-up (`None`).
    fn finish(&mut self) -> Result<Option<End>, TrainError> {
        self.hand_over(false)?;
        let is_alone = self.exchange.ranks() == 1;
        if is_alone {
            // Written while the weights are evaluated. Among several ranks a peer may be lost meanwhile, and the
            // checkpoint would not be the last one.
            self.keep()?;
        }
        let mut found = Found::default();
        let tally = self.evaluate(Part::Test)?;
        found.add(Part::Test, tally);
        if self.exchange.rank() != 0 {
            return self.wait_for_orders();
        }
        if !is_alone {
            self.keep()?;
        }
        self.clock.total(&mut found);
        self.hand_over(true)?;
        let mut metrics: Map<String, Value> =
            self.latest.iter().map(|(name, &value)| (name.clone(), Value::from(value))).collect();
        metrics.extend(found.into_json(self.step)?);
        let weights_digest = self.network.params.digest()?;
        let (epoch, step) = (self.job.epoch, self.step);
        self.say(FromTrainer::Done { epoch, step, metrics, weights_digest: Some(weights_digest) })?;
        Ok(Some(End::Finished))
    }

    fn say(&mut self, line: FromTrainer) -> Result<(), TrainError> {
        self.host.say(line).map_err(TrainError::HostGone)
    }
}
