//! Workers that vanish, return, and outlive a restart of the coordinator.

use super::*;
use crate::views::LinkView;

fn kept(world: &World) -> Vec<Held> {
    let welcome = world.actions.iter().find_map(|action| match action {
        Action::Welcome { keep, .. } => Some(keep),
        _ => None,
    });
    welcome.unwrap().iter().map(|&(trial, epoch)| Held { trial, epoch }).collect()
}

#[test]
fn a_worker_that_returns_within_the_grace_keeps_its_leases() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.step(Event::Disconnected { session });
    world.pass(0.9);
    world.step(Event::Tick { heard: vec![] });
    let session = world.rejoin(session, "a", &[lease]);
    assert_eq!(kept(&world), [lease]);
    world.finished(session, lease);
    assert_eq!(world.state(lease.trial), TrialState::Completed);
    assert_eq!(world.trial(lease.trial).attempts, 1);
}

#[test]
fn the_leases_of_a_worker_that_does_not_return_go_to_another() {
    let mut world = World::new();
    world.submit(spec(1));
    let first = world.join("a", 1);
    let lease = world.lease();
    world.started(first, lease);
    let second = world.join("b", 1);
    world.step(Event::Disconnected { session: first });
    world.tick_for(1, &[second]);
    assert_eq!(world.lease().trial, lease.trial);
    let end = world.records.iter().find_map(|record| match record {
        Record::AttemptEnded { end, .. } => Some(end.clone()),
        _ => None,
    });
    assert_eq!(end, Some(crate::action::AttemptEnd::Disconnected));
    world.rejoin(first, "a", &[lease]);
    assert_eq!(kept(&world), []);
}

#[test]
fn a_grant_that_never_arrived_goes_to_somebody_else() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    let session = world.rejoin(session, "a", &[]);
    assert_eq!(world.state(lease.trial), TrialState::Pending);
    assert_eq!(world.trial(lease.trial).attempts, 0);
    world.ready(session, 0, 1);
    assert!(world.lease().epoch > lease.epoch);
}

#[test]
fn after_a_restart_workers_reattach_and_nothing_is_repeated() {
    let mut world = World::new();
    world.submit(spec(2));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.pass(3600.0);
    world.step(Event::Restarted);
    world.tick_for(9, &[]);
    assert_eq!(world.state(lease.trial), TrialState::Running, "leases are extended by a restart");
    let session = world.rejoin(session, "a", &[lease]);
    assert_eq!(kept(&world), [lease]);
    world.finished(session, lease);
    assert_eq!(world.trial(lease.trial).attempts, 1);
    assert_eq!(world.engine.totals().leases, 1, "a returned worker takes more only when it says so");
}

#[test]
fn a_worker_that_does_not_reattach_after_a_restart_loses_its_leases_when_they_expire() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.step(Event::Restarted);
    world.tick_for(10, &[]);
    assert_eq!(world.state(lease.trial), TrialState::Pending);
    assert!(matches!(world.engine.workers().next().unwrap().link, LinkView::Gone { .. }));
}

#[test]
fn buffered_reports_sent_again_after_a_reconnect_are_applied_once() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.progress(session, lease, 1, 0.1);
    let session = world.rejoin(session, "a", &[lease]);
    let body = |step| ReportBody::Progress { step, data_epoch: 0.0, metrics: vec![] };
    let reports = [body(1), body(2), body(3)];
    let batch = ReportBatch {
        first_seq: 2,
        metric_names: vec![],
        reports: reports
            .into_iter()
            .map(|body| Report { trial: lease.trial, epoch: lease.epoch, body })
            .collect(),
    };
    world.step(Event::Reports { session, batch });
    assert_eq!(world.acknowledged(), Some(4));
    assert_eq!(world.engine.totals().repeated_reports, 1);
    let points = world.records.iter().filter(|record| matches!(record, Record::Point { .. })).count();
    assert_eq!(points, 3);
}

#[test]
fn messages_of_a_connection_that_is_over_change_nothing() {
    let mut world = World::new();
    world.submit(spec(1));
    let old = world.join("a", 1);
    let lease = world.lease();
    let new = world.rejoin(old, "a", &[lease]);
    let before = world.engine.digest();
    world.ready(old, 0, 5);
    world.step(Event::Disconnected { session: old });
    world.report_as(old, 1, lease, ReportBody::Started { step: 0, total_steps: None });
    assert!(world.actions.is_empty());
    assert_eq!(world.engine.digest(), before);
    world.started(new, lease);
    assert_eq!(world.trial(lease.trial).attempts, 1);
}

#[test]
fn another_worker_of_the_same_name_is_another_worker() {
    let mut world = World::new();
    world.submit(spec(2));
    let first = world.join("a", 1);
    let lease = world.lease();
    let session = world.session();
    let mut twin = hello("a", vec![device(DeviceKind::Cpu, GIB)]);
    twin.incarnation = Incarnation(7);
    world.step(Event::Joined { session, hello: Box::new(twin) });
    assert_eq!(world.engine.workers().count(), 2);
    world.finished(first, lease);
    assert_eq!(world.state(lease.trial), TrialState::Completed);
}

#[test]
fn a_silent_worker_gets_nothing_new_until_it_is_heard() {
    let mut world = World::new();
    let session = world.join("a", 1);
    world.tick_for(5, &[]);
    world.submit(spec(1));
    assert!(world.granted().is_empty());
    world.tick_for(1, &[session]);
    assert_eq!(world.granted().len(), 1);
}

#[test]
fn a_worker_gone_long_ago_is_forgotten_and_may_return_with_any_number() {
    let mut world = World::new();
    let session = world.join("a", 0);
    world.step(Event::Left { session });
    assert!(world.engine.wants_tick());
    world.pass(3600.0);
    world.step(Event::Tick { heard: vec![] });
    assert_eq!(world.engine.workers().count(), 0);
    assert!(!world.engine.wants_tick());
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.report_as(session, 500, lease, ReportBody::Started { step: 0, total_steps: None });
    assert_eq!(world.acknowledged(), Some(500));
}

#[test]
fn the_engine_says_when_it_next_needs_a_tick() {
    let mut world = World::new();
    assert_eq!(world.engine.next_due(), None);
    let session = world.join("a", 1);
    assert_eq!(world.engine.next_due(), Some(world.now.after_s(5.0)));
    world.step(Event::Disconnected { session });
    assert_eq!(world.engine.next_due(), Some(world.now.after_s(1.0)));
}
