//! Programs as trainers: how many trivial ones a second, and what comes between a lease and a program's first line; each
//! beside a plain loop that starts the same programs.

use crate::{
    Scale,
    figures::{Figures, Target, median},
};
use spotsweep_proto::program::ProgramSection;
use spotsweep_tests::{Cluster, Trainer, binaries, fake_coordinator::FakeCoordinator, outcome::ended, wait};
use spotsweep_wire::v1::{self, report::Body, to_worker::Message};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Agents, and threads of the plain loop: one for each core of the machine that the target is meant for.
const AT_ONCE: usize = 2;

/// Trivial programs a second.
pub(crate) fn rate(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let trials = scale.of(1000);
    let cluster = Cluster::start(AT_ONCE, Trainer::Program("none".into()), &[]);
    let sweep = |trials: u32| {
        format!(
            "name: trivial\nmethod: grid\ncommand: [\"true\"]\nparameters:\n  x: {{values: {:?}}}\n",
            (0..trials).collect::<Vec<_>>()
        )
    };
    // The first sweep warms caches, and the agents' idea of how short a trial is.
    let warm = cluster.submit(&sweep(100));
    wait::until("the first sweep ends", || ended(&cluster, &warm).then_some(()));
    let since = Instant::now();
    let name = cluster.submit(&sweep(trials));
    wait::until("the sweep ends", || ended(&cluster, &name).then_some(()));
    let seconds = since.elapsed().as_secs_f64();
    figures.add(
        format!("programs/s, {AT_ONCE} agents, {trials} × true"),
        f64::from(trials) / seconds,
        "/s",
        Some(Target::AtLeast(500.0)),
    );
    let since = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                for _ in 0..trials as usize / AT_ONCE {
                    // What is measured is the start; `true` does not fail.
                    let _status = Command::new("true").stdin(Stdio::null()).status();
                }
            });
        }
    });
    let plain = f64::from(trials) / since.elapsed().as_secs_f64();
    figures.add(format!("programs/s, plain loop in {AT_ONCE} threads"), plain, "/s", None);
    Ok(())
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn written(path: &Path) -> Option<u128> {
    let text = std::fs::read_to_string(path).ok()?;
    text.ends_with('\n').then(|| text.trim().parse().ok()).flatten()
}

/// From the grant of a lease to the first thing that the program does.
pub(crate) async fn overhead(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let rounds = scale.of(100);
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("objects"))?;
    let mut coordinator = FakeCoordinator::start().await;
    let mut agent = Command::new(binaries::worker())
        .args(["--coordinator", &coordinator.url(), "--device", "cpu", "--trainer", "none", "--dir"])
        .arg(folder.path().join("scratch"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut conversation = coordinator.accept().await;
    conversation.hello().await;
    conversation.welcome(0, Vec::new(), &format!("file://{}", folder.path().join("objects").display())).await;
    let first = folder.path().join("first");
    let script = format!("date +%s%N > {}", first.display());
    let section = ProgramSection::of_command(vec!["sh".to_owned(), "-c".to_owned(), script.clone()]);
    let checkpoint = serde_json::json!({"every": {"seconds": 60.0}, "keep_last": 1});
    let info = v1::SweepInfo {
        sweep: 0,
        name: "first".to_owned(),
        train_json: "{}".to_owned(),
        checkpoint_json: checkpoint.to_string(),
        program_json: serde_json::to_string(&section)?,
        metric: String::new(),
    };
    conversation.say(Message::Sweep(info)).await;
    let (mut leased, mut plain) = (Vec::new(), Vec::new());
    for number in 0..rounds {
        let since = now_ns();
        conversation.grant(number..number + 1, &serde_json::json!({})).await;
        let end = |body: &Body| matches!(body, Body::Finished(_) | Body::Failed(_));
        conversation.until(end).await;
        let at = written(&first).ok_or_else(|| anyhow::anyhow!("the program did not run"))?;
        leased.push((at - since) as f64 / 1e6);
        let since = now_ns();
        Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).status()?;
        let at = written(&first).ok_or_else(|| anyhow::anyhow!("the program did not run"))?;
        plain.push((at - since) as f64 / 1e6);
    }
    agent.kill()?;
    agent.wait()?;
    let (leased, plain) = (median(leased), median(plain));
    figures.add("lease to a program's first line, median", leased, "ms", None);
    figures.add("plain start to the same line, median", plain, "ms", None);
    figures.add("lease to first line beyond the start", leased - plain, "ms", Some(Target::AtMost(50.0)));
    Ok(())
}
