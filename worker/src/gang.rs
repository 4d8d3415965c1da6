//! Gangs as an agent sees them: a worker's place in a make-up, what its ranks say that the coordinator has to hear, and
//! what they asked that is not answered. No IO, no decisions: who is in a gang is the engine's.

use crate::attempt::LeaseKey;
use spotsweep_proto::gang::{Generation, Roster, Shares, StoreOp};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroU64,
    time::Duration,
};

/// Most questions of one job to its rendezvous store that wait for their answers. A rank asks each of its peers for one
/// value at a time; twice as many ranks as there can be leaves room for those of a make-up that has just ended.
pub(crate) const QUESTIONS_PER_JOB: usize = 512;

/// A worker's place in one make-up of a gang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GangPlace {
    /// Which make-up.
    pub generation: Generation,
    /// Its rank; `None` in a grant: it prepares, says that it is ready, and waits. `None` later: it belongs to the gang no
    /// more and leaves behind the next step.
    pub rank: Option<u32>,
    /// Who carries what.
    pub shares: Shares,
}

impl GangPlace {
    /// Whether there is anybody else in it, so that the trial goes on without this worker.
    pub(crate) fn has_peers(&self) -> bool {
        self.shares.ranks() > 1
    }

    /// As the trainer is told.
    pub(crate) fn roster(&self, address: &str, timeout: Duration) -> Roster {
        Roster {
            generation: self.generation,
            rank: self.rank,
            shares: self.shares.clone(),
            address: address.to_owned(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// How a make-up stands, as this worker's rank sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GangNews {
    /// The make-up.
    pub generation: Generation,
    /// Finished steps.
    pub step: u64,
    /// Over what its ranks exchange, where the trainer says so; told to people who read the log.
    pub over: Option<String>,
    /// What broke; `None`: all ranks are connected, unless it is only `ready`.
    pub broken: Option<String>,
    /// The worker has no rank yet, and all that it needs to get one.
    pub ready: bool,
    /// Where it formed: how long this rank takes for one shard of a step, in microseconds, once it has measured it.
    pub shard_us: Option<NonZeroU64>,
}

impl GangNews {
    /// The worker has all that it needs to get a rank.
    pub(crate) fn ready(step: u64) -> Self {
        Self { ready: true, ..Self::formed(Generation(0), step) }
    }

    /// All ranks of a make-up have begun.
    pub(crate) fn formed(generation: Generation, step: u64) -> Self {
        Self { generation, step, over: None, broken: None, ready: false, shard_us: None }
    }
}

/// A question of this worker's rank to the rendezvous store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreQuestion {
    /// Whose store.
    pub generation: Generation,
    /// Repeated in the answer.
    pub id: u64,
    /// The question.
    pub op: StoreOp,
}

/// What the coordinator shall hear of gangs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GangWord {
    News(LeaseKey, GangNews),
    Ask(LeaseKey, StoreQuestion),
}

/// What the ranks of one agent said. News of a lease replace those before; questions stay until they are answered.
#[derive(Debug, Default)]
pub(crate) struct Gangs {
    news: HashMap<LeaseKey, GangNews>,
    questions: BTreeMap<(LeaseKey, u64), StoreQuestion>,
    unsaid_news: HashSet<LeaseKey>,
    unasked: HashSet<(LeaseKey, u64)>,
}

impl Gangs {
    /// A rank said how its make-up stands.
    pub(crate) fn note(&mut self, lease: LeaseKey, news: GangNews) {
        self.news.insert(lease, news);
        self.unsaid_news.insert(lease);
    }

    /// A rank asks.
    pub(crate) fn ask(&mut self, lease: LeaseKey, question: StoreQuestion) {
        let key = (lease, question.id);
        self.questions.insert(key, question);
        self.unasked.insert(key);
    }

    /// The answer to a question came. False: nobody asks that (any more).
    pub(crate) fn answered(&mut self, lease: LeaseKey, id: u64) -> bool {
        self.unasked.remove(&(lease, id));
        self.questions.remove(&(lease, id)).is_some()
    }

    /// Nothing of a lease matters any more.
    pub(crate) fn forget(&mut self, lease: LeaseKey) {
        self.news.remove(&lease);
        self.unsaid_news.remove(&lease);
        self.questions.retain(|(of, _), _| *of != lease);
        self.unasked.retain(|(of, _)| *of != lease);
    }

    /// A new connection: its other end has to hear all of it.
    pub(crate) fn reconnected(&mut self) {
        self.unsaid_news = self.news.keys().copied().collect();
        self.unasked = self.questions.keys().copied().collect();
    }

    /// Whether there is something to say.
    pub(crate) fn has_word(&self) -> bool {
        !self.unsaid_news.is_empty() || !self.unasked.is_empty()
    }

    /// What to say next: news before questions.
    pub(crate) fn next_word(&mut self) -> Option<GangWord> {
        if let Some(lease) = self.unsaid_news.iter().min().copied() {
            self.unsaid_news.remove(&lease);
            return Some(GangWord::News(lease, self.news.get(&lease)?.clone()));
        }
        let key = self.unasked.iter().min().copied()?;
        self.unasked.remove(&key);
        Some(GangWord::Ask(key.0, self.questions.get(&key)?.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{SweepNumber, TrialRef};
    use spotsweep_proto::ids::Epoch;

    fn lease(number: u32) -> LeaseKey {
        LeaseKey { trial: TrialRef { sweep: SweepNumber(0), number }, epoch: Epoch(1) }
    }

    fn news(generation: u64) -> GangNews {
        GangNews {
            generation: Generation(generation),
            step: 3,
            over: None,
            shard_us: None,
            broken: None,
            ready: false,
        }
    }

    fn question(id: u64) -> StoreQuestion {
        StoreQuestion { generation: Generation(1), id, op: StoreOp::Get { key: "k".to_owned() } }
    }

    fn all(gangs: &mut Gangs) -> Vec<GangWord> {
        std::iter::from_fn(|| gangs.next_word()).collect()
    }

    #[test]
    fn the_newest_news_and_every_unanswered_question_are_said_again_after_a_reconnect() {
        let mut gangs = Gangs::default();
        gangs.note(lease(0), news(1));
        gangs.note(lease(0), news(2));
        gangs.ask(lease(0), question(7));
        gangs.ask(lease(0), question(8));
        let said = [
            GangWord::News(lease(0), news(2)),
            GangWord::Ask(lease(0), question(7)),
            GangWord::Ask(lease(0), question(8)),
        ];
        assert_eq!(all(&mut gangs), said);
        assert!(!gangs.has_word());
        assert!(gangs.answered(lease(0), 7) && !gangs.answered(lease(0), 7));
        gangs.reconnected();
        assert_eq!(
            all(&mut gangs),
            [GangWord::News(lease(0), news(2)), GangWord::Ask(lease(0), question(8))]
        );
    }

    #[test]
    fn nothing_is_said_of_a_lease_that_has_ended() {
        let mut gangs = Gangs::default();
        for number in 0..2 {
            gangs.note(lease(number), news(1));
            gangs.ask(lease(number), question(1));
        }
        gangs.forget(lease(0));
        let said = [GangWord::News(lease(1), news(1)), GangWord::Ask(lease(1), question(1))];
        assert_eq!(all(&mut gangs), said);
        gangs.forget(lease(1));
        gangs.reconnected();
        assert!(!gangs.has_word() && gangs.next_word().is_none());
    }
}
