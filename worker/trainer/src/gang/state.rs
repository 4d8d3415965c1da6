//! A trial's whole state on its way from one rank to the others: what a checkpoint holds, without a file.

use super::exchange::Exchange;
use crate::{checkpoint::Meta, error::TrainError, network::Network};
use tch::{Device, Kind, Tensor};

/// Largest [`Meta`] that is taken from a peer, in bytes of its JSON.
const META_BYTES: i64 = 1 << 20;

/// Gives every rank the state of rank `source`, which says `meta` with it; the others say `None` and get theirs.
///
/// # Errors
/// [`TrainError::Peer`] if another rank is gone or talks nonsense; the state is then not to be used.
pub fn broadcast(
    exchange: &Exchange,
    source: u32,
    meta: Option<&Meta>,
    network: &mut Network,
) -> Result<Option<Meta>, TrainError> {
    let nonsense = |what: String| TrainError::Peer(format!("the state of rank {source}: {what}"));
    let text = match meta {
        Some(meta) => serde_json::to_vec(meta).map_err(|error| nonsense(error.to_string()))?,
        None => Vec::new(),
    };
    let len = Tensor::f_from_slice(&[text.len() as i64])?;
    exchange.broadcast(&len, source)?;
    let len = len.f_int64_value(&[0])?;
    if !(1..=META_BYTES).contains(&len) {
        return Err(nonsense(format!("{len} bytes of description")));
    }
    let words = match meta {
        Some(_) => Tensor::f_from_slice(&text)?,
        None => Tensor::f_zeros([len], (Kind::Uint8, Device::Cpu))?,
    };
    exchange.broadcast(&words, source)?;

    let _no_grad = tch::no_grad_guard();
    let tensors: Vec<Tensor> = {
        let moments = network.optimizer.moments();
        let moments = moments.iter().flat_map(|(_, tensors)| tensors.iter());
        let all = network.params.entries().iter().map(|entry| &entry.tensor).chain(moments);
        all.map(|tensor| tensor.detach()).collect()
    };
    // Tensor by tensor: all together may be more than the host's memory holds twice.
    for tensor in &tensors {
        let values = tensor.f_to_device(exchange.place())?.f_contiguous()?;
        exchange.broadcast(&values, source)?;
        if meta.is_none() {
            tensor.shallow_clone().f_copy_(&values)?;
        }
    }
    if meta.is_some() {
        return Ok(None);
    }
    let words: Vec<u8> = Vec::try_from(words)?;
    let meta: Meta = serde_json::from_slice(&words).map_err(|error| nonsense(error.to_string()))?;
    network.optimizer.resume(meta.step);
    Ok(Some(meta))
}
