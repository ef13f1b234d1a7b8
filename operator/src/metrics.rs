//! What Prometheus scrapes.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isolet_crds::{FunctionStatus, condition};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Counters and gauges of one operator.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Counter,
    errors: Family<Reason, Counter>,
    durations: Histogram,
    functions: Family<Ready, Gauge<i64, AtomicI64>>,
    leader: Gauge,
    ready: Mutex<HashMap<String, &'static str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ready {
    ready: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("isolet_operator");
        let reconciles = Counter::default();
        let errors = Family::<Reason, Counter>::default();
        let buckets = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        ];
        let durations = Histogram::new(buckets);
        let functions = Family::<Ready, Gauge<i64, AtomicI64>>::default();
        let leader = Gauge::default();
        registry.register("reconciles", "Reconciles of Functions", reconciles.clone());
        registry.register(
            "errors",
            "Failures by reason; each is tried again",
            errors.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "functions",
            "Functions by their Ready condition",
            functions.clone(),
        );
        registry.register("leader", "1 while this operator leads", leader.clone());
        Self {
            registry,
            reconciles,
            errors,
            durations,
            functions,
            leader,
            ready: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A reconcile ended.
    pub(crate) fn reconciled(&self, took: Duration) {
        self.reconciles.inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// Something failed.
    pub(crate) fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&Reason { reason }).inc();
    }

    /// Whether this operator leads.
    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A Function has this status.
    pub(crate) fn has_status(&self, uid: &str, status: &FunctionStatus) {
        let ready = status
            .conditions
            .iter()
            .find(|c| c.type_ == condition::READY);
        let ready = match ready.map(|condition| condition.status.as_str()) {
            Some("True") => "True",
            Some("False") => "False",
            _ => "Unknown",
        };
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.insert(uid.to_owned(), ready);
        if before != Some(ready) {
            self.functions.get_or_create(&Ready { ready }).inc();
            if let Some(before) = before {
                self.functions.get_or_create(&Ready { ready: before }).dec();
            }
        }
    }

    /// A Function is gone.
    pub(crate) fn forget(&self, uid: &str) {
        let mut known = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = known.remove(uid) {
            self.functions.get_or_create(&Ready { ready }).dec();
        }
    }

    /// All of them as text.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(ready: &str) -> FunctionStatus {
        serde_json::from_value(json!({"conditions": [{
            "type": "Ready", "status": ready, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}))
        .expect("a status")
    }

    #[test]
    fn functions_are_counted_once_each() {
        let metrics = Metrics::default();
        metrics.has_status("a", &status("False"));
        metrics.has_status("a", &status("True"));
        metrics.has_status("a", &status("True"));
        metrics.has_status("b", &status("False"));
        metrics.forget("b");
        metrics.failed("Apply");
        metrics.leads(true);
        let text = metrics.encode().expect("encodes");
        for line in [
            r#"isolet_operator_functions{ready="True"} 1"#,
            r#"isolet_operator_functions{ready="False"} 0"#,
            r#"isolet_operator_errors_total{reason="Apply"} 1"#,
            "isolet_operator_leader 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
