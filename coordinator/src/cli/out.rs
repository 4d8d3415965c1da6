//! The two ways out: data on stdout, talk on stderr. Colours where a terminal wants them (`NO_COLOR` is honoured).
//!
//! Nothing else in the command line writes to either. Must not decide what is written.

use super::{
    error::{CliError, stdout_error},
    table::{Rendered, Table},
};
use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use std::io::{BufWriter, IsTerminal as _, StdoutLock, Write as _};

/// Data, buffered; whoever made it calls [`Out::flush`] at the end.
pub(crate) struct Out {
    stream: BufWriter<AutoStream<StdoutLock<'static>>>,
}

impl Out {
    /// Stdout.
    #[must_use]
    pub(crate) fn stdout() -> Self {
        Self { stream: BufWriter::new(anstream::stdout().lock()) }
    }

    /// Stdout without any thought of terminals: every byte goes out as it is.
    #[must_use]
    pub(crate) fn raw() -> Self {
        Self { stream: BufWriter::new(AutoStream::always_ansi(std::io::stdout().lock())) }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.stream.write_all(bytes).map_err(|error| stdout_error(&error))
    }

    /// Writes `text` as it is.
    ///
    /// # Errors
    /// If the reader went away, or the disk behind stdout is full.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// Writes `text` and a newline.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        self.text(text)?;
        self.text("\n")
    }

    /// Writes a table, as wide as the terminal, and says what did not fit.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub(crate) fn table(&mut self, table: &Table) -> Result<(), CliError> {
        let Rendered { text, left_out } = table.render(width());
        self.text(&text)?;
        self.flush()?;
        if !left_out.is_empty() {
            note(&format!(
                "no room for {}; a wider terminal, a pipe or --format csv has all",
                left_out.join(", ")
            ));
        }
        Ok(())
    }

    /// Hands everything over to the reader.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.stream.flush().map_err(|error| stdout_error(&error))
    }
}

/// Columns of the terminal behind stdout; `None` for files and pipes.
#[must_use]
pub(crate) fn width() -> Option<usize> {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| terminal_size::terminal_size_of(stdout))??;
    Some(usize::from(size.0.0)).filter(|columns| *columns > 0)
}

/// Writes `text` to stderr. That stderr is closed is nothing that could be told to anybody.
pub(crate) fn talk(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// A line on stderr.
pub(crate) fn say(line: &str) {
    talk(&format!("{line}\n"));
}

/// A line on stderr that matters less.
pub(crate) fn note(line: &str) {
    let dim = Style::new().dimmed();
    talk(&format!("{dim}{line}{dim:#}\n"));
}

/// A line on stderr that should be seen.
pub(crate) fn warn(line: &str) {
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    talk(&format!("{yellow}warning:{yellow:#} {line}\n"));
}
