use super::*;
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn packed(folder: &Path) -> (Packed, Vec<u8>) {
    let mut archive = Vec::new();
    let packed = pack(folder, &mut archive).unwrap();
    (packed, archive)
}

fn names(folder: &Path) -> Vec<String> {
    contents(folder).unwrap().files.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "train.py", "print()");
    write(from.path(), "lib/deep/a.py", "");
    write(from.path(), ".env", "hidden");
    let long = format!("{}/{}.py", "d".repeat(120), "f".repeat(120));
    write(from.path(), &long, "long");
    fs::set_permissions(from.path().join("train.py"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("../train.py", from.path().join("lib/main.py")).unwrap();
    symlink(from.path().join("lib/deep"), from.path().join("absolute")).unwrap();
    let (packed, archive) = packed(from.path());
    assert_eq!(packed.code.bytes, archive.len() as u64);
    assert_eq!(packed.code.digest, spotsweep_proto::digest::Digest::of(&archive));
    let folder = to.path().join("code");
    unpack(&archive[..], &folder).unwrap();
    assert_eq!(fs::read_to_string(folder.join("lib/main.py")).unwrap(), "print()");
    assert_eq!(fs::read_to_string(folder.join(&long)).unwrap(), "long");
    assert_eq!(fs::read_link(folder.join("absolute")).unwrap(), Path::new("lib/deep"));
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o111;
    assert!(mode("train.py") & 0o100 != 0 && mode(".env") == 0);
}

#[test]
fn an_archive_depends_on_names_contents_and_executable_bits_alone() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["b", "a/x", "a.py"] {
        write(one.path(), name, name);
    }
    for name in ["a.py", "a/x", "b"] {
        write(two.path(), name, name);
    }
    fs::create_dir(two.path().join("empty")).unwrap();
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    fs::File::options().write(true).open(two.path().join("b")).unwrap().set_times(old).unwrap();
    fs::set_permissions(two.path().join("b"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(packed(one.path()), packed(two.path()));
    fs::set_permissions(two.path().join("b"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(packed(one.path()).0.code, packed(two.path()).0.code);
}

#[test]
fn what_gitignore_names_and_what_is_nobodys_code_stays_at_home() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), ".gitignore", "*.pt\n/data/\n!keep.pt\n");
    for name in ["a.pt", "keep.pt", "data/big.bin", "src/data/x.py", "src/__pycache__/x.pyc", ".git/config"] {
        write(home.path(), name, "x");
    }
    write(home.path(), "sweeps/first/spotsweep.db", "x");
    write(home.path(), "sweeps/first/objects/ab/cd", "x");
    assert_eq!(names(home.path()), [".gitignore", "keep.pt", "src/data/x.py"]);
    // The rules of the repository hold in its folders, too.
    write(home.path(), "src/b.pt", "x");
    assert_eq!(names(&home.path().join("src")), ["data/x.py"]);
}

#[test]
fn the_rules_above_a_folder_hold_inside_of_a_repository_only() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), ".gitignore", "*.py\n");
    write(home.path(), "src/a.py", "x");
    assert_eq!(names(&home.path().join("src")), ["a.py"]);
}

#[test]
fn a_link_out_of_the_folder_and_one_to_nowhere_are_refused() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "secret", "x");
    write(home.path(), "src/a.py", "x");
    let src = home.path().join("src");
    for to in ["../secret", "/etc/passwd", "nowhere", ".."] {
        symlink(to, src.join("link")).unwrap();
        let error = contents(&src).unwrap_err();
        assert!(matches!(error, ArchiveError::LinkOutside { .. }), "{to}: {error}");
        fs::remove_file(src.join("link")).unwrap();
    }
}

#[test]
fn an_empty_folder_a_missing_one_and_a_socket_are_told() {
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(contents(home.path()).unwrap_err(), ArchiveError::Empty { .. }));
    assert!(matches!(contents(&home.path().join("no")).unwrap_err(), ArchiveError::Io { .. }));
    let _listener = std::os::unix::net::UnixListener::bind(home.path().join("s")).unwrap();
    assert!(matches!(contents(home.path()).unwrap_err(), ArchiveError::Kind { .. }));
}

#[test]
fn a_folder_that_is_too_large_is_refused_before_it_is_read() {
    let home = tempfile::tempdir().unwrap();
    let file = fs::File::create(home.path().join("sparse")).unwrap();
    file.set_len(spotsweep_proto::program::CODE_BYTES + 1).unwrap();
    assert!(matches!(contents(home.path()).unwrap_err(), ArchiveError::TooLarge { .. }));
}

/// An entry whose header says anything.
fn entry(kind: tar::EntryType, name: &[u8], link: &[u8], size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    let raw = header.as_old_mut();
    raw.name[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    raw.linkname[..link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Everything below a folder, with contents; links are not followed.
fn everything(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                found.insert(path.display().to_string(), fs::read(path).unwrap());
            } else {
                found.insert(path.display().to_string(), b"link".to_vec());
            }
        }
    }
    found
}

/// Unpacks below a folder with something else in it, which must stay as it is, and looks that no link leads there.
fn attack(archive: &[u8]) -> Result<(), ArchiveError> {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "outside/secret", "untouched");
    let folder = home.path().join("inside/code");
    let outcome = unpack(archive, &folder);
    let real = folder.canonicalize().unwrap();
    for path in everything(home.path()).keys() {
        let path = Path::new(path);
        if path.ends_with("outside/secret") {
            continue;
        }
        assert!(path.starts_with(&folder), "{} was written", path.display());
        if let Ok(leads) = path.canonicalize() {
            assert!(leads.starts_with(&real), "{} leads to {}", path.display(), leads.display());
        }
    }
    assert_eq!(fs::read_to_string(home.path().join("outside/secret")).unwrap(), "untouched");
    outcome
}

#[test]
fn nothing_is_written_outside_of_the_folder() {
    use tar::EntryType as T;
    let file = |name: &[u8]| entry(T::Regular, name, b"", 1, b"x");
    for archive in [
        file(b"../x"),
        file(b"/tmp/progspec-x"),
        file(b"a/../../x"),
        entry(T::Symlink, b"l", b"/etc", 0, b""),
        entry(T::Symlink, b"l", b"../outside", 0, b""),
        entry(T::Symlink, b"a/l", b"../../outside", 0, b""),
        entry(T::Symlink, b"a/l", b"b/../../../outside", 0, b""),
        entry(T::Link, b"l", b"/etc/passwd", 0, b""),
        entry(T::Fifo, b"l", b"", 0, b""),
        entry(T::Char, b"l", b"", 0, b""),
        [entry(T::Symlink, b"l", b".", 0, b""), file(b"l/x"), entry(T::Symlink, b"l/y", b"..", 0, b"")]
            .concat(),
        [file(b"a"), file(b"a")].concat(),
        [file(b"a"), file(b"a/b")].concat(),
        file(b""),
        file(b"."),
    ] {
        assert!(attack(&archive).is_err());
    }
    // A link to the folder above the one in which it stands is allowed, and leads nobody out.
    attack(&[file(b"a/x"), entry(T::Symlink, b"a/b/l", b"../..", 0, b"")].concat()).unwrap();
}

#[test]
fn what_claims_much_and_is_cut_off_is_damaged() {
    let cut = entry(tar::EntryType::Regular, b"a", b"", 1 << 40, b"little");
    assert!(matches!(attack(&cut).unwrap_err(), ArchiveError::Damaged(_)));
}

#[test]
fn only_an_empty_folder_is_unpacked_into() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "a", "old");
    let archive = entry(tar::EntryType::Regular, b"a", b"", 1, b"x");
    assert!(matches!(unpack(&archive[..], home.path()).unwrap_err(), ArchiveError::NotEmpty { .. }));
}

fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
    let part =
        prop::sample::select(vec!["a", "b", "l", "..", ".", "", "outside", "secret", "/", "\u{1b}[2J"]);
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.join("/").into_bytes())
}

fn hostile_entry() -> impl Strategy<Value = Vec<u8>> {
    let kind =
        prop::sample::select(vec![b'0', b'0', b'2', b'2', b'1', b'5', b'L', b'K', b'x', b'S', b'6', b'z']);
    (kind, hostile_path(), hostile_path(), 0_u64..2000, prop::collection::vec(any::<u8>(), 0..600)).prop_map(
        |(kind, name, link, size, content)| entry(tar::EntryType::new(kind), &name, &link, size, &content),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_archive_touches_anything_outside(entries in prop::collection::vec(hostile_entry(), 0..6)) {
        let _ = attack(&entries.concat());
    }

    #[test]
    fn bytes_that_are_no_archive_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = attack(&bytes);
    }

    #[test]
    fn whatever_is_packed_comes_back(
        files in prop::collection::btree_map("[a-c]{1,2}(/[d-f]{1,2}){0,3}\\.x", prop::collection::vec(any::<u8>(), 0..2000), 1..8),
    ) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, content) in &files {
            let path = from.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let (packed, archive) = packed(from.path());
        prop_assert_eq!(packed.contents.files.len(), files.len());
        unpack(&archive[..], &to.path().join("c")).unwrap();
        for (name, content) in &files {
            prop_assert_eq!(&fs::read(to.path().join("c").join(name)).unwrap(), content);
        }
    }
}
