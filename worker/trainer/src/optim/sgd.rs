//! Stochastic gradient descent with momentum, in PyTorch's form of it.
//!
//! g ← ∇f(θ) + λθ;  m ← μm + g (m ← g at the first step);  θ ← θ − η·m, or θ − η·(g + μm) in Nesterov's form
//! (Sutskever, Martens, Dahl & Hinton, 2013, with the learning rate outside the momentum).

use super::{Optimizer, zeros_like};
use crate::error::TrainError;
use spotsweep_trainer_shim::{SgdStep, fused_sgd};
use tch::Tensor;

/// Constants of the rule.
#[derive(Debug, Clone, Copy)]
pub struct Constants {
    /// μ, in [0, 1).
    pub momentum: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// λ.
    pub weight_decay: f64,
}

/// The rule with its momentum.
#[derive(Debug)]
pub struct Sgd {
    constants: Constants,
    /// Empty if there is no momentum.
    momenta: Vec<Tensor>,
    steps: u64,
}

impl Sgd {
    /// Fresh state for `params`.
    #[must_use]
    pub fn new(constants: Constants, params: &[Tensor]) -> Self {
        let momenta = if constants.momentum > 0.0 { zeros_like(params) } else { Vec::new() };
        Self { constants, momenta, steps: 0 }
    }
}

impl Optimizer for Sgd {
    fn step(
        &mut self,
        params: &[Tensor],
        grads: &[Tensor],
        learning_rate: f64,
        divide_by: Option<&Tensor>,
    ) -> Result<(), TrainError> {
        let Constants { momentum, nesterov, weight_decay } = self.constants;
        let first = self.steps == 0;
        let step = SgdStep { learning_rate, momentum, weight_decay, nesterov, first };
        fused_sgd(params, grads, &self.momenta, step, divide_by)?;
        self.steps += 1;
        Ok(())
    }

    fn moments(&self) -> Vec<(&'static str, &[Tensor])> {
        if self.momenta.is_empty() { Vec::new() } else { vec![("momentum", &self.momenta)] }
    }

    fn resume(&mut self, steps: u64) {
        self.steps = steps;
    }
}
