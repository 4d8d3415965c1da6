//! Notices: warnings that a machine will be taken, or is likely to be. Owns their words; who hears them is the
//! agent's, what follows from them the engine's.

use crate::limits::NOTICE_REASON_BYTES;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who warns.
///
/// In the journal: variants are appended, never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeSource {
    /// The instance metadata of Amazon EC2.
    Aws,
    /// The metadata server of Google Compute Engine.
    Gce,
    /// The scheduled events of Azure.
    Azure,
    /// The signal that a Slurm job is sent before it is preempted or its time is up.
    Slurm,
    /// SIGTERM or SIGINT: Kubernetes, systemd, a person.
    Signal,
    /// A file that somebody made.
    File,
    /// A request on the agent's own loopback port.
    Http,
}

/// What is announced.
///
/// In the journal: variants are appended, never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The machine or process is ended.
    Terminate,
    /// The machine is stopped and may come back.
    Stop,
    /// The machine's memory is written to disk and it may come back.
    Hibernate,
    /// The machine or job is taken for somebody who pays more or goes first.
    Preempt,
    /// The machine is started anew.
    Reboot,
    /// The machine moves to other hardware and loses its local disks.
    Redeploy,
    /// The host is maintained, and the machine does not live through it.
    Maintenance,
    /// The machine is more likely to be taken than others. It may never happen.
    Rebalance,
}

impl NoticeKind {
    /// Whether the worker has to leave. After [`Self::Rebalance`] it goes on, and new work goes elsewhere first.
    #[must_use]
    pub fn is_interruption(self) -> bool {
        match self {
            Self::Terminate
            | Self::Stop
            | Self::Hibernate
            | Self::Preempt
            | Self::Reboot
            | Self::Redeploy
            | Self::Maintenance => true,
            Self::Rebalance => false,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Terminate => "termination",
            Self::Stop => "stop",
            Self::Hibernate => "hibernation",
            Self::Preempt => "preemption",
            Self::Reboot => "reboot",
            Self::Redeploy => "redeployment",
            Self::Maintenance => "maintenance",
            Self::Rebalance => "rebalance",
        }
    }
}

/// A warning that a machine will be taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Who warns.
    pub source: NoticeSource,
    /// Of what.
    pub kind: NoticeKind,
    /// Seconds until it happens, as promised when it was heard; `None` where nothing is promised. Promises are
    /// broken: an upper bound, never a lower.
    pub in_s: Option<f64>,
    /// More for people, or empty; at most [`NOTICE_REASON_BYTES`], without control characters.
    pub reason: String,
}

impl Notice {
    /// A notice without a reason.
    #[must_use]
    pub fn new(source: NoticeSource, kind: NoticeKind, in_s: Option<f64>) -> Self {
        let in_s = in_s.filter(|in_s| in_s.is_finite()).map(|in_s| in_s.max(0.0));
        Self { source, kind, in_s, reason: String::new() }
    }

    /// With a reason, as much of it as is kept.
    #[must_use]
    pub fn because(self, reason: &str) -> Self {
        let clean: String = reason.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = (0..=clean.len().min(NOTICE_REASON_BYTES)).rev().find(|end| clean.is_char_boundary(*end));
        Self { reason: clean[..end.unwrap_or(0)].to_owned(), ..self }
    }

    /// What people call it, without its reason: `an AWS spot notice`.
    #[must_use]
    pub fn name(source: NoticeSource, kind: NoticeKind) -> NoticeName {
        NoticeName { source, kind }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::name(self.source, self.kind).fmt(f)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// What people call a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoticeName {
    source: NoticeSource,
    kind: NoticeKind,
}

impl fmt::Display for NoticeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.kind.word();
        match (self.source, self.kind) {
            (NoticeSource::Aws, NoticeKind::Rebalance) => f.write_str("an AWS rebalance recommendation"),
            (NoticeSource::Aws, NoticeKind::Terminate) => f.write_str("an AWS spot notice"),
            (NoticeSource::Aws, _) => write!(f, "an AWS spot notice ({word})"),
            (NoticeSource::Gce, _) => write!(f, "a Google Cloud {word} notice"),
            (NoticeSource::Azure, _) => write!(f, "an Azure {word} notice"),
            (NoticeSource::Slurm, _) => f.write_str("a Slurm signal"),
            (NoticeSource::Signal, _) => f.write_str("a signal to leave"),
            (NoticeSource::File, _) => f.write_str("a notice file"),
            (NoticeSource::Http, _) => f.write_str("a notice over HTTP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters_and_cannot_forge_lines() {
        let notice = Notice::new(NoticeSource::Http, NoticeKind::Terminate, Some(f64::NAN));
        assert_eq!(notice.in_s, None);
        let long = notice.clone().because(&"ü".repeat(NOTICE_REASON_BYTES));
        assert_eq!(long.reason.len(), NOTICE_REASON_BYTES);
        let forged = notice.because(" price\n\u{1b}[2Jspike ");
        assert_eq!(forged.to_string(), "a notice over HTTP: price  [2Jspike");
    }

    #[test]
    fn only_a_rebalance_recommendation_leaves_the_worker_at_work() {
        assert!(!NoticeKind::Rebalance.is_interruption());
        assert!(NoticeKind::Hibernate.is_interruption());
        let name = |source, kind| Notice::name(source, kind).to_string();
        assert_eq!(name(NoticeSource::Aws, NoticeKind::Terminate), "an AWS spot notice");
        assert_eq!(name(NoticeSource::Azure, NoticeKind::Redeploy), "an Azure redeployment notice");
    }
}
