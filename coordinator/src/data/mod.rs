//! Data sets on this machine: whether they are here, whole and unaltered, and how they come here.
//!
//! Owns the folder of data sets (the rule for its place is `spotsweep_proto::datasets`). A data set is put there
//! in one rename, after every file was verified. It must not print, and must not know the command line: what is
//! being done goes to a callback. All calls block.
//!
//! Data sets that users have added live elsewhere: [`sets`] keeps them in an object store, `source` reads what people
//! have.

mod error;
mod files;
mod origin;
pub mod sets;
mod source;

pub use error::DataError;
pub use origin::Origin;
pub use source::SourceOptions;

use spotsweep_proto::datasets::{DATA_FILES, DATA_VARIABLE, DataFiles, data_root};
use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The folder of all data sets.
#[derive(Debug, Clone)]
pub struct DataStore {
    root: PathBuf,
}

/// What a look at names and sizes tells of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// All four files are here, at their sizes. [`DataStore::verify`] tells whether they are unaltered.
    Here,
    /// No file is here.
    Absent,
    /// Some file is missing or has another size.
    Damaged,
}

/// A line of `spotsweep data ls`.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The data set.
    pub known: &'static DataFiles,
    /// Where it lies, or would.
    pub folder: PathBuf,
    /// Whether it does.
    pub presence: Presence,
}

/// How [`DataStore::get`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// It was here already, whole and verified; nothing was fetched.
    Already(PathBuf),
    /// It is here now, verified.
    Placed(PathBuf),
}

impl Got {
    /// Where the data set lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        match self {
            Self::Already(folder) | Self::Placed(folder) => folder,
        }
    }
}

/// What [`DataStore::get`] is doing, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Another process is fetching the same data set.
    Waiting,
    /// A program was started that may take a while.
    Running(String),
    /// Files from this folder are being unpacked and verified.
    Verifying(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => write!(f, "another process is fetching it: waiting"),
            Self::Running(command) => write!(f, "running {command}"),
            Self::Verifying(folder) => write!(f, "unpacking and verifying {}", folder.display()),
        }
    }
}

/// The known data set of that name.
///
/// # Errors
/// [`DataError::Unknown`].
pub fn known(name: &str) -> Result<&'static DataFiles, DataError> {
    DataFiles::named(name).ok_or_else(|| DataError::Unknown { name: name.chars().take(80).collect() })
}

impl DataStore {
    /// The store that this process's environment names.
    ///
    /// # Errors
    /// [`DataError::NoRoot`] where it names none.
    pub fn from_environment() -> Result<Self, DataError> {
        let value = |name: &str| std::env::var_os(name);
        let (data, cache, home) = (value(DATA_VARIABLE), value("XDG_CACHE_HOME"), value("HOME"));
        let root = data_root(data.as_deref(), cache.as_deref(), home.as_deref()).ok_or(DataError::NoRoot)?;
        Ok(Self::at(std::path::absolute(&root).unwrap_or(root)))
    }

    /// The store in the folder `root`, which need not exist yet.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of all data sets.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every known data set and whether it is here.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let listed = |known: &'static DataFiles| Listed {
            known,
            folder: known.folder(&self.root),
            presence: self.presence(known),
        };
        DATA_FILES.iter().map(listed).collect()
    }

    /// What names and sizes tell. Takes microseconds.
    #[must_use]
    pub fn presence(&self, known: &DataFiles) -> Presence {
        files::presence(known, &known.folder(&self.root))
    }

    /// Where the data set lies.
    ///
    /// # Errors
    /// [`DataError::Absent`] where it is not here, or not all of it.
    pub fn locate(&self, known: &DataFiles) -> Result<PathBuf, DataError> {
        let folder = known.folder(&self.root);
        match self.presence(known) {
            Presence::Here => Ok(folder),
            Presence::Absent | Presence::Damaged => Err(DataError::Absent { name: known.name, folder }),
        }
    }

    /// Reads all files and compares their contents with what they should be.
    ///
    /// # Errors
    /// [`DataError::Absent`], [`DataError::Missing`], [`DataError::Contents`] or [`DataError::Io`].
    pub fn verify(&self, known: &DataFiles) -> Result<PathBuf, DataError> {
        let folder = known.folder(&self.root);
        if self.presence(known) == Presence::Absent {
            return Err(DataError::Absent { name: known.name, folder });
        }
        files::verify(known, &folder)?;
        Ok(folder)
    }

    /// Makes the data set lie here, whole and verified. One that is here already is verified and left alone; a
    /// damaged one is replaced. Two calls at once, of any processes, do the work once.
    ///
    /// # Errors
    /// [`DataError`]; then what was here before is here still.
    pub fn get(
        &self,
        known: &'static DataFiles,
        origin: Origin<'_>,
        step: &mut dyn FnMut(Step),
    ) -> Result<Got, DataError> {
        let folder = known.folder(&self.root);
        if self.verify(known).is_ok() {
            return Ok(Got::Already(folder));
        }
        fs::create_dir_all(&self.root).map_err(DataError::io("create", &self.root))?;
        let _lock = self.lock(known, step)?;
        if self.verify(known).is_ok() {
            return Ok(Got::Already(folder));
        }
        // Under the lock nobody else uses these names: what is there is left from a killed process.
        let work = Scratch::fresh(self.beside(known, "partial"))?;
        let placed = work.path().join("placed");
        origin::fetch(known, origin, work.path(), &placed, step)?;
        files::sync_folder(&placed)?;
        let old = Scratch::fresh(self.beside(known, "old"))?;
        if folder.exists() {
            let aside = old.path().join("damaged");
            fs::rename(&folder, &aside).map_err(DataError::io("move away", &folder))?;
        }
        fs::rename(&placed, &folder).map_err(DataError::io("create", &folder))?;
        files::sync_folder(&self.root)?;
        Ok(Got::Placed(folder))
    }

    fn beside(&self, known: &DataFiles, suffix: &str) -> PathBuf {
        self.root.join(format!(".{}.{suffix}", known.name))
    }

    /// Held until dropped; the system drops it when this process ends, however it ends.
    fn lock(&self, known: &DataFiles, step: &mut dyn FnMut(Step)) -> Result<File, DataError> {
        let path = self.beside(known, "lock");
        let file = File::create(&path).map_err(DataError::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                step(Step::Waiting);
                file.lock().map_err(DataError::io("lock", &path))?;
                Ok(file)
            }
            Err(fs::TryLockError::Error(source)) => Err(DataError::io("lock", path)(source)),
        }
    }
}

/// A folder that is gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn fresh(path: PathBuf) -> Result<Self, DataError> {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(DataError::io("remove", &path))?;
        }
        fs::create_dir(&path).map_err(DataError::io("create", &path))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a folder of scratch files stays behind");
        }
    }
}

#[cfg(test)]
mod tests;
