//! Workers come, go, fall silent and come back. Owns what a connection means; leases end in [`crate::lease`].
//!
//! A worker is one incarnation of an agent. Another incarnation of the same name is another worker: names need
//! not be unique, so it says nothing about the first, whose own connection breaks if it is dead.

use crate::{
    action::{Action, AttemptEnd},
    event::Hello,
    refs::{SessionId, TrialRef, WorkerId},
    state::{Out, State},
    worker::{Link, Slot, Worker},
};
use spotsweep_proto::{ids::Epoch, limits::CREDITS_PER_DEVICE};
use std::{collections::BTreeMap, sync::Arc};

/// Most workers that are remembered after they have gone; the ones gone longest are forgotten first.
pub(crate) const REMEMBERED_WORKERS: usize = 10_000;

/// What a tick found about a worker.
enum Verdict {
    /// Connected, but not heard of for half a lease.
    FallsSilent,
    /// Connected, but its leases have expired.
    Expired,
    /// Did not come back in time.
    Lost(AttemptEnd),
}

impl State {
    pub(crate) fn joined(&mut self, session: SessionId, mut hello: Hello, out: &mut Out<'_>) {
        let held: BTreeMap<TrialRef, (Epoch, u16)> = std::mem::take(&mut hello.held)
            .into_iter()
            .filter(|held| usize::from(held.device) < hello.devices.len())
            .map(|held| (held.trial, (held.epoch, held.device)))
            .collect();
        let mut devices: Vec<Slot> = std::mem::take(&mut hello.devices)
            .into_iter()
            .map(|device| {
                let label = self.label(&hello.name, &device.name);
                Slot { device, label, credits: 0, load: 0, ganged: false }
            })
            .collect();
        let known = self.incarnations.get(&hello.incarnation).copied();
        if let Some(other) = self.sessions.get(&session).copied()
            && Some(other) != known
        {
            self.disconnected(session, out);
        }
        let mut keep = Vec::new();
        let id = match known {
            Some(id) => {
                self.drop_connection(id);
                self.compare_held(id, &held, out);
                let Some(worker) = self.workers.get_mut(&id) else { return };
                for trial_ref in &worker.leases {
                    // Every lease that is left was listed with its epoch.
                    if let Some(&(epoch, device)) = held.get(trial_ref) {
                        keep.push((*trial_ref, epoch));
                        if let Some(slot) = devices.get_mut(usize::from(device)) {
                            slot.load += 1;
                            slot.ganged |= self.gangs.contains_key(trial_ref);
                        }
                    }
                }
                worker.name = hello.name;
                worker.machine = hello.machine;
                worker.knows = Arc::new(hello.knows.into_iter().collect());
                worker.devices = devices;
                worker.link = Link::Connected { session, silent: false };
                id
            }
            None => {
                let id = WorkerId(self.next_worker);
                self.next_worker += 1;
                self.incarnations.insert(hello.incarnation, id);
                self.workers.insert(id, Worker::new(hello, session, out.at, devices));
                id
            }
        };
        self.sessions.insert(session, id);
        for (trial_ref, _) in &keep {
            let device = held.get(trial_ref).map_or(0, |(_, device)| *device);
            if let Some(seat) = self.gangs.get_mut(trial_ref).and_then(|gang| gang.seat_mut(id)) {
                seat.device = device;
            }
            let lease = self.trial_mut(*trial_ref).and_then(|trial| trial.lease.as_mut());
            if let Some(lease) = lease.filter(|lease| lease.worker == id) {
                lease.device = device;
            }
        }
        self.hear(id, out);
        let applied_seq = self.workers.get(&id).and_then(|worker| worker.applied_seq).unwrap_or(0);
        let kept: Vec<TrialRef> = keep.iter().map(|(trial_ref, _)| *trial_ref).collect();
        out.push(Action::Welcome { session, worker: id, applied_seq, keep });
        for trial_ref in kept {
            self.tell_place(trial_ref, id, out);
            let revoked = self.trial(trial_ref).and_then(|trial| trial.lease.as_ref()?.revoked);
            if let Some(reason) = revoked {
                self.tell_revoked(trial_ref, id, reason, out);
            }
        }
    }

    /// Whatever connection a returning worker had is over, and it takes nothing until it says so.
    fn drop_connection(&mut self, id: WorkerId) {
        self.withdraw(id);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for slot in &mut worker.devices {
            slot.credits = 0;
        }
        match worker.link {
            Link::Connected { session, .. } => {
                self.sessions.remove(&session);
            }
            Link::Gone { since } => {
                self.gone.remove(&(since, id));
            }
            Link::Broken { .. } => {}
        }
    }

    /// Takes back what the engine believes a returning worker to hold and it does not: the grant never
    /// arrived, or it let go of the attempt.
    fn compare_held(&mut self, id: WorkerId, held: &BTreeMap<TrialRef, (Epoch, u16)>, out: &mut Out<'_>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let missing: Vec<TrialRef> = worker
            .leases
            .iter()
            .copied()
            .filter(|trial_ref| {
                let epoch = self.trial(*trial_ref).map(|trial| Epoch(trial.epoch));
                held.get(trial_ref).map(|(epoch, _)| *epoch) != epoch
            })
            .collect();
        for trial_ref in missing {
            self.lose_seat(trial_ref, id, AttemptEnd::Released, None, out);
        }
    }

    pub(crate) fn ready(&mut self, session: SessionId, device: u16, credits: u32, out: &Out<'_>) {
        let Some(&id) = self.sessions.get(&session) else { return };
        self.hear(id, out);
        self.withdraw(id);
        if let Some(worker) = self.workers.get_mut(&id)
            && let Some(slot) = worker.devices.get_mut(usize::from(device))
        {
            slot.credits = credits.min(CREDITS_PER_DEVICE);
        }
        self.offer(id);
    }

    /// Something came from a worker: it lives, and its leases run on.
    pub(crate) fn hear(&mut self, id: WorkerId, out: &Out<'_>) {
        let expires_at = out.at.after_s(self.config.lease_s);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.heard_at = out.at;
        worker.expires_at = worker.expires_at.max(expires_at);
        if let Link::Connected { session, silent: true } = worker.link {
            worker.link = Link::Connected { session, silent: false };
            self.offer(id);
        }
    }

    pub(crate) fn disconnected(&mut self, session: SessionId, out: &Out<'_>) {
        let Some(id) = self.sessions.remove(&session) else { return };
        self.drop_connection(id);
        let grace_until = out.at.after_s(self.config.reconnect_grace_s);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.link = Link::Broken { since: out.at, until: grace_until.min(worker.expires_at) };
        }
    }

    pub(crate) fn left(&mut self, session: SessionId, out: &mut Out<'_>) {
        let Some(id) = self.sessions.get(&session).copied() else { return };
        self.drop_connection(id);
        self.lose(id, &AttemptEnd::WorkerGone, out);
    }

    /// A worker is gone.
    fn lose(&mut self, id: WorkerId, end: &AttemptEnd, out: &mut Out<'_>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.link = Link::Gone { since: out.at };
            self.gone.insert((out.at, id));
        }
        self.take_all_back(id, end, out);
    }

    pub(crate) fn restarted(&mut self, out: &mut Out<'_>) {
        self.discard_imports(out);
        let until = out.at.after_s(self.config.lease_s);
        let present: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| !worker.is_gone()).map(|(id, _)| *id).collect();
        for id in present {
            self.drop_connection(id);
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.expires_at = until;
                worker.link = Link::Broken { since: out.at, until };
            }
        }
        self.sessions.clear();
        self.begin_delays_anew(out);
    }

    /// The coordinator was away, or its clock was set forward (ticks come every second while an object waits to be
    /// deleted or forgotten): less time has passed for agents than for the delays, so these begin anew.
    pub(crate) fn begin_delays_anew(&mut self, out: &Out<'_>) {
        let delete_at = out.at.after_s(self.config.delete_after_s);
        self.objects.postpone(delete_at, out.at.after_s(self.config.remember_deleted_s));
    }

    pub(crate) fn tick(&mut self, heard: Vec<SessionId>, out: &mut Out<'_>) {
        for session in heard {
            let Some(&id) = self.sessions.get(&session) else { continue };
            self.hear(id, out);
            if let Some(worker) = self.workers.get(&id) {
                out.push(Action::Renew { session, expires_at: worker.expires_at });
            }
        }
        let verdicts = self.judge_workers(out);
        // First of all, so that nobody who is silent gets what others lose.
        for (id, _) in verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::FallsSilent)) {
            self.withdraw(*id);
            if let Some(worker) = self.workers.get_mut(id)
                && let Link::Connected { session, .. } = worker.link
            {
                worker.link = Link::Connected { session, silent: true };
            }
        }
        for (id, verdict) in verdicts {
            match verdict {
                Verdict::FallsSilent => {}
                Verdict::Expired => self.take_all_back(id, &AttemptEnd::Expired, out),
                Verdict::Lost(end) => self.lose(id, &end, out),
            }
        }
        self.forget_workers(out);
        let forget_at = out.at.after_s(self.config.remember_deleted_s);
        let digests = self.objects.sweep_up(out.at, forget_at);
        if !digests.is_empty() {
            out.push(Action::DeleteObjects { digests });
        }
    }

    fn judge_workers(&self, out: &Out<'_>) -> Vec<(WorkerId, Verdict)> {
        let mut verdicts = Vec::new();
        for (id, worker) in &self.workers {
            match worker.link {
                Link::Connected { silent, .. } => {
                    if !silent && out.at.seconds_since(worker.heard_at) >= self.config.lease_s / 2.0 {
                        verdicts.push((*id, Verdict::FallsSilent));
                    }
                    if out.at >= worker.expires_at && !worker.leases.is_empty() {
                        verdicts.push((*id, Verdict::Expired));
                    }
                }
                Link::Broken { until, .. } if out.at >= until => {
                    let expired = until >= worker.expires_at;
                    let end = if expired { AttemptEnd::Expired } else { AttemptEnd::Disconnected };
                    verdicts.push((*id, Verdict::Lost(end)));
                }
                Link::Broken { .. } | Link::Gone { .. } => {}
            }
        }
        verdicts
    }

    fn forget_workers(&mut self, out: &Out<'_>) {
        while let Some(&(since, id)) = self.gone.first()
            && (self.gone.len() > REMEMBERED_WORKERS || since.after_s(self.config.forget_worker_s) <= out.at)
        {
            self.gone.pop_first();
            if let Some(worker) = self.workers.remove(&id) {
                self.incarnations.remove(&worker.incarnation);
                self.notices.remove(&id);
            }
        }
    }
}
