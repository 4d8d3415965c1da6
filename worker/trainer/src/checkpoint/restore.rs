//! Reads a checkpoint back into a fresh network. Nothing in the files is believed before it is checked.

use super::{META_KEY, Meta, STATE_FORMAT, moment_name};
use crate::{error::TrainError, network::Network, params::dtype};
use safetensors::{Dtype, SafeTensors};
use spotsweep_proto::{digest::Digest, ids::TrialId, line::CheckpointFiles};
use std::{fs::File, io::Read, path::Path};
use tch::Tensor;

/// Room for a file's header beside its tensors, in bytes.
const HEADER_BYTES: u64 = 1 << 20;
/// Room in it for one tensor: a name of [`spotsweep_proto::limits::NAME_BYTES`], escaped, and where its values lie.
const ENTRY_BYTES: u64 = 1 << 10;

/// Whose checkpoint is expected.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The trial.
    pub trial: &'a TrialId,
    /// Digest of its recipe.
    pub recipe: Digest,
}

/// Fills `network` with the state in `files` and returns the rest of it.
///
/// # Errors
/// [`TrainError::Checkpoint`] names the file and what is wrong: unreadable, of another trial or recipe, or with
/// tensors that do not fit. The network is then not to be used.
pub fn restore(
    files: &CheckpointFiles,
    identity: Identity<'_>,
    network: &mut Network,
) -> Result<Meta, TrainError> {
    let size = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
    let value_bytes = network.params.entries().iter().map(|e| size(&e.tensor)).sum::<u64>();
    let header_bytes = HEADER_BYTES + ENTRY_BYTES * network.params.entries().len() as u64;
    let state = read(&files.state, 2 * (value_bytes + header_bytes))?;
    let meta = meta(&files.state, &state)?;
    check(&files.state, &meta, files.step, identity)?;

    let names = network.params.trained_names();
    let moments = network.optimizer.moments();
    let wanted: Vec<(String, &Tensor)> = moments
        .iter()
        .flat_map(|(kind, tensors)| names.iter().zip(*tensors).map(|(n, t)| (moment_name(kind, n), t)))
        .collect();
    fill(&files.state, &state, &wanted)?;

    let weights = read(&files.weights, value_bytes + header_bytes)?;
    let wanted: Vec<_> = network.params.entries().iter().map(|e| (e.name.clone(), &e.tensor)).collect();
    fill(&files.weights, &weights, &wanted)?;
    network.optimizer.resume(meta.step);
    Ok(meta)
}

fn fault(path: &Path, problem: impl ToString) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), problem: problem.to_string() }
}

fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, TrainError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| fault(path, error))?;
    file.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(|error| fault(path, error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(fault(path, format!("is larger than the {limit_bytes} bytes that fit this trial")));
    }
    Ok(bytes)
}

fn meta(path: &Path, bytes: &[u8]) -> Result<Meta, TrainError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| fault(path, error))?;
    let text = header.metadata().as_ref().and_then(|m| m.get(META_KEY));
    let text = text.ok_or_else(|| fault(path, "is no state file of Spotsweep"))?;
    serde_json::from_str(text).map_err(|error| fault(path, error))
}

fn check(path: &Path, meta: &Meta, step: u64, identity: Identity<'_>) -> Result<(), TrainError> {
    if meta.format != STATE_FORMAT {
        let problem = format!("has format {}; this trainer reads {STATE_FORMAT}", meta.format);
        return Err(fault(path, problem));
    }
    if meta.trial != *identity.trial {
        return Err(fault(path, format!("belongs to {}, not to {}", meta.trial, identity.trial)));
    }
    if meta.recipe != identity.recipe {
        let problem =
            format!("was trained by the recipe {}, not {}", meta.recipe.short(), identity.recipe.short());
        return Err(fault(path, problem));
    }
    if meta.step != step {
        return Err(fault(path, format!("is of step {}, not {step}", meta.step)));
    }
    Ok(())
}

/// Overwrites every tensor of `wanted` with the file's of that name; the file must hold these and no others.
fn fill(path: &Path, bytes: &[u8], wanted: &[(String, &Tensor)]) -> Result<(), TrainError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| fault(path, error))?;
    if file.len() != wanted.len() {
        return Err(fault(path, format!("holds {} tensors instead of {}", file.len(), wanted.len())));
    }
    let _no_grad = tch::no_grad_guard();
    for (name, tensor) in wanted {
        let found = file.tensor(name).map_err(|error| fault(path, error))?;
        let shape: Vec<i64> = found.shape().iter().map(|&d| i64::try_from(d).unwrap_or(-1)).collect();
        let wanted = dtype(tensor.kind()).unwrap_or(Dtype::F32);
        if found.dtype() != wanted || shape != tensor.size() {
            let problem = format!(
                "{name} is {} {:?} instead of {wanted} {:?}",
                found.dtype(),
                found.shape(),
                tensor.size()
            );
            return Err(fault(path, problem));
        }
        let values = Tensor::f_from_data_size(found.data(), &shape, tensor.kind())?;
        // Into the same memory: the model, the optimizer and their layouts stay what they are.
        tensor.shallow_clone().f_copy_(&values)?;
    }
    Ok(())
}
