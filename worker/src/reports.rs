//! Reports on their way: numbered when first sent, sent again after a broken connection, kept until
//! acknowledged. What memory has no room for goes to a file ([`spill`]); no other IO.

mod spill;

use crate::{
    attempt::{LeaseKey, ReportBody},
    wire::{self, NameTable},
};
use serde::{Deserialize, Serialize};
use spill::Spill;
use spotsweep_proto::limits::{METRICS_PER_REPORT, METRICS_PER_TRIAL, REPORTS_PER_BATCH};
use spotsweep_wire::v1;
use std::{collections::VecDeque, path::Path, time::Duration};
use tokio::time::Instant;

/// Memory that waiting reports may take, in bytes, as [`weight`] counts it. When it is reached reports go to disk
/// until the coordinator has acknowledged some. When there is no room there either, the agent listens to its
/// trainers no more; nothing is dropped.
const LOG_BYTES: usize = 64 << 20;
/// A batch holds at most this, in bytes as [`weight`] counts them, so that it stays far below
/// [`spotsweep_proto::limits::GRPC_MESSAGE_BYTES`].
const BATCH_BYTES: usize = 1 << 20;
/// Wait before a file that could not be read is tried again.
const READ_RETRY: Duration = Duration::from_secs(1);
/// A file that could not be read so many times in a row is given up: see [`ReportLog::is_lost`].
const READ_TRIES: u32 = 10;
/// Reports for which nobody waits are gathered for so long.
pub(crate) const GATHER: Duration = Duration::from_millis(5);

#[derive(Debug, Serialize, Deserialize)]
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
    /// Of the reports in memory.
    bytes: usize,
    /// Bytes in memory from which on reports go to disk.
    limit: usize,
    /// Reports behind `fresh`, once there was no room in memory; none if this agent has no folder.
    spill: Option<Spill>,
    /// Reports behind those in `spill`, which had to be taken when there was no room there either. While there are
    /// any, disk is not tried again.
    behind: VecDeque<Entry>,
    /// The file could not be read; it is tried again then.
    read_retry: Option<Instant>,
    /// So many times in a row.
    read_failures: u32,
}

impl ReportLog {
    /// With a folder for what memory has no room for.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        Self::with(LOG_BYTES, folder.map(Spill::new))
    }

    fn with(limit: usize, spill: Option<Spill>) -> Self {
        Self {
            limit,
            spill,
            behind: VecDeque::new(),
            read_retry: None,
            read_failures: 0,
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
        if self.behind.is_empty()
            && (self.bytes >= self.limit || self.has_spilled())
            && let Some(spill) = &mut self.spill
        {
            match spill.push(&entry) {
                Ok(()) => return,
                Err(error) => {
                    let error = crate::errors::describe(&error);
                    tracing::warn!(
                        error,
                        "reports that wait for the coordinator find no room on disk: training waits"
                    );
                    self.bytes += weight(&entry);
                    self.behind.push_back(entry);
                    return;
                }
            }
        }
        self.bytes += weight(&entry);
        // Never before what is on disk.
        if self.has_spilled() {
            self.behind.push_back(entry);
        } else {
            self.fresh.push_back(entry);
        }
    }

    fn has_spilled(&self) -> bool {
        !self.behind.is_empty() || self.spill.as_ref().is_some_and(|spill| !spill.is_empty())
    }

    /// Whether no more should be pushed unless it must be.
    pub(crate) fn is_full(&self) -> bool {
        let room_on_disk = self.spill.is_some() && self.behind.is_empty();
        self.bytes >= self.limit && !room_on_disk
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbered.is_empty() && self.fresh.is_empty() && !self.has_spilled()
    }

    /// Whether reports on disk are lost to this agent. It must not go on: whoever gets its leases resumes from a stored
    /// checkpoint and reports the same again.
    pub(crate) fn is_lost(&self) -> bool {
        self.read_failures >= READ_TRIES
    }

    /// Whether an acknowledgement must come before more is brought back.
    fn waits_for_memory(&self) -> bool {
        self.bytes >= self.limit && !self.numbered.is_empty()
    }

    /// Brings back what memory has room for.
    fn refill(&mut self) {
        if !self.fresh.is_empty() || self.waits_for_memory() || !self.has_spilled() {
            return;
        }
        let now = Instant::now();
        let mut brought = 0;
        if let Some(spill) = &mut self.spill
            && self.read_retry.is_none_or(|at| at <= now)
        {
            while brought < BATCH_BYTES {
                match spill.pop() {
                    Ok(Some(entry)) => {
                        brought += weight(&entry);
                        self.fresh.push_back(entry);
                        (self.read_retry, self.read_failures) = (None, 0);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let error = crate::errors::describe(&error);
                        tracing::error!(error, "reports on disk cannot be read; trying again");
                        self.read_retry = Some(now + READ_RETRY);
                        self.read_failures += 1;
                        break;
                    }
                }
            }
            self.bytes += brought;
        }
        if self.spill.as_ref().is_none_or(Spill::is_empty) {
            // Their memory is counted already.
            self.fresh.append(&mut self.behind);
        }
    }

    /// Leases whose final report is not acknowledged: the coordinator may think that they are held.
    pub(crate) fn ended(&self) -> impl Iterator<Item = (LeaseKey, usize)> {
        let entries = self.numbered.iter().chain(&self.fresh).chain(&self.behind);
        let in_memory =
            entries.filter(|entry| entry.body.is_final()).map(|entry| (entry.lease, entry.device));
        in_memory.chain(self.spill.iter().flat_map(Spill::ended))
    }

    /// Forgets what was not sent about a lease that is lost.
    pub(crate) fn drop_lease(&mut self, lease: LeaseKey) {
        let Self { fresh, behind, bytes, .. } = self;
        for entries in [fresh, behind] {
            entries.retain(|entry| {
                let keep = entry.lease != lease;
                *bytes -= if keep { 0 } else { weight(entry) };
                keep
            });
        }
        if let Some(spill) = &mut self.spill {
            spill.drop_lease(lease);
        }
        if self.fresh.is_empty() && !self.has_spilled() {
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
        let waits_in_memory = self.sent < self.numbered.len() || !self.fresh.is_empty();
        if (self.urgent && waits_in_memory) || self.sent < self.numbered.len() || waits >= REPORTS_PER_BATCH {
            return Due::Now;
        }
        if self.has_spilled() && self.fresh.is_empty() {
            return match self.read_retry {
                _ if self.waits_for_memory() => Due::Never,
                Some(at) => Due::At(at),
                None => Due::Now,
            };
        }
        self.fresh_since.map_or(Due::Never, |since| Due::At(since + GATHER))
    }

    /// The next batch for this connection, if anything waits.
    pub(crate) fn next_batch(&mut self) -> Option<v1::ReportBatch> {
        self.refill();
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
        if self.fresh.is_empty() && !self.has_spilled() {
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
