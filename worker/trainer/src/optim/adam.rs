//! Adam (Kingma & Ba, 2015) and AdamW (Loshchilov & Hutter, 2019).
//!
//! m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²;  θ ← θ − η · m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ) and
//! v̂ = v / (1 − β₂ᵗ). Adam adds λθ to g; AdamW shrinks θ by ηλθ before the step instead.

use super::{Optimizer, zeros_like};
use crate::error::TrainError;
use spotsweep_trainer_shim::{AdamStep, fused_adam};
use tch::{Device, Kind, Tensor};

/// Constants of the rule.
#[derive(Debug, Clone, Copy)]
pub struct Constants {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
    /// Whether the decay is decoupled from the gradient: AdamW.
    pub decoupled: bool,
}

/// The rule with its moments.
#[derive(Debug)]
pub struct Adam {
    constants: Constants,
    firsts: Vec<Tensor>,
    seconds: Vec<Tensor>,
    /// t, as the kernel wants it: an f32 scalar on the parameters' device, exact up to 2²⁴ steps as in PyTorch.
    count: Tensor,
}

impl Adam {
    /// Fresh state for `params`.
    #[must_use]
    pub fn new(constants: Constants, params: &[Tensor]) -> Self {
        let device = params.first().map_or(Device::Cpu, Tensor::device);
        let count = Tensor::zeros([] as [i64; 0], (Kind::Float, device));
        Self { constants, firsts: zeros_like(params), seconds: zeros_like(params), count }
    }
}

impl Optimizer for Adam {
    fn step(
        &mut self,
        params: &[Tensor],
        grads: &[Tensor],
        learning_rate: f64,
        divide_by: Option<&Tensor>,
    ) -> Result<(), TrainError> {
        let Constants { beta1, beta2, epsilon, weight_decay, decoupled } = self.constants;
        let _ = self.count.f_add_scalar_(1.0)?;
        let step = AdamStep { learning_rate, beta1, beta2, epsilon, weight_decay, decoupled };
        fused_adam(params, grads, &self.firsts, &self.seconds, &self.count, step, divide_by)?;
        Ok(())
    }

    fn moments(&self) -> Vec<(&'static str, &[Tensor])> {
        vec![("exp_avg", &self.firsts), ("exp_avg_sq", &self.seconds)]
    }

    fn resume(&mut self, steps: u64) {
        let _ = self.count.fill_(steps as f64);
    }
}
