//! A trial's data in shards: which samples each one owns, for training, validation and test. With one shard that is
//! everything, as if there were no shards.
//!
//! Every process that trains the trial makes the same shards, whichever it carries: all is a function of the recipe.

use crate::{
    data::{order::Order, split::Split},
    error::TrainError,
    evaluate::Which,
    seed::Origin,
};
use spotsweep_proto::train::TrainConfig;
use std::ops::Range;
use tch::{Device, Tensor};

/// The samples of one shard.
#[derive(Debug)]
pub struct Shard {
    /// Its batches of training samples.
    pub order: Order,
    /// Where its dropout masks come from.
    pub origin: Origin,
    /// Places of its held-out samples in the training set, on the device.
    validation: Option<Tensor>,
    /// Its samples of the test set.
    test: Range<i64>,
}

impl Shard {
    /// Its held-out samples; `None` if it has none.
    #[must_use]
    pub fn validation(&self) -> Option<Which<'_>> {
        self.validation.as_ref().map(Which::At)
    }

    /// Its samples of the test set.
    #[must_use]
    pub fn test(&self) -> Which<'static> {
        Which::From { start: self.test.start, count: self.test.end - self.test.start }
    }
}

/// Which samples of `samples` shard `shard` of `shards` owns: equal parts, as far as can be, in the order of the file.
#[must_use]
pub fn range(samples: u64, shard: u32, shards: u32) -> Range<u64> {
    let (shard, shards) = (u64::from(shard), u64::from(shards.max(1)));
    samples * shard / shards..samples * (shard + 1) / shards
}

/// Divides a data set of `samples` training samples in `split` and `test_samples` test samples as `config` says. A pass
/// over the data takes as many steps as the largest shard needs.
///
/// # Errors
/// What libtorch threw.
pub fn divide(
    config: &TrainConfig,
    split: &Split,
    samples: u32,
    test_samples: i64,
    device: Device,
) -> Result<Vec<Shard>, TrainError> {
    let shards = config.shards.max(1);
    let mut all = (0..shards)
        .map(|shard| {
            let own = range(u64::from(samples), shard, shards);
            let within = |places: &[u32]| -> Vec<u32> {
                places.iter().copied().filter(|&place| own.contains(&u64::from(place))).collect()
            };
            let origin = Origin::of_shard(config.seed, shard, shards);
            let held_out: Vec<i64> = within(&split.validation).into_iter().map(i64::from).collect();
            let test = range(test_samples.unsigned_abs(), shard, shards);
            Ok(Shard {
                order: Order::new(within(&split.train), config.batch_size / shards, origin, device),
                origin,
                validation: if held_out.is_empty() {
                    None
                } else {
                    Some(Tensor::f_from_slice(&held_out)?.f_to_device(device)?)
                },
                test: test.start as i64..test.end as i64,
            })
        })
        .collect::<Result<Vec<Shard>, TrainError>>()?;
    let steps = all.iter().map(|shard| shard.order.steps_per_epoch()).max().unwrap_or(1);
    for shard in &mut all {
        shard.order.lengthen(steps);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_own_every_sample_once_in_parts_that_differ_by_one() {
        for (samples, shards) in [(10, 3), (60_000, 256), (5, 8), (7, 1)] {
            let parts: Vec<_> = (0..shards).map(|shard| range(samples, shard, shards)).collect();
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, samples));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes = parts.iter().map(|part| part.end - part.start);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
    }
}
