//! An agent by hand: one stream, every message spelled out.

use spotsweep_wire::{
    WORKER_PROTOCOL,
    v1::{self, from_worker, report::Body, to_worker, worker_client::WorkerClient},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A connected agent with one CPU.
pub(crate) struct Agent {
    pub(crate) say: mpsc::Sender<v1::FromWorker>,
    pub(crate) hear: Streaming<v1::ToWorker>,
    pub(crate) next_seq: u64,
}

pub(crate) fn hello(name: &str, incarnation: u128) -> v1::Hello {
    v1::Hello {
        protocol: WORKER_PROTOCOL,
        name: name.to_owned(),
        incarnation: incarnation.to_be_bytes().to_vec().into(),
        devices: vec![v1::Device {
            name: "cpu".to_owned(),
            kind: v1::DeviceKind::Cpu.into(),
            model: String::new(),
            memory_bytes: 0,
        }],
        machine: None,
        held: Vec::new(),
        connection: 0,
        programs_only: false,
        catalogue: Default::default(),
    }
}

impl Agent {
    /// Connects and says `hello`; gives the coordinator's first message.
    pub(crate) async fn connect(url: &str, hello: v1::Hello) -> (Self, to_worker::Message) {
        let (say, said) = mpsc::channel(64);
        let mut client = WorkerClient::connect(url.to_owned()).await.unwrap();
        let hear = client.attach(ReceiverStream::new(said)).await.unwrap().into_inner();
        let mut agent = Self { say, hear, next_seq: 1 };
        agent.tell(from_worker::Message::Hello(hello)).await;
        let first = agent.next().await.expect("a first message");
        (agent, first)
    }

    pub(crate) async fn tell(&self, message: from_worker::Message) {
        self.say.send(v1::FromWorker { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn ready(&self, credits: u32) {
        self.tell(from_worker::Message::Ready(v1::Ready { device: 0, credits })).await;
    }

    /// The next message that is no renewal; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<to_worker::Message> {
        loop {
            match self.hear.message().await.unwrap()?.message {
                Some(to_worker::Message::Renewed(_)) => {}
                other => return other,
            }
        }
    }

    /// The next batch of grants; the sweep's facts must have come before.
    pub(crate) async fn grants(&mut self, sweeps: &mut Vec<u32>) -> Vec<v1::Grant> {
        loop {
            match self.next().await.expect("grants") {
                to_worker::Message::Granted(batch) => {
                    for grant in &batch.grants {
                        assert!(
                            sweeps.contains(&grant.trial.unwrap().sweep),
                            "a sweep comes before its grants"
                        );
                    }
                    return batch.grants;
                }
                to_worker::Message::Sweep(info) => sweeps.push(info.sweep),
                _ => {}
            }
        }
    }

    pub(crate) async fn report(&mut self, grant: &v1::Grant, names: &[&str], bodies: Vec<Body>) {
        let reports: Vec<_> = bodies
            .into_iter()
            .map(|body| v1::Report { trial: grant.trial, epoch: grant.epoch, body: Some(body) })
            .collect();
        let first_seq = self.next_seq;
        self.next_seq += reports.len() as u64;
        let metric_names = names.iter().map(|name| (*name).to_owned()).collect();
        self.tell(from_worker::Message::Reports(v1::ReportBatch { first_seq, metric_names, reports })).await;
    }

    /// Waits until everything reported is acknowledged.
    pub(crate) async fn acknowledged(&mut self) {
        let last = self.next_seq - 1;
        while let Some(message) = self.next().await {
            if matches!(message, to_worker::Message::Acknowledged(ack) if ack.seq >= last) {
                return;
            }
        }
        panic!("the stream ended before the acknowledgement");
    }
}

/// Started, two points, finished.
pub(crate) fn whole_trial(value: f64) -> Vec<Body> {
    let progress = |step, value| {
        Body::Progress(v1::Progress { step, data_epoch: 0.5, names: vec![0], values: vec![value] })
    };
    vec![
        Body::Started(v1::Started { step: 0, total_steps: Some(2) }),
        progress(1, value + 1.0),
        progress(2, value),
        Body::Finished(v1::Finished {
            step: 2,
            names: vec![0],
            values: vec![value],
            weights_digest: vec![7; 32].into(),
            seconds: 0.5,
        }),
    ]
}
