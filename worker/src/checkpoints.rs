//! Checkpoints between files on this machine and the object store: stored whole or not at all, fetched verified.
//!
//! Parts go first, the manifest last, each under the digest of its content. In a local folder (`file://`) an
//! object is written beside its place, flushed to the disk, renamed, and its folder flushed too, before it
//! counts as stored (`LocalFileSystem::with_fsync`); object stores promise the same of themselves.

use crate::{attempt::CheckpointRef, speed::UploadSpeed};
use futures::StreamExt as _;
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutPayload, WriteMultipart, local::LocalFileSystem, path::Path as Key,
};
use spotsweep_proto::{
    checkpoint::{MANIFEST_BYTES, MANIFEST_FORMAT, Manifest, ManifestError, Part, object_path},
    digest::Digest,
    ids::TrialId,
    line::{CheckpointFiles, FailureKind},
};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt as _;

/// Files up to this size go in one request, larger ones in parts of this size, in bytes.
const CHUNK_BYTES: usize = 8 << 20;
/// Parts of one object that are under way at a time.
const PARTS_UNDER_WAY: usize = 4;

/// Why a checkpoint was not stored or fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{url:?} is not the URL of an object store")]
    Url {
        url: String,
        #[source]
        source: url::ParseError,
    },
    #[error(
        "the folder of the object store, {path}, is not on this machine\nhint: agents on other machines than the coordinator's need an object store that all of them reach"
    )]
    NoFolder {
        path: String,
        #[source]
        source: object_store::Error,
    },
    #[error("this agent cannot use an object store of the kind {url}")]
    Kind {
        url: String,
        #[source]
        source: object_store::Error,
    },
    #[error("the object store failed: {0}")]
    Objects(#[from] object_store::Error),
    #[error("the checkpoint file {path} cannot be read or written")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the manifest is of {found} and not of {wanted}")]
    Other { wanted: String, found: String },
    #[error("the object {wanted} is damaged: {found_bytes} bytes with the digest {found}")]
    Damaged { wanted: Digest, found: Digest, found_bytes: u64 },
    #[error("the manifest {manifest} has {bytes} bytes, more than are allowed")]
    ManifestSize { manifest: Digest, bytes: u64 },
    #[error("the object {digest} has {bytes} bytes, more than are allowed")]
    ObjectSize { digest: Digest, bytes: u64 },
}

impl StoreError {
    /// Whose fault it is: the checkpoint's, or that of disk and store.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Manifest(_)
            | Self::Other { .. }
            | Self::Damaged { .. }
            | Self::ManifestSize { .. }
            | Self::ObjectSize { .. }
            | Self::Objects(object_store::Error::NotFound { .. }) => FailureKind::Checkpoint,
            Self::Url { .. }
            | Self::NoFolder { .. }
            | Self::Kind { .. }
            | Self::Objects(_)
            | Self::File { .. } => FailureKind::Storage,
        }
    }

    /// The object whose content is not what its name says, if that is the error.
    pub(crate) fn damaged_object(&self) -> Option<Digest> {
        match self {
            Self::Damaged { wanted, .. } | Self::Manifest(ManifestError::Damaged { wanted, .. }) => {
                Some(*wanted)
            }
            Self::ManifestSize { manifest, .. } => Some(*manifest),
            Self::Manifest(ManifestError::Form(_) | ManifestError::Format { .. })
            | Self::Other { .. }
            | Self::ObjectSize { .. }
            | Self::Url { .. }
            | Self::NoFolder { .. }
            | Self::Kind { .. }
            | Self::Objects(_)
            | Self::File { .. } => None,
        }
    }
}

/// An object store for checkpoints.
#[derive(Debug)]
pub(crate) struct CheckpointStore {
    objects: Arc<dyn ObjectStore>,
    root: Key,
    speed: Mutex<UploadSpeed>,
}

impl CheckpointStore {
    /// Opens the store at a URL, for instance `file:///var/lib/spotsweep/objects`.
    pub(crate) fn open(text: &str) -> Result<Self, StoreError> {
        let url = url::Url::parse(text).map_err(|source| StoreError::Url { url: text.to_owned(), source })?;
        if url.scheme() == "file"
            && let Ok(folder) = url.to_file_path()
        {
            let objects = LocalFileSystem::new_with_prefix(&folder)
                .map_err(|source| StoreError::NoFolder { path: folder.display().to_string(), source })?;
            let (objects, root) = (Arc::new(objects.with_fsync(true)), Key::default());
            return Ok(Self { objects, root, speed: Mutex::default() });
        }
        let (objects, root) = object_store::parse_url(&url)
            .map_err(|source| StoreError::Kind { url: text.to_owned(), source })?;
        Ok(Self { objects: objects.into(), root, speed: Mutex::default() })
    }

    fn key(&self, digest: &Digest) -> Key {
        self.key_at(&object_path(digest))
    }

    fn key_at(&self, place: &str) -> Key {
        place.split('/').fold(self.root.clone(), |key, part| key.join(part))
    }

    /// Stores a checkpoint. When this returns it is whole and durable.
    pub(crate) async fn store(
        &self,
        trial: &TrialId,
        files: &CheckpointFiles,
        last: bool,
    ) -> Result<CheckpointRef, StoreError> {
        let since = Instant::now();
        let (weights, weights_sent) = self.store_file(&files.weights).await?;
        let (state, state_sent) = self.store_file(&files.state).await?;
        let (trial, so_far) = (trial.clone(), files.so_far.clone());
        let manifest = Manifest { format: MANIFEST_FORMAT, trial, step: files.step, weights, state, so_far };
        let (content, digest) = manifest.encode();
        let bytes = weights.bytes + state.bytes + content.len() as u64;
        if !self.has(&digest, content.len() as u64).await? {
            self.objects.put(&self.key(&digest), PutPayload::from(content)).await?;
        }
        if weights_sent && state_sent {
            self.observe(weights.bytes + state.bytes, since.elapsed());
        }
        let parts = vec![weights.digest, state.digest];
        Ok(CheckpointRef { step: files.step, manifest: digest, parts, bytes, last })
    }

    /// An upload of so many bytes took so long.
    pub(crate) fn observe(&self, bytes: u64, took: Duration) {
        self.speed.lock().unwrap_or_else(PoisonError::into_inner).observe(bytes, took);
    }

    /// Deletes an object that is of no use to anybody. One that stays is refused again by whoever fetches it.
    pub(crate) async fn discard(&self, digest: &Digest) {
        match self.objects.delete(&self.key(digest)).await {
            Ok(()) => tracing::warn!(%digest, "a damaged object is deleted"),
            Err(error) => tracing::warn!(%digest, %error, "a damaged object cannot be deleted"),
        }
    }

    /// So long storing `bytes` surely takes; `None` where nothing is known of that.
    pub(crate) fn surely(&self, bytes: u64) -> Option<Duration> {
        self.speed.lock().unwrap_or_else(PoisonError::into_inner).surely(bytes)
    }

    /// Whether an object is there already: equal content is stored once.
    async fn has(&self, digest: &Digest, bytes: u64) -> Result<bool, StoreError> {
        match self.objects.head(&self.key(digest)).await {
            Ok(meta) => Ok(meta.size == bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a file, and tells whether it was sent: an object that is there already is not.
    async fn store_file(&self, path: &Path) -> Result<(Part, bool), StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), source };
        let owned = path.to_owned();
        let read = tokio::task::spawn_blocking(move || digest_of_file(&owned)).await;
        let (part, content) = read.map_err(|error| failed(error.into()))?.map_err(failed)?;
        if self.has(&part.digest, part.bytes).await? {
            return Ok((part, false));
        }
        let key = self.key(&part.digest);
        match content {
            Some(content) => {
                self.objects.put(&key, PutPayload::from(content)).await?;
            }
            None => self.store_in_parts(&key, path).await?,
        }
        Ok((part, true))
    }

    async fn store_in_parts(&self, key: &Key, path: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), source };
        let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
        let upload = self.objects.put_multipart(key).await?;
        let mut write = WriteMultipart::new_with_chunk_size(upload, CHUNK_BYTES);
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let mut limited = tokio::io::AsyncReadExt::take(&mut file, CHUNK_BYTES as u64);
            let read = tokio::io::AsyncReadExt::read_to_end(&mut limited, &mut chunk).await;
            if let Err(error) = read {
                write.abort().await?;
                return Err(failed(error));
            }
            if chunk.is_empty() {
                break;
            }
            if let Err(error) = write.wait_for_capacity(PARTS_UNDER_WAY).await {
                write.abort().await?;
                return Err(error.into());
            }
            write.put(chunk.into());
        }
        write.finish().await?;
        Ok(())
    }

    /// Fetches a checkpoint into `folder` and verifies every byte.
    pub(crate) async fn fetch(
        &self,
        trial: &TrialId,
        checkpoint: &CheckpointRef,
        folder: &Path,
    ) -> Result<CheckpointFiles, StoreError> {
        let content = self.read_object(&checkpoint.manifest, MANIFEST_BYTES as u64).await?;
        let manifest = Manifest::decode(&content, checkpoint.manifest)?;
        if manifest.trial != *trial || manifest.step != checkpoint.step {
            return Err(StoreError::Other {
                wanted: format!("{trial} at step {}", checkpoint.step),
                found: format!("{} at step {}", manifest.trial, manifest.step),
            });
        }
        let weights = folder.join("resume-weights.safetensors");
        let state = folder.join("resume-state.safetensors");
        self.fetch_object(manifest.weights, &weights).await?;
        self.fetch_object(manifest.state, &state).await?;
        Ok(CheckpointFiles {
            so_far: manifest.so_far,
            ..CheckpointFiles::new(checkpoint.step, weights, state)
        })
    }

    /// Reads a small object, of at most `limit` bytes. What it is, the caller checks.
    pub(crate) async fn read_object(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let found = self.objects.get(&self.key(digest)).await?;
        if found.meta.size > limit {
            return Err(StoreError::ManifestSize { manifest: *digest, bytes: found.meta.size });
        }
        Ok(found.bytes().await?.into())
    }

    /// Fetches an object into a file and verifies every byte.
    pub(crate) async fn fetch_object(&self, part: Part, path: &Path) -> Result<(), StoreError> {
        self.fetch_from(&object_path(&part.digest), part, path).await
    }

    /// Length of what lies at `place` below the root of the store.
    pub(crate) async fn bytes_at(&self, place: &str) -> Result<u64, StoreError> {
        Ok(self.objects.head(&self.key_at(place)).await?.size)
    }

    /// As [`Self::fetch_from`], into a file that is there whole or not at all, whoever else fetches it and whatever breaks off.
    pub(crate) async fn keep_from(&self, place: &str, part: Part, path: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), source };
        let folder = path.parent().unwrap_or(Path::new("."));
        let partly = tempfile::Builder::new().prefix("part-").tempfile_in(folder).map_err(failed)?;
        self.fetch_from(place, part, partly.path()).await?;
        partly.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Fetches what lies at `place` below the root of the store, and verifies every byte.
    pub(crate) async fn fetch_from(&self, place: &str, part: Part, path: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::File { path: path.to_owned(), source };
        let mut content = self.objects.get(&self.key_at(place)).await?.into_stream();
        let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        let mut found_bytes = 0;
        while let Some(chunk) = content.next().await {
            let chunk = chunk?;
            hasher.update(&chunk);
            found_bytes += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        let found = Digest(*hasher.finalize().as_bytes());
        if found != part.digest || found_bytes != part.bytes {
            return Err(StoreError::Damaged { wanted: part.digest, found, found_bytes });
        }
        Ok(())
    }
}

/// Digest and length of a file, and its content if it is small.
fn digest_of_file(path: &Path) -> std::io::Result<(Part, Option<Vec<u8>>)> {
    let mut file = std::fs::File::open(path)?;
    let mut content = Vec::new();
    (&mut file).take(CHUNK_BYTES as u64 + 1).read_to_end(&mut content)?;
    if content.len() <= CHUNK_BYTES {
        let part = Part { digest: Digest::of(&content), bytes: content.len() as u64 };
        return Ok((part, Some(content)));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content);
    let mut bytes = content.len() as u64;
    content.resize(1 << 20, 0);
    loop {
        let read = file.read(&mut content)?;
        if read == 0 {
            return Ok((Part { digest: Digest(*hasher.finalize().as_bytes()), bytes }, None));
        }
        hasher.update(&content[..read]);
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path, weights: &[u8], state: &[u8]) -> CheckpointFiles {
        let (w, s) = (folder.join("w"), folder.join("s"));
        std::fs::write(&w, weights).unwrap();
        std::fs::write(&s, state).unwrap();
        CheckpointFiles::new(7, w, s)
    }

    fn objects(folder: &Path) -> Vec<PathBuf> {
        let below = |path: PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        below(folder.to_owned()).flat_map(below).collect()
    }

    fn store(folder: &Path) -> CheckpointStore {
        CheckpointStore::open(url::Url::from_directory_path(folder).unwrap().as_str()).unwrap()
    }

    #[tokio::test]
    async fn a_checkpoint_comes_back_byte_for_byte_and_equal_content_is_stored_once() {
        let (root, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store(root.path());
        let trial: TrialId = "a/1".parse().unwrap();
        // One that goes in one piece and one that goes in parts.
        let large: Vec<u8> = (0..2 * CHUNK_BYTES + 5).map(|i| (i * 31 % 251) as u8).collect();
        let stored = store.store(&trial, &files(scratch.path(), &large, b"state"), true).await.unwrap();
        assert_eq!(objects(root.path()).len(), 3);
        assert_eq!(stored.parts, [Digest::of(&large), Digest::of(b"state")]);
        let again = store.store(&trial, &files(scratch.path(), &large, b"state"), true).await.unwrap();
        assert_eq!(again, stored);
        let other: TrialId = "a/2".parse().unwrap();
        store.store(&other, &files(scratch.path(), &large, b"state"), true).await.unwrap();
        assert_eq!(objects(root.path()).len(), 4, "only the manifest differs");

        let fetched = store.fetch(&trial, &stored, scratch.path()).await.unwrap();
        assert_eq!(fetched.step, 7);
        assert!(std::fs::read(fetched.weights).unwrap() == large);
        assert_eq!(std::fs::read(fetched.state).unwrap(), b"state");
    }

    #[tokio::test]
    async fn an_object_that_is_altered_cut_or_missing_is_never_resumed_from() {
        let (root, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store(root.path());
        let trial: TrialId = "a/1".parse().unwrap();
        let stored = store.store(&trial, &files(scratch.path(), b"weights", b"state"), false).await.unwrap();
        for object in objects(root.path()) {
            let whole = std::fs::read(&object).unwrap();
            let mut altered = whole.clone();
            altered[0] ^= 1;
            for content in [Some(altered), Some(whole[..whole.len() - 1].to_vec()), Some(Vec::new()), None] {
                match content {
                    Some(content) => std::fs::write(&object, content).unwrap(),
                    None => std::fs::remove_file(&object).unwrap(),
                }
                let error = store.fetch(&trial, &stored, scratch.path()).await.unwrap_err();
                assert_eq!(error.kind(), FailureKind::Checkpoint, "{error}");
            }
            std::fs::write(&object, whole).unwrap();
        }
        store.fetch(&trial, &stored, scratch.path()).await.unwrap();
        let error = store.fetch(&"b/1".parse().unwrap(), &stored, scratch.path()).await.unwrap_err();
        assert_eq!(error.to_string(), "the manifest is of a/1 at step 7 and not of b/1 at step 7");
    }

    #[test]
    fn a_store_that_is_not_on_this_machine_is_refused_and_not_made() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("elsewhere");
        let error = CheckpointStore::open(&format!("file://{}", missing.display())).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Storage);
        assert!(error.to_string().contains("hint: "), "{error}");
        assert!(!missing.exists());
        for url in ["s3://bucket/x", "nonsense", "ftp://x/y"] {
            assert!(CheckpointStore::open(url).is_err(), "{url}");
        }
    }
}
