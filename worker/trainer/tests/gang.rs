//! Promise 2, for many trainers: a trial in shards ends with the same bits on any number of ranks, whoever comes, goes or
//! dies meanwhile.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

mod common;
mod hub;

use common::{Finish, curve, finish, job, run};
use hub::{Hub, PATIENT_MS};
use serde_json::{Map, Value, json};
use spotsweep_proto::{
    gang::Shares,
    line::{FromTrainer, Job},
};
use std::{collections::BTreeMap, fs, path::Path};

const SHARDS: u32 = 8;

/// Of every kind: linear; dropout; dropout, batch norm and clipping.
fn recipes() -> [Value; 3] {
    [
        json!({"model": "softmax", "optimizer": "sgd", "momentum": 0.9}),
        json!({"model": "mlp", "hidden": [24], "dropout": 0.4, "optimizer": "adam"}),
        json!({"model": "cnn", "channels": [3, 4], "dense": 12, "dropout": 0.3, "batch_norm": true,
               "optimizer": "adamw", "clip_norm": 0.5}),
    ]
}

fn sharded(recipe: &Value, steps: u64, scratch: &Path) -> Job {
    let mut job = job(recipe, steps, scratch);
    job.train["shards"] = json!(SHARDS);
    // Not a multiple: a validation split that leaves shards of different sizes.
    job.params.insert("validation_fraction".into(), json!(0.03));
    job
}

type Curve = BTreeMap<u64, Map<String, Value>>;

/// What one process alone makes of `job`.
fn alone(job: &Job) -> (Curve, Finish) {
    let lines = run(job, []);
    (curve(&lines).into_iter().collect(), finish(&lines))
}

fn outcome(hub: &Hub, last: FromTrainer) -> (Curve, Finish) {
    (hub.curve(), finish(&[last]))
}

#[test]
fn the_number_of_ranks_changes_no_bit() {
    for recipe in recipes() {
        let folder = tempfile::tempdir().unwrap();
        let job = sharded(&recipe, 12, folder.path());
        let wanted = alone(&job);
        let mut shares: Vec<Shares> = [1, 2, 3, 4, 8].map(|ranks| Shares::even(SHARDS, ranks)).to_vec();
        shares.push(Shares::new(vec![0, 1, 6], SHARDS).unwrap());
        for shares in shares {
            let mut hub = Hub::new(job.clone(), PATIENT_MS);
            let members = hub.start_many(shares.ranks() as usize);
            hub.gather_with(&members, shares.clone());
            let last = hub.to_end();
            assert_eq!(outcome(&hub, last), wanted, "{recipe} with {shares:?}");
            assert_eq!(hub.generation, 1, "nothing broke");
        }
    }
}
