//! Reading a sweep file from disk and checking it.
//!
//! The check itself is `spotsweep_proto::spec::parse`. Must not print.

use super::{code::Travelling, error::io_problem, modules::LocalModule, sets};
use crate::error::{Code, Problem};
use spotsweep_proto::{
    catalogue::OwnCatalogue,
    datasets::DataSets,
    limits::SWEEP_FILE_BYTES,
    spec::{Own, SweepSpec, code_asked_for, data_asked_for, parse_with},
};
use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

/// A sweep file that is right.
#[derive(Debug, Clone)]
pub(crate) struct SweepFile {
    /// As given, for messages.
    pub(crate) name: String,
    /// As written.
    pub(crate) source: Vec<u8>,
    /// What it says.
    pub(crate) spec: SweepSpec,
    /// The folder of code that travels, if any does.
    pub(crate) code_folder: Option<PathBuf>,
    /// That folder, packed: by [`super::code::pack`].
    pub(crate) code: Option<Travelling>,
    /// The TorchScript modules that it names, to which its specification is pinned: by [`super::modules::pin`].
    pub(crate) modules: Vec<LocalModule>,
    path: PathBuf,
}

impl SweepFile {
    /// A path that it names, from where it lies.
    pub(crate) fn beside(&self, named: &str) -> PathBuf {
        beside(&self.path, named)
    }
}

/// Reads and checks it, where sweeps may also use what is `own` to a trainer. No more than its limit is read, however large the file is, and a pipe will do.
///
/// # Errors
/// If it cannot be read, or everything that is wrong with it.
pub(crate) fn read(path: &Path, own: &OwnCatalogue) -> Result<SweepFile, Problem> {
    let names = || own.data.iter().map(|set| set.name.to_string());
    let known = |source: &[u8]| {
        let mut sets = sets::known(data_asked_for(source))?;
        sets.add_names(names());
        Ok(sets)
    };
    read_with(path, known, Own::Told(own))
}

/// As [`read`], without looking whether added data sets and models are there: for a coordinator that has a store and workers
/// of its own.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_for_coordinator(path: &Path) -> Result<SweepFile, Problem> {
    read_with(path, |_| Ok(DataSets::any()), Own::Any)
}

fn read_with(
    path: &Path,
    sets: impl FnOnce(&[u8]) -> Result<DataSets, Problem>,
    own: Own<'_>,
) -> Result<SweepFile, Problem> {
    let mut source = Vec::new();
    let limit = u64::try_from(SWEEP_FILE_BYTES).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut source))
        .map_err(|error| io_problem("read", path, &error))?;
    let name = path.display().to_string();
    if source.len() > SWEEP_FILE_BYTES {
        // How large it is in truth is not known here, and `parse` would tell the length of what was read.
        let large = format!("{name} is larger than a sweep file may be, which is {SWEEP_FILE_BYTES} bytes");
        return Err(Problem::new(Code::BadSweepFile, large)
            .hint("write ranges (min, max, q) instead of long lists of values"));
    }
    let sets = sets(&source)?;
    match parse_with(&source, &name, &sets, own) {
        Ok(spec) => {
            let code_folder = code_folder(path, &source, &spec);
            let path = path.to_owned();
            Ok(SweepFile { name, source, spec, code_folder, code: None, modules: Vec::new(), path })
        }
        Err(diagnostics) => Err(Problem::new(Code::BadSweepFile, diagnostics.to_string().trim_end())),
    }
}

/// The folder of code that travels: the one that the file names; else the one in which its script lies, beside the file or
/// where the user is. So a sweep file for `wandb agent`, which starts the script from there, runs as it is, also elsewhere.
fn code_folder(path: &Path, source: &[u8], spec: &SweepSpec) -> Option<PathBuf> {
    if let Some(folder) = code_asked_for(source) {
        return Some(beside(path, &folder));
    }
    let program = Path::new(spec.program.as_ref()?.program.as_deref()?);
    let is_inside = program.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let folders = [beside(path, "."), PathBuf::from(".")];
    folders.into_iter().find(|folder| is_inside && folder.join(program).is_file())
}

/// A path that a sweep file names, from where the file lies.
fn beside(file: &Path, named: &str) -> PathBuf {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Without the dots in between, since it is shown.
    parent.unwrap_or(Path::new(".")).join(named).components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_code_the_folder_of_the_script_travels_if_it_is_here() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir(at("deep")).unwrap();
        for script in ["train.py", "deep/other.py"] {
            std::fs::write(at(script), "x").unwrap();
        }
        let folder = |file: &str, lines: &str| {
            std::fs::write(at(file), format!("method: grid\nparameters: {{a: {{value: 1}}}}\n{lines}"))
                .unwrap();
            read(&at(file), &OwnCatalogue::default()).unwrap().code_folder
        };
        assert_eq!(folder("a.yaml", "program: train.py"), Some(home.path().to_owned()));
        assert_eq!(folder("a.yaml", "program: ./deep/other.py"), Some(home.path().to_owned()));
        assert_eq!(folder("a.yaml", "program: train.py\ncode: deep"), Some(at("deep")));
        for none in ["program: absent.py", "program: /bin/true", "command: [python3, train.py]"] {
            assert_eq!(folder("a.yaml", none), None, "{none}");
        }
        assert_eq!(folder("deep/a.yaml", "program: ../train.py"), None);
    }

    #[test]
    fn a_file_without_an_end_is_refused_quickly() {
        let problem = read(Path::new("/dev/zero"), &OwnCatalogue::default()).unwrap_err();
        assert_eq!(problem.code, Code::BadSweepFile);
    }

    #[test]
    fn a_missing_file_and_a_folder_are_told_by_name() {
        let problem = read(Path::new("no/such.yaml"), &OwnCatalogue::default()).unwrap_err();
        assert_eq!(problem.message, "cannot read no/such.yaml: No such file or directory (os error 2)");
        assert!(
            read(Path::new("/"), &OwnCatalogue::default())
                .unwrap_err()
                .message
                .starts_with("cannot read /: ")
        );
    }
}
