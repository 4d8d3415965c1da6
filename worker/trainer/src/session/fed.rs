//! A rank and the data of its shards: read ahead of a make-up while training goes on, and awaited where that was not to be.
//!
//! Added data comes in pieces, and a rank has those of its own shards alone. A make-up that is changed over to while all are
//! well costs nothing: a rank says that it is ready when it has what it will need. One that follows a loss begins at once,
//! and its ranks wait for the data of each other, in rounds of their own collective: so late pieces stall a gang, a lost
//! peer is found as in a step, and a newer make-up is changed over to as behind one.

use super::{End, Session};
use crate::{
    error::TrainError,
    gang::{connects, whether_they_connect},
    job::Command,
};
use spotsweep_proto::{gang::Generation, line::FromTrainer};
use std::time::{Duration, Instant};

/// Longest pause of a rank that waits for data before it looks around.
const PAUSE: Duration = Duration::from_millis(10);
/// A rank whose gang waits for data says so this often, so that nobody takes it to hang.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How it ended that a gang waited for data.
pub(super) enum Awaited {
    /// Every rank has what it needs.
    Here,
    /// All change over to the next make-up, which is the present one now.
    NewMakeUp,
    End(End),
}

impl Session<'_> {
    fn has_data(&self) -> bool {
        let Some(gang) = &self.gang else { return true };
        let [present, _] = gang.shards();
        self.data.has_all(present)
    }

    /// Goes on reading what this rank needs now and in the newest make-up; tells the others once it is ready for that.
    pub(super) fn read_ahead(&mut self) -> Result<(), TrainError> {
        let Some(gang) = &mut self.gang else { return Ok(()) };
        let wanted = gang.shards();
        self.feed.go_on(&self.data, &wanted)?;
        let [_, next] = wanted;
        if self.data.has_all(next)
            && let Some((generation, ready)) = gang.take_ready()
        {
            self.host.post(generation, ready).map_err(TrainError::HostGone)?;
        }
        Ok(())
    }

    /// A rank without a state waits until it has its data, or until others begin without it.
    pub(super) fn prepare(&mut self) -> Result<Option<End>, TrainError> {
        let mut asked = None;
        loop {
            self.read_ahead()?;
            if self.has_data() {
                return Ok(None);
            }
            let Some(generation) = self.gang.as_ref().map(|gang| gang.roster.generation) else {
                return Ok(None);
            };
            if asked.is_none_or(|(of, _)| of != generation) {
                let id = self.host.post(generation, whether_they_connect()).map_err(TrainError::HostGone)?;
                asked = Some((generation, id));
            }
            while let Some(command) = self.host.poll() {
                match command {
                    Command::Stop { checkpoint } => return Ok(Some(End::Stopped { checkpoint })),
                    Command::Gang(roster) => {
                        if let Some(gang) = &mut self.gang {
                            gang.skip_to(roster);
                        }
                    }
                    Command::Data(shards) => self.feed.note(shards, &self.data),
                    Command::Answer { id, value: Some(_) } if asked == Some((generation, id)) => {
                        return Ok(None);
                    }
                    Command::Checkpoint | Command::Answer { .. } => {}
                }
            }
            self.feed.wait(&self.data, PAUSE)?;
        }
    }

    /// Those who prepare for this make-up need not be waited for: it begins.
    pub(super) fn tell_those_who_prepare(&mut self, generation: Generation) -> Result<(), TrainError> {
        if self.data.pieces().is_some() {
            self.host.post(generation, connects()).map_err(TrainError::HostGone)?;
        }
        Ok(())
    }

    /// Waits until every rank has the data of its shards. Ranks are connected and hold the same state.
    pub(super) fn await_data(&mut self) -> Result<Awaited, TrainError> {
        let mut said = Instant::now();
        loop {
            self.read_ahead()?;
            let news = self.gang.as_ref().map_or(0.0, |gang| gang.news());
            let all = self.exchange.gather(&[i64::from(self.has_data()), news as i64])?;
            if all.iter().all(|numbers| numbers[0] == 1) {
                break;
            }
            let news: Vec<f32> = all.iter().map(|numbers| numbers[1] as f32).collect();
            if self.gang.as_mut().is_some_and(|gang| gang.is_agreed(&news) && gang.change()) {
                return Ok(Awaited::NewMakeUp);
            }
            while let Some(command) = self.host.poll() {
                if let Some(end) = self.order(command)? {
                    return Ok(Awaited::End(end));
                }
            }
            if said.elapsed() >= SIGN_OF_LIFE
                && let Some(generation) = self.gang.as_ref().map(|gang| gang.roster.generation)
            {
                said = Instant::now();
                let (epoch, step) = (self.job.epoch, self.step);
                self.say(FromTrainer::GangFormed { epoch, generation, step, over: None, shard_us: None })?;
            }
            self.feed.wait(&self.data, PAUSE)?;
        }
        if let Some(gang) = &self.gang {
            self.data.keep_only(&gang.shards());
        }
        self.clock.since = Instant::now();
        Ok(Awaited::Here)
    }
}
