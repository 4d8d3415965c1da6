//! An attempt never resumes from a damaged checkpoint: it goes on from the one before, and says so.

use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines, wait};
use std::path::{Path, PathBuf};

const SWEEP: &str = "
name: damaged
method: grid
metric: {name: val_loss, goal: minimize}
parameters: {learning_rate: {value: 0.03}}
train: {model: softmax, data: fashion-mnist, steps: 400, seed: 3}
checkpoint: {every_steps: 50, keep_last: 3}
retry: {max_failures: 1, backoff_s: 60}
";

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found
}

/// Steps and manifests of the checkpoints that are kept, by ascending step.
fn checkpoints(cluster: &Cluster) -> Vec<(u64, String)> {
    let rows = json_lines(&cluster.ask(&["checkpoint", "ls", "damaged/0", "--format", "json"]));
    let row = |row: &serde_json::Value| {
        (row["step"].as_u64().expect("step"), row["manifest"].as_str().expect("manifest").to_owned())
    };
    let mut found: Vec<_> = rows.iter().map(row).collect();
    found.sort();
    found
}

#[test]
fn an_attempt_falls_back_to_the_checkpoint_before_a_damaged_one_and_says_so() {
    let calm = Cluster::start(1, Trainer::Stub, &[]);
    let sweep = calm.submit(SWEEP);
    let expected = Outcome::wait(&calm, &sweep);
    drop(calm);

    let mut cluster = Cluster::start(1, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "3000")]);
    let sweep = cluster.submit(SWEEP);
    wait::until("two checkpoints are kept", || (checkpoints(&cluster).len() >= 2).then_some(()));
    cluster.kill_agent(0);
    let kept = checkpoints(&cluster);
    let (newest, before) = (&kept[kept.len() - 1], &kept[kept.len() - 2]);
    let manifest = files_below(&cluster.dir().join("objects"))
        .into_iter()
        .find(|path| path.to_string_lossy().replace('/', "").ends_with(&newest.1))
        .expect("the manifest's object");
    let mut content = std::fs::read(&manifest).expect("an object");
    content[0] ^= 1;
    std::fs::write(&manifest, content).expect("the folder is writable");

    cluster.start_agent(0);
    let outcome = Outcome::wait(&cluster, &sweep);
    assert_eq!(outcome, expected, "{}", cluster.logs());
    let explained = cluster.ask(&["explain", "damaged/0"]);
    assert!(explained.contains(&format!("goes on from the checkpoint of step {}", before.0)), "{explained}");
}
