//! Sweeps among spot machines, real and drawn.

#![allow(missing_docs, clippy::print_stdout, reason = "tests")]

use spotsweep_engine::event::DeviceKind;
use spotsweep_proto::{
    catalogue::OwnCatalogue,
    datasets::DataSets,
    spec::{self, Every, SweepSpec, Workers},
};
use spotsweep_sim::spot::{Duration, Figures, Market, Plan, ReplayError, Trace, replay};
use std::path::PathBuf;

fn sweep(trials: u32, more: &str) -> SweepSpec {
    let file = format!(
        "name: spot\nmethod: random\nrun_cap: {trials}\nparameters: {{learning_rate: {{min: 0.001, max: 0.1}}}}\n\
         train: {{model: mlp, data: fashion-mnist, epochs: 3}}\n{more}"
    );
    spec::parse(file.as_bytes(), "spot.yaml").unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn plan() -> Plan {
    Plan {
        duration: Duration::TrialSeconds(1800.0),
        recovery_s: 15.0,
        notice_s: 0.0,
        checkpoint: Some(Every::Seconds(60.0)),
        fail_every_s: None,
        device: DeviceKind::Cpu,
        memory_bytes: 8 << 30,
        workers: 64,
        seed: 1,
    }
}

fn run(spec: &SweepSpec, trace: &Trace, plan: &Plan) -> Figures {
    let figures = replay(spec, trace, plan).unwrap_or_else(|error| panic!("{error}"));
    assert!(figures.finished && figures.completed + figures.failed == spec.trials(), "{figures:?}");
    let accounted_s = figures.useful_s + figures.lost_s + figures.recovery_s;
    assert!(accounted_s <= figures.available_s + 1.0, "nothing is counted twice: {figures:?}");
    assert!(figures.available_s <= figures.machine_s + 1e-6, "{figures:?}");
    figures
}

/// Recorded traces, where they lie beside the checkout or in the folder that `SPOTSWEEP_SPOT_TRACES` names; else
/// drawn ones.
fn traces() -> Vec<(String, Trace)> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/spot");
    let folder = std::env::var_os("SPOTSWEEP_SPOT_TRACES").map_or(beside, PathBuf::from);
    let recorded = ["p3-trace.csv", "g4dn-trace.csv"].into_iter().filter_map(|name| {
        let bytes = std::fs::read(folder.join(name)).ok()?;
        Some((name.to_owned(), Trace::parse(&bytes, name).unwrap_or_else(|error| panic!("{error}"))))
    });
    let mut traces: Vec<(String, Trace)> = recorded.collect();
    if traces.is_empty() {
        traces.extend(
            (1..=2).map(|seed| (format!("drawn with seed {seed}"), Market::default().draw(32, seed))),
        );
    }
    traces
}

#[test]
fn goodput_is_0_99_with_15_s_of_recovery_and_a_checkpoint_a_minute() {
    for (name, trace) in traces() {
        let figures = run(&sweep(1000, ""), &trace, &plan());
        println!("{name}: {figures:?}");
        assert!(figures.interruptions > 50, "{name}: {figures:?}");
        assert!(figures.goodput >= 0.99, "{name}: {figures:?}");
        assert!(figures.lost_most_s <= 61.0, "{name}: at most an interval is lost: {figures:?}");
    }
}

#[test]
fn rare_checkpoints_and_slow_recovery_cost_goodput() {
    let trace = Market::default().draw(32, 1);
    let slow = Plan { recovery_s: 600.0, checkpoint: Some(Every::Seconds(1800.0)), ..plan() };
    let (slow, quick) = (run(&sweep(300, ""), &trace, &slow), run(&sweep(300, ""), &trace, &plan()));
    assert!(slow.goodput < 0.93 && quick.goodput > slow.goodput, "{slow:?} {quick:?}");
    assert!(slow.finish_s > quick.finish_s);
}

#[test]
fn with_a_notice_no_more_than_a_step_is_lost() {
    let trace = Market::default().draw(32, 1);
    let noticed = run(&sweep(300, ""), &trace, &Plan { notice_s: 120.0, ..plan() });
    assert!(noticed.interruptions > 50 && noticed.lost_most_s <= 1.0, "{noticed:?}");
    assert!(noticed.drained_s > 0.0, "the machine stands idle until it goes");
}

#[test]
fn a_sweep_outlives_the_end_of_its_trace() {
    let trace = Trace::parse(b"0,add,a\n100000,remove,a\n150000,add,b\n200000,remove,b\n", "t").unwrap();
    let figures = run(&sweep(4, ""), &trace, &Plan { duration: Duration::TrialSeconds(300.0), ..plan() });
    assert_eq!((figures.completed, figures.machines), (4, figures.interruptions + 1), "{figures:?}");
    assert!(figures.finish_s > 1200.0);
}

#[test]
fn without_interruptions_a_sweep_takes_as_long_as_its_trials_after_the_boot() {
    let trace = Trace::parse(b"0,add,a\n0,add,b\n90000000,remove,a\n", "t").unwrap();
    let figures = run(&sweep(4, ""), &trace, &plan());
    assert!((figures.finish_s - 3615.0).abs() < 0.01, "{figures:?}");
    assert!(
        (figures.useful_s - 7200.0).abs() < 0.01 && (figures.available_s - 7230.0).abs() < 0.01,
        "{figures:?}"
    );
    assert_eq!((figures.interruptions, figures.attempts, figures.lost_most_s < 1e-3), (0, 4, true));
}

#[test]
fn trials_that_fail_too_often_are_given_up_as_the_file_says() {
    let trace = Market::default().draw(8, 3);
    let failing = Plan { fail_every_s: Some(600.0), ..plan() };
    let once = run(&sweep(100, "retry: {max_failures: 1}\n"), &trace, &failing);
    let often = run(&sweep(100, "retry: {max_failures: 1000}\n"), &trace, &failing);
    assert!(once.failed > 50 && once.failures == once.failed, "{once:?}");
    assert!(often.failed == 0 && often.failures > 200, "{often:?}");
}

#[test]
fn machines_that_no_trial_fits_are_refused() {
    let trace = Market::default().draw(8, 3);
    for more in ["resources: {device: cuda}\n", "resources: {memory: 16GiB}\n"] {
        let refused = replay(&sweep(2, more), &trace, &plan()).unwrap_err();
        assert!(matches!(refused, ReplayError::NoFit { .. }), "{refused}");
    }
}

#[test]
fn a_replay_is_the_same_every_time() {
    let trace = Market::default().draw(16, 9);
    let failing = Plan { fail_every_s: Some(3000.0), notice_s: 30.0, ..plan() };
    assert_eq!(run(&sweep(100, ""), &trace, &failing), run(&sweep(100, ""), &trace, &failing));
}

#[test]
fn models_of_one_s_own_are_replayed_and_trials_on_several_workers_are_refused() {
    let own = r#"{"models": [{"name": "sine_net", "about": "sines", "version": 1, "parameters": []}]}"#;
    let own = OwnCatalogue::read(own.as_bytes()).unwrap();
    let file = "name: own\nmethod: grid\nparameters: {learning_rate: {values: [0.1, 0.2, 0.3, 0.4]}, batch_size: {values: [16, 32, 64]}}\n\
                train: {model: sine_net, data: fashion-mnist, epochs: 3}\n";
    let known = spec::Own::Told(&own);
    let parsed = spec::parse_with(file.as_bytes(), "own.yaml", &DataSets::catalogue(), known);
    run(&parsed.unwrap_or_else(|wrong| panic!("{wrong}")), &Market::default().draw(4, 1), &plan());
    let mut gangs = sweep(3, "");
    for (min, max, words) in [(4, 4, "on 4 workers"), (1, 4, "on 1 to 4 workers")] {
        gangs.resources.workers = Workers { min, max };
        let refused = replay(&gangs, &Market::default().draw(4, 1), &plan()).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}
