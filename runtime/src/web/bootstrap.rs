//! Runs `js/*.js` in the context of a snapshot, and names the native functions that the snapshot refers to.
//!
//! Each file is a function body with the parameters `primordials`, `ops`, `internals` and `globalThis`; the objects behind
//! the first three are reachable from closures only, never from a tenant's code.

use super::exception::{INTERNAL_SCHEME, exception_from};
use super::host::Exception;
use super::op::{Op, string};

/// Context data of the snapshot, in this order.
pub(super) const ENTRY_NAMES: [&str; 6] =
    ["load", "start", "dispatch", "complete", "abort", "underWay"];

/// Its source stays in the program's read-only data: every isolate points there, none has a copy. It must be ASCII.
struct Script {
    name: &'static str,
    source: v8::OneByteConst,
}

const fn source(text: &'static str) -> v8::OneByteConst {
    v8::String::create_external_onebyte_const(text.as_bytes())
}

macro_rules! scripts {
    ($($name:literal),* $(,)?) => {
        [$(Script { name: $name, source: source(include_str!(concat!("js/", $name))) }),*]
    };
}

/// The vendored streams are a UMD file: it fills `exports`.
static STREAMS: Script = Script {
    name: "streams.js",
    source: source(include_str!("../../../vendor/web-streams/ponyfill.js")),
};
/// After this file the streams are loaded.
const BEFORE_STREAMS: &str = "13_timers.js";

static SCRIPTS: [Script; 26] = scripts![
    "00_primordials.js",
    "01_errors.js",
    "10_completions.js",
    "11_events.js",
    "12_abort.js",
    "13_timers.js",
    "20_streams.js",
    "30_headers.js",
    "31_body.js",
    "34_url.js",
    "35_encoding.js",
    "36_blob.js",
    "37_request.js",
    "38_response.js",
    "39_pump.js",
    "40_fetch.js",
    "50_inspect.js",
    "51_console.js",
    "60_clone.js",
    "70_clock.js",
    "71_crypto.js",
    "72_wasm.js",
    "73_buffers.js",
    "80_dispatch.js",
    "90_warm.js",
    "99_global.js",
];

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
        .chain(
            SCRIPTS
                .iter()
                .chain([&STREAMS])
                .map(|script| v8::ExternalReference {
                    pointer: std::ptr::from_ref(&script.source).cast_mut().cast(),
                }),
        )
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
    let context = scope.get_current_context();
    let global = context.global(scope);
    let arguments = [
        primordials.into(),
        ops.into(),
        internals.into(),
        global.into(),
    ];
    for script in &SCRIPTS {
        let parameters = ["primordials", "ops", "internals", "globalThis"];
        run(scope, script, &parameters, &arguments)?;
        if script.name == BEFORE_STREAMS {
            run_streams(scope, internals)?;
        }
    }
    Ok(internals)
}

fn run_streams(
    scope: &mut v8::PinScope<'_, '_>,
    internals: v8::Local<'_, v8::Object>,
) -> Result<(), Exception> {
    let exports = v8::Object::new(scope);
    let module = v8::Object::new(scope);
    let key = string(scope, "streamsPonyfill");
    internals
        .set(scope, key.into(), exports.into())
        .ok_or_else(unexpected)?;
    let key = string(scope, "streamsGlobals");
    let globals = internals.get(scope, key.into()).ok_or_else(unexpected)?;
    let key = string(scope, "queueMicrotask");
    let queue_microtask = internals.get(scope, key.into()).ok_or_else(unexpected)?;
    let parameters = ["exports", "module", "globalThis", "queueMicrotask"];
    let arguments = [exports.into(), module.into(), globals, queue_microtask];
    run(scope, &STREAMS, &parameters, &arguments)
}

fn run(
    scope: &mut v8::PinScope<'_, '_>,
    script: &'static Script,
    parameters: &[&str],
    arguments: &[v8::Local<'_, v8::Value>],
) -> Result<(), Exception> {
    v8::tc_scope!(let scope, scope);
    let parameters: Vec<_> = parameters.iter().map(|name| string(scope, name)).collect();
    let source =
        v8::String::new_from_onebyte_const(scope, &script.source).ok_or_else(unexpected)?;
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
    let mut source = v8::script_compiler::Source::new(source, Some(&origin));
    let function = v8::script_compiler::compile_function(
        scope,
        &mut source,
        &parameters,
        &[],
        v8::script_compiler::CompileOptions::NoCompileOptions,
        v8::script_compiler::NoCacheReason::NoReason,
    );
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
            exception.file = Some(name.to_rust_string_lossy(scope));
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
