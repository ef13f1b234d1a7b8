//! `spec.limits`: what one Function may use, as written and as numbers.

// `KubeSchema` repeats each struct inside a function, where its `pub` reaches nobody.
#![allow(unreachable_pub)]

use std::time::Duration;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What a Function may use. A field left out takes its default.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.cpu) || !has(self.timeout) || !self.cpu.matches('^([0-9]{1,7}([.][0-9]{1,9})?(ms|s|m))+$') || !self.timeout.matches('^([0-9]{1,7}([.][0-9]{1,9})?(ms|s|m))+$') || duration(self.cpu) <= duration(self.timeout)")
    .message("limits.cpu must not exceed limits.timeout: a request that runs out of time cannot use more CPU"))]
pub struct Limits {
    /// CPU time that one request may use, 1ms to 5m. Waiting is free. Default 50ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,7}([.][0-9]{1,9})?(ms|s|m))+$') && duration(self) >= duration('1ms') && duration(self) <= duration('5m')")
        .message("limits.cpu must be a duration between 1ms and 5m, such as 50ms or 1m30s"))]
    pub cpu: Option<String>,
    /// Time from a request's arrival to the end of its response, 10ms to 15m. Default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,7}([.][0-9]{1,9})?(ms|s|m))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('15m')")
        .message("limits.timeout must be a duration between 10ms and 15m, such as 500ms or 1m30s"))]
    pub timeout: Option<String>,
    /// JavaScript heap, array buffers and WebAssembly memory of one instance, 16Mi to 2Gi. Default 128Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,12}([.][0-9]{1,9})?(k|M|G|Ki|Mi|Gi)?$') && quantity(self).compareTo(quantity('16Mi')) >= 0 && quantity(self).compareTo(quantity('2Gi')) <= 0")
        .message("limits.memory must be a size between 16Mi and 2Gi, such as 64Mi"))]
    pub memory: Option<String>,
    /// Largest request body, 0 to 1Gi. Default 16Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,12}([.][0-9]{1,9})?(k|M|G|Ki|Mi|Gi)?$') && quantity(self).compareTo(quantity('1Gi')) <= 0")
        .message("limits.body must be a size of at most 1Gi, such as 4Mi"))]
    pub body: Option<String>,
    /// Requests of the Function that one runtime pod handles at once, 1 to 10000. Default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 10000))]
    pub concurrency: Option<u32>,
    /// Outbound requests that one request may make, 0 to 10000. Default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 0, max = 10000))]
    pub subrequests: Option<u32>,
}

/// [`Limits`] as numbers, defaults filled in.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolvedLimits {
    /// CPU time of one request, in milliseconds.
    pub cpu_ms: u64,
    /// Wall time of one request, in milliseconds.
    pub timeout_ms: u64,
    /// Memory of one instance, in bytes.
    pub memory_bytes: u64,
    /// Largest request body, in bytes.
    pub body_bytes: u64,
    /// Requests at once.
    pub concurrency: u32,
    /// Outbound requests of one request.
    pub subrequests: u32,
}

impl Default for ResolvedLimits {
    fn default() -> Self {
        Self {
            cpu_ms: 50,
            timeout_ms: 30_000,
            memory_bytes: 128 << 20,
            body_bytes: 16 << 20,
            concurrency: 1000,
            subrequests: 50,
        }
    }
}

/// A limit that is no duration or quantity, or lies outside its range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("spec.limits.{field}: {problem}")]
pub struct LimitsError {
    /// Field under `spec.limits`.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Limits {
    /// Parses and range-checks every field; the API server enforces the same ranges by CEL, `isolet dev` has only this.
    pub fn resolve(&self) -> Result<ResolvedLimits, LimitsError> {
        let default = ResolvedLimits::default();
        let resolved = ResolvedLimits {
            cpu_ms: duration("cpu", self.cpu.as_deref(), default.cpu_ms, 1, 5 * 60_000)?,
            timeout_ms: duration(
                "timeout",
                self.timeout.as_deref(),
                default.timeout_ms,
                10,
                15 * 60_000,
            )?,
            memory_bytes: quantity(
                "memory",
                self.memory.as_deref(),
                default.memory_bytes,
                16 << 20,
                2 << 30,
            )?,
            body_bytes: quantity("body", self.body.as_deref(), default.body_bytes, 0, 1 << 30)?,
            concurrency: count("concurrency", self.concurrency, default.concurrency, 1)?,
            subrequests: count("subrequests", self.subrequests, default.subrequests, 0)?,
        };
        if self.cpu.is_some() && self.timeout.is_some() && resolved.cpu_ms > resolved.timeout_ms {
            return Err(LimitsError {
                field: "cpu",
                problem: "must not exceed limits.timeout".into(),
            });
        }
        Ok(resolved)
    }
}

fn duration(
    field: &'static str,
    text: Option<&str>,
    default: u64,
    min: u64,
    max: u64,
) -> Result<u64, LimitsError> {
    let Some(text) = text else { return Ok(default) };
    let problem = |why: &str| LimitsError {
        field,
        problem: format!(
            "{why}: {text:?}; write a duration from {min}ms to {}m, such as 50ms, 30s or 2m",
            max / 60_000
        ),
    };
    let millis = parse_duration(text)
        .ok_or_else(|| problem("is no duration"))?
        .as_millis() as u64;
    if (min..=max).contains(&millis) {
        Ok(millis)
    } else {
        Err(problem("is out of range"))
    }
}

fn quantity(
    field: &'static str,
    text: Option<&str>,
    default: u64,
    min: u64,
    max: u64,
) -> Result<u64, LimitsError> {
    let Some(text) = text else { return Ok(default) };
    let problem = |why: &str| LimitsError {
        field,
        problem: format!(
            "{why}: {text:?}; write a size from {}Mi to {}Mi, such as 64Mi",
            min >> 20,
            max >> 20
        ),
    };
    let bytes = parse_quantity(text).ok_or_else(|| problem("is no size"))?;
    if (min..=max).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(problem("is out of range"))
    }
}

fn count(
    field: &'static str,
    value: Option<u32>,
    default: u32,
    min: u32,
) -> Result<u32, LimitsError> {
    let value = value.unwrap_or(default);
    if (min..=10_000).contains(&value) {
        return Ok(value);
    }
    Err(LimitsError {
        field,
        problem: format!("is out of range: {value}; write a number from {min} to 10000"),
    })
}

/// Parses a duration of `ms`, `s` and `m` parts, such as `50ms`, `1.5s` or `1m30s` (a subset of Go's notation).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    if text.is_empty() {
        None
    } else {
        Duration::try_from_secs_f64(total).ok()
    }
}

/// Parses a byte count in Kubernetes' quantity notation: `1024`, `64Mi`, `1.5G`.
pub fn parse_quantity(text: &str) -> Option<u64> {
    let unit = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..unit].parse().ok()?;
    let factor = match &text[unit..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        _ => return None,
    };
    let bytes = (number * factor).ceil();
    (bytes <= u64::MAX as f64 / 2.0).then_some(bytes as u64)
}
