//! A job that is a rank of a gang: which make-up its trainer was told of last, and when its silence means nothing. Pure.

use crate::gang::GangPlace;
use spotsweep_proto::gang::{Generation, Roster};
use std::time::Duration;

/// The gang of one job.
#[derive(Debug)]
pub(crate) struct Gang {
    place: GangPlace,
    address: String,
    timeout: Duration,
    /// The newest make-up is broken: the rank waits for the next one.
    waiting: bool,
}

impl Gang {
    /// In the make-up of `place`, reached by its peers at `address`.
    pub(crate) fn new(place: GangPlace, address: String, timeout: Duration) -> Self {
        Self { place, address, timeout, waiting: false }
    }

    /// What the trainer is told.
    pub(crate) fn roster(&self) -> Roster {
        self.place.roster(&self.address, self.timeout)
    }

    /// Its place in the newest make-up.
    pub(crate) fn place(&self) -> &GangPlace {
        &self.place
    }

    /// The newest make-up.
    pub(crate) fn generation(&self) -> Generation {
        self.place.generation
    }

    /// A new make-up; gives what the trainer is told, unless it is none newer.
    pub(crate) fn change(&mut self, place: GangPlace) -> Option<Roster> {
        if place.generation <= self.place.generation {
            return None;
        }
        (self.place, self.waiting) = (place, false);
        Some(self.roster())
    }

    /// The rank says that a make-up is broken. It waits for the next, unless it was told of that before.
    pub(crate) fn broke(&mut self, generation: Generation) {
        self.waiting |= generation == self.place.generation;
    }

    /// Which of how many, for people.
    pub(crate) fn name(&self) -> String {
        let ranks = self.place.shares.ranks();
        self.place
            .rank
            .map_or_else(|| format!("one of {ranks} ranks"), |rank| format!("rank {rank} of {ranks}"))
    }

    /// Whether it is the first, and others are beside it.
    pub(crate) fn is_first_of_several(&self) -> bool {
        self.place.rank == Some(0) && self.place.has_peers()
    }

    /// Whether it was told to leave.
    pub(crate) fn leaves(&self) -> bool {
        self.place.rank.is_none()
    }

    /// Whether it is the one that writes checkpoints, and can.
    pub(crate) fn keeps_checkpoints(&self) -> bool {
        self.place.rank == Some(0) && !self.waiting
    }

    /// Whether it may be silent for any time behind `step` of `total_steps`: it waits for a new make-up, or holds its
    /// state at the end until it is told to stop.
    pub(crate) fn may_be_silent(&self, step: u64, total_steps: Option<u64>) -> bool {
        let ended = total_steps.is_some_and(|total| step >= total);
        self.waiting || (ended && self.place.rank.is_some_and(|rank| rank > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::gang::Shares;

    fn place(generation: u64, rank: Option<u32>) -> GangPlace {
        GangPlace { generation: Generation(generation), rank, shares: Shares::even(4, 2) }
    }

    fn gang(rank: Option<u32>) -> Gang {
        Gang::new(place(3, rank), "127.0.0.1".to_owned(), Duration::from_secs(10))
    }

    #[test]
    fn only_a_newer_make_up_is_told_to_the_trainer() {
        let mut gang = gang(Some(1));
        assert_eq!(gang.change(place(3, Some(0))), None);
        assert_eq!(gang.change(place(2, Some(0))), None);
        let roster = gang.change(place(5, Some(0))).unwrap();
        assert_eq!((roster.generation, roster.rank), (Generation(5), Some(0)));
        assert_eq!((roster.address.as_str(), roster.timeout_ms), ("127.0.0.1", 10_000));
        assert!(!gang.leaves());
        gang.change(place(6, None));
        assert!(gang.leaves());
    }

    #[test]
    fn a_rank_that_waits_for_a_make_up_or_holds_its_state_at_the_end_does_not_hang() {
        let mut other = gang(Some(1));
        assert!(!other.may_be_silent(9, Some(10)));
        assert!(other.may_be_silent(10, Some(10)));
        assert!(!other.may_be_silent(10, None));
        other.broke(Generation(3));
        assert!(other.may_be_silent(4, Some(10)) && !other.keeps_checkpoints());
        other.change(place(4, Some(1)));
        assert!(!other.may_be_silent(4, Some(10)));
        other.broke(Generation(3));
        assert!(!other.may_be_silent(4, Some(10)), "the next make-up was on its way");
        assert!(!gang(Some(0)).may_be_silent(10, Some(10)), "the first rank has still to say done");
    }
}
