//! A file whose existence is a notice, for whoever can run `touch`.

use super::{
    Look, Source, SourceError,
    order::{self, ORDER_BYTES},
};
use futures::future::BoxFuture;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{fs::File, io::AsyncReadExt as _};

/// Looking for a file costs a system call.
const PAUSE: Duration = Duration::from_secs(1);

/// A file that may come to be.
pub(super) struct NoticeFile {
    path: PathBuf,
}

impl NoticeFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    async fn look_once(&self) -> Result<Look, SourceError> {
        let file = match File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Quiet),
            Err(error) => return Err(SourceError::File(error)),
        };
        let mut text = Vec::new();
        file.take(ORDER_BYTES as u64).read_to_end(&mut text).await.map_err(SourceError::File)?;
        // It is there, and that is what counts; what it says may still be on its way into it.
        let notice = order::notice(NoticeSource::File, &text).unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "the notice file says nothing that can be read");
            Notice::new(NoticeSource::File, NoticeKind::Terminate, None)
        });
        Ok(Look::Notice(notice))
    }
}

impl Source for NoticeFile {
    fn name(&self) -> &'static str {
        "file"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn look(&mut self) -> BoxFuture<'_, Result<Look, SourceError>> {
        Box::pin(self.look_once())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_a_notice_whatever_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leave");
        let mut source = NoticeFile::new(&path);
        assert_eq!(source.look().await.unwrap(), Look::Quiet);
        let plain = Notice::new(NoticeSource::File, NoticeKind::Terminate, None);
        for text in ["", "please", "{\"in_s\": ", &"x".repeat(100_000)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(source.look().await.unwrap(), Look::Notice(plain.clone()), "{text:.9}");
        }
        std::fs::write(&path, r#"{"in_s": 30, "reason": "price"}"#).unwrap();
        let told = Notice { in_s: Some(30.0), ..plain.because("price") };
        assert_eq!(source.look().await.unwrap(), Look::Notice(told));
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_looked_at_is_an_error_and_no_notice() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        let look = NoticeFile::new(&folder.path().join("plain/leave")).look().await;
        assert!(matches!(look, Err(SourceError::File(_))), "{look:?}");
    }
}
