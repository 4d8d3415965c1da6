//! The IDX format of MNIST's files: a magic number, the dimensions as big-endian u32, then bytes. Plain or
//! gzipped. Files are checked before anything is believed; none makes the reader take more memory than the
//! catalogue's sizes allow.
//!
//! Format: LeCun's MNIST page, "file formats for the MNIST database".

use super::{RawData, RawSamples, Scaling};
use crate::{error::TrainError, models::Shape};
use flate2::read::MultiGzDecoder;
use spotsweep_proto::{
    catalogue::Dataset,
    datasets::{DataFiles, GZIP_SUFFIX, manifest::ElementType},
    digest::Digest,
};
use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

/// Two zero bytes, 8 for unsigned bytes, and the number of dimensions.
const MAGIC: [u8; 3] = [0, 0, 8];

/// What a file must hold.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    name: &'a str,
    /// Samples first.
    dimensions: &'a [u32],
}

/// Reads a data set of the catalogue out of `folder`. Each file may be plain or gzipped, and is held against its
/// known hash.
///
/// # Errors
/// [`TrainError::Data`] names the first file that is missing, cut short, too long or altered.
pub fn read(dataset: &Dataset, folder: &Path) -> Result<RawData, TrainError> {
    let [channels, height, width] = dataset.shape;
    let part = |images: &str, labels: &str, samples: u32| -> Result<RawSamples, TrainError> {
        // A grey image has no dimension for its colour in the file.
        let image_dimensions: &[u32] =
            if channels == 1 { &[samples, height, width] } else { &[samples, channels, height, width] };
        let images = Wanted { name: images, dimensions: image_dimensions };
        let (images, _) = read_file(dataset, folder, images)?;
        let (labels, path) = read_file(dataset, folder, Wanted { name: labels, dimensions: &[samples] })?;
        if let Some(label) = labels.iter().find(|&&label| u16::from(label) >= dataset.classes) {
            let problem = format!("it holds the label {label}, and there are {} classes", dataset.classes);
            return Err(TrainError::Data { path, problem });
        }
        Ok(RawSamples { images, labels: labels.into_iter().map(u16::from).collect() })
    };
    let files = dataset.files;
    Ok(RawData {
        shape: Shape {
            channels: i64::from(channels),
            height: i64::from(height),
            width: i64::from(width),
            classes: i64::from(dataset.classes),
        },
        elements: ElementType::U8,
        train: part(files.train_images, files.train_labels, dataset.train_samples)?,
        test: part(files.test_images, files.test_labels, dataset.test_samples)?,
        scaling: Scaling::all(dataset.pixel_mean, dataset.pixel_std),
    })
}

/// The elements of one file, and where it was.
fn read_file(dataset: &Dataset, folder: &Path, wanted: Wanted<'_>) -> Result<(Vec<u8>, PathBuf), TrainError> {
    let (path, mut reader) = open(folder, wanted.name)?;
    let fail = |problem: String| TrainError::Data { path: path.clone(), problem };
    let elements: usize = wanted.dimensions.iter().map(|&d| d as usize).product();
    let header_bytes = 4 + 4 * wanted.dimensions.len();
    let full_bytes = header_bytes + elements;

    // One byte more than is right: enough to see that there is too much.
    let mut bytes = Vec::with_capacity(full_bytes + 1);
    let limit = full_bytes as u64 + 1;
    if let Err(error) = reader.by_ref().take(limit).read_to_end(&mut bytes) {
        return Err(fail(format!("cannot be read: {error} (after {} bytes)", bytes.len())));
    }
    if bytes.len() != full_bytes {
        let found = if bytes.len() > full_bytes { "more".to_owned() } else { bytes.len().to_string() };
        return Err(fail(format!("has {found} bytes unpacked instead of {full_bytes}")));
    }
    let mut header = MAGIC.to_vec();
    header.push(wanted.dimensions.len() as u8);
    header.extend(wanted.dimensions.iter().flat_map(|d| d.to_be_bytes()));
    if bytes[..header_bytes] != header {
        return Err(fail(format!(
            "does not begin as an IDX file of {:?} unsigned bytes does",
            wanted.dimensions
        )));
    }
    let known = DataFiles::named(dataset.name).and_then(|d| d.files.iter().find(|f| f.name == wanted.name));
    if let Some(known) = known {
        let checked = known.check(bytes.len() as u64, Digest::of(&bytes));
        checked.map_err(|error| fail(error.to_string()))?;
    }
    bytes.drain(..header_bytes);
    Ok((bytes, path))
}

/// Opens `name` or its gzipped form.
fn open(folder: &Path, name: &str) -> Result<(PathBuf, Box<dyn Read>), TrainError> {
    let plain = folder.join(name);
    let gzipped = folder.join(format!("{name}{GZIP_SUFFIX}"));
    for (path, unpack) in [(&plain, false), (&gzipped, true)] {
        match File::open(path) {
            Ok(file) if unpack => return Ok((path.clone(), Box::new(MultiGzDecoder::new(file)))),
            Ok(file) => return Ok((path.clone(), Box::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(TrainError::Data { path: path.clone(), problem: error.to_string() });
            }
        }
    }
    Err(TrainError::Data {
        path: plain,
        problem: format!("not found, neither plain nor with {GZIP_SUFFIX}; `spotsweep data get` fetches it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use spotsweep_proto::catalogue::datasets::DatasetFiles;
    use std::{fs, io::Write};

    /// Four images of 2×3 to train, two to test, three classes; no hashes are known for it.
    const TINY: Dataset = Dataset {
        name: "tiny-idx-test",
        about: "",
        classes: 3,
        shape: [1, 2, 3],
        train_samples: 4,
        test_samples: 2,
        pixel_mean: 0.5,
        pixel_std: 0.25,
        files: DatasetFiles { train_images: "a", train_labels: "b", test_images: "c", test_labels: "d" },
        source: "",
    };

    fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(elements);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<u8> = (0..24).collect();
        fs::write(folder.path().join("a"), idx(&[4, 2, 3], &images)).unwrap();
        fs::write(folder.path().join("b.gz"), gzip(&idx(&[4], &[0, 1, 2, 0]))).unwrap();
        fs::write(folder.path().join("c.gz"), gzip(&idx(&[2, 2, 3], &images[..12]))).unwrap();
        fs::write(folder.path().join("d"), idx(&[2], &[2, 1])).unwrap();
        folder
    }

    #[test]
    fn plain_and_gzipped_files_are_read_alike() {
        let folder = folder();
        let data = read(&TINY, folder.path()).unwrap();
        assert_eq!(data.train.images, (0..24).collect::<Vec<u8>>());
        assert_eq!(data.train.labels, [0, 1, 2, 0]);
        assert_eq!(data.test.labels, [2, 1]);
        assert_eq!(data.shape.pixels(), 6);
    }

    #[test]
    fn a_file_that_is_missing_cut_short_or_altered_is_named() {
        let mut wrong_label = idx(&[4], &[0, 1, 2, 3]);
        let broken_gzip = {
            let mut bytes = gzip(&idx(&[4], &[0, 1, 2, 0]));
            bytes.truncate(bytes.len() - 6);
            bytes
        };
        let endless = gzip(&vec![0; 1 << 22]);
        for (name, bytes, part) in [
            ("a", Some(idx(&[4, 2, 3], &[0; 23])), "has 39 bytes unpacked instead of 40"),
            ("a", Some(idx(&[4, 2, 3], &[0; 25])), "has more bytes unpacked instead of 40"),
            ("a", Some(idx(&[4, 3, 2], &[0; 24])), "does not begin as an IDX file"),
            ("a", Some(Vec::new()), "has 0 bytes"),
            ("b.gz", Some(std::mem::take(&mut wrong_label)), "cannot be read"),
            ("b.gz", Some(gzip(&idx(&[4], &[0, 1, 2, 3]))), "it holds the label 3"),
            ("b.gz", Some(broken_gzip), "cannot be read"),
            ("c.gz", Some(endless), "has more bytes"),
            ("d", None, "not found, neither plain nor with .gz"),
        ] {
            let folder = folder();
            let path = folder.path().join(name);
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let error = read(&TINY, folder.path()).unwrap_err();
            let TrainError::Data { path: named, problem } = &error else { panic!("{error}") };
            assert_eq!(named, &path);
            assert!(problem.contains(part), "{name}: {problem}");
        }
    }
}
