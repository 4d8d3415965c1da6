//! A small sweep for the tests of the formats, hostile where a sweep can be.

use super::{Export, Subject};
use crate::cli::fixtures;
use spotsweep_wire::v1::{Attempt, AttemptEnd, Metric, Point, Trial};

/// What is exported.
pub(crate) fn subject() -> Subject {
    Subject { sweep: fixtures::summary(), spec_json: "{\"name\":\"ladder\"}".to_owned() }
}

/// Its trials: one has text that spreadsheets, terminals and paths would trip over.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = fixtures::trials();
    trials[0].params_json = serde_json::json!({
        "model": "=HYPERLINK(\"http://127.0.0.1\")", "learning_rate": 0.1, "batch_size": 128, "widths": [1, 2],
        "a/../../b": true
    })
    .to_string();
    trials[2].failure = "line one\nline, \"two\"".to_owned();
    trials
}

/// Its attempts: one that was interrupted, one that failed with a hostile text, one that runs.
pub(crate) fn attempts() -> Vec<Attempt> {
    let attempt = |number: u32, attempt: u32, how: Option<serde_json::Value>| Attempt {
        number,
        epoch: u64::from(attempt) + 1,
        attempt,
        worker: "local-1".to_owned(),
        device: "cuda:0".to_owned(),
        first_step: 5,
        started_at_us: 1_795_500_000_000_000,
        end: how.map(|how| AttemptEnd {
            at_us: 1_795_500_001_000_000,
            last_step: 17,
            how_json: how.to_string(),
        }),
    };
    let failed = serde_json::json!({"how": "failed", "kind": "crashed", "message": "=1\n\u{1b}[31m\u{202e}"});
    vec![
        attempt(0, 1, Some(serde_json::json!({"how": "expired"}))),
        attempt(0, 2, Some(failed)),
        attempt(1, 1, None),
    ]
}

/// The points of trial `number`.
pub(crate) fn points(number: u32) -> Vec<Point> {
    let metric = |name: &str, value: f64| Metric { name: name.to_owned(), value };
    let point = |step: u64, metrics: Vec<Metric>| Point {
        trial: format!("ladder/{number}"),
        step,
        #[expect(clippy::cast_precision_loss, reason = "a test")]
        data_epoch: step as f64 / 3.0,
        metrics,
        at_us: 1_795_500_000_000_001 + step * 1_000_000,
    };
    match number {
        0 => vec![
            point(1, vec![metric("val_accuracy", 0.1 + 0.2), metric("a/../../b", 5e-324)]),
            point(2, vec![metric("val_accuracy", f64::NAN), metric("epoch", -0.0)]),
            point(4, vec![metric("val_accuracy", f64::INFINITY), metric("a", f64::NEG_INFINITY)]),
        ],
        3 => vec![point(7, vec![metric("val_accuracy", 1.0 / 3.0)])],
        _ => Vec::new(),
    }
}

/// Gives all of it to `export`.
pub(crate) async fn pour(export: &mut impl Export) {
    for trial in trials() {
        export.trial(&trial).await.unwrap();
        for page in points(trial.number).chunks(2) {
            export.points(page).await.unwrap();
        }
    }
    export.end().await.unwrap();
}
