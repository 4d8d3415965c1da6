//! The model that trains nothing: for measuring everything but training. It writes no checkpoints, having
//! nothing to keep, and starts again from the beginning.

use crate::{
    error::TrainError,
    job::{Command, Host, Progress},
};
use serde_json::{Map, Value};
use spotsweep_proto::{
    line::{FromTrainer, weights_digest},
    train::{Length, TrainConfig},
};

/// Finishes all steps at once, with a report at each multiple of `report_every_steps` that falls with the steps
/// as a loss might.
///
/// # Errors
/// [`TrainError::HostGone`].
pub fn run(config: &TrainConfig, host: &mut dyn Host, progress: &Progress) -> Result<(), TrainError> {
    let total = match config.length {
        Length::Steps(steps) => steps,
        Length::Epochs(epochs) => u64::from(epochs),
    };
    let epoch = progress.epoch;
    say(host, FromTrainer::Started { epoch, step: 0, total_steps: Some(total) })?;
    for step in 1..=total {
        progress.finished_steps.set(step);
        if config.report_every_steps > 0 && step % config.report_every_steps == 0 {
            say(host, FromTrainer::Report { epoch, step, data_epoch: step as f64, metrics: metrics(step) })?;
        }
        if let Some(Command::Stop { .. }) = host.poll() {
            return say(host, FromTrainer::Stopped { epoch, step });
        }
    }
    let weights_digest = Some(weights_digest([]));
    say(host, FromTrainer::Done { epoch, step: total, metrics: metrics(total), weights_digest })
}

fn metrics(step: u64) -> Map<String, Value> {
    Map::from_iter([("train_loss".to_owned(), Value::from(1.0 / (1.0 + step as f64)))])
}

fn say(host: &mut dyn Host, line: FromTrainer) -> Result<(), TrainError> {
    host.say(line).map_err(TrainError::HostGone)
}
