//! Promise 3 with real processes: a notice is used.

use spotsweep_tests::{
    Cluster, Outcome, Trainer, cluster::free_port, fake_metadata::FakeAws, outcome::json_lines, wait,
};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

/// One trial that checkpoints by itself only at its end, so that what is kept before is what a notice had kept.
const ONE_LONG_TRIAL: &str = "
name: long
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.03]}
train: {model: softmax, data: fashion-mnist, steps: STEPS, seed: 3}
checkpoint: {every_steps: EVERY, keep_last: 2}
";

fn sweep(steps: u64, every: u64) -> String {
    ONE_LONG_TRIAL.replace("STEPS", &steps.to_string()).replace("EVERY", &every.to_string())
}

/// A step of the toy trainer takes this long, so that a notice finds it at work.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "4000");

/// Starts an agent that asks this metadata service.
fn spot_agent(cluster: &mut Cluster, service: &FakeAws) -> usize {
    let endpoint = service.url();
    cluster.add_agent(&["--notices", "aws"], &[STEP, ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)])
}

fn explained(cluster: &Cluster) -> String {
    cluster.ask(&["explain", "long/0"])
}

/// Waits until the trial has trained on the agent.
fn trains_on(cluster: &Cluster, index: usize) {
    let worker = format!("agent-{index}");
    wait::until("the trial trains", || {
        let trials = json_lines(&cluster.ask(&["results", "long", "--format", "json"]));
        let at_work = trials[0]["worker"] == worker.as_str() && trials[0]["steps"].as_u64() > Some(0);
        at_work.then_some(())
    });
}

fn worker_row(cluster: &Cluster, index: usize) -> serde_json::Value {
    let workers = json_lines(&cluster.ask(&["workers", "--format", "json"]));
    let name = format!("agent-{index}");
    workers.into_iter().find(|row| row["worker"] == name.as_str()).unwrap_or_default()
}

/// The number behind `before` in a text.
fn number_after(text: &str, before: &str) -> u64 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {before:?} in {text}"))
}

#[test]
fn after_a_spot_notice_the_trial_goes_on_elsewhere_from_its_exact_step_and_ends_with_the_same_bits() {
    let file = sweep(3000, 1_000_000);
    let calm = Cluster::start(1, Trainer::Stub, &[]);
    let expected = Outcome::wait(&calm, &calm.submit(&file));
    drop(calm);

    let service = FakeAws::start();
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    let doomed = spot_agent(&mut cluster, &service);
    let name = cluster.submit(&file);
    trains_on(&cluster, doomed);
    let heir = cluster.add_agent(&["--notices", "off"], &[]);
    service.interrupt();
    let status = cluster.agent_ended(doomed);
    assert_eq!(status.code(), Some(0), "{}", cluster.logs());

    let outcome = Outcome::wait(&cluster, &name);
    assert_eq!(outcome, expected, "{}", cluster.logs());
    let text = explained(&cluster);
    let step = number_after(&text, "interrupted by an AWS spot notice on worker agent-0 (cpu) at step ");
    assert!(text.contains(&format!("at step {step}; nothing lost")), "{text}");
    assert!((1..3000).contains(&step), "in the middle: {text}");
    // The next attempt begins where the first one ended: no step is lost, none repeated.
    let log = cluster.agent_log(heir);
    let begins: Vec<&str> = log.lines().filter(|line| line.contains("a job begins")).collect();
    assert_eq!(begins.len(), 1, "{log}");
    let resumed = begins[0].split_whitespace().find_map(|word| word.strip_prefix("step="));
    assert_eq!(resumed, Some(step.to_string().as_str()), "{log}");
    let row = worker_row(&cluster, doomed);
    assert_eq!((row["state"].as_str(), row["notice"].as_str()), (Some("gone"), Some("an AWS spot notice")));
}

#[test]
fn a_draining_worker_shows_why_and_what_a_hung_trainer_loses_is_said() {
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    let notice = cluster.path("leave");
    let arguments = ["--notices", "off", "--notice-file", notice.to_str().expect("UTF-8")];
    let doomed = cluster.add_agent(&arguments, &[("SPOTSWEEP_STUB_FAULT", "0:hang@30")]);
    let name = cluster.submit(&sweep(100, 20));
    wait::until("the trainer hangs", || {
        let trials = json_lines(&cluster.ask(&["results", "long", "--format", "json"]));
        (trials[0]["steps"] == 30).then_some(())
    });
    std::fs::write(&notice, r#"{"in_s": 8, "reason": "price"}"#).expect("the temporary folder is writable");
    let row = wait::until("the worker drains", || {
        Some(worker_row(&cluster, doomed)).filter(|row| row["state"] == "draining")
    });
    assert_eq!(row["notice"], "a notice file: price");
    let text = explained(&cluster);
    assert!(text.contains("agent-0 hands it over and leaves after a notice file: price"), "{text}");
    assert_eq!(cluster.agent_ended(doomed).code(), Some(0), "{}", cluster.logs());
    let text = explained(&cluster);
    assert!(
        text.contains("interrupted by a notice file on worker agent-0 (cpu) at step 30; 10 steps lost"),
        "{text}"
    );
    cluster.add_agent(&["--notices", "off"], &[]);
    assert_eq!(Outcome::wait(&cluster, &name).trials[0].state, "completed");
}

#[test]
fn after_a_rebalance_recommendation_the_trial_moves_and_the_worker_stays() {
    let service = FakeAws::start();
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    let shaky = spot_agent(&mut cluster, &service);
    // Far more to go than a move costs.
    cluster.submit(&sweep(1_000_000, 1_000_000));
    trains_on(&cluster, shaky);
    service.recommend_rebalance();
    let calm = cluster.add_agent(&["--notices", "off"], &[STEP]);
    trains_on(&cluster, calm);
    let text = explained(&cluster);
    let step =
        number_after(&text, "moved after an AWS rebalance recommendation on worker agent-0 (cpu) at step ");
    assert!(text.contains(&format!("at step {step}; nothing lost")), "{text}");
    let row = worker_row(&cluster, shaky);
    assert_eq!(row["state"], "connected");
    assert_eq!(row["notice"], "an AWS rebalance recommendation");
    cluster.ask(&["cancel", "long"]);
}

fn post(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the agent listens");
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}

fn signal(cluster: &Cluster, index: usize, signal: nix::sys::signal::Signal) {
    let pid = i32::try_from(cluster.agent_pid(index).expect("it lives")).expect("a process id");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it lives");
}

#[test]
fn a_file_a_post_a_slurm_signal_and_sigterm_each_make_an_agent_leave_and_name_themselves() {
    use nix::sys::signal::Signal::{SIGCONT, SIGTERM, SIGUSR1};
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    let (path, port) = (cluster.path("leave"), free_port());
    cluster.add_agent(&["--notices", "off", "--notice-file", path.to_str().expect("UTF-8")], &[]);
    cluster.add_agent(&["--notices", "off", "--notice-listen", &format!("127.0.0.1:{port}")], &[]);
    cluster.add_agent(&["--notices", "slurm"], &[("SLURM_JOB_ID", "7")]);
    cluster.add_agent(&["--notices", "off"], &[]);
    // Inside a job, and told to listen to nobody: USR1 does not end it.
    let deaf = cluster.add_agent(&["--notices", "off"], &[("SLURM_JOB_ID", "7")]);
    for index in 0..=deaf {
        wait::until("all are there", || (worker_row(&cluster, index)["state"] == "connected").then_some(()));
    }
    signal(&cluster, 2, SIGCONT);
    signal(&cluster, deaf, SIGUSR1);
    std::fs::write(path, "").expect("the temporary folder is writable");
    assert!(post(port).starts_with("HTTP/1.1 202 "));
    signal(&cluster, 2, SIGUSR1);
    signal(&cluster, 3, SIGTERM);
    let names = ["a notice file", "a notice over HTTP", "a Slurm signal", "a signal to leave"];
    for (index, notice) in names.into_iter().enumerate() {
        assert_eq!(cluster.agent_ended(index).code(), Some(0), "{}", cluster.logs());
        assert_eq!(worker_row(&cluster, index)["notice"], notice);
    }
    assert_eq!(worker_row(&cluster, deaf)["state"], "connected", "{}", cluster.agent_log(deaf));
    assert!(cluster.agent_log(deaf).contains("USR1 is ignored"), "{}", cluster.agent_log(deaf));
}

#[test]
fn notices_are_not_taken_from_the_network() {
    let output = std::process::Command::new(spotsweep_tests::binaries::worker())
        .args(["--notice-listen", "0.0.0.0:7099"])
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("error: 0.0.0.0:7099 is not a loopback address\nhint: "), "{error}");
}
