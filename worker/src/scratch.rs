//! The agent's folder for files that matter only while it lives, and the removal of what dead agents left.

use crate::program::kill_below;
use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

const PREFIX: &str = "agent-";
const LOCK: &str = "lock";

/// A folder of one agent's own, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
    /// Held while the agent lives: who can take it may remove the folder.
    _lock: File,
}

impl Scratch {
    /// Makes a folder below `root`, and removes those there whose agents are dead.
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        // One agent at a time, so that none takes a folder that is just being made for a left-over.
        let door = File::create(root.join(LOCK))?;
        door.lock()?;
        remove_leftovers(&root);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&root)?;
        let lock = File::create(folder.path().join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn remove_leftovers(root: &Path) {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for folder in folders.map(|entry| entry.path()) {
        if !is_left_over(&folder) {
            continue;
        }
        // Should its guard have died with it.
        kill_below(&folder);
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "what a dead agent left is not removed");
        }
    }
}

/// Whether the lock can be taken. A folder without a lock is none of ours.
fn is_left_over(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_agents_are_removed_and_those_of_living_ones_are_not() {
        let root = tempfile::tempdir().unwrap();
        let living = Scratch::new(root.path()).unwrap();
        let dead = root.path().join("agent-dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        std::fs::write(dead.join("weights"), "left").unwrap();
        let mine = root.path().join("mine");
        std::fs::create_dir(&mine).unwrap();
        let second = Scratch::new(root.path()).unwrap();
        assert!(living.path().exists() && mine.exists() && !dead.exists());
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }
}
