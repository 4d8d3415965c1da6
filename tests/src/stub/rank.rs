//! A rank of a gang of toys. Their collective goes through the rendezvous store, so that gangs are tested without
//! libtorch: every rank says that it does a step, and does it once all others have said so.
//!
//! The toy's weights depend on nothing but the step, so whatever became of the gang, it ends with the same bits.

use super::{
    is_reported,
    model::{Toy, WIDTH},
    report, say,
};
use spotsweep_proto::{
    gang::{Generation, Roster, StoreOp, StoreValue},
    ids::Epoch,
    line::{FromTrainer, ToTrainer},
};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

/// Why a rank does nothing more of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to stop, and whether its state is wanted.
    Stop {
        /// Whether it is.
        checkpoint: bool,
    },
    /// The gang goes on without it.
    Left,
}

/// Why a rank forms a gang.
#[derive(Debug)]
pub enum Why {
    /// The job begins.
    First,
    /// A newer make-up is known, and all change over to it.
    Newer,
    /// This happened to the present one.
    Lost(String),
}

/// What an exchange came to if not to its end.
#[derive(Debug)]
pub enum Lost {
    /// A peer is silent, or the make-up is over.
    Peer(String),
    /// This rank was told to stop while it waited.
    End(End),
}

/// One rank.
pub struct Rank<'a> {
    epoch: Epoch,
    roster: Roster,
    /// The newest make-up that it was told of and is not in.
    next: Option<Roster>,
    lines: &'a Receiver<ToTrainer>,
    asked: u64,
    /// A checkpoint was asked for while it waited for its peers.
    owes_checkpoint: bool,
    started: bool,
    total_steps: u64,
}

impl<'a> Rank<'a> {
    /// In a job of so many steps; `lines` is what the agent says.
    pub fn new(epoch: Epoch, roster: Roster, total_steps: u64, lines: &'a Receiver<ToTrainer>) -> Self {
        Self {
            epoch,
            roster,
            next: None,
            lines,
            asked: 0,
            owes_checkpoint: false,
            started: false,
            total_steps,
        }
    }

    /// Whether it is the one that writes checkpoints and says that the job is done.
    pub fn is_first(&self) -> bool {
        self.roster.rank == Some(0)
    }

    /// Whether it knows of a newer make-up than the one that it is in.
    pub fn knows_newer(&self) -> bool {
        self.next.is_some()
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_owed_checkpoint(&mut self) -> bool {
        std::mem::take(&mut self.owes_checkpoint)
    }

    /// Takes note of a make-up.
    pub fn offer(&mut self, roster: Roster) {
        let newest = self.next.as_ref().unwrap_or(&self.roster).generation;
        if roster.generation > newest {
            self.next = Some(roster);
        }
    }

    /// Forms the gang: afterwards all ranks have the newest state that one of them held.
    ///
    /// # Errors
    /// The job is over for this rank.
    pub fn enter(&mut self, toy: &mut Toy, why: Why) -> Result<(), End> {
        let mut why = why;
        loop {
            match why {
                Why::First => {}
                Why::Newer => self.change(),
                Why::Lost(message) => {
                    if self.next.is_none() {
                        let (epoch, generation, step) = (self.epoch, self.roster.generation, toy.step);
                        say(&FromTrainer::GangBroken { epoch, generation, step, message });
                        self.wait()?;
                    }
                    self.change();
                }
            }
            let Some(rank) = self.roster.rank else { return Err(End::Left) };
            let held = toy.step;
            match self.form(rank, toy) {
                Ok(()) => {
                    let (epoch, generation, step) = (self.epoch, self.roster.generation, toy.step);
                    if self.started && held < step && is_reported(step, self.total_steps) {
                        // The peer that made the step may be lost with its report.
                        say(&report(epoch, toy));
                    }
                    if !std::mem::replace(&mut self.started, true) {
                        say(&FromTrainer::Started { epoch, step, total_steps: Some(self.total_steps) });
                    }
                    say(&FromTrainer::GangFormed { epoch, generation, step, over: None, shard_us: None });
                    return Ok(());
                }
                Err(Lost::End(end)) => return Err(end),
                Err(Lost::Peer(message)) => why = Why::Lost(message),
            }
        }
    }

    fn change(&mut self) {
        if let Some(next) = self.next.take() {
            self.roster = next;
        }
    }

    /// Holds the state until there is a newer make-up.
    ///
    /// # Errors
    /// The job is over for this rank.
    pub fn wait(&mut self) -> Result<(), End> {
        while self.next.is_none() {
            match self.lines.recv() {
                Ok(line) => self.hear(line)?,
                Err(_) => std::process::exit(0),
            }
        }
        Ok(())
    }

    fn hear(&mut self, line: ToTrainer) -> Result<(), End> {
        match line {
            ToTrainer::Gang { epoch, roster } if epoch == self.epoch => self.offer(roster),
            ToTrainer::Stop { epoch, checkpoint } if epoch == self.epoch => {
                return Err(End::Stop { checkpoint });
            }
            ToTrainer::Checkpoint { epoch } if epoch == self.epoch => self.owes_checkpoint = true,
            ToTrainer::Exit => std::process::exit(0),
            ToTrainer::Gang { .. }
            | ToTrainer::Stop { .. }
            | ToTrainer::Checkpoint { .. }
            | ToTrainer::Data { .. }
            | ToTrainer::StoreReply { .. }
            | ToTrainer::Run(_) => {}
        }
        Ok(())
    }

    fn form(&mut self, rank: u32, toy: &mut Toy) -> Result<(), Lost> {
        let steps = self.exchange("form", rank, toy.step)?;
        let newest = steps.iter().copied().max().unwrap_or(toy.step);
        let source = steps.iter().position(|step| *step == newest);
        if steps.iter().all(|step| *step == newest) {
            return Ok(());
        }
        if source == Some(rank as usize) {
            self.set("state".to_owned(), encode(toy))?;
        } else if toy.step < newest {
            let state = self.get("state".to_owned())?;
            decode(&state, toy).ok_or_else(|| Lost::Peer("a state that is none".to_owned()))?;
        }
        Ok(())
    }

    /// Waits until all ranks do the step behind `step`; whether all change over to the same newer make-up behind it.
    ///
    /// # Errors
    /// [`Lost`]; the step is not done then.
    pub fn step(&mut self, step: u64) -> Result<bool, Lost> {
        let Some(rank) = self.roster.rank else { return Err(Lost::End(End::Left)) };
        let newest = self.next.as_ref().map_or(0, |next| next.generation.0);
        let told = self.exchange(&format!("step/{step}"), rank, newest)?;
        Ok(newest > 0 && told.iter().all(|theirs| *theirs == newest))
    }

    /// One number of each rank.
    fn exchange(&mut self, what: &str, rank: u32, number: u64) -> Result<Vec<u64>, Lost> {
        self.set(format!("{what}/{rank}"), number.to_le_bytes().to_vec())?;
        let mut numbers = Vec::new();
        for other in 0..self.roster.shares.ranks() {
            numbers.push(if other == rank {
                number
            } else {
                let bytes = self.get(format!("{what}/{other}"))?;
                let bytes = bytes.try_into().map_err(|_| Lost::Peer("a number that is none".to_owned()))?;
                u64::from_le_bytes(bytes)
            });
        }
        Ok(numbers)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), Lost> {
        self.ask(StoreOp::Set { key, value: StoreValue(value) }).map(drop)
    }

    fn get(&mut self, key: String) -> Result<Vec<u8>, Lost> {
        self.ask(StoreOp::Get { key })
    }

    fn ask(&mut self, op: StoreOp) -> Result<Vec<u8>, Lost> {
        self.asked += 1;
        let (epoch, id, Generation(generation)) = (self.epoch, self.asked, self.roster.generation);
        say(&FromTrainer::Store { epoch, generation: Generation(generation), id, op });
        let timeout = Duration::from_millis(self.roster.timeout_ms);
        let deadline = Instant::now() + timeout;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(ToTrainer::StoreReply { epoch: of, id: to, value }) if (of, to) == (epoch, id) => {
                    let over = || Lost::Peer(format!("generation {generation} is over"));
                    return value.map(|value| value.0).ok_or_else(over);
                }
                Ok(line) => self.hear(line).map_err(Lost::End)?,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Lost::Peer(format!("a peer said nothing for {timeout:?}")));
                }
                Err(RecvTimeoutError::Disconnected) => std::process::exit(0),
            }
        }
    }
}

fn encode(toy: &Toy) -> Vec<u8> {
    let values = toy.weights.iter().chain(&toy.velocity).chain([&toy.loss_sum]);
    toy.step.to_le_bytes().into_iter().chain(values.flat_map(|value| value.to_le_bytes())).collect()
}

fn decode(bytes: &[u8], toy: &mut Toy) -> Option<()> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    if chunks.len() != 2 * WIDTH + 2 || !rest.is_empty() {
        return None;
    }
    let values: Vec<f64> = chunks[1..].iter().map(|chunk| f64::from_le_bytes(*chunk)).collect();
    toy.step = u64::from_le_bytes(chunks[0]);
    toy.weights = values[..WIDTH].to_vec();
    toy.velocity = values[WIDTH..2 * WIDTH].to_vec();
    toy.loss_sum = values[2 * WIDTH];
    Some(())
}
