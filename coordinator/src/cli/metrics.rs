//! `spotsweep metrics`: the curve of one trial, one row a reported step.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    out::Out,
    rows::{self, Field, Format, Row},
    table::{Align, Cell, Column, Keep, Table},
    text,
};
use clap::Args;
use spotsweep_wire::v1::Point;

const EXAMPLES: &str = "Examples:
  spotsweep metrics fashion-ladder/7
  spotsweep metrics fashion-ladder/7 --format csv > curve.csv
  spotsweep metrics fashion-ladder/7 --format json | jq .val_accuracy";

/// Options of `metrics`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MetricsArgs {
    /// The trial, as SWEEP/NUMBER
    pub(crate) trial: String,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such trial, or the source fails.
pub(crate) async fn run(args: MetricsArgs) -> Outcome {
    super::target::trial(&args.trial)?;
    let mut source = args.read.open(Some(&args.trial)).await?;
    let mut out = Out::stdout();
    let mut points = Vec::new();
    source
        .metrics(&args.trial, &mut |point| match args.format {
            Format::Json => out.line(&row(&point).to_json_line()),
            Format::Table | Format::Csv => {
                points.push(point);
                Ok(())
            }
        })
        .await?;
    match args.format {
        Format::Json => {}
        Format::Table if points.is_empty() => {
            super::out::say(&format!("{} has not reported anything yet", args.trial));
        }
        Format::Table => out.table(&table(&points))?,
        Format::Csv => out.text(&rows::csv(&points.iter().map(row).collect::<Vec<_>>())?)?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

/// One object a step: `step`, `epoch`, and the metrics by name. A metric that is itself called `step` or `epoch`
/// is `metrics.step` or `metrics.epoch`.
#[must_use]
pub(crate) fn row(point: &Point) -> Row {
    let mut row =
        Row::new().with("step", Field::Count(point.step)).with("epoch", Field::Float(point.data_epoch));
    for metric in &point.metrics {
        let name = match metric.name.as_str() {
            taken @ ("step" | "epoch") => format!("metrics.{taken}"),
            free => free.to_owned(),
        };
        row = row.with(&name, Field::Float(metric.value));
    }
    row
}

/// The curve as a table.
#[must_use]
pub(crate) fn table(points: &[Point]) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for metric in points.iter().flat_map(|point| &point.metrics) {
        if !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    let mut columns = vec![
        Column::new("step", Align::Right, Keep::Always),
        Column::new("epoch", Align::Right, Keep::Always),
    ];
    columns.extend(names.iter().enumerate().map(|(index, name)| {
        Column::new(name, Align::Right, Keep::Optional(u16::try_from(index).unwrap_or(u16::MAX)))
    }));
    let mut table = Table::new(columns);
    for point in points {
        let mut cells: Vec<Cell> =
            vec![point.step.to_string().into(), format!("{:.2}", point.data_epoch).into()];
        cells.extend(names.iter().map(|name| {
            let found = point.metrics.iter().find(|metric| metric.name == *name);
            found.map(|metric| text::metric(metric.value)).unwrap_or_default().into()
        }));
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_wire::v1::Metric;

    fn points() -> Vec<Point> {
        let point = |step: u64, metrics: &[(&str, f64)]| Point {
            trial: "ladder/3".to_owned(),
            step,
            #[expect(clippy::cast_precision_loss, reason = "a test")]
            data_epoch: step as f64 / 422.0,
            metrics: metrics
                .iter()
                .map(|(name, value)| Metric { name: (*name).to_owned(), value: *value })
                .collect(),
            at_us: 0,
        };
        vec![
            point(100, &[("train_loss", 0.7)]),
            point(422, &[("train_loss", f64::NAN), ("val_accuracy", 0.81), ("epoch", 1.0)]),
        ]
    }

    #[test]
    fn a_point_is_one_flat_object() {
        insta::assert_snapshot!(
            points().iter().map(|point| row(point).to_json_line() + "\n").collect::<String>()
        );
    }

    #[test]
    fn a_curve_is_a_table_of_steps() {
        insta::assert_snapshot!(
            anstream::adapter::strip_str(&table(&points()).render(Some(80)).text).to_string()
        );
    }
}
