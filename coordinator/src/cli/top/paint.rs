//! Text on a buffer: cut to its place, harmless, with colours only where they are wanted.
//!
//! Must not know what the text is about.

use crate::cli::{
    table::{Table, cut},
    text,
};
use anstyle::{AnsiColor, Effects, Style as Ansi};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};
use unicode_width::UnicodeWidthStr as _;

/// A buffer, and whether colours are wanted.
pub(super) struct Painter<'a> {
    /// What is drawn on.
    pub(super) buffer: &'a mut Buffer,
    /// Whether colours are wanted.
    pub(super) colour: bool,
}

impl Painter<'_> {
    /// A line of `area`, cut to its width; gives the columns that it took.
    pub(super) fn text(&mut self, area: Rect, line: usize, words: &str, style: Style) -> usize {
        let Some(y) = u16::try_from(line).ok().filter(|line| *line < area.height) else { return 0 };
        let width = usize::from(area.width);
        // Long text is cut before it is looked at. Marks without a width pile up on one place: so many and no more.
        let few: String = words.chars().take(4 * width).collect();
        let shown = cut(&text::harmless(&few), width).into_owned();
        self.buffer.set_stringn(area.x, area.y + y, &shown, width, self.plain(style));
        shown.width()
    }

    /// Pieces one after the other.
    pub(super) fn pieces(&mut self, area: Rect, line: usize, pieces: &[(String, Style)]) {
        let mut rest = area;
        for (words, style) in pieces {
            let took = u16::try_from(self.text(rest, line, words, *style)).unwrap_or(u16::MAX);
            rest.x += took.min(rest.width);
            rest.width -= took.min(rest.width);
        }
    }

    /// The style without colours where none are wanted.
    fn plain(&self, style: Style) -> Style {
        if self.colour { style } else { Style { fg: None, bg: None, ..style } }
    }

    /// A table of which one line is chosen.
    pub(super) fn table(&mut self, area: Rect, table: &Table, chosen: Option<usize>) {
        for (line, pieces) in table.pieces(usize::from(area.width)).iter().enumerate() {
            let pieces: Vec<(String, Style)> =
                pieces.iter().map(|piece| (piece.text.clone(), style(piece.style))).collect();
            self.pieces(area, line, &pieces);
            if line > 0 && chosen == Some(line - 1) {
                self.reverse(area, line);
            }
        }
    }

    /// Takes away what is drawn there.
    pub(super) fn clear(&mut self, area: Rect) {
        for position in area.positions() {
            if let Some(cell) = self.buffer.cell_mut(position) {
                cell.reset();
            }
        }
    }

    fn reverse(&mut self, area: Rect, line: usize) {
        if let Some(y) = u16::try_from(line).ok().filter(|line| *line < area.height) {
            let row = Rect { y: area.y + y, height: 1, ..area };
            self.buffer.set_style(row, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
}

pub(super) const fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

pub(super) const fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// A style of the other commands, here.
pub(super) fn style(style: Ansi) -> Style {
    let mut here = Style::new();
    if let Some(anstyle::Color::Ansi(colour)) = style.get_fg_color() {
        here = here.fg(match colour {
            AnsiColor::Green => Color::Green,
            AnsiColor::Cyan => Color::Cyan,
            AnsiColor::Red => Color::Red,
            AnsiColor::Yellow => Color::Yellow,
            _ => Color::Reset,
        });
    }
    if style.get_effects().contains(Effects::BOLD) {
        here = here.add_modifier(Modifier::BOLD);
    }
    if style.get_effects().contains(Effects::DIMMED) {
        here = here.add_modifier(Modifier::DIM);
    }
    here
}
