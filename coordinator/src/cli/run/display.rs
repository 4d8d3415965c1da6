//! Showing progress: bars on a terminal, plain lines elsewhere. Everything goes to stderr.
//!
//! Must not decide what is shown: that is [`super::progress::Progress`].

use super::progress::Progress;
use crate::cli::out;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Time between two lines where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Parts of the bar.
const PARTS: u64 = 1000;
/// Most workers that have a line of their own.
const WORKER_LINES: usize = 16;

/// The display.
#[derive(Debug)]
pub(crate) enum Display {
    /// On a terminal.
    Bars {
        /// All of them.
        all: MultiProgress,
        /// The sweep's.
        sweep: ProgressBar,
        /// One a worker, made when needed.
        workers: Vec<ProgressBar>,
    },
    /// Elsewhere.
    Lines {
        /// When the last one was written.
        last: Option<Instant>,
        /// The last one.
        text: String,
    },
}

impl Display {
    /// What fits stderr.
    #[must_use]
    pub(crate) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None, text: String::new() };
        }
        let all = MultiProgress::new();
        let sweep = all.add(ProgressBar::new(PARTS));
        // A template that cannot be read leaves the default bar.
        if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan/dim} {percent:>3}%  {wide_msg}") {
            sweep.set_style(style.progress_chars("━╸─"));
        }
        Self::Bars { all, sweep, workers: Vec::new() }
    }

    /// A line that stays.
    pub(crate) fn event(&self, line: &str) {
        match self {
            Self::Bars { all, .. } => all.suspend(|| out::say(line)),
            Self::Lines { .. } => out::say(line),
        }
    }

    /// Shows how far it is; `since` is when this run began.
    pub(crate) fn update(&mut self, progress: &mut Progress, since: Instant) {
        let elapsed_s = since.elapsed().as_secs_f64();
        let left_s = progress.left_s(elapsed_s).filter(|_| !progress.has_ended());
        let headline = progress.headline(left_s);
        match self {
            Self::Bars { all, sweep, workers } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of PARTS"
                )]
                sweep.set_position((progress.share() * PARTS as f64) as u64);
                sweep.set_message(headline);
                let mut lines = progress.workers();
                lines.truncate(WORKER_LINES);
                while workers.len() < lines.len() {
                    let line = all.add(ProgressBar::new_spinner());
                    if let Ok(style) = ProgressStyle::with_template("  {wide_msg}") {
                        line.set_style(style);
                    }
                    workers.push(line);
                }
                for line in workers.drain(lines.len()..) {
                    line.finish_and_clear();
                    all.remove(&line);
                }
                for (line, (worker, what)) in workers.iter().zip(lines) {
                    line.set_message(format!("{worker}  {what}"));
                }
            }
            Self::Lines { last, text } => {
                let due = last.is_none_or(|last| last.elapsed() >= LINE_EVERY);
                if due && *text != headline {
                    out::say(&headline);
                    *last = Some(Instant::now());
                    *text = headline;
                }
            }
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        if let Self::Bars { all, sweep, workers } = self {
            workers.drain(..).for_each(|line| line.finish_and_clear());
            sweep.finish_and_clear();
            // Nothing to be done about a terminal that is gone.
            let _gone = all.clear();
        }
    }
}
