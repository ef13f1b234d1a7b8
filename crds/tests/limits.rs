//! `spec.limits`: notation, ranges, messages.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use isolet_crds::{Limits, ResolvedLimits, parse_duration, parse_quantity};

#[test]
fn durations() {
    for (text, expected_ms) in [
        ("50ms", 50.0),
        ("0ms", 0.0),
        ("1.5s", 1500.0),
        ("1m30s", 90_000.0),
        ("1m1s1ms", 61_001.0),
        ("2m", 120_000.0),
        ("0.5ms", 0.5),
        ("007s", 7000.0),
    ] {
        let expected = Duration::from_secs_f64(expected_ms / 1000.0);
        assert_eq!(parse_duration(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "ms",
        "1h",
        "1 s",
        " 1s",
        "1s ",
        "-1s",
        "+1s",
        "1e3s",
        "1.s.",
        ".",
        "1..5s",
        "1s5",
        "1S",
        "1µs",
        "inf",
        "nan",
        "infs",
        "१s",
        "99999999999999999999999m",
    ] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn quantities() {
    for (text, expected) in [
        ("0", 0),
        ("1024", 1024),
        ("64Mi", 64 << 20),
        ("1.5Gi", 3 << 29),
        ("1k", 1000),
        ("1.5M", 1_500_000),
        ("2G", 2_000_000_000),
        ("1Ki", 1024),
        ("0.5", 1),
    ] {
        assert_eq!(parse_quantity(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "Mi",
        "1 Mi",
        "-1",
        "+1",
        "1e3",
        "1E",
        "1m",
        "1T",
        "1Mib",
        "1mi",
        "1..5Mi",
        ".",
        "१",
        "inf",
        "nan",
        "99999999999999999999Gi",
    ] {
        assert_eq!(parse_quantity(text), None, "{text}");
    }
}

fn limits(field: &str, value: &str) -> Limits {
    let value: serde_json::Value =
        serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::String(value.into()));
    serde_json::from_value(serde_json::json!({ field: value })).unwrap()
}

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(Limits::default().resolve(), Ok(ResolvedLimits::default()));
}

#[test]
fn ranges_include_their_ends() {
    for (field, inside, outside) in [
        ("cpu", ["1ms", "5m"], ["0.9ms", "5m1ms"]),
        ("timeout", ["10ms", "15m"], ["9ms", "15m1ms"]),
        (
            "memory",
            ["16Mi", "2Gi"],
            ["16777215\u{0}", "2147483649\u{0}"],
        ),
        ("body", ["0\u{0}", "1Gi"], ["1073741825\u{0}", "2Gi"]),
        ("concurrency", ["1", "10000"], ["0", "10001"]),
        ("subrequests", ["0", "10000"], ["10001", "4294967295"]),
    ] {
        // A trailing NUL marks a text of digits only.
        for value in inside {
            let limits = limits_of(field, value);
            assert!(limits.resolve().is_ok(), "{field}: {value}");
        }
        for value in outside {
            let error = limits_of(field, value).resolve().unwrap_err();
            assert_eq!(error.field, field, "{value}");
            assert!(error.problem.contains("out of range"), "{error}");
        }
    }
}

fn limits_of(field: &str, value: &str) -> Limits {
    match value.strip_suffix('\u{0}') {
        Some(digits) => serde_json::from_value(serde_json::json!({ field: digits })).unwrap(),
        None => limits(field, value),
    }
}

#[test]
fn messages_name_field_value_and_remedy() {
    for (field, value, message) in [
        (
            "cpu",
            "fast",
            "spec.limits.cpu: is no duration: \"fast\"; write a duration from 1ms to 5m, such as 50ms, 30s or 2m",
        ),
        (
            "timeout",
            "1h",
            "spec.limits.timeout: is no duration: \"1h\"; write a duration from 10ms to 15m, such as 50ms, 30s or 2m",
        ),
        (
            "memory",
            "4Gi",
            "spec.limits.memory: is out of range: \"4Gi\"; write a size from 16Mi to 2048Mi, such as 64Mi",
        ),
        (
            "concurrency",
            "0",
            "spec.limits.concurrency: is out of range: 0; write a number from 1 to 10000",
        ),
    ] {
        let error = limits(field, value).resolve().unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn cpu_does_not_exceed_timeout() {
    let limits: Limits =
        serde_json::from_value(serde_json::json!({ "cpu": "1s", "timeout": "999ms" })).unwrap();
    assert_eq!(
        limits.resolve().unwrap_err().to_string(),
        "spec.limits.cpu: must not exceed limits.timeout"
    );
}
