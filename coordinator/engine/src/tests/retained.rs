//! Checkpoints that are kept, and objects that are deleted.

use super::*;

fn steps(world: &World, trial: TrialRef) -> Vec<u64> {
    world.trial(trial).checkpoints.iter().map(|c| c.reference.step).collect()
}

fn deleted(world: &World) -> usize {
    let counts = world.actions.iter().map(|action| match action {
        Action::DeleteObjects { digests } => digests.len(),
        _ => 0,
    });
    counts.sum()
}

#[test]
fn the_newest_the_best_and_the_final_checkpoint_are_kept() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    for (step, acc) in [(10, 0.5), (20, 0.9), (30, 0.6), (40, 0.7)] {
        world.progress(session, lease, step, acc);
        world.checkpoint(session, lease, step, false);
    }
    assert_eq!(steps(&world, lease.trial), [20, 40]);
    world.checkpoint(session, lease, 50, true);
    world.finished(session, lease);
    assert_eq!(steps(&world, lease.trial), [20, 50]);
    let view = world.trial(lease.trial);
    assert_eq!(view.checkpoints.iter().map(|c| c.best).collect::<Vec<_>>(), [true, false]);
    assert_eq!(view.checkpoints[1].value, Some(0.7), "the value at its step or before");
    assert_eq!(world.engine.object_references().len(), 4);
}

#[test]
fn what_nothing_refers_to_is_deleted_after_a_while_and_once() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    for step in [10, 20] {
        world.checkpoint(session, lease, step, false);
    }
    world.tick_for(59, &[session]);
    assert_eq!(deleted(&world), 0);
    world.tick_for(1, &[session]);
    assert_eq!(deleted(&world), 2);
    world.tick_for(1, &[session]);
    assert_eq!(deleted(&world), 0);
}

#[test]
fn a_checkpoint_that_refers_to_an_object_just_deleted_is_refused() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    for step in [10, 20] {
        world.checkpoint(session, lease, step, false);
    }
    world.tick_for(60, &[session]);
    world.checkpoint(session, lease, 10, false);
    assert_eq!(world.engine.totals().refused_checkpoints, 1);
    assert_eq!(steps(&world, lease.trial), [20]);
}

#[test]
fn a_restart_gives_condemned_objects_their_whole_time_again() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    for step in [10, 20] {
        world.checkpoint(session, lease, step, false);
    }
    world.pass(3600.0);
    world.step(Event::Restarted);
    let session = world.rejoin(session, "a", &[lease]);
    world.tick_for(1, &[session]);
    assert_eq!(deleted(&world), 0, "an agent may hold a report that refers to them");
    world.tick_for(59, &[session]);
    assert_eq!(deleted(&world), 2);
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_dropped_for_the_one_before_and_counts_as_no_failure() {
    let mut world = World::new();
    let mut spec = spec(1);
    spec.checkpoint.keep_last = 2;
    spec.retry.max_failures = 1;
    world.submit(spec);
    let session = world.join("a", 1);
    let lease = world.lease();
    world.checkpoint(session, lease, 10, false);
    world.checkpoint(session, lease, 20, false);
    world.released(session, lease, 20);
    world.ready(session, 0, 1);
    for (next, words) in [
        (Some(10), "the checkpoint of step 20 cannot be read: going on from step 10"),
        (None, "the checkpoint of step 10 cannot be read: no other is kept, starting from step 0"),
    ] {
        let lease = world.lease();
        world.failed(session, lease, FailureKind::Checkpoint);
        // Neither a failure of the trial nor a wait: the next lease is granted at the same moment.
        world.ready(session, 0, 1);
        let (_, _, grant) = world.granted().remove(0);
        assert_eq!(grant.resume.map(|checkpoint| checkpoint.step), next);
        let why = world.engine.explain(lease.trial, world.now).unwrap().to_string();
        assert!(why.contains(words), "{why}");
    }
    // With nothing left to drop it is a failure as any other, so that it ends.
    let lease = world.lease();
    world.failed(session, lease, FailureKind::Checkpoint);
    assert_eq!(world.state(lease.trial), TrialState::Failed);
}

#[test]
fn an_attempt_that_got_past_its_checkpoint_and_then_blames_it_has_failed() {
    let mut world = World::new();
    let mut spec = spec(1);
    spec.checkpoint.keep_last = 2;
    spec.retry.max_failures = 1;
    world.submit(spec);
    let session = world.join("a", 1);
    let lease = world.lease();
    world.checkpoint(session, lease, 10, false);
    world.released(session, lease, 10);
    world.ready(session, 0, 1);
    let lease = world.lease();
    world.checkpoint(session, lease, 20, false);
    world.failed(session, lease, FailureKind::Checkpoint);
    assert_eq!(world.state(lease.trial), TrialState::Failed, "else it could go round for ever");
}

#[test]
fn the_same_checkpoint_written_again_after_a_resume_is_kept_once() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    for _ in 0..3 {
        world.checkpoint(session, lease, 10, false);
    }
    assert_eq!(steps(&world, lease.trial), [10]);
    assert!(world.engine.object_references().values().all(|count| *count == 1));
    world.tick_for(100, &[session]);
    assert_eq!(world.engine.object_references().len(), 2);
}

#[test]
fn a_cancelled_trial_keeps_its_newest_checkpoint() {
    let mut world = World::new();
    let sweep = world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.checkpoint(session, lease, 10, false);
    world.control(Target::Sweep(sweep), Command::Cancel).unwrap();
    assert_eq!(steps(&world, lease.trial), [10]);
}

#[test]
fn a_clock_set_forward_neither_deletes_nor_forgets_at_once() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    for step in [10, 20] {
        world.checkpoint(session, lease, step, false);
    }
    world.tick_for(30, &[session]);
    world.pass(3600.0);
    world.tick_for(59, &[session]);
    assert_eq!(deleted(&world), 0, "an agent that found the object a moment ago may still report it");
    world.tick_for(2, &[session]);
    assert_eq!(deleted(&world), 2);
    world.pass(3600.0);
    world.tick_for(1, &[session]);
    let refused = world.engine.totals().refused_checkpoints;
    world.checkpoint(session, lease, 10, false);
    assert_eq!(
        world.engine.totals().refused_checkpoints,
        refused + 1,
        "and of one that is gone now it is not taken"
    );
}
