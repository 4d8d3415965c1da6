//! The folder of an export: filled beside its place, and moved there when it is whole.
//!
//! Owns when a folder that is there may be replaced. Must not know what is written.

use super::failed;
use crate::error::{Code, Problem};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The file that tells a folder that an export made from one that holds something else.
pub(crate) const MARK: &str = ".spotsweep-export";

/// A folder in the making. Dropped before [`Staging::finish`], it leaves nothing.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: TempDir,
    place: PathBuf,
}

impl Staging {
    /// Begins an export to `place`.
    ///
    /// # Errors
    /// If something is there: a folder with content unless `force` is set and an export made it, or no folder at all.
    pub(crate) fn begin(place: &Path, force: bool) -> Result<Self, Problem> {
        let place = std::path::absolute(place).map_err(|error| failed("find", place, &error))?;
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(Problem::new(Code::BadRequest, format!("{} cannot be an export", place.display())));
        };
        check(&place, force)?;
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
        let prefix = format!(".{}.partial-", name.to_string_lossy());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent);
        let folder = folder.map_err(|error| failed("make a folder in", parent, &error))?;
        fs::write(folder.path().join(MARK), "spotsweep export\n")
            .map_err(|error| failed("write", folder.path(), &error))?;
        Ok(Self { folder, place })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where it will lie, as an absolute path.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Makes it durable and moves it to its place, away with what lay there.
    ///
    /// # Errors
    /// If the disk fails, or something came there meanwhile.
    pub(crate) fn finish(self, force: bool) -> Result<(), Problem> {
        let Self { folder, place } = self;
        let parent = place.parent().unwrap_or(&place);
        let wrong = |error: io::Error| failed("complete", &place, &error);
        check(&place, force)?;
        // One call for what may be a hundred thousand files.
        nix::unistd::syncfs(File::open(folder.path()).map_err(wrong)?)
            .map_err(|error| wrong(error.into()))?;
        open_to_others(folder.path()).map_err(wrong)?;
        if is_filled(&place) {
            let old = tempfile::Builder::new().prefix(".replaced-").tempdir_in(parent).map_err(wrong)?;
            fs::rename(&place, old.path().join("old")).map_err(wrong)?;
            fs::rename(folder.path(), &place).map_err(wrong)?;
        } else {
            // rename(2) takes the place of an empty folder.
            fs::rename(folder.path(), &place).map_err(wrong)?;
        }
        // It is no longer where its guard would look.
        let _ = folder.keep();
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(wrong)
    }
}

/// Temporary folders are their owner's alone; a finished export is as any folder that `mkdir` makes.
fn open_to_others(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let like = folder.join(".mode");
    fs::create_dir(&like)?;
    let mode = fs::metadata(&like)?.permissions().mode();
    fs::remove_dir(&like)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

fn is_filled(place: &Path) -> bool {
    fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some())
}

fn check(place: &Path, force: bool) -> Result<(), Problem> {
    let refused = |why: &str, hint: &str| {
        Err(Problem::new(Code::BadRequest, format!("{} {why}", place.display())).hint(hint))
    };
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", place, &error)),
        Ok(found) if !found.is_dir() => refused("is there and is no folder", "name another folder with --to"),
        Ok(_) if !is_filled(place) => Ok(()),
        Ok(_) if !place.join(MARK).is_file() => {
            refused("holds something that no export made", "name another folder with --to")
        }
        Ok(_) if !force => {
            refused("holds an export", "replace it with --force, or name another folder with --to")
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn half_an_export_is_never_seen() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("sub/out");
        let staging = Staging::begin(&place, false).unwrap();
        fs::write(staging.path().join("half"), "x").unwrap();
        assert!(!place.exists());
        drop(staging);
        assert!(names(&root.path().join("sub")).is_empty(), "nothing is left");
        let staging = Staging::begin(&place, false).unwrap();
        fs::write(staging.path().join("whole"), "x").unwrap();
        staging.finish(false).unwrap();
        assert_eq!(names(&place), [MARK, "whole"]);
        assert_eq!(names(&root.path().join("sub")), ["out"]);
    }

    #[test]
    fn what_is_there_is_replaced_only_by_force_and_only_if_an_export_made_it() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("out");
        fs::create_dir(&place).unwrap();
        Staging::begin(&place, false).unwrap().finish(false).unwrap();
        let problem = Staging::begin(&place, false).unwrap_err();
        assert!(problem.hint.contains("--force"), "{problem:?}");
        let staging = Staging::begin(&place, true).unwrap();
        fs::write(staging.path().join("new"), "x").unwrap();
        staging.finish(true).unwrap();
        assert_eq!(names(&place), [MARK, "new"]);
        assert_eq!(names(root.path()), ["out"]);
        let mine = root.path().join("mine");
        fs::create_dir(&mine).unwrap();
        fs::write(mine.join("thesis.tex"), "x").unwrap();
        assert!(Staging::begin(&mine, true).is_err());
        assert!(Staging::begin(&mine.join("thesis.tex"), true).is_err());
        assert_eq!(names(&mine), ["thesis.tex"]);
    }
}
