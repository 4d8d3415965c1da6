//! `spotsweep import`: a finished sweep taken back from an export as JSON. Prints its name.
//!
//! The whole export is looked through before anybody is asked: what is damaged is told by file and line, and nothing is sent.

use super::{
    client::{self, CoordinatorArgs},
    error::{Ending, Outcome, io_problem},
    host::{self, FREE_PORT, Host},
    interrupts::Interrupts,
    out::{self, Out},
    rows::{Field, Row},
    show::ShowFormat,
    source::Source,
    submit::token,
    text,
};
use crate::{
    error::{Code, Problem},
    export::manifest::{FILES, MANIFEST},
    grpc::import::PIECE_BYTES,
    http::HttpAddress,
    import::{Head, MANIFEST_BYTES, Reader},
    store::DATABASE_FILE,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use spotsweep_proto::{catalogue::OwnCatalogue, ids::SweepName};
use spotsweep_wire::v1::{ImportBegin, ImportRequest, ImportResponse};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

const EXAMPLES: &str = "Examples:
  spotsweep export ladder --as json --to ladder-json       where it ran
  spotsweep import ladder-json                             where a coordinator runs
  spotsweep import ladder-json --dir november              into a folder
  spotsweep import ladder-json --name ladder-of-november";

/// The hint for a folder that is no export as JSON.
const AS_JSON: &str = "only exports as JSON come back: `spotsweep export SWEEP --as json --to DIR`";
/// How often progress is shown anew.
const TICK: Duration = Duration::from_millis(100);
/// Entries of a folder that are looked at to say what it is.
const LOOKS: usize = 1000;

/// Options of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// The folder that `spotsweep export --as json` made
    #[arg(value_name = "EXPORT")]
    pub(crate) export: PathBuf,
    /// What to call the sweep here [default: as in the export]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How to print what was imported
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ShowFormat,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorArgs,
    /// Take it into this folder of a coordinator, at work or not; it is made if it is not there
    #[arg(long, value_name = "DIR", conflicts_with = "coordinator")]
    pub(crate) dir: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// If there is no whole export, the coordinator does not take it, or does not answer.
pub(crate) async fn run(args: ImportArgs) -> Outcome {
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        outcome = import(args) => outcome,
        () = interrupts.next() => {
            out::say("interrupted: nothing of it is left, unless `spotsweep ls` shows it whole");
            Ok(Ending::Interrupted)
        }
    }
}

async fn import(args: ImportArgs) -> Outcome {
    let ImportArgs { export, name, format, coordinator, dir } = args;
    if let Some(name) = &name {
        SweepName::new(name).map_err(|error| Problem::new(Code::BadRequest, error.to_string()))?;
    }
    let manifest = manifest(&export)?;
    let head = Head::read(&manifest)?;
    let digest = head.digest();
    let verified = export.clone();
    let verified = tokio::task::spawn_blocking(move || verify(&verified, head)).await;
    let bytes = verified.map_err(|error| Problem::internal(&error))??;
    let (mut source, host) = match &dir {
        Some(dir) => of_folder(dir).await?,
        None => (coordinator.open().await.map_err(into_a_folder)?, None),
    };
    let sent = send(&mut source, &export, manifest, name, bytes).await;
    drop(source);
    let closed = match host {
        Some(host) => host.close().await,
        None => Ok(()),
    };
    let answer = sent?;
    closed?;
    let mut out = Out::stdout();
    match format {
        ShowFormat::Text => out.line(&answer.sweep)?,
        ShowFormat::Json => {
            let row = Row::new()
                .with("sweep", Field::text(&answer.sweep))
                .with("trials", Field::Count(answer.trials))
                .with("points", Field::Count(answer.points))
                .with("blake3", Field::text(&digest.to_string()));
            out.line(&row.to_json_line())?;
        }
    }
    out.flush()?;
    let (trials, points) = (text::count(answer.trials, "trial"), text::count(answer.points, "point"));
    out::say(&format!("{} is in, read-only: {trials} and {points}; checkpoints do not travel", answer.sweep));
    Ok(Ending::Well)
}

/// The coordinator of a folder; where none runs, one that is started for this, and is to be closed.
async fn of_folder(dir: &Path) -> Result<(Source, Option<Host>), Problem> {
    if let Some(source) = client::at_work_on(dir).await? {
        return Ok((source, None));
    }
    host::log_to_file(&dir.join("logs").join("coordinator.log"))?;
    let host = Host::open(dir, FREE_PORT, HttpAddress::Off, None, &OwnCatalogue::default()).await?;
    Ok((Source::connect(host.url()).await?, Some(host)))
}

/// Where nobody answers, a folder will do.
fn into_a_folder(problem: Problem) -> Problem {
    match problem.code {
        Code::Unreachable => problem.hint(
            "start one with `spotsweep serve --dir DIR`, name it with --coordinator, or import into a folder with --dir DIR",
        ),
        _ => problem,
    }
}

/// The manifest of the export in `dir`.
fn manifest(dir: &Path) -> Result<Vec<u8>, Problem> {
    let path = dir.join(MANIFEST);
    let found = std::fs::metadata(dir).map_err(|error| io_problem("find", dir, &error))?;
    if !found.is_dir() {
        let message = format!("{} is no folder", text::harmless(&dir.display().to_string()));
        return Err(Problem::new(Code::BadExport, message).hint(AS_JSON));
    }
    if !path.is_file() {
        let message = format!("{} is {}", text::harmless(&dir.display().to_string()), what_it_is(dir));
        return Err(Problem::new(Code::BadExport, message).hint(AS_JSON));
    }
    let mut manifest = Vec::new();
    // One byte more than may be, which is then refused.
    let read =
        File::open(&path).and_then(|file| file.take(MANIFEST_BYTES as u64 + 1).read_to_end(&mut manifest));
    read.map_err(|error| io_problem("read", &path, &error))?;
    Ok(manifest)
}

/// For people: what a folder without a manifest seems to be.
fn what_it_is(dir: &Path) -> &'static str {
    let has = |name: &str| dir.join(name).exists();
    let names = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.take(LOOKS).map(|entry| entry.path()).collect()
    };
    let events = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("events.out.tfevents."))
    };
    let below = names(dir);
    if has("trials.csv") || has("points.csv") {
        "an export as CSV"
    } else if has("trials.parquet") || has("points.parquet") {
        "an export as Parquet"
    } else if has("meta.yaml") || below.iter().any(|path| path.join("meta.yaml").exists()) {
        "an export for MLflow"
    } else if below.iter().any(events) || below.iter().any(|path| names(path).iter().any(events)) {
        "an export for TensorBoard"
    } else if has(DATABASE_FILE) {
        "the folder of a coordinator, which every command that reads takes with --dir"
    } else {
        "no export: it has no manifest.json"
    }
}

/// Looks through the whole export; gives its length.
fn verify(dir: &Path, head: Head) -> Result<u64, Problem> {
    let listed = head.manifest.files.in_order().map(|listed| listed.bytes);
    let mut total: u64 = 0;
    for (name, bytes) in FILES.into_iter().zip(listed) {
        let path = dir.join(name);
        let found = std::fs::metadata(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let message = format!("{name} is missing in {}", text::harmless(&dir.display().to_string()));
                Problem::new(Code::Damaged, message).hint("copy the whole folder of the export")
            }
            _ => io_problem("find", &path, &error),
        })?;
        if found.len() != bytes {
            let what = format!("{name} has {} bytes, and the manifest tells of {bytes}", found.len());
            return Err(
                Problem::new(Code::Damaged, what).hint("copy the whole export again, or export it again")
            );
        }
        total = total.saturating_add(bytes);
    }
    let bar = bar("looking through it", total);
    let mut reader = Reader::new(head)?;
    let mut pieces = Pieces::of(dir);
    while let Some(piece) = pieces.next()? {
        bar.inc(piece.len() as u64);
        reader.feed(&piece)?;
    }
    reader.end()?;
    bar.finish_and_clear();
    Ok(total)
}

async fn send(
    source: &mut Source,
    dir: &Path,
    manifest: Vec<u8>,
    name: Option<String>,
    bytes: u64,
) -> Result<ImportResponse, Problem> {
    let bar = bar("handing it in", bytes);
    let begin = ImportBegin { manifest: manifest.into(), name, token: token()?.to_vec().into() };
    let first = ImportRequest { begin: Some(begin), piece: Vec::new().into() };
    let (mut pieces, moved) = (Pieces::of(dir), bar.clone());
    // Ended early by an error of reading, it is shorter than its manifest says, which the coordinator refuses.
    let rest = std::iter::from_fn(move || {
        let piece = pieces.next().ok().flatten()?;
        moved.inc(piece.len() as u64);
        Some(ImportRequest { begin: None, piece: piece.into() })
    });
    let answer = source.import(futures::stream::iter(std::iter::once(first).chain(rest))).await;
    bar.finish_and_clear();
    answer.map_err(|problem| match problem.code {
        Code::Unreachable | Code::ShuttingDown | Code::StorageStalled => problem.hint(
            "import it again: what broke off has left nothing, and what was complete is not taken twice",
        ),
        _ => problem,
    })
}

/// The files of an export, one behind the other, in pieces.
struct Pieces {
    paths: std::vec::IntoIter<PathBuf>,
    open: Option<(PathBuf, File)>,
}

impl Pieces {
    fn of(dir: &Path) -> Self {
        let paths: Vec<PathBuf> = FILES.iter().map(|name| dir.join(name)).collect();
        Self { paths: paths.into_iter(), open: None }
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        loop {
            if let Some((path, file)) = &mut self.open {
                let mut piece = Vec::new();
                let read = file.take(PIECE_BYTES as u64).read_to_end(&mut piece);
                if read.map_err(|error| io_problem("read", path, &error))? > 0 {
                    return Ok(Some(piece));
                }
            }
            let Some(path) = self.paths.next() else { return Ok(None) };
            let file = File::open(&path).map_err(|error| io_problem("read", &path, &error))?;
            self.open = Some((path, file));
        }
    }
}

/// Hidden where stderr is no terminal.
fn bar(what: &'static str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}  {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    bar
}
