//! How the ranks of one generation exchange what they have added up, so that all end with the same bits.
//!
//! Exact: each rank adds up its largest whole nodes of the tree over the shards ([`super::tree`]) and sends each other
//! rank a piece of these sums; that rank finishes the tree over its piece, and all gather the results. A rank with one
//! node sends and receives what a plain all-reduce does: twice its row, but for the part it keeps. Fast: a plain
//! all-reduce, whose order of additions is the library's, in buckets beside the backward pass.
//!
//! Gloo works on memory of the host: rows on a GPU are copied there and back. NCCL works on the GPU's, and copies what is
//! on the host to it. Which one it is says [`super::backend`].

use super::{
    backend::{self, Backend},
    tree::{Node, Plan},
};
use crate::{
    contribution::{Layout, Row},
    error::TrainError,
};
use spotsweep_proto::gang::{Roster, Shares};
use spotsweep_trainer_shim::{Group, Member, Overlap, Rendezvous, TorchError};
use std::{
    ops::Range,
    time::{Duration, Instant},
};
use tch::{Device, Kind, Tensor};

/// Least numbers in a bucket of a fast exchange: 1 MiB, enough that a message's latency does not count.
const BUCKET_NUMBERS: usize = 256 << 10;

/// The connections and the division of work of one generation.
#[derive(Debug)]
pub struct Exchange {
    /// `None` for a rank that is alone.
    group: Option<Group>,
    backend: Backend,
    rank: u32,
    shares: Shares,
    plan: Plan,
    exact: bool,
    spent: Duration,
}

fn lost(error: TorchError) -> TrainError {
    TrainError::Peer(error.0)
}

impl Exchange {
    /// Of a process that carries all of `shards` shards.
    #[must_use]
    pub fn alone(shards: u32) -> Self {
        Self::over(Shares::even(shards, 1), 0, None, true)
    }

    /// Connects as rank `rank`, which trains on `device`, to the other ranks of `roster`.
    ///
    /// # Errors
    /// [`TrainError::Peer`] if one of them is not there.
    pub fn connect(
        roster: &Roster,
        rank: u32,
        exact: bool,
        device: Device,
        rendezvous: &mut dyn Rendezvous,
    ) -> Result<Self, TrainError> {
        let ranks = roster.shares.ranks();
        let group = if ranks > 1 {
            let timeout = Duration::from_millis(roster.timeout_ms.max(1));
            let member = Member { rank, ranks, address: &roster.address, timeout };
            Some(backend::connect(member, device, rendezvous)?)
        } else {
            None
        };
        Ok(Self::over(roster.shares.clone(), rank, group, exact))
    }

    fn over(shares: Shares, rank: u32, connected: Option<(Group, Backend)>, exact: bool) -> Self {
        let (group, backend) = connected.unzip();
        let backend = backend.unwrap_or(Backend::Gloo { instead: None });
        Self { group, backend, rank, plan: Plan::new(&shares), shares, exact, spent: Duration::ZERO }
    }

    /// Over what ranks exchange; `None` for a rank that is alone.
    #[must_use]
    pub fn backend(&self) -> Option<&Backend> {
        self.group.as_ref().map(|_| &self.backend)
    }

    /// Where tensors lie that are exchanged.
    #[must_use]
    pub fn place(&self) -> Device {
        match self.backend {
            Backend::Gloo { .. } => Device::Cpu,
            Backend::Nccl { gpu } => Device::Cuda(gpu),
        }
    }

    /// How many ranks there are.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.shares.ranks()
    }

    /// This rank.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// The shards of this rank.
    #[must_use]
    pub fn shards(&self) -> Range<u32> {
        self.shares.of(self.rank)
    }

    /// What this rank adds up before it asks others: one row for each.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        self.plan.of_ranks.get(self.rank as usize).map_or(&[], Vec::as_slice)
    }

    /// How long a row must be to hold `len` numbers and to be cut in equal pieces.
    #[must_use]
    pub fn row_len(&self, len: usize) -> usize {
        len.next_multiple_of(self.ranks() as usize)
    }

    /// Time spent in exchanges since it was last taken.
    #[must_use]
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// The same, and counts from here on.
    pub fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    /// Adds up over all ranks `rows`, which hold the sums of [`Exchange::nodes`] and are [`Exchange::row_len`] long. The
    /// sum of all shards is then in the first row; the others are of no use any more.
    ///
    /// # Errors
    /// [`TrainError::Peer`] if another rank is gone; the rows are then of no use, and may still be written to.
    pub fn add_up(&mut self, rows: &[Row]) -> Result<(), TrainError> {
        let (Some(group), Some(first)) = (&self.group, rows.first()) else { return Ok(()) };
        let begun = Instant::now();
        if self.exact && !self.is_pair() {
            self.add_up_exactly(group, rows)?;
        } else {
            // Two numbers have one sum, whoever adds them: of two ranks a plain all-reduce is exact.
            for row in rows.iter().skip(1) {
                first.add(row)?;
            }
            let placed = first.flat.f_to_device(self.place())?;
            group.all_reduce(&placed).and_then(|work| work.wait()).map_err(lost)?;
            back_to(&first.flat, &placed)?;
        }
        self.spent += begun.elapsed();
        Ok(())
    }

    /// Whether rows are added up beside the backward pass.
    #[must_use]
    pub fn overlaps(&self, device: Device) -> bool {
        self.group.is_some() && !self.exact && device == self.place()
    }

    /// Begins to add up `row` over all ranks while the next backward pass adds the gradients of `params` to it.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn overlap(
        &self,
        row: &Row,
        layout: &Layout,
        params: &[Tensor],
    ) -> Result<Option<Overlap>, TrainError> {
        let Some(group) = &self.group else { return Ok(None) };
        Ok(Some(group.overlap(&row.flat, &row.grads, params, &layout.buckets(BUCKET_NUMBERS))?))
    }

    /// Waits until what [`Exchange::overlap`] began is over.
    ///
    /// # Errors
    /// [`TrainError::Peer`] if another rank is gone.
    pub fn wait_for(&mut self, under_way: Option<Overlap>) -> Result<(), TrainError> {
        let begun = Instant::now();
        let outcome = under_way.map_or(Ok(()), Overlap::wait).map_err(lost);
        self.spent += begun.elapsed();
        outcome
    }

    /// Whether there are two ranks with one sum each.
    fn is_pair(&self) -> bool {
        self.plan.of_ranks.len() == 2 && self.plan.of_ranks.iter().all(|nodes| nodes.len() == 1)
    }

    fn add_up_exactly(&self, group: &Group, rows: &[Row]) -> Result<(), TrainError> {
        let (ranks, own) = (i64::from(self.ranks()), rows.len() as i64);
        let Some(first) = rows.first() else { return Ok(()) };
        let piece = first.flat.numel() as i64 / ranks;
        // By rank that gets it, then by node: one row's pieces are so in order already.
        let outgoing = if own == 1 {
            first.flat.f_to_device(self.place())?.f_view([ranks, piece])?
        } else {
            let flats: Vec<_> = rows.iter().map(|row| &row.flat).collect();
            let by_node = Tensor::f_stack(&flats, 0)?.f_view([own, ranks, piece])?;
            let by_rank = by_node.f_transpose(0, 1)?.f_contiguous()?;
            by_rank.f_to_device(self.place())?.f_view([ranks * own, piece])?
        };
        let counts: Vec<i64> = self.plan.of_ranks.iter().map(|nodes| nodes.len() as i64).collect();
        let incoming = Tensor::f_empty([counts.iter().sum(), piece], (Kind::Float, self.place()))?;
        let work = group.all_to_all(&incoming, &counts, &outgoing, &vec![own; ranks as usize]);
        work.and_then(|work| work.wait()).map_err(lost)?;
        let pieces = incoming.f_unbind(0)?;
        for &(into, from) in &self.plan.additions {
            let _ = pieces[into].shallow_clone().f_add_(&pieces[from])?;
        }
        let gathered = if first.flat.device() == self.place() {
            first.flat.shallow_clone()
        } else {
            Tensor::f_empty([ranks * piece], (Kind::Float, self.place()))?
        };
        group.all_gather(&gathered, &pieces[0]).and_then(|work| work.wait()).map_err(lost)?;
        back_to(&first.flat, &gathered)
    }

    /// Fills the zeros of `numbers` with what the ranks have there that know them: every other rank has zero.
    ///
    /// # Errors
    /// [`TrainError::Peer`] if another rank is gone.
    pub fn complete(&mut self, numbers: &mut [f64]) -> Result<(), TrainError> {
        let Some(group) = &self.group else { return Ok(()) };
        let begun = Instant::now();
        let tensor = Tensor::f_from_slice(numbers)?.f_to_device(self.place())?;
        group.all_reduce(&tensor).and_then(|work| work.wait()).map_err(lost)?;
        tensor.f_to_device(Device::Cpu)?.f_copy_data(numbers, numbers.len())?;
        self.spent += begun.elapsed();
        Ok(())
    }

    /// The numbers of every rank, in order; all have the same count.
    ///
    /// # Errors
    /// [`TrainError::Peer`] if another rank is gone.
    pub fn gather(&self, own: &[i64]) -> Result<Vec<Vec<i64>>, TrainError> {
        let Some(group) = &self.group else { return Ok(vec![own.to_vec()]) };
        let input = Tensor::f_from_slice(own)?.f_to_device(self.place())?;
        let all = Tensor::f_empty([i64::from(self.ranks()) * own.len() as i64], (Kind::Int64, self.place()))?;
        group.all_gather(&all, &input).and_then(|work| work.wait()).map_err(lost)?;
        let all: Vec<i64> = Vec::try_from(all.f_to_device(Device::Cpu)?)?;
        Ok(all.chunks(own.len().max(1)).map(<[i64]>::to_vec).collect())
    }

    /// Overwrites `tensor`, which is contiguous, with that of rank `source`. One that is not at [`Exchange::place`] is
    /// copied there and back.
    ///
    /// # Errors
    /// [`TrainError::Peer`] if another rank is gone.
    pub fn broadcast(&self, tensor: &Tensor, source: u32) -> Result<(), TrainError> {
        let Some(group) = &self.group else { return Ok(()) };
        let placed = tensor.f_to_device(self.place())?;
        group.broadcast(&placed, source).and_then(|work| work.wait()).map_err(lost)?;
        if source == self.rank { Ok(()) } else { back_to(tensor, &placed) }
    }
}

/// Copies `placed` to `tensor`, unless it is the same memory.
fn back_to(tensor: &Tensor, placed: &Tensor) -> Result<(), TrainError> {
    if tensor.device() != placed.device() {
        tensor.shallow_clone().f_copy_(placed)?;
    }
    Ok(())
}
