//! The promises of the store, on a small data set made for the purpose; nothing is fetched.

use super::*;
use flate2::{Compression, write::GzEncoder};
use spotsweep_proto::{datasets::DataFile, digest::Digest};
use std::io::Write;

const CONTENTS: [(&str, &[u8]); 4] =
    [("train-images", b"one"), ("train-labels", b"two"), ("test-images", b"three"), ("test-labels", b"four")];

fn small() -> &'static DataFiles {
    let files = CONTENTS.map(|(name, contents)| DataFile {
        name,
        size_bytes: contents.len() as u64,
        digest: Digest::of(contents),
    });
    Box::leak(Box::new(DataFiles { name: "small", files, licence: "none" }))
}

/// A folder with the four files; every second one is gzipped.
fn source_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (at, (name, contents)) in CONTENTS.iter().enumerate() {
        if at % 2 == 0 {
            fs::write(folder.path().join(name), contents).unwrap();
        } else {
            let packed = File::create(folder.path().join(format!("{name}.gz"))).unwrap();
            let mut encoder = GzEncoder::new(packed, Compression::default());
            encoder.write_all(contents).unwrap();
            encoder.finish().unwrap();
        }
    }
    folder
}

fn get(store: &DataStore, from: &Path) -> Result<Got, DataError> {
    store.get(small(), Origin::Folder(from), &mut |_| {})
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_plain_or_gzipped_are_placed_unpacked_and_nothing_else_stays() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    let store = DataStore::at(root.path());
    assert_eq!(store.presence(small()), Presence::Absent);
    let got = get(&store, from.path()).unwrap();
    assert_eq!(got, Got::Placed(root.path().join("small")));
    assert_eq!(store.presence(small()), Presence::Here);
    assert_eq!(store.verify(small()).unwrap(), store.locate(small()).unwrap());
    assert_eq!(names(root.path()), [".small.lock", "small"]);
    for (name, contents) in CONTENTS {
        assert_eq!(fs::read(got.folder().join(name)).unwrap(), contents);
    }
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    let store = DataStore::at(root.path());
    get(&store, from.path()).unwrap();
    let again = get(&store, Path::new("/nowhere")).unwrap();
    assert_eq!(again, Got::Already(root.path().join("small")));
}

#[test]
fn altered_files_are_refused_and_leave_nothing() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    fs::write(from.path().join("train-images"), b"oNe").unwrap();
    let error = get(&DataStore::at(root.path()), from.path()).unwrap_err();
    assert!(matches!(error, DataError::Contents { .. }), "{error}");
    assert_eq!(names(root.path()), [".small.lock"]);
}

#[test]
fn a_gzipped_file_that_unpacks_to_too_much_is_cut_off() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    let packed = File::create(from.path().join("train-labels.gz")).unwrap();
    let mut encoder = GzEncoder::new(packed, Compression::default());
    encoder.write_all(&vec![0; 1 << 20]).unwrap();
    encoder.finish().unwrap();
    let error = get(&DataStore::at(root.path()), from.path()).unwrap_err();
    let found = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(found, "train-labels has 4 bytes instead of 3");
}

#[test]
fn a_missing_file_is_named() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    fs::remove_file(from.path().join("test-labels.gz")).unwrap();
    let error = get(&DataStore::at(root.path()), from.path()).unwrap_err();
    assert!(matches!(error, DataError::Missing { file: "test-labels", .. }), "{error}");
}

#[test]
fn a_damaged_data_set_is_seen_and_replaced() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    let store = DataStore::at(root.path());
    let folder = get(&store, from.path()).unwrap().folder().to_owned();
    fs::write(folder.join("test-labels"), b"f").unwrap();
    assert_eq!(store.presence(small()), Presence::Damaged);
    assert!(matches!(store.locate(small()), Err(DataError::Absent { .. })));
    assert!(matches!(store.verify(small()), Err(DataError::Contents { .. })));
    assert!(matches!(get(&store, from.path()).unwrap(), Got::Placed(_)));
    assert_eq!(names(root.path()), [".small.lock", "small"]);
}

#[test]
fn a_failed_get_leaves_a_damaged_data_set_as_it_was() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    let store = DataStore::at(root.path());
    let folder = get(&store, from.path()).unwrap().folder().to_owned();
    fs::write(folder.join("test-labels"), b"fOur").unwrap();
    get(&store, Path::new("/nowhere")).unwrap_err();
    assert_eq!(fs::read(folder.join("test-labels")).unwrap(), b"fOur");
}

#[test]
fn leftovers_of_a_killed_get_do_not_matter() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    let left = root.path().join(".small.partial/placed");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("train-images"), b"half").unwrap();
    get(&DataStore::at(root.path()), from.path()).unwrap();
    assert_eq!(names(root.path()), [".small.lock", "small"]);
}

#[test]
fn two_gets_at_once_do_the_work_once() {
    let (root, from) = (tempfile::tempdir().unwrap(), source_folder());
    let store = DataStore::at(root.path());
    let got: Vec<Got> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..4).map(|_| scope.spawn(|| get(&store, from.path()).unwrap())).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(got.iter().filter(|got| matches!(got, Got::Placed(_))).count(), 1);
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let error = known("fashion").unwrap_err();
    assert_eq!(error.hint(), "known are fashion-mnist and mnist");
}
