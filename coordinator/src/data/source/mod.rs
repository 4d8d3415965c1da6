//! Where a user's data comes from: files in the formats that people have, behind one face.
//!
//! Owns finding out the format, reading headers, labels and samples, and refusing what is cut short, altered, hostile
//! or beyond a limit, in words that name the place. Nothing here is believed before it was compared with the length of
//! its file, and no size that a file claims is allocated before that. It must not store anything or print.

mod csv;
mod flat;
mod idx;
mod npy;
mod npz;
mod pictures;
#[cfg(test)]
pub(super) mod tests;

use super::sets::SetError;
use spotsweep_proto::datasets::manifest::{
    CLASSES, ElementType, SAMPLE_BYTES, SAMPLES_PER_PART, is_class_name,
};
use std::path::{Path, PathBuf};

/// How a source is to be read.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// The source of the test part, of the same format.
    pub test: Option<PathBuf>,
    /// Labels beside images in `.npy`.
    pub labels: Option<PathBuf>,
    /// Labels beside the test images in `.npy`.
    pub test_labels: Option<PathBuf>,
    /// The column of labels in CSV: its name, or its number from 0.
    pub label_column: Option<String>,
    /// Names of the classes, in the order of their labels.
    pub classes: Option<Vec<String>>,
    /// Channels, height, width, where the source has flat rows.
    pub shape: Option<[u32; 3]>,
    /// Width and height that pictures are brought to.
    pub resize: Option<[u32; 2]>,
}

/// The images of one part, by their places.
pub(super) trait Images: Send {
    /// Reads samples `first..first + n`, as many as fit into `into`, as they are stored.
    fn read(&mut self, first: u32, into: &mut [u8]) -> Result<(), SetError>;
}

/// One part of a source.
pub(super) struct Part {
    pub(super) images: Box<dyn Images>,
    pub(super) labels: Vec<u16>,
    /// For messages.
    pub(super) path: PathBuf,
}

/// An opened source.
pub(super) struct Source {
    pub(super) shape: [u32; 3],
    pub(super) elements: ElementType,
    pub(super) classes: Vec<String>,
    pub(super) train: Part,
    pub(super) test: Option<Part>,
    /// What a person should know of how it was read.
    pub(super) notes: Vec<String>,
}

/// Opens whatever lies at `path`.
///
/// # Errors
/// [`SetError`] says what is wrong, and where.
pub(super) fn open(path: &Path, options: &SourceOptions) -> Result<Source, SetError> {
    let found = std::fs::metadata(path).map_err(SetError::io("read", path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let source = if found.is_dir() {
        if idx::is_here(path) { idx::open(path, options) } else { pictures::open(path, options) }
    } else if name.ends_with(".csv") || name.ends_with(".csv.gz") {
        csv::open(path, options)
    } else if name.ends_with(".npz") {
        npz::open(path, options)
    } else if name.ends_with(".npy") {
        npy::open(path, options)
    } else {
        let hint = "a folder with MNIST's four IDX files or with a folder of pictures for each class, or a file .csv, \
                    .csv.gz, .npy or .npz";
        return Err(SetError::source(path, "is of no format that is read", hint));
    }?;
    check(&source, path)?;
    Ok(source)
}

fn check(source: &Source, path: &Path) -> Result<(), SetError> {
    for part in [Some(&source.train), source.test.as_ref()].into_iter().flatten() {
        if part.labels.is_empty() {
            return Err(SetError::source(&part.path, "holds no samples", "name a source that has some"));
        }
        if let Some(at) = part.labels.iter().position(|&label| usize::from(label) >= source.classes.len()) {
            let problem = format!(
                "sample {at} has the label {}, and there are {} classes",
                part.labels[at],
                source.classes.len()
            );
            return Err(SetError::source(&part.path, problem, "name all classes with --classes, in order"));
        }
    }
    if let Some(wrong) = source.classes.iter().find(|class| !is_class_name(class)) {
        let shown: String = wrong.chars().take(40).collect();
        return Err(SetError::source(path, format!("a class has the name {shown:?}"), "rename it"));
    }
    let mut sorted: Vec<&String> = source.classes.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(SetError::source(path, format!("two classes have the name {:?}", pair[0]), "rename one"))
        }
        None => Ok(()),
    }
}

/// Checks that samples of this shape are within the limits, and gives the bytes of one.
fn sample_bytes(path: &Path, shape: [u32; 3], elements: ElementType) -> Result<usize, SetError> {
    let [channels, height, width] = shape.map(u64::from);
    let count = channels.checked_mul(height).and_then(|n| n.checked_mul(width));
    match count.and_then(|n| n.checked_mul(elements.bytes())) {
        Some(0) => {
            Err(SetError::source(path, "has samples without elements", "each sample needs at least one"))
        }
        Some(bytes) if bytes <= SAMPLE_BYTES => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        _ => Err(SetError::source(
            path,
            format!(
                "has samples of {channels}x{height}x{width}, more than the {SAMPLE_BYTES} bytes that are allowed"
            ),
            "make samples smaller",
        )),
    }
}

/// Checks a number of samples.
fn sample_count(path: &Path, count: u64) -> Result<u32, SetError> {
    u32::try_from(count).ok().filter(|count| *count <= SAMPLES_PER_PART).ok_or_else(|| {
        let problem = format!("has {count} samples, more than the {SAMPLES_PER_PART} that are allowed");
        SetError::source(path, problem, "split it into several data sets")
    })
}

/// The classes of whole-number labels: as named, or `0` to the largest label.
fn numbered_classes(
    path: &Path,
    options: &SourceOptions,
    labels: &[&[u16]],
) -> Result<Vec<String>, SetError> {
    if let Some(named) = &options.classes {
        return Ok(named.clone());
    }
    let largest = labels.iter().flat_map(|labels| labels.iter()).max().copied().unwrap_or(0);
    if usize::from(largest) >= CLASSES {
        return Err(SetError::source(
            path,
            format!("has the label {largest}"),
            format!("there are at most {CLASSES} classes"),
        ));
    }
    Ok((0..=largest).map(|label| label.to_string()).collect())
}

/// The user's shape for flat rows of so many elements.
fn reshaped(path: &Path, options: &SourceOptions, flat: u64) -> Result<[u32; 3], SetError> {
    let width = u32::try_from(flat).map_err(|_| {
        SetError::source(path, format!("has rows of {flat} elements"), "make samples smaller")
    })?;
    let Some(shape) = options.shape else { return Ok([1, 1, width]) };
    let elements: u64 = shape.iter().map(|&n| u64::from(n)).fold(1, u64::saturating_mul);
    if elements == flat {
        return Ok(shape);
    }
    let [channels, height, width] = shape;
    Err(SetError::Options {
        problem: format!(
            "--shape {channels}x{height}x{width} is {elements} elements, and {} has {flat} a sample",
            path.display()
        ),
        hint: "give channels, height and width whose product it is".to_owned(),
    })
}

/// As many labels as images.
fn same_count(path: &Path, images: u64, labels: usize) -> Result<(), SetError> {
    if images == labels as u64 {
        return Ok(());
    }
    Err(SetError::source(
        path,
        format!("has {images} images and {labels} labels"),
        "each image needs one label",
    ))
}
