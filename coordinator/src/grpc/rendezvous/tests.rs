//! Who may ask, what is answered when, and the limits.

use super::*;
use spotsweep_engine::{
    SweepId, WorkerId,
    action::{Grant, RevokeReason},
    event::HeldLease,
};
use spotsweep_proto::gang::Shares;

const EPOCH: Epoch = Epoch(2);

fn trial(number: u32) -> TrialRef {
    TrialRef { sweep: SweepId(0), number }
}

/// A connection and its answers.
struct Rank {
    member: Member,
    answers: mpsc::Receiver<v1::StoreAnswer>,
}

impl Rank {
    fn new(rendezvous: &Rendezvous, who: u128) -> Self {
        let (member, answers) = rendezvous.connect(Incarnation(who));
        Self { member, answers }
    }

    fn placed(rendezvous: &Rendezvous, who: u128, number: u32) -> Self {
        let rank = Self::new(rendezvous, who);
        rank.told(number, EPOCH, 1, Some(0));
        rank
    }

    fn told(&self, number: u32, epoch: Epoch, generation: u64, rank: Option<u32>) {
        let place = GangPlace { generation: Generation(generation), rank, shares: Shares::even(4, 2) };
        self.member.told(&ToSession::Regang { trial: trial(number), epoch, place });
    }

    fn ask(&self, number: u32, generation: u64, id: u64, key: &str, set: Option<&str>) {
        let query = StoreQuery {
            trial: trial(number),
            epoch: EPOCH,
            generation: Generation(generation),
            id,
            key: key.to_owned(),
            set: set.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        };
        assert!(self.member.ask(query));
    }

    /// The answers so far: the question, and the value as text.
    fn heard(&mut self) -> Vec<(u64, Option<String>)> {
        let answers = std::iter::from_fn(|| self.answers.try_recv().ok());
        let text = |value: Bytes| String::from_utf8(value.to_vec()).unwrap();
        answers.map(|answer| (answer.id, answer.value.map(text))).collect()
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_value_is_answered_when_it_is_there_and_whoever_asked_before_waits() {
    let rendezvous = Rendezvous::default();
    let (mut a, mut b) = (Rank::placed(&rendezvous, 1, 0), Rank::placed(&rendezvous, 2, 0));
    b.ask(0, 1, 7, "k", None);
    b.ask(0, 1, 8, "other", None);
    assert_eq!(b.heard(), []);
    a.ask(0, 1, 1, "k", Some("v"));
    assert_eq!(a.heard(), [(1, some(""))]);
    assert_eq!(b.heard(), [(7, some("v"))]);
    a.ask(0, 1, 2, "k", None);
    assert_eq!(a.heard(), [(2, some("v"))]);
    // Another trial has another store.
    let mut c = Rank::placed(&rendezvous, 3, 1);
    c.ask(1, 1, 1, "k", None);
    assert_eq!(c.heard(), []);
}

#[test]
fn only_a_worker_that_was_given_a_rank_in_that_very_make_up_may_ask() {
    let rendezvous = Rendezvous::default();
    let mut a = Rank::placed(&rendezvous, 1, 0);
    a.ask(0, 1, 1, "k", Some("secret"));
    a.heard();
    let mut foreign = Rank::new(&rendezvous, 2);
    foreign.ask(0, 1, 1, "k", None);
    foreign.ask(0, 1, 2, "k", Some("forged"));
    foreign.told(0, EPOCH, 1, None);
    foreign.ask(0, 1, 3, "k", None);
    foreign.told(1, EPOCH, 1, Some(0));
    foreign.ask(0, 1, 4, "k", None);
    assert_eq!(foreign.heard(), [(1, None), (2, None), (3, None), (4, None)]);
    a.ask(0, 1, 2, "k", None);
    a.ask(0, 2, 3, "k", None);
    assert_eq!(a.heard(), [(2, some("secret")), (3, None)], "nor of a make-up to come");
}

#[test]
fn a_newer_make_up_or_epoch_ends_the_older_one_and_answers_whoever_waits_in_it() {
    let rendezvous = Rendezvous::default();
    let (mut a, mut b) = (Rank::placed(&rendezvous, 1, 0), Rank::placed(&rendezvous, 2, 0));
    b.ask(0, 1, 1, "k", None);
    // That the other is told is enough.
    a.told(0, EPOCH, 2, Some(0));
    assert_eq!(b.heard(), [(1, None)]);
    b.ask(0, 1, 2, "k", Some("late"));
    assert_eq!(b.heard(), [(2, None)]);
    b.told(0, EPOCH, 1, Some(1));
    b.ask(0, 2, 3, "k", None);
    assert_eq!(b.heard(), [(3, None)], "it was not told of the newer one yet");
    b.told(0, EPOCH, 2, Some(1));
    b.ask(0, 2, 4, "k", None);
    a.ask(0, 2, 1, "k", Some("v"));
    assert_eq!((a.heard(), b.heard()), (vec![(1, some(""))], vec![(4, some("v"))]));
    b.ask(0, 2, 5, "never", None);
    a.told(0, Epoch(3), 1, Some(0));
    assert_eq!(b.heard(), [(5, None)]);
}

#[test]
fn a_grant_with_a_place_admits_and_a_revocation_puts_out() {
    let rendezvous = Rendezvous::default();
    let mut a = Rank::placed(&rendezvous, 1, 0);
    let revoked = ToSession::Revoked { trial: trial(0), epoch: EPOCH, reason: RevokeReason::NotNeeded };
    a.ask(0, 1, 1, "k", None);
    a.member.told(&revoked);
    a.ask(0, 1, 2, "k", None);
    assert_eq!(a.heard(), [(1, None), (2, None)], "the last one out ends it");
    let spec = spotsweep_proto::spec::parse(
        b"name: s\nmethod: grid\nparameters: {seed: {values: [1]}}\ntrain: {model: noop, steps: 1}\n",
        "s.yaml",
    );
    let card = crate::driver::SweepCard {
        id: SweepId(0),
        name: spotsweep_proto::ids::SweepName::new("s").unwrap(),
        spec: Arc::new(spec.unwrap()),
    };
    let grant = Grant {
        trial: trial(0),
        epoch: EPOCH,
        attempt: 1,
        expires_at: spotsweep_engine::Time(0),
        resume: None,
        gang: Some(GangPlace { generation: Generation(2), rank: Some(0), shares: Shares::even(4, 1) }),
        interruption_mean_s: 0.0,
    };
    a.member.told(&ToSession::Grants(vec![(0, grant, Arc::new(card))]));
    a.ask(0, 2, 3, "k", Some("v"));
    assert_eq!(a.heard(), [(3, some(""))]);
}

#[test]
fn a_process_that_connects_again_goes_on_where_its_lease_stands() {
    let rendezvous = Rendezvous::default();
    let mut other = Rank::placed(&rendezvous, 2, 0);
    let a = Rank::placed(&rendezvous, 1, 0);
    a.told(1, EPOCH, 1, Some(0));
    a.ask(0, 1, 1, "k", None);
    drop(a);
    assert_eq!(rendezvous.table().stores[&trial(0)].waiting, 0);
    let mut again = Rank::new(&rendezvous, 1);
    let kept = HeldLease { trial: trial(0), epoch: EPOCH, device: 0 };
    again.member.told(&ToSession::Welcome {
        worker: WorkerId(1),
        applied_seq: 0,
        keep: vec![kept],
        lease_s: 1.0,
    });
    again.ask(0, 1, 1, "k", None);
    again.ask(1, 1, 2, "k", None);
    other.ask(0, 1, 1, "k", Some("v"));
    assert_eq!(again.heard(), [(2, None), (1, some("v"))]);
    assert_eq!(other.heard(), [(1, some(""))]);
}

#[test]
fn what_goes_beyond_a_limit_is_answered_with_nothing_and_the_rest_goes_on() {
    let limits = Limits { keys: 2, bytes_each: 20, waiters: 1, generations: 2, bytes: 30 };
    let rendezvous = Rendezvous::with(limits);
    let mut a = Rank::placed(&rendezvous, 1, 0);
    for (id, (key, value)) in
        [("a", "1"), ("b", "2"), ("c", "3"), ("b", "4"), ("a", &"x".repeat(20))].iter().enumerate()
    {
        a.ask(0, 1, id as u64, key, Some(value));
    }
    assert_eq!(a.heard(), [(0, some("")), (1, some("")), (2, None), (3, some("")), (4, None)]);
    a.ask(0, 1, 5, "x", None);
    a.ask(0, 1, 6, "y", None);
    assert_eq!(a.heard(), [(6, None)]);
    // A third trial: the one that was not used for longest ends.
    let b = Rank::placed(&rendezvous, 2, 1);
    let _c = Rank::placed(&rendezvous, 3, 2);
    assert_eq!(a.heard(), [(5, None)]);
    assert_eq!(rendezvous.table().bytes, 0);
    // And so it does when all of them have become too large.
    b.ask(1, 1, 1, "k", Some(&"x".repeat(18)));
    let c = Rank::placed(&rendezvous, 3, 2);
    c.ask(2, 1, 1, "k", Some(&"x".repeat(18)));
    let table = rendezvous.table();
    assert_eq!((table.bytes, table.stores.len()), (19, 1));
}

#[test]
fn a_connection_with_too_many_open_questions_is_told_from_one_that_reads_its_answers() {
    let rendezvous = Rendezvous::default();
    let mut a = Rank::placed(&rendezvous, 1, 0);
    a.ask(0, 1, 0, "k", Some("v"));
    for id in 1..QUESTIONS_PER_CONNECTION as u64 {
        a.ask(0, 1, id, "k", None);
    }
    let query = StoreQuery {
        trial: trial(0),
        epoch: EPOCH,
        generation: Generation(1),
        id: 0,
        key: "k".to_owned(),
        set: None,
    };
    assert!(!a.member.ask(query.clone()));
    a.heard();
    assert!(a.member.ask(query));
}
