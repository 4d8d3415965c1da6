//! What a worker is sent, from domain to wire. No decisions.

use crate::{
    driver::{SweepCard, ToSession},
    queries::messages::checkpoint_ref,
};
use spotsweep_engine::{
    TrialRef,
    action::{Grant, RevokeReason},
    event::HeldLease,
};
use spotsweep_wire::v1::{self, to_worker::Message};

/// Most heartbeats are this far apart, in seconds, however long leases are.
const HEARTBEAT_S: f64 = 1.0;
/// Heartbeats in the life of a lease, at least.
const HEARTBEATS_PER_LEASE: f64 = 5.0;

/// One message.
#[must_use]
pub fn message(what: ToSession, store_url: &str) -> v1::ToWorker {
    let message = match what {
        ToSession::Welcome { worker, applied_seq, keep, lease_s } => Message::Welcome(v1::Welcome {
            worker: worker.0,
            applied_seq,
            keep: keep.iter().map(held).collect(),
            store_url: store_url.to_owned(),
            heartbeat_s: (lease_s / HEARTBEATS_PER_LEASE).min(HEARTBEAT_S),
            lease_s,
        }),
        ToSession::Sweep(card) => Message::Sweep(sweep(&card)),
        ToSession::Grants(grants) => {
            let grants = grants.into_iter().map(|(device, grant, card)| granted(device, &grant, &card));
            Message::Granted(v1::GrantBatch { grants: grants.collect() })
        }
        ToSession::Renewed { for_s } => Message::Renewed(v1::Renewed { for_s }),
        ToSession::Revoked { trial, epoch, reason } => {
            let reason = revoke_reason(reason).into();
            Message::Revoked(v1::Revoked { trial: Some(key(trial)), epoch: epoch.0, reason })
        }
        ToSession::Acknowledged { seq } => Message::Acknowledged(v1::Acknowledged { seq }),
    };
    v1::ToWorker { message: Some(message) }
}

fn key(trial: TrialRef) -> v1::TrialKey {
    v1::TrialKey { sweep: trial.sweep.0, number: trial.number }
}

fn held(lease: &HeldLease) -> v1::HeldLease {
    v1::HeldLease { trial: Some(key(lease.trial)), epoch: lease.epoch.0, device: u32::from(lease.device) }
}

#[expect(clippy::expect_used, reason = "plain structs of numbers and texts always have a JSON form")]
fn sweep(card: &SweepCard) -> v1::SweepInfo {
    v1::SweepInfo {
        sweep: card.id.0,
        name: card.name.to_string(),
        train_json: serde_json::to_string(&card.spec.train).expect("train section as JSON"),
        checkpoint_json: serde_json::to_string(&card.spec.checkpoint).expect("policy as JSON"),
    }
}

fn granted(device: u16, grant: &Grant, card: &SweepCard) -> v1::Grant {
    let params = card.spec.space.assignment(card.spec.method, grant.trial.number);
    v1::Grant {
        trial: Some(key(grant.trial)),
        epoch: grant.epoch.0,
        attempt: grant.attempt,
        device: u32::from(device),
        params_json: serde_json::Value::Object(params.to_json()).to_string(),
        resume: grant.resume.as_ref().map(checkpoint_ref),
    }
}

fn revoke_reason(reason: RevokeReason) -> v1::RevokeReason {
    match reason {
        RevokeReason::Stale => v1::RevokeReason::Stale,
        RevokeReason::Paused => v1::RevokeReason::Paused,
        RevokeReason::Cancelled => v1::RevokeReason::Cancelled,
        RevokeReason::NotNeeded => v1::RevokeReason::NotNeeded,
    }
}
