//! The training of one trial: the loop of steps, and what happens between them.
//!
//! Owns the order of things at the end of a step: first what was learnt is settled, then reported, then kept.
//! So a checkpoint never holds a step that diverged, and a resumed trial never repeats a report that a
//! checkpoint lies behind.

use crate::{
    checkpoint::{
        self, Meta, STATE_FORMAT, Snapshot,
        restore::{Identity, restore},
        writer::Writer,
    },
    data::{DataSet, Samples, order::Order, split::split},
    error::TrainError,
    evaluate::{Which, evaluate},
    job::{Command, Host, Progress},
    meter::{Meter, Tally},
    network::Network,
    schedule::Schedule,
};
use serde_json::{Map, Value};
use spotsweep_proto::{
    digest::Digest,
    line::{CheckpointFiles, FromTrainer, Job},
    metric::TIMING_METRICS,
    spec::Every,
    train::{Length, TrainConfig},
};
use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};
use tch::{Device, Tensor};

/// What a session needs.
pub struct Setting<'a> {
    /// The job.
    pub job: &'a Job,
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
    let mut session = Session::start(setting, host, progress)?;
    match session.train()? {
        End::Finished => session.finish(),
        End::Stopped { checkpoint } => session.stop(checkpoint),
    }
}

/// How the loop of steps ended.
enum End {
    Finished,
    Stopped { checkpoint: bool },
}

struct Session<'a> {
    job: &'a Job,
    config: TrainConfig,
    recipe: Digest,
    device: Device,
    data: Rc<DataSet>,
    host: &'a mut dyn Host,
    progress: &'a Progress,
    network: Network,
    order: Order,
    /// Places of the held-out samples in the training set, on the device; `None` if there are none.
    validation: Option<Tensor>,
    schedule: Schedule,
    /// Finished steps.
    step: u64,
    meter: Meter,
    /// Metrics of the last report by name, timings left out.
    latest: BTreeMap<String, f64>,
    writer: Writer,
    kept: Kept,
    clock: TrainingClock,
}

/// The newest checkpoint that was begun, or the start.
struct Kept {
    step: u64,
    at: Instant,
    /// For so long training stood still for it.
    held_up: Duration,
}

/// Measures training without evaluation: since the last report, and in this attempt up to there.
struct TrainingClock {
    since: Instant,
    samples: i64,
    total_seconds: f64,
    total_samples: i64,
}

/// Name of the metric that [`TrainingClock`] gives.
const RATE: &str = TIMING_METRICS[0];

impl<'a> Session<'a> {
    fn start(
        setting: Setting<'a>,
        host: &'a mut dyn Host,
        progress: &'a Progress,
    ) -> Result<Self, TrainError> {
        let Setting { job, config, device, data } = setting;
        let samples = u32::try_from(data.train.len()).unwrap_or(u32::MAX);
        let parts = split(samples, config.validation_fraction, config.seed);
        let order = Order::new(parts.train, config.batch_size, config.seed, device);
        let places: Vec<i64> = parts.validation.into_iter().map(i64::from).collect();
        let validation =
            if places.is_empty() { None } else { Some(Tensor::f_from_slice(&places)?.f_to_device(device)?) };
        let steps_per_epoch = order.steps_per_epoch();
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
        let recipe = checkpoint::recipe_digest(&config);
        let mut network = Network::new(&config, data.shape, device)?;
        let (mut step, mut meter, mut latest) = (0, Meter::default(), BTreeMap::new());
        if let Some(files) = &job.resume {
            let meta = restore(files, Identity { trial: &job.trial, recipe }, &mut network)?;
            (step, meter, latest) = (meta.step, Meter::resume(meta.tally), meta.latest);
        }
        let now = Instant::now();
        let mut session = Self {
            job,
            config,
            recipe,
            device,
            data,
            host,
            progress,
            network,
            order,
            validation,
            schedule,
            step,
            meter,
            latest,
            writer: Writer::new(job.scratch_dir.clone()),
            kept: Kept { step, at: now, held_up: Duration::ZERO },
            clock: TrainingClock { since: now, samples: 0, total_seconds: 0.0, total_samples: 0 },
        };
        session.progress.finished_steps.set(step);
        let total_steps = Some(schedule.total_steps);
        session.say(FromTrainer::Started { epoch: job.epoch, step, total_steps })?;
        Ok(session)
    }

    fn train(&mut self) -> Result<End, TrainError> {
        while self.step < self.schedule.total_steps {
            self.one_step()?;
            if self.is_report_due() {
                self.report()?;
            }
            if let Some(files) = self.writer.poll()? {
                self.say_kept(files, false)?;
            }
            match self.host.poll() {
                Some(Command::Stop { checkpoint }) => return Ok(End::Stopped { checkpoint }),
                Some(Command::Checkpoint) => {
                    self.hand_over(false)?;
                    self.keep()?;
                }
                None if self.is_checkpoint_due() => self.keep()?,
                None => {}
            }
        }
        Ok(End::Finished)
    }

    fn one_step(&mut self) -> Result<(), TrainError> {
        let places = self.order.batch(self.step)?;
        let (images, labels) = self.data.batch(&self.data.train, &places);
        let outcome = self.network.train(&images, &labels, self.step, self.schedule.rate(self.step))?;
        self.step += 1;
        self.progress.finished_steps.set(self.step);
        self.clock.samples += labels.numel() as i64;
        self.meter.push(self.step, &outcome.loss, &outcome.scores, &labels, self.network.model.as_ref())
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
        found.0.extend(self.clock.lap().map(|rate| (RATE, rate)));
        if self.ends_epoch()
            && let Some(places) = &self.validation
        {
            found.add(Part::Validation, self.evaluate(&self.data.train, Which::At(places))?);
        }
        let timings = |name: &str| TIMING_METRICS.contains(&name);
        self.latest.extend(found.0.iter().filter(|m| !timings(m.0)).map(|&(n, v)| (n.to_owned(), v)));
        self.meter.reset();
        let metrics = found.into_json(self.step)?;
        let (epoch, step, data_epoch) = (self.job.epoch, self.step, self.data_epoch());
        self.say(FromTrainer::Report { epoch, step, data_epoch, metrics })?;
        self.clock.since = Instant::now();
        Ok(())
    }

    fn data_epoch(&self) -> f64 {
        self.step as f64 / self.schedule.steps_per_epoch as f64
    }

    fn evaluate(&self, part: &Samples, which: Which<'_>) -> Result<Tally, TrainError> {
        evaluate(self.network.model.as_ref(), &self.data, part, which, self.device)
    }

    fn is_checkpoint_due(&self) -> bool {
        // The last one is written by `finish`, with other words.
        if self.writer.is_busy() || self.step == self.schedule.total_steps {
            return false;
        }
        match self.job.checkpoint.every {
            Every::Steps(steps) => self.step - self.kept.step >= steps.max(1),
            Every::Seconds(seconds) | Every::Auto { min_s: _, max_s: seconds } => {
                self.kept.at.elapsed() >= Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
        }
    }

    /// Begins a checkpoint of this moment. None is in flight.
    fn keep(&mut self) -> Result<(), TrainError> {
        let begun = Instant::now();
        self.meter.settle(self.network.model.as_ref())?;
        let meta = Meta {
            format: STATE_FORMAT,
            trial: self.job.trial.clone(),
            recipe: self.recipe,
            step: self.step,
            tally: self.meter.tally(),
            latest: self.latest.clone(),
        };
        self.writer.begin(Snapshot::take(meta, &self.network)?)?;
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
        if checkpoint {
            self.keep()?;
            self.hand_over(false)?;
        }
        self.say(FromTrainer::Stopped { epoch: self.job.epoch, step: self.step })
    }

    fn finish(&mut self) -> Result<(), TrainError> {
        self.hand_over(false)?;
        self.keep()?;
        let mut found = Found::default();
        found.add(Part::Test, self.evaluate(&self.data.test, Which::All)?);
        found.0.extend(self.clock.total().map(|rate| (RATE, rate)));
        self.hand_over(true)?;
        let mut metrics: Map<String, Value> =
            self.latest.iter().map(|(name, &value)| (name.clone(), Value::from(value))).collect();
        metrics.extend(found.into_json(self.step)?);
        let weights_digest = self.network.params.digest()?;
        let (epoch, step) = (self.job.epoch, self.step);
        self.say(FromTrainer::Done { epoch, step, metrics, weights_digest })
    }

    fn say(&mut self, line: FromTrainer) -> Result<(), TrainError> {
        self.host.say(line).map_err(TrainError::HostGone)
    }
}

impl TrainingClock {
    /// Samples a second since the last report; `None` if no time went by. The next lap begins when `since` is set.
    fn lap(&mut self) -> Option<f64> {
        let seconds = self.since.elapsed().as_secs_f64();
        let samples = std::mem::take(&mut self.samples);
        self.total_seconds += seconds;
        self.total_samples += samples;
        (seconds > 0.0).then(|| samples as f64 / seconds)
    }

    /// Samples a second over all laps of this attempt; `None` if it had none.
    fn total(&self) -> Option<f64> {
        (self.total_seconds > 0.0).then(|| self.total_samples as f64 / self.total_seconds)
    }
}

/// The parts of a data set.
#[derive(Clone, Copy)]
enum Part {
    Train,
    Validation,
    Test,
}

/// Metrics of one moment.
#[derive(Default)]
struct Found(Vec<(&'static str, f64)>);

impl Found {
    fn add(&mut self, part: Part, tally: Tally) {
        let (loss, accuracy) = match part {
            Part::Train => ("train_loss", "train_accuracy"),
            Part::Validation => ("val_loss", "val_accuracy"),
            Part::Test => ("test_loss", "test_accuracy"),
        };
        self.0.extend(tally.loss().map(|value| (loss, value)));
        self.0.extend(tally.accuracy().map(|value| (accuracy, value)));
    }

    /// As JSON; a number that JSON does not have ends the attempt.
    fn into_json(self, step: u64) -> Result<Map<String, Value>, TrainError> {
        self.0
            .into_iter()
            .map(|(name, value)| match serde_json::Number::from_f64(value) {
                Some(number) => Ok((name.to_owned(), Value::Number(number))),
                None => Err(TrainError::Diverged { step, loss: value as f32 }),
            })
            .collect()
    }
}
