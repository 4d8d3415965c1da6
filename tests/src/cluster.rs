//! A coordinator and its agents, as real processes on this machine.

use crate::{
    binaries,
    fake_metadata::FakeAws,
    network::{LENT_LOOPBACK, Network},
    proxy::{Proxy, Weather},
    wait,
};
use nix::{
    sys::signal::{Signal, kill as kill_process},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};
use tempfile::TempDir;

/// Which trainer the agents start.
#[derive(Debug, Clone)]
pub enum Trainer {
    /// The toy one.
    Stub,
    /// This program.
    Program(PathBuf),
}

/// A coordinator and agents in a temporary folder; all end when it is dropped.
pub struct Cluster {
    folder: TempDir,
    port: u16,
    page_port: u16,
    trainer: Trainer,
    environment: Vec<(String, String)>,
    coordinator: Option<Child>,
    agents: Vec<Option<Child>>,
    /// What agents reach the coordinator through, one each; none where they reach it themselves.
    proxies: Vec<Proxy>,
    /// Where the coordinator is host 0 and each agent the host after its index; none where all are on this machine's loopback.
    network: Option<Network>,
    /// The cloud of each agent behind a proxy.
    clouds: Vec<FakeAws>,
    lives: u32,
}

impl Cluster {
    /// A running coordinator with `agents` agents.
    pub fn start(agents: usize, trainer: Trainer, environment: &[(&str, &str)]) -> Self {
        Self::start_after(|_| {}, agents, trainer, environment)
    }

    /// As [`Self::start`], with a [`Proxy`] between each agent and the coordinator, past which clients go, and each agent
    /// on a spot instance of a cloud of its own.
    pub fn start_behind_proxies(agents: usize, trainer: Trainer, environment: &[(&str, &str)]) -> Self {
        let mut cluster = Self::start(0, trainer, environment);
        for index in 0..agents {
            cluster.proxies.push(Proxy::start((Ipv4Addr::LOCALHOST, cluster.port).into()));
            cluster.clouds.push(FakeAws::start());
            cluster.agents.push(None);
            cluster.start_agent(index);
        }
        cluster
    }

    /// The coordinator and each agent on a host of its own, of one [`Network`], where the system allows that; else as
    /// [`Self::start_behind_proxies`]. A line of the test's output says which.
    pub fn start_apart(agents: usize, trainer: Trainer, environment: &[(&str, &str)]) -> Self {
        let network = Network::new(agents + 1).and_then(|network| {
            network.lend_loopback(0)?;
            Ok(network)
        });
        // Past what the test harness holds back of tests that pass.
        let mut says = std::io::stderr();
        match network {
            Ok(network) => {
                let _told = writeln!(says, "partitions: in network namespaces");
                let mut cluster = Self::prepared(|_| {}, trainer, environment);
                for index in 0..agents {
                    cluster.clouds.push(FakeAws::on(network.listen(index + 1)));
                    cluster.agents.push(None);
                }
                cluster.network = Some(network);
                cluster.start_coordinator();
                (0..agents).for_each(|index| cluster.start_agent(index));
                cluster
            }
            Err(error) => {
                let _told =
                    writeln!(says, "partitions: by proxies on loopback, as there are no hosts: {error:#}");
                Self::start_behind_proxies(agents, trainer, environment)
            }
        }
    }

    /// As [`Self::start`], after `prepare` has done something with the empty folder of the coordinator.
    pub fn start_after(
        prepare: impl FnOnce(&Path),
        agents: usize,
        trainer: Trainer,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut cluster = Self::prepared(prepare, trainer, environment);
        cluster.start_coordinator();
        for index in 0..agents {
            cluster.agents.push(None);
            cluster.start_agent(index);
        }
        cluster
    }

    /// Nothing runs yet.
    fn prepared(prepare: impl FnOnce(&Path), trainer: Trainer, environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cluster = Self {
            folder,
            port,
            page_port: free_port(),
            trainer,
            environment,
            coordinator: None,
            agents: Vec::new(),
            proxies: Vec::new(),
            network: None,
            clouds: Vec::new(),
            lives: 0,
        };
        std::fs::create_dir(cluster.dir()).expect("the temporary folder is writable");
        prepare(&cluster.dir());
        cluster
    }

    /// The coordinator's folder.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("dir")
    }

    /// A path in the cluster's temporary folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The object store of added data sets.
    pub fn data_store(&self) -> PathBuf {
        self.path("sets")
    }

    /// Where the coordinator listens.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host(), self.port)
    }

    fn host(&self) -> &'static str {
        if self.network.is_some() { LENT_LOOPBACK } else { "127.0.0.1" }
    }

    /// A program on a host of the network, if there is one.
    fn on_host(&self, host: usize, program: impl AsRef<OsStr>) -> Command {
        match &self.network {
            Some(network) => network.command(host, program),
            None => Command::new(program),
        }
    }

    /// Changes the weather between agent `index` and the coordinator.
    ///
    /// # Panics
    /// If there is neither a network nor a proxy between them.
    pub fn set_weather(&self, index: usize, weather: Weather) {
        match &self.network {
            Some(network) => network.set(index + 1, weather),
            None => self.proxies[index].set(weather),
        }
    }

    /// Breaks the connections of agent `index` off where a proxy is in between; nothing on a network does that.
    pub fn break_off(&self, index: usize) {
        if let Some(proxy) = self.proxies.get(index) {
            proxy.break_off();
        }
    }

    /// Where the coordinator's web page is.
    pub fn page_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.page_port)
    }

    /// What agent `index` reaches the coordinator through.
    ///
    /// # Panics
    /// If the cluster was started without.
    pub fn proxy(&self, index: usize) -> &Proxy {
        &self.proxies[index]
    }

    /// What agent `index` asks whether its machine will be taken.
    ///
    /// # Panics
    /// If the cluster was started without proxies.
    pub fn cloud(&self, index: usize) -> &FakeAws {
        &self.clouds[index]
    }

    /// How many agents there are.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Process id of the coordinator, if it lives.
    pub fn coordinator_pid(&mut self) -> Option<u32> {
        let child = self.coordinator.as_mut()?;
        child.try_wait().expect("a child").is_none().then(|| child.id())
    }

    /// Process id of an agent that lives.
    pub fn agent_pid(&self, index: usize) -> Option<u32> {
        self.agents[index].as_ref().map(Child::id)
    }

    /// Starts the coordinator and waits until it answers.
    pub fn start_coordinator(&mut self) {
        self.lives += 1;
        let log = self.log(&format!("coordinator-{}", self.lives));
        let child = self
            .on_host(0, binaries::spotsweep())
            .args(["serve", "--dir"])
            .arg(self.dir())
            .args(["--listen", &format!("{}:{}", self.host(), self.port)])
            .args(["--http", &format!("127.0.0.1:{}", self.page_port)])
            .env("SPOTSWEEP_DATA_STORE", self.data_store())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the coordinator starts");
        self.coordinator = Some(child);
        wait::until("the coordinator answers", || {
            if let Some(status) =
                self.coordinator.as_mut().and_then(|child| child.try_wait().expect("a child"))
            {
                panic!("the coordinator ended with {status}:\n{}", self.logs());
            }
            self.command(&["ls"]).output().expect("spotsweep runs").status.success().then_some(())
        });
    }

    /// Kills the coordinator with kill -9 and starts it on `port` of this machine, with the same folder.
    pub fn move_coordinator(&mut self, port: u16) {
        self.kill_coordinator();
        self.port = port;
        self.start_coordinator();
    }

    /// Starts one more agent, with arguments and an environment of its own; gives its index.
    pub fn add_agent(&mut self, arguments: &[&str], environment: &[(&str, &str)]) -> usize {
        self.agents.push(None);
        let index = self.agents.len() - 1;
        self.spawn_agent(index, arguments, environment);
        index
    }

    /// Agents that are started from now on have this trainer.
    pub fn use_trainer(&mut self, trainer: Trainer) {
        self.trainer = trainer;
    }

    /// Waits until an agent has ended by itself.
    pub fn agent_ended(&mut self, index: usize) -> ExitStatus {
        let child = self.agents[index].as_mut().expect("the agent was started");
        wait::until("the agent ends", || child.try_wait().expect("a child"))
    }

    /// All that an agent has logged.
    pub fn agent_log(&self, index: usize) -> String {
        let logs = std::fs::read_dir(self.folder.path()).expect("a folder").flatten();
        let prefix = format!("agent-{index}-");
        logs.filter(|log| log.file_name().to_string_lossy().starts_with(&prefix))
            .map(|log| std::fs::read_to_string(log.path()).unwrap_or_default())
            .collect()
    }

    /// Starts agent `index`.
    pub fn start_agent(&mut self, index: usize) {
        self.spawn_agent(index, &[], &[]);
    }

    fn spawn_agent(&mut self, index: usize, arguments: &[&str], environment: &[(&str, &str)]) {
        self.lives += 1;
        let log = self.log(&format!("agent-{index}-{}", self.lives));
        let trainer = match &self.trainer {
            Trainer::Stub => binaries::stub_trainer(),
            Trainer::Program(path) => path.clone(),
        };
        let direct = self.url();
        let url = self.proxies.get(index).map_or(direct, |proxy| format!("http://{}", proxy.address()));
        let child = self
            .on_host(index + 1, binaries::worker())
            .args(["--coordinator", &url, "--name", &format!("agent-{index}"), "--device", "cpu"])
            .arg("--trainer")
            .arg(trainer)
            .arg("--dir")
            .arg(self.folder.path().join(format!("scratch-{index}")))
            .args(self.clouds.get(index).map(|_| ["--notices", "aws"]).into_iter().flatten())
            .envs(self.clouds.get(index).map(|cloud| ("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud.url())))
            .args(arguments)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        self.agents[index] = Some(child);
    }

    /// kill -9 of the coordinator.
    pub fn kill_coordinator(&mut self) {
        kill(&mut self.coordinator);
    }

    /// kill -9 of an agent.
    pub fn kill_agent(&mut self, index: usize) {
        kill(&mut self.agents[index]);
    }

    /// kill -9 of an agent's trainer; false if it has none just now.
    pub fn kill_trainer(&self, index: usize) -> bool {
        self.signal_trainer(index, Signal::SIGKILL)
    }

    /// Sends a signal to an agent's trainer; false if it has none just now.
    pub fn signal_trainer(&self, index: usize, signal: Signal) -> bool {
        let Some(trainer) = self.trainer_pid(index) else { return false };
        kill_process(Pid::from_raw(trainer), signal).is_ok()
    }

    /// Process id of an agent's trainer, if it has one just now.
    pub fn trainer_pid(&self, index: usize) -> Option<i32> {
        children_of(self.agent_pid(index)?).first().copied()
    }

    /// Sends a signal to an agent; false if it does not live.
    pub fn signal_agent(&self, index: usize, signal: Signal) -> bool {
        self.agent_pid(index).is_some_and(|pid| kill_process(raw(pid), signal).is_ok())
    }

    /// Sends a signal to the coordinator; false if it does not live.
    pub fn signal_coordinator(&mut self, signal: Signal) -> bool {
        self.coordinator_pid().is_some_and(|pid| kill_process(raw(pid), signal).is_ok())
    }

    /// A client command against this coordinator.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.on_host(0, binaries::spotsweep());
        command.args(arguments).env("SPOTSWEEP_COORDINATOR", self.url()).stdin(Stdio::null());
        command.env("SPOTSWEEP_DATA_STORE", self.data_store());
        command
    }

    /// Runs a client command that must succeed; gives its stdout.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("spotsweep runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "spotsweep {arguments:?}: {}\n{error}\n{}",
            output.status,
            self.logs()
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Writes a sweep file and submits it; gives the sweep's name.
    pub fn submit(&self, sweep_file: &str) -> String {
        let path = self.path("sweep.yaml");
        std::fs::write(&path, sweep_file).expect("the temporary folder is writable");
        self.ask(&["submit", path.to_str().expect("UTF-8")]).trim().to_owned()
    }

    /// The last lines of every process' log, for messages of failed tests.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let mut logs: Vec<_> = std::fs::read_dir(self.folder.path()).expect("a folder").flatten().collect();
        logs.sort_by_key(std::fs::DirEntry::path);
        for log in logs.iter().filter(|log| log.path().extension().is_some_and(|end| end == "log")) {
            let content = std::fs::read_to_string(log.path()).unwrap_or_default();
            let tail: Vec<&str> = content.lines().rev().take(15).collect();
            text += &format!("--- {}\n", log.file_name().display());
            for line in tail.iter().rev() {
                text += line;
                text.push('\n');
            }
        }
        text
    }

    fn log(&self, name: &str) -> File {
        File::create(self.folder.path().join(format!("{name}.log")))
            .expect("the temporary folder is writable")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Agents first, so that none logs in vain about a coordinator that is gone; a trainer sees the end of its stdin.
        for agent in &mut self.agents {
            kill(agent);
        }
        kill(&mut self.coordinator);
    }
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("the system's process ids are of this type"))
}

fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // An error means that it has ended by itself.
        let _gone = child.kill();
        let _status = child.wait();
    }
}

/// A port that was free a moment ago and that a restarted coordinator can take again.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Process ids of the children of `parent`.
pub fn children_of(parent: u32) -> Vec<i32> {
    let tasks = Path::new("/proc").join(parent.to_string()).join("task");
    let mut children = Vec::new();
    for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    children
}
