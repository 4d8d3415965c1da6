//! Data sets that users have added: their object store, and the names that they have in it.
//!
//! Objects are pieces and manifests, each named by the BLAKE3 of its content (`spotsweep_proto::datasets::manifest`). A
//! name is a small object `data/NAME.json` that says which manifest it stands for; it is replaced in one go. Whoever
//! has a manifest's digest does not need the name any more. This must not print, and must not know the command line.

mod add;
mod arrange;
mod error;
mod pieces;
mod scale;
#[cfg(test)]
mod tests;

pub use add::{AddOptions, Added, Step, add};
pub use arrange::OrderChoice;
pub use error::SetError;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, local::LocalFileSystem,
    path::Path as Key,
};
use pieces::Content;
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    catalogue::nearest,
    checkpoint::object_path,
    datasets::{
        DATA_STORE_FOLDER, DATA_STORE_VARIABLE, DATA_VARIABLE, DataRef, DataSets, data_root,
        manifest::{DATA_MANIFEST_BYTES, DataManifest, DataManifestError, Piece},
        reference::set_name,
    },
    digest::Digest,
    ids::DataName,
};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

/// The folder of names in the store; no object's path begins so.
const NAMES: &str = "data";
/// Behind a name.
const ENTRY_SUFFIX: &str = ".json";
/// Version of [`Entry`].
const ENTRY_FORMAT: u32 = 1;
/// Largest entry that is read, in bytes.
const ENTRY_BYTES: u64 = 4096;
/// Folders that are flushed at a time.
const FOLDER_FLUSHES: usize = 8;
/// Most names that are listed.
const NAMES_LISTED: usize = 10_000;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    format: u32,
    manifest: Digest,
}

/// How a name came to stand for a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It is new.
    New,
    /// It stood for the same content.
    Same,
    /// It stood for this content before.
    Replaced(Digest),
}

/// An object store of data sets.
#[derive(Debug, Clone)]
pub struct SetStore {
    objects: Arc<dyn ObjectStore>,
    root: Key,
    url: String,
    /// Where it is on this machine, if it is a folder.
    folder: Option<PathBuf>,
}

/// What became of a piece that was to be written.
#[derive(Debug)]
enum Written {
    /// It was there.
    Before,
    /// It is there now.
    Now,
    /// It is written, and has to be flushed.
    Unflushed(pieces::Unflushed),
}

impl SetStore {
    /// The store at `place`: a URL, or a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`SetError::Place`] or [`SetError::Io`].
    pub fn open(place: &str) -> Result<Self, SetError> {
        let refused = |problem: String| SetError::Place { place: place.to_owned(), problem };
        let url = Self::locate(place)?;
        if url.scheme() != "file" {
            let (objects, root) =
                object_store::parse_url(&url).map_err(|error| refused(error.to_string()))?;
            return Ok(Self { objects: objects.into(), root, url: place.to_owned(), folder: None });
        }
        let folder = url.to_file_path().map_err(|()| refused("it is no path".to_owned()))?;
        std::fs::create_dir_all(&folder).map_err(SetError::io("create", &folder))?;
        let objects =
            LocalFileSystem::new_with_prefix(&folder).map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            objects: Arc::new(objects.with_fsync(true)),
            root: Key::default(),
            url: url.to_string(),
            folder: Some(folder),
        })
    }

    /// The URL of the store at `place`, which need not be there.
    ///
    /// # Errors
    /// [`SetError::Place`].
    pub fn url_of(place: &str) -> Result<String, SetError> {
        Self::locate(place).map(|url| url.to_string())
    }

    fn locate(place: &str) -> Result<url::Url, SetError> {
        let refused = |problem: String| SetError::Place { place: place.to_owned(), problem };
        match url::Url::parse(place) {
            Ok(url) => Ok(url),
            Err(_) => {
                let folder = std::path::absolute(place).map_err(|error| refused(error.to_string()))?;
                url::Url::from_directory_path(folder).map_err(|()| refused("it is no path".to_owned()))
            }
        }
    }

    /// The store at `place`; `None` where that is a folder that nobody has made yet.
    ///
    /// # Errors
    /// As [`SetStore::open`].
    pub fn existing(place: &str) -> Result<Option<Self>, SetError> {
        let url = Self::locate(place)?;
        match url.to_file_path() {
            Ok(folder) if url.scheme() == "file" && !folder.is_dir() => Ok(None),
            _ => Self::open(place).map(Some),
        }
    }

    /// The store that the environment names; `None` where there is none yet.
    ///
    /// # Errors
    /// As [`SetStore::open`].
    pub fn usual() -> Result<Option<Self>, SetError> {
        match Self::place(None) {
            Ok(place) => Self::existing(&place),
            Err(_) => Ok(None),
        }
    }

    /// Where data sets are stored on this machine: `given`, else the environment's `SPOTSWEEP_DATA_STORE`, else `store`
    /// in the folder of all data sets.
    ///
    /// # Errors
    /// [`SetError::NoPlace`] where nothing says it.
    pub fn place(given: Option<&str>) -> Result<String, SetError> {
        let value = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        if let Some(named) = value(DATA_STORE_VARIABLE) {
            return Ok(named.to_string_lossy().into_owned());
        }
        let (data, cache, home) = (value(DATA_VARIABLE), value("XDG_CACHE_HOME"), value("HOME"));
        let root: PathBuf =
            data_root(data.as_deref(), cache.as_deref(), home.as_deref()).ok_or(SetError::NoPlace)?;
        Ok(root.join(DATA_STORE_FOLDER).to_string_lossy().into_owned())
    }

    /// The URL by which agents find it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn object(&self, digest: &Digest) -> Key {
        object_path(digest).split('/').fold(self.root.clone(), |key, part| key.join(part))
    }

    fn entry(&self, name: &DataName) -> Key {
        self.root.clone().join(NAMES).join(format!("{name}{ENTRY_SUFFIX}"))
    }

    /// Stores an object, unless it is there, whole and unaltered; says whether it was stored.
    async fn put(&self, digest: Digest, content: impl Into<PutPayload>) -> Result<bool, SetError> {
        let (key, content) = (self.object(&digest), content.into());
        let there = match self.objects.head(&key).await {
            Ok(meta) if meta.size == content.content_length() as u64 => {
                self.read(&digest, meta.size).await? == Some(digest)
            }
            Ok(_) | Err(object_store::Error::NotFound { .. }) => false,
            Err(error) => return Err(SetError::store(format!("look for {digest}"))(error)),
        };
        if there {
            return Ok(false);
        }
        let put = self.objects.put(&key, content).await;
        put.map_err(SetError::store(format!("write {digest}")))?;
        Ok(true)
    }

    /// Writes a piece, unless it is there, whole and unaltered. It may be named only after [`SetStore::flushed`] and
    /// [`SetStore::flush_folders`].
    async fn write(&self, digest: Digest, content: Content) -> Result<Written, SetError> {
        let Some(folder) = self.folder.clone() else {
            let stored = self.put(digest, PutPayload::from_iter(content.parts)).await?;
            return Ok(if stored { Written::Now } else { Written::Before });
        };
        let written = blocking(move || pieces::write(&folder, digest, &content)).await?;
        Ok(written.map_or(Written::Before, Written::Unflushed))
    }

    /// Flushes a piece, if need be; says whether it was not there before.
    async fn flushed(&self, written: Written) -> Result<bool, SetError> {
        match written {
            Written::Before => Ok(false),
            Written::Now => Ok(true),
            Written::Unflushed(unflushed) => {
                blocking(move || pieces::flush(unflushed)).await?;
                Ok(true)
            }
        }
    }

    /// Makes the names of all pieces of a data set last, also of those that another process wrote just now.
    async fn flush_folders(&self, manifest: &DataManifest) -> Result<(), SetError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = |piece: &Piece| folder.join(object_path(&piece.digest));
        let within = manifest.pieces.iter().filter_map(|piece| Some(path(piece).parent()?.to_owned()));
        let folders: BTreeSet<PathBuf> = within.chain([folder.clone()]).collect();
        stream::iter(folders)
            .map(|folder| blocking(move || pieces::flush_folder(&folder)))
            .buffer_unordered(FOLDER_FLUSHES)
            .try_collect()
            .await
    }

    /// The digest of what lies at an object's place; `None` if nothing does, or not `bytes` of it, which is at most a piece.
    async fn read(&self, digest: &Digest, bytes: u64) -> Result<Option<Digest>, SetError> {
        let doing = || format!("read {digest}");
        let found = match self.objects.get(&self.object(digest)).await {
            Ok(found) if found.meta.size == bytes => found,
            Ok(_) | Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(SetError::store(doing())(error)),
        };
        // At once: a stream of a local store comes in blocks of 8 KiB, each by way of another thread.
        let content = found.bytes().await.map_err(SetError::store(doing()))?;
        Ok(Some(Digest::of(&content)))
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// It is missing, damaged, or of another format.
    pub async fn manifest(&self, digest: Digest) -> Result<DataManifest, SetError> {
        let doing = || format!("read the data manifest {digest}");
        let found = self.objects.get(&self.object(&digest)).await.map_err(SetError::store(doing()))?;
        let bytes = found.meta.size;
        if bytes > DATA_MANIFEST_BYTES as u64 {
            return Err(DataManifestError::TooLarge { bytes }.into());
        }
        let content = found.bytes().await.map_err(SetError::store(doing()))?;
        Ok(DataManifest::decode(&content, digest)?)
    }

    /// The manifest that a name stands for; `None` if it is free.
    ///
    /// # Errors
    /// The store fails, or the entry is damaged.
    pub async fn find(&self, name: &DataName) -> Result<Option<Digest>, SetError> {
        let doing = || format!("read the entry of {name}");
        let found = match self.objects.get(&self.entry(name)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(SetError::store(doing())(error)),
        };
        let damaged = |problem: String| SetError::Entry { name: name.to_string(), problem };
        if found.meta.size > ENTRY_BYTES {
            return Err(damaged(format!("it has {} bytes", found.meta.size)));
        }
        let content = found.bytes().await.map_err(SetError::store(doing()))?;
        let entry: Entry = serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
        if entry.format != ENTRY_FORMAT {
            return Err(damaged(format!(
                "it has format {}; this program reads {ENTRY_FORMAT}",
                entry.format
            )));
        }
        Ok(Some(entry.manifest))
    }

    /// All names, sorted.
    ///
    /// # Errors
    /// The store fails.
    pub async fn names(&self) -> Result<Vec<DataName>, SetError> {
        let folder = self.root.clone().join(NAMES);
        let listed = self.objects.list(Some(&folder));
        let listed: Vec<_> = listed.try_collect().await.map_err(SetError::store("list names"))?;
        let name = |meta: &object_store::ObjectMeta| {
            set_name(meta.location.filename()?.strip_suffix(ENTRY_SUFFIX)?).ok()
        };
        let mut names: Vec<DataName> = listed.iter().filter_map(name).take(NAMES_LISTED).collect();
        names.sort();
        Ok(names)
    }

    /// The manifest that the user means by a name or digest, and its digest.
    ///
    /// # Errors
    /// [`SetError::Unknown`] with the nearest name; or the store fails.
    pub async fn look_up(&self, asked: &DataRef) -> Result<(Digest, DataManifest), SetError> {
        let digest = match asked {
            DataRef::Pinned { manifest, .. } => *manifest,
            DataRef::Named(name) => match self.find(name).await? {
                Some(digest) => digest,
                None => {
                    let names = self.names().await?;
                    let near = nearest(name.as_str(), names.iter().map(DataName::as_str)).map(str::to_owned);
                    return Err(SetError::Unknown { name: name.to_string(), store: self.url.clone(), near });
                }
            },
        };
        Ok((digest, self.manifest(digest).await?))
    }

    /// What a sweep that asks for these may have. What is not there is left out, with all names for hints.
    ///
    /// # Errors
    /// The store fails, or what is there is damaged.
    pub async fn known(&self, asked: &BTreeSet<DataRef>) -> Result<DataSets, SetError> {
        let mut sets = DataSets::stored();
        for one in asked {
            match self.look_up(one).await {
                Ok((digest, manifest)) => sets.add(one, digest, manifest.facts()),
                Err(
                    SetError::Unknown { .. }
                    | SetError::Store { source: object_store::Error::NotFound { .. }, .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        sets.add_names(self.names().await?.iter().map(ToString::to_string));
        Ok(sets)
    }

    /// Gives a name to a manifest that is stored. A name with other content is left alone unless `replace`.
    ///
    /// # Errors
    /// [`SetError::Exists`], or the store fails.
    pub async fn register(
        &self,
        name: &DataName,
        manifest: Digest,
        replace: bool,
    ) -> Result<Registered, SetError> {
        let content = serde_json::to_vec(&Entry { format: ENTRY_FORMAT, manifest }).unwrap_or_default();
        let failed = |error| SetError::store(format!("write the entry of {name}"))(error);
        let before = match self.find(name).await {
            Err(SetError::Entry { .. }) if replace => Some(Digest([0; 32])),
            other => other?,
        };
        match before {
            Some(before) if before == manifest => return Ok(Registered::Same),
            Some(manifest) if !replace => {
                return Err(SetError::Exists { name: name.to_string(), manifest });
            }
            Some(before) => {
                self.objects.put(&self.entry(name), content.into()).await.map_err(failed)?;
                return Ok(Registered::Replaced(before));
            }
            None => {}
        }
        // Two that add the same name at once: one of them is told.
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&self.entry(name), content.into(), options).await {
            Ok(_) => Ok(Registered::New),
            Err(object_store::Error::AlreadyExists { .. }) => match self.find(name).await? {
                Some(found) if found == manifest => Ok(Registered::Same),
                found => {
                    Err(SetError::Exists { name: name.to_string(), manifest: found.unwrap_or(manifest) })
                }
            },
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads every piece and compares it with what its manifest says.
    ///
    /// # Errors
    /// [`SetError::Piece`] names the first that is missing, cut short or altered.
    pub async fn verify(
        &self,
        digest: Digest,
        mut verified: impl FnMut(u64),
    ) -> Result<DataManifest, SetError> {
        let manifest = self.manifest(digest).await?;
        for (place, piece) in manifest.pieces.iter().enumerate() {
            let problem = match self.read(&piece.digest, piece.bytes).await? {
                Some(found) if found == piece.digest => {
                    verified(piece.bytes);
                    continue;
                }
                Some(found) => format!("it is altered: its content has the digest {found}"),
                None => format!("it is missing, or has not its {} bytes", piece.bytes),
            };
            return Err(damaged(place, piece, problem));
        }
        Ok(manifest)
    }

    /// Removes a name, and with `purge` also the objects that no other name's data set has; says how many went.
    ///
    /// # Errors
    /// [`SetError::Unknown`], or the store fails; a purge that fails may be repeated under any name of the same content.
    pub async fn remove(&self, name: &DataName, purge: bool) -> Result<usize, SetError> {
        let asked = DataRef::Named(name.clone());
        let mut objects = BTreeSet::new();
        if purge {
            let (digest, manifest) = self.look_up(&asked).await?;
            objects.extend(manifest.pieces.iter().map(|piece| piece.digest).chain([digest]));
            for other in self.names().await?.into_iter().filter(|other| other != name) {
                let (digest, manifest) = self.look_up(&DataRef::Named(other)).await?;
                for kept in manifest.pieces.iter().map(|piece| piece.digest).chain([digest]) {
                    objects.remove(&kept);
                }
            }
        } else if self.find(name).await?.is_none() {
            self.look_up(&asked).await?;
        }
        let entry = self.entry(name);
        self.objects.delete(&entry).await.map_err(SetError::store(format!("remove the entry of {name}")))?;
        for digest in &objects {
            match self.objects.delete(&self.object(digest)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(SetError::store(format!("remove {digest}"))(error)),
            }
        }
        Ok(objects.len())
    }
}

/// Does something that waits for a disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SetError> + Send + 'static,
) -> Result<T, SetError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SetError::Thread)?
}

fn damaged(place: usize, piece: &Piece, problem: String) -> SetError {
    SetError::Piece {
        place,
        part: piece.part,
        first: piece.first,
        last: piece.first + piece.count.saturating_sub(1),
        digest: piece.digest,
        problem,
    }
}
