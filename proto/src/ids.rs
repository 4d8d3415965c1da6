//! Names and ids. Past the edge of the program nobody passes a bare string or integer for one of these.

use crate::limits::NAME_BYTES;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing in it.
    #[error("a {what} must not be empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// It is longer than [`NAME_BYTES`].
    #[error("a {what} has at most {NAME_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// It holds a character outside `A-Z a-z 0-9 . _ -` (and `/` where the kind of name allows it).
    #[error("a {what} is made of letters, digits and {allowed}; {found:?} is not one of these")]
    BadCharacter {
        /// Which kind of name.
        what: &'static str,
        /// The characters besides letters and digits that it may hold.
        allowed: &'static str,
        /// The first character that it may not hold.
        found: char,
    },
    /// It begins with something other than a letter, digit or underscore.
    #[error("a {what} starts with a letter, a digit or _, not with {found:?}")]
    BadStart {
        /// Which kind of name.
        what: &'static str,
        /// Its first character.
        found: char,
    },
}

fn check_name(
    what: &'static str,
    text: &str,
    extra: &'static str,
    allowed: &'static str,
) -> Result<(), NameError> {
    let Some(first) = text.chars().next() else { return Err(NameError::Empty { what }) };
    if text.len() > NAME_BYTES {
        return Err(NameError::TooLong { what, bytes: text.len() });
    }
    if let Some(found) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !extra.contains(*c)) {
        return Err(NameError::BadCharacter { what, allowed, found });
    }
    if !first.is_ascii_alphanumeric() && first != '_' {
        return Err(NameError::BadStart { what, found: first });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $extra:literal, $allowed:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong with it.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name($what, text, $extra, $allowed)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// What a sweep is called; unique on one coordinator, which appends `-2`, `-3`, … where it must.
    SweepName, "sweep name", "._-", "'.', '_', '-'"
);
name!(
    /// What a worker is called by people. It need not be unique: [`Incarnation`] tells processes apart.
    WorkerName, "worker name", "._-", "'.', '_', '-'"
);
name!(
    /// A hyperparameter; parts of a nested one are joined by dots (`optimizer.learning_rate`).
    ParameterName, "parameter name", "._-/", "'.', '_', '-', '/'"
);
name!(
    /// A metric that trials report, for instance `val_accuracy`.
    MetricName, "metric name", "._-/", "'.', '_', '-', '/'"
);
name!(
    /// A model that a trainer of one's own adds to the catalogue, for instance `spiral_mlp`.
    ModelName, "model name", "_-", "'_', '-'"
);
name!(
    /// A data set, for instance `fashion-mnist`, or an added one as [`crate::datasets::DataRef`] writes it.
    DataName, "data set name", "._-:@", "'.', '_', '-', ':', '@'"
);
name!(
    /// A device of a worker: `cpu`, `cuda:0`, …
    DeviceName, "device name", "._-:", "'.', '_', '-', ':'"
);

/// A trial as people name it: `fashion-ladder/7`. Its identity is its place in the sweep.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrialId {
    /// The sweep.
    pub sweep: SweepName,
    /// The place in the sweep, from 0.
    pub number: u32,
}

impl fmt::Display for TrialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sweep, self.number)
    }
}

/// Why a text is no trial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialIdError {
    /// No slash, or no number behind it.
    #[error("a trial is written SWEEP/NUMBER, for instance fashion-ladder/7, not {0:?}")]
    Form(String),
    /// The part before the slash is no sweep name.
    #[error(transparent)]
    Sweep(#[from] NameError),
}

impl FromStr for TrialId {
    type Err = TrialIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || TrialIdError::Form(text.chars().take(NAME_BYTES).collect());
        let (sweep, number) = text.rsplit_once('/').ok_or_else(fail)?;
        Ok(Self { sweep: SweepName::new(sweep)?, number: number.parse().map_err(|_| fail())? })
    }
}

/// Text, in every format.
impl Serialize for TrialId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TrialId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The fencing token of a lease: grows by at least one with every lease of a trial. A report that carries an
/// older epoch than the trial's newest is stale and is dropped (Gray & Cheriton, "Leases", 1989).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of an agent process: drawn at random when it starts, so that a restarted agent of the same name
/// is known to hold nothing of what its predecessor held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_id_is_read_back_as_it_was_written() {
        let trial: TrialId = "fashion-ladder/7".parse().unwrap();
        assert_eq!((trial.sweep.as_str(), trial.number), ("fashion-ladder", 7));
        assert_eq!(trial.to_string(), "fashion-ladder/7");
    }

    #[test]
    fn a_name_with_a_control_character_or_a_path_is_refused() {
        for text in ["", "a b", "a\u{1b}[31m", "../etc", "-rf", ".hidden", "ü", &"x".repeat(NAME_BYTES + 1)]
        {
            assert!(SweepName::new(text).is_err(), "{text:?}");
        }
    }
}
