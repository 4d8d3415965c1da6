//! Every "no" has a reason.

use super::*;

fn why(world: &World, number: u32) -> String {
    world.engine.explain(trial(SweepId(0), number), world.now).unwrap().to_string()
}

#[test]
fn a_waiting_trial_says_what_it_waits_for() {
    let mut world = World::new();
    let resources =
        Resources { device: DeviceRequest::Cuda, memory_bytes: Some(16 * GIB), workers: Workers::default() };
    world.submit(SweepSpec { resources, ..spec(3) });
    assert!(why(&world, 0).contains("no worker is connected"), "{}", why(&world, 0));
    world.join_with("cpu", vec![device(DeviceKind::Cpu, 64 * GIB)], 1);
    let text = why(&world, 0);
    assert!(text.contains("needs a CUDA device with 16.0 GiB of memory"), "{text}");
    assert!(text.contains("1 × CPU with 64.0 GiB"), "{text}");
    let gpu = world.join_with("gpu", vec![device(DeviceKind::Cuda, 16 * GIB)], 1);
    assert!(why(&world, 2).contains("1 trials of its sweep go before it"), "{}", why(&world, 2));
    assert!(why(&world, 0).contains("waits on gpu for cuda:0"), "{}", why(&world, 0));
    world.started(gpu, Held { trial: trial(SweepId(0), 0), epoch: Epoch(1) });
    assert!(why(&world, 0).contains("step 0 of 100"), "{}", why(&world, 0));
}

#[test]
fn a_model_of_the_catalogue_waits_for_a_worker_with_the_trainer_and_a_program_does_not() {
    let mut world = World::new();
    world.submit(spec(1));
    let mut plain = hello("plain", vec![device(DeviceKind::Cpu, 0)]);
    plain.programs_only = true;
    let session = SessionId(77);
    world.step(Event::Joined { session, hello: Box::new(plain) });
    world.step(Event::Ready { session, device: 0, credits: 1 });
    assert!(why(&world, 0).contains("it needs a worker with the trainer"), "{}", why(&world, 0));
    world.submit(SweepSpec { program: Some(program()), ..spec(1) });
    let granted = world.actions.iter().find_map(|action| match action {
        Action::Grant { session, grant, .. } => Some((*session, grant.trial)),
        _ => None,
    });
    assert_eq!(granted, Some((session, trial(SweepId(1), 0))));
    world.join("able", 1);
    assert!(why(&world, 0).contains("waits on able for cpu"), "{}", why(&world, 0));
}

#[test]
fn a_model_of_ones_own_goes_to_workers_that_told_the_same_and_to_nobody_else() {
    use spotsweep_proto::catalogue::OwnCatalogue;
    let told = |version: u32| {
        let json = format!(r#"{{"models": [{{"name": "sine_net", "version": {version}}}]}}"#);
        OwnCatalogue::read(json.as_bytes()).unwrap()
    };
    let mut world = World::new();
    let mut own = spec(2);
    own.train.own = told(2);
    world.submit(own);
    world.join("plain", 1);
    assert!(
        why(&world, 0).contains("no connected worker's trainer knows the model sine_net"),
        "{}",
        why(&world, 0)
    );
    let join = |world: &mut World, session: u64, name: &str, version: u32| {
        let mut hello = hello(name, vec![device(DeviceKind::Cpu, 0)]);
        hello.knows = told(version).items();
        let session = SessionId(session);
        world.step(Event::Joined { session, hello: Box::new(hello) });
        world.step(Event::Ready { session, device: 0, credits: 1 });
    };
    join(&mut world, 70, "old", 1);
    let text = why(&world, 0);
    assert!(
        text.contains("describe the model sine_net otherwise than when the sweep was submitted"),
        "{text}"
    );
    join(&mut world, 71, "able", 2);
    assert!(why(&world, 0).contains("waits on able for cpu"), "{}", why(&world, 0));
    // The same after a restart from a snapshot, and others still get what they can.
    let again = Engine::restore(&world.engine.snapshot()).unwrap();
    assert!(again.explain(trial(SweepId(0), 1), world.now).unwrap().to_string().contains("busy"));
    world.submit(spec(1));
    let text = world.engine.explain(trial(SweepId(1), 0), world.now).unwrap().to_string();
    assert!(text.contains("waits on plain for cpu") || text.contains("waits on old for cpu"), "{text}");
}

#[test]
fn a_trial_behind_a_sweep_of_higher_priority_names_it() {
    let mut world = World::new();
    world.submit(spec(3));
    let name = SweepName::new("urgent").unwrap();
    world.submit(SweepSpec { name, priority: 7, ..spec(30) });
    world.join("a", 2);
    assert!(why(&world, 0).contains("sweep urgent goes first with priority 7"), "{}", why(&world, 0));
}

#[test]
fn a_trial_in_backoff_tells_its_failure_and_when_it_is_tried_again() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.failed(session, lease, FailureKind::OutOfMemory);
    let text = why(&world, 0);
    assert!(text.contains("failure 1 of 3, tried again in 10 s"), "{text}");
    assert!(text.contains("on a it failed: out of memory: no luck"), "{text}");
    assert!(text.contains("1. on a cpu to step 5"), "{text}");
}

#[test]
fn what_failed_before_is_told_whatever_the_trial_does_now() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.failed(session, lease, FailureKind::Storage);
    let told = |world: &World| why(world, 0).matches("no luck").count();
    assert_eq!(told(&world), 1, "while it waits: {}", why(&world, 0));
    world.tick_for(11, &[session]);
    assert_eq!(told(&world), 1, "when it may go on: {}", why(&world, 0));
    assert!(why(&world, 0).contains("the latest failure, on a: no luck"), "{}", why(&world, 0));
}

#[test]
fn a_failure_is_not_said_twice() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    let message = "the trainer broke the line protocol and was killed: it said ready".to_owned();
    let kind = FailureKind::Protocol;
    world.report(session, lease, ReportBody::Failed { step: 0, kind, message, seconds: 0.0 });
    let text = why(&world, 0);
    assert!(text.contains("on a it failed: the trainer broke the line protocol and was killed"), "{text}");
}

#[test]
fn ended_and_paused_trials_say_why() {
    let mut world = World::new();
    let sweep = world.submit(spec(3));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.control(Target::Trial(lease.trial), Command::Pause).unwrap();
    assert!(why(&world, 0).contains("it was paused; a writes its checkpoint"), "{}", why(&world, 0));
    world.released(session, lease, 0);
    world.ready(session, 0, 1);
    let lease = world.lease();
    world.failed(session, lease, FailureKind::Diverged);
    assert!(why(&world, 1).contains("NaN or infinite"), "{}", why(&world, 1));
    world.control(Target::Sweep(sweep), Command::Cancel).unwrap();
    assert!(why(&world, 2).contains("its sweep was cancelled"), "{}", why(&world, 2));
    assert!(world.engine.explain(trial(sweep, 3), world.now).is_none());
}

#[test]
fn a_trial_bound_to_a_kind_of_device_says_so() {
    let mut world = World::new();
    world.submit(spec(1));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.progress(session, lease, 1, 0.1);
    world.step(Event::Left { session });
    world.join_with("gpu", vec![device(DeviceKind::Cuda, GIB)], 1);
    let text = why(&world, 0);
    assert!(text.contains("it needs a CPU"), "{text}");
    assert!(text.contains("stays on that kind"), "{text}");
    assert!(text.contains("interrupted: the worker left"), "{text}");
}
