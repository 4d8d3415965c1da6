//! Several of NumPy's arrays in one zip file, as `numpy.savez` and `numpy.savez_compressed` write them.
//!
//! A member is unpacked into a temporary file, exactly as far as its header says: what claims little and unpacks to
//! much is refused after one byte too many.

use super::{
    Part, SetError, Source, SourceOptions,
    flat::unpack,
    npy::{Header, ImageArray, finish, labels, same_kind, wrong},
};
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};
use zip::ZipArchive;

/// Most members of a file.
const MEMBERS: usize = 64;
/// What people call the arrays of the training part, as images and labels.
const TRAIN: &[[&str; 2]] = &[
    ["x_train", "y_train"],
    ["train_images", "train_labels"],
    ["X_train", "y_train"],
    ["images", "labels"],
    ["x", "y"],
    ["X", "y"],
    ["data", "labels"],
    ["data", "target"],
    ["arr_0", "arr_1"],
];
/// The same of the test part.
const TEST: &[[&str; 2]] = &[["x_test", "y_test"], ["test_images", "test_labels"], ["X_test", "y_test"]];

type Archive = ZipArchive<BufReader<File>>;

/// Opens the arrays.
pub(super) fn open(path: &Path, options: &SourceOptions) -> Result<Source, SetError> {
    let mut archive = archive(path)?;
    let train = find(&archive, TRAIN).ok_or_else(|| {
        let hint = "name the arrays x_train, y_train, x_test and y_test; or images and labels";
        SetError::source(path, format!("has no arrays of images and labels, but {}", names(&archive)), hint)
    })?;
    let (array, train) = part(path, &mut archive, train, options)?;
    let test = match &options.test {
        Some(other) => {
            let mut archive = self::archive(other)?;
            let names = find(&archive, TEST).or_else(|| find(&archive, TRAIN));
            let names = names.ok_or_else(|| wrong(other, "has no arrays of images and labels"))?;
            Some((other.as_path(), part(other, &mut archive, names, options)?))
        }
        None => match find(&archive, TEST) {
            Some(names) => Some((path, part(path, &mut archive, names, options)?)),
            None => None,
        },
    };
    let test = match test {
        Some((path, (other, part))) => {
            same_kind(path, &array, &other)?;
            Some(part)
        }
        None => None,
    };
    finish(path, options, &array, train, test)
}

fn archive(path: &Path) -> Result<Archive, SetError> {
    let file = File::open(path).map_err(SetError::io("read", path))?;
    let archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| wrong(path, format!("is no whole .npz (zip) file: {error}")))?;
    if archive.len() > MEMBERS {
        return Err(wrong(path, format!("has {} members; {MEMBERS} is the limit", archive.len())));
    }
    Ok(archive)
}

fn names(archive: &Archive) -> String {
    let names: Vec<String> = archive
        .file_names()
        .take(10)
        .filter_map(|name| Some(format!("{:?}", name.ok()?.chars().take(40).collect::<String>())))
        .collect();
    if names.is_empty() { "none at all".to_owned() } else { names.join(", ") }
}

fn find(archive: &Archive, known: &[[&'static str; 2]]) -> Option<[&'static str; 2]> {
    let has = |name: &str| archive.index_for_name(&format!("{name}.npy")).is_some();
    known.iter().copied().find(|pair| pair.iter().all(|name| has(name)))
}

fn part(
    path: &Path,
    archive: &mut Archive,
    names: [&str; 2],
    options: &SourceOptions,
) -> Result<(ImageArray, Part), SetError> {
    let shown = |name: &str| PathBuf::from(format!("{}:{name}", path.display()));
    let [images, label] = names;
    let found = {
        let path = shown(label);
        let mut member = member(&path, archive, label)?;
        let header = Header::read(&path, &mut member)?;
        labels(&path, &header, &mut member)?
    };
    let path = shown(images);
    let mut member = member(&path, archive, images)?;
    let header = Header::read(&path, &mut member)?;
    let array = ImageArray::of(&path, &header, options)?;
    let bytes = header.bytes().ok_or_else(|| wrong(&path, "is larger than any disk"))?;
    let file = unpack(&path, &mut member, bytes)?;
    let part = array.part(file, &path, 0, found)?;
    Ok((array, part))
}

fn member<'a>(
    path: &Path,
    archive: &'a mut Archive,
    name: &str,
) -> Result<zip::read::ZipFile<'a, BufReader<File>>, SetError> {
    archive
        .by_name(&format!("{name}.npy"))
        .map_err(|error| wrong(path, format!("cannot be unpacked: {error}")))
}
