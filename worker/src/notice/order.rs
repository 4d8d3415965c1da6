//! What a person or program may say with a notice of its own: `{"in_s": 30, "reason": "price"}`, or nothing at all.

use serde::Deserialize;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};

/// Longest text that is read, in bytes.
pub(super) const ORDER_BYTES: usize = 4096;
/// Longest time that may be promised, in seconds: a day.
const IN_S_LIMIT: f64 = 86_400.0;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Order {
    in_s: Option<f64>,
    #[serde(default)]
    reason: String,
}

/// Why a text is no order.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("it is not JSON like {{\"in_s\": 30, \"reason\": \"price\"}}")]
    Json(#[source] serde_json::Error),
    #[error("in_s is {0}; it must be from 0 to {IN_S_LIMIT}")]
    InS(f64),
}

/// The notice that a text from `source` makes.
pub(super) fn notice(source: NoticeSource, text: &[u8]) -> Result<Notice, OrderError> {
    let order = match text.trim_ascii() {
        b"" => Order::default(),
        text => serde_json::from_slice(text).map_err(OrderError::Json)?,
    };
    if let Some(in_s) = order.in_s.filter(|in_s| !(0.0..=IN_S_LIMIT).contains(in_s)) {
        return Err(OrderError::InS(in_s));
    }
    Ok(Notice::new(source, NoticeKind::Terminate, order.in_s).because(&order.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_may_be_empty_and_must_otherwise_be_one() {
        let plain = Notice::new(NoticeSource::Http, NoticeKind::Terminate, None);
        for text in ["", " \n", "{}"] {
            assert_eq!(notice(NoticeSource::Http, text.as_bytes()).unwrap(), plain, "{text}");
        }
        let told = notice(NoticeSource::File, br#"{"in_s": 30, "reason": "price"}"#).unwrap();
        assert_eq!((told.in_s, told.reason.as_str()), (Some(30.0), "price"));
        for text in
            ["30", "{\"in_s\": -1}", "{\"in_s\": 1e9}", "{\"in\": 3}", "{\"in_s\": \"x\"}", "\u{fffd}"]
        {
            assert!(notice(NoticeSource::File, text.as_bytes()).is_err(), "{text}");
        }
    }
}
