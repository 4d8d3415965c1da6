//! One job from its first line to its last: makes the recipe, runs it, and turns every way to fail into a
//! `failed` line, so that the trainer stays healthy. It must not read or write the pipe itself: a [`Host`] does.

use crate::{data::cache::DataCache, device, error::TrainError, noop, registry::Registry, session};
use spotsweep_proto::{
    catalogue,
    gang::{Generation, Roster, StoreOp, StoreValue},
    ids::Epoch,
    limits::FAILURE_TEXT_BYTES,
    line::{FromTrainer, Job},
    spec::TrainSection,
    train::{ModelConfig, TrainConfig},
    value::Assignment,
};
use std::{
    any::Any,
    cell::Cell,
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// What the agent wants of the job that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Finish the step and stop; with a checkpoint, if so asked.
    Stop {
        /// Whether the state is wanted.
        checkpoint: bool,
    },
    /// Write a checkpoint and go on.
    Checkpoint,
    /// Be in this make-up of the gang from now on.
    Gang(Roster),
    /// The pieces of these shards lie in the data folder.
    Data(Range<u32>),
    /// The answer to a [`Host::post`].
    Answer {
        /// The question's number.
        id: u64,
        /// `None` if the make-up is over.
        value: Option<StoreValue>,
    },
}

/// The other end: whoever gave the job.
pub trait Host {
    /// What it wants, if it said something since the last call. Never waits.
    fn poll(&mut self) -> Option<Command>;

    /// What it wants next, however long that takes.
    fn wait(&mut self) -> Command;

    /// Asks the rendezvous store of a make-up of the gang.
    ///
    /// # Errors
    /// In words: the make-up is over, a newer one or a stop came meanwhile, or there was no answer within `timeout`.
    fn ask(&mut self, generation: Generation, op: StoreOp, timeout: Duration) -> Result<StoreValue, String>;

    /// Asks likewise, without waiting: the answer comes as a command. Gives the question's number.
    ///
    /// # Errors
    /// When nobody reads any more.
    fn post(&mut self, generation: Generation, op: StoreOp) -> io::Result<u64>;

    /// Tells it something.
    ///
    /// # Errors
    /// When nobody reads any more.
    fn say(&mut self, line: FromTrainer) -> io::Result<()>;
}

/// Runs `job`, of what `registry` has, and says all that there is to say about it.
///
/// # Errors
/// Only when the host does not read any more: everything else becomes a line.
pub fn run(job: &Job, registry: &Registry, cache: &mut DataCache, host: &mut dyn Host) -> io::Result<()> {
    let progress = Progress { epoch: job.epoch, finished_steps: Cell::new(0) };
    // tch panics where one of its infallible forms meets an exception of libtorch. The job's tensors go with the
    // unwinding, and the data cache holds nothing half made.
    let outcome = catch_unwind(AssertUnwindSafe(|| attempt(job, registry, cache, host, &progress)))
        .unwrap_or_else(|panic| Err(TrainError::Torch(text_of(panic.as_ref()))));
    match outcome {
        Ok(()) => Ok(()),
        Err(TrainError::HostGone(error)) => Err(error),
        Err(error) => {
            let mut message = error.in_words();
            truncate(&mut message, FAILURE_TEXT_BYTES);
            let step = progress.finished_steps.get();
            host.say(FromTrainer::Failed { epoch: job.epoch, step, reason: error.kind(), message })
        }
    }
}

/// How far the job is, for whoever must tell its end.
#[derive(Debug)]
pub struct Progress {
    /// The job's epoch, repeated in every line.
    pub epoch: Epoch,
    /// Finished steps.
    pub finished_steps: Cell<u64>,
}

fn attempt(
    job: &Job,
    registry: &Registry,
    cache: &mut DataCache,
    host: &mut dyn Host,
    progress: &Progress,
) -> Result<(), TrainError> {
    let (section, config) = recipe(job)?;
    registry.means(&section, &config)?;
    if config.model == ModelConfig::Noop {
        return noop::run(&config, host, progress);
    }
    let device = device::named(&job.device)?;
    // Set for every job: the count is part of the recipe, and changes the bits.
    tch::set_num_threads(i32::from(config.threads.max(1)));
    let data = cache.get(registry, &config.data, job.data_dir.as_deref(), config.shards, device)?;
    // What a coordinator checks of the first trials of a sweep holds for all.
    catalogue::fits(&config, &data.facts()).map_err(|error| TrainError::Config(error.to_string()))?;
    session::run(session::Setting { job, registry, config, device, data }, host, progress)
}

/// What all trials of the job's sweep share, and the recipe of this one.
fn recipe(job: &Job) -> Result<(TrainSection, TrainConfig), TrainError> {
    let config = |error: String| TrainError::Config(error);
    let train: TrainSection =
        serde_json::from_value(job.train.clone()).map_err(|error| config(format!("train: {error}")))?;
    let params = Assignment::from_json(&job.params).map_err(|error| config(format!("params: {error}")))?;
    let recipe = catalogue::resolve(&train, &params).map_err(|error| config(error.to_string()))?;
    Ok((train, recipe))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
}
