//! What can go wrong with data sets, each with what to do about it.
//!
//! Owns the error type and its hints. It must not print.

use spotsweep_proto::datasets::{ContentsError, DATA_FILES, DATA_VARIABLE};
use std::{io, path::PathBuf};

/// Why a data set is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No data set of that name is known.
    #[error("there is no data set {name:?}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Nothing says where data sets lie.
    #[error("there is no folder for data sets: neither {DATA_VARIABLE}, XDG_CACHE_HOME nor HOME is set")]
    NoRoot,
    /// It was not fetched yet, or only in part.
    #[error("{name} is not in {}", folder.display())]
    Absent {
        /// The data set.
        name: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A folder that should hold a data set lacks a file.
    #[error("{} has neither {file} nor {file}.gz", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file's name when unpacked.
        file: &'static str,
    },
    /// A file is not what it should be.
    #[error("a file in {} is not the one that belongs to {name}", folder.display())]
    Contents {
        /// The data set.
        name: &'static str,
        /// The folder.
        folder: PathBuf,
        /// The file, and what is wrong with it.
        #[source]
        source: ContentsError,
    },
    /// A program that is needed is not on this machine.
    #[error("{name} comes by way of {program}, which is not on this machine")]
    NoProgram {
        /// The data set.
        name: &'static str,
        /// The program.
        program: &'static str,
    },
    /// A program that fetches or unpacks failed.
    #[error("`{command}` failed: {said}")]
    Program {
        /// The data set.
        name: &'static str,
        /// The command line.
        command: String,
        /// The last thing that it said.
        said: String,
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
}

impl DataError {
    /// An [`DataError::Io`] for `map_err`.
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let by_hand = |name: &str| {
            format!("with the four IDX files in a folder: `spotsweep data get {name} --from FOLDER`")
        };
        match self {
            Self::Unknown { .. } => {
                let known: Vec<_> = DATA_FILES.iter().map(|known| known.name).collect();
                format!("known are {}", known.join(" and "))
            }
            Self::NoRoot => format!("set {DATA_VARIABLE} to a folder"),
            Self::Absent { name, .. } => format!("`spotsweep data get {name}`"),
            Self::Missing { .. } => {
                let files: Vec<_> = DATA_FILES[0].files.iter().map(|file| file.name).collect();
                format!("a data set is the four files {}, as they are or gzipped", files.join(", "))
            }
            Self::Contents { name, folder, .. } => {
                format!(
                    "remove {} and run `spotsweep data get {name}`, or name a folder with the right files",
                    folder.display()
                )
            }
            Self::NoProgram { name, program: "npm" } => {
                format!("install npm (Debian: apt-get install npm); or, {}", by_hand(name))
            }
            Self::NoProgram { name, .. } => by_hand(name),
            Self::Program { name, .. } => {
                format!("check the network and run it again; or, {}", by_hand(name))
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                format!("make room, or set {DATA_VARIABLE} to a folder on another disk")
            }
            Self::Io { path, .. } => {
                format!("check the rights of {}, or set {DATA_VARIABLE} to another folder", path.display())
            }
        }
    }
}
