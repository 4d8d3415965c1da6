//! Which checkpoints are kept, and which objects nobody needs any more. Pure bookkeeping over digests: it
//! never sees the object store.
//!
//! An object is *condemned* when the last checkpoint that refers to it is dropped, and deleted
//! `delete_after_s` later, unless a new checkpoint refers to it before. The delay is for an agent that found
//! the object in the store (content is stored once), therefore did not upload it, and is about to report a
//! checkpoint that refers to it. If such a report comes after the deletion all the same, the checkpoint is
//! refused: the worker will write another.

use crate::{event::CheckpointRef, time::Time, trial::Kept};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{digest::Digest, metric::Goal};
use std::collections::{BTreeMap, BTreeSet};

/// Who refers to which object.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Objects {
    /// How many kept checkpoints refer to an object. Rebuilt from them after a restore.
    #[serde(skip)]
    references: BTreeMap<Digest, u32>,
    /// Objects that nothing refers to, until they are deleted.
    condemned: Timed,
    /// Objects that were deleted a moment ago, until that is long enough ago.
    deleted: Timed,
}

/// Digests, each with a time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Timed {
    times: BTreeMap<Digest, Time>,
    order: BTreeSet<(Time, Digest)>,
}

impl Timed {
    fn insert(&mut self, digest: Digest, time: Time) {
        self.remove(&digest);
        self.times.insert(digest, time);
        self.order.insert((time, digest));
    }

    fn remove(&mut self, digest: &Digest) {
        if let Some(time) = self.times.remove(digest) {
            self.order.remove(&(time, *digest));
        }
    }

    fn pop_due(&mut self, at: Time) -> Option<Digest> {
        let &(time, digest) = self.order.first()?;
        (time <= at).then(|| {
            self.remove(&digest);
            digest
        })
    }

    /// Moves every time to `time`, where that is later.
    fn postpone(&mut self, time: Time) {
        let early: Vec<Digest> =
            self.order.iter().take_while(|(t, _)| *t < time).map(|(_, digest)| *digest).collect();
        for digest in early {
            self.insert(digest, time);
        }
    }
}

fn digests(reference: &CheckpointRef) -> impl Iterator<Item = Digest> + '_ {
    std::iter::once(reference.manifest).chain(reference.parts.iter().copied())
}

impl Objects {
    /// Counts the references of a checkpoint that is kept already.
    pub(crate) fn count_kept(&mut self, reference: &CheckpointRef) {
        for digest in digests(reference) {
            *self.references.entry(digest).or_default() += 1;
        }
    }

    /// A checkpoint is to be kept. False, and nothing is kept, if an object of it has just been deleted.
    pub(crate) fn acquire(&mut self, reference: &CheckpointRef, delete_at: Time) -> bool {
        if digests(reference).any(|digest| self.deleted.times.contains_key(&digest)) {
            // Its other objects may be new, and a deleted one may have been written again.
            for digest in digests(reference) {
                if !self.references.contains_key(&digest) {
                    self.condemned.insert(digest, delete_at);
                }
            }
            return false;
        }
        for digest in digests(reference) {
            self.condemned.remove(&digest);
        }
        self.count_kept(reference);
        true
    }

    /// A checkpoint is kept no longer.
    pub(crate) fn release(&mut self, reference: &CheckpointRef, delete_at: Time) {
        for digest in digests(reference) {
            let Some(count) = self.references.get_mut(&digest) else {
                debug_assert!(false, "every kept reference is counted");
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.references.remove(&digest);
                self.condemned.insert(digest, delete_at);
            }
        }
    }

    /// Objects whose time has come, in a defined order. They count as deleted until `forget_at`.
    pub(crate) fn sweep_up(&mut self, at: Time, forget_at: Time) -> Vec<Digest> {
        while self.deleted.pop_due(at).is_some() {}
        let mut due = Vec::new();
        while let Some(digest) = self.condemned.pop_due(at) {
            self.deleted.insert(digest, forget_at);
            due.push(digest);
        }
        due
    }

    /// Agents may hold reports back that refer to objects which they found before: no delay ends before these.
    pub(crate) fn postpone(&mut self, delete_at: Time, forget_at: Time) {
        self.condemned.postpone(delete_at);
        self.deleted.postpone(forget_at);
    }

    /// When [`Self::sweep_up`] next has something to do.
    pub(crate) fn next_due(&self) -> Option<Time> {
        let times = [self.condemned.order.first(), self.deleted.order.first()];
        times.into_iter().flatten().map(|(time, _)| *time).min()
    }

    /// All counts, for checks.
    pub(crate) fn references(&self) -> &BTreeMap<Digest, u32> {
        &self.references
    }

    /// Objects that are to be deleted.
    pub(crate) fn condemned(&self) -> impl Iterator<Item = Digest> + '_ {
        self.condemned.times.keys().copied()
    }
}

/// Place of the best checkpoint: of equals the newest, because that one is kept anyway.
pub(crate) fn best_of(kept: &[Kept], goal: Goal) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, candidate) in kept.iter().enumerate() {
        if !candidate.value.is_nan() && best.is_none_or(|b| !goal.better(kept[b].value, candidate.value)) {
            best = Some(index);
        }
    }
    best
}

/// How far a trial is, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It may go on: the newest `keep_last` are kept, at least one.
    Open {
        /// How many.
        keep_last: u32,
    },
    /// It has its result: the final weights are kept, or the newest if it never said which are final.
    Completed,
    /// It ended otherwise: the newest are kept.
    Ended,
}

/// Takes out of `kept` (ascending by step) what need not be kept, and returns it. The best (where the sweep
/// has an objective) and the final weights always stay.
pub(crate) fn prune(kept: &mut Vec<Kept>, phase: Phase, goal: Option<Goal>) -> Vec<CheckpointRef> {
    let best = goal.and_then(|goal| best_of(kept, goal));
    let has_final = kept.iter().any(|k| k.reference.last);
    let newest = match phase {
        Phase::Open { keep_last } => (keep_last as usize).max(1),
        Phase::Completed => usize::from(!has_final),
        Phase::Ended => 1,
    };
    let first_newest = kept.len().saturating_sub(newest);
    let stays = |index: usize, k: &Kept| index >= first_newest || Some(index) == best || k.reference.last;
    if kept.iter().enumerate().all(|(index, k)| stays(index, k)) {
        return Vec::new();
    }
    let mut dropped = Vec::new();
    let mut index = 0;
    kept.retain(|k| {
        let stay = stays(index, k);
        index += 1;
        if !stay {
            dropped.push(k.reference.clone());
        }
        stay
    });
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: u64, parts: &[&str], last: bool) -> CheckpointRef {
        CheckpointRef {
            step,
            manifest: Digest::of(&step.to_le_bytes()),
            parts: parts.iter().map(|part| Digest::of(part.as_bytes())).collect(),
            bytes: 10,
            last,
        }
    }

    fn kept(values: &[(u64, f64)]) -> Vec<Kept> {
        values.iter().map(|&(step, value)| Kept { reference: checkpoint(step, &[], false), value }).collect()
    }

    fn steps(kept: &[Kept]) -> Vec<u64> {
        kept.iter().map(|k| k.reference.step).collect()
    }

    #[test]
    fn the_newest_and_the_best_are_kept_while_a_trial_runs() {
        let mut all = kept(&[(1, 0.9), (2, 0.5), (3, 0.6), (4, 0.7)]);
        let dropped = prune(&mut all, Phase::Open { keep_last: 2 }, Some(Goal::Maximize));
        assert_eq!(steps(&all), [1, 3, 4]);
        assert_eq!(dropped.len(), 1);
        let mut all = kept(&[(1, 0.9), (2, 0.5), (3, 0.6), (4, 0.7)]);
        prune(&mut all, Phase::Open { keep_last: 0 }, Some(Goal::Minimize));
        assert_eq!(steps(&all), [2, 4], "one is needed to go on from");
    }

    #[test]
    fn of_a_completed_trial_the_best_and_the_final_are_kept() {
        let mut all = kept(&[(1, 0.1), (2, 0.9), (3, f64::NAN), (4, 0.3)]);
        all[3].reference.last = true;
        prune(&mut all, Phase::Completed, Some(Goal::Maximize));
        assert_eq!(steps(&all), [2, 4]);
        let mut all = kept(&[(1, 0.1), (2, 0.9)]);
        prune(&mut all, Phase::Completed, None);
        assert_eq!(steps(&all), [2], "without a final one the newest stands for it");
    }

    #[test]
    fn an_object_is_deleted_only_when_nothing_has_referred_to_it_for_a_while() {
        let (a, b) = (checkpoint(1, &["shared", "own"], false), checkpoint(2, &["shared"], false));
        let mut objects = Objects::default();
        assert!(objects.acquire(&a, Time(0)) && objects.acquire(&b, Time(0)));
        objects.release(&a, Time(60));
        assert!(objects.sweep_up(Time(59), Time(119)).is_empty());
        let mut due = objects.sweep_up(Time(60), Time(120));
        due.sort();
        let mut expected = vec![a.manifest, Digest::of(b"own")];
        expected.sort();
        assert_eq!(due, expected);
    }

    #[test]
    fn a_condemned_object_that_is_referred_to_again_stays() {
        let a = checkpoint(1, &["w"], false);
        let mut objects = Objects::default();
        assert!(objects.acquire(&a, Time(0)));
        objects.release(&a, Time(60));
        assert!(objects.condemned().any(|digest| digest == a.manifest));
        assert!(objects.acquire(&a, Time(0)));
        assert!(objects.sweep_up(Time(1000), Time(2000)).is_empty());
    }

    #[test]
    fn a_checkpoint_of_an_object_just_deleted_is_refused_and_leaks_nothing() {
        let (a, b) = (checkpoint(1, &["w"], false), checkpoint(2, &["w"], false));
        let mut objects = Objects::default();
        assert!(objects.acquire(&a, Time(0)));
        objects.release(&a, Time(60));
        objects.sweep_up(Time(60), Time(120));
        assert!(!objects.acquire(&b, Time(130)));
        assert!(objects.sweep_up(Time(130), Time(190)).contains(&b.manifest));
        objects.sweep_up(Time(190), Time(250));
        assert!(objects.acquire(&b, Time(300)), "long after, the agent must have written it again");
    }
}
