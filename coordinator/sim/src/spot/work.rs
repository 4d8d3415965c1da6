//! What a trial takes, and what a machine does to it: the assumptions of a replay.

use spotsweep_engine::event::DeviceKind;
use spotsweep_proto::{
    catalogue,
    spec::{Every, SweepSpec},
    train::Length,
};

/// The interval that stands for `every: auto`, whose measured cost is not replayed: that of a checkpoint that costs 1 s
/// among losses every 3 h, √(2 · 1 · 10,800) (Young 1974), in seconds.
const AUTO_S: f64 = 147.0;

/// How long trials train, for want of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Duration {
    /// So many seconds a step; steps follow from the recipe.
    StepSeconds(f64),
    /// So many seconds a trial, in steps of one second at most.
    TrialSeconds(f64),
}

/// The assumptions. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// How long trials train.
    pub duration: Duration,
    /// From a machine's coming to the first step on it: boot, agent, trainer, data, checkpoint. Paid once a machine.
    pub recovery_s: f64,
    /// How long before a machine goes its worker is told; 0: never.
    pub notice_s: f64,
    /// When checkpoints are written; `None`: as the sweep file says.
    pub checkpoint: Option<Every>,
    /// Mean seconds of training between two failures of a trainer; `None`: it never fails.
    pub fail_every_s: Option<f64>,
    /// What every machine has.
    pub device: DeviceKind,
    /// Bytes of memory of the device.
    pub memory_bytes: u64,
    /// Most machines at once.
    pub workers: u32,
    /// Seed of the failures.
    pub seed: u64,
}

/// A trial's steps and what one takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Work {
    pub(super) steps: u64,
    pub(super) step_s: f64,
}

impl Duration {
    /// What trial `number` takes. A trial whose recipe has no length in steps counts as one step.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "of positive numbers; saturates by definition of `as`"
    )]
    pub(super) fn of_trial(self, spec: &SweepSpec, number: u32) -> Work {
        match self {
            Self::TrialSeconds(trial_s) => {
                let steps = trial_s.ceil().max(1.0) as u64;
                Work { steps, step_s: trial_s / steps as f64 }
            }
            Self::StepSeconds(step_s) => {
                let recipe = catalogue::resolve(&spec.train, &spec.assignment(number)).ok();
                let steps = recipe.map_or(1, |recipe| match recipe.length {
                    Length::Steps(steps) => steps,
                    Length::Epochs(epochs) => {
                        let samples = recipe.dataset().map_or(0, |data| data.train_samples);
                        let trained = f64::from(samples) * (1.0 - recipe.validation_fraction);
                        let per_epoch = (trained / f64::from(recipe.batch_size.max(1))).ceil() as u64;
                        u64::from(epochs) * per_epoch
                    }
                });
                Work { steps: steps.max(1), step_s }
            }
        }
    }
}

impl Work {
    /// Steps that are finished after so many seconds.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "of a positive number; saturates by definition of `as`"
    )]
    pub(super) fn steps_in(self, seconds: f64) -> u64 {
        // What is a step but for rounding is one.
        (seconds.max(0.0) / self.step_s + 1e-6) as u64
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    pub(super) fn seconds_of(self, steps: u64) -> f64 {
        steps as f64 * self.step_s
    }

    /// The newest step in a checkpoint after an attempt has trained for so many seconds from step `from`; `from` if
    /// there is none.
    pub(super) fn checkpointed(self, every: Every, from: u64, seconds: f64) -> u64 {
        let done = from + self.steps_in(seconds);
        match every {
            Every::Steps(n) => (done - done % n.max(1)).max(from),
            Every::Auto { min_s, max_s } => {
                self.checkpointed(Every::Seconds(AUTO_S.max(min_s).min(max_s)), from, seconds)
            }
            Every::Seconds(every_s) => {
                // Written at the end of the step in which the time is up.
                let due_s = (seconds.max(0.0) / every_s).floor() * every_s;
                let mut step = from + self.steps_in(due_s);
                if self.seconds_of(step - from) + 1e-6 < due_s {
                    step += 1;
                }
                step.min(done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_of_the_last_interval_that_was_over() {
        let work = Work { steps: 1000, step_s: 0.5 };
        assert_eq!(work.checkpointed(Every::Seconds(60.0), 100, 59.9), 100);
        assert_eq!(work.checkpointed(Every::Seconds(60.0), 100, 60.0), 220);
        assert_eq!(work.checkpointed(Every::Seconds(60.0), 100, 179.0), 340);
        assert_eq!(work.checkpointed(Every::Steps(30), 100, 0.0), 100);
        assert_eq!(work.checkpointed(Every::Steps(30), 100, 15.0), 120);
        let slow = Work { steps: 10, step_s: 45.0 };
        assert_eq!(
            slow.checkpointed(Every::Seconds(60.0), 0, 70.0),
            1,
            "the step in which it fell due goes on"
        );
        assert_eq!(slow.checkpointed(Every::Seconds(60.0), 0, 90.0), 2);
    }

    #[test]
    fn steps_follow_from_the_recipe() {
        let file = b"method: grid\nparameters: {model: {value: softmax}, batch_size: {values: [64, 128]}}\n\
                     train: {data: fashion-mnist, epochs: 2}\n";
        let spec = spotsweep_proto::spec::parse(file, "s.yaml").unwrap();
        let steps = |number| Duration::StepSeconds(0.01).of_trial(&spec, number).steps;
        let fraction = catalogue::resolve(&spec.train, &spec.assignment(0)).unwrap().validation_fraction;
        let per_epoch = |batch: f64| (60_000.0 * (1.0 - fraction) / batch).ceil() as u64;
        assert_eq!((steps(0), steps(1)), (2 * per_epoch(64.0), 2 * per_epoch(128.0)));
        assert_eq!(Duration::TrialSeconds(90.5).of_trial(&spec, 0).steps, 91);
    }
}
