//! Metrics in what a program prints, by a regular expression. Pure.

use regex::Regex;
use serde_json::{Map, Value};
use spotsweep_proto::program::compile_pattern;

/// What stands in a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// `None` where the expression has no group `step`: then each line is a step of its own.
    pub(crate) step: Option<u64>,
    pub(crate) metrics: Map<String, Value>,
}

/// An expression with a group `step`, and a group for each metric or the groups `name` and `value`.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// Groups with names, but for `step`.
    groups: Vec<String>,
    pairs: bool,
    steps: bool,
}

impl Pattern {
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let regex = compile_pattern(text).map_err(|error| error.to_string())?;
        let names: Vec<String> = regex.capture_names().flatten().map(ToOwned::to_owned).collect();
        let has = |name: &str| names.iter().any(|known| known == name);
        let (pairs, steps) = (has("name") && has("value"), has("step"));
        let groups: Vec<String> = names.into_iter().filter(|name| name != "step").collect();
        if groups.is_empty() {
            return Err("it has no group with the name of a metric, such as (?<loss>[0-9.]+)".to_owned());
        }
        Ok(Self { regex, groups, pairs, steps })
    }

    pub(crate) fn find(&self, line: &str) -> Option<Found> {
        let mut metrics = Map::new();
        let mut step = None;
        // Pairs of names and values may stand side by side in a line.
        for captures in self.regex.captures_iter(line) {
            let group = |name: &str| captures.name(name).map(|group| group.as_str());
            if let Some(found) = group("step") {
                step = Some(found.parse().ok()?);
            }
            if self.pairs {
                if let (Some(name), Some(value)) = (group("name"), group("value")) {
                    metrics.insert(name.to_owned(), value_of(value));
                }
            } else {
                for name in &self.groups {
                    if let Some(value) = group(name) {
                        metrics.insert(name.clone(), value_of(value));
                    }
                }
            }
            if !self.pairs {
                break;
            }
        }
        let known = step.is_some() || !self.steps;
        (known && !metrics.is_empty()).then_some(Found { step, metrics })
    }
}

/// A number; else the text, which is refused by name, or known to mean none.
fn value_of(text: &str) -> Value {
    text.parse::<f64>().ok().filter(|value| value.is_finite()).map_or_else(|| text.into(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(pattern: &str, line: &str) -> Option<(Option<u64>, Value)> {
        let found = Pattern::new(pattern).unwrap().find(line)?;
        Some((found.step, Value::Object(found.metrics)))
    }

    #[test]
    fn a_group_is_a_metric_and_name_and_value_are_pairs() {
        let groups = r"step=(?<step>\d+).*loss=(?<loss>\S+)(?: acc=(?<accuracy>\S+))?";
        assert_eq!(
            found(groups, "x step=3 loss=1e-2 acc=0.5"),
            Some((Some(3), json!({"loss": 0.01, "accuracy": 0.5})))
        );
        assert_eq!(found(groups, "step=4 loss=nan"), Some((Some(4), json!({"loss": "nan"}))));
        assert_eq!(found(groups, "loss=1"), None);
        let pairs = r"(?:\[(?<step>\d+)\] )?(?<name>\w+)=(?<value>[-\d.]+)";
        assert_eq!(found(pairs, "[7] a=1 b=-2.5"), Some((Some(7), json!({"a": 1.0, "b": -2.5}))));
        assert_eq!(found(r"loss (?<loss>\S+)", "loss 2"), Some((None, json!({"loss": 2.0}))));
    }

    #[test]
    fn an_expression_that_cannot_work_is_refused() {
        for pattern in ["(", r"(?<step>\d+)", "loss", r"(?<a>\w{1000}{1000})"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }
}
