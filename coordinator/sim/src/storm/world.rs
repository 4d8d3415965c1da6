//! The loop: what happens when, and to whom. Disasters are in [`super::faults`].

mod happenings;

use super::{
    agent::{Agent, Around, Effect},
    coordinator::{Coordinator, Moment},
    gang::Gangs,
    ledger::{Breach, Ledger, ensure},
    network::{Network, Way},
    program,
    store::Store,
    what::{Machine, What, spec},
};
use crate::{Broken, Faults, Outcome, Scenario, clock::Queue, dice::Dice};
use spotsweep_engine::{Action, Event, RequestId, SessionId, SweepId, Time, TrialRef};
use spotsweep_proto::spec::Workers;

/// Virtual seconds within which a sweep must end once all machines are back.
const PATIENCE_S: f64 = 900.0;
/// Wait before a full disk is written to again.
const DISK_RETRY_S: f64 = 0.3;
/// The same beside trials of single workers that never run out.
const PATIENCE_IN_STREAM_S: f64 = 400.0;
/// Trials of single workers.
pub(crate) const SINGLE_SWEEP: SweepId = SweepId(0);
/// Trials of gangs, where there are any.
pub(crate) const GANG_SWEEP: SweepId = SweepId(1);
/// Most workers of a gang.
const GANG_MOST: u64 = 4;

pub(crate) struct World {
    seed: u64,
    pub(crate) scenario: Scenario,
    pub(crate) now: Time,
    pub(crate) dice: Dice,
    queue: Queue<What>,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) agents: Vec<Agent>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) coordinator: Coordinator,
    pub(crate) ledger: Ledger,
    pub(crate) next_request: u64,
    pub(crate) faults: Faults,
    pub(crate) storm_until: Time,
    pub(crate) gangs: Gangs,
    /// Least and greatest number of workers of a gang, as the seed has it.
    pub(crate) gang_bounds: (u32, u32),
    /// Make-ups that trained.
    pub(crate) formed: u32,
}

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario) -> Self {
        let now = Time(1_000_000_000);
        let machine = Machine {
            asleep_until: now,
            cut_until: now,
            words_lost: false,
            calm_from: now,
            noticed_at: None,
        };
        let mut dice = Dice::new(seed);
        let mut agent = |index| Agent::new(index, 0, dice.between_s(0.9, 1.1));
        let agents = (0..scenario.agents).map(&mut agent).collect();
        let gang_bounds = if scenario.gang_trials > 0 { draw_bounds(&mut dice) } else { (1, 1) };
        Self {
            seed,
            scenario,
            now,
            dice,
            queue: Queue::new(),
            network: Network::default(),
            store: Store::default(),
            agents,
            machines: vec![machine; scenario.agents],
            coordinator: Coordinator::new(scenario.mistake),
            ledger: Ledger::default(),
            next_request: 0,
            faults: Faults::default(),
            storm_until: now.after_s(scenario.storm_s),
            gangs: Gangs::default(),
            gang_bounds,
            formed: 0,
        }
    }

    pub(crate) fn has_gangs(&self) -> bool {
        self.scenario.gang_trials > 0
    }

    /// The sweeps that must end.
    fn sweeps(&self) -> &'static [SweepId] {
        match (self.has_gangs(), self.scenario.endless) {
            (true, false) => &[SINGLE_SWEEP, GANG_SWEEP],
            (true, true) => &[GANG_SWEEP],
            (false, _) => &[SINGLE_SWEEP],
        }
    }

    fn submit(&mut self, sweep: SweepId, trials: u32, workers: Workers) -> Result<(), Breach> {
        let mut spec = spec(trials, workers).ok_or(("the scenario is valid", String::new()))?;
        if self.scenario.programs && workers.is_gang() {
            (spec.program, spec.train.shards) = (Some(program::section()), 1);
        }
        let (request, token) = (RequestId(0), u128::from(sweep.0) + 1);
        self.take(Event::Submit { request, token, spec: Box::new(spec) })
    }

    pub(crate) fn run(mut self) -> Result<Outcome, Broken> {
        let begin = self.now;
        self.play().map_err(|(rule, what)| Broken {
            seed: self.seed,
            at_s: (self.now.0 - begin.0) / 1_000_000,
            rule,
            what,
        })
    }

    fn play(&mut self) -> Result<Outcome, Breach> {
        for agent in 0..self.agents.len() {
            self.after(0.01, What::Connect { agent, life: 0 });
            self.after(1.0, What::Heartbeat { agent, life: 0 });
        }
        self.after(1.0, What::Tick { life: 0 });
        self.after(self.scenario.disaster_every_s, What::Disaster);
        // The driver answers a submission when it is durable; the simulation begins there.
        self.submit(SINGLE_SWEEP, self.scenario.trials, Workers::default())?;
        if self.has_gangs() {
            let (min, max) = self.gang_bounds;
            // Programs cannot change with how many others they train.
            let min = if self.scenario.programs { max } else { min };
            self.submit(GANG_SWEEP, self.scenario.gang_trials, Workers { min, max })?;
        }
        self.finish_commit()?;
        let patience_s = if self.scenario.endless { PATIENCE_IN_STREAM_S } else { PATIENCE_S };
        let deadline = self.storm_until.after_s(patience_s);
        while let Some((at, what)) = self.queue.pop() {
            self.now = at;
            self.happen(what)?;
            if self.now >= self.storm_until && self.coordinator.up && self.is_over() {
                break;
            }
            ensure(self.now < deadline, "the sweep ends when machines return", || self.why())?;
        }
        self.finish_commit()?;
        let at = self.coordinator.clock.read(self.now);
        self.coordinator.check(at)?;
        let engine = &self.coordinator.engine;
        for sweep in self.sweeps() {
            self.ledger.close(engine, &self.store, *sweep)?;
        }
        let totals = engine.totals();
        Ok(Outcome {
            events: self.coordinator.events,
            ended_at: self.now,
            attempts: self.trials().filter_map(|trial| Some(engine.trial(trial)?.attempts)).sum(),
            stale_reports: totals.stale_reports,
            repeated_reports: totals.repeated_reports,
            refused_checkpoints: totals.refused_checkpoints,
            make_ups: self.formed,
            faults: self.faults,
        })
    }

    fn is_over(&self) -> bool {
        let is_final = |id: &SweepId| self.coordinator.engine.sweep(*id).is_some_and(|s| s.state.is_final());
        self.sweeps().iter().all(is_final)
    }

    fn trials(&self) -> impl Iterator<Item = TrialRef> {
        let count = |sweep| match sweep {
            GANG_SWEEP => self.scenario.gang_trials,
            _ => self.scenario.trials,
        };
        let sweeps = self.sweeps().iter().copied();
        sweeps.flat_map(move |sweep| (0..count(sweep)).map(move |number| TrialRef { sweep, number }))
    }

    /// Why trials are not final, in the engine's words.
    fn why(&self) -> String {
        let engine = &self.coordinator.engine;
        let open = |trial: &TrialRef| engine.trial(*trial).is_none_or(|view| !view.state.is_final());
        let at = engine.now();
        let texts =
            self.trials().filter(open).filter_map(|trial| Some(engine.explain(trial, at)?.to_string()));
        texts.take(3).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn after(&mut self, wait_s: f64, what: What) {
        self.at(self.now.after_s(wait_s), what);
    }

    pub(crate) fn at(&mut self, at: Time, what: What) {
        self.queue.push(at, what);
    }

    /// Hands an event to the coordinator, and begins a commit where none is under way.
    pub(crate) fn take(&mut self, event: Event) -> Result<(), Breach> {
        let first = self.coordinator.take(self.now, event)?;
        if self.coordinator.answers_at_once() {
            let actions = self.coordinator.release();
            self.perform(actions)?;
        }
        if first {
            let wait_s = self.dice.between_s(0.0, 0.02);
            self.after(wait_s, What::Commit { life: self.coordinator.life });
        }
        Ok(())
    }

    /// The journal's write returns, or does not, or the coordinator dies around it.
    fn commit(&mut self) -> Result<(), Breach> {
        if self.now < self.coordinator.disk_full_until {
            self.after(DISK_RETRY_S, What::Commit { life: self.coordinator.life });
            return Ok(());
        }
        match self.coordinator.doomed.take() {
            None => return self.finish_commit(),
            Some(Moment::Before) => {}
            Some(Moment::After) => self.coordinator.commit(&mut self.ledger),
            Some(Moment::Between) => {
                self.coordinator.commit(&mut self.ledger);
                let some = self.dice.index(self.coordinator.answers() + 1);
                let actions = self.coordinator.release_some(some);
                self.perform(actions)?;
            }
        }
        self.coordinator_dies();
        Ok(())
    }

    fn finish_commit(&mut self) -> Result<(), Breach> {
        self.coordinator.commit(&mut self.ledger);
        let actions = self.coordinator.release();
        self.perform(actions)
    }

    fn perform(&mut self, actions: Vec<Action>) -> Result<(), Breach> {
        for action in actions {
            match &action {
                Action::Record(record) | Action::Archive(record) => self.ledger.record(record)?,
                Action::DeleteObjects { digests } => self.store.delete(digests, self.now),
                Action::Grant { session, grant, .. } => {
                    self.ledger.granted(grant)?;
                    if self.scenario.mistake == Some(crate::Mistake::GrantTwice) {
                        self.grant_to_another(*session, &action)?;
                    }
                    self.send_down(*session, action);
                }
                Action::Regang { session, .. } => {
                    self.note_roster(&action);
                    self.send_down(*session, action);
                }
                Action::Welcome { session, .. }
                | Action::Renew { session, .. }
                | Action::Revoke { session, .. }
                | Action::Acknowledge { session, .. } => self.send_down(*session, action),
                Action::Reply { .. } => {}
            }
        }
        Ok(())
    }

    /// The mistake of a second holder.
    fn grant_to_another(&mut self, than: SessionId, action: &Action) -> Result<(), Breach> {
        let Some(other) = self.network.open_sessions().into_iter().find(|open| *open != than) else {
            return Ok(());
        };
        if let Action::Grant { grant, .. } = action {
            self.ledger.granted(grant)?;
        }
        self.send_down(other, action.clone());
        Ok(())
    }

    fn send_down(&mut self, session: SessionId, action: Action) {
        if let Some(at) = self.network.arrival(session, Way::Down, self.now, &mut self.dice) {
            self.at(at, What::ToAgent { session, action });
        }
    }

    fn perform_effects(&mut self, agent: usize, effects: Vec<Effect>) -> Result<(), Breach> {
        let life = self.agents[agent].life;
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    if let Some(session) = self.agents[agent].link
                        && let Some(at) = self.network.arrival(session, Way::Up, self.now, &mut self.dice)
                    {
                        self.at(at, What::ToCoordinator { session, message, late: false });
                    }
                }
                Effect::Wait(wait_s, timer) => self.after(wait_s, What::Timer { agent, life, timer }),
                Effect::Exit => self.left(agent)?,
            }
        }
        Ok(())
    }

    /// Lets an agent act.
    pub(crate) fn with_agent(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Agent, &mut Around<'_>) -> Result<(), Breach>,
    ) -> Result<(), Breach> {
        let Self { agents, ledger, store, dice, scenario, now, .. } = self;
        let (mistake, programs) = (scenario.mistake, scenario.programs);
        let mut around = Around { now: *now, ledger, store, dice, effects: Vec::new(), mistake, programs };
        act(&mut agents[index], &mut around)?;
        let effects = around.effects;
        self.perform_effects(index, effects)
    }
}

/// Least and greatest number of workers of a gang.
#[expect(clippy::cast_possible_truncation, reason = "at most the greatest number")]
fn draw_bounds(dice: &mut Dice) -> (u32, u32) {
    let max = 2 + dice.below(GANG_MOST - 1);
    (1 + dice.below(max) as u32, max as u32)
}
