//! Which samples are held out, and in which order they are stored. Pure.
//!
//! The order is kept, unless the source has its samples grouped by class: then a contiguous range, which is what a
//! shard is, would hold few classes, and a fixed permutation takes the order's place.

use clap::ValueEnum;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use spotsweep_proto::datasets::manifest::SampleOrder;

/// One seed for all data sets: the permutation of n samples depends on n alone.
const SEED: [u8; 32] = *b"spotsweep data set permutation 1";

/// What the user wants of the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OrderChoice {
    /// Shuffled where the source is grouped by class.
    #[default]
    Auto,
    /// As the source has it.
    Kept,
    /// In the fixed permutation.
    Shuffled,
}

/// Places in the source, in the order in which they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arranged {
    /// Of the training part.
    pub(super) order: SampleOrder,
    /// Places of the samples to train on; `None` for all, in order.
    pub(super) train: Option<Vec<u32>>,
    /// Places, in the same source, of the samples that are held out for testing.
    pub(super) held_out: Vec<u32>,
}

/// Whether equal labels stand together: more than half of the way from what chance would give (Σ pᵢ², for shares pᵢ
/// of the classes) to all neighbours being equal.
#[must_use]
fn is_grouped(labels: &[u16]) -> bool {
    let mut counts = std::collections::BTreeMap::<u16, u64>::new();
    for label in labels {
        *counts.entry(*label).or_default() += 1;
    }
    if labels.len() < 2 || counts.len() < 2 {
        return false;
    }
    let n = labels.len() as f64;
    let chance: f64 = counts.values().map(|&count| (count as f64 / n).powi(2)).sum();
    let equal = labels.windows(2).filter(|pair| pair[0] == pair[1]).count() as f64 / (n - 1.0);
    equal > f64::midpoint(1.0, chance)
}

/// Arranges samples with these labels, holding out a share of them, rounded down.
#[must_use]
pub(super) fn arrange(labels: &[u16], choice: OrderChoice, held_out_share: f64) -> Arranged {
    let samples = u32::try_from(labels.len()).unwrap_or(u32::MAX);
    let shuffle = match choice {
        OrderChoice::Auto => is_grouped(labels),
        OrderChoice::Kept => false,
        OrderChoice::Shuffled => true,
    };
    let order = if shuffle { SampleOrder::Shuffled } else { SampleOrder::Kept };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
    let out = (f64::from(samples) * held_out_share.clamp(0.0, 1.0)).floor() as usize;
    if !shuffle && out == 0 {
        return Arranged { order, train: None, held_out: Vec::new() };
    }
    let mut held_out = permutation(samples);
    let mut train = held_out.split_off(out);
    if !shuffle {
        train.sort_unstable();
        held_out.sort_unstable();
    }
    Arranged { order, train: Some(train), held_out }
}

/// Fisher and Yates's shuffle in Durstenfeld's form (1964), drawing from ChaCha8 (Bernstein, 2008) by Lemire's method
/// without bias (2019).
fn permutation(len: u32) -> Vec<u32> {
    let mut rng = ChaCha8Rng::from_seed(SEED);
    let mut below = |bound: u32| loop {
        let wide = u64::from(rng.next_u32()) * u64::from(bound);
        if wide & 0xffff_ffff >= u64::from(bound.wrapping_neg() % bound) {
            return (wide >> 32) as usize;
        }
    };
    let mut places: Vec<u32> = (0..len).collect();
    for last in (1..len).rev() {
        places.swap(last as usize, below(last + 1));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_in_groups_are_seen_and_mixed_ones_are_left_alone() {
        let sorted: Vec<u16> = (0..1000).map(|i| i / 100).collect();
        let mixed: Vec<u16> = permutation(1000).iter().map(|&i| (i % 10) as u16).collect();
        assert!(is_grouped(&sorted) && !is_grouped(&mixed));
        assert!(!is_grouped(&[]) && !is_grouped(&[1]) && !is_grouped(&[3; 50]), "one class is no group");
        assert_eq!(arrange(&mixed, OrderChoice::Auto, 0.0).train, None);
        let shuffled = arrange(&sorted, OrderChoice::Auto, 0.0);
        assert_eq!(shuffled.order, SampleOrder::Shuffled);
        let labels: Vec<u16> = shuffled.train.unwrap().iter().map(|&i| sorted[i as usize]).collect();
        assert!(labels.chunks(100).all(|range| (0..10).all(|class| range.contains(&class))));
    }

    #[test]
    fn the_permutation_is_the_same_for_ever() {
        assert_eq!(permutation(8), permutation(8));
        let text = permutation(1000).iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        insta::assert_snapshot!(spotsweep_proto::digest::Digest::of(text.as_bytes()).to_string());
    }

    proptest! {
        #[test]
        fn every_sample_is_in_one_part(
            labels in prop::collection::vec(0u16..4, 0..300), share in 0.0f64..=0.5, shuffle: bool,
        ) {
            let choice = if shuffle { OrderChoice::Shuffled } else { OrderChoice::Auto };
            let Arranged { train, held_out, .. } = arrange(&labels, choice, share);
            let mut all = train.unwrap_or_else(|| (0..labels.len() as u32).collect());
            prop_assert_eq!(held_out.len(), (labels.len() as f64 * share).floor() as usize);
            all.extend(held_out);
            all.sort_unstable();
            prop_assert_eq!(all, (0..labels.len() as u32).collect::<Vec<_>>());
        }
    }
}
