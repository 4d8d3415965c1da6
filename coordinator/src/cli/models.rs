//! `spotsweep models`: the catalogue of models and their hyperparameters.

use super::{
    error::{Ending, Outcome},
    out::Out,
    rows::{self, Field, Format, Row},
    table::{Align, Column, Keep, Table},
};
use crate::error::{Code, Problem};
use clap::Args;
use spotsweep_proto::catalogue::{
    ModelKind, nearest,
    rows::{ModelRow, ParameterRow, models, parameters},
};

const EXAMPLES: &str = "Examples:
  spotsweep models                          all models, from the simplest up
  spotsweep models cnn                      the hyperparameters of one
  spotsweep models cnn --format json";

/// Options of `models`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ModelsArgs {
    /// The model whose hyperparameters to show
    pub(crate) name: Option<String>,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Runs it.
///
/// # Errors
/// If there is no such model.
pub(crate) fn run(args: &ModelsArgs) -> Outcome {
    let (table, rows) = match &args.name {
        None => {
            let models = models();
            (models_table(&models), models.iter().map(model_row).collect::<Vec<_>>())
        }
        Some(name) => {
            let parameters = parameters(model(name)?);
            (parameters_table(&parameters), parameters.iter().map(parameter_row).collect())
        }
    };
    let mut out = Out::stdout();
    match args.format {
        Format::Table => out.table(&table)?,
        Format::Json => out.text(&rows::json_lines(&rows))?,
        Format::Csv => out.text(&rows::csv(&rows)?)?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

fn model(name: &str) -> Result<ModelKind, Problem> {
    ModelKind::named(name).ok_or_else(|| {
        let all = models();
        let names = || all.iter().map(|model| model.name);
        let problem = Problem::new(Code::BadRequest, format!("there is no model {name:?}"));
        match nearest(name, names()) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem.hint(format!("there is: {}", names().collect::<Vec<_>>().join(", "))),
        }
    })
}

fn model_row(model: &ModelRow) -> Row {
    Row::new()
        .with("model", Field::text(model.name))
        .with("about", Field::text(model.about))
        .with("source", Field::text(model.source))
        .with("parameters", Field::Count(model.parameters as u64))
}

fn parameter_row(parameter: &ParameterRow) -> Row {
    Row::new()
        .with("parameter", Field::text(parameter.name))
        .with("takes", Field::text(&parameter.takes))
        .with("default", Field::text(&parameter.default))
        .with("only_with", Field::text(&parameter.only_with))
        .with("about", Field::text(parameter.about))
        .with("source", Field::text(parameter.source))
}

fn models_table(models: &[ModelRow]) -> Table {
    let mut table = Table::new(vec![
        Column::new("model", Align::Left, Keep::Always),
        Column::new("about", Align::Left, Keep::Cut(66)),
        Column::new("parameters", Align::Right, Keep::Optional(2)),
        Column::new("source", Align::Left, Keep::Optional(3)),
    ]);
    for model in models {
        table.row(vec![
            model.name.into(),
            model.about.into(),
            model.parameters.to_string().into(),
            model.source.into(),
        ]);
    }
    table
}

fn parameters_table(parameters: &[ParameterRow]) -> Table {
    let mut table = Table::new(vec![
        Column::new("parameter", Align::Left, Keep::Always),
        Column::new("default", Align::Left, Keep::Cut(18)),
        Column::new("takes", Align::Left, Keep::Always),
        Column::new("only with", Align::Left, Keep::Optional(1)),
        Column::new("about", Align::Left, Keep::Cut(20)),
        Column::new("source", Align::Left, Keep::Optional(2)),
    ]);
    for one in parameters {
        table.row(vec![
            one.name.into(),
            one.default.as_str().into(),
            one.takes.as_str().into(),
            one.only_with.as_str().into(),
            one.about.into(),
            one.source.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_fits_a_terminal() {
        let plain =
            |table: &Table, width| anstream::adapter::strip_str(&table.render(width).text).to_string();
        insta::assert_snapshot!(plain(&models_table(&models()), Some(100)));
        insta::assert_snapshot!(plain(&parameters_table(&parameters(ModelKind::Cnn)), Some(100)));
    }

    #[test]
    fn a_model_that_is_misspelt_is_suggested() {
        assert_eq!(model("fixed-cn").unwrap_err().hint, "did you mean fixed_cnn?");
        assert!(model("transformer").unwrap_err().hint.starts_with("there is: noop, "));
    }
}
