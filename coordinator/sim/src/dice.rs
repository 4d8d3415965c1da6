//! All chance of a run, from its seed.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A seeded source of chance.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// An integer in `0..below`; 0 if `below` is 0.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        // The bias of a remainder does not matter here.
        self.0.next_u64() % below.max(1)
    }

    /// Seconds, uniformly between two bounds.
    pub(crate) fn between_s(&mut self, low_s: f64, high_s: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are drawn")]
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        low_s + (high_s - low_s) * unit
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
