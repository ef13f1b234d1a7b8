//! Operations of the console, and what `inspect` cannot see from JavaScript.

use super::host::ConsoleLevel;
use super::op::{OpError, host, id, ops, string, text, throw};

ops![op_console, op_enumerable_keys, op_kind, op_promise_state];

/// `(level, text)`
fn op_console(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let result = (|| {
        let level = match id(args.get(0))? {
            0 => ConsoleLevel::Debug,
            1 => ConsoleLevel::Info,
            2 => ConsoleLevel::Warn,
            3 => ConsoleLevel::Error,
            _ => return Err(OpError::Type("unknown console level")),
        };
        let text = text(scope, args.get(1))?;
        host(scope)?.console(level, text);
        Ok(())
    })();
    if let Err(error) = result {
        throw(scope, error);
    }
}

/// `(value) -> string`: V8's own idea of what a value is, whatever its prototype says.
fn op_kind(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let value = args.get(0);
    let kind = if value.is_proxy() {
        "proxy"
    } else if value.is_array() {
        "array"
    } else if value.is_function() {
        function_kind(scope, value)
    } else if value.is_native_error() {
        "error"
    } else if value.is_map() {
        "map"
    } else if value.is_set() {
        "set"
    } else if value.is_typed_array() {
        "typedarray"
    } else if value.is_array_buffer() {
        "arraybuffer"
    } else if value.is_date() {
        "date"
    } else if value.is_reg_exp() {
        "regexp"
    } else if value.is_promise() {
        "promise"
    } else if value.is_number_object() {
        "number"
    } else if value.is_string_object() {
        "string"
    } else if value.is_boolean_object() {
        "boolean"
    } else if value.is_weak_map() {
        "weakmap"
    } else if value.is_weak_set() {
        "weakset"
    } else if value.is_module_namespace_object() {
        "namespace"
    } else {
        "object"
    };
    rv.set(string(scope, kind).into());
}

/// A class's source begins with the word; `Function.prototype.toString` would copy the whole of it.
fn function_kind(
    scope: &mut v8::PinScope<'_, '_>,
    value: v8::Local<'_, v8::Value>,
) -> &'static str {
    let is_class = v8::Local::<v8::Object>::try_from(value).is_ok_and(|function| {
        let key = string(scope, "prototype");
        function
            .get_own_property_descriptor(scope, key.into())
            .and_then(|descriptor| v8::Local::<v8::Object>::try_from(descriptor).ok())
            .and_then(|descriptor| {
                let key = string(scope, "writable");
                descriptor.get(scope, key.into())
            })
            .is_some_and(|writable| writable.is_false())
    });
    if is_class { "class" } else { "function" }
}

/// `(promise) -> [state, result]`
fn op_promise_state(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let Ok(promise) = v8::Local::<v8::Promise>::try_from(args.get(0)) else {
        return throw(scope, OpError::Type("expected a promise"));
    };
    let (state, result) = match promise.state() {
        v8::PromiseState::Pending => ("pending", v8::undefined(scope).into()),
        v8::PromiseState::Fulfilled => ("fulfilled", promise.result(scope)),
        v8::PromiseState::Rejected => ("rejected", promise.result(scope)),
    };
    let state = string(scope, state).into();
    rv.set(v8::Array::new_with_elements(scope, &[state, result]).into());
}

/// `(object) -> [key…]`: own enumerable keys. Elements of arrays, typed arrays and strings are left out before a list of
/// them is made: a sparse array has four thousand million.
fn op_enumerable_keys(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let value = args.get(0);
    let Ok(object) = v8::Local::<v8::Object>::try_from(value) else {
        return throw(scope, OpError::Type("expected an object"));
    };
    let has_elements = value.is_array() || value.is_typed_array() || value.is_string_object();
    let options = v8::GetPropertyNamesArgsBuilder::new()
        .mode(v8::KeyCollectionMode::OwnOnly)
        .property_filter(v8::PropertyFilter::ONLY_ENUMERABLE)
        .index_filter(if has_elements {
            v8::IndexFilter::SkipIndices
        } else {
            v8::IndexFilter::IncludeIndices
        })
        .key_conversion(v8::KeyConversionMode::ConvertToString)
        .build();
    match object.get_property_names(scope, options) {
        Some(keys) => rv.set(keys.into()),
        None => throw(scope, OpError::Thrown),
    }
}
