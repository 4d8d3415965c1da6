//! The code of a program: fetched once for each agent, unpacked anew for each attempt.

use crate::{attempt::Failure, checkpoints::CheckpointStore, errors::describe, scratch::Scratch};
use spotsweep_proto::{checkpoint::Part, line::FailureKind, program::Code};
use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Archives that are fetched at the same time have names of their own.
static FETCHES: AtomicU64 = AtomicU64::new(0);

fn storage(what: &str) -> impl Fn(String) -> Failure + use<'_> {
    move |error| Failure {
        kind: FailureKind::Storage,
        message: format!("the code of the sweep cannot be {what}: {error}"),
    }
}

/// Unpacks the code into the new folder `work`.
pub(crate) async fn unpack(
    store: &CheckpointStore,
    code: Code,
    scratch: &Scratch,
    work: PathBuf,
) -> Result<(), Failure> {
    let archive = scratch.path().join(format!("code-{}", code.digest));
    if !archive.exists() {
        fetch(store, code, &archive).await?;
    }
    let unpacked = tokio::task::spawn_blocking(move || {
        let file = File::open(&archive).map_err(|error| error.to_string())?;
        spotsweep_archive::unpack(BufReader::new(file), &work).map_err(|error| describe(&error))
    });
    unpacked.await.map_err(|error| error.to_string()).flatten().map_err(storage("unpacked"))
}

async fn fetch(store: &CheckpointStore, code: Code, archive: &Path) -> Result<(), Failure> {
    let number = FETCHES.fetch_add(1, Ordering::Relaxed);
    let partly = archive.with_extension(format!("part-{number}"));
    let part = Part { digest: code.digest, bytes: code.bytes };
    let fetched = store.fetch_from(&code.path(), part, &partly).await.map_err(|error| describe(&error));
    let kept = fetched.and_then(|()| fs::rename(&partly, archive).map_err(|error| error.to_string()));
    if kept.is_err() {
        // Whatever came of it; the agent's folder goes with the agent.
        let _removed = fs::remove_file(&partly);
    }
    kept.map_err(storage("fetched"))
}
