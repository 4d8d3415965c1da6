//! Live sinks with real processes: each point arrives once, whatever is killed on the way, and what goes wrong is said.

use spotsweep_tests::{
    Cluster, Trainer,
    fake_mlflow::{FakeMlflow, FakeRun},
    outcome::json_lines,
    wait,
};
use std::{collections::BTreeMap, path::Path};

/// A step of the toy trainer takes this long, so that the coordinator is killed while it trains.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "3000");
/// Trials of the sweep.
const TRIALS: u32 = 4;

fn sweep(sinks: &str) -> String {
    format!(
        "
name: sunk
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  learning_rate: {{values: [0.01, 0.03]}}
  momentum: {{values: [0.0, 0.9]}}
train: {{model: softmax, data: fashion-mnist, steps: 1000, seed: 3}}
checkpoint: {{every_steps: 50, keep_last: 1}}
sinks: [{sinks}]
"
    )
}

/// Every value of a trial, as `metrics` prints them: name, step, bits.
fn printed(cluster: &Cluster, trial: u32) -> Vec<(String, u64, u64)> {
    let mut values = Vec::new();
    for point in json_lines(&cluster.ask(&["metrics", &format!("sunk/{trial}"), "--format", "json"])) {
        let step = point["step"].as_u64().unwrap();
        for (name, value) in point.as_object().unwrap().iter().filter(|(name, _)| *name != "step") {
            values.push((name.clone(), step, value.as_f64().unwrap_or(f64::NAN).to_bits()));
        }
    }
    values.sort();
    values
}

/// Every value that a run was told, but for the final ones, of which each must be there once.
fn told(run: &FakeRun) -> Vec<(String, u64, u64)> {
    let mut finals = BTreeMap::new();
    let mut values = Vec::new();
    for (key, value, _, step) in &run.metrics {
        match key.strip_prefix("final:") {
            Some(name) => assert!(finals.insert(name, *value).is_none(), "final {name} is there twice"),
            None => values.push((key.clone(), *step, value.to_bits())),
        }
    }
    assert!(!finals.is_empty(), "a completed trial has final metrics");
    values.sort();
    values
}

fn run_of(runs: &[FakeRun], trial: u32) -> &FakeRun {
    let number = trial.to_string();
    let mut found = runs.iter().filter(|run| run.tags.get("spotsweep.number") == Some(&number));
    let run = found.next().expect("every trial has a run");
    assert!(found.next().is_none(), "and no more than one");
    run
}

/// The one file in a folder, once it is there.
fn only_file(folder: &Path) -> Option<Vec<u8>> {
    let mut files = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
    let (first, none) = (files.next()?, files.next());
    assert!(none.is_none(), "{none:?} beside {first:?}");
    Some(std::fs::read(first).unwrap())
}

/// Waits until the sinks have nothing left to deliver.
fn delivered(server: &FakeMlflow) {
    wait::until("all runs are finished", || {
        let runs = server.runs();
        let finished = runs.iter().filter(|run| run.status == "FINISHED").count();
        (finished == TRIALS as usize).then_some(())
    });
}

#[test]
fn every_point_is_in_every_sink_once_whatever_is_killed_and_whatever_the_server_does() {
    let server = FakeMlflow::start(true);
    let mut cluster = Cluster::start(2, Trainer::Stub, &[STEP]);
    let sinks = format!(
        "{{to: tensorboard, dir: a/runs}}, {{to: mlflow, url: \"{}\", experiment: elsewhere, artifacts: true}}",
        server.url()
    );
    let name = cluster.submit(&sweep(&sinks));
    assert_eq!(name, "sunk");
    // Each time with more in it, so that every death falls into the work.
    for values in [1, 100, 300, 600] {
        wait::until("the server has been told more", || (server.values() >= values).then_some(()));
        cluster.kill_coordinator();
        cluster.start_coordinator();
    }
    delivered(&server);
    let to = cluster.path("export");
    cluster.ask(&["export", "sunk", "--as", "tensorboard", "--to", to.to_str().unwrap()]);
    let folder = cluster.dir().join("sinks/a/runs/sunk");
    let runs = server.runs();
    assert_eq!(runs.len(), TRIALS as usize);
    for trial in 0..TRIALS {
        let run = run_of(&runs, trial);
        let expected = printed(&cluster, trial);
        assert!(expected.len() > 100, "{} values", expected.len());
        assert_eq!(told(run), expected, "trial {trial}\n{}", cluster.logs());
        assert_eq!(run.experiment, "elsewhere");
        assert_eq!(run.tags["spotsweep.state"], "completed");
        assert_eq!(run.tags.get("spotsweep.artifacts"), None, "all are there");
        let specification: serde_json::Value = serde_json::from_slice(&run.artifacts["sweep.json"]).unwrap();
        assert_eq!(specification["name"], "sunk");
        let weights = cluster.path(&format!("weights-{trial}"));
        let file = weights.to_str().unwrap();
        cluster.ask(&["checkpoint", "get", &format!("sunk/{trial}"), "--which", "final", "-o", file]);
        assert!(run.artifacts["weights.safetensors"] == std::fs::read(&weights).unwrap());
        assert!(run.params.contains_key("learning_rate") && run.params.contains_key("momentum"));
        wait::until("the file has its end", || {
            let exported = only_file(&to.join(trial.to_string())).expect("an export");
            (only_file(&folder.join(trial.to_string())) == Some(exported)).then_some(())
        });
    }
    // What is delivered is asked no more, and stays as it is.
    let before = server.values();
    cluster.kill_coordinator();
    std::fs::remove_dir_all(cluster.dir().join("sink-cursors")).unwrap();
    cluster.start_coordinator();
    wait::until("the cursors are made anew", || {
        let cursors = ["0-0.json", "0-1.json"].map(|name| cluster.dir().join("sink-cursors").join(name));
        let whole = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("[[0,3]]"))
        };
        cursors.iter().all(whole).then_some(())
    });
    assert_eq!(server.values(), before, "nothing is told twice, with no cursor either");
}

#[test]
fn a_sink_that_fails_is_said_and_holds_nothing_up() {
    let server = FakeMlflow::start(false);
    server.set_down(true);
    let cluster = Cluster::start(1, Trainer::Stub, &[]);
    let url = server.url();
    cluster.submit(&sweep(&format!("{{to: mlflow, url: \"{url}\"}}")));
    let words = wait::until("the failure is said", || {
        let text = cluster.ask(&["explain", "sunk"]);
        text.contains("sink").then_some(text)
    });
    assert!(
        words.contains(&format!("the sink mlflow {url} fails")) && words.contains("not today"),
        "{words}"
    );
    let listed = cluster.command(&["ls"]).output().unwrap();
    let warned = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(warned.contains("sunk: the sink mlflow"), "{warned}");
    wait::until("the sweep is done all the same", || {
        let row = json_lines(&cluster.ask(&["ls", "--format", "json"])).swap_remove(0);
        (row["state"] == "completed").then_some(())
    });
    server.set_down(false);
    delivered(&server);
    wait::until("the failure is over", || {
        let row = json_lines(&cluster.ask(&["ls", "--format", "json"])).swap_remove(0);
        row["sink_problems"].is_null().then_some(())
    });
    let runs = server.runs();
    for trial in 0..TRIALS {
        assert_eq!(told(run_of(&runs, trial)), printed(&cluster, trial));
    }
}
