//! The Worker service: one stream for each connection of an agent.

use super::{from_worker, to_worker};
use crate::{
    driver::{AttachedSender, Handle},
    error::{Code, Problem},
};
use futures::{Stream, StreamExt as _, stream};
use spotsweep_wire::v1::{self, from_worker::Message, to_worker as out, worker_server::Worker};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The service.
pub struct WorkerService {
    handle: Handle,
    store_url: Arc<str>,
}

impl WorkerService {
    /// Of a coordinator whose checkpoints lie at `store_url`.
    #[must_use]
    pub fn new(handle: Handle, store_url: &str) -> Self {
        Self { handle, store_url: store_url.into() }
    }
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<v1::ToWorker, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for WorkerService {
    type AttachStream = Outgoing;

    async fn attach(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Outgoing>, Status> {
        let mut incoming = request.into_inner();
        let handle = self.handle.clone();
        let store_url = self.store_url.clone();
        let (rejections, rejected) = mpsc::channel(1);
        // The answer's headers go out before the hello is in: some clients wait for them before they say anything.
        let session = async move {
            let opened = match tokio::time::timeout(HELLO_WITHIN, first_hello(&mut incoming)).await {
                Ok(Ok(hello)) => match from_worker::hello(hello) {
                    Ok(hello) => Ok((hello.devices.len(), handle.attach(hello).await)),
                    Err(problem) => Err(problem),
                },
                Ok(Err(problem)) => Err(problem),
                Err(_) => Err(Problem::new(Code::BadRequest, "the agent did not say hello in time")),
            };
            match opened {
                Ok((devices, Ok(attached))) => {
                    tokio::spawn(listen(incoming, attached.sender, devices, rejections));
                    ReceiverStream::new(attached.receiver)
                        .map(move |what| Some(Ok(to_worker::message(what, &store_url))))
                        .boxed()
                }
                Ok((_, Err(problem))) | Err(problem) => {
                    stream::iter([Some(Ok(rejection(problem))), None]).boxed()
                }
            }
        };
        let messages = stream::once(session).flatten().chain(stream::once(std::future::ready(None)));
        let rejected = ReceiverStream::new(rejected).map(|message| Some(Ok(message)));
        let both = stream::select(messages, rejected);
        let until_let_go =
            both.take_while(|m| std::future::ready(m.is_some())).filter_map(std::future::ready);
        Ok(Response::new(Box::pin(until_let_go)))
    }
}

async fn first_hello(incoming: &mut Streaming<v1::FromWorker>) -> Result<v1::Hello, Problem> {
    let first = incoming.message().await.map_err(|status| Problem::from_status(&status))?;
    match first.and_then(|first| first.message) {
        Some(Message::Hello(hello)) => Ok(hello),
        _ => Err(Problem::new(Code::BadRequest, "an agent says hello first")),
    }
}

fn rejection(problem: Problem) -> v1::ToWorker {
    tracing::warn!(code = %problem.code, "an agent is rejected: {}", problem.message);
    let Problem { code, message, hint } = problem;
    let rejected = v1::Rejected { code: code.to_string(), message, hint };
    v1::ToWorker { message: Some(out::Message::Rejected(rejected)) }
}

/// Takes what the agent says until it leaves, breaks off, or breaks a rule.
async fn listen(
    mut incoming: Streaming<v1::FromWorker>,
    sender: AttachedSender,
    devices: usize,
    rejections: mpsc::Sender<v1::ToWorker>,
) {
    loop {
        let message = match incoming.message().await {
            Ok(Some(v1::FromWorker { message: Some(message) })) => message,
            Ok(Some(v1::FromWorker { message: None })) => continue,
            Ok(None) | Err(_) => return sender.disconnected().await,
        };
        sender.heard();
        let taken = match message {
            Message::Heartbeat(_) => Ok(true),
            Message::Ready(ready) => match from_worker::device_index(ready.device, devices) {
                Ok(device) => Ok(sender.ready(device, ready.credits).await),
                Err(problem) => Err(problem),
            },
            Message::Reports(batch) => match from_worker::report_batch(batch) {
                Ok(batch) => Ok(sender.reports(batch).await),
                Err(problem) => Err(problem),
            },
            Message::Goodbye(_) => return sender.left().await,
            Message::Hello(_) => Err(Problem::new(Code::BadRequest, "an agent says hello once")),
        };
        match taken {
            Ok(true) => {}
            Ok(false) => return,
            Err(problem) => {
                let _gone = rejections.send(rejection(problem)).await;
                return sender.disconnected().await;
            }
        }
    }
}
