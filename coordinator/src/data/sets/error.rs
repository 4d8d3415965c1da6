//! What can go wrong when data is added, kept and looked up, each with what to do about it.
//!
//! Owns the error type and its hints. It must not print.

use spotsweep_proto::{
    datasets::{
        DATA_STORE_VARIABLE,
        manifest::{DataManifestError, DataPart},
        reference::DataRefError,
    },
    digest::Digest,
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a data set could not be added, found, verified or removed.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A source is not what it should be: cut short, altered, contradictory, beyond a limit.
    #[error("{}: {problem}", path.display())]
    Source {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and where in the file.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Options that do not fit together or the source.
    #[error("{problem}")]
    Options {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// The system refused something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing says where data sets are stored.
    #[error(
        "there is no object store for data sets: neither {DATA_STORE_VARIABLE}, SPOTSWEEP_DATA, XDG_CACHE_HOME nor HOME is set"
    )]
    NoPlace,
    /// The text names no object store that this program can use.
    #[error("{place:?} is no object store that this program can use: {problem}")]
    Place {
        /// What was given.
        place: String,
        /// Why not.
        problem: String,
    },
    /// The object store answered with an error.
    #[error("cannot {doing} in the object store")]
    Store {
        /// A verb, and on what.
        doing: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// A piece is missing, cut short or altered.
    #[error("piece {place} ({}, samples {first} to {last}; object {digest}): {problem}", part_name(*part))]
    Piece {
        /// Its place among the pieces.
        place: usize,
        /// Which part.
        part: DataPart,
        /// Its first sample.
        first: u32,
        /// Its last sample.
        last: u32,
        /// By which it is named.
        digest: Digest,
        /// What is wrong.
        problem: String,
    },
    /// A manifest that cannot be read or believed.
    #[error(transparent)]
    Manifest(#[from] DataManifestError),
    /// What should be a name is none.
    #[error(transparent)]
    Name(#[from] DataRefError),
    /// What lies under a name is no entry.
    #[error("the entry of the data set {name} is damaged: {problem}")]
    Entry {
        /// The name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// No data set of that name is stored.
    #[error("there is no data set {name} in {store}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where.
        store: String,
        /// The nearest name.
        near: Option<String>,
    },
    /// The name stands for another content.
    #[error("{name} is there already, with other content (blake3:{})", manifest.short())]
    Exists {
        /// The name.
        name: String,
        /// What it stands for.
        manifest: Digest,
    },
    /// A task of the program ended without a word.
    #[error("a thread that reads or hashes ended without a word")]
    Thread,
}

fn part_name(part: DataPart) -> &'static str {
    match part {
        DataPart::Train => "training part",
        DataPart::Test => "test part",
    }
}

impl SetError {
    /// A [`SetError::Source`].
    pub(in crate::data) fn source(path: &Path, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Source { path: path.to_owned(), problem: problem.into(), hint: hint.into() }
    }

    /// An [`SetError::Io`] for `map_err`.
    pub(in crate::data) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// A [`SetError::Store`] for `map_err`.
    pub(super) fn store(doing: impl Into<String>) -> impl FnOnce(object_store::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Store { doing, source }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Source { hint, .. } | Self::Options { hint, .. } => hint.clone(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room; TMPDIR names the folder of temporary files".to_owned()
            }
            Self::Io { path, .. } => format!("check that {} is there and its rights", path.display()),
            Self::NoPlace => format!("name a folder or URL with --to or {DATA_STORE_VARIABLE}"),
            Self::Place { .. } => "name a folder, or file:///FOLDER".to_owned(),
            Self::Store { .. } => {
                "is the store reachable, and has its disk room? The same command goes on".to_owned()
            }
            Self::Piece { .. } | Self::Manifest(_) => {
                "adding the data set again from its source stores what is missing or damaged anew".to_owned()
            }
            Self::Name(_) => "a name is made of letters, digits, '.', '_' and '-'".to_owned(),
            Self::Entry { name, .. } => format!("`spotsweep data add {name} PATH --replace` writes it anew"),
            Self::Unknown { near: Some(near), .. } => format!("did you mean {near}?"),
            Self::Unknown { .. } => "`spotsweep data ls` lists what is there".to_owned(),
            Self::Exists { .. } => {
                "choose another name, or --replace; sweeps that run keep what they have".to_owned()
            }
            Self::Thread => "this is a defect of the program".to_owned(),
        }
    }
}
