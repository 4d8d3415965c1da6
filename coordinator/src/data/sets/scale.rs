//! Mean and standard deviation of the training samples, in one pass over them in the order in which they are stored.
//!
//! Bytes are summed as integers, exactly. Floats are summed as f64 around the first value, so that a large offset
//! does not swallow the spread. Constants are rounded to four significant digits, as those of the known data sets are
//! published: the same pictures give the same constants whichever way they come.

use spotsweep_proto::datasets::manifest::ElementType;

/// Bytes whose sum and sum of squares fit into 32 bits.
const BLOCK: usize = 4096;

/// What was summed so far.
#[derive(Debug)]
pub(super) struct Scale {
    sums: Sums,
    /// Elements in a row that share a constant: one channel, or one feature.
    run: usize,
    samples: u64,
}

#[derive(Debug)]
enum Sums {
    Bytes(Vec<(u64, u64)>),
    Floats { pivots: Vec<f64>, sums: Vec<(f64, f64)> },
}

impl Scale {
    /// For samples of this shape: one constant a channel, or one a feature where samples are rows of floats.
    pub(super) fn new(shape: [u32; 3], elements: ElementType) -> Self {
        let [channels, height, width] = shape.map(|n| n as usize);
        let rows = elements == ElementType::F32 && channels == 1 && height == 1;
        let (constants, run) = if rows { (width, 1) } else { (channels, height * width) };
        let sums = match elements {
            ElementType::U8 => Sums::Bytes(vec![(0, 0); constants]),
            ElementType::F32 => Sums::Floats { pivots: Vec::new(), sums: vec![(0.0, 0.0); constants] },
        };
        Self { sums, run, samples: 0 }
    }

    /// Takes in whole samples, as they are stored.
    pub(super) fn add(&mut self, samples: &[u8]) {
        match &mut self.sums {
            Sums::Bytes(sums) => {
                let constants = sums.len();
                for (at, run) in samples.chunks_exact(self.run).enumerate() {
                    let (sum, squares) = &mut sums[at % constants];
                    for block in run.chunks(BLOCK) {
                        let (s, q) = block.iter().fold((0u32, 0u32), |(s, q), &byte| {
                            let byte = u32::from(byte);
                            (s + byte, q + byte * byte)
                        });
                        *sum += u64::from(s);
                        *squares += u64::from(q);
                    }
                }
                self.samples += (samples.len() / (self.run * constants)) as u64;
            }
            Sums::Floats { pivots, sums } => {
                let constants = sums.len();
                let value =
                    |bytes: &[u8]| f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                for (at, run) in samples.chunks_exact(4 * self.run).enumerate() {
                    let place = at % constants;
                    if pivots.len() == place {
                        pivots.push(value(&run[..4]));
                    }
                    let (pivot, (sum, squares)) = (pivots[place], &mut sums[place]);
                    for bytes in run.chunks_exact(4) {
                        let x = value(bytes) - pivot;
                        *sum += x;
                        *squares += x * x;
                    }
                }
                self.samples += (samples.len() / (4 * self.run * constants)) as u64;
            }
        }
    }

    /// Means and standard deviations (of the population); 1 where all values are equal.
    #[expect(
        clippy::cast_precision_loss,
        reason = "sums of bytes over samples within their limit stay below 2^53 · 2^8"
    )]
    pub(super) fn finish(self) -> (Vec<f64>, Vec<f64>) {
        let n = (self.samples * self.run as u64).max(1) as f64;
        let constants = |mean: f64, variance: f64| {
            let std = rounded(variance.max(0.0).sqrt());
            (rounded(mean), if std > 0.0 { std } else { 1.0 })
        };
        match self.sums {
            Sums::Bytes(sums) => sums
                .into_iter()
                .map(|(sum, squares)| {
                    let mean = sum as f64 / n;
                    constants(mean / 255.0, (squares as f64 / n - mean * mean) / (255.0 * 255.0))
                })
                .unzip(),
            Sums::Floats { pivots, sums } => sums
                .into_iter()
                .zip(pivots)
                .map(|((sum, squares), pivot)| {
                    let mean = sum / n;
                    constants(pivot + mean, squares / n - mean * mean)
                })
                .unzip(),
        }
    }
}

/// To four significant digits.
fn rounded(x: f64) -> f64 {
    format!("{x:.3e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn constants_are_those_that_anybody_would_compute() {
        let mut scale = Scale::new([1, 2, 2], ElementType::U8);
        scale.add(&[0, 255, 0, 255, 0, 255, 0, 255]);
        assert_eq!(scale.finish(), (vec![0.5], vec![0.5]));
        let mut colours = Scale::new([3, 1, 2], ElementType::U8);
        colours.add(&[0, 0, 255, 255, 0, 255]);
        assert_eq!(colours.finish(), (vec![0.0, 1.0, 0.5], vec![1.0, 1.0, 0.5]));
        let mut rows = Scale::new([1, 1, 2], ElementType::F32);
        rows.add(&floats(&[1e6, 5.0, 1e6 + 2.0, 5.0]));
        assert_eq!(rows.finish(), (vec![1e6, 5.0], vec![1.0, 1.0]));
    }

    proptest! {
        #[test]
        fn how_samples_are_cut_into_pieces_does_not_matter(
            values in prop::collection::vec(any::<u8>(), 6..600), cut in 0usize..100,
        ) {
            let whole = values.len() / 6;
            let (values, cut) = (&values[..whole * 6], cut.min(whole) * 6);
            let mut one = Scale::new([2, 1, 3], ElementType::U8);
            one.add(values);
            let mut two = Scale::new([2, 1, 3], ElementType::U8);
            two.add(&values[..cut]);
            two.add(&values[cut..]);
            let (mean, std) = one.finish();
            prop_assert!(std.iter().all(|x| *x > 0.0) && mean.iter().all(|x| (0.0..=1.0).contains(x)));
            prop_assert_eq!((mean, std), two.finish());
        }
    }
}
