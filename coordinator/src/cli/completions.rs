//! `spotsweep completions`: a script for a shell.

use super::{
    error::{Ending, Outcome},
    out::Out,
};
use clap::{Args, Command};
use clap_complete::Shell;

const EXAMPLES: &str = "Examples:
  spotsweep completions bash > ~/.local/share/bash-completion/completions/spotsweep
  spotsweep completions fish > ~/.config/fish/completions/spotsweep.fish";

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Runs it.
///
/// # Errors
/// If stdout fails.
pub(crate) fn run(args: &CompletionsArgs, mut command: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "spotsweep", &mut script);
    let mut out = Out::stdout();
    out.text(&String::from_utf8_lossy(&script))?;
    out.flush()?;
    Ok(Ending::Well)
}
