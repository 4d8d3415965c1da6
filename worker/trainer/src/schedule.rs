//! The learning rate of each step: warm-up, then the schedule. Pure arithmetic; nothing to save.

use spotsweep_proto::train::ScheduleConfig;

/// The learning rate as a function of the step.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of linear rise before the schedule begins.
    pub warmup_steps: u64,
    /// What comes after the warm-up.
    pub shape: ScheduleConfig,
    /// Steps of one pass over the training split, at least 1.
    pub steps_per_epoch: u64,
    /// Steps of the whole trial.
    pub total_steps: u64,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    ///
    /// In the warm-up (Goyal et al., 2017) the rate rises by equal amounts and reaches the peak at its last step.
    /// The cosine (Loshchilov & Hutter, 2017, without restarts) begins at the peak behind the warm-up and reaches
    /// its final fraction at the trial's last step.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.shape {
            ScheduleConfig::Constant => self.peak,
            ScheduleConfig::Step { every_epochs, gamma } => {
                let epoch = step / self.steps_per_epoch.max(1);
                let drops = epoch / u64::from(every_epochs.max(1));
                self.peak * gamma.powi(i32::try_from(drops).unwrap_or(i32::MAX))
            }
            ScheduleConfig::Cosine { final_fraction } => {
                let steps = self.total_steps.saturating_sub(self.warmup_steps + 1);
                let progress = if steps == 0 {
                    0.0
                } else {
                    ((step - self.warmup_steps) as f64 / steps as f64).min(1.0)
                };
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                self.peak * (final_fraction + (1.0 - final_fraction) * cosine)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: ScheduleConfig, warmup_steps: u64) -> Schedule {
        Schedule { peak: 0.1, warmup_steps, shape, steps_per_epoch: 10, total_steps: 101 }
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn warm_up_rises_linearly_and_ends_at_the_peak() {
        let rate = schedule(ScheduleConfig::Constant, 4);
        for (step, want) in [(0, 0.025), (1, 0.05), (3, 0.1), (4, 0.1), (100, 0.1)] {
            near(rate.rate(step), want);
        }
    }

    #[test]
    fn steps_drop_by_gamma_at_the_end_of_their_epochs() {
        let rate = schedule(ScheduleConfig::Step { every_epochs: 2, gamma: 0.5 }, 0);
        for (step, want) in [(0, 0.1), (19, 0.1), (20, 0.05), (39, 0.05), (40, 0.025)] {
            near(rate.rate(step), want);
        }
    }

    #[test]
    fn a_cosine_begins_at_the_peak_and_ends_at_its_fraction() {
        let rate = schedule(ScheduleConfig::Cosine { final_fraction: 0.2 }, 0);
        for (step, want) in [(0, 0.1), (50, 0.06), (100, 0.02), (1000, 0.02)] {
            near(rate.rate(step), want);
        }
        let warm = schedule(ScheduleConfig::Cosine { final_fraction: 0.0 }, 10);
        for (step, want) in [(9, 0.1), (10, 0.1), (100, 0.0)] {
            near(warm.rate(step), want);
        }
    }

    #[test]
    fn a_trial_shorter_than_its_warm_up_still_has_a_rate() {
        let rate =
            Schedule { total_steps: 2, ..schedule(ScheduleConfig::Cosine { final_fraction: 0.0 }, 10) };
        near(rate.rate(1), 0.02);
        near(rate.rate(10), 0.1);
    }
}
