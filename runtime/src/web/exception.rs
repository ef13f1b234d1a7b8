//! From a value that JavaScript threw to an [`Exception`] of bounded text.
//!
//! Reading `stack`, `name` or `message` may run the tenant's code (getters, `Error.prepareStackTrace`): callers are inside
//! the section whose CPU time is metered, and whatever that code throws is swallowed here.

use super::host::Exception;
use super::op::string;
use crate::limits::cpu;

/// Longest message kept, in bytes.
const MESSAGE_BYTES: usize = 4096;
/// Longest stack kept, in bytes.
const STACK_BYTES: usize = 8192;
/// A longer text is not looked at, in UTF-16 code units: making a string flat that was put together from pieces allocates
/// the whole of it at once.
const READABLE_UNITS: usize = 4 << 20;
/// How many errors of a chain of causes are told.
const CAUSES: usize = 4;
/// Resource names of this layer's own scripts begin so; their frames mean nothing to users.
pub(super) const INTERNAL_SCHEME: &str = "isolet:";

/// Describes a thrown value. Frames of internal scripts are left out.
pub fn exception_from(
    scope: &mut v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
) -> Exception {
    v8::tc_scope!(let scope, scope);
    let scope: &mut v8::PinScope<'_, '_> = scope;
    let value = v8::Local::new(scope, value);
    let message = message_of(scope, value);
    let own_stack = stack_of(scope, value);
    let stack = with_causes(scope, value, own_stack.clone());
    let (file, line, column) = position_of(scope, value, &own_stack);
    Exception {
        message,
        stack,
        file,
        line,
        column,
    }
}

fn message_of(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> String {
    if let Ok(object) = v8::Local::<v8::Object>::try_from(value) {
        let name = property(scope, object, "name");
        let message = property(scope, object, "message");
        match (name, message) {
            (Some(name), Some(message)) if message.is_empty() => {
                return bounded(name, MESSAGE_BYTES);
            }
            (Some(name), Some(message)) => {
                return bounded(format!("{name}: {message}"), MESSAGE_BYTES);
            }
            (None, Some(message)) => return bounded(message, MESSAGE_BYTES),
            (_, None) => {}
        }
    }
    match may_run().then(|| value.to_detail_string(scope)).flatten() {
        Some(text) => bounded(readable(scope, text), MESSAGE_BYTES),
        None => "a value without text".to_owned(),
    }
}

fn property(
    scope: &mut v8::PinScope<'_, '_>,
    object: v8::Local<'_, v8::Object>,
    name: &str,
) -> Option<String> {
    let key = string(scope, name);
    let value = may_run().then(|| object.get(scope, key.into())).flatten()?;
    let text = v8::Local::<v8::String>::try_from(value).ok()?;
    Some(bounded(readable(scope, text), STACK_BYTES))
}

/// Whether the tenant's code may run: once it was terminated, nobody would end it again.
fn may_run() -> bool {
    !cpu::is_terminated()
}

fn readable(scope: &v8::PinScope<'_, '_>, text: v8::Local<'_, v8::String>) -> String {
    match text.length() {
        units if units > READABLE_UNITS => format!("<{units} characters>"),
        _ => text.to_rust_string_lossy(scope),
    }
}

fn stack_of(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<'_, v8::Value>) -> String {
    let Ok(object) = v8::Local::<v8::Object>::try_from(value) else {
        return String::new();
    };
    let Some(stack) = property(scope, object, "stack") else {
        return String::new();
    };
    let kept: Vec<&str> = stack
        .lines()
        .filter(|line| {
            let line = line.trim_start();
            !(line.starts_with("at ") && line.contains(INTERNAL_SCHEME))
        })
        .collect();
    bounded(kept.join("\n"), STACK_BYTES)
}

/// Adds the stacks of `error.cause`, and of the cause's cause.
fn with_causes(
    scope: &mut v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
    mut stack: String,
) -> String {
    let mut current = v8::Local::new(scope, value);
    let key = string(scope, "cause");
    for _ in 0..CAUSES {
        if !current.is_native_error() || !may_run() {
            break;
        }
        let Some(cause) = v8::Local::<v8::Object>::try_from(current)
            .ok()
            .and_then(|error| error.get(scope, key.into()))
            .filter(|cause| cause.is_native_error())
        else {
            break;
        };
        let text = stack_of(scope, cause);
        let text = if text.is_empty() {
            message_of(scope, cause)
        } else {
            text
        };
        stack.push_str("\ncaused by: ");
        stack.push_str(&text);
        current = cause;
    }
    bounded(stack, STACK_BYTES)
}

fn position_of(
    scope: &mut v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
    stack: &str,
) -> (Option<String>, Option<u32>, Option<u32>) {
    if let Some((file, line, column)) = stack.lines().find_map(frame_position) {
        return (Some(file), Some(line), Some(column));
    }
    let message = v8::Exception::create_message(scope, value);
    let file = message
        .get_script_resource_name(scope)
        .and_then(|name| v8::Local::<v8::String>::try_from(name).ok())
        .map(|name| bounded(name.to_rust_string_lossy(scope), MESSAGE_BYTES))
        .filter(|name| !name.is_empty() && !name.starts_with(INTERNAL_SCHEME));
    if file.is_none() {
        return (None, None, None);
    }
    let line = message
        .get_line_number(scope)
        .and_then(|line| u32::try_from(line).ok());
    let column = u32::try_from(message.get_start_column() + 1).ok();
    (file, line, column)
}

/// File, line and column of a line such as `    at f (main.ts:1:2)`.
fn frame_position(line: &str) -> Option<(String, u32, u32)> {
    let frame = line.trim_start().strip_prefix("at ")?;
    let place = match frame.strip_suffix(')') {
        Some(rest) => &rest[rest.rfind(" (")? + 2..],
        None => frame.strip_prefix("async ").unwrap_or(frame),
    };
    let (rest, column) = place.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    Some((file.to_owned(), line.parse().ok()?, column.parse().ok()?))
}

fn bounded(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}
