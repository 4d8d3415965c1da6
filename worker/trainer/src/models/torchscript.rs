//! A user's own module, as TorchScript has exported it. Architecture, initial weights and arithmetic are the file's; data,
//! loss, optimizer and checkpoints are the trainer's, which sees named tensors as it does of every model.
//!
//! What a module must be is checked before the first step, so that what is wrong is told of the file and not of a step. Random
//! numbers that it draws are a function of seed and step: libtorch's generators are seeded before each pass, in training by
//! the network and in evaluation here.

use super::{Model, Pass, Shape};
use crate::{
    error::TrainError,
    params::{HostTensor, Params, dtype},
    seed::{Purpose, seed_torch},
};
use spotsweep_proto::{
    digest::Digest,
    limits::NAME_BYTES,
    line::FailureKind,
    module::{MODULE_BYTES, MODULE_TENSORS, ModuleRef},
};
use spotsweep_trainer_shim::{Script, ScriptFault, ScriptTensor, TorchError};
use std::{fs::File, io::Read as _, path::Path};
use tch::{Kind, Reduction, Tensor};

/// Samples of the batch with which a module is tried.
const TRIED: i64 = 2;

/// A module that keeps the contract.
#[derive(Debug)]
pub struct TorchScript {
    script: Script,
    file: String,
    shape: Shape,
    /// Whether it gives one score for two classes.
    is_binary: bool,
    seed: u64,
}

impl TorchScript {
    /// Loads `module` from `path` onto the device of `params`, into which its parameters and buffers go under its own names.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the file is not there or not what the name is pinned to, [`TrainError::Config`] if it is no
    /// module that can be trained on images of `shape`, [`TrainError::Torch`] when memory runs out.
    pub fn load(
        module: &ModuleRef,
        path: Option<&Path>,
        shape: Shape,
        params: &mut Params,
    ) -> Result<Self, TrainError> {
        let file = module.file().to_owned();
        let bytes = read(module, path)?;
        let refused = |what: &str, error: TorchError| refused(&file, what, error);
        let script = Script::load(&bytes, params.device())
            .map_err(|error| refused("is no TorchScript module that this libtorch can load", error))?;
        let faults =
            script.faults().map_err(|error| refused("has no forward that can be looked at", error))?;
        if let Some(fault) = faults.first() {
            return Err(TrainError::Config(format!("{file}: {}", in_words(fault))));
        }
        let tensors = script.tensors().map_err(|error| refused("does not give its tensors", error))?;
        let mut own = Self { script, file, shape, is_binary: false, seed: params.seed() };
        own.enter(tensors, params)?;
        own.try_out(params)?;
        Ok(own)
    }

    /// Enters the tensors of the module into `params`.
    fn enter(&self, tensors: Vec<ScriptTensor>, params: &mut Params) -> Result<(), TrainError> {
        let wrong = |what: String| Err(TrainError::Config(format!("{}: {what}", self.file)));
        if tensors.len() > MODULE_TENSORS {
            return wrong(format!(
                "it has {} parameters and buffers, more than {MODULE_TENSORS}",
                tensors.len()
            ));
        }
        for ScriptTensor { name, tensor, is_parameter, is_repeated, is_shared } in tensors {
            if name.len() > NAME_BYTES {
                let start: String = name.chars().take(40).collect();
                return wrong(format!("the name {start}… has more than {NAME_BYTES} bytes"));
            }
            let trained = is_parameter && tensor.requires_grad();
            let kind = tensor.kind();
            if trained && kind != Kind::Float {
                return wrong(format!(
                    "the parameter {name} is {kind:?}; those that are trained must be float32"
                ));
            }
            if dtype(kind).is_none() || tensor.is_sparse() {
                return wrong(format!("{name} is of the type {kind:?}, which cannot be saved"));
            }
            if trained && is_shared {
                return wrong(format!(
                    "the parameter {name} is a view of another one; tie weights by one tensor under two names"
                ));
            }
            // An optimizer's moments lie in memory as what they belong to.
            if trained && tensor.f_zeros_like()?.stride() != tensor.stride() {
                return wrong(format!(
                    "the parameter {name} is a view with gaps; export it as a tensor of its own"
                ));
            }
            params.adopt(&name, tensor, trained && !is_repeated);
        }
        if params.trained().is_empty() {
            return wrong(
                "it has no parameter that requires a gradient, so there is nothing to train (a module that was traced or \
                 frozen for inference has none left)"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Tries a batch in evaluation mode and, as in a step, in training mode; leaves no trace of it.
    fn try_out(&mut self, params: &Params) -> Result<(), TrainError> {
        let Shape { channels, height, width, classes } = self.shape;
        let shown = format!("float32 images of shape [{TRIED}, {channels}, {height}, {width}]");
        let refused = |what: String, error| refused(&self.file, &what, error);
        let images = Tensor::f_zeros([TRIED, channels, height, width], (Kind::Float, params.device()))?;
        let before: Vec<Tensor> =
            params.buffers().iter().map(Tensor::f_detach_copy).collect::<Result<_, _>>()?;
        seed_torch(self.seed, Purpose::Evaluation, 0);
        let scores = tch::no_grad(|| self.script.forward(&images, false))
            .map_err(|error| refused(format!("does not take {shown}"), error))?;
        let (size, kind) = (scores.size(), scores.kind());
        let is_binary = classes == 2 && size == [TRIED, 1];
        if kind != Kind::Float || !(is_binary || size == [TRIED, classes]) {
            return Err(TrainError::Config(format!(
                "{}: of {shown} it makes {kind:?} {size:?}; the data has {classes} classes, so float32 logits of shape \
                 [{TRIED}, {classes}] are wanted",
                self.file
            )));
        }
        for (name, (buffer, value)) in params.buffer_names().iter().zip(params.buffers().iter().zip(&before))
        {
            if !same_bits(buffer, value)? {
                return Err(TrainError::Config(format!(
                    "{}: forward changes {name} in evaluation mode, as torch.jit.trace of a model in training mode leaves it; \
                     export with torch.jit.script(model)",
                    self.file
                )));
            }
        }
        let scores = self
            .script
            .forward(&images, true)
            .map_err(|error| refused(format!("does not take {shown} in training mode"), error))?;
        let trained = params.trained();
        let grads = if scores.requires_grad() {
            Tensor::f_run_backward(&[&scores.f_sum(Kind::Float)?], &trained, false, false).map_err(
                |error| refused("cannot be differentiated".to_owned(), TorchError(error.to_string())),
            )?
        } else {
            Vec::new()
        };
        let names = params.trained_names();
        if let Some(name) =
            names.iter().enumerate().find(|(at, _)| grads.get(*at).is_none_or(|grad| !grad.defined()))
        {
            return Err(TrainError::Config(format!(
                "{}: the parameter {} has no part in what forward gives; freeze it with requires_grad_(False) before export",
                self.file, name.1
            )));
        }
        tch::no_grad(|| {
            for (buffer, value) in params.buffers().iter().zip(&before) {
                buffer.shallow_clone().f_copy_(value)?;
            }
            Ok::<_, TrainError>(())
        })?;
        self.is_binary = is_binary;
        Ok(())
    }
}

/// The bytes of the module, if they are what its name is pinned to.
fn read(module: &ModuleRef, path: Option<&Path>) -> Result<Vec<u8>, TrainError> {
    let Some(wanted) = module.digest() else {
        return Err(TrainError::Config(format!(
            "{module} is not pinned to a content; hand the sweep in with `spotsweep submit` or `spotsweep run`"
        )));
    };
    let Some(path) = path else {
        return Err(TrainError::Config(format!("the agent did not say where {} lies", module.file())));
    };
    let fault = |problem: String| TrainError::Data { path: path.to_owned(), problem };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MODULE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| fault(format!("the module {} cannot be read: {error}", module.file())))?;
    if bytes.len() as u64 > MODULE_BYTES {
        return Err(fault(format!("the module has more than {MODULE_BYTES} bytes")));
    }
    let found = Digest::of(&bytes);
    if found != wanted {
        return Err(fault(format!(
            "this is not the module {} that the sweep was handed in with: its digest is {}, not {}",
            module.file(),
            found.short(),
            wanted.short()
        )));
    }
    Ok(bytes)
}

/// What is wrong with a file, unless it is memory that is missing.
fn refused(file: &str, what: &str, error: TorchError) -> TrainError {
    let text = format!("{file} {what}: {}", error.0);
    match TrainError::from(error).kind() {
        FailureKind::OutOfMemory => TrainError::Torch(text),
        _ => TrainError::Config(text),
    }
}

/// Whether two tensors hold the same values; NaN is like NaN.
fn same_bits(a: &Tensor, b: &Tensor) -> Result<bool, TrainError> {
    Ok(HostTensor::copy("", a)?.bytes == HostTensor::copy("", b)?.bytes)
}

fn in_words(fault: &ScriptFault) -> String {
    match fault {
        ScriptFault::Frozen(operations) => format!(
            "{operations} is fixed in evaluation mode, as torch.jit.trace leaves it; export with torch.jit.script(model)"
        ),
        ScriptFault::Assigned(attributes) => format!(
            "forward assigns to {attributes}, which no checkpoint would hold; make it a buffer and change it in place \
             (self.name.copy_(…), self.name.add_(1))"
        ),
        ScriptFault::Mutated(attributes) => format!(
            "forward changes {attributes}, which is no tensor and which no checkpoint would hold; keep such state in a buffer"
        ),
        ScriptFault::Forks => {
            "forward starts work on threads of its own (torch.jit.fork), whose random numbers could not be \
                               repeated"
                .to_owned()
        }
    }
}

impl Model for TorchScript {
    fn scores(&self, images: &Tensor, pass: Pass) -> Tensor {
        let Shape { channels, height, width, classes } = self.shape;
        if !pass.is_train() {
            // The same numbers for every batch: which ones a rank evaluates must not matter.
            seed_torch(self.seed, Purpose::Evaluation, 0);
        }
        let images = images.view([-1, channels, height, width]);
        // As tch does where libtorch throws; but what a module of somebody throws needs no trace of ours on stderr.
        let fail =
            |what: String| -> ! { std::panic::resume_unwind(Box::new(format!("{}: {what}", self.file))) };
        let scores = self.script.forward(&images, pass.is_train()).unwrap_or_else(|error| fail(error.0));
        let wanted = if self.is_binary { 1 } else { classes };
        if scores.kind() != Kind::Float || scores.size() != [images.size()[0], wanted] {
            fail(format!(
                "of a batch of {} it makes {:?} {:?}",
                images.size()[0],
                scores.kind(),
                scores.size()
            ));
        }
        if self.is_binary { scores.squeeze_dim(1) } else { scores }
    }

    fn loss(&self, scores: &Tensor, labels: &Tensor, reduction: Reduction) -> Tensor {
        if self.is_binary {
            let target = labels.to_kind(Kind::Float);
            return scores.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, reduction);
        }
        scores.cross_entropy_loss::<Tensor>(labels, None, reduction, -100, 0.0)
    }

    fn correct(&self, scores: &Tensor, labels: &Tensor) -> Tensor {
        if self.is_binary {
            return scores.ge(0.0).eq_tensor(&labels.eq(1)).sum(Kind::Int64);
        }
        scores.argmax(-1, false).eq_tensor(labels).sum(Kind::Int64)
    }

    fn draws(&self) -> bool {
        // Whatever is in it.
        true
    }
}
