//! NumPy's arrays: images in one `.npy`, labels in another.
//!
//! Format: NumPy enhancement proposal 1 and `numpy.lib.format`, versions 1 to 3: a magic number, the header's length,
//! a Python dictionary of three keys, then the elements. Of the many types, unsigned bytes and little-endian floats are
//! read for images and integers for labels, in C order.

use super::{
    Images, Part, SetError, Source, SourceOptions,
    flat::{Flat, Stored},
    numbered_classes, reshaped, same_count, sample_bytes, sample_count,
};
use spotsweep_proto::datasets::manifest::{CLASSES, ElementType};
use std::{
    fs::File,
    io::{BufReader, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read, in bytes; NumPy's own limit is 10,000 characters.
const HEADER_BYTES: usize = 64 << 10;
/// Most dimensions that are read.
const DIMENSIONS: usize = 8;

/// What an array is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// For instance `<f4`.
    pub(super) descr: String,
    /// Samples first.
    pub(super) shape: Vec<u64>,
    /// Where elements begin.
    pub(super) offset: u64,
}

pub(super) fn wrong(path: &Path, problem: impl Into<String>) -> SetError {
    SetError::source(path, problem, "write it anew with numpy.save or numpy.savez")
}

impl Header {
    /// Reads the header at the beginning of `reader`.
    pub(super) fn read(path: &Path, reader: &mut dyn Read) -> Result<Self, SetError> {
        let short = |_| wrong(path, "ends before its header does");
        let mut start = [0; 8];
        reader.read_exact(&mut start).map_err(short)?;
        if &start[..6] != MAGIC {
            return Err(wrong(path, "does not begin as a .npy file"));
        }
        let (length, before) = match start[6] {
            1 => {
                let mut bytes = [0; 2];
                reader.read_exact(&mut bytes).map_err(short)?;
                (u32::from(u16::from_le_bytes(bytes)), 10)
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                reader.read_exact(&mut bytes).map_err(short)?;
                (u32::from_le_bytes(bytes), 12)
            }
            version => {
                return Err(wrong(path, format!("is of version {version} of the format; 1 to 3 are read")));
            }
        };
        if length as usize > HEADER_BYTES {
            return Err(wrong(path, format!("has a header of {length} bytes, more than {HEADER_BYTES}")));
        }
        let mut text = vec![0; length as usize];
        reader.read_exact(&mut text).map_err(short)?;
        let text = String::from_utf8(text).map_err(|_| wrong(path, "has a header that is no text"))?;
        let (descr, fortran, shape) = Dictionary { rest: text.trim_end() }
            .read()
            .ok_or_else(|| wrong(path, "has a header that is not NumPy's"))?;
        if fortran && shape.len() > 1 {
            let hint = "write it with numpy.save(path, numpy.ascontiguousarray(array))";
            return Err(SetError::source(path, "is in Fortran order", hint));
        }
        Ok(Self { descr, shape, offset: before + u64::from(length) })
    }

    /// Bytes of all elements; `None` where no file is that long.
    pub(super) fn bytes(&self) -> Option<u64> {
        let width: u64 = self.descr.get(2..)?.parse().ok()?;
        self.shape
            .iter()
            .try_fold(width, |product, &n| product.checked_mul(n))
            .filter(|bytes| *bytes < 1 << 60)
    }
}

/// The one kind of Python text that stands in a header.
struct Dictionary<'a> {
    rest: &'a str,
}

impl<'a> Dictionary<'a> {
    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn quoted(&mut self) -> Option<&'a str> {
        self.take("'")?;
        let (text, rest) = self.rest.split_once('\'')?;
        self.rest = rest;
        Some(text)
    }

    fn number(&mut self) -> Option<u64> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, rest) = rest.split_at(end);
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        digits.parse().ok()
    }

    fn shape(&mut self) -> Option<Vec<u64>> {
        self.take("(")?;
        let mut shape = Vec::new();
        while self.take(")").is_none() {
            if shape.len() == DIMENSIONS {
                return None;
            }
            shape.push(self.number()?);
            if self.take(",").is_none() {
                self.take(")")?;
                break;
            }
        }
        Some(shape)
    }

    /// Type, whether in Fortran order, shape. Every key once.
    fn read(mut self) -> Option<(String, bool, Vec<u64>)> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.take("{")?;
        while self.take("}").is_none() {
            let key = self.quoted()?;
            self.take(":")?;
            match key {
                "descr" if descr.is_none() => descr = Some(self.quoted()?.to_owned()),
                "fortran_order" if fortran.is_none() => {
                    fortran = Some(self.take("True").is_some());
                    if fortran == Some(false) {
                        self.take("False")?;
                    }
                }
                "shape" if shape.is_none() => shape = Some(self.shape()?),
                _ => return None,
            }
            if self.take(",").is_none() {
                self.take("}")?;
                break;
            }
        }
        Some((descr?, fortran?, shape?))
    }
}

/// What images of an array are.
pub(super) struct ImageArray {
    pub(super) shape: [u32; 3],
    pub(super) elements: ElementType,
    samples: u32,
    sample_bytes: usize,
    stored: Stored,
    colours_last: Option<[usize; 4]>,
}

impl ImageArray {
    pub(super) fn of(path: &Path, header: &Header, options: &SourceOptions) -> Result<Self, SetError> {
        let (elements, stored) = match header.descr.as_str() {
            "|u1" | "<u1" => (ElementType::U8, Stored::AsIs),
            "<f4" => (ElementType::F32, Stored::AsIs),
            "<f8" => (ElementType::F32, Stored::Doubles),
            other => {
                let hint = "write images with array.astype('uint8') or array.astype('float32')";
                return Err(SetError::source(path, format!("has elements of the type {other}"), hint));
            }
        };
        let small = |n: u64| u32::try_from(n).map_err(|_| wrong(path, format!("has a dimension of {n}")));
        let mut last = None;
        let (samples, shape) = match header.shape[..] {
            [n, flat] => (n, reshaped(path, options, flat)?),
            [n, height, width] => (n, [1, small(height)?, small(width)?]),
            [n, height, width, channels @ (1 | 3)] if !matches!(height, 1 | 3) => {
                let shape = [small(channels)?, small(height)?, small(width)?];
                if channels == 3 {
                    let bytes = usize::try_from(elements.bytes()).unwrap_or(1);
                    last = Some([shape[1] as usize, shape[2] as usize, 3, bytes]);
                }
                (n, shape)
            }
            [n, channels, height, width] => (n, [small(channels)?, small(height)?, small(width)?]),
            _ => {
                let problem = format!("has {} dimensions", header.shape.len());
                return Err(SetError::source(path, problem, "images have two to four, samples first"));
            }
        };
        let samples = sample_count(path, samples)?;
        let sample_bytes = sample_bytes(path, shape, elements)?;
        Ok(Self { shape, elements, samples, sample_bytes, stored, colours_last: last })
    }

    pub(super) fn images(&self, file: File, path: &Path, offset: u64) -> Box<dyn Images> {
        let mut flat = Flat::new(file, path, offset, self.sample_bytes);
        (flat.stored, flat.colours_last) = (self.stored, self.colours_last);
        Box::new(flat)
    }

    /// One part, once its labels are known.
    pub(super) fn part(
        &self,
        file: File,
        path: &Path,
        offset: u64,
        labels: Vec<u16>,
    ) -> Result<Part, SetError> {
        same_count(path, self.samples.into(), labels.len())?;
        Ok(Part { images: self.images(file, path, offset), labels, path: path.to_owned() })
    }
}

/// Reads labels behind their header.
pub(super) fn labels(path: &Path, header: &Header, reader: &mut dyn Read) -> Result<Vec<u16>, SetError> {
    let count = match header.shape[..] {
        [n] | [n, 1] => n,
        _ => {
            return Err(SetError::source(
                path,
                "has not the one dimension of labels",
                "labels are one number a sample",
            ));
        }
    };
    let count = sample_count(path, count)?;
    let (signed, width) = match header.descr.as_str() {
        "|u1" | "<u1" => (false, 1),
        "|i1" | "<i1" => (true, 1),
        "<u2" => (false, 2),
        "<i2" => (true, 2),
        "<u4" => (false, 4),
        "<i4" => (true, 4),
        "<u8" => (false, 8),
        "<i8" => (true, 8),
        other => {
            let hint = "write labels with labels.astype('int64')";
            return Err(SetError::source(path, format!("has labels of the type {other}"), hint));
        }
    };
    let mut reader = BufReader::new(reader);
    // Not allocated before it is there: the header may lie.
    let mut labels = Vec::new();
    for at in 0..count {
        let mut bytes = [0; 8];
        reader
            .read_exact(&mut bytes[..width])
            .map_err(|_| wrong(path, format!("ends behind {at} of {count} labels")))?;
        let negative = signed && bytes[width - 1] >= 0x80;
        let label = if negative { None } else { u16::try_from(u64::from_le_bytes(bytes)).ok() };
        let label = label.filter(|label| usize::from(*label) < CLASSES).ok_or_else(|| {
            let what = if negative { "below 0".to_owned() } else { format!("of {} or more", CLASSES) };
            SetError::source(path, format!("has a label {what} at sample {at}"), "labels count from 0")
        })?;
        labels.push(label);
    }
    match reader.read(&mut [0]) {
        Ok(0) => Ok(labels),
        _ => Err(wrong(path, "has more bytes than its header promises")),
    }
}

/// An array in a file of its own, of exactly the length that it should have.
fn open_array(path: &Path) -> Result<(Header, File), SetError> {
    let mut file = File::open(path).map_err(SetError::io("read", path))?;
    let header = Header::read(path, &mut file)?;
    let found = file.metadata().map_err(SetError::io("read", path))?.len();
    let promised = header.bytes().and_then(|bytes| bytes.checked_add(header.offset));
    if promised != Some(found) {
        let promised = promised.map_or("more than any disk holds".to_owned(), |bytes| bytes.to_string());
        return Err(wrong(path, format!("has {found} bytes, and its header promises {promised}")));
    }
    file.seek(SeekFrom::Start(header.offset)).map_err(SetError::io("read", path))?;
    Ok((header, file))
}

/// Opens images and labels, and those to test on.
pub(super) fn open(path: &Path, options: &SourceOptions) -> Result<Source, SetError> {
    let beside = |labels: &Option<PathBuf>, option: &str| {
        labels.clone().ok_or_else(|| SetError::Options {
            problem: "images in .npy have their labels in another .npy".to_owned(),
            hint: format!("name it with {option}"),
        })
    };
    let part = |images: &Path, labels_path: &Path| -> Result<(ImageArray, Part), SetError> {
        let (header, file) = open_array(images)?;
        let array = ImageArray::of(images, &header, options)?;
        let (label_header, mut label_file) = open_array(labels_path)?;
        let found = labels(labels_path, &label_header, &mut label_file)?;
        let part = array.part(file, images, header.offset, found)?;
        Ok((array, part))
    };
    let (array, train) = part(path, &beside(&options.labels, "--labels")?)?;
    let test = match &options.test {
        Some(test) => {
            let (other, part) = part(test, &beside(&options.test_labels, "--test-labels")?)?;
            same_kind(test, &array, &other)?;
            Some(part)
        }
        None => None,
    };
    finish(path, options, &array, train, test)
}

pub(super) fn same_kind(path: &Path, train: &ImageArray, test: &ImageArray) -> Result<(), SetError> {
    if (train.shape, train.elements) == (test.shape, test.elements) {
        return Ok(());
    }
    let problem = format!(
        "has samples of {:?} {:?}, and those to train on are of {:?} {:?}",
        test.shape, test.elements, train.shape, train.elements
    );
    Err(SetError::source(path, problem, "both parts need one shape and type"))
}

pub(super) fn finish(
    path: &Path,
    options: &SourceOptions,
    array: &ImageArray,
    train: Part,
    test: Option<Part>,
) -> Result<Source, SetError> {
    let all: Vec<&[u16]> =
        [Some(&train), test.as_ref()].into_iter().flatten().map(|p| &p.labels[..]).collect();
    let classes = numbered_classes(path, options, &all)?;
    Ok(Source { shape: array.shape, elements: array.elements, classes, train, test, notes: Vec::new() })
}
