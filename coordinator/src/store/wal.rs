//! A look at SQLite's write-ahead log before SQLite opens it.
//!
//! SQLite takes a log up to its first bad frame and silently forgets the rest. At the end that is right: a commit
//! that was not whole was never answered. In the middle it would lose commits that were. So the frames are checked
//! here first, by the file format that SQLite documents (<https://www.sqlite.org/fileformat2.html#walformat>).

use super::{CutTail, StoreError};
use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const MAGIC_LITTLE: u32 = 0x377f_0682;
const MAGIC_BIG: u32 = 0x377f_0683;

/// Checks the log beside the database at `path`.
///
/// Gives the torn end, if there is one.
///
/// # Errors
/// [`StoreError::Damaged`] if whole commits follow a bad frame; [`StoreError::File`] if it cannot be read.
pub(super) fn check(path: &Path) -> Result<Option<CutTail>, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let path = PathBuf::from(name);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::File { what: "cannot open", path, source }),
    };
    let mut log = Vec::new();
    file.read_to_end(&mut log).map_err(StoreError::file("cannot read", &path))?;
    let Some(scan) = scan(&log) else { return Ok(None) };
    let place = format!("byte {}", scan.bad_at);
    let what = "a frame's checksum does not agree with its content".to_owned();
    if scan.commits_behind > 0 {
        let what = format!("{what}, and {} commits behind it are whole", scan.commits_behind);
        return Err(StoreError::Damaged { path, place, what });
    }
    Ok(Some(CutTail { path, place, what }))
}

/// What is wrong with a log.
#[derive(Debug, PartialEq, Eq)]
struct Scan {
    bad_at: usize,
    /// Whole commits behind the one that the bad frame is part of.
    commits_behind: usize,
}

/// `None` if nothing is: every frame of the log's present round is whole.
fn scan(log: &[u8]) -> Option<Scan> {
    let header = log.get(..HEADER_BYTES)?;
    let big = match word(header, 0) {
        MAGIC_BIG => true,
        MAGIC_LITTLE => false,
        // SQLite takes no frame of a log with such a header. An empty or zeroed one holds none.
        _ if log.iter().all(|byte| *byte == 0) => return None,
        _ => return Some(Scan { bad_at: 0, commits_behind: usize::from(log.len() > HEADER_BYTES) }),
    };
    let seed = checksum((0, 0), &header[..24], big);
    if seed != (word(header, 24), word(header, 28)) {
        return Some(Scan { bad_at: 24, commits_behind: usize::from(log.len() > HEADER_BYTES) });
    }
    let page = word(header, 8) as usize;
    let salts = &header[16..24];
    let mut running = seed;
    let mut bad_at = None;
    let mut behind_its_commit = false;
    let mut commits_behind = 0;
    for at in (HEADER_BYTES..log.len()).step_by(FRAME_HEADER_BYTES + page) {
        let Some(frame) = log.get(at..at + FRAME_HEADER_BYTES + page) else {
            // Cut short in the middle of a frame. Its salts say whether it is of this round.
            let torn = log.get(at + 8..at + 16).is_some_and(|found| found == salts);
            bad_at = bad_at.or(torn.then_some(at));
            break;
        };
        let sum = checksum(checksum(running, &frame[..8], big), &frame[FRAME_HEADER_BYTES..], big);
        let stored = (word(frame, 16), word(frame, 20));
        let of_this_round = frame[8..16] == *salts;
        let whole = of_this_round && sum == stored;
        // Behind the present round lie frames of an earlier one, with other salts.
        if bad_at.is_none() && !of_this_round && !later_of_round(log, at, page, salts) {
            return None;
        }
        if bad_at.is_none() && !whole {
            bad_at = Some(at);
        }
        if bad_at.is_some() {
            // A machine that loses power may have written the last commit's frames in any order, so the bad
            // frame's own commit may look whole from some frame on. Only those after it were surely answered.
            let ends_a_commit = word(frame, 4) != 0;
            commits_behind += usize::from(behind_its_commit && whole && ends_a_commit);
            behind_its_commit |= ends_a_commit;
        }
        // A frame's checksum goes on from the one before, as stored: so frames behind a bad one can be judged.
        running = stored;
    }
    bad_at.map(|bad_at| Scan { bad_at, commits_behind })
}

/// Whether any frame behind the one at `at` carries the round's salts.
fn later_of_round(log: &[u8], at: usize, page: usize, salts: &[u8]) -> bool {
    let step = FRAME_HEADER_BYTES + page;
    (at + step..log.len())
        .step_by(step)
        .any(|at| log.get(at + 8..at + 16).is_some_and(|found| found == salts))
}

/// The four bytes at `at`, which lie within `bytes`.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_be_bytes(*word))
}

/// SQLite's checksum of the log: two running sums over pairs of words.
fn checksum(seed: (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let read = |chunk: &[u8]| {
        let word = *chunk.first_chunk().unwrap_or(&[0; 4]);
        if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    };
    bytes.chunks_exact(8).fold(seed, |(s0, s1), pair| {
        let s0 = s0.wrapping_add(read(&pair[..4])).wrapping_add(s1);
        let s1 = s1.wrapping_add(read(&pair[4..])).wrapping_add(s0);
        (s0, s1)
    })
}
