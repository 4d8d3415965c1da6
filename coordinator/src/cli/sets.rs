//! `spotsweep data add`, `show` and `remove`: data sets that users add. The work itself is done by [`crate::data::sets`].

use super::{
    error::{Ending, Outcome},
    interrupts::Interrupts,
    out::{self, Out},
    rows::{Field, Row},
    show::ShowFormat,
    text,
};
use crate::{
    data::{
        SourceOptions,
        sets::{self, AddOptions, OrderChoice, Registered, SetError, SetStore, Step},
    },
    error::{Code, Problem, chain},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use spotsweep_proto::{
    datasets::{
        DataRef, DataSets,
        manifest::{DataManifest, ElementType, SampleOrder},
        reference::{DIGEST_PREFIX, set_name},
    },
    digest::Digest,
};
use std::{collections::BTreeSet, path::PathBuf};

const ADD_EXAMPLES: &str = "Examples:
  spotsweep data add flowers ./flowers --resize 64x64        a folder of pictures for each class
  spotsweep data add wine wine.csv --label-column quality    a table
  spotsweep data add digits digits.npz                       x_train, y_train, x_test, y_test
  spotsweep data add clothes ./idx                           MNIST's four files
  spotsweep data add mine x.npy --labels y.npy --test tx.npy --test-labels ty.npy

Prints the data set's digest; a sweep names it by `train: {data: NAME}` or `{data: blake3:DIGEST}`. Ctrl-C loses
nothing: the same command goes on with what is not stored yet.";

/// Options that say where data sets are stored.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// The object store of data sets: a folder or URL [default: $SPOTSWEEP_DATA_STORE, else `store` in the folder of all
    /// data sets]
    #[arg(long = "to", alias = "store", value_name = "STORE")]
    pub(crate) store: Option<String>,
}

impl StoreArgs {
    fn open(&self) -> Result<SetStore, Problem> {
        SetStore::place(self.store.as_deref()).and_then(|place| SetStore::open(&place)).map_err(problem)
    }
}

/// Options of `data add`.
#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
pub(crate) struct AddArgs {
    /// What it is called in sweeps
    name: String,
    /// A folder of IDX files or of pictures in class folders, or a file .csv, .csv.gz, .npy or .npz
    path: PathBuf,
    /// The test part, in the same format [default: what the source has, else a tenth is held out]
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// Labels of images in .npy
    #[arg(long, value_name = "PATH")]
    labels: Option<PathBuf>,
    /// Labels of test images in .npy
    #[arg(long, value_name = "PATH")]
    test_labels: Option<PathBuf>,
    /// The column of labels in a table: its name, or its number from 0
    #[arg(long, value_name = "COLUMN")]
    label_column: Option<String>,
    /// Names of the classes, in the order of their labels
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    classes: Option<Vec<String>>,
    /// What rows of flat numbers are, for instance 28x28 or 3x32x32 (channels first)
    #[arg(long, value_name = "CxHxW", value_parser = shape)]
    shape: Option<Shape>,
    /// Bring all pictures to this size
    #[arg(long, value_name = "WxH", value_parser = size)]
    resize: Option<Size>,
    /// In which order samples are stored; auto shuffles what is grouped by class
    #[arg(long, value_enum, default_value_t)]
    order: OrderChoice,
    /// Share of the samples that is held out as the test part, in (0, 0.5]
    #[arg(long, value_name = "SHARE", value_parser = fraction)]
    test_fraction: Option<f64>,
    /// Give the name to this content though it stands for another
    #[arg(long)]
    replace: bool,
    /// Where to store it.
    #[command(flatten)]
    store: StoreArgs,
}

/// Options of `data show`.
#[derive(Debug, Args)]
pub(crate) struct ShowSetArgs {
    /// The data set: its name or blake3:DIGEST
    name: String,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: ShowFormat,
    /// Where it is stored.
    #[command(flatten)]
    store: StoreArgs,
}

/// Options of `data remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The data set
    name: String,
    /// Also delete its pieces, as far as no other data set has them; sweeps that still need them will fail
    #[arg(long)]
    purge: bool,
    /// Where it is stored.
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Clone, Copy)]
struct Shape([u32; 3]);

#[derive(Debug, Clone, Copy)]
struct Size([u32; 2]);

fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('x').map(|number| number.parse().ok().filter(|n| *n > 0)).collect()
}

fn shape(text: &str) -> Result<Shape, String> {
    match numbers(text).as_deref() {
        Some([height, width]) => Ok(Shape([1, *height, *width])),
        Some([channels, height, width]) => Ok(Shape([*channels, *height, *width])),
        _ => Err("it looks like 28x28 or 3x32x32".to_owned()),
    }
}

fn size(text: &str) -> Result<Size, String> {
    match numbers(text).as_deref() {
        Some([width, height]) => Ok(Size([*width, *height])),
        _ => Err("it looks like 64x64".to_owned()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if share > 0.0 && share <= 0.5 { Ok(share) } else { Err("it is not in (0, 0.5]".to_owned()) }
}

/// Adds a data set and prints its digest.
///
/// # Errors
/// [`SetError`], as a [`Problem`].
pub(crate) async fn add(args: &AddArgs) -> Outcome {
    let name = set_name(&args.name).map_err(|error| problem(error.into()))?;
    let store = args.store.open()?;
    let mut stop = Interrupts::listen()?;
    let options = AddOptions {
        name,
        path: args.path.clone(),
        source: SourceOptions {
            test: args.test.clone(),
            labels: args.labels.clone(),
            test_labels: args.test_labels.clone(),
            label_column: args.label_column.clone(),
            classes: args.classes.clone(),
            shape: args.shape.map(|shape| shape.0),
            resize: args.resize.map(|size| size.0),
        },
        order: args.order,
        test_fraction: args.test_fraction,
        replace: args.replace,
    };
    let bar = progress_bar();
    let mut step = |step: Step| match step {
        Step::Note(text) => bar.suspend(|| out::note(&text)),
        Step::Bytes(bytes) => bar.set_length(bytes),
        Step::Stored(bytes) => bar.inc(bytes),
    };
    let outcome = tokio::select! {
        outcome = sets::add(&store, options, &mut step) => Some(outcome),
        () = stop.next() => None,
    };
    bar.finish_and_clear();
    let Some(outcome) = outcome else {
        out::say("interrupted; the same command goes on with what is not stored yet");
        return Ok(Ending::Interrupted);
    };
    let added = outcome.map_err(problem)?;
    let mut data = Out::stdout();
    data.line(&format!("{DIGEST_PREFIX}{}", added.digest))?;
    data.flush()?;
    let how = match added.registered {
        Registered::New => "added",
        Registered::Same => "there already",
        Registered::Replaced(_) => "replaced",
    };
    out::say(&format!("{} is {how}: {}", args.name, about(&added.manifest)));
    Ok(Ending::Well)
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// Shows a data set.
///
/// # Errors
/// [`SetError`], as a [`Problem`].
pub(crate) async fn show(args: &ShowSetArgs) -> Outcome {
    let store = args.store.open()?;
    let asked: DataRef = args.name.parse().map_err(|error| problem(SetError::Name(error)))?;
    let (digest, manifest) = store.look_up(&asked).await.map_err(problem)?;
    let row = row(&args.name, digest, &manifest);
    let mut data = Out::stdout();
    match args.format {
        ShowFormat::Json => data.line(&row.to_json_line())?,
        ShowFormat::Text => {
            let (mean, std) = (shown(&manifest.mean), shown(&manifest.std));
            let order = match manifest.order {
                SampleOrder::Kept => "as in the source",
                SampleOrder::Shuffled => "shuffled",
            };
            let classes =
                manifest.classes.iter().map(|class| text::harmless(class)).collect::<Vec<_>>().join(", ");
            let lines = [
                ("data set", args.name.clone()),
                ("digest", format!("{DIGEST_PREFIX}{digest}")),
                ("about", about(&manifest)),
                ("classes", classes),
                ("order", order.to_owned()),
                ("mean, std", format!("{mean}; {std}")),
                ("pieces", format!("{}, {}", manifest.pieces.len(), text::bytes(manifest.bytes()))),
                ("store", store.url().to_owned()),
            ];
            for (name, value) in lines {
                data.line(&format!("{name:<10} {value}"))?;
            }
        }
    }
    data.flush()?;
    Ok(Ending::Well)
}

/// The first few of many numbers.
fn shown(numbers: &[f64]) -> String {
    const SHOWN: usize = 6;
    let more = if numbers.len() > SHOWN { ", …" } else { "" };
    numbers.iter().take(SHOWN).map(f64::to_string).collect::<Vec<_>>().join(", ") + more
}

/// Removes a data set's name, and its pieces if so asked.
///
/// # Errors
/// [`SetError`], as a [`Problem`].
pub(crate) async fn remove(args: &RemoveArgs) -> Outcome {
    let store = args.store.open()?;
    let name = set_name(&args.name).map_err(|error| problem(error.into()))?;
    let removed = store.remove(&name, args.purge).await.map_err(problem)?;
    let pieces = if args.purge {
        format!("and {} with it", text::count(removed as u64, "object"))
    } else {
        "its pieces stay for sweeps that need them (--purge deletes them)".to_owned()
    };
    out::say(&format!("{name} is removed; {pieces}"));
    Ok(Ending::Well)
}

/// Every data set that is stored where nothing else is said. Nowhere is no error here.
///
/// # Errors
/// The store fails.
pub(crate) async fn all() -> Result<Vec<Row>, Problem> {
    let Some(store) = SetStore::usual().map_err(problem)? else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for name in store.names().await.map_err(problem)? {
        match store.look_up(&DataRef::Named(name.clone())).await {
            Ok((digest, manifest)) => rows.push(row(name.as_str(), digest, &manifest)),
            Err(error) => out::warn(&format!("{name}: {}", chain(&error))),
        }
    }
    Ok(rows)
}

/// Reads every piece of a stored data set.
///
/// # Errors
/// [`SetError`], as a [`Problem`].
pub(crate) async fn verify(name: &str) -> Result<(), Problem> {
    let asked: DataRef = name.parse().map_err(|error| problem(SetError::Name(error)))?;
    let unknown = || Problem::new(Code::BadRequest, format!("there is no data set {name:?}"));
    let store = SetStore::usual().map_err(problem)?;
    let store = store.ok_or_else(|| unknown().hint("`spotsweep data ls` lists what is there"))?;
    let (digest, manifest) = store.look_up(&asked).await.map_err(problem)?;
    let bar = progress_bar();
    bar.set_length(manifest.bytes());
    let verified = store.verify(digest, |bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    verified.map(|_| ()).map_err(problem)
}

/// What sweeps that ask for these data sets may have, from the usual store.
///
/// # Errors
/// The store fails.
pub(crate) fn known(asked: BTreeSet<DataRef>) -> Result<DataSets, Problem> {
    if asked.is_empty() {
        return Ok(DataSets::stored());
    }
    // On a thread of its own: callers may stand in a runtime or not.
    let looked_up = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::internal(&error))?;
        match SetStore::usual().map_err(problem)? {
            Some(store) => runtime.block_on(store.known(&asked)).map_err(problem),
            None => Ok(DataSets::stored()),
        }
    });
    looked_up.join().map_err(|_| problem(SetError::Thread))?
}

/// A [`SetError`] for people.
#[must_use]
pub(crate) fn problem(error: SetError) -> Problem {
    let code = match &error {
        SetError::Source { .. } | SetError::Options { .. } | SetError::Place { .. } | SetError::Name(_) => {
            Code::BadRequest
        }
        SetError::Unknown { .. } | SetError::NoPlace => Code::Missing,
        SetError::Exists { .. } => Code::InUse,
        SetError::Piece { .. } | SetError::Manifest(_) | SetError::Entry { .. } => Code::Damaged,
        SetError::Io { .. } | SetError::Store { .. } => Code::Storage,
        SetError::Thread => Code::Internal,
    };
    Problem::new(code, chain(&error)).hint(error.hint())
}

fn about(manifest: &DataManifest) -> String {
    let [channels, height, width] = manifest.shape;
    let elements = match manifest.elements {
        ElementType::U8 => "u8",
        ElementType::F32 => "f32",
    };
    let (train, test) = (manifest.train_samples, manifest.test_samples);
    format!(
        "{} classes, {channels}x{height}x{width} {elements}, {} to train and {} to test on",
        manifest.classes.len(),
        text::grouped(train.into()),
        text::grouped(test.into())
    )
}

fn row(name: &str, digest: Digest, manifest: &DataManifest) -> Row {
    Row::new()
        .with("data", Field::text(name))
        .with("state", Field::text("stored"))
        .with("digest", Field::text(&format!("{DIGEST_PREFIX}{digest}")))
        .with("about", Field::text(&about(manifest)))
        .with("classes", Field::Json(manifest.classes.clone().into()))
        .with("shape", Field::Json(manifest.shape.to_vec().into()))
        .with("train_samples", Field::Count(manifest.train_samples.into()))
        .with("test_samples", Field::Count(manifest.test_samples.into()))
        .with("pieces", Field::Count(manifest.pieces.len() as u64))
        .with("bytes", Field::Count(manifest.bytes()))
}

/// What a table shows of a row.
#[must_use]
pub(crate) fn shown_of(row: &Row, name: &str) -> String {
    match row.0.iter().find(|(field, _)| field == name) {
        Some((_, Field::Text(text))) => text.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(shape("28x28").unwrap().0, [1, 28, 28]);
        assert_eq!(shape("3x32x16").unwrap().0, [3, 32, 16]);
        assert_eq!(size("64x32").unwrap().0, [64, 32]);
        for text in ["", "x", "0x1", "-1x2", "1", "1x2x3x4", "99999999999x1"] {
            assert!(shape(text).is_err() && size(text).is_err(), "{text}");
        }
        assert!(fraction("0.6").is_err() && fraction("0").is_err() && fraction("nan").is_err());
    }
}
