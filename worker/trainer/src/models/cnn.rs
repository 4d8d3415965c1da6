//! A convolutional network after LeCun et al. (1998), in today's form: two trained 5×5 convolutions, each with
//! an activation and a 2×2 maximum pool, a dense layer with dropout, and a readout.

use super::{
    Model, Pass, Shape,
    layers::{BatchNorm, Conv5, Dense, activate, cast, drop_some, kind_of},
};
use crate::{
    error::TrainError,
    params::{Layout, Params},
};
use spotsweep_proto::train::{Activation, Precision};
use tch::{Kind, Tensor};

/// The network's own choices.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    /// Filters of the two convolutions.
    pub channels: [i64; 2],
    /// Width of the dense layer.
    pub dense: i64,
    /// Behind every layer but the readout.
    pub activation: Activation,
    /// Share dropped behind the dense layer.
    pub dropout: f64,
    /// Whether batches are normalised behind each convolution.
    pub batch_norm: bool,
}

/// The layers.
#[derive(Debug)]
pub struct Cnn {
    blocks: [Block; 2],
    dense: Dense,
    readout: Dense,
    knobs: Knobs,
    shape: Shape,
    kind: Kind,
}

impl Cnn {
    /// Fresh layers.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the images are too small to be halved twice.
    pub fn new(
        knobs: Knobs,
        shape: Shape,
        precision: Precision,
        params: &mut Params,
    ) -> Result<Self, TrainError> {
        let (height, width) = (shape.height / 4, shape.width / 4);
        if height == 0 || width == 0 {
            return Err(TrainError::Config(format!(
                "cnn halves images twice; {}x{} is too small",
                shape.height, shape.width
            )));
        }
        let [first, second] = knobs.channels;
        let blocks = [
            Block::new(1, shape.channels, first, knobs, precision, params),
            Block::new(2, first, second, knobs, precision, params),
        ];
        let dense = Dense::new("fc1", second * height * width, knobs.dense, precision, params);
        let readout = Dense::new("out", knobs.dense, shape.classes, precision, params);
        Ok(Self { blocks, dense, readout, knobs, shape, kind: kind_of(precision) })
    }
}

impl Model for Cnn {
    fn scores(&self, images: &Tensor, pass: Pass) -> Tensor {
        let Shape { channels, height, width, .. } = self.shape;
        let images = images.view([-1, channels, height, width]);
        let mut x = Layout::ChannelsLast.of(&cast(&images, self.kind));
        for block in &self.blocks {
            x = block.forward(&x, pass);
        }
        let x = activate(self.knobs.activation, &self.dense.forward(&x.flatten(1, -1)));
        let x = drop_some(self.knobs.dropout, x, pass);
        cast(&self.readout.forward(&x), Kind::Float)
    }

    fn draws(&self) -> bool {
        self.knobs.dropout > 0.0
    }
}

/// Convolution, normalisation if any, pool, activation.
#[derive(Debug)]
struct Block {
    conv: Conv5,
    norm: Option<BatchNorm>,
    activation: Activation,
}

impl Block {
    fn new(
        number: u8,
        inputs: i64,
        outputs: i64,
        knobs: Knobs,
        precision: Precision,
        params: &mut Params,
    ) -> Self {
        Self {
            conv: Conv5::new(&format!("conv{number}"), inputs, outputs, precision, params),
            norm: knobs.batch_norm.then(|| BatchNorm::new(&format!("bn{number}"), outputs, params)),
            activation: knobs.activation,
        }
    }

    /// Pools before it activates where that gives the same values: a maximum and a function that never falls
    /// may change places, and there are four times fewer values behind the pool.
    fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let x = self.conv.forward(x);
        let x = match &self.norm {
            Some(norm) => norm.forward(&x, pass),
            None => x,
        };
        let pool = |x: &Tensor| x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
        match self.activation {
            Activation::Relu | Activation::Tanh | Activation::Sigmoid => activate(self.activation, &pool(&x)),
            Activation::Gelu => pool(&activate(self.activation, &x)),
        }
    }
}
