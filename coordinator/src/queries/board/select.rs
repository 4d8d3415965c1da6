//! Which rows, in which order: filters and sort keys as they are written in a URL. Pure.

use super::{Board, Cell, Field, Row};
use crate::error::{Code, Problem};
use std::{cmp::Ordering, sync::Arc};

/// Most conditions of one filter.
const CONDITIONS: usize = 16;
/// Longest filter, in bytes.
const FILTER_BYTES: usize = 4 << 10;

/// What is asked for of a board.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    conditions: Vec<Condition>,
    /// In lower case.
    search: String,
    sort: Option<(Field, Direction)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

#[derive(Debug, Clone)]
struct Condition {
    field: Field,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    /// One of these, as text or as the same number.
    OneOf(Vec<String>),
    NoneOf(Vec<String>),
    /// The text occurs in it.
    Contains(String),
    Compare(Comparison, f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Operators as they are written; longer ones first.
const OPERATORS: [&str; 7] = ["<=", ">=", "!=", "=", "<", ">", "~"];

impl Selection {
    /// Reads `filter` (`state=running|failed;learning_rate>=0.01;model~cnn`) and `sort` (`val_loss`, `-seconds`).
    /// Without `sort` those come first that reached the best value of the objective, whenever that was, or the order is that of the sweep.
    ///
    /// # Errors
    /// [`Code::BadRequest`]: a field that the sweep has not, a condition that is none, or too many.
    pub fn parse(board: &Board, filter: &str, sort: &str) -> Result<Self, Problem> {
        if filter.len() > FILTER_BYTES {
            return Err(bad(format!("a filter has at most {FILTER_BYTES} bytes")));
        }
        let written: Vec<&str> =
            filter.split(';').map(str::trim).filter(|condition| !condition.is_empty()).collect();
        if written.len() > CONDITIONS {
            return Err(bad(format!("a filter has at most {CONDITIONS} conditions")));
        }
        let conditions = written.into_iter().map(|text| condition(board, text)).collect::<Result<_, _>>()?;
        let sort = match sort {
            "" => board.objective().map(|objective| {
                let direction = match objective.goal {
                    spotsweep_proto::metric::Goal::Minimize => Direction::Ascending,
                    spotsweep_proto::metric::Goal::Maximize => Direction::Descending,
                };
                (Field::Best, direction)
            }),
            key => Some(match key.strip_prefix('-') {
                Some(name) => (board.field(name)?, Direction::Descending),
                None => (board.field(key)?, Direction::Ascending),
            }),
        };
        Ok(Self { conditions, search: String::new(), sort })
    }

    /// The same with only those rows that hold `text`, in whatever case, in their number, state, worker, device or a
    /// parameter.
    ///
    /// # Errors
    /// [`Code::BadRequest`]: it is too long.
    pub fn with_search(self, text: &str) -> Result<Self, Problem> {
        if text.len() > FILTER_BYTES {
            return Err(bad(format!("a search has at most {FILTER_BYTES} bytes")));
        }
        Ok(Self { search: text.to_lowercase(), ..self })
    }

    fn finds(&self, row: &Row) -> bool {
        let holds = |text: &str| text.to_lowercase().contains(&self.search);
        self.search.is_empty()
            || row.number.to_string().contains(&self.search)
            || row.brief.state.as_str().contains(&self.search)
            || row.worker().is_some_and(holds)
            || row.device().is_some_and(holds)
            || row.params.0.iter().any(|(_, value)| holds(&Cell::from(value).text()))
    }

    /// The rows that it lets through, in order. Rows without a value of the sort key come last, in order of numbers.
    #[must_use]
    pub fn apply(&self, board: &Board) -> Vec<Arc<Row>> {
        let passes =
            |row: &&Arc<Row>| self.conditions.iter().all(|condition| condition.holds(row)) && self.finds(row);
        let rows = board.rows().iter().filter(passes).cloned();
        let Some((field, direction)) = &self.sort else { return rows.collect() };
        // Keys once a row, not once a comparison.
        let mut keyed: Vec<(Cell, Arc<Row>)> = rows.map(|row| (field.of(&row), row)).collect();
        keyed.sort_by(|(a, left), (b, right)| {
            let order = match (a.is_missing(), b.is_missing()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => match direction {
                    Direction::Ascending => a.order(b),
                    Direction::Descending => b.order(a),
                },
            };
            order.then(left.number.cmp(&right.number))
        });
        keyed.into_iter().map(|(_, row)| row).collect()
    }
}

fn bad(message: String) -> Problem {
    Problem::new(Code::BadRequest, message)
        .hint("a filter is written like state=running|failed;learning_rate>=0.01;model~cnn")
}

fn condition(board: &Board, text: &str) -> Result<Condition, Problem> {
    let operator = text
        .char_indices()
        .find_map(|(at, _)| OPERATORS.iter().find(|op| text[at..].starts_with(**op)).map(|op| (at, *op)));
    let Some((at, operator)) = operator else {
        return Err(bad(format!("{text:?} is no condition: it has none of {}", OPERATORS.join(" "))));
    };
    let field = board.field(text[..at].trim())?;
    let value = text[at + operator.len()..].trim();
    let choices = || value.split('|').map(|choice| choice.trim().to_owned()).collect();
    let compare = |comparison| match value.parse::<f64>() {
        Ok(number) if !number.is_nan() => Ok(Test::Compare(comparison, number)),
        Ok(_) | Err(_) => Err(bad(format!("{value:?} is no number to compare with"))),
    };
    let test = match operator {
        "<=" => compare(Comparison::LessOrEqual)?,
        ">=" => compare(Comparison::GreaterOrEqual)?,
        "<" => compare(Comparison::Less)?,
        ">" => compare(Comparison::Greater)?,
        "!=" => Test::NoneOf(choices()),
        "~" => Test::Contains(value.to_lowercase()),
        _ => Test::OneOf(choices()),
    };
    Ok(Condition { field, test })
}

impl Condition {
    fn holds(&self, row: &Row) -> bool {
        let cell = self.field.of(row);
        match &self.test {
            Test::OneOf(choices) => choices.iter().any(|choice| is(&cell, choice)),
            Test::NoneOf(choices) => !choices.iter().any(|choice| is(&cell, choice)),
            Test::Contains(part) => cell.text().to_lowercase().contains(part),
            Test::Compare(comparison, limit) => cell.as_f64().is_some_and(|value| match comparison {
                Comparison::Less => value < *limit,
                Comparison::LessOrEqual => value <= *limit,
                Comparison::Greater => value > *limit,
                Comparison::GreaterOrEqual => value >= *limit,
            }),
        }
    }
}

/// Whether a cell is what `text` says: the same number, however written, or the same text.
fn is(cell: &Cell, text: &str) -> bool {
    match (cell.as_f64(), text.parse::<f64>()) {
        (Some(value), Ok(wanted)) => value.total_cmp(&wanted) == Ordering::Equal,
        (Some(_), Err(_)) | (None, Ok(_) | Err(_)) => cell.text() == text,
    }
}
