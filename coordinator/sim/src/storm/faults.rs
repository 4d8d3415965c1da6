//! The disasters: what befalls machines, connections, clocks, disks and the coordinator, as the seed draws it.

use super::{
    coordinator::Moment,
    ledger::{Breach, ensure},
    network::Way,
    training::DRAIN_S,
    what::What,
    world::{GANG_SWEEP, SINGLE_SWEEP, World},
};
use crate::Faults;
use spotsweep_engine::{
    Event, RequestId, SessionId, Time,
    event::{Command, Target},
};
use spotsweep_proto::notice::NoticeKind;

/// After a disturbance: how long until everybody knows again what holds (reconnected, told of lost leases).
const SETTLE_S: f64 = 3.0;
/// Seconds between two tries to resume the sweep after the storm.
const RESUME_AGAIN_S: f64 = 2.0;
/// Beside so many disasters a machine loses the network to the others, though not that to the coordinator.
const CUT_ONE_IN: u64 = 12;
/// One in so many connections breaks with the hello under way.
const BROKEN_AT_ONCE_ONE_IN: u64 = 30;
/// One in so many ranks that are a step ahead when their gang breaks dies with its report under way,
const DIES_AHEAD_ONE_IN: u64 = 2;
/// within so many seconds: long enough for its peers to take its state over.
const AHEAD_S: f64 = 3.0;

impl World {
    /// One disaster, and when the next comes. After the storm the machines return: whoever sleeps wakes up by
    /// itself, and a pause is undone.
    pub(crate) fn disaster(&mut self) -> Result<(), Breach> {
        if self.now >= self.storm_until {
            // Again and again: a command that the coordinator did not survive is repeated by whoever gave it.
            self.after(RESUME_AGAIN_S, What::Disaster);
            return self.control(Command::Resume);
        }
        let index = self.dice.index(self.agents.len());
        if self.has_gangs() && self.dice.one_in(CUT_ONE_IN) {
            self.faults.cuts += 1;
            self.machines[index].cut_until = self.soon(15.0);
            self.gangs.disturbed(index);
        }
        let session = self.agents[index].link;
        match self.dice.below(20) {
            0..=4 => self.interrupt(index)?,
            5..=6 => self.pause_process(index),
            7..=8 => {
                if let Some(session) = session {
                    self.faults.breaks += 1;
                    let late = self.dice.one_in(2).then(|| self.now.after_s(4.0));
                    self.break_link(session, true, late);
                }
            }
            9..=11 => self.stall(index, session),
            12 => {
                if let Some(session) = session {
                    self.faults.duplicates += 1;
                    let until = self.soon(15.0);
                    self.network.repeat(session, until);
                }
            }
            13 => {
                if let Some(session) = session {
                    self.faults.delays += 1;
                    let until = self.soon(15.0);
                    self.network.slow_down(session, until);
                    self.disturb(index, until);
                }
            }
            14 => self.coordinator_dies(),
            15 => {
                let moments = [Moment::Before, Moment::After, Moment::Between];
                self.coordinator.doomed = Some(moments[self.dice.index(moments.len())]);
            }
            16 => self.jump(),
            17 => {
                self.faults.store_outages += 1;
                let until = self.soon(15.0);
                self.store.fail_until(until);
                self.disturb_all(until);
            }
            18 => {
                self.faults.disks_full += 1;
                let until = self.soon(15.0);
                self.coordinator.disk_full_until = until.max(self.coordinator.disk_full_until);
                self.disturb_all(until);
            }
            _ => {
                let pause = self.dice.one_in(2);
                self.control(if pause { Command::Pause } else { Command::Resume })?;
            }
        }
        let wait_s = self.dice.between_s(0.0, 2.0 * self.scenario.disaster_every_s);
        self.after(wait_s, What::Disaster);
        Ok(())
    }

    fn soon(&mut self, most_s: f64) -> Time {
        let wait_s = self.dice.between_s(0.1, most_s);
        self.now.after_s(wait_s)
    }

    /// Until then, and for a while after, nothing is promised about this agent.
    fn disturb(&mut self, agent: usize, until: Time) {
        let calm_from = until.after_s(SETTLE_S);
        self.machines[agent].calm_from = self.machines[agent].calm_from.max(calm_from);
        self.gangs.disturbed(agent);
    }

    fn disturb_all(&mut self, until: Time) {
        for agent in 0..self.agents.len() {
            self.disturb(agent, until);
        }
    }

    /// The market takes a machine: with a notice in time, late or early, with one that nothing follows, or without.
    fn interrupt(&mut self, index: usize) -> Result<(), Breach> {
        if !self.agents[index].alive {
            return Ok(());
        }
        let life = self.agents[index].life;
        if self.dice.one_in(4) {
            self.faults.recommendations += 1;
            self.after(0.0, What::Notice { agent: index, life, kind: NoticeKind::Rebalance });
            return Ok(());
        }
        let lead_s = match self.dice.below(8) {
            0..=2 => None,
            3..=4 => Some(self.dice.between_s(DRAIN_S, 15.0)),
            5 => Some(self.dice.between_s(0.0, 0.5)),
            6 => Some(40.0),
            _ => Some(f64::INFINITY),
        };
        let Some(lead_s) = lead_s else { return self.taken(index) };
        self.faults.notices += 1;
        self.after(0.0, What::Notice { agent: index, life, kind: NoticeKind::Terminate });
        if lead_s.is_finite() {
            self.after(lead_s, What::Taken { agent: index, life });
        }
        Ok(())
    }

    /// The machine is gone from one moment to the next.
    pub(crate) fn taken(&mut self, index: usize) -> Result<(), Breach> {
        if !self.agents[index].alive {
            return Ok(());
        }
        self.faults.kills += 1;
        let machine = &self.machines[index];
        let (calm_from, noticed_at) = (machine.calm_from, machine.noticed_at);
        let agent = &self.agents[index];
        let in_time = noticed_at.is_some_and(|at| calm_from <= at && at.after_s(DRAIN_S) <= self.now);
        ensure(!in_time || agent.unsaved_steps() == 0, "nothing is lost after a notice", || {
            format!("agent {index}: {} steps, {:?} after its notice", agent.unsaved_steps(), noticed_at)
        })?;
        for (trial, step) in agent.surely_handed_over(calm_from, self.now) {
            self.ledger.hand_over(trial, step);
        }
        let seen = self.dice.one_in(2);
        let under_way = |session| self.network.is_under_way(session, Way::Up, self.now);
        self.machines[index].words_lost = agent.link.is_none_or(under_way);
        if let Some(session) = agent.link {
            self.break_link(session, seen, None);
        }
        self.gone(index)
    }

    /// An agent that was told to go has handed everything over and ends itself.
    pub(crate) fn left(&mut self, index: usize) -> Result<(), Breach> {
        self.faults.drains += 1;
        self.machines[index].words_lost = false;
        let machine = &self.machines[index];
        if machine.noticed_at.is_some_and(|at| machine.calm_from <= at) {
            for (trial, step) in std::mem::take(&mut self.agents[index].drained) {
                self.ledger.hand_over(trial, step);
            }
        }
        self.gone(index)
    }

    fn gone(&mut self, index: usize) -> Result<(), Breach> {
        let gangs = self.agents[index].gangs();
        self.gangs.disturbed(index);
        self.agents[index].alive = false;
        self.machines[index].noticed_at = None;
        let life = self.agents[index].life;
        let away_s = self.dice.between_s(0.1, 20.0);
        self.after(away_s, What::Reborn { agent: index, life });
        for key in gangs {
            self.look(key)?;
        }
        Ok(())
    }

    fn pause_process(&mut self, index: usize) {
        let until = self.soon(25.0);
        if self.machines[index].asleep_until > self.now {
            // What waits for its waking would come behind what came later.
            return;
        }
        self.faults.pauses += 1;
        self.machines[index].asleep_until = until;
        self.disturb(index, until);
    }

    /// A partition, one way or both.
    fn stall(&mut self, index: usize, session: Option<SessionId>) {
        let Some(session) = session else { return };
        self.faults.partitions += 1;
        let until = self.soon(20.0);
        let ways: &[Way] = match self.dice.below(3) {
            0 => &[Way::Up],
            1 => &[Way::Down],
            _ => &[Way::Up, Way::Down],
        };
        for way in ways {
            self.network.stall(session, *way, until);
        }
        self.disturb(index, until);
    }

    /// Somebody sets the coordinator's clock, by seconds or by many minutes, or sets it back.
    fn jump(&mut self) {
        self.faults.clock_jumps += 1;
        let most_s = if self.dice.one_in(2) { 20.0 } else { 900.0 };
        let jump_s = self.dice.between_s(-20.0, most_s);
        self.coordinator.clock.jump_s(jump_s);
        self.disturb_all(self.now);
    }

    /// A connection breaks. Both sides notice by themselves, the coordinator's only if `seen`; what is under way may
    /// arrive until `late`.
    pub(crate) fn break_link(&mut self, session: SessionId, seen: bool, late: Option<Time>) {
        let Some((agent, life)) = self.network.close(session, late) else { return };
        let wait_s = self.dice.between_s(0.0, 0.5);
        self.after(wait_s, What::Lost { agent, life, session });
        self.disturb(agent, self.now);
        if seen && self.coordinator.up {
            let wait_s = self.dice.between_s(0.0, 0.5);
            self.after(wait_s, What::SeenBroken { session, life: self.coordinator.life });
        }
    }

    /// Some connections break as soon as they are opened, and their hello may come behind the next one's.
    pub(crate) fn may_break_at_once(&mut self, session: SessionId) {
        if self.now < self.storm_until && self.dice.one_in(BROKEN_AT_ONCE_ONE_IN) {
            self.faults.breaks += 1;
            self.break_link(session, true, Some(self.now.after_s(4.0)));
        }
    }

    /// Some ranks that are about to be a step ahead of their peers die in a moment, with the report of that step under way:
    /// after the storm as well, as it is rare enough.
    pub(crate) fn may_die_ahead(&mut self, index: usize) {
        let Some(session) = self.agents[index].link else { return };
        if self.dice.one_in(DIES_AHEAD_ONE_IN) {
            self.faults.partitions += 1;
            let until = self.now.after_s(AHEAD_S);
            self.network.stall(session, Way::Up, until);
            self.disturb(index, until);
            let life = self.agents[index].life;
            let lead_s = self.dice.between_s(0.0, AHEAD_S);
            self.after(lead_s, What::Taken { agent: index, life });
        }
    }

    /// Kill -9 of the coordinator, and the moment of its return.
    pub(crate) fn coordinator_dies(&mut self) {
        if !self.coordinator.up {
            return;
        }
        self.faults.crashes += 1;
        self.coordinator.die();
        for session in self.network.open_sessions() {
            self.break_link(session, false, None);
        }
        self.network.forget_late();
        let until = self.soon(15.0);
        self.disturb_all(until);
        self.at(until, What::CoordinatorReturns);
    }

    pub(crate) fn coordinator_returns(&mut self) -> Result<(), Breach> {
        let whole = self.dice.one_in(4);
        self.coordinator.restart(self.now, &mut self.ledger, &mut self.store, whole)?;
        let life = self.coordinator.life;
        self.after(0.01, What::Commit { life });
        self.after(1.0, What::Tick { life });
        Ok(())
    }

    fn control(&mut self, command: Command) -> Result<(), Breach> {
        if !self.coordinator.up {
            return Ok(());
        }
        self.faults.controls += 1;
        if command == Command::Pause {
            self.gangs.all_disturbed();
        }
        let all_sweeps = self.now >= self.storm_until && self.has_gangs();
        let one = if self.has_gangs() && self.dice.one_in(2) { GANG_SWEEP } else { SINGLE_SWEEP };
        let sweeps = if all_sweeps { vec![SINGLE_SWEEP, GANG_SWEEP] } else { vec![one] };
        for sweep in sweeps {
            self.next_request += 1;
            let request = RequestId(self.next_request);
            self.take(Event::Control { request, target: Target::Sweep(sweep), command })?;
        }
        Ok(())
    }
}

impl Faults {
    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u32); 15] {
        [
            ("kills", self.kills),
            ("notices", self.notices),
            ("recommendations", self.recommendations),
            ("drains", self.drains),
            ("pauses", self.pauses),
            ("breaks", self.breaks),
            ("partitions", self.partitions),
            ("duplicates", self.duplicates),
            ("delays", self.delays),
            ("crashes", self.crashes),
            ("clock jumps", self.clock_jumps),
            ("store outages", self.store_outages),
            ("full disks", self.disks_full),
            ("controls", self.controls),
            ("cuts", self.cuts),
        ]
    }
}
