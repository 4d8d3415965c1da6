//! Values as people read them: numbers, times, sizes, and text of strangers made harmless.
//!
//! Pure functions. Must not print.

use serde_json::Value;
use spotsweep_proto::{
    datasets::{DataRef, reference::DIGEST_PREFIX},
    ids::DataName,
};
use std::borrow::Cow;

/// Text that came from a file, a worker or a trainer, fit for a terminal: control characters, and the marks that
/// turn the direction of writing, are shown as escapes. Line breaks too, so that it stays one line.
#[must_use]
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// As [`harmless`], but of several lines, which stay lines.
#[must_use]
pub(crate) fn harmless_lines(text: &str) -> String {
    text.lines().map(harmless).collect::<Vec<_>>().join("\n")
}

fn is_harmful(c: char) -> bool {
    // Unicode's bidirectional controls, invisible joiners and line separators.
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A metric: four decimals where that says enough, else the exponent.
#[must_use]
pub(crate) fn metric(x: f64) -> String {
    let size = x.abs();
    if !x.is_finite() {
        not_finite(x).to_owned()
    } else if size == 0.0 || (1e-3..1e3).contains(&size) {
        format!("{x:.4}")
    } else if (1e3..1e7).contains(&size) {
        format!("{x:.1}")
    } else {
        format!("{x:.3e}")
    }
}

/// NaN and the infinities, as CSV readers know them.
#[must_use]
pub(crate) fn not_finite(x: f64) -> &'static str {
    if x.is_nan() {
        "NaN"
    } else if x > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

/// A parameter's value: bare text, numbers with at most six significant digits, lists as JSON.
#[must_use]
pub(crate) fn parameter(value: &Value) -> String {
    match value {
        Value::String(text) => harmless(named(text)).into_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() => float(x),
            Some(_) | None => number.to_string(),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            harmless(&value.to_string()).into_owned()
        }
    }
}

/// What is pinned to a content, data sets and modules, as people call it: without the digest.
fn named(text: &str) -> &str {
    match text.split_once('@').filter(|(_, pin)| pin.starts_with(DIGEST_PREFIX)) {
        Some((name, _)) => name,
        None => text,
    }
}

fn float(x: f64) -> String {
    let short = format!("{x:.5e}").parse::<f64>().unwrap_or(x);
    if short == 0.0 || (1e-4..1e7).contains(&short.abs()) { short.to_string() } else { format!("{short:e}") }
}

/// A length of time, in the two largest units: `3.2s`, `4m05s`, `2h07m`, `3d04h`.
#[must_use]
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 0, and it saturates"
    )]
    let whole = seconds.round() as u64;
    let (s, m, h, d) = (whole % 60, whole / 60 % 60, whole / 3600 % 24, whole / 86_400);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m{s:02}s"),
        (0, _, _) => format!("{h}h{m:02}m"),
        (_, _, _) => format!("{d}d{h:02}h"),
    }
}

/// A data set as people call it: an added one without its digest, if it has a name.
#[must_use]
pub(crate) fn data_set(name: &DataName) -> String {
    name.as_str().parse::<DataRef>().map_or_else(|_| name.to_string(), |added| added.short())
}

/// A size: `512 B`, `4.1 MiB`.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// `1 trial`, `2 trials`, `10,000 trials`.
#[must_use]
pub(crate) fn count(number: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// An integer with a comma before each three digits.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds since the Unix epoch as UTC: `2026-11-23T10:15:30Z`.
#[must_use]
pub(crate) fn utc(at_us: u64) -> String {
    let seconds = at_us / 1_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

/// Days since 1970-01-01 as a date of the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", civil_from_days, for days at or after the epoch).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Arguments as a shell would take them, each in quotes where it needs them.
#[must_use]
pub(crate) fn command(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    let quoted = |argument: &String| {
        if !argument.is_empty() && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    harmless(&arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        assert_eq!(harmless("plain ü 漢"), "plain ü 漢");
        assert_eq!(harmless("\u{1b}[2Jboo\r\n\u{9b}31m\u{202e}x"), "\\u{1b}[2Jboo\\r\\n\\u{9b}31m\\u{202e}x");
        assert_eq!(parameter(&json!("a\u{7}")), "a\\u{7}");
        assert_eq!(parameter(&json!(["\u{9b}"])), "[\"\\u{9b}\"]");
    }

    #[test]
    fn numbers_are_as_long_as_they_need() {
        let metrics = [0.891_234, 1.0, 0.0, -0.5, 1234.56, 1e9, 1.234_56e-5, f64::NAN, f64::NEG_INFINITY];
        assert_eq!(
            metrics.map(metric),
            ["0.8912", "1.0000", "0.0000", "-0.5000", "1234.6", "1.000e9", "1.235e-5", "NaN", "-inf"]
        );
        let parameters = [
            json!(0.1),
            json!(0.012_345_678_9),
            json!(1e-8),
            json!(128),
            json!(1.0),
            json!(1e20),
            json!(null),
        ];
        assert_eq!(
            parameters.map(|value| parameter(&value)),
            ["0.1", "0.0123457", "1e-8", "128", "1", "1e20", "null"]
        );
    }

    #[test]
    fn times_and_sizes_are_in_units_of_people() {
        let times = [0.04, 9.94, 9.96, 59.6, 245.0, 7620.0, 273_600.0, f64::NAN];
        assert_eq!(times.map(duration), ["0.0s", "9.9s", "10s", "1m00s", "4m05s", "2h07m", "3d04h", "-"]);
        assert_eq!(
            [0, 1023, 1024, 1_048_575, 4_300_000].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "4.1 MiB"]
        );
        assert_eq!(count(1, "trial"), "1 trial");
        assert_eq!(count(1_234_567, "trial"), "1,234,567 trials");
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_709_210_096_000_000), "2024-02-29T12:34:56Z");
        assert_eq!(utc(1_795_500_000_000_000), "2026-11-24T06:00:00Z");
    }
}
