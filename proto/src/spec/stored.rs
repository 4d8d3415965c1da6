//! A checked specification that comes back as JSON from outside the program, in an export of a sweep.
//!
//! A sweep file is checked as it is read; this text may have been written by anybody. Owns what must hold so that the trials
//! of the sweep can be counted and computed. Whether a model would take the parameters is not asked: nothing is trained.

use super::{
    Method, SweepSpec,
    space::{Domain, Parameter, Quantum},
};
use crate::limits::{PARAMETERS_PER_SWEEP, TRIALS_PER_SWEEP, VALUES_PER_PARAMETER};
use serde_json::Value;
use std::collections::HashSet;

/// Why a text is no checked specification.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// It is no specification at all, or one of a version that this program does not know.
    #[error("it is no specification")]
    Json(#[source] serde_json::Error),
    /// A parameter cannot be.
    #[error("the parameter {name} {what}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The sweep as a whole cannot be.
    #[error("the sweep {0}")]
    Sweep(String),
}

impl SweepSpec {
    /// Reads a specification back that [`serde_json`] wrote.
    ///
    /// # Errors
    /// [`StoredError`].
    pub fn from_stored(json: &Value) -> Result<Self, StoredError> {
        let spec: Self = serde::Deserialize::deserialize(json).map_err(StoredError::Json)?;
        let parameters = &spec.space.0;
        if parameters.len() > PARAMETERS_PER_SWEEP {
            return Err(StoredError::Sweep(format!("has more than {PARAMETERS_PER_SWEEP} parameters")));
        }
        let mut names = HashSet::new();
        for parameter in parameters {
            let twice = !names.insert(&parameter.name);
            let what = if twice { Some("stands there twice") } else { unsound(parameter, spec.method) };
            if let Some(what) = what {
                return Err(StoredError::Parameter { name: parameter.name.to_string(), what });
            }
        }
        let trials = u64::from(spec.trials());
        if !(1..=TRIALS_PER_SWEEP).contains(&trials) {
            return Err(StoredError::Sweep(format!(
                "has {trials} trials, and 1 to {TRIALS_PER_SWEEP} can be"
            )));
        }
        if spec.program.as_ref().is_some_and(|program| program.command.is_empty()) {
            return Err(StoredError::Sweep("has a program without a command".to_owned()));
        }
        Ok(spec)
    }
}

/// What is wrong with a parameter.
fn unsound(parameter: &Parameter, method: Method) -> Option<&'static str> {
    const RANGE: &str = "has no range: min is below max";
    const QUANTUM: &str = "has a q of which no multiple can be";
    let range = |min: f64, max: f64| min.is_finite() && max.is_finite() && min < max;
    let positive = |min: f64, max: f64| min > 0.0 && range(min, max);
    let normal = |mu: f64, sigma: f64| mu.is_finite() && sigma.is_finite() && sigma > 0.0;
    let quantum = |q: Quantum| (1e-15..=9_007_199_254_740_992.0).contains(&q.size());
    let wrong = match &parameter.domain {
        Domain::Constant(_) => None,
        Domain::Categorical { values, .. } if values.is_empty() => Some("has no values"),
        Domain::Categorical { values, .. } if values.len() > VALUES_PER_PARAMETER => {
            Some("has too many values")
        }
        Domain::Categorical { values, probabilities: Some(probabilities) } => {
            let sound = probabilities.len() == values.len()
                && probabilities.iter().all(|probability| (0.0..=1.0).contains(probability));
            (!sound).then_some("has probabilities that are none, or not one for each value")
        }
        Domain::Categorical { .. } => None,
        Domain::IntUniform { min, max } => (min >= max).then_some(RANGE),
        Domain::Uniform { min, max } => (!range(*min, *max)).then_some(RANGE),
        Domain::LogUniformValues { min, max } | Domain::InvLogUniformValues { min, max } => {
            (!positive(*min, *max)).then_some(RANGE)
        }
        Domain::QUniform { min, max, .. } if !range(*min, *max) => Some(RANGE),
        Domain::QLogUniformValues { min, max, .. } if !positive(*min, *max) => Some(RANGE),
        Domain::QUniform { min, max, q } | Domain::QLogUniformValues { min, max, q } => {
            (!quantum(*q) || q.multiples(*min, *max).is_none()).then_some(QUANTUM)
        }
        Domain::Normal { mu, sigma } | Domain::LogNormal { mu, sigma } => {
            (!normal(*mu, *sigma)).then_some("has no sigma above 0")
        }
        Domain::QNormal { mu, sigma, q } | Domain::QLogNormal { mu, sigma, q } => {
            (!normal(*mu, *sigma) || !quantum(*q)).then_some("has no sigma and q above 0")
        }
    };
    let endless = method == Method::Grid && parameter.domain.grid_size().is_none();
    wrong.or_else(|| endless.then_some("has endlessly many values in a grid"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;
    use proptest::prelude::*;

    const SWEEP: &str = "name: s\nmethod: random\nrun_cap: 7\nprogram: t.py\nparameters:\n  a: {values: [1, x, null], probabilities: [0.5, 0.25, 0.25]}\n  b: {min: 0.1, max: 0.5}\n  c: {distribution: log_uniform_values, min: 1.0e-5, max: 0.1}\n  d: {distribution: q_uniform, min: 0, max: 1, q: 0.1}\n  e: {distribution: q_log_normal, mu: 1, sigma: 2, q: 3}\n  f: {min: 1, max: 9}\n";

    fn stored() -> (SweepSpec, Value) {
        let spec = parse(SWEEP.as_bytes(), "s.yaml").unwrap();
        let json = serde_json::to_value(&spec).unwrap();
        (spec, json)
    }

    #[test]
    fn what_was_written_comes_back() {
        let (spec, json) = stored();
        assert_eq!(SweepSpec::from_stored(&json).unwrap(), spec);
    }

    #[test]
    fn what_no_sweep_file_gives_is_refused_in_words() {
        let spoilt = |pointer: &str, value: Value| {
            let (_, mut json) = stored();
            *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
            SweepSpec::from_stored(&json).unwrap_err().to_string()
        };
        let domain = |number: usize| format!("/space/{number}/domain");
        let said = [
            spoilt("/run_cap", 0.into()),
            spoilt("/run_cap", 4_000_000_000_u32.into()),
            spoilt("/method", "grid".into()),
            spoilt("/space/1/name", "a".into()),
            spoilt(&format!("{}/categorical/values", domain(0)), Value::Array(Vec::new())),
            spoilt(&format!("{}/categorical/probabilities", domain(0)), serde_json::json!([1.0])),
            spoilt(&format!("{}/uniform/min", domain(1)), 2.0.into()),
            spoilt(&format!("{}/log_uniform_values/min", domain(2)), 0.0.into()),
            spoilt(&format!("{}/q_uniform/q", domain(3)), serde_json::json!({"float": 0.0})),
            spoilt(&format!("{}/q_log_normal/sigma", domain(4)), (-1.0).into()),
            spoilt(&format!("{}/int_uniform/min", domain(5)), 9.into()),
            spoilt("/program/command", Value::Array(Vec::new())),
            spoilt("/space", "nothing".into()),
        ];
        insta::assert_snapshot!(said.join("\n"));
    }

    proptest! {
        #[test]
        fn every_specification_that_is_taken_can_be_computed(
            min in any::<f64>(), max in any::<f64>(), q in any::<f64>(), mean in any::<f64>(), int in any::<i64>(),
            which in 0usize..5, seed in any::<u64>(),
        ) {
            let (mut spec, _) = stored();
            let domain = match which {
                0 => Domain::QUniform { min, max, q: Quantum::Float(q) },
                1 => Domain::QLogUniformValues { min, max, q: Quantum::Int(int) },
                2 => Domain::InvLogUniformValues { min, max },
                3 => Domain::QLogNormal { mu: mean, sigma: max, q: Quantum::Float(q) },
                _ => Domain::IntUniform { min: int, max: i64::MAX },
            };
            spec.method = Method::Random { seed };
            spec.space.0[2].domain = domain;
            if let Ok(spec) = SweepSpec::from_stored(&serde_json::to_value(&spec).unwrap()) {
                for number in 0..spec.trials() {
                    let _no_panic = spec.assignment(number);
                }
            }
        }
    }
}
