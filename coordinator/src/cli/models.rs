//! `spotsweep models`: the catalogue of models and their hyperparameters.

use super::{
    client::CoordinatorArgs,
    error::{Ending, Outcome},
    local,
    out::{self, Out},
    rows::{self, Field, Format, Row},
    table::{Align, Column, Keep, Table},
};
use crate::error::{Code, Problem};
use clap::Args;
use spotsweep_proto::catalogue::{
    ModelKind, OwnCatalogue, nearest,
    own::OwnModel,
    rows::{ModelRow, ParameterRow, models, own_parameters, parameters},
};
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  spotsweep models                          all models, from the simplest up
  spotsweep models cnn                      the hyperparameters of one
  spotsweep models cnn --format json
  spotsweep models --trainer target/release/custom-model
  spotsweep models --coordinator http://127.0.0.1:7077     with those of its workers' trainers";

/// Options of `models`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ModelsArgs {
    /// The model whose hyperparameters to show
    pub(crate) name: Option<String>,
    /// Also those of this trainer
    #[arg(long, value_name = "PATH")]
    pub(crate) trainer: Option<PathBuf>,
    /// Also those that workers of a coordinator have told.
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorArgs,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Runs it.
///
/// # Errors
/// If there is no such model.
pub(crate) async fn run(args: ModelsArgs) -> Outcome {
    let mut own = local::models_of(args.trainer.as_deref()).await?;
    if args.coordinator.named().is_some() {
        match told(&args.coordinator).await {
            Ok(told) => {
                let is_new = |model: &OwnModel| own.model(model.name.as_str()).is_none();
                let others: Vec<_> = told.models.into_iter().filter(is_new).collect();
                own.models.extend(others);
            }
            // The variable may name one that does not run now.
            Err(problem) if args.coordinator.coordinator.is_none() => out::warn(&problem.message),
            Err(problem) => return Err(problem.into()),
        }
    }
    let (table, rows) = match &args.name {
        None => {
            let models = models(&own);
            (models_table(&models), models.iter().map(model_row).collect::<Vec<_>>())
        }
        Some(name) => {
            let parameters = match own.model(name) {
                Some(own) => own_parameters(own),
                None => parameters(model(name, &own)?),
            };
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

/// What workers of a coordinator have told.
async fn told(coordinator: &CoordinatorArgs) -> Result<OwnCatalogue, Problem> {
    coordinator.open().await?.models().await
}

fn model(name: &str, own: &OwnCatalogue) -> Result<ModelKind, Problem> {
    ModelKind::named(name).ok_or_else(|| {
        let all = models(own);
        let names = || all.iter().map(|model| model.name.as_str());
        let problem = Problem::new(Code::BadRequest, format!("there is no model {name:?}"));
        match nearest(name, names()) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem.hint(format!("there is: {}", names().collect::<Vec<_>>().join(", "))),
        }
    })
}

fn model_row(model: &ModelRow) -> Row {
    Row::new()
        .with("model", Field::text(&model.name))
        .with("about", Field::text(&model.about))
        .with("source", Field::text(model.source))
        .with("parameters", Field::Count(model.parameters as u64))
}

fn parameter_row(parameter: &ParameterRow) -> Row {
    Row::new()
        .with("parameter", Field::text(&parameter.name))
        .with("takes", Field::text(&parameter.takes))
        .with("default", Field::text(&parameter.default))
        .with("only_with", Field::text(&parameter.only_with))
        .with("about", Field::text(&parameter.about))
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
            model.name.as_str().into(),
            model.about.as_str().into(),
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
            one.name.as_str().into(),
            one.default.as_str().into(),
            one.takes.as_str().into(),
            one.only_with.as_str().into(),
            one.about.as_str().into(),
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
        insta::assert_snapshot!(plain(&models_table(&models(&OwnCatalogue::default())), Some(100)));
        insta::assert_snapshot!(plain(&parameters_table(&parameters(ModelKind::Cnn)), Some(100)));
    }

    #[test]
    fn a_model_that_is_misspelt_is_suggested() {
        assert_eq!(model("fixed-cn", &OwnCatalogue::default()).unwrap_err().hint, "did you mean fixed_cnn?");
        assert!(
            model("transformer", &OwnCatalogue::default()).unwrap_err().hint.starts_with("there is: noop, ")
        );
    }
}
