//! The trainer's stdout as messages, with the limits of the line protocol. Knows nothing of jobs.

use bytes::{Buf as _, BytesMut};
use spotsweep_proto::{limits::LINE_BYTES, line::FromTrainer};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// So much of an offending line is shown, in bytes before escaping.
const EXCERPT_BYTES: usize = 120;

/// What came that is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PipeError {
    #[error("its output cannot be read")]
    Read(#[source] std::io::Error),
    #[error("it wrote a line longer than {LINE_BYTES} bytes, which begins with \"{excerpt}\"")]
    TooLong { excerpt: String },
    #[error("it wrote a line that is no message ({source}): \"{excerpt}\"")]
    Garbage {
        excerpt: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Reads messages.
pub(crate) struct Messages<R> {
    reader: R,
    buffer: BytesMut,
    /// No newline is among the first so many bytes of `buffer`.
    scanned: usize,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new(), scanned: 0 }
    }

    /// The next message; `None` at the end. A last line without its newline is not one. Nothing is lost when
    /// the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<FromTrainer>, PipeError> {
        loop {
            if let Some(end) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.scanned + end);
                self.buffer.advance(1);
                self.scanned = 0;
                if line.len() > LINE_BYTES {
                    return Err(PipeError::TooLong { excerpt: excerpt(&line) });
                }
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|source| PipeError::Garbage { excerpt: excerpt(&line), source });
            }
            self.scanned = self.buffer.len();
            if self.buffer.len() > LINE_BYTES {
                return Err(PipeError::TooLong { excerpt: excerpt(&self.buffer) });
            }
            self.buffer.reserve(8 << 10);
            if self.reader.read_buf(&mut self.buffer).await.map_err(PipeError::Read)? == 0 {
                return Ok(None);
            }
        }
    }
}

/// The beginning of a line, with everything escaped that could harm a terminal or a log.
fn excerpt(line: &[u8]) -> String {
    let shown = &line[..line.len().min(EXCERPT_BYTES)];
    let more = if shown.len() < line.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(shown).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::ids::Epoch;

    async fn read(bytes: &[u8]) -> (usize, Option<PipeError>) {
        let mut messages = Messages::new(bytes);
        let mut count = 0;
        loop {
            match messages.next().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, None),
                Err(error) => return (count, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn messages_come_whole_however_the_bytes_arrive() {
        let line = serde_json::to_string(&FromTrainer::Stopped { epoch: Epoch(3), step: 9 }).unwrap();
        let text = format!("{line}\n{line}\r\n{line}\n");
        let (near, mut far) = tokio::io::duplex(3);
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut far, text.as_bytes()).await.unwrap();
        });
        let mut messages = Messages::new(near);
        for _ in 0..3 {
            let message = messages.next().await.unwrap().unwrap();
            assert_eq!(message, FromTrainer::Stopped { epoch: Epoch(3), step: 9 });
        }
        assert_eq!(messages.next().await.unwrap(), None);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn garbage_is_refused_with_an_escaped_excerpt() {
        let good = b"{\"type\":\"stopped\",\"epoch\":1,\"step\":2}\n";
        let cases: [&[u8]; 7] = [
            b"\n",
            b"hello\x1b[31m\n",
            b"\xff\xfe\x00\n",
            b"{\"type\":\"unheard_of\"}\n",
            b"{\"type\":\"stopped\",\"epoch\":1}\n",
            b"{\"type\":\"report\",\"epoch\":1,\"step\":1,\"data_epoch\":0,\"metrics\":{\"loss\":NaN}}\n",
            b"[]\n",
        ];
        for case in cases {
            let (count, error) = read(&[good, case, good].concat()).await;
            let error = error.expect("an error").to_string();
            assert_eq!(count, 1, "{error}");
            assert!(error.chars().all(|c| !c.is_control()), "{error}");
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_at_the_limit_and_not_kept_in_memory() {
        let (_, error) = read(&vec![b'x'; 3 * LINE_BYTES]).await;
        assert!(matches!(error, Some(PipeError::TooLong { excerpt }) if excerpt.len() < 200));
    }

    #[tokio::test]
    async fn a_last_line_without_its_newline_is_no_message() {
        let line = serde_json::to_string(&FromTrainer::Stopped { epoch: Epoch(3), step: 9 }).unwrap();
        for length in 0..=line.len() {
            let text = format!("{line}\n{}", &line[..length]);
            let (count, error) = read(text.as_bytes()).await;
            assert!(count == 1 && error.is_none(), "{length}: {error:?}");
        }
    }

    #[tokio::test]
    async fn a_line_of_exactly_the_limit_is_taken() {
        let mut line = serde_json::to_vec(&FromTrainer::Stopped { epoch: Epoch(3), step: 9 }).unwrap();
        // Blanks at the end are JSON's own.
        line.resize(LINE_BYTES, b' ');
        let whole = [&line[..], b"\n"].concat();
        assert!(matches!(read(&whole).await, (1, None)));
        let longer = [&line[..], b" \n"].concat();
        assert!(matches!(read(&longer).await, (0, Some(PipeError::TooLong { .. }))));
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_in_whatever_pieces_ends_and_is_kept_within_the_limit(
            pieces in proptest::collection::vec(piece(), 0..8),
            width in 1..64_usize,
        ) {
            let bytes = pieces.concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (near, mut far) = tokio::io::duplex(width);
                let writing = async move {
                    // The reader may have given up.
                    let _gone = tokio::io::AsyncWriteExt::write_all(&mut far, &bytes).await;
                };
                let reading = async {
                    let mut messages = Messages::new(near);
                    let mut ended = false;
                    while !ended {
                        ended = !matches!(messages.next().await, Ok(Some(_)));
                        assert!(messages.buffer.len() <= LINE_BYTES + (8 << 10));
                    }
                };
                tokio::join!(writing, reading);
            });
        }
    }

    fn piece() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
        use proptest::prelude::*;
        let line = serde_json::to_vec(&FromTrainer::Stopped { epoch: Epoch(3), step: 9 }).unwrap();
        prop_oneof![
            Just([&line[..], b"\n"].concat()),
            Just(line),
            Just(b"\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..200),
        ]
    }
}
