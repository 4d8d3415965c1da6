use super::*;
use spotsweep_engine::{
    SweepId, Time,
    action::TrialState,
    views::{Best, Counts, SweepState},
};
use spotsweep_proto::{
    ids::{DeviceName, Epoch, MetricName, WorkerName},
    spec::parse,
};

fn board() -> Board {
    let spec = parse(
        b"{name: a, method: grid, metric: {name: val_loss, goal: minimize}, parameters: {dropout: \
          {values: [0.1, 0.2, 0.3, 0.4]}, model: {value: mlp}}, train: {data: mnist}}",
        "a.yaml",
    )
    .unwrap();
    let values = [Some(0.5), None, Some(f64::NAN), Some(0.25)];
    let rows = (0..4u32).zip(values).map(|(number, value)| {
        let brief = TrialBrief {
            state: if value.is_some() { TrialState::Completed } else { TrialState::Running },
            attempts: 1,
            failures: 0,
            interruptions: number,
            epoch: Epoch(1),
            step: 10 * u64::from(number),
            total_steps: Some(30),
            best: value.filter(|value| !value.is_nan()).map(|value| Best { value, step: 1 }),
            seconds: 1.0,
        };
        let attempt = AttemptRow {
            epoch: Epoch(1),
            started: Some((1, WorkerName::new("w").unwrap(), DeviceName::new("cpu").unwrap(), 0, Time(1))),
            ended: Some((spotsweep_engine::action::AttemptEnd::Finished, 1, Time(100 - u64::from(number)))),
        };
        let name = MetricName::new("val_loss").unwrap();
        Arc::new(Row {
            number,
            brief,
            params: spec.assignment(number),
            metrics: value.map(|value| (name, value)).into_iter().collect(),
            weights_digest: None,
            device: None,
            attempts: vec![attempt],
        })
    });
    let rows = rows.collect();
    let sweep = SweepView {
        id: SweepId(0),
        name: spec.name.clone(),
        spec: Arc::new(spec),
        state: SweepState::Running,
        submitted_at: Time(0),
        ended_at: None,
        trials: 4,
        counts: Counts::default(),
        leases: 0,
        best: None,
        target_reached: false,
        stale_reports: 0,
        imported: None,
    };
    Board::new(sweep, rows)
}

fn numbers(filter: &str, sort: &str) -> Vec<u32> {
    let board = board();
    let rows = Selection::parse(&board, filter, sort).unwrap().apply(&board);
    rows.iter().map(|row| row.number).collect()
}

#[test]
fn the_best_that_was_ever_reached_comes_first_whatever_came_of_it() {
    let board = board();
    let mut rows = board.rows().to_vec();
    let mut fell_back = (*rows[2]).clone();
    fell_back.brief.best = Some(Best { value: 0.1, step: 1 });
    rows[2] = Arc::new(fell_back);
    let board = Board::new(board.sweep().clone(), rows);
    let found = |filter: &str, text: &str| -> Vec<u32> {
        let selection = Selection::parse(&board, filter, "").unwrap().with_search(text).unwrap();
        selection.apply(&board).iter().map(|row| row.number).collect()
    };
    assert_eq!(found("", ""), [2, 3, 0, 1]);
    assert_eq!(found("", "0.3"), [2], "a parameter");
    assert_eq!(found("", "RUN"), [1], "a state");
    assert_eq!(found("number<2", "cpu"), [0, 1], "a device");
    assert!(Selection::default().with_search(&"x".repeat(5000)).is_err());
}

#[test]
fn rows_without_a_value_come_last_in_either_order() {
    assert_eq!(numbers("", ""), [3, 0, 1, 2]);
    assert_eq!(numbers("", "-val_loss"), [0, 3, 1, 2]);
    assert_eq!(numbers("", "-dropout"), [3, 2, 1, 0]);
    assert_eq!(numbers("", "number"), [0, 1, 2, 3]);
}

#[test]
fn a_filter_compares_numbers_as_numbers_and_text_as_text() {
    assert_eq!(numbers("dropout=0.10", "number"), [0]);
    assert_eq!(numbers("dropout>=0.2;dropout<0.4", "number"), [1, 2]);
    assert_eq!(numbers("state=running|failed", "number"), [1]);
    assert_eq!(numbers("state!=running", "number"), [0, 2, 3]);
    assert_eq!(numbers("model~ML", "number"), [0, 1, 2, 3]);
    assert_eq!(numbers("metrics.val_loss<=0.3", "number"), [3]);
    assert_eq!(numbers("val_loss>0", "number"), [0, 3], "NaN is above nothing");
}

#[test]
fn a_filter_that_makes_no_sense_is_refused_with_what_there_is() {
    let board = board();
    for filter in ["x", "nothing=1", "dropout<soon", "=1", &"a=1;".repeat(40), &"x".repeat(9000)] {
        let error = Selection::parse(&board, filter, "").unwrap_err();
        assert_eq!(error.code, Code::BadRequest, "{filter}");
    }
    let error = Selection::parse(&board, "", "learning").unwrap_err();
    assert!(error.hint.contains("dropout") && error.hint.contains("val_loss"), "{error:?}");
}

#[test]
fn the_best_so_far_only_gets_better_in_order_of_time() {
    let curve: Vec<_> = board().best_so_far().iter().map(|point| (point.number, point.value)).collect();
    assert_eq!(curve, [(3, 0.25)], "trial 3 ended first and is the best");
}
