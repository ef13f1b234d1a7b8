//! Files of this layer that an instance runs only when it uses what they provide (`js/02_lazy.js`).
//!
//! A global that such a file provides is one of V8's lazy data properties: to a tenant it looks like any other property,
//! and becomes one when it is first read. V8 ends the process if the property has changed while its value was made, so a
//! file must not run a tenant's code, however he has changed the language's own objects; `tests/web/cases/lazy_setup.js` shows it.
//!
//! Each process compiles these files once, in an isolate that runs nothing else ([`compile_lazy_files`]); instances take
//! what came of it.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use v8::MapFnTo;

use super::bootstrap;
use super::exception::exception_from;
use super::host::Exception;
use super::op::{OpError, ops, string, text, throw};

ops![op_lazy_global, op_lazy_provider, op_lazy_script];

/// The file that uses the others, so that V8 compiles what most tenants need of them.
const USE: &str = "91_use.js";

/// What V8 compiled of each file.
static CODE: OnceLock<HashMap<&'static str, Box<[u8]>>> = OnceLock::new();
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// What has become of the compiled code in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LazyCode {
    /// Files for which there is some.
    pub files: usize,
    /// How often V8 took it.
    pub taken: usize,
    /// How often V8 refused it and compiled the file anew, which should not happen.
    pub refused: usize,
}

/// Files that this isolate has run, in its slot while it serves [`compile_lazy_files`].
#[derive(Default)]
struct Files(Vec<(&'static str, v8::Global<v8::Function>)>);

/// Runs all lazy files in the current context, which nobody may use for anything else, and keeps what V8 compiled.
///
/// # Errors
///
/// What a file threw: a defect of this layer.
pub fn compile_lazy_files(scope: &mut v8::PinScope<'_, '_>) -> Result<(), Exception> {
    scope.set_slot(Files::default());
    let used = {
        v8::tc_scope!(let scope, scope);
        let file = string(scope, USE).into();
        let ran = call_provider(scope, file).is_some();
        // Of streams that it began to read.
        scope.perform_microtask_checkpoint();
        match scope.exception() {
            Some(exception) if !ran => Err(exception_from(scope, exception)),
            _ => Ok(()),
        }
    };
    let files = scope.remove_slot::<Files>().unwrap_or_default();
    used?;
    let code = files
        .0
        .into_iter()
        .filter_map(|(name, function)| {
            let code = v8::Local::new(scope, function).create_code_cache()?;
            Some((name, Box::from(&code[..])))
        })
        .collect();
    // Only the first in a process counts.
    let _ = CODE.set(code);
    Ok(())
}

/// See [`LazyCode`].
pub fn lazy_code() -> LazyCode {
    LazyCode {
        files: CODE.get().map_or(0, HashMap::len),
        taken: TAKEN.load(Ordering::Relaxed),
        refused: REFUSED.load(Ordering::Relaxed),
    }
}

/// What was compiled of a file.
pub(super) fn code_of(name: &str) -> Option<&'static [u8]> {
    CODE.get()?.get(name).map(|code| &**code)
}

/// Whether V8 took what was compiled of a file.
pub(super) fn note(name: &str, taken: bool) {
    if taken {
        TAKEN.fetch_add(1, Ordering::Relaxed);
    } else {
        REFUSED.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            name,
            "V8 refused what it had compiled of a file of the Web API layer"
        );
    }
}

/// The getter of all lazy globals, as snapshots refer to it.
pub(super) fn reference() -> v8::ExternalReference {
    let getter: v8::AccessorNameGetterCallback = provide.map_fn_to();
    v8::ExternalReference {
        pointer: getter as *mut std::ffi::c_void,
    }
}

/// Private property of the global object: the function that gives a lazy global's value. The getters share it, because what
/// hangs on an accessor is no part of a context in a snapshot, and a function there would bring a context of its own along.
const PROVIDER: &str = "isolet:provide";

/// `(global, provide)`: `provide(name)` gives a lazy global's value.
fn op_lazy_provider(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _rv: v8::ReturnValue<'_, v8::Value>,
) {
    let Ok(global) = v8::Local::<v8::Object>::try_from(args.get(0)) else {
        return throw(scope, OpError::Type("expected an object"));
    };
    let key = provider_key(scope);
    global.set_private(scope, key, args.get(1));
}

/// `(global, name, enumerable)`: defines a property that has its value once somebody reads it.
fn op_lazy_global(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    _rv: v8::ReturnValue<'_, v8::Value>,
) {
    let (Ok(global), Ok(name)) = (
        v8::Local::<v8::Object>::try_from(args.get(0)),
        v8::Local::<v8::Name>::try_from(args.get(1)),
    ) else {
        return throw(scope, OpError::Type("expected an object and a name"));
    };
    let attributes = if args.get(2).is_true() {
        v8::PropertyAttribute::NONE
    } else {
        v8::PropertyAttribute::DONT_ENUM
    };
    global.set_lazy_data_property_with_data(
        scope,
        name,
        provide,
        v8::undefined(scope).into(),
        attributes,
        v8::SideEffectType::HasSideEffect,
        v8::SideEffectType::HasSideEffect,
    );
}

/// V8 calls this at the first read; what it leaves as its return value becomes the property's value, unless it throws.
fn provide(
    scope: &mut v8::PinScope<'_, '_>,
    name: v8::Local<'_, v8::Name>,
    _args: v8::PropertyCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    if let Some(value) = call_provider(scope, name.into()) {
        rv.set(value);
    }
}

/// Calls `internals.provide`. Without a value there is an exception.
fn call_provider<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    name: v8::Local<'_, v8::Value>,
) -> Option<v8::Local<'s, v8::Value>> {
    let key = provider_key(scope);
    let global = scope.get_current_context().global(scope);
    let provider = global
        .get_private(scope, key)
        .and_then(|value| v8::Local::<v8::Function>::try_from(value).ok());
    let Some(provider) = provider else {
        throw(scope, OpError::Type("the snapshot has no lazy globals"));
        return None;
    };
    let receiver = v8::undefined(scope).into();
    provider.call(scope, receiver, &[name])
}

fn provider_key<'s>(scope: &mut v8::PinScope<'s, '_>) -> v8::Local<'s, v8::Private> {
    let name = string(scope, PROVIDER);
    v8::Private::for_api(scope, Some(name))
}

/// `(file)`: the file as a function of its parameters, not called yet.
fn op_lazy_script(
    scope: &mut v8::PinScope<'_, '_>,
    args: v8::FunctionCallbackArguments<'_>,
    mut rv: v8::ReturnValue<'_, v8::Value>,
) {
    let name = match text(scope, args.get(0)) {
        Ok(name) => name,
        Err(error) => return throw(scope, error),
    };
    let Some(script) = bootstrap::lazy_script(&name) else {
        return throw(scope, OpError::Type("there is no such file"));
    };
    // Without a function V8 has thrown: the stack is full, or the instance is ended.
    let Some(function) = bootstrap::compile(scope, script) else {
        return;
    };
    let kept = v8::Global::new(scope, function);
    if let Some(files) = scope.get_slot_mut::<Files>() {
        files.0.push((script.name, kept));
    }
    rv.set(function.into());
}
