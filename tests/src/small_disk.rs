//! A disk that is small enough to fill: a tmpfs that only this thread and the processes it starts see.
//!
//! It lies in a mount namespace of its own, so that it goes with them, however they end.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The name of what fills it.
const FILLER: &str = "filler";

/// The disk.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Gives the calling thread a namespace of its own for mounts.
    ///
    /// # Errors
    /// The system does not allow it: only root may mount, and not in every container.
    pub fn allow() -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        // So that no other namespace sees what is mounted here.
        Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?)
    }

    /// A disk of `bytes` over the folder `path`, after [`Self::allow`].
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn over(path: &Path, bytes: u64) -> io::Result<Self> {
        let options = format!("size={bytes}");
        mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Leaves not a byte of room.
    ///
    /// # Panics
    /// If the disk does anything else than to be full in the end.
    pub fn fill(&self) {
        let mut filler = File::create(self.path.join(FILLER)).expect("a new file");
        for bytes in [1 << 12, 1] {
            let chunk = vec![0; bytes];
            let error = std::iter::repeat_with(|| filler.write_all(&chunk)).find_map(Result::err);
            let full = error.expect("it is never full").kind() == io::ErrorKind::StorageFull;
            assert!(full, "the disk is full and nothing else");
        }
    }

    /// Makes room again.
    ///
    /// # Panics
    /// If it was not filled.
    pub fn make_room(&self) {
        std::fs::remove_file(self.path.join(FILLER)).expect("it was filled");
    }
}
