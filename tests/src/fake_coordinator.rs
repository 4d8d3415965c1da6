//! A coordinator that does what a test tells it, message by message, for testing agents alone.

use spotsweep_wire::v1::{
    self, from_worker, to_worker,
    worker_server::{Worker, WorkerServer},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

/// Whatever a test waits for comes within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Listens for agents.
pub struct FakeCoordinator {
    address: SocketAddr,
    conversations: mpsc::Receiver<Conversation>,
    server: JoinHandle<()>,
}

/// One agent's stream.
pub struct Conversation {
    incoming: Streaming<v1::FromWorker>,
    outgoing: mpsc::Sender<Result<v1::ToWorker, Status>>,
    /// Number of the next report.
    pub next_seq: u64,
    /// Credits by device, as last announced.
    pub credits: BTreeMap<u32, u32>,
    /// Heartbeats so far.
    pub heartbeats: u64,
    /// Of what the agent said that it was warned.
    pub notices: Vec<v1::Noticed>,
    /// What attempts printed.
    pub logs: Vec<v1::LogChunk>,
}

struct Service(mpsc::Sender<Conversation>);

#[tonic::async_trait]
impl Worker for Service {
    type AttachStream = ReceiverStream<Result<v1::ToWorker, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outgoing, receiver) = mpsc::channel(1024);
        let conversation = Conversation {
            incoming: request.into_inner(),
            outgoing,
            next_seq: 1,
            credits: BTreeMap::new(),
            heartbeats: 0,
            notices: Vec::new(),
            logs: Vec::new(),
        };
        self.0.send(conversation).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl FakeCoordinator {
    /// On a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, conversations) = mpsc::channel(1024);
        let server = tonic::transport::Server::builder()
            .add_service(WorkerServer::new(Service(sender)))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let server = tokio::spawn(async move {
            server.await.expect("the server runs");
        });
        Self { address, conversations, server }
    }

    /// Where it listens, as agents are told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next agent that opens a stream.
    pub async fn accept(&mut self) -> Conversation {
        timeout(PATIENCE, self.conversations.recv())
            .await
            .expect("an agent comes in time")
            .expect("the server runs")
    }
}

impl Drop for FakeCoordinator {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Conversation {
    /// The next message; `None` when the agent has ended the stream.
    pub async fn next(&mut self) -> Option<from_worker::Message> {
        let message = timeout(PATIENCE, self.incoming.message()).await.expect("the agent speaks in time");
        message.ok().flatten().map(|message| message.message.expect("a known kind of message"))
    }

    /// The next message, which must be the hello.
    pub async fn hello(&mut self) -> v1::Hello {
        match self.next().await {
            Some(from_worker::Message::Hello(hello)) => hello,
            other => panic!("a hello comes first, not {other:?}"),
        }
    }

    /// Says something.
    pub async fn say(&mut self, message: to_worker::Message) {
        let message = v1::ToWorker { message: Some(message) };
        self.outgoing.send(Ok(message)).await.expect("the agent listens");
    }

    /// Says something to an agent that may have died.
    pub async fn say_if_there(&mut self, message: to_worker::Message) {
        let message = v1::ToWorker { message: Some(message) };
        let _gone = self.outgoing.send(Ok(message)).await;
    }

    /// Welcomes the agent and lets it keep these leases.
    pub async fn welcome(&mut self, applied_seq: u64, keep: Vec<v1::HeldLease>, store_url: &str) {
        self.next_seq = applied_seq + 1;
        self.say(to_worker::Message::Welcome(v1::Welcome {
            worker: 1,
            applied_seq,
            keep,
            store_url: store_url.to_owned(),
            data_url: String::new(),
            heartbeat_s: 0.2,
            lease_s: 10.0,
        }))
        .await;
    }

    /// Tells of sweep 0.
    pub async fn tell_of_sweep(&mut self, train: serde_json::Value, every_steps: u64) {
        let checkpoint = serde_json::json!({"every": {"steps": every_steps}, "keep_last": 2});
        self.say(to_worker::Message::Sweep(v1::SweepInfo {
            sweep: 0,
            name: "fake".to_owned(),
            train_json: train.to_string(),
            checkpoint_json: checkpoint.to_string(),
            program_json: String::new(),
            metric: String::new(),
        }))
        .await;
    }

    /// Grants trials of sweep 0 on device 0, under epoch 1.
    pub async fn grant(&mut self, numbers: std::ops::Range<u32>, params: &serde_json::Value) {
        let grants = numbers.map(|number| grant(number, 1, params, None)).collect();
        self.say(to_worker::Message::Granted(v1::GrantBatch { grants })).await;
    }

    /// Revokes a lease of sweep 0.
    pub async fn revoke(&mut self, number: u32, epoch: u64, reason: v1::RevokeReason) {
        let trial = Some(v1::TrialKey { sweep: 0, number });
        self.say(to_worker::Message::Revoked(v1::Revoked { trial, epoch, reason: reason.into() })).await;
    }

    /// Acknowledges all reports so far.
    pub async fn acknowledge(&mut self) {
        let seq = self.next_seq - 1;
        self.say(to_worker::Message::Acknowledged(v1::Acknowledged { seq })).await;
    }

    /// The next batch of reports, without a gap behind those before; credits and heartbeats are noted.
    pub async fn reports(&mut self) -> v1::ReportBatch {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "reports come in time");
            match self.next().await {
                Some(from_worker::Message::Reports(batch)) => {
                    assert_eq!(batch.first_seq, self.next_seq, "reports are numbered without a gap");
                    self.next_seq += batch.reports.len() as u64;
                    return batch;
                }
                Some(from_worker::Message::Ready(ready)) => {
                    self.credits.insert(ready.device, ready.credits);
                }
                other => self.note(other),
            }
        }
    }

    /// Waits until attempts of a trial have printed these words; gives all that they have.
    pub async fn log_with(&mut self, trial: u32, words: &str) -> String {
        loop {
            let chunks = self.logs.iter().filter(|chunk| chunk.trial.is_some_and(|key| key.number == trial));
            let text: Vec<u8> = chunks.flat_map(|chunk| chunk.text.to_vec()).collect();
            let text = String::from_utf8_lossy(&text);
            if text.contains(words) {
                return text.into_owned();
            }
            match self.next().await {
                Some(from_worker::Message::Ready(ready)) => {
                    self.credits.insert(ready.device, ready.credits);
                }
                other => self.note(other),
            }
        }
    }

    /// Notes what may come at any time.
    fn note(&mut self, message: Option<from_worker::Message>) {
        match message {
            Some(from_worker::Message::Heartbeat(_)) => self.heartbeats += 1,
            Some(from_worker::Message::Noticed(noticed)) => self.notices.push(noticed),
            Some(from_worker::Message::Logs(batch)) => self.logs.extend(batch.chunks),
            other => panic!("not expected now: {other:?}"),
        }
    }

    /// Waits for credits.
    pub async fn ready(&mut self) -> v1::Ready {
        loop {
            match self.next().await {
                Some(from_worker::Message::Ready(ready)) => {
                    self.credits.insert(ready.device, ready.credits);
                    return ready;
                }
                other => self.note(other),
            }
        }
    }

    /// Reads reports until one fits, acknowledging all; gives all of them, the one that fits last.
    pub async fn until(&mut self, fits: impl Fn(&v1::report::Body) -> bool) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            let batch = self.reports().await;
            let names = batch.metric_names;
            let mut found = false;
            for report in batch.reports {
                let body = report.body.expect("a known kind of report");
                found |= fits(&body);
                let trial = report.trial.expect("a trial").number;
                seen.push(Seen { trial, epoch: report.epoch, body, names: names.clone() });
            }
            self.acknowledge().await;
            if found {
                return seen;
            }
        }
    }
}

/// A report that came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Number of the trial.
    pub trial: u32,
    /// Its epoch.
    pub epoch: u64,
    /// What it says.
    pub body: v1::report::Body,
    /// Names of the batch's metrics.
    pub names: Vec<String>,
}

/// A lease of sweep 0 on device 0.
pub fn grant(
    number: u32,
    epoch: u64,
    params: &serde_json::Value,
    resume: Option<v1::Checkpoint>,
) -> v1::Grant {
    v1::Grant {
        trial: Some(v1::TrialKey { sweep: 0, number }),
        epoch,
        attempt: 1,
        device: 0,
        params_json: params.to_string(),
        resume,
        interruption_mean_s: 3600.0,
        gang: None,
    }
}
