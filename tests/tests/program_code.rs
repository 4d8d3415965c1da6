//! Programs whose code travels, through a real coordinator: a worker has nothing of them but what it was given.

use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder with these files in the cluster's own.
fn folder(cluster: &Cluster, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let folder = cluster.path(name);
    for (file, content) in files {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("the folder is writable");
        fs::write(path, content).expect("the folder is writable");
    }
    folder
}

fn programs(agents: usize) -> Cluster {
    Cluster::start(agents, Trainer::Program("none".into()), &[])
}

/// The program says what it finds: its data, and whether it sees what should have stayed at home.
const FINDS: &str = r#"
say() { echo "$1" > "$SPOTSWEEP_TO_AGENT"; }
secret=0; [ ! -e secret.txt ] && [ ! -e cache ] || secret=1
say '{"type":"report","step":1,"metrics":{"number":'$(cat data/number)',"secret":'$secret'}}'
say '{"type":"done","step":1}'
"#;

#[test]
fn code_travels_without_what_gitignore_names_and_each_sweep_runs_what_it_was_submitted_with() {
    let cluster = programs(2);
    let code = folder(
        &cluster,
        "code",
        &[
            ("main.sh", FINDS.as_bytes()),
            ("data/number", b"7"),
            (".gitignore", b"secret.txt\ncache/\n"),
            ("secret.txt", b"do not tell"),
            ("cache/large", b"0"),
        ],
    );
    let sweep = |name: &str| {
        format!(
            "name: {name}\nprogram: main.sh\ncode: ./code\nmethod: grid\ncommand: [sh, '${{program}}']\n\
             metric: {{name: number}}\nparameters: {{x: {{values: [1, 2, 3, 4]}}}}\n"
        )
    };
    let first = cluster.submit(&sweep("first"));
    // What is submitted later is other code: the first sweep's is not.
    fs::write(code.join("data/number"), "8").expect("the folder is writable");
    let second = cluster.submit(&sweep("second"));
    fs::remove_dir_all(&code).expect("it is there");
    for (name, number) in [(first, 7.0), (second, 8.0)] {
        let outcome = Outcome::wait(&cluster, &name);
        assert_eq!(outcome.trials.len(), 4);
        for row in json_lines(&cluster.ask(&["results", &name, "--format", "json"])) {
            assert_eq!(row["state"], "completed", "{row}\n{}", cluster.logs());
            assert_eq!(
                (row["metrics"]["number"].as_f64(), row["metrics"]["secret"].as_f64()),
                (Some(number), Some(0.0))
            );
        }
    }
}

/// As for `wandb agent`, which starts the script from where it is.
#[test]
fn a_sweep_file_that_names_a_script_beside_it_and_no_code_runs_as_it_is() {
    let cluster = programs(2);
    let file = "program: main.sh\nmethod: grid\nmetric: {name: number, goal: maximize}\n\
                command:\n  - ${env}\n  - sh\n  - ${program}\n  - ${args_no_hyphens}\n\
                parameters:\n  x: {values: [1, 2]}\n";
    let files: [(&str, &[u8]); 3] =
        [("main.sh", FINDS.as_bytes()), ("data/number", b"7"), ("sweep.yaml", file.as_bytes())];
    let project = folder(&cluster, "project", &files);
    let path = project.join("sweep.yaml");
    let sweep = cluster.ask(&["submit", path.to_str().expect("UTF-8")]);
    fs::remove_dir_all(&project).expect("it is there");
    let outcome = Outcome::wait(&cluster, sweep.trim());
    assert_eq!(outcome.trials.len(), 2);
    for trial in &outcome.trials {
        assert_eq!(
            (&*trial.state, trial.metrics["number"].as_f64()),
            ("completed", Some(7.0)),
            "{}",
            cluster.logs()
        );
    }
}

/// The file with a suffix below a folder.
fn event_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.find(|path| path.to_string_lossy().contains("tfevents")).expect("an event file")
}

#[test]
fn metrics_are_read_from_event_files_that_a_program_writes() {
    // What is written comes from an export: a program that logs as TensorBoard does.
    let source = Cluster::start(1, Trainer::Stub, &[]);
    let name = source.submit(
        "name: source\nmethod: grid\nparameters: {learning_rate: {values: [0.1]}}\n\
         train: {model: softmax, data: fashion-mnist, steps: 200, seed: 1}\n",
    );
    Outcome::wait(&source, &name);
    let to = source.path("export");
    source.ask(&["export", &name, "--as", "tensorboard", "--to", to.to_str().expect("UTF-8")]);
    let events = fs::read(event_file(&to.join("0"))).expect("the export");
    let curve = json_lines(&source.ask(&["metrics", "source/0", "--format", "json"]));

    let cluster = programs(1);
    folder(&cluster, "code", &[("events.bin", &events)]);
    let name = cluster.submit(
        "name: read\nprogram: events.bin\ncode: ./code\nmethod: grid\n\
         command: [sh, -c, 'mkdir runs && cp events.bin runs/events.out.tfevents.1.host']\n\
         metric: {name: val_loss}\nmetrics: {from: tensorboard, dir: runs}\nparameters: {x: {values: [1]}}\n",
    );
    let outcome = Outcome::wait(&cluster, &name);
    assert_eq!(outcome.trials[0].state, "completed", "{}", cluster.logs());
    let read = json_lines(&cluster.ask(&["metrics", "read/0", "--format", "json"]));
    let losses = |points: &[serde_json::Value], name: &str| -> Vec<(u64, f32)> {
        let value = |point: &serde_json::Value| Some((point["step"].as_u64()?, point[name].as_f64()? as f32));
        points.iter().filter_map(value).collect()
    };
    let expected = losses(&curve, "val_loss");
    assert!(expected.len() > 3, "{curve:?}");
    assert_eq!(losses(&read, "val_loss"), expected, "{read:?}");
}

/// Far beyond any buffer on the way. Ten gigabytes: docs/benchmarks.md.
#[test]
fn a_program_that_prints_far_beyond_any_buffer_ends_well_and_its_reports_arrive() {
    let cluster = programs(1);
    let name = cluster.submit(
        "name: loud\nmethod: grid\nmetric: {name: loss}\n\
         command: [sh, -c, 'head -c 300000000 /dev/zero; echo \"{\\\"type\\\":\\\"report\\\",\\\"step\\\":1,\\\"metrics\\\":{\\\"loss\\\":0.5}}\" > $SPOTSWEEP_TO_AGENT']\n\
         parameters: {x: {values: [1]}}\n",
    );
    let outcome = Outcome::wait(&cluster, &name);
    assert_eq!(
        (outcome.trials[0].state.as_str(), outcome.trials[0].curve.len()),
        ("completed", 1),
        "{}",
        cluster.logs()
    );
}
