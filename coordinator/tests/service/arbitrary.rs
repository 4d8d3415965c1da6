//! Well-formed messages that make no sense: whatever agents say, the conversion refuses it or the engine survives it.

use proptest::{collection::vec, option, prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use spotsweep_coordinator::{driver::RankWord, grpc::from_worker};
use spotsweep_engine::{
    Action, Config, Engine, Event, RequestId, SessionId, SweepId, Time, TrialRef,
    event::{Command, Target},
};
use spotsweep_proto::spec;
use spotsweep_wire::{
    WORKER_PROTOCOL,
    v1::{self, from_worker::Message, report::Body},
};
use std::collections::BTreeSet;

/// Connections at a time.
const PLACES: usize = 3;

/// Small numbers that hit something, and those at the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..6_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..4_u32, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![4 => -2.0..2.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => any::<f64>()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => proptest::sample::select(vec!["cpu", "val_loss", "cuda:0", "w"]).prop_map(str::to_owned),
        1 => ".{0,20}",
        1 => (0..300_usize).prop_map(|length| "x".repeat(length)),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![6 => (0..3_u8).prop_map(|byte| vec![byte; 32]), 1 => vec(any::<u8>(), 0..40)]
}

fn key() -> impl Strategy<Value = Option<v1::TrialKey>> {
    let key = (small(), small()).prop_map(|(sweep, number)| v1::TrialKey { sweep, number });
    prop_oneof![9 => key.prop_map(Some), 1 => Just(None)]
}

fn hello() -> impl Strategy<Value = v1::Hello> {
    let device = (text(), 0..4_i32, text(), number())
        .prop_map(|(name, kind, model, memory_bytes)| v1::Device { name, kind, model, memory_bytes });
    let held =
        (key(), number(), small()).prop_map(|(trial, epoch, device)| v1::HeldLease { trial, epoch, device });
    let incarnation = prop_oneof![6 => (0..3_u8).prop_map(|byte| vec![byte; 16]), 1 => bytes()];
    let protocol = prop_oneof![9 => Just(WORKER_PROTOCOL), 1 => any::<u32>()];
    let machine = option::of(text().prop_map(|host| v1::Machine { host, ..v1::Machine::default() }));
    (protocol, text(), incarnation, vec(device, 0..3), machine, vec(held, 0..4), number()).prop_map(
        |(protocol, name, incarnation, devices, machine, held, connection)| v1::Hello {
            protocol,
            name,
            incarnation: incarnation.into(),
            devices,
            machine,
            held,
            connection,
            programs_only: false,
            catalogue: Default::default(),
        },
    )
}

fn metrics() -> impl Strategy<Value = (Vec<u32>, Vec<f64>)> {
    prop_oneof![
        6 => vec((0..2_u32, float()), 0..4).prop_map(|pairs| pairs.into_iter().unzip()),
        1 => (vec(small(), 0..4), vec(float(), 0..4)),
    ]
}

fn body() -> impl Strategy<Value = Option<Body>> {
    let started = (number(), option::of(number()))
        .prop_map(|(step, total_steps)| Body::Started(v1::Started { step, total_steps }));
    let progress = (number(), float(), metrics()).prop_map(|(step, data_epoch, (names, values))| {
        Body::Progress(v1::Progress { step, data_epoch, names, values })
    });
    let checkpoint = (number(), bytes(), vec(bytes(), 0..3), number(), any::<bool>()).prop_map(
        |(step, manifest, parts, bytes, last)| {
            let parts = parts.into_iter().map(Into::into).collect();
            Body::Checkpoint(v1::Checkpoint {
                step,
                manifest: manifest.into(),
                parts,
                bytes,
                last,
                best: last,
            })
        },
    );
    let finished = (number(), metrics(), bytes(), float()).prop_map(
        |(step, (names, values), weights_digest, seconds)| {
            Body::Finished(v1::Finished {
                step,
                names,
                values,
                weights_digest: weights_digest.into(),
                seconds,
            })
        },
    );
    let failed = (number(), 0..12_i32, text(), float())
        .prop_map(|(step, kind, message, seconds)| Body::Failed(v1::Failed { step, kind, message, seconds }));
    let released =
        (number(), float()).prop_map(|(step, seconds)| Body::Released(v1::Released { step, seconds }));
    let any = prop_oneof![started, progress, checkpoint, finished, failed, released];
    prop_oneof![19 => any.prop_map(Some), 1 => Just(None)]
}

/// On the heap: the tree of all kinds together is too large for a test's stack.
fn message() -> BoxedStrategy<Message> {
    let report = (key(), number(), body()).prop_map(|(trial, epoch, body)| v1::Report { trial, epoch, body });
    let names = prop_oneof![
        6 => Just(vec!["val_loss".to_owned(), "other".to_owned()]),
        1 => vec(text(), 0..3),
    ];
    let batch = (number(), names, vec(report, 0..5)).prop_map(|(first_seq, metric_names, reports)| {
        Message::Reports(v1::ReportBatch { first_seq, metric_names, reports })
    });
    prop_oneof![
        3 => hello().prop_map(Message::Hello).boxed(),
        1 => Just(Message::Heartbeat(v1::Heartbeat {})),
        4 => (small(), small()).prop_map(|(device, credits)| Message::Ready(v1::Ready { device, credits })),
        8 => batch.boxed(),
        2 => (0..9_i32, 0..5_i32, option::of(float()), text()).prop_map(|(source, kind, in_s, reason)| {
            Message::Noticed(v1::Noticed { source, kind, in_s, reason })
        }),
        1 => Just(Message::Goodbye(v1::Goodbye {})),
        2 => (key(), number(), number(), number(), option::of(text()), any::<bool>()).prop_map(
            |(trial, epoch, generation, step, broken, ready)| {
                Message::Gang(v1::GangNews { trial, epoch, generation, step, broken, ready, shard_us: step })
            }
        ),
        1 => (key(), number(), number(), number(), text(), option::of(bytes())).prop_map(
            |(trial, epoch, generation, id, key, set)| {
                let set = set.map(Into::into);
                Message::Store(v1::StoreQuery { trial, epoch, generation, id, key, set })
            }
        ),
        1 => (key(), number(), small(), number(), bytes(), any::<bool>()).prop_map(
            |(trial, epoch, attempt, offset, text, last)| {
                let text = text.into();
                let chunk = v1::LogChunk { trial, epoch, attempt, offset, text, last };
                Message::Logs(v1::LogBatch { chunks: vec![chunk] })
            }
        ),
    ]
    .boxed()
}

/// What happens besides.
#[derive(Debug, Clone)]
enum Turn {
    Says(usize, Box<Message>),
    /// A good agent joins, if nobody is there, and takes two leases.
    Joins(usize),
    /// A report that is in order but for what it says: numbered, under one of the newest leases, mostly by its holder.
    Reports(usize, Body),
    Seconds(f64),
    Command(Command),
}

fn turn() -> impl Strategy<Value = Turn> {
    let place = || 0..PLACES;
    prop_oneof![
        6 => (place(), message()).prop_map(|(place, message)| Turn::Says(place, Box::new(message))),
        3 => place().prop_map(Turn::Joins),
        8 => (0..3_usize, body().prop_filter_map("a body", |body| body))
            .prop_map(|(lease, body)| Turn::Reports(lease, body)),
        2 => (0.0..40.0).prop_map(Turn::Seconds),
        1 => proptest::sample::select(vec![Command::Pause, Command::Resume]).prop_map(Turn::Command),
    ]
}

/// The engine and its connections, as the service and the driver keep them.
struct World {
    engine: Engine,
    now: Time,
    /// Of each place the open connection, how many devices it has, the number of its next report.
    open: Vec<Option<(SessionId, usize, u64)>>,
    next_session: u64,
    /// Leases ever granted, and to whom.
    granted: Vec<(TrialRef, u64, SessionId)>,
}

impl World {
    fn new() -> Self {
        let source = "name: s\nmethod: random\nrun_cap: 3\nmetric: {name: val_loss, goal: minimize}\n\
                      parameters:\n  seed: {min: 0, max: 1000000}\ntrain: {model: noop, steps: 1}\n\
                      retry: {max_failures: 5, backoff_s: 1}\n";
        let mut world = Self {
            engine: Engine::new(Config::default()),
            now: Time(1_000_000),
            open: vec![None; PLACES],
            next_session: 1,
            granted: Vec::new(),
        };
        let spec = spec::parse(source.as_bytes(), "sweep.yaml").unwrap();
        world.step(Event::Submit { request: RequestId(1), token: 1, spec: Box::new(spec) });
        world
    }

    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.engine.step(self.now, event.clone(), &mut actions);
        if let Err(violation) = self.engine.check() {
            panic!("after {event:?}: {violation}");
        }
        for action in actions {
            match action {
                Action::Grant { session, grant, .. } => {
                    self.granted.push((grant.trial, grant.epoch.0, session));
                }
                Action::Welcome { session, applied_seq, .. } => {
                    let open = self.open.iter_mut().flatten().find(|(open, _, _)| *open == session);
                    open.expect("a welcome for an open connection").2 = applied_seq.saturating_add(1);
                }
                _ => {}
            }
        }
    }

    /// As the service does: a first message that is no good hello is rejected, what is malformed ends the connection.
    fn says(&mut self, place: usize, message: Message) {
        let Some((session, devices, _)) = self.open[place] else {
            if let Message::Hello(hello) = message
                && let Ok((hello, _catalogue)) = from_worker::hello(hello)
            {
                // A new connection of the same process ends the older one, as the driver's table of sessions does.
                let session = SessionId(self.next_session);
                self.next_session += 1;
                self.open[place] = Some((session, hello.devices.len(), 1));
                self.step(Event::Joined { session, hello: Box::new(hello) });
            }
            return;
        };
        let event = match message {
            Message::Heartbeat(v1::Heartbeat {}) => Some(Event::Tick { heard: vec![session] }),
            Message::Goodbye(v1::Goodbye {}) => None,
            Message::Ready(ready) => from_worker::device_index(ready.device, devices)
                .ok()
                .map(|device| Event::Ready { session, device, credits: ready.credits }),
            Message::Reports(batch) => {
                from_worker::report_batch(batch).ok().map(|batch| Event::Reports { session, batch })
            }
            Message::Noticed(noticed) => {
                let Some(notice) = from_worker::noticed(noticed) else { return };
                Some(Event::Noticed { session, notice })
            }
            Message::Gang(news) => from_worker::gang_news(news).ok().map(|word| {
                let RankWord { trial, epoch, generation, step, news } = word;
                Event::Gang { session, trial, epoch, generation, step, news }
            }),
            // The rendezvous is none of the engine's.
            Message::Store(query) => match from_worker::store_query(query) {
                Ok(_) => return,
                Err(_) => None,
            },
            // Nor are logs.
            Message::Logs(_) => return,
            Message::Hello(_) => None,
        };
        match event {
            Some(event) => self.step(event),
            None => {
                self.open[place] = None;
                self.step(Event::Disconnected { session });
            }
        }
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Says(place, message) => self.says(place, *message),
            Turn::Joins(place) if self.open[place].is_none() => {
                self.says(place, Message::Hello(crate::agent::hello("good", place as u128)));
                self.says(place, Message::Ready(v1::Ready { device: 0, credits: 2 }));
            }
            Turn::Joins(_) => {}
            Turn::Reports(lease, body) => {
                let Some(&(trial, epoch, holder)) = self.granted.iter().rev().nth(lease) else { return };
                let held = |open: &Option<(SessionId, usize, u64)>| open.is_some_and(|open| open.0 == holder);
                let place = self.open.iter().position(held).unwrap_or(0);
                let Some((_, _, seq)) = &mut self.open[place] else { return };
                let first_seq = *seq;
                *seq = seq.saturating_add(1);
                let trial = Some(v1::TrialKey { sweep: trial.sweep.0, number: trial.number });
                let reports = vec![v1::Report { trial, epoch, body: Some(body) }];
                let metric_names = vec!["val_loss".to_owned(), "other".to_owned()];
                self.says(place, Message::Reports(v1::ReportBatch { first_seq, metric_names, reports }));
            }
            Turn::Seconds(seconds) => {
                self.now = self.now.after_s(seconds);
                self.step(Event::Tick { heard: Vec::new() });
            }
            Turn::Command(command) => {
                let target = Target::Sweep(SweepId(0));
                self.step(Event::Control { request: RequestId(2), target, command });
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_agents_say_the_engine_keeps_its_invariants_and_every_trial(turns in vec(turn(), 0..60)) {
        let mut world = World::new();
        for turn in turns {
            world.turn(turn);
        }
        let sweep = world.engine.sweep(SweepId(0)).unwrap();
        prop_assert_eq!(sweep.trials, 3);
        prop_assert_eq!(sweep.counts.total(), 3, "exactly N trials");
        // What a restart would read is the same.
        let again = Engine::restore(&world.engine.snapshot()).unwrap();
        prop_assert_eq!(again.snapshot(), world.engine.snapshot());
    }
}

#[test]
fn arbitrary_agents_get_far_enough_to_matter() {
    let mut runner = TestRunner::deterministic();
    let turns = vec(turn(), 0..60);
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let mut world = World::new();
        for turn in turns.new_tree(&mut runner).unwrap().current() {
            world.turn(turn);
            let trials = (0..3).filter_map(|number| {
                world.engine.trial(TrialRef { sweep: SweepId(0), number }).map(|trial| trial.state.as_str())
            });
            seen.extend(trials);
        }
    }
    for state in ["pending", "running", "paused", "completed", "failed", "diverged"] {
        assert!(seen.contains(state), "{state}: {seen:?}");
    }
}
