//! `spotsweep metrics`: the curve of one trial, one row a reported step.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    out::{self, Out},
    plot,
    rows::{self, Field, Row},
    table::{Align, Cell, Column, Keep, Table, cut},
    text,
};
use crate::error::{Code, Problem};
use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};
use spotsweep_proto::catalogue::nearest;
use spotsweep_wire::v1::Point;
use std::collections::BTreeSet;

const EXAMPLES: &str = "Examples:
  spotsweep metrics fashion-ladder/7                     curves on a terminal, a table elsewhere
  spotsweep metrics fashion-ladder/7 --metric val_loss
  spotsweep metrics fashion-ladder/7 --format csv > curve.csv
  spotsweep metrics fashion-ladder/7 --format json | jq .val_accuracy";

/// Lines of a picture where there are several, its axis among them.
const LINES_OF_MANY: usize = 7;
/// Lines of a picture that is the only one.
const LINES_OF_ONE: usize = 16;
/// Widest picture: what is wider is no clearer.
const WIDEST: usize = 160;

/// How the points of a trial are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricsFormat {
    /// A curve for each metric
    Plot,
    /// For people
    Table,
    /// One JSON object a line
    Json,
    /// A header and one line a step
    Csv,
}

/// Options of `metrics`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MetricsArgs {
    /// The trial, as SWEEP/NUMBER
    pub(crate) trial: String,
    /// Only this metric; may be given several times
    #[arg(long = "metric", value_name = "NAME")]
    pub(crate) metrics: Vec<String>,
    /// How to print them [default: plot on a terminal, table elsewhere]
    #[arg(long, value_enum)]
    pub(crate) format: Option<MetricsFormat>,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such trial or metric, or the source fails.
pub(crate) async fn run(args: MetricsArgs) -> Outcome {
    super::target::trial(&args.trial)?;
    let mut source = args.read.open(Some(&args.trial)).await?;
    let mut out = Out::stdout();
    let width = out::width();
    let usual = if width.is_some() { MetricsFormat::Plot } else { MetricsFormat::Table };
    let format = args.format.unwrap_or(usual);
    let (mut points, mut seen, mut any) = (Vec::new(), BTreeSet::new(), false);
    source
        .metrics(&args.trial, &mut |mut point| {
            any = true;
            if !args.metrics.is_empty() {
                seen.extend(point.metrics.iter().map(|metric| metric.name.clone()));
                point.metrics.retain(|metric| args.metrics.contains(&metric.name));
                // It told of other metrics.
                if point.metrics.is_empty() {
                    return Ok(());
                }
            }
            match format {
                MetricsFormat::Json => out.line(&row(&point).to_json_line())?,
                MetricsFormat::Plot | MetricsFormat::Table | MetricsFormat::Csv => points.push(point),
            }
            Ok(())
        })
        .await?;
    if let Some(unknown) = args.metrics.iter().find(|name| any && !seen.contains(*name)) {
        return Err(no_such_metric(&args.trial, unknown, &seen).into());
    }
    match format {
        MetricsFormat::Json => {}
        MetricsFormat::Plot | MetricsFormat::Table if !any => {
            out::say(&format!("{} has not reported anything yet", args.trial));
        }
        MetricsFormat::Plot => out.text(&plots(&points, width.unwrap_or(80)))?,
        MetricsFormat::Table => out.table(&table(&points))?,
        MetricsFormat::Csv => out.text(&rows::csv(&points.iter().map(row).collect::<Vec<_>>())?)?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

fn no_such_metric(trial: &str, name: &str, seen: &BTreeSet<String>) -> Problem {
    let problem = Problem::new(Code::BadRequest, format!("{trial} reported no metric {name:?}"));
    match nearest(name, seen.iter().map(String::as_str)) {
        Some(near) => problem.hint(format!("did you mean {near}?")),
        None => problem.hint(format!("it reported: {}", seen.iter().cloned().collect::<Vec<_>>().join(", "))),
    }
}

/// A picture for each metric, in `width` columns.
#[must_use]
pub(crate) fn plots(points: &[Point], width: usize) -> String {
    let curves = plot::curves(points);
    let height = if curves.len() == 1 { LINES_OF_ONE } else { LINES_OF_MANY };
    let bold = Style::new().bold();
    let cyan = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
    let mut pictures = Vec::new();
    for curve in &curves {
        let mut text = format!("{bold}{}{bold:#}\n", cut(&curve.caption(), width));
        for line in plot::lines(curve, width.min(WIDEST), height) {
            text += &format!("{cyan}{line}{cyan:#}\n");
        }
        pictures.push(text);
    }
    pictures.join("\n")
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

    #[test]
    fn every_metric_has_a_picture_as_wide_as_the_terminal() {
        let text = plots(&points(), 60);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }

    #[test]
    fn a_metric_that_was_not_reported_is_named_with_the_nearest_that_was() {
        let seen: BTreeSet<String> = ["val_loss".to_owned()].into();
        assert_eq!(no_such_metric("l/3", "val_los", &seen).hint, "did you mean val_loss?");
        assert_eq!(no_such_metric("l/3", "x", &seen).hint, "it reported: val_loss");
    }
}
