//! A disk that is full, under real processes: nothing is answered that is not durable, every no has its reason, and
//! everything goes on by itself once there is room.

use serde_json::Value;
use spotsweep_tests::{Cluster, Outcome, SmallDisk, Trainer, outcome::json_lines, wait};
use std::{path::Path, sync::OnceLock};

const SWEEP: &str = "
name: full
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]}
train: {model: softmax, data: fashion-mnist, steps: 200, seed: 3}
checkpoint: {every_steps: 20, keep_last: 1}
retry: {max_failures: 1000, backoff_s: 0.1}
";

/// A step of the toy trainer takes this long, so that the disk fills up while it trains.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "3000");

/// Room for a while of work.
const DISK_BYTES: u64 = 16 << 20;

/// Exit status of what may be tried again as it is.
const TRY_AGAIN: i32 = 5;

/// False, and a word about it, where the system lets nobody mount.
fn mounts_are_allowed() -> bool {
    match SmallDisk::allow() {
        Ok(()) => true,
        Err(error) => {
            eprintln!(
                "skipped: a test needs a disk of its own, and mounting one is not allowed here: {error}"
            );
            false
        }
    }
}

fn rows(cluster: &Cluster, sweep: &str) -> Vec<Value> {
    json_lines(&cluster.ask(&["results", sweep, "--format", "json"]))
}

/// What the sweep ends with where nothing happens.
fn calm() -> &'static Outcome {
    static CALM: OnceLock<Outcome> = OnceLock::new();
    CALM.get_or_init(|| Outcome::undisturbed(SWEEP))
}

/// A command that must fail as the journal cannot be written; gives what it says.
fn refused(cluster: &Cluster, arguments: &[&str]) -> Option<String> {
    let output = cluster.command(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code() == Some(TRY_AGAIN)).then(|| {
        assert!(output.stdout.is_empty(), "{arguments:?} answers nothing: {output:?}");
        text
    })
}

/// A sweep at work on a coordinator whose whole folder lies on a small disk, with the rows of what is completed.
fn at_work_on_a_small_disk() -> (Cluster, SmallDisk, String, Vec<Value>) {
    let mut disk = None;
    let small = |dir: &Path| disk = Some(SmallDisk::over(dir, DISK_BYTES).unwrap());
    let cluster = Cluster::start_after(small, 2, Trainer::Stub, &[STEP]);
    let sweep = cluster.submit(SWEEP);
    let answered = wait::until("a trial is completed", || {
        let rows = rows(&cluster, &sweep).into_iter().filter(|row| row["state"] == "completed");
        let completed: Vec<Value> = rows.collect();
        (!completed.is_empty()).then_some(completed)
    });
    (cluster, disk.unwrap(), sweep, answered)
}

/// What was answered before still stands.
fn stand(answered: &[Value], cluster: &Cluster, sweep: &str) {
    let after = rows(cluster, sweep);
    for row in answered {
        assert_eq!(after.iter().find(|now| now["number"] == row["number"]), Some(row));
    }
}

#[test]
fn a_coordinator_on_a_full_disk_answers_nothing_and_goes_on_by_itself_once_there_is_room() {
    if !mounts_are_allowed() {
        return;
    }
    let expected = calm();
    let (mut cluster, disk, sweep, answered) = at_work_on_a_small_disk();
    let pid = cluster.coordinator_pid().unwrap();
    disk.fill();
    let said = wait::until("the coordinator says that its disk is full", || refused(&cluster, &["ls"]));
    assert!(said.contains("cannot write its journal just now"), "{said}");
    assert!(
        said.contains("disk is full") && said.contains("hint: nothing that was answered is lost"),
        "{said}"
    );
    let file = cluster.path("second.yaml");
    std::fs::write(&file, SWEEP.replace("name: full", "name: second")).unwrap();
    let file = file.to_str().unwrap().to_owned();
    for command in
        [&["submit", file.as_str()][..], &["results", &sweep], &["cancel", &sweep], &["pause", &sweep]]
    {
        let said = refused(&cluster, command).unwrap_or_else(|| panic!("{command:?} is refused"));
        assert!(said.contains("Make room on its disk"), "{command:?}: {said}");
    }

    disk.make_room();
    let outcome = wait::until("the coordinator answers again", || {
        cluster.command(&["ls"]).output().unwrap().status.success().then(|| Outcome::wait(&cluster, &sweep))
    });
    assert_eq!(cluster.coordinator_pid(), Some(pid), "the same process");
    assert_eq!(&outcome, expected, "nothing lost, nothing doubled\n{}", cluster.logs());
    stand(&answered, &cluster, &sweep);
    let sweeps = json_lines(&cluster.ask(&["ls", "--format", "json"]));
    assert_eq!(sweeps.len(), 1, "what was refused was not done: {sweeps:?}");
    assert_eq!(cluster.submit(&SWEEP.replace("name: full", "name: second")), "second");
}

#[test]
fn a_coordinator_killed_on_a_full_disk_has_everything_that_it_answered() {
    if !mounts_are_allowed() {
        return;
    }
    let expected = calm();
    let (mut cluster, disk, sweep, answered) = at_work_on_a_small_disk();
    disk.fill();
    wait::until("the coordinator says that its disk is full", || refused(&cluster, &["ls"]));
    cluster.kill_coordinator();
    disk.make_room();
    cluster.start_coordinator();
    let outcome = Outcome::wait(&cluster, &sweep);
    assert_eq!(&outcome, expected, "{}", cluster.logs());
    stand(&answered, &cluster, &sweep);
}

#[test]
fn a_full_object_store_costs_attempts_with_a_reason_and_no_trial() {
    if !mounts_are_allowed() {
        return;
    }
    let expected = calm();
    let mut disk = None;
    let small = |dir: &Path| {
        let objects = dir.join("objects");
        std::fs::create_dir(&objects).unwrap();
        disk = Some(SmallDisk::over(&objects, DISK_BYTES).unwrap());
    };
    let cluster = Cluster::start_after(small, 2, Trainer::Stub, &[]);
    let disk = disk.unwrap();
    disk.fill();
    let sweep = cluster.submit(SWEEP);
    let failed = wait::until("an attempt fails", || {
        rows(&cluster, &sweep).into_iter().find(|row| row["failures"].as_u64() > Some(0))
    });
    let trial = failed["trial"].as_str().unwrap();
    let explained = cluster.ask(&["explain", trial]);
    for words in ["storage", "could not be stored", "No space left on device"] {
        assert!(explained.contains(words), "{words:?} is in:\n{explained}");
    }
    // The attempt went on to its end without a checkpoint, and all of its points are there.
    assert!(explained.contains("the checkpoint of step 200"), "{explained}");
    let number = usize::try_from(failed["number"].as_u64().unwrap()).unwrap();
    let points = json_lines(&cluster.ask(&["metrics", trial, "--format", "json"]));
    assert_eq!(points.len(), expected.trials[number].curve.len());
    assert!(
        rows(&cluster, &sweep).iter().all(|row| row["state"] != "completed"),
        "none is done without its weights"
    );

    disk.make_room();
    assert_eq!(
        &Outcome::wait(&cluster, &sweep),
        expected,
        "nothing lost, nothing doubled\n{}",
        cluster.logs()
    );
}
