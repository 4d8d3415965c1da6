//! What attempts print, from real programs through real agents and coordinators to the people who ask: also of an attempt that
//! failed, of one whose machine is gone, and of one that prints without end.

use spotsweep_tests::{Cluster, Trainer, binaries, outcome::json_lines, wait};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

/// Of an attempt's output so much is kept, and a few lines besides (docs/command-line.md).
const KEPT: usize = (64 + 2 * 192 + 1) << 10;

fn none() -> Trainer {
    Trainer::Program("none".into())
}

/// A sweep of one trial that runs this script.
fn sweep(name: &str, script: &str) -> String {
    let script: String = script.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "name: {name}\nmethod: grid\nmetric: {{name: loss, goal: minimize}}\nparameters:\n  x: {{values: [1]}}\n\
         retry: {{max_failures: 3, backoff_s: 0}}\ncommand:\n  - sh\n  - -c\n  - |\n    say() {{ echo \"$1\" > \"$SPOTSWEEP_TO_AGENT\"; }}\n\
         {script}"
    )
}

fn state(cluster: &Cluster, trial: &str) -> String {
    let rows = json_lines(&cluster.ask(&["show", trial, "--format", "json"]));
    rows[0]["state"].as_str().expect("a state").to_owned()
}

fn log(cluster: &Cluster, trial: &str, attempt: &str) -> String {
    cluster.ask(&["logs", trial, "--attempt", attempt])
}

/// Waits until the log of an attempt holds these words; gives all of it.
fn log_with(cluster: &Cluster, trial: &str, attempt: &str, words: &str) -> String {
    wait::until(&format!("attempt {attempt} of {trial} has printed {words:?}"), || {
        let output =
            cluster.command(&["logs", trial, "--attempt", attempt]).output().expect("spotsweep runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.contains(words).then_some(text)
    })
}

/// The head and the body of what the coordinator's page answers.
fn get(cluster: &Cluster, path: &str) -> (String, String) {
    let address = cluster.page_url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).expect("the page is served");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("it listens");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn both_attempts_of_a_trial_that_failed_once_are_read_with_what_they_printed() {
    let mut cluster = Cluster::start(1, none(), &[]);
    let script = r#"
printf '\033[31mcolour\033[0m \033[2J\n'
if grep -q '"attempt":1,' "$SPOTSWEEP_JOB"; then
  echo "first words"; echo "to stderr" >&2; printf 'no end of line'; exit 3
fi
echo "second words"; say '{"type":"report","step":1,"metrics":{"loss":0.5}}'
"#;
    assert_eq!(cluster.submit(&sweep("flaky", script)), "flaky");
    let second = log_with(&cluster, "flaky/0", "2", "[spotsweep: finished at step 1]");
    let first = log(&cluster, "flaky/0", "1");
    let begins = |attempt: u32| {
        format!("[spotsweep: attempt {attempt} begins at step 0 on cpu]\ncolour \\u{{1b}}[2J\n")
    };
    assert!(first.starts_with(&begins(1)), "{first}");
    assert!(
        first.contains("first words\n") && first.contains("to stderr\n") && !first.contains("second"),
        "{first}"
    );
    assert!(first.contains("no end of line\n[spotsweep: failed at step 0: "), "{first}");
    assert_eq!(second, format!("{}second words\n[spotsweep: finished at step 1]\n", begins(2)));
    assert_eq!(cluster.ask(&["logs", "flaky/0"]), second, "the newest, unless another is asked for");
    assert_eq!(
        cluster.ask(&["logs", "flaky/0", "--tail", "1", "--follow"]),
        "[spotsweep: finished at step 1]\n"
    );
    let raw = cluster.ask(&["logs", "flaky/0", "--raw", "--attempt", "1"]);
    assert!(raw.contains("\u{1b}[31mcolour\u{1b}[0m \u{1b}[2J\n"), "{raw:?}");

    for (attempt, text) in [("1", &first), ("2", &second)] {
        let (head, body) = get(&cluster, &format!("/api/v1/sweeps/flaky/trials/0/attempts/{attempt}/log"));
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; charset=utf-8"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        assert_eq!(body, *text);
    }
    let (head, body) = get(&cluster, "/api/v1/sweeps/flaky/trials/0/attempts/3/log");
    assert!(head.starts_with("HTTP/1.1 404") && body.contains("no_such_attempt"), "{head}\n{body}");
    let refused = cluster.command(&["logs", "flaky/0", "--attempt", "3"]).output().expect("spotsweep runs");
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");

    // From the folder alone, when nobody is there any more.
    cluster.kill_coordinator();
    let offline = Command::new(binaries::spotsweep())
        .args(["logs", "flaky/0", "--attempt", "1", "--dir"])
        .arg(cluster.dir())
        .output()
        .expect("spotsweep runs");
    assert_eq!(String::from_utf8(offline.stdout).expect("UTF-8"), first);
}

#[test]
fn what_was_printed_on_a_machine_that_is_gone_is_there_and_a_follower_comes_to_its_end() {
    let mut cluster = Cluster::start(1, none(), &[]);
    let script = r#"
if grep -q '"attempt":1,' "$SPOTSWEEP_JOB"; then
  echo "on the machine that goes"; say '{"type":"report","step":1,"metrics":{"loss":1}}'
  while :; do sleep 0.05; done
fi
echo "on another"; say '{"type":"report","step":2,"metrics":{"loss":0.5}}'
"#;
    cluster.submit(&sweep("moved", script));
    log_with(&cluster, "moved/0", "1", "on the machine that goes\n");
    let follower = cluster
        .command(&["logs", "moved/0", "--attempt", "1", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("spotsweep runs");
    cluster.kill_agent(0);
    cluster.start_agent(0);
    log_with(&cluster, "moved/0", "2", "on another\n");
    assert!(log(&cluster, "moved/0", "1").ends_with("on the machine that goes\n"));
    let followed = follower.wait_with_output().expect("a child");
    assert!(followed.status.success(), "{followed:?}");
    assert!(
        String::from_utf8_lossy(&followed.stdout).ends_with("on the machine that goes\n"),
        "{followed:?}"
    );
}

#[test]
fn a_log_goes_on_while_the_coordinator_is_away() {
    let mut cluster = Cluster::start(1, none(), &[]);
    let go = cluster.path("go");
    let script = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.05; done\necho meanwhile; say '{{\"type\":\"report\",\"step\":1,\"metrics\":{{\"loss\":1}}}}'\n\
         while [ -e {} ]; do sleep 0.05; done\necho after\n",
        go.display(),
        go.display()
    );
    cluster.submit(&sweep("away", &script));
    log_with(&cluster, "away/0", "1", "before\n");
    cluster.kill_coordinator();
    std::fs::write(&go, "").expect("the temporary folder is writable");
    cluster.start_coordinator();
    log_with(&cluster, "away/0", "1", "before\nmeanwhile\n");
    std::fs::remove_file(&go).expect("it is there");
    let text = log_with(&cluster, "away/0", "1", "[spotsweep: finished at step 1]\n");
    assert!(text.ends_with("before\nmeanwhile\nafter\n[spotsweep: finished at step 1]\n"), "{text}");
}

#[test]
fn a_program_that_prints_tens_of_megabytes_leaves_a_bounded_log_and_every_report() {
    let cluster = Cluster::start(1, none(), &[]);
    let script = r#"
echo "the very first line"
step=0
while [ $step -lt 30 ]; do
  step=$((step + 1))
  head -c 1000000 /dev/zero | tr '\0' 'x' | fold -w 99
  say '{"type":"report","step":'$step',"metrics":{"loss":0.'$step'}}'
done
echo; echo "the very last line"
"#;
    cluster.submit(&sweep("flood", script));
    let text = log_with(&cluster, "flood/0", "1", "[spotsweep: finished at step 30]\n");
    assert!(text.contains("cpu]\nthe very first line\n"), "the beginning is kept");
    assert!(text.ends_with("\nthe very last line\n[spotsweep: finished at step 30]\n"), "and the end");
    assert!(text.contains(" bytes are left out here]\n") && text.len() <= KEPT, "{}", text.len());
    assert_eq!(json_lines(&cluster.ask(&["metrics", "flood/0", "--format", "json"])).len(), 30);
    assert_eq!(state(&cluster, "flood/0"), "completed");
    let on_disk: u64 = files(&cluster.dir().join("logs/flood/0"));
    assert!(on_disk <= KEPT as u64, "{on_disk}");
}

fn files(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries.map(|entry| entry.metadata().expect("a file").len()).sum()
}

#[test]
fn the_logs_of_a_run_are_in_its_folder_when_it_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sweep.yaml");
    let script = "echo \"words of $SPOTSWEEP_TRIAL\"; say '{\"type\":\"report\",\"step\":1,\"metrics\":{\"loss\":1}}'\n";
    std::fs::write(&file, sweep("short", script)).expect("the temporary folder is writable");
    let dir = folder.path().join("dir");
    let mut command = Command::new(binaries::spotsweep());
    command.arg("run").arg(&file).args(["--workers", "1", "--http", "off", "--dir"]).arg(&dir);
    let output =
        command.env("SPOTSWEEP_TRAINER", "none").stdin(Stdio::null()).output().expect("spotsweep runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(binaries::spotsweep()).args(["logs", "short/0", "--dir"]).arg(&dir).output();
    let text = String::from_utf8(output.expect("spotsweep runs").stdout).expect("UTF-8");
    assert!(text.contains("words of short/0\n[spotsweep: finished at step 1]\n"), "{text}");
}
