//! `spotsweep ls`: one row a sweep.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    out::Out,
    rows::{self, Field, Format, Row},
    table::{Align, Cell, Column, Keep, Table},
    text,
    trial::state_style,
};
use clap::Args;
use spotsweep_wire::v1::SweepSummary;

const EXAMPLES: &str = "Examples:
  spotsweep ls
  spotsweep ls --dir sweeps/fashion-ladder
  spotsweep ls --format json | jq -r .sweep";

/// Options of `ls`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LsArgs {
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
/// If the source fails.
pub(crate) async fn run(args: LsArgs) -> Outcome {
    let sweeps = args.read.open(None).await?.sweeps().await?;
    let mut out = Out::stdout();
    match args.format {
        Format::Table if sweeps.is_empty() => {
            super::out::say("no sweeps yet; hand one in with `spotsweep submit FILE`")
        }
        Format::Table => out.table(&table(&sweeps))?,
        Format::Json => out.text(&rows::json_lines(&sweeps.iter().map(row).collect::<Vec<_>>()))?,
        Format::Csv => out.text(&rows::csv(&sweeps.iter().map(row).collect::<Vec<_>>())?)?,
    }
    out.flush()?;
    for sweep in &sweeps {
        for problem in &sweep.sink_problems {
            super::out::warn(&format!("{}: {problem}", sweep.sweep));
        }
    }
    Ok(Ending::Well)
}

/// Trials that are final, by their counts.
#[must_use]
pub(crate) fn ended(summary: &SweepSummary) -> u64 {
    let waiting: u64 = ["pending", "running", "paused"].map(|state| count(summary, state)).iter().sum();
    summary.trials.saturating_sub(waiting)
}

/// Trials in `state`.
#[must_use]
pub(crate) fn count(summary: &SweepSummary, state: &str) -> u64 {
    summary.counts.get(state).copied().unwrap_or(0)
}

/// States in the order in which people think of them.
pub(crate) const STATES: [&str; 8] =
    ["completed", "running", "pending", "paused", "stopped", "failed", "diverged", "cancelled"];

/// Counts by state, those that are not 0: `12 completed, 2 running, 1 failed`.
#[must_use]
pub(crate) fn counts(summary: &SweepSummary) -> String {
    let parts = STATES.iter().filter(|state| count(summary, state) > 0);
    parts
        .map(|state| format!("{} {state}", text::grouped(count(summary, state))))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Everything about a sweep. The names are part of the interface for scripts.
#[must_use]
pub(crate) fn row(summary: &SweepSummary) -> Row {
    let counts =
        STATES.iter().map(|state| ((*state).to_owned(), Field::Count(count(summary, state)))).collect();
    Row::new()
        .with("sweep", Field::text(&summary.sweep))
        .with("state", Field::text(&summary.state))
        .with("trials", Field::Count(summary.trials))
        .with("counts", Field::Group(counts))
        .with("objective", Field::text(&summary.objective))
        .with("goal", Field::text(&summary.goal))
        .with("best_trial", summary.best_trial.as_deref().map_or(Field::Nothing, Field::text))
        .with("best_value", summary.best_value.map_or(Field::Nothing, Field::Float))
        .with("priority", Field::Json(summary.priority.into()))
        .with("submitted_at", Field::time(Some(summary.submitted_at_us)))
        .with("ended_at", Field::time(summary.ended_at_us))
        .with("stale_reports", Field::Count(summary.stale_reports))
        .with("spec_digest", Field::text(&summary.spec_digest))
        .with("description", Field::text(&summary.description))
        .with("sink_problems", Field::text(&summary.sink_problems.join("\n")))
        .with("imported_at", Field::time(summary.imported.as_ref().map(|from| from.at_us)))
}

/// Sweeps as a table.
#[must_use]
pub(crate) fn table(sweeps: &[SweepSummary]) -> Table {
    let mut table = Table::new(vec![
        Column::new("sweep", Align::Left, Keep::Always),
        Column::new("state", Align::Left, Keep::Always),
        Column::new("done", Align::Right, Keep::Always),
        Column::new("trials", Align::Right, Keep::Always),
        Column::new("failed", Align::Right, Keep::Optional(2)),
        Column::new("objective", Align::Left, Keep::Optional(3)),
        Column::new("best", Align::Right, Keep::Optional(1)),
        Column::new("best trial", Align::Left, Keep::Optional(4)),
        Column::new("submitted", Align::Left, Keep::Optional(5)),
    ]);
    for one in sweeps {
        let failed = count(one, "failed") + count(one, "diverged");
        let objective = if one.objective.is_empty() {
            String::new()
        } else {
            format!("{} {}", if one.goal == "maximize" { "max" } else { "min" }, one.objective)
        };
        table.row(vec![
            one.sweep.as_str().into(),
            Cell::styled(&one.state, state_style(&one.state)),
            text::grouped(ended(one)).into(),
            text::grouped(one.trials).into(),
            Cell::styled(
                &text::grouped(failed),
                if failed > 0 { state_style("failed") } else { anstyle::Style::new() },
            ),
            objective.into(),
            one.best_value.map(text::metric).unwrap_or_default().into(),
            one.best_trial.as_deref().unwrap_or_default().into(),
            text::utc(one.submitted_at_us).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::summary;
    use super::*;

    #[test]
    fn sweeps_are_listed_with_what_is_done_and_what_is_best() {
        let other = SweepSummary {
            sweep: "empty".to_owned(),
            objective: String::new(),
            best_value: None,
            ..summary()
        };
        let text = table(&[summary(), other]).render(None).text;
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
        insta::assert_snapshot!(rows::json_lines(&[row(&summary())]));
    }
}
