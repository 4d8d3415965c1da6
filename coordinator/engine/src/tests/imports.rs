//! Sweeps that come back from an export: the same as they were, or not there at all.

use super::*;
use crate::{
    action::AttemptEnd,
    import::{
        ImportHead, ImportPart, ImportStep, ImportToken, ImportedAttempt, ImportedFailure, ImportedPoint,
        ImportedResult, ImportedTrial,
    },
    views::SweepState,
};
use proptest::prelude::*;

const TOKEN: ImportToken = ImportToken(7);

impl World {
    fn import(&mut self, token: ImportToken, step: ImportStep) -> Result<Reply, Refusal> {
        self.next_request += 1;
        self.step(Event::Import { request: RequestId(self.next_request), token, step });
        self.reply()
    }

    fn import_all(&mut self, steps: Vec<ImportStep>) -> Result<Reply, Refusal> {
        let mut last = Ok(Reply::Done { trials: 0 });
        for step in steps {
            last = self.import(TOKEN, step);
            last.clone()?;
        }
        last
    }

    fn archived(&self) -> Vec<Record> {
        let archived = self.actions.iter().filter_map(|action| match action {
            Action::Archive(record) => Some(record.clone()),
            _ => None,
        });
        archived.collect()
    }
}

/// A sweep that went through a lot: interrupted, failed, diverged, cancelled before and after it began.
fn lived() -> (World, SweepId) {
    let mut world = World::new();
    let sweep = world.submit(spec(7));
    let session = world.join("a", 1);
    let lease = world.lease();
    world.started(session, lease);
    world.progress(session, lease, 10, 0.25);
    world.released(session, lease, 12);
    world.ready(session, 0, 1);
    let lease = world.lease();
    world.started(session, lease);
    world.progress(session, lease, 20, 0.75);
    world.progress(session, lease, 30, f64::NAN);
    world.finished(session, lease);
    for kind in [FailureKind::Diverged, FailureKind::Config] {
        world.ready(session, 0, 1);
        let lease = world.lease();
        world.started(session, lease);
        world.failed(session, lease, kind);
    }
    world.control(Target::Trial(trial(sweep, 4)), Command::Cancel).unwrap();
    world.ready(session, 0, 1);
    let lease = world.lease();
    world.started(session, lease);
    world.progress(session, lease, 5, 0.1);
    world.pass(3.0);
    world.control(Target::Sweep(sweep), Command::Cancel).unwrap();
    (world, sweep)
}

/// What an export of `sweep` holds, as the steps of an import.
fn exported(world: &World, sweep: SweepId) -> Vec<ImportStep> {
    let view = world.engine.sweep(sweep).unwrap();
    let mut results = BTreeMap::new();
    let (mut begun, mut attempts, mut points) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for record in &world.records {
        match record.clone() {
            Record::Result { trial, metrics, weights_digest, .. } => {
                results.insert(trial.number, ImportedResult { metrics, weights_digest });
            }
            Record::AttemptStarted { trial, epoch, attempt, worker, device, step, at } => {
                begun.insert((trial.number, epoch), (attempt, worker, device, step, at));
            }
            Record::AttemptEnded { trial, epoch, end, step: last_step, at: ended_at } => {
                let number = trial.number;
                let (attempt, worker, device, first_step, started_at) =
                    begun.remove(&(number, epoch)).unwrap();
                let one = ImportedAttempt {
                    number,
                    epoch,
                    attempt,
                    worker,
                    device,
                    first_step,
                    started_at,
                    end,
                    last_step,
                    ended_at,
                };
                attempts.insert((number, epoch), one);
            }
            Record::Point { trial, step, data_epoch, metrics, at } => {
                let metrics = vec![(0, metrics[0].1)];
                let number = trial.number;
                points.insert((number, step), ImportedPoint { number, step, data_epoch, at, metrics });
            }
            _ => {}
        }
    }
    let trials = (0..view.trials).map(|number| {
        let one = world.trial(trial(sweep, number));
        ImportedTrial {
            state: one.state,
            epoch: one.epoch,
            attempts: one.attempts,
            failures: one.failures,
            interruptions: one.interruptions,
            place: one.place.map(|place| (place.name, place.device)),
            step: one.step,
            total_steps: one.total_steps,
            seconds: one.seconds,
            objective: one.objective,
            best: one.best,
            failure: one.last_failure.map(|failure| ImportedFailure {
                kind: failure.kind,
                message: failure.message,
                worker: failure.worker,
                device: DeviceName::new("cpu").unwrap(),
                at: failure.at,
            }),
            result: results.remove(&number),
        }
    });
    let trials = ImportPart::Trials(trials.collect());
    let head = ImportHead {
        name: view.name,
        renamed: false,
        spec: Box::new((*view.spec).clone()),
        submitted_at: view.submitted_at,
        ended_at: view.ended_at.unwrap(),
        cancelled: view.state == SweepState::Cancelled,
        target_reached: view.target_reached,
        stale_reports: view.stale_reports,
        best_trial: view.best.map(|(number, _)| number),
        attempts: attempts.len() as u64,
        points: points.len() as u64,
        program: "1.2.3".to_owned(),
        format: 2,
        digest: Digest::of(b"export"),
    };
    let metric_names = vec![MetricName::new("acc").unwrap()];
    vec![
        ImportStep::Begin(Box::new(head)),
        ImportStep::Part(trials),
        ImportStep::Part(ImportPart::Attempts(attempts.into_values().collect())),
        ImportStep::Part(ImportPart::Points { metric_names, points: points.into_values().collect() }),
        ImportStep::End,
    ]
}

/// All that people see of a trial, apart from what is not exported.
fn shown(world: &World, sweep: SweepId, number: u32) -> (String, String) {
    let one = trial(sweep, number);
    let mut view = world.trial(one);
    view.trial = trial(SweepId(0), number);
    view.checkpoints.clear();
    if let Some(place) = &mut view.place {
        place.worker = crate::WorkerId(0);
    }
    (format!("{view:?}"), world.engine.explain(one, Time(0)).unwrap().to_string())
}

#[test]
fn an_imported_sweep_is_shown_as_it_was() {
    let (old, sweep) = lived();
    let mut new = World::new();
    new.submit(SweepSpec { name: SweepName::new("other").unwrap(), ..spec(2) });
    let reply = new.import_all(exported(&old, sweep)).unwrap();
    let Reply::Submitted { sweep: here, name, new: true } = reply else { panic!("{reply:?}") };
    assert_eq!((here, name.as_str()), (SweepId(1), "s"));
    let (before, after) = (old.engine.sweep(sweep).unwrap(), new.engine.sweep(here).unwrap());
    let from = after.imported.clone().unwrap();
    assert_eq!((from.at, from.program.as_str(), from.format), (new.now, "1.2.3", 2));
    let after = crate::SweepView { id: sweep, imported: None, ..after };
    assert_eq!(before, after);
    for number in 0..before.trials {
        assert_eq!(shown(&old, sweep, number), shown(&new, here, number));
    }
    assert_eq!(new.engine.opened(here), Some(4), "what never did anything at the end has no record");
    let restored = Engine::restore(&new.engine.snapshot()).unwrap();
    assert_eq!(restored.sweep_by_name(&name), new.engine.sweep_by_name(&name));
}

#[test]
fn nobody_sees_an_import_before_it_is_whole_and_its_name_is_taken_all_the_same() {
    let (old, sweep) = lived();
    let mut new = World::new();
    let name = SweepName::new("s").unwrap();
    let mut steps = exported(&old, sweep);
    let end = steps.pop().unwrap();
    for step in steps {
        new.import(TOKEN, step).unwrap();
        assert!(!new.actions.iter().any(|action| matches!(action, Action::Record(_))), "nobody is told");
        assert_eq!(new.engine.sweeps().count(), 0);
        assert!(new.engine.sweep_by_name(&name).is_none() && new.engine.sweep(SweepId(0)).is_none());
        assert!(new.engine.trial(trial(SweepId(0), 0)).is_none());
        let refused = new.control(Target::Sweep(SweepId(0)), Command::Cancel);
        assert_eq!(refused, Err(Refusal::NoSweep));
    }
    let other = new.submit(spec(1));
    assert_eq!(new.engine.sweep(other).unwrap().name.as_str(), "s-2");
    let again = exported(&old, sweep).remove(0);
    let refused = new.import(ImportToken(8), again);
    assert_eq!(refused, Err(Refusal::NameTaken { name: name.clone(), coming: true }));
    new.import(TOKEN, end).unwrap();
    assert_eq!(new.engine.sweep_by_name(&name).unwrap().state, SweepState::Cancelled);
}

#[test]
fn an_import_that_breaks_off_leaves_nothing_and_can_be_repeated() {
    let (old, sweep) = lived();
    let steps = exported(&old, sweep);
    for broken_off_by in [None, Some(ImportStep::Abandon), Some(ImportStep::End)] {
        for come in 1..steps.len() - 1 {
            let mut new = World::new();
            for step in &steps[..come] {
                new.import(TOKEN, step.clone()).unwrap();
            }
            match &broken_off_by {
                Some(step) => drop(new.import(TOKEN, step.clone())),
                None => drop(new.step(Event::Restarted)),
            }
            let gone = [Record::Discarded { sweep: SweepId(0) }];
            assert_eq!(new.archived(), gone, "after {come} steps");
            assert_eq!(new.import(TOKEN, ImportStep::End), Err(Refusal::NoImport));
            assert_eq!(new.engine.sweeps().count(), 0);
            let reply = new.import_all(steps.clone()).unwrap();
            assert!(matches!(reply, Reply::Submitted { sweep: SweepId(1), .. }), "{reply:?}");
        }
    }
}

#[test]
fn the_same_export_is_imported_once_unless_somebody_names_it_anew() {
    let (old, sweep) = lived();
    let steps = exported(&old, sweep);
    let name = SweepName::new("s").unwrap();
    let mut new = World::new();
    new.import_all(steps.clone()).unwrap();
    let refused = new.import(TOKEN, steps[0].clone());
    assert_eq!(refused, Err(Refusal::AlreadyImported { name: name.clone() }));
    let ImportStep::Begin(head) = &steps[0] else { panic!() };
    let named = |name: &str| {
        let name = SweepName::new(name).unwrap();
        ImportStep::Begin(Box::new(ImportHead { name, renamed: true, ..(**head).clone() }))
    };
    assert_eq!(new.import(TOKEN, named("s")), Err(Refusal::NameTaken { name, coming: false }));
    let mut again = steps.clone();
    again[0] = named("again");
    new.import_all(again).unwrap();
    let names: Vec<String> = new.engine.sweeps().map(|sweep| sweep.name.to_string()).collect();
    assert_eq!(names, ["s", "again"]);
}

#[test]
fn an_imported_sweep_is_read_only() {
    let (old, sweep) = lived();
    let mut new = World::new();
    new.import_all(exported(&old, sweep)).unwrap();
    new.join("b", 8);
    assert!(new.granted().is_empty());
    for target in [Target::Sweep(SweepId(0)), Target::Trial(trial(SweepId(0), 6))] {
        for command in [Command::Pause, Command::Resume, Command::Cancel] {
            assert_eq!(new.control(target, command), Err(Refusal::ReadOnly));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_of_it_stays() {
    let (old, sweep) = lived();
    let steps = exported(&old, sweep);
    let spoil: [fn(&mut ImportStep); 8] = [
        |step| {
            if let ImportStep::Part(ImportPart::Trials(trials)) = step {
                trials[0].state = TrialState::Running;
            }
        },
        |step| {
            if let ImportStep::Part(ImportPart::Trials(trials)) = step {
                trials[0].result = None;
            }
        },
        |step| {
            if let ImportStep::Part(ImportPart::Trials(trials)) = step {
                trials.push(trials[0].clone());
            }
        },
        |step| {
            if let ImportStep::Part(ImportPart::Attempts(attempts)) = step {
                attempts.swap(0, 1);
            }
        },
        |step| {
            if let ImportStep::Part(ImportPart::Attempts(attempts)) = step {
                attempts[0].number = 999;
            }
        },
        |step| {
            if let ImportStep::Part(ImportPart::Points { points, .. }) = step {
                points[1] = points[0].clone();
            }
        },
        |step| {
            if let ImportStep::Part(ImportPart::Points { points, .. }) = step {
                points[0].metrics[0].0 = 1;
            }
        },
        |step| {
            if let ImportStep::Begin(head) = step {
                head.best_trial = Some(6);
            }
        },
    ];
    for (nth, spoil) in spoil.iter().enumerate() {
        let mut new = World::new();
        let mut steps = steps.clone();
        steps.iter_mut().for_each(spoil);
        let refused = new.import_all(steps).unwrap_err();
        assert!(matches!(refused, Refusal::BadImport { .. }), "{nth}: {refused:?}");
        assert_eq!(new.engine.sweeps().count(), 0);
        assert_eq!(new.archived().last(), Some(&Record::Discarded { sweep: SweepId(0) }));
    }
}

#[test]
fn the_ends_of_attempts_are_those_of_the_history() {
    let (old, sweep) = lived();
    let mut new = World::new();
    let mut archived = Vec::new();
    for step in exported(&old, sweep) {
        new.import(TOKEN, step).unwrap();
        archived.extend(new.archived());
    }
    let mut wanted: Vec<Record> = old
        .records
        .iter()
        .filter(|record| {
            matches!(
                record,
                Record::Point { .. }
                    | Record::AttemptStarted { .. }
                    | Record::AttemptEnded { .. }
                    | Record::Result { .. }
            )
        })
        .cloned()
        .collect();
    // By text: a point holds NaN.
    let sorted = |records: &mut Vec<Record>| {
        let mut texts: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(&mut archived), sorted(&mut wanted));
    let revoked =
        |record: &Record| matches!(record, Record::AttemptEnded { end: AttemptEnd::Revoked { .. }, .. });
    assert!(wanted.iter().any(revoked), "a cancelled attempt is among them");
}

proptest! {
    #[test]
    fn steps_in_any_order_never_show_half_a_sweep(order in prop::collection::vec((0usize..6, 0u128..2), 0..24)) {
        let (old, sweep) = lived();
        let mut steps = exported(&old, sweep);
        steps.push(ImportStep::Abandon);
        let whole = old.engine.sweep(sweep).unwrap();
        let mut new = World::new();
        for (index, token) in order {
            // `World::step` checks the invariants.
            let _refused = new.import(ImportToken(token), steps[index].clone());
            for shown in new.engine.sweeps() {
                prop_assert_eq!((shown.counts, shown.best, shown.state), (whole.counts, whole.best, whole.state));
            }
            prop_assert!(new.engine.sweeps().count() <= 1);
        }
    }
}
