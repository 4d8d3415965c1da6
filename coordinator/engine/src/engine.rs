//! The engine's outside: `step` and the snapshot. Questions about the state are answered in [`crate::queries`].

use crate::{
    action::Action,
    config::Config,
    event::{Event, FORMAT_VERSION},
    state::{Out, State},
    time::Time,
};
use serde::{Deserialize, Deserializer, Serialize};
use spotsweep_proto::digest::Digest;

/// Why bytes are no snapshot of an engine.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Too short to carry a version.
    #[error("the snapshot is cut short")]
    Short,
    /// Written by another version of this program.
    #[error("the snapshot has format {found}, this program reads {FORMAT_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The state cannot be read.
    #[error("the snapshot cannot be read")]
    Decode(#[source] postcard::Error),
}

/// The whole state of a coordinator, and the only thing that changes it: [`Engine::step`].
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Engine {
    pub(crate) state: State,
}

impl<'de> Deserialize<'de> for Engine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut state = State::deserialize(deserializer)?;
        state.rebuild();
        Ok(Self { state })
    }
}

impl Engine {
    /// An empty one. The configuration becomes part of the state, so a journal without a snapshot must be
    /// replayed under the configuration with which it was begun.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { state: State::new(config) }
    }

    /// Takes one event in and appends what is to be done about it. Never fails: an event that makes no sense
    /// in the present state (a late message of a connection that is over) changes nothing. Time does not go
    /// backwards: an earlier `at` counts as the newest so far.
    pub fn step(&mut self, at: Time, event: Event, actions: &mut Vec<Action>) {
        let state = &mut self.state;
        let silence_s = at.seconds_since(state.now);
        state.now = state.now.max(at);
        let out = &mut Out { at: state.now, actions };
        if silence_s > state.config.lease_s {
            state.begin_delays_anew(out);
        }
        state.end_backoffs(out.at);
        // Reports come by the thousand, and what they change about gangs is settled where it changes.
        let settles = !matches!(event, Event::Reports { .. });
        match event {
            Event::Submit { request, token, spec } => state.submit(request, token, spec, out),
            Event::Control { request, target, command } => state.control(request, target, command, out),
            Event::Joined { session, hello } => state.joined(session, *hello, out),
            Event::Ready { session, device, credits } => state.ready(session, device, credits, out),
            Event::Reports { session, batch } => state.reports(session, batch, out),
            Event::Disconnected { session } => state.disconnected(session, out),
            Event::Left { session } => state.left(session, out),
            Event::Tick { heard } => state.tick(heard, out),
            Event::Restarted => state.restarted(out),
            Event::Noticed { session, notice } => state.noticed(session, notice, out),
            Event::Gang { session, trial, epoch, generation, step, news } => {
                state.gang_news(session, (trial, epoch), generation, step, news, out);
            }
            Event::Import { request, token, step } => state.import(request, token, step, out),
        }
        state.place(out);
        if settles && !state.gangs.is_empty() {
            state.settle_gangs(out);
            // What a gang gave back goes to others at once.
            state.place(out);
        }
        state.move_from_noticed(out);
    }

    /// The state as bytes, with [`FORMAT_VERSION`] in front.
    #[must_use]
    #[expect(clippy::expect_used, reason = "writing to memory does not fail, and every field serialises")]
    pub fn snapshot(&self) -> Vec<u8> {
        let head = FORMAT_VERSION.to_le_bytes().to_vec();
        postcard::to_extend(self, head).expect("the state serialises")
    }

    /// The engine whose state these bytes are.
    ///
    /// # Errors
    /// [`RestoreError`] if they are no snapshot of this version.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let (head, body) = bytes.split_first_chunk::<4>().ok_or(RestoreError::Short)?;
        match u32::from_le_bytes(*head) {
            FORMAT_VERSION => postcard::from_bytes(body).map_err(RestoreError::Decode),
            found => Err(RestoreError::Version { found }),
        }
    }

    /// Digest of the state: equal for engines that took the same events.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.snapshot())
    }
}
