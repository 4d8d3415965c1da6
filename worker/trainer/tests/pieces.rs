//! Added data of a gang: a rank reads the pieces of its own shards, when they are said to be there, and late ones stall the
//! gang and change no bit.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

mod common;
mod hub;

use common::{curve, finish, job, run};
use hub::{Hub, PATIENT_MS};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use spotsweep_proto::{
    datasets::manifest::{
        DATA_FORMAT, DataManifest, DataPart, ElementType, IMAGES, LABELS, LabelType, MANIFEST_FILE, Piece,
        SampleOrder, pieces_for,
    },
    digest::Digest,
    line::{FromTrainer, Job},
};
use std::{fs, ops::Range, path::PathBuf};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spotsweep-trainer");
const SHARDS: u32 = 8;
/// Samples to train on and to test on, in pieces of [`EACH`].
const SAMPLES: [(DataPart, u32); 2] = [(DataPart::Train, 320), (DataPart::Test, 64)];
/// Not a divisor of a shard: pieces lie across the ends of shards.
const EACH: u32 = 24;
const PIXELS: u32 = 9;

/// A made-up data set, and a folder in which as much of it lies as a rank was given.
struct Data {
    folder: tempfile::TempDir,
    manifest: DataManifest,
    digest: Digest,
}

impl Data {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["all", "given", "scratch"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mut pieces = Vec::new();
        for (part, samples) in SAMPLES {
            for first in (0..samples).step_by(EACH as usize) {
                let count = EACH.min(samples - first);
                let content = content(part, first, count);
                let digest = Digest::of(&content);
                fs::write(folder.path().join("all").join(digest.to_string()), &content).unwrap();
                pieces.push(Piece { digest, bytes: content.len() as u64, part, first, count });
            }
        }
        let manifest = DataManifest {
            format: DATA_FORMAT,
            shape: [1, 3, 3],
            elements: ElementType::U8,
            labels: LabelType::U8,
            mean: vec![0.5],
            std: vec![0.25],
            classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            order: SampleOrder::Kept,
            train_samples: SAMPLES[0].1,
            test_samples: SAMPLES[1].1,
            pieces,
        };
        let (bytes, digest) = manifest.encode();
        for name in ["all", "given"] {
            fs::write(folder.path().join(name).join(MANIFEST_FILE), &bytes).unwrap();
        }
        Self { folder, manifest, digest }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn job(&self, steps: u64, folder: &str) -> Job {
        let recipe = json!({"model": "mlp", "hidden": [8], "dropout": 0.3, "report_every_steps": 1});
        let mut job = job(&recipe, steps, &self.path("scratch"));
        job.train["data"] = json!(format!("made@blake3:{}", self.digest));
        job.train["shards"] = json!(SHARDS);
        job.data_dir = Some(self.path(folder));
        job
    }

    /// Lays the pieces of `shards` into the folder of the gang, all but those at `without`.
    fn give(&self, shards: Range<u32>, without: &[usize]) {
        for place in pieces_for(&self.manifest, &[shards], SHARDS) {
            if !without.contains(&place) {
                let name = self.manifest.pieces[place].digest.to_string();
                fs::copy(self.path("all").join(&name), self.path("given").join(&name)).unwrap();
            }
        }
    }

    fn given(&self) -> usize {
        fs::read_dir(self.path("given")).unwrap().count() - 1
    }
}

fn content(part: DataPart, first: u32, count: u32) -> Vec<u8> {
    let seed = first * 31 + u32::from(part == DataPart::Test) * 7;
    let labels: Vec<u8> = (0..count).map(|i| ((seed + i * 5) % 3) as u8).collect();
    let images: Vec<u8> = (0..count * PIXELS)
        .map(|i| ((i * 37 + seed) % 200) as u8 + labels[(i / PIXELS) as usize] * 20)
        .collect();
    let count = count as usize;
    let images = TensorView::new(Dtype::U8, vec![count, 1, 3, 3], &images).unwrap();
    let labels = TensorView::new(Dtype::U8, vec![count], &labels).unwrap();
    safetensors::serialize([(IMAGES, images), (LABELS, labels)], None).unwrap()
}

/// Waits until all of `members` have formed generation `wanted`.
fn all_formed(hub: &mut Hub, members: &[usize], wanted: u64) {
    for &member in members {
        let has = |who: usize, line: &FromTrainer| {
            who == member
                && matches!(line, FromTrainer::GangFormed { generation, .. } if generation.0 == wanted)
        };
        if !hub.said.iter().any(|(who, line)| has(*who, line)) {
            hub.until(has);
        }
    }
}

#[test]
fn late_pieces_stall_a_gang_and_change_no_bit() {
    let data = Data::make();
    let lines = run(&data.job(60, "all"), []);
    let wanted = (curve(&lines).into_iter().collect(), finish(&lines));
    let mut hub = Hub::new(PROGRAM, data.job(60, "given"), PATIENT_MS);
    let members = hub.start_many(2);
    hub.gather(&members);
    // The first rank has its data; the other one is not waited for before they connect.
    data.give(0..4, &[]);
    assert!(data.given() < data.manifest.pieces.len());
    hub.data(0, 0..4);
    all_formed(&mut hub, &members, 1);
    assert!(hub.steps(0).is_empty(), "no step without all data");
    data.give(4..8, &[]);
    hub.data(1, 4..8);
    hub.until_step(0, 10);
    // One is lost, and the other has to get what it carried.
    hub.kill_9(1);
    hub.until(|_, line| matches!(line, FromTrainer::GangBroken { .. }));
    let steps = hub.steps(0);
    hub.gather(&[0]);
    all_formed(&mut hub, &[0], 2);
    assert_eq!(hub.steps(0), steps, "it waits");
    hub.data(0, 0..8);
    let last = hub.drive_to_end();
    assert_eq!((hub.curve(), finish(&[last])), wanted);
    assert_eq!(hub.generation, 2, "nothing broke but once");
}

#[test]
fn while_a_newcomer_s_pieces_come_the_others_train_on() {
    let data = Data::make();
    let steps = 300;
    let lines = run(&data.job(steps, "all"), []);
    let wanted = (curve(&lines).into_iter().collect(), finish(&lines));
    data.give(0..8, &[]);
    let mut hub = Hub::new(PROGRAM, data.job(steps, "given"), PATIENT_MS);
    let members = hub.start_many(3);
    hub.gather(&members[..2]);
    hub.data(0, 0..4);
    hub.data(1, 4..8);
    hub.until_step(0, 5);
    hub.gather(&members);
    hub.data(1, 3..6);
    let told = *hub.steps(0).last().unwrap();
    hub.until_step(0, told + 20);
    let formed =
        |line: &FromTrainer| matches!(line, FromTrainer::GangFormed { generation, .. } if generation.0 == 2);
    assert!(!hub.said.iter().any(|(_, line)| formed(line)), "nobody waits for it");
    hub.data(2, 6..8);
    all_formed(&mut hub, &members, 2);
    let last = hub.drive_to_end();
    assert_eq!((hub.curve(), finish(&[last])), wanted);
    assert!(!hub.said.iter().any(|(_, line)| matches!(line, FromTrainer::GangBroken { .. })));
    assert!(!hub.steps(2).is_empty());
}

#[test]
#[should_panic(expected = "piece 5 (training samples 120 to 143) is missing")]
fn a_piece_that_is_not_where_it_was_said_to_be_is_named() {
    let data = Data::make();
    data.give(0..8, &[5]);
    let mut hub = Hub::new(PROGRAM, data.job(20, "given"), PATIENT_MS);
    let members = hub.start_many(2);
    hub.gather(&members);
    hub.data(0, 0..4);
    hub.data(1, 4..8);
    hub.drive_to_end();
}
