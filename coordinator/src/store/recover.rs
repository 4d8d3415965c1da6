//! Opening a folder: verify, cut a torn tail, refuse a damaged middle, replay.

use super::{
    Commit, CommitHistory, DATABASE_FILE, FolderLock, History, StoreError, StoreOptions, chain,
    decode_events, schema,
    sqlite::{Last, SqliteJournal},
    wal,
};
use rusqlite::{Connection, OptionalExtension as _};
use spotsweep_engine::{Action, Config, Engine, Time};
use spotsweep_proto::digest::Digest;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What opening a folder found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The folder is new.
    pub fresh: bool,
    /// Commit of the snapshot that the engine started from.
    pub snapshot_seq: u64,
    /// Commits replayed on top of it.
    pub replayed_commits: u64,
    /// Events in them.
    pub replayed_events: u64,
    /// What was cut off at the end, if anything.
    pub cut: Vec<CutTail>,
}

/// A damaged end that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The file.
    pub path: PathBuf,
    /// Where the damage begins.
    pub place: String,
    /// What was wrong there.
    pub what: String,
}

impl fmt::Display for CutTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, place, what } = self;
        write!(
            f,
            "the end of {} was damaged and is cut at the last whole commit: {place}: {what}",
            path.display()
        )
    }
}

/// A folder that is open for its coordinator.
pub struct Opened {
    /// Where commits go from now on.
    pub journal: SqliteJournal,
    /// The engine as of the last commit.
    pub engine: Engine,
    /// The last commit.
    pub last_seq: u64,
    /// Time of the last event.
    pub last_at: Time,
    /// History of commits that had not been written yet, in order.
    pub unwritten: Vec<CommitHistory>,
    /// Journal that a restart would have to replay, in bytes.
    pub journal_bytes: u64,
    /// For people.
    pub report: OpenReport,
}

/// Opens `dir` for the coordinator that holds `_lock`, making it if it is not there.
///
/// # Errors
/// [`StoreError`]: damage that is not at the end, another program's file, a newer format, the disk.
pub fn open(
    dir: &Path,
    _lock: &FolderLock,
    options: &StoreOptions,
    config: Config,
) -> Result<Opened, StoreError> {
    let path = dir.join(DATABASE_FILE);
    let mut report = OpenReport { fresh: !path.exists(), ..OpenReport::default() };
    report.cut.extend(wal::check(&path)?);
    let db = schema::open_writer(&path, options, &Engine::new(config))?;
    let replayed = replay(&db, &path, &mut report)?;
    if let Some(first_bad) = replayed.first_bad {
        cut(&db, first_bad).map_err(StoreError::sqlite("cannot cut the damaged end off the journal"))?;
    }
    for cut in &report.cut {
        tracing::warn!("{cut}");
    }
    let Replayed { engine, last, unwritten, bytes, .. } = replayed;
    let journal = SqliteJournal::new(db, options.clone(), last, report.snapshot_seq)?;
    Ok(Opened {
        journal,
        engine,
        last_seq: last.seq,
        last_at: last.at,
        unwritten,
        journal_bytes: bytes,
        report,
    })
}

/// The engine and the history of a folder on which no coordinator runs. Changes nothing.
///
/// # Errors
/// [`StoreError`], as [`open`]; [`StoreError::InUse`] if a coordinator runs on it, saying where;
/// [`StoreError::NoFolder`] if there is none.
pub fn open_read_only(dir: &Path) -> Result<(Engine, History, OpenReport), StoreError> {
    let path = dir.join(DATABASE_FILE);
    if !path.exists() {
        return Err(StoreError::NoFolder { dir: dir.to_owned() });
    }
    if let Some(live) = FolderLock::holder(dir) {
        return Err(StoreError::InUse { dir: dir.to_owned(), holder: live.holder, url: live.url });
    }
    let mut report = OpenReport::default();
    report.cut.extend(wal::check(&path)?);
    let db = schema::open_reader(&path)?;
    let replayed = replay(&db, &path, &mut report)?;
    let overlay = schema::open_memory()?;
    let mut ids = super::history::MetricIds::default();
    for history in &replayed.unwritten {
        super::history::write(&overlay, &mut ids, history)?;
    }
    Ok((replayed.engine, History::with_overlay(&path, overlay), report))
}

struct Replayed {
    engine: Engine,
    last: Last,
    unwritten: Vec<CommitHistory>,
    bytes: u64,
    first_bad: Option<u64>,
}

fn replay(db: &Connection, path: &Path, report: &mut OpenReport) -> Result<Replayed, StoreError> {
    let (engine, last) = load_snapshot(db, path)?;
    report.snapshot_seq = last.seq;
    let mut history_seq = history_seq(db)?;
    let mut replayed = Replayed { engine, last, unwritten: Vec::new(), bytes: 0, first_bad: None };
    let mut actions = Vec::new();
    loop {
        let wanted = replayed.last.seq + 1;
        let row = match read_row(db, wanted) {
            Ok(Some(row)) => row.check(&replayed.last),
            Ok(None) => match next_row(db, wanted) {
                Ok(None) => break,
                Ok(Some(_)) => Err("it is missing".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        let row = match row {
            Ok(row) => row,
            Err(what) => {
                let place = place(db, path, wanted);
                if let Some(good) = whole_row_after(db, wanted) {
                    let what = format!("{what}, and commit {good} behind it is whole");
                    return Err(StoreError::Damaged { path: path.to_owned(), place, what });
                }
                report.cut.push(CutTail { path: path.to_owned(), place, what });
                replayed.first_bad = Some(wanted);
                break;
            }
        };
        let events = decode_events(&row.commit.payload).map_err(|error| StoreError::Damaged {
            path: path.to_owned(),
            place: format!("commit {wanted}"),
            what: format!("it is whole, but holds events that this program does not know ({error})"),
        })?;
        report.replayed_commits += 1;
        report.replayed_events += events.len() as u64;
        for (at, event) in events {
            replayed.engine.step(at, event, &mut actions);
        }
        // What was to be done was done before the restart, or will be asked for again; only the history counts.
        let records: Vec<_> = actions
            .drain(..)
            .filter_map(|action| match action {
                Action::Record(record) | Action::Archive(record) => Some(record),
                _ => None,
            })
            .collect();
        if wanted > history_seq {
            replayed.unwritten.push(CommitHistory { seq: wanted, records: Arc::new(records) });
        }
        replayed.bytes += row.commit.payload.len() as u64;
        replayed.last = Last { seq: wanted, at: row.commit.at, checksum: row.checksum };
    }
    if history_seq > replayed.last.seq {
        // The history knows of commits that the journal has lost: somebody cut the file.
        if replayed.first_bad.is_none() {
            report.cut.push(CutTail {
                path: path.to_owned(),
                place: format!("commit {}", replayed.last.seq + 1),
                what: format!("it and all up to {history_seq} are missing"),
            });
            replayed.first_bad = Some(replayed.last.seq + 1);
        }
        history_seq = replayed.last.seq;
        tracing::debug!(history_seq, "history is taken back");
    }
    Ok(replayed)
}

fn load_snapshot(db: &Connection, path: &Path) -> Result<(Engine, Last), StoreError> {
    let bad = |what: &str| StoreError::Damaged {
        path: path.to_owned(),
        place: "the snapshot".to_owned(),
        what: what.to_owned(),
    };
    let row = db
        .query_row(
            "SELECT seq, at, chain, checksum, payload FROM snapshot ORDER BY seq DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .optional()
        .map_err(StoreError::sqlite("cannot read the snapshot"))?;
    let (seq, at, chain, checksum, payload): (u64, u64, [u8; 32], [u8; 32], Vec<u8>) =
        row.ok_or_else(|| bad("it is missing"))?;
    let last = Last { seq, at: Time(at), checksum: Digest(chain) };
    if chain::of_snapshot(seq, last.at, &last.checksum, &payload).0 != checksum {
        return Err(bad("its checksum does not agree with its content"));
    }
    Ok((Engine::restore(&payload).map_err(StoreError::Snapshot)?, last))
}

fn history_seq(db: &Connection) -> Result<u64, StoreError> {
    db.query_row("SELECT value FROM meta WHERE key = 'history_seq'", [], |row| row.get(0))
        .map_err(StoreError::sqlite("cannot read how far the history goes"))
}

/// A row as it stands in the file.
struct StoredRow {
    commit: Commit,
    prev: Digest,
    checksum: Digest,
}

impl StoredRow {
    /// Whether it agrees with its own checksum.
    fn is_whole(&self) -> bool {
        chain::of_commit(&self.prev, &self.commit) == self.checksum
    }

    fn check(self, last: &Last) -> Result<Self, String> {
        if !self.is_whole() {
            return Err("its checksum does not agree with its content".to_owned());
        }
        if self.prev != last.checksum {
            return Err(format!("it does not follow commit {}", last.seq));
        }
        Ok(self)
    }
}

fn read_row(db: &Connection, seq: u64) -> rusqlite::Result<Option<StoredRow>> {
    db.prepare_cached("SELECT at, events, prev, checksum, payload FROM journal WHERE seq = ?")?
        .query_row([seq], |row| {
            let commit = Commit { seq, at: Time(row.get(0)?), events: row.get(1)?, payload: row.get(4)? };
            Ok(StoredRow { commit, prev: Digest(row.get(2)?), checksum: Digest(row.get(3)?) })
        })
        .optional()
}

fn next_row(db: &Connection, from: u64) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT seq FROM journal WHERE seq >= ? ORDER BY seq LIMIT 1")?
        .query_row([from], |row| row.get(0))
        .optional()
}

/// The first row behind `bad` that is whole. Rows that cannot even be read are stepped over, from the end too: a
/// broken page may hide the way to good rows from one side.
fn whole_row_after(db: &Connection, bad: u64) -> Option<u64> {
    let last: Option<u64> = db.query_row("SELECT max(seq) FROM journal", [], |row| row.get(0)).ok().flatten();
    let last = last?;
    let whole = |seq: &u64| matches!(read_row(db, *seq), Ok(Some(row)) if row.is_whole());
    (bad + 1..=last).find(whole)
}

/// Names a row, and the byte of the file at which its payload lies where that can be found.
fn place(db: &Connection, path: &Path, seq: u64) -> String {
    let mut place = format!("table journal, commit {seq}");
    if let Ok(Some(row)) = read_row(db, seq)
        && let Some(byte) = find(path, &row.prev.0)
    {
        place += &format!(", byte {byte}");
    }
    place
}

/// Where `needle` first lies in the file.
fn find(path: &Path, needle: &[u8]) -> Option<usize> {
    /// Largest file that is searched, in bytes: this is for a message only.
    const SEARCH_BYTES: u64 = 1 << 30;
    if std::fs::metadata(path).ok()?.len() > SEARCH_BYTES {
        return None;
    }
    let content = std::fs::read(path).ok()?;
    content.windows(needle.len()).position(|window| window == needle)
}

/// Deletes the commits from `first_bad` on and all history that came of them.
fn cut(db: &Connection, first_bad: u64) -> rusqlite::Result<()> {
    let transaction = db.unchecked_transaction()?;
    transaction.execute("DELETE FROM journal WHERE seq >= ?", [first_bad])?;
    for table in schema::HISTORY_TABLES {
        transaction.execute(&format!("DELETE FROM {table} WHERE seq >= ?"), [first_bad])?;
    }
    transaction
        .execute("UPDATE meta SET value = min(value, ?) WHERE key = 'history_seq'", [first_bad - 1])?;
    transaction.commit()
}
