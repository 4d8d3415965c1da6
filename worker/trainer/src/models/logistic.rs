//! Logistic regression: one sigmoid neuron, y = f(Σ wᵢxᵢ + b), that tells one class from the rest (Cox, 1958).

use super::{Model, Pass, Shape, layers::Dense};
use crate::{error::TrainError, params::Params};
use spotsweep_proto::train::Precision;
use tch::{Kind, Reduction, Tensor};

/// The neuron.
#[derive(Debug)]
pub struct Logistic {
    neuron: Dense,
    positive_class: i64,
}

impl Logistic {
    /// A fresh neuron for `positive_class`.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the data has no such class.
    pub fn new(
        positive_class: u16,
        shape: Shape,
        precision: Precision,
        params: &mut Params,
    ) -> Result<Self, TrainError> {
        let positive_class = i64::from(positive_class);
        if positive_class >= shape.classes {
            return Err(TrainError::Config(format!(
                "positive_class is {positive_class}, and the data has classes 0 to {}",
                shape.classes - 1
            )));
        }
        Ok(Self { neuron: Dense::new("neuron", shape.pixels(), 1, precision, params), positive_class })
    }

    fn is_positive(&self, labels: &Tensor) -> Tensor {
        labels.eq(self.positive_class)
    }
}

impl Model for Logistic {
    fn scores(&self, images: &Tensor, _pass: Pass) -> Tensor {
        self.neuron.forward(images).to_kind(Kind::Float).squeeze_dim(1)
    }

    fn loss(&self, scores: &Tensor, labels: &Tensor, reduction: Reduction) -> Tensor {
        let target = self.is_positive(labels).to_kind(Kind::Float);
        scores.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, reduction)
    }

    /// The neuron says yes where f(…) ≥ ½, that is where its score is not negative.
    fn correct(&self, scores: &Tensor, labels: &Tensor) -> Tensor {
        scores.ge(0.0).eq_tensor(&self.is_positive(labels)).sum(Kind::Int64)
    }

    fn draws(&self) -> bool {
        false
    }
}
