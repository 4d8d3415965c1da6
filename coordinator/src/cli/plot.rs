//! Curves as dots of braille patterns, with their axes: what `metrics` and `top` draw.
//!
//! Pure. A cell of the terminal holds two by four dots (Unicode, "Braille Patterns", U+2800 to U+28FF). Must not print.

use super::{table::cut, text};
use spotsweep_wire::v1::Point;
use unicode_width::UnicodeWidthStr as _;

/// Dots of a cell, across and down.
const DOTS: (usize, usize) = (2, 4);
/// The pattern without dots.
const BLANK: u32 = 0x2800;
/// The bit of each dot, by row and column.
const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
/// The narrowest and lowest picture that says anything.
const LEAST: (usize, usize) = (8, 2);

/// One metric of a trial over its steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Curve {
    /// The metric.
    pub(crate) metric: String,
    /// Step and value, by ascending step; values are finite.
    pub(crate) points: Vec<(u64, f64)>,
    /// Values that were not finite and cannot be drawn.
    pub(crate) not_finite: u64,
}

impl Curve {
    /// One without points.
    #[must_use]
    pub(crate) fn of(metric: &str) -> Self {
        Self { metric: metric.to_owned(), ..Self::default() }
    }

    /// Adds a value of a later step.
    pub(crate) fn push(&mut self, step: u64, value: f64) {
        if value.is_finite() {
            self.points.push((step, value));
        } else {
            self.not_finite += 1;
        }
    }

    /// What the curve says in a line: its last value and its range.
    #[must_use]
    pub(crate) fn caption(&self) -> String {
        let name = text::harmless(&self.metric);
        let lost = match self.not_finite {
            0 => String::new(),
            count => format!("  {} not finite", text::count(count, "value")),
        };
        let Some((low, high)) = self.range() else { return format!("{name}{lost}") };
        let last = self.points.last().map(|(_, value)| text::metric(*value)).unwrap_or_default();
        format!("{name}  {last}  ({} to {}){lost}", text::metric(low), text::metric(high))
    }

    /// Least and greatest value.
    #[must_use]
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let (_, first) = *self.points.first()?;
        Some(self.points.iter().fold((first, first), |(low, high), (_, y)| (low.min(*y), high.max(*y))))
    }
}

/// The curves of all metrics of a trial, in the order in which it reported them.
#[must_use]
pub(crate) fn curves(points: &[Point]) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    points.iter().for_each(|point| extend(&mut curves, point));
    curves
}

/// Adds a later point to the curves of its trial.
pub(crate) fn extend(curves: &mut Vec<Curve>, point: &Point) {
    for metric in &point.metrics {
        let at = curves.iter().position(|curve| curve.metric == metric.name).unwrap_or_else(|| {
            curves.push(Curve::of(&metric.name));
            curves.len() - 1
        });
        curves[at].push(point.step, metric.value);
    }
}

/// The curve in `width` columns and at most `height` lines, the last of which names the steps; nothing where there is
/// no room or fewer than two points.
#[must_use]
pub(crate) fn lines(curve: &Curve, width: usize, height: usize) -> Vec<String> {
    // One value is said by the caption.
    let Some((low, high)) = curve.range().filter(|_| curve.points.len() > 1) else { return Vec::new() };
    let labels = (text::metric(high), text::metric(low));
    let margin = labels.0.width().max(labels.1.width());
    let (columns, rows) = (width.saturating_sub(margin + 1), height.saturating_sub(1));
    if columns < LEAST.0 || rows < LEAST.1 {
        return Vec::new();
    }
    let mut lines: Vec<String> = Vec::with_capacity(height);
    for (row, cells) in raster(&curve.points, (low, high), columns, rows).chunks(columns).enumerate() {
        let (label, axis) = match row {
            0 => (labels.0.as_str(), '┤'),
            row if row + 1 == rows => (labels.1.as_str(), '┤'),
            _ => ("", '│'),
        };
        let cells: String = cells.iter().filter_map(|cell| char::from_u32(BLANK + cell)).collect();
        lines.push(format!("{label:>margin$}{axis}{cells}"));
    }
    let ends = (curve.points.first(), curve.points.last());
    if let (Some((first, _)), Some((last, _))) = ends {
        let (first, last) = (format!("step {first}"), last.to_string());
        // Where there is no room for both, the end says more.
        let first = if first.len() + last.len() < columns { first } else { String::new() };
        let room = columns.saturating_sub(first.len());
        lines.push(cut(&format!("{:margin$} {first}{last:>room$}", ""), width).into_owned());
    }
    lines
}

/// The bits of `columns` times `rows` cells, line by line.
fn raster(points: &[(u64, f64)], (low, high): (f64, f64), columns: usize, rows: usize) -> Vec<u32> {
    let mut cells = vec![0; columns * rows];
    let (wide, tall) = (columns * DOTS.0, rows * DOTS.1);
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return cells };
    // Halves, so that the difference of two finite numbers stays finite.
    let span = high / 2.0 - low / 2.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "shares of the dots there are; the cast saturates"
    )]
    let place = |(step, value): &(u64, f64)| {
        let across = step.saturating_sub(*first) as f64 / last.saturating_sub(*first).max(1) as f64;
        // A flat curve runs through the middle.
        let up = if span > 0.0 { (value / 2.0 - low / 2.0) / span } else { 0.5 };
        let x = (across * (wide - 1) as f64).round() as usize;
        let y = ((1.0 - up) * (tall - 1) as f64).round() as usize;
        (x.min(wide - 1), y.min(tall - 1))
    };
    let mut dot = |x: usize, y: usize| {
        cells[y / DOTS.1 * columns + x / DOTS.0] |= BITS[y % DOTS.1][x % DOTS.0];
    };
    let mut before: Option<(usize, usize)> = None;
    for point in points {
        let (x, y) = place(point);
        let (from_x, from_y) = before.unwrap_or((x, y));
        // One dot a column or a row, whichever way it is longer.
        let steps = from_x.abs_diff(x).max(from_y.abs_diff(y)).max(1);
        let between = |from: usize, to: usize, at: usize| {
            if to >= from { from + (to - from) * at / steps } else { from - (from - to) * at / steps }
        };
        for at in 0..=steps {
            dot(between(from_x, x, at), between(from_y, y, at));
        }
        before = Some((x, y));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decay() -> Curve {
        let mut curve = Curve::of("val_loss");
        for step in 1..=200_u32 {
            let x = f64::from(step) / 30.0;
            curve.push(step.into(), 2.3 * (-x).exp() + 0.1 * (x * 3.0).sin());
        }
        curve
    }

    #[test]
    fn a_curve_fills_the_width_with_its_range_and_steps_at_the_axes() {
        insta::assert_snapshot!(lines(&decay(), 60, 9).join("\n"));
        insta::assert_snapshot!(decay().caption());
    }

    #[test]
    fn one_value_has_no_picture_and_a_flat_curve_runs_through_the_middle() {
        let mut curve = Curve::of("x");
        curve.push(7, 1.0);
        assert_eq!(lines(&curve, 20, 4), Vec::<String>::new());
        curve.push(9, 1.0);
        let lines = lines(&curve, 20, 4);
        assert_eq!(lines[1], format!("      │{}", "⠤".repeat(13)));
        assert_eq!(lines[3], "       step 7      9");
    }

    #[test]
    fn what_is_not_finite_is_counted_and_a_hostile_name_is_harmless() {
        let mut curve = Curve::of("loss\u{1b}[2J\u{202e}");
        for (step, value) in [(1, 1.0), (2, f64::NAN), (3, f64::INFINITY), (4, 0.5)] {
            curve.push(step, value);
        }
        assert_eq!(
            curve.caption(),
            "loss\\u{1b}[2J\\u{202e}  0.5000  (0.5000 to 1.0000)  2 values not finite"
        );
    }

    proptest! {
        #[test]
        fn any_curve_fits_any_room(
            values in prop::collection::vec(any::<f64>(), 0..50), width in 0_usize..130, height in 0_usize..50,
        ) {
            let mut curve = Curve::of("m");
            for (step, value) in values.into_iter().enumerate() {
                curve.push(step as u64 * 1000, value);
            }
            let lines = lines(&curve, width, height);
            prop_assert!(lines.len() <= height);
            prop_assert!(lines.iter().all(|line| line.width() <= width), "{lines:?}");
        }
    }
}
