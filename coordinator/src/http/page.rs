//! The page's files, which are in the program. It must not read a disk.

use super::api::error_response;
use crate::error::{Code, Problem};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};

struct File {
    path: &'static str,
    content_type: &'static str,
    content: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! files {
    ($($path:literal, $content_type:expr, $file:literal;)*) => {
        const FILES: &[File] = &[$(File {
            path: $path,
            content_type: $content_type,
            content: include_bytes!(concat!("assets/", $file)),
        },)*];
    };
}

files! {
    "/", HTML, "index.html";
    "/assets/style.css", CSS, "style.css";
    "/assets/charts.css", CSS, "charts.css";
    "/assets/app.js", SCRIPT, "app.js";
    "/assets/api.js", SCRIPT, "api.js";
    "/assets/axis.js", SCRIPT, "axis.js";
    "/assets/dom.js", SCRIPT, "dom.js";
    "/assets/format.js", SCRIPT, "format.js";
    "/assets/live.js", SCRIPT, "live.js";
    "/assets/log.js", SCRIPT, "log.js";
    "/assets/orders.js", SCRIPT, "orders.js";
    "/assets/curves.js", SCRIPT, "curves.js";
    "/assets/parallel.js", SCRIPT, "parallel.js";
    "/assets/scatter.js", SCRIPT, "scatter.js";
    "/assets/small.js", SCRIPT, "small.js";
    "/assets/gantt.js", SCRIPT, "gantt.js";
    "/assets/table.js", SCRIPT, "table.js";
    "/assets/view-sweeps.js", SCRIPT, "view-sweeps.js";
    "/assets/view-sweep.js", SCRIPT, "view-sweep.js";
    "/assets/view-trial.js", SCRIPT, "view-trial.js";
    "/assets/view-workers.js", SCRIPT, "view-workers.js";
    "/assets/theme.js", SCRIPT, "theme.js";
    "/assets/vendor/uplot.min.js", SCRIPT, "vendor/uplot.min.js";
    "/assets/vendor/uplot.min.css", CSS, "vendor/uplot.min.css";
    "/assets/vendor/uplot.LICENSE", TEXT, "vendor/uplot.LICENSE";
}

/// The file at a path, or the error that says that there is none.
pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let Some(file) = FILES.iter().find(|file| file.path == uri.path()) else {
        let problem = Problem::new(Code::NoSuchPath, format!("there is nothing at {}", uri.path()))
            .hint("the page is at /, the calls of the API are in docs/http-api.md");
        return error_response(&problem);
    };
    if !matches!(method, Method::GET | Method::HEAD) {
        return super::guard::wrong_method(method, uri).await;
    }
    let tag = format!("\"{}\"", blake3::hash(file.content).to_hex());
    let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
    let mut response = if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(file.content))
    };
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    // Asked for again each time, and sent again only when the program is another.
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(header::ETAG, tag);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, path::Path};

    fn on_disk(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                on_disk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_page_is_served_and_no_other() {
        let mut found = BTreeSet::new();
        on_disk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/assets"), "", &mut found);
        let served: BTreeSet<String> = FILES
            .iter()
            .map(|file| match file.path {
                "/" => "index.html".to_owned(),
                path => path.trim_start_matches("/assets/").to_owned(),
            })
            .collect();
        assert_eq!(served, found);
    }

    #[test]
    fn the_page_needs_no_other_machine_and_nothing_inline() {
        for file in FILES.iter().filter(|file| !file.path.contains("/vendor/")) {
            let text = std::str::from_utf8(file.content).unwrap();
            for wrong in [
                "//cdn",
                "https://",
                "innerHTML",
                "insertAdjacentHTML",
                "document.write",
                " style=\"",
                "eval(",
            ] {
                assert!(!text.contains(wrong), "{} has {wrong}", file.path);
            }
            if file.content_type == HTML {
                assert!(!text.contains("<style") && !text.contains(" onclick"), "{}", file.path);
                assert!(
                    text.matches("<script").count()
                        == text.matches("<script src=").count()
                            + text.matches("<script type=\"module\" src=").count()
                );
            }
        }
    }

    #[test]
    fn a_file_fits_in_a_head() {
        for file in FILES.iter().filter(|file| !file.path.contains("/vendor/")) {
            let lines = file.content.split(|byte| *byte == b'\n').count();
            assert!(lines <= 420, "{} has {lines} lines", file.path);
        }
    }
}
