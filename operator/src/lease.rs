//! Leader election by a Lease: one operator acts, the others stand by.
//!
//! The rules are those of client-go's leader election: a holder renews every `retry`, gives up when it could not renew for
//! `renew_deadline`, and others take over when the lease was not renewed for `duration`, by *their own* clock since they last
//! saw it change; clocks of different machines are never compared. Writes carry the `resourceVersion` that was read, so
//! that of two takers one fails.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long things take in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A lease that was not renewed for so long is free.
    pub duration: Duration,
    /// A holder that could not renew for so long stops. Shorter than `duration`, so that two never act.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What to do about the lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is none: make it.
    Create,
    /// It is free: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// Another holds it.
    Wait,
}

/// Decides from what was read, who asks, and how long ago (by our clock) the lease was first seen as it is.
pub fn decide(spec: Option<&LeaseSpec>, identity: &str, unchanged_for: Duration) -> Decision {
    let Some(spec) = spec else { return Decision::Create };
    match spec.holder_identity.as_deref() {
        Some(holder) if holder == identity => Decision::Renew,
        None | Some("") => Decision::Acquire,
        Some(_) => {
            let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
            if unchanged_for >= Duration::from_secs(seconds) { Decision::Acquire } else { Decision::Wait }
        }
    }
}

/// The lease as it is after `decision`.
fn next_spec(old: Option<&LeaseSpec>, decision: Decision, identity: &str, timing: Timing, now: Timestamp) -> LeaseSpec {
    let mut spec = old.cloned().unwrap_or_default();
    if decision != Decision::Renew {
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = Some(i32::try_from(timing.duration.as_secs().max(1)).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(now));
    spec
}

/// Who stands for which lease.
#[derive(Clone)]
pub struct LeaderElection {
    leases: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

/// Leadership, renewed in the background. Whoever acts as leader stops when `lost` is cancelled, as it also is after
/// [`Leadership::release`].
#[derive(Debug)]
pub struct Leadership {
    pub lost: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How a candidacy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Led<T> {
    /// Told to stop before it led.
    Never,
    /// What was run as leader ended, and the lease is free.
    Ended(T),
    /// The lease was lost, and what was run as leader was dropped.
    Lost,
}

/// A lease as last seen, and since when it has looked so.
struct Seen {
    lease: Option<Lease>,
    since: Instant,
}

impl LeaderElection {
    /// `identity` must be unique among candidates, such as the pod's name with its UID.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
        }
    }

    /// Waits for the lease, and runs `control` as long as it is held. Told to stop by the token that it is given, `control`
    /// finishes what it has under way. When the lease is lost it is dropped instead, requests under way included: another
    /// may lead soon.
    pub async fn lead<F: Future>(
        self,
        stop: &CancellationToken,
        control: impl FnOnce(CancellationToken) -> F,
    ) -> Led<F::Output> {
        let Some(leadership) = stop.run_until_cancelled(self.acquire()).await else { return Led::Never };
        let ended = tokio::select! {
            biased;
            () = leadership.lost.cancelled() => return Led::Lost,
            ended = control(stop.clone()) => ended,
        };
        leadership.release().await;
        Led::Ended(ended)
    }

    /// Waits until the lease is ours, however long that takes. Cancel-safe.
    pub async fn acquire(self) -> Leadership {
        let mut seen = Seen { lease: None, since: Instant::now() };
        loop {
            let begun = Instant::now();
            match tokio::time::timeout(self.timing.renew_deadline, self.attempt(&mut seen)).await {
                Ok(Ok(true)) => {
                    info!(lease = self.name, identity = self.identity, "leading");
                    return self.hold(seen, begun);
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => warn!(lease = self.name, %error, "could not ask for the lease"),
                Err(_) => warn!(lease = self.name, "asking for the lease took too long"),
            }
            sleep(self.timing.retry).await;
        }
    }

    fn hold(self, seen: Seen, renewed: Instant) -> Leadership {
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let (on_lost, until) = (lost.clone(), stop.clone());
        let task = tokio::spawn(async move {
            // Also when this task panics, nobody goes on acting.
            let _guard = on_lost.drop_guard();
            self.renew_until(until, seen, renewed).await;
        });
        Leadership { lost, stop, task }
    }

    /// Renews until told to stop (then frees the lease) or until leadership is lost.
    async fn renew_until(&self, stop: CancellationToken, mut seen: Seen, mut renewed: Instant) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.release().await,
                () = sleep(self.timing.retry) => {}
            }
            let begun = Instant::now();
            let deadline = renewed + self.timing.renew_deadline;
            match tokio::time::timeout_at(deadline, self.attempt(&mut seen)).await {
                Ok(Ok(true)) => renewed = begun,
                Ok(Ok(false)) if seen.is_held_by_other(&self.identity) => {
                    warn!(lease = self.name, "another leads now");
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => warn!(lease = self.name, %error, "could not renew the lease"),
                Err(_) => warn!(lease = self.name, "renewing the lease took too long"),
            }
            if Instant::now() >= renewed + self.timing.renew_deadline {
                warn!(lease = self.name, "leadership lost: the lease could not be renewed in time");
                return;
            }
        }
    }

    /// Reads the lease, decides, writes. Whether it is ours now.
    async fn attempt(&self, seen: &mut Seen) -> Result<bool, kube::Error> {
        seen.update(self.leases.get_opt(&self.name).await?);
        let spec = seen.lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let decision = decide(spec.as_ref(), &self.identity, seen.since.elapsed());
        if decision == Decision::Wait {
            return Ok(false);
        }
        let next = next_spec(spec.as_ref(), decision, &self.identity, self.timing, Timestamp::now());
        self.write(seen, next).await
    }

    /// Writes what follows on what was read; `false` when someone else wrote first.
    async fn write(&self, seen: &mut Seen, spec: LeaseSpec) -> Result<bool, kube::Error> {
        let params = PostParams::default();
        let answer = if let Some(lease) = &seen.lease {
            let lease = Lease { spec: Some(spec), ..lease.clone() };
            self.leases.replace(&self.name, &params, &lease).await
        } else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            self.leases.create(&params, &Lease { metadata, spec: Some(spec) }).await
        };
        match answer {
            Ok(lease) => {
                seen.update(Some(lease));
                Ok(true)
            }
            // Conflict: written, made or removed by someone else in between.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Frees the lease, so that another leads at once. Failing that, it runs out.
    async fn release(&self) {
        let free = async {
            let mut seen = Seen { lease: self.leases.get_opt(&self.name).await?, since: Instant::now() };
            let Some(spec) = seen.lease.as_ref().and_then(|lease| lease.spec.clone()) else { return Ok(()) };
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                let free = LeaseSpec { holder_identity: None, lease_duration_seconds: Some(1), ..spec };
                self.write(&mut seen, free).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(self.timing.renew_deadline, free).await {
            Ok(Ok(())) => info!(lease = self.name, "lease released"),
            Ok(Err(error)) => warn!(lease = self.name, %error, "could not release the lease"),
            Err(_) => warn!(lease = self.name, "releasing the lease took too long"),
        }
    }
}

impl Seen {
    fn update(&mut self, lease: Option<Lease>) {
        let version = |lease: &Option<Lease>| lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if version(&self.lease) != version(&lease) {
            self.since = Instant::now();
        }
        self.lease = lease;
    }

    fn is_held_by_other(&self, identity: &str) -> bool {
        let holder = self.lease.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty() && holder != identity)
    }
}

impl Leadership {
    /// Stops renewing and frees the lease. To be called when whatever acted as leader has ended.
    pub async fn release(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests;
