//! All chance of a run, from its seed. The same seed gives the same draws on every machine: logarithms and cosines
//! are those of `libm`.

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

    /// An index into something of this length; 0 if it is empty.
    #[expect(clippy::cast_possible_truncation, reason = "below a usize")]
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are drawn")]
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        unit
    }

    /// Seconds, uniformly between two bounds.
    pub(crate) fn between_s(&mut self, low_s: f64, high_s: f64) -> f64 {
        low_s + (high_s - low_s) * self.unit()
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Exponentially distributed with this mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }
}
