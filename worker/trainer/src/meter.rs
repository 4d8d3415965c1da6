//! Training loss and accuracy since the last report, and the watch for a loss that is no number any more.
//!
//! Reading a loss from a GPU waits for it, so steps are looked at in small groups; sums are kept in f64 and in
//! the order of the steps, so that the grouping changes no bit. The sums are part of a checkpoint.

use crate::{error::TrainError, models::Model};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Sums over samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Of losses.
    pub loss_sum: f64,
    /// Samples classified rightly.
    pub correct: u64,
    /// Samples.
    pub samples: u64,
}

impl Tally {
    /// Mean loss; `None` over no samples.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.loss_sum / self.samples as f64)
    }

    /// Share classified rightly, in [0, 1]; `None` over no samples.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.correct as f64 / self.samples as f64)
    }
}

/// What a step leaves to be looked at.
#[derive(Debug)]
struct Pending {
    /// Counted from 1.
    step: u64,
    loss: Tensor,
    scores: Tensor,
    labels: Tensor,
}

/// Steps that are looked at together.
const GROUP: usize = 16;

/// Watches training.
#[derive(Debug, Default)]
pub struct Meter {
    tally: Tally,
    pending: Vec<Pending>,
}

impl Meter {
    /// Goes on from saved sums.
    #[must_use]
    pub fn resume(tally: Tally) -> Self {
        Self { tally, pending: Vec::new() }
    }

    /// Takes the outcome of step `step`, counted from 1.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] for this step or one a few steps before, whose loss is not finite.
    pub fn push(
        &mut self,
        step: u64,
        loss: &Tensor,
        scores: &Tensor,
        labels: &Tensor,
        model: &dyn Model,
    ) -> Result<(), TrainError> {
        let labels = labels.shallow_clone();
        self.pending.push(Pending { step, loss: loss.detach(), scores: scores.detach(), labels });
        if self.pending.len() >= GROUP { self.settle(model) } else { Ok(()) }
    }

    /// Takes the sums of step `step`, counted from 1, over all its shards: `losses` holds each shard's sum of losses.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if one of them is not finite.
    pub fn push_shards(
        &mut self,
        step: u64,
        losses: &[f32],
        correct: u64,
        samples: u64,
    ) -> Result<(), TrainError> {
        if let Some(&loss) = losses.iter().find(|loss| !loss.is_finite()) {
            return Err(TrainError::Diverged { step, loss });
        }
        self.tally.loss_sum += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        self.tally.correct += correct;
        self.tally.samples += samples;
        Ok(())
    }

    /// Whether a step was taken since the last [`Meter::reset`].
    #[must_use]
    pub fn has_steps(&self) -> bool {
        self.tally.samples > 0 || !self.pending.is_empty()
    }

    /// Looks at every step so far. Call it before anything that these steps made is believed.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] names the first step whose loss is not finite.
    pub fn settle(&mut self, model: &dyn Model) -> Result<(), TrainError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let losses: Vec<_> = pending.iter().map(|p| &p.loss).collect();
        let losses: Vec<f32> = Vec::try_from(Tensor::f_stack(&losses, 0)?.f_to_device(Device::Cpu)?)?;
        for (at, &loss) in pending.iter().zip(&losses) {
            if !loss.is_finite() {
                return Err(TrainError::Diverged { step: at.step, loss });
            }
            let samples = at.labels.numel() as u64;
            self.tally.loss_sum += f64::from(loss) * samples as f64;
            self.tally.samples += samples;
        }
        let scores: Vec<_> = pending.iter().map(|p| &p.scores).collect();
        let labels: Vec<_> = pending.iter().map(|p| &p.labels).collect();
        let correct = model.correct(&Tensor::f_cat(&scores, 0)?, &Tensor::f_cat(&labels, 0)?);
        self.tally.correct += correct.f_to_kind(Kind::Int64)?.f_int64_value(&[])?.unsigned_abs();
        Ok(())
    }

    /// The sums over all settled steps since the last [`Meter::reset`].
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Starts over, behind a report.
    pub fn reset(&mut self) {
        self.tally = Tally::default();
    }
}
