//! Multinomial logistic regression: one linear layer and a softmax over the classes (Bishop, 2006, 4.3.4).

use super::{
    Model, Pass, Shape,
    layers::{Dense, cast},
};
use crate::params::Params;
use spotsweep_proto::train::Precision;
use tch::{Kind, Tensor};

/// The layer. The softmax itself is in the loss.
#[derive(Debug)]
pub struct Softmax {
    readout: Dense,
}

impl Softmax {
    /// A fresh layer.
    #[must_use]
    pub fn new(shape: Shape, precision: Precision, params: &mut Params) -> Self {
        Self { readout: Dense::new("out", shape.pixels(), shape.classes, precision, params) }
    }
}

impl Model for Softmax {
    fn scores(&self, images: &Tensor, _pass: Pass) -> Tensor {
        cast(&self.readout.forward(images), Kind::Float)
    }

    fn draws(&self) -> bool {
        false
    }
}
