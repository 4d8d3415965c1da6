//! A notice is used: nothing new after it, trials move when that is worth it, and the reason is kept.

use super::*;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};

fn spot() -> Notice {
    Notice::new(NoticeSource::Aws, NoticeKind::Terminate, Some(120.0))
}

fn rebalance() -> Notice {
    Notice::new(NoticeSource::Aws, NoticeKind::Rebalance, None)
}

impl World {
    fn noticed(&mut self, session: SessionId, notice: Notice) {
        self.step(Event::Noticed { session, notice });
    }

    /// Reported for `seconds` until step `step` of 100.
    fn trained(&mut self, session: SessionId, lease: Held, seconds: u32, step: u64) {
        self.started(session, lease);
        let all: Vec<SessionId> = self.next_seq.keys().copied().collect();
        self.tick_for(seconds, &all);
        self.progress(session, lease, step, 0.1);
    }
}

fn why(world: &World, lease: Held) -> String {
    world.engine.explain(lease.trial, world.now).unwrap().to_string()
}

#[test]
fn after_an_interruption_notice_a_worker_gets_nothing_new() {
    let mut world = World::new();
    let doomed = world.join("doomed", 2);
    world.noticed(doomed, spot());
    world.submit(spec(3));
    assert!(world.granted().is_empty());
    world.ready(doomed, 0, 4);
    assert!(world.granted().is_empty(), "whatever it says");
    let text = world.engine.explain(trial(SweepId(0), 0), world.now).unwrap().to_string();
    assert!(text.contains("no worker takes work: 1 hand over and leave after a notice"), "{text}");
    let (notice, at) = world.engine.workers().next().unwrap().notice.unwrap();
    assert_eq!((notice, at), (spot(), world.now));
    let other = world.join("other", 1);
    assert_eq!(world.granted()[0].0, other);
}

#[test]
fn a_drained_attempt_keeps_its_notice_and_the_next_goes_on_from_its_step() {
    let mut world = World::new();
    world.submit(spec(1));
    let doomed = world.join("w3", 1);
    let lease = world.lease();
    world.trained(doomed, lease, 5, 40);
    world.noticed(doomed, spot());
    assert!(why(&world, lease).contains("w3 hands it over and leaves after an AWS spot notice"));
    world.join("w4", 1);
    world.checkpoint(doomed, lease, 43, false);
    world.released(doomed, lease, 43);
    let granted = world.granted();
    assert_eq!(granted[0].2.resume.as_ref().map(|checkpoint| checkpoint.step), Some(43));
    assert_eq!(world.ends(), [AttemptEnd::Noticed { notice: spot(), lost_steps: 0 }]);
    let text = why(&world, lease);
    assert!(
        text.contains("interrupted by an AWS spot notice on worker w3 (cpu) at step 43; nothing lost"),
        "{text}"
    );
    assert_eq!(world.trial(lease.trial).interruptions, 1);
}

#[test]
fn a_machine_that_goes_before_it_handed_over_is_blamed_on_its_notice_with_what_is_lost() {
    let mut world = World::new();
    world.submit(spec(1));
    let doomed = world.join("w3", 1);
    let lease = world.lease();
    world.started(doomed, lease);
    world.checkpoint(doomed, lease, 40, false);
    world.progress(doomed, lease, 60, 0.1);
    world.noticed(doomed, spot());
    world.step(Event::Disconnected { session: doomed });
    world.tick_for(3, &[]);
    assert_eq!(world.ends(), [AttemptEnd::Noticed { notice: spot(), lost_steps: 20 }]);
    assert!(why(&world, lease).contains("at step 60; 20 steps lost"), "{}", why(&world, lease));
}

#[test]
fn a_pause_or_failure_under_a_notice_is_not_blamed_on_it() {
    let mut world = World::new();
    world.submit(spec(2));
    let doomed = world.join("w3", 2);
    let leases: Vec<Held> =
        (0..2).map(|number| Held { trial: trial(SweepId(0), number), epoch: Epoch(1) }).collect();
    world.started(doomed, leases[0]);
    world.started(doomed, leases[1]);
    world.noticed(doomed, spot());
    world.control(Target::Trial(leases[0].trial), Command::Pause).unwrap();
    world.released(doomed, leases[0], 5);
    world.failed(doomed, leases[1], FailureKind::Crashed);
    assert!(matches!(world.ends()[0], AttemptEnd::Revoked { reason: RevokeReason::Paused }));
    assert!(matches!(world.ends()[1], AttemptEnd::Failed { .. }));
}

#[test]
fn a_worker_under_a_rebalance_recommendation_gets_leases_only_if_nobody_else_takes_them() {
    let mut world = World::new();
    let shaky = world.join("shaky", 2);
    world.noticed(shaky, rebalance());
    let calm = world.join("calm", 1);
    world.submit(spec(2));
    let sessions: Vec<SessionId> = world.granted().iter().map(|(session, _, _)| *session).collect();
    assert_eq!(sessions, [calm, shaky], "although both were free and shaky joined first");
}

#[test]
fn a_trial_with_much_to_go_moves_when_an_idle_device_stands_ready_and_only_then() {
    let mut world = World::new();
    world.submit(spec(1));
    let shaky = world.join("shaky", 1);
    let lease = world.lease();
    world.trained(shaky, lease, 40, 50);
    world.noticed(shaky, rebalance());
    assert_eq!(world.revoked(), [], "nobody else is there");
    world.join_with("gpu", vec![device(DeviceKind::Cuda, 8 * GIB)], 1);
    assert_eq!(world.revoked(), [], "its bits are a CPU's");
    let calm = world.join("calm", 1);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Moved)]);
    assert!(why(&world, lease).contains("shaky may be taken (an AWS rebalance recommendation); it moves"));
    world.ready(calm, 0, 1);
    assert_eq!(world.revoked(), [], "it is told once");
    world.checkpoint(shaky, lease, 52, false);
    world.released(shaky, lease, 52);
    assert_eq!(world.granted()[0].0, calm);
    assert_eq!(world.ends(), [AttemptEnd::Noticed { notice: rebalance(), lost_steps: 0 }]);
    let text = why(&world, lease);
    assert!(
        text.contains("moved after an AWS rebalance recommendation on worker shaky (cpu) at step 52"),
        "{text}"
    );
}

#[test]
fn a_trial_that_is_nearly_done_does_not_move() {
    let mut world = World::new();
    world.submit(spec(1));
    let shaky = world.join("shaky", 1);
    let lease = world.lease();
    // 10 of 100 steps are left, at 0.5 s each.
    world.trained(shaky, lease, 45, 90);
    world.noticed(shaky, rebalance());
    world.join("calm", 1);
    assert_eq!(world.revoked(), []);
}

#[test]
fn no_more_trials_move_than_idle_devices_stand_ready() {
    let mut world = World::new();
    world.submit(spec(3));
    let shaky = world.join("shaky", 3);
    let all: Vec<Held> =
        (0..3).map(|number| Held { trial: trial(SweepId(0), number), epoch: Epoch(1) }).collect();
    for lease in &all {
        world.started(shaky, *lease);
    }
    world.tick_for(60, &[shaky]);
    for lease in &all {
        world.progress(shaky, *lease, 10, 0.1);
    }
    world.noticed(shaky, rebalance());
    let calm = world.join("calm", 1);
    assert_eq!(world.revoked(), [(all[0].trial, RevokeReason::Moved)]);
    world.tick_for(2, &[shaky, calm]);
    assert_eq!(world.revoked(), []);
}

#[test]
fn a_worker_that_was_told_to_give_a_trial_back_is_told_again_on_its_next_connection() {
    let mut world = World::new();
    world.submit(spec(1));
    let shaky = world.join("shaky", 1);
    let lease = world.lease();
    world.trained(shaky, lease, 60, 10);
    world.noticed(shaky, rebalance());
    world.join("calm", 1);
    world.step(Event::Disconnected { session: shaky });
    let again = world.rejoin(shaky, "shaky", &[lease]);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Moved)]);
    world.noticed(again, rebalance());
    assert_eq!(world.engine.workers().filter(|worker| worker.notice.is_some()).count(), 1);
}

#[test]
fn the_first_interruption_stays_the_reason_and_replaces_a_recommendation() {
    let mut world = World::new();
    let session = world.join("w", 1);
    for (said, stands) in [
        (rebalance(), rebalance()),
        (spot(), spot()),
        (Notice::new(NoticeSource::Signal, NoticeKind::Terminate, Some(25.0)), spot()),
        (rebalance(), spot()),
    ] {
        world.noticed(session, said);
        assert_eq!(world.engine.workers().next().unwrap().notice.unwrap().0, stands);
    }
    world.step(Event::Noticed { session: SessionId(99), notice: spot() });
}
