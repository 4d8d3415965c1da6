//! Where a stream of output lies: `SWEEP/TRIAL/ATTEMPT-EPOCH-INCARNATION.log` in the folder of logs. An attempt has one stream for
//! each process that worked on it under each lease: the ranks of a gang have one each, and so has a lease that ended before it
//! became an attempt and left its number to the next.

use spotsweep_proto::ids::{Epoch, Incarnation, SweepName};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What files of logs end with.
const EXTENSION: &str = "log";

/// One process under one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stream {
    /// Which attempt the lease is, from 1.
    pub(super) attempt: u32,
    /// The lease.
    pub(super) epoch: Epoch,
    /// The process.
    pub(super) who: Incarnation,
}

impl Stream {
    fn file_name(self) -> String {
        format!("{}-{}-{:032x}.{EXTENSION}", self.attempt, self.epoch.0, self.who.0)
    }

    fn of_file(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split('-');
        let (attempt, epoch, who) = (parts.next()?, parts.next()?, parts.next()?);
        let stream = Self {
            attempt: attempt.parse().ok()?,
            epoch: Epoch(epoch.parse().ok()?),
            who: Incarnation(u128::from_str_radix(who, 16).ok()?),
        };
        (stream.file_name() == name).then_some(stream)
    }
}

/// A stream of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) sweep: SweepName,
    pub(super) number: u32,
    pub(super) stream: Stream,
}

impl Place {
    pub(super) fn path(&self, root: &Path) -> PathBuf {
        folder(root, &self.sweep, self.number).join(self.stream.file_name())
    }
}

fn folder(root: &Path, sweep: &SweepName, number: u32) -> PathBuf {
    root.join(sweep.as_str()).join(number.to_string())
}

/// The streams of a trial, in order of attempts and leases. What is there besides is passed over.
pub(super) fn streams(root: &Path, sweep: &SweepName, number: u32) -> io::Result<Vec<Stream>> {
    let mut streams: Vec<Stream> =
        names(&folder(root, sweep, number))?.iter().filter_map(|name| Stream::of_file(name)).collect();
    streams.sort_unstable();
    Ok(streams)
}

/// Everything that is there. What was left half written is removed.
pub(super) fn all(root: &Path) -> io::Result<Vec<Place>> {
    let mut found = Vec::new();
    for sweep in names(root)? {
        let Ok(sweep) = SweepName::new(&sweep) else { continue };
        for number in names(&root.join(sweep.as_str()))? {
            let Ok(number) = number.parse::<u32>() else { continue };
            let folder = folder(root, &sweep, number);
            for name in names(&folder)? {
                if let Some(stream) = Stream::of_file(&name) {
                    found.push(Place { sweep: sweep.clone(), number, stream });
                } else if name.ends_with(".new") {
                    fs::remove_file(folder.join(name))?;
                }
            }
        }
    }
    Ok(found)
}

/// Names in a folder; none if it is not there, or is none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let name =
        |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok()).transpose();
    entries.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_written_here_are_streams() {
        let stream = Stream { attempt: 2, epoch: Epoch(7), who: Incarnation(0xab) };
        assert_eq!(stream.file_name(), "2-7-000000000000000000000000000000ab.log");
        assert_eq!(Stream::of_file(&stream.file_name()), Some(stream));
        for name in [
            "2-7-ab.log",
            "02-7-000000000000000000000000000000ab.log",
            "2.log",
            "x",
            "",
            ".log",
            "2-7-000000000000000000000000000000ab.new",
        ] {
            assert_eq!(Stream::of_file(name), None, "{name}");
        }
    }
}
