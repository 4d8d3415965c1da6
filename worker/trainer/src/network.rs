//! What is trained: a model with its parameters and its optimizer, and one step of training it: whole, or in two halves,
//! between which what all shards contribute is added up.

use crate::{
    contribution::{Layout, Row},
    error::TrainError,
    gang::exchange::Exchange,
    models::{self, Model, Pass, Shape},
    optim::{self, Optimizer, clip},
    params::Params,
    registry::Registry,
    seed::{Origin, Purpose, seed_torch},
};
use spotsweep_proto::train::{ModelConfig, TrainConfig};
use std::path::Path;
use tch::{Device, Kind, Reduction, Tensor};

/// A model, its parameters, its optimizer.
pub struct Network {
    /// The model.
    pub model: Box<dyn Model>,
    /// Parameters and buffers, as the model uses them.
    pub params: Params,
    /// The optimizer, over [`Network::trained`].
    pub optimizer: Box<dyn Optimizer>,
    trained: Vec<Tensor>,
    buffers: Vec<Tensor>,
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
    /// A fresh network: the same bits for equal recipes. `module` is the file of its model, where that is a module.
    ///
    /// # Errors
    /// As [`models::build`], and [`TrainError::Config`] if it cannot be trained in shards.
    pub fn new(
        config: &TrainConfig,
        (registry, module): (&Registry, Option<&Path>),
        shape: Shape,
        device: Device,
    ) -> Result<Self, TrainError> {
        let mut params = Params::new(device, config.init, config.seed);
        let models = (registry, module);
        let model = models::build(&config.model, shape, config.precision, models, &mut params)?;
        can_be_sharded(config, &params)?;
        let trained = params.trained();
        let buffers = params.buffers();
        let optimizer = optim::build(config.optimizer, &trained);
        Ok(Self {
            model,
            params,
            optimizer,
            trained,
            buffers,
            clip_norm: config.clip_norm,
            seed: config.seed,
        })
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
        let loss = self.model.loss(&scores, labels, Reduction::Mean);
        let grads = Tensor::f_run_backward(&[&loss], &self.trained, false, false)?;
        let divide_by = match self.clip_norm {
            Some(limit) => Some(clip::divisor(&grads, limit)?),
            None => None,
        };
        self.optimizer.step(&self.trained, &grads, learning_rate, divide_by.as_ref())?;
        Ok(Outcome { loss, scores })
    }

    /// Writes into `row` what a shard contributes to step `step`, counted from 0: sums over its samples, of which there
    /// is one at least. Batch normalisation sees this shard alone (ghost batch norm: Hoffer, Hubara & Soudry, 2017); its
    /// running statistics are left as this shard would have them.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn contribute(
        &mut self,
        batch: &Batch<'_>,
        step: u64,
        layout: &Layout,
        row: &Row,
    ) -> Result<(), TrainError> {
        let (loss, correct) = self.forward(batch, step)?;
        let grads = Tensor::f_run_backward(&[&loss], &self.trained, false, false)?;
        let _no_grad = tch::no_grad_guard();
        for (view, grad) in row.grads.iter().zip(&grads) {
            view.shallow_clone().f_copy_(grad)?;
        }
        let samples = batch.labels.numel() as f64;
        for (view, buffer) in row.buffers.iter().zip(&self.buffers) {
            view.shallow_clone().f_copy_(&buffer.f_mul_scalar(samples)?)?;
        }
        row.clear_tail()?;
        layout.tell(row, batch.shard, &loss.detach(), &correct)
    }

    /// Adds to `row` what a shard contributes, and has `exchange` add up the row over all ranks meanwhile: gradients go on
    /// their way while those of earlier layers are still computed. Without a batch the row goes as it is.
    ///
    /// # Errors
    /// What libtorch threw, or [`TrainError::Peer`] if another rank is gone.
    pub fn contribute_last(
        &mut self,
        batch: Option<&Batch<'_>>,
        step: u64,
        layout: &Layout,
        row: &Row,
        exchange: &mut Exchange,
    ) -> Result<(), TrainError> {
        let Some(batch) = batch else {
            let under_way = exchange.overlap(row, layout, &self.trained)?;
            return exchange.wait_for(under_way);
        };
        let (loss, correct) = self.forward(batch, step)?;
        tch::no_grad(|| {
            let samples = batch.labels.numel() as f64;
            for (view, buffer) in row.buffers.iter().zip(&self.buffers) {
                let _ = view.shallow_clone().f_add_(&buffer.f_mul_scalar(samples)?)?;
            }
            layout.tell(row, batch.shard, &loss.detach(), &correct)
        })?;
        let under_way = exchange.overlap(row, layout, &self.trained)?;
        let _grads = Tensor::f_run_backward(&[&loss], &self.trained, false, false)?;
        exchange.wait_for(under_way)
    }

    /// The sum of losses of a shard's batch, and how many of it are classified rightly.
    fn forward(&mut self, batch: &Batch<'_>, step: u64) -> Result<(Tensor, Tensor), TrainError> {
        if self.model.draws() {
            seed_torch(batch.origin, Purpose::Dropout, step);
        }
        let scores = self.model.scores(batch.images, Pass::Train);
        let loss = self.model.loss(&scores, batch.labels, Reduction::Sum);
        Ok((loss, self.model.correct(&scores.detach(), batch.labels)))
    }

    /// A copy of the running statistics.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn statistics(&self) -> Result<Vec<Tensor>, TrainError> {
        Ok(self.buffers.iter().map(Tensor::f_detach_copy).collect::<Result<_, _>>()?)
    }

    /// Overwrites the running statistics.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn set_statistics(&self, values: &[Tensor]) -> Result<(), TrainError> {
        for (buffer, value) in self.buffers.iter().zip(values) {
            buffer.shallow_clone().f_copy_(value)?;
        }
        Ok(())
    }

    /// Takes the step for which `sum` holds what all shards have contributed, over `samples` samples.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn apply(&mut self, sum: &Row, samples: u64, learning_rate: f64) -> Result<(), TrainError> {
        let samples = samples as f64;
        let divide_by = match self.clip_norm {
            Some(limit) => clip::divisor(&sum.grads, limit * samples)?.f_mul_scalar(samples)?,
            None => Tensor::f_full([] as [i64; 0], samples, (Kind::Float, self.params.device()))?,
        };
        for (buffer, total) in self.buffers.iter().zip(&sum.buffers) {
            buffer.shallow_clone().f_copy_(&total.f_div_scalar(samples)?)?;
        }
        self.optimizer.step(&self.trained, &sum.grads, learning_rate, Some(&divide_by))
    }
}

/// Whether shards of `config` may each have a pass of their own over the network. What a module does to its buffers, nobody
/// knows who adds them up; running statistics of the built-in models are averaged.
fn can_be_sharded(config: &TrainConfig, params: &Params) -> Result<(), TrainError> {
    let ModelConfig::TorchScript { module } = &config.model else { return Ok(()) };
    match params.entries().iter().find(|entry| !entry.trained) {
        Some(entry) if config.shards > 1 => Err(TrainError::Config(format!(
            "{}: {} is a buffer or a frozen parameter, and a module with such cannot be trained in shards; remove train.shards",
            module.file(),
            entry.name
        ))),
        _ => Ok(()),
    }
}

/// A shard's part of a batch.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Which shard.
    pub shard: u32,
    /// Where its dropout masks come from.
    pub origin: Origin,
    /// Inputs.
    pub images: &'a Tensor,
    /// Labels.
    pub labels: &'a Tensor,
}
