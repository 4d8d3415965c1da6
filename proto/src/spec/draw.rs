//! Random draws: one 64-bit word for each parameter of each trial, and the value that it stands for.
//!
//! A word is the keyed BLAKE3 of what it is for, not the next output of a generator: draw `n` of a parameter is
//! the same whatever else the sweep holds and in whatever order trials are asked for. Values come from the word
//! by the quantile function of the distribution, with `libm`'s functions, which give the same bits on every
//! platform: a coordinator that moves to another machine replays its journal to the same trials.

use super::space::{Domain, Quantum};
use crate::{ids::ParameterName, value::ParamValue};

/// What separates these words from other uses of the same hash.
const CONTEXT: &str = "spotsweep 2026-11 random search, word of a parameter of a trial";

/// The word of parameter `name` in trial `number`.
pub(super) fn word(seed: u64, name: &ParameterName, number: u32) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&seed.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(name.as_str().as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The value of `domain` that `word` stands for. Every formula is in the documentation of [`Domain`].
pub(super) fn value(domain: &Domain, word: u64) -> ParamValue {
    let u = unit(word);
    match domain {
        Domain::Constant(value) => value.clone(),
        Domain::Categorical { values, probabilities: None } => {
            let index = below(word, u64::try_from(values.len()).unwrap_or(u64::MAX));
            usize::try_from(index).ok().and_then(|i| values.get(i)).cloned().unwrap_or(ParamValue::Null)
        }
        Domain::Categorical { values, probabilities: Some(probabilities) } => {
            let mut sum = 0.0;
            let index = probabilities.iter().position(|p| {
                sum += p;
                u < sum
            });
            // The sum may end a rounding error below 1: the last one that is possible at all.
            let last = probabilities.iter().rposition(|p| *p > 0.0).unwrap_or(0);
            values.get(index.unwrap_or(last)).cloned().unwrap_or(ParamValue::Null)
        }
        Domain::IntUniform { min, max } => {
            let span = max.abs_diff(*min);
            let offset = if span == u64::MAX { word } else { below(word, span + 1) };
            ParamValue::Int(min.wrapping_add_unsigned(offset))
        }
        Domain::Uniform { min, max } => ParamValue::Float(uniform(*min, *max, u)),
        Domain::LogUniformValues { min, max } => ParamValue::Float(log_uniform(*min, *max, u)),
        Domain::InvLogUniformValues { min, max } => {
            let inverse = log_uniform(max.recip(), min.recip(), u);
            ParamValue::Float(inverse.recip().clamp(*min, *max))
        }
        Domain::QUniform { min, max, q } => quantised(uniform(*min, *max, u), *q, q.multiples(*min, *max)),
        Domain::QLogUniformValues { min, max, q } => {
            quantised(log_uniform(*min, *max, u), *q, q.multiples(*min, *max))
        }
        Domain::Normal { mu, sigma } => ParamValue::Float(mu + sigma * normal_quantile(u)),
        Domain::QNormal { mu, sigma, q } => quantised(mu + sigma * normal_quantile(u), *q, None),
        Domain::LogNormal { mu, sigma } => ParamValue::Float(log_normal(*mu, *sigma, u)),
        Domain::QLogNormal { mu, sigma, q } => quantised(log_normal(*mu, *sigma, u), *q, None),
    }
}

/// Uniform on the open interval (0, 1): the middle of one of 2^52 equal parts, exact in a float.
#[expect(clippy::cast_precision_loss, reason = "52 bits and a half fit into the 53 of a float")]
fn unit(word: u64) -> f64 {
    ((word >> 12) as f64 + 0.5) * f64::EPSILON
}

/// An integer in `[0, n)`; the bias is at most n / 2^64 (Lemire, 2019, without the rejection).
fn below(word: u64, n: u64) -> u64 {
    u64::try_from((u128::from(word) * u128::from(n)) >> 64).unwrap_or(0)
}

fn uniform(min: f64, max: f64, u: f64) -> f64 {
    // In this form the difference cannot overflow.
    (min * (1.0 - u) + max * u).clamp(min, max)
}

fn log_uniform(min: f64, max: f64, u: f64) -> f64 {
    libm::exp(uniform(libm::log(min), libm::log(max), u)).clamp(min, max)
}

fn log_normal(mu: f64, sigma: f64, u: f64) -> f64 {
    libm::exp(mu + sigma * normal_quantile(u)).clamp(f64::MIN_POSITIVE, f64::MAX)
}

/// The nearest multiple of `q`, halves to the even one, within `multiples` where there are any.
fn quantised(x: f64, q: Quantum, multiples: Option<(i64, i64)>) -> ParamValue {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, and the multiples are within 2^53"
    )]
    let k = libm::rint(x / q.size()) as i64;
    q.times(multiples.map_or(k, |(low, high)| k.clamp(low, high)))
}

/// Φ⁻¹(p) for p in (0, 1), to about 1 part in 10^16: algorithm AS 241, PPND16 (Wichura, "The Percentage Points
/// of the Normal Distribution", Applied Statistics 37, 1988).
#[expect(
    clippy::excessive_precision,
    clippy::unreadable_literal,
    reason = "the paper's constants, digit by digit"
)]
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 8] = [
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ];
    const B: [f64; 8] = [
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ];
    const C: [f64; 8] = [
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ];
    const D: [f64; 8] = [
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ];
    const E: [f64; 8] = [
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ];
    const F: [f64; 8] = [
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ];
    let ratio = |top: &[f64; 8], bottom: &[f64; 8], r: f64| {
        let horner = |c: &[f64; 8]| c.iter().rev().fold(0.0, |sum, c| sum * r + c);
        horner(top) / horner(bottom)
    };
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(&A, &B, 0.180_625 - q * q);
    }
    let r = libm::sqrt(-libm::log(if q < 0.0 { p } else { 1.0 - p }));
    let tail = if r <= 5.0 { ratio(&C, &D, r - 1.6) } else { ratio(&E, &F, r - 5.0) };
    if q < 0.0 { -tail } else { tail }
}

#[cfg(test)]
mod tests;
