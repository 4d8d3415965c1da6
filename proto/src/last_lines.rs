//! The form in which the message of a failure carries what a process printed last, and that message on one line.
//!
//! Pure. Must not decide how many lines are kept, nor make them harmless.

/// Between what happened and the lines.
const HEADING: &str = "; its last lines were:\n";

/// What happened, with the last lines that the process printed, if there are any.
#[must_use]
pub fn with_last_lines(happened: &str, lines: &str) -> String {
    if lines.is_empty() { happened.to_owned() } else { format!("{happened}{HEADING}{lines}") }
}

/// What happened, without the lines.
#[must_use]
pub fn happened(message: &str) -> &str {
    message.split(HEADING).next().unwrap_or_default().lines().next().unwrap_or_default()
}

/// A message for a place with one line: what happened, and the very last line, where the errors of most languages say what
/// they are.
#[must_use]
pub fn on_one_line(message: &str) -> String {
    let last = message
        .split_once(HEADING)
        .and_then(|(_, lines)| lines.lines().rev().find(|line| !line.trim().is_empty()));
    match last {
        Some(last) => format!("{}: {}", happened(message), last.trim()),
        None => happened(message).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_one_line_stands_what_happened_and_the_last_thing_that_was_said() {
        let trace = "Traceback (most recent call last):\n  File \"a.py\"\nValueError: no rows\n  \n";
        let message = with_last_lines("the program exited with status 1", trace);
        assert_eq!(on_one_line(&message), "the program exited with status 1: ValueError: no rows");
        assert_eq!(happened(&message), "the program exited with status 1");
        for plain in ["", "memory ran out", "two\nlines"] {
            assert_eq!(on_one_line(&with_last_lines(plain, "")), plain.lines().next().unwrap_or_default());
        }
        assert_eq!(on_one_line(&with_last_lines("it ended", " \n")), "it ended");
    }
}
