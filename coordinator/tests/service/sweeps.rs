//! From submission to results, over restarts.

use crate::{
    agent::{Agent, hello, whole_trial},
    place::{Place, nothing, results, submission},
};
use spotsweep_coordinator::store::StoreOptions;
use spotsweep_wire::v1::{self, to_worker, watch_response::What};
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_of_n_ends_with_exactly_n_rows_each_once_and_survives_a_restart() {
    const TRIALS: u32 = 2500;
    let mut place = Place::start().await;
    let mut client = place.client().await;
    let submitted = client.submit(submission(&nothing("n", TRIALS), 1)).await.unwrap().into_inner();
    assert_eq!((submitted.trials, submitted.new), (u64::from(TRIALS), true));
    let again = client.submit(submission(&nothing("n", TRIALS), 1)).await.unwrap().into_inner();
    assert!(!again.new, "the same token submits once");

    let (mut agent, first) = Agent::connect(&place.url, hello("a", 1)).await;
    assert!(matches!(first, to_worker::Message::Welcome(_)), "{first:?}");
    let (mut seen, mut sweeps) = (BTreeSet::new(), Vec::new());
    while seen.len() < TRIALS as usize {
        agent.ready(256).await;
        for grant in agent.grants(&mut sweeps).await {
            let number = grant.trial.unwrap().number;
            assert!(seen.insert(number), "trial {number} is handed out once");
            assert!(grant.params_json.contains("seed"));
            agent.report(&grant, &["val_loss"], whole_trial(f64::from(number))).await;
        }
    }
    agent.acknowledged().await;

    let live = results(&mut client, "n").await;
    let check = |rows: &[v1::Trial]| {
        assert_eq!(rows.len(), TRIALS as usize);
        for (number, row) in rows.iter().enumerate() {
            assert_eq!((row.number as usize, row.state.as_str(), row.steps), (number, "completed", 2));
            assert_eq!(row.metrics, [v1::Metric { name: "val_loss".to_owned(), value: number as f64 }]);
            assert_eq!((row.weights_digest.len(), row.seconds, row.attempts), (64, 0.5, 1));
            assert_eq!(row.best, Some(number as f64));
        }
    };
    check(&live);
    let request = v1::MetricsRequest { trial: "n/7".to_owned(), first_step: 0 };
    let mut pages = client.metrics(request).await.unwrap().into_inner();
    let points = pages.message().await.unwrap().unwrap().points;
    let steps: Vec<_> = points.iter().map(|point| (point.step, point.metrics[0].value)).collect();
    assert_eq!(steps, [(1, 8.0), (2, 7.0)]);
    let request = v1::MetricsRequest { trial: "n/7".to_owned(), first_step: 2 };
    let mut pages = client.metrics(request).await.unwrap().into_inner();
    let points = pages.message().await.unwrap().unwrap().points;
    assert_eq!(points.iter().map(|point| point.step).collect::<Vec<_>>(), [2]);

    drop(client);
    place.shut_down().await;
    place.restart(StoreOptions::default()).await;
    let mut client = place.client().await;
    assert_eq!(results(&mut client, "n").await, live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_trials_is_those_asked_for_and_no_more() {
    let place = Place::start().await;
    let mut client = place.client().await;
    client.submit(submission(&nothing("p", 2500), 1)).await.unwrap();
    let asked = v1::ListTrialsRequest { sweep: "p".to_owned(), limit: 3, ..v1::ListTrialsRequest::default() };
    let page = |request: v1::ListTrialsRequest| {
        let mut client = client.clone();
        async move {
            let page = client.list_trials(request).await?.into_inner();
            let numbers: Vec<u32> = page.trials.iter().map(|row| row.number).collect();
            Ok::<_, tonic::Status>((numbers, page.total, page.varying))
        }
    };
    let seed = vec!["seed".to_owned()];
    let last = v1::ListTrialsRequest { sort: "-number".to_owned(), offset: 1, ..asked.clone() };
    assert_eq!(page(last).await.unwrap(), (vec![2498, 2497, 2496], 2500, seed.clone()));
    let some = v1::ListTrialsRequest {
        filter: "number>=2499".to_owned(),
        search: "PEND".to_owned(),
        ..asked.clone()
    };
    assert_eq!(page(some).await.unwrap(), (vec![2499], 1, seed.clone()));
    let none = v1::ListTrialsRequest { search: "nowhere".to_owned(), ..asked.clone() };
    assert_eq!(page(none).await.unwrap(), (vec![], 0, seed));
    let too_many = v1::ListTrialsRequest { limit: 1001, ..asked.clone() };
    assert_eq!(page(too_many).await.unwrap_err().code(), tonic::Code::OutOfRange);
    let unknown = v1::ListTrialsRequest { sort: "nothing".to_owned(), ..asked };
    assert_eq!(page(unknown).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_of_points_and_ends_with_its_sweep() {
    let place = Place::start().await;
    let mut client = place.client().await;
    client.submit(submission(&nothing("w", 1), 1)).await.unwrap();
    let request = v1::WatchRequest { sweep: "w".to_owned() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let (mut agent, _) = Agent::connect(&place.url, hello("a", 1)).await;
    agent.ready(1).await;
    let grants = agent.grants(&mut Vec::new()).await;
    agent.report(&grants[0], &["val_loss"], whole_trial(3.0)).await;
    let (mut points, mut completed, mut last_state) = (0, 0, String::new());
    while let Some(event) = watch.message().await.unwrap() {
        match event.what.unwrap() {
            What::Point(_) => points += 1,
            What::Trial(row) if row.state == "completed" => {
                completed += 1;
                assert_eq!(row.metrics[0].value, 3.0);
            }
            What::Sweep(sweep) => last_state = sweep.state,
            What::Trial(_) | What::Notice(_) => {}
        }
    }
    assert_eq!((points, completed, last_state.as_str()), (2, 1, "completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_where_a_trial_runs_and_of_how_many_steps() {
    let place = Place::start().await;
    let mut client = place.client().await;
    client.submit(submission(&nothing("w", 1), 1)).await.unwrap();
    let request = v1::WatchRequest { sweep: "w".to_owned() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let (mut agent, _) = Agent::connect(&place.url, hello("a", 1)).await;
    agent.ready(1).await;
    let grants = agent.grants(&mut Vec::new()).await;
    let started = v1::Started { step: 0, total_steps: Some(7) };
    agent.report(&grants[0], &[], vec![v1::report::Body::Started(started)]).await;
    let row = loop {
        if let What::Trial(row) = watch.message().await.unwrap().unwrap().what.unwrap() {
            break row;
        }
    };
    assert_eq!((row.state.as_str(), row.worker.as_str(), row.device.as_str()), ("running", "a", "cpu"));
    assert_eq!((row.total_steps, row.attempts), (Some(7), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_and_cancel_change_what_is_pending() {
    let place = Place::start().await;
    let mut client = place.client().await;
    client.submit(submission(&nothing("c", 10), 1)).await.unwrap();
    let target = |name: &str| v1::ControlRequest { target: name.to_owned() };
    assert_eq!(client.pause(target("c")).await.unwrap().into_inner().trials, 10);
    assert_eq!(client.resume(target("c")).await.unwrap().into_inner().trials, 10);
    assert_eq!(client.cancel(target("c/3")).await.unwrap().into_inner().trials, 1);
    assert_eq!(client.cancel(target("c")).await.unwrap().into_inner().trials, 9);
    let explained = client.explain(v1::ExplainRequest { target: "c/3".to_owned() }).await.unwrap();
    assert!(explained.into_inner().lines[0].contains("cancelled"));
    let rows = results(&mut client, "c").await;
    assert!(rows.iter().all(|row| row.state == "cancelled"));
}
