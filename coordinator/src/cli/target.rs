//! Sweeps and trials as users name them, checked before anybody is asked.

use crate::error::{Code, Problem};
use spotsweep_proto::ids::{SweepName, TrialId, TrialIdError};

/// A trial as SWEEP/NUMBER.
///
/// # Errors
/// If it is not written so.
pub(crate) fn trial(text: &str) -> Result<TrialId, Problem> {
    text.parse().map_err(|error: TrialIdError| Problem::new(Code::BadRequest, error.to_string()))
}

/// A sweep or a trial: gives the sweep's name.
///
/// # Errors
/// If it is neither.
pub(crate) fn sweep_of(text: &str) -> Result<SweepName, Problem> {
    if text.contains('/') {
        return Ok(trial(text)?.sweep);
    }
    SweepName::new(text).map_err(|error| Problem::new(Code::BadRequest, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_sweep_nor_trial_is_refused_before_asking() {
        assert_eq!(sweep_of("a/3").unwrap().as_str(), "a");
        assert_eq!(sweep_of("a").unwrap().as_str(), "a");
        for text in ["", "a/b", "../x", "a b", "\u{1b}[0m"] {
            assert!(sweep_of(text).is_err(), "{text:?}");
        }
        assert!(trial("a").is_err());
    }
}
