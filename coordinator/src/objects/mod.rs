//! The coordinator's hand on the object store: where agents put checkpoints, fetching one for a person, and
//! deleting what the engine has given up.
//!
//! Owns the store's place and its errors. It must not decide what is kept: the engine does. Objects are named by
//! the BLAKE3 of their content (`spotsweep_proto::checkpoint`).

mod code;
mod unclaimed;

use crate::error::{Code, Problem};
use bytes::Bytes;
pub use code::PutError;
use futures::{Stream, TryStreamExt as _};
use object_store::{ObjectStoreExt as _, local::LocalFileSystem, path::Path as ObjectPath};
use spotsweep_proto::{
    checkpoint::{MANIFEST_BYTES, Manifest, ManifestError, Part, object_path},
    digest::Digest,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::AsyncWriteExt as _;
pub use unclaimed::{CODE_LOOK_EVERY, CODE_UNCLAIMED, HeldCode};

/// Tries to delete an object before it is left behind.
const DELETE_TRIES: u32 = 5;
/// Wait before the second try; it doubles from try to try.
const DELETE_BACKOFF: Duration = Duration::from_millis(200);

/// Which part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Named parameters and buffers.
    Weights,
    /// All else that a resume needs.
    State,
}

/// Why an object could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The store answered with an error; a missing object is one.
    #[error("object {digest} cannot be read from the store")]
    Store {
        /// Which object.
        digest: Digest,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// A manifest far larger than any that is written.
    #[error("manifest {digest} has {bytes} bytes, more than the {MANIFEST_BYTES} that are allowed")]
    ManifestTooLarge {
        /// Which manifest.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
    /// The manifest is damaged or of another format.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The part's content is not what its name says.
    #[error("object {wanted} is damaged: its content has the digest {found} and {bytes} bytes")]
    Damaged {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
        /// How much of it.
        bytes: u64,
    },
    /// The file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl From<ObjectError> for Problem {
    fn from(error: ObjectError) -> Self {
        let (code, hint) = match &error {
            ObjectError::Store { source: object_store::Error::NotFound { .. }, .. } => (
                Code::NoCheckpoint,
                "it may have been deleted since; `spotsweep checkpoint ls` shows what is kept",
            ),
            ObjectError::Manifest(ManifestError::Format { .. }) => {
                (Code::NewerFormat, "use a newer spotsweep")
            }
            ObjectError::Store { .. } => (Code::Storage, "is the store reachable, and is its disk healthy?"),
            ObjectError::Write { .. } => (Code::Storage, "is there room, and may you write there?"),
            ObjectError::ManifestTooLarge { .. } | ObjectError::Manifest(_) | ObjectError::Damaged { .. } => {
                (Code::Damaged, "choose another checkpoint with --which")
            }
        };
        Self::new(code, crate::error::chain(&error)).hint(hint)
    }
}

/// The object store of one coordinator.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<LocalFileSystem>,
    root: PathBuf,
    /// Held by who is about to refer to code, and alone by who deletes it.
    code: Arc<tokio::sync::RwLock<()>>,
}

impl Objects {
    /// The store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made or is no folder.
    pub fn open(folder: &Path) -> Result<Self, ObjectError> {
        let write = |source| ObjectError::Write { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(write)?;
        let root = folder.canonicalize().map_err(write)?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|source| write(std::io::Error::other(source)))?
            .with_fsync(true);
        Ok(Self { store: Arc::new(store), root, code: Arc::default() })
    }

    /// Where agents find it, for instance `file:///var/lib/spotsweep/objects`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When it is missing, too large, damaged or of another format.
    pub async fn manifest(&self, digest: Digest) -> Result<Manifest, ObjectError> {
        let failed = |source| ObjectError::Store { digest, source };
        let got = self.store.get(&path_of(&digest)).await.map_err(failed)?;
        let bytes = got.meta.size;
        if bytes > MANIFEST_BYTES as u64 {
            return Err(ObjectError::ManifestTooLarge { digest, bytes });
        }
        let content = got.bytes().await.map_err(failed)?;
        Ok(Manifest::decode(&content, digest)?)
    }

    /// Writes one part of a checkpoint into `target`, whole and verified or not at all.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or the file cannot be written; `target` is untouched then.
    pub async fn fetch(
        &self,
        manifest: Digest,
        which: Which,
        target: &Path,
    ) -> Result<Manifest, ObjectError> {
        let checkpoint = self.manifest(manifest).await?;
        let part = match which {
            Which::Weights => checkpoint.weights,
            Which::State => checkpoint.state,
        };
        let write = |source| ObjectError::Write { path: target.to_owned(), source };
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let partial = tempfile::NamedTempFile::new_in(folder).map_err(write)?;
        self.copy(part, &partial, target).await?;
        partial.persist(target).map_err(|error| write(error.error))?;
        Ok(checkpoint)
    }

    /// The content of one part, piece by piece. The last piece comes only once the content has proved to be what its
    /// digest names; else an error comes in its place, so that nobody ends up with a damaged part unawares.
    ///
    /// # Errors
    /// When it cannot be opened; a piece, when it cannot be read or the content is damaged.
    pub async fn stream(
        &self,
        part: Part,
    ) -> Result<impl Stream<Item = Result<Bytes, ObjectError>> + Send + use<>, ObjectError> {
        let failed = move |source| ObjectError::Store { digest: part.digest, source };
        let content = self.store.get(&path_of(&part.digest)).await.map_err(failed)?.into_stream();
        let state = Verified { content, hasher: blake3::Hasher::new(), bytes: 0, held: None, ended: false };
        Ok(futures::stream::try_unfold(state, move |mut state| async move {
            while !state.ended {
                let Some(piece) = state.content.try_next().await.map_err(failed)? else {
                    state.ended = true;
                    let found = Digest(*state.hasher.finalize().as_bytes());
                    if found != part.digest || state.bytes != part.bytes {
                        return Err(ObjectError::Damaged { wanted: part.digest, found, bytes: state.bytes });
                    }
                    return Ok(state.held.take().map(|last| (last, state)));
                };
                state.bytes += piece.len() as u64;
                state.hasher.update(&piece);
                if let Some(before) = state.held.replace(piece) {
                    return Ok(Some((before, state)));
                }
            }
            Ok(None)
        }))
    }

    async fn copy(
        &self,
        part: Part,
        into: &tempfile::NamedTempFile,
        target: &Path,
    ) -> Result<(), ObjectError> {
        let failed = |source| ObjectError::Store { digest: part.digest, source };
        let write = |source| ObjectError::Write { path: target.to_owned(), source };
        let mut file = tokio::fs::File::from_std(into.reopen().map_err(write)?);
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        let mut content = self.store.get(&path_of(&part.digest)).await.map_err(failed)?.into_stream();
        while let Some(piece) = content.try_next().await.map_err(failed)? {
            bytes += piece.len() as u64;
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(write)?;
        }
        let found = Digest(*hasher.finalize().as_bytes());
        if found != part.digest || bytes != part.bytes {
            return Err(ObjectError::Damaged { wanted: part.digest, found, bytes });
        }
        file.sync_all().await.map_err(write)
    }

    /// Deletes objects to which nothing refers any more. One that is gone already is as good as deleted; one that
    /// resists [`DELETE_TRIES`] times is left behind with a warning: it costs disk, never a result.
    pub async fn delete(&self, digests: &[Digest]) {
        for digest in digests {
            let mut wait = DELETE_BACKOFF;
            for left in (0..DELETE_TRIES).rev() {
                match self.store.delete(&path_of(digest)).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => break,
                    Err(error) if left == 0 => tracing::warn!(%digest, %error, "an object is left behind"),
                    Err(_) => tokio::time::sleep(wait).await,
                }
                wait *= 2;
            }
        }
    }
}

/// A part on its way out.
struct Verified<S> {
    content: S,
    hasher: blake3::Hasher,
    bytes: u64,
    /// The newest piece, until there is a next or the content is verified.
    held: Option<Bytes>,
    ended: bool,
}

fn path_of(digest: &Digest) -> ObjectPath {
    ObjectPath::from(object_path(digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::checkpoint::MANIFEST_FORMAT;

    async fn put(objects: &Objects, content: &[u8]) -> Part {
        let digest = Digest::of(content);
        objects.store.put(&path_of(&digest), content.to_vec().into()).await.unwrap();
        Part { digest, bytes: content.len() as u64 }
    }

    async fn checkpoint(objects: &Objects) -> (Manifest, Digest) {
        let weights = put(objects, b"the weights").await;
        let state = put(objects, b"the state").await;
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            trial: "a/1".parse().unwrap(),
            step: 9,
            weights,
            state,
            so_far: None,
        };
        let (bytes, digest) = manifest.encode();
        put(objects, &bytes).await;
        (manifest, digest)
    }

    #[tokio::test]
    async fn a_checkpoint_is_fetched_whole_and_verified() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(&folder.path().join("objects")).unwrap();
        let (manifest, digest) = checkpoint(&objects).await;
        let target = folder.path().join("best.safetensors");
        assert_eq!(objects.fetch(digest, Which::Weights, &target).await.unwrap(), manifest);
        assert_eq!(std::fs::read(&target).unwrap(), b"the weights");
    }

    #[tokio::test]
    async fn a_damaged_or_missing_part_is_refused_and_the_target_is_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(&folder.path().join("objects")).unwrap();
        let (manifest, digest) = checkpoint(&objects).await;
        let target = folder.path().join("best.safetensors");
        std::fs::write(&target, "older").unwrap();
        let stored = folder.path().join("objects").join(object_path(&manifest.weights.digest));
        std::fs::write(&stored, "the weightz").unwrap();
        let error = objects.fetch(digest, Which::Weights, &target).await.unwrap_err();
        assert!(matches!(error, ObjectError::Damaged { .. }), "{error:?}");
        std::fs::remove_file(&stored).unwrap();
        let error = objects.fetch(digest, Which::Weights, &target).await.unwrap_err();
        assert_eq!(Problem::from(error).code, Code::NoCheckpoint);
        assert_eq!(std::fs::read(&target).unwrap(), b"older");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "no temporary file is left");
    }

    #[tokio::test]
    async fn a_streamed_part_ends_only_if_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(&folder.path().join("objects")).unwrap();
        let large: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        let part = put(&objects, &large).await;
        let pieces: Vec<Bytes> = objects.stream(part).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), large);
        let stored = folder.path().join("objects").join(object_path(&part.digest));
        let mut damaged = large.clone();
        damaged[3] ^= 1;
        std::fs::write(&stored, &damaged).unwrap();
        let mut stream = Box::pin(objects.stream(part).await.unwrap());
        let mut came = 0;
        let error = loop {
            match stream.try_next().await {
                Ok(Some(piece)) => came += piece.len(),
                Ok(None) => panic!("a damaged part ended in order"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ObjectError::Damaged { .. }), "{error:?}");
        assert!(came < large.len(), "the last piece is kept back");
    }

    #[tokio::test]
    async fn what_is_deleted_twice_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let (manifest, digest) = checkpoint(&objects).await;
        let all = [digest, manifest.weights.digest, manifest.state.digest];
        objects.delete(&all).await;
        objects.delete(&all).await;
        assert!(objects.manifest(digest).await.is_err());
    }
}
