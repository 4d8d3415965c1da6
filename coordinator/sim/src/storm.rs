//! The disasters: what befalls agents, connections and the coordinator, as the seed draws it.

use crate::{
    ledger::Breach,
    world::{What, World},
};
use spotsweep_engine::{
    Event, RequestId, SessionId, SweepId,
    event::{Command, Target},
};

impl World {
    /// A connection breaks. Both sides notice by themselves, the coordinator's only if `seen`.
    pub(crate) fn break_link(&mut self, session: SessionId, seen: bool) {
        let Some(link) = self.links.get_mut(&session).filter(|link| link.open) else { return };
        link.open = false;
        let (agent, life) = (link.agent, link.life);
        let wait_s = self.dice.between_s(0.0, 0.5);
        self.after(wait_s, What::Lost { agent, life, session });
        if seen && self.coordinator.up {
            let wait_s = self.dice.between_s(0.0, 0.5);
            self.after(wait_s, What::SeenBroken { session, life: self.coordinator.life });
        }
    }

    pub(crate) fn coordinator_returns(&mut self) -> Result<(), Breach> {
        let whole = self.dice.one_in(4);
        self.coordinator.restart(self.now, &mut self.ledger, whole)?;
        self.commit()?;
        self.after(1.0, What::Tick { life: self.coordinator.life });
        Ok(())
    }

    fn coordinator_dies(&mut self) {
        if !self.coordinator.up {
            return;
        }
        self.crashes += 1;
        let after_commit = self.dice.one_in(2);
        self.coordinator.die(after_commit);
        let open: Vec<SessionId> =
            self.links.iter().filter(|(_, link)| link.open).map(|(session, _)| *session).collect();
        for session in open {
            self.break_link(session, false);
        }
        let away_s = self.dice.between_s(0.05, 15.0);
        self.after(away_s, What::CoordinatorReturns);
    }

    pub(crate) fn disaster(&mut self) -> Result<(), Breach> {
        if self.now >= self.storm_until {
            // The machines return; what sleeps wakes up by itself, and a pause is undone.
            return self.control(Command::Resume);
        }
        #[expect(clippy::cast_possible_truncation, reason = "an index")]
        let index = self.dice.below(self.agents.len() as u64) as usize;
        let link = self.agents[index].link;
        match self.dice.below(12) {
            0..=2 => {
                let seen = self.dice.one_in(2);
                if self.agents[index].alive {
                    if let Some(session) = link {
                        self.break_link(session, seen);
                    }
                    self.agents[index].alive = false;
                    let life = self.agents[index].life;
                    let away_s = self.dice.between_s(0.1, 20.0);
                    self.after(away_s, What::Reborn { agent: index, life });
                }
            }
            3..=4 => {
                let asleep_s = self.dice.between_s(0.5, 25.0);
                self.asleep_until[index] = self.now.after_s(asleep_s);
            }
            5..=6 => {
                if let Some(session) = link {
                    self.break_link(session, true);
                }
            }
            7..=8 => {
                let direction = usize::from(self.dice.one_in(2));
                let stall_s = self.dice.between_s(0.1, 15.0);
                let until = self.now.after_s(stall_s);
                if let Some(link) = link.and_then(|session| self.links.get_mut(&session)) {
                    link.free[direction] = link.free[direction].max(until);
                }
            }
            9..=10 => self.coordinator_dies(),
            _ => {
                let pause = self.dice.one_in(2);
                self.control(if pause { Command::Pause } else { Command::Resume })?;
            }
        }
        let wait_s = self.dice.between_s(0.0, 2.0 * self.scenario.disaster_every_s);
        self.after(wait_s, What::Disaster);
        Ok(())
    }

    fn control(&mut self, command: Command) -> Result<(), Breach> {
        if !self.coordinator.up {
            if self.now >= self.storm_until {
                self.after(1.0, What::Disaster);
            }
            return Ok(());
        }
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.take(Event::Control { request, target: Target::Sweep(SweepId(0)), command })
    }
}
