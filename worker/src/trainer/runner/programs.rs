//! Attempts of programs on a device: each is a process of its own, under a guard that outlives the agent.

use super::{
    Runner, failed,
    preparing::{opened, stored_state},
    unbegun::{stopped, unbegun},
};
use crate::{
    attempt::{Attempt, Failure, LeaseKey, ReportBody},
    program::{
        self, Guard,
        rank::{self, Meeting},
    },
    scratch::Scratch,
    trainer::course::End,
};
use spotsweep_proto::line::FailureKind;
use std::{path::Path, sync::Arc};

impl Runner {
    /// Carries out an attempt by starting its program.
    pub(super) async fn carry_out_program(&mut self, attempt: &Attempt, folder: &Path) -> End {
        let (lease, first_step) = (attempt.lease, attempt.first_step());
        let (Some(section), Some(scratch)) = (&attempt.sweep.program, self.scratch.clone()) else {
            return End::Closed;
        };
        if let Err(error) = self.keep_guard(&scratch) {
            let message = format!("the guard over programs does not start: {error}");
            return End::Healthy(failed(first_step, FailureKind::Crashed, &message));
        }
        let store = opened(&mut self.store, &attempt.store_url);
        let mut place = attempt.gang.clone();
        let settings = Arc::clone(&self.settings);
        let prepare = async {
            let (store, resume) = stored_state(attempt, store, &self.ahead, folder).await?;
            let job = program::Job {
                attempt,
                section,
                folder,
                scratch: &scratch,
                store,
                resume,
                settings: &settings,
            };
            job.prepare().await.map(|()| job)
        };
        let cannot = |Failure { kind, message }| End::Healthy(failed(first_step, kind, &message));
        let prepared = tokio::select! {
            prepared = prepare => prepared,
            how = stopped(&mut self.commands, lease, &mut place) => return unbegun(how, first_step),
        };
        let job = match prepared {
            Ok(job) => job,
            Err(failure) => return cannot(failure),
        };
        if let Some(end) = self.wait_for_rank(lease, first_step, &mut place).await {
            return end;
        }
        let rank = match place {
            Some(place) => {
                match rank::meet(lease, &place, &settings.gang, &mut self.commands, &self.events).await {
                    Ok(Meeting::Met(rank)) => Some((rank, place)),
                    Ok(Meeting::Stopped(how)) => return unbegun(how, first_step),
                    Ok(Meeting::Missed) => {
                        tracing::warn!(%lease, "nobody says where rank 0 listens: the trial goes back");
                        return End::Healthy(Some(ReportBody::Released { step: first_step, seconds: 0.0 }));
                    }
                    Err(failure) => return cannot(failure),
                }
            }
            None => None,
        };
        let listens = rank.as_ref().is_some_and(|(rank, _)| rank.is_first());
        match job.run(rank, &mut self.commands, &self.events).await {
            Ok(end) if listens => self.forgive_collision(lease, end),
            Ok(end) => end,
            Err(failure) => cannot(failure),
        }
    }

    /// That somebody took rank 0's port between its agent's look and its own start is nobody's failure, a few times.
    fn forgive_collision(&mut self, lease: LeaseKey, end: End) -> End {
        let (End::Healthy(ending) | End::Broken { ending, started: _ }) = &end else { return end };
        let Some(ReportBody::Failed { step, kind: _, message, seconds }) = ending else { return end };
        let before = self.collisions.filter(|(trial, _)| *trial == lease.trial).map_or(0, |(_, count)| count);
        if !rank::says_port_taken(message) || before >= rank::COLLISIONS {
            return end;
        }
        tracing::warn!(%lease, message, "rank 0 found its port taken: the trial goes back");
        self.collisions = Some((lease.trial, before + 1));
        End::Healthy(Some(ReportBody::Released { step: *step, seconds: *seconds }))
    }

    fn keep_guard(&mut self, scratch: &Scratch) -> std::io::Result<()> {
        if let Some(program) = &self.settings.guard
            && !self.guard.as_mut().is_some_and(Guard::watches)
        {
            self.guard = Some(Guard::start(program, scratch.path())?);
        }
        Ok(())
    }
}
