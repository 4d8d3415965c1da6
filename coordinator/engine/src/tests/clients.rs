//! Submit, pause, resume, cancel, and sweeps that reach their target.

use super::*;
use crate::views::{Counts, SweepState};

fn counts(world: &World, sweep: SweepId) -> Counts {
    world.engine.sweep(sweep).unwrap().counts
}

#[test]
fn the_same_token_submits_once_and_names_are_made_unique() {
    let mut world = World::new();
    let names: Vec<String> = (0..3)
        .map(|_| {
            let id = world.submit(spec(1));
            world.engine.sweep(id).unwrap().name.to_string()
        })
        .collect();
    assert_eq!(names, ["s", "s-2", "s-3"]);
    world.step(Event::Submit { request: RequestId(99), token: 2, spec: Box::new(spec(1)) });
    let name = SweepName::new("s-2").unwrap();
    assert_eq!(world.reply(), Ok(Reply::Submitted { sweep: SweepId(1), name: name.clone(), new: false }));
    assert_eq!(world.engine.sweep_by_name(&name).unwrap().id, SweepId(1));
    assert_eq!(world.engine.sweeps().count(), 3);
}

#[test]
fn a_name_of_full_length_still_gets_its_suffix() {
    let mut world = World::new();
    let long = SweepSpec { name: SweepName::new(&"x".repeat(128)).unwrap(), ..spec(1) };
    world.submit(long.clone());
    let id = world.submit(long);
    let name = world.engine.sweep(id).unwrap().name.to_string();
    assert_eq!(name.len(), 128);
    assert!(name.ends_with("x-2"));
}

#[test]
fn more_sweeps_than_the_limit_are_refused() {
    let mut world = World::new();
    world.engine = Engine::new(Config { max_sweeps: 1, ..Config::default() });
    world.submit(spec(1));
    world.step(Event::Submit { request: RequestId(9), token: 9, spec: Box::new(spec(1)) });
    assert_eq!(world.reply(), Err(Refusal::TooManySweeps { limit: 1 }));
}

#[test]
fn trials_that_never_started_take_no_memory() {
    let mut world = World::new();
    let sweep = world.submit(spec(10_000_000));
    let other = world.submit(spec(10_000_000));
    assert!(world.engine.snapshot().len() < 2000);
    assert_eq!(counts(&world, sweep).pending, 10_000_000);
    world.control(Target::Sweep(sweep), Command::Cancel).unwrap();
    world.control(Target::Sweep(other), Command::Pause).unwrap();
    assert_eq!(counts(&world, sweep).cancelled, 10_000_000);
    assert_eq!(world.state(trial(sweep, 9_999_999)), TrialState::Cancelled);
    assert_eq!(world.state(trial(other, 9_999_999)), TrialState::Paused);
    assert!(world.engine.snapshot().len() < 2000);
    assert!(world.records.len() < 10);
}

#[test]
fn a_paused_sweep_gives_leases_back_with_checkpoints_and_goes_on_when_resumed() {
    let mut world = World::new();
    let sweep = world.submit(spec(5));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    assert_eq!(world.control(Target::Sweep(sweep), Command::Pause), Ok(Reply::Done { trials: 5 }));
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Paused)]);
    assert_eq!(counts(&world, sweep).paused, 5);
    world.checkpoint(session, lease, 20, false);
    world.released(session, lease, 20);
    world.ready(session, 0, 1);
    assert!(world.granted().is_empty());
    assert_eq!(world.control(Target::Sweep(sweep), Command::Pause), Ok(Reply::Done { trials: 0 }));
    assert_eq!(world.control(Target::Sweep(sweep), Command::Resume), Ok(Reply::Done { trials: 5 }));
    let (_, _, grant) = world.granted().remove(0);
    assert_eq!((grant.trial, grant.resume.unwrap().step), (lease.trial, 20));
    assert_eq!(world.trial(lease.trial).failures, 0);
}

#[test]
fn a_trial_that_finishes_while_it_is_being_paused_has_finished() {
    let mut world = World::new();
    let sweep = world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.control(Target::Sweep(sweep), Command::Pause).unwrap();
    world.finished(session, lease);
    assert_eq!(world.state(lease.trial), TrialState::Completed);
    assert_eq!(world.engine.sweep(sweep).unwrap().state, SweepState::Completed);
}

#[test]
fn a_pause_that_a_broken_connection_swallowed_is_said_again() {
    let mut world = World::new();
    let sweep = world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.step(Event::Disconnected { session });
    world.control(Target::Sweep(sweep), Command::Pause).unwrap();
    assert!(world.revoked().is_empty());
    world.rejoin(session, "a", &[lease]);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Paused)]);
}

#[test]
fn single_trials_are_paused_and_cancelled_before_they_ever_run() {
    let mut world = World::new();
    let sweep = world.submit(spec(4));
    let done = Ok(Reply::Done { trials: 1 });
    assert_eq!(world.control(Target::Trial(trial(sweep, 0)), Command::Pause), done);
    assert_eq!(world.control(Target::Trial(trial(sweep, 2)), Command::Cancel), done);
    world.join("a", 9);
    let numbers: Vec<u32> = world.granted().iter().map(|(_, _, grant)| grant.trial.number).collect();
    assert_eq!(numbers, [1, 3]);
    assert_eq!(world.control(Target::Trial(trial(sweep, 0)), Command::Resume), done);
    assert_eq!(world.state(trial(sweep, 0)), TrialState::Running);
    let again = world.control(Target::Trial(trial(sweep, 2)), Command::Resume);
    assert_eq!(again, Err(Refusal::Ended { state: TrialState::Cancelled }));
    let none = world.control(Target::Trial(trial(sweep, 4)), Command::Pause);
    assert_eq!(none, Err(Refusal::NoTrial { number: 4, trials: 4 }));
    assert_eq!(world.control(Target::Sweep(SweepId(9)), Command::Pause), Err(Refusal::NoSweep));
}

#[test]
fn resuming_a_sweep_leaves_trials_paused_that_were_paused_by_themselves() {
    let mut world = World::new();
    let sweep = world.submit(spec(3));
    world.control(Target::Trial(trial(sweep, 1)), Command::Pause).unwrap();
    world.control(Target::Sweep(sweep), Command::Pause).unwrap();
    assert_eq!(counts(&world, sweep).paused, 3);
    world.control(Target::Sweep(sweep), Command::Resume).unwrap();
    assert_eq!((counts(&world, sweep).paused, counts(&world, sweep).pending), (1, 2));
}

#[test]
fn a_cancelled_sweep_ends_at_once_and_keeps_exactly_n_trials() {
    let mut world = World::new();
    let sweep = world.submit(spec(100));
    let session = world.join("a", 2);
    let lease = Held { trial: trial(sweep, 0), epoch: Epoch(1) };
    world.finished(session, lease);
    assert_eq!(world.control(Target::Sweep(sweep), Command::Cancel), Ok(Reply::Done { trials: 99 }));
    assert_eq!(world.revoked(), [(trial(sweep, 1), RevokeReason::Cancelled)]);
    let view = world.engine.sweep(sweep).unwrap();
    assert_eq!((view.state, view.counts.cancelled, view.counts.completed), (SweepState::Cancelled, 99, 1));
    assert_eq!(world.control(Target::Sweep(sweep), Command::Cancel), Ok(Reply::Done { trials: 0 }));
    let paused = world.control(Target::Sweep(sweep), Command::Pause);
    assert_eq!(paused, Err(Refusal::Ended { state: TrialState::Cancelled }));
    world.finished(session, Held { trial: trial(sweep, 1), epoch: Epoch(1) });
    assert_eq!(world.engine.totals().stale_reports, 1);
}

#[test]
fn a_reached_target_starts_no_more_trials() {
    let mut world = World::new();
    let mut spec = spec(10);
    spec.objective.as_mut().unwrap().target = Some(0.9);
    let sweep = world.submit(spec);
    let session = world.join("a", 3);
    let lease = |number| Held { trial: trial(sweep, number), epoch: Epoch(1) };
    world.started(session, lease(0));
    world.started(session, lease(1));
    world.progress(session, lease(0), 5, 0.95);
    assert_eq!(world.revoked(), [(trial(sweep, 2), RevokeReason::NotNeeded)]);
    assert_eq!(counts(&world, sweep).stopped, 8);
    world.finished(session, lease(0));
    assert_eq!(world.engine.sweep(sweep).unwrap().state, SweepState::Running, "what runs runs on");
    world.released(session, lease(1), 7);
    world.ready(session, 0, 1);
    let again = world.lease();
    assert_eq!(again.trial, trial(sweep, 1), "an interrupted one as well");
    world.finished(session, again);
    let view = world.engine.sweep(sweep).unwrap();
    assert_eq!((view.state, view.target_reached), (SweepState::Completed, true));
    assert_eq!(view.best.unwrap().0, 0);
}
