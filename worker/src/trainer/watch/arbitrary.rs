//! Whatever a trainer says, in whatever order: what is passed on keeps to the protocol.

use super::*;
use proptest::{collection::vec, prelude::*};
use serde_json::json;

const EPOCH: Epoch = Epoch(4);

fn step() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 8..16_u64, 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn metrics() -> impl Strategy<Value = serde_json::Map<String, serde_json::Value>> {
    let value = prop_oneof![Just(json!(0.5)), Just(json!(null)), Just(json!("x")), Just(json!([1]))];
    let name = prop_oneof![Just("loss".to_owned()), ".{0,8}"];
    vec((name, value), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

fn path() -> impl Strategy<Value = PathBuf> {
    prop_oneof![
        Just("/scratch/1/w".into()),
        Just("/scratch/1/../2".into()),
        ".{0,12}".prop_map(PathBuf::from)
    ]
}

fn message() -> impl Strategy<Value = FromTrainer> {
    let epoch = || prop_oneof![6 => Just(EPOCH), 1 => any::<u64>().prop_map(Epoch)];
    prop_oneof![
        (epoch(), step(), any::<Option<u64>>())
            .prop_map(|(epoch, step, total_steps)| { FromTrainer::Started { epoch, step, total_steps } }),
        (epoch(), step(), any::<f64>(), metrics()).prop_map(|(epoch, step, data_epoch, metrics)| {
            FromTrainer::Report { epoch, step, data_epoch, metrics }
        }),
        (epoch(), step(), path(), path(), any::<bool>()).prop_map(|(epoch, step, weights, state, last)| {
            let files = CheckpointFiles::new(step, weights, state);
            FromTrainer::Checkpoint { epoch, files, last, held_up_s: None }
        }),
        (epoch(), step(), metrics()).prop_map(|(epoch, step, metrics)| {
            FromTrainer::Done { epoch, step, metrics, weights_digest: Some(Digest([0; 32])) }
        }),
        (epoch(), step()).prop_map(|(epoch, step)| FromTrainer::Stopped { epoch, step }),
        (epoch(), 0..4_u64, step()).prop_map(|(epoch, generation, step)| {
            FromTrainer::GangFormed {
                epoch,
                generation: Generation(generation),
                step,
                over: None,
                shard_us: None,
            }
        }),
        (epoch(), 0..4_u64, step(), ".{0,8}").prop_map(|(epoch, generation, step, message)| {
            FromTrainer::GangBroken { epoch, generation: Generation(generation), step, message }
        }),
        (epoch(), 0..4_u64, 0..3_u64, 0..300_usize).prop_map(|(epoch, generation, id, length)| {
            let op = StoreOp::Get { key: "k".repeat(length) };
            FromTrainer::Store { epoch, generation: Generation(generation), id, op }
        }),
        (epoch(), step(), ".{0,8}").prop_map(|(epoch, step, message)| {
            FromTrainer::Failed { epoch, step, reason: FailureKind::Internal, message }
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_passed_on_keeps_to_the_protocol(messages in vec(message(), 0..40), ganged in any::<bool>()) {
        let mut watch = Watch::new(EPOCH, 10, Path::new("/scratch/1"));
        if ganged {
            watch.told_of(Generation(1));
            watch.told_of(Generation(2));
        }
        let mut asked = std::collections::HashSet::new();
        let (mut begun, mut last) = (false, None);
        for message in messages {
            match watch.hear(message) {
                Ok(Said::Started { step, .. }) => {
                    prop_assert!(!begun && (step == 10 || (ganged && step > 10)));
                    begun = true;
                }
                Ok(Said::Progress(progress)) => {
                    prop_assert!(begun && last.is_none_or(|last| last < progress.step));
                    prop_assert!(progress.data_epoch.is_finite());
                    prop_assert!(progress.metrics.iter().all(|(_, value)| value.is_finite()));
                    last = Some(progress.step);
                }
                Ok(Said::Checkpoint { files, .. }) => {
                    for path in [files.weights, files.state] {
                        let inside = path.starts_with("/scratch/1/");
                        prop_assert!(begun && inside && !path.to_string_lossy().contains(".."));
                    }
                }
                Ok(Said::Done { metrics, .. }) => {
                    prop_assert!(begun && metrics.iter().all(|(_, value)| value.is_finite()));
                }
                Ok(Said::Gang(news)) => {
                    prop_assert!(ganged && (begun || news.broken.is_some()));
                    prop_assert!((1..=2).contains(&news.generation.0) && news.step <= STEPS_PER_TRIAL);
                }
                Ok(Said::Ask(question)) => {
                    let StoreOp::Get { key } = question.op else { panic!("only those are asked here") };
                    prop_assert!(ganged && (1..=2).contains(&question.generation.0));
                    prop_assert!(key.len() <= STORE_KEY_BYTES && asked.insert(question.id));
                }
                Ok(Said::Stopped { .. } | Said::Failed { .. }) | Err(_) => {}
            }
        }
    }
}
