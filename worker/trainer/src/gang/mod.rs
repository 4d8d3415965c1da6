//! A rank's life in a gang: which make-up it is in, which comes next, and when all change over.
//!
//! The order in which contributions are added up is in [`tree`], how they travel in [`exchange`], how a state travels
//! in [`state`]. It must not know models, data or optimizers: what is trained is the session's.

pub mod exchange;
pub mod state;
pub mod tree;

use crate::job::Host;
use spotsweep_proto::gang::{Generation, Roster, STORE_KEY_BYTES, STORE_VALUE_BYTES, StoreOp, StoreValue};
use spotsweep_trainer_shim::Rendezvous;
use std::time::Duration;

/// Where a rank stands among make-ups.
#[derive(Debug)]
pub struct Gang {
    /// The present make-up.
    pub roster: Roster,
    /// The newest one that was told of and is not yet changed over to.
    next: Option<Roster>,
}

impl Gang {
    /// In `roster`.
    #[must_use]
    pub fn new(roster: Roster) -> Self {
        Self { roster, next: None }
    }

    /// Takes note of a make-up; one that is not newer than all others is ignored.
    pub fn offer(&mut self, roster: Roster) {
        let newest = self.next.as_ref().map_or(self.roster.generation, |next| next.generation);
        if roster.generation > newest {
            self.next = Some(roster);
        }
    }

    /// What this rank tells the others with each step: how far the newest make-up that it knows is ahead of the present
    /// one; 0 if it knows of none.
    #[must_use]
    pub fn news(&self) -> f32 {
        // Makes-up that wait at once are few: exact in f32.
        self.next.as_ref().map_or(0.0, |next| (next.generation.0 - self.roster.generation.0) as f32)
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
                self.roster = next;
                true
            }
            None => false,
        }
    }
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
        gang.offer(roster(3, 4));
        gang.offer(roster(2, 4));
        assert!(!gang.is_agreed(&[0.0, 0.0, 0.0, 0.0]) && !gang.change());
        gang.offer(roster(5, 4));
        gang.offer(roster(4, 1));
        assert_eq!(gang.news(), 2.0);
        for (news, agreed) in
            [([2.0, 2.0, 0.0, 0.0], true), ([2.0, 1.0, 0.0, 0.0], false), ([2.0, 0.0, 2.0, 2.0], false)]
        {
            assert_eq!(gang.is_agreed(&news), agreed);
        }
        assert!(gang.change());
        assert_eq!((gang.roster.generation, gang.news()), (Generation(5), 0.0));
    }
}
