//! What several models are made of: dense layers, convolutions, activations, the stack of hidden layers.

use super::Pass;
use crate::{
    init::Fans,
    params::{Layout, Params},
};
use spotsweep_proto::train::{Activation, Precision};
use tch::{Kind, Tensor};

/// The type in which `precision` multiplies.
#[must_use]
pub fn kind_of(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}

/// `tensor` as `kind`; the same tensor if it is so already.
pub fn cast(tensor: &Tensor, kind: Kind) -> Tensor {
    if tensor.kind() == kind { tensor.shallow_clone() } else { tensor.to_kind(kind) }
}

/// Applies an activation function.
pub fn activate(activation: Activation, x: &Tensor) -> Tensor {
    match activation {
        Activation::Relu => x.relu(),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => x.sigmoid(),
        Activation::Gelu => x.gelu("none"),
    }
}

/// Applies dropout in training (Srivastava et al., 2014): values are dropped with probability `share`, the rest
/// grow by 1 / (1 - share).
pub fn drop_some(share: f64, x: Tensor, pass: Pass) -> Tensor {
    if share > 0.0 && pass.is_train() { x.dropout(share, true) } else { x }
}

/// y = W x + b.
#[derive(Debug)]
pub struct Dense {
    weight: Tensor,
    bias: Tensor,
    kind: Kind,
}

impl Dense {
    /// A layer called `name` with `inputs` inputs and `outputs` outputs.
    #[must_use]
    pub fn new(name: &str, inputs: i64, outputs: i64, precision: Precision, params: &mut Params) -> Self {
        let fans = Fans { fan_in: inputs, fan_out: outputs };
        Self {
            weight: params.weight(&format!("{name}.weight"), &[outputs, inputs], fans, Layout::RowMajor),
            bias: params.vector(&format!("{name}.bias"), outputs, 0.0),
            kind: kind_of(precision),
        }
    }

    /// `x` of shape `[n, inputs]`, of any kind, to `[n, outputs]` in the layer's precision.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        cast(x, self.kind).linear(&cast(&self.weight, self.kind), Some(cast(&self.bias, self.kind)))
    }
}

/// A 5×5 convolution with stride 1 that keeps height and width.
#[derive(Debug)]
pub struct Conv5 {
    weight: Tensor,
    bias: Tensor,
    kind: Kind,
}

impl Conv5 {
    /// Height and width of the kernel.
    pub const SIZE: i64 = 5;

    /// A layer called `name` with `inputs` input and `outputs` output channels.
    #[must_use]
    pub fn new(name: &str, inputs: i64, outputs: i64, precision: Precision, params: &mut Params) -> Self {
        let area = Self::SIZE * Self::SIZE;
        let fans = Fans { fan_in: inputs * area, fan_out: outputs * area };
        let shape = [outputs, inputs, Self::SIZE, Self::SIZE];
        Self {
            weight: params.weight(&format!("{name}.weight"), &shape, fans, Layout::ChannelsLast),
            bias: params.vector(&format!("{name}.bias"), outputs, 0.0),
            kind: kind_of(precision),
        }
    }

    /// `x` of shape `[n, inputs, h, w]` to `[n, outputs, h, w]`, channels last in memory.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let half = Self::SIZE / 2;
        cast(x, self.kind).conv2d(
            &cast(&self.weight, self.kind),
            Some(cast(&self.bias, self.kind)),
            [1, 1],
            [half, half],
            [1, 1],
            1,
        )
    }
}

/// Batch normalisation over channels (Ioffe & Szegedy, 2015). Statistics are f32 in either precision.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    /// Share of a new batch in the running statistics.
    const MOMENTUM: f64 = 0.1;
    /// Added to the variance.
    const EPSILON: f64 = 1e-5;

    /// A layer called `name`. Its four tensors are named as PyTorch names them.
    #[must_use]
    pub fn new(name: &str, channels: i64, params: &mut Params) -> Self {
        Self {
            weight: params.vector(&format!("{name}.weight"), channels, 1.0),
            bias: params.vector(&format!("{name}.bias"), channels, 0.0),
            mean: params.buffer(&format!("{name}.running_mean"), channels, 0.0),
            variance: params.buffer(&format!("{name}.running_var"), channels, 1.0),
        }
    }

    /// Normalises `x`; in training by the batch's statistics, which also enter the running ones.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.mean),
            Some(&self.variance),
            pass.is_train(),
            Self::MOMENTUM,
            Self::EPSILON,
            true,
        )
    }
}

/// What a stack of hidden layers is made of.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Widths of the hidden layers; empty for none.
    pub hidden: &'a [u32],
    /// Behind each hidden layer.
    pub activation: Activation,
    /// Share dropped behind each hidden layer.
    pub dropout: f64,
}

/// Hidden layers and a readout.
#[derive(Debug)]
pub struct Stack {
    hidden: Vec<Dense>,
    readout: Dense,
    activation: Activation,
    dropout: f64,
}

impl Stack {
    /// Layers called `fc1`, `fc2`, … and `out`.
    #[must_use]
    pub fn new(
        head: &Head<'_>,
        inputs: i64,
        outputs: i64,
        precision: Precision,
        params: &mut Params,
    ) -> Self {
        let mut width = inputs;
        let mut hidden = Vec::new();
        for (i, &next) in head.hidden.iter().enumerate() {
            hidden.push(Dense::new(&format!("fc{}", i + 1), width, i64::from(next), precision, params));
            width = i64::from(next);
        }
        let readout = Dense::new("out", width, outputs, precision, params);
        Self { hidden, readout, activation: head.activation, dropout: head.dropout }
    }

    /// `x` of shape `[n, inputs]` to f32 scores `[n, outputs]`.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let mut x = x.shallow_clone();
        for layer in &self.hidden {
            x = drop_some(self.dropout, activate(self.activation, &layer.forward(&x)), pass);
        }
        cast(&self.readout.forward(&x), Kind::Float)
    }

    /// Whether training draws random numbers.
    #[must_use]
    pub fn draws(&self) -> bool {
        self.dropout > 0.0 && !self.hidden.is_empty()
    }
}
