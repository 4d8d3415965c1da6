//! One coordinator a folder: a locked file that says who holds it. The lock goes with the process, however it ends.

use super::StoreError;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

const LOCK_FILE: &str = "spotsweep.lock";
/// Most that is read of another coordinator's lock file, in bytes.
const LOCK_FILE_BYTES: u64 = 4096;

/// The right to a coordinator's folder, for as long as this lives.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    path: PathBuf,
}

/// Who holds a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveCoordinator {
    /// For people: process and address.
    pub holder: String,
    /// Where it listens, once it does.
    pub url: Option<String>,
}

impl FolderLock {
    /// Takes the folder for a coordinator.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if one has it, saying which; [`StoreError::File`] if the lock cannot be made.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::file("cannot open the lock file", &path))?;
        let mut lock = Self { file, path };
        match lock.file.try_lock() {
            Ok(()) => {
                lock.write("")?;
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => {
                let LiveCoordinator { holder, url } = lock.read();
                Err(StoreError::InUse { dir: dir.to_owned(), holder, url })
            }
            Err(TryLockError::Error(source)) => {
                Err(StoreError::File { what: "cannot lock", path: lock.path, source })
            }
        }
    }

    /// Who holds `dir`; `None` if nobody does.
    #[must_use]
    pub fn holder(dir: &Path) -> Option<LiveCoordinator> {
        let path = dir.join(LOCK_FILE);
        let lock = Self { file: File::open(&path).ok()?, path };
        // A shared lock, so that two readers do not take each other for a coordinator.
        match lock.file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(lock.read()),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }

    /// Says where this coordinator listens.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn announce(&mut self, url: &str) -> Result<(), StoreError> {
        self.write(url)
    }

    fn write(&mut self, url: &str) -> Result<(), StoreError> {
        let text = format!("pid {}\nurl {url}\n", std::process::id());
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(text.as_bytes()));
        written.map_err(StoreError::file("cannot write the lock file", &self.path))
    }

    fn read(&self) -> LiveCoordinator {
        let mut text = String::new();
        // What cannot be read is not said: the lock itself is what counts.
        let _read = (&self.file).take(LOCK_FILE_BYTES).read_to_string(&mut text);
        let value = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let url = value("url ");
        let pid = value("pid ").map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
        let place = url.as_ref().map_or_else(|| "not listening yet".to_owned(), |url| format!("at {url}"));
        LiveCoordinator { holder: format!("{pid}, {place}"), url }
    }
}
