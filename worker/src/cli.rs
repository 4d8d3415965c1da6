//! The command line of `spotsweep-worker`, and what follows from it.

use clap::{Parser, ValueEnum};
use spotsweep_proto::ids::{DeviceName, NameError, WorkerName};
use spotsweep_wire::error::Code;
use spotsweep_worker::{
    AgentError, DATA_CACHE_BYTES, DataFolders, DeviceChoice, GangAddress, GangSettings, Machine,
    NoticeChoice, NoticeError, NoticeSettings, ProcessSettings, TrainerError,
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tracing_subscriber::EnvFilter;

/// The trainer that is looked for where none is named.
const TRAINER: &str = "spotsweep-trainer";

const EXAMPLES: &str = "\
Examples:
  spotsweep-worker
      One agent for the coordinator on this machine, with all GPUs, or the CPU where there are none.
  spotsweep-worker --coordinator http://127.0.0.1:7077 --device cpu --name cpu-2
      A second agent, on the CPU. Several agents may run on one machine.
  spotsweep-worker --notice-listen 127.0.0.1:7099
      Leaves in order after `curl -X POST 127.0.0.1:7099`, for schedulers that it does not know.
  spotsweep-worker --trainer none
      For sweeps with a program of their own: nothing but this agent is needed on the machine.
  spotsweep-worker --trainer ./my-trainer
      With another program that speaks the line protocol of trainers.

Exit status: 0 after an orderly farewell (SIGTERM, SIGINT, a notice), 1 on an error, 2 for a wrong command line, 8 without
a usable trainer, 128 plus the signal's number after a second signal; when the coordinator rejects the agent,
that of the reason, as `spotsweep` gives it.";

/// Takes leases from a coordinator, trains, and reports.
///
/// One trainer process runs for each device. On SIGTERM or SIGINT the agent takes nothing new, stops its jobs
/// with a checkpoint, hands their leases back and leaves; a second signal ends it at once. It does the same when its
/// cloud or scheduler warns that the machine will be taken.
#[derive(Debug, Parser)]
#[command(name = "spotsweep-worker", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where the coordinator listens; several, parted by commas, are tried in turn.
    #[arg(
        long,
        value_name = "URL",
        env = "SPOTSWEEP_COORDINATOR",
        default_value = "http://127.0.0.1:7077",
        value_delimiter = ','
    )]
    pub(crate) coordinator: Vec<String>,

    /// Name of this worker, for people [default: the host's name].
    #[arg(long, env = "SPOTSWEEP_WORKER_NAME")]
    name: Option<String>,

    /// Where to train: auto (all GPUs, or the CPU where there are none), cpu, cuda:0, …
    #[arg(long, value_name = "DEVICE", env = "SPOTSWEEP_DEVICE", default_value = "auto")]
    device: String,

    /// Program that trains the models of the catalogue [default: spotsweep-trainer beside this program, else in PATH]; none:
    /// this agent carries out sweeps with a `program` alone, and needs no libtorch.
    #[arg(long, value_name = "PATH", env = "SPOTSWEEP_TRAINER")]
    trainer: Option<PathBuf>,

    /// Folder for files on their way [default: spotsweep-worker in the system's temporary folder].
    #[arg(long, value_name = "SCRATCH", env = "SPOTSWEEP_SCRATCH")]
    dir: Option<PathBuf>,

    /// Folder of all data sets [default: $SPOTSWEEP_DATA, else spotsweep/data in the user's cache].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Most bytes of added data sets that are kept on this machine, in `cache` below that folder; agents share it.
    #[arg(long, value_name = "BYTES", env = "SPOTSWEEP_DATA_CACHE_BYTES", default_value_t = DATA_CACHE_BYTES)]
    data_cache_bytes: u64,

    /// Whose notices that the machine will be taken are heard: auto (the cloud that the firmware names, and Slurm
    /// inside a job), off, aws, gce, azure, slurm.
    #[arg(
        long,
        value_name = "SOURCE",
        env = "SPOTSWEEP_NOTICES",
        default_value = "auto",
        hide_possible_values = true
    )]
    notices: NoticeChoice,

    /// A file whose existence is a notice, for whoever can run touch. It may say {"in_s": 30, "reason": "price"}.
    #[arg(long, value_name = "PATH", env = "SPOTSWEEP_NOTICE_FILE")]
    notice_file: Option<PathBuf>,

    /// A loopback address on which a POST is a notice, with or without such a text.
    #[arg(long, value_name = "ADDRESS", env = "SPOTSWEEP_NOTICE_LISTEN")]
    notice_listen: Option<SocketAddr>,

    /// Seconds that jobs have to stop with a checkpoint and to be handed over when the agent leaves after a signal,
    /// or after a notice that promises no time.
    #[arg(long, value_name = "SECONDS", env = "SPOTSWEEP_GRACE_S", default_value = "25", value_parser = seconds)]
    grace_s: Duration,

    /// Seconds without a word after which a trainer that has a job is taken to hang. Trainers report at least
    /// once an epoch, so an epoch must not take longer.
    #[arg(long, value_name = "SECONDS", env = "SPOTSWEEP_TRAINER_TIMEOUT_S", default_value = "600", value_parser = seconds)]
    trainer_timeout_s: Duration,

    /// Address of this machine at which the workers that train a trial together with this one reach it [default: the
    /// one from which it reaches the coordinator].
    #[arg(long, value_name = "ADDRESS", env = "SPOTSWEEP_GANG_ADDRESS")]
    gang_address: Option<String>,

    /// Seconds without a word from such a worker after which it is taken to be lost, and the others go on without it.
    #[arg(long, value_name = "SECONDS", env = "SPOTSWEEP_GANG_TIMEOUT_S", default_value = "10", value_parser = seconds)]
    gang_timeout_s: Duration,

    /// Leave when stdin ends: for a program that starts agents and may die.
    #[arg(long)]
    pub(crate) exit_with_parent: bool,

    /// What to log on stderr: error, warn, info, debug, trace, or a filter such as spotsweep_worker=debug.
    #[arg(long, value_name = "FILTER", env = "SPOTSWEEP_LOG", default_value = "info")]
    log: String,

    /// How to log.
    #[arg(long, value_name = "FORMAT", env = "SPOTSWEEP_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is written for no trainer.
const NO_TRAINER: &str = "none";
/// Most seconds that a duration on the command line may have: a year.
const SECONDS_LIMIT: f64 = 31_536_000.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if !(0.0..=SECONDS_LIMIT).contains(&number) {
        return Err(format!("it is not between 0 and {SECONDS_LIMIT}"));
    }
    Ok(Duration::from_secs_f64(number))
}

/// Why the program ends with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{name:?} is no device\nhint: write auto, cpu, or cuda:0")]
    Device {
        name: String,
        #[source]
        source: NameError,
    },
    #[error("{name:?} is no name for a worker")]
    Name {
        name: String,
        #[source]
        source: NameError,
    },
    #[error("{filter:?} is no log filter\nhint: write error, warn, info, debug or trace")]
    Log {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("the program's runtime does not start")]
    Runtime(#[source] std::io::Error),
    #[error("signals cannot be listened to")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Notices(#[from] NoticeError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

impl CliError {
    /// One list for all of Spotsweep's programs: [`Code`].
    pub(crate) fn exit_status(&self) -> u8 {
        let code = match self {
            Self::Device { .. } | Self::Name { .. } | Self::Log { .. } => Code::BadRequest,
            Self::Runtime(_) | Self::Signals(_) => Code::Internal,
            Self::Notices(error) => match error {
                NoticeError::NotLoopback { .. } | NoticeError::NoSlurmJob => Code::BadRequest,
                NoticeError::Listen { .. } | NoticeError::Signal(_) => Code::Internal,
            },
            Self::Agent(error) => match error {
                AgentError::Url { .. } => Code::BadAddress,
                AgentError::Rejected { code, .. } => code.parse().unwrap_or(Code::Internal),
                AgentError::Trainer(
                    TrainerError::Missing { .. }
                    | TrainerError::None
                    | TrainerError::NotReady { .. }
                    | TrainerError::NoDevice { .. },
                ) => Code::Missing,
                AgentError::Trainer(TrainerError::Scratch { .. })
                | AgentError::Random(_)
                | AgentError::Reports
                | AgentError::GraceOver => Code::Internal,
            },
        };
        code.exit_status()
    }
}

/// Starts logging to stderr.
pub(crate) fn start_log(arguments: &Arguments) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&arguments.log)
        .map_err(|source| CliError::Log { filter: arguments.log.clone(), source })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            log.with_target(false).with_ansi(colour).init();
        }
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Where notices come from.
pub(crate) fn notices(arguments: &Arguments) -> NoticeSettings {
    NoticeSettings {
        choice: arguments.notices,
        file: arguments.notice_file.clone(),
        listen: arguments.notice_listen,
    }
}

/// What trainer processes need to know.
pub(crate) fn settings(arguments: &Arguments) -> Result<ProcessSettings, CliError> {
    let device = match arguments.device.as_str() {
        "auto" => DeviceChoice::Auto,
        name => DeviceChoice::Only(
            DeviceName::new(name).map_err(|source| CliError::Device { name: name.to_owned(), source })?,
        ),
    };
    let scratch = arguments.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("spotsweep-worker"));
    Ok(ProcessSettings {
        program: match arguments.trainer.clone() {
            Some(none) if none.as_os_str() == NO_TRAINER => None,
            given => Some(given.unwrap_or_else(find_trainer)),
        },
        guard: std::env::current_exe().ok(),
        device,
        scratch,
        data: DataFolders::new(arguments.data_dir.clone()).with_cache_bytes(arguments.data_cache_bytes),
        grace: arguments.grace_s,
        silence: arguments.trainer_timeout_s,
        gang: GangSettings {
            address: match &arguments.gang_address {
                Some(address) => GangAddress::Given(address.clone()),
                None => GangAddress::Towards(arguments.coordinator.clone()),
            },
            timeout: arguments.gang_timeout_s,
        },
        environment: Vec::new(),
    })
}

/// The trainer beside this program, else the first in PATH, else where it should be.
fn find_trainer() -> PathBuf {
    let here = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(TRAINER)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(TRAINER));
    let found = here.clone().into_iter().chain(in_path).find(|candidate| candidate.is_file());
    found.or(here).unwrap_or_else(|| PathBuf::from(TRAINER))
}

/// The worker's name: as given, or the host's, as far as it is one.
pub(crate) fn name(arguments: &Arguments, machine: &Machine) -> Result<WorkerName, CliError> {
    let given = arguments.name.as_deref();
    let name = given.map_or_else(|| worker_name_of(&machine.host), ToOwned::to_owned);
    WorkerName::new(&name).map_err(|source| CliError::Name { name, source })
}

fn worker_name_of(host: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let name: String = host.chars().filter(fits).take(64).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "worker".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent_and_its_help_has_examples() {
        Arguments::command().debug_assert();
        let help = Arguments::command().render_help().to_string();
        assert!(help.contains("Examples:") && help.contains("SPOTSWEEP_COORDINATOR"), "{help}");
    }

    #[test]
    fn the_documentation_names_every_variable() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/command-line.md"));
        for argument in Arguments::command().get_arguments() {
            let Some(name) = argument.get_env().map(|name| name.display().to_string()) else { continue };
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn any_host_name_gives_a_worker_name() {
        for host in ["box", "ip-10-0-0-1.ec2.internal", "", "-x", "größe", "a b", ".", &"h".repeat(300)] {
            WorkerName::new(&worker_name_of(host)).unwrap();
        }
    }

    #[test]
    fn seconds_that_make_no_sense_are_refused() {
        for text in ["-1", "nan", "inf", "x", "", "1e99"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    }
}
