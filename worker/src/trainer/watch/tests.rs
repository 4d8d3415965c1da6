use super::*;
use serde_json::json;

const EPOCH: Epoch = Epoch(4);

fn watch() -> Watch {
    Watch::new(EPOCH, 10, Path::new("/scratch/1"))
}

fn started(watch: &mut Watch) {
    watch.hear(FromTrainer::Started { epoch: EPOCH, step: 10, total_steps: Some(20) }).unwrap();
}

fn report(step: u64, metrics: &serde_json::Value) -> FromTrainer {
    let metrics = metrics.as_object().unwrap().clone();
    FromTrainer::Report { epoch: EPOCH, step, data_epoch: 0.5, metrics }
}

#[test]
fn steps_grow_strictly_and_values_that_are_no_numbers_are_left_out() {
    let mut watch = watch();
    started(&mut watch);
    let said = watch.hear(report(11, &json!({"loss": 0.5, "bad": null, "worse": "nan"}))).unwrap();
    let Said::Progress(progress) = said else { panic!("{said:?}") };
    assert_eq!(progress.metrics, [(MetricName::new("loss").unwrap(), 0.5)]);
    assert_eq!((watch.ignored_values(), watch.step()), (2, 11));
    assert!(matches!(
        watch.hear(report(11, &json!({}))),
        Err(Breach::Backwards { least: 12, found: 11, .. })
    ));
    assert!(matches!(watch.hear(report(9, &json!({}))), Err(Breach::Backwards { .. })));
}

#[test]
fn a_checkpoint_that_was_written_beside_training_may_lie_behind_the_reports() {
    let checkpoint = |step| {
        let files = CheckpointFiles::new(step, "/scratch/1/w", "/scratch/1/s");
        FromTrainer::Checkpoint { epoch: EPOCH, files, last: false, held_up_s: None }
    };
    let mut watch = watch();
    started(&mut watch);
    watch.hear(report(14, &json!({}))).unwrap();
    watch.hear(checkpoint(12)).unwrap();
    assert_eq!(watch.step(), 14, "the job is where its reports are");
    assert!(matches!(watch.hear(checkpoint(11)), Err(Breach::Backwards { least: 12, found: 11, .. })));
    watch.hear(checkpoint(16)).unwrap();
    watch.hear(report(15, &json!({}))).unwrap();
    assert_eq!(watch.step(), 16);
    let digest = Digest([0; 32]);
    let done = FromTrainer::Done {
        epoch: EPOCH,
        step: 15,
        metrics: serde_json::Map::new(),
        weights_digest: Some(digest),
    };
    assert!(matches!(watch.hear(done), Err(Breach::Backwards { .. })));
}

#[test]
fn a_tale_out_of_order_or_under_another_epoch_is_a_breach() {
    let mut watch = watch();
    assert!(matches!(watch.hear(report(11, &json!({}))), Err(Breach::NotStarted { said: "report" })));
    let elsewhere = FromTrainer::Started { epoch: EPOCH, step: 0, total_steps: None };
    assert!(matches!(watch.hear(elsewhere), Err(Breach::FirstStep { found: 0, wanted: 10 })));
    started(&mut watch);
    let again = FromTrainer::Started { epoch: EPOCH, step: 10, total_steps: None };
    assert!(matches!(watch.hear(again), Err(Breach::Again("started"))));
    let stale = FromTrainer::Stopped { epoch: Epoch(3), step: 11 };
    assert!(matches!(watch.hear(stale), Err(Breach::Epoch { .. })));
}

#[test]
fn limits_on_metrics_hold() {
    let mut watch = watch();
    started(&mut watch);
    let many = |from: usize, count: usize| {
        let map: serde_json::Map<_, _> = (from..from + count).map(|i| (format!("m{i}"), json!(1))).collect();
        serde_json::Value::Object(map)
    };
    assert!(matches!(watch.hear(report(11, &many(0, METRICS_PER_REPORT + 1))), Err(Breach::Metrics(_))));
    for round in 0..METRICS_PER_TRIAL / METRICS_PER_REPORT {
        let metrics = many(round * METRICS_PER_REPORT, METRICS_PER_REPORT);
        watch.hear(report(12 + round as u64, &metrics)).unwrap();
    }
    assert!(matches!(watch.hear(report(50, &json!({"one_more": 1}))), Err(Breach::Names)));
    assert!(matches!(watch.hear(report(51, &json!({"../x": 1}))), Err(Breach::Names | Breach::Name(_))));
}

#[test]
fn a_step_beyond_the_limit_is_a_breach_wherever_it_stands() {
    let beyond = STEPS_PER_TRIAL + 1;
    let mut fresh = watch();
    let start = FromTrainer::Started { epoch: EPOCH, step: 10, total_steps: Some(beyond) };
    assert!(matches!(fresh.hear(start), Err(Breach::Steps(_))));
    let mut watch = watch();
    started(&mut watch);
    let failed = FromTrainer::Failed {
        epoch: EPOCH,
        step: beyond,
        reason: FailureKind::Internal,
        message: String::new(),
    };
    for message in [report(beyond, &json!({})), FromTrainer::Stopped { epoch: EPOCH, step: u64::MAX }, failed]
    {
        assert!(matches!(watch.hear(message), Err(Breach::Steps(_))));
    }
    assert_eq!(watch.step(), 10);
    assert!(watch.hear(report(STEPS_PER_TRIAL, &json!({}))).is_ok());
}

#[test]
fn checkpoint_files_outside_the_jobs_folder_are_a_breach() {
    let mut watch = watch();
    started(&mut watch);
    let mut checkpoint = |path: &str| {
        let files = CheckpointFiles::new(12, path, "/scratch/1/state");
        watch.hear(FromTrainer::Checkpoint { epoch: EPOCH, files, last: false, held_up_s: None })
    };
    for path in ["/etc/passwd", "relative", "/scratch/1", "/scratch/1/../2/w", "/scratch/11/w"] {
        assert!(matches!(checkpoint(path), Err(Breach::Outside(_))), "{path}");
    }
    assert!(checkpoint("/scratch/1/w").is_ok());
}

#[test]
fn lines_about_a_gang_come_only_from_a_rank_of_it_and_about_make_ups_that_it_was_told_of() {
    let formed = |generation| FromTrainer::GangFormed {
        epoch: EPOCH,
        generation: Generation(generation),
        step: 12,
        over: None,
        shard_us: None,
    };
    let broken = |generation| FromTrainer::GangBroken {
        epoch: EPOCH,
        generation: Generation(generation),
        step: 0,
        message: "no answer from rank 1".to_owned(),
    };
    let mut alone = watch();
    started(&mut alone);
    assert!(matches!(alone.hear(formed(1)), Err(Breach::NoGang("gang_formed"))));
    assert!(matches!(alone.hear(broken(1)), Err(Breach::NoGang("gang_broken"))));
    let mut watch = watch();
    watch.told_of(Generation(3));
    assert!(matches!(watch.hear(formed(3)), Err(Breach::NotStarted { .. })));
    let Ok(Said::Gang(news)) = watch.hear(broken(3)) else { panic!("its peers may never come") };
    assert_eq!((news.generation, news.broken.is_some()), (Generation(3), true));
    // It begins where the gang is that it joins.
    watch.hear(FromTrainer::Started { epoch: EPOCH, step: 12, total_steps: Some(20) }).unwrap();
    assert!(matches!(watch.hear(formed(4)), Err(Breach::Generation { .. })));
    watch.told_of(Generation(4));
    watch.hear(formed(4)).unwrap();
    watch.hear(formed(3)).unwrap();
    assert!(matches!(watch.hear(broken(2)), Err(Breach::Generation { .. })));
}

#[test]
fn questions_of_a_rank_keep_to_their_limits() {
    let ask = |id, op| FromTrainer::Store { epoch: EPOCH, generation: Generation(1), id, op };
    let get = |id, length| ask(id, StoreOp::Get { key: "k".repeat(length) });
    let set = |id, length| {
        let value = spotsweep_proto::gang::StoreValue(vec![0; length]);
        ask(id, StoreOp::Set { key: "k".to_owned(), value })
    };
    assert!(matches!(watch().hear(get(1, 1)), Err(Breach::NoGang("store"))));
    let mut watch = watch();
    watch.told_of(Generation(1));
    watch.hear(get(1, STORE_KEY_BYTES)).unwrap();
    assert!(matches!(watch.hear(get(2, STORE_KEY_BYTES + 1)), Err(Breach::Key(_))));
    watch.hear(set(3, STORE_VALUE_BYTES)).unwrap();
    assert!(matches!(watch.hear(set(4, STORE_VALUE_BYTES + 1)), Err(Breach::Value(_))));
    assert!(matches!(watch.hear(get(1, 1)), Err(Breach::Asked(1))));
    watch.answered(1);
    watch.answered(3);
    for id in 0..QUESTIONS_PER_JOB as u64 {
        watch.hear(get(id, 1)).unwrap();
    }
    assert!(matches!(watch.hear(get(1000, 1)), Err(Breach::Questions)));
    watch.answered(0);
    watch.hear(get(1000, 1)).unwrap();
}

#[test]
fn nothing_of_a_job_comes_before_its_start_and_ready_never_in_it() {
    let files = || CheckpointFiles::new(12, "/scratch/1/w", "/scratch/1/s");
    let done = || FromTrainer::Done {
        epoch: EPOCH,
        step: 12,
        metrics: serde_json::Map::new(),
        weights_digest: Some(Digest([0; 32])),
    };
    let ready = || FromTrainer::Ready {
        protocol: 1,
        trainer: String::new(),
        libtorch: String::new(),
        devices: Vec::new(),
        catalogue: None,
    };
    let mut watch = watch();
    let checkpoint = FromTrainer::Checkpoint { epoch: EPOCH, files: files(), last: false, held_up_s: None };
    assert!(matches!(watch.hear(checkpoint), Err(Breach::NotStarted { said: "checkpoint" })));
    assert!(matches!(watch.hear(done()), Err(Breach::NotStarted { said: "done" })));
    assert!(matches!(watch.hear(ready()), Err(Breach::Ready)));
    started(&mut watch);
    assert!(matches!(watch.hear(ready()), Err(Breach::Ready)));
    assert!(watch.hear(done()).is_ok());
}
