//! The agent's own metrics, Prometheus text; the worker's are appended to them.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Handles; clones count into the same metrics.
#[derive(Clone)]
pub struct Metrics {
    /// Functions that serve.
    pub functions: Gauge,
    /// Revisions that the worker refused.
    pub refusals: Counter,
    /// Functions put into quarantine.
    pub quarantines: Counter,
    /// Workers started.
    pub worker_starts: Counter,
    /// Workers that ended unasked.
    pub worker_crashes: Counter,
    /// Failures of the watches of bundle objects.
    pub watch_errors: Counter,
    /// Outbound requests that got a response.
    pub egress_requests: Counter,
    /// Outbound requests that the policy refused.
    pub egress_refused: Counter,
    /// Outbound requests that failed on the network.
    pub egress_failed: Counter,
    /// Revisions compiled for later workers.
    pub code_made: Counter,
    /// Revisions that could not be.
    pub code_failed: Counter,
    /// Files with compiled code that were damaged, made for another build, or refused by V8.
    pub code_dropped: Counter,
    /// Size of those files together.
    pub code_bytes: Gauge,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("isolet_agent");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let mut metrics = Self {
            functions: Gauge::default(),
            refusals: counter("refused_revisions", "Revisions that the worker refused"),
            quarantines: counter(
                "quarantined_functions",
                "Functions put into quarantine after crashes",
            ),
            worker_starts: counter("worker_starts", "Worker processes started"),
            worker_crashes: counter("worker_crashes", "Worker processes that ended unasked"),
            watch_errors: counter("watch_errors", "Failures of the watches of bundle objects"),
            egress_requests: counter("egress_requests", "Outbound requests that got a response"),
            egress_refused: counter(
                "egress_refused",
                "Outbound requests that the policy refused",
            ),
            egress_failed: counter(
                "egress_failed",
                "Outbound requests that failed on the network",
            ),
            code_made: counter("code_caches_made", "Revisions compiled for later workers"),
            code_failed: counter(
                "code_caches_failed",
                "Revisions that could not be compiled for later workers",
            ),
            code_dropped: counter(
                "code_caches_dropped",
                "Compiled code that was damaged, made for another build, or refused by V8",
            ),
            code_bytes: Gauge::default(),
            registry: Arc::default(),
        };
        registry.register(
            "code_cache_bytes",
            "Compiled code kept for later workers",
            metrics.code_bytes.clone(),
        );
        registry.register(
            "functions",
            "Functions that are served",
            metrics.functions.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// Own metrics, then the worker's.
    pub fn text(&self, worker: Option<&str>) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("failed to encode metrics");
        }
        if let Some(worker) = worker {
            // One text has one end.
            text.truncate(
                text.trim_end()
                    .strip_suffix("# EOF")
                    .map_or(text.len(), str::len),
            );
            text.push_str(worker);
            if !worker.trim_end().ends_with("# EOF") {
                text.push_str("# EOF\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_texts_become_one_with_one_end() {
        let metrics = Metrics::default();
        metrics.refusals.inc();
        let text = metrics.text(Some("isolet_instances 3\n# EOF\n"));
        assert!(
            text.contains("isolet_agent_refused_revisions_total 1\n"),
            "{text}"
        );
        assert!(text.ends_with("isolet_instances 3\n# EOF\n"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(metrics.text(None).ends_with("# EOF\n"));
        assert!(metrics.text(Some("x 1\n")).ends_with("x 1\n# EOF\n"));
    }
}
