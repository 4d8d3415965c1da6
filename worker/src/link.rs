//! The connection to the coordinator: made, lost, and made again after a growing wait, at the next of its addresses if it
//! has several. A name is looked up anew each time. Knows nothing of leases.

use crate::backoff::Backoff;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use spotsweep_proto::limits::GRPC_MESSAGE_BYTES;
use spotsweep_wire::v1::{self, worker_client::WorkerClient};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// Wait before the first new try.
const RETRY_BASE: Duration = Duration::from_millis(50);
/// Longest wait between two tries.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// A connection that served for so long was a good one: what follows it starts with short waits again. One that
/// breaks at once, time and again, is tried less and less often.
const LASTING: Duration = Duration::from_secs(1);
/// A coordinator that does not take the connection within this is taken for absent.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A coordinator that does not welcome within this is taken for broken. Long enough for one that replays a long
/// journal, or to which thousands of agents come back at once.
const WELCOME_LIMIT: Duration = Duration::from_secs(20);
/// HTTP/2 pings find a connection whose other end vanished without a word.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A ping must be answered within this.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// Messages that wait for the transport; when they are so many, reports gather into larger batches instead.
const OUTGOING: usize = 4;
/// HTTP/2 flow control windows, in bytes: room for a few large batches of grants.
const WINDOW_BYTES: u32 = 4 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the coordinator cannot be reached")]
    Connect(#[source] tonic::transport::Error),
    #[error("the coordinator refused the stream or broke it off")]
    Stream(#[source] Box<tonic::Status>),
    #[error("the coordinator ended the stream")]
    Ended,
    #[error("the coordinator did not say welcome within {} s", WELCOME_LIMIT.as_secs())]
    NoWelcome,
}

/// What happens on a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The transport is up: call [`Link::say_hello`].
    Up,
    /// The coordinator said something.
    Message(v1::ToWorker),
    /// The connection is gone or did not come about; there will be another.
    Down(LinkError),
}

pub(crate) struct Link {
    /// Where the coordinator may be; the first is tried next.
    endpoints: VecDeque<Endpoint>,
    backoff: Backoff,
    state: State,
    /// Since when this connection serves.
    welcomed_at: Option<Instant>,
    finished: bool,
}

type Outgoing = PollSender<v1::FromWorker>;
type Incoming = Streaming<v1::ToWorker>;

enum State {
    Waiting(Pin<Box<Sleep>>),
    Connecting(BoxFuture<'static, Result<Channel, tonic::transport::Error>>),
    /// The transport is up and the hello is wanted.
    Up(WorkerClient<Channel>),
    Opening(Outgoing, BoxFuture<'static, Result<Incoming, tonic::Status>>, Pin<Box<Sleep>>),
    /// The stream is open; the sleep is what is left for the welcome.
    Open(Outgoing, Box<Incoming>, Option<Pin<Box<Sleep>>>),
}

impl Link {
    /// A link that begins to connect when it is polled.
    pub(crate) fn new(endpoints: Vec<Endpoint>) -> Self {
        let tuned = |endpoint: Endpoint| {
            endpoint
                .connect_timeout(CONNECT_LIMIT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_LIMIT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
        };
        Self {
            endpoints: endpoints.into_iter().map(tuned).collect(),
            backoff: Backoff::new(RETRY_BASE, RETRY_LIMIT),
            state: State::Waiting(Box::pin(sleep(Duration::ZERO))),
            welcomed_at: None,
            finished: false,
        }
    }

    /// Opens the stream; `hello` is its first message. Only after [`LinkEvent::Up`].
    pub(crate) fn say_hello(&mut self, hello: v1::Hello) {
        let State::Up(client) = &mut self.state else { return };
        let mut client = client.clone();
        let (sender, receiver) = mpsc::channel(OUTGOING);
        let mut sender = PollSender::new(sender);
        let first = v1::FromWorker { message: Some(v1::from_worker::Message::Hello(hello)) };
        // The channel is new and empty, so neither can fail; if one did, the missing welcome would tell.
        let _reserved = sender.poll_reserve(&mut Context::from_waker(std::task::Waker::noop()));
        let _sent = sender.send_item(first);
        let opening = async move {
            client.attach(ReceiverStream::new(receiver)).await.map(tonic::Response::into_inner)
        };
        self.state = State::Opening(sender, opening.boxed(), Box::pin(sleep(WELCOME_LIMIT)));
    }

    /// The coordinator said welcome. Once that has lasted for a while, the next failure counts as a new one.
    pub(crate) fn welcomed(&mut self) {
        self.welcomed_at = Some(Instant::now());
        if let State::Open(_, _, deadline) = &mut self.state {
            *deadline = None;
        }
    }

    /// Failures to connect in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Breaks the connection off, because the other end breaks the contract; a new one is made after a wait.
    pub(crate) fn break_off(&mut self) {
        if self.welcomed_at.take().is_some_and(|at| at.elapsed() >= LASTING) {
            self.backoff.reset();
        }
        self.endpoints.rotate_left(1.min(self.endpoints.len()));
        self.state = State::Waiting(Box::pin(sleep(self.backoff.next())));
    }

    /// Whether a message can be sent now.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Open(outgoing, ..) if !self.finished => match outgoing.poll_reserve(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(()),
                // Closed: the incoming half will tell.
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
            },
            State::Open(..)
            | State::Waiting(_)
            | State::Connecting(_)
            | State::Up(_)
            | State::Opening(..) => Poll::Pending,
        }
    }

    /// Sends; only after [`Self::poll_ready`].
    pub(crate) fn send(&mut self, message: v1::from_worker::Message) {
        if let State::Open(outgoing, ..) = &mut self.state {
            // An error means that the connection is gone, which the incoming half tells as well.
            let _sent = outgoing.send_item(v1::FromWorker { message: Some(message) });
        }
    }

    /// Nothing more will be said. The coordinator ends its half when it has read everything.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        if let State::Open(outgoing, ..) = &mut self.state {
            outgoing.close();
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        loop {
            match &mut self.state {
                State::Waiting(wait) => {
                    std::task::ready!(wait.as_mut().poll(cx));
                    let Some(endpoint) = self.endpoints.front() else { return Poll::Pending };
                    self.state = State::Connecting(connect(endpoint));
                }
                State::Connecting(connecting) => match std::task::ready!(connecting.poll_unpin(cx)) {
                    Ok(channel) => {
                        let client = WorkerClient::new(channel)
                            .max_decoding_message_size(GRPC_MESSAGE_BYTES)
                            .max_encoding_message_size(GRPC_MESSAGE_BYTES);
                        self.state = State::Up(client);
                        return Poll::Ready(LinkEvent::Up);
                    }
                    Err(error) => return self.down(LinkError::Connect(error)),
                },
                // Whoever polls has been told; there is nothing to wait for.
                State::Up(_) => return Poll::Pending,
                State::Opening(_, opening, deadline) => match opening.poll_unpin(cx) {
                    Poll::Ready(Ok(incoming)) => self.open(incoming),
                    Poll::Ready(Err(status)) => return self.down(LinkError::Stream(Box::new(status))),
                    Poll::Pending => {
                        std::task::ready!(deadline.as_mut().poll(cx));
                        return self.down(LinkError::NoWelcome);
                    }
                },
                State::Open(_, incoming, deadline) => match incoming.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(message))) => return Poll::Ready(LinkEvent::Message(message)),
                    Poll::Ready(Some(Err(status))) => {
                        return self.down(LinkError::Stream(Box::new(status)));
                    }
                    Poll::Ready(None) => return self.down(LinkError::Ended),
                    Poll::Pending => {
                        let Some(deadline) = deadline else { return Poll::Pending };
                        std::task::ready!(deadline.as_mut().poll(cx));
                        return self.down(LinkError::NoWelcome);
                    }
                },
            }
        }
    }

    fn open(&mut self, incoming: Incoming) {
        let idle = State::Waiting(Box::pin(sleep(RETRY_BASE)));
        self.state = match std::mem::replace(&mut self.state, idle) {
            State::Opening(outgoing, _, deadline) => {
                State::Open(outgoing, Box::new(incoming), Some(deadline))
            }
            other @ (State::Waiting(_) | State::Connecting(_) | State::Up(_) | State::Open(..)) => other,
        };
    }

    fn down(&mut self, error: LinkError) -> Poll<LinkEvent> {
        self.break_off();
        Poll::Ready(LinkEvent::Down(error))
    }
}

fn connect(endpoint: &Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> {
    let endpoint = endpoint.clone();
    async move { endpoint.connect().await }.boxed()
}
