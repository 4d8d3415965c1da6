//! A session as a rank of a gang: forming it, changing over, living through its end.
//!
//! Ranks that form a gang tell each other what they hold; the lowest rank with the newest state gives it to those that
//! hold another, so a gang that lost a rank goes on from memory. Only if nobody holds a state is the job's checkpoint
//! read, or the trial begun.

use super::{End, Kept, Session, fed::Awaited, metrics::Part, pace::Pace};
use crate::{
    checkpoint::{
        Meta,
        restore::{Identity, restore},
    },
    error::TrainError,
    gang::{HostStore, Questions, backend, exchange::Exchange, ready, state},
    job::Command,
    meter::Meter,
    network::Network,
};
use serde_json::Value;
use spotsweep_proto::{gang::Roster, line::FromTrainer};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What a rank holds, in the order in which states are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    /// Whether it holds a state in memory; otherwise it could read its checkpoint.
    holds: bool,
    /// Twice the finished steps, and one more if their report is made.
    version: i64,
}

impl Session<'_> {
    /// Gets the state into memory, alone or with the gang. Says how the session ends, if this process is none of the
    /// gang any more.
    pub(super) fn enter(&mut self) -> Result<Option<End>, TrainError> {
        if self.gang.is_none() {
            self.load()?;
            self.started()?;
            return Ok(None);
        }
        loop {
            if let Some(end) = self.form()? {
                return Ok(Some(end));
            }
            match self.await_data()? {
                Awaited::Here => break,
                Awaited::NewMakeUp => {}
                Awaited::End(end) => return Ok(Some(end)),
            }
        }
        if self.owes_report() {
            self.report()?;
        }
        let _ = self.exchange.take_spent();
        Ok(None)
    }

    /// Connects to the other ranks of the present make-up and agrees with them on the state.
    fn form(&mut self) -> Result<Option<End>, TrainError> {
        if !self.has_state
            && let Some(end) = self.prepare()?
        {
            return Ok(Some(end));
        }
        let Some(roster) = self.gang.as_ref().map(|gang| gang.roster.clone()) else { return Ok(None) };
        let Some(rank) = roster.rank else { return Ok(Some(End::Stopped { checkpoint: false })) };
        if roster.shares.shards() != self.config.shards {
            let (told, own) = (roster.shares.shards(), self.config.shards);
            return Err(TrainError::Config(format!("the gang has {told} shards, the recipe {own}")));
        }
        if !self.has_state {
            // Others have said so when they were told of this make-up.
            self.host.post(roster.generation, ready(rank)).map_err(TrainError::HostGone)?;
        }
        self.tell_those_who_prepare(roster.generation)?;
        let timeout = Duration::from_millis(roster.timeout_ms);
        let mut store = HostStore { host: &mut *self.host, generation: roster.generation, timeout };
        let exchange = Exchange::connect(&roster, rank, self.config.exact, self.device, &mut store)?;
        self.agree(&exchange)?;
        // The connections of before were open until here: a peer may have been slower to finish with them.
        self.exchange = exchange;
        self.rows.forget();
        self.agreed = false;
        self.started()?;
        let (epoch, step, generation) = (self.job.epoch, self.step, roster.generation);
        self.pace = Pace::default();
        let over = self.exchange.backend().map(|backend| {
            backend::tell_people(backend, roster.shares.ranks());
            backend.to_string()
        });
        self.say(FromTrainer::GangFormed { epoch, generation, step, over, shard_us: None })?;
        Ok(None)
    }

    fn started(&mut self) -> Result<(), TrainError> {
        self.progress.finished_steps.set(self.step);
        if std::mem::replace(&mut self.has_started, true) {
            return Ok(());
        }
        self.clock.since = Instant::now();
        let (epoch, step, total_steps) = (self.job.epoch, self.step, Some(self.schedule.total_steps));
        self.say(FromTrainer::Started { epoch, step, total_steps })
    }

    fn standing(&self) -> Standing {
        let step =
            if self.has_state { self.step } else { self.job.resume.as_ref().map_or(0, |files| files.step) };
        let reported = self.has_state && !self.owes_report();
        Standing { holds: self.has_state, version: 2 * step as i64 + i64::from(reported) }
    }

    /// Brings all ranks to the newest state that one of them has.
    fn agree(&mut self, exchange: &Exchange) -> Result<(), TrainError> {
        self.meter.settle(self.network.model.as_ref())?;
        let own = self.standing();
        let mut recipe = [0; 8];
        recipe.copy_from_slice(&self.recipe.0[..8]);
        let recipe = i64::from_le_bytes(recipe);
        let all = exchange.gather(&[i64::from(own.holds), own.version, recipe])?;
        if all.iter().any(|numbers| numbers[2] != recipe) {
            return Err(TrainError::Config("the ranks of the gang were told different recipes".to_owned()));
        }
        let all: Vec<Standing> =
            all.iter().map(|numbers| Standing { holds: numbers[0] == 1, version: numbers[1] }).collect();
        let Some(&newest) = all.iter().max() else { return Ok(()) };
        let source = all.iter().position(|standing| *standing == newest).unwrap_or(0) as u32;
        if own == newest {
            self.load()?;
        }
        if all.iter().all(|standing| *standing == newest) {
            return Ok(());
        }
        let meta = (source == exchange.rank()).then(|| self.meta());
        // Half a state is none.
        self.has_vouched |= self.has_state;
        self.has_state &= own == newest;
        if let Some(meta) = state::broadcast(exchange, source, meta.as_ref(), &mut self.network)? {
            self.take_over(meta);
            if own != newest && self.has_vouched {
                self.repeat_report()?;
            }
        }
        Ok(())
    }

    /// Reports what the peer reported whose newer state was taken over, as the peer may be lost with its report still on
    /// its way. The coordinator takes the word of a rank that held a state for all steps up to the one that it holds, and
    /// no rank is more than one step and one report behind another.
    fn repeat_report(&mut self) -> Result<(), TrainError> {
        if self.step == 0 || !self.is_report_due() || self.meter.has_steps() {
            return Ok(());
        }
        let is_of_step = |name: &str| self.ends_epoch() || !Part::Validation.names().contains(&name);
        let metrics = self.latest.iter().filter(|(name, _)| is_of_step(name));
        let metrics = metrics.map(|(name, &value)| (name.clone(), Value::from(value))).collect();
        let (epoch, step, data_epoch) = (self.job.epoch, self.step, self.data_epoch());
        self.say(FromTrainer::Report { epoch, step, data_epoch, metrics })
    }

    fn take_over(&mut self, meta: Meta) {
        (self.step, self.meter, self.latest) = (meta.step, Meter::resume(meta.tally), meta.latest);
        self.kept = Kept { step: self.step, at: Instant::now(), held_up: Duration::ZERO };
        self.has_state = true;
    }

    /// Gets the job's own state into memory, unless there is one: its checkpoint, or the beginning.
    fn load(&mut self) -> Result<(), TrainError> {
        if self.has_state {
            return Ok(());
        }
        if std::mem::replace(&mut self.is_touched, true) {
            let models = (self.registry, self.job.module.as_deref());
            self.network = Network::new(&self.config, models, self.data.shape, self.device)?;
        }
        match &self.job.resume {
            Some(files) => {
                let identity = Identity { trial: &self.job.trial, recipe: self.recipe };
                let meta = restore(files, identity, &mut self.network)?;
                self.take_over(meta);
            }
            None => {
                (self.step, self.meter, self.latest) = (0, Meter::default(), BTreeMap::new());
                self.has_state = true;
            }
        }
        Ok(())
    }

    /// Gives up the present make-up, whose unfinished step has left nothing behind, and waits for the next one.
    pub(super) fn broken(&mut self, message: String) -> Result<Option<End>, TrainError> {
        let Some(generation) = self.gang.as_ref().map(|gang| gang.roster.generation) else {
            return Err(TrainError::Peer(message));
        };
        self.exchange = Exchange::alone(self.config.shards);
        self.rows.forget();
        self.agreed = false;
        let message = message.lines().next().unwrap_or_default().to_owned();
        let (epoch, step) = (self.job.epoch, self.step);
        self.say(FromTrainer::GangBroken { epoch, generation, step, message })?;
        self.wait_for_orders()
    }

    /// Holds the state until there is a newer make-up (`None`) or an end.
    pub(super) fn wait_for_orders(&mut self) -> Result<Option<End>, TrainError> {
        self.hand_over(false)?;
        loop {
            while let Some(command) = self.host.poll() {
                if let Some(end) = self.order(command)? {
                    return Ok(Some(end));
                }
            }
            if self.gang.as_mut().is_some_and(|gang| gang.change()) {
                return Ok(None);
            }
            let command = self.host.wait();
            if let Some(end) = self.order(command)? {
                return Ok(Some(end));
            }
        }
    }

    pub(super) fn order(&mut self, command: Command) -> Result<Option<End>, TrainError> {
        match command {
            Command::Stop { checkpoint } => return Ok(Some(End::Stopped { checkpoint })),
            Command::Checkpoint if self.has_state => {
                self.keep()?;
                self.hand_over(false)?;
            }
            Command::Checkpoint => {}
            Command::Gang(roster) => self.offer(roster)?,
            Command::Data(shards) => self.feed.note(shards, &self.data),
            Command::Answer { id, value } => self.answered(id, value.is_some()),
        }
        Ok(None)
    }

    /// Takes note of a make-up, and asks whether all its ranks are ready if that is this rank's to ask.
    pub(super) fn offer(&mut self, roster: Roster) -> Result<(), TrainError> {
        let Some(gang) = &mut self.gang else { return Ok(()) };
        let Some(questions) = gang.offer(roster, self.exchange.rank()) else { return Ok(()) };
        let Questions { generation, ask } = questions;
        for question in ask {
            let id = self.host.post(generation, question).map_err(TrainError::HostGone)?;
            gang.wait_for(id);
        }
        self.read_ahead()
    }

    /// Takes note of an answer. One without a value comes when the make-up is over before it began: a newer one follows.
    pub(super) fn answered(&mut self, id: u64, has_value: bool) {
        if let (Some(gang), true) = (&mut self.gang, has_value) {
            gang.answered(id);
        }
    }
}
