//! Which trials of a sweep a sink has completely, in a file beside the coordinator's data.
//!
//! It is written behind the delivery and never before: a cursor that is old, lost or damaged costs questions and changes
//! nothing. What arrived is decided by what is there.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

/// Largest cursor that is read: a range takes some 20 bytes, and numbers mostly follow each other.
const FILE_BYTES: u64 = 64 << 20;

/// The trials that need no look any more.
pub(super) struct Cursor {
    file: PathBuf,
    identity: String,
    /// First to last of each run of numbers; runs do not touch.
    done: BTreeMap<u32, u32>,
    count: u32,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// The sweep and the sink, so that no other's is believed.
    of: String,
    /// First and last of each run of numbers.
    done: Vec<(u32, u32)>,
}

impl Cursor {
    /// What `file` says of `identity`; nothing where it says nothing.
    pub(super) fn read(file: PathBuf, identity: String) -> Self {
        let mut cursor = Self { file, identity, done: BTreeMap::new(), count: 0, changed: false };
        match stored(&cursor.file) {
            Ok(stored) if stored.of == cursor.identity => {
                let runs = stored.done.into_iter().filter(|(first, last)| first <= last);
                cursor.done = runs.collect();
                let lengths = cursor.done.iter().map(|(first, last)| (last - first).saturating_add(1));
                cursor.count = lengths.fold(0, u32::saturating_add);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("{} is made anew: {error}", cursor.file.display()),
        }
        cursor
    }

    /// Whether that trial is delivered for good.
    pub(super) fn has(&self, number: u32) -> bool {
        self.done.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// The numbers below `until` of which that is not so.
    pub(super) fn gaps(&self, until: u32) -> Vec<Range<u32>> {
        let mut gaps = Vec::new();
        let mut from = 0;
        for (&first, &last) in self.done.range(..until) {
            gaps.push(from..first);
            from = last.saturating_add(1);
        }
        gaps.push(from..until);
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }

    /// How many are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// That trial is delivered for good.
    pub(super) fn add(&mut self, number: u32) {
        if self.has(number) {
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some((&before, _)) =
            self.done.range(..number).next_back().filter(|(_, end)| **end + 1 == number)
        {
            first = before;
        }
        if let Some(after) = self.done.remove(&number.saturating_add(1)) {
            last = after;
        }
        self.done.insert(first, last);
        self.count += 1;
        self.changed = true;
    }

    /// Puts it on disk. Where that fails, the next start asks more than it need.
    pub(super) fn write(&mut self) {
        if !self.changed {
            return;
        }
        let done = self.done.iter().map(|(first, last)| (*first, *last)).collect();
        let stored = Stored { of: self.identity.clone(), done };
        let write = || {
            if let Some(folder) = self.file.parent() {
                fs::create_dir_all(folder)?;
            }
            let beside = self.file.with_extension("new");
            fs::write(&beside, serde_json::to_vec(&stored)?)?;
            fs::rename(&beside, &self.file)
        };
        match write() {
            Ok(()) => self.changed = false,
            Err(error) => tracing::warn!("cannot write {}: {error}", self.file.display()),
        }
    }
}

fn stored(file: &Path) -> io::Result<Stored> {
    if fs::metadata(file)?.len() > FILE_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_back_as_it_was_and_never_for_another_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursors/0-0.json");
        let mut cursor = Cursor::read(file.clone(), "a".to_owned());
        for number in [3, 1, 2, 2, 7, 0, 9, 8, 5] {
            cursor.add(number);
        }
        cursor.write();
        let back = Cursor::read(file.clone(), "a".to_owned());
        assert_eq!(back.done, BTreeMap::from([(0, 3), (5, 5), (7, 9)]));
        assert_eq!(back.count(), 8);
        let has: Vec<u32> = (0..12).filter(|number| back.has(*number)).collect();
        assert_eq!(has, [0, 1, 2, 3, 5, 7, 8, 9]);
        assert_eq!(back.gaps(12), [4..5, 6..7, 10..12]);
        assert_eq!(back.gaps(8), [4..5, 6..7]);
        assert_eq!(Cursor::read(file.clone(), "b".to_owned()).gaps(2).first(), Some(&(0..2)));
        assert_eq!(Cursor::read(file.clone(), "b".to_owned()).count(), 0);
        fs::write(&file, "{\"of\":\"a\",\"done\":[[0").unwrap();
        assert_eq!(Cursor::read(file, "a".to_owned()).count(), 0, "damaged is as if it were not there");
    }
}
