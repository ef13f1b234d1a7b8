//! Runs `js/*.js` in the context of a snapshot, and names the native functions that the snapshot refers to.
//!
//! Each file is a function body with the parameters `primordials`, `ops`, `internals` and `globalThis`; the objects behind
//! the first three are reachable from closures only, never from a tenant's code. The snapshot holds what `SCRIPTS` made;
//! `LAZY_SCRIPTS` run in an instance that uses them (`lazy`), because each instance has its own copy of the heap.

use std::collections::BTreeSet;

use v8::script_compiler::{CachedData, CompileOptions, NoCacheReason, Source, compile_function};

use super::exception::{INTERNAL_SCHEME, exception_from};
use super::host::Exception;
use super::lazy;
use super::op::{Op, string};

/// Context data of the snapshot, in this order.
pub(super) const ENTRY_NAMES: [&str; 7] = [
    "load", "start", "dispatch", "complete", "abort", "underWay", "warm",
];

/// Its source stays in the program's read-only data: every isolate points there, none has a copy. It must be ASCII.
pub(super) struct Script {
    pub(super) name: &'static str,
    source: v8::OneByteConst,
    text: &'static str,
    parameters: &'static [&'static str],
}

const fn script(
    name: &'static str,
    text: &'static str,
    parameters: &'static [&'static str],
) -> Script {
    Script {
        name,
        source: v8::String::create_external_onebyte_const(text.as_bytes()),
        text,
        parameters,
    }
}

macro_rules! scripts {
    ($($name:literal),* $(,)?) => {
        [$(script($name, include_str!(concat!("js/", $name)), &PARAMETERS)),*]
    };
}

const PARAMETERS: [&str; 4] = ["primordials", "ops", "internals", "globalThis"];

static SCRIPTS: [Script; 19] = scripts![
    "00_primordials.js",
    "01_errors.js",
    "02_lazy.js",
    "10_completions.js",
    "13_timers.js",
    "20_streams.js",
    "30_headers.js",
    "31_body.js",
    "37_request.js",
    "38_response.js",
    "39_pump.js",
    "40_fetch.js",
    "60_clone.js",
    "70_clock.js",
    "72_wasm.js",
    "73_buffers.js",
    "80_dispatch.js",
    "90_warm.js",
    "99_global.js",
];

static LAZY_SCRIPTS: [Script; 12] = scripts![
    "11_events.js",
    "12_abort.js",
    "21_streams.js",
    "34_url.js",
    "35_encoding.js",
    "36_blob.js",
    "41_text_streams.js",
    "50_inspect.js",
    "51_console.js",
    "71_crypto.js",
    "73_performance.js",
    "91_use.js",
];
/// The vendored streams are a UMD file: it fills `exports`. What else it uses of the language comes from `21_streams.js`.
static STREAMS: Script = script(
    "streams.js",
    include_str!("../../../vendor/web-streams/ponyfill.js"),
    &[
        "exports",
        "module",
        "globalThis",
        "queueMicrotask",
        "AbortController",
        "Math",
        "Number",
        "Object",
        "Promise",
        "Symbol",
    ],
);

/// A file that is run when it is needed.
pub(super) fn lazy_script(name: &str) -> Option<&'static Script> {
    LAZY_SCRIPTS
        .iter()
        .chain([&STREAMS])
        .find(|script| script.name == name)
}

fn all_ops() -> Vec<Op> {
    [
        super::clock::ops(),
        super::wasm::ops(),
        super::clone::ops(),
        super::console::ops(),
        super::crypto::ops(),
        super::encoding::ops(),
        super::fetch::ops(),
        super::http::ops(),
        lazy::ops(),
        super::url::ops(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every native function and source text that the snapshot refers to; the same list must be given to the creator and to every isolate.
pub fn external_references() -> Vec<v8::ExternalReference> {
    all_ops()
        .into_iter()
        .map(|op| v8::ExternalReference {
            function: op.callback,
        })
        .chain(SCRIPTS.iter().map(|script| v8::ExternalReference {
            pointer: std::ptr::from_ref(&script.source).cast_mut().cast(),
        }))
        .chain([lazy::reference()])
        .chain([v8::ExternalReference {
            pointer: std::ptr::null_mut(),
        }])
        .collect()
}

/// Runs this layer's scripts in the current, fresh context of a snapshot creator and adds the entry points to the
/// context's data, where [`super::Entrypoints::load`] finds them.
///
/// # Errors
///
/// What a script threw: a defect of this layer.
pub fn bootstrap(scope: &mut v8::PinScope<'_, '_>) -> Result<(), Exception> {
    let context = scope.get_current_context();
    let internals = run_scripts(scope)?;
    // Nothing may wait in the queue: a snapshot does not hold it.
    scope.perform_microtask_checkpoint();
    for name in ENTRY_NAMES {
        let key = string(scope, name);
        let entry = internals
            .get(scope, key.into())
            .and_then(|value| v8::Local::<v8::Function>::try_from(value).ok())
            .ok_or_else(|| Exception {
                message: format!("the entry point {name} is missing"),
                ..Exception::default()
            })?;
        scope.add_context_data(context, entry);
    }
    Ok(())
}

fn run_scripts<'s>(
    scope: &mut v8::PinScope<'s, '_>,
) -> Result<v8::Local<'s, v8::Object>, Exception> {
    let null = v8::null(scope).into();
    let primordials = v8::Object::with_prototype_and_properties(scope, null, &[], &[]);
    let internals = v8::Object::with_prototype_and_properties(scope, null, &[], &[]);
    let ops = v8::Object::with_prototype_and_properties(scope, null, &[], &[]);
    for op in all_ops() {
        let key = string(scope, op.name);
        let function = v8::Function::builder_raw(op.callback)
            .constructor_behavior(v8::ConstructorBehavior::Throw)
            .build(scope)
            .ok_or_else(unexpected)?;
        ops.set(scope, key.into(), function.into())
            .ok_or_else(unexpected)?;
    }
    let key = string(scope, "primordialNames");
    let names: Vec<_> = primordial_names()
        .into_iter()
        .map(|name| string(scope, name).into())
        .collect();
    let names = v8::Array::new_with_elements(scope, &names);
    internals
        .set(scope, key.into(), names.into())
        .ok_or_else(unexpected)?;
    let context = scope.get_current_context();
    let global = context.global(scope);
    let arguments = [
        primordials.into(),
        ops.into(),
        internals.into(),
        global.into(),
    ];
    for script in &SCRIPTS {
        run(scope, script, &arguments)?;
    }
    Ok(internals)
}

/// What may be the name of a primordial in the files: no others are kept, because each takes memory in every instance.
fn primordial_names() -> BTreeSet<&'static str> {
    SCRIPTS
        .iter()
        .skip(1)
        .chain(&LAZY_SCRIPTS)
        .flat_map(|script| script.text.split(|c: char| !c.is_ascii_alphanumeric()))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
        .collect()
}

/// Compiles a file into a function of its parameters. Where there is none V8 has thrown.
pub(super) fn compile<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    script: &'static Script,
) -> Option<v8::Local<'s, v8::Function>> {
    let parameters: Vec<_> = script
        .parameters
        .iter()
        .map(|name| string(scope, name))
        .collect();
    let source = v8::String::new_from_onebyte_const(scope, &script.source)?;
    let name = string(scope, &format!("{INTERNAL_SCHEME}{}", script.name));
    let origin = v8::ScriptOrigin::new(
        scope,
        name.into(),
        0,
        0,
        false,
        0,
        None,
        false,
        false,
        false,
        None,
    );
    let code = lazy::code_of(script.name);
    let mut source = match code {
        Some(code) => Source::new_with_cached_data(source, Some(&origin), CachedData::new(code)),
        None => Source::new(source, Some(&origin)),
    };
    let options = match code {
        Some(_) => CompileOptions::ConsumeCodeCache,
        None => CompileOptions::NoCompileOptions,
    };
    let reason = NoCacheReason::NoReason;
    let function = compile_function(scope, &mut source, &parameters, &[], options, reason);
    if code.is_some() {
        let taken = source
            .get_cached_data()
            .is_some_and(|code| !code.rejected());
        lazy::note(script.name, taken);
    }
    function
}

fn run(
    scope: &mut v8::PinScope<'_, '_>,
    script: &'static Script,
    arguments: &[v8::Local<'_, v8::Value>],
) -> Result<(), Exception> {
    v8::tc_scope!(let scope, scope);
    let function = compile(scope, script);
    let receiver = v8::undefined(scope).into();
    let result = function.and_then(|function| function.call(scope, receiver, arguments));
    if result.is_some() {
        return Ok(());
    }
    match (scope.exception(), scope.message()) {
        (Some(exception), Some(message)) => {
            let line = message.get_line_number(scope);
            let mut exception = exception_from(scope, exception);
            exception.line = line.and_then(|line| u32::try_from(line).ok());
            exception.file = Some(format!("{INTERNAL_SCHEME}{}", script.name));
            Err(exception)
        }
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Exception {
    Exception {
        message: "V8 refused without an exception".to_owned(),
        ..Exception::default()
    }
}
