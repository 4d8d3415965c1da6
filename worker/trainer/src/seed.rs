//! Where everything random comes from: a value for each purpose and counter, derived from the trial's seed.
//!
//! Nothing draws from a generator that runs on from step to step. Step 700 draws the same numbers whether or
//! not steps 1 to 699 ran in this process, so no generator state is part of a checkpoint.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What randomness is for. Each purpose has its own, independent stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Initial weights; the counter is the parameter's place in the model.
    Init,
    /// Which samples are held out for validation.
    Split,
    /// The order of samples; the counter is the pass over the data, from 0.
    Order,
    /// Dropout masks; the counter is the step, from 0.
    Dropout,
    /// What a model of one's own draws while it is built, besides its weights.
    OwnInit,
    /// What a model draws while it is evaluated, if it should; the counter is the number of finished steps.
    Evaluation,
}

impl Purpose {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Init => b"init",
            Self::Split => b"split",
            Self::Order => b"order",
            Self::Dropout => b"dropout",
            Self::OwnInit => b"own init",
            Self::Evaluation => b"evaluation",
        }
    }
}

/// Key derivation context of BLAKE3: changing it changes every result there is.
const CONTEXT: &str = "spotsweep trainer random numbers v1";

/// What all streams begin from: the trial's seed, and for what a shard draws on its own, the shard. Never the rank that
/// carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    seed: u64,
    shard: Option<u32>,
}

impl From<u64> for Origin {
    fn from(seed: u64) -> Self {
        Self { seed, shard: None }
    }
}

impl Origin {
    /// The streams of shard `shard` of `shards`; the trial's own if that is all of it.
    #[must_use]
    pub fn of_shard(seed: u64, shard: u32, shards: u32) -> Self {
        Self { seed, shard: (shards > 1).then_some(shard) }
    }
}

fn derive(origin: Origin, purpose: Purpose, counter: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&origin.seed.to_le_bytes());
    hasher.update(&counter.to_le_bytes());
    hasher.update(purpose.name());
    if let Some(shard) = origin.shard {
        hasher.update(b" of shard ");
        hasher.update(&shard.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Seeds libtorch's generators, of all devices, for one purpose and counter.
pub fn seed_torch(origin: impl Into<Origin>, purpose: Purpose, counter: u64) {
    let bytes = derive(origin.into(), purpose, counter);
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    tch::manual_seed(i64::from_le_bytes(first));
}

/// A permutation of `0..len`: Fisher and Yates's shuffle in Durstenfeld's form (1964), drawing from ChaCha8
/// (Bernstein, 2008) by Lemire's method without bias (2019).
#[must_use]
pub fn permutation(origin: impl Into<Origin>, purpose: Purpose, counter: u64, len: u32) -> Vec<u32> {
    let mut rng = ChaCha8Rng::from_seed(derive(origin.into(), purpose, counter));
    let mut items: Vec<u32> = (0..len).collect();
    for last in (1..len).rev() {
        items.swap(last as usize, below(&mut rng, last + 1) as usize);
    }
    items
}

/// A number in `0..bound`, each equally likely.
fn below(rng: &mut ChaCha8Rng, bound: u32) -> u32 {
    let mut wide = u64::from(rng.next_u32()) * u64::from(bound);
    let reject_below = bound.wrapping_neg() % bound;
    while (wide as u32) < reject_below {
        wide = u64::from(rng.next_u32()) * u64::from(bound);
    }
    (wide >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_holds_every_number_once_and_depends_on_every_input() {
        let base = permutation(1, Purpose::Order, 0, 1000);
        let mut sorted = base.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(base, permutation(1, Purpose::Order, 0, 1000));
        for other in [
            permutation(2, Purpose::Order, 0, 1000),
            permutation(1, Purpose::Split, 0, 1000),
            permutation(1, Purpose::Order, 1, 1000),
            permutation(Origin::of_shard(1, 0, 2), Purpose::Order, 0, 1000),
            permutation(Origin::of_shard(1, 1, 2), Purpose::Order, 0, 1000),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_order_of_samples_is_the_same_in_every_version() {
        let wanted = [0, 7, 6, 5, 4, 2, 1, 3];
        assert_eq!(permutation(1, Purpose::Order, 0, 8), wanted);
        assert_eq!(permutation(Origin::of_shard(1, 0, 1), Purpose::Order, 0, 8), wanted);
    }

    #[test]
    fn every_place_is_equally_likely() {
        let mut counts = [[0_u32; 4]; 4];
        for counter in 0..4000 {
            for (place, item) in permutation(7, Purpose::Order, counter, 4).into_iter().enumerate() {
                counts[place][item as usize] += 1;
            }
        }
        // 1000 expected; the standard deviation is 27.
        assert!(counts.iter().flatten().all(|count| (880..1120).contains(count)), "{counts:?}");
    }
}
