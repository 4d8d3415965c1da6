//! A TorchScript module as a model: how a sweep names one, and the limits of one. No IO, and no libtorch.
//!
//! A sweep file says `model: net.pt`, a file beside it. Whoever hands the sweep in stores the file under the digest of its
//! content and pins the name to it, `net.pt@blake3:HEX`: what the file becomes later changes nothing.

use crate::{datasets::reference::DIGEST_PREFIX, digest::Digest};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How the name of a module's file ends.
pub const MODULE_SUFFIX: &str = ".pt";
/// Largest file of a module, in bytes.
pub const MODULE_BYTES: u64 = 256 << 20;
/// Most parameters and buffers of a module.
pub const MODULE_TENSORS: usize = 10_000;
/// Most modules of one sweep.
pub const MODULES_PER_SWEEP: usize = 64;
/// Longest path of a module's file, in bytes.
pub const MODULE_PATH_BYTES: usize = 512;

/// A module, as a sweep names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleRef {
    file: String,
    digest: Option<Digest>,
}

/// Why a text names no module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModuleRefError {
    /// It is no file of a module.
    #[error("the file of a TorchScript module ends in {MODULE_SUFFIX}")]
    Suffix,
    /// It is no path.
    #[error("the path of a module has at most {MODULE_PATH_BYTES} bytes, and no control characters")]
    Path,
    /// What stands behind `@blake3:` is no digest.
    #[error("a module is pinned by `@blake3:` and 64 hex digits")]
    Digest,
}

impl ModuleRef {
    /// Whether `text` is meant to name a module, rightly or not: no model of the catalogue is called like a file.
    #[must_use]
    pub fn is_meant_by(text: &str) -> bool {
        split(text).0.ends_with(MODULE_SUFFIX)
    }

    /// The path of its file, from where the sweep file lies.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The digest of its content, where it is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same file, pinned to this content.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { file: self.file.clone(), digest: Some(digest) }
    }
}

/// The path, and what stands behind `@blake3:`.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once('@').and_then(|(file, pin)| Some((file, pin.strip_prefix(DIGEST_PREFIX)?))) {
        Some((file, pin)) => (file, Some(pin)),
        None => (text, None),
    }
}

impl FromStr for ModuleRef {
    type Err = ModuleRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (file, pin) = split(text);
        if !file.ends_with(MODULE_SUFFIX)
            || file.ends_with(&format!("/{MODULE_SUFFIX}"))
            || file == MODULE_SUFFIX
        {
            return Err(ModuleRefError::Suffix);
        }
        if file.len() > MODULE_PATH_BYTES || file.contains(char::is_control) {
            return Err(ModuleRefError::Path);
        }
        let digest = pin.map(|hex| hex.parse().map_err(|_| ModuleRefError::Digest)).transpose()?;
        Ok(Self { file: file.to_owned(), digest })
    }
}

impl fmt::Display for ModuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest {
            Some(digest) => write!(f, "{}@{DIGEST_PREFIX}{digest}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

impl TryFrom<String> for ModuleRef {
    type Error = ModuleRefError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModuleRef> for String {
    fn from(module: ModuleRef) -> Self {
        module.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_as_it_is_written() {
        let digest = Digest::of(b"module");
        for text in ["net.pt".to_owned(), "../a b/net@2.pt".to_owned(), format!("x/net.pt@blake3:{digest}")] {
            assert!(ModuleRef::is_meant_by(&text), "{text}");
            let module: ModuleRef = text.parse().unwrap();
            assert_eq!(module.to_string(), text);
            let json = serde_json::to_string(&module).unwrap();
            assert_eq!(serde_json::from_str::<ModuleRef>(&json).unwrap(), module);
        }
        let module: ModuleRef = "x/net.pt".parse().unwrap();
        assert_eq!(module.pinned(digest).to_string(), format!("x/net.pt@blake3:{digest}"));
    }

    #[test]
    fn what_is_no_path_of_a_module_or_no_digest_is_refused() {
        for (text, wrong) in [
            ("net.pth", ModuleRefError::Suffix),
            ("mlp", ModuleRefError::Suffix),
            (".pt", ModuleRefError::Suffix),
            ("a/.pt", ModuleRefError::Suffix),
            ("a\u{1b}.pt", ModuleRefError::Path),
            ("net.pt@blake3:12", ModuleRefError::Digest),
            (&format!("{}.pt", "x".repeat(MODULE_PATH_BYTES)), ModuleRefError::Path),
        ] {
            assert_eq!(text.parse::<ModuleRef>(), Err(wrong), "{text}");
        }
    }
}
