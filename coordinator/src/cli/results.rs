//! `spotsweep results`: one row a trial.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    order::{Key, arrange},
    out::{self, Out},
    rows::{self, Format},
    table::{Align, Cell, Column, Keep, Table},
    text, trial,
};
use clap::Args;
use serde_json::Value;
use spotsweep_proto::metric::{Goal, TIMING_METRICS};
use spotsweep_wire::v1::{SweepSummary, Trial};
use std::collections::BTreeSet;

const EXAMPLES: &str = "Examples:
  spotsweep results                                 the only sweep, best first
  spotsweep results fashion-ladder --top 5
  spotsweep results --sort val_loss                 by its last value, not the best at any step
  spotsweep results --sort learning_rate            by a parameter, smallest first
  spotsweep results --sort -seconds                 largest first
  spotsweep results --sort metrics.learning_rate    the metric, where a parameter has the name too
  spotsweep results --format json | jq .metrics     one object a line
  spotsweep results --format csv > results.csv";

/// Options of `results`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ResultsArgs {
    /// The sweep; may be left out where there is only one
    pub(crate) sweep: Option<String>,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Order by a metric (its last value), a parameter, or best (the best value of the objective at any step: the
    /// order of the table), number, state, steps, attempts, seconds; -KEY turns it round
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// Only the first N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) top: Option<u64>,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such sweep or key, or the source fails.
pub(crate) async fn run(args: ResultsArgs) -> Outcome {
    let mut source = args.read.open(args.sweep.as_deref()).await?;
    let name = source.sweep_or_only(args.sweep.clone()).await?;
    // JSON in order of number needs no trial in memory but one.
    if args.format == Format::Json && args.sort.is_none() && args.top.is_none() {
        let mut out = Out::stdout();
        source.results(&name, &mut |row| out.line(&trial::row(&row).to_json_line())).await?;
        out.flush()?;
        return Ok(Ending::Well);
    }
    let summary = source.summary(&name).await?;
    let mut trials = Vec::new();
    source
        .results(&name, &mut |row| {
            trials.push(row);
            Ok(())
        })
        .await?;
    print(trials, &summary, args.format, args.sort.as_deref(), args.top)
}

/// Prints `trials` as asked. Without a key, tables and the `top` ones are best first; CSV is in order of number.
///
/// # Errors
/// If there is no such key, or stdout fails.
pub(crate) fn print(
    trials: Vec<Trial>,
    summary: &SweepSummary,
    format: Format,
    sort: Option<&str>,
    top: Option<u64>,
) -> Outcome {
    let best_first = sort.is_none() && (format == Format::Table || top.is_some());
    let key = match sort {
        Some(word) => Some(Key::parse(word, &trials, summary)?),
        None if best_first => Some(Key::objective(summary)),
        None => None,
    };
    let all = trials.len();
    let trials = arrange(trials, key.as_ref(), top.map(|n| usize::try_from(n).unwrap_or(usize::MAX)));
    let mut out = Out::stdout();
    match format {
        Format::Table => {
            out.table(&table(&trials, summary, key.as_ref().and_then(Key::metric)))?;
            if trials.len() < all {
                out::note(&format!("{} of {}", trials.len(), text::count(all as u64, "trial")));
            }
        }
        Format::Json => trials.iter().try_for_each(|one| out.line(&trial::row(one).to_json_line()))?,
        Format::Csv => {
            let rows: Vec<_> = trials.iter().map(trial::row).collect();
            out.text(&rows::csv(&rows)?)?;
        }
    }
    out.flush()?;
    Ok(Ending::Well)
}

/// The parameters that differ between trials, or all where none does, in the order of the sweep.
#[must_use]
pub(crate) fn varying(trials: &[Trial]) -> Vec<String> {
    let mut names: Vec<(String, Value, bool)> = Vec::new();
    for (index, one) in trials.iter().enumerate() {
        for (name, value) in trial::params(one) {
            match names.iter_mut().find(|(known, _, _)| *known == name) {
                Some((_, first, differs)) => *differs = *differs || *first != value,
                None => names.push((name, value, index > 0)),
            }
        }
    }
    let any = names.iter().any(|(_, _, differs)| *differs);
    names.into_iter().filter(|(_, _, differs)| *differs || !any).map(|(name, _, _)| name).collect()
}

/// The metrics of all trials that are shown: the objective's first, then as trials report them. Wall-clock ones are left
/// out; so is one that has the name of a parameter (`learning_rate`: the parameter is what was asked for, the metric its
/// schedule's last value), unless it is the objective or `asked` for.
#[must_use]
pub(crate) fn metric_names(trials: &[Trial], objective: &str, asked: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let params: BTreeSet<String> =
        trials.iter().flat_map(|one| trial::params(one).into_iter().map(|(name, _)| name)).collect();
    let hidden = |name: &str| TIMING_METRICS.contains(&name) || params.contains(name);
    for metric in trials.iter().flat_map(|one| &one.metrics) {
        let wanted = metric.name == objective || asked == Some(&metric.name) || !hidden(&metric.name);
        if wanted && !names.contains(&metric.name) {
            names.push(metric.name.clone());
        }
    }
    names.sort_by_key(|name| name != objective);
    names
}

/// The results as a table, in the order given: what varies, and what came of it. The metric `asked` for is shown
/// whatever it is. Of a parameter and a metric of one name, the metric's column is `metrics.NAME`.
#[must_use]
pub(crate) fn table(trials: &[Trial], summary: &SweepSummary, asked: Option<&str>) -> Table {
    table_of(trials, &varying(trials), summary, asked)
}

/// The same with these parameters, where `trials` are not all of the sweep.
#[must_use]
pub(crate) fn table_of(
    trials: &[Trial],
    params: &[String],
    summary: &SweepSummary,
    asked: Option<&str>,
) -> Table {
    let metrics = metric_names(trials, &summary.objective, asked);
    // What gives way first when the terminal is narrow: the last metrics, then where and how often it ran.
    let rank = |index: usize| Keep::Optional(u16::try_from(index).unwrap_or(u16::MAX).saturating_add(10));
    let mut columns = vec![
        Column::new("#", Align::Right, Keep::Always),
        Column::new("state", Align::Left, Keep::Optional(4)),
    ];
    let numeric =
        |name: &str| trials.iter().all(|one| !matches!(trial::params(one).get(name), Some(Value::String(_))));
    columns.extend(params.iter().enumerate().map(|(index, name)| {
        let align = if numeric(name) { Align::Right } else { Align::Left };
        Column::new(name, align, if index < 4 { Keep::Cut(8) } else { rank(index + 100) })
    }));
    columns.extend(metrics.iter().enumerate().map(|(index, name)| {
        let title = if params.contains(name) { format!("metrics.{name}") } else { name.clone() };
        Column::new(&title, Align::Right, if index == 0 { Keep::Always } else { rank(index) })
    }));
    // Beside the last value, by which it need not be in order.
    let has_best = trials.iter().any(|one| one.best.is_some());
    let best_at =
        2 + params.len() + usize::from(metrics.first().is_some_and(|name| *name == summary.objective));
    if has_best {
        columns.insert(best_at, Column::new("best", Align::Right, Keep::Optional(1)));
    }
    columns.push(Column::new("steps", Align::Right, Keep::Optional(5)));
    columns.push(Column::new("attempts", Align::Right, Keep::Optional(7)));
    columns.push(Column::new("device", Align::Left, Keep::Optional(8)));
    columns.push(Column::new("time", Align::Right, Keep::Optional(6)));
    let mut table = Table::new(columns);
    for one in trials {
        let values = trial::params(one);
        let mut cells: Vec<Cell> =
            vec![one.number.to_string().into(), Cell::styled(&one.state, trial::state_style(&one.state))];
        cells.extend(
            params.iter().map(|name| values.get(name).map(text::parameter).unwrap_or_default().into()),
        );
        cells.extend(
            metrics.iter().map(|name| trial::metric(one, name).map(text::metric).unwrap_or_default().into()),
        );
        if has_best {
            cells.insert(best_at, one.best.map(text::metric).unwrap_or_default().into());
        }
        cells.push(trial::steps(one).into());
        cells.push(one.attempts.to_string().into());
        cells.push(one.device.as_str().into());
        cells.push(if one.attempts == 0 { Cell::default() } else { text::duration(one.seconds).into() });
        table.row(cells);
    }
    table
}

/// The goal of a sweep.
#[must_use]
pub(crate) fn goal(summary: &SweepSummary) -> Goal {
    if summary.goal == "maximize" { Goal::Maximize } else { Goal::Minimize }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{summary, trials};
    use super::*;
    use spotsweep_wire::v1::Metric;

    fn shown(width: Option<usize>) -> String {
        let summary = summary();
        let sorted = arrange(trials(), Some(&Key::objective(&summary)), None);
        anstream::adapter::strip_str(&table(&sorted, &summary, None).render(width).text).to_string()
    }

    #[test]
    fn the_table_is_best_first_and_shows_what_varies() {
        insta::assert_snapshot!(shown(None));
        insta::assert_snapshot!(shown(Some(60)));
    }

    /// The header of a sweep whose trials report a metric called `learning_rate`, which is a parameter too.
    fn header(objective: &str, asked: Option<&str>) -> Vec<String> {
        let mut found = trials();
        for one in &mut found {
            one.metrics.insert(0, Metric { name: "learning_rate".to_owned(), value: 0.003 });
        }
        let summary = SweepSummary { objective: objective.to_owned(), ..summary() };
        let text = table(&found, &summary, asked).render(None).text;
        let header = anstream::adapter::strip_str(&text).to_string();
        header.lines().next().unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_metric_with_the_name_of_a_parameter_has_a_column_of_its_own_only_when_asked_for() {
        let rates = |header: Vec<String>| {
            header.into_iter().filter(|name| name.contains("learning_rate")).collect::<Vec<_>>()
        };
        assert_eq!(rates(header("val_accuracy", None)), ["learning_rate"]);
        let both = ["learning_rate", "metrics.learning_rate"];
        assert_eq!(rates(header("val_accuracy", Some("learning_rate"))), both);
        assert_eq!(rates(header("learning_rate", None)), both, "the objective is always shown");
    }

    #[test]
    fn rows_for_programs_keep_parameters_and_metrics_apart() {
        let mut one = trials().remove(0);
        one.metrics = vec![Metric { name: "learning_rate".to_owned(), value: 0.003 }];
        let row: Value = serde_json::from_str(&trial::row(&one).to_json_line()).unwrap();
        assert_eq!(
            (&row["params"]["learning_rate"], &row["metrics"]["learning_rate"]),
            (&0.01.into(), &0.003.into())
        );
    }

    #[test]
    fn a_sweep_in_which_nothing_varies_shows_all_parameters() {
        assert_eq!(varying(&trials()[..1]), ["model", "learning_rate", "batch_size"]);
        assert_eq!(varying(&trials()), ["model", "learning_rate"]);
        assert!(varying(&[]).is_empty());
    }
}
