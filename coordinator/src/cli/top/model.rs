//! What `top` shows and how keys change it: a state, fed with keys and with what the coordinator tells.
//!
//! Pure: no terminal, no clock, no network. What it needs to know is [`Model::wanted`]; what it wants done, an [`Effect`].

use super::{keys, layout};
use crate::cli::{ls, plot::Curve, source::Change};
use spotsweep_wire::v1::{ListTrialsRequest, ListTrialsResponse, SweepSummary, Trial, WorkerSummary};
use std::collections::VecDeque;

/// Events that are kept; older ones are forgotten.
const EVENTS: usize = 1000;
/// Longest text of a filter, in characters.
pub(super) const SEARCH: usize = 200;
/// Most trials of one page, as the coordinator gives them.
const PAGE: usize = 1000;

/// The lists, in the order of their digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Sweeps,
    Trials,
    Workers,
    Events,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Sweeps, Self::Trials, Self::Workers, Self::Events];
}

/// Whether the coordinator answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Link {
    /// It does.
    Up,
    /// It does not, since then.
    Away { since_us: u64, why: String },
}

/// Which rows of a list are seen, and which one is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    pub(super) at: usize,
    pub(super) top: usize,
}

impl Cursor {
    /// Moves to row `at` of `length`, of which `rows` are seen.
    pub(super) fn to(&mut self, at: usize, length: usize, rows: usize) {
        self.at = at.min(length.saturating_sub(1));
        let rows = rows.max(1);
        self.top =
            self.top.clamp((self.at + 1).saturating_sub(rows), self.at).min(length.saturating_sub(rows));
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Happened {
    pub(super) at_us: u64,
    /// A trial, or empty.
    pub(super) about: String,
    pub(super) text: String,
}

/// The trial that is looked at.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Shown {
    pub(super) trial: Trial,
    /// Why it is as it is.
    pub(super) why: Vec<String>,
    pub(super) curves: Vec<Curve>,
}

/// What is asked of the person before all else.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prompt {
    Help,
    /// Whether to do it. Names what it is done to, which therefore stays the same however lists move.
    Confirm {
        change: Change,
        target: String,
    },
    /// What to look for.
    Search(String),
}

/// What the coordinator tells, or what becomes of it.
#[derive(Debug, Clone)]
pub(super) enum News {
    Away {
        why: String,
    },
    Sweeps(Vec<SweepSummary>),
    Workers(Vec<WorkerSummary>),
    Trials {
        asked: ListTrialsRequest,
        page: ListTrialsResponse,
    },
    Trial(Box<Shown>),
    Happened(Happened),
    /// A question or order that it refused.
    Refused(String),
    Done(String),
}

/// What is to be known for what is seen. Nothing else is asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Wanted {
    pub(super) trials: Option<ListTrialsRequest>,
    pub(super) trial: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Quit,
    /// Ctrl-C.
    Interrupt,
    Change(Change, String),
}

/// The state.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// Where the coordinator is.
    pub(super) place: String,
    pub(super) size: (u16, u16),
    pub(super) now_us: u64,
    pub(super) link: Link,
    pub(super) tab: Tab,
    /// Whether the chosen trial fills the screen.
    pub(super) open: bool,
    pub(super) prompt: Option<Prompt>,
    /// The newest word on what was asked for, and whether it is bad news.
    pub(super) said: Option<(String, bool)>,
    pub(super) sweeps: Vec<SweepSummary>,
    pub(super) workers: Vec<WorkerSummary>,
    pub(super) events: VecDeque<Happened>,
    /// The sweep whose trials are listed.
    pub(super) sweep: Option<String>,
    /// The rows that were told last, and which they were.
    pub(super) page: Option<(ListTrialsRequest, ListTrialsResponse)>,
    pub(super) shown: Option<Shown>,
    /// Which of its curves.
    pub(super) metric: Option<String>,
    /// By tab.
    pub(super) cursors: [Cursor; 4],
    pub(super) searches: [String; 4],
    pub(super) sorts: [usize; 4],
    pub(super) turned: [bool; 4],
}

impl Model {
    pub(super) fn new(place: &str, size: (u16, u16), now_us: u64) -> Self {
        Self {
            place: place.to_owned(),
            size,
            now_us,
            link: Link::Up,
            tab: Tab::Sweeps,
            open: false,
            prompt: None,
            said: None,
            sweeps: Vec::new(),
            workers: Vec::new(),
            events: VecDeque::new(),
            sweep: None,
            page: None,
            shown: None,
            metric: None,
            cursors: [Cursor::default(); 4],
            searches: Default::default(),
            sorts: [0; 4],
            turned: [false; 4],
        }
    }

    pub(super) fn tab_index(&self) -> usize {
        self.tab as usize
    }

    /// The sweeps that the filter lets through, in order.
    pub(super) fn sweeps_listed(&self) -> Vec<&SweepSummary> {
        let search = self.searches[0].to_lowercase();
        let holds =
            |one: &&SweepSummary| one.sweep.to_lowercase().contains(&search) || one.state.contains(&search);
        let mut listed: Vec<&SweepSummary> = self.sweeps.iter().filter(holds).collect();
        match keys::SWEEP_SORTS[self.sorts[0]] {
            "name" => listed.sort_by(|a, b| a.sweep.cmp(&b.sweep)),
            "state" => listed.sort_by(|a, b| a.state.cmp(&b.state)),
            "left" => listed.sort_by_key(|one| std::cmp::Reverse(one.trials.saturating_sub(ls::ended(one)))),
            _ => listed.sort_by_key(|one| std::cmp::Reverse(one.submitted_at_us)),
        }
        if self.turned[0] {
            listed.reverse();
        }
        listed
    }

    /// The workers that the filter lets through, in order.
    pub(super) fn workers_listed(&self) -> Vec<&WorkerSummary> {
        let search = self.searches[2].to_lowercase();
        let holds =
            |one: &&WorkerSummary| one.name.to_lowercase().contains(&search) || one.state.contains(&search);
        let mut listed: Vec<&WorkerSummary> = self.workers.iter().filter(holds).collect();
        match keys::WORKER_SORTS[self.sorts[2]] {
            "state" => listed.sort_by(|a, b| a.state.cmp(&b.state)),
            "here for" => listed.sort_by_key(|one| one.since_us),
            _ => listed.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        if self.turned[2] {
            listed.reverse();
        }
        listed
    }

    /// The events that the filter lets through, newest first.
    pub(super) fn events_listed(&self) -> Vec<&Happened> {
        let search = self.searches[3].to_lowercase();
        let holds = |one: &&Happened| {
            one.about.to_lowercase().contains(&search) || one.text.to_lowercase().contains(&search)
        };
        let mut listed: Vec<&Happened> = self.events.iter().rev().filter(holds).collect();
        if self.turned[3] {
            listed.reverse();
        }
        listed
    }

    /// The sweep of the listed trials.
    pub(super) fn summary(&self) -> Option<&SweepSummary> {
        let name = self.sweep.as_ref()?;
        self.sweeps.iter().find(|one| one.sweep == *name)
    }

    /// Rows of the list of the tab.
    pub(super) fn length(&self) -> usize {
        match self.tab {
            Tab::Sweeps => self.sweeps_listed().len(),
            Tab::Trials => {
                self.page.as_ref().map_or(0, |(_, page)| usize::try_from(page.total).unwrap_or(usize::MAX))
            }
            Tab::Workers => self.workers_listed().len(),
            Tab::Events => self.events_listed().len(),
        }
    }

    /// A row of the trials' list, if it is known.
    pub(super) fn trial_at(&self, at: usize) -> Option<&Trial> {
        let (asked, page) = self.page.as_ref()?;
        page.trials.get(at.checked_sub(asked.offset as usize)?)
    }

    /// The trial under the cursor.
    pub(super) fn chosen_trial(&self) -> Option<&Trial> {
        self.trial_at(self.cursors[1].at)
    }

    /// What an order would be given to.
    pub(super) fn target(&self) -> Option<String> {
        match (self.tab, self.open) {
            (Tab::Sweeps, _) => Some(self.sweeps_listed().get(self.cursors[0].at)?.sweep.clone()),
            (Tab::Trials, true) => Some(self.shown.as_ref()?.trial.trial.clone()),
            (Tab::Trials, false) => Some(self.chosen_trial()?.trial.clone()),
            (Tab::Workers | Tab::Events, _) => None,
        }
    }

    /// The columns by which the tab's list can be sorted.
    pub(super) fn sort_keys(&self) -> Vec<String> {
        self.sort_keys_of(self.tab)
    }

    fn sort_keys_of(&self, tab: Tab) -> Vec<String> {
        let fixed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match tab {
            Tab::Sweeps => fixed(&keys::SWEEP_SORTS),
            Tab::Workers => fixed(&keys::WORKER_SORTS),
            Tab::Events => fixed(&keys::EVENT_SORTS),
            Tab::Trials => {
                let mut all: Vec<String> = fixed(&keys::TRIAL_SORTS);
                all.extend(
                    self.summary()
                        .filter(|one| !one.objective.is_empty())
                        .map(|one| format!("metrics.{}", one.objective)),
                );
                let varying = self.page.iter().flat_map(|(_, page)| &page.varying);
                all.extend(varying.map(|name| format!("params.{name}")));
                all
            }
        }
    }

    /// The key that the trials are sorted by, as the coordinator takes it; empty: best first.
    fn trial_sort(&self) -> String {
        let key = self.sort_keys_of(Tab::Trials).get(self.sorts[1]).cloned().unwrap_or_default();
        let best = key == keys::TRIAL_SORTS[0];
        let down = self.summary().is_some_and(|one| one.goal == "maximize");
        match (best, self.turned[1]) {
            (true, false) => String::new(),
            (true, true) => format!("{}best", if down { "" } else { "-" }),
            (false, false) => key,
            (false, true) => format!("-{key}"),
        }
    }

    /// What is to be known: the visible page, and the trial that is looked at.
    pub(super) fn wanted(&self) -> Wanted {
        if self.tab != Tab::Trials {
            return Wanted::default();
        }
        let Some(sweep) = &self.sweep else { return Wanted::default() };
        let rows = layout::rows(self).clamp(1, PAGE / 3);
        // A page before and after, so that the next key finds its rows.
        let first = self.cursors[1].top.saturating_sub(rows);
        let search = &self.searches[1];
        let conditions = search.contains(['=', '<', '>', '~']);
        let request = ListTrialsRequest {
            sweep: sweep.clone(),
            filter: if conditions { search.clone() } else { String::new() },
            sort: self.trial_sort(),
            offset: u32::try_from(first).unwrap_or(u32::MAX),
            limit: u32::try_from(3 * rows).unwrap_or(u32::MAX),
            search: if conditions { String::new() } else { search.clone() },
        };
        let open = self.shown.as_ref().filter(|_| self.open).map(|shown| shown.trial.trial.clone());
        Wanted { trials: Some(request), trial: open.or_else(|| self.target()) }
    }

    /// The curve that is drawn: the one chosen, else the objective's, else the first.
    pub(super) fn curve(&self) -> Option<&Curve> {
        let curves = &self.shown.as_ref()?.curves;
        let named = |name: &str| curves.iter().find(|curve| curve.metric == name);
        let chosen = self.metric.as_deref().and_then(named);
        chosen.or_else(|| named(&self.summary()?.objective)).or_else(|| curves.first())
    }

    /// Takes in what the coordinator told.
    pub(super) fn told(&mut self, news: News) {
        match news {
            News::Away { why } => {
                if self.link == Link::Up {
                    self.note("the coordinator does not answer: trying again".to_owned());
                    self.link = Link::Away { since_us: self.now_us, why };
                }
            }
            News::Sweeps(sweeps) => {
                if let Link::Away { .. } = self.link {
                    self.note("the coordinator answers again".to_owned());
                    self.link = Link::Up;
                }
                // The one that is chosen stays so, wherever it goes.
                let chosen = self.sweeps_listed().get(self.cursors[0].at).map(|one| one.sweep.clone());
                self.sweeps = sweeps;
                let place = self.sweeps_listed().iter().position(|one| Some(&one.sweep) == chosen.as_ref());
                self.cursors[0].at = place.unwrap_or(self.cursors[0].at);
                if self.sweep.is_none()
                    && let [only] = self.sweeps.as_slice()
                {
                    self.sweep = Some(only.sweep.clone());
                }
            }
            News::Workers(workers) => self.workers = workers,
            News::Trials { asked, page } => {
                if Some(&asked.sweep) == self.sweep.as_ref() {
                    self.page = Some((asked, page));
                }
            }
            News::Trial(shown) => {
                if self.wanted().trial.as_ref() == Some(&shown.trial.trial) {
                    self.shown = Some(*shown);
                }
            }
            News::Happened(happened) => {
                // Who reads older ones goes on reading them.
                if self.cursors[3].at > 0 && self.searches[3].is_empty() && !self.turned[3] {
                    self.cursors[3].at += 1;
                    self.cursors[3].top += 1;
                }
                self.events.push_back(happened);
                while self.events.len() > EVENTS {
                    self.events.pop_front();
                }
            }
            News::Refused(text) => self.said = Some((text, true)),
            News::Done(text) => self.said = Some((text, false)),
        }
        self.settle();
    }

    fn note(&mut self, text: String) {
        self.events.push_back(Happened { at_us: self.now_us, about: String::new(), text });
    }

    /// Puts the cursor where the list still has rows.
    pub(super) fn settle(&mut self) {
        let (at, length, rows) = (self.cursors[self.tab_index()].at, self.length(), layout::rows(self));
        // Of trials nothing may be known yet.
        if self.tab != Tab::Trials || self.page.is_some() {
            let index = self.tab_index();
            self.cursors[index].to(at, length, rows);
        }
    }
}
