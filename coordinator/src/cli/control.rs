//! `spotsweep pause`, `resume` and `cancel`.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    out,
    source::Change,
    target, text,
};
use clap::Args;

/// Options of all three.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// The sweep, or the trial as SWEEP/NUMBER
    #[arg(value_name = "SWEEP|TRIAL")]
    pub(crate) target: String,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such thing, it has ended, or the coordinator does not answer.
pub(crate) async fn run(change: Change, args: ControlArgs) -> Outcome {
    target::sweep_of(&args.target)?;
    let mut source = args.read.open(Some(&args.target)).await?;
    let trials = source.change(change, &args.target).await?;
    out::say(&done(change, &args.target, trials));
    Ok(Ending::Well)
}

fn done(change: Change, target: &str, trials: u64) -> String {
    let (word, undo) = match change {
        Change::Pause => ("paused", format!("; `spotsweep resume {target}` lets it go on")),
        Change::Resume => ("resumed", String::new()),
        Change::Cancel => ("cancelled", String::new()),
    };
    if target.contains('/') {
        let already = if trials == 0 { " already" } else { "" };
        format!("{target} is{already} {word}{undo}")
    } else {
        format!("{target} is {word}: {} changed{undo}", text::count(trials, "trial"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_one_line() {
        assert_eq!(
            done(Change::Pause, "ladder", 12),
            "ladder is paused: 12 trials changed; `spotsweep resume ladder` lets it go on"
        );
        assert_eq!(done(Change::Cancel, "ladder/3", 1), "ladder/3 is cancelled");
        assert_eq!(done(Change::Cancel, "ladder/3", 0), "ladder/3 is already cancelled");
        assert_eq!(done(Change::Resume, "ladder", 1), "ladder is resumed: 1 trial changed");
    }
}
