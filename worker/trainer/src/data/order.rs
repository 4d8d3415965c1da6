//! In which order a trial sees its samples: a new permutation for each pass over the data, a function of the
//! seed and the pass. The data cursor is the step's number; nothing else is to be saved.

use crate::seed::{Purpose, permutation};
use tch::{Device, TchError, Tensor};

/// Batches of indices into the training set.
#[derive(Debug)]
pub struct Order {
    samples: Vec<u32>,
    batch_size: u64,
    seed: u64,
    device: Device,
    /// The pass whose order is at hand, and the order.
    current: Option<(u64, Tensor)>,
}

impl Order {
    /// Batches of `batch_size` of `samples`, for a device.
    #[must_use]
    pub fn new(samples: Vec<u32>, batch_size: u32, seed: u64, device: Device) -> Self {
        Self { samples, batch_size: u64::from(batch_size.max(1)), seed, device, current: None }
    }

    /// Steps of one pass. The last batch of a pass may be smaller than the others.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        (self.samples.len() as u64).div_ceil(self.batch_size).max(1)
    }

    /// The samples of step `step`, counted from 0: i64 places in the training set, on the device.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn batch(&mut self, step: u64) -> Result<Tensor, TchError> {
        let (pass, within) = (step / self.steps_per_epoch(), step % self.steps_per_epoch());
        let order = match &self.current {
            Some((at, order)) if *at == pass => order.shallow_clone(),
            _ => {
                let order = self.shuffled(pass)?;
                self.current = Some((pass, order.shallow_clone()));
                order
            }
        };
        let start = within * self.batch_size;
        let count = self.batch_size.min(self.samples.len() as u64 - start);
        order.f_narrow(0, start as i64, count as i64)
    }

    fn shuffled(&self, pass: u64) -> Result<Tensor, TchError> {
        let places = permutation(self.seed, Purpose::Order, pass, self.samples.len() as u32);
        let samples: Vec<i64> = places.iter().map(|&p| i64::from(self.samples[p as usize])).collect();
        Tensor::f_from_slice(&samples)?.f_to_device(self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(order: &mut Order, step: u64) -> Vec<i64> {
        Vec::try_from(order.batch(step).unwrap()).unwrap()
    }

    #[test]
    fn each_pass_holds_every_sample_once_in_an_order_of_its_own() {
        let mut order = Order::new((100..107).collect(), 3, 1, Device::Cpu);
        assert_eq!(order.steps_per_epoch(), 3);
        let mut passes = Vec::new();
        for pass in 0..2 {
            let mut seen: Vec<i64> = (0..3).flat_map(|s| places(&mut order, pass * 3 + s)).collect();
            passes.push(seen.clone());
            seen.sort_unstable();
            assert_eq!(seen, (100..107).collect::<Vec<i64>>());
        }
        assert_ne!(passes[0], passes[1]);
    }

    #[test]
    fn a_step_sees_the_same_samples_whatever_came_before() {
        let new = || Order::new((0..50).collect(), 8, 9, Device::Cpu);
        let mut whole = new();
        let all: Vec<_> = (0..20).map(|step| places(&mut whole, step)).collect();
        for step in [19, 3, 7, 6] {
            assert_eq!(places(&mut new(), step), all[step as usize]);
        }
    }
}
