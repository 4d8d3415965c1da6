//! How long an agent waits for a lease: from its word that it takes one to the lease's arrival.
//!
//! 200 streams ask every 100 ms each (2,000 leases a second), so that what is measured is the coordinator and
//! not the queue that any closed loop builds up in front of it.

use crate::{
    Scale,
    figures::{Figures, Target},
    service::Service,
};
use anyhow::Context as _;
use spotsweep_wire::{
    WORKER_PROTOCOL,
    v1::{self, from_worker, report, to_worker, worker_client::WorkerClient},
};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Streams.
const AGENTS: u32 = 200;
/// Between two leases of one stream.
const PAUSE: Duration = Duration::from_millis(100);

/// Median and 99th percentile.
pub(crate) async fn lease_hand_out(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let mut service = Service::start().await?;
    let each = scale.of(50);
    let url = service.url();
    let askers = (0..AGENTS).map(|index| tokio::spawn(ask(url.clone(), index, each)));
    let askers: Vec<_> = askers.collect();
    service.sweep_of_nothing(AGENTS * each).await?;
    let mut waits = Vec::new();
    for asker in askers {
        waits.extend(asker.await??);
    }
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    figures.add("lease hand-out, 200 agents, median", at(0.5), "ms", None);
    figures.add("lease hand-out, 200 agents, 99th percentile", at(0.99), "ms", Some(Target::AtMost(10.0)));
    Ok(())
}

/// One agent by hand: takes `leases` leases, one at a time, and finishes each at once.
async fn ask(url: String, index: u32, leases: u32) -> anyhow::Result<Vec<Duration>> {
    let (say, said) = mpsc::channel(16);
    let message = |message| v1::FromWorker { message: Some(message) };
    let hello = v1::Hello {
        protocol: WORKER_PROTOCOL,
        name: format!("asker-{index}"),
        incarnation: u128::from(index + 1).to_be_bytes().to_vec().into(),
        devices: vec![v1::Device {
            name: "cpu".to_owned(),
            kind: v1::DeviceKind::Cpu.into(),
            model: String::new(),
            memory_bytes: 0,
        }],
        machine: None,
        held: Vec::new(),
        connection: 0,
        programs_only: false,
        catalogue: Default::default(),
    };
    say.send(message(from_worker::Message::Hello(hello))).await?;
    let mut client = WorkerClient::connect(url).await?;
    let mut heard = client.attach(ReceiverStream::new(said)).await?.into_inner();
    let mut waits = Vec::new();
    let mut seq = 1;
    // Spread over the interval, as agents would be.
    tokio::time::sleep(PAUSE * index / AGENTS).await;
    while waits.len() < leases as usize {
        let start = Instant::now();
        say.send(message(from_worker::Message::Ready(v1::Ready { device: 0, credits: 1 }))).await?;
        let grant = loop {
            let heard = heard.message().await?.context("the coordinator ended the stream")?;
            if let Some(to_worker::Message::Granted(batch)) = heard.message {
                break batch.grants.into_iter().next().context("an empty batch of grants")?;
            }
        };
        // The first wait includes the one for the sweep.
        if seq > 1 {
            waits.push(start.elapsed());
        } else {
            waits.push(Duration::ZERO);
        }
        let finished = v1::Finished { step: 1, ..v1::Finished::default() };
        let report = v1::Report {
            trial: grant.trial,
            epoch: grant.epoch,
            body: Some(report::Body::Finished(finished)),
        };
        let batch = v1::ReportBatch { first_seq: seq, metric_names: Vec::new(), reports: vec![report] };
        seq += 1;
        say.send(message(from_worker::Message::Reports(batch))).await?;
        tokio::time::sleep(PAUSE.saturating_sub(start.elapsed())).await;
    }
    waits.remove(0);
    Ok(waits)
}
