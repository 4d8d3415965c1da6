//! Programs on several workers at once, by real processes: all ranks begin and end together, whatever is killed, and a trial
//! ends as if nothing had happened.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines, wait};
use std::path::{Path, PathBuf};

/// What the ranks run.
const RANKS: &str = include_str!("../python/ranks.py");
/// Before these steps of a trial rank 0 waits until a file says go on.
const GATES: [u32; 3] = [10, 20, 30];

/// A coordinator, agents that each can be warned, and the folder in which ranks say what they are.
struct Bench {
    cluster: Cluster,
    marks: PathBuf,
}

impl Bench {
    fn start(agents: usize) -> Self {
        let cluster = Cluster::start(0, Trainer::Program("none".into()), &[]);
        let marks = cluster.path("marks");
        std::fs::create_dir(&marks).unwrap();
        let mut bench = Self { cluster, marks };
        (0..agents).for_each(|_| bench.add_agent());
        bench
    }

    fn add_agent(&mut self) {
        let notice = self.notice(self.cluster.agents());
        self.cluster.add_agent(&["--notice-file", notice.to_str().unwrap()], &[]);
    }

    fn notice(&self, agent: usize) -> PathBuf {
        self.cluster.path(&format!("notice-{agent}"))
    }

    fn sweep(&self, trials: u32) -> String {
        let code = self.cluster.path("src");
        std::fs::create_dir_all(&code).unwrap();
        std::fs::write(code.join("ranks.py"), RANKS).unwrap();
        format!(
            "
name: ranks
method: grid
metric: {{name: loss, goal: minimize}}
program: ranks.py
code: src
env: {{MARKS: {:?}}}
parameters:
  x: {{values: {:?}}}
resources: {{workers: 3}}
checkpoint: {{every_steps: 1, keep_last: 2}}
retry: {{max_failures: 2, backoff_s: 0}}
limits: {{grace_s: 5}}
",
            self.marks.display().to_string(),
            (1..=trials).collect::<Vec<_>>(),
        )
    }

    fn open(&self, gate: u32) {
        std::fs::write(self.marks.join(format!("go-{gate}")), "").unwrap();
    }

    /// Waits until rank 0 of the first trial stands before a gate under another epoch than those before, and all ranks
    /// have met; gives the process ids of its ranks.
    fn at_gate(&self, gate: u32) -> Vec<i32> {
        let at = self.marks.join(format!("at-{gate}"));
        let epoch = wait::until(&format!("rank 0 is at step {gate}"), || {
            std::fs::read_to_string(&at).ok().filter(|epoch| !epoch.is_empty())
        });
        let pid = |rank: u32| {
            let mark = self.marks.join(format!("pid-0-{epoch}-{rank}"));
            std::fs::read_to_string(mark).unwrap().parse().unwrap()
        };
        (0..3).map(pid).collect()
    }

    fn explained(&self) -> String {
        self.cluster.ask(&["explain", "ranks/0"])
    }

    /// Indices of the agents of the first trial's ranks.
    fn agents_by_rank(&self) -> Vec<usize> {
        let names = wait::until("all ranks have begun", || {
            let text = self.explained();
            let (names, _) = text.split_once("trains on ")?.1.split_once(" (make-up")?;
            Some(names.to_owned())
        });
        names.split(", ").map(|name| name.trim_start_matches("agent-").parse().unwrap()).collect()
    }

    fn row(&self) -> serde_json::Value {
        let mut rows = json_lines(&self.cluster.ask(&["results", "ranks", "--format", "json"]));
        rows.sort_by_key(|row| row["number"].as_u64());
        rows.remove(0)
    }

    /// Waits until no rank that ever ran is there any more.
    fn nothing_is_left(&self) {
        let pids = marks(&self.marks, "pid-");
        assert!(!pids.is_empty());
        for path in pids {
            is_gone(std::fs::read_to_string(path).unwrap().trim().parse().unwrap());
        }
    }
}

/// Waits until a process is not there any more.
fn is_gone(pid: i32) {
    let path = Path::new("/proc").join(pid.to_string());
    wait::until("a rank is gone", || (!path.exists()).then_some(()));
}

fn marks(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
}

#[test]
fn a_program_on_three_workers_ends_the_same_whatever_becomes_of_a_rank_an_agent_or_a_machine() {
    let calm = Bench::start(3);
    GATES.iter().for_each(|gate| calm.open(*gate));
    let name = calm.cluster.submit(&calm.sweep(2));
    let expected = Outcome::wait(&calm.cluster, &name);
    assert_eq!(expected.trials.len(), 2);
    for trial in &expected.trials {
        assert_eq!((&*trial.state, trial.steps, trial.curve.len()), ("completed", 40, 40), "{trial:?}");
    }
    calm.nothing_is_left();
    assert!((0..3).any(|agent| calm.cluster.agent_log(agent).contains("only rank 0's reports")));

    let mut bench = Bench::start(3);
    let name = bench.cluster.submit(&bench.sweep(2));
    let pids = bench.at_gate(10);
    kill(Pid::from_raw(pids[1]), Signal::SIGKILL).unwrap();
    wait::until("that is told", || bench.explained().contains("rank 1 of 3: ").then_some(()));
    bench.open(10);
    let pids = bench.at_gate(20);
    let agent = bench.agents_by_rank()[2];
    bench.cluster.kill_agent(agent);
    is_gone(pids[2]);
    bench.add_agent();
    bench.open(20);
    bench.at_gate(30);
    let warned = bench.agents_by_rank()[1];
    std::fs::write(bench.notice(warned), "").unwrap();
    assert!(bench.cluster.agent_ended(warned).success(), "{}", bench.cluster.agent_log(warned));
    bench.add_agent();
    bench.open(30);
    assert_eq!(Outcome::wait(&bench.cluster, &name), expected, "{}", bench.cluster.logs());
    assert_eq!(bench.row()["attempts"], 4, "{}", bench.explained());
    bench.nothing_is_left();
    let resumed = marks(&bench.marks, "resumed-0-");
    assert_eq!(resumed.len(), 3, "each attempt but the first goes on from a checkpoint: {resumed:?}");
}

/// A sweep of one trial that a script of shell carries out on two workers.
fn script(script: &str) -> String {
    let lines: Vec<String> = script.lines().map(|line| format!("    {}", line.trim())).collect();
    format!(
        "
name: ranks
method: grid
metric: {{name: loss, goal: minimize}}
command:
  - sh
  - -c
  - |
{}
resources: {{workers: 2}}
retry: {{max_failures: 1}}
",
        lines.join("\n")
    )
}

#[test]
fn a_rank_that_is_done_waits_for_the_others_and_one_that_fails_ends_the_attempt_in_its_own_words() {
    let bench = Bench::start(2);
    let marks = bench.marks.display();
    bench.cluster.submit(&script(&format!(
        r#"echo $$ > {marks}/pid-$RANK
           if [ $RANK = 0 ]; then
             echo '{{"type":"report","step":1,"metrics":{{"loss":1}}}}' > "$SPOTSWEEP_TO_AGENT"
             echo done > {marks}/done
             exit 0
           fi
           while [ ! -e {marks}/go ]; do sleep 0.05; done
           echo no more rows
           exit 3"#
    )));
    let read = |name: &str| std::fs::read_to_string(bench.marks.join(name)).ok();
    wait::until("rank 0 is done", || read("done"));
    is_gone(read("pid-0").unwrap().trim().parse().unwrap());
    assert_eq!(bench.row()["state"], "running", "{}", bench.explained());
    std::fs::write(bench.marks.join("go"), "").unwrap();
    wait::until("the trial fails", || (bench.row()["state"] == "failed").then_some(()));
    let text = bench.explained();
    assert!(text.contains("rank 1 of 2: the program exited with status 3"), "{text}");
    assert!(text.contains("no more rows"), "{text}");
}

#[test]
fn a_port_that_somebody_took_is_no_failure_a_few_times() {
    let bench = Bench::start(2);
    bench.cluster.submit(&script(
        r#"if [ $RANK = 0 ]; then
             echo "OSError: [Errno 98] Address already in use" >&2
             exit 1
           fi
           while :; do sleep 0.05; done"#,
    ));
    wait::until("the trial fails", || (bench.row()["state"] == "failed").then_some(()));
    let text = bench.explained();
    assert!(text.contains("rank 0 of 2: ") && text.contains("Address already in use"), "{text}");
    assert_eq!(bench.row()["attempts"], 4, "{text}");
}

#[test]
fn a_program_on_several_workers_survives_its_coordinator() {
    let mut bench = Bench::start(3);
    let name = bench.cluster.submit(&bench.sweep(1));
    bench.at_gate(10);
    bench.cluster.kill_coordinator();
    bench.cluster.start_coordinator();
    GATES.iter().for_each(|gate| bench.open(*gate));
    let outcome = Outcome::wait(&bench.cluster, &name);
    assert_eq!((&*outcome.trials[0].state, outcome.trials[0].steps), ("completed", 40));
    assert_eq!(bench.row()["attempts"], 1, "{}", bench.explained());
    bench.nothing_is_left();
}
