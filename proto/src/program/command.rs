//! From the command of a sweep file and the parameters of a trial to the arguments that are executed.
//!
//! The macros and what they expand to are those of Weights & Biases ("Sweep configuration options: command macros"), and so
//! is the form of every value. Two things that pass silently there are errors here: a macro that does not exist, and an
//! environment variable that is not set.

use super::{COMMAND_PART_BYTES, COMMAND_PARTS, ProgramSection, params};
use crate::value::Assignment;
use serde_json::Value;
use std::collections::BTreeSet;

/// Longest command with all its arguments, in bytes. Linux takes 2 MiB of arguments and environment together.
pub const COMMAND_BYTES: usize = 1 << 20;
/// The command of a sweep that names only its program.
pub const DEFAULT_COMMAND: [&str; 4] = ["${env}", "${interpreter}", "${program}", "${args}"];
/// What `${env}` stands for.
pub const ENV: &str = "/usr/bin/env";
/// What `${interpreter}` stands for where the worker knows no better.
pub const INTERPRETER: &str = "python3";

/// What stands between `${` and `}`, besides `envvar:NAME`.
pub const MACROS: [&str; 9] = [
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_hyphens",
    "args_no_equals",
    "args_no_boolean_flags",
    "args_json",
    "args_json_file",
];
const VARIABLE: &str = "${envvar:";

/// What a command needs to know of the place in which it runs.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// `${interpreter}`: [`INTERPRETER`], or another one.
    pub interpreter: &'a str,
    /// The environment of the program: `${envvar:NAME}`.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Path of a file that holds [`args_json`]: `${args_json_file}`.
    pub args_json_file: &'a str,
}

/// Why there is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A part is a macro that does not exist.
    #[error("there is no macro ${{{name}}}")]
    NoMacro {
        /// What stands in the braces.
        name: String,
    },
    /// A macro stands inside of other text.
    #[error("${{{name}}} stands inside of other text, where it is not expanded")]
    InsideText {
        /// The macro.
        name: &'static str,
    },
    /// `${program}` without a program.
    #[error("${{program}} stands in the command, but no program is named")]
    NoProgram,
    /// An environment variable that is not set.
    #[error("${{envvar:{name}}}: the environment variable {name} is not set on this worker")]
    Unset {
        /// The variable.
        name: String,
    },
    /// `${envvar:` without a name and a brace behind it.
    #[error("${{envvar:...}} needs the name of an environment variable: letters, digits and _")]
    VariableForm,
    /// A NUL byte.
    #[error("the argument {shown} holds a NUL byte, which no argument can")]
    Nul {
        /// Its beginning.
        shown: String,
    },
    /// Too many arguments.
    #[error("the command has more than {COMMAND_PARTS} arguments")]
    TooMany,
    /// An argument that is too long.
    #[error("the argument {shown} is longer than {COMMAND_PART_BYTES} bytes")]
    PartTooLong {
        /// Its beginning.
        shown: String,
    },
    /// All arguments together are too long.
    #[error("the command is longer than {COMMAND_BYTES} bytes")]
    TooLong,
    /// Nothing is left to execute.
    #[error("the command expands to nothing")]
    Empty,
}

impl CommandError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoMacro { name } => match crate::catalogue::nearest(name, MACROS) {
                Some(near) => format!("did you mean ${{{near}}}?"),
                None if name_of_variable(name) => {
                    format!("for an environment variable write ${{envvar:{name}}}")
                }
                None => format!("one of {}", crate::catalogue::listed(MACROS)),
            },
            Self::InsideText { name } => format!("make \"${{{name}}}\" an item of the command by itself"),
            Self::NoProgram => "add `program: train.py`, or write the script into the command".to_owned(),
            Self::Unset { .. } => "set it where the agent starts, or in `env` of the sweep file".to_owned(),
            Self::VariableForm => "write for instance ${envvar:HOME}".to_owned(),
            Self::Nul { .. } => "remove \\0 from the parameter or command".to_owned(),
            Self::TooMany | Self::PartTooLong { .. } | Self::TooLong => {
                "hand over parameters as a file, with ${args_json_file}".to_owned()
            }
            Self::Empty => "name something to execute in `command`".to_owned(),
        }
    }
}

/// The arguments of a trial's program, the first of which is executed. `Err` where a limit is passed or a variable is missing;
/// what is wrong with the command itself was found when the sweep file was read.
///
/// # Errors
/// See [`CommandError`].
pub fn command(
    section: &ProgramSection,
    params: &Assignment,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<String>, CommandError> {
    let mut arguments = Arguments { parts: Vec::new(), bytes: 0 };
    let named = params::nested(params, &section.groups);
    for part in &section.command {
        match check_part(part, section.program.is_some())? {
            Some("env") => arguments.push(ENV.to_owned())?,
            Some("interpreter") => arguments.push(surroundings.interpreter.to_owned())?,
            Some("program") => arguments.push(section.program.clone().ok_or(CommandError::NoProgram)?)?,
            Some("args_json") => arguments.push(args_json(params, &section.groups))?,
            Some("args_json_file") => arguments.push(surroundings.args_json_file.to_owned())?,
            Some(flags) => {
                for (name, value) in &named {
                    for argument in as_flags(flags, name, value) {
                        arguments.push(argument)?;
                    }
                }
            }
            None => arguments.push(with_variables(part, surroundings.variable)?)?,
        }
    }
    if arguments.parts.first().is_none_or(String::is_empty) {
        return Err(CommandError::Empty);
    }
    Ok(arguments.parts)
}

/// The arguments as far as they are known away from a worker: variables and the path of a file stay as they are written.
/// Empty where a limit is passed.
#[must_use]
pub fn shown(section: &ProgramSection, params: &Assignment) -> Vec<String> {
    let variable = |name: &str| Some(format!("{VARIABLE}{name}}}"));
    let surroundings =
        Surroundings { interpreter: INTERPRETER, variable: &variable, args_json_file: "${args_json_file}" };
    command(section, params, &surroundings).unwrap_or_default()
}

/// All parameters as one JSON object: `${args_json}`, and the content of `${args_json_file}`.
#[must_use]
pub fn args_json(params: &Assignment, groups: &BTreeSet<String>) -> String {
    let mut out = String::new();
    params::json(&Value::Object(params::nested(params, groups)), &mut out);
    out
}

/// The macro that `part` of a command is, or `None` where it is text (in which `${envvar:NAME}` may stand).
///
/// # Errors
/// What is wrong with it on every worker.
pub fn check_part(part: &str, has_program: bool) -> Result<Option<&'static str>, CommandError> {
    variables(part)?;
    let whole = part.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    if let Some(name) = whole.filter(|name| !name.contains(['$', '{', '}', ':', ' '])) {
        return match MACROS.iter().find(|known| **known == name) {
            Some(&"program") if !has_program => Err(CommandError::NoProgram),
            Some(known) => Ok(Some(known)),
            None => Err(CommandError::NoMacro { name: name.chars().take(64).collect() }),
        };
    }
    match MACROS.iter().find(|name| part.contains(&format!("${{{name}}}"))) {
        Some(name) => Err(CommandError::InsideText { name }),
        None => Ok(None),
    }
}

/// One parameter, as the macro `flags` writes it.
fn as_flags(flags: &str, name: &str, value: &Value) -> Vec<String> {
    match (flags, value) {
        ("args_no_hyphens", _) => vec![format!("{name}={}", params::text(value))],
        ("args_no_equals", _) => vec![format!("--{name}"), params::text(value)],
        ("args_no_boolean_flags", Value::Bool(true)) => vec![format!("--{name}")],
        ("args_no_boolean_flags", Value::Bool(false)) => Vec::new(),
        _ => vec![format!("--{name}={}", params::text(value))],
    }
}

fn name_of_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The pieces of `part` between variables, and behind each piece but the last the variable that follows it.
fn variables(part: &str) -> Result<Vec<(&str, Option<&str>)>, CommandError> {
    let (mut pieces, mut rest) = (Vec::new(), part);
    while let Some((before, behind)) = rest.split_once(VARIABLE) {
        let (name, behind) = behind.split_once('}').ok_or(CommandError::VariableForm)?;
        if !name_of_variable(name) {
            return Err(CommandError::VariableForm);
        }
        pieces.push((before, Some(name)));
        rest = behind;
    }
    pieces.push((rest, None));
    Ok(pieces)
}

fn with_variables(part: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, CommandError> {
    let mut out = String::new();
    for (text, name) in variables(part)? {
        out.push_str(text);
        if let Some(name) = name {
            out.push_str(&variable(name).ok_or_else(|| CommandError::Unset { name: name.to_owned() })?);
        }
        if out.len() > COMMAND_BYTES {
            return Err(CommandError::TooLong);
        }
    }
    Ok(out)
}

/// Arguments within their limits.
struct Arguments {
    parts: Vec<String>,
    bytes: usize,
}

impl Arguments {
    fn push(&mut self, part: String) -> Result<(), CommandError> {
        let shown = || part.chars().take(40).filter(|c| !c.is_control()).collect::<String>();
        if part.contains('\0') {
            return Err(CommandError::Nul { shown: shown() });
        }
        if part.len() > COMMAND_PART_BYTES {
            return Err(CommandError::PartTooLong { shown: shown() });
        }
        if self.parts.len() >= COMMAND_PARTS {
            return Err(CommandError::TooMany);
        }
        self.bytes += part.len() + 1;
        if self.bytes > COMMAND_BYTES {
            return Err(CommandError::TooLong);
        }
        self.parts.push(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
