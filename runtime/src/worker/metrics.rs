//! The worker's counters, in Prometheus' text format. Labels are names of Functions and constants, never a tenant's text.

use std::time::Duration;

use isolet_crds::bundle::FunctionIdentity;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::isolate::CodeUse;
use crate::limits::memory::{self, Resource};

/// Counters of the worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<CodeLabels, Counter>,
    errors: Family<ReasonLabels, Counter>,
    duration: Histogram,
    cpu: Family<FunctionLabels, Counter<f64, std::sync::atomic::AtomicU64>>,
    request_cpu: Histogram,
    starts: Family<SourceLabels, Counter>,
    code: Family<OutcomeLabels, Counter>,
    instances: Gauge,
    pool: Gauge,
    functions: Gauge,
    evictions: Family<EvictionLabels, Counter>,
    used: Family<ResourceLabels, Gauge>,
    full: Family<ResourceLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabels {
    namespace: String,
    function: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    namespace: String,
    function: String,
    code_class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    namespace: String,
    function: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictionLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

/// Upper bounds of the duration's buckets, in seconds.
const DURATIONS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// Upper bounds of the CPU time's buckets, in seconds.
const CPU_TIMES: [f64; 12] = [
    0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0,
];

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("isolet");
        let requests = Family::default();
        registry.register("requests", "Requests answered", requests.clone());
        let errors = Family::default();
        registry.register(
            "request_errors",
            "Requests that got no answer from their function",
            errors.clone(),
        );
        let duration = Histogram::new(DURATIONS);
        registry.register_with_unit(
            "request_duration",
            "Time from a request's arrival to the head of its response",
            Unit::Seconds,
            duration.clone(),
        );
        let cpu = Family::default();
        registry.register_with_unit(
            "cpu",
            "CPU time of functions' JavaScript",
            Unit::Seconds,
            cpu.clone(),
        );
        let request_cpu = Histogram::new(CPU_TIMES);
        registry.register_with_unit(
            "request_cpu",
            "CPU time of a request, from its first entry into JavaScript to its last",
            Unit::Seconds,
            request_cpu.clone(),
        );
        let instances = Gauge::default();
        registry.register("instances", "Live V8 isolates", instances.clone());
        let starts = Family::default();
        registry.register(
            "starts",
            "Instances started, by where their isolate came from",
            starts.clone(),
        );
        let code = Family::default();
        registry.register(
            "code_cache_modules",
            "Modules started with code compiled before, by what V8 made of it",
            code.clone(),
        );
        let pool = Gauge::default();
        registry.register("pool_isolates", "Isolates ready for a start", pool.clone());
        let functions = Gauge::default();
        registry.register("functions", "Functions loaded", functions.clone());
        let evictions = Family::default();
        registry.register(
            "evictions",
            "Idle instances that went, by what there was too much of",
            evictions.clone(),
        );
        let used = Family::default();
        registry.register(
            "used",
            "What all instances use of what the process has",
            used.clone(),
        );
        let full = Family::default();
        registry.register("full", "Above this no instance starts", full.clone());
        Self {
            registry,
            requests,
            errors,
            duration,
            cpu,
            request_cpu,
            starts,
            code,
            instances,
            pool,
            functions,
            evictions,
            used,
            full,
        }
    }

    /// Counts an idle instance that goes.
    pub fn evicted(&self, reason: &'static str) {
        self.evictions
            .get_or_create(&EvictionLabels { reason })
            .inc();
    }

    fn set_memory(&self) {
        let (used, full) = (memory::used(), memory::full());
        for it in Resource::ALL {
            let labels = ResourceLabels {
                resource: it.name(),
            };
            // A limit that there is not is the largest number.
            let number = |amount: usize| i64::try_from(amount).unwrap_or(i64::MAX);
            self.used.get_or_create(&labels).set(number(used[it]));
            self.full.get_or_create(&labels).set(number(full[it]));
        }
    }

    /// Counts an answer.
    pub fn answered(&self, function: Option<&FunctionIdentity>, status: u16, took: Duration) {
        let code_class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        let FunctionLabels {
            namespace,
            function,
        } = FunctionLabels::of(function);
        self.requests
            .get_or_create(&CodeLabels {
                namespace,
                function,
                code_class,
            })
            .inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a request that got no answer from its function.
    pub fn failed(&self, function: Option<&FunctionIdentity>, reason: &'static str) {
        let FunctionLabels {
            namespace,
            function,
        } = FunctionLabels::of(function);
        self.errors
            .get_or_create(&ReasonLabels {
                namespace,
                function,
                reason,
            })
            .inc();
    }

    /// Adds CPU time.
    pub fn used_cpu(&self, function: &FunctionIdentity, time: Duration) {
        self.cpu
            .get_or_create(&FunctionLabels::of(Some(function)))
            .inc_by(time.as_secs_f64());
    }

    /// Counts the CPU time of a request that is over.
    pub fn request_used_cpu(&self, time: Duration) {
        self.request_cpu.observe(time.as_secs_f64());
    }

    /// A live isolate more (1) or fewer (-1).
    pub fn instances(&self, change: i64) {
        self.instances.inc_by(change);
    }

    /// Counts a start.
    pub fn started(&self, pooled: bool) {
        let source = if pooled { "pool" } else { "made" };
        self.starts.get_or_create(&SourceLabels { source }).inc();
    }

    /// Counts compiled code that a start had.
    pub fn code_used(&self, code: CodeUse) {
        for (outcome, modules) in [("accepted", code.accepted), ("refused", code.refused)] {
            if modules > 0 {
                let counter = self.code.get_or_create(&OutcomeLabels { outcome });
                counter.inc_by(modules.into());
            }
        }
    }

    /// Isolates ready for a start.
    pub fn pool(&self, ready: usize) {
        self.pool.set(ready as i64);
    }

    /// How many Functions are loaded.
    pub fn functions(&self, count: usize) {
        self.functions.set(count as i64);
    }

    /// Prometheus' text format.
    pub fn text(&self) -> String {
        self.set_memory();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl FunctionLabels {
    fn of(function: Option<&FunctionIdentity>) -> Self {
        Self {
            namespace: function.map_or_else(String::new, |function| function.namespace.clone()),
            function: function.map_or_else(String::new, |function| function.name.clone()),
        }
    }
}
