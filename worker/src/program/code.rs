//! The code of a program: fetched once for each agent, unpacked anew for each attempt.

use super::home::Unready;
use crate::{checkpoints::CheckpointStore, errors::describe, scratch::Scratch};
use spotsweep_proto::{checkpoint::Part, line::FailureKind, program::Code};
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Archives that are being fetched at the same time have names of their own.
static FETCHES: AtomicU64 = AtomicU64::new(0);

/// Unpacks the code into the new folder `work`.
pub(crate) async fn unpack(
    store: &CheckpointStore,
    code: Code,
    scratch: &Scratch,
    work: &Path,
) -> Result<(), Unready> {
    let archive = scratch.path().join(format!("code-{}", code.digest));
    if !archive.exists() {
        let fetch = FETCHES.fetch_add(1, Ordering::Relaxed);
        let part = archive.with_extension(format!("part-{fetch}"));
        let fetched = store.fetch_object(Part { digest: code.digest, bytes: code.bytes }, &part).await;
        fetched.map_err(|error| Unready {
            kind: FailureKind::Storage,
            message: format!("the code of the sweep could not be fetched: {}", describe(&error)),
        })?;
        std::fs::rename(&part, &archive).map_err(|error| Unready {
            kind: FailureKind::Storage,
            message: format!("the code of the sweep cannot be kept: {error}"),
        })?;
    }
    Ok(())
}
