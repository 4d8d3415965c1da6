//! Tables for terminals: aligned columns without borders, made to fit the width.
//!
//! Pure. Knows columns and cells, not what they mean; must not print.

use super::text::harmless;
use anstyle::Style;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Spaces between two columns.
const GAP: usize = 2;

/// On which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// What may happen to a column when the terminal is too narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It stays as it is.
    Always,
    /// Its cells may be cut, to this width or that of the title.
    Cut(usize),
    /// It may be left out; the highest number goes first.
    Optional(u16),
}

/// One column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    title: String,
    align: Align,
    keep: Keep,
}

impl Column {
    /// A column called `title`.
    #[must_use]
    pub(crate) fn new(title: &str, align: Align, keep: Keep) -> Self {
        Self { title: harmless(title).into_owned(), align, keep }
    }
}

/// One cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a colour.
    #[must_use]
    pub(crate) fn styled(text: &str, style: Style) -> Self {
        Self { text: harmless(text).into_owned(), style }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::styled(text, Style::new())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// A part of a line, in one colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its text, harmless.
    pub(crate) text: String,
    /// Its colour.
    pub(crate) style: Style,
}

/// Columns and rows; each row has one cell a column.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A table as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// Lines, with escape codes for colours.
    pub(crate) text: String,
    /// Titles of the columns that did not fit.
    pub(crate) left_out: Vec<String>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, superfluous ones are dropped.
    pub(crate) fn row(&mut self, mut cells: Vec<Cell>) {
        cells.resize_with(self.columns.len(), Cell::default);
        self.rows.push(cells);
    }

    /// Makes it fit `width` columns of a terminal: optional columns are left out, then text is cut. `None` is as
    /// wide as it needs, for files and pipes.
    #[must_use]
    pub(crate) fn render(&self, width: Option<usize>) -> Rendered {
        let (shown, widths) = self.fit(&self.natural(), width.unwrap_or(usize::MAX));
        let mut text = String::new();
        for row in self.titles().iter().chain(&self.rows) {
            let start = text.len();
            for piece in self.line(row, &shown, &widths) {
                text.push_str(&if piece.style.is_plain() || piece.text.trim().is_empty() {
                    piece.text
                } else {
                    format!("{}{}{:#}", piece.style, piece.text, piece.style)
                });
            }
            let end = text[start..].trim_end_matches(' ').len();
            text.truncate(start + end);
            text.push('\n');
        }
        let left_out = self.columns.iter().zip(&shown).filter(|(_, shown)| !**shown);
        Rendered { text, left_out: left_out.map(|(column, _)| column.title.clone()).collect() }
    }

    /// The lines of [`Self::render`], the titles first, as pieces in their colours: for who draws them elsewhere.
    #[must_use]
    pub(crate) fn pieces(&self, width: usize) -> Vec<Vec<Piece>> {
        let (shown, widths) = self.fit(&self.natural(), width);
        self.titles().iter().chain(&self.rows).map(|row| self.line(row, &shown, &widths)).collect()
    }

    fn titles(&self) -> [Vec<Cell>; 1] {
        let head = Style::new().bold();
        [self.columns.iter().map(|column| Cell { text: column.title.clone(), style: head }).collect()]
    }

    /// How wide each column would like to be.
    fn natural(&self) -> Vec<usize> {
        let widest = |(index, column): (usize, &Column)| {
            self.rows.iter().map(|row| row[index].text.width()).fold(column.title.width(), usize::max)
        };
        self.columns.iter().enumerate().map(widest).collect()
    }

    /// Which columns are shown, and how wide each is.
    fn fit(&self, natural: &[usize], width: usize) -> (Vec<bool>, Vec<usize>) {
        let mut shown = vec![true; natural.len()];
        let mut widths = natural.to_vec();
        let least = |index: usize| match self.columns[index].keep {
            Keep::Cut(to) => natural[index].min(to.max(self.columns[index].title.width())),
            Keep::Always | Keep::Optional(_) => natural[index],
        };
        let total = |shown: &[bool], width_of: &dyn Fn(usize) -> usize| {
            let columns: Vec<usize> = (0..shown.len()).filter(|index| shown[*index]).map(width_of).collect();
            columns.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1)
        };
        while total(&shown, &least) > width {
            let optional = (0..shown.len()).filter(|index| shown[*index]).filter_map(|index| {
                match self.columns[index].keep {
                    Keep::Optional(rank) => Some((rank, index)),
                    Keep::Always | Keep::Cut(_) => None,
                }
            });
            let Some((_, index)) = optional.max() else { break };
            shown[index] = false;
        }
        // The widest column that may be cut gives way, one place at a time.
        while total(&shown, &|index| widths[index]) > width {
            let widest = (0..shown.len())
                .filter(|index| shown[*index] && widths[*index] > least(*index))
                .max_by_key(|index| widths[*index]);
            let Some(index) = widest else { break };
            widths[index] -= 1;
        }
        (shown, widths)
    }

    fn line(&self, row: &[Cell], shown: &[bool], widths: &[usize]) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(2 * row.len());
        let plain = |count: usize| Piece { text: " ".repeat(count), style: Style::new() };
        for (index, cell) in row.iter().enumerate().filter(|(index, _)| shown[*index]) {
            let text = cut(&cell.text, widths[index]).into_owned();
            let free = widths[index].saturating_sub(text.width());
            let (before, after) = match self.columns[index].align {
                Align::Left => (0, free),
                Align::Right => (free, 0),
            };
            pieces.push(plain(before));
            pieces.push(Piece { text, style: cell.style });
            pieces.push(plain(after + GAP));
        }
        pieces
    }
}

/// `text` in at most `width` columns, with an ellipsis where something is missing.
#[must_use]
pub(crate) fn cut(text: &str, width: usize) -> std::borrow::Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let mut used = 0;
    let mut short = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used >= width {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![
            Column::new("#", Align::Right, Keep::Always),
            Column::new("model", Align::Left, Keep::Cut(8)),
            Column::new("val_accuracy", Align::Right, Keep::Always),
            Column::new("seconds", Align::Right, Keep::Optional(1)),
            Column::new("device", Align::Left, Keep::Optional(2)),
        ]);
        table.row(vec!["0".into(), "cnn".into(), "0.9123".into(), "12.1".into(), "cpu".into()]);
        table.row(vec!["10".into(), "a-very-long-model-name".into(), Cell::default(), "1.0".into()]);
        table.row(vec!["2".into(), "\u{1b}[31mred".into(), "NaN".into(), "1.0".into(), "漢字".into()]);
        table
    }

    fn plain(rendered: &Rendered) -> String {
        anstream::adapter::strip_str(&rendered.text).to_string()
    }

    #[test]
    fn a_pipe_gets_every_column_whole() {
        let rendered = table().render(None);
        insta::assert_snapshot!(plain(&rendered));
        assert!(rendered.left_out.is_empty());
    }

    #[test]
    fn a_narrow_terminal_loses_optional_columns_first_and_then_letters() {
        for width in 0..80 {
            let rendered = table().render(Some(width));
            let widest = plain(&rendered).lines().map(unicode_width::UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= width.max(28), "{width}: {widest}");
            assert!(plain(&rendered).lines().all(|line| !line.ends_with(' ')));
        }
        let rendered = table().render(Some(40));
        insta::assert_snapshot!(plain(&rendered));
        assert_eq!(rendered.left_out, ["device"]);
    }

    #[test]
    fn an_empty_table_is_its_head() {
        let table = Table::new(vec![Column::new("sweep", Align::Left, Keep::Always)]);
        assert_eq!(plain(&table.render(Some(80))), "sweep\n");
    }
}
