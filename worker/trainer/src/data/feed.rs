//! The samples of a gang's rank on their way into memory: read from pieces on a thread of its own while training goes on.
//!
//! Reads a shard's pieces once they are said to lie in the data folder, and those of the shards that are wanted alone. From
//! then on a piece that is missing or altered is an error that names it; before, its shard is waited for. It must not
//! decide which shards are wanted: that is the session's.

use super::{
    DataSet,
    pieces::{Pieces, ShardSamples},
};
use crate::error::TrainError;
use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

type Read = Result<Vec<ShardSamples>, TrainError>;

/// Fills a data set in memory.
#[derive(Debug)]
pub struct Feed {
    /// Shards whose pieces lie in the data folder.
    at_hand: BTreeSet<u32>,
    /// A thread reads.
    is_reading: bool,
    sender: Sender<Read>,
    inbox: Receiver<Read>,
}

impl Default for Feed {
    fn default() -> Self {
        let (sender, inbox) = channel();
        Self { at_hand: BTreeSet::new(), is_reading: false, sender, inbox }
    }
}

impl Feed {
    /// The pieces of these shards lie in the data folder.
    pub fn note(&mut self, shards: Range<u32>, data: &DataSet) {
        self.at_hand.extend(shards.start..shards.end.min(data.shards()));
    }

    /// Takes into `data` what was read since, and begins to read what of `wanted` lies in the folder and is not in memory.
    ///
    /// # Errors
    /// [`TrainError::Data`] names the piece that cannot be read.
    pub fn go_on(&mut self, data: &DataSet, wanted: &[Range<u32>]) -> Result<(), TrainError> {
        while let Ok(read) = self.inbox.try_recv() {
            self.take(read, data)?;
        }
        let Some(pieces) = data.pieces().filter(|_| !self.is_reading) else { return Ok(()) };
        let shards = wanted.iter().cloned().flatten();
        let shards: BTreeSet<u32> =
            shards.filter(|shard| self.at_hand.contains(shard) && !data.has(*shard)).collect();
        if shards.is_empty() {
            return Ok(());
        }
        let (pieces, of, sender) = (pieces.clone(), data.shards(), self.sender.clone());
        let read = move || {
            // Nobody listens any more once the job is over.
            let _sent = sender.send(read_all(&pieces, &shards, of));
        };
        let started = thread::Builder::new().name("data".to_owned()).spawn(read);
        started.map_err(|error| TrainError::Torch(format!("cannot start a thread: {error}")))?;
        self.is_reading = true;
        Ok(())
    }

    /// Waits for what is being read, at most for `limit`.
    ///
    /// # Errors
    /// As [`Feed::go_on`].
    pub fn wait(&mut self, data: &DataSet, limit: Duration) -> Result<(), TrainError> {
        match self.inbox.recv_timeout(limit) {
            Ok(read) => self.take(read, data),
            // This end holds a sender, too.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
        }
    }

    fn take(&mut self, read: Read, data: &DataSet) -> Result<(), TrainError> {
        self.is_reading = false;
        for samples in read? {
            data.put(samples)?;
        }
        Ok(())
    }
}

/// Reads on the thread; should it panic, the session hears of it.
fn read_all(pieces: &Pieces, shards: &BTreeSet<u32>, of: u32) -> Read {
    let read = || pieces.read(shards, of);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let source = io::Error::other("the thread that reads data ended without a word");
        Err(TrainError::Storage { path: pieces.folder().to_owned(), source })
    })
}
