//! The toy model: logistic regression by SGD with momentum on samples drawn from (seed, step).

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value};
use spotsweep_proto::{
    digest::Digest,
    line::weights_digest,
    train::{OptimizerConfig, TrainConfig},
};
use std::borrow::Cow;

/// Weights of the toy.
pub const WIDTH: usize = 32;
/// Samples a step.
const BATCH: usize = 8;

/// The model and all of its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Toy {
    /// Of everything random.
    pub seed: u64,
    /// Of the optimizer.
    pub learning_rate: f64,
    /// Of the optimizer.
    pub momentum: f64,
    /// Finished steps.
    pub step: u64,
    /// `[WIDTH]`.
    pub weights: Vec<f64>,
    /// `[WIDTH]`.
    pub velocity: Vec<f64>,
    /// Sum of the losses of all steps.
    pub loss_sum: f64,
}

impl Toy {
    /// At step 0.
    pub fn new(config: &TrainConfig) -> Self {
        let momentum = match config.optimizer {
            OptimizerConfig::Sgd { momentum, .. } => momentum,
            OptimizerConfig::Adam { beta1, .. } | OptimizerConfig::Adamw { beta1, .. } => beta1,
        };
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let weights = (0..WIDTH).map(|_| uniform(&mut random) * 0.1).collect();
        Self {
            seed: config.seed,
            learning_rate: config.learning_rate,
            momentum,
            step: 0,
            weights,
            velocity: vec![0.0; WIDTH],
            loss_sum: 0.0,
        }
    }

    /// One step of SGD.
    pub fn train_step(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ self.step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut gradient = [0.0; WIDTH];
        for _ in 0..BATCH {
            let x: [f64; WIDTH] = std::array::from_fn(|_| uniform(&mut random));
            let label = f64::from(x[0] + x[1] * x[2] > 0.0);
            let logit: f64 = x.iter().zip(&self.weights).map(|(x, w)| x * w).sum();
            let p = 1.0 / (1.0 + (-logit).exp());
            self.loss_sum -= (if label > 0.5 { p } else { 1.0 - p }).ln() / BATCH as f64;
            for (g, x) in gradient.iter_mut().zip(x) {
                *g += (p - label) * x / BATCH as f64;
            }
        }
        for ((w, v), g) in self.weights.iter_mut().zip(&mut self.velocity).zip(gradient) {
            *v = self.momentum * *v + g;
            *w -= self.learning_rate * *v;
        }
        self.step += 1;
    }

    /// As the ladder reports them.
    pub fn metrics(&self) -> Map<String, Value> {
        let train_loss = self.loss_sum / self.step.max(1) as f64;
        let norm = self.weights.iter().map(|w| w * w).sum::<f64>().sqrt();
        super::metric_map(&[
            ("train_loss", train_loss),
            ("val_loss", train_loss + 0.01 * norm),
            ("val_accuracy", 1.0 / (1.0 + train_loss)),
        ])
    }

    /// Of the weights.
    pub fn weights_digest(&self) -> Digest {
        let bytes: Vec<u8> = self.weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        weights_digest([("toy.weight", "F64", [WIDTH].as_slice(), Cow::from(bytes))])
    }
}

/// In [-1, 1).
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    f64::from(random.next_u32()) / f64::from(1_u32 << 31) - 1.0
}
