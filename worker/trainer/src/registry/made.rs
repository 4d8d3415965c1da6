//! Samples that a program has made, held against their description before anything is trained on them.

use crate::{
    data::{RawData, RawSamples, Scaling},
    error::TrainError,
    models::Shape,
};
use spotsweep_proto::{catalogue::own::OwnData, datasets::manifest::ElementType, digest::Digest};
use std::path::PathBuf;

/// Samples with their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeSamples {
    /// Values of all samples, one sample behind the other, each row-major over channels, height and width; finite, and as the
    /// model shall see them.
    pub inputs: Vec<f32>,
    /// One a sample.
    pub labels: Vec<u16>,
}

/// A data set.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeData {
    /// To train on, validation split included: which samples are held out follows from the trial's seed.
    pub train: MadeSamples,
    /// To test on.
    pub test: MadeSamples,
}

/// The data as it is trained on, and the digest of its content.
///
/// # Errors
/// [`TrainError::Data`] if it is not as described.
pub(super) fn checked(described: &OwnData, made: &MadeData) -> Result<(RawData, Digest), TrainError> {
    let [channels, height, width] = described.shape.map(i64::from);
    let shape = Shape { channels, height, width, classes: i64::from(described.classes) };
    let mut hasher = blake3::Hasher::new();
    let mut part = |samples: &MadeSamples, wanted: u32| -> Result<RawSamples, TrainError> {
        let fault = |problem: String| {
            Err(TrainError::Data { path: PathBuf::from(format!("the data set {}", described.name)), problem })
        };
        let (found, pixels) = (samples.labels.len(), usize::try_from(shape.pixels()).unwrap_or(usize::MAX));
        if found != wanted as usize || found.checked_mul(pixels) != Some(samples.inputs.len()) {
            let values = samples.inputs.len();
            return fault(format!(
                "{found} labels and {values} values were made for {wanted} samples of {pixels}"
            ));
        }
        if let Some(label) = samples.labels.iter().find(|label| **label >= described.classes) {
            return fault(format!("it holds the label {label}, and there are {} classes", described.classes));
        }
        if let Some(place) = samples.inputs.iter().position(|value| !value.is_finite()) {
            return fault(format!("a value of sample {} is not finite", place / pixels.max(1)));
        }
        let images: Vec<u8> = samples.inputs.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&images);
        samples.labels.iter().for_each(|label| {
            hasher.update(&label.to_le_bytes());
        });
        Ok(RawSamples { images, labels: samples.labels.clone() })
    };
    let (train, test) =
        (part(&made.train, described.train_samples)?, part(&made.test, described.test_samples)?);
    let raw = RawData { shape, elements: ElementType::F32, train, test, scaling: Scaling::all(0.0, 1.0) };
    Ok((raw, Digest(*hasher.finalize().as_bytes())))
}
