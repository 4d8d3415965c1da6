//! `spotsweep watch`: what happens, as it happens: a live view on a terminal, elsewhere one line each.

use super::{
    client::ReadArgs,
    error::{CliError, Ending, Outcome},
    interrupts::Interrupts,
    ls, metrics,
    out::{self, Out},
    rows::{Field, Row},
    run::{display::Display, needs, progress::Progress},
    source::Source,
    target, text, trial,
};
use clap::{Args, ValueEnum};
use spotsweep_proto::{last_lines::on_one_line, spec::SweepSpec};
use spotsweep_wire::v1::{WatchResponse, watch_response::What};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};
use tonic::Streaming;

/// Time between two pictures on a terminal.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Most trials at work that are looked up at the beginning.
const AT_WORK: usize = 64;

const EXAMPLES: &str = "Examples:
  spotsweep watch                                  the only sweep, until it ends
  spotsweep watch | cat                            one line an event, on a terminal too
  spotsweep watch fashion-ladder --format json";

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum WatchFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Options of `watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WatchArgs {
    /// The sweep; may be left out where there is only one
    pub(crate) sweep: Option<String>,
    /// How to print what happens
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: WatchFormat,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such sweep, or the coordinator goes away.
pub(crate) async fn run(args: WatchArgs) -> Outcome {
    args.sweep.as_deref().map(target::sweep_of).transpose()?;
    let mut source = args.read.open(args.sweep.as_deref()).await?;
    let sweep = source.sweep_or_only(args.sweep).await?;
    let events = source.watch(&sweep).await?;
    let on_terminal = out::width().is_some() && std::io::stderr().is_terminal();
    if args.format == WatchFormat::Text && on_terminal {
        live(source, &sweep, events).await
    } else {
        lines(args.format, events).await
    }
}

/// As it is shown on a terminal: how far the sweep is, what each worker does, and lines for what is worth one.
async fn live(mut source: Source, sweep: &str, mut events: Streaming<WatchResponse>) -> Outcome {
    let answer = source.show(sweep).await?;
    let varying = serde_json::from_str(&answer.spec_json).map(|spec: SweepSpec| needs::varying(&spec));
    let mut progress = Progress::new(answer.sweep.unwrap_or_default(), varying.unwrap_or_default());
    // What is at work already is not told as an event.
    let workers = source.workers().await?;
    let held = workers.into_iter().flat_map(|worker| worker.devices).flat_map(|device| device.trials);
    let here = held.filter(|trial| trial.split('/').next() == Some(sweep)).take(AT_WORK);
    for trial in here {
        progress.event(WatchResponse { what: source.show(&trial).await?.trial.map(What::Trial) });
    }
    let started = Instant::now();
    let mut display = Display::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = Interrupts::listen()?;
    let ending = loop {
        tokio::select! {
            event = events.message() => match event {
                Ok(Some(event)) => {
                    if let Some(line) = progress.event(event) {
                        display.event(&line);
                    }
                }
                Ok(None) => break Ok(Ending::Well),
                Err(status) => break Err(status.into()),
            },
            () = stop.next() => break Ok(Ending::Interrupted),
            _ = look.tick() => display.update(&mut progress, started),
        }
    };
    display.clear();
    let last = WatchResponse { what: Some(What::Sweep(progress.summary().clone())) };
    let mut out = Out::stdout();
    in_words(&last).map_or(Ok::<(), CliError>(()), |line| out.line(&line))?;
    out.flush()?;
    ending
}

/// One line an event.
async fn lines(format: WatchFormat, mut events: Streaming<WatchResponse>) -> Outcome {
    let mut out = Out::stdout();
    loop {
        let event = tokio::select! {
            event = events.message() => event?,
            _ = tokio::signal::ctrl_c() => return Ok(Ending::Interrupted),
        };
        let Some(event) = event else { return Ok(Ending::Well) };
        let line = match format {
            WatchFormat::Text => in_words(&event),
            WatchFormat::Json => row(&event).map(|row| row.to_json_line()),
        };
        line.map_or(Ok::<(), CliError>(()), |line| out.line(&line))?;
        out.flush()?;
    }
}

/// One object an event; its first field `event` says which kind.
#[must_use]
pub(crate) fn row(event: &WatchResponse) -> Option<Row> {
    let tagged = |kind: &str, mut row: Row| {
        row.0.insert(0, ("event".to_owned(), Field::text(kind)));
        row
    };
    Some(match event.what.as_ref()? {
        What::Sweep(sweep) => tagged("sweep", ls::row(sweep)),
        What::Trial(one) => tagged("trial", trial::row(one)),
        What::Point(point) => {
            let mut row = metrics::row(point);
            row.0.insert(0, ("trial".to_owned(), Field::text(&point.trial)));
            tagged("point", row)
        }
        What::Notice(notice) => tagged(
            "notice",
            Row::new()
                .with("trial", Field::text(&notice.trial))
                .with("at", Field::time(Some(notice.at_us)))
                .with("text", Field::text(&notice.text)),
        ),
    })
}

/// One line an event.
#[must_use]
pub(crate) fn in_words(event: &WatchResponse) -> Option<String> {
    Some(match event.what.as_ref()? {
        What::Sweep(sweep) => {
            let best = match (&sweep.best_trial, sweep.best_value) {
                (Some(best), Some(value)) => {
                    format!(
                        "; best {} {} by {}",
                        text::harmless(&sweep.objective),
                        text::metric(value),
                        text::harmless(best)
                    )
                }
                (_, _) => String::new(),
            };
            format!(
                "{} is {}: {}{best}",
                text::harmless(&sweep.sweep),
                text::harmless(&sweep.state),
                ls::counts(sweep)
            )
        }
        What::Trial(one) => {
            let style = trial::state_style(&one.state);
            let why = if one.failure.is_empty() {
                String::new()
            } else {
                format!(": {}", text::harmless(&on_one_line(&one.failure)))
            };
            let state = text::harmless(&one.state);
            format!(
                "{} is {style}{state}{style:#} at step {}{why}",
                text::harmless(&one.trial),
                trial::steps(one)
            )
        }
        What::Point(point) => {
            let metrics = point
                .metrics
                .iter()
                .map(|metric| format!("{} {}", text::harmless(&metric.name), text::metric(metric.value)));
            format!(
                "{} step {}: {}",
                text::harmless(&point.trial),
                point.step,
                metrics.collect::<Vec<_>>().join(", ")
            )
        }
        What::Notice(notice) => {
            let about = if notice.trial.is_empty() {
                String::new()
            } else {
                format!("{}: ", text::harmless(&notice.trial))
            };
            format!("{about}{}", text::harmless(&notice.text))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{summary, trials};
    use super::*;
    use spotsweep_wire::v1::{Metric, Notice, Point};

    #[test]
    fn every_event_is_one_line() {
        let point = Point {
            trial: "ladder/3".to_owned(),
            step: 100,
            data_epoch: 0.25,
            metrics: vec![Metric { name: "train_loss".to_owned(), value: 0.5 }],
            at_us: 0,
        };
        let notice =
            Notice { trial: "ladder/3".to_owned(), at_us: 0, text: "attempt 2 began\n\u{7}".to_owned() };
        let events = [
            What::Sweep(summary()),
            What::Trial(trials().swap_remove(2)),
            What::Point(point),
            What::Notice(notice),
        ];
        let lines: Vec<String> = events
            .into_iter()
            .map(|what| WatchResponse { what: Some(what) })
            .flat_map(|event| [in_words(&event).unwrap(), row(&event).unwrap().to_json_line()])
            .collect();
        insta::assert_snapshot!(anstream::adapter::strip_str(&lines.join("\n")).to_string());
    }
}
