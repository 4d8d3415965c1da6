//! Trials and sweeps for the tests of what is printed.

use spotsweep_wire::v1::{Metric, SweepSummary, Trial};

/// A sweep of the five trials of [`trials`].
pub(crate) fn summary() -> SweepSummary {
    SweepSummary {
        sweep: "ladder".to_owned(),
        state: "running".to_owned(),
        trials: 5,
        counts: [("completed", 2), ("diverged", 1), ("running", 1), ("pending", 1)]
            .map(|(state, count)| (state.to_owned(), count))
            .into(),
        best_trial: Some("ladder/3".to_owned()),
        best_value: Some(0.9123),
        objective: "val_accuracy".to_owned(),
        goal: "maximize".to_owned(),
        priority: 0,
        submitted_at_us: 1_795_500_000_000_000,
        ended_at_us: None,
        stale_reports: 0,
        spec_digest: "ab".repeat(32),
        description: String::new(),
        sink_problems: Vec::new(),
        imported: None,
        target_reached: false,
    }
}

/// Two that completed, one that diverged, one at work, one that waits.
pub(crate) fn trials() -> Vec<Trial> {
    let trial = |number: u32, state: &str, model: &str, rate: f64, metrics: &[(&str, f64)]| Trial {
        sweep: "ladder".to_owned(),
        trial: format!("ladder/{number}"),
        number,
        state: state.to_owned(),
        params_json: serde_json::json!({"model": model, "learning_rate": rate, "batch_size": 128})
            .to_string(),
        metrics: metrics
            .iter()
            .map(|(name, value)| Metric { name: (*name).to_owned(), value: *value })
            .collect(),
        steps: 1266,
        total_steps: Some(1266),
        attempts: 1,
        failures: 0,
        weights_digest: if state == "completed" { "cd".repeat(32) } else { String::new() },
        device: "cpu".to_owned(),
        worker: "local-1".to_owned(),
        seconds: 12.34,
        failure: String::new(),
        best: metrics.last().map(|_| metrics[2].1).filter(|value| value.is_finite()),
        best_step: Some(844),
        epoch: 1,
        ..Trial::default()
    };
    let done = |loss: f64, val: f64| {
        [
            ("train_loss", loss),
            ("val_loss", loss + 0.1),
            ("val_accuracy", val),
            ("samples_per_second", 51_234.5),
        ]
    };
    let mut trials = vec![
        trial(0, "completed", "softmax", 0.01, &done(0.51, 0.8421)),
        trial(1, "running", "softmax", 0.1, &done(0.55, 0.8301)),
        trial(2, "diverged", "mlp\u{1b}[31m", 0.01, &done(f64::NAN, f64::NAN)),
        trial(3, "completed", "cnn", 0.1, &done(0.21, 0.9123)),
        trial(4, "pending", "cnn", 0.1, &[]),
    ];
    trials[0].best = Some(0.8502);
    trials[1].steps = 400;
    trials[2] = Trial {
        attempts: 3,
        failures: 1,
        failure: "the loss became NaN at step 17".to_owned(),
        steps: 17,
        ..trials[2].clone()
    };
    trials[4] = Trial {
        attempts: 0,
        steps: 0,
        seconds: 0.0,
        device: String::new(),
        worker: String::new(),
        ..trials[4].clone()
    };
    trials
}

/// A program for `/bin/sh`, to be started by the test that calls this.
///
/// Another process writes it: a file that this process has written may still be open for writing in a child that another
/// test's thread forks at that moment, and starting it then fails with "Text file busy" (`execve(2)`, ETXTBSY).
pub(crate) fn program(folder: &std::path::Path, name: &str, script: &str) -> std::path::PathBuf {
    let (source, program) = (folder.join(format!("{name}.sh")), folder.join(name));
    std::fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    let mut install = std::process::Command::new("install");
    let status = install.args(["-m", "755"]).args([&source, &program]).status().unwrap();
    assert!(status.success(), "install ended with {status}");
    program
}
