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
use spotsweep_trainer::seed::{Purpose, permutation};
use std::{collections::BTreeMap, fs, path::Path};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spotsweep-trainer");
const SHARDS: u32 = 8;
/// A hung peer is waited for this long.
const IMPATIENT_MS: u64 = 1500;

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
            let mut hub = Hub::new(PROGRAM, job.clone(), PATIENT_MS);
            let members = hub.start_many(shares.ranks() as usize);
            hub.gather_with(&members, shares.clone());
            let last = hub.drive_to_end();
            assert_eq!(outcome(&hub, last), wanted, "{recipe} with {shares:?}");
            assert_eq!(hub.generation, 1, "nothing broke");
        }
    }
}

#[test]
fn a_clean_leave_and_a_join_cost_no_step_and_break_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let job = sharded(&recipes()[1], 200, folder.path());
    let job = with(job, "report_every_steps", &json!(1));
    let wanted = alone(&job);
    let mut hub = Hub::new(PROGRAM, job, PATIENT_MS);
    let members = hub.start_many(4);
    hub.gather(&members[..3]);
    hub.until_step(1, 40);
    hub.paused(1, |hub| {
        hub.gather(&[0, 1, 2, 3]);
        hub.until_ready(3);
    });
    let joined = formed(&mut hub, 3);
    hub.until_step(3, joined + 20);
    hub.paused(1, |hub| hub.gather(&[3, 1, 2]));
    let left = loop {
        if let (0, FromTrainer::Stopped { step, .. }) = hub.next() {
            break step;
        }
    };
    let last = hub.drive_to_end();
    assert_eq!(outcome(&hub, last), wanted);
    assert!(!hub.said.iter().any(|(_, line)| matches!(line, FromTrainer::GangBroken { .. })));
    // Every step was taken once by those who stayed, and the others came and went behind a step of all.
    assert_eq!(hub.steps(1), (1..=200).collect::<Vec<_>>());
    assert_eq!(hub.steps(0), (1..=left).collect::<Vec<_>>());
    assert_eq!(hub.steps(3), (joined + 1..=200).collect::<Vec<_>>());
    assert!(joined >= 40 && left >= joined + 20 && left < 200);
}

/// The step at which trainer `who` finds itself in a gang.
fn formed(hub: &mut Hub, who: usize) -> u64 {
    match hub.until(|speaker, line| {
        speaker == who && matches!(line, FromTrainer::GangFormed { shard_us: None, .. })
    }) {
        (_, FromTrainer::GangFormed { step, .. }) => step,
        other => panic!("{other:?}"),
    }
}

fn with(mut job: Job, key: &str, value: &Value) -> Job {
    job.params.insert(key.to_owned(), value.clone());
    job
}

#[test]
fn after_kill_9_the_survivors_go_on_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let job = with(sharded(&recipes()[2], 60, folder.path()), "report_every_steps", &json!(1));
    let wanted = alone(&job);
    for victim in [0, 1, 2] {
        let mut hub = Hub::new(PROGRAM, job.clone(), PATIENT_MS);
        let members = hub.start_many(3);
        hub.gather(&members);
        hub.until_step(victim, 12);
        hub.kill_9(victim);
        let last = hub.drive_to_end();
        assert_eq!(outcome(&hub, last), wanted, "{victim} was killed");
        assert_eq!(hub.generation, 2);
        let survivor = (victim + 1) % 3;
        assert_eq!(hub.steps(survivor), (1..=60).collect::<Vec<_>>(), "no step was taken twice");
        let broken: Vec<u64> = hub.said.iter().filter_map(|(_, line)| broken_at(line)).collect();
        assert_eq!(broken.len(), 2);
        let formed = hub.said.iter().rev().find_map(|(_, line)| match line {
            FromTrainer::GangFormed { step, shard_us: None, .. } => Some(*step),
            _ => None,
        });
        assert_eq!(formed, broken.iter().max().copied(), "the newest state in memory wins");
    }
}

/// The peer may be lost with its report on its way, and the coordinator takes the word of a rank that held a state for all
/// up to its step.
#[test]
fn a_rank_that_takes_over_the_newer_state_of_a_peer_reports_what_the_peer_reported() {
    let folder = tempfile::tempdir().unwrap();
    let job = with(sharded(&recipes()[1], 1_000_000, folder.path()), "report_every_steps", &json!(1));
    let mut hub = Hub::new(PROGRAM, job, IMPATIENT_MS);
    let members = hub.start_many(2);
    hub.gather(&members);
    hub.until_step(1, 5);
    hub.hang(1);
    let (_, line) = hub.until(|who, line| who == 0 && broken_at(line).is_some());
    hub.gather(&[0]);
    let broken = broken_at(&line).unwrap();
    hub.until_step(0, broken + 10);
    // It hears of both make-ups at once.
    hub.gather(&[0, 1]);
    let said = hub.said.len();
    hub.wake(1);
    let step = formed(&mut hub, 1);
    // The step in which it hung it may finish by itself, where all that it needs for that had arrived.
    let of_it = hub.said[said..].iter().filter(|(who, _)| *who == 1);
    let repeated: Vec<u64> = of_it.filter_map(reported).filter(|step| *step > broken + 1).collect();
    assert_eq!(repeated, [step], "one point, before it says that the gang formed");
    hub.until_step(0, step + 3);
    // Which finds points of one step that differ.
    assert!(hub.curve().contains_key(&step));
}

fn reported((_, line): &(usize, FromTrainer)) -> Option<u64> {
    match line {
        FromTrainer::Report { step, .. } => Some(*step),
        _ => None,
    }
}

fn broken_at(line: &FromTrainer) -> Option<u64> {
    match line {
        FromTrainer::GangBroken { step, .. } => Some(*step),
        _ => None,
    }
}

/// Kills, hangs, joins and leaves at steps drawn from a seed.
#[test]
fn interrupted_equals_uninterrupted_whoever_comes_and_goes() {
    for (recipe, steps, seed) in
        recipes().iter().zip([240, 160, 80]).zip(1_u64..).map(|((r, s), n)| (r, s, n))
    {
        let folder = tempfile::tempdir().unwrap();
        let job = with(sharded(recipe, steps, folder.path()), "report_every_steps", &json!(1));
        let wanted = alone(&job);
        let mut hub = Hub::new(PROGRAM, job, IMPATIENT_MS);
        let members = hub.start_many(3);
        hub.gather(&members);
        let draws = permutation(seed, Purpose::Order, 0, 64);
        let mut hung = Vec::new();
        for (event, draw) in draws.into_iter().take(6).enumerate() {
            if !hub.drive_to_step((event as u64 + 1) * steps / 8 + u64::from(draw) % 4) {
                break;
            }
            let mut members = hub.members();
            let chosen = members[draw as usize % members.len()];
            match (event + seed as usize) % 4 {
                0 if members.len() > 1 => hub.kill_9(chosen),
                1 if members.len() > 1 => {
                    hub.hang(chosen);
                    hung.push(chosen);
                }
                2 if members.len() > 1 => {
                    members.retain(|member| *member != chosen);
                    hub.gather(&members);
                }
                _ => {
                    if let Some(sleeper) = hung.pop() {
                        hub.wake(sleeper);
                    }
                    let newcomer = hub.start();
                    // In front: the newcomer is rank 0 now, and has no state.
                    members.insert(0, newcomer);
                    hub.gather(&members);
                }
            }
        }
        let last = hub.drive_to_end();
        assert_eq!(outcome(&hub, last), wanted, "{recipe}");
        assert!(hub.generation > 4, "only {} make-ups", hub.generation);
    }
}

#[test]
fn when_rank_0_dies_behind_the_last_step_the_next_rank_0_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let job = sharded(&recipes()[1], 15, folder.path());
    let wanted = alone(&job);
    let mut hub = Hub::new(PROGRAM, job, PATIENT_MS);
    hub.start_doomed();
    hub.start_many(2);
    hub.gather(&[0, 1, 2]);
    for who in [1, 2] {
        if !hub.steps(who).contains(&15) {
            hub.until_step(who, 15);
        }
    }
    hub.until_dead(0);
    hub.gather(&[2, 1]);
    let last = hub.drive_to_end();
    let done = hub.said.iter().filter(|(_, line)| matches!(line, FromTrainer::Done { .. }));
    assert_eq!(done.map(|(who, _)| *who).collect::<Vec<_>>(), [2], "rank 0 of the new make-up alone");
    assert_eq!(outcome(&hub, last), wanted);
    // The other one holds its state until it is told to stop.
    hub.stop(1, true);
    let weights = weights_of_the_stopped(&mut hub, 1);
    assert_eq!(weights, last_weights(&hub, 2));
}

/// The weights that trainer `who` leaves with its stop.
fn weights_of_the_stopped(hub: &mut Hub, who: usize) -> Vec<u8> {
    hub.until(|speaker, line| speaker == who && matches!(line, FromTrainer::Stopped { .. }));
    last_weights(hub, who)
}

/// The weights in the last checkpoint of trainer `who`.
fn last_weights(hub: &Hub, who: usize) -> Vec<u8> {
    let own = hub.said.iter().rev().filter(|(speaker, _)| *speaker == who);
    let files = own.filter_map(|(_, line)| match line {
        FromTrainer::Checkpoint { files, .. } => Some(files),
        _ => None,
    });
    fs::read(&files.into_iter().next().unwrap().weights).unwrap()
}

#[test]
fn any_rank_s_checkpoint_goes_on_with_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let job = with(sharded(&recipes()[2], 60, folder.path()), "report_every_steps", &json!(2));
    let wanted = alone(&job);
    let mut hub = Hub::new(PROGRAM, job.clone(), PATIENT_MS);
    let members = hub.start_many(2);
    hub.gather(&members);
    hub.until_step(1, 5);
    hub.checkpoint(0);
    hub.until(|who, line| who == 0 && matches!(line, FromTrainer::Checkpoint { last: false, .. }));
    hub.stop(1, true);
    hub.until(|who, line| who == 1 && matches!(line, FromTrainer::Stopped { .. }));
    let files = hub.said.iter().rev().find_map(|(who, line)| match line {
        FromTrainer::Checkpoint { files, .. } if *who == 1 => Some(files.clone()),
        _ => None,
    });
    let mut curve = hub.curve();
    let resumed = Job { resume: files, scratch_dir: folder.path().join("again"), ..job };
    let mut hub = Hub::new(PROGRAM, resumed, PATIENT_MS);
    let members = hub.start_many(3);
    hub.gather(&members);
    let last = hub.drive_to_end();
    let (rest, end) = outcome(&hub, last);
    curve.extend(rest);
    assert_eq!((curve, end), wanted);
}

#[test]
fn without_exactness_all_ranks_still_end_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for (number, recipe) in recipes().iter().enumerate() {
        let scratch = folder.path().join(number.to_string());
        fs::create_dir(&scratch).unwrap();
        let mut job = sharded(recipe, 12, &scratch);
        let wanted = alone(&job).0;
        job.train["exact"] = json!(false);
        let mut hub = Hub::new(PROGRAM, job, PATIENT_MS);
        let members = hub.start_many(3);
        hub.gather(&members);
        hub.drive_to_end();
        for (step, metrics) in hub.curve() {
            let loss = |metrics: &Map<String, Value>| metrics["train_loss"].as_f64().unwrap();
            assert!((loss(&metrics) / loss(&wanted[&step]) - 1.0).abs() < 1e-3, "{recipe} at {step}");
        }
        hub.stop(1, true);
        let second = weights_of_the_stopped(&mut hub, 1);
        hub.stop(2, true);
        let third = weights_of_the_stopped(&mut hub, 2);
        assert!(second == third && second == last_weights(&hub, 0), "{recipe}");
    }
}

#[test]
fn a_rank_with_peers_tells_how_fast_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut hub = Hub::new(PROGRAM, sharded(&recipes()[2], 1_000_000, folder.path()), PATIENT_MS);
    let members = hub.start_many(2);
    hub.gather(&members);
    for member in members {
        let paced = |speaker, line: &FromTrainer| {
            speaker == member && matches!(line, FromTrainer::GangFormed { shard_us: Some(_), .. })
        };
        hub.until(paced);
    }
}
