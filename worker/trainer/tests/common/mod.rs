//! A host in this process that plays the agent: gives commands at chosen steps and keeps what the job says.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

use serde_json::{Map, Value, json};
use spotsweep_proto::{
    digest::Digest,
    gang::{Generation, StoreOp, StoreValue},
    ids::{DeviceName, Epoch},
    line::{CheckpointFiles, FailureKind, FromTrainer, Job},
    metric::TIMING_METRICS,
    spec::{CheckpointPolicy, Every},
};
use spotsweep_trainer::{
    data::cache::DataCache,
    job::{self, Command, Host},
    registry::Registry,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// libtorch's generators belong to the process, and a trainer trains one trial at a time: so do the tests.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

thread_local! {
    static CACHE: RefCell<DataCache> = RefCell::default();
}

/// Commands by the step at whose end they are given, and all lines that came.
#[derive(Default)]
pub struct Script {
    pub commands: BTreeMap<u64, Command>,
    pub lines: Vec<FromTrainer>,
    step: u64,
}

impl Host for Script {
    fn poll(&mut self) -> Option<Command> {
        self.step += 1;
        self.commands.remove(&self.step)
    }

    fn wait(&mut self) -> Command {
        panic!("nobody waits in a trial that trains alone")
    }

    fn ask(&mut self, _: Generation, _: StoreOp, _: Duration) -> Result<StoreValue, String> {
        Err("there is no store".to_owned())
    }

    fn post(&mut self, _: Generation, _: StoreOp) -> io::Result<u64> {
        Err(io::Error::other("there is no store"))
    }

    fn say(&mut self, line: FromTrainer) -> io::Result<()> {
        if let FromTrainer::Started { step, .. } = line {
            self.step = step;
        }
        self.lines.push(line);
        Ok(())
    }
}

/// A job on the made-up data that writes no checkpoint until it ends.
pub fn job(params: &Value, steps: u64, scratch: &Path) -> Job {
    let mut params = params.as_object().unwrap().clone();
    params.entry("batch_size").or_insert(json!(32));
    params.entry("validation_fraction").or_insert(json!(0.1));
    params.entry("report_every_steps").or_insert(json!(3));
    Job {
        trial: "test/7".parse().unwrap(),
        epoch: Epoch(1),
        train: json!({"model": null, "data": "synthetic", "length": {"steps": steps}, "seed": 11, "threads": 1}),
        params,
        device: DeviceName::new("cpu").unwrap(),
        data_dir: None,
        module: None,
        scratch_dir: scratch.to_owned(),
        checkpoint: CheckpointPolicy { every: Every::Steps(1_000_000), keep_last: 1 },
        resume: None,
        gang: None,
    }
}

/// Runs `job` under a script of commands.
pub fn run(job: &Job, commands: impl IntoIterator<Item = (u64, Command)>) -> Vec<FromTrainer> {
    run_with(&Registry::builtin(), job, commands)
}

/// The same by a trainer that has what `registry` has.
pub fn run_with(
    registry: &Registry,
    job: &Job,
    commands: impl IntoIterator<Item = (u64, Command)>,
) -> Vec<FromTrainer> {
    let mut script = Script { commands: commands.into_iter().collect(), ..Script::default() };
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Two registries may make different data of one name: nothing is carried from one to the other.
    let own = !registry.catalogue().is_empty();
    CACHE.with_borrow_mut(|cache| {
        if own {
            *cache = DataCache::default();
        }
        job::run(job, registry, cache, &mut script).unwrap();
    });
    script.lines
}

fn untimed(metrics: &Map<String, Value>) -> Map<String, Value> {
    let kept = metrics.iter().filter(|(name, _)| !TIMING_METRICS.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Every report by step, timings left out.
pub fn curve(lines: &[FromTrainer]) -> Vec<(u64, Map<String, Value>)> {
    lines
        .iter()
        .filter_map(|line| match line {
            FromTrainer::Report { step, metrics, .. } => Some((*step, untimed(metrics))),
            _ => None,
        })
        .collect()
}

/// The checkpoints in the order in which they came, and whether each was the last.
pub fn checkpoints(lines: &[FromTrainer]) -> Vec<(CheckpointFiles, bool)> {
    lines
        .iter()
        .filter_map(|line| match line {
            FromTrainer::Checkpoint { files, last, .. } => Some((files.clone(), *last)),
            _ => None,
        })
        .collect()
}

/// Runs `job` with a stop behind each of `stops`, each time going on from the checkpoint in a fresh session.
pub fn interrupted(job: &Job, stops: impl IntoIterator<Item = u64>) -> Vec<FromTrainer> {
    let mut job = job.clone();
    let mut all = Vec::new();
    for stop in stops {
        let scratch = job.scratch_dir.join(format!("attempt-{stop}"));
        fs::create_dir_all(&scratch).unwrap();
        let attempt = Job { scratch_dir: scratch, ..job.clone() };
        let lines = run(&attempt, [(stop, Command::Stop { checkpoint: true })]);
        assert_eq!(lines.last(), Some(&FromTrainer::Stopped { epoch: job.epoch, step: stop }));
        job.resume = Some(checkpoints(&lines).pop().unwrap().0);
        job.epoch = Epoch(job.epoch.0 + 1);
        all.extend(lines);
    }
    all.extend(run(&job, []));
    all
}

/// The files of the last checkpoint, which is of step `step`: parameters and buffers, then moments.
pub fn last(lines: &[FromTrainer], step: u64) -> (Vec<u8>, Vec<u8>) {
    let (files, last) = checkpoints(lines).pop().unwrap();
    assert!(last && files.step == step);
    (fs::read(files.weights).unwrap(), fs::read(files.state).unwrap())
}

/// How a finished job ended, timings left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    pub step: u64,
    pub metrics: Map<String, Value>,
    pub weights_digest: Digest,
}

pub fn finish(lines: &[FromTrainer]) -> Finish {
    match lines.last() {
        Some(FromTrainer::Done { step, metrics, weights_digest: Some(digest), .. }) => {
            Finish { step: *step, metrics: untimed(metrics), weights_digest: *digest }
        }
        other => panic!("not done: {other:?}"),
    }
}

pub fn failure(lines: &[FromTrainer]) -> (u64, FailureKind, String) {
    match lines.last() {
        Some(FromTrainer::Failed { step, reason, message, .. }) => (*step, *reason, message.clone()),
        other => panic!("not failed: {other:?}"),
    }
}
