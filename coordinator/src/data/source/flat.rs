//! Samples of one length, one behind the other in a file: of the user, or in a temporary one where the source is packed
//! or text. Read at their places, so that any order costs no memory.

use super::{Images, SetError};
use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Bytes that are unpacked at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// How elements stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// As they will be stored.
    AsIs,
    /// f64, to become f32.
    Doubles,
}

/// Samples in a file.
#[derive(Debug)]
pub(super) struct Flat {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Where the first sample begins.
    pub(super) offset: u64,
    /// Bytes of a sample as it will be stored.
    pub(super) sample_bytes: usize,
    pub(super) stored: Stored,
    /// Height, width, channels and bytes of an element, where colours stand last in the file and go first.
    pub(super) colours_last: Option<[usize; 4]>,
    pub(super) scratch: Vec<u8>,
}

impl Flat {
    /// Samples that are stored as they stand.
    pub(super) fn new(file: File, path: &Path, offset: u64, sample_bytes: usize) -> Self {
        let (stored, scratch) = (Stored::AsIs, Vec::new());
        Self { file, path: path.to_owned(), offset, sample_bytes, stored, colours_last: None, scratch }
    }
}

impl Images for Flat {
    fn read(&mut self, first: u32, into: &mut [u8]) -> Result<(), SetError> {
        let factor = match self.stored {
            Stored::AsIs => 1,
            Stored::Doubles => 2,
        };
        let start = self.offset + u64::from(first) * (self.sample_bytes * factor) as u64;
        match self.stored {
            Stored::AsIs => self.file.read_exact_at(into, start),
            Stored::Doubles => {
                self.scratch.resize(into.len() * 2, 0);
                let read = self.file.read_exact_at(&mut self.scratch, start);
                for (single, double) in into.chunks_exact_mut(4).zip(self.scratch.as_chunks::<8>().0) {
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "data is stored in single precision"
                    )]
                    single.copy_from_slice(&(f64::from_le_bytes(*double) as f32).to_le_bytes());
                }
                read
            }
        }
        .map_err(SetError::io("read", &self.path))?;
        if let Some([height, width, channels, bytes]) = self.colours_last {
            for sample in into.chunks_exact_mut(self.sample_bytes) {
                self.scratch.clear();
                self.scratch.extend_from_slice(sample);
                for pixel in 0..height * width {
                    for channel in 0..channels {
                        let from = (pixel * channels + channel) * bytes;
                        let to = (channel * height * width + pixel) * bytes;
                        sample[to..to + bytes].copy_from_slice(&self.scratch[from..from + bytes]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A temporary file that has no name and is gone with the process.
pub(super) fn spool() -> Result<BufWriter<File>, SetError> {
    let file =
        tempfile::tempfile().map_err(SetError::io("create a temporary file in", std::env::temp_dir()))?;
    Ok(BufWriter::with_capacity(BLOCK_BYTES, file))
}

/// The finished temporary file.
pub(super) fn spooled(spool: BufWriter<File>) -> Result<File, SetError> {
    spool
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .map_err(SetError::io("write a temporary file in", std::env::temp_dir()))
}

/// Copies exactly `bytes` of `reader` into a temporary file: a packed source that holds less or more is refused, and
/// no more than one byte too many is ever unpacked.
pub(super) fn unpack(path: &Path, reader: &mut dyn Read, bytes: u64) -> Result<File, SetError> {
    let mut spool = spool()?;
    let mut limited = reader.take(bytes.saturating_add(1));
    let mut block = vec![0; BLOCK_BYTES];
    let mut found = 0;
    loop {
        let count = limited.read(&mut block).map_err(|error| {
            let problem = format!("cannot be unpacked: {error} (after {found} bytes)");
            SetError::source(path, problem, "it is cut short or altered; get it anew")
        })?;
        if count == 0 {
            break;
        }
        found += count as u64;
        spool
            .write_all(&block[..count])
            .map_err(SetError::io("write a temporary file in", std::env::temp_dir()))?;
    }
    if found != bytes {
        let found = if found > bytes { "more".to_owned() } else { found.to_string() };
        let problem =
            format!("holds {found} bytes of samples instead of the {bytes} that its header promises");
        return Err(SetError::source(path, problem, "it is cut short or altered; get it anew"));
    }
    spooled(spool)
}
