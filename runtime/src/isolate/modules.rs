//! A bundle's modules in V8: all of them are compiled and their imports checked before any runs.
//!
//! Imports resolve among the bundle's modules by `isolet_crds::resolve`, the resolver that the bundler used. WebAssembly,
//! JSON and text become synthetic modules with one default export.

use std::collections::HashMap;

use isolet_crds::bundle::{ModuleEntry, ModuleKind};
use isolet_crds::resolve::resolve;
use v8::script_compiler::{CachedData, CompileOptions, NoCacheReason, Source, compile_module2};

use super::code::CodeCache;
use super::instance::{CodeUse, Content};
use super::wasm::bound_memory;
use super::{Blueprint, Positions, ffi};
use crate::control::LoadError;

type Scope<'s, 'i> = v8::PinScope<'s, 'i>;

/// Modules of an isolate, in its slot.
#[derive(Default)]
pub(super) struct ModuleTable {
    by_path: HashMap<String, v8::Global<v8::Module>>,
    by_module: HashMap<v8::Global<v8::Module>, Entry>,
    /// WebAssembly may be compiled: only while the bundle's own modules are.
    compiling: bool,
}

struct Entry {
    path: String,
    /// What a synthetic module exports.
    value: Option<v8::Global<v8::Value>>,
}

/// Installs the callbacks of modules and of code generation.
pub(super) fn install(isolate: &mut v8::Isolate) {
    isolate.set_slot(ModuleTable::default());
    isolate.set_allow_wasm_code_generation_callback(may_compile_wasm);
    isolate.set_host_initialize_import_meta_object_callback(import_meta);
    isolate.set_host_import_module_dynamically_callback(import_dynamically);
}

/// Compiles every module, checks every import, and links the main one.
pub(super) fn link<'s>(
    scope: &mut Scope<'s, '_>,
    blueprint: &Blueprint,
) -> Result<(v8::Local<'s, v8::Module>, CodeUse), LoadError> {
    let positions = &blueprint.positions;
    let mut code_use = CodeUse::default();
    set_compiling(scope, true);
    let compiled = blueprint
        .modules()
        .try_for_each(|(entry, content)| add(scope, entry, content, blueprint, &mut code_use));
    set_compiling(scope, false);
    compiled?;
    check_imports(scope, blueprint)?;
    let path = &blueprint.manifest.main;
    let main = module(scope, path).ok_or_else(|| {
        positions.load_error(
            &format!("spec.main names {path}, which is not among the function's modules"),
            None,
        )
    })?;
    v8::tc_scope!(let scope, scope);
    match main.instantiate_module(scope, resolve_import) {
        Some(true) => Ok((main, code_use)),
        _ => Err(caught(scope, positions)),
    }
}

/// What a scope caught, with the place that V8 names.
pub(super) fn caught<'s, 'obj, 'iso>(
    scope: &mut v8::PinnedRef<'_, v8::TryCatch<'s, 'obj, v8::HandleScope<'iso>>>,
    positions: &Positions,
) -> LoadError {
    let Some(exception) = scope.exception() else {
        return positions.load_error("the module could not be loaded", None);
    };
    let problem = crate::web::exception_from(scope, exception).message;
    let Some(message) = scope.message() else {
        return positions.load_error(&problem, None);
    };
    let place = place(scope, message);
    positions.load_error(&problem, place.as_ref().map(Place::parts))
}

/// Where V8 says that something happened, counting from 1.
pub(super) struct Place {
    file: String,
    line: u32,
    column: u32,
}

impl Place {
    pub(super) fn parts(&self) -> (&str, u32, u32) {
        (&self.file, self.line, self.column)
    }
}

/// The place that a message names, if it names one.
pub(super) fn place(scope: &Scope<'_, '_>, message: v8::Local<'_, v8::Message>) -> Option<Place> {
    let file = message.get_script_resource_name(scope)?;
    Some(Place {
        file: file.to_rust_string_lossy(scope),
        line: u32::try_from(message.get_line_number(scope)?).ok()?,
        // Without a column V8 gives -1.
        column: u32::try_from(message.get_start_column())
            .ok()
            .and_then(|column| column.checked_add(1))
            .unwrap_or(1),
    })
}

fn add(
    scope: &mut Scope<'_, '_>,
    entry: &ModuleEntry,
    content: &Content,
    blueprint: &Blueprint,
    code_use: &mut CodeUse,
) -> Result<(), LoadError> {
    let positions = &blueprint.positions;
    let refuse = |problem: &str| positions.load_error(problem, Some((&entry.path, 1, 1)));
    let text = |scope: &mut Scope<'_, '_>| {
        let Content::Text(text) = content else {
            return Err(refuse("the module is not UTF-8"));
        };
        let text = ffi::shared_text(scope, text).ok_or_else(|| refuse("the module is too long"))?;
        Ok(v8::Global::new(scope, text))
    };
    v8::tc_scope!(let scope, scope);
    let (module, value) = match entry.kind {
        ModuleKind::JavaScript => {
            let source = text(scope)?;
            let source = v8::Local::new(scope, source);
            let code = blueprint.code();
            let Some(module) = compile(scope, &entry.path, source, code, code_use) else {
                return Err(caught(scope, positions));
            };
            (module, None)
        }
        ModuleKind::WebAssembly => {
            let limit_bytes = blueprint.manifest.limits.memory_bytes as usize;
            let bounded = bound_memory(content.bytes(), limit_bytes)
                .map_err(|error| refuse(&error.to_string()))?;
            let Some(module) = v8::WasmModuleObject::compile(scope, &bounded.module) else {
                let error = caught(scope, positions);
                return Err(refuse(&error.message));
            };
            crate::web::set_wasm_maximum(scope, module.into(), bounded.maximum_bytes);
            synthetic(scope, &entry.path, module.into())
        }
        ModuleKind::Json => {
            let source = text(scope)?;
            let source = v8::Local::new(scope, source);
            let Some(value) = v8::json::parse(scope, source) else {
                let error = caught(scope, positions);
                return Err(refuse(&error.message));
            };
            synthetic(scope, &entry.path, value)
        }
        ModuleKind::Text => {
            let text = text(scope)?;
            let text = v8::Local::new(scope, text);
            synthetic(scope, &entry.path, text.into())
        }
    };
    let module = v8::Global::new(scope, module);
    if let Some(table) = scope.get_slot_mut::<ModuleTable>() {
        table.by_path.insert(entry.path.clone(), module.clone());
        table.by_module.insert(
            module,
            Entry {
                path: entry.path.clone(),
                value,
            },
        );
    }
    Ok(())
}

fn compile<'s>(
    scope: &Scope<'s, '_>,
    path: &str,
    source: v8::Local<'s, v8::String>,
    code: &CodeCache,
    code_use: &mut CodeUse,
) -> Option<v8::Local<'s, v8::Module>> {
    let origin = origin(scope, path)?;
    let Some(compiled) = code.of(path) else {
        let mut unknown = Source::new(source, Some(&origin));
        let options = if CodeCache::is_larger(source.length()) {
            CompileOptions::NoCompileOptions
        } else {
            CompileOptions::EagerCompile
        };
        return compile_module2(scope, &mut unknown, options, NoCacheReason::NoReason);
    };
    let compiled = CachedData::new(&compiled);
    let mut source = Source::new_with_cached_data(source, Some(&origin), compiled);
    let options = CompileOptions::ConsumeCodeCache;
    let module = compile_module2(scope, &mut source, options, NoCacheReason::NoReason);
    if source.get_cached_data().is_none_or(CachedData::rejected) {
        tracing::debug!(path, "V8 refused what it had compiled before");
        code.drop_refused(path);
        code_use.refused += 1;
    } else {
        code_use.accepted += 1;
    }
    module
}

fn origin<'s>(scope: &Scope<'s, '_>, path: &str) -> Option<v8::ScriptOrigin<'s>> {
    let name = v8::String::new(scope, path)?.into();
    Some(v8::ScriptOrigin::new(
        scope, name, 0, 0, false, 0, None, false, false, true, None,
    ))
}

/// What V8 has compiled of the modules.
pub(super) fn compiled(scope: &Scope<'_, '_>, blueprint: &Blueprint) -> Vec<(String, Vec<u8>)> {
    blueprint
        .javascript()
        .filter_map(|(entry, _)| {
            let module = module(scope, &entry.path)?;
            Some((entry.path.clone(), code_of(scope, module)?))
        })
        .collect()
}

/// Compiles the modules of which the agent keeps the code, and runs nothing. Those that V8 does not compile are left out.
pub(super) fn compile_alone(
    scope: &mut Scope<'_, '_>,
    blueprint: &Blueprint,
    options: CompileOptions,
) -> Vec<(String, Vec<u8>)> {
    blueprint
        .larger_modules()
        .filter_map(|(entry, content)| {
            let Content::Text(text) = content else {
                return None;
            };
            v8::tc_scope!(let scope, scope);
            let text = ffi::shared_text(scope, text)?;
            let mut source = Source::new(text, Some(&origin(scope, &entry.path)?));
            let module = compile_module2(scope, &mut source, options, NoCacheReason::NoReason)?;
            Some((entry.path.clone(), code_of(scope, module)?))
        })
        .collect()
}

fn code_of(scope: &Scope<'_, '_>, module: v8::Local<'_, v8::Module>) -> Option<Vec<u8>> {
    let script = module.get_unbound_module_script(scope);
    Some(script.create_code_cache()?.to_vec())
}

fn synthetic<'s>(
    scope: &Scope<'s, '_>,
    path: &str,
    value: v8::Local<'s, v8::Value>,
) -> (v8::Local<'s, v8::Module>, Option<v8::Global<v8::Value>>) {
    let name = v8::String::new(scope, path).unwrap_or_else(|| v8::String::empty(scope));
    let default = default_name(scope);
    let module = v8::Module::create_synthetic_module(scope, name, &[default], evaluate_synthetic);
    (module, Some(v8::Global::new(scope, value)))
}

/// Every import of every module names a module; the first that does not is the error, where it stands.
fn check_imports(scope: &Scope<'_, '_>, blueprint: &Blueprint) -> Result<(), LoadError> {
    for entry in &blueprint.manifest.modules {
        let Some(module) = module(scope, &entry.path) else {
            continue;
        };
        if !module.is_source_text_module() {
            continue;
        }
        let requests = module.get_module_requests();
        for at in 0..requests.length() {
            let Some(request) = requests
                .get(scope, at)
                .and_then(|request| v8::Local::<v8::ModuleRequest>::try_from(request).ok())
            else {
                continue;
            };
            let specifier = request.get_specifier().to_rust_string_lossy(scope);
            if let Err(error) = resolve(&entry.path, &specifier, |path| exists(scope, path)) {
                let place = module.source_offset_to_location(request.get_source_offset());
                let line = place.get_line_number() as u32 + 1;
                let column = place.get_column_number() as u32 + 1;
                let positions = &blueprint.positions;
                return Err(
                    positions.load_error(&error.to_string(), Some((&entry.path, line, column)))
                );
            }
        }
    }
    Ok(())
}

fn default_name<'s>(scope: &Scope<'s, '_>) -> v8::Local<'s, v8::String> {
    v8::String::new(scope, "default").unwrap_or_else(|| v8::String::empty(scope))
}

fn set_compiling(scope: &mut Scope<'_, '_>, compiling: bool) {
    if let Some(table) = scope.get_slot_mut::<ModuleTable>() {
        table.compiling = compiling;
    }
}

fn exists(scope: &Scope<'_, '_>, path: &str) -> bool {
    scope
        .get_slot::<ModuleTable>()
        .is_some_and(|table| table.by_path.contains_key(path))
}

fn module<'s>(scope: &Scope<'s, '_>, path: &str) -> Option<v8::Local<'s, v8::Module>> {
    let module = scope.get_slot::<ModuleTable>()?.by_path.get(path)?;
    Some(v8::Local::new(scope, module))
}

fn throw(scope: &Scope<'_, '_>, problem: &str) {
    if let Some(problem) = v8::String::new(scope, problem) {
        let error = v8::Exception::type_error(scope, problem);
        scope.throw_exception(error);
    }
}

/// V8 calls this while it links, for imports that `check_imports` has resolved already.
fn resolve_import<'s>(
    context: v8::Local<'s, v8::Context>,
    specifier: v8::Local<'s, v8::String>,
    _attributes: v8::Local<'s, v8::FixedArray>,
    referrer: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Module>> {
    v8::callback_scope!(unsafe scope, context);
    let referrer = v8::Global::new(scope, referrer);
    let specifier = specifier.to_rust_string_lossy(scope);
    let path = {
        let table = scope.get_slot::<ModuleTable>()?;
        let referrer = &table.by_module.get(&referrer)?.path;
        resolve(referrer, &specifier, |path| {
            table.by_path.contains_key(path)
        })
    };
    match path {
        Ok(path) => module(scope, &path),
        Err(error) => {
            throw(scope, &error.to_string());
            None
        }
    }
}

/// V8 calls this when it evaluates a module made by `synthetic`.
fn evaluate_synthetic<'s>(
    context: v8::Local<'s, v8::Context>,
    module: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Value>> {
    v8::callback_scope!(unsafe scope, context);
    let key = v8::Global::new(scope, module);
    let value = scope
        .get_slot::<ModuleTable>()?
        .by_module
        .get(&key)?
        .value
        .clone()?;
    let value = v8::Local::new(scope, value);
    let default = default_name(scope);
    module.set_synthetic_module_export(scope, default, value)?;
    let resolver = v8::PromiseResolver::new(scope)?;
    let undefined = v8::undefined(scope);
    resolver.resolve(scope, undefined.into());
    Some(resolver.get_promise(scope).into())
}

/// V8 calls this for each `import()`.
fn import_dynamically<'s>(
    scope: &mut Scope<'s, '_>,
    _options: v8::Local<'s, v8::Data>,
    referrer: v8::Local<'s, v8::Value>,
    specifier: v8::Local<'s, v8::String>,
    _attributes: v8::Local<'s, v8::FixedArray>,
) -> Option<v8::Local<'s, v8::Promise>> {
    let resolver = v8::PromiseResolver::new(scope)?;
    let promise = resolver.get_promise(scope);
    let referrer = referrer.to_rust_string_lossy(scope);
    let specifier = specifier.to_rust_string_lossy(scope);
    v8::tc_scope!(let scope, scope);
    let path = {
        let table = scope.get_slot::<ModuleTable>()?;
        resolve(&referrer, &specifier, |path| {
            table.by_path.contains_key(path)
        })
    };
    let module = match path {
        Ok(path) => module(scope, &path),
        Err(error) => {
            throw(scope, &error.to_string());
            None
        }
    };
    let evaluated = module.and_then(|module| {
        if module.get_status() == v8::ModuleStatus::Uninstantiated {
            module.instantiate_module(scope, resolve_import)?;
        }
        let evaluated = module.evaluate(scope)?;
        let evaluated = v8::Local::<v8::Promise>::try_from(evaluated).ok()?;
        let namespace = module.get_module_namespace();
        let give = v8::Function::builder(give_data)
            .data(namespace)
            .build(scope)?;
        evaluated.then(scope, give)
    });
    match (evaluated, scope.exception()) {
        (Some(evaluated), _) => {
            resolver.resolve(scope, evaluated.into());
        }
        (None, Some(exception)) if !scope.has_terminated() => {
            scope.reset();
            resolver.reject(scope, exception);
        }
        _ => {
            scope.rethrow();
            return None;
        }
    }
    Some(promise)
}

/// Returns what the function was made with: the namespace of a module that has been evaluated.
fn give_data(
    _scope: &mut Scope<'_, '_>,
    arguments: v8::FunctionCallbackArguments<'_>,
    mut result: v8::ReturnValue<'_, v8::Value>,
) {
    result.set(arguments.data());
}

/// V8 calls this at the first `import.meta` of a module.
extern "C" fn import_meta(
    context: v8::Local<'_, v8::Context>,
    module: v8::Local<'_, v8::Module>,
    meta: v8::Local<'_, v8::Object>,
) {
    v8::callback_scope!(unsafe scope, context);
    let key = v8::Global::new(scope, module);
    let Some(url) = scope
        .get_slot::<ModuleTable>()
        .and_then(|table| table.by_module.get(&key))
        .map(|entry| format!("file:///{}", entry.path))
    else {
        return;
    };
    if let (Some(name), Some(url)) = (v8::String::new(scope, "url"), v8::String::new(scope, &url)) {
        meta.create_data_property(scope, name.into(), url.into());
    }
}

/// V8 calls this before it compiles WebAssembly: allowed for the bundle's own modules, never for bytes made at run time.
extern "C" fn may_compile_wasm(
    context: v8::Local<'_, v8::Context>,
    _source: v8::Local<'_, v8::String>,
) -> bool {
    v8::callback_scope!(unsafe scope, context);
    scope
        .get_slot::<ModuleTable>()
        .is_some_and(|table| table.compiling)
}
