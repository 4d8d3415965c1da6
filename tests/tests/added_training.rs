//! Data that a user has added trains to the same bits as the same data that Spotsweep knows.

use spotsweep_tests::{Cluster, Outcome, Trainer, binaries};

fn sweep(data: &str) -> String {
    format!(
        "
name: {data}
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  model: {{values: [logistic, softmax, cnn]}}
  batch_size: {{value: 32}}
train: {{data: {data}, steps: 12, seed: 3}}
"
    )
}

#[test]
fn fashion_mnist_that_was_added_trains_to_the_same_bits_as_the_known_one() {
    let cluster = Cluster::start(1, Trainer::Program(binaries::libtorch_trainer()), &[]);
    let folder = cluster.ask(&["data", "path", "fashion-mnist"]);
    cluster.ask(&["data", "add", "clothes", folder.trim()]);
    let known = Outcome::wait(&cluster, &cluster.submit(&sweep("fashion-mnist")));
    let added = Outcome::wait(&cluster, &cluster.submit(&sweep("clothes")));
    assert!(known.trials.iter().all(|trial| trial.weights_digest.is_string()), "{}", cluster.logs());
    assert_eq!(added, known, "{}", cluster.logs());
}

#[test]
fn a_table_trains_and_is_learnt() {
    let cluster = Cluster::start(1, Trainer::Program(binaries::libtorch_trainer()), &[]);
    // Two classes a line apart, in columns of very different sizes, sorted by class.
    let row = |i: u32| {
        let class = i / 300;
        let (a, b) = ((i * 7919 % 1000) as f64, (i * 104_729 % 997) as f64 / 997.0 + f64::from(class) * 2.0);
        format!("{},{b},{}\n", a * 1e6, ["no", "yes"][class as usize])
    };
    let table: String = (0..600).map(row).collect();
    let path = cluster.path("table.csv");
    std::fs::write(&path, format!("large,small,label\n{table}")).expect("a temporary folder");
    cluster.ask(&["data", "add", "table", path.to_str().expect("UTF-8")]);
    let sweep = "
name: table
method: grid
parameters: {model: {value: softmax}, batch_size: {value: 16}, learning_rate: {value: 0.1}}
train: {data: table, epochs: 5, seed: 3}
";
    let outcome = Outcome::wait(&cluster, &cluster.submit(sweep));
    let accuracy = outcome.trials[0].metrics["test_accuracy"].as_f64();
    assert!(accuracy.is_some_and(|accuracy| accuracy > 0.97), "{accuracy:?}\n{}", cluster.logs());
}
