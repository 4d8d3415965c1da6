//! What a user's data set is in the object store: pieces of samples and a manifest that names them in order.
//!
//! Every object is named by the BLAKE3 of its content ([`crate::checkpoint::object_path`]), pieces are written first
//! and the manifest last: who can read a manifest can read what it names, and the manifest's digest names the whole
//! data set to the last bit. This module must not do IO.
//!
//! A piece is a safetensors file with two tensors: [`IMAGES`], u8 or f32 of shape `[count, channels, height, width]`,
//! and [`LABELS`], u8 (up to 256 classes) or u16 of shape `[count]`.

use crate::{checkpoint::Part as Object, digest::Digest};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Version of [`DataManifest`].
pub const DATA_FORMAT: u32 = 1;
/// Name of a piece's images.
pub const IMAGES: &str = "images";
/// Name of a piece's labels.
pub const LABELS: &str = "labels";
/// The manifest's name in the folder that a trainer gets; beside it lie the pieces, named by their digests.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Largest data manifest that is read, in bytes: about 50,000 pieces.
pub const DATA_MANIFEST_BYTES: usize = 8 << 20;
/// What a piece's images should take, in bytes; a piece holds as many whole samples as fit, and at least one.
pub const PIECE_IMAGE_BYTES: u64 = 16 << 20;
/// Largest sample, in bytes.
pub const SAMPLE_BYTES: u64 = 16 << 20;
/// Largest piece that is read, in bytes: images, as many labels, and a header.
pub const PIECE_BYTES: u64 = PIECE_IMAGE_BYTES + 2 * PIECE_IMAGE_BYTES + (64 << 10);
/// Most samples of one part.
pub const SAMPLES_PER_PART: u32 = 50_000_000;
/// Most classes.
pub const CLASSES: usize = 65_535;
/// Longest name of a class, in bytes.
pub const CLASS_NAME_BYTES: usize = 128;

/// How pixels and features are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    /// Bytes; inputs are (x / 255 − mean) / std.
    U8,
    /// IEEE single precision, finite; inputs are (x − mean) / std.
    F32,
}

impl ElementType {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// How labels are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelType {
    /// One byte.
    U8,
    /// Two bytes, little endian.
    U16,
}

impl LabelType {
    /// The smaller type that holds labels of so many classes.
    #[must_use]
    pub fn of(classes: usize) -> Self {
        if classes <= 256 { Self::U8 } else { Self::U16 }
    }
}

/// The two parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataPart {
    /// Trained on; the validation split is taken from it.
    Train,
    /// Never trained on.
    Test,
}

/// In which order samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleOrder {
    /// As the source had them.
    Kept,
    /// In a fixed permutation: the source had them grouped by class, and a range of samples shall hold all classes.
    Shuffled,
}

/// A data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataManifest {
    /// [`DATA_FORMAT`].
    pub format: u32,
    /// Channels, height, width; a row of n features is `[1, 1, n]`.
    pub shape: [u32; 3],
    /// Type of the images' elements.
    pub elements: ElementType,
    /// Type of the labels.
    pub labels: LabelType,
    /// Mean of the training images (u8: scaled to [0, 1]), four significant digits: one for all, one a channel, or one
    /// a feature.
    pub mean: Vec<f64>,
    /// Standard deviation of the same, as many; above 0.
    pub std: Vec<f64>,
    /// Names of the classes; labels are their places here.
    pub classes: Vec<String>,
    /// Order of the samples.
    pub order: SampleOrder,
    /// Samples to train on, validation split included.
    pub train_samples: u32,
    /// Samples to test on.
    pub test_samples: u32,
    /// First those of the training part, then those of the test part, each in order and without gaps.
    pub pieces: Vec<Piece>,
}

/// A run of samples of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// BLAKE3 of the file.
    pub digest: Digest,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Which part.
    pub part: DataPart,
    /// Place of its first sample in the part.
    pub first: u32,
    /// How many samples.
    pub count: u32,
}

impl Piece {
    /// The samples that it holds, by their places in the part.
    #[must_use]
    pub fn samples(&self) -> Range<u32> {
        self.first..self.first.saturating_add(self.count)
    }

    /// As an object of the store.
    #[must_use]
    pub fn object(&self) -> Object {
        Object { digest: self.digest, bytes: self.bytes }
    }
}

/// What a model needs to know of a data set, wherever it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFacts {
    /// Channels, height, width.
    pub shape: [u32; 3],
    /// Labels are `0..classes`.
    pub classes: u16,
    /// Validation split included.
    pub train_samples: u32,
    /// Never trained on.
    pub test_samples: u32,
}

/// Why bytes are no data manifest.
#[derive(Debug, thiserror::Error)]
pub enum DataManifestError {
    /// Their digest is not the one asked for.
    #[error("the data manifest {wanted} is damaged: its content has the digest {found}")]
    Damaged {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes than any manifest has.
    #[error("the data manifest has {bytes} bytes; {DATA_MANIFEST_BYTES} is the limit")]
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// They are not a manifest.
    #[error("the data manifest is not readable")]
    Form(#[source] serde_json::Error),
    /// A newer program wrote it.
    #[error("the data manifest has format {found}; this program reads {DATA_FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
    /// It contradicts itself.
    #[error("the data manifest makes no sense: {0}")]
    Senseless(String),
}

impl DataManifest {
    /// The bytes that are stored, and their digest. Fields come in the order of the type and numbers in their shortest
    /// form, so that equal manifests have equal bytes.
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
    /// [`DataManifestError`] if they are damaged, no manifest, of another format, or senseless.
    pub fn decode(bytes: &[u8], wanted: Digest) -> Result<Self, DataManifestError> {
        if bytes.len() > DATA_MANIFEST_BYTES {
            return Err(DataManifestError::TooLarge { bytes: bytes.len() as u64 });
        }
        let found = Digest::of(bytes);
        if found != wanted {
            return Err(DataManifestError::Damaged { wanted, found });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(DataManifestError::Form)?;
        if manifest.format != DATA_FORMAT {
            return Err(DataManifestError::Format { found: manifest.format });
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether it is whole and within every limit.
    ///
    /// # Errors
    /// [`DataManifestError::Senseless`] says what is wrong.
    pub fn check(&self) -> Result<(), DataManifestError> {
        let wrong = |what: String| Err(DataManifestError::Senseless(what));
        let [channels, height, width] = self.shape.map(u64::from);
        let elements = channels.checked_mul(height).and_then(|n| n.checked_mul(width)).unwrap_or(u64::MAX);
        if elements == 0 || elements > SAMPLE_BYTES || elements * self.elements.bytes() > SAMPLE_BYTES {
            return wrong(format!("samples of {channels}x{height}x{width}"));
        }
        let constants = self.mean.len() as u64;
        if self.std.len() != self.mean.len() || !([1, channels, elements].contains(&constants)) {
            return wrong(format!("{constants} means and {} standard deviations", self.std.len()));
        }
        if !self.mean.iter().all(|x| x.is_finite()) || !self.std.iter().all(|x| x.is_finite() && *x > 0.0) {
            return wrong("a mean or standard deviation that is no such number".to_owned());
        }
        if self.classes.is_empty() || self.classes.len() > CLASSES {
            return wrong(format!("{} classes", self.classes.len()));
        }
        if let Some(class) = self.classes.iter().find(|class| !is_class_name(class)) {
            return wrong(format!("a class with the name {:?}", class.chars().take(40).collect::<String>()));
        }
        if self.labels != LabelType::of(self.classes.len()) {
            return wrong(format!("{} classes in {:?}", self.classes.len(), self.labels));
        }
        if self.train_samples == 0 || self.train_samples.max(self.test_samples) > SAMPLES_PER_PART {
            return wrong(format!("{} and {} samples", self.train_samples, self.test_samples));
        }
        let mut next = (DataPart::Train, 0);
        for (place, piece) in self.pieces.iter().enumerate() {
            if next == (DataPart::Train, self.train_samples) {
                next = (DataPart::Test, 0);
            }
            let room = self.samples(next.0) - next.1;
            if (piece.part, piece.first) != next || piece.count == 0 || piece.count > room {
                return wrong(format!("piece {place} does not continue the one before"));
            }
            if piece.bytes > PIECE_BYTES {
                return wrong(format!("piece {place} has {} bytes", piece.bytes));
            }
            next.1 += piece.count;
        }
        let whole = match next {
            (DataPart::Train, count) => count == self.train_samples && self.test_samples == 0,
            (DataPart::Test, count) => count == self.test_samples,
        };
        if whole { Ok(()) } else { wrong("pieces are missing".to_owned()) }
    }

    /// How many samples a part has.
    #[must_use]
    pub fn samples(&self, part: DataPart) -> u32 {
        match part {
            DataPart::Train => self.train_samples,
            DataPart::Test => self.test_samples,
        }
    }

    /// Elements of one sample.
    #[must_use]
    pub fn sample_elements(&self) -> u64 {
        self.shape.iter().map(|&n| u64::from(n)).product()
    }

    /// Bytes of all pieces.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }

    /// What a model needs to know.
    #[must_use]
    pub fn facts(&self) -> DataFacts {
        DataFacts {
            shape: self.shape,
            classes: u16::try_from(self.classes.len()).unwrap_or(u16::MAX),
            train_samples: self.train_samples,
            test_samples: self.test_samples,
        }
    }
}

/// Whether a text can name a class: not empty, not too long, without control characters.
#[must_use]
pub fn is_class_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= CLASS_NAME_BYTES && !text.chars().any(char::is_control)
}

/// The samples that shard `shard` of `of` owns, out of `samples`: from ⌊samples·shard/of⌋ to ⌊samples·(shard+1)/of⌋.
/// Shards past the last own nothing.
#[must_use]
pub fn shard_samples(samples: u32, shard: u32, of: u32) -> Range<u32> {
    let of = of.max(1);
    let start = |shard: u32| {
        let place = u64::from(samples) * u64::from(shard.min(of)) / u64::from(of);
        u32::try_from(place).unwrap_or(samples)
    };
    start(shard)..start(shard.saturating_add(1))
}

/// The places in [`DataManifest::pieces`] of all pieces that hold a sample of `shards` out of `of`, ascending: what a
/// worker that carries these shards must have. Both parts are sharded alike ([`shard_samples`]).
#[must_use]
pub fn pieces_for(manifest: &DataManifest, shards: &[Range<u32>], of: u32) -> Vec<usize> {
    let of = of.max(1);
    let wanted = |piece: &Piece| {
        let samples = manifest.samples(piece.part);
        shards.iter().filter(|range| !range.is_empty()).any(|range| {
            let start = shard_samples(samples, range.start, of).start;
            let end = shard_samples(samples, range.end - 1, of).end;
            start.max(piece.samples().start) < end.min(piece.samples().end)
        })
    };
    (0..manifest.pieces.len()).filter(|&place| wanted(&manifest.pieces[place])).collect()
}

#[cfg(test)]
mod tests;
