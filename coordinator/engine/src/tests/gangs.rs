//! Several workers and one trial: who gets a seat, when the make-up changes, and that each report counts once.

mod rigid;
mod seats;

use super::*;
use crate::{action::GangPlace, event::GangNews, explain::Reason};
use spotsweep_proto::{
    gang::Generation,
    notice::{Notice, NoticeKind, NoticeSource},
};

fn gang_spec(trials: u32, min: u32, max: u32) -> SweepSpec {
    let mut spec = spec(trials);
    spec.train.shards = 8;
    spec.resources.workers = Workers { min, max };
    spec
}

impl World {
    fn news(&mut self, session: SessionId, lease: Held, generation: u64, step: u64, news: GangNews) {
        let generation = Generation(generation);
        self.step(Event::Gang { session, trial: lease.trial, epoch: lease.epoch, generation, step, news });
    }

    fn gang_ready(&mut self, session: SessionId, lease: Held) {
        self.news(session, lease, 0, 0, GangNews::Ready);
    }

    fn broken(&mut self, session: SessionId, lease: Held, generation: u64, step: u64) {
        self.news(
            session,
            lease,
            generation,
            step,
            GangNews::Broken { message: "a peer is gone".to_owned() },
        );
    }

    /// What the newest step told whom about its place.
    fn places(&self) -> Vec<(SessionId, GangPlace)> {
        let places = self.actions.iter().filter_map(|action| match action {
            Action::Regang { session, place, .. } => Some((*session, place.clone())),
            _ => None,
        });
        places.collect()
    }

    /// The same: generation and rank of each.
    fn ranks(&self) -> Vec<(SessionId, u64, Option<u32>)> {
        self.places().into_iter().map(|(session, place)| (session, place.generation.0, place.rank)).collect()
    }

    /// A gang of these workers, which trains.
    fn gang(&mut self, sessions: &[SessionId]) -> Held {
        let grants = self.granted();
        assert_eq!(grants.len(), sessions.len(), "{grants:?}");
        let lease = Held { trial: grants[0].2.trial, epoch: grants[0].2.epoch };
        for session in sessions {
            self.gang_ready(*session, lease);
        }
        for session in sessions {
            self.news(*session, lease, 1, 0, GangNews::Formed);
            self.started(*session, lease);
        }
        lease
    }
}

#[test]
fn a_gang_gets_its_least_number_at_once_or_nothing() {
    let mut world = World::new();
    let a = world.join("a", 2);
    world.submit(gang_spec(1, 2, 3));
    assert!(world.granted().is_empty());
    let b = world.join("b", 2);
    let grants = world.granted();
    assert_eq!(grants.iter().map(|(session, _, _)| *session).collect::<Vec<_>>(), [a, b]);
    assert!(grants.iter().all(|(_, _, grant)| grant.epoch == grants[0].2.epoch && grant.attempt == 1));
    assert!(grants.iter().all(|(_, _, grant)| grant.gang.as_ref().is_some_and(|place| place.rank.is_none())));
}

#[test]
fn ranks_are_told_when_all_are_ready_or_enough_have_waited_for_the_others() {
    let mut world = World::new();
    let sessions = ["a", "b", "c"].map(|name| world.join(name, 2));
    world.submit(gang_spec(1, 2, 3));
    let (_, _, grant) = world.granted().remove(0);
    let lease = Held { trial: grant.trial, epoch: grant.epoch };
    world.gang_ready(sessions[0], lease);
    world.gang_ready(sessions[2], lease);
    assert!(world.places().is_empty());
    world.tick_for(5, &sessions);
    assert_eq!(world.ranks(), [(sessions[0], 1, Some(0)), (sessions[2], 1, Some(1))]);
    let place = world.places().remove(1).1;
    assert_eq!(place.shares.of(1), 4..8);
    // The third joins when it is ready, once the others train.
    world.gang_ready(sessions[1], lease);
    assert!(world.places().is_empty());
    world.news(sessions[0], lease, 1, 0, GangNews::Formed);
    let expected = [(sessions[0], 2, Some(0)), (sessions[2], 2, Some(1)), (sessions[1], 2, Some(2))];
    assert_eq!(world.ranks(), expected);
}

#[test]
fn what_every_rank_reports_counts_once() {
    let mut world = World::new();
    let sessions = ["a", "b"].map(|name| world.join(name, 2));
    world.submit(gang_spec(1, 2, 2));
    world.join("c", 0);
    // The grants were made when the second worker joined.
    let mut world = World::new();
    world.submit(gang_spec(1, 2, 2));
    let a = world.join("a", 2);
    let b = world.join("b", 2);
    assert_ne!(a, sessions[1]);
    let lease = world.gang(&[a, b]);
    for step in [10, 20] {
        world.progress(a, lease, step, 0.5);
        world.progress(b, lease, step, 0.5);
    }
    world.checkpoint(a, lease, 20, true);
    world.finished(a, lease);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::NotNeeded)], "the other one is let go");
    let points = world.records.iter().filter(|record| matches!(record, Record::Point { .. })).count();
    let starts =
        world.records.iter().filter(|record| matches!(record, Record::AttemptStarted { .. })).count();
    assert_eq!((points, starts), (2, 1));
    assert_eq!(world.trial(lease.trial).state, TrialState::Completed);
    assert!(world.engine.workers().all(|worker| worker.leases.is_empty()));
}

#[test]
fn the_ranks_that_are_left_go_on_as_soon_as_each_has_said_that_the_gang_broke() {
    let mut world = World::new();
    world.submit(gang_spec(1, 2, 3));
    let sessions = [world.join("a", 2), world.join("b", 2)];
    let lease = world.gang(&sessions);
    let c = world.join("c", 2);
    world.tick_for(5, &[sessions[0], sessions[1], c]);
    assert_eq!(world.granted().len(), 1, "an idle worker gets a seat after a while");
    world.gang_ready(c, lease);
    for session in [sessions[0], sessions[1], c] {
        world.news(session, lease, 2, 30, GangNews::Formed);
    }
    // The first rank dies.
    world.step(Event::Disconnected { session: sessions[0] });
    world.broken(c, lease, 2, 41);
    assert!(world.places().is_empty(), "another one is heard");
    world.broken(sessions[1], lease, 2, 40);
    assert_eq!(
        world.ranks(),
        [(sessions[1], 3, Some(0)), (c, 3, Some(1))],
        "they give the newer state to each other"
    );
    world.news(c, lease, 3, 41, GangNews::Formed);
    assert_eq!(world.trial(lease.trial).attempts, 1, "the attempt goes on");
    // What the lost one still says is stale.
    let again = world.rejoin(sessions[0], "a", &[lease]);
    let stale = world.engine.totals().stale_reports;
    world.progress(again, lease, 99, 0.5);
    assert_eq!(world.engine.totals().stale_reports, stale + 1);
    world.progress(sessions[1], lease, 50, 0.5);
    assert_eq!(world.trial(lease.trial).step, 50);
}

#[test]
fn a_rank_that_stalls_is_left_behind_and_told_so() {
    let mut world = World::new();
    world.submit(gang_spec(1, 1, 2));
    let a = world.join("a", 2);
    let lease = world.lease();
    world.gang_ready(a, lease);
    world.news(a, lease, 1, 0, GangNews::Formed);
    let b = world.join("b", 2);
    world.tick_for(6, &[a, b]);
    world.gang_ready(b, lease);
    for session in [a, b] {
        world.news(session, lease, 2, 5, GangNews::Formed);
    }
    world.broken(a, lease, 2, 9);
    assert!(world.places().is_empty());
    world.tick_for(1, &[a, b]);
    assert_eq!(world.ranks(), [(a, 3, Some(0))]);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::NotNeeded)]);
}

#[test]
fn a_gang_with_too_few_workers_stores_its_state_and_holds_nothing() {
    let mut world = World::new();
    world.submit(gang_spec(1, 2, 2));
    let (a, b) = (world.join("a", 2), world.join("b", 2));
    let lease = world.gang(&[a, b]);
    world.step(Event::Left { session: a });
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::Moved)], "stop with a checkpoint");
    world.checkpoint(b, lease, 33, false);
    world.released(b, lease, 33);
    assert_eq!(world.trial(lease.trial).state, TrialState::Pending);
    world.ready(b, 0, 2);
    assert!(world.granted().is_empty());
    let why = world.engine.explain(lease.trial, world.now).unwrap();
    assert!(why.to_string().contains("2 workers at once"), "{why}");
    world.join("c", 2);
    let grants = world.granted();
    assert_eq!(grants.len(), 2);
    assert!(grants.iter().all(|(_, _, grant)| grant.resume.as_ref().is_some_and(|from| from.step == 33)));
}

#[test]
fn a_warned_rank_leaves_between_two_steps_where_the_gang_can_do_without_it() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 1, 2));
    let lease = world.gang(&[a, b]);
    let notice = Notice::new(NoticeSource::Aws, NoticeKind::Terminate, Some(120.0));
    world.step(Event::Noticed { session: a, notice });
    assert_eq!(world.ranks(), [(b, 2, Some(0)), (a, 2, None)]);
    world.progress(a, lease, 4, 0.5);
    world.released(a, lease, 5);
    world.progress(b, lease, 6, 0.5);
    let view = world.trial(lease.trial);
    assert_eq!((view.step, view.state, view.interruptions), (6, TrialState::Running, 0));
}

#[test]
fn a_pause_stops_the_first_rank_with_a_checkpoint_and_lets_the_others_go() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 2, 2));
    let lease = world.gang(&[a, b]);
    world.control(Target::Sweep(SweepId(0)), Command::Pause).unwrap();
    let revoked: Vec<RevokeReason> = world.revoked().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(revoked, [RevokeReason::NotNeeded, RevokeReason::Paused]);
    world.checkpoint(a, lease, 8, false);
    world.released(a, lease, 8);
    assert_eq!(world.trial(lease.trial).state, TrialState::Paused);
}

#[test]
fn ranks_that_cannot_reach_each_other_end_the_attempt_instead_of_trying_for_ever() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    let mut spec = gang_spec(1, 2, 2);
    spec.retry.max_failures = 1;
    world.submit(spec);
    let lease = world.gang(&[a, b]);
    let mut generations = 0;
    while world.trial(lease.trial).state == TrialState::Running {
        generations += 1;
        assert!(generations < 100);
        world.broken(a, lease, generations, 0);
        world.broken(b, lease, generations, 0);
    }
    let failure = world.trial(lease.trial).last_failure.unwrap();
    assert!(failure.message.contains("cannot train together: a peer is gone"), "{failure:?}");
}

#[test]
fn a_crash_of_one_rank_leaves_the_others_training_and_crashes_at_one_step_end_the_trial() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 1, 2));
    let lease = world.gang(&[a, b]);
    world.failed(b, lease, FailureKind::Crashed);
    assert_eq!(world.ranks(), [(a, 2, Some(0))]);
    assert_eq!(world.trial(lease.trial).failures, 0);
    world.failed(a, lease, FailureKind::Crashed);
    assert_eq!(world.trial(lease.trial).failures, 1, "the last one's failure is the trial's");
}

#[test]
fn a_newcomer_that_has_no_state_does_not_go_on_alone_from_an_old_checkpoint() {
    let mut world = World::new();
    world.submit(gang_spec(1, 1, 2));
    let a = world.join("a", 1);
    let lease = world.gang(&[a]);
    world.checkpoint(a, lease, 20, false);
    let b = world.join("b", 1);
    world.tick_for(5, &[a, b]);
    assert_eq!(world.granted().len(), 1);
    world.gang_ready(b, lease);
    assert_eq!(world.ranks(), [(a, 2, Some(0)), (b, 2, Some(1))]);
    world.checkpoint(a, lease, 35, false);
    world.released(a, lease, 35);
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::NotNeeded)]);
    world.ready(b, 0, 1);
    let (_, _, grant) = world.granted().remove(0);
    assert!(grant.epoch > lease.epoch);
    assert_eq!(grant.resume.map(|from| from.step), Some(35));
}

#[test]
fn a_warned_rank_stays_until_another_has_its_state() {
    let mut world = World::new();
    world.submit(gang_spec(1, 1, 2));
    let a = world.join("a", 1);
    let lease = world.gang(&[a]);
    let b = world.join("b", 1);
    world.tick_for(6, &[a, b]);
    let notice = Notice::new(NoticeSource::Aws, NoticeKind::Terminate, Some(120.0));
    world.step(Event::Noticed { session: a, notice });
    world.gang_ready(b, lease);
    assert_eq!(world.ranks(), [(a, 2, Some(0)), (b, 2, Some(1))]);
    world.news(b, lease, 2, 9, GangNews::Formed);
    assert!(world.places().is_empty(), "what led to the state may still be on its way");
    world.news(a, lease, 2, 9, GangNews::Formed);
    assert_eq!(world.ranks(), [(b, 3, Some(0)), (a, 3, None)]);
}

#[test]
fn a_newcomer_s_points_count_only_once_those_before_them_are_there() {
    let mut world = World::new();
    world.submit(gang_spec(1, 1, 2));
    let a = world.join("a", 1);
    let lease = world.gang(&[a]);
    let b = world.join("b", 1);
    world.tick_for(6, &[a, b]);
    world.gang_ready(b, lease);
    // The report of step 20 is still on its way from the first one, whose state of that step the newcomer took over.
    world.news(b, lease, 2, 20, GangNews::Formed);
    world.progress(b, lease, 25, 0.5);
    world.checkpoint(b, lease, 25, false);
    assert!(world.records.iter().all(|record| !matches!(record, Record::Point { .. })));
    assert!(world.trial(lease.trial).checkpoints.is_empty());
    world.progress(a, lease, 20, 0.5);
    world.news(a, lease, 2, 20, GangNews::Formed);
    // It takes the first one's word for step 25 as well, since its own was not taken.
    world.progress(b, lease, 30, 0.5);
    world.progress(a, lease, 25, 0.5);
    world.progress(a, lease, 30, 0.5);
    world.progress(b, lease, 35, 0.5);
    let steps: Vec<u64> = world
        .records
        .iter()
        .filter_map(|record| if let Record::Point { step, .. } = record { Some(*step) } else { None })
        .collect();
    assert_eq!(steps, [20, 25, 30, 35]);
}

#[test]
fn a_state_whose_past_was_never_reported_is_given_up_with_those_who_knew_it() {
    let mut world = World::new();
    world.submit(gang_spec(1, 1, 2));
    let a = world.join("a", 1);
    let lease = world.gang(&[a]);
    world.checkpoint(a, lease, 10, false);
    let b = world.join("b", 1);
    world.tick_for(6, &[a, b]);
    world.gang_ready(b, lease);
    world.news(b, lease, 2, 20, GangNews::Formed);
    world.progress(b, lease, 25, 0.5);
    world.step(Event::Left { session: a });
    assert_eq!(world.revoked(), [(lease.trial, RevokeReason::NotNeeded)]);
    world.ready(b, 0, 1);
    let (_, _, grant) = world.granted().remove(0);
    assert_eq!(grant.resume.map(|from| from.step), Some(10));
}

#[test]
fn a_checkpoint_that_a_gang_has_left_behind_may_be_gone_for_one_that_joins_late() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 1, 2));
    let (_, _, grant) = world.granted().remove(0);
    let lease = Held { trial: grant.trial, epoch: grant.epoch };
    world.gang_ready(a, lease);
    world.tick_for(5, &[a, b]);
    world.news(a, lease, 1, 0, GangNews::Formed);
    world.started(a, lease);
    world.failed(b, lease, FailureKind::Checkpoint);
    let view = world.trial(lease.trial);
    assert_eq!((view.state, view.epoch, view.failures), (TrialState::Running, lease.epoch, 0));
}

#[test]
fn a_rank_that_comes_back_to_a_broken_gang_is_not_told_of_a_make_up_that_never_was() {
    let mut world = World::new();
    let sessions = ["a", "b", "c"].map(|name| world.join(name, 1));
    world.submit(gang_spec(1, 1, 3));
    let lease = world.gang(&sessions);
    world.broken(sessions[0], lease, 1, 5);
    world.step(Event::Left { session: sessions[1] });
    world.step(Event::Disconnected { session: sessions[2] });
    let again = world.rejoin(sessions[2], "c", &[lease]);
    let told: Vec<_> = world.ranks().into_iter().filter(|(_, generation, _)| *generation == 1).collect();
    assert_eq!(told, [], "{again:?} was the third of three, not the second of two");
}

#[test]
fn a_rank_that_comes_back_is_told_its_place_again() {
    let mut world = World::new();
    let (a, b) = (world.join("a", 1), world.join("b", 1));
    world.submit(gang_spec(1, 2, 2));
    let lease = world.gang(&[a, b]);
    world.step(Event::Disconnected { session: b });
    let again = world.rejoin(b, "b", &[lease]);
    assert_eq!(world.ranks(), [(again, 1, Some(1))]);
    assert!(matches!(world.engine.explain(lease.trial, world.now).unwrap().reason, Reason::Leased { .. }));
}

/// Whether 6 s change the make-up: how many shards each rank then carries.
fn carried_later(world: &mut World, sessions: &[SessionId]) -> Option<Vec<u32>> {
    (0..6).find_map(|_| {
        world.tick_for(1, sessions);
        carried(world)
    })
}

/// The same of the newest step.
fn carried(world: &World) -> Option<Vec<u32>> {
    let (_, GangPlace { shares, .. }) = world.places().into_iter().next()?;
    Some((0..shares.ranks()).map(|rank| shares.of(rank).end - shares.of(rank).start).collect())
}

#[test]
fn shards_follow_the_measured_pace_once_the_gang_has_settled() {
    let mut world = World::new();
    let sessions = [world.join("a", 1), world.join("b", 1)];
    world.submit(gang_spec(1, 2, 2));
    let lease = world.gang(&sessions);
    let pace = |world: &mut World, session, generation, shard_us| {
        world.news(session, lease, generation, 10, GangNews::Pace { shard_us });
    };
    pace(&mut world, sessions[0], 1, 10_000);
    pace(&mut world, sessions[1], 1, 31_000);
    assert_eq!(carried(&world), None, "it keeps its make-up for a while");
    assert_eq!(carried_later(&mut world, &sessions), Some(vec![6, 2]));
    assert_eq!(world.ranks().iter().map(|rank| rank.1).collect::<Vec<_>>(), [2, 2]);
    for session in sessions {
        world.news(session, lease, 2, 12, GangNews::Formed);
    }
    pace(&mut world, sessions[0], 2, 11_000);
    assert_eq!(carried_later(&mut world, &sessions), None, "no division is notably better");
    pace(&mut world, sessions[1], 1, 1);
    assert_eq!(
        carried_later(&mut world, &sessions),
        None,
        "a late word about the make-up of before counts for nothing"
    );
    pace(&mut world, sessions[1], 2, 11_000);
    assert_eq!(carried(&world), Some(vec![4, 4]));
}
