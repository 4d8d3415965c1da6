use super::*;
use spotsweep_wire::v1::report::Body;

fn good_hello() -> v1::Hello {
    v1::Hello {
        protocol: WORKER_PROTOCOL,
        name: "w".to_owned(),
        incarnation: vec![7; 16].into(),
        devices: vec![v1::Device {
            name: "cpu".to_owned(),
            kind: v1::DeviceKind::Cpu.into(),
            model: "m".repeat(1000),
            memory_bytes: 1,
        }],
        machine: None,
        held: vec![],
        connection: 0,
        programs_only: false,
        catalogue: Default::default(),
    }
}

fn batch(body: Option<Body>) -> v1::ReportBatch {
    let trial = Some(v1::TrialKey { sweep: 0, number: 3 });
    v1::ReportBatch {
        first_seq: 1,
        metric_names: vec!["loss".to_owned()],
        reports: vec![v1::Report { trial, epoch: 2, body }],
    }
}

#[test]
fn a_hello_is_taken_with_its_texts_cut() {
    let (hello, _) = hello(good_hello()).unwrap();
    assert_eq!(hello.devices[0].model.len(), MACHINE_TEXT_BYTES);
}

#[test]
fn a_hello_that_breaks_a_rule_is_refused_with_its_reason() {
    type Break = fn(&mut v1::Hello);
    let breaks: [(Break, Code); 7] = [
        (|h| h.protocol = 99, Code::ProtocolMismatch),
        (|h| h.name = "a b".to_owned(), Code::BadRequest),
        (|h| h.incarnation = vec![1; 15].into(), Code::BadRequest),
        (|h| h.devices.clear(), Code::BadRequest),
        (|h| h.devices = vec![h.devices[0].clone(); 65], Code::TooLarge),
        (|h| h.devices[0].kind = 77, Code::BadRequest),
        (|h| h.held = vec![v1::HeldLease { trial: None, epoch: 1, device: 0 }], Code::BadRequest),
    ];
    for (index, (break_it, code)) in breaks.into_iter().enumerate() {
        let mut wire = good_hello();
        break_it(&mut wire);
        assert_eq!(hello(wire).unwrap_err().code, code, "{index}");
    }
}

#[test]
fn metrics_that_are_not_finite_are_left_out() {
    let progress = v1::Progress {
        step: 5,
        data_epoch: f64::NAN,
        names: vec![0, 0, 0],
        values: vec![f64::NAN, 1.5, f64::INFINITY],
    };
    let batch = report_batch(batch(Some(Body::Progress(progress)))).unwrap();
    let body = ReportBody::Progress { step: 5, data_epoch: 0.0, metrics: vec![(0, 1.5)] };
    assert_eq!(batch.reports[0].body, body);
}

#[test]
fn a_malformed_report_is_refused() {
    let progress =
        |names, values| Some(Body::Progress(v1::Progress { step: 1, data_epoch: 0.0, names, values }));
    let checkpoint = v1::Checkpoint { manifest: vec![1; 31].into(), ..v1::Checkpoint::default() };
    let bodies = [
        None,
        progress(vec![1], vec![0.5]),
        progress(vec![0], vec![]),
        progress(vec![0; 257], vec![0.0; 257]),
        Some(Body::Checkpoint(checkpoint)),
        Some(Body::Failed(v1::Failed::default())),
    ];
    for body in bodies {
        assert!(report_batch(batch(body.clone())).is_err(), "{body:?}");
    }
    assert!(report_batch(v1::ReportBatch { first_seq: 0, ..batch(None) }).is_err());
}

#[test]
fn a_step_beyond_the_limit_is_refused_wherever_it_stands() {
    let bodies = |step: u64| {
        let manifest = vec![1; 32].into();
        let kind = v1::FailureKind::Crashed.into();
        [
            Body::Started(v1::Started { step, total_steps: None }),
            Body::Started(v1::Started { step: 0, total_steps: Some(step) }),
            Body::Progress(v1::Progress { step, ..v1::Progress::default() }),
            Body::Checkpoint(v1::Checkpoint { step, manifest, ..v1::Checkpoint::default() }),
            Body::Finished(v1::Finished { step, ..v1::Finished::default() }),
            Body::Failed(v1::Failed { step, kind, ..v1::Failed::default() }),
            Body::Released(v1::Released { step, ..v1::Released::default() }),
        ]
    };
    for body in bodies(limits::STEPS_PER_TRIAL) {
        assert!(report_batch(batch(Some(body.clone()))).is_ok(), "{body:?}");
    }
    for body in bodies(limits::STEPS_PER_TRIAL + 1).into_iter().chain(bodies(u64::MAX)) {
        let refused = report_batch(batch(Some(body.clone()))).unwrap_err();
        assert_eq!(refused.code, Code::BadRequest, "{body:?}");
    }
}

#[test]
fn a_notice_is_taken_with_its_reason_cut_and_an_unknown_one_is_left_out() {
    let wire = v1::Noticed {
        source: v1::NoticeSource::Http.into(),
        kind: v1::NoticeKind::Terminate.into(),
        in_s: Some(f64::INFINITY),
        reason: "x\n".repeat(1000),
    };
    let notice = noticed(wire.clone()).unwrap();
    assert_eq!((notice.in_s, notice.reason.len()), (None, limits::NOTICE_REASON_BYTES));
    assert!(!notice.reason.contains('\n'));
    assert_eq!(noticed(v1::Noticed { kind: 99, ..wire.clone() }), None);
    assert_eq!(noticed(v1::Noticed { source: 0, ..wire }), None);
}

#[test]
fn news_of_a_gang_and_questions_are_taken_within_their_limits() {
    let trial = Some(v1::TrialKey { sweep: 0, number: 3 });
    let broken = Some("é".repeat(limits::FAILURE_TEXT_BYTES));
    let news = v1::GangNews { trial, epoch: 2, generation: 1, step: 5, broken, ready: false, shard_us: 0 };
    let word = gang_news(news.clone()).unwrap();
    let GangNews::Broken { message } = word.news else { panic!("it is broken") };
    assert_eq!((word.step, message.len()), (5, limits::FAILURE_TEXT_BYTES));
    let formed = gang_news(v1::GangNews { broken: None, ..news.clone() }).unwrap();
    assert_eq!(formed.news, GangNews::Formed);
    let paced = gang_news(v1::GangNews { broken: None, shard_us: 70, ..news.clone() }).unwrap();
    assert_eq!(paced.news, GangNews::Pace { shard_us: 70 });
    assert!(gang_news(v1::GangNews { trial: None, ..news.clone() }).is_err());
    assert!(gang_news(v1::GangNews { generation: 0, ..news.clone() }).is_err());
    assert!(gang_news(v1::GangNews { step: limits::STEPS_PER_TRIAL + 1, ..news }).is_err());

    let key = "k".repeat(STORE_KEY_BYTES);
    let set = Some(vec![0; STORE_VALUE_BYTES].into());
    let query = v1::StoreQuery { trial, epoch: 2, generation: 1, id: u64::MAX, key, set };
    assert!(store_query(query.clone()).is_ok());
    let larger = Some(vec![0; STORE_VALUE_BYTES + 1].into());
    for wrong in [
        v1::StoreQuery { trial: None, ..query.clone() },
        v1::StoreQuery { generation: 0, ..query.clone() },
        v1::StoreQuery { key: "k".repeat(STORE_KEY_BYTES + 1), ..query.clone() },
        v1::StoreQuery { set: larger, ..query },
    ] {
        assert!(store_query(wrong).is_err());
    }
}

#[test]
fn a_long_failure_is_cut_between_characters() {
    let message = "é".repeat(limits::FAILURE_TEXT_BYTES);
    let failed = v1::Failed { step: 1, kind: v1::FailureKind::Crashed.into(), message, seconds: -1.0 };
    let batch = report_batch(batch(Some(Body::Failed(failed)))).unwrap();
    let ReportBody::Failed { message, seconds, .. } = &batch.reports[0].body else { panic!("a failure") };
    assert_eq!((message.len(), *seconds), (limits::FAILURE_TEXT_BYTES, 0.0));
}
