//! What a trainer says on stderr: it goes to the log of the attempt that it trains, and the last lines, made harmless, into the
//! report of its death.

use crate::attempt_log::AttemptLog;
use spotsweep_proto::limits::FAILURE_TEXT_BYTES;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    task::JoinHandle,
};

/// So many lines are kept.
const LINES: usize = 40;
/// Of each line so many bytes are kept, before escaping.
const KEPT_LINE_BYTES: usize = 400;
/// Bytes that are read at once.
const CHUNK: usize = 8 << 10;
/// After the trainer's end, wait so long for what is left in the pipe: a process that it started may hold it open.
const DRAIN: Duration = Duration::from_millis(300);

/// The last lines of what was pushed.
#[derive(Debug, Default)]
pub(crate) struct LastLines {
    lines: VecDeque<Vec<u8>>,
    /// The line that has not ended.
    open: Vec<u8>,
}

impl LastLines {
    /// Adds what came next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // Most of a large piece would be gone with its end.
        let mut ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let bytes = match ends.nth(LINES + 1) {
            Some(at) => {
                self.open.clear();
                &bytes[at + 1..]
            }
            None => bytes,
        };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = part.strip_suffix(b"\n").unwrap_or(part);
            let room = KEPT_LINE_BYTES.saturating_sub(self.open.len());
            self.open.extend_from_slice(&line[..line.len().min(room)]);
            if line.len() < part.len() {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let line = std::mem::take(&mut self.open);
        tracing::debug!(target: "spotsweep_worker::trainer::stderr", "{}", harmless(&String::from_utf8_lossy(&line)));
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The lines without control characters, at most about half of [`FAILURE_TEXT_BYTES`] of them.
    pub(crate) fn text(&self) -> String {
        let open = Some(&self.open).filter(|open| !open.is_empty());
        let mut kept = Vec::new();
        let mut bytes = 0;
        let first = usize::from(open.is_some() && self.lines.len() == LINES);
        for line in self.lines.iter().skip(first).chain(open).rev() {
            let line = harmless(&String::from_utf8_lossy(line));
            bytes += line.len() + 1;
            if bytes > FAILURE_TEXT_BYTES / 2 {
                break;
            }
            kept.push(line);
        }
        kept.reverse();
        kept.join("\n")
    }
}

/// Where what is read goes.
#[derive(Debug, Default)]
struct Heard {
    lines: LastLines,
    /// Of the attempt that is trained, or was last.
    log: Option<AttemptLog>,
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects lines in the background.
pub(crate) struct StderrTail {
    heard: Arc<Mutex<Heard>>,
    reader: JoinHandle<()>,
}

impl StderrTail {
    pub(crate) fn new(stderr: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let heard = Arc::default();
        let reader = tokio::spawn(collect(stderr, Arc::clone(&heard)));
        Self { heard, reader }
    }

    /// From now on, what comes is about this attempt.
    pub(crate) fn log_to(&self, log: AttemptLog) {
        lock(&self.heard).log = Some(log);
    }

    /// The last lines once the trainer has ended.
    pub(crate) async fn finish(mut self) -> String {
        let _timeout = tokio::time::timeout(DRAIN, &mut self.reader).await;
        lock(&self.heard).lines.text()
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn collect(mut reader: impl AsyncRead + Unpin, heard: Arc<Mutex<Heard>>) {
    let mut chunk = vec![0; CHUNK];
    // An unreadable stderr is no reason to do anything: the lines are a courtesy.
    while let Ok(bytes) = reader.read(&mut chunk).await {
        if bytes == 0 {
            break;
        }
        let mut heard = lock(&heard);
        heard.lines.push(&chunk[..bytes]);
        if let Some(log) = &heard.log {
            log.push(&chunk[..bytes]);
        }
    }
}

/// The text without control characters, which could harm a terminal; line ends stay.
pub(crate) fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.trim_end_matches(['\r', '\n']).chars() {
        if c.is_control() && c != '\n' && c != '\t' { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// The text, harmless and cut at [`FAILURE_TEXT_BYTES`].
pub(crate) fn failure_text(text: &str) -> String {
    let mut text = harmless(text);
    if text.len() > FAILURE_TEXT_BYTES {
        let end = (0..=FAILURE_TEXT_BYTES - 4).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_within_bounds_and_without_control_characters() {
        let mut text = Vec::new();
        for number in 0..100 {
            text.extend_from_slice(format!("line {number}\x1b[2J\n").as_bytes());
        }
        text.extend_from_slice(&vec![b'x'; 1 << 20]);
        let tail = StderrTail::new(std::io::Cursor::new(text)).finish().await;
        assert!(tail.len() <= FAILURE_TEXT_BYTES && tail.contains("line 99\\u{1b}[2J\n"), "{tail}");
        assert!(!tail.contains("line 60\\"), "{tail}");
        assert!(tail.ends_with(&"x".repeat(KEPT_LINE_BYTES)));
    }

    #[test]
    fn a_failure_text_fits_its_limit_and_stays_text() {
        let text = failure_text(&"é".repeat(FAILURE_TEXT_BYTES));
        assert!(text.len() <= FAILURE_TEXT_BYTES && text.ends_with("é…"));
        assert_eq!(failure_text("a\tb\nc\u{7}\n"), "a\tb\nc\\u{7}");
    }
}
