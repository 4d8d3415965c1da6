//! What each key does. Pure.

use super::{
    layout,
    model::{Effect, Model, Prompt, SEARCH, Tab},
};
use crate::cli::source::Change;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What sweeps are sorted by.
pub(super) const SWEEP_SORTS: [&str; 4] = ["newest", "name", "state", "left"];
/// What trials are sorted by, before metrics and parameters.
pub(super) const TRIAL_SORTS: [&str; 6] = ["best", "number", "state", "steps", "attempts", "seconds"];
/// What workers are sorted by.
pub(super) const WORKER_SORTS: [&str; 3] = ["name", "state", "here for"];
/// What events are sorted by.
pub(super) const EVENT_SORTS: [&str; 1] = ["newest"];

/// The keys, as help shows them.
pub(super) const HELP: [(&str, &str); 13] = [
    ("up, down, k, j", "move"),
    ("page up, page down", "move by a page"),
    ("home, end, g, G", "to the first, to the last"),
    ("enter", "go in: from a sweep to its trials, from there to one"),
    ("esc, backspace", "go back"),
    ("tab, 1 2 3 4", "sweeps, trials, workers, events"),
    ("/", "filter: text, or learning_rate>=0.01;state=running"),
    ("s, S", "sort by the next column, turn the order round"),
    ("m", "the next metric of the curve"),
    ("p, r", "pause, resume, after a question"),
    ("c", "cancel, after a question"),
    ("?", "this help"),
    ("q, ctrl-c", "quit"),
];

impl Model {
    /// What comes of a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Effect::Interrupt);
        }
        match self.prompt.take() {
            None => self.command(key.code),
            Some(Prompt::Help) => None,
            Some(Prompt::Confirm { change, target }) => match key.code {
                KeyCode::Char('y' | 'Y') => Some(Effect::Change(change, target)),
                _ => {
                    self.said = Some(("nothing was changed".to_owned(), false));
                    None
                }
            },
            Some(Prompt::Search(text)) => {
                self.search(text, key.code);
                None
            }
        }
    }

    fn command(&mut self, code: KeyCode) -> Option<Effect> {
        self.said = None;
        let index = self.tab_index();
        let (at, rows) = (self.cursors[index].at, layout::rows(self).max(1));
        match code {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('?') | KeyCode::F(1) => self.prompt = Some(Prompt::Help),
            KeyCode::Up | KeyCode::Char('k') => self.go(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(at + 1),
            KeyCode::PageUp => self.go(at.saturating_sub(rows)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.go(at.saturating_add(rows)),
            KeyCode::Home | KeyCode::Char('g') => self.go(0),
            KeyCode::End | KeyCode::Char('G') => self.go(usize::MAX),
            KeyCode::Tab => self.turn_to(Tab::ALL[(index + 1) % Tab::ALL.len()]),
            KeyCode::BackTab => self.turn_to(Tab::ALL[(index + Tab::ALL.len() - 1) % Tab::ALL.len()]),
            KeyCode::Char(digit @ '1'..='4') => self.turn_to(Tab::ALL[digit as usize - '1' as usize]),
            KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => self.enter(),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left | KeyCode::Char('h') => self.back(),
            KeyCode::Char('/') if !self.open => {
                self.prompt = Some(Prompt::Search(self.searches[index].clone()));
            }
            KeyCode::Char('s') if !self.open => {
                self.sorts[index] = (self.sorts[index] + 1) % self.sort_keys().len().max(1);
                self.turned[index] = false;
                self.go(0);
            }
            KeyCode::Char('S') if !self.open => {
                self.turned[index] = !self.turned[index];
                self.go(0);
            }
            KeyCode::Char('m') => self.next_metric(),
            KeyCode::Char('p') => self.ask(Change::Pause),
            KeyCode::Char('r') => self.ask(Change::Resume),
            KeyCode::Char('c') => self.ask(Change::Cancel),
            _ => {}
        }
        None
    }

    fn go(&mut self, at: usize) {
        if self.open {
            return;
        }
        let (index, length, rows) = (self.tab_index(), self.length(), layout::rows(self));
        self.cursors[index].to(at, length, rows);
    }

    fn turn_to(&mut self, tab: Tab) {
        self.open = false;
        if tab == Tab::Trials && self.sweep.is_none() {
            self.choose_sweep();
        }
        self.tab = tab;
        self.settle();
    }

    /// Makes the sweep under the cursor the one whose trials are listed.
    fn choose_sweep(&mut self) {
        let chosen = self.sweeps_listed().get(self.cursors[0].at).map(|one| one.sweep.clone());
        let Some(chosen) = chosen else { return };
        if self.sweep.as_ref() != Some(&chosen) {
            self.sweep = Some(chosen);
            self.page = None;
            self.shown = None;
            self.cursors[1] = super::model::Cursor::default();
            self.searches[1].clear();
            self.sorts[1] = 0;
            self.turned[1] = false;
        }
    }

    fn enter(&mut self) {
        match self.tab {
            Tab::Sweeps if self.sweeps_listed().is_empty() => {}
            Tab::Sweeps => {
                self.choose_sweep();
                self.turn_to(Tab::Trials);
            }
            Tab::Trials => {
                if let Some(trial) = self.chosen_trial().cloned() {
                    self.show(trial);
                }
            }
            Tab::Workers => {
                let worker = self.workers_listed().get(self.cursors[2].at).copied().cloned();
                let trial = worker
                    .and_then(|worker| worker.devices.into_iter().flat_map(|device| device.trials).next());
                if let Some(trial) = trial {
                    self.visit(&trial);
                }
            }
            Tab::Events => {
                let about = self.events_listed().get(self.cursors[3].at).map(|one| one.about.clone());
                if let Some(trial) = about.filter(|about| about.contains('/')) {
                    self.visit(&trial);
                }
            }
        }
    }

    /// Shows a trial of whichever sweep.
    fn visit(&mut self, trial: &str) {
        let Some((sweep, _)) = trial.rsplit_once('/') else { return };
        if let Some(at) = self.sweeps_listed().iter().position(|one| one.sweep == sweep) {
            self.cursors[0].at = at;
            self.choose_sweep();
            self.tab = Tab::Trials;
            self.show(spotsweep_wire::v1::Trial {
                sweep: sweep.to_owned(),
                trial: trial.to_owned(),
                ..spotsweep_wire::v1::Trial::default()
            });
        }
    }

    fn show(&mut self, trial: spotsweep_wire::v1::Trial) {
        if self.shown.as_ref().is_none_or(|shown| shown.trial.trial != trial.trial) {
            self.shown = Some(super::model::Shown { trial, ..super::model::Shown::default() });
        }
        self.open = true;
    }

    fn back(&mut self) {
        let index = self.tab_index();
        if self.open {
            self.open = false;
        } else if !self.searches[index].is_empty() {
            self.searches[index].clear();
        } else {
            self.tab = Tab::Sweeps;
        }
        self.settle();
    }

    fn search(&mut self, mut text: String, code: KeyCode) {
        let index = self.tab_index();
        match code {
            KeyCode::Enter => {
                self.searches[index] = text.trim().to_owned();
                self.go(0);
                return;
            }
            KeyCode::Esc => return,
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Char(c) if text.chars().count() < SEARCH => text.push(c),
            _ => {}
        }
        self.prompt = Some(Prompt::Search(text));
    }

    fn next_metric(&mut self) {
        let Some(shown) = &self.shown else { return };
        let now = self.curve().map(|curve| &curve.metric);
        let at = shown.curves.iter().position(|curve| Some(&curve.metric) == now);
        let next = at.map_or(0, |at| (at + 1) % shown.curves.len());
        self.metric = shown.curves.get(next).map(|curve| curve.metric.clone());
    }

    fn ask(&mut self, change: Change) {
        match self.target() {
            Some(target) => self.prompt = Some(Prompt::Confirm { change, target }),
            None => self.said = Some(("choose a sweep or a trial first".to_owned(), true)),
        }
    }
}
