//! Operations of WebAssembly: each new memory is charged to the instance, because V8 counts none of them.

use super::op::{OpResult, host, ops, throw};

ops![op_wasm_memory, op_wasm_instance];

const PAGE_BYTES: u64 = 64 << 10;
/// Private property of a compiled module: to how many bytes the memories that it defines may grow.
const MAXIMUM: &str = "isolet:maximum-bytes";

/// Notes on a module to how many bytes its own memories may grow.
pub fn set_maximum(
    scope: &mut v8::PinScope<'_, '_>,
    module: v8::Local<'_, v8::Object>,
    bytes: u64,
) {
    let bytes = v8::Number::new(scope, bytes as f64);
    let key = maximum_key(scope);
    module.set_private(scope, key, bytes.into());
}

/// `(pages wanted or undefined) -> pages allowed`
fn op_wasm_memory(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let wanted = v8::Local::<v8::Number>::try_from(args.get(0))
        .ok()
        .map(|pages| (pages.value() as u64).saturating_mul(PAGE_BYTES));
    let result: OpResult<u64> = host(scope).and_then(|host| Ok(host.wasm_memory(wanted)?));
    match result {
        Ok(bytes) => rv.set_double((bytes / PAGE_BYTES) as f64),
        Err(error) => throw(scope, error),
    }
}

/// `(module)`; what is no module is for V8 to refuse.
fn op_wasm_instance(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _: v8::ReturnValue<'_, v8::Value>,
) {
    let Ok(module) = v8::Local::<v8::WasmModuleObject>::try_from(args.get(0)) else {
        return;
    };
    let module: v8::Local<'_, v8::Object> = module.into();
    let key = maximum_key(scope);
    let bytes = module
        .get_private(scope, key)
        .and_then(|bytes| v8::Local::<v8::Number>::try_from(bytes).ok())
        .map_or(0, |bytes| bytes.value() as u64);
    if bytes == 0 {
        return;
    }
    let result: OpResult<u64> = host(scope).and_then(|host| Ok(host.wasm_memory(Some(bytes))?));
    if let Err(error) = result {
        throw(scope, error);
    }
}

fn maximum_key<'s>(scope: &v8::PinScope<'s, '_>) -> v8::Local<'s, v8::Private> {
    let name = super::op::string(scope, MAXIMUM);
    v8::Private::for_api(scope, Some(name))
}
