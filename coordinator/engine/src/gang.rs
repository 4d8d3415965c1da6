//! Gangs.

use crate::{
    event::GangNews,
    refs::{SessionId, TrialRef},
    state::{Out, State},
};
use spotsweep_proto::{gang::Generation, ids::Epoch};

impl State {
    pub(crate) fn gang_news(
        &mut self,
        session: SessionId,
        _lease: (TrialRef, Epoch),
        _generation: Generation,
        _step: u64,
        _news: GangNews,
        out: &mut Out<'_>,
    ) {
        if let Some(&id) = self.sessions.get(&session) {
            self.hear(id, out);
        }
    }
}
