//! What is wrong with a sweep file, and how it is shown. It must not know what a sweep file may hold.
//!
//! The echoed line comes from the file and may be anything: control characters are escaped and long lines are
//! cut, so that no file can write to the terminal or fill it.

use std::fmt;

/// Most diagnostics that are shown for one file.
const DIAGNOSTICS: usize = 20;
/// Longest piece of a source line that is shown, in characters.
const SHOWN_CHARS: usize = 120;
/// Characters that are shown before the place in question when a line is cut.
const CONTEXT_CHARS: usize = 60;
/// Longest message, in characters: it may quote what the file says.
const MESSAGE_CHARS: usize = 600;

/// Everything that is wrong with one file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The file's name as the user gave it.
    pub file: String,
    /// What is wrong; never empty.
    pub list: Vec<Diagnostic>,
    /// How many more there were.
    pub more: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where; `None` when it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A place in the file, and its line as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line, safe to print; long ones cut at both sides with `…`.
    pub source_line: String,
    /// Where in `source_line` the place begins, in characters from 0.
    pub caret: usize,
    /// How many characters of `source_line` it takes, at least 1.
    pub width: usize,
}

/// A piece of one line. Columns count characters from 0, lines from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) width: usize,
}

/// The text of a file, by lines, and what was found wrong with it so far.
pub(super) struct Report<'a> {
    lines: Vec<&'a str>,
    found: Vec<(Option<Span>, String, Option<String>)>,
    more: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { lines: text.lines().collect(), found: Vec::new(), more: 0 }
    }

    /// How many things are wrong so far.
    pub(super) fn len(&self) -> usize {
        self.found.len() + self.more
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn error(&mut self, span: impl Into<Option<Span>>, message: impl Into<String>) {
        self.push(span.into(), message.into(), None);
    }

    pub(super) fn error_hint(
        &mut self,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(span.into(), message.into(), Some(hint.into()));
    }

    /// Adds it unless the same was said about the same place.
    pub(super) fn push(&mut self, span: Option<Span>, message: String, hint: Option<String>) {
        let found =
            (span, printable(&message, MESSAGE_CHARS), hint.map(|hint| printable(&hint, MESSAGE_CHARS)));
        if self.found.contains(&found) {
            return;
        }
        if self.found.len() < DIAGNOSTICS {
            self.found.push(found);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn finish(mut self, file: &str) -> Diagnostics {
        // Stable: of two at one place the one found first stays first. Those without a place come last.
        self.found.sort_by_key(|(span, ..)| (span.is_none(), *span));
        let lines = self.lines;
        let list = self
            .found
            .into_iter()
            .map(|(span, message, hint)| Diagnostic {
                place: span.map(|span| place(&lines, span)),
                message,
                hint,
            })
            .collect();
        Diagnostics { file: printable(file, SHOWN_CHARS), list, more: self.more }
    }
}

/// The line of `span`, cut and escaped, with the caret moved accordingly.
fn place(lines: &[&str], span: Span) -> Place {
    let line = lines.get(span.line.saturating_sub(1)).copied().unwrap_or_default();
    let skipped = if span.column > SHOWN_CHARS - CONTEXT_CHARS / 2 { span.column - CONTEXT_CHARS } else { 0 };
    let mut source_line = String::new();
    let mut length = 0;
    if skipped > 0 {
        source_line.push('…');
        length += 1;
    }
    let (mut caret, mut end) = (None, None);
    let mut cut = false;
    for (column, c) in line.chars().enumerate().skip(skipped) {
        if column == span.column {
            caret = Some(length);
        }
        if column == span.column + span.width {
            end = Some(length);
        }
        if length >= SHOWN_CHARS {
            cut = true;
            break;
        }
        length += push_printable(&mut source_line, c);
    }
    if cut {
        source_line.push('…');
    }
    let caret = caret.unwrap_or(length);
    let width = end.unwrap_or(length).saturating_sub(caret).max(1);
    Place { line: span.line, column: span.column + 1, source_line, caret, width }
}

/// Appends `c`, escaped unless it is safe and takes one column; says how many characters were added.
fn push_printable(text: &mut String, c: char) -> usize {
    // Bidirectional and zero-width characters can make a line look like another one.
    let misleading =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    match c {
        '\t' => {
            text.push(' ');
            1
        }
        c if c.is_control() || misleading => {
            let escaped = c.escape_unicode().to_string();
            text.push_str(&escaped);
            escaped.len()
        }
        c => {
            text.push(c);
            1
        }
    }
}

/// `text` on one line, at most `chars` long, without control characters.
fn printable(text: &str, chars: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count >= chars {
            out.push('…');
            break;
        }
        push_printable(&mut out, c);
    }
    out
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "error: {}", diagnostic.message)?;
            match &diagnostic.place {
                Some(place) => {
                    let number = place.line.to_string();
                    let margin = " ".repeat(number.len());
                    writeln!(f, "{margin}--> {}:{}:{}", self.file, place.line, place.column)?;
                    writeln!(f, "{margin} |")?;
                    writeln!(f, "{number} | {}", place.source_line)?;
                    writeln!(f, "{margin} | {}{}", " ".repeat(place.caret), "^".repeat(place.width))?;
                }
                None => writeln!(f, "--> {}", self.file)?,
            }
            if let Some(hint) = &diagnostic.hint {
                writeln!(f, "hint: {hint}")?;
            }
        }
        if self.more > 0 {
            writeln!(f, "\n… and {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Span) -> Place {
        place(&text.lines().collect::<Vec<_>>(), span)
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("{}bad{}", "x".repeat(5000), "y".repeat(5000));
        let place = shown(&line, Span { line: 1, column: 5000, width: 3 });
        assert!(place.source_line.chars().count() <= SHOWN_CHARS + 1);
        let marked: String = place.source_line.chars().skip(place.caret).take(place.width).collect();
        assert_eq!(marked, "bad");
    }

    #[test]
    fn control_and_bidirectional_characters_are_escaped_and_the_caret_stays_right() {
        let place = shown("a\u{1b}[31m\u{202e} bad", Span { line: 1, column: 8, width: 3 });
        assert_eq!(place.source_line, "a\\u{1b}[31m\\u{202e} bad");
        let marked: String = place.source_line.chars().skip(place.caret).take(place.width).collect();
        assert_eq!(marked, "bad");
    }

    #[test]
    fn a_place_outside_the_text_is_shown_without_a_panic() {
        for (line, column) in [(0, 0), (9, 9), (1, 5000), (1, usize::MAX / 2)] {
            let _ = shown("short", Span { line, column, width: 4 });
        }
    }

    #[test]
    fn diagnostics_are_bounded_and_the_rest_is_counted() {
        let mut report = Report::new("text");
        for i in 0..100 {
            report.error(Span { line: 1, column: 0, width: 1 }, format!("error {i}"));
        }
        let all = report.finish("a.yaml");
        assert_eq!((all.list.len(), all.more), (DIAGNOSTICS, 100 - DIAGNOSTICS));
    }
}
