//! Leaving properly: jobs stop, leases go back, what attempts printed comes along, and the goodbye is the last word.

use super::{AgentError, Drain, Outcome, Running};
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};
use spotsweep_wire::v1;
use std::{task::Context, time::Duration};
use tokio::time::Instant;

/// How long the coordinator may take to end its half of the stream after the goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// How long the goodbye may wait for what attempts printed, once all else is handed over.
const LOGS_LIMIT: Duration = Duration::from_secs(1);
/// Of the time for leaving, so much is for handing over what the jobs left: they have to be done before.
const HANDOVER: Duration = Duration::from_secs(2);
/// Where there is little time, no more than one part in so many.
const HANDOVER_SHARE: u32 = 4;

/// How far leaving has come.
pub(super) struct Leaving {
    pub(super) deadline: Instant,
    /// As [`Drain::orphaned`].
    pub(super) orphaned: bool,
    /// The goodbye is said; the stream shall end by then.
    pub(super) goodbye: Option<Instant>,
    /// All is handed over but what attempts printed, for which the goodbye waits no longer than until then.
    pub(super) logs_until: Option<Instant>,
}

impl Running {
    pub(super) fn told(&mut self, Drain { grace, orphaned }: Drain, now: Instant) {
        if !orphaned {
            let in_s = Some(grace.as_secs_f64());
            self.warned.note(Notice::new(NoticeSource::Signal, NoticeKind::Terminate, in_s));
        }
        self.leave(grace, orphaned, now);
    }

    /// Begins to leave, or goes on in less time.
    pub(super) fn leave(&mut self, grace: Duration, orphaned: bool, now: Instant) {
        let deadline = now + grace;
        match &mut self.leaving {
            Some(leaving) => {
                leaving.orphaned |= orphaned;
                if deadline >= leaving.deadline {
                    return;
                }
                leaving.deadline = deadline;
            }
            None => self.leaving = Some(Leaving { deadline, orphaned, goodbye: None, logs_until: None }),
        }
        tracing::info!(grace_s = grace.as_secs_f64(), "leaving: stopping jobs with a checkpoint");
        let handover = HANDOVER.min(grace / HANDOVER_SHARE);
        self.session.drain(deadline - handover, now);
        self.obey();
    }

    /// Whether the agent has left, and how.
    pub(super) fn left(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Outcome> {
        let leaving = self.leaving.as_mut()?;
        let empty = self.session.is_empty();
        if let Some(until) = leaving.goodbye {
            let over = !self.welcomed || now >= until;
            return over.then_some(if empty { Ok(()) } else { Err(AgentError::GraceOver) });
        }
        if !self.welcomed && (empty || leaving.orphaned) {
            return Some(Ok(()));
        }
        let over = now >= leaving.deadline;
        // What its attempts printed last comes along, unless that takes long.
        if empty && !over && self.welcomed && self.session.attempt_logs().waits() {
            let until = *leaving.logs_until.get_or_insert(now + LOGS_LIMIT);
            if now < until {
                while self.poll_attempt_logs(cx, now, true) {}
                if self.session.attempt_logs().waits() {
                    return None;
                }
            }
        }
        let leaving = self.leaving.as_mut()?;
        if (empty || over) && self.welcomed && self.link.poll_ready(cx).is_ready() {
            self.link.send(v1::from_worker::Message::Goodbye(v1::Goodbye {}));
            self.link.finish();
            leaving.goodbye = Some(now + GOODBYE_LIMIT);
            cx.waker().wake_by_ref();
            return None;
        }
        over.then_some(Err(AgentError::GraceOver))
    }
}
