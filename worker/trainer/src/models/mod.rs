//! The models of the ladder behind one trait. One model a file; what they share is in [`layers`].
//!
//! A model turns images into scores and scores into a loss. It must not know optimizers, data sets or files.

pub mod cnn;
pub mod filters;
pub mod fixed_cnn;
pub mod layers;
pub mod logistic;
pub mod mlp;
pub mod softmax;
pub mod torchscript;

use crate::{error::TrainError, params::Params, registry::Registry};
use spotsweep_proto::train::{ModelConfig, Precision};
use std::path::Path;
use tch::{Kind, Reduction, Tensor};

/// Whether a forward pass belongs to training: dropout drops and batch norm measures only then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Training.
    Train,
    /// Evaluation.
    Evaluate,
}

impl Pass {
    /// As libtorch wants it.
    #[must_use]
    pub fn is_train(self) -> bool {
        match self {
            Self::Train => true,
            Self::Evaluate => false,
        }
    }
}

/// The shape of a data set's images, and how many classes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Colours.
    pub channels: i64,
    /// Rows.
    pub height: i64,
    /// Columns.
    pub width: i64,
    /// Labels are `0..classes`.
    pub classes: i64,
}

impl Shape {
    /// Values of one image.
    #[must_use]
    pub fn pixels(&self) -> i64 {
        self.channels * self.height * self.width
    }
}

/// A model with its parameters, which it has entered into [`Params`] and of which it keeps handles.
///
/// What it computes may depend on its parameters, its buffers and its inputs alone: those are what checkpoints keep. A buffer
/// is a running statistic that training passes update in place; what is constant needs none. With `train.shards` every shard
/// of a step begins from the same buffers, and what they leave behind is averaged over the samples.
pub trait Model {
    /// Scores of `images`, which are f32 of shape `[n, pixels]`: f32 of shape `[n, classes]`, or `[n]` for a
    /// model that tells one class from the rest.
    fn scores(&self, images: &Tensor, pass: Pass) -> Tensor;

    /// Loss of the samples, reduced to an f32 scalar. `labels` are i64 of shape `[n]`.
    fn loss(&self, scores: &Tensor, labels: &Tensor, reduction: Reduction) -> Tensor {
        scores.cross_entropy_loss::<Tensor>(labels, None, reduction, -100, 0.0)
    }

    /// How many samples are classified rightly, an i64 scalar.
    fn correct(&self, scores: &Tensor, labels: &Tensor) -> Tensor {
        scores.argmax(-1, false).eq_tensor(labels).sum(Kind::Int64)
    }

    /// Whether it draws random numbers from libtorch's generator, for instance for dropout. The generator is then seeded before
    /// every pass from the trial's seed and the step, so that the draws are the same however often the trial was interrupted.
    /// Only a model that never draws may say no.
    fn draws(&self) -> bool {
        true
    }
}

/// Makes the model that `config` describes, if it is not one of ours that of `registry`, and enters its parameters into `params`.
/// Where it is a module, `module` is its file.
///
/// # Errors
/// [`TrainError::Config`] when the model does not fit the data, [`TrainError::Torch`] when memory runs out; for a module as
/// [`torchscript::TorchScript::load`].
pub fn build(
    config: &ModelConfig,
    shape: Shape,
    precision: Precision,
    (registry, module): (&Registry, Option<&Path>),
    params: &mut Params,
) -> Result<Box<dyn Model>, TrainError> {
    Ok(match config {
        ModelConfig::Noop => return Err(TrainError::Config("noop has no network to build".into())),
        ModelConfig::Logistic { positive_class } => {
            Box::new(logistic::Logistic::new(*positive_class, shape, precision, params)?)
        }
        ModelConfig::Softmax => Box::new(softmax::Softmax::new(shape, precision, params)),
        ModelConfig::Mlp { hidden, activation, dropout } => {
            let head = layers::Head { hidden, activation: *activation, dropout: *dropout };
            Box::new(mlp::Mlp::new(&head, shape, precision, params))
        }
        ModelConfig::FixedCnn { hidden, activation, dropout } => {
            let head = layers::Head { hidden, activation: *activation, dropout: *dropout };
            Box::new(fixed_cnn::FixedCnn::new(&head, shape, precision, params)?)
        }
        ModelConfig::Cnn { channels, dense, activation, dropout, batch_norm } => {
            let knobs = cnn::Knobs {
                channels: channels.map(i64::from),
                dense: i64::from(*dense),
                activation: *activation,
                dropout: *dropout,
                batch_norm: *batch_norm,
            };
            Box::new(cnn::Cnn::new(knobs, shape, precision, params)?)
        }
        ModelConfig::TorchScript { module: named } => {
            Box::new(torchscript::TorchScript::load(named, module, shape, params)?)
        }
        ModelConfig::Own { name, version: _, knobs } => {
            registry.build(name.as_str(), knobs, shape, params)?
        }
    })
}
