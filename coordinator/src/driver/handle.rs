//! The driver's outside: submit, control, ask, watch, attach. Cheap to clone; used from any task.

use super::{
    Input, Question, RankWord, Release, SessionLink, ToSession, sessions::SESSION_QUEUE, writer::Job,
};
use crate::error::{Code, Problem};
use spotsweep_engine::{
    Engine, Refusal, Reply, SessionId,
    event::{Command, Hello, ReportBatch, Target},
    import::{ImportStep, ImportToken},
};
use spotsweep_proto::{notice::Notice, spec::SweepSpec};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use super::{
    watched::{Gist, WatchItem},
    writer::StoreState,
};

/// The way into the driver.
#[derive(Clone)]
pub struct Handle {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) jobs: std::sync::mpsc::Sender<Job>,
    pub(super) store: watch::Receiver<StoreState>,
    pub(super) watchers: broadcast::WeakSender<WatchItem>,
    pub(super) next_session: Arc<AtomicU64>,
}

impl Handle {
    /// Takes a sweep in; answers once it is durable. The same token submits once.
    ///
    /// # Errors
    /// The journal is stalled (whether the sweep is in is unknown then: submit again with the same token), or the
    /// coordinator ends.
    pub async fn submit(&self, token: u128, spec: SweepSpec) -> Result<Result<Reply, Refusal>, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Submit { token, spec: Box::new(spec), reply }).await?;
        answer.await.map_err(|_| self.why_silent())
    }

    /// Pauses, resumes or cancels; answers once it is durable.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn control(&self, target: Target, command: Command) -> Result<Result<Reply, Refusal>, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Control { target, command, reply }).await?;
        answer.await.map_err(|_| self.why_silent())
    }

    /// Takes the next step of an import; answers once it is durable.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn import(
        &self,
        token: ImportToken,
        step: ImportStep,
    ) -> Result<Result<Reply, Refusal>, Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Import { token, step, reply }).await?;
        answer.await.map_err(|_| self.why_silent())
    }

    /// Gives an import up, whether it began or not, even while the journal is stalled. Waits for no answer: none is needed.
    pub async fn abandon_import(&self, token: ImportToken) {
        let (reply, _nobody) = oneshot::channel();
        let _ended = self.inputs.send(Input::Import { token, step: ImportStep::Abandon, reply }).await;
    }

    /// Looks at the engine. The answer comes once all that the engine had seen is durable, with the number of the
    /// commit that made it so.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn query<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> R + Send + 'static,
    ) -> Result<(R, u64), Problem> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |engine, seq| {
            let found = look(engine);
            let release: Release = Box::new(move || {
                // Whoever asked may have gone.
                let _gone = reply.send((found, seq));
            });
            release
        });
        self.send(Input::Query(question)).await?;
        answer.await.map_err(|_| self.why_silent())
    }

    /// Waits until the history holds commit `seq`.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub async fn history_at_least(&self, seq: u64) -> Result<(), Problem> {
        let mut store = self.store.clone();
        if store.borrow().history_seq < seq {
            let _ended = self.jobs.send(Job::Flush);
        }
        let reached = store.wait_for(|state| state.history_seq >= seq || state.stalled.is_some()).await;
        match reached {
            Ok(state) if state.history_seq >= seq => Ok(()),
            Ok(_) | Err(_) => Err(self.why_silent()),
        }
    }

    /// What happens from now on; `None` if the driver has ended.
    #[must_use]
    pub fn watch(&self) -> Option<broadcast::Receiver<WatchItem>> {
        self.watchers.upgrade().map(|watchers| watchers.subscribe())
    }

    /// How far the store is, and whether it can be written.
    #[must_use]
    pub fn store_state(&self) -> StoreState {
        self.store.borrow().clone()
    }

    /// Opens a worker's connection, by its process's own count number `connection`. It is welcomed by the first message,
    /// or the channel closes: as it does at once where a later connection of the process is open.
    ///
    /// # Errors
    /// The coordinator ends.
    pub async fn attach(&self, hello: Hello, connection: u64) -> Result<Attached, Problem> {
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (messages, receiver) = mpsc::channel(SESSION_QUEUE);
        let heard = Arc::new(AtomicBool::new(true));
        let link = SessionLink { session, connection, messages, heard: heard.clone() };
        self.send(Input::Join { hello: Box::new(hello), link }).await?;
        Ok(Attached { sender: AttachedSender { session, inputs: self.inputs.clone(), heard }, receiver })
    }

    pub(crate) async fn shutdown(&self) {
        let _ended = self.inputs.send(Input::Shutdown).await;
    }

    async fn send(&self, input: Input) -> Result<(), Problem> {
        if self.store.borrow().stalled.is_some() {
            return Err(self.why_silent());
        }
        self.inputs.send(input).await.map_err(|_| self.why_silent())
    }

    fn why_silent(&self) -> Problem {
        match &self.store.borrow().stalled {
            Some(why) => Problem::new(
                Code::StorageStalled,
                format!("the coordinator cannot write its journal just now: {why}"),
            )
            .hint("nothing that was answered is lost. Make room on its disk; it goes on by itself. Then try again"),
            None => Problem::new(Code::ShuttingDown, "the coordinator is shutting down"),
        }
    }
}

/// A worker's connection, seen from outside the driver.
pub struct Attached {
    /// What the worker says goes in here.
    pub sender: AttachedSender,
    /// What it is sent comes out here; the end means that the driver has let go of it.
    pub receiver: mpsc::Receiver<ToSession>,
}

/// The way in for one worker's messages.
pub struct AttachedSender {
    session: SessionId,
    inputs: mpsc::Sender<Input>,
    heard: Arc<AtomicBool>,
}

impl AttachedSender {
    /// Something came, whatever it was: the worker lives.
    pub fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// It takes so many more leases on a device. False: the driver has ended.
    pub async fn ready(&self, device: u16, credits: u32) -> bool {
        self.inputs.send(Input::Ready { session: self.session, device, credits }).await.is_ok()
    }

    /// It reports. False: the driver has ended.
    pub async fn reports(&self, batch: ReportBatch) -> bool {
        self.inputs.send(Input::Reports { session: self.session, batch }).await.is_ok()
    }

    /// It was warned that its machine will be taken. False: the driver has ended.
    pub async fn noticed(&self, notice: Notice) -> bool {
        self.inputs.send(Input::Noticed { session: self.session, notice }).await.is_ok()
    }

    /// A rank of a gang on it says how its make-up stands. False: the driver has ended.
    pub async fn gang(&self, word: RankWord) -> bool {
        self.inputs.send(Input::Gang { session: self.session, word }).await.is_ok()
    }

    /// It said goodbye.
    pub async fn left(self) {
        let _ended = self.inputs.send(Input::Left { session: self.session }).await;
    }

    /// Its stream broke.
    pub async fn disconnected(self) {
        let _ended = self.inputs.send(Input::Disconnected { session: self.session }).await;
    }
}
