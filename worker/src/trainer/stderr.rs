//! The last lines of a trainer's stderr, made harmless, for the report of its death.

use spotsweep_proto::limits::FAILURE_TEXT_BYTES;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader},
    task::JoinHandle,
};

/// So many lines are kept.
const LINES: usize = 40;
/// Of each line so many bytes are kept, before escaping.
const KEPT_LINE_BYTES: usize = 400;
/// After the trainer's end, wait so long for what is left in the pipe: a process that it started may hold it open.
const DRAIN: Duration = Duration::from_millis(300);

/// Collects lines in the background.
pub(crate) struct StderrTail {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl StderrTail {
    pub(crate) fn new(stderr: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let reader = tokio::spawn(collect(BufReader::new(stderr), lines.clone()));
        Self { lines, reader }
    }

    /// The last lines once the trainer has ended, at most about [`FAILURE_TEXT_BYTES`] of them.
    pub(crate) async fn finish(mut self) -> String {
        let _timeout = tokio::time::timeout(DRAIN, &mut self.reader).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = Vec::new();
        let mut bytes = 0;
        for line in lines.iter().rev() {
            bytes += line.len() + 1;
            if bytes > FAILURE_TEXT_BYTES / 2 {
                break;
            }
            kept.push(line.as_str());
        }
        kept.reverse();
        kept.join("\n")
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn collect(mut reader: impl AsyncBufRead + Unpin, lines: Arc<Mutex<VecDeque<String>>>) {
    let mut line = Vec::new();
    // An unreadable stderr is no reason to do anything: the lines are a courtesy.
    while let Ok(available) = reader.fill_buf().await {
        if available.is_empty() {
            break;
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let room = KEPT_LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            keep(&lines, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        keep(&lines, &line);
    }
}

fn keep(lines: &Mutex<VecDeque<String>>, line: &[u8]) {
    let text = harmless(&String::from_utf8_lossy(line));
    tracing::debug!(target: "spotsweep_worker::trainer::stderr", "{text}");
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == LINES {
        lines.pop_front();
    }
    lines.push_back(text);
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
