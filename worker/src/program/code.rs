//! The code of a program: fetched once for each agent, unpacked anew for each attempt.

use crate::{
    attempt::Failure,
    checkpoints::CheckpointStore,
    errors::describe,
    scratch::Scratch,
    trainer::retries::{GivenUp, with_retries},
};
use spotsweep_proto::{checkpoint::Part, line::FailureKind, program::Code};
use std::{fs::File, io::BufReader, path::PathBuf};

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
        let part = Part { digest: code.digest, bytes: code.bytes };
        let place = code.path();
        let fetched = with_retries("the code of the sweep", || store.keep_from(&place, part, &archive)).await;
        fetched.map_err(|GivenUp { message, .. }| storage("fetched")(message))?;
    }
    let unpacked = tokio::task::spawn_blocking(move || {
        let file = File::open(&archive).map_err(|error| error.to_string())?;
        spotsweep_archive::unpack(BufReader::new(file), &work).map_err(|error| describe(&error))
    });
    unpacked.await.map_err(|error| error.to_string()).flatten().map_err(storage("unpacked"))
}
