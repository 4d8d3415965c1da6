//! What follows from each thing that happens: to an agent that is awake, to the coordinator, or on the way between them.

use super::World;
use crate::storm::{
    agent::{Agent, Up},
    ledger::{Breach, ensure},
    what::What,
};
use spotsweep_engine::{Event, SessionId, Time};
use spotsweep_proto::{gang::Generation, notice::NoticeKind};

impl World {
    /// The agent to which something happens, unless it has died since, or sleeps: then it happens later.
    fn awake(&self, what: &What) -> Option<Result<usize, Time>> {
        let (agent, life) = match what {
            What::ToAgent { session, .. } => {
                let link = self.network.link(*session).filter(|link| link.open)?;
                (link.agent, link.life)
            }
            What::Lost { agent, life, .. }
            | What::Connect { agent, life }
            | What::Heartbeat { agent, life }
            | What::Notice { agent, life, .. }
            | What::Timer { agent, life, .. } => (*agent, *life),
            What::ToCoordinator { .. }
            | What::SeenBroken { .. }
            | What::Taken { .. }
            | What::Reborn { .. }
            | What::Commit { .. }
            | What::Tick { .. }
            | What::CoordinatorReturns
            | What::Meet { .. }
            | What::Beat { .. }
            | What::Disaster => return None,
        };
        let current = self.agents[agent].alive && self.agents[agent].life == life;
        let until = self.machines[agent].asleep_until;
        current.then_some(if until > self.now { Err(until) } else { Ok(agent) })
    }

    pub(super) fn happen(&mut self, what: What) -> Result<(), Breach> {
        match self.awake(&what) {
            Some(Err(until)) => self.at(until, what),
            Some(Ok(agent)) => self.happen_to(agent, what)?,
            None => self.happen_around(what)?,
        }
        Ok(())
    }

    /// Something happens to an agent that lives and is awake.
    fn happen_to(&mut self, index: usize, what: What) -> Result<(), Breach> {
        let life = self.agents[index].life;
        match what {
            What::Lost { session, .. } => {
                if self.agents[index].link == Some(session) {
                    self.agents[index].disconnected();
                    let wait_s = self.dice.between_s(0.05, 1.0);
                    self.after(wait_s, What::Connect { agent: index, life });
                }
                return Ok(());
            }
            What::Connect { .. } if self.agents[index].link.is_some() => return Ok(()),
            What::Connect { .. } if !self.coordinator.up => {
                let wait_s = self.dice.between_s(0.1, 1.0);
                self.after(wait_s, What::Connect { agent: index, life });
                return Ok(());
            }
            What::Heartbeat { .. } => self.after(1.0, What::Heartbeat { agent: index, life }),
            What::Notice { kind: NoticeKind::Rebalance, .. } => {}
            What::Notice { .. } => {
                self.machines[index].noticed_at = Some(self.now);
                self.gangs.disturbed(index);
            }
            _ => {}
        }
        let gangs = self.agents[index].gangs();
        let session = match &what {
            What::Connect { .. } => Some(self.network.open(index, life, self.now)),
            _ => None,
        };
        self.with_agent(index, |agent, around| {
            match what {
                What::ToAgent { session, action } if agent.link == Some(session) => {
                    agent.receive(action, around)?;
                }
                What::Heartbeat { .. } => agent.heartbeat(around),
                What::Notice { kind, .. } => agent.notice(kind, around),
                What::Timer { timer, .. } => agent.timer(timer, around)?,
                _ => {
                    if let Some(session) = session {
                        agent.connect(session, around);
                    }
                }
            }
            Ok(())
        })?;
        if let Some(session) = session {
            self.may_break_at_once(session);
        }
        for key in gangs {
            self.look(key)?;
        }
        Ok(())
    }

    /// Something happens elsewhere, or to an agent that is no more.
    fn happen_around(&mut self, what: What) -> Result<(), Breach> {
        let current = |life: u32| self.coordinator.up && self.coordinator.life == life;
        match what {
            What::ToCoordinator { session, message, late } => self.arrived(session, message, late)?,
            What::SeenBroken { session, life } if current(life) => {
                self.coordinator.closes(session);
                self.take(Event::Disconnected { session })?;
            }
            What::Commit { life } if current(life) => self.commit()?,
            // The driver takes no ticks while it waits for the disk.
            What::Tick { life } if current(life) && self.now < self.coordinator.disk_full_until => {
                self.after(1.0, What::Tick { life });
            }
            What::Tick { life } if current(life) => {
                let heard = std::mem::take(&mut self.coordinator.heard).into_iter().collect();
                self.take(Event::Tick { heard })?;
                self.after(1.0, What::Tick { life });
            }
            What::SeenBroken { .. } | What::Commit { .. } | What::Tick { .. } => {}
            What::CoordinatorReturns => self.coordinator_returns()?,
            What::Disaster => self.disaster()?,
            What::Meet { key, generation } => self.meet(key, generation)?,
            What::Beat { key, generation } => self.beat(key, generation)?,
            What::Taken { agent, life } => {
                if self.agents[agent].life == life {
                    self.taken(agent)?;
                }
            }
            What::Reborn { agent, life } => {
                if !self.agents[agent].alive && self.agents[agent].life == life {
                    let rate = self.dice.between_s(0.9, 1.1);
                    self.agents[agent] = Agent::new(agent, life + 1, rate);
                    self.after(0.0, What::Connect { agent, life: life + 1 });
                    self.after(1.0, What::Heartbeat { agent, life: life + 1 });
                }
            }
            // These are for agents that have died since.
            What::ToAgent { .. }
            | What::Lost { .. }
            | What::Connect { .. }
            | What::Heartbeat { .. }
            | What::Notice { .. }
            | What::Timer { .. } => {}
        }
        Ok(())
    }

    /// A message arrives, perhaps twice, perhaps after its connection broke.
    fn arrived(&mut self, session: SessionId, message: Up, late: bool) -> Result<(), Breach> {
        let Some(link) = self.network.link(session).filter(|_| self.coordinator.up) else { return Ok(()) };
        let (open, twice) = (link.open, link.twice_until > self.now);
        if !open && link.late_until <= self.now {
            return Ok(());
        }
        if !open && !late && self.dice.one_in(2) {
            // Held up on its way, so that it comes behind what was sent after it.
            let wait_s = self.dice.between_s(0.0, 2.0);
            self.after(wait_s, What::ToCoordinator { session, message, late: true });
            return Ok(());
        }
        // A connection keeps its order. What replaces what was said before, and has no number, cannot come behind it.
        let replaces = matches!(message, Up::Ready { .. });
        if open && twice && !late && !replaces && self.dice.one_in(2) {
            let wait_s = self.dice.between_s(0.0, 0.2);
            self.after(wait_s, What::ToCoordinator { session, message: message.clone(), late: true });
        }
        self.coordinator.heard.insert(session);
        match message {
            Up::Hello(hello) => {
                if self.coordinator.opens(session, hello.incarnation) {
                    self.check_door(session)?;
                    self.take(Event::Joined { session, hello })?;
                }
                Ok(())
            }
            Up::Ready { credits } => self.take(Event::Ready { session, device: 0, credits }),
            Up::Reports(batch) => self.take(Event::Reports { session, batch }),
            Up::Goodbye => {
                self.network.close(session, None);
                self.coordinator.closes(session);
                self.take(Event::Left { session })
            }
            Up::Noticed(notice) => self.take(Event::Noticed { session, notice }),
            Up::Gang { trial, epoch, generation, step, news } => {
                let generation = Generation(generation);
                self.take(Event::Gang { session, trial, epoch, generation, step, news })
            }
            Up::Heartbeat => Ok(()),
        }
    }

    /// A hello is about to be heeded over this connection: its agent must not be at work over a later one.
    fn check_door(&self, session: SessionId) -> Result<(), Breach> {
        let Some(link) = self.network.link(session) else { return Ok(()) };
        let same = Some(&self.agents[link.agent]).filter(|agent| agent.alive && agent.life == link.life);
        let used = same.filter(|agent| agent.is_welcome()).and_then(|agent| agent.link);
        let cut_off = used.filter(|used| *used > session && self.network.link(*used).is_some_and(|l| l.open));
        ensure(cut_off.is_none(), "no old hello cuts off the connection that a worker uses", || {
            format!("{session:?} instead of {cut_off:?}")
        })
    }
}
