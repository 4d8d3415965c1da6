//! A job that is carried out by several ranks: make-ups, what the rank asks of the others, and its part of the data.

use super::Course;
use crate::{
    attempt::Failure,
    data::cache::CacheError,
    errors::describe,
    gang::{GangNews, GangPlace},
    trainer::{HowToStop, carrier::Carrier, rank::Gang, stderr::failure_text, supply::Supply},
};
use spotsweep_proto::{gang::StoreValue, line::ToTrainer};
use std::ops::Range;
use tokio::time::Instant;

impl Course {
    /// The trainer is a rank of a gang, and was told of its make-up; `supply` fetches its data.
    pub(crate) fn in_gang(mut self, gang: Option<Gang>, supply: Option<Supply>) -> Self {
        (self.gang, self.supply) = (gang, supply);
        if let Some(gang) = &self.gang {
            self.watch.told_of(gang.generation());
            self.supply.iter_mut().for_each(|supply| supply.want(gang.place()));
        }
        self
    }

    /// What is carried out is a program, as one of several ranks.
    pub(crate) fn with_gang_of_programs(self, gang: Gang) -> Self {
        Self { name: Some(gang.name()), ..self.in_gang(Some(gang), None) }
    }

    /// Whether it is done and the ranks beside it may not be.
    pub(super) fn awaits_others(&self) -> bool {
        self.name.is_some() && self.gang.as_ref().is_some_and(Gang::is_first_of_several)
    }

    /// The rank says how a make-up stands.
    pub(super) fn news(&mut self, news: GangNews) -> GangNews {
        let GangNews { generation, step, over, broken, ready, shard_us } = news;
        if let Some(gang) = self.gang.as_mut().filter(|_| broken.is_some()) {
            gang.broke(generation);
        }
        let over = over.map(|text| failure_text(&text));
        tracing::info!(lease = %self.lease, %generation, step, over, broken, "news of the gang");
        GangNews { generation, step, over, broken: broken.map(|text| failure_text(&text)), ready, shard_us }
    }

    /// Tells the trainer of a new make-up of its gang.
    pub(super) async fn regang<C: Carrier>(&mut self, process: Option<&mut C>, place: GangPlace) {
        let Some(roster) = self.gang.as_mut().and_then(|gang| gang.change(place)) else { return };
        self.watch.told_of(roster.generation);
        if let (Some(supply), Some(gang)) = (&mut self.supply, &self.gang) {
            supply.want(gang.place());
        }
        // Its silence counts from now on.
        self.heard = Instant::now();
        self.tell(process, &ToTrainer::Gang { epoch: self.lease.epoch, roster }).await;
    }

    /// Tells the trainer that the pieces of shards are there; if they cannot be had the job ends, without another checkpoint:
    /// what its peers have is as good.
    pub(super) async fn supplied<C: Carrier>(
        &mut self,
        process: Option<&mut C>,
        outcome: Result<Range<u32>, CacheError>,
    ) {
        let epoch = self.lease.epoch;
        // Its silence counts from now on.
        self.heard = Instant::now();
        match outcome {
            Ok(shards) => self.tell(process, &ToTrainer::Data { epoch, shards }).await,
            // It ends already, for another reason.
            Err(_) if self.stop.is_some() => {}
            Err(error) => {
                self.unsupplied = Some(Failure { kind: error.kind(), message: describe(&error) });
                self.stop = Some((HowToStop::Checkpoint, Instant::now() + self.grace));
                self.tell(process, &ToTrainer::Stop { epoch, checkpoint: false }).await;
            }
        }
    }

    /// Gives the trainer the answer to its question.
    pub(super) async fn answer<C: Carrier>(
        &mut self,
        process: Option<&mut C>,
        id: u64,
        value: Option<StoreValue>,
    ) {
        self.watch.answered(id);
        self.tell(process, &ToTrainer::StoreReply { epoch: self.lease.epoch, id, value }).await;
    }
}
