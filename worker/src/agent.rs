//! The agent's one task: carries messages between the coordinator, the session and the trainers, and leaves
//! properly. All decisions are the session's.

mod error;
mod leaving;

use crate::{
    gang::GangWord,
    hello::hello,
    link::{Link, LinkError, LinkEvent},
    machine::Machine,
    reports::Due,
    session::{Command, Outgoing, Session},
    trainer::{Trainer, Trainers},
    warned::Warned,
    wire::{self, FromCoordinator},
};
pub use error::AgentError;
use futures::future::join_all;
use leaving::Leaving;
use spotsweep_proto::{
    ids::{Incarnation, WorkerName},
    notice::Notice,
};
use spotsweep_wire::v1;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};
use tonic::transport::Endpoint;

/// Heartbeats until the coordinator says how often it wants them.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Events of one device, and messages of the coordinator, that are taken before the other has its turn.
const BUDGET: usize = 1024;
/// Turns after which other tasks of the process have theirs.
const TURNS: usize = 64;

/// What an agent needs to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// URL of the coordinator, for instance `http://127.0.0.1:7077`; or several, at one of which it is.
    pub coordinators: Vec<String>,
    /// Its name, for people.
    pub name: WorkerName,
    /// Facts about the machine.
    pub machine: Machine,
}

/// How to leave.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Time for stopping jobs with a checkpoint and for handing their leases back.
    pub grace: Duration,
    /// Whether the coordinator is likely gone too: then the agent leaves as soon as it has no connection.
    pub orphaned: bool,
}

/// An agent.
pub struct Agent {
    config: AgentConfig,
    trainers: Box<dyn Trainers>,
    warned: Warned,
}

impl Agent {
    /// An agent that is not running yet.
    pub fn new(config: AgentConfig, trainers: impl Trainers + 'static) -> Self {
        Self { config, trainers: Box::new(trainers), warned: Warned::default() }
    }

    /// One that hears `notices` too: an interruption makes it leave as `shutdown` does, in the time that the notice
    /// promises, or else in `grace`.
    #[must_use]
    pub fn with_notices(self, notices: mpsc::Receiver<Notice>, grace: Duration) -> Self {
        Self { warned: Warned::new(notices, grace), ..self }
    }

    /// Runs until `shutdown` or a notice says to leave, then stops jobs with a checkpoint, hands leases back and says
    /// goodbye. Dropping the future leaves without a word.
    ///
    /// # Errors
    /// [`AgentError`] says why it ended otherwise.
    pub async fn run(mut self, shutdown: impl Future<Output = Drain>) -> Result<(), AgentError> {
        let endpoints = self.config.coordinators.iter().map(|url| {
            Endpoint::from_shared(url.clone()).map_err(|source| AgentError::Url { url: url.clone(), source })
        });
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let incarnation = incarnation()?;
        let mut shutdown = pin!(shutdown);
        let found = tokio::select! {
            found = self.trainers.find() => found,
            _drain = &mut shutdown => return Ok(()),
        };
        let equipment = found?;
        let trainers = equipment.devices.iter().map(|device| self.trainers.open(device)).collect();
        let hello = hello(&self.config, incarnation, &equipment);
        let now = Instant::now();
        let mut running = Running {
            session: Session::new(
                equipment.devices.into_iter().map(|device| device.name),
                equipment.scratch.as_deref(),
            ),
            trainers,
            link: Link::new(endpoints),
            hello,
            welcomed: false,
            heartbeat: HEARTBEAT,
            next_tick: now + HEARTBEAT,
            warned: self.warned,
            told_to_leave: false,
            leaving: None,
            timer: Box::pin(sleep_until(now + HEARTBEAT)),
        };
        let outcome = poll_fn(|cx| running.poll(cx, shutdown.as_mut())).await;
        join_all(running.trainers.drain(..).map(Trainer::close)).await;
        outcome
    }
}

fn incarnation() -> Result<Incarnation, AgentError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| AgentError::Random(error.to_string()))?;
    Ok(Incarnation(u128::from_be_bytes(bytes)))
}

struct Running {
    session: Session,
    trainers: Vec<Box<dyn Trainer>>,
    link: Link,
    hello: v1::Hello,
    welcomed: bool,
    heartbeat: Duration,
    next_tick: Instant,
    warned: Warned,
    /// The wish to leave has been heard; it is not asked again.
    told_to_leave: bool,
    leaving: Option<Leaving>,
    timer: Pin<Box<Sleep>>,
}

type Outcome = Result<(), AgentError>;

impl Running {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut shutdown: Pin<&mut impl Future<Output = Drain>>,
    ) -> Poll<Outcome> {
        for _ in 0..TURNS {
            let now = Instant::now();
            if !self.told_to_leave
                && let Poll::Ready(drain) = shutdown.as_mut().poll(cx)
            {
                self.told_to_leave = true;
                self.told(drain, now);
            }
            while let Poll::Ready(notice) = self.warned.poll(cx) {
                if let Some(grace) = self.warned.note(notice) {
                    self.leave(grace, false, now);
                }
            }
            let mut progress = self.poll_trainers(cx, now);
            match self.poll_link(cx, now) {
                Ok(any) => progress |= any,
                Err(error) => return Poll::Ready(Err(error)),
            }
            progress |= self.poll_outgoing(cx, now);
            progress |= self.poll_attempt_logs(cx, now, false);
            if self.session.has_lost_reports() {
                return Poll::Ready(Err(AgentError::Reports));
            }
            if let Some(outcome) = self.left(cx, now) {
                return Poll::Ready(outcome);
            }
            if !progress {
                ready!(self.poll_timer(cx, now));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn obey(&mut self) {
        while let Some(command) = self.session.next_command() {
            match command {
                Command::Start { device, attempt } => self.trainers[device].start(attempt),
                Command::Prepare { device, attempt } => self.trainers[device].prepare(&attempt),
                Command::Stop { device, lease, how } => self.trainers[device].stop(lease, how),
                Command::Regang { device, lease, place } => self.trainers[device].regang(lease, place),
                Command::Answer { device, lease, id, value } => {
                    self.trainers[device].answer(lease, id, value);
                }
            }
        }
    }

    fn poll_trainers(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = false;
        for device in 0..self.trainers.len() {
            for _ in 0..BUDGET {
                if !self.session.wants_events(device) {
                    break;
                }
                let Poll::Ready(event) = self.trainers[device].poll_event(cx) else { break };
                self.session.event(device, event, now);
                self.obey();
                progress = true;
            }
        }
        progress
    }

    fn poll_link(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, AgentError> {
        for taken in 0..BUDGET {
            let Poll::Ready(event) = self.link.poll(cx) else { return Ok(taken > 0) };
            match event {
                LinkEvent::Up => {
                    let held = self.session.held().into_iter().map(wire::held).collect();
                    self.hello.connection += 1;
                    self.link.say_hello(v1::Hello { held, ..self.hello.clone() });
                }
                LinkEvent::Message(message) => self.heard(message, now)?,
                LinkEvent::Down(error) => self.lost(&error),
            }
        }
        Ok(true)
    }

    fn heard(&mut self, message: v1::ToWorker, now: Instant) -> Result<(), AgentError> {
        let outcome = match wire::from_coordinator(message) {
            Ok(FromCoordinator::Welcome(welcome)) => {
                tracing::info!(held = welcome.keep.len(), "attached to the coordinator");
                self.link.welcomed();
                self.welcomed = true;
                self.heartbeat = welcome.heartbeat;
                self.next_tick = self.next_tick.min(now + welcome.heartbeat);
                self.session.data_at(&welcome.data_url);
                self.session.welcomed(welcome.applied_seq, &welcome.keep, &welcome.store_url);
                Ok(())
            }
            Ok(FromCoordinator::Sweep(number, sweep)) => {
                self.session.told_of(number, sweep);
                Ok(())
            }
            Ok(FromCoordinator::Granted(grants)) => {
                self.session.granted(grants, now).map_err(|error| error.to_string())
            }
            Ok(FromCoordinator::Renewed) => Ok(()),
            Ok(FromCoordinator::Revoked(lease, reason)) => {
                tracing::info!(%lease, ?reason, "a lease is revoked");
                self.session.revoked(lease, reason, now);
                Ok(())
            }
            Ok(FromCoordinator::Regang(lease, place)) => {
                tracing::info!(%lease, generation = %place.generation, rank = ?place.rank, ranks = place.shares.ranks(), "the gang has a new make-up");
                self.session.regang(lease, place, now);
                Ok(())
            }
            Ok(FromCoordinator::StoreAnswer(lease, id, value)) => {
                self.session.answered(lease, id, value);
                Ok(())
            }
            Ok(FromCoordinator::Acknowledged(seq)) => {
                self.session.acknowledged(seq);
                Ok(())
            }
            Ok(FromCoordinator::Rejected { code, message, hint }) => {
                return Err(AgentError::Rejected { code, message, hint });
            }
            Err(error) => Err(error.to_string()),
        };
        self.obey();
        if let Err(error) = outcome {
            tracing::error!(%error, "the coordinator breaks the contract; connecting anew");
            self.link.break_off();
            self.down();
        }
        Ok(())
    }

    fn lost(&mut self, error: &LinkError) {
        if self.leaving.as_ref().is_some_and(|leaving| leaving.goodbye.is_some()) {
            return self.down();
        }
        let failures = self.link.failures();
        // Not every try deserves a line: the first, and then as often as the number of tries doubles.
        if self.welcomed || failures.is_power_of_two() {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, %cause, failures, "no connection; jobs go on, reports are kept");
        }
        self.down();
    }

    fn down(&mut self) {
        self.welcomed = false;
        self.warned.disconnected();
        self.session.disconnected();
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = false;
        if now >= self.next_tick {
            self.session.tick(now);
            self.next_tick = now + self.heartbeat;
            if self.welcomed && self.link.poll_ready(cx).is_ready() {
                self.link.send(v1::from_worker::Message::Heartbeat(v1::Heartbeat {}));
            }
            progress = true;
        }
        if self.session.patience().is_some_and(|until| until <= now) {
            self.session.lose_patience(now);
            self.obey();
            progress = true;
        }
        // Before all reports: whoever else could take the work hears of it first.
        if self.welcomed
            && self.warned.is_unsaid()
            && self.link.poll_ready(cx).is_ready()
            && let Some(notice) = self.warned.say()
        {
            self.link.send(v1::from_worker::Message::Noticed(wire::noticed(notice)));
            progress = true;
        }
        loop {
            let due = match self.session.due() {
                Due::Now => true,
                Due::At(at) => at <= now,
                Due::Never => false,
            };
            if !due || self.link.poll_ready(cx).is_pending() {
                return progress;
            }
            let Some(outgoing) = self.session.next_outgoing() else { return progress };
            self.link.send(match outgoing {
                Outgoing::Reports(batch) => v1::from_worker::Message::Reports(batch),
                Outgoing::Ready(ready) => v1::from_worker::Message::Ready(ready),
                Outgoing::Gang(GangWord::News(lease, news)) => {
                    v1::from_worker::Message::Gang(wire::gang_news(lease, news))
                }
                Outgoing::Gang(GangWord::Ask(lease, question)) => {
                    v1::from_worker::Message::Store(wire::store_query(lease, question))
                }
            });
            progress = true;
        }
    }

    /// Sends what attempts printed, where the link has nothing better to do.
    fn poll_attempt_logs(&mut self, cx: &mut Context<'_>, now: Instant, hurry: bool) -> bool {
        if !self.welcomed || self.session.attempt_logs().due(now).is_none_or(|at| at > now && !hurry) {
            return false;
        }
        if self.link.poll_ready(cx).is_pending() {
            return false;
        }
        let Some(batch) = self.session.attempt_logs().next_batch(now, hurry) else { return false };
        self.link.send(v1::from_worker::Message::Logs(batch));
        true
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let mut next = self.next_tick;
        // What is due already waits for the link, not for time.
        if let Due::At(at) = self.session.due()
            && at > now
        {
            next = next.min(at);
        }
        if let Some(until) = self.session.patience() {
            next = next.min(until);
        }
        // Likewise.
        if let Some(at) = self.session.attempt_logs().due(now).filter(|at| *at > now) {
            next = next.min(at);
        }
        if let Some(leaving) = &self.leaving {
            next = next.min(leaving.goodbye.unwrap_or(leaving.deadline));
            next = next.min(leaving.logs_until.filter(|until| *until > now).unwrap_or(next));
        }
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx)
    }
}
