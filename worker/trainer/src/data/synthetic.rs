//! A made-up data set for tests and first steps: needs no files and no network, and is the same to the bit on
//! every machine (integers only).
//!
//! Each class is a fixed pattern of bright tents on a dark ground. A sample is its class's pattern, shifted by
//! up to two pixels and drowned in noise, so that it is learnt in seconds but not at once.

use super::{RawData, RawSamples, Scaling};
use crate::models::Shape;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use spotsweep_proto::{catalogue::Dataset, datasets::manifest::ElementType};

/// Bright tents of one class.
const TENTS: usize = 4;
/// How much darker a tent gets with each pixel of distance.
const SLOPE: i32 = 45;
/// Farthest shift, in pixels.
const SHIFT: u32 = 2;
/// Noise is uniform in −NOISE ..= NOISE.
const NOISE: u32 = 90;
/// One seed for all.
const SEED: [u8; 32] = *b"spotsweep synthetic data set v1\0";

/// Makes it, in the sizes that the catalogue gives.
#[must_use]
pub fn make(dataset: &Dataset) -> RawData {
    let [channels, height, width] = dataset.shape;
    let mut rng = ChaCha8Rng::from_seed(SEED);
    let patterns: Vec<Vec<(i32, i32)>> = (0..dataset.classes)
        .map(|_| (0..TENTS).map(|_| (draw(&mut rng, 3, height - 4), draw(&mut rng, 3, width - 4))).collect())
        .collect();
    let mut samples = |count: u32| {
        let mut made = RawSamples { images: Vec::new(), labels: Vec::new() };
        for _ in 0..count {
            let label = rng.next_u32() % u32::from(dataset.classes);
            made.labels.push(label as u16);
            let (dy, dx) = (draw(&mut rng, 0, 2 * SHIFT), draw(&mut rng, 0, 2 * SHIFT));
            let shift = (dy - SHIFT as i32, dx - SHIFT as i32);
            for y in 0..height as i32 {
                for x in 0..width as i32 {
                    let bright = brightness(&patterns[label as usize], y - shift.0, x - shift.1);
                    let noise = draw(&mut rng, 0, 2 * NOISE) - NOISE as i32;
                    made.images.push((bright + noise).clamp(0, 255) as u8);
                }
            }
        }
        made
    };
    let train = samples(dataset.train_samples);
    let test = samples(dataset.test_samples);
    RawData {
        shape: Shape {
            channels: i64::from(channels),
            height: i64::from(height),
            width: i64::from(width),
            classes: i64::from(dataset.classes),
        },
        elements: ElementType::U8,
        train,
        test,
        scaling: Scaling::all(dataset.pixel_mean, dataset.pixel_std),
    }
}

/// A number in `low..=high`. Its slight bias is part of the data set.
fn draw(rng: &mut ChaCha8Rng, low: u32, high: u32) -> i32 {
    (low + rng.next_u32() % (high - low + 1)) as i32
}

fn brightness(tents: &[(i32, i32)], y: i32, x: i32) -> i32 {
    tents.iter().map(|(ty, tx)| 255 - SLOPE * ((y - ty).abs() + (x - tx).abs())).max().unwrap_or(0).max(0)
}
