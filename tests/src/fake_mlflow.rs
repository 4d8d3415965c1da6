//! A tracking server of MLflow on a loopback port, as careless as one on files: it keeps what it is told twice. It fails, is
//! slow, and dies in the middle of its work, by turns.

use crate::wait;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(30);

/// A run, with every value that it was told, in the order in which it was.
#[derive(Debug, Clone, Default)]
pub struct FakeRun {
    /// The experiment's name.
    pub experiment: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Parameters.
    pub params: BTreeMap<String, String>,
    /// Key, value, timestamp, step.
    pub metrics: Vec<(String, f64, u64, u64)>,
    /// `RUNNING` until told otherwise.
    pub status: String,
    /// Files by name.
    pub artifacts: BTreeMap<String, Vec<u8>>,
}

#[derive(Default)]
struct State {
    experiments: Vec<String>,
    runs: Vec<FakeRun>,
    questions: u64,
    /// Whether it fails by turns.
    is_ill: bool,
    /// Whether it refuses everything.
    is_down: bool,
}

/// The server; it ends with the test's process.
pub struct FakeMlflow {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What becomes of a question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Nothing is done, and an error answered.
    Refused,
    /// It is done, and the answer lost.
    Mute,
    /// Half of it is done, and no answer given.
    Half,
    Slow,
}

impl FakeMlflow {
    /// On a free port; with `is_ill`, four of eleven questions go wrong.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(is_ill: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { is_ill, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // Who breaks off wants no answer.
                std::thread::spawn(move || answer(stream, &shared).unwrap_or_default());
            }
        });
        Self { address, state }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every run.
    pub fn runs(&self) -> Vec<FakeRun> {
        self.state.lock().expect("no panic").runs.clone()
    }

    /// How many values it holds.
    pub fn values(&self) -> usize {
        self.state.lock().expect("no panic").runs.iter().map(|run| run.metrics.len()).sum()
    }

    /// From now on it refuses everything, or nothing.
    pub fn set_down(&self, is_down: bool) {
        self.state.lock().expect("no panic").is_down = is_down;
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_lowercase()),
        }
    }
    let length =
        head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let target = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let path = target.strip_prefix("/api/2.0/mlflow/").unwrap_or_default();
    let (fate, status, answer) = {
        let mut state = state.lock().expect("no panic");
        state.questions += 1;
        let fate = match state.questions % 11 {
            _ if state.is_down => Fate::Refused,
            3 if state.is_ill => Fate::Refused,
            5 if state.is_ill => Fate::Mute,
            7 if state.is_ill => Fate::Half,
            9 if state.is_ill => Fate::Slow,
            _ => Fate::Answered,
        };
        match fate {
            Fate::Refused => (fate, "500 Internal Server Error", json!({"message": "not today"})),
            Fate::Answered | Fate::Mute | Fate::Half | Fate::Slow => {
                let answer = match target.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/") {
                    Some(path) => state.keep(path, body, fate == Fate::Half),
                    None => {
                        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                        state.take(path, &body, fate == Fate::Half)
                    }
                };
                match answer {
                    Ok(answer) => (fate, "200 OK", answer),
                    Err(word) => (fate, "404 Not Found", json!({"error_code": word, "message": word})),
                }
            }
        }
    };
    match fate {
        Fate::Mute | Fate::Half => return Ok(()),
        Fate::Slow => wait::pause(SLOW),
        Fate::Answered | Fate::Refused => {}
    }
    let text = answer.to_string();
    let length = text.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
}

impl State {
    fn take(&mut self, path: &str, body: &Value, half: bool) -> Result<Value, &'static str> {
        let (call, query) = path.split_once('?').unwrap_or((path, ""));
        let argument = query.split_once('=').map_or("", |(_, value)| value);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match call {
            "experiments/get-by-name" => {
                let found = self.experiments.iter().position(|name| name.to_lowercase() == argument);
                let id = found.ok_or("RESOURCE_DOES_NOT_EXIST")?;
                Ok(json!({"experiment": {"experiment_id": id.to_string()}}))
            }
            "experiments/create" => {
                let name = text(&body["name"]);
                if self.experiments.contains(&name) {
                    return Err("RESOURCE_ALREADY_EXISTS");
                }
                self.experiments.push(name);
                Ok(json!({"experiment_id": (self.experiments.len() - 1).to_string()}))
            }
            "runs/create" => {
                let id: usize =
                    text(&body["experiment_id"]).parse().map_err(|_| "INVALID_PARAMETER_VALUE")?;
                let experiment = self.experiments.get(id).cloned().ok_or("RESOURCE_DOES_NOT_EXIST")?;
                let mut run = FakeRun { experiment, status: "RUNNING".to_owned(), ..FakeRun::default() };
                run.tell(body);
                self.runs.push(run);
                Ok(json!({"run": self.show(self.runs.len() - 1)}))
            }
            "runs/search" => {
                // tags.`KEY` = 'VALUE'
                let filter = text(&body["filter"]);
                let key = filter.split('`').nth(1).unwrap_or_default();
                let value = filter.split('\'').nth(1).unwrap_or_default();
                let has = |run: &FakeRun| run.tags.get(key).is_some_and(|found| found == value);
                let found = (0..self.runs.len()).filter(|index| has(&self.runs[*index]));
                Ok(json!({"runs": found.map(|index| self.show(index)).collect::<Vec<_>>()}))
            }
            "runs/get" => {
                Ok(json!({"run": self.show(argument.parse().map_err(|_| "INVALID_PARAMETER_VALUE")?)}))
            }
            "runs/log-batch" => {
                let mut body = body.clone();
                if half && let Some(metrics) = body["metrics"].as_array_mut() {
                    metrics.truncate(metrics.len() / 2);
                }
                self.named(&body)?.tell(&body);
                Ok(json!({}))
            }
            "runs/update" => {
                self.named(body)?.status = text(&body["status"]);
                Ok(json!({}))
            }
            _ => Err("ENDPOINT_NOT_FOUND"),
        }
    }

    /// An artifact at `RUN/NAME`.
    fn keep(&mut self, path: &str, mut body: Vec<u8>, half: bool) -> Result<Value, &'static str> {
        let (run, name) = path.split_once('/').ok_or("INVALID_PARAMETER_VALUE")?;
        let run = run.parse::<usize>().ok().and_then(|run| self.runs.get_mut(run));
        body.truncate(if half { body.len() / 2 } else { body.len() });
        run.ok_or("RESOURCE_DOES_NOT_EXIST")?.artifacts.insert(name.to_owned(), body);
        Ok(json!({}))
    }

    fn named(&mut self, body: &Value) -> Result<&mut FakeRun, &'static str> {
        let id = body["run_id"].as_str().and_then(|id| id.parse::<usize>().ok());
        id.and_then(|id| self.runs.get_mut(id)).ok_or("RESOURCE_DOES_NOT_EXIST")
    }

    /// A run as MLflow shows it: of each metric the newest value.
    fn show(&self, index: usize) -> Value {
        let mut newest: BTreeMap<&str, &(String, f64, u64, u64)> = BTreeMap::new();
        for metric in &self.runs[index].metrics {
            let place = newest.entry(&metric.0).or_insert(metric);
            if metric.3 >= place.3 {
                *place = metric;
            }
        }
        let shown = newest.values().map(|(key, _, timestamp, step)| {
            json!({"key": key, "value": 0.0, "timestamp": timestamp, "step": step.to_string()})
        });
        json!({"info": {"run_id": index.to_string(), "artifact_uri": format!("mlflow-artifacts:/{index}")}, "data": {"metrics": shown.collect::<Vec<_>>()}})
    }
}

impl FakeRun {
    fn tell(&mut self, body: &Value) {
        let list = |key: &str| body[key].as_array().cloned().unwrap_or_default();
        let pair = |value: &Value| {
            (
                value["key"].as_str().unwrap_or_default().to_owned(),
                value["value"].as_str().unwrap_or_default().to_owned(),
            )
        };
        self.tags.extend(list("tags").iter().map(pair));
        self.params.extend(list("params").iter().map(pair));
        for metric in list("metrics") {
            let value = metric["value"].as_f64().unwrap_or(f64::NAN);
            let number = |key: &str| metric[key].as_u64().unwrap_or_default();
            self.metrics.push((pair(&metric).0, value, number("timestamp"), number("step")));
        }
    }
}
