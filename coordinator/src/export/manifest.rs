//! `manifest.json` of an export as JSON: what this is, how much there is, and digests of all of it. Written by [`super::json`],
//! read by `import`. Pure.

use super::json::Number;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spotsweep_proto::digest::Digest;
use spotsweep_wire::v1::{Imported, SweepSummary};
use std::collections::BTreeMap;

/// What the manifest calls the format.
pub(crate) const FORMAT: &str = "spotsweep-export";
/// Raised when a field changes its meaning or goes, or what an import needs is added.
///
/// 1 had no attempts and no digest of the manifest.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// The manifest's file.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The other files, in the order in which they are read.
pub(crate) const FILES: [&str; 3] = ["trials.jsonl", "attempts.jsonl", "points.jsonl"];

/// The whole manifest. The digest stands last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: String,
    pub(crate) version: u32,
    /// Version of the program that wrote it.
    pub(crate) program: String,
    pub(crate) sweep: Sweep,
    /// The checked specification.
    pub(crate) spec: Value,
    pub(crate) files: Files,
    /// BLAKE3 of the manifest's text in which this is 64 zeros.
    pub(crate) blake3: String,
}

/// The files beside the manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Files {
    #[serde(rename = "trials.jsonl")]
    pub(crate) trials: Listed,
    #[serde(rename = "attempts.jsonl")]
    pub(crate) attempts: Listed,
    #[serde(rename = "points.jsonl")]
    pub(crate) points: Listed,
}

impl Files {
    /// In the order of [`FILES`].
    pub(crate) fn in_order(&self) -> [&Listed; 3] {
        [&self.trials, &self.attempts, &self.points]
    }
}

/// How much is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
}

/// The sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sweep {
    pub(crate) sweep: String,
    pub(crate) state: String,
    pub(crate) description: String,
    pub(crate) trials: u64,
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) best_trial: Option<String>,
    pub(crate) best_value: Option<Number>,
    pub(crate) objective: String,
    pub(crate) goal: String,
    pub(crate) target_reached: bool,
    pub(crate) priority: i32,
    pub(crate) submitted_at_us: u64,
    pub(crate) ended_at_us: Option<u64>,
    pub(crate) stale_reports: u64,
    pub(crate) spec_digest: String,
    /// Set if it had been imported where it was exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imported: Option<From>,
}

/// From where a sweep had been imported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct From {
    pub(crate) program: String,
    pub(crate) version: u32,
    pub(crate) blake3: String,
    pub(crate) at_us: u64,
}

impl Sweep {
    pub(crate) fn of(summary: &SweepSummary) -> Self {
        let summary = summary.clone();
        let from = |Imported { program, format, digest, at_us }| From {
            program,
            version: format,
            blake3: digest,
            at_us,
        };
        Self {
            sweep: summary.sweep,
            state: summary.state,
            description: summary.description,
            trials: summary.trials,
            counts: summary.counts.into_iter().collect(),
            best_trial: summary.best_trial,
            best_value: summary.best_value.map(Number),
            objective: summary.objective,
            goal: summary.goal,
            target_reached: summary.target_reached,
            priority: summary.priority,
            submitted_at_us: summary.submitted_at_us,
            ended_at_us: summary.ended_at_us,
            stale_reports: summary.stale_reports,
            spec_digest: summary.spec_digest,
            imported: summary.imported.map(from),
        }
    }
}

/// What stands for the digest while it is computed.
fn zeros() -> String {
    "0".repeat(64)
}

impl Manifest {
    /// As text, with its digest.
    ///
    /// # Errors
    /// It is no JSON, which cannot be.
    pub(crate) fn sealed(mut self) -> Result<String, serde_json::Error> {
        self.blake3 = zeros();
        let text = serde_json::to_string_pretty(&self)? + "\n";
        let digest = Digest::of(text.as_bytes()).to_string();
        let place = text.rfind(&self.blake3).unwrap_or(text.len());
        Ok(format!("{}{digest}{}", &text[..place], text.get(place + 64..).unwrap_or_default()))
    }
}

/// The digest of a manifest's text, if it is the one that stands in it as `stated`.
pub(crate) fn unsealed(text: &str, stated: &str) -> Option<Digest> {
    // Written in one way only.
    let digest: Digest = stated.parse().ok().filter(|digest: &Digest| digest.to_string() == stated)?;
    let place = text.rfind(stated)?;
    let zeroed = format!("{}{}{}", &text[..place], zeros(), &text[place + stated.len()..]);
    (Digest::of(zeroed.as_bytes()) == digest).then_some(digest)
}
