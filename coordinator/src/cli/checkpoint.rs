//! `spotsweep checkpoint`: the checkpoints of a trial, and one of them as a file.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    out::{self, Out},
    rows::{self, Field, Format, Row},
    table::{Align, Column, Keep, Table},
    target, text,
};
use crate::{
    error::{Code, Problem},
    objects::{Objects, Which},
};
use clap::{Args, Subcommand};
use spotsweep_proto::digest::Digest;
use spotsweep_wire::v1::Checkpoint;
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

const EXAMPLES: &str = "Examples:
  spotsweep checkpoint ls fashion-ladder/7
  spotsweep checkpoint get fashion-ladder/7 -o best.safetensors
  spotsweep checkpoint get fashion-ladder/7 --which final -o final.safetensors

The file holds the named parameters and buffers; in Python:
  from safetensors.torch import load_file; load_file(\"best.safetensors\")";

/// What to do with checkpoints.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckpointArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: CheckpointCommand,
}

/// Commands of `checkpoint`.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// List the checkpoints of a trial that are kept
    Ls(LsArgs),
    /// Write the weights of one into a file
    Get(GetArgs),
}

/// Options of `checkpoint ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// The trial, as SWEEP/NUMBER
    pub(crate) trial: String,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Options of `checkpoint get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The trial, as SWEEP/NUMBER
    pub(crate) trial: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// best (by the objective), final, last (the newest), or a step; the first of best, final, last that is there if
    /// it is not said
    #[arg(long, value_name = "WHICH")]
    pub(crate) which: Option<Choice>,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The best by the sweep's objective.
    Best,
    /// The weights at the end of the trial.
    Final,
    /// The newest.
    Last,
    /// The one at this step.
    Step(u64),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "best" => Ok(Self::Best),
            "final" => Ok(Self::Final),
            "last" => Ok(Self::Last),
            step => step.parse().map(Self::Step).map_err(|_| "it is best, final, last or a step".to_owned()),
        }
    }
}

/// Runs it.
///
/// # Errors
/// If there is no such trial or checkpoint, or it cannot be read or written.
pub(crate) async fn run(args: CheckpointArgs) -> Outcome {
    match args.command {
        CheckpointCommand::Ls(args) => ls(args).await,
        CheckpointCommand::Get(args) => get(args).await,
    }
}

async fn ls(args: LsArgs) -> Outcome {
    target::trial(&args.trial)?;
    let kept = args.read.open(Some(&args.trial)).await?.checkpoints(&args.trial).await?.checkpoints;
    let mut out = Out::stdout();
    match args.format {
        Format::Table if kept.is_empty() => out::say(&format!("{} has no checkpoint yet", args.trial)),
        Format::Table => out.table(&table(&kept))?,
        Format::Json => out.text(&rows::json_lines(&kept.iter().map(row).collect::<Vec<_>>()))?,
        Format::Csv => out.text(&rows::csv(&kept.iter().map(row).collect::<Vec<_>>())?)?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

async fn get(args: GetArgs) -> Outcome {
    target::trial(&args.trial)?;
    let answer = args.read.open(Some(&args.trial)).await?.checkpoints(&args.trial).await?;
    let chosen = choose(&args.trial, &answer.checkpoints, args.which)?;
    let manifest = <[u8; 32]>::try_from(chosen.manifest.as_ref()).map_err(|_| {
        Problem::new(Code::Internal, "the coordinator named a checkpoint by something else than a digest")
    })?;
    let objects = Objects::open(&folder_of(&answer.store_url)?).map_err(Problem::from)?;
    let fetched =
        objects.fetch(Digest(manifest), Which::Weights, &args.output).await.map_err(Problem::from)?;
    let mut out = Out::stdout();
    out.line(&args.output.display().to_string())?;
    out.flush()?;
    out::note(&format!("{}, {}, {}", args.trial, kinds(chosen), text::bytes(fetched.weights.bytes)));
    Ok(Ending::Well)
}

/// The folder that a store's URL names, which must be on this machine.
fn folder_of(url: &str) -> Result<PathBuf, Problem> {
    let folder = url.strip_prefix("file://").map(Path::new);
    match folder {
        Some(folder) if folder.is_dir() => Ok(folder.to_owned()),
        Some(folder) => Err(Problem::new(
            Code::NoFolder,
            format!("the checkpoints are in {}, which is not on this machine", folder.display()),
        )
        .hint("run this on the machine of the coordinator")),
        None => {
            Err(Problem::new(Code::BadRequest, format!("this version reads no checkpoints from {url:?}")))
        }
    }
}

fn choose<'a>(trial: &str, kept: &'a [Checkpoint], which: Option<Choice>) -> Result<&'a Checkpoint, Problem> {
    let newest = || kept.iter().max_by_key(|one| one.step);
    let found = match which {
        Some(Choice::Best) => kept.iter().find(|one| one.best),
        Some(Choice::Final) => kept.iter().find(|one| one.last),
        Some(Choice::Last) => newest(),
        Some(Choice::Step(step)) => kept.iter().find(|one| one.step == step),
        None => kept.iter().find(|one| one.best).or_else(|| kept.iter().find(|one| one.last)).or_else(newest),
    };
    found.ok_or_else(|| {
        let steps: Vec<String> = kept.iter().map(kinds).collect();
        let hint = match steps.as_slice() {
            [] => "it has none yet; `spotsweep explain` says what it does".to_owned(),
            steps => format!("there is: {}", steps.join("; ")),
        };
        let wanted = match which {
            None => "checkpoint".to_owned(),
            Some(Choice::Best) => "best checkpoint".to_owned(),
            Some(Choice::Final) => "final checkpoint".to_owned(),
            Some(Choice::Last) => "last checkpoint".to_owned(),
            Some(Choice::Step(step)) => format!("checkpoint at step {step}"),
        };
        Problem::new(Code::NoCheckpoint, format!("{trial} has no {wanted}")).hint(hint)
    })
}

/// `step 400`, and what is special about it.
fn kinds(one: &Checkpoint) -> String {
    let mut text = format!("step {}", one.step);
    for (is, word) in [(one.best, "best"), (one.last, "final")] {
        if is {
            text += &format!(", {word}");
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn row(one: &Checkpoint) -> Row {
    Row::new()
        .with("step", Field::Count(one.step))
        .with("best", Field::Json(one.best.into()))
        .with("final", Field::Json(one.last.into()))
        .with("bytes", Field::Count(one.bytes))
        .with("manifest", Field::text(&hex(&one.manifest)))
}

fn table(kept: &[Checkpoint]) -> Table {
    let mut table = Table::new(vec![
        Column::new("step", Align::Right, Keep::Always),
        Column::new("which", Align::Left, Keep::Always),
        Column::new("size", Align::Right, Keep::Always),
        Column::new("manifest", Align::Left, Keep::Cut(16)),
    ]);
    for one in kept {
        let which = match (one.best, one.last) {
            (true, true) => "best, final",
            (true, false) => "best",
            (false, true) => "final",
            (false, false) => "",
        };
        table.row(vec![
            one.step.to_string().into(),
            which.into(),
            text::bytes(one.bytes).into(),
            hex(&one.manifest).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Vec<Checkpoint> {
        let one = |step: u64, best: bool, last: bool| Checkpoint {
            step,
            manifest: vec![7; 32].into(),
            parts: Vec::new(),
            bytes: 407_080,
            last,
            best,
        };
        vec![one(100, false, false), one(200, true, false), one(300, false, true)]
    }

    #[test]
    fn the_best_is_taken_unless_another_is_named() {
        let step = |which| choose("a/1", &kept(), which).map(|one| one.step);
        assert_eq!(step(None), Ok(200));
        assert_eq!(step(Some(Choice::Final)), Ok(300));
        assert_eq!(step(Some(Choice::Last)), Ok(300));
        assert_eq!(step(Some(Choice::Step(100))), Ok(100));
        let problem = step(Some(Choice::Step(7))).unwrap_err();
        assert_eq!(problem.message, "a/1 has no checkpoint at step 7");
        assert_eq!(problem.hint, "there is: step 100; step 200, best; step 300, final");
        assert!(choose("a/1", &[], None).is_err());
        assert_eq!(choose("a/1", &kept()[..1], None).unwrap().step, 100);
    }

    #[test]
    fn checkpoints_are_listed() {
        insta::assert_snapshot!(
            anstream::adapter::strip_str(&table(&kept()).render(Some(60)).text).to_string()
        );
        insta::assert_snapshot!(rows::json_lines(&[row(&kept()[1])]));
    }
}
