//! Who may ask, and what every answer carries.
//!
//! The page is on loopback, where the danger is the user's own browser: a page of somebody else that sends requests
//! here. So the `Host` must be a name of this machine (DNS rebinding), nothing is answered to a page of another origin,
//! and whatever changes something needs a header that such a page cannot send without being asked first (CORS), which
//! it never is allowed. It must not read anything.

use super::api::error_response;
use crate::error::{Code, Problem};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use std::net::IpAddr;

/// The header that a request which changes something must carry, with any value.
pub(crate) const ORDER_HEADER: &str = "x-spotsweep";
/// Longest path and query that are read, in bytes.
const URI_BYTES: usize = 8 << 10;
/// Largest body of a request, in bytes: no call takes one.
const BODY_BYTES: u64 = 1 << 10;

/// Scripts, styles and connections of our own, and nothing else; `data:` for the icon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every answer carries.
const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The rules for one listener.
#[derive(Debug)]
pub(crate) struct Guard {
    bound: IpAddr,
}

impl Guard {
    pub(crate) fn new(bound: IpAddr) -> Self {
        Self { bound }
    }

    /// Lets a request through, or says why not.
    pub(crate) async fn pass(&self, request: Request, next: Next) -> Response {
        let length = header_text(request.headers(), header::CONTENT_LENGTH);
        let refused =
            self.refusal(request.method(), request.uri(), request.headers()).or_else(|| too_long(length));
        let mut response = match refused {
            Some(problem) => error_response(&problem),
            None => next.run(request).await,
        };
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }

    fn refusal(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
        if uri.path_and_query().is_some_and(|path| path.as_str().len() > URI_BYTES) {
            return Some(Problem::new(Code::TooLarge, format!("an address has at most {URI_BYTES} bytes")));
        }
        let host = header_text(headers, header::HOST).unwrap_or_default();
        if !self.is_ours(host) {
            return Some(
                forbidden("this name is not one of this machine's")
                    .hint("open the page as http://127.0.0.1:PORT or http://localhost:PORT"),
            );
        }
        // A browser says where the page comes from that asks; other clients say nothing.
        let from_elsewhere = match (header_text(headers, header::ORIGIN), fetch_site(headers)) {
            (Some(origin), _) => origin.strip_prefix("http://") != Some(host),
            (None, Some(site)) => {
                // Opening the page from a link elsewhere is no harm; reading the API from there is of no use.
                uri.path().starts_with("/api/") && !matches!(site, "same-origin" | "none")
            }
            (None, None) => false,
        };
        if from_elsewhere {
            return Some(forbidden("a page of another origin may not ask here"));
        }
        if !matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(ORDER_HEADER) {
            return Some(
                forbidden("what changes something needs the header X-Spotsweep")
                    .hint("send it with any value, for instance: curl -X POST -H 'X-Spotsweep: 1' …"),
            );
        }
        None
    }

    /// Whether a `Host` header names this machine by itself: the port is not compared, so that a tunnel may have
    /// another.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) if port.is_empty() || is_port(port) => address,
                Some(_) | None => return false,
            },
            None => match host.split_once(':') {
                Some((name, port)) if is_port(&format!(":{port}")) => name,
                Some(_) => return false,
                None => host,
            },
        };
        match name.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address == self.bound,
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok())
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

fn fetch_site(headers: &HeaderMap) -> Option<&str> {
    headers.get("sec-fetch-site").map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

fn forbidden(message: &str) -> Problem {
    Problem::new(Code::Forbidden, message)
}

fn too_long(length: Option<&str>) -> Option<Problem> {
    let length = length.map_or(0, |text| text.parse().unwrap_or(u64::MAX));
    (length > BODY_BYTES).then(|| {
        Problem::new(Code::TooLarge, format!("the body of a request has at most {BODY_BYTES} bytes"))
    })
}

/// The path is there, for another method.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let problem = Problem::new(Code::BadRequest, format!("{method} makes no sense for {}", uri.path()))
        .hint("docs/http-api.md lists the calls");
    let mut response = error_response(&problem);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &Method, path: &str, headers: &[(&'static str, &str)]) -> Option<Code> {
        let guard = Guard::new("127.0.0.1".parse().unwrap());
        let map: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        guard.refusal(method, &path.parse().unwrap(), &map).map(|problem| problem.code)
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["127.0.0.1:7078", "localhost:7078", "LOCALHOST", "[::1]:9", "127.0.0.1", "127.9.9.9:1"] {
            assert_eq!(verdict(&Method::GET, "/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7078",
            "127.0.0.1.evil.example",
            "localhost.evil.example:1",
            "",
            "10.0.0.1:7078",
            "[::1",
            "[::1]x",
            "127.0.0.1:port",
            "localhost:1:2",
            "user@localhost",
        ] {
            assert_eq!(verdict(&Method::GET, "/", &[("host", host)]), Some(Code::Forbidden), "{host}");
        }
        assert_eq!(verdict(&Method::GET, "/", &[]), Some(Code::Forbidden));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = ("host", "127.0.0.1:7078");
        let order = ("x-spotsweep", "1");
        let post = |headers: &[_]| verdict(&Method::POST, "/api/v1/sweeps/a/cancel", headers);
        assert_eq!(post(&[host, order]), None, "curl");
        assert_eq!(post(&[host, order, ("origin", "http://127.0.0.1:7078")]), None);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8000", "https://127.0.0.1:7078"] {
            assert_eq!(post(&[host, order, ("origin", origin)]), Some(Code::Forbidden), "{origin}");
        }
        assert_eq!(post(&[host]), Some(Code::Forbidden), "without the header");
        let site = ("sec-fetch-site", "cross-site");
        assert_eq!(verdict(&Method::GET, "/api/v1/sweeps", &[host, site]), Some(Code::Forbidden));
        assert_eq!(verdict(&Method::GET, "/", &[host, site]), None, "a link to the page");
        let own = ("sec-fetch-site", "same-origin");
        assert_eq!(verdict(&Method::GET, "/api/v1/sweeps", &[host, own]), None);
    }

    #[test]
    fn a_long_address_or_body_is_refused() {
        let path = format!("/{}", "x".repeat(URI_BYTES));
        assert_eq!(verdict(&Method::GET, &path, &[("host", "localhost")]), Some(Code::TooLarge));
        assert_eq!(too_long(Some("1048576")).map(|problem| problem.code), Some(Code::TooLarge));
        assert_eq!(too_long(Some("-1")).map(|problem| problem.code), Some(Code::TooLarge));
        assert_eq!(too_long(Some("0")), None);
        assert_eq!(too_long(None), None);
    }
}
