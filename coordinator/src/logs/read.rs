//! Reading what an attempt printed, all at once or bit by bit: the streams of its processes one behind the other, with lines of
//! our own where something is left out, damaged, or another process' turn.

use super::{
    file,
    place::{self, Place, Stream},
};
use spotsweep_proto::ids::SweepName;
use std::{collections::HashMap, path::Path};

/// How far somebody has read.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    next: HashMap<Stream, u64>,
    /// Whose text came last.
    last: Option<Stream>,
    /// It ended within a line.
    open_line: bool,
    damage_told: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The text, as it was printed. Lines that begin with `[spotsweep: ` are the agent's or the coordinator's.
    pub text: Vec<u8>,
    /// Every process that printed has said that nothing more comes.
    pub ended: bool,
    /// What is kept of it cannot be read.
    pub damaged: bool,
}

pub(super) fn read(
    root: &Path,
    sweep: &SweepName,
    number: u32,
    attempt: u32,
    cursor: &mut Cursor,
) -> Reading {
    let mut reading = Reading::default();
    let streams = match place::streams(root, sweep, number) {
        Ok(streams) => streams,
        Err(error) => {
            tracing::warn!(%sweep, number, %error, "the logs of a trial cannot be read");
            reading.damaged = true;
            return reading;
        }
    };
    let streams: Vec<Stream> = streams.into_iter().filter(|stream| stream.attempt == attempt).collect();
    let several = streams.len() > 1;
    let mut ended = 0;
    for stream in &streams {
        let path = Place { sweep: sweep.clone(), number, stream: *stream }.path(root);
        let from = cursor.next.get(stream).copied().unwrap_or(0);
        let found = match file::read(&path, from) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a log cannot be read");
                reading.damaged = true;
                continue;
            }
        };
        ended += usize::from(found.ended);
        cursor.next.insert(*stream, found.next);
        if several && cursor.last != Some(*stream) && !found.pieces.is_empty() {
            cursor.say(&mut reading, &format!("on {}, under lease {}", found.about.worker, stream.epoch));
        }
        for (left_out, text) in found.pieces {
            cursor.last = Some(*stream);
            if left_out > 0 {
                cursor.say(&mut reading, &format!("{left_out} bytes are left out here"));
            }
            cursor.open_line = text.last().map_or(cursor.open_line, |last| *last != b'\n');
            reading.text.extend_from_slice(&text);
        }
        if found.damaged {
            reading.damaged = true;
            if !std::mem::replace(&mut cursor.damage_told, true) {
                cursor.say(&mut reading, "what comes here is damaged and left out");
            }
        }
    }
    reading.ended = ended == streams.len() && ended > 0;
    reading
}

impl Cursor {
    /// A line of our own.
    fn say(&mut self, reading: &mut Reading, words: &str) {
        let before = if self.open_line { "\n" } else { "" };
        reading.text.extend_from_slice(format!("{before}[spotsweep: {words}]\n").as_bytes());
        self.open_line = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::file::{About, State};
    use spotsweep_proto::ids::{Epoch, Incarnation};
    use std::{fs, path::PathBuf};

    struct Trial {
        root: tempfile::TempDir,
        sweep: SweepName,
        cursor: Cursor,
    }

    impl Trial {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
                sweep: SweepName::new("s").unwrap(),
                cursor: Cursor::default(),
            }
        }

        fn path(&self, attempt: u32, epoch: u64, who: u128) -> PathBuf {
            let stream = Stream { attempt, epoch: Epoch(epoch), who: Incarnation(who) };
            Place { sweep: self.sweep.clone(), number: 3, stream }.path(self.root.path())
        }

        fn print(&self, (attempt, epoch, who): (u32, u64, u128), offset: u64, text: &str, last: bool) {
            let path = self.path(attempt, epoch, who);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let about = About { worker: format!("w{who}") };
            State::of(&path).unwrap().append(&path, &about, offset, text.as_bytes(), last).unwrap();
        }

        fn more(&mut self, attempt: u32) -> (String, bool, bool) {
            let reading = read(self.root.path(), &self.sweep, 3, attempt, &mut self.cursor);
            (String::from_utf8(reading.text).unwrap(), reading.ended, reading.damaged)
        }
    }

    #[test]
    fn a_log_is_read_bit_by_bit_to_its_end_with_what_is_left_out_said() {
        let mut trial = Trial::new();
        assert_eq!(trial.more(1), (String::new(), false, false));
        trial.print((1, 1, 1), 0, "one\ntw", false);
        trial.print((2, 2, 1), 0, "another\n", true);
        assert_eq!(trial.more(1).0, "one\ntw");
        trial.print((1, 1, 1), 6, "o\n", false);
        assert_eq!(trial.more(1), ("o\n".to_owned(), false, false));
        trial.print((1, 1, 1), 1000, "late", true);
        assert_eq!(trial.more(1), ("[spotsweep: 992 bytes are left out here]\nlate".to_owned(), true, false));
        assert_eq!(trial.more(1), (String::new(), true, false));
    }

    #[test]
    fn who_printed_is_said_where_several_did() {
        let mut trial = Trial::new();
        trial.print((1, 4, 1), 0, "a", false);
        trial.print((1, 4, 2), 0, "b\n", false);
        assert_eq!(
            trial.more(1).0,
            "[spotsweep: on w1, under lease 4]\na\n[spotsweep: on w2, under lease 4]\nb\n"
        );
        trial.print((1, 4, 2), 2, "c\n", true);
        assert_eq!(trial.more(1), ("c\n".to_owned(), false, false), "it is still w2's turn");
    }

    #[test]
    fn a_damaged_or_strange_file_costs_what_is_in_it_and_no_more() {
        let mut trial = Trial::new();
        trial.print((1, 1, 1), 0, "one\n", false);
        trial.print((1, 1, 1), 4, "two\n", false);
        let path = trial.path(1, 1, 1);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::create_dir(trial.path(1, 2, 2)).unwrap();
        let (text, ended, damaged) = trial.more(1);
        assert!(
            text.contains("one\n")
                && text.ends_with("[spotsweep: what comes here is damaged and left out]\n"),
            "{text}"
        );
        assert!(!ended && damaged);
        assert_eq!(trial.more(1).0, "", "it is said once");
    }
}
