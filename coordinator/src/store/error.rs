//! What can go wrong with the folder, and what to do about it.

use crate::error::{Code, Problem, chain};
use std::path::PathBuf;

/// Why the folder cannot be used, or a commit was not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder cannot be created, opened or read.
    #[error("{what} {path}", path = path.display())]
    File {
        /// What was tried, as a sentence that the path ends.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another coordinator holds the folder.
    #[error("another coordinator has the folder {path}: {holder}", path = dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Process and address, as it wrote them.
        holder: String,
        /// Where it listens, once it does.
        url: Option<String>,
    },
    /// There is no database to read.
    #[error("{path} is no coordinator's folder: it has no {file}", path = dir.display(), file = super::DATABASE_FILE)]
    NoFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is not a journal of Spotsweep", path = path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error("{path} has format {found}; this program reads up to {supported}", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this program knows.
        supported: u32,
    },
    /// Written by a program from before the first release.
    #[error("{path} has format {found}, from before the first release; this program reads {supported}", path = path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// What this program reads.
        supported: u32,
    },
    /// A row in the middle is damaged: good rows follow it.
    #[error("{path} is damaged at {place}: {what}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where: table and row, and the byte where that is known.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The snapshot is whole but this program cannot read it.
    #[error("the snapshot of the engine cannot be read")]
    Snapshot(#[source] spotsweep_engine::RestoreError),
    /// An error of SQLite.
    #[error("{what}")]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// SQLite's own words.
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// For `map_err`.
    pub(super) fn sqlite(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sqlite { what, source }
    }

    /// For `map_err`.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    fn sqlite_code(&self) -> Option<rusqlite::ErrorCode> {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code(),
            Self::File { .. }
            | Self::InUse { .. }
            | Self::NoFolder { .. }
            | Self::NotOurs { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Damaged { .. }
            | Self::Snapshot(_) => None,
        }
    }

    /// Whether the same write may succeed later without anybody's touching the file: disk full, IO errors, locks.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        use rusqlite::ErrorCode as Sql;
        matches!(
            self.sqlite_code(),
            Some(
                Sql::DiskFull
                    | Sql::SystemIoFailure
                    | Sql::DatabaseBusy
                    | Sql::DatabaseLocked
                    | Sql::OutOfMemory
                    | Sql::CannotOpen
                    | Sql::ReadOnly
                    | Sql::PermissionDenied
            )
        )
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        use rusqlite::ErrorCode as Sql;
        let (code, hint) = match &error {
            StoreError::File { .. } => {
                (Code::Storage, "check the path, its owner and its permissions".to_owned())
            }
            StoreError::InUse { url: Some(url), .. } => {
                (Code::InUse, format!("talk to it with --coordinator {url}, or stop it"))
            }
            StoreError::InUse { url: None, .. } => {
                (Code::InUse, "stop it, or take another folder with --dir".to_owned())
            }
            StoreError::NoFolder { .. } => {
                (Code::NoFolder, "--dir names the folder that `run` or `serve` was given".to_owned())
            }
            StoreError::NotOurs { .. } => (Code::Damaged, "take another folder with --dir".to_owned()),
            StoreError::Newer { .. } => (Code::NewerFormat, "use the newer program".to_owned()),
            StoreError::Older { .. } => (
                Code::NewerFormat,
                "finish it with the program that wrote it, or take another folder with --dir".to_owned(),
            ),
            StoreError::Damaged { .. } => (
                Code::Damaged,
                "nothing was changed. Restore the folder from a copy; or move it away and start over"
                    .to_owned(),
            ),
            StoreError::Snapshot(_) => {
                (Code::NewerFormat, "use the program that wrote the folder".to_owned())
            }
            StoreError::Sqlite { .. } => match error.sqlite_code() {
                Some(Sql::DiskFull) => (Code::Storage, "free some space on the disk".to_owned()),
                Some(Sql::ReadOnly | Sql::CannotOpen | Sql::PermissionDenied) => {
                    (Code::Storage, "check the folder's owner and permissions".to_owned())
                }
                Some(Sql::DatabaseCorrupt | Sql::NotADatabase) => (
                    Code::Damaged,
                    "restore the folder from a copy; or move it away and start over".to_owned(),
                ),
                _ => (Code::Storage, String::new()),
            },
        };
        Self { code, message: chain(&error), hint }
    }
}
