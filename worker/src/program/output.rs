//! What a program prints: it goes to the attempt's log, its beginning and its end are kept in a file, its last lines in memory,
//! and metrics are looked for in each line. A program that prints without end costs time and nothing else.

use super::pattern::{Found, Pattern};
use crate::{attempt_log::AttemptLog, trainer::LastLines};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::unix::pipe, sync::mpsc, task::JoinHandle, time::timeout};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Metrics that were found and not taken yet; beyond that the program's output waits.
const FOUND: usize = 1024;
/// Of a line, so many bytes are searched for metrics.
const LINE: usize = 8 << 10;
/// Once all of a program's processes are gone, what is left in the pipe is read in no more time than this.
const DRAIN: Duration = Duration::from_secs(5);

/// The output of one attempt.
#[derive(Debug)]
pub(crate) struct Output {
    kept: Arc<Mutex<Kept>>,
    found: mpsc::Receiver<Found>,
    task: JoinHandle<()>,
}

impl Output {
    /// Reads from `pipe` into a file that keeps no more than `limit` bytes.
    pub(crate) fn read(
        pipe: OwnedFd,
        path: &Path,
        limit: u64,
        pattern: Option<Pattern>,
        log: AttemptLog,
    ) -> io::Result<Self> {
        let receiver = pipe::Receiver::from_owned_fd(pipe)?;
        let kept = Kept { lines: LastLines::default(), file: Ends::new(path.to_owned(), limit), log };
        let kept = Arc::new(Mutex::new(kept));
        let (sender, found) = mpsc::channel(FOUND);
        let task = tokio::spawn(collect(receiver, kept.clone(), pattern, sender));
        Ok(Self { kept, found, task })
    }

    /// Metrics that stand in a line; `None` once the output has ended.
    pub(crate) async fn next(&mut self) -> Option<Found> {
        self.found.recv().await
    }

    /// Metrics that were found and not taken.
    pub(crate) fn rest(&mut self) -> Option<Found> {
        self.found.try_recv().ok()
    }

    /// Adds a line of the agent's own.
    pub(crate) fn note(&self, text: &str) {
        let mut kept = lock(&self.kept);
        let line = format!("spotsweep: {text}\n");
        kept.file.push(line.as_bytes());
        kept.lines.push(line.as_bytes());
        kept.log.note(text);
    }

    /// Waits for the end of what is in the pipe. May be called again after its future was dropped.
    pub(crate) async fn end(&mut self) {
        if !self.task.is_finished() {
            let reading = async {
                // With its receiver full the reader waits for ever: what is found is kept by the caller until now.
                let _ended = (&mut self.task).await;
            };
            let _late = timeout(DRAIN, reading).await;
        }
        self.task.abort();
        lock(&self.kept).file.close();
    }

    /// The last lines, without control characters.
    pub(crate) fn last_lines(&self) -> String {
        lock(&self.kept).lines.text()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Kept {
    lines: LastLines,
    file: Ends,
    log: AttemptLog,
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn collect(
    receiver: pipe::Receiver,
    kept: Arc<Mutex<Kept>>,
    pattern: Option<Pattern>,
    sender: mpsc::Sender<Found>,
) {
    let mut chunk = Vec::new();
    let mut lines = Lines::default();
    loop {
        if receiver.readable().await.is_err() {
            return;
        }
        // Not before something came: most programs print little.
        chunk.resize(CHUNK, 0);
        match receiver.try_read(&mut chunk) {
            Ok(0) => break,
            Ok(bytes) => {
                {
                    let mut kept = lock(&kept);
                    kept.file.push(&chunk[..bytes]);
                    kept.lines.push(&chunk[..bytes]);
                    kept.log.push(&chunk[..bytes]);
                }
                if let Some(pattern) = &pattern {
                    for found in lines.push(&chunk[..bytes], pattern) {
                        if sender.send(found).await.is_err() {
                            return;
                        }
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    if let Some(pattern) = &pattern
        && let Some(found) = lines.last(pattern)
    {
        let _gone = sender.send(found).await;
    }
}

/// Parts output into lines, each no longer than [`LINE`]. A carriage return ends one too, as progress bars use it.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8], pattern: &Pattern) -> Vec<Found> {
        let mut found = Vec::new();
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let ends = part.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &part[..part.len() - usize::from(ends)];
            self.0.extend_from_slice(&part[..part.len().min(LINE.saturating_sub(self.0.len()))]);
            if ends {
                found.extend(self.last(pattern));
            }
        }
        found
    }

    fn last(&mut self, pattern: &Pattern) -> Option<Found> {
        let line = std::mem::take(&mut self.0);
        pattern.find(&String::from_utf8_lossy(&line))
    }
}

/// A file with the beginning and the end of what was pushed.
#[derive(Debug)]
struct Ends {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of the beginning, and behind them of a ring that holds the end.
    head: u64,
    ring: u64,
    pushed: u64,
    broken: bool,
}

impl Ends {
    fn new(path: PathBuf, limit: u64) -> Self {
        let head = limit / 2;
        Self { path, file: None, head, ring: limit - head, pushed: 0, broken: false }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.broken {
            let (at, room) = if self.pushed < self.head {
                (self.pushed, self.head - self.pushed)
            } else if self.ring == 0 {
                self.pushed += bytes.len() as u64;
                return;
            } else {
                let within = (self.pushed - self.head) % self.ring;
                (self.head + within, self.ring - within)
            };
            let count = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            if let Err(error) = self.write(&bytes[..count], at) {
                tracing::warn!(path = %self.path.display(), %error, "a program's output is not kept any more");
                self.broken = true;
            }
            self.pushed += count as u64;
            bytes = &bytes[count..];
        }
    }

    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(File::create_new(&self.path)?);
        }
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(bytes, at))
    }

    /// Puts the end in order where something between was left out.
    fn close(&mut self) {
        let Some(file) = self.file.take() else { return };
        let out = self.pushed.saturating_sub(self.head + self.ring);
        if out > 0 && !self.broken {
            drop(file);
            if let Err(error) = self.put_in_order(out) {
                tracing::warn!(path = %self.path.display(), %error, "the end of a program's output stays out of order");
            }
        }
        self.broken = true;
    }

    fn put_in_order(&self, out: u64) -> io::Result<()> {
        let ordered = self.path.with_extension("ordered");
        let (from, mut to) = (File::open(&self.path)?, File::create(&ordered)?);
        let within = (self.pushed - self.head) % self.ring;
        let note = format!("\n[spotsweep: {out} bytes are left out here]\n");
        copy(&from, 0, self.head, &mut to)?;
        to.write_all(note.as_bytes())?;
        copy(&from, self.head + within, self.ring - within, &mut to)?;
        copy(&from, self.head, within, &mut to)?;
        std::fs::rename(&ordered, &self.path)
    }
}

fn copy(mut from: &File, start: u64, bytes: u64, to: &mut File) -> io::Result<()> {
    from.seek(io::SeekFrom::Start(start))?;
    io::copy(&mut from.take(bytes), to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(limit: u64, pieces: &[&[u8]]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("output");
        let mut ends = Ends::new(path.clone(), limit);
        pieces.iter().for_each(|piece| ends.push(piece));
        ends.close();
        std::fs::read(path).unwrap_or_default()
    }

    #[test]
    fn the_beginning_and_the_end_of_output_are_kept_in_order() {
        assert_eq!(kept(10, &[b"abc", b"defghij"]), b"abcdefghij");
        assert_eq!(kept(10, &[]), b"");
        let text: Vec<u8> = (0..1000_u32).flat_map(|i| format!("{i:03}").into_bytes()).collect();
        for width in [1, 7, 100, 3000] {
            let pieces: Vec<&[u8]> = text.chunks(width).collect();
            let found = String::from_utf8(kept(60, &pieces)).unwrap();
            let note = "\n[spotsweep: 2940 bytes are left out here]\n";
            assert_eq!(found, format!("000001002003004005006007008009{note}990991992993994995996997998999"));
        }
    }

    #[test]
    fn lines_are_searched_whole_however_they_arrive_and_a_carriage_return_ends_one() {
        let pattern = Pattern::new("step (?<step>\\d+) loss (?<loss>\\S+)").unwrap();
        let text = b"step 1 loss 0.5\rstep 2 loss 0.25\nnoise\nstep 3 loss 0.125";
        for width in 1..text.len() {
            let mut lines = Lines::default();
            let mut found: Vec<Found> =
                text.chunks(width).flat_map(|chunk| lines.push(chunk, &pattern)).collect();
            found.extend(lines.last(&pattern));
            let steps: Vec<_> = found.iter().map(|found| found.step).collect();
            assert_eq!(steps, [Some(1), Some(2), Some(3)]);
        }
    }
}
