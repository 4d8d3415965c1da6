//! Random sequences of events: the invariants hold after every step (the harness checks them), and what the
//! engine said agrees with what a bystander counts.

use super::*;
use crate::event::GangNews;
use proptest::prelude::*;
use spotsweep_proto::gang::Generation;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};

const WORKERS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Submit { trials: u32, priority: i32, cuda: bool, target: bool, gang: Option<(u32, u32, bool)> },
    Control { sweep: u8, number: Option<u8>, command: Command },
    Join { worker: usize, forget: bool },
    NewLife { worker: usize },
    Ready { worker: usize, device: u16, credits: u32 },
    Report { worker: usize, lease: u8, kind: ReportKind },
    Repeat { worker: usize },
    Gap { worker: usize },
    Disconnect { worker: usize },
    Leave { worker: usize },
    Notice { worker: usize, rebalance: bool },
    Gang { worker: usize, lease: u8, news: GangKind },
    Tick { seconds: u8, heard: u8 },
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum GangKind {
    Ready,
    Formed {
        ahead: u8,
    },
    Broken {
        ahead: u8,
    },
    /// Of an older make-up.
    Late,
}

#[derive(Debug, Clone)]
enum ReportKind {
    Started,
    Progress {
        ahead: u8,
        acc: u8,
    },
    Checkpoint {
        last: bool,
        shared: bool,
    },
    Finished,
    Failed(FailureKind),
    Released,
    /// Under an epoch that never was.
    Forged,
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![3 => Just(Command::Pause), 4 => Just(Command::Resume), 1 => Just(Command::Cancel)]
}

fn gang_kinds() -> impl Strategy<Value = GangKind> {
    prop_oneof![
        4 => Just(GangKind::Ready),
        3 => (0u8..3).prop_map(|ahead| GangKind::Formed { ahead }),
        2 => (0u8..3).prop_map(|ahead| GangKind::Broken { ahead }),
        1 => Just(GangKind::Late),
    ]
}

fn report_kinds() -> impl Strategy<Value = ReportKind> {
    prop_oneof![
        3 => Just(ReportKind::Started),
        6 => (0u8..4, any::<u8>()).prop_map(|(ahead, acc)| ReportKind::Progress { ahead, acc }),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(last, shared)| ReportKind::Checkpoint { last, shared }),
        4 => Just(ReportKind::Finished),
        2 => prop_oneof![
            Just(FailureKind::Crashed),
            Just(FailureKind::Diverged),
            Just(FailureKind::Checkpoint)
        ]
        .prop_map(ReportKind::Failed),
        2 => Just(ReportKind::Released),
        1 => Just(ReportKind::Forged),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let worker = 0..WORKERS;
    prop_oneof![
        2 => (1u32..12, -1i32..2, any::<bool>(), any::<bool>(), proptest::option::of((1u32..4, 0u32..3, any::<bool>())))
            .prop_map(|(trials, priority, cuda, target, gang)| Op::Submit { trials, priority, cuda, target, gang }),
        14 => (worker.clone(), any::<u8>(), gang_kinds())
            .prop_map(|(worker, lease, news)| Op::Gang { worker, lease, news }),
        2 => (0u8..4, proptest::option::of(0u8..14), commands())
            .prop_map(|(sweep, number, command)| Op::Control { sweep, number, command }),
        4 => (worker.clone(), any::<bool>()).prop_map(|(worker, forget)| Op::Join { worker, forget }),
        1 => worker.clone().prop_map(|worker| Op::NewLife { worker }),
        8 => (worker.clone(), 0u16..3, 0u32..4)
            .prop_map(|(worker, device, credits)| Op::Ready { worker, device, credits }),
        24 => (worker.clone(), any::<u8>(), report_kinds())
            .prop_map(|(worker, lease, kind)| Op::Report { worker, lease, kind }),
        2 => worker.clone().prop_map(|worker| Op::Repeat { worker }),
        1 => worker.clone().prop_map(|worker| Op::Gap { worker }),
        2 => worker.clone().prop_map(|worker| Op::Disconnect { worker }),
        1 => worker.clone().prop_map(|worker| Op::Leave { worker }),
        2 => (worker, prop::bool::weighted(0.8))
            .prop_map(|(worker, rebalance)| Op::Notice { worker, rebalance }),
        6 => (0u8..20, any::<u8>()).prop_map(|(seconds, heard)| Op::Tick { seconds, heard }),
        1 => Just(Op::Restart),
    ]
}

/// A worker as this test plays it.
#[derive(Default)]
struct Player {
    life: u32,
    session: Option<SessionId>,
    held: Vec<(Held, u16)>,
    next_seq: u64,
    last: Option<ReportBatch>,
}

struct Play {
    world: World,
    players: Vec<Player>,
    events: Vec<(Time, Event)>,
    answers: Vec<Vec<Action>>,
    /// Credits as the newest `Ready` said, less the grants since.
    credits: BTreeMap<(SessionId, u16), u32>,
    epochs: BTreeMap<TrialRef, Epoch>,
    generations: BTreeMap<(TrialRef, Epoch), Generation>,
    points: BTreeMap<TrialRef, u64>,
    results: BTreeSet<TrialRef>,
}

impl Play {
    fn new() -> Self {
        Self {
            world: World::new(),
            players: (0..WORKERS).map(|_| Player { next_seq: 1, ..Player::default() }).collect(),
            events: Vec::new(),
            answers: Vec::new(),
            credits: BTreeMap::new(),
            epochs: BTreeMap::new(),
            generations: BTreeMap::new(),
            points: BTreeMap::new(),
            results: BTreeSet::new(),
        }
    }

    fn step(&mut self, event: Event) {
        self.events.push((self.world.now, event.clone()));
        if let Event::Ready { session, device, credits } = event {
            self.credits.insert((session, device), credits);
        }
        self.world.step(event);
        let actions = self.world.actions.clone();
        for action in &actions {
            self.observe(action);
        }
        self.answers.push(actions);
    }

    fn observe(&mut self, action: &Action) {
        match action {
            Action::Grant { session, device, grant } => {
                let credits = self.credits.get_mut(&(*session, *device)).expect("credits were said");
                *credits = credits.checked_sub(1).expect("credits are never exceeded");
                let old = self.epochs.insert(grant.trial, grant.epoch);
                let shared = grant.gang.is_some() && old == Some(grant.epoch);
                assert!(shared || old.is_none_or(|old| old < grant.epoch), "epochs strictly grow");
                let lease = Held { trial: grant.trial, epoch: grant.epoch };
                let player = self.players.iter_mut().find(|player| player.session == Some(*session));
                // Without a player it is a former life, whose connection nobody has noticed to be dead.
                if let Some(player) = player {
                    player.held.push((lease, *device));
                }
            }
            Action::Revoke { session, trial, epoch, reason } => {
                let player = self.players.iter_mut().find(|player| player.session == Some(*session));
                if let Some(player) = player
                    && !matches!(reason, RevokeReason::Paused | RevokeReason::Moved)
                {
                    player.held.retain(|(held, _)| (held.trial, held.epoch) != (*trial, *epoch));
                }
            }
            Action::Record(Record::Point { trial, step, .. }) => {
                let old = self.points.insert(*trial, *step);
                assert!(old.is_none_or(|old| old < *step), "metric steps strictly grow within a trial");
            }
            Action::Record(Record::Result { trial, .. }) => {
                assert!(self.results.insert(*trial), "a trial has one result");
            }
            Action::Regang { trial, epoch, place, .. } => {
                let old = self.generations.insert((*trial, *epoch), place.generation);
                assert!(old.is_none_or(|old| old <= place.generation), "generations grow");
                assert!(
                    place.rank.is_none_or(|rank| !place.shares.of(rank).is_empty()),
                    "every rank has shards"
                );
            }
            Action::Reply { .. }
            | Action::Welcome { .. }
            | Action::Renew { .. }
            | Action::Acknowledge { .. }
            | Action::Record(_)
            | Action::Archive(_)
            | Action::DeleteObjects { .. } => {}
        }
    }

    fn play(&mut self, op: Op) {
        self.world.next_request += 1;
        let request = RequestId(self.world.next_request);
        match op {
            Op::Submit { trials, priority, cuda, target, gang } => {
                let mut spec = SweepSpec { priority, ..spec(trials) };
                if cuda {
                    spec.resources.device = DeviceRequest::Cuda;
                }
                match gang {
                    Some((min, more, false)) => {
                        spec.train.shards = 8;
                        spec.resources.workers = Workers { min, max: min + more };
                    }
                    Some((workers, _, true)) => {
                        spec.resources.workers = Workers { min: workers, max: workers };
                        spec.program = Some(program());
                    }
                    None => {}
                }
                spec.objective.as_mut().unwrap().target = target.then_some(0.99);
                self.step(Event::Submit { request, token: u128::from(request.0), spec: Box::new(spec) });
            }
            Op::Control { sweep, number, command } => {
                let sweep = SweepId(u32::from(sweep));
                let target = match number {
                    Some(number) => Target::Trial(trial(sweep, u32::from(number))),
                    None => Target::Sweep(sweep),
                };
                self.step(Event::Control { request, target, command });
            }
            Op::Join { worker, forget } => self.join(worker, forget),
            Op::NewLife { worker } => {
                let life = self.players[worker].life + 1;
                self.players[worker] = Player { life, next_seq: 1, ..Player::default() };
                self.join(worker, false);
            }
            Op::Ready { worker, device, credits } => {
                if let Some(session) = self.players[worker].session {
                    self.step(Event::Ready { session, device, credits });
                }
            }
            Op::Report { worker, lease, kind } => self.report(worker, lease, &kind),
            Op::Gang { worker, lease, news } => self.gang(worker, lease, news),
            Op::Repeat { worker } => {
                let player = &self.players[worker];
                if let (Some(session), Some(batch)) = (player.session, player.last.clone()) {
                    let before = self.world.engine.totals().reports;
                    self.step(Event::Reports { session, batch });
                    assert_eq!(self.world.engine.totals().reports, before, "no report is applied twice");
                }
            }
            Op::Gap { worker } => {
                let player = &self.players[worker];
                if let (Some(session), Some(mut batch)) = (player.session, player.last.clone()) {
                    batch.first_seq += 10;
                    let before = self.world.engine.totals().reports;
                    self.step(Event::Reports { session, batch });
                    assert_eq!(self.world.engine.totals().reports, before, "a gap applies nothing");
                }
            }
            Op::Disconnect { worker } => {
                if let Some(session) = self.players[worker].session.take() {
                    self.step(Event::Disconnected { session });
                }
            }
            Op::Leave { worker } => {
                if let Some(session) = self.players[worker].session.take() {
                    self.players[worker].held.clear();
                    self.step(Event::Left { session });
                }
            }
            Op::Notice { worker, rebalance } => {
                if let Some(session) = self.players[worker].session {
                    let kind = if rebalance { NoticeKind::Rebalance } else { NoticeKind::Terminate };
                    self.step(Event::Noticed { session, notice: Notice::new(NoticeSource::Aws, kind, None) });
                }
            }
            Op::Tick { seconds, heard } => {
                self.world.pass(f64::from(seconds));
                let sessions = self.players.iter().enumerate();
                let heard = sessions.filter(|(index, _)| heard >> index & 1 == 1);
                let heard = heard.filter_map(|(_, player)| player.session).collect();
                self.step(Event::Tick { heard });
            }
            Op::Restart => {
                for player in &mut self.players {
                    player.session = None;
                }
                self.credits.clear();
                self.step(Event::Restarted);
            }
        }
    }

    fn join(&mut self, worker: usize, forget: bool) {
        let session = self.world.session();
        let kind = if worker == 0 { DeviceKind::Cuda } else { DeviceKind::Cpu };
        let devices = vec![device(kind, GIB), device(DeviceKind::Cpu, 2 * GIB)];
        let player = &mut self.players[worker];
        if forget {
            player.held.truncate(1);
        }
        let mut hello = hello(&format!("w{worker}-{}", player.life), devices);
        let held = player.held.iter();
        hello.held =
            held.map(|(h, device)| HeldLease { trial: h.trial, epoch: h.epoch, device: *device }).collect();
        player.session = Some(session);
        self.step(Event::Joined { session, hello: Box::new(hello) });
        let keep = self.world.actions.iter().find_map(|action| match action {
            Action::Welcome { keep, .. } => Some(keep.clone()),
            _ => None,
        });
        let keep = keep.expect("every hello is welcomed");
        self.players[worker].held.retain(|(held, _)| keep.contains(&(held.trial, held.epoch)));
        assert_eq!(self.players[worker].held.len(), keep.len(), "kept leases are held leases");
    }

    fn gang(&mut self, worker: usize, lease: u8, news: GangKind) {
        let player = &self.players[worker];
        let Some(session) = player.session else { return };
        if player.held.is_empty() {
            return;
        }
        let (held, _) = player.held[usize::from(lease) % player.held.len()];
        let newest = self.generations.get(&(held.trial, held.epoch)).copied().unwrap_or_default();
        let step = self.world.engine.trial(held.trial).unwrap().step;
        let broken = || GangNews::Broken { message: "a peer is gone".to_owned() };
        let (generation, ahead, news) = match news {
            GangKind::Ready => (newest, 0, GangNews::Ready),
            GangKind::Formed { ahead } => (newest, ahead, GangNews::Formed),
            GangKind::Broken { ahead } => (newest, ahead, broken()),
            GangKind::Late => (Generation(newest.0.saturating_sub(1)), 0, broken()),
        };
        let (trial, epoch, step) = (held.trial, held.epoch, step + u64::from(ahead));
        self.step(Event::Gang { session, trial, epoch, generation, step, news });
    }

    fn report(&mut self, worker: usize, lease: u8, kind: &ReportKind) {
        let player = &mut self.players[worker];
        let Some(session) = player.session else { return };
        if player.held.is_empty() {
            return;
        }
        let index = usize::from(lease) % player.held.len();
        let (mut held, _) = player.held[index];
        let step = self.world.engine.trial(held.trial).unwrap().step;
        let trial_ref = held.trial;
        let body = match kind {
            ReportKind::Started => ReportBody::Started { step, total_steps: Some(50) },
            ReportKind::Progress { ahead, acc } => ReportBody::Progress {
                step: (step + u64::from(*ahead)).saturating_sub(1),
                data_epoch: 0.0,
                metrics: vec![(1, f64::from(*acc) / 256.0)],
            },
            ReportKind::Checkpoint { last, shared } => ReportBody::Checkpoint(CheckpointRef {
                step,
                manifest: Digest::of(format!("{trial_ref} {step}").as_bytes()),
                parts: vec![match shared {
                    true => Digest::of(&[(step % 3) as u8]),
                    false => Digest::of(format!("w {trial_ref} {step}").as_bytes()),
                }],
                bytes: 1,
                last: *last,
            }),
            ReportKind::Finished => ReportBody::Finished {
                step: step + 1,
                metrics: vec![(1, 0.5)],
                weights_digest: None,
                seconds: 1.0,
            },
            ReportKind::Failed(kind) => {
                ReportBody::Failed { step, kind: *kind, message: "m".into(), seconds: 1.0 }
            }
            ReportKind::Released => ReportBody::Released { step, seconds: 1.0 },
            ReportKind::Forged => {
                held.epoch = Epoch(held.epoch.0 + 1000);
                ReportBody::Started { step, total_steps: None }
            }
        };
        match kind {
            ReportKind::Finished | ReportKind::Failed(_) | ReportKind::Released => {
                player.held.remove(index);
            }
            ReportKind::Started
            | ReportKind::Progress { .. }
            | ReportKind::Checkpoint { .. }
            | ReportKind::Forged => {}
        }
        let batch = ReportBatch {
            first_seq: player.next_seq,
            metric_names: vec![MetricName::new("loss").unwrap(), MetricName::new("acc").unwrap()],
            reports: vec![Report { trial: held.trial, epoch: held.epoch, body }],
        };
        player.next_seq += 1;
        player.last = Some(batch.clone());
        let stale = self.world.engine.totals().stale_reports;
        self.step(Event::Reports { session, batch });
        if matches!(kind, ReportKind::Forged) {
            assert_eq!(self.world.engine.totals().stale_reports, stale + 1);
        }
    }

    /// Every trial that is not final explains itself.
    fn explain_all(&self) {
        let sweeps: Vec<_> = self.world.engine.sweeps().collect();
        for sweep in sweeps {
            assert_eq!(sweep.counts.total(), sweep.trials, "exactly N trials");
            for number in 0..sweep.trials {
                let explanation = self.world.engine.explain(trial(sweep.id, number), self.world.now);
                assert!(explanation.is_some_and(|text| text.to_string().len() > 10));
            }
        }
    }
}

fn replay(engine: &mut Engine, events: &[(Time, Event)]) -> Vec<Vec<Action>> {
    let answer = |(at, event): &(Time, Event)| {
        let mut actions = Vec::new();
        engine.step(*at, event.clone(), &mut actions);
        actions
    };
    events.iter().map(answer).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(400),
        ..ProptestConfig::default()
    })]

    #[test]
    fn invariants_hold_after_any_events_and_a_replay_or_snapshot_changes_nothing(
        ops in proptest::collection::vec(ops(), 1..150),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut play = Play::new();
        for op in ops {
            play.play(op);
        }
        play.explain_all();
        let digest = play.world.engine.digest();

        let mut again = Engine::new(config());
        prop_assert_eq!(&replay(&mut again, &play.events), &play.answers, "the same events, the same actions");
        prop_assert_eq!(again.digest(), digest);

        let cut = cut.index(play.events.len() + 1);
        let mut first = Engine::new(config());
        replay(&mut first, &play.events[..cut]);
        let mut second = Engine::restore(&first.snapshot()).unwrap();
        prop_assert_eq!(second.digest(), first.digest(), "a snapshot comes back as it was");
        prop_assert_eq!(&second.state.placement, &first.state.placement);
        second.check().unwrap();
        prop_assert_eq!(replay(&mut second, &play.events[cut..]), &play.answers[cut..]);
        prop_assert_eq!(second.digest(), digest, "snapshot and rest equal no snapshot");
    }
}

#[test]
fn bytes_that_are_no_snapshot_are_refused() {
    use crate::RestoreError;
    assert!(matches!(Engine::restore(&[1, 2]), Err(RestoreError::Short)));
    assert!(matches!(Engine::restore(&[9; 9]), Err(RestoreError::Version { .. })));
    let mut bytes = Engine::new(config()).snapshot();
    bytes.truncate(bytes.len() - 1);
    assert!(matches!(Engine::restore(&bytes), Err(RestoreError::Decode(_))));
}
