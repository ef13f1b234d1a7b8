//! Operations of timers and clocks.

use std::time::Duration;

use super::host::CompletionId;
use super::op::{host, id, number, ops, throw};

ops![op_start_timer, op_cancel_timer, op_now, op_elapsed];

/// Longest timer, as in browsers: 2^31 - 1 ms.
const MAX_DELAY_MS: f64 = 2_147_483_647.0;

/// `(ms) -> completion`
fn op_start_timer(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let result = number(args.get(0)).and_then(|ms| {
        let ms = if ms > 0.0 { ms.min(MAX_DELAY_MS) } else { 0.0 };
        Ok(host(scope)?.start_timer(Duration::from_secs_f64(ms / 1000.0))?)
    });
    match result {
        Ok(completion) => rv.set_uint32(completion.0),
        Err(error) => throw(scope, error),
    }
}

/// `(completion)`
fn op_cancel_timer(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = id(args.get(0)).and_then(|id| {
        host(scope)?.cancel_timer(CompletionId(id));
        Ok(())
    });
    if let Err(error) = result {
        throw(scope, error);
    }
}

/// `() -> milliseconds since the Unix epoch`
fn op_now(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    match host(scope).map(|host| host.now_ms()) {
        Ok(ms) => rv.set_double(ms.floor()),
        Err(error) => throw(scope, error),
    }
}

/// `() -> milliseconds since the instance began`
fn op_elapsed(
    scope: &mut v8::PinScope<'_, '_>,
    _: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    match host(scope).map(|host| host.elapsed_ms()) {
        Ok(ms) => rv.set_double(ms),
        Err(error) => throw(scope, error),
    }
}
