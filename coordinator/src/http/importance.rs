//! How much each hyperparameter alone explains of a metric: the main effect of a one-way analysis of variance, as ε².
//!
//! The values of a parameter are put into at most [`BINS`] groups: text and few numbers by value, many numbers at
//! quantiles, so that a group has [`PER_GROUP`] trials. ε² = (SS_between − (k − 1)·MS_within) / SS_total is the share of the metric's variance that the group
//! means explain, less what k groups of chance would (T. L. Kelley, "An Unbiased Correlation Ratio Measure", PNAS 21,
//! 1935). Interactions of parameters count for none of them. Pure.

use std::collections::BTreeMap;

/// Most groups of one parameter.
const BINS: usize = 8;
/// Trials of a group on average, at least: with fewer, the means are noise.
const PER_GROUP: usize = 4;
/// Fewer trials say nothing.
pub const LEAST_TRIALS: usize = 8;

/// A value of a parameter, as far as grouping goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Level {
    /// A number.
    Number(f64),
    /// Anything else, by its text.
    Text(String),
}

/// The share of the variance of `values` that the groups of `levels` explain, in [0, 1]; both have one entry a trial.
/// `None` if there is nothing to explain, nothing varies, or there are too few trials.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of trials are below 2^53")]
pub fn epsilon_squared(levels: &[Level], values: &[f64]) -> Option<f64> {
    let groups = groups(levels);
    let kinds = groups.iter().max()? + 1;
    let n = values.len().min(groups.len());
    if n < LEAST_TRIALS || kinds < 2 || n < 2 * kinds {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let total: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if !total.is_finite() || total <= 0.0 {
        return None;
    }
    let mut sums = vec![(0.0, 0.0); kinds];
    for (group, value) in groups.iter().zip(values) {
        sums[*group].0 += value;
        sums[*group].1 += 1.0;
    }
    let present = sums.iter().filter(|(_, count)| *count > 0.0);
    let between: f64 = present.map(|(sum, count)| count * (sum / count - mean).powi(2)).sum();
    let within = (total - between).max(0.0) / (n - kinds) as f64;
    Some(((between - (kinds - 1) as f64 * within) / total).clamp(0.0, 1.0))
}

/// The group of each level, from 0 without gaps.
fn groups(levels: &[Level]) -> Vec<usize> {
    let mut numbers: Vec<f64> = levels
        .iter()
        .filter_map(|level| match level {
            Level::Number(number) => Some(*number),
            Level::Text(_) => None,
        })
        .collect();
    numbers.sort_by(f64::total_cmp);
    let mut distinct = numbers.clone();
    distinct.dedup();
    // Upper ends of the bins, but for the last.
    let bins = (levels.len() / PER_GROUP).clamp(2, BINS);
    let mut cuts: Vec<f64> = if distinct.len() <= bins {
        distinct
    } else {
        (1..bins).map(|k| numbers[k * numbers.len() / bins]).collect()
    };
    cuts.dedup();
    let mut names: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    let keys: Vec<(usize, &str)> = levels
        .iter()
        .map(|level| match level {
            Level::Number(number) => (cuts.partition_point(|cut| cut < number), ""),
            Level::Text(text) => (usize::MAX, text.as_str()),
        })
        .collect();
    for key in &keys {
        let next = names.len();
        names.entry(*key).or_insert(next);
    }
    keys.iter().filter_map(|key| names.get(key).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(values: impl IntoIterator<Item = f64>) -> Vec<Level> {
        values.into_iter().map(Level::Number).collect()
    }

    #[test]
    fn a_parameter_that_decides_everything_explains_everything() {
        let levels: Vec<Level> =
            (0..12).map(|n| Level::Text(if n % 2 == 0 { "a" } else { "b" }.to_owned())).collect();
        let values: Vec<f64> = (0..12).map(|n| f64::from(n % 2)).collect();
        assert_eq!(epsilon_squared(&levels, &values), Some(1.0));
    }

    #[test]
    fn the_share_is_that_of_the_textbook() {
        // Groups 1, 2, 3 and 4, 5, 6 and 7, 8, 9: SS_total 60, SS_between 54, MS_within 1, so ε² = (54 − 2) / 60.
        let text = |index: usize| Level::Text(["a", "b", "c"][index / 3].to_owned());
        let levels: Vec<Level> = (0..9).map(text).collect();
        let values: Vec<f64> = (1..=9).map(f64::from).collect();
        let share = epsilon_squared(&levels, &values).unwrap();
        assert!((share - 52.0 / 60.0).abs() < 1e-12, "{share}");
    }

    #[test]
    fn chance_explains_next_to_nothing() {
        // A fixed, patternless order.
        let values: Vec<f64> = (0..400u32).map(|n| f64::from(n.wrapping_mul(2_654_435_761) >> 16)).collect();
        let levels = numbers((0..400u32).map(|n| f64::from(n.wrapping_mul(40_503).rotate_left(7) % 1000)));
        assert!(epsilon_squared(&levels, &values).unwrap() < 0.05);
    }

    #[test]
    fn nothing_is_said_of_what_does_not_vary() {
        let same = numbers([1.0; 20]);
        let varied: Vec<f64> = (0..20).map(f64::from).collect();
        assert_eq!(epsilon_squared(&same, &varied), None);
        assert_eq!(epsilon_squared(&numbers(varied.clone()), &[1.0; 20]), None);
        assert_eq!(epsilon_squared(&numbers([1.0, 2.0]), &[1.0, 2.0]), None);
        assert_eq!(epsilon_squared(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn a_share_is_one(data in proptest::collection::vec((-1e3..1e3f64, -1e3..1e3f64), 0..200)) {
            let levels = numbers(data.iter().map(|(level, _)| *level));
            let values: Vec<f64> = data.iter().map(|(_, value)| *value).collect();
            if let Some(share) = epsilon_squared(&levels, &values) {
                prop_assert!((0.0..=1.0).contains(&share));
            }
        }
    }
}
