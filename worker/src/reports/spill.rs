//! Reports that memory has no room for: an append-only file, read back in order. Knows nothing of the coordinator.
//!
//! A file holds frames: the length of a report in bytes (u32, little endian), the first 8 bytes of its BLAKE3 digest, then
//! the report (postcard). It is made
//! when it is first needed, in the agent's scratch folder, and cut to nothing whenever all of it was read.

use super::Entry;
use crate::attempt::LeaseKey;
use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

/// The file grows no larger than this, in bytes. Beyond it the agent listens to its trainers no more.
pub(super) const SPILL_BYTES: u64 = 256 << 20;
/// Name of the file in the scratch folder.
const FILE: &str = "reports";
/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// Bytes of a frame before its report.
const HEAD_BYTES: usize = LENGTH_BYTES + 8;

/// Why a report is not in the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpillError {
    #[error("the file of waiting reports has reached its limit of {0} bytes")]
    Full(u64),
    #[error("the file of waiting reports cannot be written or read")]
    File(#[from] io::Error),
    #[error("the file of waiting reports is damaged at byte {0}")]
    Damaged(u64),
    #[error("a waiting report has no form that can be written or read")]
    Form(#[from] postcard::Error),
}

/// Reports on disk, in order.
pub(super) struct Spill {
    path: PathBuf,
    limit: u64,
    file: Option<File>,
    /// Where the first report begins that was not read back.
    read: u64,
    /// Where the next one is written. What lies behind it is a frame that was not written whole.
    written: u64,
    /// Leases that were lost, and up to where their reports are not wanted any more.
    lost: HashMap<LeaseKey, u64>,
    /// Final reports in the file: where, of which lease, on which device.
    ended: VecDeque<(u64, LeaseKey, usize)>,
}

impl Spill {
    /// In this folder, nothing yet.
    pub(super) fn new(folder: &std::path::Path) -> Self {
        Self::limited(folder, SPILL_BYTES)
    }

    /// The same with another limit in bytes.
    pub(super) fn limited(folder: &std::path::Path, limit: u64) -> Self {
        let (lost, ended) = (HashMap::new(), VecDeque::new());
        Self { path: folder.join(FILE), limit, file: None, read: 0, written: 0, lost, ended }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read == self.written
    }

    /// Final reports that were not read back.
    pub(super) fn ended(&self) -> impl Iterator<Item = (LeaseKey, usize)> {
        self.ended.iter().map(|(_, lease, device)| (*lease, *device))
    }

    /// Appends a report. On an error it is not in the file, and the file is as before.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), SpillError> {
        let mut frame = postcard::to_extend(entry, vec![0; HEAD_BYTES])?;
        let (head, report) = frame.split_at_mut(HEAD_BYTES);
        let length = u32::try_from(report.len()).map_err(io::Error::other)?;
        head[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        head[LENGTH_BYTES..].copy_from_slice(check(report).as_slice());
        if self.written + frame.len() as u64 > self.limit {
            return Err(SpillError::Full(self.limit));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none @ None => {
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(true);
                none.insert(options.open(&self.path)?)
            }
        };
        file.write_all_at(&frame, self.written)?;
        if entry.body.is_final() {
            self.ended.push_back((self.written, entry.lease, entry.device));
        }
        self.written += frame.len() as u64;
        Ok(())
    }

    /// The next report that is still wanted. On an error it is still there.
    pub(super) fn pop(&mut self) -> Result<Option<Entry>, SpillError> {
        while self.read < self.written {
            let Some(file) = &self.file else { break };
            let mut length = [0; LENGTH_BYTES];
            file.read_exact_at(&mut length, self.read)?;
            let bytes = HEAD_BYTES + u32::from_le_bytes(length) as usize;
            if self.read + bytes as u64 > self.written {
                return Err(SpillError::Damaged(self.read));
            }
            let mut frame = vec![0; bytes];
            file.read_exact_at(&mut frame, self.read)?;
            let (head, report) = frame.split_at(HEAD_BYTES);
            if head[LENGTH_BYTES..] != check(report) {
                return Err(SpillError::Damaged(self.read));
            }
            let entry: Entry = postcard::from_bytes(report)?;
            let at = self.read;
            self.read += bytes as u64;
            if self.ended.front().is_some_and(|(place, ..)| *place == at) {
                self.ended.pop_front();
            }
            let lost = self.lost.get(&entry.lease).is_some_and(|until| at < *until);
            let all_read = self.read == self.written;
            if all_read {
                self.start_over();
            }
            if !lost {
                return Ok(Some(entry));
            }
            if all_read {
                break;
            }
        }
        Ok(None)
    }

    /// Forgets what was written so far about a lease that is lost.
    pub(super) fn drop_lease(&mut self, lease: LeaseKey) {
        if !self.is_empty() {
            self.lost.insert(lease, self.written);
            self.ended.retain(|(_, ended, _)| *ended != lease);
        }
    }

    fn start_over(&mut self) {
        (self.read, self.written) = (0, 0);
        self.lost.clear();
        if let Some(file) = &self.file
            && let Err(error) = file.set_len(0)
        {
            tracing::debug!(%error, "the file of waiting reports keeps its length");
        }
    }
}

/// By which damage to a report is seen.
fn check(report: &[u8]) -> [u8; HEAD_BYTES - LENGTH_BYTES] {
    let digest = spotsweep_proto::digest::Digest::of(report).0;
    std::array::from_fn(|byte| digest[byte])
}
