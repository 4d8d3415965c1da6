//! The model as a picture.
//!
//! Pure: draws into a buffer and nothing else. Everything that strangers wrote goes through [`Painter::text`], which makes
//! it harmless.

use super::{
    keys,
    layout::{self, LEAST, Layout},
    model::{Happened, Link, Model, Prompt, Tab},
    paint::{Painter, bold, dim, style},
};
use crate::cli::{
    ls, plot, results,
    source::Change,
    table::{Align, Column, Keep, Table, cut},
    text, trial, workers,
};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use spotsweep_proto::last_lines::on_one_line;
use spotsweep_wire::v1::{SweepSummary, Trial};
use unicode_width::UnicodeWidthStr as _;

/// Columns of the names of a trial's facts.
const NAMES: usize = 12;
/// Most lines of a trial's explanation.
const WHY: usize = 6;
/// Least lines of a curve beside other things.
const CURVE: usize = 6;

/// Draws `model` on the whole of `buffer`.
pub(super) fn draw(model: &Model, colour: bool, buffer: &mut Buffer) {
    let mut paint = Painter { buffer, colour };
    if model.size.0 < LEAST.0 || model.size.1 < LEAST.1 {
        let all = Rect::new(0, 0, model.size.0, model.size.1);
        paint.text(all, 0, &format!("at least {} x {} please; q quits", LEAST.0, LEAST.1), Style::new());
        return;
    }
    let layout = layout::of(model);
    head(model, &layout, &mut paint);
    tabs(model, &layout, &mut paint);
    match model.tab {
        Tab::Sweeps => sweeps(model, &layout, &mut paint),
        Tab::Trials => trials(model, &layout, &mut paint),
        Tab::Workers => listed_workers(model, &layout, &mut paint),
        Tab::Events => events(
            &model.events_listed(),
            layout.list,
            Some(model.cursors[3].at),
            model.cursors[3].top,
            &mut paint,
        ),
    }
    foot(model, &layout, &mut paint);
    match &model.prompt {
        Some(Prompt::Help) => help(model, &mut paint),
        Some(Prompt::Confirm { change, target }) => confirm(model, *change, target, &mut paint),
        Some(Prompt::Search(_)) | None => {}
    }
}

fn head(model: &Model, layout: &Layout, paint: &mut Painter<'_>) {
    let (link, link_style) = match &model.link {
        Link::Up => ("connected".to_owned(), Style::new().fg(Color::Green)),
        Link::Away { since_us, .. } => {
            let since = seconds(model.now_us, *since_us);
            (format!("no answer for {}, trying again", text::duration(since)), bold().fg(Color::Red))
        }
    };
    let left = usize::from(layout.head.width).saturating_sub(link.width() + 1);
    let name = format!("spotsweep top  {}", cut(&text::harmless(&model.place), left.saturating_sub(16)));
    paint.text(layout.head, 0, &name, bold());
    let at = u16::try_from(left + 1).unwrap_or(u16::MAX).min(layout.head.width);
    let right = Rect { x: layout.head.x + at, width: layout.head.width - at, ..layout.head };
    paint.text(right, 0, &link, link_style);
}

fn tabs(model: &Model, layout: &Layout, paint: &mut Painter<'_>) {
    let mut pieces = Vec::new();
    for (digit, tab) in (1..).zip(Tab::ALL) {
        let words = match tab {
            Tab::Sweeps => format!("sweeps {}", model.sweeps.len()),
            Tab::Trials => match &model.sweep {
                Some(sweep) => format!("trials of {}", cut(sweep, 24)),
                None => "trials".to_owned(),
            },
            Tab::Workers => format!("workers {}", model.workers.len()),
            Tab::Events => format!("events {}", model.events.len()),
        };
        let style = if tab == model.tab { bold().add_modifier(Modifier::REVERSED) } else { dim() };
        pieces.push((format!(" {digit} {words} "), style));
        pieces.push((" ".to_owned(), Style::new()));
    }
    paint.pieces(layout.tabs, 0, &pieces);
}

fn foot(model: &Model, layout: &Layout, paint: &mut Painter<'_>) {
    let area = layout.foot;
    if let Some(Prompt::Search(words)) = &model.prompt {
        // Its end is what is being written.
        let room = usize::from(area.width).saturating_sub(4);
        let start = words.chars().count().saturating_sub(room);
        let end: String = words.chars().skip(start).collect();
        paint.text(area, 0, &format!("/{end}\u{2588}"), bold());
        return;
    }
    if let Some((words, bad)) = &model.said {
        let style = if *bad { bold().fg(Color::Red) } else { bold() };
        paint.text(area, 0, words, style);
        return;
    }
    let index = model.tab_index();
    let mut pieces = Vec::new();
    if !model.searches[index].is_empty() && !model.open {
        pieces.push((
            format!("/{} ", cut(&text::harmless(&model.searches[index]), 30)),
            bold().fg(Color::Yellow),
        ));
    }
    let keys = sort_keys(model);
    let hints: &[(&str, &str)] = match (model.tab, model.open) {
        (Tab::Trials, true) => {
            &[("esc", "back"), ("m", "metric"), ("p", "pause"), ("r", "resume"), ("c", "cancel")]
        }
        (Tab::Sweeps | Tab::Trials, _) => &[
            ("enter", "open"),
            ("/", "filter"),
            ("s", &keys),
            ("p", "pause"),
            ("r", "resume"),
            ("c", "cancel"),
        ],
        (Tab::Workers | Tab::Events, _) => &[("enter", "trial"), ("/", "filter"), ("s", &keys)],
    };
    // The way out first: a narrow terminal cuts off what comes last.
    for (key, what) in [("?", "help"), ("q", "quit")].iter().chain(hints) {
        pieces.push(((*key).to_owned(), bold()));
        pieces.push((format!(" {what}  "), dim()));
    }
    paint.pieces(area, 0, &pieces);
}

/// `by best`: what it is sorted by now.
fn sort_keys(model: &Model) -> String {
    let index = model.tab_index();
    let keys = model.sort_keys();
    let key = keys.get(model.sorts[index]).map_or("", String::as_str);
    let turned = if model.turned[index] { "-" } else { "" };
    format!("by {turned}{}", cut(&text::harmless(key), 20))
}

fn sweeps(model: &Model, layout: &Layout, paint: &mut Painter<'_>) {
    let listed = model.sweeps_listed();
    let cursor = model.cursors[0];
    if listed.is_empty() {
        let words = if model.sweeps.is_empty() {
            "no sweeps yet; hand one in with `spotsweep submit FILE`"
        } else {
            "no sweep has this in its name or state; esc shows all"
        };
        paint.text(layout.list, 1, words, dim());
    } else {
        let seen: Vec<SweepSummary> =
            listed.into_iter().skip(cursor.top).take(layout::rows(model)).cloned().collect();
        paint.table(layout.list, &ls::table(&seen), Some(cursor.at - cursor.top));
    }
    if layout.events.height > 1 {
        paint.text(layout.events, 0, "events", bold());
        let area = Rect { y: layout.events.y + 1, height: layout.events.height - 1, ..layout.events };
        let newest: Vec<&Happened> = model.events.iter().rev().collect();
        events(&newest, area, None, 0, paint);
    }
}

fn trials(model: &Model, layout: &Layout, paint: &mut Painter<'_>) {
    if model.open {
        whole_trial(model, layout.trial, paint);
        return;
    }
    let cursor = model.cursors[1];
    match (&model.page, model.summary()) {
        (_, None) => {
            paint.text(layout.list, 1, "no sweep is chosen: esc, then enter on one", dim());
        }
        (None, Some(_)) => {
            paint.text(layout.list, 1, "asking …", dim());
        }
        (Some((_, page)), Some(_)) if page.total == 0 => {
            paint.text(layout.list, 1, "no trial is like this; esc shows all", dim());
        }
        (Some((_, page)), Some(summary)) => {
            let rows = cursor.top..cursor.top + layout::rows(model);
            // Rows that are on their way are empty.
            let known: Vec<Trial> = rows.filter_map(|at| model.trial_at(at)).cloned().collect();
            let table = results::table_of(&known, &page.varying, summary, None);
            paint.table(layout.list, &table, Some(cursor.at - cursor.top));
        }
    }
    if layout.trial.width > 0 {
        whole_trial(model, layout.trial, paint);
    } else if layout.curve.height > 0 {
        let matching = model.chosen_trial().map(|one| &one.trial);
        let shown = model.shown.as_ref().filter(|shown| Some(&shown.trial.trial) == matching);
        if let Some(shown) = shown {
            curve(model, &shown.trial.trial, layout.curve, paint);
        }
    }
}

/// The curve with its caption.
fn curve(model: &Model, name: &str, area: Rect, paint: &mut Painter<'_>) {
    let Some(curve) = model.curve() else {
        paint.text(area, 0, &format!("{name}  nothing reported yet"), dim());
        return;
    };
    paint.pieces(area, 0, &[(format!("{name}  "), bold()), (curve.caption(), Style::new())]);
    let lines = plot::lines(curve, area.width.into(), usize::from(area.height.saturating_sub(1)));
    for (line, words) in lines.iter().enumerate() {
        paint.text(area, line + 1, words, Style::new().fg(Color::Cyan));
    }
}

/// Everything about the trial that is looked at.
fn whole_trial(model: &Model, area: Rect, paint: &mut Painter<'_>) {
    let Some(shown) = &model.shown else { return };
    let one = &shown.trial;
    let mut line = 0;
    let mut fact = |name: &str, value: &str, style: Style, paint: &mut Painter<'_>| {
        if !value.is_empty() {
            paint.pieces(area, line, &[(format!("{name:<NAMES$}"), bold()), (value.to_owned(), style)]);
            line += 1;
        }
    };
    let plain = Style::new();
    fact("trial", &one.trial, bold(), paint);
    fact("state", &one.state, style(trial::state_style(&one.state)), paint);
    fact("failure", &on_one_line(&one.failure), Style::new().fg(Color::Red), paint);
    let attempts = match one.failures {
        0 => text::count(one.attempts.into(), "attempt"),
        failures => format!("{}, {failures} failed", text::count(one.attempts.into(), "attempt")),
    };
    fact(
        "progress",
        &format!("step {}  {attempts}  {}", trial::steps(one), text::duration(one.seconds)),
        plain,
        paint,
    );
    fact("worker", format!("{} {}", one.worker, one.device).trim(), plain, paint);
    fact("best", &one.best.map(text::metric).unwrap_or_default(), plain, paint);
    let params = trial::params(one);
    for (index, words) in
        wrapped(&trial::params_line(&params, |_| true), usize::from(area.width).saturating_sub(NAMES), 3)
            .iter()
            .enumerate()
    {
        fact(if index == 0 { "parameters" } else { "" }, words, plain, paint);
    }
    for (index, words) in shown.why.iter().take(WHY).enumerate() {
        fact(if index == 0 { "why" } else { "" }, words, dim(), paint);
    }
    let height = usize::from(area.height);
    if height > line + CURVE {
        let at = u16::try_from(line + 1).unwrap_or(u16::MAX);
        curve(model, "curve", Rect { y: area.y + at, height: area.height - at, ..area }, paint);
    }
}

/// `words` broken at spaces into at most `most` lines of `width`.
fn wrapped(words: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let full = lines.len() == most;
        match lines.last_mut() {
            Some(last) if last.width() + 1 + word.width() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            // The rest is cut off where it is drawn.
            Some(last) if full => {
                last.push_str(" …");
                break;
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn listed_workers(model: &Model, layout: &Layout, paint: &mut Painter<'_>) {
    let listed = model.workers_listed();
    let cursor = model.cursors[2];
    if listed.is_empty() {
        let words = "no workers; one joins with `spotsweep-worker --coordinator URL`";
        paint.text(layout.list, 1, words, dim());
        return;
    }
    let seen: Vec<_> = listed.into_iter().skip(cursor.top).take(layout::rows(model)).cloned().collect();
    paint.table(layout.list, &workers::table(&seen, model.now_us), Some(cursor.at - cursor.top));
}

fn events(listed: &[&Happened], area: Rect, chosen: Option<usize>, top: usize, paint: &mut Painter<'_>) {
    if listed.is_empty() {
        paint.text(area, 1, "nothing has happened since this view began", dim());
        return;
    }
    let mut table = Table::new(vec![
        Column::new("time (UTC)", Align::Left, Keep::Always),
        Column::new("trial", Align::Left, Keep::Cut(12)),
        Column::new("what", Align::Left, Keep::Cut(16)),
    ]);
    for one in listed.iter().skip(top).take(area.height.into()) {
        let time = text::utc(one.at_us);
        let clock = time.get(11..19).unwrap_or_default().to_owned();
        let few: String = one.text.chars().take(4 * usize::from(area.width)).collect();
        table.row(vec![clock.into(), one.about.as_str().into(), few.into()]);
    }
    paint.table(area, &table, chosen.map(|at| at - top));
}

/// An empty box in the middle; gives its inside.
fn boxed(model: &Model, width: usize, height: usize, paint: &mut Painter<'_>) -> Rect {
    let fit = |wanted: usize, all: u16| u16::try_from(wanted).unwrap_or(u16::MAX).min(all);
    let (width, height) = (fit(width + 4, model.size.0), fit(height + 2, model.size.1));
    let area = Rect::new((model.size.0 - width) / 2, (model.size.1 - height) / 2, width, height);
    paint.clear(area);
    let across = "─".repeat(usize::from(width).saturating_sub(2));
    for line in 0..usize::from(height) {
        let words = if line == 0 {
            format!("┌{across}┐")
        } else if line + 1 == usize::from(height) {
            format!("└{across}┘")
        } else {
            format!("│{}│", " ".repeat(usize::from(width).saturating_sub(2)))
        };
        paint.text(area, line, &words, bold());
    }
    Rect { x: area.x + 2, y: area.y + 1, width: width.saturating_sub(4), height: height.saturating_sub(2) }
}

fn help(model: &Model, paint: &mut Painter<'_>) {
    let inside = boxed(model, 72, keys::HELP.len() + 2, paint);
    for (line, (key, what)) in keys::HELP.iter().enumerate() {
        paint.pieces(inside, line, &[(format!("{key:<20}"), bold()), ((*what).to_owned(), Style::new())]);
    }
    paint.text(inside, keys::HELP.len() + 1, "any key closes this", dim());
}

fn confirm(model: &Model, change: Change, target: &str, paint: &mut Painter<'_>) {
    let question = match change {
        Change::Pause => format!("pause {target}? It stops with a checkpoint."),
        Change::Resume => format!("resume {target}?"),
        Change::Cancel => format!("cancel {target} for good?"),
    };
    let inside = boxed(
        model,
        question.width().clamp(30, usize::from(model.size.0).saturating_sub(6).max(30)),
        3,
        paint,
    );
    paint.text(inside, 0, &question, bold());
    paint.text(inside, 2, "y: yes   any other key: no", Style::new());
}

#[expect(clippy::cast_precision_loss, reason = "shown in two units")]
fn seconds(now_us: u64, since_us: u64) -> f64 {
    now_us.saturating_sub(since_us) as f64 / 1e6
}
