//! The toy trainer: the line protocol in [`serve`], the toy model in [`model`], a rank of a gang in [`rank`],
//! misbehaviour in [`fault`].

pub mod fault;
pub mod files;
pub mod model;
pub mod rank;

use fault::{Fault, Faults};
use model::Toy;
use rank::{End, Lost, Rank, Why};
use serde_json::{Map, Value};
use spotsweep_proto::{
    catalogue,
    ids::{DeviceName, Epoch},
    line::{CheckpointFiles, FailureKind, FromTrainer, Job, PROTOCOL_VERSION, ToTrainer, TrainerDevice},
    spec::{Every, TrainSection},
    train::{Length, TrainConfig},
    value::Assignment,
};
use std::{
    io::{BufRead as _, Write as _},
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

/// Steps of what the sweep file calls an epoch.
const STEPS_PER_EPOCH: u64 = 50;
/// Steps between two reports.
const REPORT_EVERY: u64 = 10;

/// Takes jobs until told to exit; gives the exit status.
pub fn serve() -> i32 {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line) {
                Ok(message) => drop(sender.send(message)),
                Err(error) => {
                    eprintln!("stub-trainer: {error} in a line of {} bytes", line.len());
                    std::process::exit(2);
                }
            }
        }
        // The agent is gone: whatever runs is no longer wanted.
        std::process::exit(0);
    });
    say(&FromTrainer::Ready {
        protocol: PROTOCOL_VERSION,
        trainer: format!("stub-trainer {}", env!("CARGO_PKG_VERSION")),
        libtorch: String::new(),
        devices: vec![TrainerDevice {
            name: DeviceName::new("cpu").expect("a device name"),
            model: "toy".to_owned(),
            memory_bytes: 1 << 30,
        }],
        catalogue: None,
    });
    while let Ok(message) = lines.recv() {
        match message {
            ToTrainer::Run(job) => run(&job, &lines),
            ToTrainer::Stop { .. }
            | ToTrainer::Checkpoint { .. }
            | ToTrainer::Gang { .. }
            | ToTrainer::Data { .. }
            | ToTrainer::StoreReply { .. } => {}
            ToTrainer::Exit => return 0,
        }
    }
    0
}

fn say(message: &FromTrainer) {
    let line = serde_json::to_string(message).expect("messages have a JSON form");
    let mut stdout = std::io::stdout().lock();
    // Nobody to say it to is nothing to report: the reader thread ends the process.
    let _gone = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// The parts of a recipe that the toy understands.
fn recipe(job: &Job) -> Result<TrainConfig, String> {
    let train: TrainSection = serde_json::from_value(job.train.clone()).map_err(|error| error.to_string())?;
    let params = Assignment::from_json(&job.params)?;
    catalogue::resolve(&train, &params).map_err(|error| error.to_string())
}

fn run(job: &Job, lines: &Receiver<ToTrainer>) {
    let epoch = job.epoch;
    let fail = |step, reason, message| say(&FromTrainer::Failed { epoch, step, reason, message });
    let config = match recipe(job) {
        Ok(config) => config,
        Err(message) => return fail(0, FailureKind::Config, message),
    };
    let mut toy = Toy::new(&config);
    if let Some(files) = &job.resume {
        toy = match files::read(files, &config) {
            Ok(toy) => toy,
            Err(message) => return fail(0, FailureKind::Checkpoint, message),
        };
    }
    let total = match config.length {
        Length::Epochs(epochs) => u64::from(epochs) * STEPS_PER_EPOCH,
        Length::Steps(steps) => steps,
    };
    let stopped = |step| say(&FromTrainer::Stopped { epoch, step });
    let mut rank = job.gang.clone().map(|roster| Rank::new(epoch, roster, total, lines));
    match &mut rank {
        None => say(&FromTrainer::Started { epoch, step: toy.step, total_steps: Some(total) }),
        Some(rank) => {
            if rank.enter(&mut toy, Why::First).is_err() {
                return stopped(toy.step);
            }
        }
    }
    let faults = Faults::from_environment(job.trial.number);
    let pace = std::env::var("SPOTSWEEP_STUB_STEP_US")
        .ok()
        .and_then(|text| text.parse().ok())
        .map(Duration::from_micros);
    let late = std::env::var_os("SPOTSWEEP_STUB_LATE").is_some();
    let mut untold = None;
    let mut last_checkpoint = (toy.step, Instant::now());
    loop {
        if toy.step >= total {
            match &mut rank {
                // Another says that it is done; this one is there in case that fails.
                Some(rank) if !rank.is_first() || rank.knows_newer() => {
                    if rank.wait().and_then(|()| rank.enter(&mut toy, Why::Newer)).is_err() {
                        return stopped(toy.step);
                    }
                    continue;
                }
                Some(_) | None => break,
            }
        }
        match faults.at(toy.step) {
            None => {}
            Some(Fault::Diverge) => {
                return fail(toy.step, FailureKind::Diverged, "the loss is NaN".to_owned());
            }
            Some(Fault::OutOfMemory) => {
                return fail(toy.step, FailureKind::OutOfMemory, "planned".to_owned());
            }
            Some(fault) => fault.act(epoch),
        }
        let mut changes_over = false;
        if let Some(rank) = &mut rank {
            let formed = match rank.step(toy.step) {
                Ok(change) => {
                    changes_over = change;
                    Ok(true)
                }
                Err(Lost::End(end)) => Err(end),
                Err(Lost::Peer(message)) => rank.enter(&mut toy, Why::Lost(message)).map(|()| false),
            };
            match formed {
                Ok(true) => {}
                // The step is thrown away.
                Ok(false) => continue,
                Err(end) => {
                    if end == (End::Stop { checkpoint: true }) && rank.is_first() {
                        untold.iter().for_each(say);
                        checkpoint(job, &toy, false).iter().for_each(say);
                    }
                    return stopped(toy.step);
                }
            }
        }
        toy.train_step();
        if let Some(pace) = pace {
            std::thread::sleep(pace);
        }
        if is_reported(toy.step, total) {
            say(&report(epoch, &toy));
            if let Some(message) = untold.take() {
                say(&message);
            }
        }
        let due = match job.checkpoint.every {
            Every::Steps(steps) => toy.step - last_checkpoint.0 >= steps,
            Every::Seconds(seconds) | Every::Auto { min_s: _, max_s: seconds } => {
                last_checkpoint.1.elapsed().as_secs_f64() >= seconds
            }
        };
        let keeps = rank.as_ref().is_none_or(Rank::is_first);
        let owed = rank.as_mut().is_some_and(Rank::take_owed_checkpoint);
        if (due || owed) && keeps && toy.step < total {
            last_checkpoint = (toy.step, Instant::now());
            match checkpoint(job, &toy, false) {
                message if late => untold = message,
                message => message.iter().for_each(say),
            }
        }
        while let Ok(message) = lines.try_recv() {
            match message {
                ToTrainer::Stop { epoch: meant, checkpoint: wanted } if meant == epoch => {
                    untold.iter().for_each(say);
                    if wanted && keeps {
                        checkpoint(job, &toy, false).iter().for_each(say);
                    }
                    return stopped(toy.step);
                }
                ToTrainer::Checkpoint { epoch: meant } if meant == epoch && keeps => {
                    untold.take().iter().for_each(say);
                    checkpoint(job, &toy, false).iter().for_each(say);
                }
                ToTrainer::Gang { epoch: meant, roster } if meant == epoch => {
                    if let Some(rank) = &mut rank {
                        rank.offer(roster);
                    }
                }
                ToTrainer::Exit => std::process::exit(0),
                ToTrainer::Stop { .. }
                | ToTrainer::Checkpoint { .. }
                | ToTrainer::Gang { .. }
                | ToTrainer::Data { .. }
                | ToTrainer::StoreReply { .. }
                | ToTrainer::Run(_) => {}
            }
        }
        if changes_over
            && let Some(rank) = &mut rank
            && rank.enter(&mut toy, Why::Newer).is_err()
        {
            return stopped(toy.step);
        }
    }
    untold.iter().for_each(say);
    checkpoint(job, &toy, true).iter().for_each(say);
    say(&FromTrainer::Done {
        epoch,
        step: toy.step,
        metrics: toy.metrics(),
        weights_digest: Some(toy.weights_digest()),
    });
}

fn is_reported(step: u64, total_steps: u64) -> bool {
    step.is_multiple_of(REPORT_EVERY) || step == total_steps
}

fn report(epoch: Epoch, toy: &Toy) -> FromTrainer {
    FromTrainer::Report { epoch, step: toy.step, data_epoch: data_epoch(toy), metrics: toy.metrics() }
}

#[expect(clippy::cast_precision_loss, reason = "steps of a toy")]
fn data_epoch(toy: &Toy) -> f64 {
    toy.step as f64 / STEPS_PER_EPOCH as f64
}

/// Writes a checkpoint; gives what is to be said of it.
fn checkpoint(job: &Job, toy: &Toy, last: bool) -> Option<FromTrainer> {
    let at = |part: &str| job.scratch_dir.join(format!("{}-{last}-{part}.safetensors", toy.step));
    let files = CheckpointFiles::new(toy.step, at("weights"), at("state"));
    match files::write(&files, toy) {
        Ok(()) => Some(FromTrainer::Checkpoint { epoch: job.epoch, files, last, held_up_s: None }),
        Err(error) => {
            eprintln!("stub-trainer: no checkpoint at step {}: {error}", toy.step);
            None
        }
    }
}

/// Metrics by name as the protocol carries them.
fn metric_map(metrics: &[(&str, f64)]) -> Map<String, Value> {
    metrics.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
}
