//! Data that a user has added: from `data add` over a sweep file to the agents' cache, with real processes.

use serde_json::Value;
use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

/// Samples of the made-up data set.
const SAMPLES: u32 = 400;

fn sweep(data: &str) -> String {
    format!(
        "
name: added
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  learning_rate: {{values: [0.01, 0.03]}}
  batch_size: {{value: 16}}
train: {{model: softmax, data: {data}, steps: 40, seed: 3}}
retry: {{max_failures: 2, backoff_s: 0.05}}
"
    )
}

fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

/// Writes a small data set in MNIST's format.
fn make(folder: &Path, shade: u8) {
    fs::create_dir_all(folder).expect("a temporary folder");
    let pixels: Vec<u8> = (0..SAMPLES * 16).map(|i| (i % 251) as u8 ^ shade).collect();
    let labels: Vec<u8> = (0..SAMPLES).map(|i| (i * 7 % 10) as u8).collect();
    let images = idx(&[SAMPLES, 4, 4], &pixels);
    fs::write(folder.join("train-images-idx3-ubyte"), images).expect("a temporary folder");
    fs::write(folder.join("train-labels-idx1-ubyte"), idx(&[SAMPLES], &labels)).expect("a temporary folder");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Adds a made-up data set; gives its digest as a sweep file names it.
fn add(cluster: &Cluster, name: &str, shade: u8, options: &[&str]) -> String {
    let folder = cluster.path(&format!("source-{shade}"));
    make(&folder, shade);
    let arguments = [&["data", "add", name, text(&folder)], options].concat();
    cluster.ask(&arguments).trim().to_owned()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Digests of the objects of a data set's pieces.
fn pieces(cluster: &Cluster, name: &str) -> Vec<String> {
    let digest = show(cluster, name)["digest"].as_str().expect("digest").replace("blake3:", "");
    let manifest = fs::read(object(cluster, &digest)).expect("the manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let pieces = manifest["pieces"].as_array().expect("pieces");
    pieces.iter().map(|piece| piece["digest"].as_str().expect("digest").to_owned()).collect()
}

fn show(cluster: &Cluster, name: &str) -> Value {
    json_lines(&cluster.ask(&["data", "show", name, "--format", "json"])).remove(0)
}

fn object(cluster: &Cluster, digest: &str) -> PathBuf {
    cluster.data_store().join(&digest[..2]).join(&digest[2..])
}

/// Starts an agent with its data in `folder`.
fn agent(cluster: &mut Cluster, folder: &str, arguments: &[&str]) {
    let folder = cluster.path(folder);
    cluster.add_agent(&[&["--data-dir", text(&folder)], arguments].concat(), &[]);
}

fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = cluster.command(arguments).output().expect("spotsweep runs");
    assert!(!status.success(), "{arguments:?}");
    String::from_utf8(stderr).expect("UTF-8")
}

#[test]
fn added_data_comes_to_agents_that_share_a_cache_and_a_name_that_moves_on_changes_nothing() {
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    let first = add(&cluster, "mine", 1, &[]);
    let old_pieces = pieces(&cluster, "mine");
    let name = cluster.submit(&sweep("mine"));
    let second = add(&cluster, "mine", 2, &["--replace"]);
    assert_ne!(first, second);
    for _ in 0..2 {
        agent(&mut cluster, "data", &[]);
    }
    let outcome = Outcome::wait(&cluster, &name);
    assert!(outcome.trials.iter().all(|trial| trial.state == "completed"), "{}", cluster.logs());
    let shown: Value =
        serde_json::from_str(&cluster.ask(&["show", &name, "--format", "json"])).expect("JSON");
    assert_eq!(shown["spec"]["train"]["data"], format!("mine@{first}"));
    let mut cached: Vec<String> = files_below(&cluster.path("data/cache/pieces"))
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    cached.sort();
    let mut expected = old_pieces;
    expected.sort();
    assert_eq!(cached, expected, "the pieces of the first content, each once");
    // By digest it is found without its name.
    let by_digest = cluster.submit(&sweep(&first).replace("name: added", "name: digest"));
    assert_eq!(Outcome::wait(&cluster, &by_digest).trials.len(), 2);
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_one() {
    let cluster = Cluster::start(0, Trainer::Stub, &[]);
    add(&cluster, "flowers", 1, &[]);
    let path = cluster.path("wrong.yaml");
    for (data, hint) in
        [("flwers", "did you mean flowers?"), (&format!("blake3:{}", "0".repeat(64)), "data ls")]
    {
        fs::write(&path, sweep(data)).expect("a temporary folder");
        for command in ["check", "submit"] {
            let message = refused(&cluster, &[command, text(&path)]);
            assert!(
                message.contains("there is no data set") && message.contains(hint),
                "{command}: {message}"
            );
        }
    }
    let message = refused(&cluster, &["data", "show", "flovers"]);
    assert!(message.contains("did you mean flowers?"), "{message}");
    for name in ["../x", "a/b", "mnist", "a@b"] {
        refused(&cluster, &["data", "add", name, text(&cluster.path("source-1"))]);
    }
}

#[test]
fn a_piece_altered_in_the_store_fails_the_trial_and_is_named() {
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    add(&cluster, "mine", 1, &[]);
    let piece = pieces(&cluster, "mine").remove(1);
    let path = object(&cluster, &piece);
    let mut content = fs::read(&path).expect("the piece");
    *content.last_mut().expect("bytes") ^= 1;
    fs::write(&path, content).expect("the store is writable");
    let message = refused(&cluster, &["data", "verify", "mine"]);
    assert!(message.contains("piece 1") && message.contains(&piece), "{message}");

    let name = cluster.submit(&sweep("mine"));
    agent(&mut cluster, "data", &[]);
    let outcome = Outcome::wait(&cluster, &name);
    assert!(outcome.trials.iter().all(|trial| trial.state == "failed"), "{}", cluster.logs());
    let explained = cluster.ask(&["explain", &format!("{name}/0")]);
    assert!(explained.contains("piece 1 of the data set (test samples 0 to 39"), "{explained}");
    assert!(explained.contains(&piece), "{explained}");
    // Adding it again mends it.
    add(&cluster, "mine", 1, &[]);
    cluster.ask(&["data", "verify", "mine"]);
    let name = cluster.submit(&sweep("mine").replace("name: added", "name: mended"));
    assert!(Outcome::wait(&cluster, &name).trials.iter().all(|trial| trial.state == "completed"));
}

#[test]
fn a_cache_that_is_too_small_says_so() {
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    add(&cluster, "mine", 1, &[]);
    let name = cluster.submit(&sweep("mine"));
    agent(&mut cluster, "data", &["--data-cache-bytes", "100"]);
    let outcome = Outcome::wait(&cluster, &name);
    assert!(outcome.trials.iter().all(|trial| trial.state == "failed"), "{}", cluster.logs());
    let explained = cluster.ask(&["explain", &format!("{name}/0")]);
    assert!(explained.contains("the cache of data is full"), "{explained}");
    assert!(files_below(&cluster.path("data/cache/pieces")).is_empty());
}

#[test]
fn a_data_set_is_listed_removed_and_purged() {
    let cluster = Cluster::start(0, Trainer::Stub, &[]);
    let digest = add(&cluster, "mine", 1, &[]);
    let names = |cluster: &Cluster| -> Vec<Value> {
        let rows = json_lines(&cluster.ask(&["data", "list", "--format", "json"]));
        rows.into_iter().filter(|row| row["state"] == "stored").collect()
    };
    assert_eq!((names(&cluster).len(), &names(&cluster)[0]["digest"]), (1, &Value::from(digest.as_str())));
    cluster.ask(&["data", "remove", "mine"]);
    assert!(names(&cluster).is_empty());
    cluster.ask(&["data", "verify", &digest]);
    add(&cluster, "mine", 1, &[]);
    cluster.ask(&["data", "remove", "mine", "--purge"]);
    assert!(files_below(&cluster.data_store()).is_empty(), "{:?}", files_below(&cluster.data_store()));
}
