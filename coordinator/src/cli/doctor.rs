//! `spotsweep doctor`: what is found on this machine and what is missing.

use super::{
    client::CoordinatorArgs,
    error::{Ending, Outcome},
    local,
    out::Out,
    rows::{self, Field, Row},
    show::ShowFormat,
    text,
};
use crate::{
    data::{DataStore, Presence},
    error::{Code, Problem},
};
use anstyle::{AnsiColor, Style};
use clap::Args;
use std::path::{Path, PathBuf};
use unicode_width::UnicodeWidthStr as _;

const EXAMPLES: &str = "Examples:
  spotsweep doctor
  spotsweep doctor --dir /mnt/sweeps          the disk that will hold sweeps there
  spotsweep doctor --format json

Exit status: 0 if everything that `spotsweep run` needs is here, 8 if something is missing.";

/// Less free disk than this is worth a word, in bytes.
const SCARCE_BYTES: u64 = 2 << 30;

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// The folder that sweeps will be kept in
    #[arg(long, value_name = "DIR", default_value = "sweeps")]
    pub(crate) dir: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ShowFormat,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorArgs,
}

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Nothing is lost, but it is good to know.
    Note,
    /// `spotsweep run` will not work.
    Missing,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Missing => "missing",
        }
    }

    fn style(self) -> Style {
        let colour = match self {
            Self::Good => AnsiColor::Green,
            Self::Note => AnsiColor::Yellow,
            Self::Missing => AnsiColor::Red,
        };
        Style::new().bold().fg_color(Some(colour.into()))
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    hint: String,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), hint: String::new() }
    }

    fn missing(what: &'static str, problem: &Problem) -> Self {
        Self { what, verdict: Verdict::Missing, found: problem.message.clone(), hint: problem.hint.clone() }
    }

    fn note(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Note, found: found.into(), hint: hint.into() }
    }
}

/// Runs it.
///
/// # Errors
/// If something is missing that `run` needs.
pub(crate) async fn run(args: DoctorArgs) -> Outcome {
    let mut findings = vec![Finding::good("spotsweep", this_program())];
    findings.push(match local::worker() {
        Ok(path) => Finding::good("worker", path.display().to_string()),
        Err(problem) => Finding::missing("worker", &problem),
    });
    findings.extend(training().await);
    findings.push(Finding::good("machine", text::count(local::cores() as u64, "core")));
    findings.push(space(&args.dir));
    findings.extend(data());
    findings.push(coordinator(&args.coordinator).await);

    let mut out = Out::stdout();
    match args.format {
        ShowFormat::Text => out.text(&in_words(&findings))?,
        ShowFormat::Json => out.text(&rows::json_lines(&findings.iter().map(row).collect::<Vec<_>>()))?,
    }
    out.flush()?;
    let missing = findings.iter().filter(|one| one.verdict == Verdict::Missing).count();
    if missing > 0 {
        return Err(Problem::new(
            Code::Missing,
            format!(
                "{} missing",
                if missing == 1 { "one thing is".to_owned() } else { format!("{missing} things are") }
            ),
        )
        .into());
    }
    Ok(Ending::Well)
}

fn this_program() -> String {
    let path = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    format!("{} at {path}", env!("CARGO_PKG_VERSION"))
}

async fn training() -> Vec<Finding> {
    let path = match local::trainer() {
        Ok(path) => path,
        Err(problem) => return vec![Finding::missing("trainer", &problem)],
    };
    let facts = match local::probe(&path).await {
        Ok(facts) => facts,
        Err(problem) => return vec![Finding::missing("trainer", &problem)],
    };
    let mut findings = vec![Finding::good("trainer", format!("{} at {}", facts.name, facts.path.display()))];
    let libtorch = match &facts.library_path {
        Some(folder) => format!("{} in {}", facts.libtorch, Path::new(folder).display()),
        None => facts.libtorch.clone(),
    };
    if !libtorch.is_empty() {
        findings.push(Finding::good("libtorch", libtorch));
    }
    for device in &facts.devices {
        let memory = match device.memory_bytes {
            0 => String::new(),
            bytes => format!(", {}", text::bytes(bytes)),
        };
        findings.push(Finding::good("device", format!("{} {}{memory}", device.name, device.model)));
    }
    let driver = Path::new("/proc/driver/nvidia/version").exists();
    if driver && !facts.has_gpu() {
        findings.push(Finding::note(
            "device",
            "there is an NVIDIA driver, but the trainer sees no GPU",
            "the fetched libtorch is for CPUs; point at one with CUDA: SPOTSWEEP_PYTHON_TORCH=python3 make build, or \
             LD_LIBRARY_PATH=DIR/lib",
        ));
    }
    findings
}

fn space(dir: &Path) -> Finding {
    match local::disk(dir) {
        Some((free, total)) if free < SCARCE_BYTES => Finding::note(
            "disk",
            format!("{} free of {} for {}", text::bytes(free), text::bytes(total), dir.display()),
            "checkpoints may fill it; --dir takes another disk",
        ),
        Some((free, total)) => Finding::good(
            "disk",
            format!("{} free of {} for {}", text::bytes(free), text::bytes(total), dir.display()),
        ),
        None => Finding::note("disk", format!("nothing is known of the disk of {}", dir.display()), ""),
    }
}

fn data() -> Vec<Finding> {
    let store = match DataStore::from_environment() {
        Ok(store) => store,
        Err(error) => return vec![Finding::missing("data", &super::data::problem(error))],
    };
    let finding = |one: crate::data::Listed| {
        let (name, folder) = (one.known.name, one.folder.display());
        match one.presence {
            Presence::Here => Finding::good("data", format!("{name} in {folder}")),
            Presence::Absent => Finding::note(
                "data",
                format!("{name} is not here yet"),
                format!(
                    "`spotsweep run` fetches it when a sweep needs it; by hand: `spotsweep data get {name}`"
                ),
            ),
            Presence::Damaged => Finding::note(
                "data",
                format!("{name} in {folder} is incomplete"),
                format!("`spotsweep data get {name}` makes it whole"),
            ),
        }
    };
    store.list().into_iter().map(finding).collect()
}

async fn coordinator(args: &CoordinatorArgs) -> Finding {
    let named = args.named().is_some();
    match args.open().await {
        Ok(mut source) => match source.status().await {
            Ok(status) => Finding::good(
                "coordinator",
                format!(
                    "{} with {}, {}",
                    status.version,
                    text::count(status.sweeps, "sweep"),
                    text::count(status.workers, "worker")
                ),
            ),
            Err(problem) => Finding::note("coordinator", problem.message, problem.hint),
        },
        Err(problem) if named => Finding::note("coordinator", problem.message, problem.hint),
        Err(_) => Finding::good("coordinator", "none at the usual address; `spotsweep run` brings its own"),
    }
}

fn row(one: &Finding) -> Row {
    Row::new()
        .with("what", Field::text(one.what))
        .with("verdict", Field::text(one.verdict.word()))
        .with("found", Field::text(&one.found))
        .with("hint", Field::text(&one.hint))
}

fn in_words(findings: &[Finding]) -> String {
    let mut words = String::new();
    for one in findings {
        let (style, word) = (one.verdict.style(), one.verdict.word());
        let pad = 9 - word.width();
        words +=
            &format!("{style}{word}{style:#}{:pad$}{:<13}{}\n", "", one.what, text::harmless(&one.found));
        if !one.hint.is_empty() {
            words += &format!("{:22}hint: {}\n", "", text::harmless(&one.hint));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_with_what_to_do() {
        let problem = Problem::new(Code::Missing, "there is no spotsweep-trainer").hint("make build");
        let findings = [
            Finding::good("libtorch", "2.11.0"),
            Finding::note("data", "mnist is not here yet", "`spotsweep data get mnist`"),
            Finding::missing("trainer", &problem),
        ];
        insta::assert_snapshot!(anstream::adapter::strip_str(&in_words(&findings)).to_string());
    }
}
