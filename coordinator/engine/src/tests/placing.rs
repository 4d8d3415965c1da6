//! Who gets a lease, and where.

use super::*;

fn named(name: &str, trials: u32) -> SweepSpec {
    SweepSpec { name: SweepName::new(name).unwrap(), ..spec(trials) }
}

#[test]
fn leases_spread_over_workers_before_any_gets_a_second_ahead() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.join(name, 4);
    }
    world.submit(spec(6));
    let mut per_session: BTreeMap<SessionId, u32> = BTreeMap::new();
    let order: Vec<SessionId> = world.granted().into_iter().map(|(session, _, _)| session).collect();
    for session in &order {
        *per_session.entry(*session).or_default() += 1;
    }
    assert_eq!(per_session.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(order[..3].iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[test]
fn higher_priority_goes_first_and_equals_share() {
    let mut world = World::new();
    let low = world.submit(named("low", 100));
    let low2 = world.submit(named("low2", 100));
    let high = world.submit(SweepSpec { priority: 5, ..named("high", 4) });
    world.join("a", 10);
    let leases = |id| world.engine.sweep(id).unwrap().leases;
    assert_eq!([leases(high), leases(low), leases(low2)], [4, 3, 3]);
}

#[test]
fn a_worker_says_which_device_holds_which_lease() {
    let mut world = World::new();
    let devices = vec![device(DeviceKind::Cpu, 8 * GIB), device(DeviceKind::Cuda, 8 * GIB)];
    let session = world.join_with("two", devices, 2);
    world.submit(spec(4));
    let granted = world.granted();
    let mut expected: Vec<_> = granted.iter().map(|(_, device, grant)| (grant.trial, *device)).collect();
    expected.sort_unstable();
    let held = |world: &World| {
        let worker = world.engine.workers().next().unwrap();
        let held: Vec<_> = worker.leases.iter().map(|held| (held.trial, held.device)).collect();
        for (index, device) in worker.devices.iter().enumerate() {
            let here = held.iter().filter(|(_, device)| usize::from(*device) == index).count();
            assert_eq!(device.leases as usize, here);
        }
        held
    };
    assert_eq!(held(&world), expected);
    assert_eq!(expected.iter().filter(|(_, device)| *device == 1).count(), 2);
    let (_, gone, grant) = &granted[0];
    let lease = Held { trial: grant.trial, epoch: grant.epoch };
    world.started(session, lease);
    world.finished(session, lease);
    expected.retain(|held| *held != (lease.trial, *gone));
    assert_eq!(held(&world), expected);
}

#[test]
fn a_trial_goes_only_where_kind_and_memory_fit() {
    let mut world = World::new();
    world.join_with("small", vec![device(DeviceKind::Cuda, 8 * GIB)], 1);
    world.join_with("cpu", vec![device(DeviceKind::Cpu, 64 * GIB)], 1);
    let resources =
        Resources { device: DeviceRequest::Cuda, memory_bytes: Some(16 * GIB), workers: Workers::default() };
    world.submit(SweepSpec { resources, ..spec(2) });
    assert!(world.granted().is_empty());
    let big = world.join_with("big", vec![device(DeviceKind::Cuda, 16 * GIB)], 1);
    assert_eq!(world.granted().into_iter().map(|g| g.0).collect::<Vec<_>>(), [big]);
}

#[test]
fn a_sweep_that_fits_nowhere_holds_nobody_up() {
    let mut world = World::new();
    let resources =
        Resources { device: DeviceRequest::Cuda, memory_bytes: None, workers: Workers::default() };
    world.submit(SweepSpec { resources, priority: 9, ..spec(5) });
    let other = world.submit(spec(5));
    world.join("a", 3);
    assert_eq!(world.engine.sweep(other).unwrap().leases, 3);
}

#[test]
fn a_trial_with_bits_of_one_kind_of_device_stays_on_that_kind() {
    let mut world = World::new();
    world.submit(spec(1));
    let cpu = world.join("cpu", 1);
    let lease = world.lease();
    world.started(cpu, lease);
    world.checkpoint(cpu, lease, 10, false);
    world.step(Event::Left { session: cpu });
    let gpu = world.join_with("gpu", vec![device(DeviceKind::Cuda, GIB)], 1);
    assert!(world.granted().is_empty());
    assert_eq!(world.state(lease.trial), TrialState::Pending);
    world.tick_for(1, &[gpu]);
    world.join("cpu2", 1);
    let (_, _, grant) = world.granted().remove(0);
    assert_eq!(grant.resume.unwrap().step, 10);
    assert_eq!(grant.attempt, 2);
}

#[test]
fn trials_that_ran_before_go_before_fresh_ones() {
    let mut world = World::new();
    world.submit(spec(10));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.released(session, lease, 0);
    world.ready(session, 0, 1);
    assert_eq!(world.lease().trial, lease.trial);
}

#[test]
fn a_retry_avoids_the_worker_on_which_it_failed_if_another_could_take_it() {
    let mut world = World::new();
    let retry = RetryPolicy { max_failures: 3, backoff_s: 0.0 };
    world.submit(SweepSpec { retry, ..spec(1) });
    let bad = world.join("bad", 1);
    let lease = world.lease();
    let good = world.join("good", 0);
    world.started(bad, lease);
    world.failed(bad, lease, FailureKind::Storage);
    world.ready(bad, 0, 1);
    assert!(world.granted().is_empty(), "another could take it");
    world.ready(good, 0, 1);
    assert_eq!(world.granted()[0].0, good);
}

#[test]
fn a_retry_goes_back_to_the_only_worker_there_is() {
    let mut world = World::new();
    let retry = RetryPolicy { max_failures: 3, backoff_s: 0.0 };
    world.submit(SweepSpec { retry, ..spec(1) });
    let only = world.join("only", 1);
    let lease = world.lease();
    world.failed(only, lease, FailureKind::Storage);
    world.ready(only, 0, 1);
    assert_eq!(world.lease().trial, lease.trial);
}

#[test]
fn credits_are_never_exceeded() {
    let mut world = World::new();
    world.submit(spec(1000));
    let session = world.join("a", 3);
    assert_eq!(world.granted().len(), 3);
    world.ready(session, 0, 2);
    assert_eq!(world.granted().len(), 2, "what a worker says replaces what it said before");
    world.ready(session, 0, u32::MAX);
    assert_eq!(world.granted().len(), spotsweep_proto::limits::CREDITS_PER_DEVICE as usize);
    world.ready(session, 9, 5);
    assert!(world.granted().is_empty(), "it has no such device");
}
