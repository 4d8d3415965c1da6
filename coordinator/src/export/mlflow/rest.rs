//! To a tracking server: an experiment by the sweep's name, a run a trial, its values in batches.
//!
//! Repeated after a crash or a lost answer, it logs nothing twice: a run is found again by its tag, and of each metric the
//! server tells the last step that it has; steps of a trial only grow, so what lies behind it is there already. This must hold
//! over servers that keep what they are given twice (the file store does).

use super::{
    Logged, Status, TRIAL_TAG,
    client::{Refused, Server, TRIES, wait},
    finals, identity, logged, parameters, tags,
};
use crate::{
    error::{Code, Problem},
    export::{Export, Subject, not_finite},
};
use serde_json::{Value, json};
use spotsweep_wire::v1::{Point, Trial};
use std::collections::HashMap;

/// Most metrics of one `runs/log-batch`, which MLflow sets.
const METRICS_PER_BATCH: usize = 1000;
/// Most parameters or tags of one `runs/log-batch`, which MLflow sets.
const PARAMS_PER_BATCH: usize = 100;
/// Most bytes of parameters of one batch: MLflow takes a request of 1 MB, and escapes may sextuple a text.
const PARAM_BYTES_PER_BATCH: usize = 120_000;

/// An export to a server on its way.
pub(crate) struct Rest {
    server: Server,
    subject: Subject,
    experiment: String,
    /// Whether the experiment was made just now, so that no run can be in it.
    fresh: bool,
    current: Option<Run>,
    /// Values that were there already.
    skipped: u64,
}

/// The run of a trial, with what the server has of it.
pub(crate) struct Run {
    id: String,
    trial: Trial,
    /// The last step that the server has, of each metric.
    known: HashMap<String, u64>,
    waiting: Vec<Logged>,
    last_us: u64,
}

impl Rest {
    /// Begins: finds or makes the experiment.
    ///
    /// # Errors
    /// If `url` is none, or the server does not answer or refuses.
    pub(crate) async fn begin(url: &str, subject: &Subject) -> Result<Self, Problem> {
        Self::begin_in(url, &subject.sweep.sweep, subject).await
    }

    /// As [`Rest::begin`], in the experiment of that name, which is made of letters, digits and `._-`.
    ///
    /// # Errors
    /// As [`Rest::begin`].
    pub(crate) async fn begin_in(url: &str, name: &str, subject: &Subject) -> Result<Self, Problem> {
        let server = Server::new(url)?;
        let (experiment, fresh) =
            experiment(&server, name, subject).await.map_err(|refused| refused.problem(server.base()))?;
        Ok(Self { server, subject: subject.clone(), experiment, fresh, current: None, skipped: 0 })
    }

    /// Values that were there already.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// The id of the run that is open.
    pub(super) fn open_run(&self) -> Option<&str> {
        self.current.as_ref().map(|run| run.id.as_str())
    }

    /// Adds a tag to the run that is open.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub(crate) async fn tag(&self, key: &str, value: &str) -> Result<(), Problem> {
        match self.open_run() {
            Some(run) => {
                let tag = (key.to_owned(), super::cut(value, super::TAG_CHARS));
                self.describe(run, "tags", vec![tag]).await
            }
            None => Ok(()),
        }
    }

    fn told<T>(&self, answer: Result<T, Refused>) -> Result<T, Problem> {
        answer.map_err(|refused| refused.problem(self.server.base()))
    }

    /// The run of a trial, made if there is none, with what it has.
    async fn run(&self, trial: &Trial) -> Result<(String, HashMap<String, u64>), Refused> {
        if !self.fresh
            && let Some(found) = self.find(trial).await?
        {
            return Ok(found);
        }
        let own =
            tags(&self.subject, trial).into_iter().map(|(key, value)| json!({"key": key, "value": value}));
        let body = json!({
            "experiment_id": self.experiment,
            "run_name": trial.trial,
            "start_time": self.subject.sweep.submitted_at_us / 1000,
            "tags": own.collect::<Vec<_>>(),
        });
        let mut turn = 1;
        loop {
            match self.server.once("runs/create", &body).await {
                Ok(answer) => return Ok((text(&answer["run"]["info"]["run_id"])?, HashMap::new())),
                Err(Refused::Again(_)) if turn < TRIES => {}
                Err(other) => return Err(other),
            }
            wait(turn).await;
            turn += 1;
            // The answer may have been lost, and not the question.
            if let Some(found) = self.find(trial).await? {
                return Ok(found);
            }
        }
    }

    async fn find(&self, trial: &Trial) -> Result<Option<(String, HashMap<String, u64>)>, Refused> {
        let filter = format!("tags.`{TRIAL_TAG}` = '{}'", identity(&self.subject, trial.number));
        let body = json!({"experiment_ids": [self.experiment], "filter": filter, "max_results": 1});
        let answer = self.server.ask("runs/search", &body).await?;
        match answer["runs"].get(0) {
            Some(run) => Ok(Some((text(&run["info"]["run_id"])?, steps(&run["data"]["metrics"])))),
            None => Ok(None),
        }
    }

    /// Logs what waits, at most [`METRICS_PER_BATCH`] at once; all of it, or as many whole batches as there are.
    async fn relieve(&mut self, all: bool) -> Result<(), Problem> {
        let Some(mut run) = self.current.take() else { return Ok(()) };
        while run.waiting.len() >= METRICS_PER_BATCH || (all && !run.waiting.is_empty()) {
            let batch: Vec<Logged> = run.waiting.drain(..run.waiting.len().min(METRICS_PER_BATCH)).collect();
            let sent = self.batch(&run.id, &mut run.known, batch).await;
            self.told(sent)?;
        }
        self.current = Some(run);
        Ok(())
    }

    async fn batch(
        &self,
        run: &str,
        known: &mut HashMap<String, u64>,
        mut batch: Vec<Logged>,
    ) -> Result<(), Refused> {
        let mut turn = 1;
        loop {
            let metrics: Vec<Value> = batch.iter().map(metric).collect();
            match self.server.once("runs/log-batch", &json!({"run_id": run, "metrics": metrics})).await {
                Ok(_) => {
                    known.extend(batch.into_iter().map(|one| (one.key, one.step)));
                    return Ok(());
                }
                Err(Refused::Again(_)) if turn < TRIES => {}
                Err(other) => return Err(other),
            }
            wait(turn).await;
            turn += 1;
            // Some or all of it may have arrived.
            let answer = self.server.ask(&format!("runs/get?run_id={run}"), &Value::Null).await?;
            *known = steps(&answer["run"]["data"]["metrics"]);
            batch.retain(|one| is_new(known, one));
            if batch.is_empty() {
                return Ok(());
            }
        }
    }

    /// Goes on with a run that was found or made before, or finds or makes that of `trial`.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub(crate) async fn open(&mut self, trial: &Trial, known: Option<Run>) -> Result<(), Problem> {
        let run = match known {
            Some(run) => Run { trial: trial.clone(), ..run },
            None => {
                let (id, known) = self.told(self.run(trial).await)?;
                self.describe(&id, "params", parameters(trial)).await?;
                self.describe(&id, "tags", tags(&self.subject, trial)).await?;
                let (trial, last_us) = (trial.clone(), self.subject.sweep.submitted_at_us);
                Run { id, trial, known, waiting: Vec::new(), last_us }
            }
        };
        self.current = Some(run);
        Ok(())
    }

    /// Sends all that waits of a trial that goes on, and gives its run for the next time.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub(crate) async fn rest(&mut self) -> Result<Option<Run>, Problem> {
        self.relieve(true).await?;
        Ok(self.current.take())
    }

    /// Sends all that waits of a trial that has ended, and how it ended.
    ///
    /// # Errors
    /// If the server does not answer or refuses.
    pub(crate) async fn conclude(&mut self) -> Result<(), Problem> {
        if let Some(run) = &self.current {
            let (id, tags) = (run.id.clone(), tags(&self.subject, &run.trial));
            self.describe(&id, "tags", tags).await?;
        }
        self.close().await
    }

    /// Parameters or tags. Repeating one with the same value changes nothing.
    async fn describe(&self, id: &str, of: &str, all: Vec<(String, String)>) -> Result<(), Problem> {
        let mut bodies = Vec::new();
        let (mut part, mut bytes) = (Vec::new(), 0);
        for (key, value) in all {
            bytes += key.len() + value.len();
            if !part.is_empty() && (part.len() >= PARAMS_PER_BATCH || bytes > PARAM_BYTES_PER_BATCH) {
                bodies.push(json!({"run_id": id, of: std::mem::take(&mut part)}));
                bytes = key.len() + value.len();
            }
            part.push(json!({"key": key, "value": value}));
        }
        bodies.push(json!({"run_id": id, of: part}));
        for body in bodies {
            let answer = self.server.ask("runs/log-batch", &body).await;
            self.told(answer)?;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Problem> {
        if let Some(run) = &mut self.current {
            let last: Vec<Logged> = finals(&run.trial, run.last_us).collect();
            self.skipped += run.take(last);
        }
        self.relieve(true).await?;
        let Some(run) = self.current.take() else { return Ok(()) };
        let status = Status::of(&run.trial);
        let mut body = json!({"run_id": run.id, "status": status.word()});
        if status.has_ended() {
            body["end_time"] = json!(run.last_us / 1000);
        }
        let answer = self.server.ask("runs/update", &body).await;
        self.told(answer).map(drop)
    }
}

impl Export for Rest {
    async fn trial(&mut self, trial: &Trial) -> Result<(), Problem> {
        self.close().await?;
        self.open(trial, None).await
    }

    async fn points(&mut self, points: &[Point]) -> Result<(), Problem> {
        for point in points {
            if let Some(run) = &mut self.current {
                run.last_us = run.last_us.max(point.at_us);
                self.skipped += run.take(logged(point).collect());
            }
            self.relieve(false).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Problem> {
        self.close().await
    }
}

impl Run {
    /// Lets what is new wait; gives how many are not.
    fn take(&mut self, all: Vec<Logged>) -> u64 {
        let count = all.len();
        let before = self.waiting.len();
        self.waiting.extend(all.into_iter().filter(|one| is_new(&self.known, one)));
        (count + before - self.waiting.len()) as u64
    }
}

fn is_new(known: &HashMap<String, u64>, one: &Logged) -> bool {
    known.get(&one.key).is_none_or(|last| one.step > *last)
}

/// Finds the experiment of that name, or makes it; and whether it did.
async fn experiment(server: &Server, name: &str, subject: &Subject) -> Result<(String, bool), Refused> {
    // Names of experiments are those of sweeps here: letters, digits and `._-`.
    let by_name = format!("experiments/get-by-name?experiment_name={name}");
    let find = || server.ask(&by_name, &Value::Null);
    match find().await {
        Ok(answer) => return Ok((text(&answer["experiment"]["experiment_id"])?, false)),
        Err(Refused::No(word, _)) if word == "RESOURCE_DOES_NOT_EXIST" => {}
        Err(other) => return Err(other),
    }
    let tag = json!({"key": "spotsweep.spec_digest", "value": subject.sweep.spec_digest});
    match server.ask("experiments/create", &json!({"name": name, "tags": [tag]})).await {
        Ok(answer) => Ok((text(&answer["experiment_id"])?, true)),
        // Somebody else was faster, or an answer was lost.
        Err(Refused::No(word, _)) if word == "RESOURCE_ALREADY_EXISTS" => {
            Ok((text(&find().await?["experiment"]["experiment_id"])?, false))
        }
        Err(other) => Err(other),
    }
}

fn text(value: &Value) -> Result<String, Refused> {
    let problem = || Problem::new(Code::BadRequest, "the MLflow server answers without an id");
    value.as_str().map(str::to_owned).ok_or_else(|| Refused::No(String::new(), problem()))
}

/// A metric for the wire; protobuf's JSON has words for what JSON has no numbers for.
fn metric(one: &Logged) -> Value {
    let value = match not_finite(one.value) {
        _ if one.value.is_finite() => json!(one.value),
        "inf" => json!("Infinity"),
        "-inf" => json!("-Infinity"),
        nan => json!(nan),
    };
    json!({"key": one.key, "value": value, "timestamp": one.timestamp, "step": one.step})
}

/// The last step of each metric; protobuf's JSON may write 64 bits as text.
fn steps(metrics: &Value) -> HashMap<String, u64> {
    let step = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let metrics = metrics.as_array().into_iter().flatten();
    metrics
        .filter_map(|metric| Some((metric["key"].as_str()?.to_owned(), step(&metric["step"]).unwrap_or(0))))
        .collect()
}
