//! The table of figures, on stdout and as JSON.

use serde_json::{Value, json};
use std::path::Path;

/// One line of the table.
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
}

/// What the figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// All of them, in the order of measuring.
#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

/// The middle one; NaN of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Figures {
    /// Adds one, and says it at once.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    ) {
        let figure = Figure { what: what.into(), value, unit, target };
        eprintln!("{}", line(&figure));
        self.0.push(figure);
    }

    /// The table.
    pub(crate) fn print(&self) {
        for figure in &self.0 {
            println!("{}", line(figure));
        }
    }

    /// The table as a JSON array, with what is known of the machine.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let rows: Vec<Value> = self.0.iter().map(row).collect();
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .unwrap_or_default()
            .1;
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let document = json!({"machine": {"cpu": model, "cores": cores}, "figures": rows});
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, format!("{document:#}\n"))?;
        Ok(())
    }
}

fn row(figure: &Figure) -> Value {
    let (at_least, at_most) = match figure.target {
        Some(Target::AtLeast(value)) => (Some(value), None),
        Some(Target::AtMost(value)) => (None, Some(value)),
        None => (None, None),
    };
    json!({"what": figure.what, "value": figure.value, "unit": figure.unit, "at_least": at_least, "at_most": at_most})
}

fn line(figure: &Figure) -> String {
    let number = match figure.value {
        value if value.abs() >= 1000.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    };
    let target = match figure.target {
        Some(Target::AtLeast(target)) => format!("  (wanted: at least {target})"),
        Some(Target::AtMost(target)) => format!("  (wanted: at most {target})"),
        None => String::new(),
    };
    format!("{:<58} {number:>10} {}{target}", figure.what, figure.unit)
}
