//! The `parameters` section: names and nesting. What one parameter's values are is read by [`super::domain`].

use super::{
    diagnostic::{Report, Span},
    domain::domain,
    section::{Section, quoted},
    space::{Parameter, Space},
    yaml::{Entry, Node, Value},
};
use crate::{ids::ParameterName, limits::PARAMETERS_PER_SWEEP};
use std::collections::{BTreeSet, HashSet};

/// Where a parameter stands in the file.
#[derive(Debug, Clone)]
pub(super) struct ParameterPlace {
    /// Its name.
    pub(super) name: Span,
    /// What its domain is made of: one place a value, or those of `min` and `max`; may be empty.
    pub(super) items: Vec<Span>,
    /// Length of its own key in bytes: what of its name does not come from the groups around it.
    pub(super) key_bytes: usize,
}

/// Reads the section. The places stand in the same order as the parameters; the groups are those that hold some.
pub(super) fn read(node: &Node, report: &mut Report<'_>) -> (Space, Vec<ParameterPlace>, BTreeSet<String>) {
    let mut reading =
        Reading { space: Vec::new(), places: Vec::new(), names: HashSet::new(), groups: BTreeSet::new() };
    if let Some(section) =
        Section::of(node, "parameters", "parameters: {learning_rate: {values: [0.01, 0.1]}}", report)
    {
        reading.group("", &section, report);
    }
    (Space(reading.space), reading.places, reading.groups)
}

struct Reading {
    space: Vec<Parameter>,
    places: Vec<ParameterPlace>,
    names: HashSet<String>,
    groups: BTreeSet<String>,
}

impl Reading {
    fn group(&mut self, prefix: &str, section: &Section<'_>, report: &mut Report<'_>) {
        if section.entries().is_empty() {
            report.error(section.span, "parameters is empty");
        }
        for entry in section.entries() {
            let name = format!("{prefix}{}", entry.key);
            if self.names.len() >= PARAMETERS_PER_SWEEP {
                report
                    .error(entry.key_span, format!("a sweep has at most {PARAMETERS_PER_SWEEP} parameters"));
                return;
            }
            if let Some(nested) = nested(entry) {
                if let Value::Mapping(keys) = &entry.node.value {
                    for other in keys.iter().filter(|other| other.key != "parameters") {
                        report.error(
                            other.key_span,
                            format!(
                                "{} stands beside parameters; a group of parameters has no other key",
                                quoted(&other.key)
                            ),
                        );
                    }
                }
                if let Some(inner) =
                    Section::of(nested, "parameters", "parameters: {name: {value: 1}}", report)
                {
                    self.group(&format!("{name}."), &inner, report);
                    self.groups.insert(name);
                }
                continue;
            }
            let checked = match ParameterName::new(&name) {
                Ok(checked) => checked,
                Err(error) => {
                    report.error(entry.key_span, error.to_string());
                    continue;
                }
            };
            // Not a repeated key, which is gone by now, but `a.b` beside a group `a` that holds `b`.
            if !self.names.insert(name) {
                report.error(entry.key_span, format!("the parameter {checked} stands here a second time"));
                continue;
            }
            if let Some((domain, items)) = domain(entry, report) {
                self.space.push(Parameter { name: checked, domain });
                self.places.push(ParameterPlace { name: entry.key_span, items, key_bytes: entry.key.len() });
            }
        }
    }
}

/// The inner section of a nested parameter.
fn nested(entry: &Entry) -> Option<&Node> {
    match &entry.node.value {
        Value::Mapping(keys) => keys.iter().find(|key| key.key == "parameters").map(|key| &key.node),
        Value::Scalar(_) | Value::Unusable(_) | Value::Sequence(_) => None,
    }
}
