//! How a command ends: with success, with an error in words, or because somebody stopped it.
//!
//! The codes and their exit statuses are those of [`crate::error`]. Must not decide what is an error.

use super::text::harmless_lines;
use crate::error::{Code, Problem};
use anstyle::{AnsiColor, Style};
use std::{io, path::Path, process::ExitCode};

/// How a command ended that did what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is well: exit status 0.
    Well,
    /// The sweep is over, but trials of it failed or diverged: exit status 10.
    TrialsFailed,
    /// The sweep was cancelled before its end: exit status 11.
    Cancelled,
    /// Somebody interrupted it; all is kept: exit status 130, as shells give it after Ctrl-C.
    Interrupted,
}

impl Ending {
    /// The exit status.
    #[must_use]
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::TrialsFailed => 10,
            Self::Cancelled => 11,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// For people.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// Nobody reads what it prints any more (`| head`): no error at all.
    #[error("the reader of the output went away")]
    Pipe,
}

/// What a command comes back with.
pub(crate) type Outcome = Result<Ending, CliError>;

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        Self::Problem(Problem::from_status(&status))
    }
}

/// An error of the system at `path`.
#[must_use]
pub(crate) fn io_problem(doing: &str, path: &Path, error: &io::Error) -> Problem {
    let message = format!("cannot {doing} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::new(Code::Storage, message)
            .hint("free some space and run the same command again; nothing that was acknowledged is lost"),
        io::ErrorKind::NotFound => Problem::new(Code::NoFolder, message),
        _ => Problem::new(Code::Internal, message),
    }
}

/// An error on its way to stdout.
#[must_use]
pub(crate) fn stdout_error(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::Pipe,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Problem::new(Code::Storage, format!("cannot write the output: {error}")).into()
        }
        _ => Problem::new(Code::Internal, format!("cannot write the output: {error}")).into(),
    }
}

/// The error as it is printed: `error: …`, and a `hint: …` where there is one.
#[must_use]
pub(crate) fn in_words(problem: &Problem) -> String {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    let message = harmless_lines(&problem.message);
    // The diagnostics of a sweep file are several errors with hints of their own, in words already.
    let message = if message.starts_with("error: ") { message } else { format!("error: {message}") };
    let hint = harmless_lines(&problem.hint);
    let hint = hint.lines().map(|line| format!("hint: {line}"));
    let mut text = String::new();
    for line in message.lines().map(str::to_owned).chain(hint) {
        text += &if let Some(rest) = line.strip_prefix("error:") {
            format!("{red}error:{red:#}{rest}\n")
        } else if let Some(rest) = line.strip_prefix("hint:") {
            format!("{cyan}hint:{cyan:#}{rest}\n")
        } else {
            line + "\n"
        };
    }
    text
}

/// Prints what is to be said about the outcome and turns it into the exit status.
#[must_use]
pub(crate) fn conclude(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(ending) => ExitCode::from(ending.exit_status()),
        Err(CliError::Pipe) => ExitCode::SUCCESS,
        Err(CliError::Problem(failure)) => {
            super::out::talk(&in_words(&failure));
            ExitCode::from(failure.code.exit_status())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_and_what_to_do() {
        let failure = Problem::new(Code::NoSuchSweep, "there is no sweep \u{1b}[2Jx").hint("there is: a, b");
        let text = anstream::adapter::strip_str(&in_words(&failure)).to_string();
        assert_eq!(text, "error: there is no sweep \\u{1b}[2Jx\nhint: there is: a, b\n");
    }

    #[test]
    fn endings_and_errors_have_exit_statuses_of_their_own() {
        let endings = [Ending::Well, Ending::TrialsFailed, Ending::Cancelled, Ending::Interrupted];
        assert_eq!(endings.map(Ending::exit_status), [0, 10, 11, 130]);
        for code in Code::ALL {
            assert!(!endings.map(Ending::exit_status).contains(&code.exit_status()), "{code}");
        }
    }

    #[test]
    fn the_documentation_lists_every_exit_status_and_no_other() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/command-line.md"));
        let row = |code: &Code| {
            let (exit, http, grpc) = (code.exit_status(), code.http_status(), code.grpc());
            format!("| {exit} | `{code}` | {grpc:?} | {http} |")
        };
        let expected: Vec<String> = Code::ALL.iter().map(row).collect();
        let rows = page.lines().filter(|line| expected.iter().any(|row| line.starts_with(row.as_str())));
        assert_eq!(rows.count(), expected.len(), "the table should be:\n{}", expected.join("\n"));
        let table = page
            .lines()
            .filter(|line| line.split('|').nth(1).is_some_and(|cell| cell.trim().parse::<u8>().is_ok()));
        let endings = [Ending::Well, Ending::TrialsFailed, Ending::Cancelled, Ending::Interrupted];
        let (mut others, mut count) = (Vec::new(), 0);
        for line in table {
            count += 1;
            if !expected.iter().any(|row| line.starts_with(row.as_str())) {
                others.push(line.split('|').nth(1).unwrap().trim().parse::<u8>().unwrap());
            }
        }
        assert_eq!(others, endings.map(Ending::exit_status));
        assert_eq!(count, expected.len() + endings.len());
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        assert!(matches!(stdout_error(&io::ErrorKind::BrokenPipe.into()), CliError::Pipe));
    }
}
