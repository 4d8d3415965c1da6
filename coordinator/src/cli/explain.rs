//! `spotsweep explain`: why a sweep or trial waits, moved, stopped or failed.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    out::Out,
    target, text,
};
use clap::Args;

const EXAMPLES: &str = "Examples:
  spotsweep explain fashion-ladder/7
  spotsweep explain fashion-ladder";

/// Options of `explain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// The sweep, or the trial as SWEEP/NUMBER; may be left out where there is only one sweep
    #[arg(value_name = "SWEEP|TRIAL")]
    pub(crate) target: Option<String>,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such thing, or the source fails.
pub(crate) async fn run(args: ExplainArgs) -> Outcome {
    args.target.as_deref().map(target::sweep_of).transpose()?;
    let mut source = args.read.open(args.target.as_deref()).await?;
    let target = source.sweep_or_only(args.target).await?;
    let lines = source.explain(&target).await?;
    let mut out = Out::stdout();
    lines.iter().try_for_each(|line| out.line(&text::harmless(line)))?;
    out.flush()?;
    Ok(Ending::Well)
}
