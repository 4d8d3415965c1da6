//! The rendezvous of gangs over the wire: nobody comes in uninvited.

use crate::{
    agent::{Agent, hello},
    bystander::Bystander,
    place::Place,
};
use spotsweep_proto::gang::STORE_VALUE_BYTES;
use spotsweep_wire::v1::{self, from_worker, to_worker};

fn question(id: u64, set: Option<Vec<u8>>) -> from_worker::Message {
    let trial = Some(v1::TrialKey { sweep: 0, number: 0 });
    let set = set.map(Into::into);
    from_worker::Message::Store(v1::StoreQuery {
        trial,
        epoch: 1,
        generation: 1,
        id,
        key: "k".to_owned(),
        set,
    })
}

/// The next answer of a store, whatever else comes.
async fn answer(agent: &mut Agent) -> v1::StoreAnswer {
    loop {
        let message = agent.next().await.expect("the stream goes on");
        if let to_worker::Message::Store(answer) = message {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_a_rank_learns_nothing_and_sets_nothing() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut foreign, _) = Agent::connect(&place.url, hello("foreign", 0xf0)).await;
    for (id, set) in [(3, None), (4, Some(vec![1])), (5, None)] {
        foreign.tell(question(id, set)).await;
        let answer = answer(&mut foreign).await;
        assert_eq!((answer.id, answer.epoch, answer.value), (id, 1, None));
    }
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_beyond_the_limit_ends_the_connection_and_no_other() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut greedy, _) = Agent::connect(&place.url, hello("greedy", 0xf1)).await;
    greedy.tell(question(1, Some(vec![0; STORE_VALUE_BYTES + 1]))).await;
    let status = loop {
        match greedy.hear.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is told why"),
            Err(status) => break status,
        }
    };
    assert!(status.message().contains("65537 bytes in a value"), "{status:?}");
    bystander.goes_on(&place).await;
}
