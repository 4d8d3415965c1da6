//! `spotsweep logs`: what an attempt of a trial printed.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    interrupts::Interrupts,
    out::{self, Out},
    target,
};
use crate::{
    error::{Code, Problem},
    logs::{Readable, last_lines},
};
use clap::Args;
use std::io::IsTerminal as _;

const EXAMPLES: &str = "Examples:
  spotsweep logs fashion-ladder/7                  what its newest attempt printed
  spotsweep logs fashion-ladder/7 --attempt 1      what its first attempt printed, on a machine that may be gone
  spotsweep logs fashion-ladder/7 --follow         and what it prints from now on
  spotsweep logs fashion-ladder/7 --tail 20
  spotsweep logs fashion-ladder/7 --raw > out.log  byte for byte, with colours";

/// Options of `logs`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// The trial, as SWEEP/NUMBER
    pub(crate) trial: String,
    /// Which attempt, from 1 [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Go on with what comes, until the attempt has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the last so many lines, and with --follow what comes
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Byte for byte as it was printed, not for a terminal
    #[arg(long)]
    pub(crate) raw: bool,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// What is left to print, made of bytes as they come.
struct Printer {
    out: Out,
    /// Makes bytes text; `None` for bytes as they are.
    readable: Option<Readable>,
    /// So many lines at the end of what is there at first, and what that is so far.
    tail: Option<(usize, Vec<u8>)>,
}

impl Printer {
    fn new(raw: bool, tail: Option<usize>) -> Self {
        Self {
            out: if raw { Out::raw() } else { Out::stdout() },
            readable: (!raw).then(Readable::default),
            tail: tail.map(|lines| (lines, Vec::new())),
        }
    }

    fn print(&mut self, bytes: &[u8]) -> Result<(), super::error::CliError> {
        let text = self.readable.as_mut().map(|readable| readable.push(bytes));
        let bytes = text.as_ref().map_or(bytes, |text| text.as_bytes());
        match &mut self.tail {
            Some((_, first)) => {
                first.extend_from_slice(bytes);
                Ok(())
            }
            None => self.out.bytes(bytes).and_then(|()| self.out.flush()),
        }
    }

    /// What was there at first is complete.
    fn caught_up(&mut self) -> Result<(), super::error::CliError> {
        if let Some((lines, first)) = self.tail.take() {
            self.out.bytes(last_lines(&first, lines))?;
        }
        self.out.flush()
    }

    fn end(&mut self) -> Result<(), super::error::CliError> {
        if let Some(rest) = self.readable.as_mut().map(Readable::end) {
            self.out.bytes(rest.as_bytes())?;
        }
        self.out.flush()
    }
}

/// Runs it.
///
/// # Errors
/// If there is no such trial or attempt, the source fails, or bytes are asked for on a terminal.
pub(crate) async fn run(args: LogsArgs) -> Outcome {
    target::trial(&args.trial)?;
    if args.raw && std::io::stdout().is_terminal() {
        let message = "--raw is not for a terminal: what strangers print could drive it";
        return Err(Problem::new(Code::BadRequest, message)
            .hint("write it to a file: --raw > out.log")
            .into());
    }
    let mut source = args.read.open(Some(&args.trial)).await?;
    let mut stop = Interrupts::listen()?;
    let mut answers = source.log(&args.trial, args.attempt.unwrap_or(0), args.follow).await?;
    let mut printer = Printer::new(args.raw, args.tail);
    loop {
        let answer = tokio::select! {
            answer = answers.message() => answer?,
            () = stop.next() => {
                printer.end()?;
                return Ok(Ending::Interrupted);
            }
        };
        let Some(answer) = answer else { break };
        printer.print(&answer.text)?;
        if answer.caught_up {
            printer.caught_up()?;
        }
        if !answer.note.is_empty() {
            out::note(&answer.note);
        }
    }
    printer.end()?;
    Ok(Ending::Well)
}
