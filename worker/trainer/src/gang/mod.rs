//! A rank's life in a gang: which make-up it is in, which comes next, and when all change over.
//!
//! The order in which contributions are added up is in [`tree`], how they travel in [`exchange`], how a state travels
//! in [`state`], and what carries it in [`backend`]. It must not know models, data or optimizers: what is trained is the session's.

pub mod backend;
pub mod exchange;
pub mod state;
pub mod tree;

use crate::job::Host;
use spotsweep_proto::gang::{Generation, Roster, STORE_KEY_BYTES, STORE_VALUE_BYTES, StoreOp, StoreValue};
use spotsweep_trainer_shim::Rendezvous;
use std::{ops::Range, time::Duration};

/// Where a rank stands among make-ups.
#[derive(Debug)]
pub struct Gang {
    /// The present make-up.
    pub roster: Roster,
    next: Option<Next>,
}

/// The newest make-up that was told of and is not yet changed over to.
#[derive(Debug)]
struct Next {
    roster: Roster,
    /// Numbers of the questions whether its ranks are ready, as far as they are not answered.
    unready: Vec<u64>,
    /// What this rank has yet to tell the others of it: that it is ready.
    untold: Option<StoreOp>,
}

impl Gang {
    /// In `roster`.
    #[must_use]
    pub fn new(roster: Roster) -> Self {
        Self { roster, next: None }
    }

    /// Takes note of a make-up. `None` if it is not newer than all others; otherwise what there is to be asked of its
    /// store by rank `rank` of the present make-up: whether everybody is ready to connect, so
    /// that nobody waits for one that still reads its data. Rank 0 asks for all, the others change over with it.
    pub fn offer(&mut self, roster: Roster, rank: u32) -> Option<Questions> {
        let newest = self.next.as_ref().map_or(self.roster.generation, |next| next.roster.generation);
        if roster.generation <= newest {
            return None;
        }
        let asks = if rank == 0 { 0..roster.shares.ranks() } else { 0..0 };
        let questions = Questions {
            generation: roster.generation,
            ask: asks.map(|rank| StoreOp::Get { key: ready_key(rank) }).collect(),
        };
        let untold = roster.rank.map(ready);
        self.next = Some(Next { roster, unready: Vec::new(), untold });
        Some(questions)
    }

    /// The shards of this rank: in the present make-up, and in the newest that it was told of.
    #[must_use]
    pub fn shards(&self) -> [Range<u32>; 2] {
        let of = |roster: &Roster| roster.rank.map_or(0..0, |rank| roster.shares.of(rank));
        [of(&self.roster), self.next.as_ref().map_or(0..0, |next| of(&next.roster))]
    }

    /// What to tell the store of the newest make-up now that this rank has all that it needs there, unless it is told.
    pub fn take_ready(&mut self) -> Option<(Generation, StoreOp)> {
        let next = self.next.as_mut()?;
        Some((next.roster.generation, next.untold.take()?))
    }

    /// Skips the present make-up, in which this rank has met nobody yet, if `roster` is newer.
    pub fn skip_to(&mut self, roster: Roster) {
        if roster.generation > self.roster.generation {
            (self.roster, self.next) = (roster, None);
        }
    }

    /// The newest make-up is not to be changed over to before this question is answered.
    pub fn wait_for(&mut self, id: u64) {
        if let Some(next) = &mut self.next {
            next.unready.push(id);
        }
    }

    /// The question is answered.
    pub fn answered(&mut self, id: u64) {
        if let Some(next) = &mut self.next {
            next.unready.retain(|unready| *unready != id);
        }
    }

    /// What this rank tells the others with each step: how far the newest make-up that it knows is ahead of the present
    /// one; 0 if it knows of none, or somebody there is not ready.
    #[must_use]
    pub fn news(&self) -> f32 {
        match &self.next {
            // Make-ups that wait at once are few: exact in f32.
            Some(next) if next.unready.is_empty() => {
                (next.roster.generation.0 - self.roster.generation.0) as f32
            }
            Some(_) | None => 0.0,
        }
    }

    /// Whether every rank has told of the same newer make-up, so that all change over behind this step.
    #[must_use]
    pub fn is_agreed(&self, news: &[f32]) -> bool {
        let ranks = self.roster.shares.ranks() as usize;
        self.news() > 0.0 && news.iter().take(ranks).all(|theirs| *theirs == self.news())
    }

    /// Changes over to the newest make-up, if there is one.
    pub fn change(&mut self) -> bool {
        match self.next.take() {
            Some(next) => {
                self.roster = next.roster;
                true
            }
            None => false,
        }
    }
}

/// What a rank asks the store of a make-up that it is told of.
#[derive(Debug)]
pub struct Questions {
    /// Whose store.
    pub generation: Generation,
    /// To be waited for.
    pub ask: Vec<StoreOp>,
}

/// Says that rank `rank` is ready to connect.
#[must_use]
pub fn ready(rank: u32) -> StoreOp {
    StoreOp::Set { key: ready_key(rank), value: StoreValue::default() }
}

/// Set when a rank connects.
const CONNECTS: &str = "connects";

/// Says that ranks of this make-up connect already, so that nobody prepares for longer.
#[must_use]
pub fn connects() -> StoreOp {
    StoreOp::Set { key: CONNECTS.to_owned(), value: StoreValue::default() }
}

/// Asks to be told that ranks of this make-up connect.
#[must_use]
pub fn whether_they_connect() -> StoreOp {
    StoreOp::Get { key: CONNECTS.to_owned() }
}

fn ready_key(rank: u32) -> String {
    format!("ready/{rank}")
}

/// The rendezvous store of one generation, asked through the host.
pub struct HostStore<'a> {
    /// Whom to ask.
    pub host: &'a mut dyn Host,
    /// Whose store.
    pub generation: Generation,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

impl HostStore<'_> {
    fn ask(&mut self, key: &str, op: StoreOp) -> Result<StoreValue, String> {
        if key.len() > STORE_KEY_BYTES {
            return Err(format!("a key of {} bytes; {STORE_KEY_BYTES} are allowed", key.len()));
        }
        self.host.ask(self.generation, op, self.timeout)
    }
}

impl Rendezvous for HostStore<'_> {
    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        if value.len() > STORE_VALUE_BYTES {
            return Err(format!("a value of {} bytes; {STORE_VALUE_BYTES} are allowed", value.len()));
        }
        let op = StoreOp::Set { key: key.to_owned(), value: StoreValue(value.to_vec()) };
        self.ask(key, op).map(drop)
    }

    fn get(&mut self, key: &str) -> Result<Vec<u8>, String> {
        self.ask(key, StoreOp::Get { key: key.to_owned() }).map(|value| value.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::gang::Shares;

    fn roster(generation: u64, ranks: u32) -> Roster {
        Roster {
            generation: Generation(generation),
            rank: Some(0),
            shares: Shares::even(4, ranks),
            address: "127.0.0.1".to_owned(),
            timeout_ms: 1000,
        }
    }

    #[test]
    fn a_gang_changes_over_only_when_every_rank_knows_the_same_newer_make_up() {
        let mut gang = Gang::new(roster(3, 2));
        assert!(gang.offer(roster(3, 4), 1).is_none());
        assert!(gang.offer(roster(2, 4), 1).is_none());
        assert!(!gang.is_agreed(&[0.0, 0.0, 0.0, 0.0]) && !gang.change());
        assert!(gang.offer(roster(5, 4), 1).is_some_and(|questions| questions.ask.is_empty()));
        assert!(gang.offer(roster(4, 1), 1).is_none());
        assert_eq!(gang.news(), 2.0);
        for (news, agreed) in
            [([2.0, 2.0, 0.0, 0.0], true), ([2.0, 1.0, 0.0, 0.0], false), ([2.0, 0.0, 2.0, 2.0], false)]
        {
            assert_eq!(gang.is_agreed(&news), agreed);
        }
        assert!(gang.change());
        assert_eq!((gang.roster.generation, gang.news()), (Generation(5), 0.0));
    }

    #[test]
    fn rank_0_holds_the_others_back_until_every_rank_of_the_next_make_up_is_ready() {
        let mut gang = Gang::new(roster(1, 1));
        assert_eq!(gang.offer(roster(2, 2), 0).unwrap().ask.len(), 2);
        gang.wait_for(7);
        gang.wait_for(8);
        gang.answered(8);
        assert!(!gang.is_agreed(&[gang.news()]));
        gang.answered(7);
        assert!(gang.is_agreed(&[gang.news()]));
    }

    #[test]
    fn a_rank_says_once_that_it_is_ready_and_only_for_the_newest_make_up_that_it_is_in() {
        let mut gang = Gang::new(roster(1, 2));
        assert_eq!(gang.take_ready(), None);
        let own = |roster: &Roster| roster.shares.of(roster.rank.unwrap());
        gang.offer(roster(2, 3), 1);
        gang.offer(roster(3, 4), 1);
        assert_eq!(gang.shards(), [own(&roster(1, 2)), own(&roster(3, 4))]);
        assert_eq!(gang.take_ready(), Some((Generation(3), ready(roster(3, 4).rank.unwrap()))));
        assert_eq!(gang.take_ready(), None);
        gang.offer(Roster { rank: None, ..roster(4, 2) }, 1);
        assert_eq!((gang.take_ready(), gang.shards()[1].clone()), (None, 0..0));
    }

    #[test]
    fn a_rank_that_has_met_nobody_yet_skips_to_a_newer_make_up_and_never_back() {
        let mut gang = Gang::new(roster(2, 2));
        gang.skip_to(roster(1, 3));
        assert_eq!(gang.roster, roster(2, 2));
        gang.skip_to(roster(4, 3));
        assert_eq!((&gang.roster, gang.shards()[1].clone()), (&roster(4, 3), 0..0));
    }
}
