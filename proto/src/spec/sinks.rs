//! The section `sinks` of a sweep file: where else its trials and points go while it runs.
//!
//! Owns what a sink may be called. A sweep file comes from whoever may submit, and the coordinator writes as itself: so a
//! folder is a few plain names below one that the coordinator's operator chose, and a URL has nothing but host, port and path.

use super::{
    diagnostic::Report,
    section::{Section, quoted},
    yaml::{Node, Value},
};
use crate::{
    catalogue::nearest,
    ids::SweepName,
    limits::{NAME_BYTES, SINKS_PER_SWEEP},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most folders in one another that a sink may name.
const FOLDER_DEPTH: usize = 8;
/// Longest URL of a sink, in bytes.
const URL_BYTES: usize = 512;

/// Where else a sweep's trials and points go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum Sink {
    /// Event files of TensorBoard.
    Tensorboard {
        /// Below the coordinator's folder of sinks.
        dir: SinkFolder,
    },
    /// A tracking server of MLflow.
    Mlflow {
        /// Where it is.
        url: SinkUrl,
        /// The experiment; the sweep's name where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        experiment: Option<SweepName>,
        /// Whether completed trials bring their weights and the sweep's specification along.
        #[serde(default, skip_serializing_if = "is_false")]
        artifacts: bool,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensorboard { dir } => write!(f, "tensorboard {dir}"),
            Self::Mlflow { url, .. } => write!(f, "mlflow {url}"),
        }
    }
}

/// Why a text names no sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It is no plain folder.
    #[error(
        "a sink's folder is at most {FOLDER_DEPTH} names of letters, digits and '.', '_', '-' with '/' between them, none \
         of which begins with '.' or '-': it lies below the coordinator's folder of sinks"
    )]
    Folder,
    /// It is no URL of a server.
    #[error("a sink's URL is http://HOST:PORT, perhaps with a path, of at most {URL_BYTES} bytes")]
    Url,
}

/// A folder below the coordinator's folder of sinks: plain names that lead nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SinkFolder(String);

impl SinkFolder {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// [`SinkError::Folder`].
    pub fn new(text: &str) -> Result<Self, SinkError> {
        let plain = |part: &str| SweepName::new(part).is_ok();
        let parts = text.split('/').count();
        if text.len() <= NAME_BYTES && parts <= FOLDER_DEPTH && text.split('/').all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SinkError::Folder)
        }
    }

    /// Its names, from the outermost.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

/// The URL of a server: `http://HOST:PORT`, perhaps with a path; no user, question or fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SinkUrl(String);

impl SinkUrl {
    /// Checks `text` and takes it, without slashes at its end.
    ///
    /// # Errors
    /// [`SinkError::Url`].
    pub fn new(text: &str) -> Result<Self, SinkError> {
        let rest = text.strip_prefix("http://").ok_or(SinkError::Url)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            Some(_) | None => (authority, None),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_is_plain = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)),
        };
        let port_is_one = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let path_is_plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "._-~/".contains(c))
            && path.split('/').all(|part| part != "..");
        if text.len() <= URL_BYTES && host_is_plain && port_is_one && path_is_plain {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(SinkError::Url)
        }
    }

    /// The URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! texts {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SinkError;
            fn try_from(text: String) -> Result<Self, SinkError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

texts!(SinkFolder);
texts!(SinkUrl);

/// How one is written, for messages.
const FORM: &str = "sinks: [{to: tensorboard, dir: runs}, {to: mlflow, url: \"http://127.0.0.1:5000\"}]";

/// Reads the section. Where something is wrong the report says so.
pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Vec<Sink> {
    let Value::Sequence(nodes) = &node.value else {
        let message = format!("sinks is a list, not {}", node.value.kind());
        report.error_hint(node.span, message, format!("it has the form `{FORM}`"));
        return Vec::new();
    };
    if nodes.len() > SINKS_PER_SWEEP {
        let message = format!("a sweep has at most {SINKS_PER_SWEEP} sinks, not {}", nodes.len());
        report.error_hint(node.span, message, "remove some");
        return Vec::new();
    }
    let mut sinks: Vec<Sink> = Vec::new();
    for node in nodes {
        let Some(sink) = one(node, report) else { continue };
        if sinks.contains(&sink) {
            report.error_hint(node.span, format!("{sink} stands here twice"), "remove one of them");
        } else {
            sinks.push(sink);
        }
    }
    sinks
}

fn one(node: &Node, report: &mut Report<'_>) -> Option<Sink> {
    let section = Section::of(node, "a sink", "{to: tensorboard, dir: runs}", report)?;
    let missing = |what: &str, section: &Section<'_>, report: &mut Report<'_>| {
        report.error_hint(
            section.span,
            format!("the sink has no {what}"),
            format!("it has the form `{FORM}`"),
        );
    };
    if section.get("to").is_none() {
        missing("to", &section, report);
        return None;
    }
    match section.text("to", report)? {
        ("tensorboard", _) => {
            section.only(&["to", "dir"], report, |_| None);
            if section.get("dir").is_none() {
                missing("dir", &section, report);
            }
            let (text, span) = section.text("dir", report)?;
            let dir = SinkFolder::new(text).map_err(|error| {
                report.error_hint(
                    span,
                    error.to_string(),
                    "for instance `dir: runs`; `serve --sinks DIR` chooses where that is",
                );
            });
            Some(Sink::Tensorboard { dir: dir.ok()? })
        }
        ("mlflow", _) => {
            section.only(&["to", "url", "experiment", "artifacts"], report, |_| None);
            let experiment = section.text("experiment", report).and_then(|(text, span)| {
                SweepName::new(text)
                    .map_err(|error| {
                        let text = error.to_string().replace("sweep name", "sink's experiment");
                        report.error(span, text);
                    })
                    .ok()
            });
            if section.get("url").is_none() {
                missing("url", &section, report);
            }
            let (text, span) = section.text("url", report)?;
            let url = SinkUrl::new(text).map_err(|error| {
                let hint = if text.starts_with("https://") {
                    "reach a server behind TLS through a tunnel, as `ssh -L` makes"
                } else {
                    "for instance `url: \"http://127.0.0.1:5000\"`"
                };
                report.error_hint(span, error.to_string(), hint);
            });
            let artifacts = section.boolean("artifacts", report).unwrap_or(false);
            Some(Sink::Mlflow { url: url.ok()?, experiment, artifacts })
        }
        (other, span) => {
            let known = ["tensorboard", "mlflow"];
            let hint = nearest(other, known).map_or_else(
                || "one of tensorboard, mlflow".to_owned(),
                |near| format!("did you mean {near}?"),
            );
            report.error_hint(span, format!("there is no sink {}", quoted(other)), hint);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_leads_nowhere_but_below() {
        for text in ["runs", "a/b", "a.b_c-d/1"] {
            assert_eq!(SinkFolder::new(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "/",
            "/etc",
            "..",
            "a/..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            ".ssh",
            "-rf",
            "a\\b",
            "a\0b",
            "ü",
            "a b",
            "1/2/3/4/5/6/7/8/9",
        ] {
            assert!(SinkFolder::new(text).is_err(), "{text:?}");
        }
        assert!(SinkFolder::new(&"x".repeat(NAME_BYTES + 1)).is_err());
    }

    #[test]
    fn a_url_is_a_server_and_nothing_more() {
        for text in
            ["http://127.0.0.1:5000", "http://mlflow", "http://[::1]:5000", "http://mlflow.lab:80/a/b"]
        {
            assert_eq!(SinkUrl::new(text).unwrap().as_str(), text);
        }
        assert_eq!(SinkUrl::new("http://a:1/").unwrap().as_str(), "http://a:1");
        for text in [
            "",
            "http://",
            "https://a",
            "file:///etc/passwd",
            "http://u:p@a",
            "http://a?b",
            "http://a#b",
            "http://a:0",
            "http://a:99999",
            "http://a/../b",
            "http://a b",
            "http://a\r\nX: y",
            "http://[x]:1",
            "http://:80",
        ] {
            assert!(SinkUrl::new(text).is_err(), "{text:?}");
        }
    }
}
