//! A model's parameters and buffers by name, on their device. It must not know what they are for.

use crate::init::{self, Fans};
use spotsweep_proto::{digest::Digest, line::weights_digest, train::Init};
use std::borrow::Cow;
use tch::{Device, Kind, TchError, Tensor};

/// How a tensor lies in memory. Its shape is the same either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Row-major in the order of the dimensions.
    RowMajor,
    /// Four dimensions N, C, H, W with C varying fastest: what convolutions on CPUs and tensor cores like.
    ChannelsLast,
}

impl Layout {
    /// `tensor` with this layout; the same tensor if it has it already.
    pub fn of(self, tensor: &Tensor) -> Tensor {
        match self {
            Self::RowMajor => tensor.contiguous(),
            Self::ChannelsLast => {
                let size = tensor.size();
                let (channels, height, width) = (size[1], size[2], size[3]);
                let values = tensor.permute([0, 2, 3, 1]).contiguous();
                // Strides in full: with one channel they would be ambiguous, and convolutions look at them.
                values.as_strided(&size, [channels * height * width, 1, channels * width, channels], None)
            }
        }
    }
}

/// One named tensor, f32.
#[derive(Debug)]
pub struct Param {
    /// Its name in weight files, for instance `conv1.weight`.
    pub name: String,
    /// Its values, on the device.
    pub tensor: Tensor,
    /// Whether it has a gradient; buffers (running statistics) have none.
    pub trained: bool,
}

/// All parameters and buffers of a model.
#[derive(Debug)]
pub struct Params {
    device: Device,
    init: Init,
    seed: u64,
    entries: Vec<Param>,
}

impl Params {
    /// None yet.
    #[must_use]
    pub fn new(device: Device, init: Init, seed: u64) -> Self {
        Self { device, init, seed, entries: Vec::new() }
    }

    /// Where they live.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// The trial's seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a tensor of any shape that starts with these values, as f32: trained, or a buffer.
    pub fn tensor(&mut self, name: &str, values: &Tensor, trained: bool) -> Tensor {
        let values = values.detach().to_kind(Kind::Float).contiguous().copy();
        self.add(name, &values, trained)
    }

    /// Adds a weight with drawn values.
    pub fn weight(&mut self, name: &str, shape: &[i64], fans: Fans, layout: Layout) -> Tensor {
        let values = init::weights(self.init, shape, fans, self.seed, self.entries.len() as u64);
        self.add(name, &layout.of(&values), true)
    }

    /// Adds a trained vector that starts as `value` everywhere: a bias, or a scale.
    pub fn vector(&mut self, name: &str, len: i64, value: f64) -> Tensor {
        self.add(name, &Tensor::full([len], value, (Kind::Float, Device::Cpu)), true)
    }

    /// Adds a vector that is not trained but belongs to the weights.
    pub fn buffer(&mut self, name: &str, len: i64, value: f64) -> Tensor {
        self.add(name, &Tensor::full([len], value, (Kind::Float, Device::Cpu)), false)
    }

    fn add(&mut self, name: &str, values: &Tensor, trained: bool) -> Tensor {
        let tensor = values.to_device(self.device).set_requires_grad(trained);
        let shared = tensor.shallow_clone();
        self.entries.push(Param { name: name.to_owned(), tensor, trained });
        shared
    }

    /// All of them, in the order in which the model made them.
    #[must_use]
    pub fn entries(&self) -> &[Param] {
        &self.entries
    }

    /// Handles of those that have a gradient, in order.
    #[must_use]
    pub fn trained(&self) -> Vec<Tensor> {
        self.entries.iter().filter(|e| e.trained).map(|e| e.tensor.shallow_clone()).collect()
    }

    /// Handles of those that have none, in order.
    #[must_use]
    pub fn buffers(&self) -> Vec<Tensor> {
        self.entries.iter().filter(|e| !e.trained).map(|e| e.tensor.shallow_clone()).collect()
    }

    /// Names of those that have a gradient, in the order of [`Params::trained`].
    #[must_use]
    pub fn trained_names(&self) -> Vec<String> {
        self.entries.iter().filter(|e| e.trained).map(|e| e.name.clone()).collect()
    }

    /// Number of trained values.
    #[must_use]
    pub fn trained_values(&self) -> usize {
        self.entries.iter().filter(|e| e.trained).map(|e| e.tensor.numel()).sum()
    }

    /// The digest by which weights are compared.
    ///
    /// # Errors
    /// What libtorch says when the values cannot be read, for instance a lost GPU.
    pub fn digest(&self) -> Result<Digest, TchError> {
        let copies: Vec<HostTensor> =
            self.entries.iter().map(|e| HostTensor::copy(&e.name, &e.tensor)).collect::<Result<_, _>>()?;
        Ok(weights_digest(
            copies.iter().map(|t| (t.name.as_str(), "F32", t.shape.as_slice(), Cow::from(&t.bytes))),
        ))
    }
}

/// A copy of an f32 tensor in this process's memory, row-major and little endian.
#[derive(Debug, Clone)]
pub struct HostTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values.
    pub bytes: Vec<u8>,
}

impl HostTensor {
    /// Copies `tensor`.
    ///
    /// # Errors
    /// What libtorch says when the values cannot be read.
    pub fn copy(name: &str, tensor: &Tensor) -> Result<Self, TchError> {
        let host = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut bytes = vec![0; host.numel() * 4];
        host.f_to_kind(Kind::Float)?.f_copy_data_u8(&mut bytes, host.numel())?;
        let shape = host.size().iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        Ok(Self { name: name.to_owned(), shape, bytes })
    }
}
