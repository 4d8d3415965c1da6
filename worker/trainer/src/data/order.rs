//! In which order a trial sees its samples: a new permutation for each pass over the data, a function of the
//! seed and the pass. The data cursor is the step's number; nothing else is to be saved.

use crate::seed::{Origin, Purpose, permutation};
use tch::{Device, TchError, Tensor};

/// Batches of indices into the training set.
#[derive(Debug)]
pub struct Order {
    samples: Vec<u32>,
    batch_size: u64,
    steps_per_epoch: u64,
    origin: Origin,
    device: Device,
    /// The pass whose order is at hand, and the order.
    current: Option<(u64, Tensor)>,
}

impl Order {
    /// Batches of `batch_size` of `samples`, for a device.
    #[must_use]
    pub fn new(samples: Vec<u32>, batch_size: u32, origin: impl Into<Origin>, device: Device) -> Self {
        let batch_size = u64::from(batch_size.max(1));
        let steps_per_epoch = (samples.len() as u64).div_ceil(batch_size).max(1);
        Self { samples, batch_size, steps_per_epoch, origin: origin.into(), device, current: None }
    }

    /// Steps of one pass. The last batch of a pass may be smaller than the others.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Makes a pass as long as that of a larger order: it has no samples for the steps that it lacks.
    pub fn lengthen(&mut self, steps_per_epoch: u64) {
        self.steps_per_epoch = self.steps_per_epoch.max(steps_per_epoch);
    }

    /// How many samples step `step` has.
    #[must_use]
    pub fn count(&self, step: u64) -> u64 {
        let start = (step % self.steps_per_epoch) * self.batch_size;
        self.batch_size.min((self.samples.len() as u64).saturating_sub(start))
    }

    /// The samples of step `step`, counted from 0: i64 places in the training set, on the device.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn batch(&mut self, step: u64) -> Result<Tensor, TchError> {
        let (pass, within) = (step / self.steps_per_epoch, step % self.steps_per_epoch);
        let order = match &self.current {
            Some((at, order)) if *at == pass => order.shallow_clone(),
            _ => {
                let order = self.shuffled(pass)?;
                self.current = Some((pass, order.shallow_clone()));
                order
            }
        };
        let start = (within * self.batch_size).min(self.samples.len() as u64);
        order.f_narrow(0, start as i64, self.count(step) as i64)
    }

    fn shuffled(&self, pass: u64) -> Result<Tensor, TchError> {
        let places = permutation(self.origin, Purpose::Order, pass, self.samples.len() as u32);
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
        let mut order = Order::new((100..107).collect(), 3, 1_u64, Device::Cpu);
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
    fn a_lengthened_pass_has_no_samples_in_its_last_steps() {
        let mut order = Order::new((0..7).collect(), 3, 1_u64, Device::Cpu);
        order.lengthen(5);
        let sizes = |order: &mut Order| -> Vec<usize> { (0..6).map(|s| places(order, s).len()).collect() };
        assert_eq!(sizes(&mut order), [3, 3, 1, 0, 0, 3]);
        assert_eq!((0..6).map(|step| order.count(step)).collect::<Vec<_>>(), [3, 3, 1, 0, 0, 3]);
    }

    #[test]
    fn a_step_sees_the_same_samples_whatever_came_before() {
        let new = || Order::new((0..50).collect(), 8, 9_u64, Device::Cpu);
        let mut whole = new();
        let all: Vec<_> = (0..20).map(|step| places(&mut whole, step)).collect();
        for step in [19, 3, 7, 6] {
            assert_eq!(places(&mut new(), step), all[step as usize]);
        }
    }
}
