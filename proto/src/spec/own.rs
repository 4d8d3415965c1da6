//! Models and data sets of trainers of one's own, in a sweep: which it uses, whether anybody has them, and pinning what
//! they are.

use super::{
    SweepSpec,
    against_catalogue::words,
    diagnostic::{Report, Span},
    sections::Places,
};
use crate::{
    catalogue::{CatalogueError, ModelKind, OwnCatalogue, listed, nearest, other_file},
    datasets::DataSets,
    ids::ModelName,
};

/// Names that are shown where one is wrong.
const NAMES_SHOWN: usize = 20;

/// What is known of trainers' own models where a sweep is checked.
#[derive(Debug, Clone, Copy)]
pub enum Own<'a> {
    /// What trainers have told, and nothing else.
    Told(&'a OwnCatalogue),
    /// Nothing, and somebody else will look: a sweep that names such a model is checked no further.
    Any,
}

impl SweepSpec {
    /// Names that trials have under `key`, in `train` or as a parameter.
    fn named<'a>(&'a self, key: &str, in_train: Option<&'a str>) -> Vec<&'a str> {
        words(self, key).unwrap_or_else(|| in_train.into_iter().collect())
    }
}

/// Puts into the sweep what trainers told of the models and data sets that it names.
pub(super) fn pin(spec: &mut SweepSpec, own: Own<'_>) {
    let (Own::Told(told), None) = (own, &spec.program) else { return };
    let models = spec.named("model", spec.train.model.as_deref());
    let data = spec.named("data", spec.train.data.as_ref().map(|name| name.as_str()));
    let used = OwnCatalogue {
        models: told.models.iter().filter(|model| models.contains(&model.name.as_str())).cloned().collect(),
        data: told.data.iter().filter(|set| data.contains(&set.name.as_str())).cloned().collect(),
    };
    spec.train.own = used;
}

/// Whether every model is there. False if that is not known here, so that nothing more can be checked.
pub(super) fn check(
    spec: &SweepSpec,
    places: &Places,
    own: Own<'_>,
    sets: &DataSets,
    report: &mut Report<'_>,
) -> bool {
    let names = spec.named("model", spec.train.model.as_deref());
    let mut unknown =
        names.into_iter().filter(|name| is_own(name) && spec.train.own.model(name).is_none()).peekable();
    let told = match own {
        Own::Told(told) => told,
        Own::Any => return unknown.peek().is_none(),
    };
    for name in unknown {
        let CatalogueError { message, hint, .. } = unknown_model(name, told);
        report.push(place_of("model", name, spec, places), message, hint);
    }
    for set in &spec.train.own.data {
        let name = set.name.as_str();
        if sets.find(name).ok().flatten().is_some_and(|stored| stored.name != set.name) {
            report.push(
                place_of("data", name, spec, places),
                format!("the data set {name} is a trainer's own, and one of that name is stored as well"),
                Some("name the stored one by its digest, as `spotsweep data ls` lists it, or add it under another name".to_owned()),
            );
        }
    }
    true
}

/// Whether only a trainer of one's own can have such a model.
fn is_own(name: &str) -> bool {
    !ModelKind::is_taken(name) && ModelName::new(name).is_ok()
}

/// Nobody who was heard of has the model.
fn unknown_model(name: &str, told: &OwnCatalogue) -> CatalogueError {
    // A module is named by its file, not by its kind.
    let named = |name: &&str| *name != ModelKind::TorchScript.name();
    let mut valid: Vec<&str> = ModelKind::names().filter(named).collect();
    valid.extend(told.models.iter().map(|model| model.name.as_str()));
    let error = CatalogueError::new("model", format!("there is no model {name:?}"));
    if let Some(hint) = other_file(name) {
        return error.hint(hint);
    }
    match nearest(name, valid.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(format!(
            "one of {}; a model of your own is known once a worker with its trainer is connected, or by `--trainer PATH`",
            listed(valid.iter().copied().take(NAMES_SHOWN))
        )),
    }
}

/// Where the value `name` of `key` stands in the file.
fn place_of(key: &str, name: &str, spec: &SweepSpec, places: &Places) -> Option<Span> {
    let index = spec.space.0.iter().position(|p| crate::catalogue::canonical(&p.name) == key);
    let parameter = index.and_then(|index| places.parameters.get(index)).map(|place| {
        let at = words(spec, key).and_then(|words| words.iter().position(|word| *word == name));
        at.and_then(|at| place.items.get(at)).copied().unwrap_or(place.name)
    });
    let train = || places.train_keys.iter().find(|(other, _)| other == key).map(|(_, span)| *span);
    parameter.or_else(train).or(places.train)
}
