//! Checkpoint folders of programs as the two files that the object store takes, and back: the `state` is an archive that
//! depends on names and contents alone, the `weights` are the folder's `weights.safetensors`, or empty.
//!
//! The archive is POSIX ustar with GNU long names: entries sorted by name, no times, no owners, modes 644 or 755. A folder
//! from elsewhere is believed nothing: only files and folders, with names that stay inside.

use spotsweep_archive::plain_header;
use spotsweep_proto::{
    checkpoint::SoFar,
    digest::Digest,
    line::{CheckpointFiles, weights_digest},
    metric::Metrics,
};
use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};
use tar::{Archive, Builder, EntryType};

/// The file of a checkpoint folder that people take away.
pub(crate) const WEIGHTS: &str = "weights.safetensors";
/// Most entries of a checkpoint.
const ENTRIES: usize = 100_000;
/// Deepest folder of a checkpoint.
const DEPTH: usize = 32;
/// A larger file of weights has the digest of its bytes instead of that of its tensors, which are read at once.
const TENSORS_BYTES: u64 = 4 << 30;

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("{path:?} cannot be read or written: {source}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0:?} is neither a file nor a folder, nor a link to one inside of the checkpoint")]
    Kind(PathBuf),
    #[error("it has more than {ENTRIES} files, or folders deeper than {DEPTH}")]
    TooLarge,
    #[error("it is no folder below SPOTSWEEP_CHECKPOINTS: {0:?}")]
    Outside(PathBuf),
    #[error("the archive cannot be read: {0}")]
    Archive(#[source] io::Error),
    #[error("the archive holds {0:?}, which would not stay in its folder")]
    Escapes(String),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::File { path, source }
}

/// A packed checkpoint.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) files: CheckpointFiles,
    /// Of the weights where there are any, else of the archive.
    pub(crate) digest: Digest,
}

impl Packed {
    /// Of a program that has told these metrics.
    pub(crate) fn after(mut self, metrics: Metrics) -> Self {
        self.files.so_far = Some(SoFar { metrics, weights_digest: self.digest });
        self
    }
}

/// The folder that a program names, if it lies below `checkpoints`.
pub(crate) fn folder_below(
    checkpoints: &Path,
    work: &Path,
    named: &Path,
) -> Result<PathBuf, CheckpointError> {
    let path = work.join(named);
    let folder = path.canonicalize().map_err(at(&path))?;
    let below = folder.strip_prefix(checkpoints).is_ok_and(|rest| rest.components().count() > 0);
    if below && folder.is_dir() { Ok(folder) } else { Err(CheckpointError::Outside(path)) }
}

/// Packs `folder` into two files beside each other in `into`, and removes it.
pub(crate) fn pack(folder: &Path, into: &Path, number: u64, step: u64) -> Result<Packed, CheckpointError> {
    let state = into.join(format!("packed-{number}.tar"));
    let weights = into.join(format!("packed-{number}.safetensors"));
    let file = File::create_new(&state).map_err(at(&state))?;
    let mut builder = Builder::new(BufWriter::new(file));
    let mut own_weights = false;
    for entry in listed(folder)? {
        let name = entry.strip_prefix(folder).unwrap_or(&entry);
        if name == Path::new(WEIGHTS) {
            own_weights = true;
            continue;
        }
        append(&mut builder, &entry, name).map_err(at(&entry))?;
    }
    builder.into_inner().and_then(|mut file| file.flush()).map_err(at(&state))?;
    let digest = if own_weights {
        fs::rename(folder.join(WEIGHTS), &weights).map_err(at(&weights))?;
        digest_of_weights(&weights).map_err(at(&weights))?
    } else {
        File::create_new(&weights).map_err(at(&weights))?;
        digest_of_file(&state).map_err(at(&state))?
    };
    fs::remove_dir_all(folder).map_err(at(folder))?;
    Ok(Packed { files: CheckpointFiles::new(step, weights, state), digest })
}

/// Everything below `folder`, each folder before what is in it, in order of names.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let (mut found, mut folders) = (Vec::new(), vec![(folder.to_owned(), 0)]);
    while let Some((within, depth)) = folders.pop() {
        for entry in fs::read_dir(&within).map_err(at(&within))? {
            let path = entry.map_err(at(&within))?.path();
            let resolved = path.canonicalize().map_err(at(&path))?;
            let link = fs::symlink_metadata(&path).map_err(at(&path))?.is_symlink();
            // A link to a file inside is packed as that file; one to a folder could go round in circles.
            if !resolved.starts_with(folder) || (link && !resolved.is_file()) {
                return Err(CheckpointError::Kind(path));
            }
            if resolved.is_dir() {
                folders.push((path.clone(), depth + 1));
            } else if !resolved.is_file() {
                return Err(CheckpointError::Kind(path));
            }
            found.push(path);
            if found.len() > ENTRIES || depth >= DEPTH {
                return Err(CheckpointError::TooLarge);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn append(builder: &mut Builder<impl io::Write>, path: &Path, name: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return builder.append_data(&mut plain_header(EntryType::Directory, 0o755, 0), name, io::empty());
    }
    let executable = metadata.permissions().mode() & 0o100 != 0;
    let mode = if executable { 0o755 } else { 0o644 };
    let mut header = plain_header(EntryType::Regular, mode, metadata.len());
    builder.append_data(&mut header, name, File::open(path)?)
}

/// Unpacks the files of a checkpoint into a new folder `to`, as they were saved.
pub(crate) fn unpack(files: &CheckpointFiles, to: &Path) -> Result<(), CheckpointError> {
    fs::create_dir(to).map_err(at(to))?;
    let file = File::open(&files.state).map_err(at(&files.state))?;
    let mut archive = Archive::new(io::BufReader::new(file));
    for (count, entry) in archive.entries().map_err(CheckpointError::Archive)?.enumerate() {
        let mut entry = entry.map_err(CheckpointError::Archive)?;
        if count >= ENTRIES {
            return Err(CheckpointError::TooLarge);
        }
        let name = entry.path().map_err(CheckpointError::Archive)?.into_owned();
        let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || name.as_os_str().is_empty() || name.components().count() > DEPTH {
            return Err(CheckpointError::Escapes(name.display().to_string()));
        }
        let path = to.join(&name);
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path).map_err(at(&path))?,
            EntryType::Regular => {
                // There are no links, so nothing on the way leads elsewhere.
                let mut file = File::create_new(&path).map_err(at(&path))?;
                io::copy(&mut entry, &mut file).map_err(at(&path))?;
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                let mode = if executable { 0o755 } else { 0o644 };
                file.set_permissions(fs::Permissions::from_mode(mode)).map_err(at(&path))?;
            }
            _ => return Err(CheckpointError::Escapes(name.display().to_string())),
        }
    }
    if fs::metadata(&files.weights).map_err(at(&files.weights))?.len() > 0 {
        let path = to.join(WEIGHTS);
        if fs::rename(&files.weights, &path).is_err() {
            fs::copy(&files.weights, &path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// [`weights_digest`] where the file is what its name says, else the digest of its bytes.
fn digest_of_weights(path: &Path) -> io::Result<Digest> {
    if fs::metadata(path)?.len() <= TENSORS_BYTES {
        let content = fs::read(path)?;
        if let Ok(tensors) = safetensors::SafeTensors::deserialize(&content) {
            let tensors = tensors.tensors();
            let named: Vec<_> =
                tensors.iter().map(|(name, view)| (name.as_str(), view.dtype().to_string(), view)).collect();
            return Ok(weights_digest(named.iter().map(|(name, dtype, view)| {
                (*name, dtype.as_str(), view.shape(), Cow::Borrowed(view.data()))
            })));
        }
        tracing::warn!(path = %path.display(), "a checkpoint's weights.safetensors is no such file: its digest is that of its bytes");
    }
    digest_of_file(path)
}

fn digest_of_file(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tar::Header;

    fn saved(root: &Path, name: &str) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir_all(folder.join("deep/er")).unwrap();
        fs::write(folder.join("b"), b"second").unwrap();
        fs::write(folder.join("a"), b"first").unwrap();
        fs::write(folder.join("deep/er/run"), b"#!").unwrap();
        fs::set_permissions(folder.join("deep/er/run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.join("x".repeat(150)), b"long").unwrap();
        folder
    }

    #[test]
    fn a_folder_comes_back_as_it_was_saved_and_equal_ones_give_equal_bytes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let one = pack(&saved(&path, "one"), &path, 1, 5).unwrap();
        let two = saved(&path, "two");
        File::open(two.join("a")).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let two = pack(&two, &path, 2, 5).unwrap();
        assert_eq!(fs::read(&one.files.state).unwrap(), fs::read(&two.files.state).unwrap());
        assert_eq!(one.digest, two.digest);
        assert_eq!(fs::metadata(&one.files.weights).unwrap().len(), 0);
        assert!(!path.join("one").exists());
        unpack(&one.files, &path.join("back")).unwrap();
        assert_eq!(fs::read(path.join("back/a")).unwrap(), b"first");
        assert_eq!(fs::read(path.join("back").join("x".repeat(150))).unwrap(), b"long");
        let mode = fs::metadata(path.join("back/deep/er/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(pack(&path.join("back"), &path, 3, 5).unwrap().digest, one.digest);
    }

    #[test]
    fn weights_are_a_part_of_their_own_and_come_back() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let folder = path.join("c");
        fs::create_dir(&folder).unwrap();
        let data: Vec<u8> = [1_f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &data).unwrap();
        let content = safetensors::serialize([("w", view)], None).unwrap();
        fs::write(folder.join(WEIGHTS), &content).unwrap();
        let packed = pack(&folder, &path, 1, 5).unwrap();
        assert_eq!(packed.digest, weights_digest([("w", "F32", &[2][..], Cow::Borrowed(&data[..]))]));
        assert_eq!(fs::read(&packed.files.weights).unwrap(), content);
        unpack(&packed.files, &path.join("back")).unwrap();
        assert_eq!(fs::read(path.join("back").join(WEIGHTS)).unwrap(), content);
    }

    #[test]
    fn nothing_leaves_its_folder_in_either_direction() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let folder = path.join("checkpoints/c");
        fs::create_dir_all(&folder).unwrap();
        symlink("/etc/passwd", folder.join("link")).unwrap();
        assert!(matches!(pack(&folder, &path, 1, 5), Err(CheckpointError::Kind(_))));
        let checkpoints = path.join("checkpoints");
        for named in ["/etc", "..", ".", "c/../..", "c/link", "absent"] {
            assert!(folder_below(&checkpoints, &checkpoints, Path::new(named)).is_err(), "{named}");
        }
        assert_eq!(folder_below(&checkpoints, &checkpoints, Path::new("c")).unwrap(), folder);

        let hostile = |name: &str, kind: EntryType, number: u32| {
            let mut builder = Builder::new(Vec::new());
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_gnu_mut().unwrap().linkname[..4].copy_from_slice(b"/etc");
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
            let (state, weights) = (path.join("s"), path.join("w"));
            fs::write(&state, builder.into_inner().unwrap()).unwrap();
            fs::write(&weights, b"").unwrap();
            unpack(&CheckpointFiles::new(1, weights, state), &path.join(format!("to-{number}")))
        };
        let cases = [
            ("../x", EntryType::Regular),
            ("/tmp/x", EntryType::Regular),
            ("a/../../x", EntryType::Regular),
            ("x", EntryType::Symlink),
            ("x", EntryType::Link),
            ("x", EntryType::Fifo),
        ];
        for (number, (name, kind)) in (0..).zip(cases) {
            let refused = hostile(name, kind, number);
            assert!(matches!(refused, Err(CheckpointError::Escapes(_))), "{name}: {refused:?}");
        }
        assert!(!path.join("x").exists());
    }
}
