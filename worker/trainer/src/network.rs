//! What is trained: a model with its parameters and its optimizer, and one step of training it.

use crate::{
    error::TrainError,
    models::{self, Model, Pass, Shape},
    optim::{self, Optimizer, clip},
    params::Params,
    seed::{Purpose, seed_torch},
};
use spotsweep_proto::train::TrainConfig;
use tch::{Device, Tensor};

/// A model, its parameters, its optimizer.
pub struct Network {
    /// The model.
    pub model: Box<dyn Model>,
    /// Parameters and buffers, as the model uses them.
    pub params: Params,
    /// The optimizer, over [`Network::trained`].
    pub optimizer: Box<dyn Optimizer>,
    trained: Vec<Tensor>,
    clip_norm: Option<f64>,
    seed: u64,
}

/// What a step leaves behind.
pub struct Outcome {
    /// Mean loss over the batch, before the step changed anything.
    pub loss: Tensor,
    /// The scores that gave it.
    pub scores: Tensor,
}

impl Network {
    /// A fresh network: the same bits for equal recipes.
    ///
    /// # Errors
    /// As [`models::build`].
    pub fn new(config: &TrainConfig, shape: Shape, device: Device) -> Result<Self, TrainError> {
        let mut params = Params::new(device, config.init, config.seed);
        let model = models::build(&config.model, shape, config.precision, &mut params)?;
        let trained = params.trained();
        let optimizer = optim::build(config.optimizer, &trained);
        Ok(Self { model, params, optimizer, trained, clip_norm: config.clip_norm, seed: config.seed })
    }

    /// Trains on one batch. `step` is counted from 0.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn train(
        &mut self,
        images: &Tensor,
        labels: &Tensor,
        step: u64,
        learning_rate: f64,
    ) -> Result<Outcome, TrainError> {
        if self.model.draws() {
            seed_torch(self.seed, Purpose::Dropout, step);
        }
        let scores = self.model.scores(images, Pass::Train);
        let loss = self.model.loss(&scores, labels);
        let grads = Tensor::f_run_backward(&[&loss], &self.trained, false, false)?;
        let divide_by = match self.clip_norm {
            Some(limit) => Some(clip::divisor(&grads, limit)?),
            None => None,
        };
        self.optimizer.step(&self.trained, &grads, learning_rate, divide_by.as_ref())?;
        Ok(Outcome { loss, scores })
    }
}
