//! The pieces of added data for a rank of a gang: fetched as soon as the agent knows which shards it carries, while its
//! trainer trains on or connects. What is fetched stays in the rank's hands until its job ends; what another make-up needs
//! comes on top. It must not talk to the trainer: that is the course's.

use crate::{
    checkpoints::CheckpointStore,
    data::cache::{CacheError, DataCache, Shards, View},
    gang::GangPlace,
};
use spotsweep_proto::digest::Digest;
use std::{ops::Range, sync::Arc};
use tokio::task::{JoinError, JoinHandle};

/// Fetches what one job needs of one data set.
#[derive(Debug)]
pub(crate) struct Supply {
    cache: Arc<DataCache>,
    store: Arc<CheckpointStore>,
    manifest: Digest,
    fetching: Option<Fetching>,
    /// Shards whose pieces lie here, and what keeps them.
    fetched: Vec<(Range<u32>, View)>,
}

#[derive(Debug)]
struct Fetching {
    shards: Range<u32>,
    task: JoinHandle<Result<View, CacheError>>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supply {
    pub(crate) fn new(cache: Arc<DataCache>, store: Arc<CheckpointStore>, manifest: Digest) -> Self {
        Self { cache, store, manifest, fetching: None, fetched: Vec::new() }
    }

    /// Begins to fetch what a rank needs in the make-up of `place`, unless it is here or on its way. What an older make-up
    /// needed and this one does not is no longer waited for.
    pub(crate) fn want(&mut self, place: &GangPlace) {
        let shards = place.rank.map_or(0..0, |rank| place.shares.of(rank));
        let fetching = self.fetching.as_ref().map(|fetching| &fetching.shards);
        if shards.is_empty() || fetching.into_iter().chain(self.here()).any(|have| covers(have, &shards)) {
            return;
        }
        let (cache, store, manifest) = (self.cache.clone(), self.store.clone(), self.manifest);
        let wanted = Shards { carried: vec![shards.clone()], of: place.shares.shards() };
        tracing::debug!(%manifest, shards = ?shards, of = wanted.of, "fetching the data of shards");
        let task = tokio::spawn(async move { cache.acquire(&store, manifest, Some(&wanted)).await });
        self.fetching = Some(Fetching { shards, task });
    }

    fn here(&self) -> impl Iterator<Item = &Range<u32>> {
        self.fetched.iter().map(|(shards, _)| shards)
    }

    /// Whether something is on its way.
    pub(crate) fn is_fetching(&self) -> bool {
        self.fetching.is_some()
    }

    /// Waits for what is on its way, for ever if nothing is: the shards whose pieces lie here now. Nothing is lost when the
    /// future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Range<u32>, CacheError> {
        let Some(fetching) = &mut self.fetching else { return std::future::pending().await };
        let outcome = (&mut fetching.task).await;
        let shards = fetching.shards.clone();
        self.fetching = None;
        let view = outcome.unwrap_or_else(|_: JoinError| Err(CacheError::Thread))?;
        self.fetched.push((shards.clone(), view));
        Ok(shards)
    }
}

fn covers(have: &Range<u32>, wanted: &Range<u32>) -> bool {
    have.start <= wanted.start && wanted.end <= have.end
}
