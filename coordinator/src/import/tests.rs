//! Exports as they come back: whole ones are read as they were, damaged ones are refused by file and line, and nobody's text
//! makes the reader fail in another way.

use super::*;
use crate::export::{
    Export as _, Subject,
    json::Json,
    manifest::{FILES, MANIFEST, Manifest},
};
use proptest::prelude::*;
use serde_json::Value;
use spotsweep_engine::{
    action::{AttemptEnd, TrialState},
    import::ImportPart,
};
use spotsweep_proto::{digest::Digest, spec};
use spotsweep_wire::v1::{Attempt, Failure, Metric, Point, SweepSummary, Trial};
use std::{collections::BTreeMap, sync::LazyLock};

const SWEEP: &str = "name: back\nmethod: grid\nprogram: t.py\nmetric: {name: acc, goal: maximize}\n\
     parameters: {rate: {values: [0.1, 0.3]}, note: {values: [\"=\\e[31m\\u202E<b>\", plain]}}\n";

/// An export by name of file.
type Files = BTreeMap<&'static str, Vec<u8>>;

async fn written() -> Files {
    let spec = spec::parse(SWEEP.as_bytes(), "a.yaml").unwrap();
    let summary = SweepSummary {
        sweep: "back".to_owned(),
        state: "completed".to_owned(),
        trials: 4,
        best_trial: Some("back/1".to_owned()),
        best_value: Some(0.9),
        objective: "acc".to_owned(),
        goal: "maximize".to_owned(),
        submitted_at_us: 5,
        ended_at_us: Some(9),
        stale_reports: 3,
        spec_digest: spec.digest().to_string(),
        ..SweepSummary::default()
    };
    let spec_json = serde_json::to_string(&spec).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut json = Json::begin(folder.path(), &Subject { sweep: summary, spec_json }).unwrap();
    let metric = |name: &str, value: f64| Metric { name: name.to_owned(), value };
    let attempt = |number: u32, how: &str| Attempt {
        number,
        epoch: 1,
        attempt: 1,
        worker: "w".to_owned(),
        device: "cpu".to_owned(),
        first_step: 0,
        started_at_us: 6,
        end: Some(spotsweep_wire::v1::AttemptEnd { at_us: 7, last_step: 9, how_json: how.to_owned() }),
    };
    let failed = "{\"how\":\"failed\",\"kind\":\"crashed\",\"message\":\"\\u001b[31m\"}";
    let finished = "{\"how\":\"finished\"}";
    json.attempts(&[attempt(0, failed), attempt(1, finished), attempt(2, finished)]).unwrap();
    for number in 0..4 {
        let (ran, well) = (number < 3, number == 1 || number == 2);
        let trial = Trial {
            number,
            state: if well { "completed" } else { "failed" }.to_owned(),
            params_json: Value::Object(spec.assignment(number).to_json()).to_string(),
            metrics: if ran { vec![metric("acc", 0.1 + 0.2)] } else { Vec::new() },
            steps: if ran { 9 } else { 0 },
            total_steps: ran.then_some(9),
            attempts: u32::from(ran),
            epoch: u64::from(ran),
            best: ran.then_some(0.9),
            best_step: ran.then_some(8),
            objective: ran.then_some(1.0 / 3.0),
            device: if ran { "cpu" } else { "" }.to_owned(),
            worker: if ran { "w" } else { "" }.to_owned(),
            failure: if number == 0 { "\u{1b}[31m\"\n\u{202e}" } else { "" }.to_owned(),
            last_failure: (number == 0).then(|| Failure {
                kind: "crashed".to_owned(),
                worker: "w".to_owned(),
                at_us: 7,
            }),
            weights_digest: if well { "ab".repeat(32) } else { String::new() },
            seconds: 1.5,
            ..Trial::default()
        };
        json.trial(&trial).await.unwrap();
        let points: Vec<Point> = (0..if ran { 9 } else { 0 })
            .map(|step| Point {
                step,
                data_epoch: f64::from(u32::try_from(step).unwrap()) / 3.0,
                metrics: vec![metric("acc", 5e-324), metric("loss", -0.0), metric("acc", 1.0)],
                at_us: 6,
                ..Point::default()
            })
            .collect();
        json.points(&points).await.unwrap();
    }
    json.end().await.unwrap();
    let read = |name: &&'static str| (*name, std::fs::read(folder.path().join(name)).unwrap());
    FILES.iter().chain([&MANIFEST]).map(read).collect()
}

fn files() -> Files {
    static WRITTEN: LazyLock<Files> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(written()));
    WRITTEN.clone()
}

/// Reads it, in pieces of `most` bytes.
fn read(files: &Files, most: usize) -> Result<Vec<ImportPart>, Problem> {
    let mut reader = Reader::new(Head::read(&files[MANIFEST])?)?;
    let bytes: Vec<u8> = FILES.iter().flat_map(|name| files[name].clone()).collect();
    let mut parts = Vec::new();
    for piece in bytes.chunks(most) {
        parts.extend(reader.feed(piece)?);
    }
    reader.end()?;
    Ok(parts)
}

/// Makes the manifest tell of the files as they are.
fn seal(files: &mut Files) {
    let mut manifest: Value = serde_json::from_slice(&files[MANIFEST]).unwrap();
    for name in FILES {
        let bytes = &files[name];
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        manifest["files"][name] = serde_json::json!({
            "lines": lines, "bytes": bytes.len(), "blake3": Digest::of(bytes).to_string(),
        });
    }
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    files.insert(MANIFEST, manifest.sealed().unwrap().into_bytes());
}

#[test]
fn what_was_exported_is_read_in_pieces_of_any_length() {
    let files = files();
    let parts = read(&files, usize::MAX).unwrap();
    for most in [1, 7, 4096] {
        assert_eq!(format!("{:?}", read(&files, most).unwrap()), format!("{parts:?}"));
    }
    let [ImportPart::Trials(trials), ImportPart::Attempts(attempts), ImportPart::Points { points, .. }] =
        parts.as_slice()
    else {
        panic!("{parts:?}")
    };
    assert_eq!((trials.len(), attempts.len(), points.len()), (4, 3, 27));
    let value = trials[1].result.as_ref().unwrap().metrics[0].1;
    assert_eq!(value.to_bits(), (0.1_f64 + 0.2).to_bits());
    let bits: Vec<u64> = points[0].metrics.iter().map(|(_, value)| value.to_bits()).collect();
    assert_eq!(bits, [5e-324_f64.to_bits(), (-0.0_f64).to_bits(), 1.0_f64.to_bits()]);
    assert_eq!(points[0].metrics[2].0, 0, "a metric that is told twice stays so");
    assert_eq!(trials[0].failure.as_ref().unwrap().message, "\u{1b}[31m\"\n\u{202e}");
    assert!(matches!(attempts[0].end, AttemptEnd::Failed { .. }));
    assert_eq!(trials[3].state, TrialState::Failed);
    let head = Head::read(&files[MANIFEST]).unwrap().for_engine(None);
    assert_eq!((head.best_trial, head.attempts, head.points, head.stale_reports), (Some(1), 3, 27, 3));
}

#[test]
fn what_is_wrong_is_told_by_file_and_line() {
    let whole = files();
    let altered = |name: &'static str, from: &str, to: &str, sealed: bool| {
        let mut files = whole.clone();
        let text = String::from_utf8(files[name].clone()).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        files.insert(name, text.replacen(from, to, 1).into_bytes());
        if sealed {
            seal(&mut files);
        }
        let problem = read(&files, usize::MAX).unwrap_err();
        format!("{}: {}\n  hint: {}", problem.code, problem.message, problem.hint)
    };
    let said = [
        altered(MANIFEST, "\"version\": 2", "\"version\": 1", false),
        altered(MANIFEST, "\"version\": 2", "\"version\": 3", false),
        altered(MANIFEST, "spotsweep-export", "something-else", false),
        altered(MANIFEST, "\"stale_reports\": 3", "\"stale_reports\": 4", false),
        altered(MANIFEST, "\"state\": \"completed\"", "\"state\": \"running\"", true),
        altered(MANIFEST, "\"sweep\": \"back\"", "\"sweep\": \"../back\"", true),
        altered(MANIFEST, "back/1", "back/4", true),
        altered(MANIFEST, "0.3", "\"NaN\"", true),
        altered("trials.jsonl", "\"number\":2", "\"number\":3", true),
        altered("trials.jsonl", "\"rate\":0.3", "\"rate\":0.4", true),
        altered("trials.jsonl", "\"completed\"", "\"running\"", true),
        altered("trials.jsonl", "\"seconds\":1.5", "\"seconds\":\"NaN\"", true),
        altered("attempts.jsonl", "finished", "vanished", true),
        altered("attempts.jsonl", "\"worker\":\"w\"", "\"worker\":\"<b>\"", true),
        altered("points.jsonl", "\"loss\"", "\"lo ss\"", true),
        altered("points.jsonl", "\"step\":3", "\"step\":3,\"more\":1", true),
        altered("points.jsonl", "5e-324", "6e-324", false),
        altered("points.jsonl", "\n", "", true),
    ];
    insta::assert_snapshot!(said.join("\n"));
}

proptest! {
    #[test]
    fn an_export_that_is_damaged_anywhere_is_refused(
        name in prop::sample::select(vec![MANIFEST, FILES[0], FILES[1], FILES[2]]),
        place in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3, most in 1usize..5000,
    ) {
        let mut files = files();
        let bytes = files.get_mut(name).unwrap();
        let at = place.index(bytes.len());
        match kind {
            0 if bytes[at] == byte => return Ok(()),
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            _ => bytes.insert(at, byte),
        }
        prop_assert!(read(&files, most).is_err());
    }

    #[test]
    fn a_forged_export_makes_the_reader_fail_in_no_other_way(
        name in prop::sample::select(FILES.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        most in 1usize..5000,
    ) {
        let mut files = files();
        let bytes = files.get_mut(name).unwrap();
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        seal(&mut files);
        let _refused_or_read = read(&files, most);
    }

    #[test]
    fn a_manifest_of_any_text_is_refused(text in any::<Vec<u8>>()) {
        prop_assert!(Head::read(&text).is_err());
    }
}
