//! `spotsweep simulate`: how a sweep would fare among spot machines that come and go.
//!
//! The replay is `spotsweep_sim::spot`; here is what it is asked and how its answer is told.

use super::{
    error::{CliError, Ending, Outcome, io_problem},
    local,
    out::{Out, note, warn},
    show::ShowFormat,
    sweep_file,
    table::{Align, Column, Keep, Table},
    text,
};
use crate::error::{Code, Problem};
use clap::{Args, ValueEnum};
use serde::Serialize;
use spotsweep_engine::event::DeviceKind;
use spotsweep_proto::{
    datasets::DataRef,
    spec::{DeviceRequest, Every, SweepSpec},
    train::Length,
};
use spotsweep_sim::spot::{
    Duration, Figures, HORIZON_S, Market, Plan, ReplayError, TRACE_BYTES, Trace, TraceError, replay,
};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "Examples:
  spotsweep simulate sweep.yaml --workers 8 --trial-s 1800
  spotsweep simulate sweep.yaml --trace p3-trace.csv --step-s 0.02
  spotsweep simulate sweep.yaml --trace us-west-2a.json --workers 4 --notice-s 120
  spotsweep simulate sweep.yaml --checkpoint-every-s 600 --format json | jq .goodput

Without --trace a market is drawn from --seed, with the figures of public traces. Nothing is run.";

/// Machines of a drawn market, where none are asked for.
const DRAWN_WORKERS: u32 = 8;
/// Seconds that a trial trains, where nobody says.
const TRIAL_S: f64 = 600.0;
/// Most machines at once.
const WORKERS_MOST: i64 = 100_000;

/// Options of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimulateArgs {
    /// The sweep file
    pub(crate) file: PathBuf,
    /// When machines came and went: lines of `milliseconds,add|remove,machine`, or SkyPilot's JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Most machines at once [default: all of a trace, 8 without one, 1 of a trace of a zone]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=WORKERS_MOST))]
    pub(crate) workers: Option<u32>,
    /// Seconds that a trial trains without interruption [default: 600]
    #[arg(long, value_name = "S", value_parser = above_zero)]
    pub(crate) trial_s: Option<f64>,
    /// Seconds of one step, instead of --trial-s: trials take as long as their steps
    #[arg(long, value_name = "S", value_parser = above_zero, conflicts_with = "trial_s")]
    pub(crate) step_s: Option<f64>,
    /// Seconds from a machine's coming to the first step on it
    #[arg(long, value_name = "S", default_value_t = 15.0, value_parser = zero_or_more)]
    pub(crate) recovery_s: f64,
    /// Seconds between two checkpoints [default: as the sweep file says]
    #[arg(long, value_name = "S", value_parser = above_zero)]
    pub(crate) checkpoint_every_s: Option<f64>,
    /// Seconds of notice before a machine goes; 0: it goes without
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = zero_or_more)]
    pub(crate) notice_s: f64,
    /// Mean seconds of training between two failures of a trainer [default: it never fails]
    #[arg(long, value_name = "S", value_parser = above_zero)]
    pub(crate) fail_every_s: Option<f64>,
    /// What every machine has [default: what the sweep file asks for]
    #[arg(long, value_enum)]
    pub(crate) device: Option<DeviceName>,
    /// Memory of that device, in GiB [default: what the sweep file asks for]
    #[arg(long, value_name = "GIB", value_parser = above_zero)]
    pub(crate) memory_gib: Option<f64>,
    /// Seed of the market and of all chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Also know the models and data sets of this trainer
    #[arg(long, value_name = "PATH")]
    pub(crate) trainer: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ShowFormat,
}

/// Kinds of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceName {
    /// A CPU
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

fn above_zero(word: &str) -> Result<f64, String> {
    zero_or_more(word).and_then(|x| if x > 0.0 { Ok(x) } else { Err("it must be above 0".to_owned()) })
}

fn zero_or_more(word: &str) -> Result<f64, String> {
    let number: f64 = word.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.0..=HORIZON_S).contains(&number) {
        Ok(number)
    } else {
        Err(format!("it must be between 0 and {HORIZON_S}"))
    }
}

/// What was replayed and what came of it: the JSON form.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    sweep: &'a str,
    /// The trace; none if the market was drawn.
    trace: Option<String>,
    workers: u32,
    recovery_s: f64,
    notice_s: f64,
    seed: u64,
    #[serde(flatten)]
    figures: Figures,
}

/// Runs it.
///
/// # Errors
/// Everything that is wrong with the file or the trace; or no machine fits the sweep.
pub(crate) async fn run(args: SimulateArgs) -> Outcome {
    let own = local::models_of(args.trainer.as_deref()).await?;
    let file = sweep_file::read(&args.file, &own)?;
    let in_steps = matches!(file.spec.train.length, Some(Length::Steps(_)));
    if args.step_s.is_some()
        && !in_steps
        && file.spec.data_names().iter().any(|name| name.as_str().parse::<DataRef>().is_ok())
    {
        // The simulator knows the sizes of the catalogue's data sets only.
        let message = "how many steps an epoch of added data has is not known here";
        return Err(Problem::new(Code::BadRequest, message)
            .hint("give --trial-s, or `steps` in `train`")
            .into());
    }
    if args.step_s.is_some() && file.spec.program.is_some() {
        let message = "how many steps a program of your own takes is not known here";
        return Err(Problem::new(Code::BadRequest, message).hint("give --trial-s").into());
    }
    let trace = args.trace.as_deref().map(read_trace).transpose()?;
    if args.trial_s.is_none() && args.step_s.is_none() {
        note(&format!("a trial is taken to train {TRIAL_S} s; --trial-s or --step-s says otherwise"));
    }
    let answer = answer(&args, &file.spec, trace.as_ref())?;
    if !answer.figures.finished {
        let horizon = text::duration(HORIZON_S);
        warn(&format!("the sweep was not over after {horizon}; the figures are of that time"));
    }
    let mut out = Out::stdout();
    match args.format {
        ShowFormat::Text => out.text(&in_words(&answer))?,
        ShowFormat::Json => out.line(&serde_json::to_string(&answer).unwrap_or_default())?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

/// Reads a trace. No more than its limit is read, however large the file is.
fn read_trace(path: &Path) -> Result<Trace, CliError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(TRACE_BYTES).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| io_problem("read", path, &error))?;
    let wrong = |TraceError { place, what, hint }| {
        Problem::new(Code::BadRequest, format!("{place}: {what}")).hint(hint)
    };
    Ok(Trace::parse(&bytes, &path.display().to_string()).map_err(wrong)?)
}

fn answer<'a>(
    args: &SimulateArgs,
    spec: &'a SweepSpec,
    trace: Option<&Trace>,
) -> Result<Answer<'a>, CliError> {
    let usual = match trace {
        None => DRAWN_WORKERS,
        Some(zone) if zone.is_zone() => 1,
        Some(trace) => trace.most_machines(),
    };
    let plan = plan(args, spec, args.workers.unwrap_or(usual));
    let drawn;
    let machines = match trace {
        Some(trace) => trace,
        None => {
            drawn = Market::default().draw(plan.workers, plan.seed);
            &drawn
        }
    };
    let refused = |error: ReplayError| {
        let hint = match error {
            ReplayError::Gang { .. } => {
                "a copy of the sweep file without `workers` under `resources` tells what it would take on one worker a trial"
            }
            ReplayError::NoFit { .. } | ReplayError::NoMachines => {
                "give --device or --memory-gib what the sweep file asks for under `resources`"
            }
        };
        Problem::new(Code::BadRequest, error.to_string()).hint(hint)
    };
    Ok(Answer {
        sweep: spec.name.as_str(),
        trace: args.trace.as_ref().map(|path| path.display().to_string()),
        workers: plan.workers,
        recovery_s: plan.recovery_s,
        notice_s: plan.notice_s,
        seed: plan.seed,
        figures: replay(spec, machines, &plan).map_err(refused)?,
    })
}

fn plan(args: &SimulateArgs, spec: &SweepSpec, workers: u32) -> Plan {
    let asked = spec.resources.memory_bytes.unwrap_or(0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above 0, and it saturates")]
    let memory = args.memory_gib.map(|gib| (gib * f64::from(1 << 30)) as u64);
    Plan {
        duration: args
            .step_s
            .map_or_else(|| Duration::TrialSeconds(args.trial_s.unwrap_or(TRIAL_S)), Duration::StepSeconds),
        recovery_s: args.recovery_s,
        notice_s: args.notice_s,
        checkpoint: args.checkpoint_every_s.map(Every::Seconds),
        fail_every_s: args.fail_every_s,
        device: match (args.device, spec.resources.device) {
            (Some(DeviceName::Cuda), _) | (None, DeviceRequest::Cuda) => DeviceKind::Cuda,
            (Some(DeviceName::Cpu), _) | (None, DeviceRequest::Any | DeviceRequest::Cpu) => DeviceKind::Cpu,
        },
        memory_bytes: memory.unwrap_or(asked),
        workers,
        seed: args.seed,
    }
}

/// The answer for people.
fn in_words(answer: &Answer<'_>) -> String {
    let figures = &answer.figures;
    let mut table = Table::new(vec![
        Column::new("figure", Align::Left, Keep::Always),
        Column::new("value", Align::Right, Keep::Always),
        Column::new("", Align::Left, Keep::Cut(20)),
    ]);
    let mut row = |name: &str, value: String, about: String| {
        table.row(vec![name.into(), value.into(), about.into()]);
    };
    let (whole, most) = (text::duration(figures.lost_s), text::duration(figures.lost_most_s));
    let ended = match (figures.finished, figures.failed) {
        (false, _) => format!("of {}; not over", text::grouped(figures.trials.into())),
        (true, 0) => "all completed".to_owned(),
        (true, failed) => format!("completed, {} failed", text::grouped(failed.into())),
    };
    let without_work_s = figures.machine_s - figures.available_s;
    row("finish time", text::duration(figures.finish_s), "from the first machine's coming".to_owned());
    row("goodput", format!("{:.4}", figures.goodput), "useful training / machine time with work".to_owned());
    row("trials", text::grouped(figures.completed.into()), ended);
    row("attempts", text::grouped(figures.attempts.into()), text::count(figures.failures.into(), "failure"));
    row(
        "interruptions",
        text::grouped(figures.interruptions.into()),
        format!("of {} that came", text::count(figures.machines.into(), "machine")),
    );
    row("work lost", whole, format!("at most {most} at once"));
    row("recovery", text::duration(figures.recovery_s), "until the first step on each machine".to_owned());
    if figures.drained_s > 0.0 {
        row("drained", text::duration(figures.drained_s), "between notices and machines' going".to_owned());
    }
    row(
        "machine time",
        text::duration(figures.machine_s),
        format!("{} of it without work", text::duration(without_work_s)),
    );
    let machines = text::count(answer.workers.into(), "machine");
    let market = match &answer.trace {
        Some(trace) => text::harmless(trace).into_owned(),
        None => format!("a market drawn from seed {}", answer.seed),
    };
    format!("{}: at most {machines} of {market}\n\n{}", answer.sweep, table.render(super::out::width()).text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use spotsweep_proto::spec::parse;

    const SWEEP: &str = include_str!("../../../examples/random-search.yaml");
    const LINES: &str =
        "0,add,a\n0,add,b\n3600000,remove,a\n4000000,add,c\n7000000,remove,b\n7500000,remove,c\n";
    const ZONE: &str = r#"{"metadata": {"gap_seconds": 600}, "data": [0, 0, 0, 1, 1, 0, 0]}"#;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn told(options: &str, trace: Option<&str>) -> (String, String) {
        let words = ["simulate", "sweep.yaml"].into_iter().chain(options.split_whitespace());
        let args = Line::parse_from(words).args;
        let spec = parse(SWEEP.as_bytes(), "sweep.yaml").unwrap();
        let trace = trace.map(|text| Trace::parse(text.as_bytes(), "trace").unwrap());
        let answer = answer(&args, &spec, trace.as_ref()).unwrap();
        let json = serde_json::to_string_pretty(&answer).unwrap();
        (anstream::adapter::strip_str(&in_words(&answer)).to_string(), json)
    }

    #[test]
    fn a_sweep_among_machines_of_a_trace_is_told_in_figures() {
        let (text, json) = told("--trace two.csv --trial-s 900 --checkpoint-every-s 60", Some(LINES));
        insta::assert_snapshot!(text);
        insta::assert_snapshot!(json);
    }

    #[test]
    fn a_sweep_in_a_zone_with_a_notice_and_one_in_a_drawn_market_are_told() {
        let (text, _) = told("--trace zone.json --workers 4 --notice-s 120 --fail-every-s 4000", Some(ZONE));
        insta::assert_snapshot!(text);
        let (text, _) = told("--workers 3 --step-s 0.05 --seed 7", None);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn machines_that_do_not_fit_are_told_what_to_give() {
        let args = Line::parse_from(["simulate", "sweep.yaml", "--memory-gib", "1"]).args;
        let spec = parse(SWEEP.replace("512MiB", "2GiB").as_bytes(), "sweep.yaml").unwrap();
        let Err(CliError::Problem(problem)) = answer(&args, &spec, None) else { panic!("it fits") };
        assert_eq!(
            problem.message,
            "the machines have a CPU with 1073741824 bytes of memory, and the sweep asks for any device with \
             2147483648 bytes of memory"
        );
        assert!(problem.hint.contains("--memory-gib"));
    }

    #[test]
    fn trials_on_several_workers_are_refused_in_words() {
        let args = Line::parse_from(["simulate", "sweep.yaml"]).args;
        let gangs = SWEEP.replace("memory: 512MiB", "memory: 512MiB, workers: {min: 2, max: 4}");
        let gangs = gangs.replace("epochs:", "shards: 8, epochs:");
        let spec = parse(gangs.as_bytes(), "sweep.yaml").unwrap();
        let Err(CliError::Problem(problem)) = answer(&args, &spec, None) else { panic!("it is replayed") };
        assert!(problem.message.contains("on 2 to 4 workers at once"), "{problem}");
        assert!(problem.hint.contains("without `workers`"), "{problem}");
    }

    #[test]
    fn times_out_of_range_are_refused() {
        for option in ["--trial-s=0", "--step-s=-1", "--recovery-s=nan", "--notice-s=inf", "--workers=0"] {
            assert!(Line::try_parse_from(["simulate", "sweep.yaml", option]).is_err(), "{option}");
        }
        assert!(Line::try_parse_from(["simulate", "s.yaml", "--trial-s=1", "--step-s=1"]).is_err());
    }
}
