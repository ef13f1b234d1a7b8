//! Leader election by a Lease, with the rules of client-go, so that Rust and Go operators would understand each other.
//!
//! No kept crate does it for kube 5 (kube-leader-election 0.44 is on kube 4, kubert 0.25 on kube 1, and
//! kube-lease-manager has no optimistic locking of its own): these are the rules, and no more.
//!
//! A holder renews every [`RETRY`]; another takes over when it has seen no renewal for the lease's duration *by its own
//! clock* (clocks of nodes may differ). Every write names the resource version it was decided on. A holder that could not
//! renew for [`DEADLINE`] stops leading before anyone may take over. A holder that stops releases the Lease, so that the
//! next leads at once.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::agents::jitter;

/// How long a Lease is good without renewal.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// How long a holder goes on without having renewed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Time between attempts.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// One candidate.
pub(crate) struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    observed: Option<Observed>,
}

/// The last change seen in the Lease, and when by the own clock.
struct Observed {
    lease: Lease,
    at: Instant,
}

/// What to do about a Lease. Pure outcome of [`decide`].
#[derive(Debug, PartialEq)]
enum Decision {
    Create,
    Take { transitions: i32 },
    Renew,
    Wait,
}

impl Candidate {
    /// A candidate of that identity, which no other process has.
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            observed: None,
        }
    }

    /// Waits until this candidate leads.
    pub(crate) async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {} // another was faster
                Err(error) => {
                    tracing::warn!(%error, lease = self.name, "failed to ask for the Lease")
                }
            }
            tokio::time::sleep(RETRY.mul_f64(jitter())).await;
        }
    }

    /// Keeps renewing; returns when the lead is lost.
    pub(crate) async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left.max(Duration::from_millis(1)), self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, lease = self.name, "failed to renew the Lease")
                }
                Err(_) => return,
            }
            if renewed.elapsed() >= DEADLINE {
                return;
            }
        }
    }

    /// Gives the Lease up, if it is held.
    pub(crate) async fn release(&mut self) -> kube::Result<()> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|spec| holder(spec) == self.identity)
        else {
            return Ok(());
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await?;
        Ok(())
    }

    /// One round: true if this candidate leads after it.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let found = self.leases.get_opt(&self.name).await?;
        if let Some(lease) = &found
            && self
                .observed
                .as_ref()
                .is_none_or(|observed| observed.lease.spec != lease.spec)
        {
            self.observed = Some(Observed {
                lease: lease.clone(),
                at: Instant::now(),
            });
        }
        let unchanged_for = self
            .observed
            .as_ref()
            .map_or(Duration::ZERO, |observed| observed.at.elapsed());
        let now = MicroTime(Timestamp::now());
        let written = match (decide(found.as_ref(), &self.identity, unchanged_for), found) {
            (Decision::Wait, _) => return Ok(false),
            (Decision::Create, _) | (_, None) => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.spec(now.clone(), now, 0)),
                };
                self.leases.create(&PostParams::default(), &lease).await
            }
            (decision, Some(mut lease)) => {
                let old = lease.spec.take().unwrap_or_default();
                let since = old.acquire_time.filter(|_| decision == Decision::Renew);
                let transitions = match decision {
                    Decision::Take { transitions } => transitions,
                    _ => old.lease_transitions.unwrap_or(0),
                };
                lease.spec =
                    Some(self.spec(since.unwrap_or_else(|| now.clone()), now, transitions));
                self.leases
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await
            }
        };
        self.observed = Some(Observed {
            lease: written?,
            at: Instant::now(),
        });
        Ok(true)
    }

    fn spec(&self, acquired: MicroTime, renewed: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: Some(acquired),
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn decide(found: Option<&Lease>, identity: &str, unchanged_for: Duration) -> Decision {
    let Some(lease) = found else {
        return Decision::Create;
    };
    let Some(spec) = &lease.spec else {
        return Decision::Take { transitions: 0 };
    };
    if holder(spec) == identity {
        return Decision::Renew;
    }
    let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0) as u64);
    if holder(spec).is_empty() || unchanged_for >= duration {
        return Decision::Take {
            transitions: spec.lease_transitions.unwrap_or(0) + 1,
        };
    }
    Decision::Wait
}

fn holder(spec: &LeaseSpec) -> &str {
    spec.holder_identity.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                lease_transitions: Some(3),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn rules_of_client_go() {
        let fresh = Duration::from_secs(14);
        assert_eq!(decide(None, "a", fresh), Decision::Create);
        assert_eq!(decide(Some(&lease("a")), "a", fresh), Decision::Renew);
        assert_eq!(decide(Some(&lease("b")), "a", fresh), Decision::Wait);
        assert_eq!(
            decide(Some(&lease("b")), "a", DURATION),
            Decision::Take { transitions: 4 }
        );
        assert_eq!(
            decide(Some(&lease("")), "a", Duration::ZERO),
            Decision::Take { transitions: 4 }
        );
    }
}
