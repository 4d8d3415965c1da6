//! One stream of output as a file: records that follow each other, each with a checksum, so that a crash or a damaged disk costs
//! no more than what comes behind. What was printed is numbered by bytes; the file keeps the beginning and the end of it.
//!
//! It must not know of folders, nor of how many files there may be.

use serde::{Deserialize, Serialize};
use spotsweep_proto::limits::{LOG_HEAD_BYTES, LOG_TAIL_BYTES};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

/// Bytes of text in a file above which the middle is left out: twice the end, so that this is seldom.
const FULL: u64 = (LOG_HEAD_BYTES + 2 * LOG_TAIL_BYTES) as u64;
/// Largest file that is read: far above what is written.
const FILE_BYTES: u64 = 16 << 20;
/// Kind, number of the first byte, length, CRC-32 of all else.
const HEADER: usize = 1 + 8 + 4 + 4;

/// Whose stream it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The worker, as people call it.
    pub(super) worker: String,
}

/// A record's content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Record<'a> {
    About(&'a [u8]),
    Text { offset: u64, text: &'a [u8] },
    End { offset: u64 },
}

fn write(out: &mut Vec<u8>, record: &Record<'_>) {
    let (kind, offset, body): (u8, u64, &[u8]) = match record {
        Record::About(json) => (b'A', 0, json),
        Record::Text { offset, text } => (b'T', *offset, text),
        Record::End { offset } => (b'E', *offset, b""),
    };
    let start = out.len();
    out.push(kind);
    out.extend_from_slice(&offset.to_le_bytes());
    // Chunks have a limit far below.
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&out[start..]);
    crc.update(body);
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(body);
}

/// What stands in a file.
#[derive(Debug, Default)]
struct Scan<'a> {
    records: Vec<Record<'a>>,
    /// Bytes of the records that are whole.
    whole: usize,
    /// What comes behind them is not the beginning of another one.
    damaged: bool,
}

fn scan(mut bytes: &[u8]) -> Scan<'_> {
    let mut scan = Scan::default();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let [kind, o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let offset = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some(body) = rest.get(..length) else { break };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..HEADER - 4]);
        crc.update(body);
        let good = crc.finalize() == u32::from_le_bytes([c0, c1, c2, c3])
            && offset.checked_add(length as u64).is_some();
        let record = match kind {
            b'A' if good => Record::About(body),
            b'T' if good => Record::Text { offset, text: body },
            b'E' if good => Record::End { offset },
            _ => {
                scan.damaged = true;
                break;
            }
        };
        scan.records.push(record);
        scan.whole += HEADER + length;
        bytes = &rest[length..];
    }
    scan
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far larger than any log"));
    }
    fs::read(path)
}

/// What whoever writes a file knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    /// Number of the byte that comes next.
    next: u64,
    /// Bytes of text in the file.
    text: u64,
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// Nothing more comes.
    pub(super) ended: bool,
}

impl State {
    /// Of the file at `path`, from which a torn end is cut off; a new one if there is none, or none that can be used.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let bytes = match content(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                fs::remove_file(path)?;
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let scan = scan(&bytes);
        if scan.whole < bytes.len() {
            OpenOptions::new().write(true).open(path)?.set_len(scan.whole as u64)?;
        }
        let mut state = Self { bytes: scan.whole as u64, ..Self::default() };
        for record in scan.records {
            match record {
                Record::About(_) => {}
                Record::Text { offset, text } => {
                    state.next = state.next.max(offset + text.len() as u64);
                    state.text += text.len() as u64;
                }
                Record::End { offset } => {
                    state.next = state.next.max(offset);
                    state.ended = true;
                }
            }
        }
        Ok(state)
    }

    /// Adds what was printed from byte `offset` on, as far as it is new; `last`: nothing more comes.
    pub(super) fn append(
        &mut self,
        path: &Path,
        about: &About,
        offset: u64,
        text: &[u8],
        last: bool,
    ) -> io::Result<()> {
        let known = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (offset, text) = (offset.max(self.next), text.get(known..).unwrap_or_default());
        let end = last && !self.ended;
        if text.is_empty() && !end {
            return Ok(());
        }
        let mut records = Vec::with_capacity(text.len() + 256);
        if self.bytes == 0 {
            write(&mut records, &Record::About(&serde_json::to_vec(about)?));
        }
        if !text.is_empty() {
            write(&mut records, &Record::Text { offset, text });
        }
        let next = offset + text.len() as u64;
        if end {
            write(&mut records, &Record::End { offset: next });
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if let Err(error) = file.write_all(&records) {
            // So that what comes later is not behind half a record.
            file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += records.len() as u64;
        self.text += text.len() as u64;
        (self.next, self.ended) = (next, self.ended || end);
        if self.text > FULL { self.leave_out_the_middle(path) } else { Ok(()) }
    }

    /// Writes the file anew, with the beginning and the end of what it holds.
    fn leave_out_the_middle(&mut self, path: &Path) -> io::Result<()> {
        let bytes = content(path)?;
        let scan = scan(&bytes);
        let texts: Vec<(u64, &[u8])> = scan
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Text { offset, text } => Some((*offset, *text)),
                Record::About(_) | Record::End { .. } => None,
            })
            .collect();
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let mut room = LOG_TAIL_BYTES;
        for (offset, text) in texts.into_iter().rev() {
            let first = usize::try_from((LOG_HEAD_BYTES as u64).saturating_sub(offset)).unwrap_or(usize::MAX);
            let (before, behind) = text.split_at(first.min(text.len()));
            let kept = &behind[behind.len().saturating_sub(room)..];
            room -= kept.len();
            if !kept.is_empty() {
                tail.push((offset + (text.len() - kept.len()) as u64, kept));
            }
            if !before.is_empty() {
                head.push((offset, before));
            }
        }
        let mut records = Vec::with_capacity(LOG_HEAD_BYTES + LOG_TAIL_BYTES + 1024);
        for record in &scan.records {
            if let Record::About(json) = record {
                write(&mut records, &Record::About(json));
            }
        }
        self.text = 0;
        // One record for what hangs together.
        let mut open: Option<(u64, Vec<u8>)> = None;
        for (offset, text) in head.into_iter().rev().chain(tail.into_iter().rev()) {
            self.text += text.len() as u64;
            match &mut open {
                Some((first, joined)) if *first + joined.len() as u64 == offset => {
                    joined.extend_from_slice(text)
                }
                _ => {
                    if let Some((offset, text)) = open.replace((offset, text.to_vec())) {
                        write(&mut records, &Record::Text { offset, text: &text });
                    }
                }
            }
        }
        if let Some((offset, text)) = open {
            write(&mut records, &Record::Text { offset, text: &text });
        }
        if self.ended {
            write(&mut records, &Record::End { offset: self.next });
        }
        let new = path.with_extension("new");
        fs::write(&new, &records)?;
        fs::rename(&new, path)?;
        self.bytes = records.len() as u64;
        Ok(())
    }
}

/// What a reader finds in a file behind what it has read before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Whose it is.
    pub(super) about: About,
    /// Pieces of text, each with the number of bytes that are left out before it.
    pub(super) pieces: Vec<(u64, Vec<u8>)>,
    /// Number of the byte that comes next.
    pub(super) next: u64,
    /// Nothing more comes.
    pub(super) ended: bool,
    /// What comes behind is damaged.
    pub(super) damaged: bool,
}

/// Reads what comes from byte `from` on.
pub(super) fn read(path: &Path, from: u64) -> io::Result<Found> {
    let bytes = content(path)?;
    let scan = scan(&bytes);
    let mut found = Found { next: from, damaged: scan.damaged, ..Found::default() };
    for record in scan.records {
        match record {
            Record::About(json) => found.about = serde_json::from_slice(json).unwrap_or_default(),
            Record::Text { offset, text } => {
                let known = usize::try_from(found.next.saturating_sub(offset)).unwrap_or(usize::MAX);
                if let Some(text) = text.get(known..).filter(|text| !text.is_empty()) {
                    let first = offset.max(found.next);
                    found.pieces.push((first - found.next, text.to_vec()));
                    found.next = first + text.len() as u64;
                }
            }
            Record::End { offset } => {
                let left_out = offset.saturating_sub(found.next);
                if left_out > 0 {
                    found.pieces.push((left_out, Vec::new()));
                    found.next = offset;
                }
                found.ended = true;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;
    use tempfile::TempDir;

    fn printed(from: u64, bytes: usize) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
        (from..from + bytes as u64).map(|number| (number ^ (number >> 8) ^ (number >> 16)) as u8).collect()
    }

    fn file() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        (folder, path)
    }

    fn about() -> About {
        About { worker: "w".to_owned() }
    }

    /// All that is in a file, with what is left out as dots.
    fn whole(path: &Path) -> Vec<u8> {
        let found = read(path, 0).unwrap();
        let piece = |(left_out, text): &(u64, Vec<u8>)| {
            [if *left_out > 0 { &b"..."[..] } else { b"" }, text].concat()
        };
        found.pieces.iter().flat_map(piece).collect()
    }

    #[test]
    fn chunks_that_come_twice_or_overlap_stand_there_once() {
        let (_folder, path) = file();
        let mut state = State::of(&path).unwrap();
        let chunks: [(u64, &[u8]); 6] =
            [(0, b"abc"), (0, b"abc"), (2, b"cde"), (1, b"b"), (9, b"j"), (5, b"late")];
        for (offset, text) in chunks {
            state.append(&path, &about(), offset, text, false).unwrap();
        }
        assert_eq!(whole(&path), b"abcde...j");
        assert_eq!(State::of(&path).unwrap(), state, "the file says all that is known of it");
        state.append(&path, &about(), 10, b"", true).unwrap();
        let found = read(&path, 3).unwrap();
        assert_eq!(found.pieces, [(0, b"de".to_vec()), (4, b"j".to_vec())]);
        assert_eq!((found.next, found.ended, found.about), (10, true, about()));
    }

    #[test]
    fn a_file_keeps_the_beginning_and_the_end_within_its_limit() {
        let (_folder, path) = file();
        let mut state = State::default();
        let many = 4 << 20;
        for at in (0..many).step_by(30_000) {
            state.append(&path, &about(), at, &printed(at, 30_000), false).unwrap();
            assert!(fs::metadata(&path).unwrap().len() < FULL + 40_000);
        }
        let found = read(&path, 0).unwrap();
        assert_eq!(found.pieces[0].1[..LOG_HEAD_BYTES], printed(0, LOG_HEAD_BYTES));
        let gap = found.pieces.iter().rposition(|(left_out, _)| *left_out > 0).unwrap();
        let end: Vec<u8> = found.pieces[gap..].iter().flat_map(|(_, text)| text.clone()).collect();
        assert!(end.len() >= LOG_TAIL_BYTES, "{}", end.len());
        assert_eq!(end, printed(found.next - end.len() as u64, end.len()));
        assert_eq!(State::of(&path).unwrap(), state);
    }

    #[test]
    fn a_torn_end_is_cut_and_the_log_goes_on() {
        let (_folder, path) = file();
        let mut state = State::default();
        state.append(&path, &about(), 0, b"one\n", false).unwrap();
        state.append(&path, &about(), 4, b"two\n", false).unwrap();
        let bytes = fs::read(&path).unwrap();
        for torn in 1..HEADER + 4 {
            fs::write(&path, &bytes[..bytes.len() - torn]).unwrap();
            assert!(!read(&path, 0).unwrap().damaged, "it may be on its way");
            assert_eq!(whole(&path), b"one\n");
            let mut again = State::of(&path).unwrap();
            again.append(&path, &about(), 4, b"two\n", false).unwrap();
            assert_eq!(whole(&path), b"one\ntwo\n", "torn by {torn}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_reading_it_ends_and_writing_goes_on(mut bytes in prop::collection::vec(any::<u8>(), 0..400), flip in any::<(u16, u8)>()) {
            let (_folder, path) = file();
            let mut state = State::default();
            state.append(&path, &about(), 0, b"good\n", false).unwrap();
            let mut all = fs::read(&path).unwrap();
            all.append(&mut bytes);
            let at = usize::from(flip.0) % all.len();
            all[at] ^= flip.1;
            fs::write(&path, &all).unwrap();
            let _found = read(&path, 0).unwrap();
            let mut again = State::of(&path).unwrap();
            prop_assume!(again.next < u64::MAX - 10);
            again.append(&path, &about(), again.next, b"more\n", true).unwrap();
            prop_assert!(whole(&path).ends_with(b"more\n"));
        }
    }
}
