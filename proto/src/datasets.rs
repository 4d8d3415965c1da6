//! The files of the known data sets, to the byte, and the rule that says in which folder they lie.
//!
//! Owns sizes, hashes and licences, and the path rule that coordinator, agent and trainer share. It must not
//! touch a disk: the environment comes in as values, contents come in as bytes. What a data set *is* (shape,
//! classes, names of its files) stands in [`crate::catalogue::datasets`].
//!
//! Hashes are over the unpacked contents, so that a file and its gzipped form, packed by whichever program, are
//! known to be the same.
//!
//! Data sets that users have added are [`manifest`] (what is stored) and [`reference`] (how a sweep names it).

pub mod manifest;
pub mod reference;

pub use reference::{DataRef, DataSets};

use crate::{catalogue::Dataset, digest::Digest};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// Names the folder of all data sets; below it one folder each, named after the data set.
pub const DATA_VARIABLE: &str = "SPOTSWEEP_DATA";

/// One file of a data set, as it is when unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFile {
    /// Its name; gzipped it has [`GZIP_SUFFIX`] behind it.
    pub name: &'static str,
    /// Its length, bytes.
    pub size_bytes: u64,
    /// BLAKE3 over its contents.
    pub digest: Digest,
}

/// What stands behind a file's name where it is gzipped.
pub const GZIP_SUFFIX: &str = ".gz";

/// The files of one data set of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFiles {
    /// Its name in sweep files.
    pub name: &'static str,
    /// Training images, training labels, test images, test labels.
    pub files: [DataFile; 4],
    /// Under which terms it is given away.
    pub licence: &'static str,
}

/// Names the object store of data sets that users have added: a URL or a folder.
pub const DATA_STORE_VARIABLE: &str = "SPOTSWEEP_DATA_STORE";
/// The folder of added data sets below the folder of all data sets, unless [`DATA_STORE_VARIABLE`] says otherwise.
pub const DATA_STORE_FOLDER: &str = "store";
/// The folder of an agent's cache of pieces below the folder of all data sets.
pub const DATA_CACHE_FOLDER: &str = "cache";

/// What is wrong with the contents of a data file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// Cut short, or something was appended.
    #[error("{name} has {found_bytes} bytes instead of {expected_bytes}")]
    Size {
        /// The file.
        name: &'static str,
        /// Its length.
        found_bytes: u64,
        /// The length it should have.
        expected_bytes: u64,
    },
    /// Altered.
    #[error("{name} has other contents than it should: BLAKE3 {found} instead of {expected}")]
    Digest {
        /// The file.
        name: &'static str,
        /// The digest of its contents.
        found: Digest,
        /// The digest it should have.
        expected: Digest,
    },
}

impl DataFile {
    /// Whether these are the file's contents.
    ///
    /// # Errors
    /// [`ContentsError`] where the length or the digest is another.
    pub fn check(&self, size_bytes: u64, digest: Digest) -> Result<(), ContentsError> {
        if size_bytes != self.size_bytes {
            return Err(ContentsError::Size {
                name: self.name,
                found_bytes: size_bytes,
                expected_bytes: self.size_bytes,
            });
        }
        if digest != self.digest {
            return Err(ContentsError::Digest { name: self.name, found: digest, expected: self.digest });
        }
        Ok(())
    }
}

impl DataFiles {
    /// The files of the data set called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        DATA_FILES.iter().find(|known| known.name == name)
    }

    /// Its entry in the catalogue; every known data set has one.
    #[must_use]
    pub fn dataset(&self) -> Option<&'static Dataset> {
        Dataset::named(self.name)
    }

    /// Its folder below the folder of all data sets.
    #[must_use]
    pub fn folder(&self, data_root: &Path) -> PathBuf {
        data_root.join(self.name)
    }
}

/// The folder of all data sets: `SPOTSWEEP_DATA`, else `spotsweep/data` in the user's cache (`XDG_CACHE_HOME`, else
/// `.cache` in `HOME`). `None` where none of them is set. An empty variable counts as unset, and so does a relative
/// `XDG_CACHE_HOME` (XDG Base Directory Specification 0.8).
#[must_use]
pub fn data_root(
    spotsweep_data: Option<&OsStr>,
    xdg_cache_home: Option<&OsStr>,
    home: Option<&OsStr>,
) -> Option<PathBuf> {
    let set = |value: Option<&OsStr>| value.filter(|text| !text.is_empty()).map(PathBuf::from);
    set(spotsweep_data).or_else(|| {
        let cache = set(xdg_cache_home).filter(|path| path.is_absolute());
        let cache = cache.or_else(|| set(home).map(|path| path.join(".cache")));
        cache.map(|path| path.join("spotsweep").join("data"))
    })
}

/// All known data sets, in the order of the catalogue.
pub const DATA_FILES: &[DataFiles] = &[
    DataFiles {
        name: "fashion-mnist",
        files: idx_files([
            "feaca08b36e07f8d504641a929bff1554884ef73964323e44e59e39a986b4c9e",
            "b4d9ea8013b029ef778c95ea7de31195ef443589877589523ad330db2829ebd6",
            "a19b8c1e5f798e5a6fa7229093b630c04a620179497a1fa3a71e7334fb59a30b",
            "0a067399ed18bcc9d7dc26832b3b8e4481abf2d33fee04c611e90b9061296b90",
        ]),
        licence: "MIT, © 2017 Zalando SE",
    },
    DataFiles {
        name: "mnist",
        files: idx_files([
            "c6e6fd8c67d07c8a9b7bffa7dd0413ff4b8af241607b049b7721107f379df9fd",
            "8ebcfdf2fe191516f9cb37fceb75d2d19289d91ee92026534ed45e44144b5642",
            "f8d502322cd9f186e155a74a3dff598ed56c1a7b5a5c8d312749ac47c4a2bec7",
            "6d43ea317fa8f5851bb85404bb7358defd48b0294cf31f60cdcde8106fe2c3ad",
        ]),
        licence: "CC BY-SA 3.0, © Yann LeCun and Corinna Cortes",
    },
];

/// MNIST's four files, whose names and sizes Fashion-MNIST took over: 16 bytes of header and 28×28 bytes an image,
/// 8 bytes of header and one byte a label.
const fn idx_files(digests: [&str; 4]) -> [DataFile; 4] {
    let [train_images, train_labels, test_images, test_labels] = digests;
    [
        DataFile {
            name: "train-images-idx3-ubyte",
            size_bytes: 16 + 60_000 * 28 * 28,
            digest: hex(train_images),
        },
        DataFile { name: "train-labels-idx1-ubyte", size_bytes: 8 + 60_000, digest: hex(train_labels) },
        DataFile {
            name: "t10k-images-idx3-ubyte",
            size_bytes: 16 + 10_000 * 28 * 28,
            digest: hex(test_images),
        },
        DataFile { name: "t10k-labels-idx1-ubyte", size_bytes: 8 + 10_000, digest: hex(test_labels) },
    ]
}

/// A digest out of 64 lower-case hex digits, at compile time.
const fn hex(text: &str) -> Digest {
    let text = text.as_bytes();
    assert!(text.len() == 64, "a digest is 64 hex digits");
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = nibble(text[2 * at]) << 4 | nibble(text[2 * at + 1]);
        at += 1;
    }
    Digest(bytes)
}

const fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => panic!("a digest is lower-case hex digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{DATASETS, datasets::SYNTHETIC};

    #[test]
    fn every_data_set_of_the_catalogue_has_its_files_here_under_the_same_names() {
        assert_eq!(
            DATA_FILES.iter().map(|d| d.name).collect::<Vec<_>>(),
            DATASETS.iter().map(|d| d.name).filter(|name| *name != SYNTHETIC).collect::<Vec<_>>()
        );
        for known in DATA_FILES {
            let dataset = known.dataset().unwrap();
            let names = dataset.files;
            assert_eq!(
                known.files.map(|file| file.name),
                [names.train_images, names.train_labels, names.test_images, names.test_labels]
            );
            let pixels: u64 = dataset.shape.iter().map(|&n| u64::from(n)).product();
            assert_eq!(known.files[0].size_bytes, 16 + u64::from(dataset.train_samples) * pixels);
            assert_eq!(known.files[1].size_bytes, 8 + u64::from(dataset.train_samples));
            assert_eq!(known.files[2].size_bytes, 16 + u64::from(dataset.test_samples) * pixels);
            assert_eq!(known.files[3].size_bytes, 8 + u64::from(dataset.test_samples));
        }
    }

    #[test]
    fn a_pinned_digest_reads_as_it_is_written() {
        let text = "feaca08b36e07f8d504641a929bff1554884ef73964323e44e59e39a986b4c9e";
        assert_eq!(hex(text).to_string(), text);
    }

    #[test]
    fn contents_cut_short_or_altered_are_refused() {
        let file = DataFile { name: "labels", size_bytes: 3, digest: Digest::of(b"abc") };
        assert_eq!(file.check(3, Digest::of(b"abc")), Ok(()));
        assert!(matches!(file.check(2, Digest::of(b"ab")), Err(ContentsError::Size { found_bytes: 2, .. })));
        assert!(matches!(file.check(3, Digest::of(b"abd")), Err(ContentsError::Digest { .. })));
    }

    #[test]
    fn the_data_root_is_the_variable_else_the_cache_else_below_home() {
        let root = |data: Option<&str>, cache: Option<&str>, home: Option<&str>| {
            data_root(data.map(OsStr::new), cache.map(OsStr::new), home.map(OsStr::new))
        };
        assert_eq!(root(Some("/d"), Some("/c"), Some("/h")), Some("/d".into()));
        assert_eq!(root(Some(""), Some("/c"), Some("/h")), Some("/c/spotsweep/data".into()));
        assert_eq!(root(None, Some("relative"), Some("/h")), Some("/h/.cache/spotsweep/data".into()));
        assert_eq!(root(None, None, Some("/h")), Some("/h/.cache/spotsweep/data".into()));
        assert_eq!(root(None, Some(""), Some("")), None);
    }
}
