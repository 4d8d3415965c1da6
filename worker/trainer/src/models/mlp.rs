//! A multi-layer perceptron: dense hidden layers, then a softmax (Rumelhart, Hinton & Williams, 1986).

use super::{
    Model, Pass, Shape,
    layers::{Head, Stack},
};
use crate::params::Params;
use spotsweep_proto::train::Precision;
use tch::Tensor;

/// The layers.
#[derive(Debug)]
pub struct Mlp {
    stack: Stack,
}

impl Mlp {
    /// Fresh layers.
    #[must_use]
    pub fn new(head: &Head<'_>, shape: Shape, precision: Precision, params: &mut Params) -> Self {
        Self { stack: Stack::new(head, shape.pixels(), shape.classes, precision, params) }
    }
}

impl Model for Mlp {
    fn scores(&self, images: &Tensor, pass: Pass) -> Tensor {
        self.stack.forward(images, pass)
    }

    fn draws(&self) -> bool {
        self.stack.draws()
    }
}
