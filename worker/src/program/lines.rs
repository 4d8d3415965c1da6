//! What a program says to its agent: lines of JSON, read leniently. Knows nothing of steps and jobs.
//!
//! A line is an object of [`spotsweep_proto::line`] without its `epoch`. The tokens `NaN`, `Infinity` and `-Infinity`, which
//! Python and others write although JSON has none, are read as null.

use bytes::{Buf as _, BytesMut};
use serde::Deserialize;
use serde_json::{Map, Value};
use spotsweep_proto::{limits::LINE_BYTES, line::FailureKind};
use std::path::PathBuf;
use tokio::net::unix::pipe;

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;
/// So much of a line that is none is shown, in bytes before escaping.
const EXCERPT_BYTES: usize = 120;

/// What a program says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    Started {
        step: Option<Value>,
        total_steps: Option<Value>,
    },
    Report {
        step: Value,
        data_epoch: Option<f64>,
        #[serde(default)]
        metrics: Map<String, Value>,
    },
    Checkpoint {
        step: Value,
        dir: PathBuf,
        #[serde(default)]
        last: bool,
    },
    Done {
        step: Option<Value>,
        #[serde(default)]
        metrics: Map<String, Value>,
    },
    Stopped {
        step: Option<Value>,
    },
    Failed {
        reason: Option<FailureKind>,
        message: Option<String>,
    },
}

/// Reads a line.
///
/// # Errors
/// What is wrong with it, for people, without control characters.
pub(crate) fn read(line: &[u8]) -> Result<Line, String> {
    let shown = |why: String| format!("{why}: \"{}\"", excerpt(line));
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => {
            let again = std::str::from_utf8(line).ok().map(without_non_finite);
            again.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(|| shown(error.to_string()))?
        }
    };
    if !value.is_object() {
        return Err(shown("it is no JSON object".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| shown(error.to_string()))
}

/// The text with tokens that are no JSON, outside of strings, as null.
fn without_non_finite(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string
            && let Some(token) =
                ["-Infinity", "Infinity", "NaN"].into_iter().find(|token| rest.starts_with(token))
        {
            out.push_str("null");
            rest = &rest[token.len()..];
            continue;
        }
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// The beginning of a line, with everything escaped that could harm a terminal or a log.
pub(crate) fn excerpt(line: &[u8]) -> String {
    let shown = &line[..line.len().min(EXCERPT_BYTES)];
    let more = if shown.len() < line.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(shown).escape_debug())
}

/// A piece of what came.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    Line(Vec<u8>),
    /// A line was longer than [`LINE_BYTES`]; so it began.
    TooLong(String),
}

/// Parts bytes into lines and keeps no more than one.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    scanned: usize,
    /// The rest of a line that is too long is thrown away.
    skipping: bool,
}

impl Splitter {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(crate) fn next(&mut self) -> Option<Piece> {
        loop {
            let end = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
            let Some(end) = end.map(|end| self.scanned + end) else {
                self.scanned = self.buffer.len();
                if self.scanned <= LINE_BYTES {
                    return None;
                }
                let text = excerpt(&self.buffer);
                // One that never ends counts once for each limit's worth of bytes.
                (self.skipping, self.scanned) = (true, 0);
                self.buffer.clear();
                return Some(Piece::TooLong(text));
            };
            let mut line = self.buffer.split_to(end);
            self.buffer.advance(1);
            self.scanned = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if line.len() > LINE_BYTES {
                return Some(Piece::TooLong(excerpt(&line)));
            }
            while line.last().is_some_and(u8::is_ascii_whitespace) {
                line.truncate(line.len() - 1);
            }
            if !line.is_empty() {
                return Some(Piece::Line(line.to_vec()));
            }
        }
    }
}

/// The agent's end of the pipe into which a program writes.
#[derive(Debug)]
pub(crate) struct FromProgram {
    receiver: pipe::Receiver,
    splitter: Splitter,
    chunk: Vec<u8>,
}

impl FromProgram {
    /// `receiver` must be open for writing too, so that it never ends.
    pub(crate) fn new(receiver: pipe::Receiver) -> Self {
        Self { receiver, splitter: Splitter::default(), chunk: vec![0; CHUNK] }
    }

    /// The next piece. Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> std::io::Result<Piece> {
        loop {
            if let Some(piece) = self.splitter.next() {
                return Ok(piece);
            }
            self.receiver.readable().await?;
            self.fill()?;
        }
    }

    /// What has come and was not read yet.
    pub(crate) fn rest(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.splitter.next() {
                return Some(piece);
            }
            if !self.fill().is_ok_and(|any| any) {
                return None;
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<bool> {
        match self.receiver.try_read(&mut self.chunk) {
            Ok(bytes) => {
                self.splitter.push(&self.chunk[..bytes]);
                Ok(bytes > 0)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn lines_need_no_epoch_and_numbers_that_json_has_not_are_null() {
        let line =
            read(br#"{"type":"report","step":3,"metrics":{"a":NaN,"b":-Infinity,"NaN\"":1,"c":"nan"}}"#);
        let Ok(Line::Report { step, metrics, .. }) = line else { panic!("{line:?}") };
        assert_eq!(step, json!(3));
        assert_eq!(Value::Object(metrics), json!({"a": null, "b": null, "NaN\"": 1, "c": "nan"}));
        let with_epoch = read(br#"{"type":"stopped","epoch":4,"step":3}"#);
        assert_eq!(with_epoch, Ok(Line::Stopped { step: Some(json!(3)) }));
        assert!(matches!(read(br#"{"type":"done"}"#), Ok(Line::Done { step: None, .. })));
    }

    #[test]
    fn what_is_no_line_is_said_without_control_characters() {
        for line in
            [&b"hello\x1b[31m"[..], b"[]", b"{\"type\":\"x\"}", b"\xff\xfe", b"{\"type\":\"report\"}", b"NaN"]
        {
            let error = read(line).unwrap_err();
            assert!(error.chars().all(|c| !c.is_control()), "{error}");
        }
    }

    #[test]
    fn a_line_without_end_is_skipped_and_the_one_behind_it_is_read() {
        let mut splitter = Splitter::default();
        splitter.push(&vec![b'x'; LINE_BYTES + 1]);
        assert!(matches!(splitter.next(), Some(Piece::TooLong(_))));
        assert_eq!(splitter.next(), None);
        splitter.push(b"more\n\r\n  \nline\r\n");
        assert_eq!(splitter.next(), Some(Piece::Line(b"line".to_vec())));
        assert_eq!(splitter.next(), None);
    }

    proptest! {
        #[test]
        fn lines_come_whole_however_the_bytes_arrive(
            lines in proptest::collection::vec("[a-z]{1,20}", 0..10), width in 1..7_usize,
        ) {
            let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
            let (mut splitter, mut found) = (Splitter::default(), Vec::new());
            for chunk in text.as_bytes().chunks(width) {
                splitter.push(chunk);
                while let Some(piece) = splitter.next() {
                    let Piece::Line(line) = piece else { panic!() };
                    found.push(String::from_utf8(line).unwrap());
                }
            }
            prop_assert_eq!(found, lines);
        }

        #[test]
        fn no_text_makes_reading_panic(text in ".*") {
            let _read = read(text.as_bytes());
            let _without = without_non_finite(&text);
        }
    }
}
