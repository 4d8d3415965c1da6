//! `spotsweep export`: a sweep written where other programs read it.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    interrupts::Interrupts,
    out::{self, Out},
    source::Source,
    text,
};
use crate::{
    error::{Code, Problem},
    export::{
        Export, Staging, Subject, csv::Csv, json::Json, mlflow::files::Files, mlflow::rest::Rest,
        parquet::Parquet, tensorboard::TensorBoard,
    },
};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::{path::Path, time::Duration};

const EXAMPLES: &str = "Examples:
  spotsweep export fashion-ladder --as csv --to ladder-csv
  spotsweep export --dir sweeps/fashion-ladder --as parquet --to ladder
  spotsweep export fashion-ladder --as tensorboard --to runs      then: tensorboard --logdir runs
  spotsweep export fashion-ladder --as mlflow --to mlruns
  spotsweep export fashion-ladder --as mlflow --to http://127.0.0.1:5000";

/// How often progress is shown anew.
const TICK: Duration = Duration::from_millis(100);

/// What an export can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// trials.csv and points.csv, for spreadsheets and pandas
    Csv,
    /// manifest.json, trials.jsonl and points.jsonl: all that is known
    Json,
    /// trials.parquet and points.parquet, with typed columns
    Parquet,
    /// A folder a trial with an event file
    Tensorboard,
    /// An experiment with a run a trial, in a folder or on a server
    Mlflow,
}

/// Options of `export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExportArgs {
    /// The sweep; may be left out where there is only one
    pub(crate) sweep: Option<String>,
    /// What to write
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    pub(crate) kind: Kind,
    /// The folder to make; for mlflow also the URL of a tracking server
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) to: String,
    /// Replace an export that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such sweep, the folder holds something, or reading or writing fails.
pub(crate) async fn run(args: ExportArgs) -> Outcome {
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        outcome = export(args) => outcome,
        () = interrupts.next() => {
            out::say("interrupted: nothing is left in the folder; a server keeps what it has, and is not given it again");
            Ok(Ending::Interrupted)
        }
    }
}

async fn export(args: ExportArgs) -> Outcome {
    let server = args.to.contains("://");
    if server && args.kind != Kind::Mlflow {
        let message = format!("{} is a URL, and only --as mlflow goes to a server", text::harmless(&args.to));
        return Err(Problem::new(Code::BadRequest, message).hint("name a folder with --to DIR").into());
    }
    // Before anything is read: a folder that cannot be used is told at once.
    let staging = if server { None } else { Some(Staging::begin(Path::new(&args.to), args.force)?) };
    let mut source = args.read.open(args.sweep.as_deref()).await?;
    let name = source.sweep_or_only(args.sweep.clone()).await?;
    let shown = source.show(&name).await?;
    let nothing = || Problem::new(Code::Internal, "the coordinator shows a sweep without a summary");
    let subject = Subject { sweep: shown.sweep.ok_or_else(nothing)?, spec_json: shown.spec_json };
    let Some(staging) = staging else {
        let mut rest = Rest::begin(&args.to, &subject).await?;
        let poured = pour(&mut source, &subject, &mut rest).await?;
        let skipped = match rest.skipped() {
            0 => String::new(),
            some => format!("; {} there already", text::count(some, "value")),
        };
        return told(&args.to, &subject, &poured, &skipped);
    };
    let folder = staging.path();
    let poured = match args.kind {
        Kind::Csv => pour(&mut source, &subject, &mut Csv::begin(folder)?).await?,
        Kind::Json => {
            let mut json = Json::begin(folder, &subject)?;
            let mut pages = source.attempt_pages(&name).await?;
            while let Some(page) = pages.message().await? {
                json.attempts(&page.attempts)?;
            }
            pour(&mut source, &subject, &mut json).await?
        }
        Kind::Parquet => pour(&mut source, &subject, &mut Parquet::begin(folder)?).await?,
        Kind::Tensorboard => pour(&mut source, &subject, &mut TensorBoard::begin(folder, &subject)).await?,
        Kind::Mlflow => {
            pour(&mut source, &subject, &mut Files::begin(folder, staging.place(), &subject)?).await?
        }
    };
    staging.finish(args.force)?;
    told(&args.to, &subject, &poured, "")
}

/// Says where it is, and how much it was.
fn told(to: &str, subject: &Subject, poured: &Poured, more: &str) -> Outcome {
    let mut out = Out::stdout();
    out.line(to)?;
    out.flush()?;
    let (trials, points) = (text::count(poured.trials, "trial"), text::count(poured.points, "point"));
    out::say(&format!("{}: {trials} and {points}{more}", subject.sweep.sweep));
    if !matches!(subject.sweep.state.as_str(), "completed" | "cancelled") {
        out::note("the sweep goes on: this is how it was");
    }
    Ok(Ending::Well)
}

/// How much went through.
#[derive(Debug, Clone, Copy, Default)]
struct Poured {
    trials: u64,
    points: u64,
}

/// Gives every trial and point of the sweep to `export`.
async fn pour(source: &mut Source, subject: &Subject, export: &mut impl Export) -> Result<Poured, Problem> {
    let bar = bar(&subject.sweep.sweep, subject.sweep.trials);
    let mut poured = Poured::default();
    let mut trials = source.result_pages(&subject.sweep.sweep).await?;
    while let Some(page) = trials.message().await? {
        for trial in page.trials {
            export.trial(&trial).await?;
            // What never ran has reported nothing.
            if trial.attempts > 0 {
                let mut points = source.metric_pages(&trial.trial, 0).await?;
                while let Some(page) = points.message().await? {
                    poured.points += page.points.len() as u64;
                    export.points(&page.points).await?;
                }
            }
            poured.trials += 1;
            bar.inc(1);
        }
    }
    export.end().await?;
    bar.finish_and_clear();
    Ok(poured)
}

/// Hidden where stderr is no terminal.
fn bar(name: &str, trials: u64) -> ProgressBar {
    let bar = ProgressBar::new(trials).with_message(text::harmless(name).into_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} trials  {eta}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}
