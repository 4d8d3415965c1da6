//! Optimizers: the rule by which gradients change parameters, with state that can be saved and restored.
//!
//! The arithmetic of a step is libtorch's fused kernel, one pass over memory; the rule's constants and its state
//! are ours. One family a file. It must not know models or schedules.

pub mod adam;
pub mod clip;
pub mod sgd;

use crate::error::TrainError;
use spotsweep_proto::train::OptimizerConfig;
use tch::Tensor;

/// An optimizer over a fixed list of parameters.
pub trait Optimizer {
    /// Changes `params` in place by one step. Lists are in the order in which the optimizer was made; gradients
    /// are divided by `divide_by` first.
    ///
    /// # Errors
    /// What libtorch threw.
    fn step(
        &mut self,
        params: &[Tensor],
        grads: &[Tensor],
        learning_rate: f64,
        divide_by: Option<&Tensor>,
    ) -> Result<(), TrainError>;

    /// Its state: for each kind of moment a name and one tensor a parameter, shaped as the parameter is.
    fn moments(&self) -> Vec<(&'static str, &[Tensor])>;

    /// Tells it that `steps` steps lie behind it, after its moments were overwritten with saved ones.
    fn resume(&mut self, steps: u64);
}

/// Makes the optimizer that `config` describes, with fresh state for `params`.
#[must_use]
pub fn build(config: OptimizerConfig, params: &[Tensor]) -> Box<dyn Optimizer> {
    match config {
        OptimizerConfig::Sgd { momentum, nesterov, weight_decay } => {
            Box::new(sgd::Sgd::new(sgd::Constants { momentum, nesterov, weight_decay }, params))
        }
        OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay } => Box::new(adam::Adam::new(
            adam::Constants { beta1, beta2, epsilon, weight_decay, decoupled: false },
            params,
        )),
        OptimizerConfig::Adamw { beta1, beta2, epsilon, weight_decay } => Box::new(adam::Adam::new(
            adam::Constants { beta1, beta2, epsilon, weight_decay, decoupled: true },
            params,
        )),
    }
}

/// Zeros that lie in memory as each of `params` does.
fn zeros_like(params: &[Tensor]) -> Vec<Tensor> {
    tch::no_grad(|| params.iter().map(Tensor::zeros_like).collect())
}
