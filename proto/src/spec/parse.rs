//! From the bytes of a sweep file to a checked [`SweepSpec`], or to everything that is wrong with it.

use super::{
    SweepSpec, added, against_catalogue,
    diagnostic::{Diagnostics, Report, Span},
    own::{self, Own},
    sections,
    yaml::{self, Value},
};
use crate::{
    catalogue::OwnCatalogue, datasets::DataSets, ids::SweepName, limits::SWEEP_FILE_BYTES, value::ParamValue,
};

/// Reads and checks a sweep file. `file_name` is shown in diagnostics, and its stem is the name of a sweep that
/// gives itself none.
///
/// Time and memory are bounded, whatever the bytes: see the limits in [`crate::limits`].
///
/// # Errors
/// Everything that is wrong, up to a bounded number.
pub fn parse(source: &[u8], file_name: &str) -> Result<SweepSpec, Diagnostics> {
    parse_with(source, file_name, &DataSets::catalogue(), Own::Told(&OwnCatalogue::default()))
}

/// As [`parse`], where the sweep may also name the data sets in `sets` and what is `own` to trainers. The specification has
/// both pinned.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(
    source: &[u8],
    file_name: &str,
    sets: &DataSets,
    own: Own<'_>,
) -> Result<SweepSpec, Diagnostics> {
    if source.len() > SWEEP_FILE_BYTES {
        let mut report = Report::new("");
        report.error_hint(
            None,
            format!("a sweep file has at most {SWEEP_FILE_BYTES} bytes, this one has {}", source.len()),
            "write ranges (min, max, q) instead of long lists of values",
        );
        return Err(report.finish(file_name));
    }
    let text = utf8(source).map_err(|report| report.finish(file_name))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(text);
    match sweep(text, file_name, sets, own, &mut report) {
        Some(spec) if report.is_clean() => Ok(added::pin(spec, sets)),
        outcome => {
            if outcome.is_none() && report.is_clean() {
                // The reader of YAML says why it stops; should it ever not, the user is not left with nothing.
                report.error(None, "this is no sweep file");
            }
            Err(report.finish(file_name))
        }
    }
}

fn sweep(
    text: &str,
    file_name: &str,
    sets: &DataSets,
    own: Own<'_>,
    report: &mut Report<'_>,
) -> Option<SweepSpec> {
    if let Some(span) = control_character(text) {
        report.error_hint(span, "a control character stands here", "a sweep file is plain text");
        return None;
    }
    let root = yaml::read(text, report);
    if !report.is_clean() && root.is_none() {
        return None;
    }
    let root = root.filter(|root| !matches!(root.value, Value::Scalar(ParamValue::Null)));
    let Some(root) = root else {
        report.error_hint(None, "the file is empty", "the folder examples/ holds sweeps to start from");
        return None;
    };
    let (mut spec, places) = sections::read(&root, name_from(file_name)?, report)?;
    own::pin(&mut spec, own);
    against_catalogue::check(&spec, &places, sets, own, report);
    Some(spec)
}

/// The text, or where it stops being UTF-8.
fn utf8(source: &[u8]) -> Result<&str, Report<'_>> {
    std::str::from_utf8(source).map_err(|error| {
        let valid =
            source.get(..error.valid_up_to()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("");
        let mut report = Report::new(valid);
        let span = Span {
            line: valid.matches('\n').count() + 1,
            column: valid.rsplit('\n').next().unwrap_or("").chars().count(),
            width: 1,
        };
        let hint = match source {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "this looks like UTF-16; save the file as UTF-8",
            _ => "save the file as UTF-8",
        };
        report.error_hint(span, "this is not UTF-8", hint);
        report
    })
}

/// The first control character besides tab and ends of lines, which YAML does not allow either.
fn control_character(text: &str) -> Option<Span> {
    let at = text.find(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}'))?;
    let before = text.get(..at)?;
    Some(Span {
        line: before.matches('\n').count() + 1,
        column: before.rsplit('\n').next().unwrap_or("").chars().count(),
        width: 1,
    })
}

/// A sweep's name from its file's: the stem, with `-` for what a name may not hold.
fn name_from(file_name: &str) -> Option<SweepName> {
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or(file_name);
    let stem = base.strip_suffix(".yaml").or_else(|| base.strip_suffix(".yml")).unwrap_or(base);
    let clean: String = stem
        .chars()
        .take(64)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .collect();
    SweepName::new(clean.trim_start_matches(['.', '-'])).or_else(|_| SweepName::new("sweep")).ok()
}
