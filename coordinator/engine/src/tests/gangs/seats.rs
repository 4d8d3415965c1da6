//! Who gets a seat in a gang, and who gives one up.

use super::*;

#[test]
fn a_lost_rank_is_replaced_at_once_where_a_worker_is_idle() {
    let mut world = World::new();
    world.submit(gang_spec(1, 2, 2));
    let (a, b) = (world.join("a", 2), world.join("b", 2));
    let lease = world.gang(&[a, b]);
    let c = world.join("c", 2);
    world.step(Event::Left { session: a });
    assert_eq!(world.granted().iter().map(|(session, _, _)| *session).collect::<Vec<_>>(), [c]);
    assert!(world.revoked().is_empty(), "the other one holds its state");
    world.gang_ready(c, lease);
    assert_eq!(world.ranks(), [(b, 2, Some(0)), (c, 2, Some(1))]);
}

#[test]
fn a_trial_that_waits_gets_what_a_gang_has_beyond_its_least_number() {
    let mut world = World::new();
    world.submit(gang_spec(1, 1, 3));
    // Both at once, so that the gang begins with both.
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 1, 3));
    let lease = world.gang(&[a, b]);
    world.submit(SweepSpec { name: SweepName::new("single").unwrap(), ..spec(1) });
    world.tick_for(5, &[a, b]);
    assert_eq!(world.ranks(), [(a, 2, Some(0)), (b, 2, None)], "it leaves behind a step");
    world.news(a, lease, 2, 7, GangNews::Formed);
    world.released(b, lease, 7);
    world.ready(b, 0, 1);
    assert_eq!(world.lease().trial.sweep, SweepId(1));
    assert_eq!(world.trial(lease.trial).interruptions, 0);
}

#[test]
fn devices_that_become_idle_are_kept_for_a_gang_whose_patience_is_over() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(SweepSpec { name: SweepName::new("single").unwrap(), ..spec(100) });
    let held: BTreeMap<SessionId, Held> = world
        .granted()
        .into_iter()
        .map(|(session, _, grant)| (session, Held { trial: grant.trial, epoch: grant.epoch }))
        .collect();
    let gang = world.submit(gang_spec(1, 2, 2));
    let next = |world: &mut World, session: SessionId, lease: Held| {
        world.finished(session, lease);
        world.ready(session, 0, 1);
        world.granted().first().map(|(_, _, grant)| Held { trial: grant.trial, epoch: grant.epoch })
    };
    let on_a = next(&mut world, a, held[&a]).expect("others fill the gap");
    world.tick_for(31, &[a, b]);
    assert_eq!(next(&mut world, a, on_a), None, "kept for the gang");
    let first = next(&mut world, b, held[&b]).expect("both are idle");
    assert_eq!((first.trial.sweep, world.granted().len()), (gang, 2));
}

#[test]
fn a_gang_takes_workers_that_were_recommended_to_leave_where_it_cannot_begin_without() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.step(Event::Noticed {
        session: b,
        notice: Notice::new(NoticeSource::Aws, NoticeKind::Rebalance, None),
    });
    world.submit(gang_spec(1, 2, 2));
    assert_eq!(world.granted().iter().map(|(session, _, _)| *session).collect::<Vec<_>>(), [a, b]);
}

#[test]
fn a_silent_worker_gets_no_seat_that_another_loses_in_the_same_moment() {
    let mut world = World::new();
    world.submit(gang_spec(1, 2, 2));
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.gang(&[a, b]);
    world.join("c", 1);
    world.now = world.now.after_s(60.0);
    world.step(Event::Tick { heard: vec![b] });
    assert!(world.granted().is_empty(), "c was not heard of for longer than a lease");
}

#[test]
fn what_a_gang_gives_back_goes_to_others_in_the_same_step() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 2, 2));
    world.submit(SweepSpec { name: SweepName::new("single").unwrap(), ..spec(2) });
    assert_eq!(world.granted().len(), 0);
    world.step(Event::Left { session: b });
    world.ready(a, 0, 1);
    assert!(world.engine.check().is_ok(), "{:?}", world.engine.check());
    assert_eq!(world.engine.workers().map(|worker| worker.leases.len()).sum::<usize>(), 1);
}

#[test]
fn a_worker_that_waits_for_a_gang_in_which_it_has_no_seat_is_told_so() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 2), world.join("b", 2));
    world.submit(gang_spec(1, 2, 2));
    let lease = world.gang(&[a, b]);
    world.broken(b, lease, 1, 5);
    world.tick_for(1, &[a, b]);
    assert_eq!(world.granted().len(), 1, "it gets another seat under the same lease");
    // Said before it heard of either.
    world.finished(a, lease);
    world.gang_ready(a, lease);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Stale)]);
}

#[test]
fn a_worker_that_prepares_for_too_long_makes_room_for_another() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 2, 2));
    let (_, _, grant) = world.granted().remove(0);
    let lease = Held { trial: grant.trial, epoch: grant.epoch };
    world.gang_ready(a, lease);
    let c = world.join("c", 1);
    for _ in 0..120 {
        world.tick_for(5, &[a, b, c]);
    }
    assert_eq!(world.granted().iter().map(|(session, _, _)| *session).collect::<Vec<_>>(), [c]);
    world.gang_ready(c, lease);
    assert_eq!(world.ranks(), [(a, 1, Some(0)), (c, 1, Some(1))]);
}

#[test]
fn a_worker_that_missed_that_it_got_another_seat_counts_as_ready() {
    let mut world = World::new();
    world.submit(gang_spec(1, 2, 2));
    let (a, b) = (world.join("a", 2), world.join("b", 2));
    let lease = world.gang(&[a, b]);
    world.broken(b, lease, 1, 5);
    world.tick_for(1, &[a, b]);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::NotNeeded)], "it said nothing");
    world.step(Event::Disconnected { session: a });
    let again = world.rejoin(a, "a", &[lease]);
    world.broken(again, lease, 1, 5);
    assert_eq!(world.ranks(), [(b, 2, Some(0)), (again, 2, Some(1))]);
}
