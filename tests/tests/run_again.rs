//! `spotsweep run` may be killed at any moment: the same command again goes on where it was.

use spotsweep_tests::{binaries, outcome::json_lines, wait};
use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const SWEEP: &str = "
name: again
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.03, 0.1]}
train: {model: softmax, data: fashion-mnist, steps: 300, seed: 3}
checkpoint: {every_steps: 20, keep_last: 2}
";

fn run(folder: &Path, pace_us: &str) -> Command {
    let file = folder.join("sweep.yaml");
    std::fs::write(&file, SWEEP).expect("the temporary folder is writable");
    let mut command = Command::new(binaries::spotsweep());
    command.arg("run").arg(file).args(["--workers", "2", "--dir"]).arg(folder.join("dir"));
    // The toy trainer reads no data, but `run` wants the data set to be there.
    command.env("SPOTSWEEP_TRAINER", binaries::stub_trainer()).env("SPOTSWEEP_STUB_STEP_US", pace_us);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn offline(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries::spotsweep());
    command.args(arguments).arg("--dir").arg(folder.join("dir")).output().expect("spotsweep runs")
}

/// Number, state, steps and digest of every trial.
fn essence(folder: &Path) -> Vec<String> {
    let output = offline(folder, &["results", "again", "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = json_lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    let mut essence: Vec<_> = rows
        .iter()
        .map(|row| format!("{} {} {} {}", row["number"], row["state"], row["steps"], row["weights_digest"]))
        .collect();
    essence.sort();
    essence
}

/// Whether some trial has a checkpoint already: then there is something to lose.
fn has_objects(folder: &Path) -> bool {
    std::fs::read_dir(folder.join("dir/objects")).is_ok_and(|mut entries| entries.next().is_some())
}

fn started(folder: &Path) -> Child {
    let child = run(folder, "4000").spawn().expect("spotsweep runs");
    wait::until("the first checkpoint is stored", || has_objects(folder).then_some(()));
    child
}

#[test]
fn a_killed_run_goes_on_with_the_same_command_and_ends_with_the_same_bits() {
    let calm = tempfile::tempdir().expect("a temporary folder");
    let output = run(calm.path(), "0").output().expect("spotsweep runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = essence(calm.path());
    assert_eq!(expected.len(), 3);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = started(folder.path());
    child.kill().expect("it runs");
    child.wait().expect("a child");
    let output = run(folder.path(), "0").output().expect("spotsweep runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(essence(folder.path()), expected, "{stderr}");
}

#[test]
fn an_interrupted_run_says_how_to_go_on_and_its_exit_status_is_130() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let child = started(folder.path());
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let output = child.wait_with_output().expect("a child");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("same command"), "{stderr}");
    let again = run(folder.path(), "0").output().expect("spotsweep runs");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}
