//! `spotsweep workers`: one row a worker.

use super::{
    client::ReadArgs,
    error::{Ending, Outcome},
    out::Out,
    rows::{self, Field, Format, Row},
    table::{Align, Cell, Column, Keep, Table},
    text,
    trial::state_style,
};
use crate::driver::machine_time_us;
use clap::Args;
use spotsweep_wire::v1::{Device, DeviceKind, WorkerSummary};

const EXAMPLES: &str = "Examples:
  spotsweep workers
  spotsweep workers --format json | jq '.devices[].trials'

A worker joins with: spotsweep-worker --coordinator URL";

/// Options of `workers`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WorkersArgs {
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Where to read.
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// Runs it.
///
/// # Errors
/// If the source fails.
pub(crate) async fn run(args: WorkersArgs) -> Outcome {
    let workers = args.read.open(None).await?.workers().await?;
    let mut out = Out::stdout();
    match args.format {
        Format::Table if workers.is_empty() => {
            super::out::say("no workers; one joins with `spotsweep-worker --coordinator URL`");
        }
        Format::Table => out.table(&table(&workers, machine_time_us()))?,
        Format::Json => out.text(&rows::json_lines(&workers.iter().map(row).collect::<Vec<_>>()))?,
        Format::Csv => out.text(&rows::csv(&workers.iter().map(row).collect::<Vec<_>>())?)?,
    }
    out.flush()?;
    Ok(Ending::Well)
}

fn kind(device: &Device) -> &'static str {
    match device.kind() {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Cuda => "cuda",
        DeviceKind::Unspecified => "unknown",
    }
}

/// Everything about a worker. The names are part of the interface for scripts.
#[must_use]
pub(crate) fn row(worker: &WorkerSummary) -> Row {
    let devices = worker.devices.iter().map(|summary| {
        let device = summary.device.clone().unwrap_or_default();
        serde_json::json!({
            "name": device.name,
            "kind": kind(&device),
            "model": device.model,
            "memory_bytes": device.memory_bytes,
            "trials": summary.trials,
        })
    });
    let machine = worker.machine.clone().unwrap_or_default();
    let machine = [
        ("host", Field::text(&machine.host)),
        ("cpu", Field::text(&machine.cpu)),
        ("cores", Field::Count(machine.cores.into())),
        ("memory_bytes", Field::Count(machine.memory_bytes)),
        ("libtorch", Field::text(&machine.libtorch)),
        ("instance_type", Field::text(&machine.instance_type)),
        ("zone", Field::text(&machine.zone)),
        ("pid", Field::Count(machine.pid.into())),
        ("version", Field::text(&machine.version)),
    ];
    Row::new()
        .with("worker", Field::text(&worker.name))
        .with("state", Field::text(&worker.state))
        .with("devices", Field::Json(devices.collect()))
        .with("machine", Field::Group(machine.map(|(name, field)| (name.to_owned(), field)).into()))
        .with("since", Field::time(Some(worker.since_us)))
        .with("last_heard", Field::time(worker.last_heard_us))
        .with("notice", Field::text(&worker.notice))
        .with("noticed", Field::time(worker.noticed_us))
}

/// Workers as a table; `now_us` tells how long ago things were.
#[must_use]
pub(crate) fn table(workers: &[WorkerSummary], now_us: u64) -> Table {
    let warned = workers.iter().any(|worker| !worker.notice.is_empty());
    let mut columns = vec![
        Column::new("worker", Align::Left, Keep::Always),
        Column::new("state", Align::Left, Keep::Always),
        Column::new("devices", Align::Left, Keep::Cut(16)),
        Column::new("trains", Align::Left, Keep::Cut(16)),
        Column::new("host", Align::Left, Keep::Optional(2)),
        Column::new("machine", Align::Left, Keep::Optional(4)),
        Column::new("here for", Align::Right, Keep::Optional(3)),
        Column::new("last heard", Align::Right, Keep::Optional(1)),
    ];
    if warned {
        columns.push(Column::new("notice", Align::Left, Keep::Cut(24)));
    }
    let mut table = Table::new(columns);
    #[expect(clippy::cast_precision_loss, reason = "shown in two units")]
    let ago = |at_us: u64| text::duration(now_us.saturating_sub(at_us) as f64 / 1e6);
    for worker in workers {
        let names = worker.devices.iter().filter_map(|summary| Some(summary.device.as_ref()?.name.as_str()));
        let trials: Vec<&str> =
            worker.devices.iter().flat_map(|summary| &summary.trials).map(String::as_str).collect();
        // Leases ahead of need may be many.
        let trains = match trials.as_slice() {
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first} {second} {third} and {} more", rest.len())
            }
            few => few.join(" "),
        };
        let machine = worker.machine.clone().unwrap_or_default();
        let kind = match (machine.instance_type.as_str(), machine.cores) {
            ("", 0) => String::new(),
            ("", cores) => text::count(cores.into(), "core"),
            (instance, _) => format!("{instance} {}", machine.zone).trim_end().to_owned(),
        };
        let mut row: Vec<Cell> = vec![
            worker.name.as_str().into(),
            Cell::styled(&worker.state, state_style(&worker.state)),
            names.collect::<Vec<_>>().join(" ").into(),
            trains.into(),
            machine.host.into(),
            kind.into(),
            ago(worker.since_us).into(),
            worker.last_heard_us.map(|at| format!("{} ago", ago(at))).unwrap_or_default().into(),
        ];
        if warned {
            row.push(worker.notice.as_str().into());
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_wire::v1::{DeviceSummary, Machine};

    #[test]
    fn workers_are_listed_with_what_they_train() {
        let device = |name: &str, kind: DeviceKind, trials: &[&str]| DeviceSummary {
            device: Some(Device {
                name: name.to_owned(),
                kind: kind.into(),
                model: String::new(),
                memory_bytes: 1 << 34,
            }),
            credits: 1,
            trials: trials.iter().map(|trial| (*trial).to_owned()).collect(),
        };
        let worker = |name: &str, state: &str, devices: Vec<DeviceSummary>| WorkerSummary {
            name: name.to_owned(),
            state: state.to_owned(),
            devices,
            machine: Some(Machine { host: "node-1".to_owned(), cores: 8, ..Machine::default() }),
            since_us: 1_000_000,
            last_heard_us: Some(90_500_000),
            notice: String::new(),
            noticed_us: None,
        };
        let workers = [
            worker(
                "a",
                "connected",
                vec![device("cpu", DeviceKind::Cpu, &["l/0", "l/1", "l/2", "l/3", "l/4"])],
            ),
            worker(
                "b",
                "gone",
                vec![device("cuda:0", DeviceKind::Cuda, &[]), device("cuda:1", DeviceKind::Cuda, &["l/9"])],
            ),
            WorkerSummary {
                notice: "an AWS spot notice".to_owned(),
                noticed_us: Some(80_000_000),
                last_heard_us: None,
                ..worker("c", "draining", vec![device("cpu", DeviceKind::Cpu, &["l/7"])])
            },
        ];
        let text = table(&workers, 91_000_000).render(None).text;
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
        insta::assert_snapshot!(rows::json_lines(&[row(&workers[1]), row(&workers[2])]));
    }
}
