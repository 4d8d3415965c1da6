//! Disasters on a seeded schedule: coordinator, agents and trainers are killed and stopped, and cut off from each other;
//! machines are taken with a notice, which comes early or late or too late.
//!
//! What is done follows from the seed; what it meets depends on the machine. Disasters of different victims overlap.

use crate::{Cluster, outcome, proxy::Weather, wait};
use nix::{
    sys::signal::{Signal, kill as kill_process},
    unistd::Pid,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

/// How long a pause is, in milliseconds: mostly far below the lease's 10 s, now and then around it and above.
const SHORT_MS: Range<u64> = 200..2_500;
const LONG_MS: Range<u64> = 7_000..12_000;
/// One pause in so many is long.
const LONG_ONE_IN: u64 = 8;
/// How long something that was killed is away, in milliseconds.
const AWAY_MS: Range<u64> = 0..300;

/// From a notice to the machine's end, in milliseconds.
const NOTICE_MS: Range<u64> = 300..6_000;

/// A storm.
#[derive(Debug, Clone)]
pub struct Storm {
    /// From which all follows.
    pub seed: u64,
    /// How long it blows at least.
    pub duration: Duration,
    /// How many disasters there are at least, and of how many kinds: it blows on until then. How many there are in a time
    /// depends on the machine, as a victim has one at a time.
    pub least: (u32, usize),
    /// Between two disasters, in milliseconds.
    pub every_ms: Range<u64>,
}

/// What was done to a cluster: how often, by kind.
#[derive(Debug, Default)]
pub struct Damage(BTreeMap<&'static str, u32>);

impl Damage {
    /// All disasters.
    #[must_use]
    pub fn disasters(&self) -> u32 {
        self.0.values().sum()
    }

    /// Kinds of disaster that were.
    #[must_use]
    pub fn kinds(&self) -> usize {
        self.0.len()
    }
}

/// Who has a disaster: one at a time each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Coordinator,
    Agent(usize),
    Trainer(usize),
    Network(usize),
}

/// How a disaster ends.
#[derive(Debug)]
enum End {
    /// The victim is started again.
    Start,
    /// The victim goes on.
    Continue(Vec<i32>),
    /// The machine is taken, and another comes in its place.
    Taken,
    /// Nothing is announced any more.
    Calm,
    /// Traffic passes again, with what was held or without.
    Heal { breaks: bool },
}

/// What is going on. However it ends, all that is stopped goes on.
struct Raging<'a> {
    cluster: &'a mut Cluster,
    random: ChaCha8Rng,
    damage: Damage,
    under_way: BTreeMap<Victim, (Instant, End)>,
}

impl Storm {
    /// Lets it blow over a cluster, apart or behind proxies, that works on a sweep, and mends everything. Where the machine is so
    /// fast that the sweep ends before the storm, the sweep is submitted again. Gives all sweeps.
    pub fn rage(&self, cluster: &mut Cluster, sweep_file: &str) -> (Damage, Vec<String>) {
        let mut sweeps = vec![cluster.submit(sweep_file)];
        let random = ChaCha8Rng::seed_from_u64(self.seed);
        let (damage, under_way) = (Damage::default(), BTreeMap::new());
        let mut raging = Raging { cluster, random, damage, under_way };
        let over = Instant::now() + self.duration;
        let mut next = Instant::now();
        let deadline = over + wait::DEADLINE;
        let raged = |damage: &Damage| damage.disasters() >= self.least.0 && damage.kinds() >= self.least.1;
        while Instant::now() < over || !raged(&raging.damage) {
            assert!(Instant::now() < deadline, "no storm comes up: {:?}", raging.damage);
            let mending = raging.under_way.values().map(|(until, _)| *until).min().unwrap_or(next);
            let wake = next.min(mending);
            wait::pause(wake.saturating_duration_since(Instant::now()));
            raging.mend(Instant::now());
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + raging.draw(&self.every_ms);
            // A coordinator that is away or stopped gives no answer.
            let answers = !raging.under_way.contains_key(&Victim::Coordinator);
            if answers && sweeps.last().is_some_and(|sweep| outcome::ended(raging.cluster, sweep)) {
                sweeps.push(raging.cluster.submit(sweep_file));
            }
            raging.strike();
        }
        raging.mend_all();
        (std::mem::take(&mut raging.damage), sweeps)
    }
}

impl Raging<'_> {
    fn draw(&mut self, range: &Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.random.next_u64() % (range.end - range.start))
    }

    fn pause(&mut self) -> Duration {
        let long = self.random.next_u64().is_multiple_of(LONG_ONE_IN);
        self.draw(if long { &LONG_MS } else { &SHORT_MS })
    }

    /// One disaster, unless its victim has one already.
    fn strike(&mut self) {
        let index = self.random.next_u64() as usize % self.cluster.agents();
        let kind = self.random.next_u64() % 18;
        let (away, pause, notice) = (self.draw(&AWAY_MS), self.pause(), self.draw(&NOTICE_MS));
        let victim = match kind {
            0 | 1 => Victim::Coordinator,
            2..=6 | 16 | 17 => Victim::Agent(index),
            7..=9 => Victim::Trainer(index),
            _ => Victim::Network(index),
        };
        if self.under_way.contains_key(&victim) {
            return;
        }
        let (name, lasts, end) = match kind {
            0 => {
                self.cluster.kill_coordinator();
                ("kill coordinator", away, End::Start)
            }
            1 => {
                if !self.cluster.signal_coordinator(Signal::SIGSTOP) {
                    return;
                }
                let pid = self.cluster.coordinator_pid();
                ("stop coordinator", pause, End::Continue(pids(pid)))
            }
            2 | 3 => {
                self.cluster.kill_agent(index);
                ("kill agent", away, End::Start)
            }
            4 | 5 => {
                if !self.cluster.signal_agent(index, Signal::SIGSTOP) {
                    return;
                }
                ("stop agent", pause, End::Continue(pids(self.cluster.agent_pid(index))))
            }
            6 => {
                let mut stopped: Vec<i32> = self.cluster.trainer_pid(index).into_iter().collect();
                let all = self.cluster.signal_agent(index, Signal::SIGSTOP);
                self.cluster.signal_trainer(index, Signal::SIGSTOP);
                stopped.extend(pids(self.cluster.agent_pid(index).filter(|_| all)));
                ("stop machine", pause, End::Continue(stopped))
            }
            7 | 8 => {
                if !self.cluster.kill_trainer(index) {
                    return;
                }
                *self.damage.0.entry("kill trainer").or_default() += 1;
                return;
            }
            9 => {
                let Some(pid) = self.cluster.trainer_pid(index) else { return };
                self.cluster.signal_trainer(index, Signal::SIGSTOP);
                ("stop trainer", pause, End::Continue(vec![pid]))
            }
            16 => {
                self.cluster.cloud(index).interrupt();
                ("notice", notice, End::Taken)
            }
            17 => {
                self.cluster.cloud(index).recommend_rebalance();
                ("rebalance", notice, End::Calm)
            }
            _ => {
                let (name, weather) = match kind {
                    10 => ("cut up", Weather::HoldsUp),
                    11 | 12 => ("cut down", Weather::HoldsDown),
                    13 | 14 => ("cut both", Weather::HoldsBoth),
                    _ => ("refuse", Weather::Refuses),
                };
                self.cluster.set_weather(index, weather);
                (name, pause, End::Heal { breaks: self.random.next_u64().is_multiple_of(2) })
            }
        };
        *self.damage.0.entry(name).or_default() += 1;
        self.under_way.insert(victim, (Instant::now() + lasts, end));
    }

    /// Ends what is to end by `now`.
    fn mend(&mut self, now: Instant) {
        let due: Vec<Victim> = self
            .under_way
            .iter()
            .filter(|(_, (until, _))| *until <= now)
            .map(|(victim, _)| *victim)
            .collect();
        for victim in due {
            if let Some((_, end)) = self.under_way.remove(&victim) {
                self.end(victim, end);
            }
        }
    }

    fn mend_all(&mut self) {
        while let Some((victim, (_, end))) = self.under_way.pop_first() {
            self.end(victim, end);
        }
    }

    fn end(&mut self, victim: Victim, end: End) {
        match (victim, end) {
            (Victim::Coordinator, End::Start) => self.cluster.start_coordinator(),
            (Victim::Agent(index) | Victim::Trainer(index) | Victim::Network(index), End::Start) => {
                self.cluster.start_agent(index);
            }
            (
                Victim::Network(index) | Victim::Agent(index) | Victim::Trainer(index),
                End::Heal { breaks },
            ) => {
                if breaks {
                    self.cluster.break_off(index);
                }
                self.cluster.set_weather(index, Weather::Clear);
            }
            (Victim::Agent(index), End::Taken) => {
                self.cluster.kill_agent(index);
                self.cluster.cloud(index).calm();
                self.cluster.start_agent(index);
            }
            (Victim::Agent(index), End::Calm) => self.cluster.cloud(index).calm(),
            (Victim::Coordinator, End::Heal { .. })
            | (Victim::Coordinator | Victim::Trainer(_) | Victim::Network(_), End::Taken | End::Calm) => {}
            (_, End::Continue(pids)) => go_on(&pids),
        }
    }
}

impl Drop for Raging<'_> {
    fn drop(&mut self) {
        // After a failure in the middle: a process that is stopped would never end.
        for (_, end) in self.under_way.values() {
            if let End::Continue(pids) = end {
                go_on(pids);
            }
        }
    }
}

fn pids(pid: Option<u32>) -> Vec<i32> {
    pid.and_then(|pid| i32::try_from(pid).ok()).into_iter().collect()
}

fn go_on(pids: &[i32]) {
    for pid in pids {
        // An error means that it was killed in the meantime.
        let _gone = kill_process(Pid::from_raw(*pid), Signal::SIGCONT);
    }
}
