//! Mistakes planted on purpose, to see that the invariants find them. Each changes what goes into the engine, what
//! comes out of it, or what stands around it; the engine itself is the shipped one.

use super::{coordinator::session_of, oracle::Oracle};
use crate::Scenario;
use spotsweep_engine::{Action, Config, Engine, Event, WorkerView, event::GangNews};
use spotsweep_proto::ids::Epoch;

/// A mistake that the invariants must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The coordinator answers before the journal is durable.
    AnswerBeforeCommit,
    /// It writes history again for events that it replays.
    HistoryTwice,
    /// It replays the journal without the last event before the commit.
    LoseLastEvent,
    /// It deletes objects as soon as nothing refers to them.
    DeleteAtOnce,
    /// It takes a report for one under the newest epoch, whatever epoch it carries.
    EpochIgnored,
    /// It grants a lease under the epoch of the one before.
    EpochKept,
    /// It grants one lease to two workers.
    GrantTwice,
    /// It renews leases of workers of which nothing was heard.
    RenewSilent,
    /// It applies reports whatever their numbers are.
    NumbersIgnored,
    /// It hands out the oldest checkpoint to resume from.
    OlderResume,
    /// It never notices that time passes.
    DeathUnnoticed,
    /// Agents go on training after a notice.
    NoticeIgnored,
    /// Agents report a checkpoint that they could not write.
    ReportBeforeUpload,
    /// It grants a gang one worker where it needs several.
    GangInPart,
    /// It takes a late word about an old make-up of a gang for one about the present.
    OldMakeUpBroken,
    /// It takes a report of a worker that was left behind for one of a rank.
    LeftBehindHeard,
    /// It keeps nothing for gangs, however long they wait.
    EndlessPatience,
    /// It heeds a hello that a later connection of the same process has overtaken.
    OldHelloHeeded,
    /// A rank that takes over the newer state of a peer reports nothing of the step between.
    TakenOverUnreported,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::AnswerBeforeCommit,
        Self::HistoryTwice,
        Self::LoseLastEvent,
        Self::DeleteAtOnce,
        Self::EpochIgnored,
        Self::EpochKept,
        Self::GrantTwice,
        Self::RenewSilent,
        Self::NumbersIgnored,
        Self::OlderResume,
        Self::DeathUnnoticed,
        Self::NoticeIgnored,
        Self::ReportBeforeUpload,
        Self::GangInPart,
        Self::OldMakeUpBroken,
        Self::LeftBehindHeard,
        Self::EndlessPatience,
        Self::OldHelloHeeded,
        Self::TakenOverUnreported,
    ];

    /// The scenario in which it shows.
    #[must_use]
    pub fn scenario(self) -> Scenario {
        let usual = Scenario { mistake: Some(self), ..Scenario::default() };
        match self {
            Self::AnswerBeforeCommit
            | Self::HistoryTwice
            | Self::LoseLastEvent
            | Self::DeleteAtOnce
            | Self::EpochIgnored
            | Self::EpochKept
            | Self::GrantTwice
            | Self::RenewSilent
            | Self::NumbersIgnored
            | Self::OlderResume
            | Self::DeathUnnoticed
            | Self::NoticeIgnored
            | Self::ReportBeforeUpload
            | Self::OldHelloHeeded => usual,
            Self::GangInPart | Self::OldMakeUpBroken | Self::LeftBehindHeard | Self::TakenOverUnreported => {
                Scenario { mistake: Some(self), ..Scenario::with_gangs() }
            }
            Self::EndlessPatience => Scenario { mistake: Some(self), ..Scenario::with_endless_others() },
        }
    }
}

/// The engine's constants in a storm: delays are short, so that deletions happen within a run; the memory of them
/// covers every stall of a live lease.
pub(super) fn config(mistake: Option<Mistake>) -> Config {
    let (delete_after_s, remember_deleted_s) =
        if mistake == Some(Mistake::DeleteAtOnce) { (0.0, 0.0) } else { (5.0, 60.0) };
    let patience_s = Config::default().gang_patience_s;
    let gang_patience_s = if mistake == Some(Mistake::EndlessPatience) { f64::INFINITY } else { patience_s };
    Config { delete_after_s, remember_deleted_s, gang_patience_s, ..Config::default() }
}

/// Makes a mistake about an event. `None`: it never reaches the engine.
pub(super) fn with_event(
    mistake: Option<Mistake>,
    engine: &Engine,
    oracle: &Oracle,
    mut event: Event,
) -> Option<Event> {
    match (mistake, &mut event) {
        (Some(Mistake::EpochIgnored), Event::Reports { batch, .. }) => {
            for report in &mut batch.reports {
                report.epoch = engine.trial(report.trial).map_or(report.epoch, |view| view.epoch);
            }
        }
        (Some(Mistake::NumbersIgnored), Event::Reports { session, batch }) => {
            let worker = engine.workers().find(|worker| session_of(&worker.link) == Some(*session));
            batch.first_seq = worker.map_or(batch.first_seq, |worker| worker.applied_seq + 1);
        }
        (Some(Mistake::RenewSilent), Event::Tick { heard }) => {
            *heard = engine.workers().filter_map(|worker| session_of(&worker.link)).collect();
        }
        (Some(Mistake::DeathUnnoticed), Event::Tick { .. }) => return None,
        (Some(Mistake::GangInPart), Event::Submit { spec, .. }) => spec.resources.workers.min = 1,
        (Some(Mistake::OldMakeUpBroken), Event::Gang { trial, generation, news, .. })
            if *news != GangNews::Ready =>
        {
            *generation = oracle.generation(*trial).unwrap_or(*generation);
        }
        (Some(Mistake::LeftBehindHeard), Event::Reports { session, batch }) => {
            // It comes as if the holder of the lease had sent it.
            let left_behind = batch.reports.first().filter(|report| {
                let current = engine.trial(report.trial).is_some_and(|view| view.epoch == report.epoch);
                current && !oracle.may_report(*session, report)
            });
            let holds = |worker: &WorkerView| {
                let other = session_of(&worker.link) != Some(*session);
                other
                    && left_behind.is_some_and(|report| worker.leases.iter().any(|l| l.trial == report.trial))
            };
            let rank = engine.workers().find(holds);
            if let Some((worker, rank)) = rank.and_then(|worker| Some((session_of(&worker.link)?, worker))) {
                *session = worker;
                batch.first_seq = rank.applied_seq + 1;
            }
        }
        _ => {}
    }
    Some(event)
}

/// Makes a mistake about an action.
pub(super) fn with_action(mistake: Option<Mistake>, engine: &Engine, action: &mut Action) {
    let Action::Grant { grant, .. } = action else { return };
    match mistake {
        Some(Mistake::EpochKept) => grant.epoch = Epoch(grant.epoch.0.saturating_sub(1).max(1)),
        Some(Mistake::OlderResume) => {
            let kept = engine.trial(grant.trial).map(|view| view.checkpoints).unwrap_or_default();
            grant.resume = kept.into_iter().next().map(|view| view.reference);
        }
        _ => {}
    }
}
