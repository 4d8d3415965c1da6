//! Who writes: one keeper of all files, with a limit on their bytes together. The oldest of attempts that have ended go first.

use super::{
    LogChunk,
    file::{About, State},
    place::{self, Place},
};
use spotsweep_proto::ids::SweepName;
use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::PathBuf,
    time::SystemTime,
};

/// A file takes no less than this of a disk.
const BLOCK: u64 = 4096;
/// Failures that are told as they come; after that only every so many.
const TOLD: u64 = 1000;

#[derive(Debug)]
struct Entry {
    /// As soon as it has been written to.
    state: Option<State>,
    weight: u64,
    key: (bool, u64),
}

/// Writes logs.
#[derive(Debug)]
pub(super) struct Keeper {
    root: PathBuf,
    limit: u64,
    files: HashMap<Place, Entry>,
    /// Files by who goes first: those of attempts that have ended, and the one that was written longest ago.
    order: BTreeMap<(bool, u64), Place>,
    weight: u64,
    clock: u64,
    failures: u64,
}

impl Keeper {
    /// Of the folder at `root`, with files of at most `limit` bytes together.
    pub(super) fn open(root: PathBuf, limit: u64) -> Self {
        let mut keeper = Self {
            root,
            limit,
            files: HashMap::new(),
            order: BTreeMap::new(),
            weight: 0,
            clock: 0,
            failures: 0,
        };
        let places = place::all(&keeper.root).unwrap_or_else(|error| {
            keeper.failed("the folder of logs cannot be read", &error);
            Vec::new()
        });
        let known = places.into_iter().filter_map(|place| {
            let about = fs::metadata(place.path(&keeper.root)).ok()?;
            Some((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), about.len(), place))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_by_key(|(at, ..)| *at);
        for (_, bytes, place) in known {
            // One that is written to again is alive again.
            keeper.note(&place, None, bytes, false);
        }
        keeper.make_room();
        keeper
    }

    /// Writes a chunk of a sweep of that name.
    pub(super) fn write(&mut self, sweep: &SweepName, chunk: &LogChunk) {
        let LogChunk { author, .. } = chunk;
        let place = Place { sweep: sweep.clone(), number: author.number, stream: author.stream() };
        if let Err(error) = self.try_write(&place, chunk) {
            self.failed("what an attempt printed cannot be kept", &error);
        }
    }

    fn try_write(&mut self, place: &Place, chunk: &LogChunk) -> io::Result<()> {
        let path = place.path(&self.root);
        let known = self.files.get(place).and_then(|entry| entry.state);
        let mut state = match known {
            Some(state) => state,
            None => State::of(&path)?,
        };
        if let Some(folder) = path.parent().filter(|_| state.bytes == 0) {
            fs::create_dir_all(folder)?;
        }
        let about = About { worker: chunk.author.worker.to_string() };
        let written = state.append(&path, &about, chunk.offset, &chunk.text, chunk.last);
        if written.is_ok() {
            self.note(place, Some(state), state.bytes, !state.ended);
            self.make_room();
        } else {
            // Read anew before it is written again.
            self.note(place, None, state.bytes, !state.ended);
        }
        written
    }

    fn note(&mut self, place: &Place, state: Option<State>, bytes: u64, alive: bool) {
        self.clock += 1;
        let entry = Entry { state, weight: bytes.next_multiple_of(BLOCK), key: (alive, self.clock) };
        self.weight += entry.weight;
        self.order.insert(entry.key, place.clone());
        if let Some(before) = self.files.insert(place.clone(), entry) {
            self.weight -= before.weight;
            self.order.remove(&before.key);
        }
    }

    fn make_room(&mut self) {
        // The one that was just written stays.
        let newest = self.clock;
        while self.weight > self.limit
            && let Some(key) = self.order.keys().find(|key| key.1 != newest).copied()
            && let Some(place) = self.order.remove(&key)
        {
            if let Some(entry) = self.files.remove(&place) {
                self.weight -= entry.weight;
            }
            let path = place.path(&self.root);
            if let Err(error) = fs::remove_file(&path) {
                self.failed("an old log cannot be removed", &error);
            }
            // They stay while anything else is in them.
            let folders = path.ancestors().skip(1).take(2);
            let _stays = folders.map(fs::remove_dir).take_while(Result::is_ok).count();
        }
    }

    fn failed(&mut self, what: &str, error: &io::Error) {
        if self.failures.is_multiple_of(TOLD) {
            tracing::warn!(folder = %self.root.display(), %error, failures = self.failures, "{what}");
        }
        self.failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Author;
    use spotsweep_engine::SweepId;
    use spotsweep_proto::ids::{Epoch, Incarnation, WorkerName};
    use std::time::Duration;

    fn chunk(number: u32, offset: u64, bytes: usize, last: bool) -> LogChunk {
        let author = Author {
            sweep: SweepId(0),
            number,
            attempt: 1,
            epoch: Epoch(1),
            who: Incarnation(1),
            worker: WorkerName::new("w").unwrap(),
        };
        LogChunk { author, offset, text: vec![b'x'; bytes].into(), last }
    }

    fn kept(keeper: &Keeper) -> Vec<u32> {
        let mut numbers: Vec<u32> =
            place::all(&keeper.root).unwrap().iter().map(|place| place.number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn the_oldest_logs_of_attempts_that_have_ended_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let sweep = SweepName::new("s").unwrap();
        let mut keeper = Keeper::open(folder.path().to_owned(), 5 * BLOCK);
        keeper.write(&sweep, &chunk(0, 0, 10, false));
        for number in 1..8 {
            keeper.write(&sweep, &chunk(number, 0, 10, true));
        }
        assert_eq!(kept(&keeper), [0, 4, 5, 6, 7], "0 is alive");
        assert!(!folder.path().join("s/1").exists());

        // After a restart they are known by their age, and whoever goes on is alive.
        for (age, place) in place::all(folder.path()).unwrap().into_iter().map(|place| (place.number, place))
        {
            let file = fs::File::options().append(true).open(place.path(folder.path())).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age.into())).unwrap();
        }
        let mut keeper = Keeper::open(folder.path().to_owned(), 3 * BLOCK);
        assert_eq!(kept(&keeper), [5, 6, 7]);
        keeper.write(&sweep, &chunk(6, 10, 10, false));
        keeper.write(&sweep, &chunk(8, 0, 10, true));
        keeper.write(&sweep, &chunk(9, 0, 3 * 4096, true));
        assert_eq!(kept(&keeper), [9], "the newest stays even alone");
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_the_log_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("logs");
        fs::write(&root, "a file").unwrap();
        let mut keeper = Keeper::open(root.clone(), 1 << 20);
        let sweep = SweepName::new("s").unwrap();
        keeper.write(&sweep, &chunk(0, 0, 10, false));
        assert_eq!(keeper.failures, 1);
        fs::remove_file(&root).unwrap();
        keeper.write(&sweep, &chunk(0, 10, 10, false));
        assert_eq!((kept(&keeper), keeper.failures), (vec![0], 1));
    }
}
