//! One step of training and one evaluation, over the shards that this process carries and, through the exchange, over
//! those of its peers.
//!
//! A step that cannot be finished leaves nothing behind: what shards contribute lies in rows of its own until the
//! exchange is over, and rows that a broken exchange may still write to are dropped.

use super::{Session, metrics::Part};
use crate::{
    contribution::{Layout, Row},
    error::TrainError,
    evaluate::{Which, evaluate},
    gang::tree::Node,
    meter::Tally,
    network::Batch,
    seed::{Purpose, seed_torch},
};
use tch::Tensor;

/// Rows of contributions, kept from step to step.
pub(super) struct Rows {
    layout: Layout,
    /// Those of this rank's nodes.
    of_nodes: Vec<Row>,
    /// For the right halves of nodes.
    spare: Vec<Row>,
}

impl Rows {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, of_nodes: Vec::new(), spare: Vec::new() }
    }

    /// Drops all rows: their length or number may change, or somebody else may still write to them.
    pub(super) fn forget(&mut self) {
        self.of_nodes.clear();
        self.spare.clear();
    }
}

impl Session<'_> {
    pub(super) fn one_step(&mut self) -> Result<(), TrainError> {
        if self.shards.len() > 1 {
            return self.sharded_step();
        }
        let Some(shard) = self.shards.first_mut() else { return Ok(()) };
        let places = shard.order.batch(self.step)?;
        let (images, labels) = self.data.batch(&self.data.shard(0)?.train, &places);
        let outcome = self.network.train(&images, &labels, self.step, self.schedule.rate(self.step))?;
        self.finished(labels.numel() as u64);
        self.agreed = self.gang.as_ref().is_some_and(|gang| gang.is_agreed(&[gang.news()]));
        self.meter.push(self.step, &outcome.loss, &outcome.scores, &labels, self.network.model.as_ref())
    }

    fn finished(&mut self, samples: u64) {
        self.step += 1;
        self.progress.finished_steps.set(self.step);
        self.clock.samples += samples;
    }

    fn sharded_step(&mut self) -> Result<(), TrainError> {
        let (step, overlaps) = (self.step, self.exchange.overlaps(self.device));
        let nodes = self.exchange.nodes().to_vec();
        let mut rows = std::mem::take(&mut self.rows.of_nodes);
        let len = self.exchange.row_len(self.rows.layout.numbers());
        while rows.len() < nodes.len() {
            rows.push(self.rows.layout.row(len)?);
        }
        let Some(sum) = rows.first() else { return Ok(()) };
        let before = self.network.statistics()?;
        let added_up = if overlaps {
            self.add_up_beside(sum, &before)
        } else {
            self.add_up_nodes(&nodes, &rows, &before)
        };
        self.network.set_statistics(&before)?;
        added_up?;

        // From here on the step is finished, here and sooner or later with every peer that lives.
        let _no_grad = tch::no_grad_guard();
        let tail = self.rows.layout.read_tail(sum)?;
        let samples = self.shards.iter().map(|shard| shard.order.count(step)).sum();
        self.meter.push_shards(step + 1, &tail.losses, tail.correct, samples)?;
        self.network.apply(sum, samples, self.schedule.rate(step))?;
        self.finished(samples);
        self.agreed = self.gang.as_ref().is_some_and(|gang| gang.is_agreed(&tail.news));
        self.rows.of_nodes = rows;
        Ok(())
    }

    /// Adds up this rank's nodes, and then over all ranks into the first row.
    fn add_up_nodes(&mut self, nodes: &[Node], rows: &[Row], before: &[Tensor]) -> Result<(), TrainError> {
        for (node, row) in nodes.iter().zip(rows) {
            self.add_up(*node, row, before)?;
        }
        let _no_grad = tch::no_grad_guard();
        if let Some(first) = rows.first() {
            self.tell_news(first)?;
        }
        self.exchange.add_up(rows)
    }

    /// Adds up this rank's shards into `sum`, in their order, and over all ranks while the last one is still computed.
    fn add_up_beside(&mut self, sum: &Row, before: &[Tensor]) -> Result<(), TrainError> {
        tch::no_grad(|| sum.clear())?;
        let own = self.exchange.shards();
        let has_samples =
            |shard: &u32| self.shards.get(*shard as usize).is_some_and(|own| own.order.count(self.step) > 0);
        let mut shards: Vec<u32> = own.filter(has_samples).collect();
        let last = shards.pop();
        for shard in shards {
            let other = self.spare(sum)?;
            self.contribute(shard, &other, before)?;
            tch::no_grad(|| sum.add(&other))?;
            self.rows.spare.push(other);
        }
        tch::no_grad(|| self.tell_news(sum))?;
        let Some((shard, own)) = last.and_then(|shard| Some((shard, self.shards.get_mut(shard as usize)?)))
        else {
            return self.network.contribute_last(None, self.step, &self.rows.layout, sum, &mut self.exchange);
        };
        let places = own.order.batch(self.step)?;
        let (images, labels) = self.data.batch(&self.data.shard(shard)?.train, &places);
        self.network.set_statistics(before)?;
        let batch = Batch { shard, origin: own.origin, images: &images, labels: &labels };
        self.network.contribute_last(Some(&batch), self.step, &self.rows.layout, sum, &mut self.exchange)
    }

    fn tell_news(&self, row: &Row) -> Result<(), TrainError> {
        let news = self.gang.as_ref().map_or(0.0, |gang| gang.news());
        self.rows.layout.tell_news(row, self.exchange.rank(), news)
    }

    /// A row that is as long as `row`, with anything in it.
    fn spare(&mut self, row: &Row) -> Result<Row, TrainError> {
        match self.rows.spare.pop() {
            Some(spare) => Ok(spare),
            None => self.rows.layout.row(row.flat.numel()),
        }
    }

    /// Puts the sum of what the shards of `node` contribute into `row`. Each begins from the running statistics of
    /// `before`.
    fn add_up(&mut self, node: Node, row: &Row, before: &[Tensor]) -> Result<(), TrainError> {
        let Some((left, right)) = node.halves() else { return self.contribute(node.start, row, before) };
        self.add_up(left, row, before)?;
        let other = self.spare(row)?;
        self.add_up(right, &other, before)?;
        tch::no_grad(|| row.add(&other))?;
        self.rows.spare.push(other);
        Ok(())
    }

    fn contribute(&mut self, shard: u32, row: &Row, before: &[Tensor]) -> Result<(), TrainError> {
        let Some(own) = self.shards.get_mut(shard as usize) else { return Ok(()) };
        if own.order.count(self.step) == 0 {
            return row.clear();
        }
        let places = own.order.batch(self.step)?;
        let (images, labels) = self.data.batch(&self.data.shard(shard)?.train, &places);
        self.network.set_statistics(before)?;
        let batch = Batch { shard, origin: own.origin, images: &images, labels: &labels };
        self.network.contribute(&batch, self.step, &self.rows.layout, row)
    }

    /// Evaluates the held-out samples or the test set: each rank its shards, put together in the order of shards.
    pub(super) fn evaluate(&mut self, part: Part) -> Result<Tally, TrainError> {
        let (shards, own) = (self.shards.len(), self.exchange.shards());
        // Sums of losses, then samples classified rightly, by shard.
        let mut numbers = vec![0.0; 2 * shards];
        let mut total = 0;
        for (index, shard) in self.shards.iter().enumerate() {
            let which = match part {
                Part::Train | Part::Validation => shard.validation(),
                Part::Test => Some(shard.test()),
            };
            let Some(which) = which else { continue };
            total += match which {
                Which::At(places) => places.numel() as u64,
                Which::From { count, .. } => count.unsigned_abs(),
            };
            if own.contains(&(index as u32)) {
                if self.network.model.draws() {
                    seed_torch(shard.origin, Purpose::Evaluation, self.step);
                }
                let held = self.data.shard(index as u32)?;
                let samples = match part {
                    Part::Train | Part::Validation => &held.train,
                    Part::Test => &held.test,
                };
                let tally = evaluate(self.network.model.as_ref(), &self.data, samples, which, self.device)?;
                numbers[index] = tally.loss_sum;
                numbers[shards + index] = tally.correct as f64;
            }
        }
        self.exchange.complete(&mut numbers)?;
        let (losses, correct) = numbers.split_at(shards);
        Ok(Tally {
            loss_sum: losses.iter().sum(),
            correct: correct.iter().sum::<f64>() as u64,
            samples: total,
        })
    }
}
