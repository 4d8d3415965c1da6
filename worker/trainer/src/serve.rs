//! The line protocol over stdin and stdout. Owns both: nothing else in the process may read or write them.
//!
//! A thread of its own reads stdin, so that what the agent says is seen while a step runs, and so that the
//! agent's end is this process's end, at once, whatever libtorch is doing.

use crate::{
    data::cache::DataCache,
    device,
    job::{self, Command, Host},
    registry::Registry,
};
use spotsweep_proto::{
    gang::{Generation, StoreOp, StoreValue},
    ids::Epoch,
    limits::LINE_BYTES,
    line::{FromTrainer, Job, PROTOCOL_VERSION, ToTrainer},
};
use spotsweep_trainer_shim::{claim_stdout, exit_now, keep_freed_memory, make_repeatable};
use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

/// Exit status after `exit` and after end of file.
const EXIT_ENDED: i32 = 0;
/// Exit status after a line that is none of the protocol.
const EXIT_PROTOCOL: i32 = 2;
/// Exit status when libtorch cannot be set up.
const EXIT_TORCH: i32 = 3;
/// Exit status when the registry holds a description that cannot be told.
const EXIT_REGISTRY: u8 = 4;

/// Version of the libtorch for which this program is built; another one does not load.
const LIBTORCH_VERSION: &str = "2.11.0";

/// Trains what the agent on stdin and stdout asks for, until it is gone: the whole `main` of a trainer. The process ends in
/// here, with status 0 when the agent is gone, and returns only if the registry is not right: with status 4, and words on
/// stderr.
#[must_use = "it is the exit status of the program"]
pub fn serve(registry: Registry) -> ExitCode {
    if let Err(error) = registry.check() {
        complain(&format!("what this program adds cannot be told: {error}"));
        return ExitCode::from(EXIT_REGISTRY);
    }
    let catalogue = registry.catalogue();
    let catalogue = (!catalogue.is_empty()).then(|| serde_json::to_value(catalogue).unwrap_or_default());
    let stdout = claim_stdout().unwrap_or_else(|error| {
        complain(&format!("stdout: {error}"));
        exit_now(EXIT_PROTOCOL)
    });
    keep_freed_memory();
    let (sender, inbox) = mpsc::channel();
    if let Err(error) = thread::Builder::new().name("stdin".to_owned()).spawn(move || listen(&sender)) {
        complain(&format!("cannot start a thread: {error}"));
        exit_now(EXIT_TORCH);
    }
    let devices = device::find();
    if let Err(error) = make_repeatable() {
        complain(&format!("libtorch: {error}"));
        exit_now(EXIT_TORCH);
    }
    // One: operations of a step depend on each other, and trainers share the machine.
    tch::set_num_interop_threads(1);
    let ready = FromTrainer::Ready {
        protocol: PROTOCOL_VERSION,
        trainer: registry.program_name().to_owned(),
        libtorch: LIBTORCH_VERSION.to_owned(),
        devices,
        catalogue,
    };
    let mut pipe = Pipe {
        stdout,
        inbox,
        waiting: VecDeque::new(),
        running: None,
        commands: VecDeque::new(),
        asked: 0,
        posted: BTreeSet::new(),
    };
    let mut cache = DataCache::default();
    let mut said = pipe.say(ready);
    while said.is_ok() {
        let job = pipe.next_job();
        pipe.running = Some(job.epoch);
        said = job::run(&job, &registry, &mut cache, &mut pipe);
        pipe.running = None;
        pipe.commands.clear();
        pipe.posted.clear();
    }
    // Nobody reads our stdout: the agent is gone.
    exit_now(EXIT_ENDED)
}

/// The agent's end of both pipes.
struct Pipe {
    /// The stdout of this process, which nothing else can write to.
    stdout: File,
    inbox: Receiver<ToTrainer>,
    /// Jobs that came while one was running.
    waiting: VecDeque<Box<Job>>,
    running: Option<Epoch>,
    /// Commands that came while an answer was awaited.
    commands: VecDeque<Command>,
    /// Number of the last question.
    asked: u64,
    /// Questions whose answers are commands.
    posted: BTreeSet<u64>,
}

impl Pipe {
    /// Waits for a job.
    fn next_job(&mut self) -> Box<Job> {
        loop {
            if let Some(job) = self.waiting.pop_front() {
                return job;
            }
            match self.inbox.recv() {
                Ok(ToTrainer::Run(job)) => return job,
                // For a job that is over: the two have crossed on the way.
                Ok(
                    ToTrainer::Stop { .. }
                    | ToTrainer::Checkpoint { .. }
                    | ToTrainer::Gang { .. }
                    | ToTrainer::Data { .. }
                    | ToTrainer::StoreReply { .. },
                ) => {}
                Ok(ToTrainer::Exit) | Err(_) => exit_now(EXIT_ENDED),
            }
        }
    }
}

impl Pipe {
    /// What a line wants of the running job, if it is meant.
    fn command_of(&mut self, line: ToTrainer) -> Option<Command> {
        let running = self.running;
        let meant = |epoch| Some(epoch) == running;
        match line {
            ToTrainer::Stop { epoch, checkpoint } => meant(epoch).then_some(Command::Stop { checkpoint }),
            ToTrainer::Checkpoint { epoch } => meant(epoch).then_some(Command::Checkpoint),
            ToTrainer::Gang { epoch, roster } => meant(epoch).then_some(Command::Gang(roster)),
            ToTrainer::Data { epoch, shards } => meant(epoch).then_some(Command::Data(shards)),
            // Otherwise to a question that nobody waits for any more.
            ToTrainer::StoreReply { epoch, id, value } => {
                (meant(epoch) && self.posted.remove(&id)).then_some(Command::Answer { id, value })
            }
            ToTrainer::Run(job) => {
                self.waiting.push_back(job);
                None
            }
            ToTrainer::Exit => exit_now(EXIT_ENDED),
        }
    }

    fn question(&mut self, epoch: Epoch, generation: Generation, op: StoreOp) -> io::Result<u64> {
        self.asked += 1;
        self.say(FromTrainer::Store { epoch, generation, id: self.asked, op })?;
        Ok(self.asked)
    }
}

/// Whether `command` makes it pointless to connect the ranks of `generation`.
fn overtakes(command: &Command, generation: Generation) -> bool {
    match command {
        Command::Stop { .. } => true,
        Command::Gang(roster) => roster.generation > generation,
        Command::Checkpoint | Command::Data(_) | Command::Answer { .. } => false,
    }
}

impl Host for Pipe {
    fn poll(&mut self) -> Option<Command> {
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        while let Ok(line) = self.inbox.try_recv() {
            if let Some(command) = self.command_of(line) {
                return Some(command);
            }
        }
        None
    }

    fn wait(&mut self) -> Command {
        loop {
            if let Some(command) = self.poll() {
                return command;
            }
            match self.inbox.recv() {
                Ok(line) => {
                    let command = self.command_of(line);
                    self.commands.extend(command);
                }
                Err(_) => exit_now(EXIT_ENDED),
            }
        }
    }

    fn ask(&mut self, generation: Generation, op: StoreOp, timeout: Duration) -> Result<StoreValue, String> {
        let Some(job_epoch) = self.running else { return Err("no job runs".to_owned()) };
        let asked = self.question(job_epoch, generation, op).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + timeout;
        loop {
            if self.commands.iter().any(|command| overtakes(command, generation)) {
                return Err(format!("generation {generation} was overtaken while its ranks connected"));
            }
            match self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(ToTrainer::StoreReply { epoch, id, value }) if epoch == job_epoch && id == asked => {
                    return value.ok_or_else(|| format!("generation {generation} is over"));
                }
                Ok(line) => {
                    let command = self.command_of(line);
                    self.commands.extend(command);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("a peer of generation {generation} did not show up in {timeout:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => exit_now(EXIT_ENDED),
            }
        }
    }

    fn post(&mut self, generation: Generation, op: StoreOp) -> io::Result<u64> {
        let epoch = self.running.ok_or_else(|| io::Error::other("no job runs"))?;
        let asked = self.question(epoch, generation, op)?;
        self.posted.insert(asked);
        Ok(asked)
    }

    fn say(&mut self, line: FromTrainer) -> io::Result<()> {
        let mut text = serde_json::to_vec(&line).map_err(io::Error::other)?;
        text.push(b'\n');
        self.stdout.write_all(&text)
    }
}

/// Reads stdin to its end, and ends the process with it.
fn listen(sender: &Sender<ToTrainer>) {
    let mut stdin = BufReader::new(io::stdin().lock());
    loop {
        match read_line(&mut stdin) {
            Ok(Some(ToTrainer::Exit) | None) => exit_now(EXIT_ENDED),
            // The other thread ends only with the process.
            Ok(Some(line)) => drop(sender.send(line)),
            Err(problem) => {
                complain(&problem);
                exit_now(EXIT_PROTOCOL);
            }
        }
    }
}

/// One line; `None` at the end of the file. A last line without its newline was cut off and counts as the end.
fn read_line(input: &mut impl BufRead) -> Result<Option<ToTrainer>, String> {
    let mut line = Vec::new();
    let limit = LINE_BYTES as u64 + 1;
    let read = input.take(limit).read_until(b'\n', &mut line);
    read.map_err(|error| format!("cannot read stdin: {error}"))?;
    if line.pop_if(|byte| *byte == b'\n').is_none() {
        return if line.len() > LINE_BYTES {
            Err(format!("a line of more than {LINE_BYTES} bytes came in"))
        } else {
            Ok(None)
        };
    }
    match serde_json::from_slice(&line) {
        Ok(message) => Ok(Some(message)),
        Err(error) => {
            let start: String = String::from_utf8_lossy(&line).chars().take(80).collect();
            Err(format!("a line is no message of the protocol: {error}: {start:?}"))
        }
    }
}

/// Tells people on stderr, of which the agent keeps the last lines.
fn complain(problem: &str) {
    // If stderr is gone too there is nobody left to tell.
    let _ = writeln!(io::stderr(), "spotsweep-trainer: {problem}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_one_by_one_to_the_end() {
        let mut input = &b"{\"type\":\"stop\",\"epoch\":7,\"checkpoint\":true}\n{\"type\":\"exit\"}\n"[..];
        let stop = ToTrainer::Stop { epoch: Epoch(7), checkpoint: true };
        assert_eq!(read_line(&mut input), Ok(Some(stop)));
        assert_eq!(read_line(&mut input), Ok(Some(ToTrainer::Exit)));
        assert_eq!(read_line(&mut input), Ok(None));
    }

    #[test]
    fn a_line_that_was_cut_off_is_the_end() {
        assert_eq!(read_line(&mut &b"{\"type\":\"ex"[..]), Ok(None));
    }

    #[test]
    fn nonsense_and_oversized_lines_are_refused() {
        let oversized = vec![b'x'; LINE_BYTES + 10];
        for bytes in [&b"hello\n"[..], b"{}\n", b"\xff\xfe\n", b"{\"type\":\"fly\"}\n", b"\n", &oversized] {
            assert!(read_line(&mut &bytes[..]).is_err());
        }
    }
}
