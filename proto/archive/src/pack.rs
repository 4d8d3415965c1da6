//! From a folder to an archive.

use crate::{ArchiveError, COORDINATORS_FILE, LEFT_OUT, PATH_BYTES, io};
use ignore::WalkBuilder;
use spotsweep_proto::{
    digest::Digest,
    program::{CODE_BYTES, CODE_FILES, Code},
};
use std::{
    fs::{self, File},
    io::{self as std_io, Read as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

/// Most files and folders that are looked at: folders do not travel, but take time.
const LOOKED_AT: usize = 20 * CODE_FILES;

/// What would travel, in order of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Paths inside of the folder, with lengths in bytes.
    pub files: Vec<(String, u64)>,
}

impl Contents {
    /// Bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// A folder, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The archive's digest and length.
    pub code: Code,
    /// What is in it.
    pub contents: Contents,
}

struct Item {
    name: String,
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    File { bytes: u64, executable: bool },
    Link { to: PathBuf },
}

/// What of `folder` would travel: all files, hidden ones too, that no `.gitignore` names; see [`LEFT_OUT`].
///
/// # Errors
/// When the folder cannot be read, or holds what cannot travel.
pub fn contents(folder: &Path) -> Result<Contents, ArchiveError> {
    items(folder).map(|items| summary(&items))
}

/// Packs `folder` into `into`.
///
/// # Errors
/// As [`contents`]; when a limit is passed, or a file changes meanwhile.
pub fn pack(folder: &Path, into: impl Write) -> Result<Packed, ArchiveError> {
    let items = items(folder)?;
    let contents = summary(&items);
    let mut tar = tar::Builder::new(Counted { into, hasher: blake3::Hasher::new(), bytes: 0 });
    let failed = |path: &Path, source: std_io::Error| match source.kind() {
        std_io::ErrorKind::FileTooLarge => ArchiveError::TooLarge { most: CODE_BYTES },
        _ => io("pack", path)(source),
    };
    for item in &items {
        match &item.kind {
            Kind::File { bytes, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let mut header = plain_header(tar::EntryType::Regular, mode, *bytes);
                let file = File::open(&item.path).map_err(io("read", &item.path))?;
                let mut exactly = Exactly { file: file.take(*bytes), left: *bytes };
                tar.append_data(&mut header, &item.name, &mut exactly)
                    .map_err(|error| failed(&item.path, error))?;
                let longer = exactly.file.into_inner().read(&mut [0]).map_err(io("read", &item.path))? > 0;
                if exactly.left > 0 || longer {
                    return Err(ArchiveError::Changed { path: item.path.clone() });
                }
            }
            Kind::Link { to } => {
                let mut header = plain_header(tar::EntryType::Symlink, 0o777, 0);
                tar.append_link(&mut header, &item.name, to).map_err(|error| failed(&item.path, error))?;
            }
        }
    }
    let mut counted = tar.into_inner().map_err(|error| failed(folder, error))?;
    counted.flush().map_err(|error| failed(folder, error))?;
    let digest = Digest(*counted.hasher.finalize().as_bytes());
    Ok(Packed { code: Code { digest, bytes: counted.bytes }, contents })
}

/// The header of an entry that says nothing of when, where and by whom it was made: times and owners are zero, as they differ
/// from machine to machine.
#[must_use]
pub fn plain_header(kind: tar::EntryType, mode: u32, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header
}

fn summary(items: &[Item]) -> Contents {
    let bytes = |item: &Item| match item.kind {
        Kind::File { bytes, .. } => bytes,
        Kind::Link { .. } => 0,
    };
    Contents { files: items.iter().map(|item| (item.name.clone(), bytes(item))).collect() }
}

fn items(folder: &Path) -> Result<Vec<Item>, ArchiveError> {
    let root = folder.canonicalize().map_err(io("read", folder))?;
    let walk = |source| ArchiveError::Walk { folder: folder.to_owned(), source };
    // Inside of a repository its rules hold, also those of the folders above; elsewhere those of the folder alone.
    let in_repository = root.ancestors().any(|above| above.join(".git").exists());
    let walker = WalkBuilder::new(&root)
        .hidden(false)
        .ignore(false)
        .git_ignore(true)
        .git_exclude(false)
        .git_global(false)
        .require_git(false)
        .parents(in_repository)
        .follow_links(false)
        .filter_entry(|entry| {
            let folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            let left_out = LEFT_OUT.iter().any(|name| entry.file_name() == *name);
            entry.depth() == 0 || !(left_out || (folder && entry.path().join(COORDINATORS_FILE).is_file()))
        })
        .build();
    let (mut items, mut bytes) = (Vec::new(), 0_u64);
    for (index, entry) in walker.enumerate() {
        if index > LOOKED_AT || items.len() > CODE_FILES {
            return Err(ArchiveError::TooManyFiles { most: CODE_FILES });
        }
        let entry = entry.map_err(walk)?;
        if let Some(error) = entry.error() {
            return Err(walk(error.clone()));
        }
        let path = entry.path();
        let data = fs::symlink_metadata(path).map_err(io("read", path))?;
        if data.is_dir() {
            continue;
        }
        let kind = if data.is_symlink() {
            Kind::Link { to: target(path, &root)? }
        } else if data.is_file() {
            bytes = bytes.saturating_add(data.len());
            Kind::File { bytes: data.len(), executable: data.permissions().mode() & 0o111 != 0 }
        } else {
            return Err(ArchiveError::Kind { path: path.to_owned() });
        };
        if bytes > CODE_BYTES {
            return Err(ArchiveError::TooLarge { most: CODE_BYTES });
        }
        let inside = path.strip_prefix(&root).ok().and_then(Path::to_str);
        let name = inside.filter(|name| !name.is_empty() && name.len() <= PATH_BYTES);
        let name = name.ok_or_else(|| ArchiveError::Path { path: path.to_owned() })?.to_owned();
        items.push(Item { name, path: path.to_owned(), kind });
    }
    if items.len() > CODE_FILES {
        return Err(ArchiveError::TooManyFiles { most: CODE_FILES });
    }
    if items.is_empty() {
        return Err(ArchiveError::Empty { folder: folder.to_owned() });
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

/// Where a link leads, from where it stands: up as often as needed, then down, and never out of `root`.
fn target(link: &Path, root: &Path) -> Result<PathBuf, ArchiveError> {
    let outside = || ArchiveError::LinkOutside { path: link.to_owned() };
    let real = link.canonicalize().map_err(|_| outside())?;
    let inside = real.strip_prefix(root).map_err(|_| outside())?;
    let parent = link.parent().and_then(|parent| parent.strip_prefix(root).ok()).ok_or_else(outside)?;
    let shared = parent.components().zip(inside.components()).take_while(|(a, b)| a == b).count();
    let mut to: PathBuf = parent.components().skip(shared).map(|_| Component::ParentDir).collect();
    to.extend(inside.components().skip(shared));
    if to.as_os_str().is_empty() {
        to.push(".");
    }
    match to.to_str() {
        Some(text) if text.len() <= PATH_BYTES => Ok(to),
        _ => Err(ArchiveError::Path { path: link.to_owned() }),
    }
}

/// Counts and hashes what goes by, up to the limit.
struct Counted<W> {
    into: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, piece: &[u8]) -> std_io::Result<usize> {
        let written = self.into.write(piece)?;
        self.bytes += written as u64;
        if self.bytes > CODE_BYTES {
            return Err(std_io::ErrorKind::FileTooLarge.into());
        }
        self.hasher.update(piece.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std_io::Result<()> {
        self.into.flush()
    }
}

/// A file of which it was said how long it is, and how much of that is still to come.
struct Exactly {
    file: std_io::Take<File>,
    left: u64,
}

impl std_io::Read for Exactly {
    fn read(&mut self, into: &mut [u8]) -> std_io::Result<usize> {
        let read = self.file.read(into)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
