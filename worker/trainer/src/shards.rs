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
use spotsweep_proto::{datasets::manifest::shard_samples, train::TrainConfig};
use tch::{Device, Tensor};

/// The samples of one shard.
#[derive(Debug)]
pub struct Shard {
    /// Its batches, as places among its own training samples.
    pub order: Order,
    /// Where its dropout masks come from.
    pub origin: Origin,
    /// Places of its held-out samples among its own of the training set, on the device.
    validation: Option<Tensor>,
    /// How many samples of the test set it has.
    test: i64,
}

impl Shard {
    /// Its held-out samples; `None` if it has none.
    #[must_use]
    pub fn validation(&self) -> Option<Which<'_>> {
        self.validation.as_ref().map(Which::At)
    }

    /// All its samples of the test set.
    #[must_use]
    pub fn test(&self) -> Which<'static> {
        Which::From { start: 0, count: self.test }
    }
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
    test_samples: u32,
    device: Device,
) -> Result<Vec<Shard>, TrainError> {
    let shards = config.shards.max(1);
    let mut all = (0..shards)
        .map(|shard| {
            let own = shard_samples(samples, shard, shards);
            let within = |places: &[u32]| -> Vec<u32> {
                places.iter().filter(|place| own.contains(*place)).map(|place| place - own.start).collect()
            };
            let origin = Origin::of_shard(config.seed, shard, shards);
            let held_out: Vec<i64> = within(&split.validation).into_iter().map(i64::from).collect();
            Ok(Shard {
                order: Order::new(within(&split.train), config.batch_size / shards, origin, device),
                origin,
                validation: if held_out.is_empty() {
                    None
                } else {
                    Some(Tensor::f_from_slice(&held_out)?.f_to_device(device)?)
                },
                test: shard_samples(test_samples, shard, shards).len() as i64,
            })
        })
        .collect::<Result<Vec<Shard>, TrainError>>()?;
    let steps = all.iter().map(|shard| shard.order.steps_per_epoch()).max().unwrap_or(1);
    for shard in &mut all {
        shard.order.lengthen(steps);
    }
    Ok(all)
}
