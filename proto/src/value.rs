//! Values of hyperparameters, and the assignment that makes a trial.

use crate::ids::ParameterName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One value of a hyperparameter. Floats are finite: the sweep file refuses NaN and infinities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ParamValue {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A finite floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list, for instance the widths of an MLP.
    List(Vec<ParamValue>),
}

impl ParamValue {
    /// As JSON. Floats keep a decimal point, so that `1.0` does not come back as an integer.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(i) => Value::from(*i),
            Self::Float(f) => Value::from(*f),
            Self::Text(s) => Value::from(s.as_str()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
        }
    }

    /// From JSON; objects have no place in a value.
    ///
    /// # Errors
    /// The offending part, as text.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, String> {
        use serde_json::Value;
        Ok(match json {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Self::Int(i),
                (None, Some(f)) if f.is_finite() => Self::Float(f),
                _ => return Err(format!("{n} is out of range")),
            },
            Value::String(s) => Self::Text(s.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::from_json).collect::<Result<_, _>>()?),
            Value::Object(_) => return Err("an object is no parameter value".to_owned()),
        })
    }

    /// The value as a number, where it is one.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "hyperparameters are far below 2^53")]
            Self::Int(i) => Some(*i as f64),
            Self::Float(f) => Some(*f),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_) => None,
        }
    }
}

/// As people write it: bare text, `[256, 128]`, `0.1`.
impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            other => f.pad(&other.to_json().to_string()),
        }
    }
}

/// The hyperparameters of one trial, in the order of the sweep file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Assignment(pub Vec<(ParameterName, ParamValue)>);

impl Assignment {
    /// The value of the parameter called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ParamValue> {
        self.0.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value)
    }

    /// As a flat JSON object; nested parameters keep their dotted names.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.0.iter().map(|(name, value)| (name.to_string(), value.to_json())).collect()
    }

    /// From a flat JSON object.
    ///
    /// # Errors
    /// The name or value that is none, as text.
    pub fn from_json(json: &serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        json.iter()
            .map(|(name, value)| {
                let key = ParameterName::new(name).map_err(|error| error.to_string())?;
                Ok((key, ParamValue::from_json(value).map_err(|error| format!("{name}: {error}"))?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}
