//! The report as Markdown (CommonMark with tables), and the words that it shares with the page.
//!
//! Every text that comes from outside goes through [`escape`].

use super::{IMPORTANCE_SOURCE, IMPORTANCE_TRIALS, Story, cell, course, percent};
use crate::cli::{text, trial};
use std::fmt::Write as _;

/// Parameters of the table of the best.
const COLUMNS: usize = 8;
/// Said where importance cannot be told.
pub(super) const NO_IMPORTANCE: &str = "Too few completed trials differ in their parameters to tell.";

/// The whole report.
pub(crate) fn page(story: &Story) -> String {
    let sweep = &story.sweep;
    let mut out = format!("# {}\n\n{}\n", escape(&cell(&sweep.sweep)), escape(&headline(story)));
    if !sweep.description.is_empty() {
        let _ = write!(out, "\n{}\n", escape(&cell(&sweep.description)));
    }
    out += "\n## What was searched\n\n| parameter | values |\n| --- | --- |\n";
    for one in &story.searched {
        let _ = writeln!(out, "| {} | {} |", escape(&cell(&one.name)), escape(&one.told()));
    }
    out += "\n## Best trials\n\n";
    let rows = best(story);
    if rows.is_empty() {
        out += "No trial has reported the objective yet.\n";
    }
    for (index, row) in rows.iter().enumerate() {
        let _ = writeln!(out, "| {} |", row.iter().map(|text| escape(text)).collect::<Vec<_>>().join(" | "));
        if index == 0 {
            let _ = writeln!(out, "|{}", " --- |".repeat(row.len()));
        }
    }
    out += "\n## What made the difference\n\n";
    if story.importance.is_empty() {
        let _ = writeln!(out, "{NO_IMPORTANCE}");
    } else {
        out += "| parameter | share of the variance |\n| --- | --- |\n";
        for (name, share) in &story.importance {
            let _ = writeln!(out, "| {} | {} |", escape(&cell(name)), percent(*share));
        }
        let _ = write!(out, "\n{}\n", importance_source(story));
    }
    out += "\n## What it went through\n\n| what | |\n| --- | --- |\n";
    for (what, told) in course(story) {
        let _ = writeln!(out, "| {what} | {} |", escape(&told));
    }
    let (how, spec) = repeat(story);
    // A fence longer than any row of backticks inside cannot be ended by it.
    let longest = spec.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = write!(out, "\n## To repeat it\n\n{}\n\n{fence}json\n{spec}\n{fence}\n", escape(&how));
    out
}

/// The result in a line.
pub(super) fn headline(story: &Story) -> String {
    let sweep = &story.sweep;
    let objective = cell(&sweep.objective);
    let best = story.best.first();
    let best = best.and_then(|one| Some((one.number, one.best?)));
    let best = best.map_or_else(
        || format!("no trial has reported {objective} yet"),
        |(number, value)| format!("best {objective} {} (trial {number})", text::metric(value)),
    );
    format!(
        "{} · {} {objective} · {best} · {}",
        text::count(sweep.trials, "trial"),
        cell(&sweep.goal),
        cell(&sweep.state)
    )
}

/// The table of the best, its header first: number, best value of the objective at any step, what varies.
pub(super) fn best(story: &Story) -> Vec<Vec<String>> {
    if story.best.is_empty() {
        return Vec::new();
    }
    let varying: Vec<&str> =
        story.searched.iter().filter(|one| one.varies()).map(|one| one.name.as_str()).take(COLUMNS).collect();
    let mut header = vec!["trial".to_owned(), format!("best {}", cell(&story.sweep.objective))];
    header.extend(varying.iter().map(|name| cell(name)));
    header.extend(["attempts".to_owned(), "time".to_owned()]);
    let rows =
        story.best.iter().map(|one| {
            let params = trial::params(one);
            let value = one.best.map(text::metric);
            let mut row = vec![one.number.to_string(), value.unwrap_or_default()];
            row.extend(varying.iter().map(|name| {
                params.get(*name).map(|value| cell(&text::parameter(value))).unwrap_or_default()
            }));
            row.extend([one.attempts.to_string(), text::duration(one.seconds)]);
            row
        });
    std::iter::once(header).chain(rows).collect()
}

/// How importance was computed.
pub(super) fn importance_source(story: &Story) -> String {
    match story.left_out {
        0 => IMPORTANCE_SOURCE.to_owned(),
        some => format!(
            "{IMPORTANCE_SOURCE} From the first {} completed trials; {} more are left out.",
            text::grouped(IMPORTANCE_TRIALS as u64),
            text::grouped(some)
        ),
    }
}

/// How to run it once more, and the specification.
pub(super) fn repeat(story: &Story) -> (String, String) {
    let how = format!(
        "Run the sweep file again with spotsweep {}: the specification below, of digest {}, holds every choice, seeds \
         included. On the same kind of device a trial ends with the same bits; its weights digest, in the results, tells.",
        env!("CARGO_PKG_VERSION"),
        story.sweep.spec_digest
    );
    let spec = serde_json::to_string_pretty(&story.spec).unwrap_or_default();
    let shown: Vec<_> = spec.lines().map(text::harmless).collect();
    (how, shown.join("\n"))
}

/// Text that is no markup: all that CommonMark, tables and links without brackets give a meaning gets a backslash.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let list = out.is_empty() && matches!(c, '-' | '+' | '=');
        let link = c == ':' && rest.peek() == Some(&'/');
        if list || link || "\\`*_{}[]<>#!|~&$@".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_no_markdown() {
        let page = page(&super::super::tests::story());
        assert!(page.contains("\\<script\\>"), "{page}");
        assert!(!page.contains("\n# heading"));
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}'));
        insta::assert_snapshot!(page.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }
}
