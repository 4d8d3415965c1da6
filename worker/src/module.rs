//! The TorchScript module that is a job's model: fetched once for each agent, and verified before each job. What is in it is the
//! trainer's to check.

use crate::{
    attempt::Failure,
    checkpoints::{CheckpointStore, StoreError},
    scratch::Scratch,
    trainer::retries::{GivenUp, with_retries},
};
use serde_json::{Map, Value};
use spotsweep_proto::{
    catalogue::canonical,
    checkpoint::Part,
    digest::Digest,
    ids::ParameterName,
    line::FailureKind,
    module::{MODULE_BYTES, MODULE_SUFFIX, ModuleRef},
    program::Code,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// The module of a job, if that is its model: a parameter `model` overrides the sweep's.
pub(crate) fn of_job(train: &Value, params: &Map<String, Value>) -> Option<ModuleRef> {
    let is_model = |name: &str| ParameterName::new(name).is_ok_and(|name| canonical(&name) == "model");
    let chosen = params.iter().find(|(name, _)| is_model(name)).map(|(_, value)| value);
    let name = chosen.or_else(|| train.get("model"))?.as_str()?;
    ModuleRef::is_meant_by(name).then(|| name.parse().ok()).flatten()
}

/// Makes a module lie in the agent's folder.
///
/// # Errors
/// [`FailureKind::Data`] if the object is missing or altered, [`FailureKind::Storage`] if disk or store fail.
pub(crate) async fn have(
    store: &CheckpointStore,
    module: &ModuleRef,
    scratch: &Scratch,
) -> Result<PathBuf, Failure> {
    let file = module.file();
    let Some(digest) = module.digest() else {
        let message = format!("the coordinator sent the module {file} without its digest");
        return Err(Failure { kind: FailureKind::Internal, message });
    };
    let path = scratch.path().join(format!("module-{digest}{MODULE_SUFFIX}"));
    let known = path.clone();
    let is_whole = tokio::task::spawn_blocking(move || digest_of(&known) == Some(digest)).await;
    if is_whole.unwrap_or(false) {
        return Ok(path);
    }
    let fetched = with_retries(&format!("the module {file}"), || fetch(store, digest, &path)).await;
    fetched.map(|()| path).map_err(|GivenUp { kind, message, .. }| Failure {
        // To the store, what is missing or damaged is a checkpoint.
        kind: if kind == FailureKind::Checkpoint { FailureKind::Data } else { kind },
        message: format!("the module {file} cannot be fetched: {message}"),
    })
}

async fn fetch(store: &CheckpointStore, digest: Digest, path: &Path) -> Result<(), StoreError> {
    let place = Code::path_of(&digest);
    let bytes = store.bytes_at(&place).await?;
    if bytes > MODULE_BYTES {
        return Err(StoreError::ObjectSize { digest, bytes });
    }
    store.keep_from(&place, Part { digest, bytes }, path).await
}

/// The digest of a file, if it is there and can be read.
fn digest_of(path: &Path) -> Option<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).ok()?).ok()?;
    Some(Digest(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn the_module_of_a_job_is_its_parameters_or_else_its_sweeps() {
        let pinned = format!("a.pt@blake3:{}", Digest::of(b"a"));
        let find = |train: Value, params: Value| of_job(&train, params.as_object().unwrap());
        assert_eq!(find(json!({"model": pinned}), json!({})).unwrap().to_string(), pinned);
        assert_eq!(find(json!({"model": pinned}), json!({"model": "mlp"})), None);
        assert_eq!(find(json!({"model": null}), json!({"net.model": "b.pt"})).unwrap().file(), "b.pt");
        assert_eq!(find(json!({}), json!({"model": 3})), None);
    }

    #[tokio::test]
    async fn a_module_is_fetched_once_and_an_altered_one_anew_or_not_at_all() {
        let (root, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let scratch = Scratch::new(own.path()).unwrap();
        let store =
            CheckpointStore::open(url::Url::from_directory_path(root.path()).unwrap().as_str()).unwrap();
        let module: ModuleRef = "net.pt".parse().unwrap();
        assert_eq!(have(&store, &module, &scratch).await.unwrap_err().kind, FailureKind::Internal);

        let code = Code { digest: Digest::of(b"module"), bytes: 6 };
        let module = module.pinned(code.digest);
        let object = root.path().join(code.path());
        let missing = have(&store, &module, &scratch).await.unwrap_err();
        assert_eq!(missing.kind, FailureKind::Data, "{}", missing.message);
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(&object, b"modulf").unwrap();
        let altered = have(&store, &module, &scratch).await.unwrap_err();
        assert_eq!(altered.kind, FailureKind::Data, "{}", altered.message);
        assert!(
            altered.message.contains("net.pt") && altered.message.contains("damaged"),
            "{}",
            altered.message
        );
        let left = fs::read_dir(scratch.path()).unwrap().flatten();
        assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("module-")));

        fs::write(&object, b"module").unwrap();
        let path = have(&store, &module, &scratch).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"module");
        fs::remove_file(&object).unwrap();
        assert_eq!(have(&store, &module, &scratch).await.unwrap(), path, "it is here");
        fs::write(&object, b"module").unwrap();
        fs::write(&path, b"modulg").unwrap();
        have(&store, &module, &scratch).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"module");
    }
}
