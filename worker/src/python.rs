//! The Python package `spotsweep`, carried in the agent, so that `import spotsweep` works on a machine that has nothing but
//! the agent and Python. Owns the folder that it is written to; must not start Python.

use spotsweep_proto::program::Compat;
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// Names and contents of the package's files, below `worker/python/src/spotsweep`.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../python/src/spotsweep/", $name)))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "__init__.py",
    "_errors.py",
    "_exact_json.py",
    "_link.py",
    "_metrics.py",
    "_params.py",
    "_safetensors.py",
    "_say.py",
    "checkpoint.py",
    "compat/__init__.py",
    "compat/wandb/__init__.py",
    "compat/wandb/_config.py",
    "compat/wandb/_run.py",
    "exact.py",
    "keras.py",
    "lightning.py",
    "py.typed",
    "sampler.py",
    "transformers.py",
];

/// The variable with the folders in which Python looks for modules, before its own.
pub(crate) const PYTHONPATH: &str = "PYTHONPATH";

/// Digits of the content's hash in the folder's name: enough that no two versions ever share one.
const NAME_DIGITS: usize = 32;

/// A folder that holds the package.
#[derive(Debug, Clone)]
pub(crate) struct PythonPackage {
    root: PathBuf,
}

impl PythonPackage {
    /// Writes the package below `base`, unless it is there. Several agents may do so at once: each version has a folder of its
    /// own name, which appears whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn install(base: &Path) -> io::Result<Self> {
        // A program starts in a millisecond or two: no time to hash all files for each.
        static NAME: LazyLock<String> = LazyLock::new(|| format!("python-{}", &digest()[..NAME_DIGITS]));
        let root = base.join(&*NAME);
        if root.is_dir() {
            return Ok(Self { root });
        }
        fs::create_dir_all(base)?;
        let writing = tempfile::Builder::new().prefix(".python-").tempdir_in(base)?;
        for (name, content) in FILES {
            let path = writing.path().join("spotsweep").join(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, content)?;
        }
        match fs::rename(writing.path(), &root) {
            // Another agent was first, with the same content.
            Err(_) if root.is_dir() => Ok(Self { root }),
            outcome => outcome.map(|()| Self { root }),
        }
    }

    /// [`PYTHONPATH`] for a program: what stands in front of its libraries, then `own`, what the path is without us, then the
    /// package, which a copy that stands there therefore wins over.
    pub(crate) fn path(&self, compat: Option<Compat>, own: Option<&OsStr>) -> OsString {
        let front = compat.map(|compat| match compat {
            Compat::Wandb => self.root.join("spotsweep/compat").into_os_string(),
        });
        let own = own.filter(|own| !own.is_empty()).map(OsStr::to_owned);
        let mut path = OsString::new();
        for part in front.into_iter().chain(own).chain([self.root.clone().into_os_string()]) {
            if !path.is_empty() {
                path.push(":");
            }
            path.push(part);
        }
        path
    }
}

/// BLAKE3 of all names and contents.
fn digest() -> String {
    let mut hasher = blake3::Hasher::new();
    for text in FILES.iter().flat_map(|(name, content)| [name, content]) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn below(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "__pycache__") {
                    below(&path, root, found);
                }
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }

    #[test]
    fn the_agent_carries_every_file_of_the_package() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/src/spotsweep");
        let mut there = BTreeSet::new();
        below(&source, &source, &mut there);
        let carried: BTreeSet<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(carried, there);
    }

    #[test]
    fn it_is_written_once_and_whole() {
        let base = tempfile::tempdir().unwrap();
        let first = PythonPackage::install(base.path()).unwrap();
        let file = first.root.join("spotsweep/compat/wandb/_run.py");
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            include_str!("../python/src/spotsweep/compat/wandb/_run.py")
        );
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        let second = PythonPackage::install(base.path()).unwrap();
        assert_eq!(first.root, second.root);
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn agents_that_write_it_at_once_do_not_disturb_each_other() {
        let base = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..8).map(|_| scope.spawn(|| PythonPackage::install(base.path()).unwrap().root)).collect();
            let all: BTreeSet<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
            assert_eq!(all.len(), 1);
        });
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn compat_stands_in_front_and_the_package_behind_what_the_program_has() {
        let package = PythonPackage { root: "/r".into() };
        assert_eq!(package.path(None, None), "/r");
        assert_eq!(package.path(None, Some(OsStr::new(""))), "/r");
        assert_eq!(
            package.path(Some(Compat::Wandb), Some(OsStr::new("/a:/b"))),
            "/r/spotsweep/compat:/a:/b:/r"
        );
    }
}
