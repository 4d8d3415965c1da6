//! Reports on their way: numbered when first sent, sent again after a broken connection, kept until
//! acknowledged. No IO.

use crate::{
    attempt::{LeaseKey, ReportBody},
    wire::{self, NameTable},
};
use spotsweep_proto::limits::{METRICS_PER_REPORT, METRICS_PER_TRIAL, REPORTS_PER_BATCH};
use spotsweep_wire::v1;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Memory that waiting reports may take, in bytes, as [`weight`] counts it. When it is reached the agent listens
/// to its trainers no more until the coordinator has acknowledged some; nothing is dropped.
const LOG_BYTES: usize = 64 << 20;
/// A batch holds at most this, in bytes as [`weight`] counts them, so that it stays far below
/// [`spotsweep_proto::limits::GRPC_MESSAGE_BYTES`].
const BATCH_BYTES: usize = 1 << 20;
/// Reports for which nobody waits are gathered for so long.
pub(crate) const GATHER: Duration = Duration::from_millis(5);

struct Entry {
    device: usize,
    lease: LeaseKey,
    body: ReportBody,
}

/// When there is something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
    Never,
}

/// The reports that the coordinator has not acknowledged.
pub(crate) struct ReportLog {
    /// Number of the last report that is acknowledged.
    acknowledged: u64,
    /// Reports that were sent once at least: the first has the number `acknowledged + 1`.
    numbered: VecDeque<Entry>,
    /// Of `numbered`, so many were sent on this connection.
    sent: usize,
    /// Reports that were never sent: they have no number yet, so they can still be dropped.
    fresh: VecDeque<Entry>,
    fresh_since: Option<Instant>,
    urgent: bool,
    bytes: usize,
}

impl ReportLog {
    pub(crate) fn new() -> Self {
        Self {
            acknowledged: 0,
            numbered: VecDeque::new(),
            sent: 0,
            fresh: VecDeque::new(),
            fresh_since: None,
            urgent: false,
            bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, device: usize, lease: LeaseKey, body: ReportBody, now: Instant) {
        self.urgent |= body.is_urgent();
        self.fresh_since.get_or_insert(now);
        let entry = Entry { device, lease, body };
        self.bytes += weight(&entry);
        self.fresh.push_back(entry);
    }

    /// Whether no more should be pushed unless it must be.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= LOG_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbered.is_empty() && self.fresh.is_empty()
    }

    /// Leases whose final report is not acknowledged: the coordinator may think that they are held.
    pub(crate) fn ended(&self) -> impl Iterator<Item = (LeaseKey, usize)> {
        let entries = self.numbered.iter().chain(&self.fresh);
        entries.filter(|entry| entry.body.is_final()).map(|entry| (entry.lease, entry.device))
    }

    /// Forgets what was not sent about a lease that is lost.
    pub(crate) fn drop_lease(&mut self, lease: LeaseKey) {
        let Self { fresh, bytes, .. } = self;
        fresh.retain(|entry| {
            let keep = entry.lease != lease;
            *bytes -= if keep { 0 } else { weight(entry) };
            keep
        });
        if self.fresh.is_empty() {
            (self.fresh_since, self.urgent) = (None, false);
        }
    }

    /// Reports up to `seq` are durable.
    pub(crate) fn acknowledge(&mut self, seq: u64) {
        while self.acknowledged < seq
            && let Some(entry) = self.numbered.pop_front()
        {
            self.bytes -= weight(&entry);
            self.acknowledged += 1;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// A connection is up, at whose other end reports up to `applied_seq` are applied: the others go again.
    pub(crate) fn reattach(&mut self, applied_seq: u64) {
        let newest = self.acknowledged + self.numbered.len() as u64;
        self.sent = 0;
        if (self.acknowledged..=newest).contains(&applied_seq) {
            self.acknowledge(applied_seq);
            return;
        }
        // This coordinator has another history than the one that gave the leases (its folder is new): all that
        // waits is about leases that it does not know. Go on with its numbers.
        let numbered = std::mem::take(&mut self.numbered);
        self.bytes -= numbered.iter().map(weight).sum::<usize>();
        self.acknowledged = applied_seq;
    }

    pub(crate) fn due(&self) -> Due {
        let waits = self.fresh.len() + self.numbered.len() - self.sent;
        if self.urgent || self.sent < self.numbered.len() || waits >= REPORTS_PER_BATCH {
            return Due::Now;
        }
        self.fresh_since.map_or(Due::Never, |since| Due::At(since + GATHER))
    }

    /// The next batch for this connection, if anything waits.
    pub(crate) fn next_batch(&mut self) -> Option<v1::ReportBatch> {
        let first_seq = self.acknowledged + self.sent as u64 + 1;
        let mut names = NameTable::default();
        let mut reports = Vec::new();
        let mut bytes = 0;
        // Every report may bring new names, up to its own limit of them.
        let room = |names: &NameTable| names.len() + METRICS_PER_REPORT <= METRICS_PER_TRIAL;
        while reports.len() < REPORTS_PER_BATCH && bytes < BATCH_BYTES && room(&names) {
            if self.sent == self.numbered.len() {
                let Some(entry) = self.fresh.pop_front() else { break };
                self.numbered.push_back(entry);
            }
            let entry = &self.numbered[self.sent];
            reports.push(wire::report(entry.lease, &entry.body, &mut names));
            bytes += weight(entry);
            self.sent += 1;
        }
        if self.fresh.is_empty() {
            (self.fresh_since, self.urgent) = (None, false);
        }
        if reports.is_empty() {
            return None;
        }
        Some(v1::ReportBatch { first_seq, metric_names: names.into_names(), reports })
    }
}

/// Memory of a report, in bytes; what it takes on the wire is less.
fn weight(entry: &Entry) -> usize {
    let metrics = |count: usize| count * size_of::<(spotsweep_proto::ids::MetricName, f64)>();
    size_of::<Entry>()
        + match &entry.body {
            ReportBody::Started { .. } | ReportBody::Released { .. } => 0,
            ReportBody::Progress(progress) => metrics(progress.metrics.len()),
            ReportBody::Checkpoint(checkpoint) => size_of_val(checkpoint.parts.as_slice()),
            ReportBody::Finished { metrics: list, .. } => metrics(list.len()),
            ReportBody::Failed { message, .. } => message.len(),
        }
}

#[cfg(test)]
mod tests;
