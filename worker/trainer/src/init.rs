//! Initial weights. Biases start at zero, scales at one.

use crate::seed::{Purpose, seed_torch};
use spotsweep_proto::train::Init;
use tch::{Device, Kind, Tensor};

/// The number of inputs and outputs of a weight tensor: a dense layer's widths; for a convolution, channels
/// times the kernel's area.
#[derive(Debug, Clone, Copy)]
pub struct Fans {
    /// Values that each output sums over.
    pub fan_in: i64,
    /// Outputs that each input reaches.
    pub fan_out: i64,
}

/// Draws the weights of the `place`-th parameter of a model, as f32 on the CPU whatever the device.
pub fn weights(init: Init, shape: &[i64], fans: Fans, seed: u64, place: u64) -> Tensor {
    seed_torch(seed, Purpose::Init, place);
    let mut weights = Tensor::empty(shape, (Kind::Float, Device::Cpu));
    let (fan_in, fan_out) = (fans.fan_in as f64, fans.fan_out as f64);
    match init {
        // Glorot & Bengio, 2010, equation 16.
        Init::Xavier => {
            let limit = (6.0 / (fan_in + fan_out)).sqrt();
            weights.uniform_(-limit, limit)
        }
        // He et al., 2015, equation 10.
        Init::He => weights.normal_(0.0, (2.0 / fan_in).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    /// libtorch's generators belong to the process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn weights_have_the_variance_of_their_paper() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let fans = Fans { fan_in: 300, fan_out: 100 };
        for (init, want) in [(Init::Xavier, 2.0 / 400.0), (Init::He, 2.0 / 300.0)] {
            let drawn = weights(init, &[100, 300], fans, 1, 0);
            let variance = drawn.var(true).double_value(&[]);
            assert!((variance / want - 1.0).abs() < 0.03, "{init:?}: {variance}, not {want}");
            assert!(drawn.mean(Kind::Float).double_value(&[]).abs() < 0.002);
        }
    }

    #[test]
    fn weights_depend_on_seed_and_place_alone() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let fans = Fans { fan_in: 4, fan_out: 4 };
        let draw = |seed, place| weights(Init::He, &[4, 4], fans, seed, place);
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
    }
}
