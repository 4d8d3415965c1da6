//! Trainers that are child processes, one for each device: found, and given to the agent. What they do is the
//! runner's.

use super::{
    Equipment, FoundDevice, HowToStop, Trainer, TrainerError, TrainerEvent, Trainers,
    ahead::Ahead,
    child::Process,
    devices,
    runner::{self, Runner},
};
use crate::{
    address::GangAddress,
    attempt::{Attempt, LeaseKey},
    data::DataFolders,
    gang::GangPlace,
    scratch::Scratch,
};
use futures::future::BoxFuture;
use spotsweep_proto::{gang::StoreValue, ids::DeviceName};
use std::{
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Events that a trainer may be ahead of the agent; beyond that its pipe fills and it waits.
const EVENTS: usize = 64;
/// How long ending a trainer may take before it is left to its fate.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Which devices an agent offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// All CUDA devices, or the CPU where there are none.
    Auto,
    /// This one.
    Only(DeviceName),
}

/// How the ranks of gangs on this machine meet their peers.
#[derive(Debug, Clone)]
pub struct GangSettings {
    /// Where they listen for them.
    pub address: GangAddress,
    /// Longest wait for a peer in one collective operation before the gang counts as broken.
    pub timeout: Duration,
}

/// What trainer processes need to know.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// The trainer program; `None` for an agent that carries out programs of users alone.
    pub program: Option<PathBuf>,
    /// The agent's own program, which is also the guard over programs of users; without it those outlive an agent that is
    /// killed.
    pub guard: Option<PathBuf>,
    /// Which devices.
    pub device: DeviceChoice,
    /// Below it, the agent makes a folder of its own for checkpoint files on their way; removed at the end.
    pub scratch: PathBuf,
    /// Where data sets lie.
    pub data: DataFolders,
    /// Time to stop with a checkpoint; a trainer that takes longer is killed.
    pub grace: Duration,
    /// A trainer with a job that says nothing for this long hangs and is killed.
    pub silence: Duration,
    /// How ranks of gangs meet their peers.
    pub gang: GangSettings,
    /// Variables of the trainer's environment, besides the agent's own.
    pub environment: Vec<(String, String)>,
}

/// Starts one trainer process for each device.
pub struct ProcessTrainers {
    settings: Arc<ProcessSettings>,
    scratch: Option<Arc<Scratch>>,
    /// The process that was asked for devices; the first device gets it.
    first: Option<Process>,
}

impl ProcessTrainers {
    /// Nothing is started yet.
    #[must_use]
    pub fn new(settings: ProcessSettings) -> Self {
        Self { settings: Arc::new(settings), scratch: None, first: None }
    }
}

impl Trainers for ProcessTrainers {
    fn find(&mut self) -> BoxFuture<'_, Result<Equipment, TrainerError>> {
        Box::pin(async move {
            let path = &self.settings.scratch;
            let failed = |source| TrainerError::Scratch { path: path.display().to_string(), source };
            self.scratch = Some(Arc::new(Scratch::new(path).map_err(failed)?));
            let scratch = self.scratch.as_ref().map(|scratch| scratch.path().to_owned());
            let Some(program) = &self.settings.program else {
                let devices = choose(&self.settings.device, devices::found().await)?;
                return Ok(Equipment { devices, scratch, programs_only: true, ..Equipment::default() });
            };
            let (process, ready) = runner::start(program, &self.settings).await?;
            tracing::info!(trainer = %ready.trainer, libtorch = %ready.libtorch, devices = ready.devices.len(), "the trainer is ready");
            let devices = choose(&self.settings.device, ready.devices)?;
            self.first = Some(process);
            let (libtorch, catalogue) = (ready.libtorch, ready.catalogue);
            Ok(Equipment { libtorch, devices, scratch, programs_only: false, catalogue })
        })
    }

    fn open(&mut self, device: &FoundDevice) -> Box<dyn Trainer> {
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (event_sender, events) = mpsc::channel(EVENTS);
        let ahead = Arc::new(Ahead::default());
        let runner = Runner::new(
            self.settings.clone(),
            self.scratch.clone(),
            ahead.clone(),
            device.name.clone(),
            self.first.take(),
            command_receiver,
            event_sender,
        );
        let (task, scratch) = (tokio::spawn(runner.run()), self.scratch.clone());
        Box::new(ProcessTrainer { commands, events, task, ahead, scratch })
    }
}

/// The devices that shall be used, of those that the trainer has.
fn choose(choice: &DeviceChoice, devices: Vec<FoundDevice>) -> Result<Vec<FoundDevice>, TrainerError> {
    let names = devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ");
    let is_cuda = |device: &FoundDevice| device.name.as_str().starts_with("cuda");
    let any_cuda = devices.iter().any(is_cuda);
    let chosen: Vec<FoundDevice> = devices
        .into_iter()
        .filter(|device| match choice {
            DeviceChoice::Auto => is_cuda(device) == any_cuda,
            DeviceChoice::Only(name) => device.name == *name,
        })
        .collect();
    if chosen.is_empty() {
        let wanted = match choice {
            DeviceChoice::Auto => "at all".to_owned(),
            DeviceChoice::Only(name) => name.to_string(),
        };
        return Err(TrainerError::NoDevice {
            wanted,
            found: if names.is_empty() { "none".to_owned() } else { names },
        });
    }
    Ok(chosen)
}

/// What a runner is told.
#[derive(Debug)]
pub(crate) enum RunnerCommand {
    Start(Box<Attempt>),
    Stop(LeaseKey, HowToStop),
    Regang(LeaseKey, GangPlace),
    Answer(LeaseKey, u64, Option<StoreValue>),
}

/// One device's trainer process, as the agent sees it.
struct ProcessTrainer {
    commands: mpsc::UnboundedSender<RunnerCommand>,
    events: mpsc::Receiver<TrainerEvent>,
    task: JoinHandle<()>,
    ahead: Arc<Ahead>,
    scratch: Option<Arc<Scratch>>,
}

impl Trainer for ProcessTrainer {
    fn start(&mut self, attempt: Attempt) {
        // The runner lives as long as this; should it have panicked, there is nobody to tell.
        let _sent = self.commands.send(RunnerCommand::Start(Box::new(attempt)));
    }

    fn prepare(&mut self, attempt: &Attempt) {
        if let Some(scratch) = &self.scratch {
            self.ahead.begin(attempt, scratch);
        }
    }

    fn stop(&mut self, lease: LeaseKey, how: HowToStop) {
        let _sent = self.commands.send(RunnerCommand::Stop(lease, how));
    }

    fn regang(&mut self, lease: LeaseKey, place: GangPlace) {
        let _sent = self.commands.send(RunnerCommand::Regang(lease, place));
    }

    fn answer(&mut self, lease: LeaseKey, id: u64, value: Option<StoreValue>) {
        let _sent = self.commands.send(RunnerCommand::Answer(lease, id, value));
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<TrainerEvent> {
        match self.events.poll_recv(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        let Self { commands, events, mut task, ahead: _, scratch: _ } = *self;
        Box::pin(async move {
            drop((commands, events));
            if timeout(CLOSE_LIMIT, &mut task).await.is_err() {
                task.abort();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(names: &[&str]) -> Vec<FoundDevice> {
        let device = |name: &&str| FoundDevice {
            name: DeviceName::new(name).unwrap(),
            model: String::new(),
            memory_bytes: 0,
        };
        names.iter().map(device).collect()
    }

    fn chosen(choice: &DeviceChoice, names: &[&str]) -> Result<Vec<String>, TrainerError> {
        let chosen = choose(choice, devices(names))?;
        Ok(chosen.iter().map(|device| device.name.to_string()).collect())
    }

    #[test]
    fn auto_takes_every_gpu_and_the_cpu_only_without_one() {
        assert_eq!(chosen(&DeviceChoice::Auto, &["cpu"]).unwrap(), ["cpu"]);
        assert_eq!(chosen(&DeviceChoice::Auto, &["cpu", "cuda:0", "cuda:1"]).unwrap(), ["cuda:0", "cuda:1"]);
        let only = DeviceChoice::Only(DeviceName::new("cuda:1").unwrap());
        assert_eq!(chosen(&only, &["cpu", "cuda:0", "cuda:1"]).unwrap(), ["cuda:1"]);
        let error = chosen(&only, &["cpu"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the trainer has no device cuda:1; it has cpu\nhint: choose one of these with --device, or auto"
        );
    }
}
