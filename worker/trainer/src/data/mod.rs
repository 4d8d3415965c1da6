//! Data sets in memory, on the device on which a trial trains, shard by shard: a rank of a gang has no more of added data
//! than it carries. Reading is in [`idx`], [`pieces`] and [`feed`], the made-up data set in [`synthetic`], the held-out part in
//! [`split`], the order of training in [`order`].

pub mod cache;
pub mod feed;
pub mod idx;
pub mod order;
pub mod pieces;
pub mod split;
pub mod synthetic;

use crate::{error::TrainError, models::Shape};
use pieces::{Pieces, ShardSamples};
use spotsweep_proto::{
    datasets::manifest::{DataFacts, ElementType, shard_samples},
    digest::Digest,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    rc::Rc,
};
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

    /// Those in `range`, in the same memory.
    fn part(&self, range: &Range<u32>) -> Result<Self, TchError> {
        let (start, count) = (i64::from(range.start), range.len() as i64);
        let (images, labels) =
            (self.images.f_narrow(0, start, count)?, self.labels.f_narrow(0, start, count)?);
        Ok(Self { images, labels })
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

/// One shard's samples on a device.
#[derive(Debug)]
pub struct Shard {
    /// Of the training set, held-out ones included.
    pub train: Samples,
    /// Of the test set.
    pub test: Samples,
}

/// A data set on a device, as far as it is wanted there.
#[derive(Debug)]
pub struct DataSet {
    /// Of its images.
    pub shape: Shape,
    facts: DataFacts,
    elements: ElementType,
    inputs: Inputs,
    device: Device,
    shards: u32,
    /// Where shards come from; `None` if all of them are here for good.
    pieces: Option<Pieces>,
    /// Digest of samples that a program has made, which no hash is known for otherwise.
    content: Option<Digest>,
    held: RefCell<BTreeMap<u32, Rc<Shard>>>,
}

impl DataSet {
    /// Copies `raw` to `device`, for a trial with so many shards.
    ///
    /// # Errors
    /// What libtorch threw, for instance that the device is full.
    pub fn load(raw: &RawData, shards: u32, device: Device) -> Result<Self, TchError> {
        let Shape { channels, height, width, classes } = raw.shape;
        let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        let train = Samples::load(&raw.train, raw.elements, raw.shape, device)?;
        let test = Samples::load(&raw.test, raw.elements, raw.shape, device)?;
        let facts = DataFacts {
            shape: [count(channels), count(height), count(width)],
            classes: u16::try_from(classes).unwrap_or(u16::MAX),
            train_samples: count(train.len()),
            test_samples: count(test.len()),
        };
        let part = |shard| -> Result<(u32, Rc<Shard>), TchError> {
            let train = train.part(&shard_samples(facts.train_samples, shard, shards))?;
            let test = test.part(&shard_samples(facts.test_samples, shard, shards))?;
            Ok((shard, Rc::new(Shard { train, test })))
        };
        let held = (0..shards.max(1)).map(part).collect::<Result<_, _>>()?;
        Ok(Self {
            shape: raw.shape,
            facts,
            elements: raw.elements,
            inputs: Inputs::load(&raw.scaling, raw.elements, raw.shape, device)?,
            device,
            shards: shards.max(1),
            pieces: None,
            content: None,
            held: RefCell::new(held),
        })
    }

    /// The same, made by a program.
    #[must_use]
    pub fn with_content(self, content: Digest) -> Self {
        Self { content: Some(content), ..self }
    }

    /// Digest of samples that a program has made; `None` for data whose hash is known before it is read.
    #[must_use]
    pub fn content(&self) -> Option<Digest> {
        self.content
    }

    /// Added data for a trial with so many shards, none of which is in memory yet.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn of_pieces(pieces: Pieces, shards: u32, device: Device) -> Result<Self, TchError> {
        let manifest = pieces.manifest();
        let [channels, height, width] = manifest.shape.map(i64::from);
        let classes = i64::try_from(manifest.classes.len()).unwrap_or(i64::MAX);
        let shape = Shape { channels, height, width, classes };
        let scaling = Scaling { mean: manifest.mean.clone(), std: manifest.std.clone() };
        Ok(Self {
            shape,
            facts: manifest.facts(),
            elements: manifest.elements,
            inputs: Inputs::load(&scaling, manifest.elements, shape, device)?,
            device,
            shards: shards.max(1),
            pieces: Some(pieces),
            content: None,
            held: RefCell::default(),
        })
    }

    /// What a recipe is held against.
    #[must_use]
    pub fn facts(&self) -> DataFacts {
        self.facts
    }

    /// How many shards it is divided into.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// Where shards come from that are not in memory; `None` if there are no such.
    #[must_use]
    pub fn pieces(&self) -> Option<&Pieces> {
        self.pieces.as_ref()
    }

    /// Whether a shard is in memory.
    #[must_use]
    pub fn has(&self, shard: u32) -> bool {
        self.held.borrow().contains_key(&shard)
    }

    /// Whether these shards are in memory, as far as there are such.
    #[must_use]
    pub fn has_all(&self, shards: Range<u32>) -> bool {
        (shards.start..shards.end.min(self.shards)).all(|shard| self.has(shard))
    }

    /// A shard that is in memory.
    ///
    /// # Errors
    /// [`TrainError::Data`] if it is not.
    pub fn shard(&self, shard: u32) -> Result<Rc<Shard>, TrainError> {
        self.held.borrow().get(&shard).cloned().ok_or_else(|| TrainError::Data {
            path: self.pieces.as_ref().map(|pieces| pieces.folder().to_owned()).unwrap_or_default(),
            problem: format!("shard {shard} of {} was not read", self.shards),
        })
    }

    /// Copies a shard to the device.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn put(&self, samples: ShardSamples) -> Result<(), TchError> {
        let load = |raw: &RawSamples| Samples::load(raw, self.elements, self.shape, self.device);
        let shard = Shard { train: load(&samples.train)?, test: load(&samples.test)? };
        self.held.borrow_mut().insert(samples.shard, Rc::new(shard));
        Ok(())
    }

    /// Lets go of all shards that can be read again and are not in `wanted`.
    pub fn keep_only(&self, wanted: &[Range<u32>]) {
        if self.pieces.is_some() {
            self.held.borrow_mut().retain(|shard, _| wanted.iter().any(|range| range.contains(shard)));
        }
    }

    /// Reads every shard that is not in memory.
    ///
    /// # Errors
    /// [`TrainError::Data`] names the piece that cannot be read; what libtorch threw.
    pub fn complete(&self) -> Result<(), TrainError> {
        let Some(pieces) = &self.pieces else { return Ok(()) };
        let missing: BTreeSet<u32> = (0..self.shards).filter(|&shard| !self.has(shard)).collect();
        for samples in pieces.read(&missing, self.shards)? {
            self.put(samples)?;
        }
        Ok(())
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
