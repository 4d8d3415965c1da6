//! Drawings as SVG inside a page: lines over two axes. Colours and fonts come from the page.

use super::{Line, number};
use std::fmt::Write as _;

/// Units of the drawing; the page scales it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Room for the axes' numbers.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 28.0;
const EDGE: f64 = 12.0;

/// A line with its name.
pub(super) struct Named<'a> {
    /// What the legend calls it, harmless and escaped already.
    pub(super) name: String,
    /// Its points.
    pub(super) line: &'a Line,
    /// Whether values hold until the next one.
    pub(super) steps: bool,
}

/// Lines over common axes; nothing where there is nothing to draw. `label` says what it shows to who cannot see it.
pub(super) fn lines(label: &str, x_name: &str, all: &[Named<'_>]) -> String {
    let points = || all.iter().flat_map(|one| one.line.points());
    let Some((first_x, first_y)) = points().next() else { return String::new() };
    let bounds = points().fold((first_x, first_x, first_y, first_y), |(a, b, c, d), (x, y)| {
        (a.min(x), b.max(x), c.min(y), d.max(y))
    });
    let (x_low, x_high, y_low, y_high) = bounds;
    // Halved first: the distance of two doubles may be more than a double holds.
    let share = |value: f64, low: f64, high: f64| {
        let span = high / 2.0 - low / 2.0;
        if span > 0.0 { (value / 2.0 - low / 2.0) / span } else { 0.5 }
    };
    let x_of = |x: f64| LEFT + share(x, x_low, x_high) * (WIDTH - LEFT - EDGE);
    let y_of = |y: f64| HEIGHT - BOTTOM - share(y, y_low, y_high) * (HEIGHT - BOTTOM - EDGE);
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - EDGE);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n");
    let middle = y_low / 2.0 + y_high / 2.0;
    let ticks = if y_high > y_low { vec![y_low, middle, y_high] } else { vec![y_low] };
    for tick in ticks {
        let y = y_of(tick);
        let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
        let (x, y, text) = (LEFT - 6.0, y + 4.0, short(tick));
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>");
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {EDGE}V{bottom}H{right}\"/>");
    let y = HEIGHT - 8.0;
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{y}\">{}</text>", short(x_low));
    let _ = writeln!(svg, "<text x=\"{right}\" y=\"{y}\" text-anchor=\"end\">{}</text>", short(x_high));
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{y}\" text-anchor=\"middle\">{x_name}</text>",
        (LEFT + right) / 2.0
    );
    for (index, one) in all.iter().enumerate() {
        let mut path = String::new();
        let mut last = None;
        for (x, y) in one.line.points() {
            let (x, y) = (x_of(x), y_of(y));
            let _ = match last {
                None => write!(path, "M{x:.1} {y:.1}"),
                Some(_) if one.steps => write!(path, "H{x:.1}V{y:.1}"),
                Some(_) => write!(path, "L{x:.1} {y:.1}"),
            };
            last = Some((x, y));
        }
        let _ =
            writeln!(svg, "<path class=\"line c{index}\" d=\"{path}\"><title>{}</title></path>", one.name);
        if let Some((x, y)) = last {
            let _ = writeln!(svg, "<circle class=\"dot c{index}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
    }
    svg + "</svg>\n"
}

/// A number beside an axis: four digits that matter.
fn short(x: f64) -> String {
    number(format!("{x:.3e}").parse().unwrap_or(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_one_point_and_the_largest_numbers_can_be_drawn() {
        let mut line = Line::default();
        let drawn = |line: &Line| lines("x", "step", &[Named { name: "a".to_owned(), line, steps: false }]);
        assert_eq!(drawn(&line), "");
        line.push(0.0, f64::MAX);
        assert!(drawn(&line).contains("<circle"));
        line.push(1.0, -f64::MAX);
        line.push(2.0, 0.0);
        let svg = drawn(&line);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
