//! From an archive to a folder. The archive may come from anybody: whatever is in it, nothing outside of the folder is
//! touched, and no more is written than may travel.

use crate::{ArchiveError, PATH_BYTES, io};
use spotsweep_proto::program::{CODE_BYTES, CODE_FILES};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self as std_io, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};
use tar::EntryType;

/// Unpacks `archive` into `folder`, which is made if it is not there and else must be empty. Files are made anew, never
/// written over, and links are made last, so that nothing is ever written through one. On an error some files may
/// be there: the caller removes the folder.
///
/// # Errors
/// When the archive is damaged, holds what may not travel, or the system does not let it.
pub fn unpack(archive: impl Read, folder: &Path) -> Result<(), ArchiveError> {
    fs::create_dir_all(folder).map_err(io("make", folder))?;
    if fs::read_dir(folder).map_err(io("read", folder))?.next().is_some() {
        return Err(ArchiveError::NotEmpty { folder: folder.to_owned() });
    }
    let mut bounded = Bounded { archive, left: CODE_BYTES };
    let mut tar = tar::Archive::new(&mut bounded);
    let (mut links, mut seen) = (Vec::new(), BTreeSet::new());
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = inside(&entry.path().map_err(damaged)?)?;
        if seen.len() >= CODE_FILES {
            return Err(ArchiveError::TooManyFiles { most: CODE_FILES });
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            // Of a folder, more than one entry does no harm.
            seen.insert(name.clone());
            let path = folder.join(&name);
            fs::create_dir_all(&path).map_err(io("make", &path))?;
            continue;
        }
        if !seen.insert(name.clone()) {
            return Err(ArchiveError::Twice { path: name });
        }
        match kind {
            EntryType::Regular => file(&mut entry, &folder.join(&name))?,
            EntryType::Symlink => {
                let to = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
                if !stays_inside(&name, &to) {
                    return Err(ArchiveError::LinkOutside { path: name });
                }
                links.push((name, to));
            }
            _ => return Err(ArchiveError::Kind { path: name }),
        }
    }
    for (name, to) in links {
        let path = folder.join(&name);
        parents(&path, folder)?;
        std::os::unix::fs::symlink(&to, &path).map_err(io("make", &path))?;
    }
    Ok(())
}

fn damaged(source: std_io::Error) -> ArchiveError {
    match source.kind() {
        std_io::ErrorKind::FileTooLarge => ArchiveError::TooLarge { most: CODE_BYTES },
        _ => ArchiveError::Damaged(source),
    }
}

fn file<R: Read>(entry: &mut tar::Entry<'_, R>, path: &Path) -> Result<(), ArchiveError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io("make", parent))?;
    }
    let mode = entry.header().mode().map_err(damaged)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(if mode & 0o111 != 0 { 0o755 } else { 0o644 });
    let mut file = options.open(path).map_err(io("write", path))?;
    let bytes = entry.size();
    let written = std_io::copy(entry, &mut file).map_err(|error| match error.kind() {
        std_io::ErrorKind::UnexpectedEof | std_io::ErrorKind::FileTooLarge => damaged(error),
        _ => io("write", path)(error),
    })?;
    if written == bytes { Ok(()) } else { Err(damaged(std_io::ErrorKind::UnexpectedEof.into())) }
}

/// Makes the folders in which a link is to stand, none of which may be a link that was made before.
fn parents(path: &Path, folder: &Path) -> Result<(), ArchiveError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(io("make", parent))?;
    let linked = |above: &&Path| fs::symlink_metadata(above).is_ok_and(|data| data.is_symlink());
    match parent.ancestors().take_while(|above| *above != folder).find(linked) {
        Some(link) => Err(ArchiveError::LinkOutside { path: link.to_owned() }),
        None => Ok(()),
    }
}

/// A path that is relative and goes down only.
fn inside(path: &Path) -> Result<PathBuf, ArchiveError> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(ArchiveError::Path { path: path.to_owned() });
            }
        }
    }
    let fits = clean.to_str().is_some_and(|text| !text.is_empty() && text.len() <= PATH_BYTES);
    if fits { Ok(clean) } else { Err(ArchiveError::Path { path: path.to_owned() }) }
}

/// Whether a link leads into the folder: up at first only, and no further than to the folder itself. Behind a name, `..`
/// would have to be counted from wherever that name leads.
fn stays_inside(name: &Path, to: &Path) -> bool {
    let depth = name.components().count().saturating_sub(1);
    let text = to.to_str().is_some_and(|text| !text.is_empty() && text.len() <= PATH_BYTES);
    let ups = to.components().take_while(|part| *part == Component::ParentDir).count();
    let rest = to.components().skip(ups);
    text && ups <= depth
        && rest.into_iter().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Ends with an error where more comes than may travel.
struct Bounded<R> {
    archive: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> std_io::Result<usize> {
        let read = self.archive.read(into)?;
        self.left = self.left.checked_sub(read as u64).ok_or(std_io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}
