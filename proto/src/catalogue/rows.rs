//! The catalogue as rows for people and scripts: what `spotsweep models` prints. No layout, no colour.

use super::{
    Hyperparameter, MODELS, ModelKind, OwnCatalogue,
    hyperparameters::{DefaultValue, Literal, OPTIMIZERS},
    own::OwnModel,
};
use crate::value::ParamValue;
use serde::Serialize;

/// A model in a list of models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRow {
    /// Its name.
    pub name: String,
    /// One line.
    pub about: String,
    /// Where it is described, or empty.
    pub source: &'static str,
    /// How many hyperparameters it has.
    pub parameters: usize,
}

/// A hyperparameter of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParameterRow {
    /// Its name.
    pub name: String,
    /// Type and range in words, for instance `a number in (0, 10]`.
    pub takes: String,
    /// The default in words, for instance `0.05 (sgd), 0.001 (adam, adamw)`.
    pub default: String,
    /// The choice that it depends on, for instance `optimizer: sgd`, or empty.
    pub only_with: String,
    /// One line.
    pub about: String,
    /// Where it is defined, or empty.
    pub source: &'static str,
}

/// All models, from the simplest up, and those that are a trainer's own behind them.
#[must_use]
pub fn models(own: &OwnCatalogue) -> Vec<ModelRow> {
    let shared = Hyperparameter::of(ModelKind::Own).count();
    let ours = MODELS.iter().map(|model| ModelRow {
        name: model.name.name().to_owned(),
        about: model.about.to_owned(),
        source: model.source,
        parameters: Hyperparameter::of(model.name).count(),
    });
    let own = own.models.iter().map(|model| ModelRow {
        name: model.name.to_string(),
        about: model.about.clone(),
        source: "",
        parameters: shared + model.parameters.len(),
    });
    ours.chain(own).collect()
}

/// The hyperparameters of a model that is a trainer's own, its own ones last.
#[must_use]
pub fn own_parameters(model: &OwnModel) -> Vec<ParameterRow> {
    let own = model.parameters.iter().map(|parameter| ParameterRow {
        name: parameter.name.to_string(),
        takes: parameter.kind.to_string(),
        default: shown(parameter.default.clone()),
        only_with: String::new(),
        about: parameter.about.clone(),
        source: "",
    });
    parameters(ModelKind::Own).into_iter().chain(own).collect()
}

/// The hyperparameters of `model`.
#[must_use]
pub fn parameters(model: ModelKind) -> Vec<ParameterRow> {
    Hyperparameter::of(model)
        .map(|row| ParameterRow {
            name: row.name.to_owned(),
            takes: row.kind.to_string(),
            default: default_in_words(row, model),
            only_with: row
                .only_with
                .map(|with| format!("{}: {}", with.key, with.choices.join(" or ")))
                .unwrap_or_default(),
            about: row.about.to_owned(),
            source: row.source,
        })
        .collect()
}

fn default_in_words(row: &Hyperparameter, model: ModelKind) -> String {
    match row.default {
        DefaultValue::Required => "required".to_owned(),
        DefaultValue::Always(_) | DefaultValue::ByModel(..) => {
            row.default_for(model, "").map(in_words).unwrap_or_default()
        }
        DefaultValue::ByOptimizer(..) => {
            let mut groups: Vec<(Literal, Vec<&str>)> = Vec::new();
            for optimizer in OPTIMIZERS {
                if let Some(literal) = row.default_for(model, optimizer) {
                    match groups.iter_mut().find(|(other, _)| *other == literal) {
                        Some((_, names)) => names.push(optimizer),
                        None => groups.push((literal, vec![optimizer])),
                    }
                }
            }
            groups
                .into_iter()
                .map(|(literal, names)| format!("{} ({})", in_words(literal), names.join(", ")))
                .collect::<Vec<_>>()
                .join(", ")
        }
    }
}

fn in_words(literal: Literal) -> String {
    shown(literal.to_value())
}

fn shown(value: ParamValue) -> String {
    match value {
        ParamValue::Null => "none".to_owned(),
        // Without the decimal point that JSON needs.
        ParamValue::Float(x) if x == 0.0 || x.abs() >= 1e-4 => x.to_string(),
        ParamValue::Float(x) => format!("{x:e}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_catalogue_is_what_it_was() {
        let mut text = String::new();
        for model in models(&OwnCatalogue::default()) {
            text += &format!(
                "{} ({} parameters) [{}] {}\n",
                model.name, model.parameters, model.source, model.about
            );
        }
        for row in parameters(ModelKind::Cnn) {
            text += &format!("{} = {}: {} | {}\n", row.name, row.default, row.takes, row.only_with);
        }
        insta::assert_snapshot!(text);
    }
}
