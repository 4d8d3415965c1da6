//! Checkpoints of one trial: what is in them ([`Snapshot`]), how they are written beside training ([`writer`])
//! and read back ([`restore`]).
//!
//! Two safetensors files. `weights` holds parameters and buffers under their names and nothing else: equal
//! weights are equal files. `state` holds the optimizer's moments as `NAME.PARAMETER`, and in its metadata, under
//! the key [`META_KEY`], a [`Meta`] as JSON. Generators, data cursor and schedule are functions of seed and step
//! (see [`crate::seed`]), so the step is all that is kept of them.
//!
//! It must not know when a checkpoint is due: that is the session's.

pub mod restore;
pub mod writer;

use crate::{error::TrainError, meter::Tally, network::Network, params::HostTensor};
use safetensors::{Dtype, View};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{digest::Digest, ids::TrialId, train::TrainConfig};
use std::{borrow::Cow, collections::BTreeMap};

/// Version of the state file. A change of anything that a resume reads, or of what the same recipe computes,
/// raises it.
pub const STATE_FORMAT: u32 = 1;
/// Key of [`Meta`] in the state file's metadata.
pub const META_KEY: &str = "spotsweep";

/// Everything in a checkpoint that is no tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// [`STATE_FORMAT`].
    pub format: u32,
    /// Whose it is.
    pub trial: TrialId,
    /// [`recipe_digest`] of what is trained.
    pub recipe: Digest,
    /// Finished steps.
    pub step: u64,
    /// Training sums since the last report.
    pub tally: Tally,
    /// The metrics of the last report, timings left out.
    pub latest: BTreeMap<String, f64>,
}

/// The digest of a recipe: a checkpoint fits no other one.
#[must_use]
pub fn recipe_digest(config: &TrainConfig) -> Digest {
    #[expect(clippy::expect_used, reason = "a struct of numbers and texts always has a JSON form")]
    let bytes = serde_json::to_vec(config).expect("recipe as JSON");
    Digest::of(&bytes)
}

/// What a checkpoint must have been trained with: the recipe and, of data that a program has made, its content. A program that
/// makes other samples on another machine does not go on where it was.
#[must_use]
pub fn identity(config: &TrainConfig, content: Option<Digest>) -> Digest {
    let recipe = recipe_digest(config);
    content.map_or(recipe, |content| Digest::of(&[recipe.0, content.0].concat()))
}

/// A copy of a trial's whole state at the end of a step, in this process's memory.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// All that is no tensor.
    pub meta: Meta,
    /// Parameters and buffers.
    pub weights: Vec<HostTensor>,
    /// Moments.
    pub moments: Vec<HostTensor>,
}

impl Snapshot {
    /// Copies the state of `network`. This is the only part of a checkpoint that training waits for.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn take(meta: Meta, network: &Network) -> Result<Self, TrainError> {
        let weights = network
            .params
            .entries()
            .iter()
            .map(|e| HostTensor::copy(&e.name, &e.tensor))
            .collect::<Result<_, _>>()?;
        let names = network.params.trained_names();
        let mut moments = Vec::new();
        for (kind, tensors) in network.optimizer.moments() {
            for (name, tensor) in names.iter().zip(tensors) {
                moments.push(HostTensor::copy(&moment_name(kind, name), tensor)?);
            }
        }
        Ok(Self { meta, weights, moments })
    }
}

fn moment_name(kind: &str, parameter: &str) -> String {
    format!("{kind}.{parameter}")
}

impl View for &HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::from(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
