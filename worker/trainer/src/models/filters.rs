//! The bank of fixed filters in front of `fixed_cnn`: oriented edges and bars, centre-surround, and brightness,
//! as the first layers of trained networks and of the visual cortex have them. Written down, never trained.

use tch::Tensor;

/// Height and width of every filter.
pub const SIZE: usize = 7;
/// Directions of the Gabor filters, evenly spaced over 180 degrees.
pub const DIRECTIONS: usize = 8;
/// Filters of the bank: an even and an odd Gabor filter in each direction, two differences of Gaussians, and
/// one Gaussian.
pub const COUNT: usize = 2 * DIRECTIONS + 3;

/// Standard deviation of a Gabor filter's envelope along the wave, in pixels.
const SIGMA: f64 = 1.8;
/// How much longer the envelope is across the wave (the reciprocal of Gabor's γ).
const ELONGATION: f64 = 1.5;
/// Length of the wave, in pixels.
const WAVELENGTH: f64 = 5.0;
/// Standard deviations of the inner and outer Gaussian of the two centre-surround filters.
const CENTRES: [(f64, f64); 2] = [(0.8, 1.6), (1.4, 2.8)];
/// Standard deviation of the Gaussian that measures brightness.
const BRIGHTNESS: f64 = 1.2;

/// The bank, f32 of shape `[COUNT, 1, SIZE, SIZE]` on the CPU.
///
/// Gabor filters are g(u, v) = exp(−(u² + v²/e²) / 2σ²) · cos(2πu/λ + φ), with u along the direction and v
/// across it, φ = 0 for bars and φ = −π/2 for edges (Daugman, 1985). Every filter but the last has its mean
/// removed, so that it does not answer to an even surface, and every filter has unit L2 norm.
pub fn bank() -> Tensor {
    let mut values = Vec::with_capacity(COUNT * SIZE * SIZE);
    for direction in 0..DIRECTIONS {
        let angle = std::f64::consts::PI * direction as f64 / DIRECTIONS as f64;
        for phase in [0.0, -std::f64::consts::FRAC_PI_2] {
            values.extend(unit(without_mean(sample(|x, y| gabor(x, y, angle, phase)))));
        }
    }
    for (inner, outer) in CENTRES {
        values.extend(unit(without_mean(sample(|x, y| gaussian(x, y, inner) - gaussian(x, y, outer)))));
    }
    values.extend(unit(sample(|x, y| gaussian(x, y, BRIGHTNESS))));
    let size = SIZE as i64;
    Tensor::from_slice(&values).view([COUNT as i64, 1, size, size])
}

fn gabor(x: f64, y: f64, angle: f64, phase: f64) -> f64 {
    let (u, v) = (x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin());
    let envelope = (-(u * u + (v / ELONGATION) * (v / ELONGATION)) / (2.0 * SIGMA * SIGMA)).exp();
    envelope * (std::f64::consts::TAU * u / WAVELENGTH + phase).cos()
}

/// A Gaussian with unit volume.
fn gaussian(x: f64, y: f64, sigma: f64) -> f64 {
    (-(x * x + y * y) / (2.0 * sigma * sigma)).exp() / (std::f64::consts::TAU * sigma * sigma)
}

/// Values of `f` on the filter's grid, with its origin in the middle and y downwards.
fn sample(f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let middle = (SIZE / 2) as f64;
    (0..SIZE * SIZE).map(|i| f((i % SIZE) as f64 - middle, (i / SIZE) as f64 - middle)).collect()
}

fn without_mean(values: Vec<f64>) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.into_iter().map(|v| v - mean).collect()
}

fn unit(values: Vec<f64>) -> Vec<f32> {
    let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    values.into_iter().map(|v| (v / norm) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn filters_have_unit_norm_and_all_but_brightness_no_mean() {
        let bank = bank().view([COUNT as i64, -1]);
        for i in 0..COUNT as i64 {
            let filter = bank.get(i);
            assert!((filter.norm().double_value(&[]) - 1.0).abs() < 1e-6);
            let sum = filter.sum(Kind::Float).double_value(&[]);
            assert_eq!(sum.abs() < 1e-5, i + 1 < COUNT as i64, "filter {i} sums to {sum}");
        }
    }

    #[test]
    fn no_two_filters_look_alike() {
        let bank = bank().view([COUNT as i64, -1]);
        let likeness =
            bank.matmul(&bank.transpose(0, 1)) - Tensor::eye(COUNT as i64, (Kind::Float, tch::Device::Cpu));
        let most = likeness.abs().max().double_value(&[]);
        assert!(most < 0.95, "{most}");
    }
}
