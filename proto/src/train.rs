//! What a trainer is told to train: every choice made, typed, and within range.
//!
//! [`crate::catalogue`] makes a [`TrainConfig`] out of a sweep's `train` section and a trial's parameters, on
//! the coordinator (to check a sweep before anything runs) and in the trainer (to run it): one code, one
//! meaning. Nothing here may depend on libtorch.

use crate::{
    catalogue::{Dataset, ModelKind, own::Knobs},
    ids::{DataName, ModelName},
    module::ModuleRef,
};
use serde::{Deserialize, Serialize};

/// The whole recipe of a trial. Two trials with equal recipes, on one kind of device, end with equal bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The model and its shape.
    pub model: ModelConfig,
    /// The data set (an added one pinned to its manifest, [`crate::datasets::DataRef`]), or [`crate::catalogue::datasets::NO_DATA`] for a model that trains on none.
    pub data: DataName,
    /// How long to train.
    pub length: Length,
    /// Samples a step.
    pub batch_size: u32,
    /// The optimizer and its constants.
    pub optimizer: OptimizerConfig,
    /// Peak learning rate, before the schedule.
    pub learning_rate: f64,
    /// How the learning rate changes over the steps.
    pub schedule: ScheduleConfig,
    /// Steps over which the learning rate rises linearly from 0 (Goyal et al., 2017), before the schedule.
    pub warmup_steps: u64,
    /// Largest L2 norm of all gradients together; larger ones are scaled down (Pascanu et al., 2013).
    pub clip_norm: Option<f64>,
    /// How weights are drawn.
    pub init: Init,
    /// Arithmetic of matrix products and convolutions. Weights and optimizer state are f32 always.
    pub precision: Precision,
    /// Share of the training set that is held out for validation, in [0, 0.5].
    pub validation_fraction: f64,
    /// Steps between two reports of the training loss; 0 means at the end of each epoch only.
    pub report_every_steps: u64,
    /// Seed of everything random: initial weights, split, order of samples, dropout.
    pub seed: u64,
    /// Intra-op threads of libtorch on a CPU. The count changes the bits, so it is part of the recipe.
    pub threads: u16,
    /// Shards of the data, in 1..=[`crate::gang::SHARDS_PER_TRIAL`]. Each contributes its part of every step, so the
    /// count changes the bits; on how many workers the shards lie does not, if `exact`.
    #[serde(default = "one_shard", skip_serializing_if = "is_one_shard")]
    pub shards: u32,
    /// Whether the shards' gradients are added in one fixed order, whoever carries them.
    #[serde(default = "exactly", skip_serializing_if = "is_exact")]
    pub exact: bool,
}

// What a recipe says when it says nothing, left out of its JSON: recipes of before keep their digests.
pub(crate) fn one_shard() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
pub(crate) fn is_one_shard(shards: &u32) -> bool {
    *shards == one_shard()
}

pub(crate) fn exactly() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
pub(crate) fn is_exact(exact: &bool) -> bool {
    *exact
}

impl TrainConfig {
    /// The entry of the data set in the catalogue; `None` for a model that trains on none.
    #[must_use]
    pub fn dataset(&self) -> Option<&'static Dataset> {
        Dataset::named(self.data.as_str())
    }
}

/// How long a trial trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Passes over the training split.
    Epochs(u32),
    /// Optimizer steps.
    Steps(u64),
}

/// The models of the ladder, each with its own knobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "snake_case")]
pub enum ModelConfig {
    /// Trains nothing: finishes `steps` steps at once. For measuring everything but training.
    Noop,
    /// One sigmoid neuron, y = f(Σ wᵢxᵢ + b): `positive_class` against the rest.
    Logistic {
        /// The class that counts as positive.
        positive_class: u16,
    },
    /// Multinomial logistic regression: one linear layer and a softmax.
    Softmax,
    /// A multi-layer perceptron.
    Mlp {
        /// Widths of the hidden layers.
        hidden: Vec<u32>,
        /// Between the layers.
        activation: Activation,
        /// Share of activations dropped behind each hidden layer while training, in [0, 1).
        dropout: f64,
    },
    /// A bank of fixed convolution filters, pooling, then trained dense layers.
    FixedCnn {
        /// Widths of the trained hidden layers; empty for a linear readout.
        hidden: Vec<u32>,
        /// Between the trained layers.
        activation: Activation,
        /// Share dropped behind each hidden layer, in [0, 1).
        dropout: f64,
    },
    /// Two trained 5×5 convolutions with pooling, one dense layer, and the readout.
    Cnn {
        /// Filters of the two convolutions.
        channels: [u32; 2],
        /// Width of the dense layer.
        dense: u32,
        /// Between the layers.
        activation: Activation,
        /// Share dropped behind the dense layer, in [0, 1).
        dropout: f64,
        /// Batch normalisation behind each convolution (Ioffe & Szegedy, 2015).
        batch_norm: bool,
    },
    /// A user's own module, as TorchScript has exported it: architecture, parameters, buffers.
    #[serde(rename = "torchscript")]
    TorchScript {
        /// Which. In what a trainer is given it is pinned.
        module: ModuleRef,
    },
    /// A model that a trainer of one's own has added: see [`crate::catalogue::own`].
    Own {
        /// Which.
        name: ModelName,
        /// Version of what it computes.
        version: u32,
        /// Hyperparameters of its own.
        knobs: Knobs,
    },
}

impl ModelConfig {
    /// Which model it is.
    #[must_use]
    pub fn kind(&self) -> ModelKind {
        match self {
            Self::Noop => ModelKind::Noop,
            Self::Logistic { .. } => ModelKind::Logistic,
            Self::Softmax => ModelKind::Softmax,
            Self::Mlp { .. } => ModelKind::Mlp,
            Self::FixedCnn { .. } => ModelKind::FixedCnn,
            Self::Cnn { .. } => ModelKind::Cnn,
            Self::TorchScript { .. } => ModelKind::TorchScript,
            Self::Own { .. } => ModelKind::Own,
        }
    }

    /// Its name in sweep files.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Own { name, .. } => name.as_str(),
            Self::Noop
            | Self::Logistic { .. }
            | Self::Softmax
            | Self::Mlp { .. }
            | Self::FixedCnn { .. }
            | Self::Cnn { .. }
            | Self::TorchScript { .. } => self.kind().name(),
        }
    }
}

/// Activation functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(0, x) (Nair & Hinton, 2010).
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// Logistic sigmoid.
    Sigmoid,
    /// Gaussian error linear unit (Hendrycks & Gimpel, 2016).
    Gelu,
}

/// Optimizers, each with its constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "optimizer", rename_all = "snake_case")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent (Sutskever et al., 2013, for momentum and Nesterov's form of it).
    Sgd {
        /// Momentum, in [0, 1).
        momentum: f64,
        /// Nesterov's form.
        nesterov: bool,
        /// L2 penalty added to the gradient.
        weight_decay: f64,
    },
    /// Adam (Kingma & Ba, 2015).
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the denominator.
        epsilon: f64,
        /// L2 penalty added to the gradient.
        weight_decay: f64,
    },
    /// AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, 2019).
    Adamw {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the denominator.
        epsilon: f64,
        /// Decoupled decay: weights shrink by learning_rate × weight_decay a step.
        weight_decay: f64,
    },
}

/// How the learning rate changes after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schedule", rename_all = "snake_case")]
pub enum ScheduleConfig {
    /// It stays.
    Constant,
    /// Times `gamma` every `every_epochs` epochs.
    Step {
        /// Epochs between two drops.
        every_epochs: u32,
        /// Factor of a drop, in (0, 1].
        gamma: f64,
    },
    /// Half a cosine from the peak down to `final_fraction` of it (Loshchilov & Hutter, 2017).
    Cosine {
        /// What is left of the peak at the last step, in [0, 1].
        final_fraction: f64,
    },
}

/// Initial weights. Biases start at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010).
    Xavier,
    /// Normal with variance 2 / fan_in (He et al., 2015).
    He,
}

/// Arithmetic of the heavy operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// IEEE single precision.
    F32,
    /// bfloat16 products accumulated in f32.
    Bf16,
}
