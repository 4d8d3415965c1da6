//! The command line: what people and scripts type, and what they read.
//!
//! One file a command; each turns options into questions to a [`source::Source`] and answers into text. Data goes to
//! stdout, talk to stderr ([`out`]). Nothing is decided here that the coordinator should decide.

use clap::{CommandFactory as _, Parser, Subcommand};
use std::process::ExitCode;

mod check;
mod checkpoint;
mod client;
mod code;
mod completions;
mod control;
mod data;
mod doctor;
mod error;
mod explain;
mod export;
#[cfg(test)]
pub(crate) mod fixtures;
mod host;
mod http;
mod import;
mod interrupts;
mod local;
mod logs;
mod ls;
mod metrics;
mod models;
mod modules;
pub(crate) mod order;
mod out;
mod plot;
mod report;
pub(crate) mod results;
mod rows;
mod run;
mod serve;
mod sets;
mod show;
mod simulate;
mod source;
mod submit;
mod sweep_file;
mod table;
mod target;
pub(crate) mod text;
mod top;
mod transport;
pub(crate) mod trial;
mod watch;
mod workers;

use error::Outcome;
use source::Change;

const AFTER_HELP: &str = "Examples:
  spotsweep check sweep.yaml                what would run, or what is wrong with the file
  spotsweep run sweep.yaml                  coordinator and workers on this machine
  spotsweep results --top 5                 the best five
  spotsweep serve --dir DIR                 a coordinator for workers elsewhere

`spotsweep help COMMAND` shows the options of a command, with examples.";

/// Hyperparameter sweeps on machines that may vanish at any second
#[derive(Debug, Parser)]
#[command(name = "spotsweep", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// All commands, in the order in which people meet them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a sweep file would run, or what is wrong with it
    Check(check::CheckArgs),
    /// Replay a sweep among spot machines that come and go, and say what it would take
    Simulate(simulate::SimulateArgs),
    /// Run a sweep on this machine, from its file to its results
    Run(run::RunArgs),
    /// Run a coordinator for clients and workers of their own
    Serve(serve::ServeArgs),
    /// Hand a sweep file to a coordinator
    Submit(submit::SubmitArgs),
    /// List sweeps
    Ls(ls::LsArgs),
    /// Show a sweep or a trial
    Show(show::ShowArgs),
    /// Follow what happens
    Watch(watch::WatchArgs),
    /// Look at sweeps, trials, workers and events on the full screen
    Top(top::TopArgs),
    /// Print the results of a sweep, best first
    Results(results::ResultsArgs),
    /// Print what a trial reported, step by step
    Metrics(metrics::MetricsArgs),
    /// Print what an attempt of a trial printed
    Logs(logs::LogsArgs),
    /// Write a sweep as CSV, JSON, Parquet, or for TensorBoard or MLflow
    Export(export::ExportArgs),
    /// Take a finished sweep back from an export as JSON
    Import(import::ImportArgs),
    /// Write a sweep as one page: what was searched, what is best, what made the difference
    Report(report::ReportArgs),
    /// Say why a trial waits, moved, stopped or failed
    Explain(explain::ExplainArgs),
    /// List workers
    Workers(workers::WorkersArgs),
    /// Stop a sweep or trial with a checkpoint, until resumed
    Pause(control::ControlArgs),
    /// Let a paused sweep or trial go on
    Resume(control::ControlArgs),
    /// Stop a sweep or trial for good
    Cancel(control::ControlArgs),
    /// List the checkpoints of a trial, or take one as a file
    Checkpoint(checkpoint::CheckpointArgs),
    /// List models and their hyperparameters
    Models(models::ModelsArgs),
    /// Add, fetch, list and verify data sets
    Data(data::DataArgs),
    /// Show what is found on this machine and what is missing
    Doctor(doctor::DoctorArgs),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    error::conclude(dispatch(cli.command))
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Check(args) => wait(check::run(args)),
        Command::Simulate(args) => wait(simulate::run(args)),
        Command::Models(args) => wait(models::run(args)),
        Command::Data(args) => wait_in_threads(data::run(args)),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Run(args) => wait_in_threads(run::run(args)),
        Command::Serve(args) => wait_in_threads(serve::run(args)),
        Command::Submit(args) => wait(submit::run(args)),
        Command::Ls(args) => wait(ls::run(args)),
        Command::Show(args) => wait(show::run(args)),
        Command::Watch(args) => wait(watch::run(args)),
        Command::Top(args) => wait(top::run(args)),
        Command::Results(args) => wait(results::run(args)),
        Command::Metrics(args) => wait(metrics::run(args)),
        Command::Logs(args) => wait(logs::run(args)),
        // What reads, and what writes, have a thread each.
        Command::Export(args) => wait_in_threads(export::run(args)),
        Command::Import(args) => wait_in_threads(import::run(args)),
        Command::Report(args) => wait(report::run(args)),
        Command::Explain(args) => wait(explain::run(args)),
        Command::Workers(args) => wait(workers::run(args)),
        Command::Checkpoint(args) => wait(checkpoint::run(args)),
        Command::Doctor(args) => wait(doctor::run(args)),
        Command::Pause(args) => wait(control::run(Change::Pause, args)),
        Command::Resume(args) => wait(control::run(Change::Resume, args)),
        Command::Cancel(args) => wait(control::run(Change::Cancel, args)),
    }
}

/// Runs a client's command to its end, on this thread.
fn wait(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| crate::error::Problem::internal(&error))?.block_on(command)
}

/// Runs a command with a coordinator inside.
fn wait_in_threads(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| crate::error::Problem::internal(&error))?;
    let outcome = runtime.block_on(command);
    // Not waiting for what nobody needs any more, such as a stream of a client that went away.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_without_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documentation_names_every_command() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/command-line.md"));
        for command in Cli::command().get_subcommands() {
            assert!(page.contains(&format!("`{}`", command.get_name())), "{}", command.get_name());
            assert!(page.contains(&format!("spotsweep {}", command.get_name())), "{}", command.get_name());
        }
    }

    #[test]
    fn every_help_text_is_what_it_was() {
        let mut root = Cli::command().term_width(100);
        let mut text = format!("{}\n", root.render_long_help());
        let names: Vec<String> =
            root.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        root.build();
        for name in names {
            if let Some(command) = root.find_subcommand_mut(&name) {
                text += &format!("==== {name}\n{}\n", command.clone().term_width(100).render_help());
            }
        }
        insta::assert_snapshot!(text);
    }
}
