//! Data sets that users have added, in a sweep: which it asks for, whether they are there, and pinning them.

use super::{
    SweepSpec,
    diagnostic::Report,
    sections::Places,
    yaml::{self, Node, Value},
};
use crate::{
    catalogue::{Dataset, canonical},
    datasets::{DataRef, DataSets},
    ids::DataName,
    limits::SWEEP_FILE_BYTES,
    value::ParamValue,
};
use std::collections::BTreeSet;

/// The key of data sets, in `train` and among parameters.
const KEY: &str = "data";
/// Wrong names that are told of one parameter.
const FAULTS: usize = 3;
/// Most data sets that one sweep may ask for: each is looked up before the sweep is checked.
const ASKED: usize = 256;

/// The added data sets that a sweep file may ask for, found without checking the file: whoever is about to call
/// [`super::parse_with`] looks these up first. Names of the catalogue are not among them; a file that cannot be read
/// asks for none. At most [`ASKED`].
#[must_use]
pub fn data_asked_for(source: &[u8]) -> BTreeSet<DataRef> {
    let mut asked = BTreeSet::new();
    let text = std::str::from_utf8(source).unwrap_or_default();
    if source.len() <= SWEEP_FILE_BYTES
        && let Some(root) = yaml::read(text.strip_prefix('\u{feff}').unwrap_or(text), &mut Report::new(""))
    {
        walk(&root, false, &mut asked);
    }
    asked
}

fn walk(node: &Node, below_data: bool, asked: &mut BTreeSet<DataRef>) {
    match &node.value {
        Value::Scalar(ParamValue::Text(text)) if below_data && asked.len() < ASKED => {
            if Dataset::named(text).is_none() {
                asked.extend(text.parse::<DataRef>().ok());
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| walk(item, below_data, asked)),
        Value::Mapping(entries) => {
            for entry in entries {
                let is_data = entry.key.rsplit('.').next() == Some(KEY);
                walk(&entry.node, below_data || is_data, asked);
            }
        }
        Value::Scalar(_) | Value::Unusable(_) => {}
    }
}

/// Whether every data set is there.
pub(super) fn check(spec: &SweepSpec, places: &Places, sets: &DataSets, report: &mut Report<'_>) {
    if let Some(name) = &spec.train.data
        && spec.train.own.data_set(name.as_str()).is_none()
        && let Err(error) = sets.find(name.as_str())
    {
        let span = places.train_keys.iter().find(|(key, _)| key == KEY).map(|(_, span)| *span);
        report.push(span.or(places.train), error.message, error.hint);
    }
    for (parameter, place) in spec.space.0.iter().zip(&places.parameters) {
        if canonical(&parameter.name) != KEY {
            continue;
        }
        let wrong = parameter.domain.listed().iter().enumerate().filter_map(|(index, value)| match value {
            // What cannot be a name at all was told of before.
            ParamValue::Text(text)
                if text.parse::<DataRef>().is_ok() && spec.train.own.data_set(text).is_none() =>
            {
                Some((index, sets.find(text).err()?))
            }
            _ => None,
        });
        for (index, error) in wrong.take(FAULTS) {
            report.push(
                Some(place.items.get(index).copied().unwrap_or(place.name)),
                error.message,
                error.hint,
            );
        }
    }
}

/// The same sweep with every added data set pinned to the manifest that its name stands for now.
pub(super) fn pin(mut spec: SweepSpec, sets: &DataSets) -> SweepSpec {
    if spec.program.is_some() {
        return spec;
    }
    let pinned = |text: &str| sets.find(text).ok().flatten().map(|found| found.name);
    if let Some(name) = &mut spec.train.data
        && let Some(found) = pinned(name.as_str())
    {
        *name = found;
    }
    let pin_value = |value: &mut ParamValue| {
        if let ParamValue::Text(text) = value
            && let Some(found) = pinned(text)
        {
            *text = found.to_string();
        }
    };
    for parameter in spec.space.0.iter_mut().filter(|parameter| canonical(&parameter.name) == KEY) {
        parameter.domain.listed_mut().iter_mut().for_each(pin_value);
    }
    spec
}

impl SweepSpec {
    /// The data sets that trials may name: a parameter `data`, or what `train` says.
    #[must_use]
    pub fn data_names(&self) -> BTreeSet<DataName> {
        let text = |value: &ParamValue| match value {
            ParamValue::Text(text) => DataName::new(text).ok(),
            _ => None,
        };
        match self.space.0.iter().find(|parameter| canonical(&parameter.name) == KEY) {
            // Of a program, `data` is a parameter like any other.
            _ if self.program.is_some() => BTreeSet::new(),
            Some(parameter) => parameter.domain.listed().iter().filter_map(text).collect(),
            None => self.train.data.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        catalogue::OwnCatalogue,
        datasets::manifest::DataFacts,
        digest::Digest,
        spec::{Own, parse_with},
    };

    fn sets() -> DataSets {
        let facts = DataFacts { shape: [1, 2, 3], classes: 2, train_samples: 10, test_samples: 3 };
        let mut sets = DataSets::stored();
        sets.add(&"clothes".parse().unwrap(), Digest::of(b"m"), facts);
        sets.add_names(["clothes".to_owned()]);
        sets
    }

    fn sweep(rest: &str) -> String {
        format!("method: grid\n{rest}\n")
    }

    #[test]
    fn a_sweep_asks_for_what_stands_under_data_and_is_not_the_catalogues() {
        let asked = |text: &str| -> Vec<String> {
            data_asked_for(text.as_bytes()).iter().map(ToString::to_string).collect()
        };
        assert_eq!(asked("train: {data: clothes, model: mlp}"), ["clothes"]);
        assert_eq!(asked("parameters: {data: {values: [mnist, a, b]}}"), ["a", "b"]);
        assert_eq!(asked("parameters: {x: {parameters: {data: {value: c}}}}"), ["c"]);
        assert!(asked("{{{").is_empty() && asked("train: {data: ../etc}").is_empty());
    }

    #[test]
    fn an_added_data_set_is_pinned_wherever_it_stands() {
        let pinned = format!("clothes@blake3:{}", Digest::of(b"m"));
        let text = sweep("train: {data: clothes, model: mlp}\nparameters: {batch_size: {value: 4}}");
        let spec =
            parse_with(text.as_bytes(), "a.yaml", &sets(), Own::Told(&OwnCatalogue::default())).unwrap();
        assert_eq!(spec.train.data.unwrap().as_str(), pinned);
        let text = sweep(
            "train: {model: mlp}\nparameters: {data: {values: [clothes, mnist]}, batch_size: {value: 4}}",
        );
        let spec =
            parse_with(text.as_bytes(), "a.yaml", &sets(), Own::Told(&OwnCatalogue::default())).unwrap();
        let names: Vec<String> = spec.data_names().iter().map(ToString::to_string).collect();
        assert_eq!(names, [pinned, "mnist".to_owned()]);
    }

    #[test]
    fn an_unknown_name_and_a_batch_beyond_the_data_are_told_with_their_place() {
        let text = sweep("train: {data: cloths, model: mlp}");
        let error = parse_with(text.as_bytes(), "a.yaml", &sets(), Own::Told(&OwnCatalogue::default()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("a.yaml:2:15") && error.contains("did you mean clothes?"), "{error}");
        let text = sweep("train: {data: clothes, model: mlp}\nparameters: {batch_size: {value: 64}}");
        let error = parse_with(text.as_bytes(), "a.yaml", &sets(), Own::Told(&OwnCatalogue::default()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("more than the 9 training samples of clothes"), "{error}");
    }
}
