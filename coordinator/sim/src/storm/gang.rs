//! How the ranks of a gang train together: they meet when all of a make-up are there, make each step at once or not at
//! all, and part when one is gone. What a single rank does is in [`super::seat`].

use super::{
    agent::{Agent, Timer},
    ledger::{Breach, REPORT_STEPS, STEPS, ensure},
    seat::{Key, Part},
    what::What,
    world::World,
};
use spotsweep_engine::{Action, Time, TrialRef, event::ReportBody};
use spotsweep_proto::line::FailureKind;
use std::collections::{BTreeMap, BTreeSet};

/// How long the others wait for a peer that does not answer.
const PEER_S: f64 = 2.5;
/// Longest time until a peer's death is noticed.
const DEATH_S: f64 = 0.3;
/// Wait before peers that could not meet, or could not step, try again.
const AGAIN_S: f64 = 0.3;
/// Between two looks at the peers of one that stores the last checkpoint.
const HOLD_S: f64 = 1.0;
/// A rank's trainer crashes behind one in so many steps of a gang.
const CRASH_ONE_IN: u64 = 60;
/// A broken step was finished by some of the ranks once in so many times.
const UNEVEN_ONE_IN: u64 = 4;

/// An agent's life.
pub(super) type Member = (usize, u32);

/// Ranks that train together.
struct Run {
    /// By rank.
    members: Vec<Member>,
    step: u64,
    /// Since when a peer does not answer.
    stalled_since: Option<Time>,
}

/// Who belongs to a make-up, as far as it could be told.
#[derive(Default)]
struct Roster {
    ranks: usize,
    members: BTreeSet<Member>,
}

/// All gangs, and what is expected of them.
#[derive(Default)]
pub(crate) struct Gangs {
    runs: BTreeMap<(Key, u64), Run>,
    rosters: BTreeMap<(Key, u64), Roster>,
    /// Make-ups whose ranks are about to meet.
    meeting: BTreeSet<(Key, u64)>,
    /// Steps that are in the memory of these agents after one of their peers died, and nothing else happened.
    remembered: BTreeMap<TrialRef, (u64, Vec<usize>)>,
}

impl Gangs {
    /// Something befell an agent: it may forget.
    pub(crate) fn disturbed(&mut self, agent: usize) {
        self.remembered.retain(|_, (_, agents)| !agents.contains(&agent));
    }

    /// Something befell all of them.
    pub(crate) fn all_disturbed(&mut self) {
        self.remembered.clear();
    }
}

impl World {
    /// A make-up is told.
    pub(crate) fn note_roster(&mut self, action: &Action) {
        let Action::Regang { session, trial, epoch, place } = action else { return };
        if let (Some(link), Some(_)) = (self.network.link(*session), place.rank) {
            let roster = self.gangs.rosters.entry(((*trial, *epoch), place.generation.0)).or_default();
            roster.ranks = place.shares.ranks() as usize;
            roster.members.insert((link.agent, link.life));
        }
    }

    fn part(&self, (agent, life): Member, key: Key) -> Option<Part> {
        let agent = self.agents.get(agent).filter(|agent| agent.alive && agent.life == life)?;
        agent.seat(key).map(|(_, part)| part)
    }

    /// Those with a seat, by agent.
    fn seated(&self, key: Key) -> Vec<(Member, Part)> {
        let members = self.agents.iter().enumerate().map(|(index, agent)| (index, agent.life));
        members.filter_map(|member| Some((member, self.part(member, key)?))).collect()
    }

    fn answers(&self, (agent, _): Member) -> bool {
        let machine = &self.machines[agent];
        machine.asleep_until <= self.now && machine.cut_until <= self.now
    }

    /// Something about a member of a gang may have changed.
    pub(crate) fn look(&mut self, key: Key) -> Result<(), Breach> {
        let over = (key, u64::MAX);
        let runs: Vec<u64> = self.gangs.runs.range((key, 0)..=over).map(|((_, g), _)| *g).collect();
        for generation in runs {
            self.look_at_run(key, generation)?;
        }
        let seated = self.seated(key);
        let newest = seated.iter().map(|(_, part)| part.told).max().unwrap_or(0);
        let there = seated.iter().filter(|(_, part)| part.awaits(newest));
        let all = there.clone().next().is_some_and(|(_, part)| part.ranks == there.count());
        if all && self.gangs.meeting.insert((key, newest)) {
            let wait_s = self.dice.between_s(0.02, AGAIN_S);
            self.after(wait_s, What::Meet { key, generation: newest });
        }
        for ((index, _), part) in seated {
            if part.leaves() && part.joined.is_none() {
                self.with_agent(index, |agent, around| agent.leave(key, around))?;
            }
        }
        Ok(())
    }

    fn look_at_run(&mut self, key: Key, generation: u64) -> Result<(), Breach> {
        let Some(run) = self.gangs.runs.get(&(key, generation)) else { return Ok(()) };
        let is_in = |member: &Member| self.part(*member, key).is_some_and(|p| p.joined == Some(generation));
        if run.members.iter().all(is_in) {
            return Ok(());
        }
        let others_in = run.members.iter().skip(1).all(is_in);
        let (Some(&first), true) = (run.members.first(), run.step >= STEPS && others_in) else {
            return self.fall_apart(key, generation, true);
        };
        let alive = |agent: &Agent| agent.alive && agent.life == first.1;
        if !alive(&self.agents[first.0]) {
            return self.fall_apart(key, generation, true);
        }
        let told = |l: &super::agent::Lease| (l.trial, l.epoch) == key && l.ended.is_some();
        if !self.agents[first.0].leases.iter().any(told) {
            // The coordinator has heard of the result, or has told everybody what else holds.
            let run = self.gangs.runs.remove(&(key, generation));
            for (index, _) in run.into_iter().flat_map(|run| run.members).skip(1) {
                self.agents[index].part_from_others(key);
            }
        }
        Ok(())
    }

    /// The ranks of a make-up lose each other, and notice it after a while.
    fn fall_apart(&mut self, key: Key, generation: u64, in_step: bool) -> Result<(), Breach> {
        let Some(run) = self.gangs.runs.remove(&(key, generation)) else { return Ok(()) };
        let left = |world: &Self, member: &Member| {
            world.part(*member, key).is_some_and(|part| part.joined == Some(generation))
        };
        let members: Vec<Member> = run.members.iter().copied().filter(|m| left(self, m)).collect();
        self.remember(key, generation, &run, &members);
        let uneven = in_step && run.step + REPORT_STEPS < STEPS && self.dice.one_in(UNEVEN_ONE_IN);
        for &(index, life) in &members {
            if uneven && self.answers((index, life)) && self.dice.one_in(2) {
                self.may_die_ahead(index);
                let step = run.step + REPORT_STEPS;
                self.with_agent(index, |agent, around| {
                    agent.trained(key, step, false, around);
                    Ok(())
                })?;
            }
            let wait_s = self.dice.between_s(0.01, DEATH_S);
            let timer = Timer::LostPeer { key, generation };
            self.after(wait_s, What::Timer { agent: index, life, timer });
        }
        Ok(())
    }

    /// If nothing but one rank's death has happened, its peers know what they were told, and they are enough, then
    /// what they have in memory must not be lost.
    fn remember(&mut self, key: Key, generation: u64, run: &Run, left: &[Member]) {
        let dead = run.members.iter().filter(|(agent, life)| {
            let agent = &self.agents[*agent];
            !agent.alive || agent.life != *life
        });
        // Newcomers do not hold a state for which nobody else could give its word.
        let spoke = |(agent, _): &Member| !self.machines[*agent].words_lost;
        let one_died = dead.clone().count() == 1 && dead.clone().all(spoke);
        let one_died = one_died && left.len() + 1 == run.members.len();
        let newest = self.gangs.rosters.range((key, 0)..=(key, u64::MAX)).next_back();
        let is_newest = newest.is_some_and(|((_, newest), _)| *newest == generation);
        let calm = self.coordinator.up
            && self.coordinator.disk_full_until <= self.now
            && self.coordinator.doomed.is_none()
            && left.iter().all(|member| {
                let machine = &self.machines[member.0];
                let told = self.part(*member, key).is_some_and(|part| part.told == generation);
                told && machine.calm_from <= self.now && machine.noticed_at.is_none() && self.answers(*member)
            });
        if !self.scenario.programs
            && one_died
            && is_newest
            && calm
            && left.len() >= self.gang_bounds.0 as usize
        {
            let agents = left.iter().map(|(agent, _)| *agent).collect();
            self.gangs.remembered.insert(key.0, (run.step, agents));
        }
    }

    /// All ranks of a make-up were there a moment ago.
    pub(crate) fn meet(&mut self, key: Key, generation: u64) -> Result<(), Breach> {
        self.gangs.meeting.remove(&(key, generation));
        let mut there: Vec<(Member, Part)> =
            self.seated(key).into_iter().filter(|(_, part)| part.awaits(generation)).collect();
        if there.first().is_none_or(|(_, part)| part.ranks != there.len()) {
            return Ok(());
        }
        if !there.iter().all(|(member, _)| self.answers(*member)) {
            self.gangs.meeting.insert((key, generation));
            self.after(AGAIN_S, What::Meet { key, generation });
            return Ok(());
        }
        there.sort_by_key(|(_, part)| part.rank);
        let members: Vec<Member> = there.into_iter().map(|(member, _)| member).collect();
        let in_memory = |member: &Member| self.agents[member.0].seat(key).and_then(|(lease, _)| lease.step);
        let step = match members.iter().filter_map(in_memory).max() {
            Some(step) => step,
            None => {
                let offers = members.iter().map(|member| (self.agents[member.0].offers(key), member.0));
                let Some(((step, fetched), best)) = offers.max() else { return Ok(()) };
                if !fetched {
                    self.with_agent(best, |agent, around| agent.cannot_begin(key, around))?;
                    return self.look(key);
                }
                step
            }
        };
        self.ledger.begins(key.0, key.1, step)?;
        let remembered = self.gangs.remembered.remove(&key.0).map(|(step, _)| step);
        ensure(
            remembered.is_none_or(|least| step >= least),
            "what is in memory is not trained again",
            || format!("{} epoch {} generation {generation} from {step}: {remembered:?}", key.0, key.1),
        )?;
        for (index, _) in members.clone() {
            self.with_agent(index, |agent, around| {
                agent.formed(key, generation, step, around);
                Ok(())
            })?;
        }
        self.gangs.runs.insert((key, generation), Run { members, step, stalled_since: None });
        self.formed += 1;
        if step >= STEPS { self.finish(key, generation) } else { self.beat_later(key, generation) }
    }

    fn beat_later(&mut self, key: Key, generation: u64) -> Result<(), Breach> {
        let wait_s = self.dice.between_s(0.2, 1.0);
        self.after(wait_s, What::Beat { key, generation });
        Ok(())
    }

    /// The last step is made: the first rank stores the last checkpoint and says so, the others hold.
    fn finish(&mut self, key: Key, generation: u64) -> Result<(), Breach> {
        self.after(HOLD_S, What::Beat { key, generation });
        let run = self.gangs.runs.get(&(key, generation));
        if self.scenario.programs {
            // Each ends by itself: nobody is lost to anybody.
            let members = run.map(|run| run.members.clone()).unwrap_or_default();
            self.gangs.runs.remove(&(key, generation));
            return self.programs_end(key, &members);
        }
        let Some((first, _)) = run.and_then(|run| run.members.first().copied()) else { return Ok(()) };
        self.with_agent(first, Agent::stopped)?;
        self.look(key)
    }

    /// A step of all ranks is done, if none of them is missing.
    pub(crate) fn beat(&mut self, key: Key, generation: u64) -> Result<(), Breach> {
        let Some(run) = self.gangs.runs.get(&(key, generation)) else { return Ok(()) };
        let members = run.members.clone();
        if !members.iter().all(|member| self.answers(*member)) {
            return self.wait_for_peer(key, generation);
        }
        let holds = run.step >= STEPS;
        let step = (run.step + REPORT_STEPS).min(STEPS);
        if let Some(run) = self.gangs.runs.get_mut(&(key, generation)) {
            (run.step, run.stalled_since) = (step, None);
        }
        if !holds {
            self.make_step(key, generation, &members, step)?;
        }
        self.change_over(key, generation, &members)?;
        if !self.gangs.runs.contains_key(&(key, generation)) {
            return self.look(key);
        }
        if holds {
            self.after(HOLD_S, What::Beat { key, generation });
            Ok(())
        } else if step >= STEPS {
            self.finish(key, generation)
        } else {
            self.beat_later(key, generation)
        }
    }

    fn make_step(&mut self, key: Key, generation: u64, members: &[Member], step: u64) -> Result<(), Breach> {
        self.steps_in_one_gang(key, generation)?;
        for (rank, (index, _)) in members.iter().enumerate() {
            self.with_agent(*index, |agent, around| {
                agent.trained(key, step, rank == 0, around);
                Ok(())
            })?;
        }
        if self.dice.one_in(CRASH_ONE_IN) {
            let (index, _) = members[self.dice.index(members.len())];
            self.gangs.disturbed(index);
            let (kind, message) = (FailureKind::Crashed, "crashed".to_owned());
            let body = ReportBody::Failed { step, kind, message, seconds: 1.0 };
            self.with_agent(index, |agent, around| agent.give_seat_back(key, body, around))?;
            self.look(key)?;
        }
        Ok(())
    }

    /// Of one trial no two make-ups whose ranks all have a seat may train at the same time.
    fn steps_in_one_gang(&self, key: Key, generation: u64) -> Result<(), Breach> {
        let seated = |run: &Run| {
            let mut members = run.members.iter();
            members.all(|(agent, _)| self.coordinator.seats(self.agents[*agent].link, key))
        };
        let mut runs = self.gangs.runs.range((key, 0)..=(key, u64::MAX)).filter(|(_, run)| seated(run));
        let other = runs.find(|((_, other), _)| *other != generation);
        let this = self.gangs.runs.get(&(key, generation)).is_some_and(seated);
        ensure(!this || other.is_none(), "no two make-ups of a gang train at once", || {
            format!("{} epoch {} generation {generation}: {:?}", key.0, key.1, other.map(|(key, _)| key))
        })
    }

    /// A peer does not answer.
    fn wait_for_peer(&mut self, key: Key, generation: u64) -> Result<(), Breach> {
        let now = self.now;
        let Some(run) = self.gangs.runs.get_mut(&(key, generation)) else { return Ok(()) };
        let since = *run.stalled_since.get_or_insert(now);
        if since.after_s(PEER_S) <= now {
            return self.fall_apart(key, generation, false);
        }
        self.after(AGAIN_S, What::Beat { key, generation });
        Ok(())
    }

    /// Behind a step: if all ranks that go on know the next make-up, they leave this one together.
    fn change_over(&mut self, key: Key, generation: u64, members: &[Member]) -> Result<(), Breach> {
        let told = |member: &Member| self.part(*member, key).map(|part| part.told);
        let Some(next) = members.iter().filter_map(told).max().filter(|next| *next > generation) else {
            return Ok(());
        };
        let roster = self.gangs.rosters.get(&(key, next));
        let may_know = |member: &Member| {
            roster.is_none_or(|roster| roster.members.len() < roster.ranks || roster.members.contains(member))
        };
        let waits = |member: &Member| told(member) == Some(generation) && may_know(member);
        if members.iter().any(waits) {
            return Ok(());
        }
        self.gangs.runs.remove(&(key, generation));
        for &(index, life) in members {
            let Some(part) = self.part((index, life), key) else { continue };
            if part.told > generation {
                self.agents[index].part_from_others(key);
            } else {
                let timer = Timer::LostPeer { key, generation };
                self.after(DEATH_S, What::Timer { agent: index, life, timer });
            }
        }
        Ok(())
    }
}
