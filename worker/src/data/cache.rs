//! Pieces of added data sets on this machine: fetched, verified, shared by all agents of the machine, and let go again
//! when the cache is full.
//!
//! ```text
//! CACHE/lock                     held while files are linked or evicted; for moments
//! CACHE/pieces/HEX               verified objects, each under the digest of its content
//! CACHE/agents/ID/lock           held as long as that agent lives; the folder of a dead one is removed by the next
//! CACHE/agents/ID/MANIFEST/      what a trainer gets: manifest.json and hard links to its pieces
//! ```
//! A piece with more than one link is in somebody's hands and is never evicted; of the others, those go first that were
//! asked for longest ago. Nothing is believed without its hash: not what the store sends, and not what lies in the cache
//! when it is first linked.

use crate::{
    backoff::Backoff,
    checkpoints::{CheckpointStore, StoreError},
    scratch::Scratch,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::Error as ObjectError;
use spotsweep_proto::{
    datasets::manifest::{
        DATA_MANIFEST_BYTES, DataManifest, DataManifestError, DataPart, MANIFEST_FILE, Piece, pieces_for,
    },
    digest::Digest,
    line::FailureKind,
};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Pieces that are fetched at a time: the next ones come while one is verified.
const FETCHES: usize = 4;
/// Tries to fetch an object from a store that fails.
const TRIES: u32 = 5;
/// Longest wait before the second try; it doubles from try to try.
const BACKOFF: Duration = Duration::from_millis(400);
/// Longest wait of all.
const BACKOFF_LIMIT: Duration = Duration::from_secs(10);
/// Bytes that are hashed at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Why a data set is not on this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    /// The coordinator named no store.
    #[error(
        "the coordinator has no object store for added data sets\nhint: start it with SPOTSWEEP_DATA_STORE"
    )]
    NoStore,
    /// There is no folder for a cache.
    #[error("there is no folder for a cache of data\nhint: name one with --data-dir or SPOTSWEEP_DATA")]
    NoFolder,
    /// The store cannot be opened.
    #[error("the object store of data sets cannot be used")]
    Store(#[source] StoreError),
    /// The manifest cannot be had.
    #[error("the manifest {manifest} of the data set cannot be fetched")]
    NoManifest {
        manifest: Digest,
        #[source]
        source: Box<StoreError>,
    },
    /// The manifest cannot be believed.
    #[error(transparent)]
    Manifest(#[from] DataManifestError),
    /// A piece is missing, cut short or altered, or the store fails.
    #[error(
        "piece {place} of the data set ({part} samples {first} to {last}, object {digest}) cannot be fetched"
    )]
    Piece {
        place: usize,
        part: &'static str,
        first: u32,
        last: u32,
        digest: Digest,
        #[source]
        source: Box<StoreError>,
    },
    /// Not everything fits.
    #[error(
        "the cache of data is full: {needed} bytes more are needed, and of {limit} all that is left is in use\nhint: give it more with --data-cache-bytes"
    )]
    Full { needed: u64, limit: u64 },
    /// The file system refused something.
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A thread ended without a word.
    #[error("a thread that reads data ended without a word")]
    Thread,
}

impl CacheError {
    /// Whose fault it is: the data's, or that of disk and store.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Manifest(_) => FailureKind::Data,
            Self::NoManifest { source, .. } | Self::Piece { source, .. } if !is_transient(source) => {
                FailureKind::Data
            }
            Self::NoStore
            | Self::NoFolder
            | Self::Store(_)
            | Self::NoManifest { .. }
            | Self::Piece { .. }
            | Self::Full { .. }
            | Self::File { .. }
            | Self::Thread => FailureKind::Storage,
        }
    }

    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

/// Whether it may go better another time: the object itself is not what is wrong.
fn is_transient(error: &StoreError) -> bool {
    match error {
        StoreError::Objects(ObjectError::NotFound { .. })
        | StoreError::Damaged { .. }
        | StoreError::Manifest(_)
        | StoreError::Other { .. }
        | StoreError::ManifestSize { .. }
        | StoreError::ObjectSize { .. } => false,
        StoreError::Objects(_)
        | StoreError::Url { .. }
        | StoreError::NoFolder { .. }
        | StoreError::Kind { .. }
        | StoreError::File { .. } => true,
    }
}

/// Shards of a gang: which this worker carries, and of how many.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    pub(crate) carried: Vec<Range<u32>>,
    pub(crate) of: u32,
}

/// The cache of this machine, as one agent uses it.
#[derive(Debug)]
pub(crate) struct DataCache {
    root: PathBuf,
    limit_bytes: u64,
    /// One data set is fetched at a time.
    fetching: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// This agent's folder, gone when it leaves; the next agent removes what a killed one left.
    own: Option<Scratch>,
    views: HashMap<Digest, Uses>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Uses {
    jobs: usize,
    /// Whether its links were verified since something was last wrong with them.
    trusted: bool,
}

/// A data set in a trainer's hands; let go when dropped.
#[derive(Debug)]
pub(crate) struct View {
    cache: Arc<DataCache>,
    manifest: Digest,
    folder: PathBuf,
}

impl View {
    /// The folder with `manifest.json` and the pieces.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Something is wrong with it: it is verified before it is used again.
    pub(crate) fn distrust(&self) {
        if let Some(uses) = self.cache.state().views.get_mut(&self.manifest) {
            uses.trusted = false;
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(uses) = self.cache.state().views.get_mut(&self.manifest) {
            uses.jobs = uses.jobs.saturating_sub(1);
        }
    }
}

impl DataCache {
    /// The cache in `root`, which need not exist yet, with at most so many bytes of pieces.
    pub(crate) fn new(root: PathBuf, limit_bytes: u64) -> Self {
        Self { root, limit_bytes, fetching: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pieces(&self) -> PathBuf {
        self.root.join("pieces")
    }

    /// Makes a data set lie here: all of it, or what `shards` need. Verified, and kept until the view is dropped.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        store: &CheckpointStore,
        manifest: Digest,
        shards: Option<&Shards>,
    ) -> Result<View, CacheError> {
        let _one_at_a_time = self.fetching.lock().await;
        let folder = self.view_folder(manifest).await?;
        let view = View { cache: Arc::clone(self), manifest, folder };
        let trusted = {
            let mut state = self.state();
            let uses = state.views.entry(manifest).or_default();
            uses.jobs += 1;
            uses.trusted
        };
        let content = self.manifest(store, manifest).await?;
        let described = DataManifest::decode(&content, manifest)?;
        let wanted = match shards {
            Some(shards) => pieces_for(&described, &shards.carried, shards.of),
            None => (0..described.pieces.len()).collect(),
        };
        let pieces = wanted.into_iter().map(|place| {
            let (piece, view) = (described.pieces[place], &view);
            async move { self.have(store, place, piece, view, trusted).await }
        });
        stream::iter(pieces).buffer_unordered(FETCHES).try_collect::<Vec<()>>().await?;
        let path = view.folder.join(MANIFEST_FILE);
        let partial = view.folder.join(".manifest.partial");
        fs::write(&partial, &content).map_err(CacheError::file("write", &partial))?;
        fs::rename(&partial, &path).map_err(CacheError::file("write", &path))?;
        if let Some(uses) = self.state().views.get_mut(&manifest) {
            uses.trusted = true;
        }
        Ok(view)
    }

    /// The bytes of a manifest. Small, and fetched each time a trial begins: its content decides all else.
    async fn manifest(&self, store: &CheckpointStore, manifest: Digest) -> Result<Vec<u8>, CacheError> {
        let fetch = || store.read_object(&manifest, DATA_MANIFEST_BYTES as u64);
        retried(fetch).await.map_err(|source| CacheError::NoManifest { manifest, source: Box::new(source) })
    }

    /// Makes one piece lie in the view.
    async fn have(
        self: &Arc<Self>,
        store: &CheckpointStore,
        place: usize,
        piece: Piece,
        view: &View,
        trusted: bool,
    ) -> Result<(), CacheError> {
        let link = view.folder.join(piece.digest.to_string());
        if trusted && link.exists() {
            return Ok(());
        }
        let (cache, to) = (Arc::clone(self), link.clone());
        if blocking(move || cache.link_cached(piece, &to)).await? {
            return Ok(());
        }
        let own = view.folder.parent().unwrap_or(&self.root).to_owned();
        let partial =
            tempfile::NamedTempFile::new_in(&own).map_err(CacheError::file("create a file in", &own))?;
        let part = piece.object();
        let fetched = retried(|| store.fetch_object(part, partial.path())).await;
        fetched.map_err(|source| CacheError::Piece {
            place,
            part: match piece.part {
                DataPart::Train => "training",
                DataPart::Test => "test",
            },
            first: piece.first,
            last: piece.samples().end.saturating_sub(1),
            digest: piece.digest,
            source: Box::new(source),
        })?;
        let (cache, keep) = (Arc::clone(self), view.manifest);
        blocking(move || cache.publish(piece, &partial, &link, keep)).await
    }

    /// Links a cached piece into a view, if it is there and whole. A damaged one is removed.
    fn link_cached(&self, piece: Piece, link: &Path) -> Result<bool, CacheError> {
        let cached = self.pieces().join(piece.digest.to_string());
        {
            let _lock = self.lock()?;
            match fs::hard_link(&cached, link) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CacheError::file("link", &cached)(error)),
            }
        }
        // Not under the lock: in the view it cannot be evicted, and hashing takes a while.
        if digest_of(link, piece.bytes).map_err(CacheError::file("read", link))? == Some(piece.digest) {
            let file = File::open(link).map_err(CacheError::file("read", link))?;
            // Only the order of eviction depends on it.
            let _touched = file.set_modified(SystemTime::now());
            return Ok(true);
        }
        tracing::warn!(object = %piece.digest, "a piece in the cache of data is damaged: it is fetched anew");
        let _lock = self.lock()?;
        for path in [link, &cached] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CacheError::file("remove", path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Takes a verified file into the cache and links it into a view.
    fn publish(
        &self,
        piece: Piece,
        partial: &tempfile::NamedTempFile,
        link: &Path,
        keep: Digest,
    ) -> Result<(), CacheError> {
        let pieces = self.pieces();
        let cached = pieces.join(piece.digest.to_string());
        let _lock = self.lock()?;
        let source = if cached.exists() {
            // Another agent was faster, or the same content stands at two places of the data set.
            &cached
        } else {
            self.make_room(piece.bytes, keep)?;
            fs::hard_link(partial.path(), &cached).map_err(CacheError::file("create", &cached))?;
            partial.path()
        };
        match fs::hard_link(source, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(CacheError::file("create", link)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Evicts what is not in use until `bytes` more fit. The lock is held.
    fn make_room(&self, bytes: u64, keep: Digest) -> Result<(), CacheError> {
        if self.evict(bytes)? {
            return Ok(());
        }
        // Data sets of trials that have ended are linked still: another trial of the sweep may come.
        let mut state = self.state();
        let idle = |(digest, uses): (&Digest, &Uses)| (uses.jobs == 0 && *digest != keep).then_some(*digest);
        let idle: Vec<Digest> = state.views.iter().filter_map(idle).collect();
        for digest in idle {
            state.views.remove(&digest);
            if let Some(own) = &state.own {
                let folder = own.path().join(digest.to_string());
                fs::remove_dir_all(&folder).map_err(CacheError::file("remove", &folder))?;
            }
        }
        drop(state);
        if self.evict(bytes)? {
            return Ok(());
        }
        Err(CacheError::Full { needed: bytes, limit: self.limit_bytes })
    }

    /// Evicts until `bytes` more fit, if that can be.
    fn evict(&self, bytes: u64) -> Result<bool, CacheError> {
        let pieces = self.pieces();
        let mut total = bytes;
        let mut unused = Vec::new();
        for entry in fs::read_dir(&pieces).map_err(CacheError::file("read", &pieces))? {
            let entry = entry.map_err(CacheError::file("read", &pieces))?;
            let found = entry.metadata().map_err(CacheError::file("read", &pieces))?;
            total = total.saturating_add(found.len());
            if found.nlink() == 1 {
                unused.push((found.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path(), found.len()));
            }
        }
        unused.sort();
        for (_, path, length) in unused {
            if total <= self.limit_bytes {
                break;
            }
            fs::remove_file(&path).map_err(CacheError::file("remove", &path))?;
            total -= length;
        }
        Ok(total <= self.limit_bytes)
    }

    /// Held until dropped; the system drops it when this process ends, however it ends.
    fn lock(&self) -> Result<File, CacheError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(CacheError::file("create", &path))?;
        file.lock().map_err(CacheError::file("lock", &path))?;
        Ok(file)
    }

    /// The folder of a data set among this agent's own.
    async fn view_folder(self: &Arc<Self>, manifest: Digest) -> Result<PathBuf, CacheError> {
        let cache = Arc::clone(self);
        blocking(move || {
            let mut state = cache.state();
            let own = match &state.own {
                Some(own) => own.path().to_owned(),
                None => {
                    let pieces = cache.pieces();
                    fs::create_dir_all(&pieces).map_err(CacheError::file("create", &pieces))?;
                    let agents = cache.root.join("agents");
                    let own =
                        Scratch::new(&agents).map_err(CacheError::file("create a folder in", &agents))?;
                    let folder = own.path().to_owned();
                    state.own = Some(own);
                    folder
                }
            };
            let folder = own.join(manifest.to_string());
            fs::create_dir_all(&folder).map_err(CacheError::file("create", &folder))?;
            Ok(folder)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Result<T, CacheError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CacheError::Thread)?
}

/// Tries again while the store fails and the object is not what is wrong.
async fn retried<T, F: Future<Output = Result<T, StoreError>>>(
    fetch: impl Fn() -> F,
) -> Result<T, StoreError> {
    let mut waits = Backoff::new(BACKOFF, BACKOFF_LIMIT);
    for _ in 1..TRIES {
        match fetch().await {
            Err(error) if is_transient(&error) => {
                tracing::warn!(%error, "the object store of data sets fails: trying again");
                tokio::time::sleep(waits.next()).await;
            }
            outcome => return outcome,
        }
    }
    fetch().await
}

/// The digest of a file; `None` if it has not so many bytes.
fn digest_of(path: &Path, bytes: u64) -> io::Result<Option<Digest>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != bytes {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok(Some(Digest(*hasher.finalize().as_bytes())));
        }
        hasher.update(&block[..count]);
    }
}

#[cfg(test)]
mod tests;
