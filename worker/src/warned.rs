//! Of what the agent was warned, and whether the coordinator knows. No IO, no decisions.

use spotsweep_proto::notice::Notice;
use std::{
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;

/// A notice that promises less time than this is taken to promise this much: clocks are wrong, and trying to hand over
/// costs nothing.
const LEAST: Duration = Duration::from_secs(5);
/// No notice gives a drain more time than this, or than the grace time if that is longer: who was warned an hour
/// before does not wait an hour for a trainer that hangs. As long as the longest notice of a spot instance (AWS).
const MOST: Duration = Duration::from_secs(120);

/// The notices of one agent.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    incoming: Option<mpsc::Receiver<Notice>>,
    /// Time to leave where a notice promises none.
    grace: Duration,
    /// The first interruption, or else the first notice: what the coordinator shall know.
    standing: Option<Notice>,
    said: bool,
}

impl Warned {
    /// Nothing yet; notices come from `incoming`.
    pub(crate) fn new(incoming: mpsc::Receiver<Notice>, grace: Duration) -> Self {
        Self { incoming: Some(incoming), grace, ..Self::default() }
    }

    /// The next notice; never ready where nobody warns.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Notice> {
        let Some(incoming) = &mut self.incoming else { return Poll::Pending };
        match incoming.poll_recv(cx) {
            Poll::Ready(Some(notice)) => Poll::Ready(notice),
            Poll::Ready(None) => {
                self.incoming = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Notes a notice. Gives the time in which to leave if it means that.
    pub(crate) fn note(&mut self, notice: Notice) -> Option<Duration> {
        let leaves = notice.kind.is_interruption();
        let limit = leaves.then(|| match notice.in_s {
            None => self.grace,
            Some(in_s) => {
                let promised = Duration::try_from_secs_f64(in_s).unwrap_or(MOST);
                promised.clamp(LEAST, MOST.max(self.grace))
            }
        });
        if self.standing.as_ref().is_none_or(|known| leaves && !known.kind.is_interruption()) {
            self.standing = Some(notice);
            self.said = false;
        }
        limit
    }

    /// The connection is gone: the next one has to be told again.
    pub(crate) fn disconnected(&mut self) {
        self.said = false;
    }

    /// Whether the coordinator has to be told.
    pub(crate) fn is_unsaid(&self) -> bool {
        self.standing.is_some() && !self.said
    }

    /// What the coordinator is told now.
    pub(crate) fn say(&mut self) -> Option<&Notice> {
        self.said = true;
        self.standing.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::notice::{NoticeKind, NoticeSource};

    fn notice(kind: NoticeKind, in_s: Option<f64>) -> Notice {
        Notice::new(NoticeSource::Aws, kind, in_s)
    }

    #[test]
    fn the_time_to_leave_is_what_is_promised_within_reason() {
        let grace = Duration::from_secs(25);
        let mut warned = Warned { grace, ..Warned::default() };
        let mut limit = |in_s| warned.note(notice(NoticeKind::Terminate, in_s));
        assert_eq!(limit(None), Some(grace));
        assert_eq!(limit(Some(0.0)), Some(LEAST));
        assert_eq!(limit(Some(30.0)), Some(Duration::from_secs(30)));
        assert_eq!(limit(Some(3600.0)), Some(MOST));
        assert_eq!(limit(Some(1e300)), Some(MOST));
        assert_eq!(warned.note(notice(NoticeKind::Rebalance, None)), None);
    }

    #[test]
    fn the_first_interruption_is_what_the_coordinator_is_told_on_every_connection() {
        let mut warned = Warned::default();
        assert!(!warned.is_unsaid());
        warned.note(notice(NoticeKind::Rebalance, None));
        assert_eq!(warned.say().unwrap().kind, NoticeKind::Rebalance);
        assert!(!warned.is_unsaid());
        warned.note(notice(NoticeKind::Terminate, None));
        assert!(warned.is_unsaid());
        assert_eq!(warned.say().unwrap().kind, NoticeKind::Terminate);
        warned.note(notice(NoticeKind::Stop, None));
        warned.note(notice(NoticeKind::Rebalance, None));
        assert!(!warned.is_unsaid());
        warned.disconnected();
        assert_eq!(warned.say().unwrap().kind, NoticeKind::Terminate);
    }
}
