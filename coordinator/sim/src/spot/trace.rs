//! When machines came and went, as files say it. Owns the two formats; what a sweep makes of it is not known here.
//!
//! - Lines of `milliseconds,add|remove,machine`, in order of time: one machine each, as recorded of AWS for Bamboo
//!   (NSDI'23).
//! - `{"metadata": {"gap_seconds": 600}, "data": [0, 0, 1]}`: one zone, looked at every so many seconds; 1 stands for
//!   a machine that was taken or could not be had, as recorded by SkyPilot for "Can't Be Late" (NSDI'24).

use crate::content::mixed;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest trace that is read, in bytes.
pub const TRACE_BYTES: usize = 64 << 20;

/// Changes from which on a common factor of their times says how exact these are.
const LINES_TO_TELL: usize = 20;

/// A machine comes or goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Change {
    /// Seconds since the trace began.
    pub(crate) at_s: f64,
    pub(crate) node: u32,
    pub(crate) up: bool,
}

/// Comings and goings of machines, from the first of them on.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// By time; a node comes before it goes, and goes before it comes again.
    pub(crate) changes: Vec<Change>,
    pub(crate) length_s: f64,
    pub(crate) nodes: u32,
    /// One record stands for any number of machines, which come and go together.
    pub(crate) zone: bool,
    /// Times are known to so many seconds; 0 where they are exact.
    pub(crate) resolution_s: f64,
}

/// Why bytes are no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}\nhint: {hint}")]
pub struct TraceError {
    /// File and line.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

const HINT: &str = "a trace has lines of `milliseconds,add|remove,machine`, or is JSON of the form \
                    {\"metadata\": {\"gap_seconds\": 600}, \"data\": [0, 1]}";

#[derive(Deserialize)]
struct Zone {
    metadata: ZoneMetadata,
    data: Vec<u8>,
}

#[derive(Deserialize)]
struct ZoneMetadata {
    gap_seconds: f64,
}

impl Trace {
    /// Reads either format; `name` stands in errors.
    ///
    /// # Errors
    /// [`TraceError`] where it is neither, contradicts itself, or never has a machine.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, TraceError> {
        let wrong = |line: Option<usize>, what: String| TraceError {
            place: line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}")),
            what,
            hint: HINT,
        };
        if bytes.len() > TRACE_BYTES {
            return Err(wrong(None, format!("it is longer than {TRACE_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong(None, "it is not UTF-8 text".to_owned()))?;
        let trace = if text.trim_start().starts_with('{') {
            Self::of_zone(text).map_err(|(line, what)| wrong(line, what))?
        } else {
            Self::of_lines(text).map_err(|(line, what)| wrong(Some(line), what))?
        };
        if trace.changes.iter().any(|change| change.up) && trace.length_s > 0.0 {
            Ok(trace)
        } else {
            Err(wrong(None, "no machine ever comes for any time".to_owned()))
        }
    }

    fn of_lines(text: &str) -> Result<Self, (usize, String)> {
        let mut nodes: BTreeMap<&str, (u32, bool)> = BTreeMap::new();
        let mut changes: Vec<Change> = Vec::new();
        let (mut first_ms, mut last_ms, mut common_ms) = (None, 0u64, 0u64);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let [at, what, name] = fields[..] else {
                return Err((number, format!("{} fields instead of 3", fields.len())));
            };
            let at_ms: u64 =
                at.parse().map_err(|_| (number, format!("{at:?} is no time in milliseconds")))?;
            let up = match what {
                "add" => true,
                "remove" => false,
                other => return Err((number, format!("{other:?} is neither add nor remove"))),
            };
            if at_ms < last_ms {
                return Err((number, format!("time goes backwards, from {last_ms} to {at_ms}")));
            }
            last_ms = at_ms;
            let first_ms = *first_ms.get_or_insert(at_ms);
            let next = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
            let (node, is_up) = nodes.entry(name).or_insert((next, false));
            if *is_up == up {
                let (what, is) = if up { ("comes", "there") } else { ("goes", "not there") };
                return Err((number, format!("{name} {what} while it is {is}")));
            }
            *is_up = up;
            common_ms = common_divisor(common_ms, at_ms - first_ms);
            changes.push(Change { at_s: seconds(at_ms - first_ms), node: *node, up });
        }
        let length_s = changes.last().map_or(0.0, |change| change.at_s);
        let nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        // Times that happen to share a factor are not therefore rounded.
        let rounded = changes.len() >= LINES_TO_TELL && common_ms >= 1000;
        let resolution_s = if rounded { seconds(common_ms) } else { 0.0 };
        Ok(Self { changes, length_s, nodes, zone: false, resolution_s })
    }

    fn of_zone(text: &str) -> Result<Self, (Option<usize>, String)> {
        let Zone { metadata: ZoneMetadata { gap_seconds }, data } =
            serde_json::from_str(text).map_err(|error| (Some(error.line()), error.to_string()))?;
        if !(gap_seconds > 0.0 && gap_seconds.is_finite()) {
            return Err((None, format!("gap_seconds is {gap_seconds}, not above 0")));
        }
        if let Some(place) = data.iter().position(|x| *x > 1) {
            return Err((None, format!("data[{place}] is {}, neither 0 nor 1", data[place])));
        }
        let start = data.iter().position(|x| *x == 0).unwrap_or(data.len());
        let mut changes: Vec<Change> = Vec::new();
        for (index, taken) in data[start..].iter().enumerate() {
            let up = *taken == 0;
            if changes.last().map_or(!up, |last| last.up == up) {
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
            changes.push(Change { at_s: index as f64 * gap_seconds, node: 0, up });
        }
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
        let length_s = (data.len() - start) as f64 * gap_seconds;
        Ok(Self { changes, length_s, nodes: 1, zone: true, resolution_s: gap_seconds })
    }

    /// The trace with its times spread over the span to which they are known (whoever looks once a minute sees a
    /// change up to a minute late), so that none of them coincides with anything that happens once a minute.
    pub(crate) fn spread(&self, seed: u64) -> Self {
        let mut trace = self.clone();
        for change in &mut trace.changes {
            // One machine's changes of one moment keep their order.
            let moment = change.at_s.to_bits() ^ u64::from(change.node);
            #[expect(clippy::cast_precision_loss, reason = "a share in [0, 1]")]
            let share = mixed(mixed(seed) ^ moment) as f64 / u64::MAX as f64;
            change.at_s = (change.at_s - share * trace.resolution_s).max(0.0);
        }
        trace.changes.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        trace
    }

    /// Seconds after which it begins anew.
    #[must_use]
    pub fn length_s(&self) -> f64 {
        self.length_s
    }

    /// Most machines that are there at once.
    #[must_use]
    pub fn most_machines(&self) -> u32 {
        let mut there = 0u32;
        let mut most = 0;
        for change in &self.changes {
            there = if change.up { there + 1 } else { there.saturating_sub(1) };
            most = most.max(there);
        }
        most
    }

    /// Whether one record stands for any number of machines.
    #[must_use]
    pub fn is_zone(&self) -> bool {
        self.zone
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 milliseconds are 285 millennia")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_machines_that_come_and_go() {
        let trace =
            Trace::parse(b"480000,add,a\r\n600000,add,b\n\n4080000,remove,a\n4081500,add,a\n", "t.csv");
        let trace = trace.unwrap();
        let changes: Vec<_> = trace.changes.iter().map(|c| (c.at_s, c.node, c.up)).collect();
        assert_eq!(changes, [(0.0, 0, true), (120.0, 1, true), (3600.0, 0, false), (3601.5, 0, true)]);
        assert_eq!((trace.length_s, trace.most_machines(), trace.zone), (3601.5, 2, false));
    }

    #[test]
    fn json_is_a_zone_looked_at_every_so_often() {
        let json = br#"{"metadata": {"gap_seconds": 600, "zone": "a"}, "data": [1, 0, 0, 1, 1, 0, 0]}"#;
        let trace = Trace::parse(json, "t.json").unwrap();
        let changes: Vec<_> = trace.changes.iter().map(|c| (c.at_s, c.up)).collect();
        assert_eq!(changes, [(0.0, true), (1200.0, false), (2400.0, true)]);
        assert_eq!((trace.length_s, trace.zone), (3600.0, true));
    }

    #[test]
    fn times_known_to_the_minute_are_spread_over_it() {
        let lines: String = (0..40)
            .map(|n| format!("{},{},a\n", n * 60_000, if n % 2 == 0 { "add" } else { "remove" }))
            .collect();
        let trace = Trace::parse(lines.as_bytes(), "t").unwrap();
        assert_eq!(trace.resolution_s, 60.0);
        let spread = trace.spread(1);
        assert_eq!(spread, trace.spread(1));
        assert_ne!(spread, trace.spread(2));
        for (before, after) in trace.changes.iter().zip(&spread.changes) {
            assert_eq!((before.node, before.up), (after.node, after.up), "order is kept");
            assert!((before.at_s - 60.0..=before.at_s).contains(&after.at_s));
        }
        let exact = Trace::parse(b"0,add,a\n60000,remove,a\n", "t").unwrap();
        assert_eq!(exact.spread(1), exact);
    }

    #[test]
    fn what_is_no_trace_is_told_with_its_line() {
        let told = |bytes: &[u8]| {
            let error = Trace::parse(bytes, "t").unwrap_err();
            format!("{}: {}", error.place, error.what)
        };
        assert_eq!(told(b"0,add,a\n1,add\n"), "t:2: 2 fields instead of 3");
        assert_eq!(told(b"0,add,a\nsoon,add,b\n"), "t:2: \"soon\" is no time in milliseconds");
        assert_eq!(told(b"0,add,a\n1,kill,a\n"), "t:2: \"kill\" is neither add nor remove");
        assert_eq!(told(b"5,add,a\n4,add,b\n"), "t:2: time goes backwards, from 5 to 4");
        assert_eq!(told(b"5,add,a\n6,add,a\n"), "t:2: a comes while it is there");
        assert_eq!(told(b"5,remove,a\n"), "t:1: a goes while it is not there");
        assert_eq!(told(b""), "t: no machine ever comes for any time");
        assert_eq!(told(b"5,add,a\n"), "t: no machine ever comes for any time");
        assert_eq!(told(b"\xff"), "t: it is not UTF-8 text");
        assert_eq!(told(br#"{"metadata":{"gap_seconds":0},"data":[0]}"#), "t: gap_seconds is 0, not above 0");
        assert_eq!(
            told(br#"{"metadata":{"gap_seconds":9},"data":[0,2]}"#),
            "t: data[1] is 2, neither 0 nor 1"
        );
        assert!(told(br#"{"metadata":{},"data":[0]}"#).starts_with("t:1: missing field `gap_seconds`"));
        assert_eq!(
            told(br#"{"metadata":{"gap_seconds":9},"data":[1,1]}"#),
            "t: no machine ever comes for any time"
        );
    }
}
