//! Metrics of one moment of a trial, and the clock behind those that are timings.

use crate::{error::TrainError, meter::Tally};
use serde_json::{Map, Value};
use spotsweep_proto::metric::TIMING_METRICS;
use std::time::{Duration, Instant};

/// Name of the metric that [`TrainingClock`] gives.
const RATE: &str = TIMING_METRICS[0];
/// Name of the share of training's time that was spent in exchanges with other ranks.
const COMMUNICATION: &str = TIMING_METRICS[2];

/// Measures training without evaluation: since the last report, and in this attempt up to there.
pub(super) struct TrainingClock {
    pub(super) since: Instant,
    pub(super) samples: u64,
    total_seconds: f64,
    total_samples: u64,
}

impl TrainingClock {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, samples: 0, total_seconds: 0.0, total_samples: 0 }
    }

    /// Timings since the last report, of which ranks that are not alone have `exchanged` for that long. The next lap
    /// begins when `since` is set.
    pub(super) fn lap(&mut self, exchanged: Option<Duration>, found: &mut Found) {
        let seconds = self.since.elapsed().as_secs_f64();
        let samples = std::mem::take(&mut self.samples);
        self.total_seconds += seconds;
        self.total_samples += samples;
        if seconds > 0.0 {
            found.0.push((RATE, samples as f64 / seconds));
            let share = |spent: Duration| (spent.as_secs_f64() / seconds).min(1.0);
            found.0.extend(exchanged.map(|spent| (COMMUNICATION, share(spent))));
        }
    }

    /// Samples a second over all laps of this attempt, if it had any.
    pub(super) fn total(&self, found: &mut Found) {
        if self.total_seconds > 0.0 {
            found.0.push((RATE, self.total_samples as f64 / self.total_seconds));
        }
    }
}

/// The parts of a data set.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Train,
    Validation,
    Test,
}

impl Part {
    /// Its metrics: the mean loss and the accuracy.
    pub(super) fn names(self) -> [&'static str; 2] {
        match self {
            Self::Train => ["train_loss", "train_accuracy"],
            Self::Validation => ["val_loss", "val_accuracy"],
            Self::Test => ["test_loss", "test_accuracy"],
        }
    }
}

/// Metrics of one moment.
#[derive(Default)]
pub(super) struct Found(pub(super) Vec<(&'static str, f64)>);

impl Found {
    pub(super) fn add(&mut self, part: Part, tally: Tally) {
        let [loss, accuracy] = part.names();
        self.0.extend(tally.loss().map(|value| (loss, value)));
        self.0.extend(tally.accuracy().map(|value| (accuracy, value)));
    }

    /// Those that are no timings.
    pub(super) fn lasting(&self) -> impl Iterator<Item = (String, f64)> {
        let timings = |name: &str| TIMING_METRICS.contains(&name);
        self.0.iter().filter(move |m| !timings(m.0)).map(|&(name, value)| (name.to_owned(), value))
    }

    /// As JSON; a number that JSON does not have ends the attempt.
    pub(super) fn into_json(self, step: u64) -> Result<Map<String, Value>, TrainError> {
        self.0
            .into_iter()
            .map(|(name, value)| match serde_json::Number::from_f64(value) {
                Some(number) => Ok((name.to_owned(), Value::Number(number))),
                None => Err(TrainError::Diverged { step, loss: value as f32 }),
            })
            .collect()
    }
}
