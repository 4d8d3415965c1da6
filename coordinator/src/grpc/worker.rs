//! The Worker service: one stream an agent, from the wire into the driver and back.

use super::{
    from_worker,
    logs::{Counter, Desk},
    rendezvous::{Member, QUESTIONS_PER_CONNECTION, Rendezvous},
    to_worker,
};
use crate::{
    driver::{AttachedSender, Handle, ToSession},
    error::{Code, Problem},
    logs::Logs,
    told::Told,
};
use futures::{Stream, StreamExt as _};
use spotsweep_proto::limits::CREDITS_PER_DEVICE;
use spotsweep_wire::v1::{self, from_worker::Message, worker_server::Worker};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

/// An agent that does not say hello within this is none.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Takes agents in.
pub struct WorkerService {
    handle: Handle,
    urls: Arc<StoreUrls>,
    rendezvous: Rendezvous,
    desk: Desk,
    told: Told,
}

/// Where agents find objects.
#[derive(Debug, Clone, Default)]
pub struct StoreUrls {
    /// Where checkpoints go.
    pub checkpoints: String,
    /// Where data sets that users have added are stored; empty where that is nowhere.
    pub data: String,
}

impl WorkerService {
    /// One that feeds the driver behind `handle`; objects are at `urls`, what attempts print goes to `logs`, and what trainers
    /// have is `told`.
    #[must_use]
    pub fn new(handle: Handle, urls: StoreUrls, logs: Logs, told: Told) -> Self {
        let (rendezvous, desk) = (Rendezvous::default(), Desk::new(logs));
        Self { handle, urls: Arc::new(urls), rendezvous, desk, told }
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::ToWorker, Status>> + Send>>;

#[tonic::async_trait]
impl Worker for WorkerService {
    type AttachStream = Answers;

    async fn attach(&self, request: Request<Streaming<v1::FromWorker>>) -> Result<Response<Answers>, Status> {
        let said = request.into_inner();
        let (handle, urls) = (self.handle.clone(), self.urls.clone());
        let (rendezvous, desk, told) = (self.rendezvous.clone(), self.desk.clone(), self.told.clone());
        // The answer's headers go out before the hello is in: some clients wait for them before they say anything.
        let session = async move {
            match open(said, handle, urls, &rendezvous, (&desk, &told)).await {
                Ok(outgoing) => Box::pin(outgoing),
                Err(problem) => rejected(problem),
            }
        };
        Ok(Response::new(Box::pin(futures::stream::once(session).flatten())))
    }
}

/// Waits for the hello, and lets the agent in.
async fn open(
    mut said: Streaming<v1::FromWorker>,
    handle: Handle,
    urls: Arc<StoreUrls>,
    rendezvous: &Rendezvous,
    (desk, told): (&Desk, &Told),
) -> Result<Outgoing, Problem> {
    let no_hello =
        |_| Problem::new(Code::BadRequest, format!("no hello came within {} s", HELLO_LIMIT.as_secs()));
    let first = tokio::time::timeout(HELLO_LIMIT, said.message()).await.map_err(no_hello)?;
    let first = first.map_err(|status| Problem::from_status(&status))?;
    let Some(v1::FromWorker { message: Some(Message::Hello(hello)) }) = first else {
        return Err(Problem::new(Code::BadRequest, "an agent's first message is its hello"));
    };
    let connection = hello.connection;
    let (hello, catalogue) = from_worker::hello(hello)?;
    told.add(&catalogue);
    let devices = hello.devices.len();
    let (member, store_answers) = rendezvous.connect(hello.incarnation);
    let member = Arc::new(member);
    let counter = Arc::new(desk.connect(hello.incarnation, hello.name.clone()));
    let attached = handle.attach(hello, connection).await?;
    let end = Arc::new(Mutex::new(None));
    let (alive, ended) = oneshot::channel();
    let places = (member.clone(), counter.clone());
    tokio::spawn(listen(said, attached.sender, devices, places, end.clone(), ended));
    let (messages, ready) = (attached.receiver, VecDeque::new());
    Ok(Outgoing { messages, member, counter, store_answers, urls, ready, end, _alive: alive })
}

/// A stream that only says why the agent is not wanted.
fn rejected(problem: Problem) -> Answers {
    let Problem { code, message, hint } = problem;
    tracing::warn!(%code, "an agent is rejected: {message}");
    let rejected = v1::Rejected { code: code.as_str().to_owned(), message, hint };
    let message = v1::to_worker::Message::Rejected(rejected);
    Box::pin(futures::stream::iter([Ok(v1::ToWorker { message: Some(message) })]))
}

/// Takes what the agent says to the driver, until either side ends.
async fn listen(
    mut said: Streaming<v1::FromWorker>,
    sender: AttachedSender,
    devices: usize,
    (member, counter): (Arc<Member>, Arc<Counter>),
    end: Arc<Mutex<Option<Status>>>,
    mut answers_gone: oneshot::Receiver<()>,
) {
    let outcome = loop {
        let message = tokio::select! {
            message = said.message() => message,
            // Nobody sends on it: it ends when the answers' stream is dropped.
            _ = &mut answers_gone => break None,
        };
        let message = match message {
            Ok(Some(v1::FromWorker { message: Some(message) })) => message,
            // A message of a newer agent that this program does not know.
            Ok(Some(v1::FromWorker { message: None })) => continue,
            Ok(None) => break None,
            Err(status) => break Some(status),
        };
        sender.heard();
        let taken = match message {
            Message::Heartbeat(v1::Heartbeat {}) => continue,
            Message::Goodbye(v1::Goodbye {}) => return sender.left().await,
            Message::Ready(ready) => match from_worker::device_index(ready.device, devices) {
                Ok(device) => sender.ready(device, ready.credits.min(CREDITS_PER_DEVICE)).await,
                Err(problem) => break Some(problem.into()),
            },
            Message::Reports(batch) => match from_worker::report_batch(batch) {
                Ok(batch) => {
                    counter.reported(&batch);
                    sender.reports(batch).await
                }
                Err(problem) => break Some(problem.into()),
            },
            Message::Noticed(noticed) => match from_worker::noticed(noticed) {
                Some(notice) => sender.noticed(notice).await,
                None => continue,
            },
            Message::Gang(news) => match from_worker::gang_news(news) {
                Ok(word) => sender.gang(word).await,
                Err(problem) => break Some(problem.into()),
            },
            Message::Store(query) => match from_worker::store_query(query) {
                Ok(query) => {
                    if member.ask(query) {
                        continue;
                    }
                    break Some(too_many_questions().into());
                }
                Err(problem) => break Some(problem.into()),
            },
            Message::Logs(batch) => match counter.take(batch) {
                Ok(()) => continue,
                Err(problem) => break Some(problem.into()),
            },
            Message::Hello(_) => break Some(Problem::new(Code::BadRequest, "a second hello").into()),
        };
        if !taken {
            break None;
        }
    };
    if let Some(status) = outcome {
        tracing::warn!("an agent's stream ends: {}", status.message());
        *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }
    sender.disconnected().await;
}

fn too_many_questions() -> Problem {
    let message =
        format!("more than {QUESTIONS_PER_CONNECTION} questions to rendezvous stores wait for their answers");
    Problem::new(Code::TooLarge, message)
}

/// What the agent is sent.
struct Outgoing {
    messages: mpsc::Receiver<ToSession>,
    member: Arc<Member>,
    counter: Arc<Counter>,
    store_answers: mpsc::Receiver<v1::StoreAnswer>,
    urls: Arc<StoreUrls>,
    ready: VecDeque<v1::ToWorker>,
    /// Why the stream ends, if its other half knows.
    end: Arc<Mutex<Option<Status>>>,
    _alive: oneshot::Sender<()>,
}

impl Stream for Outgoing {
    type Item = Result<v1::ToWorker, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            match this.messages.poll_recv(context) {
                Poll::Ready(Some(what)) => {
                    this.member.told(&what);
                    this.counter.told(&what);
                    to_worker::messages(what, &this.urls, &mut this.ready);
                }
                Poll::Pending => {
                    // The other end is `member`'s: it is there.
                    let Some(answer) = ready!(this.store_answers.poll_recv(context)) else {
                        return Poll::Pending;
                    };
                    let message = Some(v1::to_worker::Message::Store(answer));
                    this.ready.push_back(v1::ToWorker { message });
                }
                Poll::Ready(None) => {
                    let end = this.end.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return Poll::Ready(end.map(Err));
                }
            }
        }
    }
}
