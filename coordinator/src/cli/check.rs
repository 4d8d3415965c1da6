//! `spotsweep check`: what a sweep file would run, or what is wrong with it.

use super::{
    code,
    error::{Ending, Outcome},
    local,
    modules::{self, LocalModule},
    out::{Out, note},
    show::ShowFormat,
    sweep_file,
    table::{Align, Cell, Column, Keep, Table},
    text,
};
use anstyle::Style;
use clap::Args;
use serde_json::{Value, json};
use spotsweep_archive::Contents;
use spotsweep_proto::{
    metric::Goal,
    spec::{Summary, SweepSpec},
};
use std::{collections::BTreeSet, path::PathBuf};

const EXAMPLES: &str = "Examples:
  spotsweep check sweep.yaml
  spotsweep check sweep.yaml --format json | jq .trials
  spotsweep check sweep.yaml --trainer target/release/custom-model";

/// Files of code that are listed.
const SHOWN_FILES: usize = 20;

/// Options of `check`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The sweep file
    pub(crate) file: PathBuf,
    /// Also know the models and data sets of this trainer
    #[arg(long, value_name = "PATH")]
    pub(crate) trainer: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ShowFormat,
}

/// Runs it.
///
/// # Errors
/// Everything that is wrong with the file.
pub(crate) async fn run(args: CheckArgs) -> Outcome {
    let own = local::models_of(args.trainer.as_deref()).await?;
    let file = sweep_file::read(&args.file, &own)?;
    let summary = file.spec.summary();
    let code = code::contents(&file)?;
    code::about_wandb(&file).iter().for_each(|words| note(words));
    let modules = modules::find(&file)?;
    let mut out = Out::stdout();
    match args.format {
        ShowFormat::Text => {
            out.text(&in_words(&file.spec, &summary, super::out::width()))?;
            if file.spec.program.is_some() {
                out.text(&code_in_words(code.as_ref()))?;
            }
            out.text(&modules_in_words(&modules))?;
        }
        ShowFormat::Json => out.line(&in_json(&summary, code.as_ref(), &modules).to_string())?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

/// What would run, and what would travel, for programs.
fn in_json(summary: &Summary, code: Option<&(PathBuf, Contents)>, modules: &[LocalModule]) -> Value {
    let mut json = serde_json::to_value(summary).unwrap_or_default();
    if let (Some((folder, contents)), Value::Object(fields)) = (code, &mut json) {
        let files = contents.files.iter().map(|(path, bytes)| json!({"path": path, "bytes": bytes}));
        let code = json!({
            "folder": folder.display().to_string(),
            "bytes": contents.bytes(),
            "files": files.collect::<Vec<_>>(),
        });
        fields.insert("code".to_owned(), code);
    }
    if let (false, Value::Object(fields)) = (modules.is_empty(), &mut json) {
        fields.insert("modules".to_owned(), modules.iter().map(LocalModule::json).collect());
    }
    json
}

/// What would travel, for people.
fn code_in_words(code: Option<&(PathBuf, Contents)>) -> String {
    let bold = Style::new().bold();
    let Some((folder, contents)) = code else {
        return format!(
            "\n{bold}code{bold:#}  none travels: every worker has the program itself (`code: .` sends the folder along)\n"
        );
    };
    let files = text::count(contents.files.len() as u64, "file");
    let folder = text::harmless(&folder.display().to_string()).into_owned();
    let mut words = format!("\n{bold}code{bold:#}  {folder}: {files}, {}\n", text::bytes(contents.bytes()));
    for (path, bytes) in contents.files.iter().take(SHOWN_FILES) {
        words += &format!("  {:>10}  {}\n", text::bytes(*bytes), text::harmless(path));
    }
    if contents.files.len() > SHOWN_FILES {
        words += &format!("  … and {} more\n", text::grouped((contents.files.len() - SHOWN_FILES) as u64));
    }
    words
}

/// The modules that would travel, for people; nothing where there are none.
fn modules_in_words(modules: &[LocalModule]) -> String {
    let bold = Style::new().bold();
    let mut words = String::new();
    for LocalModule { file, code, .. } in modules {
        words += &format!(
            "  {:>10}  {}  {}\n",
            text::bytes(code.bytes),
            code.digest.short(),
            text::harmless(file)
        );
    }
    if words.is_empty() { words } else { format!("\n{bold}modules{bold:#}\n{words}") }
}

/// What would run, for people.
#[must_use]
pub(crate) fn in_words(spec: &SweepSpec, summary: &Summary, width: Option<usize>) -> String {
    let bold = Style::new().bold();
    let trials = text::count(summary.trials.into(), "trial");
    let of = match summary.grid_trials {
        Some(all) if all > u64::from(summary.trials) => {
            format!(" (run_cap; the grid has {})", text::grouped(all))
        }
        Some(_) | None => String::new(),
    };
    let mut words = format!("{bold}{}{bold:#}: {trials}{of}, {}", summary.name, summary.method);
    if let Some(objective) = &spec.objective {
        let goal = match objective.goal {
            Goal::Minimize => "minimize",
            Goal::Maximize => "maximize",
        };
        words += &format!(", {goal} {}", objective.name);
        if let Some(target) = objective.target {
            words += &format!(" until {target}");
        }
    }
    words += "\n";
    if !spec.description.trim().is_empty() {
        words += &format!("{}\n", text::harmless_lines(spec.description.trim()));
    }

    words += &format!("\n{bold}parameters{bold:#}\n");
    let mut parameters = Table::new(vec![
        Column::new("name", Align::Left, Keep::Always),
        Column::new("values", Align::Left, Keep::Cut(30)),
        Column::new("distribution", Align::Left, Keep::Optional(1)),
        Column::new("only for", Align::Left, Keep::Optional(2)),
    ]);
    for one in &summary.parameters {
        // Worth a word only where some models of the sweep lack it.
        let only =
            if one.models.len() < summary.models.len() { one.models.join(", ") } else { String::new() };
        parameters.row(vec![
            one.name.as_str().into(),
            one.shown.as_str().into(),
            one.distribution.into(),
            only.into(),
        ]);
    }
    words += &indented(&parameters, width);

    words += &format!("\n{bold}first trials{bold:#}\n");
    words += &indented(&first_trials(summary), width);
    if u64::from(summary.trials) > summary.first.len() as u64 {
        words += &format!(
            "  … and {} more\n",
            text::grouped(u64::from(summary.trials) - summary.first.len() as u64)
        );
    }
    if let Some(first) = summary.first.first().filter(|first| !first.command.is_empty()) {
        let command = text::command(&first.command);
        words += &format!("\n{bold}command{bold:#}  of trial {}: {command}\n", first.number);
    }

    let about = if summary.counted < summary.trials {
        format!(" among the first {}", text::count(summary.counted.into(), "trial"))
    } else {
        String::new()
    };
    if summary.models.len() > 1 {
        let models =
            summary.models.iter().map(|(name, count)| format!("{name} {}", text::grouped((*count).into())));
        words += &format!("\n{bold}models{bold:#}  {}{about}\n", models.collect::<Vec<_>>().join(", "));
    }
    if summary.repeated > 0 {
        let yellow = Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
        words += &format!(
            "\n{yellow}warning:{yellow:#} {}{about} would train exactly what an earlier one trains: they differ only in \
             parameters that their model does not have\n",
            text::count(summary.repeated.into(), "trial")
        );
    }
    words
}

/// The first trials with the parameters that differ between them, what they train on and for how long.
fn first_trials(summary: &Summary) -> Table {
    let constant = |name: &str| {
        let mut values = summary.first.iter().map(|one| one.params.get(name));
        let first = values.next();
        values.all(|value| Some(value) == first)
    };
    let names: Vec<&str> = summary.parameters.iter().map(|one| one.name.as_str()).collect();
    let shown: Vec<&str> = if names.iter().all(|name| constant(name)) {
        names
    } else {
        let varying: BTreeSet<&str> = summary
            .parameters
            .iter()
            .filter(|one| one.values != Some(1))
            .map(|one| one.name.as_str())
            .collect();
        names.into_iter().filter(|name| varying.contains(name)).collect()
    };
    let mut columns = vec![Column::new("#", Align::Right, Keep::Always)];
    columns.extend(shown.iter().enumerate().map(|(index, name)| {
        Column::new(
            name,
            Align::Left,
            if index < 4 { Keep::Cut(8) } else { Keep::Optional(u16::try_from(index).unwrap_or(u16::MAX)) },
        )
    }));
    // A program alone knows its model, data and length.
    let recipes = summary.first.iter().any(|one| one.recipe.is_some());
    if recipes {
        if !shown.contains(&"model") {
            columns.push(Column::new("model", Align::Left, Keep::Optional(2)));
        }
        columns.push(Column::new("data", Align::Left, Keep::Optional(3)));
        columns.push(Column::new("length", Align::Left, Keep::Optional(1)));
    }
    let mut table = Table::new(columns);
    for one in &summary.first {
        let mut cells: Vec<Cell> = vec![one.number.to_string().into()];
        cells.extend(
            shown.iter().map(|name| one.params.get(*name).map(text::parameter).unwrap_or_default().into()),
        );
        if let Some(recipe) = &one.recipe {
            if !shown.contains(&"model") {
                cells.push(recipe.model.name().into());
            }
            cells.push(text::data_set(&recipe.data).into());
            cells.push(one.length().into());
        }
        table.row(cells);
    }
    table
}

fn indented(table: &Table, width: Option<usize>) -> String {
    let rendered = table.render(width.map(|width| width.saturating_sub(2)));
    rendered.text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_proto::spec::parse;

    fn checked(source: &str) -> String {
        let spec = parse(source.as_bytes(), "sweep.yaml").unwrap();
        anstream::adapter::strip_str(&in_words(&spec, &spec.summary(), Some(100))).to_string()
    }

    #[test]
    fn a_grid_is_shown_as_what_would_run() {
        insta::assert_snapshot!(checked(include_str!("../../../examples/fashion-ladder.yaml")));
    }

    #[test]
    fn a_random_search_is_shown_as_what_would_run() {
        insta::assert_snapshot!(checked(include_str!("../../../examples/random-search.yaml")));
    }

    #[test]
    fn a_program_is_shown_with_its_command_and_without_a_model() {
        insta::assert_snapshot!(checked(include_str!("../../../examples/own-program/sweep.yaml")));
    }

    #[test]
    fn what_travels_is_listed_and_cut_where_it_is_much() {
        let files = (0..30).map(|n| (format!("src/{n:02}\u{1b}.py"), n * 1000)).collect();
        let code = (PathBuf::from("./src"), Contents { files });
        insta::assert_snapshot!(anstream::adapter::strip_str(&code_in_words(Some(&code))).to_string());
        insta::assert_snapshot!(anstream::adapter::strip_str(&code_in_words(None)).to_string());
    }

    #[test]
    fn trials_that_repeat_others_are_warned_of() {
        insta::assert_snapshot!(checked(
            "parameters: {model: {values: [softmax, mlp]}, dropout: {values: [0.1, 0.2]}}
run_cap: 3
train: {data: mnist, steps: 5}
method: grid"
        ));
    }
}
