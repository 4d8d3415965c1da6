//! Leases, epochs, attempts, failures, exactly-once reports.

use super::*;

#[test]
fn a_grid_of_n_ends_with_exactly_n_trials_each_once() {
    let mut world = World::new();
    let sweep = world.submit(spec(50));
    let session = world.join("a", 4);
    let mut done = 0;
    let mut open: Vec<Held> = Vec::new();
    loop {
        let more = world.granted().into_iter().map(|(_, _, g)| Held { trial: g.trial, epoch: g.epoch });
        open.extend(more);
        let Some(lease) = open.pop() else { break };
        world.started(session, lease);
        world.finished(session, lease);
        done += 1;
        world.ready(session, 0, 4 - open.len() as u32);
    }
    assert_eq!(done, 50);
    let view = world.engine.sweep(sweep).unwrap();
    assert_eq!((view.counts.completed, view.trials), (50, 50));
    assert_eq!(view.state, crate::SweepState::Completed);
    let results = world.records.iter().filter(|r| matches!(r, Record::Result { .. })).count();
    assert_eq!(results, 50);
}

#[test]
fn a_report_under_a_stale_epoch_is_dropped_and_counted() {
    let mut world = World::new();
    let sweep = world.submit(spec(1));
    let first = world.join("a", 1);
    let old = world.lease();
    world.started(first, old);
    world.tick_for(11, &[]);
    assert_eq!(world.state(old.trial), TrialState::Pending);
    let second = world.join("b", 1);
    let new = world.lease();
    assert!(new.epoch > old.epoch);
    world.finished(first, old);
    assert_eq!(world.state(old.trial), TrialState::Running);
    assert_eq!(world.engine.sweep(sweep).unwrap().stale_reports, 1);
    assert_eq!(world.engine.totals().stale_reports, 1);
    world.finished(second, new);
    assert_eq!(world.state(old.trial), TrialState::Completed);
    assert_eq!(world.trial(old.trial).attempts, 2);
}

#[test]
fn a_worker_that_slept_through_its_lease_is_told_that_it_lost_it() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.tick_for(9, &[]);
    assert!(world.revoked().is_empty());
    world.tick_for(1, &[]);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Stale)]);
    world.progress(session, lease, 7, 0.1);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Stale)], "and again when it still reports");
    assert_eq!(world.trial(lease.trial).attempts, 0, "it never started");
}

#[test]
fn a_lease_lives_while_its_worker_is_heard() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.tick_for(100, &[session]);
    assert_eq!(world.state(lease.trial), TrialState::Running);
}

#[test]
fn interruptions_are_no_failures_and_unstarted_leases_are_no_attempts() {
    let mut world = World::new();
    world.submit(spec(2));
    let session = world.join("a", 2);
    let leases: Vec<Held> = (0..2).map(|n| Held { trial: trial(SweepId(0), n), epoch: Epoch(1) }).collect();
    world.started(session, leases[0]);
    world.pass(1.0);
    world.step(Event::Left { session });
    let (ran, waited) = (world.trial(leases[0].trial), world.trial(leases[1].trial));
    assert_eq!((ran.attempts, ran.interruptions, ran.failures), (1, 1, 0));
    assert_eq!((waited.attempts, waited.interruptions, waited.failures), (0, 0, 0));
    assert_eq!((ran.state, waited.state), (TrialState::Pending, TrialState::Pending));
}

#[test]
fn a_failed_trial_is_retried_after_a_growing_backoff_and_then_given_up() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    for (failures, wait_s) in [(1, 10), (2, 20)] {
        let lease = world.lease();
        world.started(session, lease);
        world.failed(session, lease, FailureKind::Crashed);
        assert_eq!(world.trial(lease.trial).failures, failures);
        assert_eq!(world.state(lease.trial), TrialState::Pending);
        world.ready(session, 0, 1);
        world.tick_for(wait_s - 1, &[session]);
        assert!(world.granted().is_empty());
        world.tick_for(1, &[session]);
    }
    let lease = world.lease();
    world.failed(session, lease, FailureKind::Crashed);
    assert_eq!(world.state(lease.trial), TrialState::Failed);
    assert_eq!(world.trial(lease.trial).attempts, 3);
    assert_eq!(world.trial(lease.trial).last_failure.unwrap().message, "no luck");
}

#[test]
fn what_would_fail_again_is_not_tried_again() {
    for (kind, state) in
        [(FailureKind::Diverged, TrialState::Diverged), (FailureKind::Config, TrialState::Failed)]
    {
        let mut world = World::new();
        world.submit(spec(1));
        let session = world.join("a", 1);
        let lease = world.lease();
        world.started(session, lease);
        world.failed(session, lease, kind);
        assert_eq!(world.state(lease.trial), state);
    }
}

#[test]
fn metric_steps_strictly_grow_over_all_attempts() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    for step in [0, 5, 5, 3, 10] {
        world.progress(session, lease, step, 0.1);
    }
    world.released(session, lease, 10);
    world.ready(session, 0, 1);
    let lease = world.lease();
    for step in [5, 10, 15] {
        world.progress(session, lease, step, 0.1);
    }
    let steps: Vec<u64> = world
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Point { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [0, 5, 10, 15]);
}

#[test]
fn no_report_is_applied_twice() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    let body = ReportBody::Progress { step: 1, data_epoch: 0.0, metrics: vec![(1, 0.1)] };
    for _ in 0..3 {
        world.report_as(session, 2, lease, body.clone());
        assert_eq!(world.acknowledged(), Some(2));
    }
    assert_eq!(world.engine.totals().reports, 2);
    assert_eq!(world.engine.totals().repeated_reports, 2);
}

#[test]
fn a_gap_in_the_numbers_applies_nothing_and_asks_to_send_again() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    let body = ReportBody::Progress { step: 1, data_epoch: 0.0, metrics: vec![(1, 0.1)] };
    world.report_as(session, 9, lease, body);
    assert_eq!(world.acknowledged(), Some(1));
    assert_eq!((world.engine.totals().gaps, world.engine.totals().reports), (1, 1));
    assert_eq!(world.trial(lease.trial).best, None);
}

#[test]
fn a_result_holds_the_seconds_of_all_attempts() {
    let mut world = World::new();
    world.submit(spec(1));
    let first = world.join("a", 1);
    let lease = world.lease();
    world.started(first, lease);
    world.pass(3.0);
    world.progress(first, lease, 1, 0.1);
    world.step(Event::Disconnected { session: first });
    world.tick_for(2, &[]);
    let second = world.join("b", 1);
    let lease = world.lease();
    world.finished(second, lease);
    let seconds = world.records.iter().find_map(|record| match record {
        Record::Result { seconds, .. } => Some(*seconds),
        _ => None,
    });
    assert_eq!(seconds, Some(5.0), "3 known of the first, 2 said by the second");
}
