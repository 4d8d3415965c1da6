//! Data sets in memory, on the device on which a trial trains. Reading is in [`idx`] and [`pieces`], the made-up data set in
//! [`synthetic`], the held-out part in [`split`], the order of training in [`order`].

pub mod cache;
pub mod idx;
pub mod order;
pub mod pieces;
pub mod split;
pub mod synthetic;

use crate::models::Shape;
use spotsweep_proto::datasets::manifest::{DataFacts, ElementType};
use tch::{Device, Kind, TchError, Tensor};

/// Images and labels as they are stored, in this process's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSamples {
    /// `pixels` elements an image: bytes, or little-endian f32.
    pub images: Vec<u8>,
    /// One an image.
    pub labels: Vec<u16>,
}

/// A data set as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct RawData {
    /// Of its images.
    pub shape: Shape,
    /// What its images are made of.
    pub elements: ElementType,
    /// Validation part included.
    pub train: RawSamples,
    /// Never trained on.
    pub test: RawSamples,
    /// How pixels become inputs.
    pub scaling: Scaling,
}

/// Inputs are (x − mean) / std, where x is a byte / 255 or a float. One constant for all, one a channel, or one an
/// element.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Means of the training images.
    pub mean: Vec<f64>,
    /// Standard deviations of the same, as many.
    pub std: Vec<f64>,
}

impl Scaling {
    /// One constant for all elements.
    #[must_use]
    pub fn all(mean: f64, std: f64) -> Self {
        Self { mean: vec![mean], std: vec![std] }
    }
}

/// [`Scaling`] on a device: inputs are element · factor − offset.
#[derive(Debug)]
enum Inputs {
    All {
        factor: f64,
        offset: f64,
    },
    /// f32 of shape `[1, pixels]`.
    Each {
        factor: Tensor,
        offset: Tensor,
    },
}

impl Inputs {
    fn load(
        scaling: &Scaling,
        elements: ElementType,
        shape: Shape,
        device: Device,
    ) -> Result<Self, TchError> {
        let unit = match elements {
            ElementType::U8 => 255.0,
            ElementType::F32 => 1.0,
        };
        if let ([mean], [std]) = (&scaling.mean[..], &scaling.std[..]) {
            return Ok(Self::All { factor: 1.0 / (unit * std), offset: mean / std });
        }
        let each = |constants: Vec<f64>| -> Result<Tensor, TchError> {
            let count = constants.len() as i64;
            let column = Tensor::f_from_slice(&constants)?.f_view([count, 1])?;
            let all = column.f_expand([count, shape.pixels() / count.max(1)], false)?;
            all.f_reshape([1, shape.pixels()])?.f_to_kind(Kind::Float)?.f_to_device(device)
        };
        let pairs = || scaling.mean.iter().zip(&scaling.std);
        Ok(Self::Each {
            factor: each(pairs().map(|(_, std)| 1.0 / (unit * std)).collect())?,
            offset: each(pairs().map(|(mean, std)| mean / std).collect())?,
        })
    }
}

/// Images and labels on a device.
#[derive(Debug)]
pub struct Samples {
    /// Of shape `[n, pixels]`. Bytes stay u8: a quarter of what floats would take, and faster to gather.
    images: Tensor,
    /// i64 of shape `[n]`.
    labels: Tensor,
}

impl Samples {
    fn load(raw: &RawSamples, elements: ElementType, shape: Shape, device: Device) -> Result<Self, TchError> {
        let size = [raw.labels.len() as i64, shape.pixels()];
        let kind = match elements {
            ElementType::U8 => Kind::Uint8,
            ElementType::F32 => Kind::Float,
        };
        let images = Tensor::f_from_data_size(&raw.images, &size, kind)?;
        let labels: Vec<i64> = raw.labels.iter().map(|&label| label.into()).collect();
        let labels = Tensor::f_from_slice(&labels)?;
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
    inputs: Inputs,
}

impl DataSet {
    /// Copies `raw` to `device`.
    ///
    /// # Errors
    /// What libtorch threw, for instance that the device is full.
    pub fn load(raw: &RawData, device: Device) -> Result<Self, TchError> {
        Ok(Self {
            shape: raw.shape,
            train: Samples::load(&raw.train, raw.elements, raw.shape, device)?,
            test: Samples::load(&raw.test, raw.elements, raw.shape, device)?,
            inputs: Inputs::load(&raw.scaling, raw.elements, raw.shape, device)?,
        })
    }

    /// What a recipe is held against.
    #[must_use]
    pub fn facts(&self) -> DataFacts {
        let Shape { channels, height, width, classes } = self.shape;
        let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        DataFacts {
            shape: [count(channels), count(height), count(width)],
            classes: u16::try_from(classes).unwrap_or(u16::MAX),
            train_samples: count(self.train.len()),
            test_samples: count(self.test.len()),
        }
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
        let mut inputs = match pixels.kind() {
            // Scaled in place below, so floats of the data set itself are copied.
            Kind::Float => pixels.copy(),
            _ => pixels.to_kind(Kind::Float),
        };
        match &self.inputs {
            Inputs::All { factor, offset } => {
                let _ = inputs.g_mul_scalar_(*factor);
                inputs.g_sub_scalar_(*offset)
            }
            Inputs::Each { factor, offset } => {
                let _ = inputs.g_mul_(factor);
                inputs.g_sub_(offset)
            }
        }
    }
}
