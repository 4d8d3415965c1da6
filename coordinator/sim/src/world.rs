//! Virtual time and the network: what happens when, and to whom. Disasters are in [`crate::storm`].

use crate::{
    Broken, Outcome, Scenario,
    agent::{Agent, Effect, Timer, Up},
    coordinator::Coordinator,
    dice::Dice,
    ledger::{Breach, Ledger, ensure},
};
use spotsweep_engine::{Action, Event, RequestId, SessionId, SweepId, Time};
use spotsweep_proto::{
    ids::{MetricName, SweepName},
    metric::{Goal, Objective},
    spec::{
        CheckpointPolicy, DeviceRequest, Every, Method, Resources, RetryPolicy, SweepSpec, TrainSection,
        space::Space,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// Virtual seconds within which a sweep must end once all machines are back.
const PATIENCE_S: f64 = 900.0;

/// Something that will happen.
pub(crate) enum What {
    ToCoordinator {
        session: SessionId,
        message: Up,
    },
    ToAgent {
        session: SessionId,
        action: Action,
    },
    /// The coordinator's side notices that a connection broke.
    SeenBroken {
        session: SessionId,
        life: u32,
    },
    Lost {
        agent: usize,
        life: u32,
        session: SessionId,
    },
    Connect {
        agent: usize,
        life: u32,
    },
    Heartbeat {
        agent: usize,
        life: u32,
    },
    Timer {
        agent: usize,
        life: u32,
        timer: Timer,
    },
    Reborn {
        agent: usize,
        life: u32,
    },
    Commit {
        life: u32,
    },
    Tick {
        life: u32,
    },
    CoordinatorReturns,
    Disaster,
}

/// One connection. What is under way when it breaks is lost.
pub(crate) struct Link {
    pub(crate) agent: usize,
    pub(crate) life: u32,
    pub(crate) open: bool,
    /// No message arrives before, upwards and downwards: streams keep their order, and may stall.
    pub(crate) free: [Time; 2],
}

pub(crate) struct World {
    seed: u64,
    pub(crate) scenario: Scenario,
    pub(crate) now: Time,
    pub(crate) dice: Dice,
    /// By time, then by order of creation.
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    pending: BTreeMap<u64, What>,
    next: u64,
    pub(crate) links: BTreeMap<SessionId, Link>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) asleep_until: Vec<Time>,
    pub(crate) coordinator: Coordinator,
    pub(crate) ledger: Ledger,
    next_session: u64,
    pub(crate) next_request: u64,
    pub(crate) crashes: u32,
    pub(crate) storm_until: Time,
}

fn spec(trials: u32) -> Option<SweepSpec> {
    let name = MetricName::new("loss").ok()?;
    Some(SweepSpec {
        name: SweepName::new("sim").ok()?,
        description: String::new(),
        method: Method::Random { seed: 1 },
        objective: Some(Objective { name, goal: Goal::Minimize, target: None }),
        space: Space::default(),
        run_cap: Some(trials),
        train: TrainSection { model: None, data: None, length: None, seed: 0, threads: 1 },
        resources: Resources { device: DeviceRequest::Any, memory_bytes: None },
        checkpoint: CheckpointPolicy { every: Every::Steps(10), keep_last: 1 },
        retry: RetryPolicy { max_failures: u32::MAX, backoff_s: 0.5 },
        priority: 0,
    })
}

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario) -> Self {
        let now = Time(1_000_000_000);
        Self {
            seed,
            scenario,
            now,
            dice: Dice::new(seed),
            queue: BinaryHeap::new(),
            pending: BTreeMap::new(),
            next: 0,
            links: BTreeMap::new(),
            agents: (0..scenario.agents).map(|index| Agent::new(index, 0)).collect(),
            asleep_until: vec![now; scenario.agents],
            coordinator: Coordinator::new(scenario.mistake),
            ledger: Ledger::default(),
            next_session: 0,
            next_request: 0,
            crashes: 0,
            storm_until: now.after_s(scenario.storm_s),
        }
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
        let spec = spec(self.scenario.trials).ok_or(("the scenario is valid", String::new()))?;
        // The driver answers a submission when it is durable; the simulation begins there.
        self.take(Event::Submit { request: RequestId(0), token: 1, spec: Box::new(spec) })?;
        self.commit()?;
        let deadline = self.storm_until.after_s(PATIENCE_S);
        while let Some(Reverse((at, number))) = self.queue.pop() {
            self.now = at;
            if let Some(what) = self.pending.remove(&number) {
                self.happen(what)?;
            }
            let over = self.coordinator.engine.sweep(SweepId(0)).is_some_and(|s| s.state.is_final());
            if over && self.coordinator.up && self.now >= self.storm_until {
                break;
            }
            ensure(self.now < deadline, "the sweep ends when machines return", || self.why())?;
        }
        if let Some(action) = Some(self.coordinator.release()).filter(|actions| !actions.is_empty()) {
            self.coordinator.commit();
            self.perform(action)?;
        }
        let engine = &self.coordinator.engine;
        engine.check().map_err(|violation| (violation.rule, violation.what))?;
        self.ledger.close(engine, SweepId(0))?;
        let trials =
            (0..self.scenario.trials).map(|number| spotsweep_engine::TrialRef { sweep: SweepId(0), number });
        Ok(Outcome {
            events: self.coordinator.events,
            ended_at: self.now,
            attempts: trials.filter_map(|trial| Some(engine.trial(trial)?.attempts)).sum(),
            stale_reports: engine.totals().stale_reports,
            crashes: self.crashes,
            refused_checkpoints: engine.totals().refused_checkpoints,
        })
    }

    /// Why trials are not final, in the engine's words.
    fn why(&self) -> String {
        let engine = &self.coordinator.engine;
        let trials =
            (0..self.scenario.trials).map(|number| spotsweep_engine::TrialRef { sweep: SweepId(0), number });
        let open = trials.filter(|trial| engine.trial(*trial).is_none_or(|view| !view.state.is_final()));
        let texts = open.filter_map(|trial| Some(engine.explain(trial, self.now)?.to_string()));
        texts.take(3).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn after(&mut self, wait_s: f64, what: What) {
        self.at(self.now.after_s(wait_s), what);
    }

    fn at(&mut self, at: Time, what: What) {
        self.next += 1;
        self.pending.insert(self.next, what);
        self.queue.push(Reverse((at, self.next)));
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

    pub(crate) fn commit(&mut self) -> Result<(), Breach> {
        self.coordinator.commit();
        let actions = self.coordinator.release();
        self.perform(actions)
    }

    fn perform(&mut self, actions: Vec<Action>) -> Result<(), Breach> {
        for action in actions {
            match &action {
                Action::Record(record) => self.ledger.record(record)?,
                Action::DeleteObjects { digests } => {
                    for digest in digests {
                        self.ledger.store.remove(digest);
                    }
                }
                Action::Grant { session, grant, .. } => {
                    self.ledger.granted(grant.trial, grant.epoch)?;
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

    fn arrival(&mut self, session: SessionId, direction: usize) -> Option<Time> {
        let wait_s = self.dice.between_s(0.0005, 0.05);
        let link = self.links.get_mut(&session).filter(|link| link.open)?;
        link.free[direction] = link.free[direction].max(self.now.after_s(wait_s));
        Some(link.free[direction])
    }

    fn send_down(&mut self, session: SessionId, action: Action) {
        if let Some(at) = self.arrival(session, 1) {
            self.at(at, What::ToAgent { session, action });
        }
    }

    fn perform_effects(&mut self, agent: usize, effects: Vec<Effect>) {
        let life = self.agents[agent].life;
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    if let Some(session) = self.agents[agent].link
                        && let Some(at) = self.arrival(session, 0)
                    {
                        self.at(at, What::ToCoordinator { session, message });
                    }
                }
                Effect::Wait(wait_s, timer) => self.after(wait_s, What::Timer { agent, life, timer }),
            }
        }
    }

    /// The agent to which something happens, unless it has died since, or sleeps: then it happens later.
    fn awake(&self, what: &What) -> Option<Result<usize, Time>> {
        let (agent, life) = match what {
            What::ToAgent { session, .. } => {
                let link = self.links.get(session).filter(|link| link.open)?;
                (link.agent, link.life)
            }
            What::Lost { agent, life, .. }
            | What::Connect { agent, life }
            | What::Heartbeat { agent, life }
            | What::Timer { agent, life, .. } => (*agent, *life),
            What::ToCoordinator { .. }
            | What::SeenBroken { .. }
            | What::Reborn { .. }
            | What::Commit { .. }
            | What::Tick { .. }
            | What::CoordinatorReturns
            | What::Disaster => return None,
        };
        let current = self.agents[agent].alive && self.agents[agent].life == life;
        let until = self.asleep_until[agent];
        current.then_some(if until > self.now { Err(until) } else { Ok(agent) })
    }

    fn happen(&mut self, what: What) -> Result<(), Breach> {
        let agent = match self.awake(&what) {
            Some(Err(until)) => {
                self.at(until, what);
                return Ok(());
            }
            Some(Ok(agent)) => Some(agent),
            None => None,
        };
        let mut effects = Vec::new();
        match what {
            What::ToCoordinator { session, message } => self.arrived(session, message)?,
            What::SeenBroken { session, life } => {
                if self.coordinator.up && self.coordinator.life == life {
                    self.take(Event::Disconnected { session })?;
                }
            }
            What::Commit { life } => {
                if self.coordinator.up && self.coordinator.life == life {
                    self.commit()?;
                }
            }
            What::Tick { life } => {
                if self.coordinator.up && self.coordinator.life == life {
                    let heard = std::mem::take(&mut self.coordinator.heard).into_iter().collect();
                    self.take(Event::Tick { heard })?;
                    self.after(1.0, What::Tick { life });
                }
            }
            What::CoordinatorReturns => self.coordinator_returns()?,
            What::Disaster => self.disaster()?,
            What::Reborn { agent, life } => {
                if !self.agents[agent].alive && self.agents[agent].life == life {
                    self.agents[agent] = Agent::new(agent, life + 1);
                    self.after(0.0, What::Connect { agent, life: life + 1 });
                    self.after(1.0, What::Heartbeat { agent, life: life + 1 });
                }
            }
            What::ToAgent { session, action } => {
                if let Some(index) = agent.filter(|index| self.agents[*index].link == Some(session)) {
                    self.agents[index].receive(action, &mut self.ledger, &mut self.dice, &mut effects)?;
                }
            }
            What::Lost { agent: index, life, session } => {
                if agent.is_some() && self.agents[index].link == Some(session) {
                    self.agents[index].disconnected();
                    let wait_s = self.dice.between_s(0.05, 1.0);
                    self.after(wait_s, What::Connect { agent: index, life });
                }
            }
            What::Connect { agent: index, life } => {
                if agent.is_some() && self.agents[index].link.is_none() {
                    self.connect(index, life, &mut effects);
                }
            }
            What::Heartbeat { agent: index, life } => {
                if agent.is_some() {
                    self.agents[index].heartbeat(&mut effects);
                    self.after(1.0, What::Heartbeat { agent: index, life });
                }
            }
            What::Timer { agent: index, timer, .. } => {
                if agent.is_some() {
                    self.agents[index].timer(timer, &mut self.ledger, &mut self.dice, &mut effects)?;
                }
            }
        }
        if let Some(agent) = agent {
            self.perform_effects(agent, effects);
        }
        Ok(())
    }

    fn arrived(&mut self, session: SessionId, message: Up) -> Result<(), Breach> {
        if !self.coordinator.up || self.links.get(&session).is_none_or(|link| !link.open) {
            return Ok(());
        }
        self.coordinator.heard.insert(session);
        match message {
            Up::Hello(hello) => self.take(Event::Joined { session, hello }),
            Up::Ready { credits } => self.take(Event::Ready { session, device: 0, credits }),
            Up::Reports(batch) => self.take(Event::Reports { session, batch }),
            Up::Heartbeat => Ok(()),
        }
    }

    fn connect(&mut self, agent: usize, life: u32, effects: &mut Vec<Effect>) {
        if !self.coordinator.up {
            let wait_s = self.dice.between_s(0.1, 1.0);
            self.after(wait_s, What::Connect { agent, life });
            return;
        }
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let free = [self.now; 2];
        self.links.insert(session, Link { agent, life, open: true, free });
        self.agents[agent].connect(session, effects);
    }
}
