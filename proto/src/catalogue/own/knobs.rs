//! The hyperparameters of one trial of a model of one's own: every choice made, each within its range.

use crate::{ids::ParameterName, value::ParamValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values by name. As JSON a flat object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    try_from = "serde_json::Map<String, serde_json::Value>",
    into = "serde_json::Map<String, serde_json::Value>"
)]
pub struct Knobs(BTreeMap<ParameterName, ParamValue>);

impl Knobs {
    /// The value of the hyperparameter `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ParamValue> {
        self.0.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ParameterName, &ParamValue)> {
        self.0.iter()
    }
}

impl FromIterator<(ParameterName, ParamValue)> for Knobs {
    fn from_iter<I: IntoIterator<Item = (ParameterName, ParamValue)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for Knobs {
    type Error = String;

    fn try_from(map: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        map.iter()
            .map(|(name, json)| {
                let name = ParameterName::new(name).map_err(|error| error.to_string())?;
                Ok((name, ParamValue::from_json(json)?))
            })
            .collect()
    }
}

impl From<Knobs> for serde_json::Map<String, serde_json::Value> {
    fn from(knobs: Knobs) -> Self {
        knobs.0.into_iter().map(|(name, value)| (name.into(), value.to_json())).collect()
    }
}

/// A value as the JSON that people write, where the type's own form is that of the journal.
pub(super) mod value {
    use crate::value::ParamValue;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        value: &ParamValue,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.to_json().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ParamValue, D::Error> {
        ParamValue::from_json(&serde_json::Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
