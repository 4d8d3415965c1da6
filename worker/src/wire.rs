//! The edge to the coordinator: wire messages become domain types here, once, and the other way round.
//! No IO, no decisions.

use crate::{
    attempt::{CheckpointRef, LeaseKey, ReportBody, Sweep, SweepNumber, TrialRef},
    gang::{GangNews, GangPlace, StoreQuestion},
};
use spotsweep_proto::{
    digest::Digest,
    gang::{Generation, Shares, SharesError, StoreOp, StoreValue},
    ids::{Epoch, MetricName, NameError, SweepName},
    line::FailureKind,
    notice::{Notice, NoticeKind, NoticeSource},
};
use spotsweep_wire::v1;
use std::{collections::HashMap, num::NonZeroU64, time::Duration};

/// What a coordinator says, checked.
#[derive(Debug)]
pub(crate) enum FromCoordinator {
    Welcome(Welcome),
    Sweep(SweepNumber, Sweep),
    Granted(Vec<Grant>),
    Renewed,
    Revoked(LeaseKey, RevokeReason),
    Acknowledged(u64),
    Regang(LeaseKey, GangPlace),
    StoreAnswer(LeaseKey, u64, Option<StoreValue>),
    Rejected { code: String, message: String, hint: String },
}

/// First message on a connection.
#[derive(Debug)]
pub(crate) struct Welcome {
    pub(crate) applied_seq: u64,
    pub(crate) keep: Vec<LeaseKey>,
    pub(crate) store_url: String,
    pub(crate) data_url: String,
    pub(crate) heartbeat: Duration,
}

/// A lease as it comes.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) lease: LeaseKey,
    pub(crate) attempt: u32,
    pub(crate) device: usize,
    pub(crate) params_json: String,
    pub(crate) resume: Option<CheckpointRef>,
    /// Mean time between losses of a lease without notice, in seconds; infinite where nothing is known.
    pub(crate) interruption_mean_s: f64,
    /// The worker's place in the trial's gang; `None` where it trains alone.
    pub(crate) gang: Option<GangPlace>,
}

/// Why a lease is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevokeReason {
    Stale,
    Paused,
    Cancelled,
    NotNeeded,
    Moved,
}

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a message of a kind that this agent does not know")]
    Unknown,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("a digest of {0} bytes")]
    Digest(usize),
    #[error("the name of the sweep is not acceptable")]
    Name(#[source] NameError),
    #[error("the sweep's {section} section is not readable")]
    Section {
        section: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("heartbeats every {0} s make no sense")]
    Heartbeat(f64),
    #[error("the make-up of a gang cannot be")]
    Shares(#[from] SharesError),
    #[error("a rank in generation 0 of a gang; those with ranks are numbered from 1")]
    Generation,
    #[error("rank {rank} of a gang of {ranks}")]
    Rank { rank: u32, ranks: u32 },
}

pub(crate) fn from_coordinator(message: v1::ToWorker) -> Result<FromCoordinator, WireError> {
    use v1::to_worker::Message;
    Ok(match message.message.ok_or(WireError::Unknown)? {
        Message::Welcome(welcome) => FromCoordinator::Welcome(self::welcome(welcome)?),
        Message::Sweep(info) => {
            let section = |section, source| WireError::Section { section, source };
            let sweep = Sweep {
                name: SweepName::new(&info.name).map_err(WireError::Name)?,
                train: serde_json::from_str(&info.train_json).map_err(|e| section("train", e))?,
                checkpoint: serde_json::from_str(&info.checkpoint_json)
                    .map_err(|e| section("checkpoint", e))?,
                metric: info.metric,
                program: match info.program_json.as_str() {
                    "" => None,
                    json => Some(serde_json::from_str(json).map_err(|e| section("program", e))?),
                },
            };
            FromCoordinator::Sweep(SweepNumber(info.sweep), sweep)
        }
        Message::Granted(batch) => {
            FromCoordinator::Granted(batch.grants.into_iter().map(grant).collect::<Result<_, _>>()?)
        }
        Message::Renewed(v1::Renewed { for_s: _ }) => FromCoordinator::Renewed,
        Message::Revoked(revoked) => {
            let reason = match revoked.reason() {
                v1::RevokeReason::Stale => RevokeReason::Stale,
                v1::RevokeReason::Paused => RevokeReason::Paused,
                v1::RevokeReason::Cancelled => RevokeReason::Cancelled,
                v1::RevokeReason::NotNeeded => RevokeReason::NotNeeded,
                v1::RevokeReason::Moved => RevokeReason::Moved,
                v1::RevokeReason::Unspecified => {
                    return Err(WireError::Missing("the reason of a revocation"));
                }
            };
            FromCoordinator::Revoked(lease(revoked.trial, revoked.epoch)?, reason)
        }
        Message::Acknowledged(v1::Acknowledged { seq }) => FromCoordinator::Acknowledged(seq),
        Message::Regang(regang) => {
            let place = regang.place.ok_or(WireError::Missing("the place in a new make-up of a gang"))?;
            FromCoordinator::Regang(lease(regang.trial, regang.epoch)?, gang_place(place)?)
        }
        Message::Store(answer) => {
            let value = answer.value.map(|value| StoreValue(value.to_vec()));
            FromCoordinator::StoreAnswer(lease(answer.trial, answer.epoch)?, answer.id, value)
        }
        Message::Rejected(v1::Rejected { code, message, hint }) => {
            FromCoordinator::Rejected { code, message, hint }
        }
    })
}

fn welcome(welcome: v1::Welcome) -> Result<Welcome, WireError> {
    let heartbeat = Duration::try_from_secs_f64(welcome.heartbeat_s)
        .ok()
        .filter(|heartbeat| !heartbeat.is_zero())
        .ok_or(WireError::Heartbeat(welcome.heartbeat_s))?;
    let keep = welcome.keep.into_iter().map(|held| lease(held.trial, held.epoch));
    Ok(Welcome {
        applied_seq: welcome.applied_seq,
        keep: keep.collect::<Result<_, _>>()?,
        store_url: welcome.store_url,
        data_url: welcome.data_url,
        heartbeat,
    })
}

fn lease(trial: Option<v1::TrialKey>, epoch: u64) -> Result<LeaseKey, WireError> {
    let trial = trial.ok_or(WireError::Missing("the trial of a lease"))?;
    let trial = TrialRef { sweep: SweepNumber(trial.sweep), number: trial.number };
    Ok(LeaseKey { trial, epoch: Epoch(epoch) })
}

fn grant(grant: v1::Grant) -> Result<Grant, WireError> {
    Ok(Grant {
        lease: lease(grant.trial, grant.epoch)?,
        attempt: grant.attempt,
        device: usize::try_from(grant.device).unwrap_or(usize::MAX),
        params_json: grant.params_json,
        resume: grant.resume.map(checkpoint_from).transpose()?,
        interruption_mean_s: Some(grant.interruption_mean_s)
            .filter(|mean_s| mean_s.is_finite() && *mean_s > 0.0)
            .unwrap_or(f64::INFINITY),
        gang: grant.gang.map(gang_place).transpose()?,
    })
}

fn gang_place(place: v1::GangPlace) -> Result<GangPlace, WireError> {
    let v1::GangPlace { generation, rank, starts, shards } = place;
    let shares = Shares::new(starts, shards)?;
    if generation == 0 && rank.is_some() {
        return Err(WireError::Generation);
    }
    if let Some(rank) = rank.filter(|rank| *rank >= shares.ranks()) {
        return Err(WireError::Rank { rank, ranks: shares.ranks() });
    }
    Ok(GangPlace { generation: Generation(generation), rank, shares })
}

fn digest(bytes: &[u8]) -> Result<Digest, WireError> {
    bytes.try_into().map(Digest).map_err(|_| WireError::Digest(bytes.len()))
}

fn checkpoint_from(checkpoint: v1::Checkpoint) -> Result<CheckpointRef, WireError> {
    Ok(CheckpointRef {
        step: checkpoint.step,
        manifest: digest(&checkpoint.manifest)?,
        parts: checkpoint.parts.iter().map(|part| digest(part)).collect::<Result<_, _>>()?,
        bytes: checkpoint.bytes,
        last: checkpoint.last,
    })
}

/// A lease that is held, for the hello.
pub(crate) fn held((lease, device): (LeaseKey, usize)) -> v1::HeldLease {
    let device = u32::try_from(device).unwrap_or(u32::MAX);
    v1::HeldLease { trial: Some(trial_key(lease)), epoch: lease.epoch.0, device }
}

/// How a make-up of a gang stands.
pub(crate) fn gang_news(lease: LeaseKey, news: GangNews) -> v1::GangNews {
    let GangNews { generation, step, over: _, broken, ready, shard_us } = news;
    v1::GangNews {
        trial: Some(trial_key(lease)),
        epoch: lease.epoch.0,
        generation: generation.0,
        step,
        broken,
        ready,
        shard_us: shard_us.map_or(0, NonZeroU64::get),
    }
}

/// A question to a rendezvous store.
pub(crate) fn store_query(lease: LeaseKey, question: StoreQuestion) -> v1::StoreQuery {
    let StoreQuestion { generation, id, op } = question;
    let (key, set) = match op {
        StoreOp::Set { key, value } => (key, Some(value.0.into())),
        StoreOp::Get { key } => (key, None),
    };
    v1::StoreQuery {
        trial: Some(trial_key(lease)),
        epoch: lease.epoch.0,
        generation: generation.0,
        id,
        key,
        set,
    }
}

/// What the agent was warned of.
pub(crate) fn noticed(notice: &Notice) -> v1::Noticed {
    let source = match notice.source {
        NoticeSource::Aws => v1::NoticeSource::Aws,
        NoticeSource::Gce => v1::NoticeSource::Gce,
        NoticeSource::Azure => v1::NoticeSource::Azure,
        NoticeSource::Slurm => v1::NoticeSource::Slurm,
        NoticeSource::Signal => v1::NoticeSource::Signal,
        NoticeSource::File => v1::NoticeSource::File,
        NoticeSource::Http => v1::NoticeSource::Http,
    };
    let kind = match notice.kind {
        NoticeKind::Terminate => v1::NoticeKind::Terminate,
        NoticeKind::Stop => v1::NoticeKind::Stop,
        NoticeKind::Hibernate => v1::NoticeKind::Hibernate,
        NoticeKind::Preempt => v1::NoticeKind::Preempt,
        NoticeKind::Reboot => v1::NoticeKind::Reboot,
        NoticeKind::Redeploy => v1::NoticeKind::Redeploy,
        NoticeKind::Maintenance => v1::NoticeKind::Maintenance,
        NoticeKind::Rebalance => v1::NoticeKind::Rebalance,
    };
    v1::Noticed { source: source.into(), kind: kind.into(), in_s: notice.in_s, reason: notice.reason.clone() }
}

pub(crate) fn trial_key(lease: LeaseKey) -> v1::TrialKey {
    v1::TrialKey { sweep: lease.trial.sweep.0, number: lease.trial.number }
}

/// The metric names of one batch.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    indexes: HashMap<MetricName, u32>,
    names: Vec<String>,
}

impl NameTable {
    fn index(&mut self, name: &MetricName) -> u32 {
        if let Some(index) = self.indexes.get(name) {
            return *index;
        }
        let index = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.indexes.insert(name.clone(), index);
        self.names.push(name.to_string());
        index
    }

    fn split(&mut self, metrics: &[(MetricName, f64)]) -> (Vec<u32>, Vec<f64>) {
        metrics.iter().map(|(name, value)| (self.index(name), *value)).unzip()
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// A report, with the names of its metrics in `names`.
pub(crate) fn report(lease: LeaseKey, body: &ReportBody, names: &mut NameTable) -> v1::Report {
    use v1::report::Body;
    let body = match body {
        ReportBody::Started { step, total_steps } => {
            Body::Started(v1::Started { step: *step, total_steps: *total_steps })
        }
        ReportBody::Progress(progress) => {
            let (names, values) = names.split(&progress.metrics);
            Body::Progress(v1::Progress {
                step: progress.step,
                data_epoch: progress.data_epoch,
                names,
                values,
            })
        }
        ReportBody::Checkpoint(checkpoint) => Body::Checkpoint(v1::Checkpoint {
            step: checkpoint.step,
            manifest: checkpoint.manifest.0.to_vec().into(),
            parts: checkpoint.parts.iter().map(|part| part.0.to_vec().into()).collect(),
            bytes: checkpoint.bytes,
            last: checkpoint.last,
            best: false,
        }),
        ReportBody::Finished { step, metrics, weights_digest, seconds } => {
            let (names, values) = names.split(metrics);
            let weights_digest = weights_digest.map(|digest| digest.0.to_vec().into()).unwrap_or_default();
            Body::Finished(v1::Finished { step: *step, names, values, weights_digest, seconds: *seconds })
        }
        ReportBody::Failed { step, kind, message, seconds } => Body::Failed(v1::Failed {
            step: *step,
            kind: failure_kind(*kind).into(),
            message: message.clone(),
            seconds: *seconds,
        }),
        ReportBody::Released { step, seconds } => {
            Body::Released(v1::Released { step: *step, seconds: *seconds })
        }
    };
    v1::Report { trial: Some(trial_key(lease)), epoch: lease.epoch.0, body: Some(body) }
}

fn failure_kind(kind: FailureKind) -> v1::FailureKind {
    match kind {
        FailureKind::Diverged => v1::FailureKind::Diverged,
        FailureKind::Config => v1::FailureKind::Config,
        FailureKind::Data => v1::FailureKind::Data,
        FailureKind::Checkpoint => v1::FailureKind::Checkpoint,
        FailureKind::OutOfMemory => v1::FailureKind::OutOfMemory,
        FailureKind::Storage => v1::FailureKind::Storage,
        FailureKind::Crashed => v1::FailureKind::Crashed,
        FailureKind::Protocol => v1::FailureKind::Protocol,
        FailureKind::Internal => v1::FailureKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_gang_that_cannot_be_is_refused() {
        let good = v1::GangPlace { generation: 2, rank: Some(1), starts: vec![0, 3], shards: 4 };
        let place = gang_place(good.clone()).unwrap();
        assert_eq!((place.generation, place.rank), (Generation(2), Some(1)));
        assert_eq!((place.shares.of(0), place.shares.of(1)), (0..3, 3..4));
        assert!(gang_place(v1::GangPlace { rank: None, ..good.clone() }).is_ok());
        for wrong in [
            v1::GangPlace { generation: 0, ..good.clone() },
            v1::GangPlace { rank: Some(2), ..good.clone() },
            v1::GangPlace { starts: vec![0, 4], ..good.clone() },
            v1::GangPlace { starts: Vec::new(), ..good },
        ] {
            assert!(gang_place(wrong).is_err());
        }
    }
}
