//! Gangs of programs: all ranks begin and end together, and what one of them does is never half of a result.

use super::*;

/// A sweep whose trials are programs on so many workers each.
fn programs(trials: u32, workers: u32) -> SweepSpec {
    let mut spec = spec(trials);
    spec.resources.workers = Workers { min: workers, max: workers };
    spec.program = Some(program());
    spec
}

/// A trial of three programs, which run on these.
fn three() -> (World, [SessionId; 3], Held) {
    let mut world = World::new();
    let sessions = ["a", "b", "c"].map(|name| world.join(name, 1));
    world.submit(programs(1, 3));
    let lease = world.granted_to(&sessions);
    for session in sessions {
        world.gang_ready(session, lease);
    }
    assert_eq!(world.ranks(), [0, 1, 2].map(|rank| (sessions[rank], 1, Some(rank as u32))));
    for session in sessions {
        world.news(session, lease, 1, 0, GangNews::Formed);
    }
    world.started(sessions[0], lease);
    (world, sessions, lease)
}

impl World {
    /// The lease of a trial that was just given to exactly these.
    fn granted_to(&self, sessions: &[SessionId]) -> Held {
        let grants = self.granted();
        assert_eq!(grants.iter().map(|(session, _, _)| *session).collect::<Vec<_>>(), sessions);
        Held { trial: grants[0].2.trial, epoch: grants[0].2.epoch }
    }

    fn told_to_stop(&self) -> usize {
        self.revoked().iter().filter(|(_, reason)| *reason == RevokeReason::Moved).count()
    }
}

#[test]
fn every_rank_has_a_share_and_none_begins_before_all_are_ready() {
    let mut world = World::new();
    let sessions = ["a", "b", "c"].map(|name| world.join(name, 1));
    world.submit(programs(1, 3));
    let lease = world.granted_to(&sessions);
    world.gang_ready(sessions[0], lease);
    world.gang_ready(sessions[1], lease);
    world.tick_for(20, &sessions);
    assert!(world.places().is_empty());
    world.gang_ready(sessions[2], lease);
    let places = world.places();
    assert_eq!(places.len(), 3);
    assert!(places.iter().all(|(_, place)| place.shares.ranks() == 3));
}

#[test]
fn the_result_waits_until_every_rank_is_done() {
    let (mut world, [a, b, c], lease) = three();
    world.progress(a, lease, 10, 0.5);
    world.checkpoint(a, lease, 100, true);
    world.finished(c, lease);
    assert!(world.places().is_empty() && world.revoked().is_empty());
    assert_eq!(world.state(lease.trial), TrialState::Running);
    world.finished(b, lease);
    let place = world.places().pop().unwrap();
    assert_eq!((place.0, place.1.generation, place.1.rank), (a, Generation(2), Some(0)));
    assert_eq!(place.1.shares.ranks(), 1, "it is alone");
    world.finished(a, lease);
    assert_eq!(world.state(lease.trial), TrialState::Completed);
    assert_eq!(world.ends(), [AttemptEnd::Finished]);
    let results = world.records.iter().filter(|record| matches!(record, Record::Result { .. })).count();
    assert_eq!((results, world.trial(lease.trial).attempts), (1, 1));
    assert!(world.engine.workers().all(|worker| worker.leases.is_empty()));
}

#[test]
fn rank_0_hears_that_it_is_alone_again_after_a_reconnect() {
    let (mut world, [a, b, c], lease) = three();
    world.finished(b, lease);
    world.step(Event::Disconnected { session: a });
    world.finished(c, lease);
    assert!(world.places().is_empty());
    let a = world.rejoin(a, "a", &[lease]);
    assert_eq!(world.ranks(), [(a, 2, Some(0))]);
    world.finished(a, lease);
    assert_eq!(world.state(lease.trial), TrialState::Completed);
}

#[test]
fn a_rank_that_fails_stops_all_others_and_the_failure_counts_once_with_its_own_words() {
    let (mut world, [a, b, c], lease) = three();
    world.failed(b, lease, FailureKind::Crashed);
    assert_eq!(world.told_to_stop(), 2);
    // What is stored on the way out counts; what its peers say because of it does not.
    world.checkpoint(a, lease, 8, false);
    world.report(
        a,
        lease,
        ReportBody::Failed { step: 8, kind: FailureKind::Crashed, message: "a peer".into(), seconds: 1.0 },
    );
    assert_eq!(world.state(lease.trial), TrialState::Running, "the third may still run");
    world.released(c, lease, 0);
    let view = world.trial(lease.trial);
    assert_eq!((view.failures, view.state), (1, TrialState::Pending));
    assert_eq!(view.last_failure.unwrap().message, "no luck");
    let sessions = [a, b, c];
    sessions.iter().for_each(|session| world.ready(*session, 0, 1));
    world.pass(11.0);
    world.step(Event::Tick { heard: sessions.to_vec() });
    let grants = world.granted();
    assert_eq!(grants.len(), 3);
    assert!(grants.iter().all(|(_, _, grant)| grant.resume.as_ref().is_some_and(|from| from.step == 8)));
}

#[test]
fn peers_that_fail_because_a_machine_is_gone_are_no_failure() {
    let (mut world, [a, b, c], lease) = three();
    // Nobody knows yet that the third machine is gone.
    world.failed(a, lease, FailureKind::Crashed);
    world.failed(b, lease, FailureKind::Crashed);
    assert_eq!(world.state(lease.trial), TrialState::Running);
    world.step(Event::Disconnected { session: c });
    world.tick_for(2, &[a, b]);
    let view = world.trial(lease.trial);
    assert_eq!((view.failures, view.interruptions, view.state), (0, 1, TrialState::Pending));
    assert_eq!(world.ends(), [AttemptEnd::Disconnected]);
}

#[test]
fn a_failure_that_would_repeat_itself_is_believed_whatever_else_happens() {
    let (mut world, [a, b, c], lease) = three();
    world.step(Event::Left { session: a });
    world.failed(b, lease, FailureKind::Config);
    world.released(c, lease, 0);
    assert_eq!(world.state(lease.trial), TrialState::Failed);
}

#[test]
fn a_notice_on_one_rank_stops_all_and_is_how_the_attempt_ends() {
    let (mut world, [a, b, c], lease) = three();
    world.progress(a, lease, 20, 0.5);
    let notice = Notice::new(NoticeSource::Aws, NoticeKind::Terminate, Some(120.0));
    world.step(Event::Noticed { session: b, notice: notice.clone() });
    assert_eq!(world.told_to_stop(), 3);
    world.released(b, lease, 0);
    world.checkpoint(a, lease, 18, false);
    world.released(a, lease, 20);
    world.released(c, lease, 0);
    assert_eq!(world.ends(), [AttemptEnd::Noticed { notice, lost_steps: 2 }]);
    assert_eq!(world.state(lease.trial), TrialState::Pending);
    // Two are left: not enough, and neither holds anything.
    [a, c].iter().for_each(|session| world.ready(*session, 0, 1));
    assert!(world.granted().is_empty());
    world.join("d", 1);
    assert_eq!(world.granted().len(), 3);
}

#[test]
fn a_worker_that_is_lost_while_the_gang_gathers_is_replaced() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(programs(1, 2));
    let lease = world.granted_to(&[a, b]);
    let c = world.join("c", 1);
    world.gang_ready(a, lease);
    world.step(Event::Left { session: b });
    assert_eq!(world.granted_to(&[c]), lease);
    world.gang_ready(c, lease);
    assert_eq!(world.ranks(), [(a, 1, Some(0)), (c, 1, Some(1))]);
}

#[test]
fn a_worker_that_cannot_prepare_fails_the_attempt_and_holds_the_others_for_nothing() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(programs(1, 2));
    let lease = world.granted_to(&[a, b]);
    world.gang_ready(a, lease);
    world.failed(b, lease, FailureKind::Storage);
    assert_eq!(world.told_to_stop(), 1);
    world.released(a, lease, 0);
    assert_eq!((world.trial(lease.trial).failures, world.state(lease.trial)), (1, TrialState::Pending));
}

#[test]
fn who_comes_back_while_the_gang_stops_is_told_again() {
    let (mut world, [a, b, c], lease) = three();
    world.step(Event::Disconnected { session: a });
    world.failed(b, lease, FailureKind::Crashed);
    assert_eq!(world.told_to_stop(), 1, "the other one that can hear it");
    let a = world.rejoin(a, "a", &[lease]);
    assert_eq!(world.told_to_stop(), 1);
    world.released(c, lease, 0);
    world.released(a, lease, 0);
    assert_eq!(world.trial(lease.trial).failures, 1);
}

#[test]
fn a_result_of_rank_0_without_the_others_is_none() {
    let (mut world, [a, b, c], lease) = three();
    world.finished(a, lease);
    assert_eq!(world.told_to_stop(), 2);
    world.released(b, lease, 0);
    world.finished(c, lease);
    assert_eq!(world.state(lease.trial), TrialState::Pending);
    assert!(world.records.iter().all(|record| !matches!(record, Record::Result { .. })));
}

#[test]
fn an_idle_worker_joins_no_gang_of_programs_and_none_is_taken_out_of_it() {
    let (mut world, [a, b, c], lease) = three();
    let d = world.join("d", 1);
    world.submit(SweepSpec { name: SweepName::new("single").unwrap(), ..spec(2) });
    world.finished(c, lease);
    world.tick_for(30, &[a, b, c, d]);
    assert!(world.places().is_empty() && world.revoked().is_empty());
    assert_eq!(world.trial(lease.trial).attempts, 1);
}

#[test]
fn a_cancelled_trial_lets_every_rank_go() {
    let (mut world, _, lease) = three();
    world.control(Target::Trial(lease.trial), Command::Cancel).unwrap();
    assert_eq!(world.revoked().len(), 3);
    assert!(world.engine.workers().all(|worker| worker.leases.is_empty()));
}
