//! What shards contribute to a step, as vectors that can be added up: sums over samples of gradients and of running
//! statistics, and behind them the tail, in which every shard and every rank has a place of its own.
//!
//! Places of the tail that are not one's own are zero, so adding leaves every number there what it is. It must not
//! know who adds up, or in which order.

use crate::{error::TrainError, params::Params};
use spotsweep_trainer_shim::Buckets;
use tch::{Device, Kind, Tensor};

/// Where things lie in a row.
#[derive(Debug)]
pub struct Layout {
    grads: Vec<Place>,
    buffers: Vec<Place>,
    shards: usize,
    /// Where the tail begins.
    tail: usize,
    device: Device,
}

/// A tensor's place, with its own shape and layout in memory.
#[derive(Debug)]
struct Place {
    offset: usize,
    size: Vec<i64>,
    stride: Vec<i64>,
}

/// Numbers of the tail for each shard: sum of losses, samples classified rightly, and (by rank) news.
const TAIL_PARTS: usize = 3;

/// A sum of contributions.
#[derive(Debug)]
pub struct Row {
    /// All of it, and zeros up to the length that was asked for.
    pub flat: Tensor,
    /// Views of the gradients, in the order and layout of the trained parameters.
    pub grads: Vec<Tensor>,
    /// Views of the buffers.
    pub buffers: Vec<Tensor>,
    tail: Tensor,
}

/// What the tail says once everything is added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    /// Each shard's sum of losses.
    pub losses: Vec<f32>,
    /// Samples classified rightly, over all shards.
    pub correct: u64,
    /// What each rank has written, in order of ranks; zeros behind them.
    pub news: Vec<f32>,
}

impl Layout {
    /// For the tensors in `params` and `shards` shards, and so at most as many ranks.
    #[must_use]
    pub fn new(params: &Params, shards: u32) -> Self {
        let mut tail = 0;
        let mut places = |trained: bool| -> Vec<Place> {
            let wanted = params.entries().iter().filter(|entry| entry.trained == trained);
            wanted
                .map(|entry| {
                    let place =
                        Place { offset: tail, size: entry.tensor.size(), stride: entry.tensor.stride() };
                    tail += entry.tensor.numel();
                    place
                })
                .collect()
        };
        let (grads, buffers) = (places(true), places(false));
        Self { grads, buffers, shards: shards as usize, tail, device: params.device() }
    }

    /// Buckets of at least `numbers` numbers, as far as there are so many; the first one has the buffers and the tail.
    #[must_use]
    pub fn buckets(&self, numbers: usize) -> Buckets {
        let (mut starts, mut of, mut end) = (Vec::new(), vec![0; self.grads.len()], self.numbers());
        for (index, place) in self.grads.iter().enumerate().rev() {
            of[index] = starts.len();
            if end - place.offset >= numbers || index == 0 {
                starts.push(place.offset as i64);
                end = place.offset;
            }
        }
        Buckets { starts, of }
    }

    /// Numbers in a row.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.tail + TAIL_PARTS * self.shards
    }

    /// A row of zeros, with room for `len` numbers.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn row(&self, len: usize) -> Result<Row, TrainError> {
        let flat = Tensor::f_zeros([len.max(self.numbers()) as i64], (Kind::Float, self.device))?;
        let views = |places: &[Place]| -> Result<Vec<Tensor>, TrainError> {
            places
                .iter()
                .map(|place| Ok(flat.f_as_strided(&place.size, &place.stride, Some(place.offset as i64))?))
                .collect()
        };
        let (grads, buffers) = (views(&self.grads)?, views(&self.buffers)?);
        let tail = flat.f_narrow(0, self.tail as i64, (TAIL_PARTS * self.shards) as i64)?;
        Ok(Row { flat, grads, buffers, tail })
    }

    /// Writes what shard `shard` has to say: its sum of losses and how many samples it classified rightly, both scalars on
    /// the device.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn tell(&self, row: &Row, shard: u32, loss: &Tensor, correct: &Tensor) -> Result<(), TrainError> {
        let shard = shard as usize;
        row.tail.f_get(shard as i64)?.f_copy_(loss)?;
        row.tail.f_get((self.shards + shard) as i64)?.f_copy_(correct)?;
        Ok(())
    }

    /// Writes the news of rank `rank`.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn tell_news(&self, row: &Row, rank: u32, news: f32) -> Result<(), TrainError> {
        let _ = row.tail.f_get((2 * self.shards) as i64 + i64::from(rank))?.f_fill_(f64::from(news))?;
        Ok(())
    }

    /// Reads the tail.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn read_tail(&self, row: &Row) -> Result<Tail, TrainError> {
        let numbers: Vec<f32> = Vec::try_from(row.tail.f_to_device(Device::Cpu)?)?;
        let (losses, rest) = numbers.split_at(self.shards);
        let (correct, news) = rest.split_at(self.shards);
        // Counts of a batch: exact in f32.
        let correct = correct.iter().map(|&count| count as u64).sum();
        Ok(Tail { losses: losses.to_vec(), correct, news: news.to_vec() })
    }
}

impl Row {
    /// Makes it the sum of nothing.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn clear(&self) -> Result<(), TrainError> {
        let _ = self.flat.shallow_clone().f_zero_()?;
        Ok(())
    }

    /// Makes its tail that of nobody. What else is in it is about to be overwritten.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn clear_tail(&self) -> Result<(), TrainError> {
        let _ = self.tail.shallow_clone().f_zero_()?;
        Ok(())
    }

    /// Adds `other` to it.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn add(&self, other: &Self) -> Result<(), TrainError> {
        let _ = self.flat.shallow_clone().f_add_(&other.flat)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Fans;
    use spotsweep_proto::train::Init;

    #[test]
    fn buckets_cover_a_row_from_its_end_and_hold_whole_gradients() {
        let mut params = Params::new(Device::Cpu, Init::He, 1);
        let fans = Fans { fan_in: 1, fan_out: 1 };
        for (name, len) in [("a", 10), ("b", 2), ("c", 3), ("d", 7)] {
            let _ = params.weight(name, &[len], fans, crate::params::Layout::RowMajor);
        }
        let _ = params.buffer("e", 5, 0.0);
        let layout = Layout::new(&params, 2);
        assert_eq!(layout.numbers(), 22 + 5 + 3 * 2);
        let cut = |numbers| layout.buckets(numbers);
        assert_eq!(cut(4), Buckets { starts: vec![15, 10, 0], of: vec![2, 1, 1, 0] });
        assert_eq!(cut(100), Buckets { starts: vec![0], of: vec![0; 4] });
        assert_eq!(cut(1), Buckets { starts: vec![15, 12, 10, 0], of: vec![3, 2, 1, 0] });
    }
}
