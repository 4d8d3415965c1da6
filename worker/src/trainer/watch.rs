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
mod tests {
    use super::*;
    use serde_json::json;

    const EPOCH: Epoch = Epoch(4);

    fn watch() -> Watch {
        Watch::new(EPOCH, 10, Path::new("/scratch/1"))
    }

    fn started(watch: &mut Watch) {
        watch.hear(FromTrainer::Started { epoch: EPOCH, step: 10, total_steps: Some(20) }).unwrap();
    }

    fn report(step: u64, metrics: &serde_json::Value) -> FromTrainer {
        let metrics = metrics.as_object().unwrap().clone();
        FromTrainer::Report { epoch: EPOCH, step, data_epoch: 0.5, metrics }
    }

    #[test]
    fn steps_grow_strictly_and_values_that_are_no_numbers_are_left_out() {
        let mut watch = watch();
        started(&mut watch);
        let said = watch.hear(report(11, &json!({"loss": 0.5, "bad": null, "worse": "nan"}))).unwrap();
        let Said::Progress(progress) = said else { panic!("{said:?}") };
        assert_eq!(progress.metrics, [(MetricName::new("loss").unwrap(), 0.5)]);
        assert_eq!((watch.ignored_values(), watch.step()), (2, 11));
        assert!(matches!(
            watch.hear(report(11, &json!({}))),
            Err(Breach::Backwards { least: 12, found: 11, .. })
        ));
        assert!(matches!(watch.hear(report(9, &json!({}))), Err(Breach::Backwards { .. })));
    }

    #[test]
    fn a_checkpoint_that_was_written_beside_training_may_lie_behind_the_reports() {
        let checkpoint = |step| {
            let files = CheckpointFiles::new(step, "/scratch/1/w", "/scratch/1/s");
            FromTrainer::Checkpoint { epoch: EPOCH, files, last: false, held_up_s: None }
        };
        let mut watch = watch();
        started(&mut watch);
        watch.hear(report(14, &json!({}))).unwrap();
        watch.hear(checkpoint(12)).unwrap();
        assert_eq!(watch.step(), 14, "the job is where its reports are");
        assert!(matches!(watch.hear(checkpoint(11)), Err(Breach::Backwards { least: 12, found: 11, .. })));
        watch.hear(checkpoint(16)).unwrap();
        watch.hear(report(15, &json!({}))).unwrap();
        assert_eq!(watch.step(), 16);
        let digest = Digest([0; 32]);
        let done = FromTrainer::Done {
            epoch: EPOCH,
            step: 15,
            metrics: serde_json::Map::new(),
            weights_digest: Some(digest),
        };
        assert!(matches!(watch.hear(done), Err(Breach::Backwards { .. })));
    }

    #[test]
    fn a_tale_out_of_order_or_under_another_epoch_is_a_breach() {
        let mut watch = watch();
        assert!(matches!(watch.hear(report(11, &json!({}))), Err(Breach::NotStarted { said: "report" })));
        let elsewhere = FromTrainer::Started { epoch: EPOCH, step: 0, total_steps: None };
        assert!(matches!(watch.hear(elsewhere), Err(Breach::FirstStep { found: 0, wanted: 10 })));
        started(&mut watch);
        let again = FromTrainer::Started { epoch: EPOCH, step: 10, total_steps: None };
        assert!(matches!(watch.hear(again), Err(Breach::Again("started"))));
        let stale = FromTrainer::Stopped { epoch: Epoch(3), step: 11 };
        assert!(matches!(watch.hear(stale), Err(Breach::Epoch { .. })));
    }

    #[test]
    fn limits_on_metrics_hold() {
        let mut watch = watch();
        started(&mut watch);
        let many = |from: usize, count: usize| {
            let map: serde_json::Map<_, _> =
                (from..from + count).map(|i| (format!("m{i}"), json!(1))).collect();
            serde_json::Value::Object(map)
        };
        assert!(matches!(watch.hear(report(11, &many(0, METRICS_PER_REPORT + 1))), Err(Breach::Metrics(_))));
        for round in 0..METRICS_PER_TRIAL / METRICS_PER_REPORT {
            let metrics = many(round * METRICS_PER_REPORT, METRICS_PER_REPORT);
            watch.hear(report(12 + round as u64, &metrics)).unwrap();
        }
        assert!(matches!(watch.hear(report(50, &json!({"one_more": 1}))), Err(Breach::Names)));
        assert!(matches!(watch.hear(report(51, &json!({"../x": 1}))), Err(Breach::Names | Breach::Name(_))));
    }

    #[test]
    fn a_step_beyond_the_limit_is_a_breach_wherever_it_stands() {
        let beyond = STEPS_PER_TRIAL + 1;
        let mut fresh = watch();
        let start = FromTrainer::Started { epoch: EPOCH, step: 10, total_steps: Some(beyond) };
        assert!(matches!(fresh.hear(start), Err(Breach::Steps(_))));
        let mut watch = watch();
        started(&mut watch);
        let failed = FromTrainer::Failed {
            epoch: EPOCH,
            step: beyond,
            reason: FailureKind::Internal,
            message: String::new(),
        };
        for message in
            [report(beyond, &json!({})), FromTrainer::Stopped { epoch: EPOCH, step: u64::MAX }, failed]
        {
            assert!(matches!(watch.hear(message), Err(Breach::Steps(_))));
        }
        assert_eq!(watch.step(), 10);
        assert!(watch.hear(report(STEPS_PER_TRIAL, &json!({}))).is_ok());
    }

    #[test]
    fn checkpoint_files_outside_the_jobs_folder_are_a_breach() {
        let mut watch = watch();
        started(&mut watch);
        let mut checkpoint = |path: &str| {
            let files = CheckpointFiles::new(12, path, "/scratch/1/state");
            watch.hear(FromTrainer::Checkpoint { epoch: EPOCH, files, last: false, held_up_s: None })
        };
        for path in ["/etc/passwd", "relative", "/scratch/1", "/scratch/1/../2/w", "/scratch/11/w"] {
            assert!(matches!(checkpoint(path), Err(Breach::Outside(_))), "{path}");
        }
        assert!(checkpoint("/scratch/1/w").is_ok());
    }

    #[test]
    fn lines_about_a_gang_come_only_from_a_rank_of_it_and_about_make_ups_that_it_was_told_of() {
        let formed = |generation| FromTrainer::GangFormed {
            epoch: EPOCH,
            generation: Generation(generation),
            step: 12,
            over: None,
            shard_us: None,
        };
        let broken = |generation| FromTrainer::GangBroken {
            epoch: EPOCH,
            generation: Generation(generation),
            step: 0,
            message: "no answer from rank 1".to_owned(),
        };
        let mut alone = watch();
        started(&mut alone);
        assert!(matches!(alone.hear(formed(1)), Err(Breach::NoGang("gang_formed"))));
        assert!(matches!(alone.hear(broken(1)), Err(Breach::NoGang("gang_broken"))));
        let mut watch = watch();
        watch.told_of(Generation(3));
        assert!(matches!(watch.hear(formed(3)), Err(Breach::NotStarted { .. })));
        let Ok(Said::Gang(news)) = watch.hear(broken(3)) else { panic!("its peers may never come") };
        assert_eq!((news.generation, news.broken.is_some()), (Generation(3), true));
        // It begins where the gang is that it joins.
        watch.hear(FromTrainer::Started { epoch: EPOCH, step: 12, total_steps: Some(20) }).unwrap();
        assert!(matches!(watch.hear(formed(4)), Err(Breach::Generation { .. })));
        watch.told_of(Generation(4));
        watch.hear(formed(4)).unwrap();
        watch.hear(formed(3)).unwrap();
        assert!(matches!(watch.hear(broken(2)), Err(Breach::Generation { .. })));
    }

    #[test]
    fn questions_of_a_rank_keep_to_their_limits() {
        let ask = |id, op| FromTrainer::Store { epoch: EPOCH, generation: Generation(1), id, op };
        let get = |id, length| ask(id, StoreOp::Get { key: "k".repeat(length) });
        let set = |id, length| {
            let value = spotsweep_proto::gang::StoreValue(vec![0; length]);
            ask(id, StoreOp::Set { key: "k".to_owned(), value })
        };
        assert!(matches!(watch().hear(get(1, 1)), Err(Breach::NoGang("store"))));
        let mut watch = watch();
        watch.told_of(Generation(1));
        watch.hear(get(1, STORE_KEY_BYTES)).unwrap();
        assert!(matches!(watch.hear(get(2, STORE_KEY_BYTES + 1)), Err(Breach::Key(_))));
        watch.hear(set(3, STORE_VALUE_BYTES)).unwrap();
        assert!(matches!(watch.hear(set(4, STORE_VALUE_BYTES + 1)), Err(Breach::Value(_))));
        assert!(matches!(watch.hear(get(1, 1)), Err(Breach::Asked(1))));
        watch.answered(1);
        watch.answered(3);
        for id in 0..QUESTIONS_PER_JOB as u64 {
            watch.hear(get(id, 1)).unwrap();
        }
        assert!(matches!(watch.hear(get(1000, 1)), Err(Breach::Questions)));
        watch.answered(0);
        watch.hear(get(1000, 1)).unwrap();
    }

    #[test]
    fn nothing_of_a_job_comes_before_its_start_and_ready_never_in_it() {
        let files = || CheckpointFiles::new(12, "/scratch/1/w", "/scratch/1/s");
        let done = || FromTrainer::Done {
            epoch: EPOCH,
            step: 12,
            metrics: serde_json::Map::new(),
            weights_digest: Some(Digest([0; 32])),
        };
        let ready = || FromTrainer::Ready {
            protocol: 1,
            trainer: String::new(),
            libtorch: String::new(),
            devices: Vec::new(),
            catalogue: None,
        };
        let mut watch = watch();
        let checkpoint =
            FromTrainer::Checkpoint { epoch: EPOCH, files: files(), last: false, held_up_s: None };
        assert!(matches!(watch.hear(checkpoint), Err(Breach::NotStarted { said: "checkpoint" })));
        assert!(matches!(watch.hear(done()), Err(Breach::NotStarted { said: "done" })));
        assert!(matches!(watch.hear(ready()), Err(Breach::Ready)));
        started(&mut watch);
        assert!(matches!(watch.hear(ready()), Err(Breach::Ready)));
        assert!(watch.hear(done()).is_ok());
    }
}
