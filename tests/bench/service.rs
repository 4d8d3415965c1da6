//! A coordinator process, agents in this process, and a client.

use anyhow::Context as _;
use futures::future::join_all;
use spotsweep_proto::ids::WorkerName;
use spotsweep_tests::{binaries, cluster::free_port, wait};
use spotsweep_wire::v1::{self, control_client::ControlClient};
use spotsweep_worker::{Agent, AgentConfig, Drain, Machine, NoopTrainers};
use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tonic::transport::Channel;

/// How often a client looks whether a sweep has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A coordinator on a fresh folder.
pub(crate) struct Service {
    folder: TempDir,
    port: u16,
    page_port: u16,
    process: Option<Child>,
    submitted: u128,
}

impl Service {
    /// Started, and answering.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        // Beside the build, on a real disk: /tmp may be memory.
        let folder = tempfile::tempdir_in(binaries::folder())?;
        let mut service =
            Self { folder, port: free_port(), page_port: free_port(), process: None, submitted: 0 };
        service.restart().await?;
        Ok(service)
    }

    /// Starts the coordinator (again); gives the seconds until it answers.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<f64> {
        let start = Instant::now();
        let log = std::fs::File::create(self.folder.path().join("log"))?;
        let mut command = Command::new(binaries::spotsweep());
        command.args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--dir"]);
        command
            .arg(self.folder.path().join("dir"))
            .args(["--http", &format!("127.0.0.1:{}", self.page_port)]);
        let command = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().context("starting the coordinator")?);
        loop {
            if let Ok(mut client) = self.client().await
                && client.status(v1::StatusRequest {}).await.is_ok()
            {
                return Ok(start.elapsed().as_secs_f64());
            }
            anyhow::ensure!(start.elapsed() < wait::DEADLINE, "the coordinator does not answer");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where its web page is.
    pub(crate) fn page_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(format!("127.0.0.1:{}", self.page_port).parse()?)
    }

    /// The coordinator's folder.
    pub(crate) fn dir(&self) -> std::path::PathBuf {
        self.folder.path().join("dir")
    }

    /// A client.
    pub(crate) async fn client(&self) -> anyhow::Result<ControlClient<Channel>> {
        Ok(ControlClient::connect(self.url()).await?)
    }

    /// Resident memory of the coordinator, bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let pid = self.process.as_ref().context("the coordinator runs")?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Size of the coordinator's folder, bytes.
    pub(crate) fn disk_bytes(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for entry in std::fs::read_dir(self.folder.path().join("dir"))? {
            sum += entry?.metadata()?.len();
        }
        Ok(sum)
    }

    /// Submits a sweep of `trials` trials that train nothing and waits until all are durably completed; gives the
    /// seconds from the call to the answer that says so.
    pub(crate) async fn sweep_of_nothing(&mut self, trials: u32) -> anyhow::Result<f64> {
        let source = format!(
            "name: bench\nmethod: random\nrun_cap: {trials}\nparameters:\n  seed: {{min: 0, max: 1000000000}}\n\
             train: {{model: noop, steps: 1}}\n"
        );
        let mut client = self.client().await?;
        self.submitted += 1;
        let request = v1::SubmitRequest {
            code: None,
            modules: Vec::new(),
            source: source.into(),
            file_name: "bench.yaml".to_owned(),
            token: self.submitted.to_be_bytes().to_vec().into(),
        };
        let start = Instant::now();
        let sweep = client.submit(request).await?.into_inner().sweep;
        loop {
            let request = v1::ShowSweepRequest { target: sweep.clone() };
            let summary = client.show_sweep(request).await?.into_inner().sweep.context("a sweep")?;
            if summary.counts.get("completed").copied().unwrap_or(0) == u64::from(trials) {
                return Ok(start.elapsed().as_secs_f64());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.kill();
    }
}

/// Agents in this process.
pub(crate) struct Agents {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Agents {
    /// `count` agents of the coordinator at `url`.
    pub(crate) fn start(url: &str, count: u32, trainers: &NoopTrainers) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        for index in 0..count {
            let config = AgentConfig {
                coordinators: vec![url.to_owned()],
                name: WorkerName::new(&format!("bench-{index}"))?,
                machine: Machine::default(),
            };
            let agent = Agent::new(config, trainers.clone());
            let mut stopped = stopped.clone();
            tasks.push(tokio::spawn(async move {
                let shutdown = async move {
                    let _sender_gone = stopped.wait_for(|stop| *stop).await;
                    Drain { grace: Duration::from_secs(5), orphaned: true }
                };
                if let Err(error) = agent.run(shutdown).await {
                    eprintln!("agent {index}: {error}");
                }
            }));
        }
        Ok(Self { stop, tasks })
    }

    /// Waits until the coordinator knows all of them.
    pub(crate) async fn joined(&self, service: &Service) -> anyhow::Result<()> {
        let mut client = service.client().await?;
        loop {
            let workers = client.list_workers(v1::ListWorkersRequest {}).await?.into_inner().workers;
            if workers.iter().filter(|worker| worker.state == "connected").count() >= self.tasks.len() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All leave.
    pub(crate) async fn stop(self) {
        let _nobody_listens = self.stop.send(true);
        join_all(self.tasks).await;
    }
}
