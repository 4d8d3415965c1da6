//! Opening the SQLite file: its settings, its tables, and whether it is ours and of a version that we read.

use super::{FORMAT_VERSION, StoreError, StoreOptions, chain};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use spotsweep_engine::{Engine, Time};
use std::path::Path;

/// "Spot" in the header of the file, where `file` and we look.
const APPLICATION_ID: i32 = 0x5370_6f74;
/// How long a connection waits for another's lock, in milliseconds: readers never block the one writer for long.
const BUSY_TIMEOUT_MS: u64 = 2000;
/// Page cache of the writer, in KiB.
const CACHE_KIB: i64 = 8 << 10;
/// What a truncated write-ahead log is cut to, in bytes.
const WAL_KEEP_BYTES: i64 = 32 << 20;

/// Rows of `journal` are the group commits; `checksum` covers the row and `prev`, which is the row's before it.
/// History rows are written once and carry the commit that they come from; `body` ends with a CRC-32. Rows of the sweeps in
/// `discarded`, imports that broke off, are deleted little by little.
const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, events INTEGER NOT NULL,
    prev BLOB NOT NULL, checksum BLOB NOT NULL, payload BLOB NOT NULL);
CREATE TABLE snapshot (
    seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, chain BLOB NOT NULL, checksum BLOB NOT NULL, payload BLOB NOT NULL);
CREATE TABLE metric (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE points (
    sweep INTEGER NOT NULL, number INTEGER NOT NULL, step INTEGER NOT NULL, seq INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (sweep, number, step)) WITHOUT ROWID;
CREATE TABLE attempts (
    sweep INTEGER NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL, ended INTEGER NOT NULL,
    seq INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (sweep, number, epoch, ended)) WITHOUT ROWID;
CREATE TABLE results (
    sweep INTEGER NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (sweep, number)) WITHOUT ROWID;
CREATE TABLE discarded (sweep INTEGER PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
";

/// Tables whose rows carry the commit that they come from.
pub(super) const HISTORY_TABLES: [&str; 4] = ["points", "attempts", "results", "discarded"];

/// Opens the file for the one writer; a new one gets its tables and a snapshot of `fresh`.
pub(super) fn open_writer(
    path: &Path,
    options: &StoreOptions,
    fresh: &Engine,
) -> Result<Connection, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db =
        Connection::open_with_flags(path, flags).map_err(StoreError::sqlite("cannot open the journal"))?;
    let settings = StoreError::sqlite("cannot set up the journal");
    let set = |db: &Connection| -> rusqlite::Result<()> {
        db.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
        // Journal mode first: reading it is also what finds out whether the file is a database at all.
        let mode: String = db.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
        debug_assert_eq!(mode, "wal");
        db.pragma_update(None, "synchronous", "FULL")?;
        // Checkpoints are made by us, between commits, not by whichever commit happens to cross a line.
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        db.pragma_update(None, "journal_size_limit", WAL_KEEP_BYTES)?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        if let Some(pages) = options.max_pages {
            db.pragma_update(None, "max_page_count", pages)?;
        }
        db.set_prepared_statement_cache_capacity(32);
        Ok(())
    };
    set(&db).map_err(settings)?;
    if is_empty(&db)? {
        create(&mut db, fresh).map_err(StoreError::sqlite("cannot create the journal's tables"))?;
    }
    check_format(&db, path)?;
    Ok(db)
}

/// Opens the file to look at it.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)
        .map_err(StoreError::sqlite("cannot open the journal for reading"))?;
    db.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))
        .map_err(StoreError::sqlite("cannot set up the journal"))?;
    check_format(&db, path)?;
    Ok(db)
}

/// A history in memory, beside a file that must not be written.
pub(super) fn open_memory() -> Result<Connection, StoreError> {
    let failed = StoreError::sqlite("cannot make tables in memory");
    Connection::open_in_memory().and_then(|db| db.execute_batch(TABLES).map(|()| db)).map_err(failed)
}

fn is_empty(db: &Connection) -> Result<bool, StoreError> {
    db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
        .map_err(StoreError::sqlite("cannot read the journal"))
}

fn create(db: &mut Connection, fresh: &Engine) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute("INSERT INTO meta VALUES ('history_seq', 0)", [])?;
    // The engine's configuration is part of its state: the journal is replayed under the one it began with.
    let payload = fresh.snapshot();
    let checksum = chain::of_snapshot(0, Time(0), &chain::GENESIS, &payload);
    transaction
        .execute("INSERT INTO snapshot VALUES (0, 0, ?, ?, ?)", (chain::GENESIS.0, checksum.0, &payload))?;
    transaction.commit()
}

/// The version of the file, if we read it.
fn check_format(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let number = |pragma: &str| -> Result<Option<i64>, StoreError> {
        db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
            .optional()
            .map_err(StoreError::sqlite("cannot read the journal"))
    };
    if number("application_id")? != Some(i64::from(APPLICATION_ID)) {
        return Err(StoreError::NotOurs { path: path.to_owned() });
    }
    let found = number("user_version")?.and_then(|v| u32::try_from(v).ok()).unwrap_or(u32::MAX);
    if found > FORMAT_VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, supported: FORMAT_VERSION });
    }
    if found < FORMAT_VERSION {
        return Err(StoreError::Older { path: path.to_owned(), found, supported: FORMAT_VERSION });
    }
    Ok(())
}
