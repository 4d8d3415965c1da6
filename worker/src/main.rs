//! The program `spotsweep-worker`: reads its command line, runs one agent, and turns signals into an orderly
//! farewell.

mod cli;
mod signals;

use clap::Parser as _;
use spotsweep_worker::{Agent, AgentConfig, Machine, Notices, ProcessTrainers, become_reaper};
use spotsweep_worker::{GUARD_ARGUMENT, guard_programs};
use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    if given.next().is_some_and(|first| first == GUARD_ARGUMENT)
        && let Some(folder) = given.next()
    {
        guard_programs(folder.as_ref());
        return ExitCode::SUCCESS;
    }
    let arguments = cli::Arguments::parse();
    if let Err(error) = cli::start_log(&arguments) {
        return fail(&error);
    }
    become_reaper();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&cli::CliError::Runtime(error)),
    };
    let outcome = runtime.block_on(run(arguments));
    // Not waiting for blocking calls, such as a read of stdin, that nobody needs any more.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

async fn run(arguments: cli::Arguments) -> Result<ExitCode, cli::CliError> {
    let settings = cli::settings(&arguments)?;
    // First of all: a signal that comes before it is listened to ends the process.
    let mut notices = Notices::start(&cli::notices(&arguments))?;
    let machine = Machine::detect().await;
    let name = cli::name(&arguments, &machine)?;
    let config = AgentConfig { coordinators: arguments.coordinator, name, machine };
    let farewell = signals::Farewell::listen(settings.grace, arguments.exit_with_parent)
        .map_err(cli::CliError::Signals)?;
    let grace = settings.grace;
    let agent = Agent::new(config, ProcessTrainers::new(settings)).with_notices(notices.receiver(), grace);
    tokio::select! {
        outcome = agent.run(farewell.first()) => {
            notices.end(outcome.is_ok()).await;
            outcome?;
            tracing::info!("left");
            Ok(ExitCode::SUCCESS)
        }
        code = farewell.second() => Ok(ExitCode::from(code)),
    }
}

fn fail(error: &cli::CliError) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            // Hints stay last.
            let (first, hint) = text.split_once("\nhint: ").map_or((text.as_str(), ""), |(a, b)| (a, b));
            let tail = if hint.is_empty() { String::new() } else { format!("\nhint: {hint}") };
            text = format!("{first}: {more}{tail}");
        }
        cause = inner.source();
    }
    // Nothing can be done about a stderr that is closed.
    let _written = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(error.exit_status())
}
