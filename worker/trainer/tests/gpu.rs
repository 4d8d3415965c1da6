//! Promise 2 on a GPU: ranks that share one exchange over Gloo, and their number changes no bit. Run by
//! `deploy/libtorch/gpu.py`, which names the device; on a CPU it tries itself.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

mod common;
mod hub;

use common::{finish, job};
use hub::{Hub, PATIENT_MS};
use serde_json::{Value, json};
use spotsweep_proto::{gang::Shares, ids::DeviceName, line::FromTrainer};
use std::env;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spotsweep-trainer");
const SHARDS: u32 = 8;

fn device() -> String {
    env::var("SPOTSWEEP_TEST_DEVICE").unwrap_or_else(|_| panic!("SPOTSWEEP_TEST_DEVICE names no device"))
}

fn recipes() -> [Value; 3] {
    [
        json!({"model": "softmax", "optimizer": "sgd", "momentum": 0.9}),
        json!({"model": "mlp", "hidden": [24], "dropout": 0.4, "optimizer": "adam"}),
        json!({"model": "cnn", "channels": [3, 4], "dense": 12, "dropout": 0.3, "batch_norm": true,
               "optimizer": "adamw", "clip_norm": 0.5}),
    ]
}

/// Trains `recipe` on `ranks` ranks.
fn trained(recipe: &Value, steps: u64, ranks: u32, exact: bool) -> (Hub, FromTrainer) {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(recipe, steps, folder.path());
    job.device = DeviceName::new(&device()).unwrap();
    job.train["shards"] = json!(SHARDS);
    job.train["exact"] = json!(exact);
    let mut hub = Hub::new(PROGRAM, job, PATIENT_MS);
    let members = hub.start_many(ranks as usize);
    hub.gather_with(&members, Shares::even(SHARDS, ranks));
    let last = hub.drive_to_end();
    (hub, last)
}

/// Over what the ranks have exchanged.
fn over(hub: &Hub) -> Option<String> {
    hub.said.iter().find_map(|(_, line)| match line {
        FromTrainer::GangFormed { over, .. } => over.clone(),
        _ => None,
    })
}

/// The middle one of what the reports of rank 0 say under `name`.
fn median(hub: &Hub, name: &str) -> f64 {
    let reports = hub.said.iter().filter_map(|(who, line)| match line {
        FromTrainer::Report { metrics, .. } if *who == 0 => metrics.get(name)?.as_f64(),
        _ => None,
    });
    let mut values: Vec<f64> = reports.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[test]
#[ignore = "names its device: python3 deploy/libtorch/gpu.py"]
fn the_number_of_ranks_on_the_device_changes_no_bit() {
    for recipe in recipes() {
        let (hub, last) = trained(&recipe, 12, 1, true);
        let wanted = (hub.curve(), finish(&[last]));
        for ranks in [1, 2, 3, 4, 8] {
            let (hub, last) = trained(&recipe, 12, ranks, true);
            assert_eq!((hub.curve(), finish(&[last])), wanted, "{recipe} on {ranks} ranks");
        }
        let digest = wanted.1.weights_digest.to_string();
        println!(
            "| {} on {}, 1, 2, 3, 4, 8 ranks | the same bits, {digest:.12} |",
            recipe["model"],
            device()
        );
    }
}

#[test]
#[ignore = "names its device: python3 deploy/libtorch/gpu.py"]
fn two_ranks_on_the_device_exchange_over_gloo() {
    for (ranks, exact) in [(1, true), (2, true), (2, false)] {
        let recipe =
            json!({"model": "cnn", "optimizer": "adam", "batch_size": 128, "report_every_steps": 20});
        let (hub, _) = trained(&recipe, 100, ranks, exact);
        let told = over(&hub);
        if ranks == 2 {
            assert!(told.as_deref().is_some_and(|told| told.starts_with("gloo")), "{told:?}");
        }
        let mode = if exact { "exact" } else { "fast" };
        let rate = median(&hub, "samples_per_second") / 128.0;
        let share = 100.0 * median(&hub, "communication_share");
        let told = told.unwrap_or_else(|| "alone".to_owned());
        println!(
            "| cnn on {}, {ranks} ranks, {mode}, {told} | {rate:.1} steps/s, {share:.0} % exchange |",
            device()
        );
    }
}
