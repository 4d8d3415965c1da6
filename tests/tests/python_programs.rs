//! Programs in Python by the package that the agent carries, with real processes: interrupted equals uninterrupted, whatever
//! is killed, stopped and cut off; a script that uses wandb runs as it is.

use spotsweep_tests::{Cluster, Outcome, Trainer, chaos::Storm, outcome::json_lines};
use std::{path::PathBuf, process::Command, time::Duration};

/// Each step depends on all before: on a generator, and on moments. A step takes `STEP_MS`, so that disasters find it at work.
const WALK: &str = r#"
import os, random, time
import spotsweep

p = spotsweep.params()
resumed = spotsweep.checkpoint.load()
step, (x, moment, generator) = (resumed.step, resumed.state) if resumed else (0, (1.0, 0.0, random.Random(3).getstate()))
draw = random.Random()
draw.setstate(generator)
while step < 600:
    time.sleep(float(os.environ.get("STEP_MS", 0)) / 1000)
    moment = p.optimizer.momentum * moment + x + draw.gauss(0, 0.1)
    x -= p.learning_rate * moment
    step += 1
    if step % 10 == 0:
        spotsweep.report(step, x=x, loss=x * x)
    stopping = spotsweep.should_stop()
    if stopping or spotsweep.checkpoint.due():
        spotsweep.checkpoint.save((x, moment, draw.getstate()), step)
    if stopping:
        spotsweep.stopped(step)
        break
else:
    spotsweep.checkpoint.save((x, moment, draw.getstate()), step, last=True)
    spotsweep.done(step, loss=x * x)
"#;

/// An MLP with dropout, AdamW and a schedule.
const MLP: &str = r#"
import os, time, torch, spotsweep

torch.set_num_threads(1)
p = spotsweep.params()
torch.manual_seed(1)
data = torch.utils.data.TensorDataset(torch.randn(200, 8), torch.randint(0, 3, (200,)))
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(16, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=p.learning_rate, betas=(p.optimizer.momentum, 0.99))
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
sampler = spotsweep.ExactSampler(data, batch_size=16, seed=1)
loader = torch.utils.data.DataLoader(data, batch_sampler=sampler)
state = spotsweep.ExactState(model=model, optimizer=optimizer, scheduler=scheduler, sampler=sampler)
step = state.load()
for epoch in range(sampler.epoch, 15):
    for x, y in sampler.over(loader):
        time.sleep(float(os.environ.get("STEP_MS", 0)) / 1000)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        spotsweep.report(step, loss=loss)
        stopping = spotsweep.should_stop()
        if stopping or spotsweep.checkpoint.due():
            state.save(step)
        if stopping:
            spotsweep.stopped(step)
            raise SystemExit
state.save(step, last=True)
spotsweep.done(step)
"#;

fn sweep(interpreter: &str, script: &str, compat: &str) -> String {
    format!(
        "
name: python
method: grid
metric: {{name: loss, goal: minimize}}
parameters:
  learning_rate: {{values: [0.01, 0.1]}}
  optimizer: {{parameters: {{momentum: {{values: [0.5, 0.9]}}}}}}
command: [{interpreter}, {script}]
{compat}
checkpoint: {{every_steps: 20, keep_last: 2}}
retry: {{max_failures: 1000, backoff_s: 0.05}}
"
    )
}

/// A script in a folder that lasts as long as the test.
struct Script(tempfile::TempDir);

impl Script {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.py"), text).unwrap();
        Self(folder)
    }

    fn path(&self) -> String {
        self.0.path().join("train.py").to_str().unwrap().to_owned()
    }
}

fn interrupted_equals_uninterrupted(
    interpreter: &str,
    script: &str,
    steps: u64,
    seeds: &[u64],
    storm_s: u64,
) {
    let script = Script::new(script);
    let file = sweep(interpreter, &script.path(), "");
    let expected = Outcome::undisturbed(&file);
    assert_eq!(expected.trials.len(), 4);
    for trial in &expected.trials {
        assert_eq!((trial.state.as_str(), trial.steps), ("completed", steps), "{}", trial.number);
        assert!(!trial.curve.is_empty() && trial.weights_digest.is_string(), "{trial:?}");
    }
    for &seed in seeds {
        let mut cluster = Cluster::start_behind_proxies(2, Trainer::Stub, &[("STEP_MS", "4")]);
        let storm =
            Storm { seed, duration: Duration::from_secs(storm_s), every_ms: 200..1_000, least: (8, 4) };
        let (damage, sweeps) = storm.rage(&mut cluster, &file);
        for sweep in &sweeps {
            let outcome = Outcome::wait(&cluster, sweep);
            assert_eq!(outcome, expected, "seed {seed}, {sweep}, {damage:?}\n{}", cluster.logs());
        }
    }
}

#[test]
fn a_python_sweep_under_kills_of_everything_ends_with_the_same_state_and_curves() {
    interrupted_equals_uninterrupted("python3", WALK, 600, &[1, 2], 12);
}

#[test]
fn a_pytorch_sweep_under_kills_of_everything_ends_with_the_same_weights_and_curves() {
    let named =
        std::env::var_os("SPOTSWEEP_PYTHON_TORCH").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let there = Command::new(&named)
        .args(["-c", "import torch"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        println!(
            "skipped: {} has no torch (SPOTSWEEP_PYTHON_TORCH names a Python that has)",
            named.display()
        );
        return;
    }
    interrupted_equals_uninterrupted(named.to_str().unwrap(), MLP, 195, &[1], 30);
}

#[test]
fn a_script_that_uses_wandb_runs_as_it_is() {
    let script = Script::new(
        r#"
import wandb

run = wandb.init(project="p", config={"learning_rate": 9.0, "epochs": 3})
for epoch in range(wandb.config.epochs):
    wandb.log({"loss": wandb.config.learning_rate / (epoch + 1), "val": {"loss": epoch}})
wandb.summary["best"] = wandb.config.optimizer["momentum"]
"#,
    );
    let cluster = Cluster::start(1, Trainer::Stub, &[]);
    let name = cluster.submit(&sweep("python3", &script.path(), "compat: wandb"));
    let outcome = Outcome::wait(&cluster, &name);
    assert_eq!(outcome.trials.len(), 4, "{}", cluster.logs());
    for trial in &outcome.trials {
        assert_eq!(trial.state, "completed", "{trial:?}\n{}", cluster.logs());
        assert_eq!(trial.curve.len(), 3);
        let number = |value: &serde_json::Value, name: &str| value[name].as_f64().unwrap();
        let rate = number(&trial.params, "learning_rate");
        assert!((number(&trial.metrics, "loss") - rate / 3.0).abs() < 1e-12, "{trial:?}");
        assert_eq!(trial.metrics["best"], trial.params["optimizer.momentum"]);
        assert_eq!(trial.metrics["val.loss"], 2.0);
    }
    assert_eq!(json_lines(&cluster.ask(&["results", &name, "--format", "json"])).len(), 4);
}
