//! `spotsweep top` in a terminal, on a real coordinator with a real worker.

use nix::sys::signal::Signal;
use spotsweep_tests::{Cluster, Trainer, terminal::Terminal, wait};

/// Trials long enough to be looked at.
const SWEEP: &str = "
name: screen
description: 'hostile \u{202e}drawn'
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  model: {value: mlp}
  learning_rate: {values: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]}
train: {data: fashion-mnist, epochs: 12, seed: 1}
checkpoint: {every_steps: 100}
";

fn cluster() -> Cluster {
    let cluster = Cluster::start(1, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "8000")]);
    assert_eq!(cluster.submit(SWEEP), "screen");
    cluster
}

#[test]
fn top_shows_a_trial_cancels_it_survives_the_coordinator_and_gives_the_terminal_back() {
    let mut cluster = cluster();
    let mut terminal = Terminal::start(&cluster.command(&["top"]), 80, 24);
    terminal.shows("connected");
    terminal.shows("screen");
    assert!(terminal.is_coloured());
    assert!(!terminal.is_restored(), "it has a screen of its own");

    // Into the sweep: a trial that runs, and its curve.
    terminal.press("\r");
    terminal.shows("running");
    terminal.shows("screen/0  val_loss");

    // To the last trial, which waits, and into it.
    terminal.press("s");
    terminal.shows("s by number");
    terminal.press("G");
    terminal.press("\r");
    terminal.shows("screen/5");
    terminal.shows("pending");
    terminal.press("c");
    terminal.shows("cancel screen/5 for good?");
    terminal.press("n");
    terminal.shows("nothing was changed");
    terminal.press("c");
    terminal.shows("cancel screen/5 for good?");
    terminal.press("y");
    terminal.shows("screen/5 is cancelled: 1 trial changed");
    assert!(cluster.ask(&["show", "screen/5"]).contains("cancelled"));

    // The coordinator goes and comes back.
    cluster.kill_coordinator();
    terminal.shows("no answer for");
    cluster.start_coordinator();
    terminal.shows("connected");
    terminal.press("4");
    terminal.shows("the coordinator answers again");

    terminal.press("q");
    assert_eq!(terminal.ended().code(), Some(0));
    wait::until("the terminal is as it was", || terminal.is_restored().then_some(()));
}

#[test]
fn a_signal_and_ctrl_c_end_top_with_the_terminal_restored() {
    let cluster = cluster();
    for how in [Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP), None] {
        let mut terminal = Terminal::start(cluster.command(&["top"]).env("NO_COLOR", "1"), 120, 40);
        terminal.shows("screen");
        assert!(!terminal.is_coloured(), "NO_COLOR is obeyed");
        match how {
            Some(signal) => terminal.signal(signal),
            None => terminal.press("\u{3}"),
        }
        assert_eq!(terminal.ended().code(), Some(130), "{how:?}");
        wait::until("the terminal is as it was", || terminal.is_restored().then_some(()));
    }
}

#[test]
fn top_without_a_terminal_says_what_to_do_instead() {
    let cluster = Cluster::start(0, Trainer::Stub, &[]);
    let output = cluster.command(&["top"]).output().expect("spotsweep runs");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("here is none") && error.contains("hint: `spotsweep watch`"), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn watch_and_metrics_draw_on_a_terminal() {
    let cluster = cluster();
    let mut terminal = Terminal::start(&cluster.command(&["watch"]), 80, 24);
    terminal.shows("0/6 trials, 1 running");
    terminal.shows("agent-0  screen/0  step ");
    terminal.shows("epoch ");
    terminal.signal(Signal::SIGINT);
    assert_eq!(terminal.ended().code(), Some(130));
    wait::until("the terminal is as it was", || terminal.is_restored().then_some(()));
    wait::until("there is a curve to draw", || {
        (cluster.ask(&["metrics", "screen/0", "--format", "csv"]).lines().count() > 4).then_some(())
    });
    let mut terminal =
        Terminal::start(&cluster.command(&["metrics", "screen/0", "--metric", "train_loss"]), 80, 24);
    assert_eq!(terminal.ended().code(), Some(0));
    wait::until("a curve", || terminal.text().contains("┤").then_some(()));
}
