//! The manifest of an export, checked: which sweep comes, and how much of what.

use super::Damage;
use crate::{
    error::{Code, Problem, chain},
    export::manifest::{FORMAT, FORMAT_VERSION, MANIFEST, Manifest, unsealed},
};
use serde_json::Value;
use spotsweep_engine::{Time, import::ImportHead, views::SweepState};
use spotsweep_proto::{
    digest::Digest,
    ids::{SweepName, TrialId},
    spec::SweepSpec,
};

/// Largest manifest, in bytes: a specification is about as long as its sweep file, which has at most 1 MiB.
pub(crate) const MANIFEST_BYTES: usize = 4 << 20;

/// What an export says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// As written.
    pub(crate) manifest: Manifest,
    /// The sweep.
    pub(crate) spec: SweepSpec,
    name: SweepName,
    digest: Digest,
    cancelled: bool,
    ended_at_us: u64,
    best_trial: Option<u32>,
}

fn refused(message: impl Into<String>, hint: &str) -> Problem {
    Problem::new(Code::BadExport, message).hint(hint)
}

fn damaged(what: impl Into<String>) -> Problem {
    Damage { file: MANIFEST, line: 0, what: what.into() }.into()
}

impl Head {
    /// Reads a manifest.
    ///
    /// # Errors
    /// It is none, of another version, was altered, or is of a sweep that had not ended.
    pub(crate) fn read(text: &[u8]) -> Result<Self, Problem> {
        if text.len() > MANIFEST_BYTES {
            return Err(damaged(format!("it has more than {MANIFEST_BYTES} bytes")));
        }
        let text = std::str::from_utf8(text).map_err(|_| damaged("it is no text"))?;
        let value: Value =
            serde_json::from_str(text).map_err(|error| damaged(format!("it is no JSON: {error}")))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(refused(
                format!("{MANIFEST} is of something else than an export of Spotsweep"),
                "name the folder that `spotsweep export SWEEP --as json --to DIR` made",
            ));
        }
        let version = value.get("version").and_then(Value::as_u64).unwrap_or(0);
        if version > u64::from(FORMAT_VERSION) {
            let message = format!("the export has format {version}, and this program reads {FORMAT_VERSION}");
            return Err(Problem::new(Code::NewerFormat, message).hint("import it with a newer Spotsweep"));
        }
        if version < u64::from(FORMAT_VERSION) {
            return Err(refused(
                format!(
                    "the export has format {version}, which holds too little to be imported; this program reads \
                     {FORMAT_VERSION}"
                ),
                "export the sweep again, with this version of Spotsweep, from the folder of its coordinator",
            ));
        }
        // From the text and not from the value, for the line.
        let manifest: Manifest = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let digest = unsealed(text, &manifest.blake3);
        let digest = digest
            .ok_or_else(|| damaged("its content has not the BLAKE3 that stands in it: it was altered"))?;
        Self::of(manifest, digest)
    }

    /// Of a manifest that is as it was written, by whomever.
    fn of(manifest: Manifest, digest: Digest) -> Result<Self, Problem> {
        let sweep = &manifest.sweep;
        let name = SweepName::new(&sweep.sweep).map_err(|error| damaged(error.to_string()))?;
        let state: SweepState = serde_json::from_value(Value::from(sweep.state.as_str()))
            .map_err(|_| damaged(format!("{:?} is no state of a sweep", sweep.state)))?;
        let (cancelled, ended_at_us) = match (state, sweep.ended_at_us) {
            (SweepState::Completed, Some(at)) => (false, at),
            (SweepState::Cancelled, Some(at)) => (true, at),
            (SweepState::Running | SweepState::Paused, _) => {
                return Err(refused(
                    format!(
                        "{name} was {state} when it was exported, and only what has ended can be imported"
                    ),
                    "export it again once it has ended",
                ));
            }
            (SweepState::Completed | SweepState::Cancelled, None) => {
                return Err(damaged("it does not say when the sweep ended"));
            }
        };
        let spec = SweepSpec::from_stored(&manifest.spec)
            .map_err(|error| damaged(format!("its specification cannot be read: {}", chain(&error))))?;
        let trials = u64::from(spec.trials());
        if sweep.trials != trials || manifest.files.trials.lines != trials {
            let (told, lines) = (sweep.trials, manifest.files.trials.lines);
            return Err(damaged(format!(
                "by its specification the sweep has {trials} trials, but it tells of {told} and of {lines} lines"
            )));
        }
        let best_trial = match &sweep.best_trial {
            None => None,
            Some(text) => match text.parse::<TrialId>() {
                Ok(best) if best.sweep == name && u64::from(best.number) < trials => Some(best.number),
                Ok(_) | Err(_) => return Err(damaged(format!("{text:?} is no trial of {name}"))),
            },
        };
        Ok(Self { spec, name, digest, cancelled, ended_at_us, best_trial, manifest })
    }

    /// What the engine is told, under another name if there is one.
    pub(crate) fn for_engine(&self, renamed: Option<SweepName>) -> ImportHead {
        let Manifest { version, program, sweep, files, .. } = &self.manifest;
        ImportHead {
            renamed: renamed.is_some(),
            name: renamed.unwrap_or_else(|| self.name.clone()),
            spec: Box::new(self.spec.clone()),
            submitted_at: Time(sweep.submitted_at_us),
            ended_at: Time(self.ended_at_us),
            cancelled: self.cancelled,
            target_reached: sweep.target_reached,
            stale_reports: sweep.stale_reports,
            best_trial: self.best_trial,
            attempts: files.attempts.lines,
            points: files.points.lines,
            // For people: a few dozen characters are enough of it.
            program: program.chars().filter(|c| !c.is_control()).take(64).collect(),
            format: *version,
            digest: self.digest,
        }
    }

    /// Of the whole export.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }
}
