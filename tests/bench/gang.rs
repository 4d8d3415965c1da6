//! One trial on two ranks of this machine: steps a second beside PyTorch's DistributedDataParallel over Gloo, and how
//! soon a gang that loses a rank to kill -9 goes on.
//!
//! Trainers are driven over their line protocol by the hub of the trainer's own tests: no agent, no coordinator.

use crate::{
    Scale,
    figures::{Figures, Target, median},
    training::{fashion_mnist, params, python},
};
use anyhow::Context as _;
use hub::Hub;
use serde_json::{Value, json};
use spotsweep_proto::line::{FromTrainer, Job};
use spotsweep_tests::binaries;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

#[path = "../../worker/trainer/tests/hub/mod.rs"]
pub(crate) mod hub;

/// Turns of each side.
const TURNS: usize = 3;
/// Samples a step of both ranks together.
const BATCH: u32 = 128;
/// Kills whose recovery is measured.
const KILLS: u32 = 20;

/// Steps a second of two ranks with one thread each, in turns with the same in Python.
pub(crate) fn beside_python(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let Some(program) = trainer() else { return Ok(()) };
    let python = python();
    if python.is_none() {
        eprintln!("no Python with torch (SPOTSWEEP_BENCH_PYTHON=…): gangs are measured alone");
    }
    for (model, steps) in [("mlp", 2000), ("cnn", 100)] {
        let steps = scale.of(steps);
        let (mut alone, mut fast, mut exact, mut theirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            alone.push(steps_per_second(&program, model, steps, 1, true)?);
            exact.push(steps_per_second(&program, model, steps, 2, true)?);
            fast.push(steps_per_second(&program, model, steps, 2, false)?);
            if let Some(python) = &python {
                theirs.push(of_python(python, model, steps)?);
            }
        }
        let (alone, fast, exact) = (median(alone), median(fast), median(exact));
        figures.add(format!("{model}, two shards on one rank"), alone, "steps/s", None);
        figures.add(format!("{model}, two ranks, exact"), exact, "steps/s", None);
        figures.add(format!("{model}, two ranks, fast"), fast, "steps/s", None);
        if python.is_some() {
            let theirs = median(theirs);
            figures.add(format!("{model}, DistributedDataParallel, two ranks"), theirs, "steps/s", None);
            for (what, ours, wanted) in [("exact", exact, 0.8), ("fast", fast, 1.0)] {
                let what = format!("{model}, {what} beside DistributedDataParallel");
                figures.add(what, ours / theirs, "×", Some(Target::AtLeast(wanted)));
            }
        }
    }
    Ok(())
}

/// Time from kill -9 of one of three ranks to the next step of the others, who are told at once.
pub(crate) fn recovery(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let Some(program) = trainer() else { return Ok(()) };
    let scratch = tempfile::tempdir_in(binaries::folder())?;
    let mut job = job("mlp", 10_000_000, 1, scratch.path())?;
    job.train["shards"] = json!(4);
    let mut hub = Hub::new(program, job, hub::PATIENT_MS);
    let mut members = hub.start_many(3);
    hub.gather(&members);
    let mut seconds = Vec::new();
    for kill in 0..scale.of(KILLS) {
        let newest = *members.last().context("a gang")?;
        let formed = |line: &FromTrainer| matches!(line, FromTrainer::GangFormed { .. });
        hub.until(|who, line| who == newest && formed(line));
        let is_report = |line: &FromTrainer| matches!(line, FromTrainer::Report { .. });
        hub.until(|who, line| who == newest && is_report(line));
        let victim = members.remove(kill as usize % members.len());
        let killed = Instant::now();
        hub.kill_9(victim);
        hub.drive(|who, line| who == members[0] && formed(line));
        hub.until(|who, line| who == members[0] && is_report(line));
        seconds.push(killed.elapsed().as_secs_f64());
        members.push(hub.start());
        hub.gather(&members);
    }
    let worst = seconds.iter().copied().fold(0.0, f64::max);
    figures.add("kill -9 of a rank to the next step of the others, median", median(seconds), "s", None);
    figures.add("kill -9 of a rank to the next step of the others, worst", worst, "s", None);
    Ok(())
}

pub(crate) fn trainer() -> Option<PathBuf> {
    let program = binaries::folder().join("spotsweep-trainer");
    if program.exists() {
        return Some(program);
    }
    eprintln!("no spotsweep-trainer beside this program: gangs are not measured");
    None
}

pub(crate) fn job(model: &str, steps: u32, report_every: u32, scratch: &Path) -> anyhow::Result<Job> {
    let mut params = params(model, "f32");
    params["batch_size"] = BATCH.into();
    params["report_every_steps"] = report_every.max(1).into();
    Ok(serde_json::from_value(json!({"trial": "bench/0", "epoch": 1, "params": params, "device": "cpu",
        "train": {"model": model, "data": "fashion-mnist", "length": {"steps": steps}, "seed": 1, "threads": 1,
            "shards": 2},
        "data_dir": fashion_mnist()?, "scratch_dir": scratch, "resume": null,
        "checkpoint": {"every": {"seconds": 1e6}, "keep_last": 1}}))?)
}

/// Between the first report, at a tenth of the steps, and the last before the final evaluation.
fn steps_per_second(
    program: &Path,
    model: &str,
    steps: u32,
    ranks: usize,
    exact: bool,
) -> anyhow::Result<f64> {
    let scratch = tempfile::tempdir_in(binaries::folder())?;
    let interval = (steps / 10).max(1);
    let mut job = job(model, interval * 12, interval, scratch.path())?;
    job.train["exact"] = Value::from(exact);
    let mut hub = Hub::new(program, job, hub::PATIENT_MS);
    let members = hub.start_many(ranks);
    hub.gather(&members);
    let mut marks = Vec::new();
    while marks.len() < 11 {
        if let (0, FromTrainer::Report { step, .. }) = hub.next() {
            marks.push((step, Instant::now()));
        }
    }
    let ((first, begun), (last, ended)) = (marks[0], marks[10]);
    Ok((last - first) as f64 / (ended - begun).as_secs_f64())
}

fn of_python(python: &Path, model: &str, steps: u32) -> anyhow::Result<f64> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/python/ranks.py");
    let mut command = Command::new(python);
    command.args(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]);
    command.arg(script).args([model, &steps.to_string(), &BATCH.to_string()]);
    let output = command.env("OMP_NUM_THREADS", "1").stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the Python side ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
