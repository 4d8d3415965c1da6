//! Where the files of a job's data set lie on this machine. Looks for them; what is in them is the trainer's to
//! check.

pub(crate) mod cache;

use cache::DataCache;
use spotsweep_proto::{
    catalogue::datasets::NO_DATA,
    datasets::{DATA_CACHE_FOLDER, DATA_VARIABLE, DataFiles, DataRef, GZIP_SUFFIX, data_root},
    digest::Digest,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most bytes of added data sets that are kept on this machine, unless somebody says otherwise: 20 GiB.
pub const DATA_CACHE_BYTES: u64 = 20 << 30;

/// Where data sets are looked for.
#[derive(Debug, Clone)]
pub struct DataFolders {
    root: Option<PathBuf>,
    cache: Option<Arc<DataCache>>,
}

/// What was found for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// The job needs none, as far as the agent knows.
    None,
    /// The folder with the files.
    Folder(PathBuf),
    /// It was added by a user, and comes from the object store.
    Added(Digest),
    /// They are not here; the text says what to do. The trainer may do without or fail.
    Missing(String),
}

impl DataFolders {
    /// Below `root`, or where the environment says (`SPOTSWEEP_DATA`, else the user's cache).
    #[must_use]
    pub fn new(root: Option<PathBuf>) -> Self {
        let variable = |name| std::env::var_os(name);
        let (data, cache, home) = (variable(DATA_VARIABLE), variable("XDG_CACHE_HOME"), variable("HOME"));
        let root = root.or_else(|| data_root(data.as_deref(), cache.as_deref(), home.as_deref()));
        Self { root, cache: None }.with_cache_bytes(DATA_CACHE_BYTES)
    }

    /// With at most so many bytes of added data sets, in the folder `cache` below that of all data sets.
    #[must_use]
    pub fn with_cache_bytes(self, limit: u64) -> Self {
        let cache =
            self.root.as_ref().map(|root| Arc::new(DataCache::new(root.join(DATA_CACHE_FOLDER), limit)));
        Self { cache, ..self }
    }

    pub(crate) fn cache(&self) -> Option<&Arc<DataCache>> {
        self.cache.as_ref()
    }

    /// The data of a job: a parameter `data` overrides the sweep's.
    pub(crate) fn find(
        &self,
        train: &serde_json::Value,
        params: &serde_json::Map<String, serde_json::Value>,
    ) -> Data {
        let name = params.get("data").or_else(|| train.get("data")).and_then(serde_json::Value::as_str);
        let Some(name) = name.filter(|name| *name != NO_DATA) else { return Data::None };
        if let Some(manifest) = name.parse::<DataRef>().ok().and_then(|added| added.manifest()) {
            return Data::Added(manifest);
        }
        let Some(known) = DataFiles::named(name) else { return Data::None };
        let Some(root) = &self.root else {
            return Data::Missing(format!(
                "the data set {name} has no folder\nhint: name the folder of all data sets with --data-dir or {DATA_VARIABLE}"
            ));
        };
        // The folder of all data sets, or the one data set's own.
        for folder in [known.folder(root), root.clone()] {
            if known.files.iter().all(|file| is_there(&folder, file.name)) {
                return Data::Folder(folder);
            }
        }
        Data::Missing(format!(
            "the files of the data set {name} are not in {}\nhint: `spotsweep data get {name}` fetches them; --data-dir names another folder",
            known.folder(root).display()
        ))
    }
}

fn is_there(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file() || folder.join(format!("{name}{GZIP_SUFFIX}")).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(root: &Path, train: &serde_json::Value, params: &serde_json::Value) -> Data {
        DataFolders::new(Some(root.to_owned())).find(train, params.as_object().unwrap())
    }

    #[test]
    fn a_data_set_is_found_with_its_files_packed_or_not() {
        let root = tempfile::tempdir().unwrap();
        let train = json!({"data": "mnist"});
        let missing = find(root.path(), &train, &json!({}));
        assert!(
            matches!(&missing, Data::Missing(text) if text.contains("spotsweep data get mnist")),
            "{missing:?}"
        );
        let folder = root.path().join("mnist");
        std::fs::create_dir(&folder).unwrap();
        for (number, file) in DataFiles::named("mnist").unwrap().files.iter().enumerate() {
            assert!(matches!(find(root.path(), &train, &json!({})), Data::Missing(_)));
            let suffix = if number % 2 == 0 { "" } else { GZIP_SUFFIX };
            std::fs::write(folder.join(format!("{}{suffix}", file.name)), "").unwrap();
        }
        assert_eq!(find(root.path(), &train, &json!({})), Data::Folder(folder.clone()));
        assert_eq!(find(&folder, &json!({}), &json!({"data": "mnist"})), Data::Folder(folder));
        assert!(matches!(find(root.path(), &train, &json!({"data": "fashion-mnist"})), Data::Missing(_)));
    }

    #[test]
    fn a_job_without_data_needs_no_folder() {
        let root = Path::new("/nowhere");
        assert_eq!(find(root, &json!({}), &json!({})), Data::None);
        assert_eq!(find(root, &json!({"data": null}), &json!({})), Data::None);
        assert_eq!(find(root, &json!({"data": "mnist"}), &json!({"data": NO_DATA})), Data::None);
    }
}
