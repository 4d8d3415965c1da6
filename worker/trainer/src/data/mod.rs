//! Data sets in memory, on the device on which a trial trains. Reading is in [`idx`], the made-up data set in
//! [`synthetic`], the held-out part in [`split`], the order of training in [`order`].

pub mod cache;
pub mod idx;
pub mod order;
pub mod split;
pub mod synthetic;

use crate::models::Shape;
use tch::{Device, Kind, TchError, Tensor};

/// Images and labels as they are stored: one byte a pixel and a label, in this process's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSamples {
    /// `pixels` bytes an image.
    pub images: Vec<u8>,
    /// One byte an image.
    pub labels: Vec<u8>,
}

/// A data set as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct RawData {
    /// Of its images.
    pub shape: Shape,
    /// Validation part included.
    pub train: RawSamples,
    /// Never trained on.
    pub test: RawSamples,
    /// How pixels become inputs.
    pub scaling: Scaling,
}

/// Inputs are (pixel / 255 − mean) / std.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Mean of the training images, scaled to [0, 1].
    pub mean: f64,
    /// Standard deviation of the same.
    pub std: f64,
}

/// Images and labels on a device.
#[derive(Debug)]
pub struct Samples {
    /// u8 of shape `[n, pixels]`: a quarter of what floats would take, and faster to gather.
    images: Tensor,
    /// i64 of shape `[n]`.
    labels: Tensor,
}

impl Samples {
    fn load(raw: &RawSamples, shape: Shape, device: Device) -> Result<Self, TchError> {
        let images = Tensor::f_from_slice(&raw.images)?.f_view([-1, shape.pixels()])?;
        let labels = Tensor::f_from_slice(&raw.labels)?.f_to_kind(Kind::Int64)?;
        Ok(Self { images: images.f_to_device(device)?, labels: labels.f_to_device(device)? })
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> i64 {
        self.labels.numel() as i64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A data set on a device.
#[derive(Debug)]
pub struct DataSet {
    /// Of its images.
    pub shape: Shape,
    /// Validation part included.
    pub train: Samples,
    /// Never trained on.
    pub test: Samples,
    scaling: Scaling,
}

impl DataSet {
    /// Copies `raw` to `device`.
    ///
    /// # Errors
    /// What libtorch threw, for instance that the device is full.
    pub fn load(raw: &RawData, device: Device) -> Result<Self, TchError> {
        Ok(Self {
            shape: raw.shape,
            train: Samples::load(&raw.train, raw.shape, device)?,
            test: Samples::load(&raw.test, raw.shape, device)?,
            scaling: raw.scaling,
        })
    }

    /// The samples of `part` at `indices` (i64, on the same device): inputs, f32 of shape `[n, pixels]`, and
    /// labels.
    pub fn batch(&self, part: &Samples, indices: &Tensor) -> (Tensor, Tensor) {
        let images = part.images.index_select(0, indices);
        (self.inputs(&images), part.labels.index_select(0, indices))
    }

    /// As [`DataSet::batch`], for `count` samples in a row from `start`.
    pub fn slice(&self, part: &Samples, start: i64, count: i64) -> (Tensor, Tensor) {
        let images = part.images.narrow(0, start, count);
        (self.inputs(&images), part.labels.narrow(0, start, count))
    }

    fn inputs(&self, pixels: &Tensor) -> Tensor {
        let Scaling { mean, std } = self.scaling;
        let mut inputs = pixels.to_kind(Kind::Float);
        let _ = inputs.g_mul_scalar_(1.0 / (255.0 * std));
        inputs.g_sub_scalar_(mean / std)
    }
}
