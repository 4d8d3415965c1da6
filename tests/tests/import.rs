//! A finished sweep taken back from its export, with real processes: the same on another coordinator as where it ran, and
//! whole or not there, whoever dies on the way.

use futures::StreamExt as _;
use serde_json::Value;
use spotsweep_tests::{Cluster, Trainer, binaries, outcome::json_lines, wait};
use spotsweep_wire::v1::{ImportBegin, ImportRequest, StatusRequest, control_client::ControlClient};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

const FILES: [&str; 3] = ["trials.jsonl", "attempts.jsonl", "points.jsonl"];
/// Trials of the sweep.
const TRIALS: usize = 6;
/// The description holds what terminals, pages and other programs would trip over.
const SWEEP: &str = "
name: travels
description: \"=1+1 \\e[31m\\u202E<script>alert(1)</script>\"
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.03, 0.1]}
  momentum: {values: [0.0, 0.9]}
train: {model: softmax, data: fashion-mnist, steps: 400, seed: 3}
checkpoint: {every_steps: 50, keep_last: 1}
";

/// A sweep that was interrupted and cancelled in part, and its export.
fn exported() -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(2, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "1000")]);
    assert_eq!(cluster.submit(SWEEP), "travels");
    cluster.ask(&["cancel", "travels/5"]);
    wait::until("both agents train", || {
        let rows = json_lines(&cluster.ask(&["results", "travels", "--format", "json"]));
        (rows.iter().filter(|row| row["state"] == "running").count() == 2).then_some(())
    });
    assert!(wait::until("a trainer is killed", || cluster.kill_trainer(0).then_some(true)));
    cluster.kill_agent(1);
    cluster.start_agent(1);
    ended(&cluster);
    let to = cluster.path("export");
    cluster.ask(&["export", "travels", "--as", "json", "--to", text(&to)]);
    (cluster, to)
}

fn ended(cluster: &Cluster) {
    wait::until("the sweep has ended", || {
        let row = json_lines(&cluster.ask(&["ls", "--format", "json"])).swap_remove(0);
        (row["state"] == "completed").then_some(())
    });
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What stands in an export, without what its import adds.
fn content(export: &Path) -> (Vec<String>, Value) {
    let read = |name: &str| std::fs::read_to_string(export.join(name)).unwrap();
    let mut manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
    manifest["sweep"].as_object_mut().unwrap().remove("imported");
    manifest.as_object_mut().unwrap().remove("blake3");
    (FILES.map(read).to_vec(), manifest)
}

/// What commands print of the sweep, without what its import adds.
fn printed(cluster: &Cluster) -> Vec<String> {
    let mut texts = Vec::new();
    for command in [["ls", "--format"], ["show", "--format"]] {
        for mut row in json_lines(&cluster.ask(&[command[0], command[1], "json"])) {
            row.as_object_mut().unwrap().remove("imported_at");
            texts.push(row.to_string());
        }
    }
    texts.push(cluster.ask(&["results", "travels"]));
    texts.push(cluster.ask(&["results", "travels", "--format", "csv"]));
    for trial in 0..TRIALS {
        let name = format!("travels/{trial}");
        texts.push(cluster.ask(&["show", &name]));
        texts.push(cluster.ask(&["metrics", &name, "--format", "json"]));
    }
    // Machines are known where workers are.
    let report = cluster.ask(&["report", "travels", "--as", "md"]);
    texts.extend(report.lines().filter(|line| !line.contains("worker")).map(str::to_owned));
    texts
}

fn refused(output: &Output, status: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in {said}");
    }
}

#[test]
fn a_folder_on_which_no_coordinator_runs_takes_a_sweep_in_and_is_read_at_rest() {
    let (here, export) = exported();
    let folder = here.path("collected");
    let spotsweep = |arguments: &[&str]| {
        let mut command = Command::new(binaries::spotsweep());
        command.args(arguments).arg("--dir").arg(&folder).env_remove("SPOTSWEEP_COORDINATOR");
        command.output().unwrap()
    };
    let said = |output: Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // It is made, and then it holds one already.
    assert_eq!(said(spotsweep(&["import", text(&export)])), "travels\n");
    refused(&spotsweep(&["import", text(&export)]), 4, &["travels", "--name"]);
    assert_eq!(said(spotsweep(&["import", text(&export), "--name", "again"])), "again\n");
    let table = here.ask(&["results", "travels", "--format", "csv"]);
    for name in ["travels", "again"] {
        assert_eq!(said(spotsweep(&["results", name, "--format", "csv"])).replace("again", "travels"), table);
    }
    // Where a coordinator is at work on the folder, that one is asked.
    let there = Cluster::start(0, Trainer::Stub, &[]);
    let mut command = Command::new(binaries::spotsweep());
    command.args(["import", text(&export), "--dir", text(&there.dir())]);
    assert_eq!(said(command.output().unwrap()), "travels\n");
    assert_eq!(json_lines(&there.ask(&["ls", "--format", "json"])).len(), 1);
}

#[test]
fn a_sweep_that_comes_back_is_shown_and_exported_as_it_was() {
    let (mut here, export) = exported();
    let mut there = Cluster::start(0, Trainer::Stub, &[]);
    let told = there.ask(&["import", text(&export), "--format", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["sweep"], &told["trials"]), (&"travels".into(), &TRIALS.into()));
    assert_eq!(printed(&there), printed(&here));
    let (files, manifest) = content(&export);
    let attempts = files[1].lines().count();
    assert!(attempts > TRIALS - 1, "some trials were interrupted: {attempts} attempts");
    assert!(files[2].lines().count() > 100 && files[0].contains("\"cancelled\""));
    // Also after a death of the coordinator, from its journal, and from its snapshot and folder at rest.
    for round in 0..3 {
        let again = there.path(&format!("again-{round}"));
        there.ask(&["export", "travels", "--as", "json", "--to", text(&again)]);
        assert_eq!(content(&again), (files.clone(), manifest.clone()), "round {round}");
        there.kill_coordinator();
        there.start_coordinator();
    }
    let shown = there.ask(&["show", "travels"]);
    assert!(
        shown.contains("imported") && shown.contains("read-only") && !shown.contains('\u{202e}'),
        "{shown}"
    );

    // What is imported is asked for nothing more.
    there.add_agent(&[], &[]);
    for order in ["cancel", "resume", "pause"] {
        let output = there.command(&[order, "travels"]).output().unwrap();
        refused(&output, 4, &["read-only"]);
    }
    let output = there.command(&["checkpoint", "ls", "travels/0"]).output().unwrap();
    refused(&output, 3, &["checkpoints do not travel", "hint: "]);
    // It is there once.
    refused(
        &there.command(&["import", text(&export)]).output().unwrap(),
        4,
        &["travels", "hint: ", "--name"],
    );
    refused(&here.command(&["import", text(&export)]).output().unwrap(), 4, &["a sweep travels", "--name"]);
    assert_eq!(here.ask(&["import", text(&export), "--name", "back.home"]).trim(), "back.home");
    let (again, ours) = (here.path("again"), here.ask(&["results", "travels", "--format", "csv"]));
    here.ask(&["export", "back.home", "--as", "json", "--to", text(&again)]);
    assert_eq!(content(&again).0, files);
    assert_eq!(here.ask(&["results", "back.home", "--format", "csv"]).replace("back.home", "travels"), ours);
    here.kill_coordinator();
    here.start_coordinator();
    assert_eq!(json_lines(&here.ask(&["ls", "--format", "json"])).len(), 2);
}

#[test]
fn what_is_no_whole_export_of_a_finished_sweep_is_refused_in_words() {
    let (here, export) = exported();
    let import = |path: &Path| here.command(&["import", text(path), "--name", "new"]).output().unwrap();
    for (kind, word) in [
        ("csv", "as CSV"),
        ("parquet", "as Parquet"),
        ("tensorboard", "for TensorBoard"),
        ("mlflow", "for MLflow"),
    ] {
        let to = here.path(kind);
        here.ask(&["export", "travels", "--as", kind, "--to", text(&to)]);
        refused(&import(&to), 2, &[word, "--as json"]);
    }
    refused(&import(&here.path("nowhere")), 3, &["nowhere"]);
    refused(&import(&here.dir()), 2, &["the folder of a coordinator"]);
    refused(&import(&export.join("trials.jsonl")), 2, &["is no folder"]);
    // Edited, cut off, incomplete.
    let points = export.join("points.jsonl");
    let whole = std::fs::read_to_string(&points).unwrap();
    std::fs::write(&points, whole.replacen("\"at_us\":1", "\"at_us\":2", 1)).unwrap();
    refused(&import(&export), 7, &["points.jsonl", "BLAKE3"]);
    std::fs::write(&points, whole.replacen("\"trial\":", "\"trial\"::", 1)).unwrap();
    refused(&import(&export), 7, &["points.jsonl"]);
    std::fs::write(&points, &whole[..whole.len() / 2]).unwrap();
    refused(&import(&export), 7, &["points.jsonl has", "the manifest tells of"]);
    std::fs::remove_file(&points).unwrap();
    refused(&import(&export), 7, &["points.jsonl is missing"]);
    std::fs::write(&points, whole).unwrap();
    let output = here.command(&["import", text(&export), "--name", "../x"]).output().unwrap();
    refused(&output, 2, &["sweep name"]);
    assert_eq!(json_lines(&here.ask(&["ls", "--format", "json"])).len(), 1, "nothing of all that is there");
    // A sweep that goes on.
    let waits = here.submit(&SWEEP.replace("travels", "waits"));
    here.ask(&["pause", &waits]);
    let to = here.path("waiting");
    here.ask(&["export", &waits, "--as", "json", "--to", text(&to)]);
    refused(&import(&to), 2, &["was paused when it was exported", "once it has ended"]);
}

/// An import whose end is held back: all of the export but its last bytes has been handed in and is durable.
struct HeldBack {
    runtime: tokio::runtime::Runtime,
    messages: mpsc::UnboundedSender<ImportRequest>,
    answer:
        tokio::task::JoinHandle<Result<tonic::Response<spotsweep_wire::v1::ImportResponse>, tonic::Status>>,
}

impl HeldBack {
    fn of(cluster: &Cluster, export: &Path) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = runtime.block_on(ControlClient::connect(cluster.url())).unwrap();
        let seq = || {
            let mut client = client.clone();
            let status = runtime.block_on(async move { client.status(StatusRequest {}).await });
            status.unwrap().into_inner().journal_seq
        };
        let before = seq();
        let (messages, receiver) = mpsc::unbounded_channel();
        let manifest = std::fs::read(export.join("manifest.json")).unwrap();
        let begin = ImportBegin { manifest: manifest.into(), name: None, token: vec![7; 16].into() };
        messages.send(ImportRequest { begin: Some(begin), piece: Vec::new().into() }).unwrap();
        let bytes: Vec<u8> =
            FILES.iter().flat_map(|name| std::fs::read(export.join(name)).unwrap()).collect();
        for piece in bytes[..bytes.len() - 10].chunks(1 << 16) {
            messages.send(ImportRequest { begin: None, piece: piece.to_vec().into() }).unwrap();
        }
        let mut importer = client.clone();
        let answer = runtime
            .spawn(async move { importer.import(UnboundedReceiverStream::new(receiver).fuse()).await });
        // Its beginning, trials and attempts: a commit each. The points are one part at least, which is not whole.
        wait::until("the journal has what came", || (seq() >= before + 3).then_some(()));
        Self { runtime, messages, answer }
    }

    /// The client breaks off; gives what it is told.
    fn break_off(self) -> tonic::Status {
        let Self { runtime, messages, answer } = self;
        drop(messages);
        runtime.block_on(answer).unwrap().unwrap_err()
    }
}

fn nothing_is_there(cluster: &Cluster) {
    assert_eq!(cluster.ask(&["ls", "--format", "json"]), "");
    let output = cluster.command(&["show", "travels"]).output().unwrap();
    refused(&output, 3, &["there is no sweep travels"]);
}

#[test]
fn an_import_that_breaks_off_leaves_nothing_and_can_be_repeated() {
    let (_here, export) = exported();
    let mut there = Cluster::start(0, Trainer::Stub, &[]);
    let held_back = HeldBack::of(&there, &export);
    nothing_is_there(&there);
    let output = there.command(&["import", text(&export)]).output().unwrap();
    refused(&output, 4, &["is being imported just now"]);
    // Before the coordinator dies, another sweep comes, which keeps its name and place.
    let other = there.submit(&SWEEP.replace("name: travels", "name: other"));
    there.kill_coordinator();
    drop(held_back);
    there.start_coordinator();
    let rows = json_lines(&there.ask(&["ls", "--format", "json"]));
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["sweep"], &rows[0]["trials"]), (&other.as_str().into(), &TRIALS.into()));

    let told = HeldBack::of(&there, &export).break_off();
    assert!(told.message().contains("ends 10 bytes before its end"), "{told:?}");
    wait::until("the name is free again", || {
        let output = there.command(&["import", text(&export)]).output().unwrap();
        output.status.success().then_some(())
    });
    let again = there.path("again");
    there.ask(&["export", "travels", "--as", "json", "--to", text(&again)]);
    assert_eq!(content(&again), content(&export));
    // What the imports that broke off had written is not in the way of anything, now or after another death.
    there.kill_coordinator();
    there.start_coordinator();
    there.ask(&["export", "travels", "--as", "json", "--to", text(&again), "--force"]);
    assert_eq!(content(&again), content(&export));
}
