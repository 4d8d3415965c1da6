//! A model's parameters and buffers by name, on their device. It must not know what they are for.

use crate::init::{self, Fans};
use safetensors::Dtype;
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

/// One named tensor: f32, except for a module's own buffers and frozen parameters.
#[derive(Debug)]
pub struct Param {
    /// Its name in weight files, for instance `conv1.weight`.
    pub name: String,
    /// Its values, on the device.
    pub tensor: Tensor,
    /// Whether it is trained; buffers (running statistics) are not.
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

    /// Adds a tensor that a module has made, on its device.
    pub fn adopt(&mut self, name: &str, tensor: Tensor, trained: bool) {
        self.entries.push(Param { name: name.to_owned(), tensor, trained });
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

    /// Names of those that have none, in the order of [`Params::buffers`].
    #[must_use]
    pub fn buffer_names(&self) -> Vec<&str> {
        self.entries.iter().filter(|e| !e.trained).map(|e| e.name.as_str()).collect()
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
        let dtypes: Vec<String> = copies.iter().map(|t| format!("{:?}", t.dtype)).collect();
        Ok(weights_digest(
            copies
                .iter()
                .zip(&dtypes)
                .map(|(t, dtype)| (t.name.as_str(), dtype.as_str(), t.shape.as_slice(), Cow::from(&t.bytes))),
        ))
    }
}

/// How the files of checkpoints name a type; `None` for one that they do not hold.
#[must_use]
pub fn dtype(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}

/// A copy of a tensor in this process's memory, row-major and little endian.
#[derive(Debug, Clone)]
pub struct HostTensor {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values.
    pub bytes: Vec<u8>,
}

impl HostTensor {
    /// Copies `tensor`.
    ///
    /// # Errors
    /// What libtorch says when the values cannot be read, or that they are of a type without a [`dtype`].
    pub fn copy(name: &str, tensor: &Tensor) -> Result<Self, TchError> {
        let host = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
        let kind = host.f_kind()?;
        let dtype =
            dtype(kind).ok_or_else(|| TchError::Kind(format!("{name} is {kind:?}, which is not saved")))?;
        let mut bytes = vec![0; host.numel() * kind.elt_size_in_bytes()];
        host.f_copy_data_u8(&mut bytes, host.numel())?;
        let shape = host.size().iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        Ok(Self { name: name.to_owned(), dtype, shape, bytes })
    }
}
