//! Connections: each keeps the order of its messages, as HTTP/2 does, and may be slow, stall in one direction, break,
//! deliver twice, or deliver after its end what was under way. Must not know what messages mean.

use crate::dice::Dice;
use spotsweep_engine::{SessionId, Time};
use std::collections::BTreeMap;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the coordinator.
    Up,
    /// To the agent.
    Down,
}

/// One connection.
pub(crate) struct Link {
    pub(crate) agent: usize,
    pub(crate) life: u32,
    pub(crate) open: bool,
    /// What was under way when it broke still arrives until then.
    pub(crate) late_until: Time,
    /// Messages to the coordinator may arrive twice until then.
    pub(crate) twice_until: Time,
    /// Until when every message takes longer.
    slow_until: Time,
    /// No message arrives before, upwards and downwards.
    free: [Time; 2],
}

/// All connections that ever were.
#[derive(Default)]
pub(crate) struct Network {
    links: BTreeMap<SessionId, Link>,
    last: u64,
}

impl Network {
    pub(crate) fn open(&mut self, agent: usize, life: u32, now: Time) -> SessionId {
        self.last += 1;
        let session = SessionId(self.last);
        let never = Time(0);
        let link = Link {
            agent,
            life,
            open: true,
            late_until: never,
            twice_until: never,
            slow_until: never,
            free: [now; 2],
        };
        self.links.insert(session, link);
        session
    }

    pub(crate) fn link(&self, session: SessionId) -> Option<&Link> {
        self.links.get(&session)
    }

    /// Those that are open.
    pub(crate) fn open_sessions(&self) -> Vec<SessionId> {
        self.links.iter().filter(|(_, link)| link.open).map(|(session, _)| *session).collect()
    }

    /// Ends a connection; `None` if it was over already. With `late` what is under way to the coordinator still
    /// arrives until then.
    pub(crate) fn close(&mut self, session: SessionId, late: Option<Time>) -> Option<(usize, u32)> {
        let link = self.links.get_mut(&session).filter(|link| link.open)?;
        link.open = false;
        link.late_until = late.unwrap_or_default();
        Some((link.agent, link.life))
    }

    /// Nothing that is under way arrives any more: the process at the other end is gone.
    pub(crate) fn forget_late(&mut self) {
        for link in self.links.values_mut() {
            link.late_until = Time(0);
        }
    }

    /// When a message sent now arrives; `None` over a connection that is over.
    pub(crate) fn arrival(
        &mut self,
        session: SessionId,
        way: Way,
        now: Time,
        dice: &mut Dice,
    ) -> Option<Time> {
        let link = self.links.get_mut(&session).filter(|link| link.open)?;
        let most_s = if link.slow_until > now { 3.0 } else { 0.05 };
        let wait_s = dice.between_s(0.0005, most_s);
        let free = &mut link.free[way as usize];
        *free = (*free).max(now.after_s(wait_s));
        Some(*free)
    }

    /// Whether something that was sent has not arrived.
    pub(crate) fn is_under_way(&self, session: SessionId, way: Way, now: Time) -> bool {
        self.links.get(&session).is_some_and(|link| link.free[way as usize] > now)
    }

    /// Nothing gets through one way until then.
    pub(crate) fn stall(&mut self, session: SessionId, way: Way, until: Time) {
        if let Some(link) = self.links.get_mut(&session) {
            let free = &mut link.free[way as usize];
            *free = (*free).max(until);
        }
    }

    /// Everything takes long until then.
    pub(crate) fn slow_down(&mut self, session: SessionId, until: Time) {
        if let Some(link) = self.links.get_mut(&session) {
            link.slow_until = link.slow_until.max(until);
        }
    }

    /// Messages to the coordinator may arrive twice until then.
    pub(crate) fn repeat(&mut self, session: SessionId, until: Time) {
        if let Some(link) = self.links.get_mut(&session) {
            link.twice_until = link.twice_until.max(until);
        }
    }
}
