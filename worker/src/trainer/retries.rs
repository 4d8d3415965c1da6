//! Trying again what the object store refused: with waits that grow, and an end. Knows nothing of what is tried.

use crate::{backoff::Backoff, checkpoints::StoreError, errors::describe};
use spotsweep_proto::line::FailureKind;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Tries where disk or store failed.
const TRIES: u32 = 5;
/// Tries where the content is wrong or missing: a second look tells a damaged transfer from a damaged object.
const LOOKS: u32 = 2;
/// One try takes no longer than this.
const TRY_LIMIT: Duration = Duration::from_secs(300);
/// Wait before the second try; grows from try to try.
const RETRY_BASE: Duration = Duration::from_millis(200);
/// Longest wait between tries.
const RETRY_LIMIT: Duration = Duration::from_secs(10);

/// Why it was given up.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    /// The error of the last try; none if that took too long.
    pub(crate) error: Option<StoreError>,
}

/// Tries until it works or [`TRIES`] failed, [`LOOKS`] where the checkpoint itself is at fault. `what` is for the
/// log.
pub(crate) async fn with_retries<T, F>(what: &str, attempt: impl FnMut() -> F) -> Result<T, GivenUp>
where
    F: Future<Output = Result<T, StoreError>>,
{
    retried(Backoff::new(RETRY_BASE, RETRY_LIMIT), TRY_LIMIT, what, attempt).await
}

async fn retried<T, F>(
    mut backoff: Backoff,
    try_limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, GivenUp>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        let given_up = match timeout(try_limit, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => GivenUp { kind: error.kind(), message: describe(&error), error: Some(error) },
            Err(_) => {
                let message = format!("it took longer than {} s", try_limit.as_secs());
                GivenUp { kind: FailureKind::Storage, message, error: None }
            }
        };
        let wait = backoff.next();
        let most = if given_up.kind == FailureKind::Checkpoint { LOOKS } else { TRIES };
        if backoff.failures() >= most {
            return Err(given_up);
        }
        tracing::warn!(what, message = %given_up.message, "the object store failed; trying again");
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::digest::Digest;
    use std::cell::Cell;

    fn at_once() -> Backoff {
        Backoff::new(Duration::ZERO, Duration::ZERO)
    }

    fn transient() -> StoreError {
        StoreError::File { path: "x".into(), source: std::io::Error::other("no luck") }
    }

    fn damaged() -> StoreError {
        StoreError::Damaged { wanted: Digest([0; 32]), found: Digest([1; 32]), found_bytes: 3 }
    }

    async fn tried(failures: u32, error: fn() -> StoreError) -> (Result<(), FailureKind>, u32) {
        let tries = Cell::new(0);
        let result = retried(at_once(), TRY_LIMIT, "a test", || async {
            tries.set(tries.get() + 1);
            if tries.get() > failures { Ok(()) } else { Err(error()) }
        });
        (result.await.map_err(|given_up| given_up.kind), tries.get())
    }

    #[tokio::test]
    async fn what_the_store_refused_is_tried_again_up_to_the_limit() {
        assert_eq!(tried(TRIES - 1, transient).await, (Ok(()), TRIES));
        assert_eq!(tried(u32::MAX, transient).await, (Err(FailureKind::Storage), TRIES));
    }

    #[tokio::test]
    async fn a_damaged_object_is_looked_at_twice() {
        assert_eq!(tried(LOOKS - 1, damaged).await, (Ok(()), LOOKS));
        assert_eq!(tried(u32::MAX, damaged).await, (Err(FailureKind::Checkpoint), LOOKS));
    }

    #[tokio::test]
    async fn a_try_that_hangs_counts_as_one_that_failed() {
        let result =
            retried(at_once(), Duration::ZERO, "a test", std::future::pending::<Result<(), StoreError>>)
                .await;
        assert_eq!(result.unwrap_err().kind, FailureKind::Storage);
    }
}
