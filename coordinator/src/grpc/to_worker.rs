//! What workers are told, from domain to wire. Runs on the connection's task, not on the driver's.

use super::worker::StoreUrls;
use crate::{
    driver::{SweepCard, ToSession},
    queries::messages::checkpoint_ref,
};
use spotsweep_engine::{
    TrialRef,
    action::{GangPlace, Grant, RevokeReason},
    event::HeldLease,
};
use spotsweep_wire::v1::{self, to_worker::Message};
use std::collections::VecDeque;

/// Parameters in one batch of grants above which the next begins, in bytes: well below the limit of a message.
const GRANT_BATCH_BYTES: usize = 1 << 20;
/// Seconds between two heartbeats.
const HEARTBEAT_S: f64 = 1.0;

/// Appends the messages that say `what`.
pub(super) fn messages(what: ToSession, urls: &StoreUrls, out: &mut VecDeque<v1::ToWorker>) {
    let mut push = |message| out.push_back(v1::ToWorker { message: Some(message) });
    match what {
        ToSession::Welcome { worker, applied_seq, keep, lease_s } => push(Message::Welcome(v1::Welcome {
            worker: worker.0,
            applied_seq,
            keep: keep.iter().map(held_lease).collect(),
            store_url: urls.checkpoints.clone(),
            data_url: urls.data.clone(),
            heartbeat_s: HEARTBEAT_S.min(lease_s / 4.0),
            lease_s,
        })),
        ToSession::Sweep(card) => push(Message::Sweep(sweep_info(&card))),
        ToSession::Grants(grants) => {
            let mut batch = Vec::with_capacity(grants.len());
            let mut bytes = 0;
            for (device, lease, card) in grants {
                let grant = grant(device, &lease, &card);
                bytes += grant.params_json.len();
                batch.push(grant);
                if bytes >= GRANT_BATCH_BYTES {
                    bytes = 0;
                    push(Message::Granted(v1::GrantBatch { grants: std::mem::take(&mut batch) }));
                }
            }
            if !batch.is_empty() {
                push(Message::Granted(v1::GrantBatch { grants: batch }));
            }
        }
        ToSession::Renewed { for_s } => push(Message::Renewed(v1::Renewed { for_s })),
        ToSession::Revoked { trial, epoch, reason } => push(Message::Revoked(v1::Revoked {
            trial: Some(trial_key(trial)),
            epoch: epoch.0,
            reason: revoke_reason(reason).into(),
        })),
        ToSession::Regang { trial, epoch, place } => push(Message::Regang(v1::Regang {
            trial: Some(trial_key(trial)),
            epoch: epoch.0,
            place: Some(gang_place(&place)),
        })),
        ToSession::Acknowledged { seq } => push(Message::Acknowledged(v1::Acknowledged { seq })),
    }
}

pub(super) fn trial_key(trial: TrialRef) -> v1::TrialKey {
    v1::TrialKey { sweep: trial.sweep.0, number: trial.number }
}

fn held_lease(lease: &HeldLease) -> v1::HeldLease {
    v1::HeldLease {
        trial: Some(trial_key(lease.trial)),
        epoch: lease.epoch.0,
        device: u32::from(lease.device),
    }
}

fn sweep_info(card: &SweepCard) -> v1::SweepInfo {
    v1::SweepInfo {
        sweep: card.id.0,
        name: card.name.to_string(),
        train_json: json(&card.spec.train),
        checkpoint_json: json(&card.spec.checkpoint),
        program_json: card.spec.program.as_ref().map(json).unwrap_or_default(),
        metric: card.spec.objective.as_ref().map(|metric| metric.name.to_string()).unwrap_or_default(),
    }
}

#[expect(clippy::expect_used, reason = "sections of a specification have no map with keys that are not text")]
fn json(section: &impl serde::Serialize) -> String {
    serde_json::to_string(section).expect("a section is JSON")
}

fn grant(device: u16, grant: &Grant, card: &SweepCard) -> v1::Grant {
    let params = card.spec.assignment(grant.trial.number);
    v1::Grant {
        trial: Some(trial_key(grant.trial)),
        epoch: grant.epoch.0,
        attempt: grant.attempt,
        device: u32::from(device),
        params_json: serde_json::Value::Object(params.to_json()).to_string(),
        resume: grant.resume.as_ref().map(checkpoint_ref),
        interruption_mean_s: grant.interruption_mean_s,
        gang: grant.gang.as_ref().map(gang_place),
    }
}

fn gang_place(place: &GangPlace) -> v1::GangPlace {
    let GangPlace { generation, rank, shares } = place;
    v1::GangPlace {
        generation: generation.0,
        rank: *rank,
        starts: (0..shares.ranks()).map(|rank| shares.of(rank).start).collect(),
        shards: shares.shards(),
    }
}

fn revoke_reason(reason: RevokeReason) -> v1::RevokeReason {
    match reason {
        RevokeReason::Stale => v1::RevokeReason::Stale,
        RevokeReason::Paused => v1::RevokeReason::Paused,
        RevokeReason::Cancelled => v1::RevokeReason::Cancelled,
        RevokeReason::NotNeeded => v1::RevokeReason::NotNeeded,
        RevokeReason::Moved => v1::RevokeReason::Moved,
    }
}
