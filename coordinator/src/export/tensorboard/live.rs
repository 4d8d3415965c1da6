//! An event file that grows while its trial runs, and goes on after a crash.
//!
//! The file is its own cursor: opened again, it is read, cut behind its last whole record, and says which point is its last.
//! A point is one record, and points come in order of steps; so none is there twice and none is missing.

use super::{
    Run, SESSION_END,
    messages::{DT_DOUBLE, Event, event::What},
};
use crate::{
    error::Problem,
    export::{failed, final_name},
};
use prost::Message as _;
use spotsweep_proto::event_file::{self, FRAME_BYTES, HEAD_BYTES, data_bytes};
use spotsweep_wire::v1::{Point, Trial};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Longest record that is believed: the largest that is written is a point of 1024 metrics.
const RECORD_BYTES: u64 = 16 << 20;

/// A trial's file.
pub(crate) struct Live {
    run: Run,
    found: Found,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Default)]
struct Found {
    /// Bytes of its whole records.
    whole_bytes: u64,
    records: u64,
    last_step: Option<u64>,
    last_us: u64,
    tags: Vec<String>,
    has_finals: bool,
    has_end: bool,
}

impl Live {
    /// Opens the file at `path`, or begins it.
    ///
    /// # Errors
    /// If it cannot be read or written, or is a symbolic link.
    pub(crate) fn open(path: &Path, trial: &Trial, begun_us: u64) -> Result<Self, Problem> {
        let wrong = |error: io::Error| failed("write", path, &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(nix::libc::O_NOFOLLOW);
        let mut file = options.open(path).map_err(wrong)?;
        let mut found = read(&mut BufReader::new(&file)).map_err(wrong)?;
        // Version and start of the session: a file without both holds nothing yet.
        if found.records < 2 {
            found = Found::default();
        }
        file.set_len(found.whole_bytes).and_then(|()| file.seek(SeekFrom::End(0))).map_err(wrong)?;
        let mut run = Run::new(path.to_owned(), file, trial.clone(), begun_us);
        run.told.extend(found.tags.drain(..));
        run.last_us = run.last_us.max(found.last_us);
        if found.records == 0 {
            run.begin(begun_us)?;
        }
        Ok(Self { run, found })
    }

    /// The first step that may be missing.
    pub(crate) fn next_step(&self) -> u64 {
        self.found.last_step.map_or(0, |step| step + 1)
    }

    /// Appends points; those that are there already are passed over.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn points(&mut self, points: &[Point]) -> Result<u64, Problem> {
        let mut new = 0;
        for point in points.iter().filter(|point| point.step >= self.next_step()).collect::<Vec<_>>() {
            self.run.point(point)?;
            self.found.last_step = Some(point.step);
            new += 1;
        }
        Ok(new)
    }

    /// Hands what is written to the system; with `ended`, completes the file and makes it durable.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn close(mut self, ended: bool) -> Result<(), Problem> {
        if ended && !self.found.has_end {
            if !self.found.has_finals {
                self.run.finals()?;
            }
            self.run.end()?;
        }
        self.run.flush()?;
        if ended {
            let file: &File = self.run.file.get_ref();
            file.sync_all().map_err(|error| failed("write", &self.run.path, &error))?;
        }
        Ok(())
    }
}

/// The whole records from the beginning on.
fn read(file: &mut impl Read) -> io::Result<Found> {
    let mut found = Found::default();
    while let Some(data) = record(file)? {
        let Ok(event) = Event::decode(data.as_slice()) else { break };
        found.whole_bytes += (data.len() + FRAME_BYTES) as u64;
        found.records += 1;
        let Some(What::Summary(summary)) = event.what else { continue };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "written from microseconds"
        )]
        let at_us = (event.wall_time * 1e6).round() as u64;
        found.last_us = found.last_us.max(at_us);
        for value in summary.values {
            if value.tag == SESSION_END {
                found.has_end = true;
            } else if value.tensor.is_some_and(|tensor| tensor.dtype == DT_DOUBLE) {
                if value.tag.starts_with(&final_name("")) {
                    found.has_finals = true;
                } else {
                    found.last_step = found.last_step.max(u64::try_from(event.step).ok());
                }
                if value.metadata.is_some() {
                    found.tags.push(value.tag);
                }
            }
        }
    }
    Ok(found)
}

/// The data of the next record; `None` at the end, and where it is cut or damaged.
fn record(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD_BYTES];
    let mut data = Vec::new();
    let mut sum = [0; 4];
    let filled = |file: &mut dyn Read, bytes: &mut [u8]| match file.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    };
    if !filled(file, &mut head)? {
        return Ok(None);
    }
    let Some(bytes) = data_bytes(&head).filter(|bytes| *bytes <= RECORD_BYTES) else { return Ok(None) };
    file.take(bytes).read_to_end(&mut data)?;
    let whole = data.len() as u64 == bytes && filled(file, &mut sum)?;
    Ok((whole && event_file::sum(&data) == sum).then_some(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;

    /// A file of a trial, written as far as `points` and, with `ended`, to its end.
    fn write(path: &Path, trial: &Trial, points: &[Point], ended: bool) {
        let mut live = Live::open(path, trial, 1_795_500_000_000_000).unwrap();
        live.points(points).unwrap();
        live.close(ended).unwrap();
    }

    #[test]
    fn a_file_cut_anywhere_goes_on_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let trial = Trial {
            steps: 4,
            metrics: testing::points(0)[0].metrics.clone(),
            ..testing::trials()[0].clone()
        };
        let points = testing::points(0);
        let whole = folder.path().join("whole");
        write(&whole, &trial, &points, true);
        let expected = std::fs::read(&whole).unwrap();
        for cut in 0..=expected.len() {
            let path = folder.path().join("cut");
            // What a crash may leave behind its last whole record.
            let garbage: &[u8] = if cut % 2 == 0 { &[] } else { &[0; 20] };
            std::fs::write(&path, [&expected[..cut], garbage].concat()).unwrap();
            write(&path, &trial, &points[..2], false);
            write(&path, &trial, &points, true);
            assert_eq!(std::fs::read(&path).unwrap(), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (link, mine) = (folder.path().join("link"), folder.path().join("mine"));
        std::fs::write(&mine, "x").unwrap();
        std::os::unix::fs::symlink(&mine, &link).unwrap();
        assert!(Live::open(&link, &testing::trials()[0], 0).is_err());
        assert_eq!(std::fs::read(&mine).unwrap(), b"x");
    }
}
