//! Programs as trainers, by a real agent process beside a scripted coordinator: what they report, save and resume from, how
//! they are stopped, and that whatever they do ends in a clear state with nothing left running.

use spotsweep_proto::program::{MetricsFrom, ProgramLimits, ProgramSection};
use spotsweep_tests::{
    binaries,
    fake_coordinator::{Conversation, FakeCoordinator, Seen, grant},
    wait,
};
use spotsweep_wire::v1::{self, FailureKind, report::Body, to_worker::Message};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// An agent process without a trainer.
struct Agent {
    folder: TempDir,
    coordinator: FakeCoordinator,
    child: Child,
}

impl Agent {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("objects")).unwrap();
        let coordinator = FakeCoordinator::start().await;
        let child = spawn(folder.path(), &coordinator);
        Self { folder, coordinator, child }
    }

    /// kill -9, and another one with the same folder.
    fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.folder.path(), &self.coordinator);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The next connection, with sweep 0 carried out by `section`.
    async fn attach(&mut self, section: &ProgramSection, metric: &str) -> Conversation {
        let mut conversation = self.coordinator.accept().await;
        let hello = conversation.hello().await;
        assert!(hello.programs_only);
        let store = format!("file://{}", self.path("objects").display());
        conversation.welcome(0, Vec::new(), &store).await;
        let checkpoint = serde_json::json!({"every": {"steps": 1}, "keep_last": 2});
        conversation
            .say(Message::Sweep(v1::SweepInfo {
                sweep: 0,
                name: "own".to_owned(),
                train_json: r#"{"seed": 7}"#.to_owned(),
                checkpoint_json: checkpoint.to_string(),
                program_json: serde_json::to_string(section).unwrap(),
                metric: metric.to_owned(),
            }))
            .await;
        conversation
    }

    /// Carries out one attempt of `script` to its end.
    async fn carry_out(&mut self, section: &ProgramSection, metric: &str) -> Vec<Seen> {
        let mut conversation = self.attach(section, metric).await;
        conversation.grant(0..1, &serde_json::json!({"learning_rate": 0.1, "optimizer.name": "sgd"})).await;
        conversation.until(is_final).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until no process but the agent has its folder in its environment.
    fn nothing_is_left(&self) {
        let folder = self.folder.path().to_str().unwrap().as_bytes().to_vec();
        wait::until("nothing is left running", || running(&folder).is_empty().then_some(()));
    }
}

fn spawn(folder: &Path, coordinator: &FakeCoordinator) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new(binaries::worker())
        .args(["--coordinator", &coordinator.url(), "--device", "cpu", "--trainer", "none", "--dir"])
        .arg(folder.join("scratch"))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Processes with `mark` in a variable of ours.
fn running(mark: &[u8]) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let marked = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut entries = environment.split(|byte| *byte == 0);
        entries.any(|entry| {
            entry.starts_with(b"SPOTSWEEP_TO_AGENT=")
                && entry.windows(mark.len()).any(|window| window == mark)
        })
    };
    pids.filter(marked).collect()
}

fn program(script: &str) -> ProgramSection {
    let command = ["sh", "-c", script, "sh", "${args}"].map(str::to_owned).to_vec();
    ProgramSection { groups: BTreeSet::from(["optimizer".to_owned()]), ..ProgramSection::of_command(command) }
}

fn limited(script: &str, change: impl FnOnce(&mut ProgramLimits)) -> ProgramSection {
    let mut section = program(script);
    change(&mut section.limits);
    section
}

fn is_final(body: &Body) -> bool {
    matches!(body, Body::Finished(_) | Body::Failed(_) | Body::Released(_))
}

fn failure(seen: &[Seen]) -> (FailureKind, String) {
    match &seen.last().unwrap().body {
        Body::Failed(failed) => (failed.kind(), failed.message.clone()),
        other => panic!("{other:?}"),
    }
}

fn finished(seen: &[Seen]) -> BTreeMap<String, f64> {
    let last = seen.last().unwrap();
    match &last.body {
        Body::Finished(end) => {
            end.names.iter().map(|name| last.names[*name as usize].clone()).zip(end.values.clone()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn curve(seen: &[Seen]) -> Vec<(u64, f64)> {
    let points = seen.iter().filter_map(|seen| match &seen.body {
        Body::Progress(progress) => Some((progress.step, progress.values[0])),
        _ => None,
    });
    points.collect()
}

fn checkpoints(seen: &[Seen]) -> Vec<v1::Checkpoint> {
    let found = seen.iter().filter_map(|seen| match &seen.body {
        Body::Checkpoint(checkpoint) => Some(checkpoint.clone()),
        _ => None,
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_finds_its_job_and_what_it_says_is_reported() {
    let mut agent = Agent::start().await;
    let script = r#"
        say() { echo "$1" > "$SPOTSWEEP_TO_AGENT"; }
        test "$*" = "--learning_rate=0.1 --optimizer={'name': 'sgd'}" || { echo "args: $*"; exit 3; }
        test "$(cat "$SPOTSWEEP_PARAMS")" = '{"learning_rate":0.1,"optimizer":{"name":"sgd"}}' || exit 4
        grep -q '"seed":7' "$SPOTSWEEP_JOB" && grep -q '"trial":"own/0"' "$SPOTSWEEP_JOB" || exit 5
        test "$SPOTSWEEP_TRIAL" = own/0 && test -z "$CUDA_VISIBLE_DEVICES" && test -z "$SPOTSWEEP_RESUME" || exit 6
        test -z "$(ls -A)" && test -z "$(ls -A "$SPOTSWEEP_CHECKPOINTS")" || exit 7
        say '{"type":"started","step":0,"total_steps":3}'
        say '{"type":"report","step":1,"metrics":{"loss":0.5}}'
        say '{"type":"report","step":2,"metrics":{"loss":0.25}}'
        mkdir "$SPOTSWEEP_CHECKPOINTS/final"; echo state > "$SPOTSWEEP_CHECKPOINTS/final/file"
        say '{"type":"checkpoint","step":3,"dir":"'"$SPOTSWEEP_CHECKPOINTS"'/final","last":true}'
        say '{"type":"done","step":3,"metrics":{"test_loss":0.2}}'
    "#;
    let seen = agent.carry_out(&program(script), "loss").await;
    assert!(
        matches!(&seen[0].body, Body::Started(started) if started.total_steps == Some(3)),
        "{seen:?} {}",
        agent.log()
    );
    assert_eq!(curve(&seen), [(1, 0.5), (2, 0.25)]);
    let kept = checkpoints(&seen);
    assert_eq!((kept.len(), kept[0].step, kept[0].last), (1, 3, true));
    assert_eq!(finished(&seen), BTreeMap::from([("loss".to_owned(), 0.25), ("test_loss".to_owned(), 0.2)]));
    let Body::Finished(end) = &seen.last().unwrap().body else { panic!() };
    assert_eq!((end.step, &end.weights_digest), (3, &kept[0].parts[1]), "the digest is that of the archive");
    agent.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_documentation_trains_and_resumes() {
    let page = include_str!("../../docs/trainer-protocol.md");
    let (_, example) = page.split_once("```sh\n").expect("an example in shell");
    let (example, _) = example.split_once("```").unwrap();
    assert!(example.lines().count() <= 12, "about ten lines");
    let mut agent = Agent::start().await;
    let mut conversation = agent.attach(&program(example), "loss").await;
    conversation.grant(0..1, &serde_json::json!({"steps": 5})).await;
    let seen = conversation.until(is_final).await;
    assert_eq!(curve(&seen).len(), 5, "{seen:?} {}", agent.log());
    let third =
        checkpoints(&seen).into_iter().find(|checkpoint| checkpoint.step == 3).expect("one each step");
    let params = serde_json::json!({"steps": 5});
    let grants = vec![grant(0, 2, &params, Some(third))];
    conversation.say(Message::Granted(v1::GrantBatch { grants })).await;
    let again = conversation.until(is_final).await;
    assert_eq!(curve(&again), curve(&seen)[3..], "it goes on where the checkpoint is");
    let digest = |seen: &[Seen]| match &seen.last().unwrap().body {
        Body::Finished(end) => end.weights_digest.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(digest(&again), digest(&seen), "and ends with the same bits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_saves_and_the_lease_goes_back() {
    let mut agent = Agent::start().await;
    let script = r#"
        say() { echo "$1" > "$SPOTSWEEP_TO_AGENT"; }
        stop() {
            test -e "$SPOTSWEEP_STOP" || exit 9
            mkdir "$SPOTSWEEP_CHECKPOINTS/a"; echo 7 > "$SPOTSWEEP_CHECKPOINTS/a/step"
            say '{"type":"checkpoint","step":7,"dir":"'"$SPOTSWEEP_CHECKPOINTS"'/a"}'
            say '{"type":"stopped","step":7}'
            exit 0
        }
        trap stop TERM
        say '{"type":"report","step":6,"metrics":{"loss":1}}'
        while :; do sleep 0.05; done
    "#;
    let mut conversation = agent.attach(&program(script), "").await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    conversation.until(|body| matches!(body, Body::Progress(_))).await;
    conversation.revoke(0, 1, v1::RevokeReason::Paused).await;
    let seen = conversation.until(is_final).await;
    assert!(matches!(&seen.last().unwrap().body, Body::Released(released) if released.step == 7), "{seen:?}");
    assert_eq!(checkpoints(&seen)[0].step, 7);
    agent.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ignores_sigterm_is_killed_after_its_grace() {
    let mut agent = Agent::start().await;
    let script = r#"trap '' TERM; echo '{"type":"report","step":1,"metrics":{"loss":1}}' > "$SPOTSWEEP_TO_AGENT"; while :; do sleep 0.05; done"#;
    let section = limited(script, |limits| limits.grace_s = 0.3);
    let mut conversation = agent.attach(&section, "").await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    conversation.until(|body| matches!(body, Body::Progress(_))).await;
    conversation.revoke(0, 1, v1::RevokeReason::Paused).await;
    let seen = conversation.until(is_final).await;
    assert!(matches!(&seen.last().unwrap().body, Body::Released(_)), "{seen:?}");
    agent.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_daemon_outlives_its_program() {
    let mut agent = Agent::start().await;
    let pids = agent.path("pids");
    let script = format!(
        r#"
        for i in 1 2 3; do
            (setsid sh -c 'trap "" TERM HUP; (setsid sh -c "echo \$\$ >> {0}; while :; do sleep 0.05; done" &) ' &)
        done
        env -i setsid sh -c 'echo $$ >> {0}; exec sleep 1000' > /dev/null 2>&1 &
        while test "$(wc -l < {0})" != 4; do sleep 0.02; done
        "#,
        pids.display()
    );
    std::fs::write(&pids, "").unwrap();
    let seen = agent.carry_out(&program(&script), "").await;
    assert!(matches!(&seen.last().unwrap().body, Body::Finished(_)), "{seen:?} {}", agent.log());
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 4);
    for pid in pids.lines() {
        assert!(
            !Path::new("/proc").join(pid).exists(),
            "{pid} is gone before the end is told, and no zombie"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_die_with_an_agent_that_is_killed_and_their_trial_goes_on_from_its_checkpoint() {
    let mut agent = Agent::start().await;
    let script = r#"
        say() { echo "$1" > "$SPOTSWEEP_TO_AGENT"; }
        step=$(cat "$SPOTSWEEP_RESUME/step" 2>/dev/null || echo 0)
        setsid sh -c 'trap "" TERM HUP; while :; do sleep 0.05; done' &
        while test $step -lt 6; do
            step=$((step + 1))
            say '{"type":"report","step":'$step',"metrics":{"loss":0.'$step'}}'
            mkdir "$SPOTSWEEP_CHECKPOINTS/$step"; echo $step > "$SPOTSWEEP_CHECKPOINTS/$step/step"
            say '{"type":"checkpoint","step":'$step',"dir":"'"$SPOTSWEEP_CHECKPOINTS/$step"'"}'
            test $step = 3 && test -z "$SPOTSWEEP_RESUME" && while :; do sleep 0.05; done
        done
        exit 0
    "#;
    let section = program(script);
    let mut conversation = agent.attach(&section, "loss").await;
    let params = serde_json::json!({});
    conversation.grant(0..1, &params).await;
    let seen = conversation.until(|body| matches!(body, Body::Checkpoint(kept) if kept.step == 3)).await;
    let kept = checkpoints(&seen).pop().unwrap();
    drop(conversation);
    agent.kill_and_start();
    agent.nothing_is_left();
    let mut conversation = agent.attach(&section, "loss").await;
    conversation
        .say(Message::Granted(v1::GrantBatch { grants: vec![grant(0, 2, &params, Some(kept))] }))
        .await;
    let again = conversation.until(is_final).await;
    assert_eq!(curve(&again), [(4, 0.4), (5, 0.5), (6, 0.6)], "{}", agent.log());
    assert_eq!(finished(&again)["loss"], 0.6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_without_a_result_is_a_failure_in_words_where_the_sweep_has_a_metric() {
    let mut agent = Agent::start().await;
    let script =
        r#"echo hello; echo '{"type":"report","step":1,"metrics":{"accuracy":1}}' > "$SPOTSWEEP_TO_AGENT""#;
    let mut conversation = agent.attach(&program(script), "loss").await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    let (kind, message) = failure(&conversation.until(is_final).await);
    assert_eq!(kind, FailureKind::Config);
    assert!(message.contains("without a result") && message.contains("it reported: accuracy"), "{message}");
    assert!(message.ends_with("hello"), "its last output is kept: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_exits_with_an_error_is_killed_or_is_missing_says_so_with_its_last_lines() {
    let mut agent = Agent::start().await;
    let mut conversation = agent.attach(&program("echo last words >&2; exit 3"), "").await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    let (kind, message) = failure(&conversation.until(is_final).await);
    assert_eq!(
        (kind, &*message),
        (FailureKind::Crashed, "the program exited with status 3; its last lines were:\nlast words")
    );
    let mut others = vec![
        ("kill -SEGV $$", FailureKind::Crashed, "killed by signal 11"),
        (
            r#"echo '{"type":"failed","reason":"data","message":"no rows"}' > "$SPOTSWEEP_TO_AGENT"; exit 1"#,
            FailureKind::Data,
            "no rows",
        ),
        ("echo MemoryError: out of memory; exit 1", FailureKind::OutOfMemory, "out of memory"),
        ("exec /no/such/program", FailureKind::Crashed, "127"),
    ];
    for (script, kind, words) in others.drain(..) {
        tell(&mut conversation, &program(script)).await;
        let (found, message) = failure(&conversation.until(is_final).await);
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(words), "{message}");
    }
    for (command, kind) in
        [("./absent.sh", FailureKind::Config), ("no-such-program-anywhere", FailureKind::Crashed)]
    {
        let section = ProgramSection { command: vec![command.to_owned()], ..program("") };
        tell(&mut conversation, &section).await;
        let (found, message) = failure(&conversation.until(is_final).await);
        assert_eq!(found, kind, "{message}");
        assert!(message.contains("cannot be started"), "{message}");
    }
}

/// Grants one more trial, carried out by another program.
async fn tell(conversation: &mut Conversation, section: &ProgramSection) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let sweep = NEXT.fetch_add(1, Ordering::Relaxed);
    let checkpoint = serde_json::json!({"every": {"steps": 1}, "keep_last": 2});
    conversation
        .say(Message::Sweep(v1::SweepInfo {
            sweep,
            name: format!("own-{sweep}"),
            train_json: "{}".to_owned(),
            checkpoint_json: checkpoint.to_string(),
            program_json: serde_json::to_string(section).unwrap(),
            metric: String::new(),
        }))
        .await;
    let mut granted = grant(0, 1, &serde_json::json!({}), None);
    granted.trial = Some(v1::TrialKey { sweep, number: 0 });
    conversation.say(Message::Granted(v1::GrantBatch { grants: vec![granted] })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_end_an_attempt_in_a_clear_state_and_the_agent_goes_on() {
    let mut agent = Agent::start().await;
    let hog = r#"echo hungry; exec python3 -c 'import os,time
os.fork() or os.fork()
x = b"x" * (60 << 20)
time.sleep(1000)'"#;
    let memory = limited(hog, |limits| limits.memory_bytes = Some(100 << 20));
    let mut conversation = agent.attach(&memory, "").await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    let (kind, message) = failure(&conversation.until(is_final).await);
    assert_eq!(kind, FailureKind::OutOfMemory, "{message}");
    assert!(message.contains("limits.memory") && message.ends_with("hungry"), "{message}");
    let disk =
        limited("echo filling; while :; do head -c 1000000 /dev/zero >> deep; sleep 0.01; done", |limits| {
            limits.disk_bytes = Some(8 << 20)
        });
    let time = limited("echo slow; sleep 1000 & wait", |limits| limits.time_s = Some(0.3));
    let garbage = program("while :; do printf 'x\\033[2J\\n'; done > \"$SPOTSWEEP_TO_AGENT\"");
    let endless = program("cat /dev/zero > \"$SPOTSWEEP_TO_AGENT\"");
    for (section, kind, words) in [
        (disk, FailureKind::Storage, "limits.disk"),
        (time, FailureKind::Config, "limits.time"),
        (garbage, FailureKind::Protocol, "100 lines"),
        (endless, FailureKind::Protocol, "too long"),
    ] {
        tell(&mut conversation, &section).await;
        let (found, message) = failure(&conversation.until(is_final).await);
        assert_eq!(found, kind, "{message}");
        assert!(message.contains(words) && !message.contains('\x1b'), "{message}");
        agent.nothing_is_left();
    }
    tell(&mut conversation, &program("true")).await;
    let seen = conversation.until(is_final).await;
    assert!(matches!(seen.last().unwrap().body, Body::Finished(_)), "the agent is unharmed: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_prints_without_measure_keeps_the_beginning_and_end_of_it() {
    let mut agent = Agent::start().await;
    let script = r#"echo begin; head -c 100000000 /dev/zero | tr '\0' 'y' ; i=0; while test $i -lt 1000; do i=$((i+1)); printf 'line %d \033[31m\n' $i; done
        sleep 0.1; cp ../output "$SPOTSWEEP_CHECKPOINTS/../../../../output-copy"; exit 1"#;
    let section = limited(script, |limits| limits.output_bytes = 4096);
    let (kind, message) = failure(&agent.carry_out(&section, "").await);
    assert_eq!(kind, FailureKind::Crashed);
    assert!(message.ends_with("line 1000 \\u{1b}[31m") && message.len() < 5000, "{message}");
    let kept = std::fs::read(agent.path("output-copy")).unwrap();
    assert!(kept.len() <= 4096 && kept.starts_with(b"begin\nyyy"), "{}", kept.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_cannot_be_are_left_out_and_the_trial_ends_well() {
    let mut agent = Agent::start().await;
    let script = r#"exec python3 -c '
import json, os
out = open(os.environ["SPOTSWEEP_TO_AGENT"], "w", buffering=1)
def say(**line): out.write(json.dumps(line) + "\n")
say(type="report", step=1, metrics={"loss": float("nan"), "a": "text", "b": {"c": 1}, "d": 2})
say(type="report", step=1, metrics={"loss": 3})
say(type="report", step=2, metrics={"loss": 0.5})
for step in range(3, 103):
    say(type="report", step=step, metrics={f"m{step}.{i}": i for i in range(10000)})
say(type="done")
'"#;
    let seen = agent.carry_out(&program(script), "loss").await;
    let end = finished(&seen);
    assert_eq!((end["loss"], end["d"]), (0.5, 2.0), "{}", agent.log());
    assert!(end.len() <= 256 && !end.contains_key("a"), "{end:?}");
    assert!(agent.log().contains("is no number"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_only_prints_has_its_metrics_read() {
    let mut agent = Agent::start().await;
    let script =
        r#"for i in 1 2 3; do printf 'epoch %d: loss 0.%d\r' $i $i; printf '[%d] acc=0.5\n' $i; done"#;
    let mut section = program(script);
    section.metrics = MetricsFrom::Stdout { pattern: r"epoch (?<step>\d+): loss (?<loss>\S+)".to_owned() };
    let seen = agent.carry_out(&section, "loss").await;
    assert_eq!(curve(&seen), [(1, 0.1), (2, 0.2), (3, 0.3)], "{}", agent.log());
    assert_eq!(finished(&seen)["loss"], 0.3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_of_programs_runs_each_once() {
    let mut agent = Agent::start().await;
    let marks = agent.path("marks");
    std::fs::create_dir(&marks).unwrap();
    let script = format!("echo x >> {}/$(basename $SPOTSWEEP_TRIAL)", marks.display());
    let mut conversation = agent.attach(&program(&script), "").await;
    conversation.grant(0..40, &serde_json::json!({})).await;
    let mut ended = BTreeMap::<u32, u32>::new();
    while ended.len() < 40 {
        for seen in conversation.until(is_final).await {
            if is_final(&seen.body) {
                assert!(matches!(seen.body, Body::Finished(_)), "{seen:?}");
                *ended.entry(seen.trial).or_default() += 1;
            }
        }
    }
    for number in 0..40_u32 {
        assert_eq!(std::fs::read_to_string(marks.join(number.to_string())).unwrap(), "x\n");
        assert_eq!(ended[&number], 1);
    }
}
