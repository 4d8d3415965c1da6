//! `spotsweep run`: a sweep from its file to its results, on this machine: coordinator inside, workers as child
//! processes.
//!
//! Owns the order of things. What is durable is the coordinator's matter: whatever ends this process, and whenever,
//! the same command goes on from there.

mod crew;
pub(super) mod display;
mod folder;
pub(super) mod needs;
pub(super) mod progress;

use super::{
    code,
    error::{CliError, Ending, Outcome},
    host::{self, FREE_PORT, Host},
    http::HttpArgs,
    interrupts::Interrupts,
    local, ls, modules, out, results,
    rows::Format,
    source::{Change, Source},
    sweep_file::{self, SweepFile},
    text,
};
use crate::error::Code;
use clap::Args;
use crew::{Crew, CrewNews, CrewPlan};
use display::Display;
use folder::Claim;
use progress::Progress;
use spotsweep_wire::v1::{SweepSummary, WatchResponse};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const EXAMPLES: &str = "Examples:
  spotsweep run sweep.yaml
  spotsweep run sweep.yaml --workers 2 --device cpu
  spotsweep run sweep.yaml --trainer target/release/custom-model
  spotsweep run sweep.yaml --dir /mnt/sweeps/first
  spotsweep run sweep.yaml --new            start over; what was there is kept beside it

Ctrl-C, a crash or a power cut lose nothing: the same command goes on where it was.
While it runs, `spotsweep watch --dir DIR` and the other commands answer from another terminal.

Exit status: 0 if all trials completed, 10 if some failed or diverged, 11 if the sweep was cancelled, 130 after Ctrl-C.";

/// Time between two looks at the whole sweep.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Wait before events are asked for again after their stream broke.
const WATCH_AGAIN: Duration = Duration::from_millis(500);
/// Rows of the table at the end on a terminal.
const SHOWN_TRIALS: u64 = 50;

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// The sweep file
    pub(crate) file: PathBuf,
    /// How many workers [default: one for all GPUs, or as many as the cores carry]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Where to train: auto (all GPUs, or the CPU where there are none), cpu, cuda:0, ...
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
    /// Train with this trainer instead of the usual one, and know its models and data sets
    #[arg(long, value_name = "PATH")]
    pub(crate) trainer: Option<PathBuf>,
    /// Keep everything in this folder [default: sweeps/NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Start over; the folder's results so far are kept in DIR.1, DIR.2, ...
    #[arg(long)]
    pub(crate) new: bool,
    /// The web page.
    #[command(flatten)]
    pub(crate) http: HttpArgs,
}

/// Runs it.
///
/// # Errors
/// If the file is wrong, something is missing, or the folder is another sweep's.
pub(crate) async fn run(args: RunArgs) -> Outcome {
    let own = local::models_of(args.trainer.as_deref()).await?;
    let mut file = sweep_file::read(&args.file, &own)?;
    code::pack(&mut file)?;
    code::about_wandb(&file).iter().for_each(|words| out::note(words));
    modules::pin(&mut file)?;
    let dir = folder::of(&file, args.dir.clone());
    if args.new
        && let Some(aside) = folder::set_aside(&dir)?
    {
        out::say(&format!("starting over; the results so far are kept in {}", aside.display()));
    }
    let mut stop = Interrupts::listen()?;
    host::log_to_file(&dir.join("logs").join("coordinator.log"))?;
    let host = Host::open(&dir, FREE_PORT, args.http.address(), None, &own).await?;
    host.say_page();
    let outcome = with_coordinator(&args, &file, &dir, host.url(), &mut stop).await;
    let closed = host.close().await;
    let ending = outcome?;
    closed?;
    Ok(ending)
}

async fn with_coordinator(
    args: &RunArgs,
    file: &SweepFile,
    dir: &Path,
    url: &str,
    stop: &mut Interrupts,
) -> Outcome {
    let mut source = Source::connect(url).await?;
    let claim = folder::claim(&mut source, file, dir).await?;
    let summary = source.summary(claim.sweep()).await?;
    let total = text::count(summary.trials, "trial");
    match &claim {
        Claim::Ended(sweep) => {
            out::say(&format!("{sweep} has ended already; --new starts over"));
            return conclude(&mut source, &summary, dir, None).await;
        }
        Claim::Unfinished(sweep) => {
            out::say(&format!(
                "going on with {sweep}: {} of {total} done",
                text::grouped(ls::ended(&summary))
            ));
            if summary.state == "paused" {
                source.change(Change::Resume, sweep).await?;
                out::say(&format!("{sweep} was paused; it is resumed"));
            }
        }
        Claim::Fresh(sweep) => out::say(&format!("{sweep}: {total} in {}", dir.display())),
    }

    needs::data(&file.spec)?;
    let plan = needs::crew(args, file, dir, url).await?;
    let started = Instant::now();
    let mut crew = Crew::start(&plan)?;
    let mut display = Display::new();
    let mut progress = Progress::new(summary, needs::varying(&file.spec));
    let watched = watch(&source, &mut crew, &plan, &mut display, &mut progress, started, stop).await;
    display.clear();
    match watched {
        Ok(Watched::Ended) => {
            crew.leave().await;
            let summary = source.summary(claim.sweep()).await?;
            conclude(&mut source, &summary, dir, Some(started)).await
        }
        Ok(Watched::Interrupted) => {
            out::say("stopping: workers write checkpoints and hand over (Ctrl-C again stops at once)");
            tokio::select! {
                () = crew.leave() => {}
                () = stop.next() => crew.kill().await,
            }
            out::say(&format!("interrupted at {}; run the same command to go on", progress.headline(None)));
            Ok(Ending::Interrupted)
        }
        Err(error) => {
            crew.leave().await;
            Err(error)
        }
    }
}

/// How watching ended.
enum Watched {
    Ended,
    Interrupted,
}

/// Shows what happens until the sweep ends or somebody interrupts.
async fn watch(
    source: &Source,
    crew: &mut Crew,
    plan: &CrewPlan,
    display: &mut Display,
    progress: &mut Progress,
    started: Instant,
    stop: &mut Interrupts,
) -> Result<Watched, CliError> {
    let sweep = progress.summary().sweep.clone();
    let mut source = source.clone();
    let mut events = Events { source: source.clone(), sweep: sweep.clone(), stream: None };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut left = plan.workers;
    let mut stalled = false;
    loop {
        tokio::select! {
            () = stop.next() => return Ok(Watched::Interrupted),
            event = events.next() => {
                if let Some(line) = progress.event(event) {
                    display.event(&line);
                }
            }
            Some(news) = crew.news.recv() => match &news {
                CrewNews::Restarted { name, how } => display.event(&format!("worker {name} {how}: starting it again")),
                CrewNews::GivenUp { name, how, .. } => {
                    left -= 1;
                    if left == 0 {
                        return Err(crew::all_given_up(&news, &plan.logs).into());
                    }
                    display.event(&format!("worker {name} {how} too often: given up; {left} left"));
                }
            },
            _ = look.tick() => {
                match source.summary(&sweep).await {
                    Ok(summary) => {
                        progress.sweep(summary);
                        stalled = false;
                    }
                    // A full disk: the coordinator goes on by itself when there is room.
                    Err(problem) if problem.code == Code::StorageStalled => {
                        if !stalled {
                            display.event(&format!("{problem}; {}", problem.hint));
                        }
                        stalled = true;
                    }
                    Err(problem) => return Err(problem.into()),
                }
                display.update(progress, started);
                if progress.has_ended() {
                    return Ok(Watched::Ended);
                }
            }
        }
    }
}

/// The coordinator's events, asked for again when the stream breaks (it may drop those who read too slowly).
struct Events {
    source: Source,
    sweep: String,
    stream: Option<tonic::Streaming<WatchResponse>>,
}

impl Events {
    /// The next one. May be called off and called again without losing any.
    async fn next(&mut self) -> WatchResponse {
        loop {
            match &mut self.stream {
                Some(stream) => match stream.message().await {
                    Ok(Some(event)) => return event,
                    Ok(None) | Err(_) => self.stream = None,
                },
                None => {
                    self.stream = self.source.watch(&self.sweep).await.ok();
                    if self.stream.is_none() {
                        tokio::time::sleep(WATCH_AGAIN).await;
                    }
                }
            }
        }
    }
}

/// Prints the results and says where everything is.
async fn conclude(
    source: &mut Source,
    summary: &SweepSummary,
    dir: &Path,
    since: Option<Instant>,
) -> Outcome {
    let mut trials = Vec::new();
    source
        .results(&summary.sweep, &mut |row| {
            trials.push(row);
            Ok(())
        })
        .await?;
    let top = out::width().map(|_| SHOWN_TRIALS).filter(|shown| *shown < summary.trials);
    results::print(trials, summary, Format::Table, None, top)?;
    let took = since.map(|since| format!(" in {}", text::duration(since.elapsed().as_secs_f64())));
    out::say(&format!("{}: {}{}", summary.sweep, ls::counts(summary), took.unwrap_or_default()));
    out::say(&format!(
        "everything is in {0}: `spotsweep results --dir {0}` prints this table again",
        dir.display()
    ));
    Ok(ending(summary))
}

fn ending(summary: &SweepSummary) -> Ending {
    if summary.state == "cancelled" {
        Ending::Cancelled
    } else if ls::count(summary, "failed") + ls::count(summary, "diverged") > 0 {
        Ending::TrialsFailed
    } else {
        Ending::Well
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::summary;

    #[test]
    fn the_exit_status_tells_how_the_sweep_ended() {
        assert_eq!(ending(&summary()), Ending::TrialsFailed);
        let mut well = summary();
        well.counts = [("completed".to_owned(), 5)].into();
        assert_eq!(ending(&well), Ending::Well);
        well.state = "cancelled".to_owned();
        assert_eq!(ending(&well), Ending::Cancelled);
    }
}
