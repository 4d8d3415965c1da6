//! The object store as agents and the coordinator meet it: content by its digest, and hours in which nothing
//! answers. Must not decide who refers to what.

use spotsweep_engine::{Time, event::CheckpointRef};
use spotsweep_proto::digest::Digest;
use std::collections::BTreeSet;

/// Objects, and whether they can be reached.
#[derive(Default)]
pub(crate) struct Store {
    objects: BTreeSet<Digest>,
    down_until: Time,
}

impl Store {
    /// Every request fails until then.
    pub(crate) fn fail_until(&mut self, until: Time) {
        self.down_until = self.down_until.max(until);
    }

    pub(crate) fn answers(&self, now: Time) -> bool {
        self.down_until <= now
    }

    /// Writes what is not there already.
    pub(crate) fn put(&mut self, reference: &CheckpointRef) {
        self.objects.extend(reference.parts.iter().copied().chain([reference.manifest]));
    }

    /// How many objects of a checkpoint are not there.
    pub(crate) fn missing(&self, reference: &CheckpointRef) -> usize {
        let digests = reference.parts.iter().chain([&reference.manifest]);
        digests.filter(|digest| !self.objects.contains(*digest)).count()
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.objects.contains(digest)
    }

    /// Deletes them; where the store does not answer they stay, which costs space and breaks nothing.
    pub(crate) fn delete(&mut self, digests: &[Digest], now: Time) {
        if self.answers(now) {
            for digest in digests {
                self.objects.remove(digest);
            }
        }
    }
}
