//! Metrics that stand elsewhere than in messages: in lines of the program's output, and in event files. They wait until those of
//! their step are complete, and are then reported together.

use super::{LOOK_EVERY, Looked, Program, STARTED_AFTER};
use crate::program::{pattern::Found, tensorboard::ByStep};
use tokio::time::Instant;

impl Program {
    /// Metrics that stand in a line of its output.
    pub(super) fn found(&mut self, found: Found) {
        self.counted = found.step.unwrap_or(self.counted + 1);
        let step = self.counted;
        self.pending.entry(step).or_default().extend(found.metrics);
        self.added = true;
        self.tell_pending(false);
    }

    /// Reports metrics that are complete: those of all steps but the newest, or `all`.
    pub(super) fn tell_pending(&mut self, all: bool) {
        while let Some(entry) = self.pending.first_entry().map(|entry| *entry.key()) {
            if !all && self.pending.len() == 1 {
                return;
            }
            if let Some(metrics) = self.pending.remove(&entry)
                && let Some(message) = self.tale.report(entry, None, &metrics)
            {
                self.say_to_agent(message);
            }
        }
    }

    pub(super) fn look(&mut self) {
        self.next_look = Instant::now() + LOOK_EVERY;
        self.family.reap_ended();
        if self.since.elapsed() >= STARTED_AFTER {
            self.queue.extend(self.tale.start(None));
        }
        if !std::mem::take(&mut self.added) {
            self.tell_pending(true);
        }
        self.look_at_events();
    }

    fn look_at_events(&mut self) {
        if let Some(mut events) = self.events.take() {
            self.looking = Some(tokio::task::spawn_blocking(move || {
                let (found, warnings, more) = events.look();
                (events, found, warnings, more)
            }));
        }
    }

    pub(super) fn looked(&mut self, (events, found, warnings, more): Looked) {
        self.events = Some(events);
        self.added |= !found.is_empty();
        self.take_in(found, warnings);
        self.tell_pending(false);
        if more {
            self.look_at_events();
        }
    }

    /// What stands in event files.
    pub(super) fn take_in(&mut self, found: ByStep, warnings: Vec<String>) {
        for (step, metrics) in found {
            self.pending.entry(step).or_default().extend(metrics);
        }
        warnings.into_iter().for_each(|warning| self.tale.warn(warning));
    }
}
