//! A well-behaved client and agent beside whatever a test does wrong: they must not notice.

use crate::{
    agent::{Agent, hello, whole_trial},
    place::{Place, nothing, results, submission},
};
use spotsweep_wire::v1::{self, report::Body};

/// One trial of its sweep is done and another at work.
pub(crate) struct Bystander {
    agent: Agent,
    open: v1::Grant,
    done: v1::Trial,
}

impl Bystander {
    /// Submits the sweep `calm`, finishes one of its two trials and begins the other.
    pub(crate) async fn at_work(place: &Place) -> Self {
        let mut client = place.client().await;
        client.submit(submission(&nothing("calm", 2), 0xca11)).await.unwrap();
        let (mut agent, _) = Agent::connect(&place.url, hello("calm", 0xca11)).await;
        agent.ready(2).await;
        let (mut grants, mut sweeps) = (Vec::new(), Vec::new());
        while grants.len() < 2 {
            grants.extend(agent.grants(&mut sweeps).await);
        }
        let open = grants.pop().unwrap();
        agent.report(&grants[0], &["val_loss"], whole_trial(1.0)).await;
        agent.report(&open, &["val_loss"], whole_trial(2.0).drain(..2).collect()).await;
        agent.acknowledged().await;
        let number = grants[0].trial.unwrap().number as usize;
        let done = results(&mut client, "calm").await.remove(number);
        assert_eq!(done.state, "completed");
        Self { agent, open, done }
    }

    /// Finishes what it has begun, and a sweep that is submitted only now: everybody is served as ever, and no result
    /// is lost, altered or counted twice.
    pub(crate) async fn goes_on(mut self, place: &Place) {
        let rest: Vec<Body> = whole_trial(2.0).drain(2..).collect();
        self.agent.report(&self.open, &["val_loss"], rest).await;
        self.agent.acknowledged().await;
        let mut client = place.client().await;
        let rows = results(&mut client, "calm").await;
        assert_eq!(rows.len(), 2);
        for row in rows {
            assert_eq!((row.state.as_str(), row.attempts, row.steps), ("completed", 1, 2), "{}", row.trial);
            assert!(row.number != self.done.number || row == self.done, "{row:?}");
        }
        let name = format!("calm/{}", self.open.trial.unwrap().number);
        let mut pages =
            client.metrics(v1::MetricsRequest { trial: name, first_step: 0 }).await.unwrap().into_inner();
        let points = pages.message().await.unwrap().unwrap().points;
        assert_eq!(points.iter().map(|point| point.step).collect::<Vec<_>>(), [1, 2], "each point once");

        client.submit(submission(&nothing("later", 1), 0x1a7e)).await.unwrap();
        self.agent.ready(1).await;
        let grants = self.agent.grants(&mut Vec::new()).await;
        self.agent.report(&grants[0], &["val_loss"], whole_trial(3.0)).await;
        self.agent.acknowledged().await;
        let later = results(&mut client, "later").await;
        assert_eq!((later.len(), later[0].state.as_str()), (1, "completed"));
    }
}
