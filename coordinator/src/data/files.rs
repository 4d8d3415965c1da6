//! The files of a data set in a folder, plain or gzipped: found, read, verified, copied.
//!
//! Owns the reading of contents. It must not decide where a data set lies or comes from.

use super::{DataError, Presence};
use flate2::read::MultiGzDecoder;
use spotsweep_proto::{
    datasets::{DataFile, DataFiles, GZIP_SUFFIX},
    digest::Digest,
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

const BLOCK_BYTES: usize = 256 * 1024;

/// The file in `folder`, plain if it is there, else gzipped.
fn find(file: &DataFile, folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(file.name);
    let packed = folder.join(format!("{}{GZIP_SUFFIX}", file.name));
    [plain, packed].into_iter().find(|path| path.is_file())
}

/// What names and sizes in `folder` tell.
pub(super) fn presence(known: &DataFiles, folder: &Path) -> Presence {
    let found = known.files.map(|file| find(&file, folder).map(|path| (file, path)));
    if found.iter().all(Option::is_none) {
        return Presence::Absent;
    }
    let right_size = |(file, path): &(DataFile, PathBuf)| {
        is_packed(path) || fs::metadata(path).is_ok_and(|metadata| metadata.len() == file.size_bytes)
    };
    if found.iter().all(|file| file.as_ref().is_some_and(right_size)) {
        Presence::Here
    } else {
        Presence::Damaged
    }
}

/// Reads all files of `known` in `folder`.
pub(super) fn verify(known: &DataFiles, folder: &Path) -> Result<(), DataError> {
    for file in &known.files {
        read(known, file, folder, &mut io::sink())?;
    }
    Ok(())
}

/// Copies all files of `known` from one folder into another, unpacked and verified, and flushes them.
pub(super) fn copy(known: &DataFiles, from: &Path, into: &Path) -> Result<(), DataError> {
    fs::create_dir_all(into).map_err(DataError::io("create", into))?;
    for file in &known.files {
        let target = into.join(file.name);
        let mut written = File::create(&target).map_err(DataError::io("create", &target))?;
        read(known, file, from, &mut written)?;
        written.sync_all().map_err(DataError::io("write", &target))?;
    }
    Ok(())
}

/// Makes renames in `folder` last through a power cut.
pub(super) fn sync_folder(folder: &Path) -> Result<(), DataError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(DataError::io("flush", folder))
}

fn is_packed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(GZIP_SUFFIX.as_bytes())
}

/// Reads one file, writes its unpacked contents to `into` and verifies them. Never takes in more than one byte too
/// many, whatever a gzipped file claims.
fn read(known: &DataFiles, file: &DataFile, folder: &Path, into: &mut dyn Write) -> Result<(), DataError> {
    let path = find(file, folder).ok_or(DataError::Missing { folder: folder.to_owned(), file: file.name })?;
    let opened = File::open(&path).map_err(DataError::io("read", &path))?;
    let unpacked: Box<dyn Read> = if is_packed(&path) {
        Box::new(MultiGzDecoder::new(io::BufReader::new(opened)))
    } else {
        Box::new(opened)
    };
    let mut limited = unpacked.take(file.size_bytes + 1);
    let mut hasher = Hasher::default();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let count = limited.read(&mut block).map_err(DataError::io("unpack", &path))?;
        if count == 0 {
            break;
        }
        hasher.update(&block[..count]);
        into.write_all(&block[..count]).map_err(DataError::io("write the contents of", &path))?;
    }
    file.check(hasher.size_bytes, hasher.digest()).map_err(|source| DataError::Contents {
        name: known.name,
        folder: folder.to_owned(),
        source,
    })
}

#[derive(Default)]
struct Hasher {
    blake3: blake3::Hasher,
    size_bytes: u64,
}

impl Hasher {
    fn update(&mut self, block: &[u8]) {
        self.blake3.update(block);
        self.size_bytes += block.len() as u64;
    }

    fn digest(&self) -> Digest {
        Digest(*self.blake3.finalize().as_bytes())
    }
}
