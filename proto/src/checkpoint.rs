//! What a checkpoint is in the object store: two parts and a manifest that names them.
//!
//! Every object is named by the BLAKE3 of its content, so equal content is stored once and a half-written or
//! altered object can never pass for a whole one. Parts are written first, the manifest last: who can read a
//! manifest can read what it names. This module must not do IO: agent and coordinator bring their own.

use crate::{digest::Digest, ids::TrialId, metric::Metrics};
use serde::{Deserialize, Serialize};

/// Version of [`Manifest`].
pub const MANIFEST_FORMAT: u32 = 1;
/// Largest manifest that is read, in bytes: one with [`METRICS_PER_TRIAL`](crate::limits::METRICS_PER_TRIAL) long names fits.
pub const MANIFEST_BYTES: usize = 256 << 10;

/// Path of an object below the root of the store: `ab/cdef…`, so that no folder grows too large.
#[must_use]
pub fn object_path(digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("{}/{}", &hex[..2], &hex[2..])
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Whose it is.
    pub trial: TrialId,
    /// Finished steps.
    pub step: u64,
    /// Named parameters and buffers (safetensors).
    pub weights: Part,
    /// All else that a resume needs (safetensors; of a program, an archive).
    pub state: Part,
    /// Of a program: what was heard of it up to here. A trainer has that in its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub so_far: Option<SoFar>,
}

/// What a program had told when it saved. One that goes on from there does not say it again, and its result has it all the
/// same: interrupted equals uninterrupted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoFar {
    /// The last value of each metric, in the order in which they were first reported. At most
    /// [`METRICS_PER_TRIAL`](crate::limits::METRICS_PER_TRIAL).
    pub metrics: Metrics,
    /// Of this checkpoint: the trial's, if none comes after it.
    pub weights_digest: Digest,
}

/// One object of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// BLAKE3 of the content.
    pub digest: Digest,
    /// Length in bytes.
    pub bytes: u64,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Their digest is not the one asked for.
    #[error("the manifest {wanted} is damaged: its content has the digest {found}")]
    Damaged {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// They are not a manifest.
    #[error("the manifest is not readable")]
    Form(#[source] serde_json::Error),
    /// A newer program wrote it.
    #[error("the manifest has format {found}; this program reads {MANIFEST_FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
}

impl Manifest {
    /// The bytes that are stored, and their digest.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Digest) {
        #[expect(clippy::expect_used, reason = "a struct of numbers and texts always has a JSON form")]
        let bytes = serde_json::to_vec(self).expect("manifest as JSON");
        let digest = Digest::of(&bytes);
        (bytes, digest)
    }

    /// Checks and reads stored bytes.
    ///
    /// # Errors
    /// [`ManifestError`] if they are damaged, no manifest, or of another format.
    pub fn decode(bytes: &[u8], wanted: Digest) -> Result<Self, ManifestError> {
        let found = Digest::of(bytes);
        if found != wanted {
            return Err(ManifestError::Damaged { wanted, found });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ManifestError::Form)?;
        if manifest.format != MANIFEST_FORMAT {
            return Err(ManifestError::Format { found: manifest.format });
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{MetricName, SweepName},
        limits::{METRICS_PER_TRIAL, NAME_BYTES},
    };

    #[test]
    fn a_manifest_with_one_bit_changed_is_refused() {
        let part = |text: &str| Part { digest: Digest::of(text.as_bytes()), bytes: 3 };
        let trial = "a/1".parse().unwrap();
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            trial,
            step: 7,
            weights: part("w"),
            state: part("s"),
            so_far: None,
        };
        let (mut bytes, digest) = manifest.encode();
        assert_eq!(Manifest::decode(&bytes, digest).unwrap(), manifest);
        bytes[10] ^= 1;
        assert!(matches!(Manifest::decode(&bytes, digest), Err(ManifestError::Damaged { .. })));
    }

    #[test]
    fn the_largest_manifest_that_can_be_made_can_be_read() {
        let part = Part { digest: Digest::of(b"w"), bytes: u64::MAX };
        let name = |number: usize| format!("{number:0>width$}", width = NAME_BYTES);
        let metrics = (0..METRICS_PER_TRIAL)
            .map(|number| (MetricName::new(&name(number)).unwrap(), -f64::MIN_POSITIVE));
        let so_far = Some(SoFar { metrics: metrics.collect(), weights_digest: part.digest });
        let trial = TrialId { sweep: SweepName::new(&"s".repeat(NAME_BYTES)).unwrap(), number: u32::MAX };
        let manifest =
            Manifest { format: MANIFEST_FORMAT, trial, step: u64::MAX, weights: part, state: part, so_far };
        let (bytes, digest) = manifest.encode();
        assert!(bytes.len() <= MANIFEST_BYTES, "{}", bytes.len());
        assert_eq!(Manifest::decode(&bytes, digest).unwrap(), manifest);
    }
}
