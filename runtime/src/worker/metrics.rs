//! The worker's counters, in Prometheus' text format. Labels are names of Functions and constants, never a tenant's text.

use std::sync::{Mutex, OnceLock, PoisonError};
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
    cpu: Family<FunctionLabels, CpuCounter>,
    request_cpu: Histogram,
    starts: Family<SourceLabels, Counter>,
    code: Family<OutcomeLabels, Counter>,
    instances: Gauge,
    pool: Gauge,
    functions: Gauge,
    /// Counters of requests that are for no Function.
    of_none: FunctionMetrics,
    evictions: Family<EvictionLabels, Counter>,
    used: Family<ResourceLabels, Gauge>,
    full: Family<ResourceLabels, Gauge>,
}

/// Counters of one Function, found once and not by name for each request. Each appears when it first counts.
#[derive(Debug, Default)]
pub struct FunctionMetrics {
    labels: FunctionLabels,
    requests: [OnceLock<Counter>; CODE_CLASSES.len()],
    reasons: Mutex<Vec<&'static str>>,
    cpu: OnceLock<CpuCounter>,
}

type CpuCounter = Counter<f64, std::sync::atomic::AtomicU64>;

/// Classes of status codes.
const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
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
            of_none: FunctionMetrics::default(),
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
    pub fn answered(&self, function: Option<&FunctionMetrics>, status: u16, took: Duration) {
        let function = function.unwrap_or(&self.of_none);
        let class = usize::from(status / 100).clamp(1, CODE_CLASSES.len()) - 1;
        function.requests[class]
            .get_or_init(|| {
                let labels = function.labels.with_class(CODE_CLASSES[class]);
                self.requests.get_or_create_owned(&labels)
            })
            .inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a request that got no answer from its function.
    pub fn failed(&self, function: Option<&FunctionMetrics>, reason: &'static str) {
        let function = function.unwrap_or(&self.of_none);
        let mut reasons = lock(&function.reasons);
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
        drop(reasons);
        self.errors
            .get_or_create(&function.labels.with_reason(reason))
            .inc();
    }

    /// Adds CPU time.
    pub fn used_cpu(&self, function: &FunctionMetrics, time: Duration) {
        function
            .cpu
            .get_or_init(|| self.cpu.get_or_create_owned(&function.labels))
            .inc_by(time.as_secs_f64());
    }

    /// Shows the counters of a Function no longer.
    pub fn forget(&self, function: &FunctionMetrics) {
        let labels = &function.labels;
        self.cpu.remove(labels);
        for class in CODE_CLASSES {
            self.requests.remove(&labels.with_class(class));
        }
        for reason in lock(&function.reasons).drain(..) {
            self.errors.remove(&labels.with_reason(reason));
        }
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

impl FunctionMetrics {
    /// Counters of a Function, all at zero.
    pub fn of(function: &FunctionIdentity) -> Self {
        Self {
            labels: FunctionLabels {
                namespace: function.namespace.clone(),
                function: function.name.clone(),
            },
            ..Self::default()
        }
    }
}

impl FunctionLabels {
    fn with_class(&self, code_class: &'static str) -> CodeLabels {
        CodeLabels {
            namespace: self.namespace.clone(),
            function: self.function.clone(),
            code_class,
        }
    }

    fn with_reason(&self, reason: &'static str) -> ReasonLabels {
        ReasonLabels {
            namespace: self.namespace.clone(),
            function: self.function.clone(),
            reason,
        }
    }
}

/// Nothing panics while it holds this lock, so poison carries no news.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
