//! Training steps a second beside the same models in Python's torch, and what checkpoints cost.
//!
//! The trainer is driven over its line protocol, as an agent does. Both sides train the same shapes with one thread
//! and SGD with momentum, in turns within one run: the figure is the ratio of the medians.

use crate::{
    Scale,
    figures::{Figures, Target, median},
};
use anyhow::Context as _;
use serde_json::{Value, json};
use spotsweep_tests::binaries;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

/// Turns of each side.
const TURNS: usize = 3;
/// Seconds between two checkpoints where their cost is measured: far more often than anybody would write them.
const CHECKPOINT_EVERY_S: f64 = 2.0;

/// What is trained: name, parameters, steps, and the ratio that is wanted beside Python's f32.
const MODELS: [(&str, &str, &str, u32, f64); 3] = [
    ("mlp f32", "mlp", "f32", 4000, 1.0),
    ("cnn f32", "cnn", "f32", 200, 1.25),
    ("cnn bf16", "cnn", "bf16", 200, 2.0),
];

pub(crate) fn params(model: &str, precision: &str) -> Value {
    let mut params = json!({"batch_size": 64, "learning_rate": 0.01, "optimizer": "sgd", "momentum": 0.9,
        "dropout": 0.0, "precision": precision, "activation": "relu", "validation_fraction": 0.0});
    let shape = match model {
        "mlp" => json!({"hidden": [256]}),
        _ => json!({"channels": [32, 64], "dense": 512, "batch_norm": false}),
    };
    if let (Value::Object(params), Value::Object(shape)) = (&mut params, shape) {
        params.extend(shape);
    }
    params
}

/// Runs the comparisons for which there is what they need.
pub(crate) fn beside_python(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let Some(mut trainer) = Trainer::start()? else {
        eprintln!("no spotsweep-trainer beside this program: training is not measured");
        return Ok(());
    };
    let python = python();
    if python.is_none() {
        eprintln!("no Python with torch (SPOTSWEEP_BENCH_PYTHON=…): the trainer is measured alone");
    }
    for (what, model, precision, steps, wanted) in MODELS {
        let steps = scale.of(steps);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            ours.push(trainer.steps_per_second(model, precision, steps)?);
            if let Some(python) = &python {
                theirs.push(python_steps_per_second(python, model, steps)?);
            }
        }
        let ours = median(ours);
        figures.add(format!("{what}, one thread"), ours, "steps/s", None);
        if python.is_some() {
            let theirs = median(theirs);
            figures.add(format!("{model} f32 in Python's torch, one thread"), theirs, "steps/s", None);
            figures.add(
                format!("{what} beside Python's f32"),
                ours / theirs,
                "×",
                Some(Target::AtLeast(wanted)),
            );
        }
    }
    Ok(())
}

/// What checkpoints cost: seconds of a job with checkpoints over seconds of the same job without, in percent more.
pub(crate) fn checkpoint_overhead(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let Some(mut trainer) = Trainer::start()? else {
        eprintln!("no spotsweep-trainer beside this program: checkpoints are not measured");
        return Ok(());
    };
    for (model, steps) in [("mlp", 20_000), ("cnn", 500)] {
        let steps = scale.of(steps);
        let mut ratios = Vec::new();
        for _ in 0..TURNS {
            let without = trainer.train(model, "f32", steps, 1e6)?;
            let with = trainer.train(model, "f32", steps, CHECKPOINT_EVERY_S)?;
            ratios.push((with / without - 1.0) * 100.0);
        }
        let what = format!("checkpoint overhead, {model}, every {CHECKPOINT_EVERY_S} s");
        figures.add(what, median(ratios), "%", Some(Target::AtMost(3.5)));
    }
    Ok(())
}

/// The folder of Fashion-MNIST's files.
pub(crate) fn fashion_mnist() -> anyhow::Result<PathBuf> {
    let output = Command::new(binaries::spotsweep()).args(["data", "path", "fashion-mnist"]).output()?;
    anyhow::ensure!(output.status.success(), "Fashion-MNIST is not here: spotsweep data get fashion-mnist");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// A Python that has torch.
pub(crate) fn python() -> Option<PathBuf> {
    let named = std::env::var_os("SPOTSWEEP_BENCH_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let has_torch = Command::new(&python).args(["-c", "import torch"]).stderr(Stdio::null()).status();
    has_torch.is_ok_and(|status| status.success()).then_some(python)
}

fn python_steps_per_second(python: &PathBuf, model: &str, steps: u32) -> anyhow::Result<f64> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/python/steps.py");
    let mut command = Command::new(python);
    let output =
        command.arg(script).args([model, &steps.to_string(), "1"]).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the Python side ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// A trainer process, driven as an agent does.
struct Trainer {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    scratch: tempfile::TempDir,
    jobs: u32,
    data: PathBuf,
}

impl Trainer {
    fn start() -> anyhow::Result<Option<Self>> {
        let program = binaries::folder().join("spotsweep-trainer");
        if !program.exists() {
            return Ok(None);
        }
        let data = fashion_mnist()?;
        let mut process = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = process.stdin.take().context("stdin")?;
        let stdout = BufReader::new(process.stdout.take().context("stdout")?);
        let scratch = tempfile::tempdir_in(binaries::folder())?;
        let mut trainer = Self { process, stdin, stdout, scratch, jobs: 0, data };
        anyhow::ensure!(trainer.hear()?["type"] == "ready", "a trainer is ready first");
        Ok(Some(trainer))
    }

    fn hear(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        anyhow::ensure!(self.stdout.read_line(&mut line)? > 0, "the trainer ended");
        Ok(serde_json::from_str(&line)?)
    }

    /// Starts a job that reports `reports` times.
    fn job(
        &mut self,
        model: &str,
        precision: &str,
        steps: u32,
        reports: u32,
        every_s: f64,
    ) -> anyhow::Result<()> {
        self.jobs += 1;
        let scratch = self.scratch.path().join(self.jobs.to_string());
        std::fs::create_dir(&scratch)?;
        let mut params = params(model, precision);
        params["report_every_steps"] = (steps / reports).max(1).into();
        let job = json!({"type": "run", "trial": "bench/0", "epoch": self.jobs, "params": params, "device": "cpu",
            "train": {"model": model, "data": "fashion-mnist", "length": {"steps": steps}, "seed": 1, "threads": 1},
            "data_dir": self.data, "scratch_dir": scratch, "resume": null,
            "checkpoint": {"every": {"seconds": every_s}, "keep_last": 1}});
        writeln!(self.stdin, "{job}")?;
        Ok(self.stdin.flush()?)
    }

    /// Between the first report, at a tenth of the steps, and the last before the final evaluation.
    fn steps_per_second(&mut self, model: &str, precision: &str, steps: u32) -> anyhow::Result<f64> {
        self.job(model, precision, steps + steps / 5, 12, 1e6)?;
        let mut marks = Vec::new();
        loop {
            let message = self.hear()?;
            match message["type"].as_str() {
                Some("report") => marks.push((message["step"].as_u64().context("step")?, Instant::now())),
                Some("done") => break,
                Some("failed") => anyhow::bail!("the trainer failed: {message}"),
                _ => {}
            }
        }
        let interval = u64::from((steps + steps / 5) / 12);
        let first = marks.iter().find(|(step, _)| *step >= interval).context("a first report")?;
        let last = marks.iter().rev().find(|(step, _)| *step <= interval * 11).context("a last report")?;
        Ok((last.0 - first.0) as f64 / (last.1 - first.1).as_secs_f64())
    }

    /// Seconds of a whole job.
    fn train(&mut self, model: &str, precision: &str, steps: u32, every_s: f64) -> anyhow::Result<f64> {
        let start = Instant::now();
        self.job(model, precision, steps, 1, every_s)?;
        loop {
            let message = self.hear()?;
            match message["type"].as_str() {
                Some("done") => return Ok(start.elapsed().as_secs_f64()),
                Some("failed") => anyhow::bail!("the trainer failed: {message}"),
                _ => {}
            }
        }
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}
