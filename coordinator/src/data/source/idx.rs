//! MNIST's format (LeCun, "file formats for the MNIST database"): a magic number, dimensions as big-endian u32, then
//! unsigned bytes; plain or gzipped; four files in a folder.

use super::{
    Part, SetError, Source, SourceOptions,
    flat::{Flat, unpack},
    numbered_classes, same_count, sample_bytes, sample_count,
};
use flate2::read::MultiGzDecoder;
use spotsweep_proto::datasets::{GZIP_SUFFIX, manifest::ElementType};
use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

/// Beginnings of the names that the files have in practice: images, labels.
const TRAIN: [&str; 2] = ["train-images", "train-labels"];
const TEST: [&[&str]; 2] = [&["t10k-images", "test-images"], &["t10k-labels", "test-labels"]];
/// Most dimensions that are read.
const DIMENSIONS: usize = 4;

/// Whether the folder looks like IDX files.
pub(super) fn is_here(folder: &Path) -> bool {
    find(folder, &[TRAIN[0]]).is_some()
}

/// Opens the four files, or the two to train on.
pub(super) fn open(folder: &Path, options: &SourceOptions) -> Result<Source, SetError> {
    let missing = |name: &str| {
        SetError::source(
            folder,
            format!("has no file that begins with {name}"),
            "IDX data is images and labels",
        )
    };
    let images = find(folder, &[TRAIN[0]]).ok_or_else(|| missing(TRAIN[0]))?;
    let labels = find(folder, &[TRAIN[1]]).ok_or_else(|| missing(TRAIN[1]))?;
    let (shape, train) = part(&images, &labels)?;
    let test_folder = options.test.as_deref().unwrap_or(folder);
    let test = match (find(test_folder, TEST[0]), find(test_folder, TEST[1])) {
        (Some(images), Some(labels)) => {
            let (other, test) = part(&images, &labels)?;
            if other != shape {
                let problem = format!("has images of {other:?}, and those to train on are of {shape:?}");
                return Err(SetError::source(&images, problem, "both parts need one size"));
            }
            Some(test)
        }
        (None, None) if options.test.is_none() => None,
        (None, _) => return Err(missing(TEST[0][0])),
        (_, None) => return Err(missing(TEST[1][0])),
    };
    let all: Vec<&[u16]> =
        [Some(&train), test.as_ref()].into_iter().flatten().map(|p| &p.labels[..]).collect();
    let classes = numbered_classes(folder, options, &all)?;
    Ok(Source { shape, elements: ElementType::U8, classes, train, test, notes: Vec::new() })
}

fn find(folder: &Path, beginnings: &[&str]) -> Option<PathBuf> {
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // Sorted: the plain file is taken where the gzipped one lies beside it.
    names.sort();
    names.into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_string();
        beginnings.iter().any(|beginning| name.starts_with(beginning)) && path.is_file()
    })
}

fn part(images: &Path, labels: &Path) -> Result<([u32; 3], Part), SetError> {
    let mut header = Header::read(images)?;
    let shape = match header.dimensions[..] {
        [_, height, width] => [1, height, width],
        [_, channels, height, width] => [channels, height, width],
        _ => return Err(wrong(images, "has not the three or four dimensions of images")),
    };
    let bytes = sample_bytes(images, shape, ElementType::U8)?;
    let samples = sample_count(images, u64::from(header.dimensions[0]))?;
    let flat = header.samples(images, bytes as u64 * u64::from(samples))?;
    let mut label_header = Header::read(labels)?;
    let [count] = label_header.dimensions[..] else {
        return Err(wrong(labels, "has not the one dimension of labels"));
    };
    let count = sample_count(labels, u64::from(count))?;
    same_count(images, samples.into(), count as usize)?;
    let (mut file, offset) = label_header.samples(labels, count.into())?;
    let mut found = Vec::new();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).map_err(SetError::io("read", labels))?;
    file.take(count.into()).read_to_end(&mut found).map_err(SetError::io("read", labels))?;
    same_count(labels, samples.into(), found.len())?;
    let images_of = Flat::new(flat.0, images, flat.1, bytes);
    let labels = found.into_iter().map(u16::from).collect();
    Ok((shape, Part { images: Box::new(images_of), labels, path: images.to_owned() }))
}

fn wrong(path: &Path, problem: &str) -> SetError {
    SetError::source(path, problem, "it is no IDX file of unsigned bytes, or damaged; get it anew")
}

struct Header {
    dimensions: Vec<u32>,
    bytes: u64,
    packed: Option<Box<dyn Read>>,
}

impl Header {
    fn read(path: &Path) -> Result<Self, SetError> {
        let file = File::open(path).map_err(SetError::io("read", path))?;
        let is_packed = path.to_string_lossy().ends_with(GZIP_SUFFIX);
        let mut reader: Box<dyn Read> = if is_packed {
            Box::new(MultiGzDecoder::new(BufReader::new(file)))
        } else {
            Box::new(BufReader::new(file))
        };
        let mut magic = [0; 4];
        reader.read_exact(&mut magic).map_err(|_| wrong(path, "ends before its header does"))?;
        let count = usize::from(magic[3]);
        if magic[..3] != [0, 0, 8] || !(1..=DIMENSIONS).contains(&count) {
            return Err(wrong(path, "does not begin as an IDX file of unsigned bytes"));
        }
        let mut dimensions = Vec::new();
        for _ in 0..count {
            let mut dimension = [0; 4];
            reader.read_exact(&mut dimension).map_err(|_| wrong(path, "ends before its header does"))?;
            dimensions.push(u32::from_be_bytes(dimension));
        }
        Ok(Self { dimensions, bytes: 4 + 4 * count as u64, packed: is_packed.then_some(reader) })
    }

    /// A file with exactly so many bytes of samples, and where they begin.
    fn samples(&mut self, path: &Path, bytes: u64) -> Result<(File, u64), SetError> {
        if let Some(reader) = &mut self.packed {
            return Ok((unpack(path, reader, bytes)?, 0));
        }
        let file = File::open(path).map_err(SetError::io("read", path))?;
        let found = file.metadata().map_err(SetError::io("read", path))?.len();
        if found != self.bytes + bytes {
            let problem =
                format!("has {found} bytes instead of the {} that its header promises", self.bytes + bytes);
            return Err(wrong(path, &problem));
        }
        Ok((file, self.bytes))
    }
}
