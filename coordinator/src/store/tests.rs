//! Folders that an older program wrote.

use super::*;
use rusqlite::Connection;
use spotsweep_engine::Config;
use spotsweep_proto::digest::Digest;

fn open_again(dir: &std::path::Path) -> Opened {
    let lock = FolderLock::take(dir).unwrap();
    open(dir, &lock, &StoreOptions::default(), Config::default()).unwrap()
}

#[test]
fn a_folder_of_version_1_is_read_and_becomes_one_of_this_version() {
    let dir = tempfile::tempdir().unwrap();
    let digest = open_again(dir.path()).engine.digest();
    let path = dir.path().join(DATABASE_FILE);
    let db = Connection::open(&path).unwrap();
    let (chain, payload): ([u8; 32], Vec<u8>) = db
        .query_row("SELECT chain, payload FROM snapshot", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    // Version 1 of the engine's snapshot: another number in front, and no notices at the end.
    let mut old = 1u32.to_le_bytes().to_vec();
    old.extend(&payload[4..payload.len() - 1]);
    let checksum = chain::of_snapshot(0, Time(0), &Digest(chain), &old);
    db.execute("UPDATE snapshot SET payload = ?, checksum = ?", (&old, checksum.0)).unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    drop(db);

    let (seen, _, _) = open_read_only(dir.path()).unwrap();
    assert_eq!(seen.digest(), digest);
    assert_eq!(open_again(dir.path()).engine.digest(), digest);
    let version = |path| {
        let db = Connection::open(path).unwrap();
        db.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!(version(&path), FORMAT_VERSION);
}
