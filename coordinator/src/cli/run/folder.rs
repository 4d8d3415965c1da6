//! Which sweep a folder holds: start it, go on with it, or refuse because it is another.
//!
//! Owns the rules of `--dir` and `--new`. Must not print.

use crate::{
    cli::{client::SWEEPS, error::io_problem, source::Source, submit, sweep_file::SweepFile, text},
    error::{Code, Problem},
    store::{DATABASE_FILE, FolderLock, StoreError},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Most differences that are told.
const DIFFERENCES: usize = 8;
/// Most old folders that `--new` counts.
const OLD_FOLDERS: u32 = 10_000;

/// The folder for a sweep: as given, else one of the sweep's name.
#[must_use]
pub(crate) fn of(file: &SweepFile, given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| Path::new(SWEEPS).join(file.spec.name.as_str()))
}

/// Moves a folder that is in use by nobody out of the way; gives its new place. Nothing happens where no coordinator
/// has been.
///
/// # Errors
/// If a coordinator is at work there, or it cannot be moved.
pub(crate) fn set_aside(dir: &Path) -> Result<Option<PathBuf>, Problem> {
    if let Some(live) = FolderLock::holder(dir) {
        return Err(StoreError::InUse { dir: dir.to_owned(), holder: live.holder, url: live.url }.into());
    }
    if !dir.join(DATABASE_FILE).exists() {
        return Ok(None);
    }
    let free = (1..OLD_FOLDERS).map(|number| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    });
    let Some(aside) = free.into_iter().find(|path| !path.exists()) else {
        return Err(Problem::new(
            Code::Storage,
            format!("{} has too many old folders beside it", dir.display()),
        )
        .hint("delete some"));
    };
    std::fs::rename(dir, &aside).map_err(|error| io_problem("move", dir, &error))?;
    Ok(Some(aside))
}

/// What was found in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing: the sweep is handed in now.
    Fresh(String),
    /// The same sweep, not at its end.
    Unfinished(String),
    /// The same sweep, at its end.
    Ended(String),
}

impl Claim {
    /// The sweep's name.
    #[must_use]
    pub(crate) fn sweep(&self) -> &str {
        match self {
            Self::Fresh(sweep) | Self::Unfinished(sweep) | Self::Ended(sweep) => sweep,
        }
    }
}

/// Finds the sweep of `file` in the folder, or hands it in where the folder holds none.
///
/// # Errors
/// If the folder holds another sweep, saying how it differs.
pub(crate) async fn claim(source: &mut Source, file: &SweepFile, dir: &Path) -> Result<Claim, Problem> {
    let sweeps = source.sweeps().await?;
    let digest = file.spec.digest().to_string();
    if let Some(same) = sweeps.iter().rev().find(|sweep| sweep.spec_digest == digest) {
        let name = same.sweep.clone();
        let ended = matches!(same.state.as_str(), "completed" | "cancelled");
        return Ok(if ended { Claim::Ended(name) } else { Claim::Unfinished(name) });
    }
    let Some(other) = sweeps.last() else {
        return Ok(Claim::Fresh(submit::submit(source, file).await?.sweep));
    };
    let there = source.show(&other.sweep).await?.spec_json;
    let there = serde_json::from_str(&there).unwrap_or(Value::Null);
    let here = serde_json::to_value(&file.spec).unwrap_or(Value::Null);
    let mut message = format!(
        "{} holds the sweep {}, and {} is not the same any more",
        dir.display(),
        other.sweep,
        file.name
    );
    for line in differences(&there, &here) {
        message += &format!("\n  {line}");
    }
    Err(Problem::new(Code::OtherSweep, message).hint(format!(
        "--new starts over (the results so far are kept in {}.1), --dir DIR runs it in another folder",
        dir.display()
    )))
}

/// How two specifications differ, as lines for people.
fn differences(there: &Value, here: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", there, here, &mut found);
    let more = found.len().saturating_sub(DIFFERENCES);
    found.truncate(DIFFERENCES);
    if more > 0 {
        found.push(format!("… and {more} more"));
    }
    found
}

fn compare(path: &str, there: &Value, here: &Value, found: &mut Vec<String>) {
    if there == here {
        return;
    }
    match (named(there), named(here)) {
        (Some(old), Some(new)) => {
            for (name, value) in &old {
                let other = new.iter().find(|(key, _)| key == name).map_or(&Value::Null, |(_, value)| value);
                compare(&joined(path, name), value, other, found);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.iter().any(|(key, _)| key == name)) {
                compare(&joined(path, name), &Value::Null, value, found);
            }
            // The same parts in another order make another sequence of trials.
            if old.len() == new.len()
                && old.iter().zip(&new).all(|((_, a), _)| new.iter().any(|(_, b)| a == b))
            {
                found.push(format!("{path}: in another order"));
            }
        }
        (_, _) => found.push(format!("{path}: {} there, {} here", shown(there), shown(here))),
    }
}

/// The parts of an object, or of a list of things with names. The words that only say of which kind a value is do
/// not count as parts.
fn named(value: &Value) -> Option<Vec<(String, &Value)>> {
    match value {
        Value::Object(map) => {
            let rest = map.iter().filter(|(key, _)| *key != "name" || !map.contains_key("domain"));
            Some(rest.map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .map(|item| Some((item.get("name")?.as_str()?.to_owned(), item.get("domain")?)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

fn joined(path: &str, part: &str) -> String {
    let kind = part.starts_with(|c: char| c.is_ascii_uppercase());
    match (path, part) {
        ("", "space") => "parameters".to_owned(),
        ("", part) => part.to_owned(),
        (path, _) if kind => path.to_owned(),
        (path, part) => format!("{path}.{part}"),
    }
}

fn shown(value: &Value) -> String {
    const CHARS: usize = 60;
    let value = match value {
        Value::Null => return "nothing".to_owned(),
        // What a distribution is called says no more than its bounds do.
        Value::Object(map) if map.len() == 1 => map.values().next().unwrap_or(value),
        other => other,
    };
    let shown = match value {
        // With the digest of what it is pinned to, which may be all that differs.
        Value::String(text) => text::harmless(text).into_owned(),
        other => text::parameter(other),
    };
    if shown.chars().count() <= CHARS {
        return shown;
    }
    shown.chars().take(CHARS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::spec::parse;

    fn spec(text: &str) -> Value {
        serde_json::to_value(parse(text.as_bytes(), "a.yaml").unwrap()).unwrap()
    }

    #[test]
    fn what_was_changed_in_a_sweep_file_is_told_by_key() {
        let before = spec(
            "{name: a, method: grid, metric: {name: val_loss}, train: {data: mnist, epochs: 3}, parameters: {model: {value: mlp}, dropout: {values: [0.1, 0.2]}, learning_rate: {values: [0.1]}}}",
        );
        let after = spec(
            "{name: a, method: grid, train: {data: mnist, epochs: 5}, parameters: {model: {value: mlp}, dropout: {values: [0.1, 0.3]}, momentum: {value: 0.5}}, priority: 2}",
        );
        insta::assert_snapshot!(differences(&before, &after).join("\n"));
        assert!(differences(&before, &before).is_empty());
        let turned = spec(
            "{name: a, method: grid, metric: {name: val_loss}, train: {data: mnist, epochs: 3}, parameters: {dropout: {values: [0.1, 0.2]}, model: {value: mlp}, learning_rate: {values: [0.1]}}}",
        );
        assert_eq!(differences(&before, &turned), ["parameters: in another order"]);
    }

    #[test]
    fn new_keeps_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a");
        assert_eq!(set_aside(&dir), Ok(None));
        for number in 1..3 {
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join(DATABASE_FILE), "x").unwrap();
            let aside = root.path().join(format!("a.{number}"));
            assert_eq!(set_aside(&dir), Ok(Some(aside.clone())));
            assert!(aside.join(DATABASE_FILE).exists() && !dir.exists());
        }
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("notes.txt"), "mine").unwrap();
        assert_eq!(set_aside(&dir), Ok(None));
    }
}
