//! A gang as a scripted coordinator keeps it: agents as ranks of trial 0 under epoch 1, and their rendezvous. It decides
//! nothing; a test says who is in which make-up.

use crate::fake_coordinator::{Conversation, Seen, grant};
use futures::future::select_all;
use spotsweep_wire::v1::{self, from_worker::Message, to_worker};
use std::{collections::HashMap, pin::Pin};

/// The epoch of the trial.
const EPOCH: u64 = 1;
/// The trial.
const TRIAL: v1::TrialKey = v1::TrialKey { sweep: 0, number: 0 };

/// One agent.
pub struct Seat {
    /// Its stream.
    pub conversation: Conversation,
    /// What it reported.
    pub reports: Vec<Seen>,
    /// What its rank said of make-ups.
    pub news: Vec<v1::GangNews>,
    /// Its stream has ended.
    pub gone: bool,
}

impl Seat {
    /// Whether its rank said that a make-up stands.
    pub fn has_formed(&self, generation: u64) -> bool {
        self.news.iter().any(|news| news.generation == generation && news.broken.is_none())
    }

    /// Whether its rank said that a make-up is broken.
    pub fn has_broken(&self, generation: u64) -> bool {
        self.news.iter().any(|news| news.generation == generation && news.broken.is_some())
    }

    /// The last step of which it reported metrics; 0 if there is none.
    pub fn step(&self) -> u64 {
        let steps = self.reports.iter().filter_map(|seen| match &seen.body {
            v1::report::Body::Progress(progress) => Some(progress.step),
            _ => None,
        });
        steps.max().unwrap_or(0)
    }
}

/// All of them.
#[derive(Default)]
pub struct FakeGang {
    /// The agents, in the order in which they came.
    pub seats: Vec<Seat>,
    /// Of the present make-up.
    values: HashMap<String, Vec<u8>>,
    /// Who waits for a key: the seat, and the question's number.
    waiting: HashMap<String, Vec<(usize, u64)>>,
    generation: u64,
    shards: u32,
}

impl FakeGang {
    /// Nobody yet, for a trial of so many shards.
    pub fn of_shards(shards: u32) -> Self {
        Self { shards, ..Self::default() }
    }

    /// One more agent, attached and told of sweep 0.
    pub fn join(&mut self, conversation: Conversation) -> usize {
        self.seats.push(Seat { conversation, reports: Vec::new(), news: Vec::new(), gone: false });
        self.seats.len() - 1
    }

    fn place(&self, ranks: &[usize], seat: usize) -> v1::GangPlace {
        let rank = ranks.iter().position(|of| *of == seat).map(|rank| rank as u32);
        let starts = (0..ranks.len() as u32).collect();
        v1::GangPlace { generation: self.generation, rank, starts, shards: self.shards }
    }

    /// A new make-up: these seats in the order of their ranks. Those of `fresh` get a grant; the others of the gang, and
    /// those that leave it, are told of the change.
    pub async fn make_up(
        &mut self,
        ranks: &[usize],
        fresh: &[usize],
        leaving: &[usize],
        params: &serde_json::Value,
    ) {
        self.generation += 1;
        self.values.clear();
        for (seat, id) in std::mem::take(&mut self.waiting).into_values().flatten() {
            self.answer(seat, id, None).await;
        }
        for seat in ranks.iter().chain(leaving).copied() {
            let place = self.place(ranks, seat);
            let message = if fresh.contains(&seat) {
                let mut grant = grant(0, EPOCH, params, None);
                grant.gang = Some(place);
                to_worker::Message::Granted(v1::GrantBatch { grants: vec![grant] })
            } else {
                to_worker::Message::Regang(v1::Regang {
                    trial: Some(TRIAL),
                    epoch: EPOCH,
                    place: Some(place),
                })
            };
            self.seats[seat].conversation.say(message).await;
        }
    }

    async fn answer(&mut self, seat: usize, id: u64, value: Option<Vec<u8>>) {
        let value = value.map(Into::into);
        let answer = v1::StoreAnswer { trial: Some(TRIAL), epoch: EPOCH, id, value };
        self.seats[seat].conversation.say_if_there(to_worker::Message::Store(answer)).await;
    }

    /// Serves all agents until `done`.
    pub async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let here: Vec<usize> = (0..self.seats.len()).filter(|seat| !self.seats[*seat].gone).collect();
            assert!(!here.is_empty(), "all agents are gone");
            let open = self.seats.iter_mut().filter(|seat| !seat.gone);
            let next: Vec<Pin<Box<_>>> = open.map(|seat| Box::pin(seat.conversation.next())).collect();
            let (message, index, others) = select_all(next).await;
            drop(others);
            self.heard(here[index], message).await;
        }
    }

    async fn heard(&mut self, seat: usize, message: Option<Message>) {
        match message {
            None => self.seats[seat].gone = true,
            Some(Message::Gang(news)) => self.seats[seat].news.push(news),
            Some(Message::Store(query)) => self.asked(seat, query).await,
            Some(Message::Reports(batch)) => {
                let Seat { conversation, reports, .. } = &mut self.seats[seat];
                conversation.next_seq += batch.reports.len() as u64;
                for report in batch.reports {
                    let body = report.body.expect("a known kind of report");
                    let trial = report.trial.expect("a trial").number;
                    let names = batch.metric_names.clone();
                    reports.push(Seen { trial, epoch: report.epoch, body, names });
                }
                let seq = conversation.next_seq - 1;
                let acknowledged = to_worker::Message::Acknowledged(v1::Acknowledged { seq });
                conversation.say_if_there(acknowledged).await;
            }
            Some(Message::Noticed(noticed)) => self.seats[seat].conversation.notices.push(noticed),
            Some(Message::Heartbeat(_)) => self.seats[seat].conversation.heartbeats += 1,
            Some(Message::Ready(_) | Message::Goodbye(_) | Message::Logs(_)) => {}
            Some(Message::Hello(_)) => panic!("a second hello"),
        }
    }

    async fn asked(&mut self, seat: usize, query: v1::StoreQuery) {
        let v1::StoreQuery { generation, id, key, set, .. } = query;
        if generation != self.generation {
            return self.answer(seat, id, None).await;
        }
        match set {
            Some(value) => {
                let value = value.to_vec();
                self.values.insert(key.clone(), value.clone());
                self.answer(seat, id, Some(Vec::new())).await;
                for (seat, id) in self.waiting.remove(&key).unwrap_or_default() {
                    self.answer(seat, id, Some(value.clone())).await;
                }
            }
            None => match self.values.get(&key).cloned() {
                Some(value) => self.answer(seat, id, Some(value)).await,
                None => self.waiting.entry(key).or_default().push((seat, id)),
            },
        }
    }
}
