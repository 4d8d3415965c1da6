//! The task that follows a source, with a source that does what the test says.

use super::*;
use spotsweep_proto::notice::{NoticeKind, NoticeSource};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

struct Scripted {
    looks: Arc<Mutex<Vec<Result<Look, SourceError>>>>,
    settled: Arc<AtomicU32>,
}

impl Source for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn pause(&self) -> Duration {
        Duration::ZERO
    }

    fn look(&mut self) -> BoxFuture<'_, Result<Look, SourceError>> {
        let next = self.looks.lock().unwrap().pop();
        match next {
            Some(look) => Box::pin(std::future::ready(look)),
            None => Box::pin(std::future::pending()),
        }
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), SourceError>> {
        self.settled.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(())))
    }
}

fn notice(kind: NoticeKind) -> Notice {
    Notice::new(NoticeSource::Aws, kind, None)
}

fn seen(kind: NoticeKind) -> Result<Look, SourceError> {
    Ok(Look::Notice(notice(kind)))
}

#[tokio::test]
async fn each_notice_is_told_once_and_a_failing_source_is_looked_at_again() {
    let mut looks = vec![
        Ok(Look::Quiet),
        Err(SourceError::Nonsense("x".to_owned())),
        seen(NoticeKind::Rebalance),
        seen(NoticeKind::Rebalance),
        seen(NoticeKind::Terminate),
        seen(NoticeKind::Terminate),
    ];
    looks.reverse();
    let settled = Arc::new(AtomicU32::new(0));
    let source = Scripted { looks: Arc::new(Mutex::new(looks)), settled: settled.clone() };
    let (sender, mut told) = mpsc::channel(WAITING);
    let (left, leaving) = watch::channel(false);
    let task = tokio::spawn(follow(Box::new(source), sender, leaving));
    assert_eq!(told.recv().await, Some(notice(NoticeKind::Rebalance)));
    assert_eq!(told.recv().await, Some(notice(NoticeKind::Terminate)));
    assert_eq!(settled.load(Ordering::Relaxed), 0);
    left.send(true).unwrap();
    task.await.unwrap();
    assert_eq!(settled.load(Ordering::Relaxed), 1, "told that all is handed over");
    assert_eq!(told.recv().await, None);
}

#[tokio::test]
async fn a_source_without_notices_ends_its_task() {
    let looks = Arc::new(Mutex::new(vec![Ok(Look::Never("for a reason"))]));
    let source = Scripted { looks, settled: Arc::default() };
    let (sender, mut told) = mpsc::channel(WAITING);
    let (_left, leaving) = watch::channel(false);
    follow(Box::new(source), sender, leaving).await;
    assert_eq!(told.recv().await, None);
}

#[tokio::test]
async fn off_listens_to_nobody_and_slurm_wants_a_job() {
    let mut settings = NoticeSettings { choice: NoticeChoice::Off, file: None, listen: None };
    assert!(sources(&settings).unwrap().is_empty());
    settings.choice = NoticeChoice::Slurm;
    let error = sources(&settings).err().unwrap().to_string();
    assert!(error.contains("SLURM_JOB_ID is not set"), "{error}");
    settings = NoticeSettings { choice: NoticeChoice::Gce, file: Some("/x".into()), listen: None };
    let names: Vec<&str> = sources(&settings).unwrap().iter().map(|source| source.name()).collect();
    assert_eq!(names, ["gce", "file"]);
}
