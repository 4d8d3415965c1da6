//! Archives of code in the object store: taken in from clients, which have no store of their own, and kept for good, as the
//! sweeps are that refer to them.
//!
//! What is taken in is believed to be nothing but bytes of the digest that was said: who unpacks it looks further.

use super::{ObjectError, Objects};
use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, path::Path as ObjectPath};
use spotsweep_proto::{
    digest::Digest,
    program::{CODE_BYTES, Code},
};

/// Bytes that are written at a time.
const PART_BYTES: usize = 8 << 20;

/// Why code was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum PutError<E> {
    /// More than may travel.
    #[error("code has at most {CODE_BYTES} bytes, and {0} were announced")]
    TooLarge(u64),
    /// It is not what was announced.
    #[error("code {wanted} came damaged: {bytes} bytes with the digest {found}")]
    Damaged {
        /// What was announced.
        wanted: Digest,
        /// What came.
        found: Digest,
        /// How much of it, as far as it was read.
        bytes: u64,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] ObjectError),
    /// The pieces broke off.
    #[error("the pieces broke off")]
    Pieces(E),
}

impl Objects {
    /// Whether the archive is there, whole.
    ///
    /// # Errors
    /// When the store does not say.
    pub async fn holds_code(&self, code: Code) -> Result<bool, ObjectError> {
        match self.store.head(&ObjectPath::from(code.path())).await {
            Ok(found) => Ok(found.size == code.bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(ObjectError::Store { digest: code.digest, source }),
        }
    }

    /// Takes an archive in, whole and verified or not at all. `false` if it was there: then `pieces` are not read.
    ///
    /// # Errors
    /// When it is too large, is not what `code` says, breaks off, or cannot be written.
    pub async fn put_code<E>(
        &self,
        code: Code,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<bool, PutError<E>> {
        if code.bytes > CODE_BYTES {
            return Err(PutError::TooLarge(code.bytes));
        }
        if self.holds_code(code).await? {
            return Ok(false);
        }
        let failed = |source| ObjectError::Store { digest: code.digest, source };
        let store: &dyn ObjectStore = self.store.as_ref();
        let path = ObjectPath::from(code.path());
        let mut upload = store.put_multipart(&path).await.map_err(failed)?;
        let taken = take(code, pieces, upload.as_mut()).await;
        let done = match taken {
            Ok(()) => upload.complete().await.map_err(|source| failed(source).into()),
            Err(error) => Err(error),
        };
        match done {
            Ok(_) => Ok(true),
            Err(error) => {
                // What could not be removed is no object, and costs disk only.
                let _left_behind = upload.abort().await;
                Err(error)
            }
        }
    }
}

async fn take<E>(
    code: Code,
    pieces: impl Stream<Item = Result<Bytes, E>>,
    upload: &mut dyn MultipartUpload,
) -> Result<(), PutError<E>> {
    let failed = |source| ObjectError::Store { digest: code.digest, source };
    let mut pieces = std::pin::pin!(pieces);
    let (mut hasher, mut bytes, mut part) = (blake3::Hasher::new(), 0_u64, Vec::new());
    while let Some(piece) = pieces.try_next().await.map_err(PutError::Pieces)? {
        bytes += piece.len() as u64;
        if bytes > code.bytes {
            break;
        }
        hasher.update(&piece);
        part.extend_from_slice(&piece);
        if part.len() >= PART_BYTES {
            upload.put_part(std::mem::take(&mut part).into()).await.map_err(failed)?;
        }
    }
    let found = Digest(*hasher.finalize().as_bytes());
    if bytes != code.bytes || found != code.digest {
        return Err(PutError::Damaged { wanted: code.digest, found, bytes });
    }
    upload.put_part(part.into()).await.map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn pieces(of: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let of: Vec<_> = of.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        futures::stream::iter(of)
    }

    fn code(content: &[u8]) -> Code {
        Code { digest: Digest::of(content), bytes: content.len() as u64 }
    }

    fn files(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder).map_or(0, |entries| {
            entries
                .map(|entry| entry.unwrap().path())
                .map(|path| if path.is_dir() { files(&path) } else { 1 })
                .sum()
        })
    }

    #[tokio::test]
    async fn code_is_taken_in_once_and_survives_the_deletion_of_a_checkpoint_with_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let code = code(b"some code");
        assert!(!objects.holds_code(code).await.unwrap());
        assert!(objects.put_code(code, pieces(&[b"some ", b"", b"code"])).await.unwrap());
        let unread = futures::stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
            panic!("what is there is not read again")
        });
        assert!(!objects.put_code(code, unread).await.unwrap());
        objects.delete(&[code.digest]).await;
        assert!(objects.holds_code(code).await.unwrap());
        assert_eq!(std::fs::read(folder.path().join(code.path())).unwrap(), b"some code");
    }

    #[tokio::test]
    async fn what_is_not_what_was_announced_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let code = code(b"some code");
        for wrong in [&[b"some c".as_slice()][..], &[b"some codf"], &[b"some code", b" and more"], &[]] {
            let error = objects.put_code(code, pieces(wrong)).await.unwrap_err();
            assert!(matches!(error, PutError::Damaged { .. }), "{error}");
        }
        let huge = Code { bytes: CODE_BYTES + 1, ..code };
        assert!(matches!(objects.put_code(huge, pieces(&[])).await.unwrap_err(), PutError::TooLarge(_)));
        assert!(!objects.holds_code(code).await.unwrap());
        assert_eq!(files(folder.path()), 0);
    }
}
