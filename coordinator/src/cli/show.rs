//! `spotsweep show`: one sweep or one trial, with everything that is known of it.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    ls,
    out::Out,
    rows::{Field, Row},
    text, trial,
};
use anstyle::Style;
use clap::{Args, ValueEnum};
use serde_json::Value;
use spotsweep_proto::{program, spec::SweepSpec};
use spotsweep_wire::v1::{ShowSweepResponse, SweepSummary, Trial};
use unicode_width::UnicodeWidthStr as _;

const EXAMPLES: &str = "Examples:
  spotsweep show fashion-ladder
  spotsweep show fashion-ladder/7
  spotsweep show fashion-ladder --format json | jq .spec";

/// How one thing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ShowFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// Options of `show`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArgs {
    /// The sweep, or the trial as SWEEP/NUMBER; may be left out where there is only one sweep
    #[arg(value_name = "SWEEP|TRIAL")]
    pub(crate) target: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ShowFormat,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such thing, or the source fails.
pub(crate) async fn run(args: ShowArgs) -> Outcome {
    let mut source = args.read.open(args.target.as_deref()).await?;
    let target = source.sweep_or_only(args.target).await?;
    let answer = source.show(&target).await?;
    let mut out = Out::stdout();
    match args.format {
        ShowFormat::Text => out.text(&in_words(&answer))?,
        ShowFormat::Json => out.line(&row(&answer).to_json_line())?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

/// As one object: the trial where one was asked for, else the sweep with its checked specification.
#[must_use]
pub(crate) fn row(answer: &ShowSweepResponse) -> Row {
    match (&answer.trial, &answer.sweep) {
        (Some(one), _) => trial::row(one),
        (None, Some(sweep)) => {
            let spec = serde_json::from_str(&answer.spec_json).unwrap_or(Value::Null);
            ls::row(sweep).with("spec", Field::Json(spec))
        }
        (None, None) => Row::new(),
    }
}

/// As lines of a name and what it is.
#[must_use]
pub(crate) fn in_words(answer: &ShowSweepResponse) -> String {
    match (&answer.trial, &answer.sweep) {
        (Some(one), sweep) => trial_in_words(one, sweep.as_ref(), &answer.spec_json),
        (None, Some(sweep)) => sweep_in_words(sweep, &answer.spec_json),
        (None, None) => String::new(),
    }
}

/// The command of a trial, or of all trials as the sweep file has it; empty where a model of the catalogue trains.
fn command(spec_json: &str, trial: Option<u32>) -> String {
    let Ok(spec) = serde_json::from_str::<SweepSpec>(spec_json) else { return String::new() };
    let Some(section) = &spec.program else { return String::new() };
    text::command(&match trial {
        Some(number) if number < spec.trials() => program::shown(section, &spec.assignment(number)),
        Some(_) | None => section.command.clone(),
    })
}

fn sweep_in_words(sweep: &SweepSummary, spec_json: &str) -> String {
    let mut facts = Facts::default();
    facts.add("sweep", &sweep.sweep);
    facts.styled("state", &sweep.state, trial::state_style(&sweep.state));
    facts.add("about", sweep.description.trim());
    facts.add("trials", &format!("{}: {}", text::grouped(sweep.trials), ls::counts(sweep)));
    facts.add("command", &command(spec_json, None));
    if !sweep.objective.is_empty() {
        facts.add("objective", &format!("{} {}", sweep.goal, sweep.objective));
    }
    if let (Some(best), Some(value)) = (&sweep.best_trial, sweep.best_value) {
        facts.add("best", &format!("{best} with {}", text::metric(value)));
    }
    if sweep.priority != 0 {
        facts.add("priority", &sweep.priority.to_string());
    }
    facts.add("submitted", &text::utc(sweep.submitted_at_us));
    if let Some(ended) = sweep.ended_at_us {
        #[expect(clippy::cast_precision_loss, reason = "shown in two units")]
        let took = ended.saturating_sub(sweep.submitted_at_us) as f64 / 1e6;
        facts.add("ended", &format!("{}, after {}", text::utc(ended), text::duration(took)));
    }
    if sweep.stale_reports > 0 {
        facts.add("stale", &format!("{} dropped", text::count(sweep.stale_reports, "report")));
    }
    if let Some(from) = &sweep.imported {
        let (at, program) = (text::utc(from.at_us), &from.program);
        facts.add(
            "imported",
            &format!("{at}, from an export of spotsweep {program} (format {}); read-only", from.format),
        );
    }
    facts.add("spec", &sweep.spec_digest);
    facts.text
}

fn trial_in_words(one: &Trial, sweep: Option<&SweepSummary>, spec_json: &str) -> String {
    let mut facts = Facts::default();
    facts.add("trial", &one.trial);
    facts.styled("state", &one.state, trial::state_style(&one.state));
    facts.add("why", &one.failure);
    if sweep.is_some_and(|sweep| sweep.best_trial.as_deref() == Some(&one.trial)) {
        facts.add("note", "the best trial of its sweep");
    }
    facts.add("steps", &trial::steps(one));
    facts.add("command", &command(spec_json, Some(one.number)));
    let attempts = match one.failures {
        0 => one.attempts.to_string(),
        failures => format!("{}, {} of them failed", one.attempts, failures),
    };
    facts.add("attempts", &attempts);
    if one.attempts > 0 {
        facts.add("time", &text::duration(one.seconds));
    }
    facts.add("device", &one.device);
    facts.add("worker", &one.worker);
    facts.add("weights", &one.weights_digest);
    facts.section("parameters");
    for (name, value) in trial::params(one) {
        facts.add(&name, &text::parameter(&value));
    }
    if !one.metrics.is_empty() {
        facts.section("metrics");
        for metric in &one.metrics {
            facts.add(&metric.name, &text::metric(metric.value));
        }
    }
    facts.text
}

/// Names and values, one a line, aligned.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    text: String,
    indent: bool,
}

impl Facts {
    /// Adds a fact, unless it is empty.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.styled(name, value, Style::new());
    }

    /// Adds a fact in a colour, unless it is empty.
    pub(crate) fn styled(&mut self, name: &str, value: &str, style: Style) {
        if value.is_empty() {
            return;
        }
        let name = text::harmless(name);
        let (indent, column) = if self.indent { ("  ", 24) } else { ("", 12) };
        let pad = column - name.width().min(column - 1);
        let bold = Style::new().bold();
        self.text += &format!("{indent}{bold}{name}{bold:#}{:pad$}", "");
        // Further lines stand below the first, where no text of strangers can pass for a fact.
        let next = format!("\n{:width$}", "", width = indent.len() + column);
        let value = text::harmless_lines(value).replace('\n', &next);
        self.text +=
            &if style.is_plain() { format!("{value}\n") } else { format!("{style}{value}{style:#}\n") };
    }

    /// Opens a part; its facts are set in.
    pub(crate) fn section(&mut self, title: &str) {
        let bold = Style::new().bold();
        self.text += &format!("{bold}{title}{bold:#}\n");
        self.indent = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{summary, trials};
    use super::*;
    use spotsweep_wire::v1::Imported;

    fn shown(answer: &ShowSweepResponse) -> String {
        anstream::adapter::strip_str(&in_words(answer)).to_string()
    }

    #[test]
    fn a_program_is_shown_with_the_command_of_a_trial() {
        let text = "method: grid\nprogram: t.py\nparameters: {note: {values: [it's, b]}}\n";
        let spec = spotsweep_proto::spec::parse(text.as_bytes(), "a.yaml").unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(command(&json, None), "'${env}' '${interpreter}' '${program}' '${args}'");
        assert_eq!(command(&json, Some(0)), "/usr/bin/env python3 t.py '--note=it'\\''s'");
        assert_eq!(command("{}", Some(0)), "");
    }

    #[test]
    fn a_sweep_and_a_trial_are_shown_in_words() {
        let mut answer =
            ShowSweepResponse { sweep: Some(summary()), trial: None, spec_json: "{}".to_owned() };
        insta::assert_snapshot!(shown(&answer));
        answer.sweep.as_mut().unwrap().imported = Some(Imported {
            program: "9.8.7\u{1b}[31m".to_owned(),
            format: 2,
            digest: "ef".repeat(32),
            at_us: 1_795_600_000_000_000,
        });
        insta::assert_snapshot!("imported", shown(&answer));
        answer.trial = Some(trials().swap_remove(3));
        insta::assert_snapshot!(shown(&answer));
        answer.trial = Some(trials().swap_remove(2));
        insta::assert_snapshot!(shown(&answer));
    }
}
