//! Which training samples are held out for validation: a function of the seed and the share alone.

use crate::seed::{Purpose, permutation};

/// Places in the training set, each in one of the two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Trained on.
    pub train: Vec<u32>,
    /// Held out.
    pub validation: Vec<u32>,
}

/// Holds out `share` of `samples` samples, rounded down, drawn at random.
#[must_use]
pub fn split(samples: u32, share: f64, seed: u64) -> Split {
    let held_out = (f64::from(samples) * share.clamp(0.0, 1.0)).floor() as usize;
    let mut validation = permutation(seed, Purpose::Split, 0, samples);
    let mut train = validation.split_off(held_out);
    // In the order of the file: neighbours in memory are read together.
    train.sort_unstable();
    validation.sort_unstable();
    Split { train, validation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_one_part_and_the_share_is_rounded_down() {
        let Split { train, validation } = split(1001, 0.1, 3);
        assert_eq!((train.len(), validation.len()), (901, 100));
        let mut all = [train, validation].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1001).collect::<Vec<_>>());
        assert!(split(10, 0.0, 3).validation.is_empty());
    }

    #[test]
    fn the_split_depends_on_the_seed_alone() {
        assert_eq!(split(100, 0.2, 5), split(100, 0.2, 5));
        assert_ne!(split(100, 0.2, 5), split(100, 0.2, 6));
    }
}
