//! What a checkpoint is in the object store: two parts and a manifest that names them.
//!
//! Every object is named by the BLAKE3 of its content, so equal content is stored once and a half-written or
//! altered object can never pass for a whole one. Parts are written first, the manifest last: who can read a
//! manifest can read what it names. This module must not do IO: agent and coordinator bring their own.

use crate::{digest::Digest, ids::TrialId};
use serde::{Deserialize, Serialize};

/// Version of [`Manifest`].
pub const MANIFEST_FORMAT: u32 = 1;
/// Largest manifest that is read, in bytes.
pub const MANIFEST_BYTES: usize = 64 << 10;

/// Path of an object below the root of the store: `ab/cdef…`, so that no folder grows too large.
#[must_use]
pub fn object_path(digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("{}/{}", &hex[..2], &hex[2..])
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// All else that a resume needs (safetensors).
    pub state: Part,
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

    #[test]
    fn a_manifest_with_one_bit_changed_is_refused() {
        let part = |text: &str| Part { digest: Digest::of(text.as_bytes()), bytes: 3 };
        let trial = "a/1".parse().unwrap();
        let manifest =
            Manifest { format: MANIFEST_FORMAT, trial, step: 7, weights: part("w"), state: part("s") };
        let (mut bytes, digest) = manifest.encode();
        assert_eq!(Manifest::decode(&bytes, digest).unwrap(), manifest);
        bytes[10] ^= 1;
        assert!(matches!(Manifest::decode(&bytes, digest), Err(ManifestError::Damaged { .. })));
    }
}
