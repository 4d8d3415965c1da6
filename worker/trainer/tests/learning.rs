//! That models learn: the loss falls, and the made-up data set is told apart far better than by chance.

mod common;

use common::{curve, finish, job, run};
use serde_json::json;

#[test]
fn every_model_learns() {
    let cnn = |precision: &str| {
        json!({"model": "cnn", "channels": [8, 16], "dense": 32, "optimizer": "adam", "learning_rate": 0.003,
               "precision": precision})
    };
    for (recipe, steps, least) in [
        (json!({"model": "logistic", "learning_rate": 0.02}), 200, 0.93),
        (json!({"model": "softmax", "learning_rate": 0.02}), 200, 0.8),
        (json!({"model": "mlp", "hidden": [64], "activation": "gelu"}), 200, 0.8),
        (json!({"model": "mlp", "hidden": [64], "activation": "sigmoid", "optimizer": "adam"}), 200, 0.8),
        (json!({"model": "fixed_cnn", "hidden": [32], "optimizer": "adam"}), 100, 0.8),
        (cnn("f32"), 150, 0.7),
        (cnn("bf16"), 150, 0.7),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let lines = run(&job(&recipe, steps, folder.path()), []);
        let curve = curve(&lines);
        let loss = |i: usize| curve[i].1["train_loss"].as_f64().unwrap();
        assert!(loss(curve.len() - 1) < 0.5 * loss(0), "{recipe}: {} to {}", loss(0), loss(curve.len() - 1));
        let accuracy = finish(&lines).metrics["test_accuracy"].as_f64().unwrap();
        assert!(accuracy > least, "{recipe}: {accuracy}");
    }
}
