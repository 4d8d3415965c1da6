//! A folder of code as one archive: packed where a sweep is submitted, unpacked where a trial runs.
//!
//! Owns the form of the archive, a tar whose bytes depend on names, contents and executable bits alone, so that an
//! unchanged folder has the same digest on every machine; and the rules of what may be in it. It knows no store and no
//! network. What is unpacked is not believed: see [`unpack`].

mod pack;
mod unpack;

pub use pack::{Contents, Packed, contents, pack, plain_header};
use std::path::PathBuf;
pub use unpack::unpack;

/// Longest path inside of an archive, in bytes.
pub const PATH_BYTES: usize = 1024;
/// Folders that never travel: what a version control keeps, and what Python makes anew.
pub const LEFT_OUT: [&str; 2] = [".git", "__pycache__"];
/// A folder with this file is a coordinator's own and does not travel: `spotsweep run` may keep it beside the code.
pub const COORDINATORS_FILE: &str = "spotsweep.db";

/// Why a folder cannot be packed, or an archive not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system said no.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A folder or its `.gitignore` cannot be read.
    #[error("cannot look through {folder}")]
    Walk {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: ignore::Error,
    },
    /// There is nothing to pack.
    #[error("{folder} holds no files")]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// More files than may travel.
    #[error("there are more than {most} files")]
    TooManyFiles {
        /// How many may.
        most: usize,
    },
    /// More bytes than may travel.
    #[error("the archive has more than {most} bytes")]
    TooLarge {
        /// How many may.
        most: u64,
    },
    /// A link that leads out of the folder, or nowhere.
    #[error("{path} is a link that leads out of the folder")]
    LinkOutside {
        /// The link.
        path: PathBuf,
    },
    /// Neither a file nor a folder nor a link.
    #[error("{path} is neither a file nor a folder")]
    Kind {
        /// What it is called.
        path: PathBuf,
    },
    /// A name that does not fit.
    #[error("{path}: a path is UTF-8, has at most {PATH_BYTES} bytes and stays inside of the folder")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// It changed under way.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The archive is no tar, or cut off.
    #[error("the archive is damaged")]
    Damaged(#[source] std::io::Error),
    /// A name stands twice in the archive.
    #[error("the archive holds {path} twice")]
    Twice {
        /// The path.
        path: PathBuf,
    },
    /// The folder to unpack into has something in it.
    #[error("{folder} is not empty")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
}

impl ArchiveError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Walk { .. } => "is it there, and may you read and write it?",
            Self::Empty { .. } => {
                "name the folder with the program in `code`; what .gitignore names is left out"
            }
            Self::TooManyFiles { .. } | Self::TooLarge { .. } => {
                "name a folder with code alone, or name data and results in its .gitignore"
            }
            Self::LinkOutside { .. } => {
                "copy what it points to into the folder, or name the link in .gitignore"
            }
            Self::Kind { .. } | Self::Path { .. } => "rename it, or name it in .gitignore",
            Self::Changed { .. } => "try again once nothing writes to the folder",
            Self::Damaged(_) | Self::Twice { .. } => "submit the sweep again",
            Self::NotEmpty { .. } => "unpack into a new folder",
        }
    }
}

fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { what, path, source }
}

#[cfg(test)]
mod tests;
