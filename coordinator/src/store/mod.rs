//! The coordinator's folder: the journal of events, the snapshot of the engine, and the history that people look at.
//!
//! One SQLite file, `spotsweep.db`, in WAL mode with `synchronous=FULL`. Owns durability, checksums, recovery and
//! compaction. It must not decide anything: it keeps what it is given and gives it back.
//!
//! The journal is behind the [`Journal`] trait, so that another database can hold it.

mod chain;
mod error;
mod history;
mod lock;
mod read;
mod recover;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;
mod wal;

pub use error::StoreError;
pub use lock::{FolderLock, LiveCoordinator};
pub use read::{AttemptRow, History, PointRow, ResultRow};
pub use recover::{CutTail, OpenReport, Opened, open, open_read_only};
pub use sqlite::SqliteJournal;

use spotsweep_engine::{Event, Time, action::Record};
use std::sync::Arc;

/// Name of the database in the coordinator's folder.
pub const DATABASE_FILE: &str = "spotsweep.db";
/// Folder of the objects (checkpoints) in the coordinator's folder.
pub const OBJECTS_FOLDER: &str = "objects";

/// Version of the tables and of what is in them. A folder of another one is refused; none was ever released.
pub const FORMAT_VERSION: u32 = 5;

/// How the store behaves. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Journal rows written since the last snapshot after which the next one is taken.
    pub snapshot_every_bytes: u64,
    /// Write-ahead log written since its last checkpoint after which the next one is made.
    pub checkpoint_every_bytes: u64,
    /// Most pages of the database; `None` for no limit. Tests fill the "disk" with it.
    pub max_pages: Option<u32>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { snapshot_every_bytes: 64 << 20, checkpoint_every_bytes: 8 << 20, max_pages: None }
    }
}

/// One group commit: the events that become durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its number; they follow each other without a gap, from 1.
    pub seq: u64,
    /// Time of its last event.
    pub at: Time,
    /// How many events.
    pub events: u32,
    /// The events, each as written by [`encode_event`], one after the other.
    pub payload: Vec<u8>,
}

/// What the history gains by one commit.
#[derive(Debug, Clone)]
pub struct CommitHistory {
    /// The commit.
    pub seq: u64,
    /// Records in order.
    pub records: Arc<Vec<Record>>,
}

/// Where commits, snapshots and history go. One thread owns it.
///
/// `stage_*` calls prepare work that becomes durable with the next [`Journal::append`] or [`Journal::flush`],
/// all or nothing. After an error of any call nothing that was staged since the last success is kept: the caller
/// stages it again.
pub trait Journal: Send + 'static {
    /// Prepares history rows.
    ///
    /// # Errors
    /// [`StoreError`]; see [`StoreError::is_temporary`].
    fn stage_history(&mut self, history: &CommitHistory) -> Result<(), StoreError>;

    /// Prepares a snapshot of the engine as it was after commit `seq`, whose history is staged or durable. Journal
    /// rows up to there are not needed any more.
    ///
    /// # Errors
    /// [`StoreError`].
    fn stage_snapshot(&mut self, seq: u64, snapshot: &[u8]) -> Result<(), StoreError>;

    /// Makes the commit and everything staged durable.
    ///
    /// # Errors
    /// [`StoreError`]; the commit is not there then.
    fn append(&mut self, commit: &Commit) -> Result<(), StoreError>;

    /// Makes everything staged durable.
    ///
    /// # Errors
    /// [`StoreError`].
    fn flush(&mut self) -> Result<(), StoreError>;

    /// A piece of housekeeping, between commits. Cheap when there is nothing to do.
    ///
    /// # Errors
    /// [`StoreError`].
    fn tidy(&mut self) -> Result<(), StoreError>;

    /// Makes everything staged durable and closes the files.
    ///
    /// # Errors
    /// [`StoreError`].
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Appends an event to the payload of a commit.
#[expect(clippy::expect_used, reason = "writing to memory does not fail, and every event serialises")]
pub fn encode_event(at: Time, event: &Event, payload: &mut Vec<u8>) {
    let taken = std::mem::take(payload);
    *payload = postcard::to_extend(&(at, event), taken).expect("an event serialises");
}

/// Reads the events of a commit's payload.
///
/// # Errors
/// If the bytes are no events of this version.
pub fn decode_events(mut payload: &[u8]) -> Result<Vec<(Time, Event)>, postcard::Error> {
    let mut events = Vec::new();
    while !payload.is_empty() {
        let (event, rest) = postcard::take_from_bytes(payload)?;
        events.push(event);
        payload = rest;
    }
    Ok(events)
}
