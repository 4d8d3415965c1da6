//! Added data of a gang: each worker fetches the pieces of the shards that it carries, gets others when the make-up changes,
//! and the bits stay the same; a piece that cannot be had is named.

use serde_json::Value;
use spotsweep_tests::{Cluster, Outcome, Trainer, binaries, outcome::json_lines, wait};
use std::{fs, path::PathBuf};

/// Fashion-MNIST has three pieces to train on, of which two workers of a gang need two each, and one to test on.
const PIECES: usize = 4;

fn sweep(name: &str, steps: u32, workers: &str) -> String {
    format!(
        "
name: {name}
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  model: {{value: softmax}}
  batch_size: {{value: 64}}
  report_every_steps: {{value: 50}}
train: {{data: clothes, steps: {steps}, seed: 3, shards: 8}}
resources: {{device: cpu, workers: {workers}}}
checkpoint: {{every_steps: 1000000, keep_last: 1}}
retry: {{max_failures: 1, backoff_s: 0.05}}
"
    )
}

/// A coordinator that knows `clothes`, and as many agents, each with a cache of its own.
fn start(trainer: Trainer, agents: usize) -> Cluster {
    let mut cluster = Cluster::start(0, trainer, &[("SPOTSWEEP_STUB_STEP_US", "2000")]);
    let folder = cluster.ask(&["data", "path", "fashion-mnist"]);
    cluster.ask(&["data", "add", "clothes", folder.trim()]);
    for index in 0..agents {
        let folder = cluster.path(&format!("data-{index}"));
        cluster.add_agent(&["--data-dir", folder.to_str().expect("UTF-8")], &[]);
    }
    wait::until("all agents are there", || {
        let workers = json_lines(&cluster.ask(&["workers", "--format", "json"]));
        (workers.len() == agents).then_some(())
    });
    cluster
}

/// Pieces in the cache of an agent.
fn cached(cluster: &Cluster, agent: usize) -> usize {
    let folder = cluster.path(&format!("data-{agent}")).join("cache/pieces");
    fs::read_dir(folder).map_or(0, |entries| entries.flatten().count())
}

/// Where the pieces of `clothes` lie in the object store, in order.
fn stored(cluster: &Cluster) -> Vec<PathBuf> {
    let object = |digest: &str| cluster.data_store().join(&digest[..2]).join(&digest[2..]);
    let shown = json_lines(&cluster.ask(&["data", "show", "clothes", "--format", "json"])).remove(0);
    let digest = shown["digest"].as_str().expect("a digest").replace("blake3:", "");
    let manifest = fs::read(object(&digest)).expect("the manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let pieces = manifest["pieces"].as_array().expect("pieces");
    pieces.iter().map(|piece| object(piece["digest"].as_str().expect("a digest"))).collect()
}

#[test]
fn each_worker_fetches_its_part_and_the_one_that_is_left_fetches_the_rest_and_changes_no_bit() {
    let steps = 1500;
    let trainer = || Trainer::Program(binaries::libtorch_trainer());
    let alone = start(trainer(), 1);
    assert_eq!(stored(&alone).len(), PIECES);
    let expected = Outcome::wait(&alone, &alone.submit(&sweep("clothes", steps, "{min: 1, max: 1}")));
    assert!(expected.trials[0].weights_digest.is_string(), "{}", alone.logs());
    drop(alone);

    let mut cluster = start(trainer(), 2);
    let name = cluster.submit(&sweep("clothes", steps, "{min: 1, max: 2}"));
    wait::until("both train", || {
        let points = cluster.ask(&["metrics", &format!("{name}/0"), "--format", "json"]);
        let together = cluster.ask(&["explain", &format!("{name}/0")]).contains("agent-0, agent-1")
            || cluster.ask(&["explain", &format!("{name}/0")]).contains("agent-1, agent-0");
        (together && points.lines().count() > 0).then_some(())
    });
    assert_eq!([cached(&cluster, 0), cached(&cluster, 1)], [PIECES - 1; 2], "{}", cluster.logs());
    cluster.kill_agent(1);
    wait::until("the other one has the rest", || (cached(&cluster, 0) == PIECES).then_some(()));
    assert_eq!(Outcome::wait(&cluster, &name), expected, "{}", cluster.logs());
    let rows = json_lines(&cluster.ask(&["results", &name, "--format", "json"]));
    assert_eq!(rows[0]["attempts"], 1, "it went on from memory: {}", cluster.logs());
    assert_eq!(cached(&cluster, 1), PIECES - 1, "and only one of them has all");
}

#[test]
fn a_piece_that_a_changed_make_up_needs_and_that_is_altered_in_the_store_is_named() {
    let mut cluster = start(Trainer::Stub, 2);
    let name = cluster.submit(&sweep("altered", 200_000, "{min: 1, max: 2}"));
    wait::until("each has its part", || {
        ([cached(&cluster, 0), cached(&cluster, 1)] == [PIECES - 1; 2]).then_some(())
    });
    // What only one of them has.
    for place in [0, 2] {
        let path = &stored(&cluster)[place];
        let mut content = fs::read(path).expect("the piece");
        *content.last_mut().expect("bytes") ^= 1;
        fs::write(path, content).expect("the store is writable");
    }
    cluster.kill_agent(1);
    let outcome = Outcome::wait(&cluster, &name);
    assert_eq!(outcome.trials[0].state, "failed", "{}", cluster.logs());
    let explained = cluster.ask(&["explain", &format!("{name}/0")]);
    let named = ["piece 0 of the data set (training", "piece 2 of the data set (training"];
    assert!(named.iter().any(|piece| explained.contains(piece)), "{explained}");
}
