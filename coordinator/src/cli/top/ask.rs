//! Asks the coordinator what is wanted, again and again, and tells what it says; goes on asking when it is away.
//!
//! Owns the questions. Must not know what is shown.

use super::model::{Happened, News, Shown, Wanted};
use crate::{
    cli::{
        client::ReadArgs,
        plot::{self, Curve},
        source::{Change, Source},
        text,
    },
    driver::machine_time_us,
    error::{Code, Problem},
};
use spotsweep_proto::last_lines::on_one_line;
use spotsweep_wire::v1::{WatchResponse, watch_response::What};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// Between two rounds of questions.
const EVERY: Duration = Duration::from_millis(500);
/// Longest a round may take before the coordinator counts as away.
const ROUND: Duration = Duration::from_secs(10);
/// Points of a curve that are kept; of more, every second one goes.
const POINTS: usize = 20_000;

/// Orders and questions that wait to be sent.
pub(super) const QUEUE: usize = 64;

/// Who asks.
pub(super) struct Asker {
    pub(super) source: Source,
    /// How the coordinator is found again.
    pub(super) read: ReadArgs,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) orders: mpsc::Receiver<(Change, String)>,
    pub(super) news: mpsc::Sender<News>,
    pub(super) curve: Followed,
}

/// The trial whose curves are followed.
#[derive(Debug, Default)]
pub(super) struct Followed {
    trial: String,
    next_step: u64,
    curves: Vec<Curve>,
}

impl Asker {
    /// Asks until nobody listens.
    pub(super) async fn run(mut self) {
        while !self.news.is_closed() {
            let round = match timeout(ROUND, self.round()).await {
                Ok(round) => round,
                Err(_) => Err(Problem::new(Code::Unreachable, "it does not answer")),
            };
            if let Err(problem) = round {
                self.tell(News::Away { why: problem.message }).await;
                if let Ok(Ok((source, _))) = timeout(ROUND, self.read.find(None)).await {
                    self.source = source;
                }
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                Some((change, target)) = self.orders.recv() => self.order(change, &target).await,
                () = tokio::time::sleep(EVERY) => {}
                () = self.news.closed() => return,
            }
        }
    }

    async fn tell(&self, news: News) {
        // Whether anybody listens is seen at the next turn.
        let _gone = self.news.send(news).await;
    }

    async fn order(&mut self, change: Change, target: &str) {
        let word = match change {
            Change::Pause => "paused",
            Change::Resume => "resumed",
            Change::Cancel => "cancelled",
        };
        let news = match timeout(ROUND, self.source.change(change, target)).await {
            Ok(Ok(0)) => News::Done(format!("{target} is {word} already")),
            Ok(Ok(trials)) => {
                News::Done(format!("{target} is {word}: {} changed", text::count(trials, "trial")))
            }
            Ok(Err(problem)) => News::Refused(problem.message),
            Err(_) => News::Refused(format!("no answer: whether {target} is {word} is not known yet")),
        };
        self.tell(news).await;
    }

    /// One round of questions. An error means that the coordinator is away.
    async fn round(&mut self) -> Result<(), Problem> {
        let wanted = self.wanted.borrow_and_update().clone();
        let sweeps = self.source.sweeps().await?;
        self.tell(News::Sweeps(sweeps)).await;
        if let Some(asked) = wanted.trials {
            match self.source.trials(asked.clone()).await {
                Ok(page) => self.tell(News::Trials { asked, page }).await,
                Err(problem) => self.refused(problem).await?,
            }
        }
        if let Some(trial) = wanted.trial {
            match self.trial(&trial).await {
                Ok(shown) => self.tell(News::Trial(Box::new(shown))).await,
                Err(problem) => self.refused(problem).await?,
            }
        }
        let workers = self.source.workers().await?;
        self.tell(News::Workers(workers)).await;
        Ok(())
    }

    /// What the coordinator refuses is told; that it is away is an error.
    async fn refused(&self, problem: Problem) -> Result<(), Problem> {
        match problem.code {
            Code::Unreachable | Code::ShuttingDown | Code::StorageStalled | Code::Internal => Err(problem),
            _ => {
                self.tell(News::Refused(problem.message)).await;
                Ok(())
            }
        }
    }

    async fn trial(&mut self, trial: &str) -> Result<Shown, Problem> {
        let missing = || Problem::new(Code::NoSuchTrial, format!("there is no trial {trial}"));
        let row = self.source.show(trial).await?.trial.ok_or_else(missing)?;
        let why = self.source.explain(trial).await?;
        if self.curve.trial != trial {
            self.curve = Followed { trial: trial.to_owned(), ..Followed::default() };
        }
        let mut pages = self.source.metric_pages(trial, self.curve.next_step).await?;
        while let Some(page) = pages.message().await? {
            for point in &page.points {
                plot::extend(&mut self.curve.curves, point);
                self.curve.next_step = point.step + 1;
            }
            for curve in self.curve.curves.iter_mut().filter(|curve| curve.points.len() > POINTS) {
                let mut keep = false;
                curve.points.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
        }
        Ok(Shown { trial: row, why, curves: self.curve.curves.clone() })
    }
}

/// Tells what happens in all sweeps until nobody listens.
pub(super) async fn events(mut source: Source, read: ReadArgs, news: mpsc::Sender<News>) {
    while !news.is_closed() {
        if let Ok(mut stream) = source.watch("").await {
            while let Ok(Some(event)) = stream.message().await {
                if let Some(happened) = happened(event)
                    && news.send(News::Happened(happened)).await.is_err()
                {
                    return;
                }
            }
        }
        tokio::time::sleep(EVERY).await;
        if let Ok((found, _)) = read.find(None).await {
            source = found;
        }
    }
}

/// An event that is worth a line.
fn happened(event: WatchResponse) -> Option<Happened> {
    match event.what? {
        What::Sweep(_) | What::Point(_) => None,
        What::Notice(notice) => {
            Some(Happened { at_us: notice.at_us, about: notice.trial, text: notice.text })
        }
        What::Trial(one) => {
            let why = if one.failure.is_empty() {
                String::new()
            } else {
                format!(": {}", on_one_line(&one.failure))
            };
            let place = if one.worker.is_empty() { String::new() } else { format!(" on {}", one.worker) };
            let text = format!("{} at step {}{place}{why}", one.state, one.steps);
            Some(Happened { at_us: machine_time_us(), about: one.trial, text })
        }
    }
}
