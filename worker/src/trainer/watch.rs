//! One job as its trainer tells it: checks that the tale keeps to the line protocol, and turns it into what the
//! agent reports. Pure.

use crate::{
    attempt::Progress,
    gang::{GangNews, QUESTIONS_PER_JOB, StoreQuestion},
};
use spotsweep_proto::{
    digest::Digest,
    gang::{Generation, STORE_KEY_BYTES, STORE_VALUE_BYTES, StoreOp},
    ids::{Epoch, MetricName, NameError},
    limits::{METRICS_PER_REPORT, METRICS_PER_TRIAL, STEPS_PER_TRIAL},
    line::{CheckpointFiles, FailureKind, FromTrainer},
};
use std::{
    collections::{HashMap, HashSet},
    path::{Component, Path, PathBuf},
    time::Duration,
};

/// What a trainer said, checked.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Started { step: u64, total_steps: Option<u64> },
    Progress(Progress),
    Checkpoint { files: CheckpointFiles, last: bool, held_up: Option<Duration> },
    Done { step: u64, metrics: Vec<(MetricName, f64)>, weights_digest: Option<Digest> },
    Stopped { step: u64 },
    Failed { step: u64, kind: FailureKind, message: String },
    Gang(GangNews),
    Ask(StoreQuestion),
}

/// A tale against the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Breach {
    #[error("it said {said} under epoch {found} while its job has epoch {wanted}")]
    Epoch { said: &'static str, found: Epoch, wanted: Epoch },
    #[error("it said {said} before it said started")]
    NotStarted { said: &'static str },
    #[error("it said {0} a second time")]
    Again(&'static str),
    #[error("it said ready in the middle of a job")]
    Ready,
    #[error("it said {said} of step {found}, where {least} is the first that may come")]
    Backwards { said: &'static str, least: u64, found: u64 },
    #[error("it started at step {found} instead of step {wanted}")]
    FirstStep { found: u64, wanted: u64 },
    #[error("it spoke of step {0}; {STEPS_PER_TRIAL} is the limit")]
    Steps(u64),
    #[error("it reported {0} metrics at once; {METRICS_PER_REPORT} is the limit")]
    Metrics(usize),
    #[error("it reported more than {METRICS_PER_TRIAL} different metrics")]
    Names,
    #[error("it reported a metric whose name is not acceptable")]
    Name(#[from] NameError),
    #[error("it said {0} without being in a gang")]
    NoGang(&'static str),
    #[error("it spoke of generation {found} of its gang; it was told of {first} to {newest}")]
    Generation { found: Generation, first: Generation, newest: Generation },
    #[error("it asked for a key of {0} bytes; {STORE_KEY_BYTES} is the limit")]
    Key(usize),
    #[error("it set a value of {0} bytes; {STORE_VALUE_BYTES} is the limit")]
    Value(usize),
    #[error("it asked question {0} again before the answer came")]
    Asked(u64),
    #[error("it asked more than {QUESTIONS_PER_JOB} questions without waiting for an answer")]
    Questions,
    #[error("it wrote a checkpoint outside its folder, at {0:?}")]
    Outside(PathBuf),
}

/// Watches one job.
pub(crate) struct Watch {
    epoch: Epoch,
    first_step: u64,
    scratch: PathBuf,
    started: bool,
    /// It has said how many steps there are.
    total_known: bool,
    /// Step of the last report, if there was one.
    reported: Option<u64>,
    /// Step of the last checkpoint, if there was one. Written beside training, so it may lie behind the reports.
    saved: Option<u64>,
    /// Last step heard of.
    step: u64,
    names: HashMap<String, MetricName>,
    ignored_values: u64,
    gang: Option<Told>,
}

/// What a rank of a gang was told, and what it asked.
struct Told {
    first: Generation,
    newest: Generation,
    /// Questions without an answer.
    asked: HashSet<u64>,
}

impl Watch {
    pub(crate) fn new(epoch: Epoch, first_step: u64, scratch: &Path) -> Self {
        Self {
            epoch,
            first_step,
            scratch: scratch.to_owned(),
            started: false,
            total_known: false,
            reported: None,
            saved: None,
            step: first_step,
            names: HashMap::new(),
            ignored_values: 0,
            gang: None,
        }
    }

    /// The job's trainer is a rank of a gang, and was told of this make-up.
    pub(crate) fn told_of(&mut self, generation: Generation) {
        let told = Told { first: generation, newest: generation, asked: HashSet::new() };
        let gang = self.gang.get_or_insert(told);
        gang.newest = gang.newest.max(generation);
    }

    /// The trainer gets the answer to a question.
    pub(crate) fn answered(&mut self, id: u64) {
        if let Some(gang) = &mut self.gang {
            gang.asked.remove(&id);
        }
    }

    /// Last step heard of.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// Values of metrics that were left out because they are not finite numbers.
    pub(crate) fn ignored_values(&self) -> u64 {
        self.ignored_values
    }

    pub(crate) fn hear(&mut self, message: FromTrainer) -> Result<Said, Breach> {
        match message {
            FromTrainer::Ready { .. } => Err(Breach::Ready),
            FromTrainer::Started { epoch, step, total_steps } => {
                self.check_epoch("started", epoch)?;
                if self.started && (self.total_known || total_steps.is_none()) {
                    return Err(Breach::Again("started"));
                }
                // A rank that joins a gang at work begins where that is.
                if step < self.first_step || (step > self.first_step && self.gang.is_none()) {
                    return Err(Breach::FirstStep { found: step, wanted: self.first_step });
                }
                check_limit(step.max(total_steps.unwrap_or(0)))?;
                (self.started, self.total_known) = (true, total_steps.is_some());
                self.step = self.step.max(step);
                Ok(Said::Started { step, total_steps })
            }
            FromTrainer::Report { epoch, step, data_epoch, metrics } => {
                self.check("report", epoch, self.reported.map(|step| step + 1), step)?;
                self.reported = Some(step);
                let metrics = self.metrics(&metrics)?;
                let data_epoch = if data_epoch.is_finite() { data_epoch } else { 0.0 };
                Ok(Said::Progress(Progress { step, data_epoch, metrics }))
            }
            FromTrainer::Checkpoint { epoch, files, last, held_up_s } => {
                self.check("checkpoint", epoch, self.saved, files.step)?;
                self.saved = Some(files.step);
                for path in [&files.weights, &files.state] {
                    self.check_path(path)?;
                }
                let held_up = held_up_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                Ok(Said::Checkpoint { files, last, held_up })
            }
            FromTrainer::Done { epoch, step, metrics, weights_digest } => {
                self.check("done", epoch, Some(self.step), step)?;
                Ok(Said::Done { step, metrics: self.metrics(&metrics)?, weights_digest })
            }
            FromTrainer::Stopped { epoch, step } => {
                self.check_epoch("stopped", epoch)?;
                check_limit(step)?;
                self.step = self.step.max(step);
                Ok(Said::Stopped { step })
            }
            FromTrainer::Failed { epoch, step, reason, message } => {
                self.check_epoch("failed", epoch)?;
                check_limit(step)?;
                self.step = self.step.max(step);
                Ok(Said::Failed { step, kind: reason, message })
            }
            FromTrainer::GangFormed { epoch, generation, step, over, shard_us } => {
                self.check("gang_formed", epoch, None, step)?;
                self.check_generation("gang_formed", generation)?;
                Ok(Said::Gang(GangNews { generation, step, over, broken: None, ready: false, shard_us }))
            }
            // Before the start too: its peers may never come.
            FromTrainer::GangBroken { epoch, generation, step, message } => {
                self.check_epoch("gang_broken", epoch)?;
                self.check_generation("gang_broken", generation)?;
                check_limit(step)?;
                self.step = self.step.max(step);
                Ok(Said::Gang(GangNews {
                    generation,
                    step,
                    over: None,
                    broken: Some(message),
                    ready: false,
                    shard_us: None,
                }))
            }
            FromTrainer::Store { epoch, generation, id, op } => {
                self.check_epoch("store", epoch)?;
                let gang = self.check_generation("store", generation)?;
                check_question(&op)?;
                if gang.asked.len() >= QUESTIONS_PER_JOB {
                    return Err(Breach::Questions);
                }
                if !gang.asked.insert(id) {
                    return Err(Breach::Asked(id));
                }
                Ok(Said::Ask(StoreQuestion { generation, id, op }))
            }
        }
    }

    fn check_epoch(&self, said: &'static str, found: Epoch) -> Result<(), Breach> {
        if found == self.epoch { Ok(()) } else { Err(Breach::Epoch { said, found, wanted: self.epoch }) }
    }

    fn check_generation(&mut self, said: &'static str, found: Generation) -> Result<&mut Told, Breach> {
        let gang = self.gang.as_mut().ok_or(Breach::NoGang(said))?;
        if (gang.first..=gang.newest).contains(&found) {
            Ok(gang)
        } else {
            Err(Breach::Generation { found, first: gang.first, newest: gang.newest })
        }
    }

    /// `least` is the first step that this kind of message may name now; never one before the job's own first.
    fn check(
        &mut self,
        said: &'static str,
        epoch: Epoch,
        least: Option<u64>,
        step: u64,
    ) -> Result<(), Breach> {
        self.check_epoch(said, epoch)?;
        if !self.started {
            return Err(Breach::NotStarted { said });
        }
        check_limit(step)?;
        let least = least.unwrap_or(self.first_step).max(self.first_step);
        if step < least {
            return Err(Breach::Backwards { said, least, found: step });
        }
        self.step = self.step.max(step);
        Ok(())
    }

    /// The agent reads and deletes the files, so they must be the job's own.
    fn check_path(&self, path: &Path) -> Result<(), Breach> {
        let inside = path.strip_prefix(&self.scratch).is_ok_and(|below| {
            below.components().count() > 0
                && below.components().all(|part| matches!(part, Component::Normal(_)))
        });
        if inside { Ok(()) } else { Err(Breach::Outside(path.to_owned())) }
    }

    fn metrics(
        &mut self,
        metrics: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Vec<(MetricName, f64)>, Breach> {
        if metrics.len() > METRICS_PER_REPORT {
            return Err(Breach::Metrics(metrics.len()));
        }
        let mut named = Vec::with_capacity(metrics.len());
        for (text, value) in metrics {
            let name = match self.names.get(text) {
                Some(name) => name.clone(),
                None if self.names.len() >= METRICS_PER_TRIAL => return Err(Breach::Names),
                None => {
                    let name = MetricName::new(text)?;
                    self.names.insert(text.clone(), name.clone());
                    name
                }
            };
            match value.as_f64().filter(|value| value.is_finite()) {
                Some(value) => named.push((name, value)),
                None => {
                    if self.ignored_values == 0 {
                        tracing::warn!(metric = %name, "a metric without a finite value is left out");
                    }
                    self.ignored_values += 1;
                }
            }
        }
        Ok(named)
    }
}

fn check_question(op: &StoreOp) -> Result<(), Breach> {
    let (StoreOp::Set { key, .. } | StoreOp::Get { key }) = op;
    if key.len() > STORE_KEY_BYTES {
        return Err(Breach::Key(key.len()));
    }
    match op {
        StoreOp::Set { value, .. } if value.0.len() > STORE_VALUE_BYTES => Err(Breach::Value(value.0.len())),
        StoreOp::Set { .. } | StoreOp::Get { .. } => Ok(()),
    }
}

/// The coordinator takes no larger ones.
fn check_limit(step: u64) -> Result<(), Breach> {
    if step <= STEPS_PER_TRIAL { Ok(()) } else { Err(Breach::Steps(step)) }
}

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod tests;
