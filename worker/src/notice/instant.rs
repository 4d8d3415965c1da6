//! Promised moments, as providers write them, as seconds from now by this machine's clock.

use chrono::{DateTime, FixedOffset};
use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-09-18T08:22:00Z`, as Amazon writes it.
pub(super) fn rfc3339_in_s(text: &str, now: SystemTime) -> Option<f64> {
    DateTime::parse_from_rfc3339(text.trim()).ok().map(|at| in_s(at, now))
}

/// `Mon, 19 Sep 2026 18:29:47 GMT`, as Azure writes it.
pub(super) fn http_date_in_s(text: &str, now: SystemTime) -> Option<f64> {
    DateTime::parse_from_rfc2822(text.trim()).ok().map(|at| in_s(at, now))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of our time are far below 2^53")]
fn in_s(at: DateTime<FixedOffset>, now: SystemTime) -> f64 {
    let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    (at.timestamp_millis() as f64 / 1e3 - now_s).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_forms_are_read_and_the_past_is_now() {
        let now = UNIX_EPOCH + Duration::from_secs(1_789_719_600);
        assert_eq!(rfc3339_in_s("2026-09-18T08:22:00Z\n", now), Some(120.0));
        assert_eq!(rfc3339_in_s("2020-09-18T08:22:00Z", now), Some(0.0));
        assert_eq!(http_date_in_s("Fri, 18 Sep 2026 08:20:30 GMT", now), Some(30.0));
        for text in ["", "soon", "2026-09-18", "99999999999999"] {
            assert_eq!((rfc3339_in_s(text, now), http_date_in_s(text, now)), (None, None), "{text}");
        }
    }
}
