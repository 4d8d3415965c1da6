//! `spotsweep data`: the data sets on this machine, and those that users have added ([`super::sets`]). The work itself
//! is done by [`crate::data`].

use super::{
    error::{Ending, Outcome},
    out::{self, Out},
    rows::{self, Field, Format, Row},
    sets,
    table::{Align, Cell, Column, Keep, Table},
    trial::state_style,
};
use crate::{
    data::{DataError, DataStore, Got, Listed, Origin, Presence, Step, known},
    error::{Code, Problem, chain},
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::{path::PathBuf, time::Duration};

const EXAMPLES: &str = "Examples:
  spotsweep data add flowers ./flowers         a folder of pictures for each class, a table, NumPy's arrays
  spotsweep data get fashion-mnist
  spotsweep data get mnist --from ~/datasets/mnist
  spotsweep data ls
  export SPOTSWEEP_DATA=/mnt/data               where data sets lie; default: the user's cache";

/// What to do with data sets.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DataArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// Commands of `data`.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Check, split and store data of your own, for sweeps on any number of machines
    Add(Box<sets::AddArgs>),
    /// Show a data set that was added
    Show(sets::ShowSetArgs),
    /// Remove a data set that was added
    Remove(sets::RemoveArgs),
    /// Fetch a known data set, or take it from a folder; verified by hash
    Get(GetArgs),
    /// List the data sets and whether they are here
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Compare data sets, or all known ones that are here, with their hashes
    Verify(VerifyArgs),
    /// Print the folder of a known data set
    Path(PathArgs),
}

/// Options of `data get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The data set
    pub(crate) name: String,
    /// A folder with its files, plain or gzipped
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: Option<PathBuf>,
}

/// Options of `data ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Options of `data verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data sets; all known ones that are here if none is named
    pub(crate) names: Vec<String>,
}

/// Options of `data path`.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// The data set
    pub(crate) name: String,
}

/// Runs it.
///
/// # Errors
/// [`DataError`], as a [`Problem`].
pub(crate) async fn run(args: DataArgs) -> Outcome {
    match &args.command {
        DataCommand::Add(args) => return sets::add(args).await,
        DataCommand::Show(args) => return sets::show(args).await,
        DataCommand::Remove(args) => return sets::remove(args).await,
        DataCommand::Get(_) | DataCommand::Ls(_) | DataCommand::Verify(_) | DataCommand::Path(_) => {}
    }
    let store = DataStore::from_environment().map_err(problem)?;
    let mut data = Out::stdout();
    match &args.command {
        DataCommand::Add(_) | DataCommand::Show(_) | DataCommand::Remove(_) => {}
        DataCommand::Get(args) => {
            let origin = args.from.as_deref().map_or(Origin::Usual, Origin::Folder);
            let got = get(&store, &args.name, origin)?;
            data.line(&got.folder().display().to_string())?;
        }
        DataCommand::Ls(args) => {
            let listed = store.list();
            let added = sets::all().await?;
            match args.format {
                Format::Table => data.table(&table(&listed, &added))?,
                Format::Json => {
                    let rows: Vec<Row> = listed.iter().map(row).chain(added).collect();
                    data.text(&rows::json_lines(&rows))?;
                }
                Format::Csv => {
                    let rows: Vec<Row> = listed.iter().map(row).chain(added.iter().map(csv_row)).collect();
                    data.text(&rows::csv(&rows)?)?;
                }
            }
        }
        DataCommand::Verify(args) => {
            let names = if args.names.is_empty() {
                let here = store.list().into_iter().filter(|one| one.presence != Presence::Absent);
                here.map(|one| one.known.name.to_owned()).collect()
            } else {
                args.names.clone()
            };
            if names.is_empty() {
                out::say(&format!("no data set is in {}", store.root().display()));
            }
            for name in names {
                match known(&name) {
                    Ok(files) => drop(store.verify(files).map_err(problem)?),
                    Err(_) => sets::verify(&name).await?,
                }
                data.line(&format!("{name}: whole and unaltered"))?;
            }
        }
        DataCommand::Path(args) => {
            let folder = store.locate(known(&args.name).map_err(problem)?).map_err(problem)?;
            data.line(&folder.display().to_string())?;
        }
    }
    data.flush()?;
    Ok(Ending::Well)
}

/// Makes a data set lie here, and tells what is going on.
///
/// # Errors
/// [`DataError`], as a [`Problem`].
pub(crate) fn get(store: &DataStore, name: &str, origin: Origin<'_>) -> Result<Got, Problem> {
    let wanted = known(name).map_err(problem)?;
    let bar = ProgressBar::new_spinner().with_message(name.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let got = store.get(wanted, origin, &mut |step: Step| {
        let line = format!("{name}: {step}");
        // Hidden where stderr is no terminal: plain lines then.
        if bar.is_hidden() { out::say(&line) } else { bar.set_message(line) }
    });
    bar.finish_and_clear();
    let got = got.map_err(problem)?;
    match &got {
        Got::Already(folder) => out::note(&format!("{name} is in {} already, verified", folder.display())),
        Got::Placed(folder) => out::note(&format!("{name} is in {}, verified", folder.display())),
    }
    Ok(got)
}

/// A [`DataError`] for people.
#[must_use]
pub(crate) fn problem(error: DataError) -> Problem {
    let code = match &error {
        DataError::Unknown { .. } => Code::BadRequest,
        DataError::NoRoot | DataError::Absent { .. } | DataError::Missing { .. } => Code::Missing,
        DataError::NoProgram { .. } | DataError::Program { .. } => Code::Missing,
        DataError::Contents { .. } => Code::Damaged,
        DataError::Io { .. } => Code::Storage,
    };
    Problem::new(code, chain(&error)).hint(error.hint())
}

fn presence(one: &Listed) -> &'static str {
    match one.presence {
        Presence::Here => "here",
        Presence::Absent => "absent",
        Presence::Damaged => "damaged",
    }
}

fn row(one: &Listed) -> Row {
    Row::new()
        .with("data", Field::text(one.known.name))
        .with("state", Field::text(presence(one)))
        .with("folder", Field::text(&one.folder.display().to_string()))
        .with("licence", Field::text(one.known.licence))
        .with("about", Field::text(one.known.dataset().map(|dataset| dataset.about).unwrap_or_default()))
}

/// An added data set in the columns of the known ones.
fn csv_row(added: &Row) -> Row {
    Row::new()
        .with("data", Field::text(&sets::shown_of(added, "data")))
        .with("state", Field::text(&sets::shown_of(added, "state")))
        .with("folder", Field::text(&sets::shown_of(added, "digest")))
        .with("licence", Field::Nothing)
        .with("about", Field::text(&sets::shown_of(added, "about")))
}

fn table(listed: &[Listed], added: &[Row]) -> Table {
    let mut table = Table::new(vec![
        Column::new("data", Align::Left, Keep::Always),
        Column::new("state", Align::Left, Keep::Always),
        Column::new("folder", Align::Left, Keep::Cut(24)),
        Column::new("licence", Align::Left, Keep::Optional(2)),
        Column::new("about", Align::Left, Keep::Optional(1)),
    ]);
    for one in listed {
        let style = match one.presence {
            Presence::Here => state_style("completed"),
            Presence::Absent => state_style("pending"),
            Presence::Damaged => state_style("failed"),
        };
        table.row(vec![
            one.known.name.into(),
            Cell::styled(presence(one), style),
            one.folder.display().to_string().into(),
            one.known.licence.into(),
            one.known.dataset().map(|dataset| dataset.about).unwrap_or_default().into(),
        ]);
    }
    for one in added {
        table.row(vec![
            sets::shown_of(one, "data").into(),
            Cell::styled("stored", state_style("completed")),
            sets::shown_of(one, "digest").into(),
            "".into(),
            sets::shown_of(one, "about").into(),
        ]);
    }
    table
}
