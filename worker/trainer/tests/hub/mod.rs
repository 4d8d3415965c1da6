//! A hub that plays agents and coordinator for the ranks of one trial: starts trainers, tells them their make-up, keeps
//! the rendezvous stores, writes down what they say.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "a module of a test")]
#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, Value};
use spotsweep_proto::{
    gang::{Generation, Roster, Shares, StoreOp, StoreValue},
    ids::Epoch,
    line::{FromTrainer, Job, ToTrainer},
    metric::TIMING_METRICS,
};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{BufRead, BufReader, Write},
    ops::Range,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// Long enough for two busy cores; waited for only where a peer hangs.
pub const PATIENT_MS: u64 = 60_000;

/// A trainer, killed when it goes out of scope.
struct Trainer {
    child: Child,
    stdin: ChildStdin,
    /// Whether it has the job.
    runs: bool,
    /// Whether it is alive and not hung, so that peers can connect to it.
    is_well: bool,
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store of one generation: values, and who waits for which.
#[derive(Default)]
struct Store {
    values: HashMap<String, StoreValue>,
    waiting: Vec<(usize, u64, String)>,
}

pub struct Hub {
    program: PathBuf,
    job: Job,
    timeout_ms: u64,
    trainers: Vec<Trainer>,
    /// Where trainers listen for their peers, by number; loopback where nothing is said.
    pub addresses: Vec<String>,
    sender: Sender<(usize, FromTrainer)>,
    inbox: Receiver<(usize, FromTrainer)>,
    pub generation: u64,
    stores: BTreeMap<u64, Store>,
    /// All that the trainers have said, but for questions to the store.
    pub said: Vec<(usize, FromTrainer)>,
}

impl Hub {
    /// For `job`, whose scratch folder is where each trainer, a `program`, gets one of its own.
    pub fn new(program: impl Into<PathBuf>, job: Job, timeout_ms: u64) -> Self {
        let (sender, inbox) = channel();
        let (trainers, stores, said) = (Vec::new(), BTreeMap::new(), Vec::new());
        let program = program.into();
        let addresses = Vec::new();
        Self { program, job, timeout_ms, trainers, addresses, sender, inbox, generation: 0, stores, said }
    }

    /// Starts a trainer and gives its number.
    pub fn start(&mut self) -> usize {
        self.spawn(&mut Command::new(&self.program))
    }

    /// Starts a trainer in a network namespace, where it listens at `address`; gives its number.
    #[allow(dead_code, reason = "the benchmark of hosts uses it")]
    pub fn start_in(&mut self, namespace: &str, address: &str) -> usize {
        self.addresses.resize(self.trainers.len(), "127.0.0.1".to_owned());
        self.addresses.push(address.to_owned());
        self.spawn(Command::new("nsenter").arg(format!("--net={namespace}")).arg("--").arg(&self.program))
    }

    /// Starts a trainer that its system kills at its first checkpoint: it may write no more than 4 KiB to a file.
    pub fn start_doomed(&mut self) -> usize {
        self.spawn(Command::new("sh").args(["-c", "ulimit -f 8; exec \"$0\""]).arg(&self.program))
    }

    fn spawn(&mut self, command: &mut Command) -> usize {
        let number = self.trainers.len();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        self.trainers.push(Trainer { child, stdin, runs: false, is_well: true });
        let sender = self.sender.clone();
        thread::spawn(move || {
            // A trainer that was killed may leave half a line.
            for line in stdout.lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { break };
                if sender.send((number, line)).is_err() {
                    break;
                }
            }
        });
        number
    }

    /// Starts `count` trainers.
    pub fn start_many(&mut self, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.start()).collect()
    }

    fn send(&mut self, to: usize, line: &ToTrainer) {
        let text = format!("{}\n", serde_json::to_string(line).unwrap());
        // One that was killed reads no more.
        let _ = self.trainers[to].stdin.write_all(text.as_bytes());
    }

    fn epoch(&self) -> Epoch {
        self.job.epoch
    }

    /// A new make-up with these members, rank by rank, and even shares. Whoever runs the job and is none of them leaves.
    pub fn gather(&mut self, members: &[usize]) {
        let shards = self.job.train["shards"].as_u64().unwrap_or(1) as u32;
        self.gather_with(members, Shares::even(shards, members.len() as u32));
    }

    pub fn gather_with(&mut self, members: &[usize], shares: Shares) {
        assert_eq!(shares.ranks() as usize, members.len());
        self.generation += 1;
        let over: Vec<_> = self.stores.values_mut().flat_map(|store| store.waiting.drain(..)).collect();
        for (who, id, _) in over {
            let epoch = self.epoch();
            self.send(who, &ToTrainer::StoreReply { epoch, id, value: None });
        }
        self.stores.retain(|_, _| false);
        self.stores.insert(self.generation, Store::default());
        for number in 0..self.trainers.len() {
            let rank = members.iter().position(|member| *member == number).map(|rank| rank as u32);
            let roster = Roster {
                generation: Generation(self.generation),
                rank,
                shares: shares.clone(),
                address: self.addresses.get(number).cloned().unwrap_or_else(|| "127.0.0.1".to_owned()),
                timeout_ms: self.timeout_ms,
            };
            if self.trainers[number].runs {
                let epoch = self.epoch();
                self.send(number, &ToTrainer::Gang { epoch, roster });
            } else if rank.is_some() {
                let scratch_dir = self.job.scratch_dir.join(number.to_string());
                fs::create_dir_all(&scratch_dir).unwrap();
                let job = Job { gang: Some(roster), scratch_dir, ..self.job.clone() };
                self.trainers[number].runs = true;
                self.send(number, &ToTrainer::Run(Box::new(job)));
            }
        }
    }

    pub fn stop(&mut self, who: usize, checkpoint: bool) {
        let epoch = self.epoch();
        self.send(who, &ToTrainer::Stop { epoch, checkpoint });
    }

    /// Tells trainer `who` that the pieces of these shards lie in its data folder.
    pub fn data(&mut self, who: usize, shards: Range<u32>) {
        let epoch = self.epoch();
        self.send(who, &ToTrainer::Data { epoch, shards });
    }

    pub fn checkpoint(&mut self, who: usize) {
        let epoch = self.epoch();
        self.send(who, &ToTrainer::Checkpoint { epoch });
    }

    /// kill -9.
    pub fn kill_9(&mut self, who: usize) {
        let trainer = &mut self.trainers[who];
        trainer.child.kill().unwrap();
        trainer.child.wait().unwrap();
        (trainer.runs, trainer.is_well) = (false, false);
    }

    /// Waits until a doomed trainer is dead.
    pub fn until_dead(&mut self, who: usize) {
        let trainer = &mut self.trainers[who];
        assert_eq!(trainer.child.wait().unwrap().code(), None, "killed by a signal");
        (trainer.runs, trainer.is_well) = (false, false);
    }

    /// Lets a trainer hang: it does nothing, and its connections stay open.
    pub fn hang(&mut self, who: usize) {
        self.signal(who, Signal::SIGSTOP);
        self.trainers[who].is_well = false;
    }

    /// Lets it go on.
    pub fn wake(&mut self, who: usize) {
        self.signal(who, Signal::SIGCONT);
        self.trainers[who].is_well = true;
    }

    fn signal(&mut self, who: usize, signal: Signal) {
        let pid = i32::try_from(self.trainers[who].child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Does `what` while the gang stands still: without trainer `who` none of its peers can finish a step.
    pub fn paused(&mut self, who: usize, what: impl FnOnce(&mut Self)) {
        self.hang(who);
        what(self);
        self.wake(who);
    }

    /// Who runs the job and can be reached.
    pub fn members(&self) -> Vec<usize> {
        let well = self.trainers.iter().enumerate().filter(|(_, trainer)| trainer.runs && trainer.is_well);
        well.map(|(number, _)| number).collect()
    }

    /// The next line that is no question to a store.
    pub fn next(&mut self) -> (usize, FromTrainer) {
        loop {
            if let Some(said) = self.hear() {
                return said;
            }
        }
    }

    /// Takes one line; `None` for a question to a store, which is answered.
    fn hear(&mut self) -> Option<(usize, FromTrainer)> {
        let (who, line) = self.inbox.recv().unwrap();
        match line {
            FromTrainer::Store { generation, id, op, .. } => self.answer(who, generation, id, op),
            FromTrainer::Ready { .. } => {}
            FromTrainer::Failed { message, .. } => panic!("trainer {who}: {message}"),
            line => {
                if matches!(line, FromTrainer::Done { .. } | FromTrainer::Stopped { .. }) {
                    self.trainers[who].runs = false;
                }
                self.said.push((who, line.clone()));
                return Some((who, line));
            }
        }
        None
    }

    /// Waits until rank `rank` of the newest make-up is ready to connect.
    pub fn until_ready(&mut self, rank: u32) {
        let key = format!("ready/{rank}");
        while !self.stores[&self.generation].values.contains_key(&key) {
            let _ = self.hear();
        }
    }

    fn answer(&mut self, who: usize, generation: Generation, id: u64, op: StoreOp) {
        let epoch = self.epoch();
        let Some(store) = self.stores.get_mut(&generation.0) else {
            return self.send(who, &ToTrainer::StoreReply { epoch, id, value: None });
        };
        let mut replies = Vec::new();
        match op {
            StoreOp::Set { key, value } => {
                store.waiting.retain(|(waiter, question, wanted)| {
                    if *wanted == key {
                        replies.push((*waiter, *question, value.clone()));
                    }
                    *wanted != key
                });
                store.values.insert(key, value);
                replies.push((who, id, StoreValue::default()));
            }
            StoreOp::Get { key } => match store.values.get(&key) {
                Some(value) => replies.push((who, id, value.clone())),
                None => store.waiting.push((who, id, key)),
            },
        }
        for (waiter, id, value) in replies {
            self.send(waiter, &ToTrainer::StoreReply { epoch, id, value: Some(value) });
        }
    }

    /// All lines up to the first that `wanted` picks.
    pub fn until(&mut self, wanted: impl Fn(usize, &FromTrainer) -> bool) -> (usize, FromTrainer) {
        loop {
            let (who, line) = self.next();
            if wanted(who, &line) {
                return (who, line);
            }
        }
    }

    /// Waits until trainer `who` has reported step `step` or a later one.
    pub fn until_step(&mut self, who: usize, step: u64) {
        self.until(|speaker, line| {
            speaker == who && matches!(line, FromTrainer::Report { step: at, .. } if *at >= step)
        });
    }

    /// All lines up to the first that `wanted` picks, with a new make-up of whoever is well each time that one breaks.
    pub fn drive(&mut self, wanted: impl Fn(usize, &FromTrainer) -> bool) -> FromTrainer {
        loop {
            let (who, line) = self.next();
            if wanted(who, &line) {
                return line;
            }
            if matches!(&line, FromTrainer::GangBroken { generation, .. } if generation.0 == self.generation)
            {
                let members = self.members();
                self.gather(&members);
            }
        }
    }

    /// Drives to the end; gives the last line.
    pub fn drive_to_end(&mut self) -> FromTrainer {
        self.drive(|_, line| matches!(line, FromTrainer::Done { .. }))
    }

    /// Drives until somebody has reported step `step` or a later one; `false` if the trial ended before.
    pub fn drive_to_step(&mut self, step: u64) -> bool {
        let line = self.drive(|_, line| match line {
            FromTrainer::Report { step: at, .. } => *at >= step,
            FromTrainer::Done { .. } => true,
            _ => false,
        });
        matches!(line, FromTrainer::Report { .. })
    }

    /// Every report by step, timings left out; all ranks must have said the same.
    pub fn curve(&self) -> BTreeMap<u64, Map<String, Value>> {
        let mut curve = BTreeMap::new();
        for (who, line) in &self.said {
            if let FromTrainer::Report { step, metrics, .. } = line {
                let found = untimed(metrics);
                let known = curve.entry(*step).or_insert_with(|| found.clone());
                assert_eq!(*known, found, "trainer {who} at step {step}");
            }
        }
        curve
    }

    /// The steps that trainer `who` has reported, in order.
    pub fn steps(&self, who: usize) -> Vec<u64> {
        let own = self.said.iter().filter(|(speaker, _)| *speaker == who);
        own.filter_map(|(_, line)| match line {
            FromTrainer::Report { step, .. } => Some(*step),
            _ => None,
        })
        .collect()
    }
}

pub fn untimed(metrics: &Map<String, Value>) -> Map<String, Value> {
    let kept = metrics.iter().filter(|(name, _)| !TIMING_METRICS.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}
