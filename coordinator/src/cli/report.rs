//! `spotsweep report`: a sweep on one page.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome, io_problem},
    out::{self, Out},
};
use crate::{
    error::{Code, Problem},
    report::{Gatherer, html, markdown},
};
use clap::{Args, ValueEnum};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

const EXAMPLES: &str = "Examples:
  spotsweep report fashion-ladder --to ladder.html     one file, for any browser
  spotsweep report fashion-ladder --as md              for a repository or a mail";

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// One HTML file with drawings and without script
    Html,
    /// Markdown
    Md,
}

/// Options of `report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// The sweep; may be left out where there is only one
    pub(crate) sweep: Option<String>,
    /// The file to write, stdout if none; an older report is replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// How to write it [default: by the name of the file, else md]
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    pub(crate) kind: Option<Kind>,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such sweep, or reading or writing fails.
pub(crate) async fn run(args: ReportArgs) -> Outcome {
    let by_name =
        args.to.as_deref().and_then(Path::extension).is_some_and(|end| end == "html" || end == "htm");
    let kind = args.kind.unwrap_or(if by_name { Kind::Html } else { Kind::Md });
    let mut source = args.read.open(args.sweep.as_deref()).await?;
    let name = source.sweep_or_only(args.sweep).await?;
    let shown = source.show(&name).await?;
    let nothing = || Problem::new(Code::Internal, "the coordinator shows a sweep without a summary");
    let mut gatherer = Gatherer::new(shown.sweep.ok_or_else(nothing)?, &shown.spec_json);
    source
        .results(&name, &mut |trial| {
            gatherer.trial(trial);
            Ok(())
        })
        .await?;
    for trial in gatherer.wanted() {
        source
            .metrics(&trial.trial, &mut |point| {
                gatherer.point(trial.number, &point);
                Ok(())
            })
            .await?;
    }
    let story = gatherer.end(source.workers().await?);
    let page = match kind {
        Kind::Html => html::page(&story),
        Kind::Md => markdown::page(&story),
    };
    let Some(to) = args.to else {
        let mut out = Out::stdout();
        out.text(&page)?;
        out.flush()?;
        return Ok(Ending::Well);
    };
    write(&to, &page)?;
    let mut out = Out::stdout();
    out.line(&to.display().to_string())?;
    out.flush()?;
    out::say(&format!("{name}: {}", super::text::bytes(page.len() as u64)));
    Ok(Ending::Well)
}

/// Beside its place, and then there: nobody sees half of it.
fn write(to: &Path, page: &str) -> Result<(), Problem> {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: &std::io::Error| io_problem("write", to, error);
    let mut file = tempfile::Builder::new()
        .prefix(".report-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(parent)
        .map_err(|error| failed(&error))?;
    file.write_all(page.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(|error| failed(&error))?;
    file.persist(to).map(drop).map_err(|error| failed(&error.error))
}
